"""Hatchling's hook: the wheel requires what the kit needs in the lock's own versions, and no tool."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<rest>[^\\\n]*?) *\\$")
"""The first line of a package in the lock; hashes and who needs it follow."""


class Dependencies(MetadataHookInterface):
    """Fills in `project.dependencies`, which pyproject.toml leaves to the lock."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies. Raises ValueError where the lock is older than the group `run`."""
        root = Path(self.root)
        groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
        lock = (root / "requirements.txt").read_text(encoding="utf-8")
        metadata["dependencies"] = needed((name_of(each) for each in groups["run"]), lock)


def needed(direct: Iterable[str], lock: str) -> list[str]:
    """Return the lock's pins of these packages and of all that they need, in the lock's order."""
    pins, users = read(lock)
    wanted = set(direct)
    if missing := sorted(wanted - pins.keys()):
        raise ValueError(f"requirements.txt has no {', '.join(missing)}: make it again (CONTRIBUTING.md)")
    while more := {name for name in pins.keys() - wanted if users[name] & wanted}:
        wanted |= more
    return [pin for name, pin in pins.items() if name in wanted]


def read(lock: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return each package's pin with its marker, and the packages that need it: uv's `# via`."""
    pins: dict[str, str] = {}
    users: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pin := PIN.match(line):
            name = pin["name"]
            pins[name], users[name] = f"{name}=={pin['rest'].strip()}", set()
        elif user := re.match(r"^ +#(?: via)? +([a-z0-9-]+)", line):
            users[name].add(user[1])
    return pins, users


def name_of(requirement: str) -> str:
    """Return the package that a requirement is about, as the lock writes it."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
