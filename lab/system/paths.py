"""Where the kit's own files are: the data beside the code that it reads."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROVISION = REPOSITORY / "provision"
"""Shell that runs on machines, and the templates of their files."""

SUPPLY = REPOSITORY / "supply"
"""The pins of everything that goes into the golden machine."""
