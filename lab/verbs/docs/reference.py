"""The pages of docs/ that are generated from the code, so that they can't drift from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.system.paths import REPOSITORY
from lab.verbs.docs import decisions, exit_codes, lab_yaml, picture, verbs

Verbs = Mapping[str, Any]
"""invoke's tasks, which have no types that hold, by their names."""


def pages(known: Verbs) -> dict[Path, str]:
    """The text of each of these pages, and of the picture, by its path."""
    docs = REPOSITORY / "docs"
    return {
        docs / "verbs.md": verbs.page(known),
        docs / "exit-codes.md": exit_codes.page(),
        docs / "lab-yaml.md": lab_yaml.page(),
        docs / "decisions" / "README.md": decisions.page(),
        docs / "images" / picture.NAME: picture.drawn(),
    }


def write(known: Verbs) -> list[Path]:
    """Write those that differ from the code; return them."""
    differing = [
        (path, text)
        for path, text in pages(known).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in differing:
        path.write_text(text, encoding="utf-8")
    return [path for path, _ in differing]
