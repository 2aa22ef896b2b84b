"""Vagrant's boxes: lists the golden ones for a provider, adds and removes one.

Reads files, since Vagrant itself takes two seconds. Names contain the golden disk's content hash.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from lab.golden import disk
from lab.host.places import GOLDEN_BOX, as_folder, boxes_folder
from lab.model import Provider
from lab.providers.vagrant import ENVIRONMENT
from lab.system import process


def name(mark: str) -> str:
    """Return the name of the box for the golden disk of that key."""
    return f"{GOLDEN_BOX}{mark}"


def key(box: str) -> str:
    """Return the key of the disk in the box of that name."""
    return box.removeprefix(GOLDEN_BOX)


def folder(box: str, provider: Provider) -> Path | None:
    """Return the folder with a box's files; None if Vagrant has no such box."""
    found = boxes_folder().glob(f"{as_folder(box)}/*/{provider}/metadata.json")
    return next((path.parent for path in sorted(found)), None)


def exists(box: str, provider: Provider) -> bool:
    """Whether Vagrant has the box of that name."""
    return folder(box, provider) is not None


def bill_of_materials(box: str, provider: Provider) -> str:
    """Return the bill of materials of a box's disk, as JSON text; "" if there is no such box."""
    found = folder(box, provider)
    return (found / disk.BILL).read_text(encoding="utf-8") if found else ""


def baked(provider: Provider) -> list[str]:
    """The names of all golden boxes for a provider."""
    found = boxes_folder().glob(f"{as_folder(GOLDEN_BOX)}*/*/{provider}/metadata.json")
    return sorted({path.parents[2].name.replace("-VAGRANTSLASH-", "/") for path in found})


def pack(folder: Path, names: Iterable[str]) -> Path:
    """Create a box file from files in that folder, in the same folder, and return its path."""
    box = folder / "golden.box"
    with tarfile.open(box, "w") as packed:
        for each in names:
            packed.add(folder / each, each)
    return box


def add(box: str, provider: Provider, file: Path, log: Path) -> None:
    """Add a box file to Vagrant; nothing is downloaded. Raises CommandFailed."""
    process.run(
        ["vagrant", "box", "add", "--provider", provider, "--name", box, file],
        env=ENVIRONMENT,
        log=log,
        timeout=600,
        hint="Vagrant keeps boxes in ~/.vagrant.d, which needs 1 GiB of free space (`./inv doctor`)",
    )


def remove(box: str, provider: Provider) -> None:
    """Remove a box."""
    words = ["vagrant", "box", "remove", box, "--provider", provider, "--all", "--force"]
    process.run(words, env=ENVIRONMENT, timeout=120)
