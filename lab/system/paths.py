"""Where the kit's own data files are, in a checkout or in an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "files"

IS_CHECKOUT = not _INSTALLED.is_dir()
"""Whether this is a checkout of the repository, with its tests, and no installed package."""

REPOSITORY = _PACKAGE.parent if IS_CHECKOUT else _INSTALLED
"""The checkout, or what the package has of it: pyproject.toml lists that."""

COMMAND = "./inv" if IS_CHECKOUT else "ha-lab"
"""What starts the kit, as a user types it."""

PROVISION = REPOSITORY / "provision"
"""Shell scripts that run on machines, and templates of their files."""

SUPPLY = REPOSITORY / "supply"
"""The pinned versions and hashes of everything that goes into the golden machine."""


def in_repository(path: Path) -> Path:
    """Return the path that one of the kit's files has in the repository, wherever it is here."""
    return path.relative_to(REPOSITORY if path.is_relative_to(REPOSITORY) else _PACKAGE.parent)


def line_end_problem(folder: Path = PROVISION) -> str | None:
    """Why the files for machines can't be used; None where all their lines end with LF.

    An editor or a copy on Windows may convert them to CR LF, and `#!/bin/sh` then names no program.
    .gitattributes keeps Git from doing so.
    """
    wrong = sorted(path for path in folder.rglob("*") if path.is_file() and b"\r\n" in path.read_bytes())
    if not wrong:
        return None
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return (
        f"{wrong[0].relative_to(folder.parent)}{more}: lines end with CR LF, which machines' shells can't read"
    )
