"""docs/decisions/README.md, generated from the titles of the decisions."""

from __future__ import annotations

from pathlib import Path

from lab.system.paths import REPOSITORY

FOLDER = REPOSITORY / "docs" / "decisions"

HEAD = """\
# Decisions

Each page gives a question, the decision, the reasons for it, and its price.

This page is generated from the pages' titles by `./inv docs --write`.

"""


def page() -> str:
    """The text of the page."""
    return f"{HEAD}{''.join(map(_line, sorted(FOLDER.glob('[0-9]*.md'))))}"


def _line(path: Path) -> str:
    title = path.read_text(encoding="utf-8").partition("\n")[0]
    title = title.removeprefix("# ").removeprefix(f"{int(path.name[:4])}. ")
    return f"- {path.name[:4]}: [{title}]({path.name})\n"
