"""This room knows where the kit keeps what outlives a lab."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where builds are kept: the user's own cache folder, also under sudo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ha-lab"


def boxes_folder() -> Path:
    """Where Vagrant keeps boxes."""
    return Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d") / "boxes"


def disks_folder() -> Path:
    """Where golden disks are kept, one folder each (`lab/image/disk.py` says what is in it)."""
    return cache_folder() / "disks"
