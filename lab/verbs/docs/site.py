"""Builds a site from README.md and docs/, with ProperDocs and a theme that asks no other host for anything.

Pages keep their places, so a link that holds in the repository holds in the site. docs/README.md lists the
pages; the site's navigation is generated from it.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.errors import LabError
from lab.system.paths import REPOSITORY

SITE = REPOSITORY / "site"
THEME = Path(__file__).parent / "theme"
INDEX = "docs/README.md"
CHAPTERS = ("en", "ko")
"""Folders below docs/handout/ whose files are templates and no pages."""

Nav = list[dict[str, Any]]


def sources() -> list[Path]:
    """Every page, and every picture that pages show."""
    docs = REPOSITORY / "docs"
    found = [
        *sorted(REPOSITORY.glob("*.md")),
        *sorted(docs.rglob("*.md")),
        *sorted((docs / "images").glob("*")),
    ]
    return [path for path in found if path.parent.name not in CHAPTERS]


def navigation(index: str) -> Nav:
    """The site's navigation: the headings of docs/README.md, and the pages below each."""
    sections: Nav = [{"Home": "README.md"}]
    for title, body in re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", index, re.MULTILINE):
        pages = re.findall(r"^- \[([^\]]+)\]\(([^)#:]+)\)", body, re.MULTILINE)
        sections.append({title: [{name: _from_the_root(target)} for name, target in pages]})
    return sections


def _from_the_root(target: str) -> str:
    return target.removeprefix("../") if target.startswith("../") else f"docs/{target}"


def build(target: Path = SITE) -> list[str]:
    """Write the site into a folder, from nothing; return what is wrong with its links. Raises LabError."""
    from properdocs.commands.build import build as written
    from properdocs.config import load_config
    from properdocs.exceptions import ProperDocsException

    if target.exists() and any(target.iterdir()) and not (target / "index.html").exists():
        raise LabError(f"{target} holds something else than a site", hint="name another folder, or empty it")
    with TemporaryDirectory() as name, _complaints() as complaints:
        pages = Path(name) / "pages"
        for path in sources():
            copy = pages / path.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        file = Path(name) / "properdocs.yml"
        file.write_text("site_name: ha-lab\n", encoding="utf-8")
        try:
            written(
                load_config(
                    str(file),
                    docs_dir=str(pages),
                    site_dir=str(target),
                    nav=navigation((REPOSITORY / INDEX).read_text(encoding="utf-8")),
                    theme={"name": None, "custom_dir": str(THEME)},
                    plugins=[],
                    markdown_extensions=["tables", "fenced_code", "sane_lists", {"toc": {"permalink": "#"}}],
                    use_directory_urls=False,
                    validation={
                        "omitted_files": "ignore",
                        "links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"},
                    },
                )
            )
        except ProperDocsException as error:
            raise LabError(
                f"the site can't be built: {error}", hint="`./inv test --quick` names the page"
            ) from error
    return complaints


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What ProperDocs warns of, which it would print beside what it does."""
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger = logging.getLogger("properdocs")
    handler, before = Kept(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
