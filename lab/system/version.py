"""The kit's version, from the one file that has it."""

from __future__ import annotations

import tomllib

from lab.system.paths import REPOSITORY


def version() -> str:
    """Return the version, as `ha-lab --version` prints it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])
