"""Vagrant's boxes: which golden ones it has for a provider, adding one and removing one.

Files are asked, since Vagrant itself takes two seconds. Names have the golden disk's content hash.
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
    """Return the name of the box with the golden disk of that key."""
    return f"{GOLDEN_BOX}{mark}"


def key(box: str) -> str:
    """Return the key of the disk that is in the box of that name."""
    return box.removeprefix(GOLDEN_BOX)


def folder(box: str, provider: Provider) -> Path | None:
    """Return where Vagrant keeps what is in a box; None when it has no such box."""
    found = boxes_folder().glob(f"{as_folder(box)}/*/{provider}/metadata.json")
    return next((path.parent for path in sorted(found)), None)


def exists(box: str, provider: Provider) -> bool:
    """Whether Vagrant has the box of that name."""
    return folder(box, provider) is not None


def bill_of_materials(box: str, provider: Provider) -> str:
    """Return the list, as JSON text, of what went into the disk in that box; "" where there is no such box."""
    found = folder(box, provider)
    return (found / disk.BILL).read_text(encoding="utf-8") if found else ""


def baked(provider: Provider) -> list[str]:
    """The names of all golden boxes for a provider."""
    found = boxes_folder().glob(f"{as_folder(GOLDEN_BOX)}*/*/{provider}/metadata.json")
    return sorted({path.parents[2].name.replace("-VAGRANTSLASH-", "/") for path in found})


def pack(folder: Path, names: Iterable[str]) -> Path:
    """Make a box file of files in that folder, in it, and return its path."""
    box = folder / "golden.box"
    with tarfile.open(box, "w") as packed:
        for each in names:
            packed.add(folder / each, each)
    return box


def add(box: str, provider: Provider, file: Path, log: Path) -> None:
    """Give Vagrant a box file; nothing is downloaded. Raises CommandFailed."""
    process.run(
        ["vagrant", "box", "add", "--provider", provider, "--name", box, file],
        env=ENVIRONMENT,
        log=log,
        timeout=600,
        hint="Vagrant keeps boxes in ~/.vagrant.d, which needs 1 GiB of room (`./inv doctor`)",
    )


def remove(box: str, provider: Provider) -> None:
    """Take a box from the shelf."""
    words = ["vagrant", "box", "remove", box, "--provider", provider, "--all", "--force"]
    process.run(words, env=ENVIRONMENT, timeout=120)
