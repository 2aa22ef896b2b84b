"""This room is Vagrant's shelf of boxes: which golden ones are there, for a provider, and putting one on it.

Files are asked, since Vagrant itself takes two seconds. Names have the golden disk's content hash.
"""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.host.places import boxes_folder
from lab.model import Provider

PREFIX = "ha-lab/golden-"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}


def name(mark: str) -> str:
    """Return the name of the box with the golden disk of that key."""
    return f"{PREFIX}{mark}"


def key(box: str) -> str:
    """Return the key of the disk that is in the box of that name."""
    return box.removeprefix(PREFIX)


def folder(box: str, provider: Provider) -> Path | None:
    """Return where Vagrant keeps what is in a box; None when it has no such box."""
    found = boxes_folder().glob(f"{as_folder(box)}/*/{provider}/metadata.json")
    return next((path.parent for path in sorted(found)), None)


def baked(provider: Provider) -> list[str]:
    """The names of all golden boxes for a provider."""
    found = boxes_folder().glob(f"{as_folder(PREFIX)}*/*/{provider}/metadata.json")
    return sorted({path.parents[2].name.replace("-VAGRANTSLASH-", "/") for path in found})


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


def as_folder(box: str) -> str:
    """What Vagrant calls the folder of a box, and its plugin for libvirt the volumes made of it."""
    return box.replace("/", "-VAGRANTSLASH-")
