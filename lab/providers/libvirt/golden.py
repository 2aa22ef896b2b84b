"""The golden disk as a Vagrant box for libvirt, named by its content hash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.golden import build, disk
from lab.host.places import as_folder
from lab.model import Lab
from lab.providers import boxes
from lab.providers.libvirt import virsh
from lab.providers.libvirt.host import COPY, TABLE_HEAD
from lab.system import process
from lab.system.progress import Progress

BOX = ("metadata.json", "Vagrantfile", "box.img", disk.BILL)
"""A box's files; the bill of materials is for the kit."""


def key(lab: Lab) -> str:
    """Return the box's content hash, which is that of its disk."""
    return disk.key(lab)


def name(lab: Lab) -> str:
    """Return the box's name."""
    return boxes.name(key(lab))


def exists(box: str) -> bool:
    """Whether Vagrant has the box of that name."""
    return boxes.exists(box, "libvirt")


def make(lab: Lab, progress: Progress) -> None:
    """Build the golden disk if it is missing, and add it as a box. Raises LabError."""
    made = disk.make(lab, progress)
    with (
        build.workshop(f"box-{key(lab)}", lambda: not exists(name(lab)), progress) as folder,
        progress.step("box", f"add it to Vagrant as {name(lab)}") as step,
    ):
        if folder is not None:
            boxes.add(name(lab), "libvirt", _pack(made, folder), step.log)


def bill_of_materials(box: str) -> str:
    """Return the golden disk's bill of materials, as JSON text."""
    return boxes.bill_of_materials(box, "libvirt")


def files(box: str, paths: Sequence[str], target: Path) -> None:
    """Write files and folders of the golden disk's root to a tar."""
    disk.files(boxes.key(box), paths, target)


def prune(lab: Lab) -> list[str]:
    """Remove every golden box except this lab's, with volumes in the pool and old disks; return their names.

    A volume that a machine is based on stays, and so does its box.
    """
    removed, volumes = [], _volumes(lab)
    for old in boxes.baked("libvirt"):
        # One for each time that the box was added.
        copies = [volume for volume in volumes if volume.startswith(f"{as_folder(old)}{COPY}")]
        if old != name(lab) and not _in_use(lab, copies, volumes):
            boxes.remove(old, "libvirt")
            for copy in copies:
                virsh.ask(virsh.settings_of(lab), "vol-delete", "--pool", _pool(lab), copy)
            removed += [old, *copies]
    return [*removed, *disk.prune(key(lab))]


def size(lab: Lab) -> int:
    """Return the golden disk's size on this host, in MiB; the pool has another copy."""
    return sum(path.stat().st_size for path in disk.folder(key(lab)).iterdir()) // 2**20 + 1


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Copy the golden disk to that folder, for another host's libvirt."""
    with progress.step("pack", f"pack {name(lab)}"):
        shutil.copytree(disk.folder(key(lab)), folder, dirs_exist_ok=True)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Import the golden disk from a folder that `pack` has filled, and add it to Vagrant."""
    if not disk.folder(key(lab)).exists():
        disk.keep(folder, key(lab))
    make(lab, progress)


def _pack(made: Path, folder: Path) -> Path:
    """Create a box: a tar of the disk and vagrant-libvirt's metadata (format version 1)."""
    about = {"provider": "libvirt", "format": "qcow2", "virtual_size": disk.VIRTUAL_GIB}
    (folder / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    # Empty; the lab's Vagrantfile has all settings.
    (folder / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n', encoding="utf-8")
    os.link(made, folder / "box.img")
    os.link(made.parent / disk.BILL, folder / disk.BILL)
    return boxes.pack(folder, BOX)


def _volumes(lab: Lab) -> list[str]:
    """The names of the pool's volumes; empty if there is no pool yet."""
    listed = _ask_pool(lab, "vol-list")
    return [line.split()[0] for line in listed.splitlines()[TABLE_HEAD:] if line.strip()]


def _in_use(lab: Lab, copies: list[str], volumes: list[str]) -> bool:
    """Whether a volume in the pool is based on one of a box's copies."""
    described = [_ask_pool(lab, "vol-dumpxml", each) for each in (volumes if copies else ())]
    stood_on = [text.partition("<backingStore>")[2] for text in described]
    return any(f"{copy}</path>" in text for copy in copies for text in stood_on)


def _ask_pool(lab: Lab, verb: str, *words: str) -> str:
    """What virsh prints about the lab's pool; "" if it fails."""
    asked = virsh.argv(virsh.settings_of(lab), verb, "--pool", _pool(lab), *words)
    return process.run(asked, accept=None, timeout=30).stdout


def _pool(lab: Lab) -> str:
    return virsh.settings_of(lab).pool
