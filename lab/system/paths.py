"""Where the kit's own data files are."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROVISION = REPOSITORY / "provision"
"""Shell scripts that run on machines, and templates of their files."""

SUPPLY = REPOSITORY / "supply"
"""The pinned versions and hashes of everything that goes into the golden machine."""


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
