"""Knows where the kit keeps what outlives a lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.errors import HostNotFit
from lab.host.facts import Folder
from lab.unknown import Unknown


def home() -> Path:
    """The user's home folder. Raises HostNotFit where there is no telling which that is."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise HostNotFit(
            "this user has no home folder: HOME is not set, and no account says it",
            hint="export HOME=FOLDER, a folder of yours; builds and boxes are kept there",
        ) from error


def cache_folder() -> Path:
    """Where builds are kept: the user's own cache folder, also under sudo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "ha-lab"


def may_exist(path: str) -> bool:
    """Whether something is there, for all that this user can see: another user's home shows nothing."""
    try:
        os.stat(path)
    except OSError as error:
        return not isinstance(error, (FileNotFoundError, NotADirectoryError))
    return True


def folder(path: Path) -> Folder | Unknown:
    """What can be said of a folder; of the nearest one above it where it isn't there yet."""
    try:
        there = next(p for p in (path, *path.parents) if p.exists() or p == p.parent)
        free = shutil.disk_usage(there).free // 2**20
        return Folder(path, free, there.stat().st_dev, os.access(there, os.W_OK | os.X_OK))
    except OSError as error:
        return Unknown(f"{path} can't be looked at: {error.strerror}")


def vagrant_home() -> Path:
    """Where Vagrant keeps boxes and plugins."""
    return Path(os.environ.get("VAGRANT_HOME") or home() / ".vagrant.d")


def boxes_folder() -> Path:
    """Where Vagrant keeps boxes."""
    return vagrant_home() / "boxes"


GOLDEN_BOX = "ha-lab/golden-"
"""How the names of golden boxes begin; the golden disk's content hash follows."""


def as_folder(box: str) -> str:
    """What Vagrant calls the folder of a box, and its plugin for libvirt the volumes made of it."""
    return box.replace("/", "-VAGRANTSLASH-")


def disks_folder() -> Path:
    """Where golden disks are kept, one folder each (`lab/golden/disk.py` says what is in it)."""
    return cache_folder() / "disks"
