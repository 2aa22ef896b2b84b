"""Where the kit keeps files that outlive a lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.errors import HostNotFit
from lab.host.facts import Folder
from lab.unknown import Unknown


def home() -> Path:
    """The user's home folder. Raises HostNotFit if it can't be determined."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise HostNotFit(
            "this user has no home folder: HOME is not set, and the account has none",
            hint="export HOME=FOLDER, a folder of yours; builds and boxes are kept there",
        ) from error


def cache_folder() -> Path:
    """Where builds are kept: the user's cache folder, also with sudo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "ha-lab"


def may_exist(path: str) -> bool:
    """Whether a path may exist: True, too, where this user has no access, as in another user's home."""
    try:
        os.stat(path)
    except OSError as error:
        return not isinstance(error, (FileNotFoundError, NotADirectoryError))
    return True


def folder(path: Path) -> Folder | Unknown:
    """Facts about a folder, or about its nearest existing parent."""
    try:
        there = next(p for p in (path, *path.parents) if p.exists() or p == p.parent)
        free = shutil.disk_usage(there).free // 2**20
        return Folder(path, free, there.stat().st_dev, os.access(there, os.W_OK | os.X_OK))
    except OSError as error:
        return Unknown(f"{path} can't be read: {error.strerror}")


def vagrant_home() -> Path:
    """Where Vagrant keeps boxes and plugins."""
    return Path(os.environ.get("VAGRANT_HOME") or home() / ".vagrant.d")


def boxes_folder() -> Path:
    """Where Vagrant keeps boxes."""
    return vagrant_home() / "boxes"


GOLDEN_BOX = "ha-lab/golden-"
"""The prefix of golden boxes' names; the golden disk's content hash follows."""


def as_folder(box: str) -> str:
    """The name that Vagrant gives a box's folder, and its libvirt plugin the volumes of the box."""
    return box.replace("/", "-VAGRANTSLASH-")


def disks_folder() -> Path:
    """Where golden disks are kept, one folder each (`lab/golden/disk.py` has its contents)."""
    return cache_folder() / "disks"
