"""The golden disk as a Vagrant box for VirtualBox, named by its content hash.

A box has the files that `VBoxManage import` reads, and Vagrant's metadata:

    box.ovf  box.mf         the machine in DMTF's OVF 1.0 (DSP0243) with VirtualBox's extensions; checksums
    box-disk001.vmdk        its disk, streamOptimized
    metadata.json  Vagrantfile  bom.json     Vagrant's; the bill of materials

The hardware is the minimum that boots: sizes, the lab's network and the disc with its key are set when machines
are created. VirtualBox can't run on build machines; docs/decisions/0020 has what was tested instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab.golden import build, disk
from lab.golden.supply.recipe import machine_architecture
from lab.model import Lab
from lab.providers import boxes
from lab.system import process
from lab.system.progress import Progress
from lab.workspace.render import template

OVF, SUMS, VMDK = "box.ovf", "box.mf", "box-disk001.vmdk"
FILES = (OVF, SUMS, VMDK, "metadata.json", "Vagrantfile", disk.BILL)
"""All files of a box. Vagrant adds files of its own beside them."""

CONTENT_ID = b"CID="
"""The VMDK descriptor's content id, which child disks refer to; qemu-img chooses a random one."""


def key(lab: Lab) -> str:
    """Return the box's content hash, which is that of its disk."""
    return disk.key(lab)


def name(lab: Lab) -> str:
    """Return the box's name."""
    return boxes.name(key(lab))


def exists(box: str) -> bool:
    """Whether Vagrant has the box of that name."""
    return boxes.exists(box, "virtualbox")


def make(lab: Lab, progress: Progress) -> None:
    """Build the golden disk if it is missing, and add it as a box. Raises LabError."""
    made = disk.make(lab, progress)
    with build.workshop(f"vbox-{key(lab)}", lambda: not exists(name(lab)), progress) as folder:
        if folder is None:
            return
        with progress.step("vmdk", "convert the disk for VirtualBox") as step:
            convert(made, folder / VMDK, step.log)
            describe(folder, key(lab))
            shutil.copy(made.parent / disk.BILL, folder)
        _add(lab, folder, progress)


def bill_of_materials(box: str) -> str:
    """Return the box's bill of materials, as JSON text."""
    return boxes.bill_of_materials(box, "virtualbox")


def files(box: str, paths: Sequence[str], target: Path) -> None:
    """Write files and folders of the golden disk's root to a tar."""
    disk.files(boxes.key(box), paths, target)


def prune(lab: Lab) -> list[str]:
    """Remove every golden box except this lab's, and old disks; return their names.

    The machine that Vagrant clones others from is removed with its box, unless clones are based on it.
    """
    removed = []
    for old in boxes.baked("virtualbox"):
        if old != name(lab) and _forget_master(old):
            boxes.remove(old, "virtualbox")
            removed.append(old)
    return [*removed, *disk.prune(key(lab))]


def size(lab: Lab) -> int:
    """Return the box's size, in MiB."""
    folder = _folder(lab)
    return sum((folder / each).stat().st_size for each in FILES) // 2**20 + 1


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Copy the box's files to that folder, for another host's Vagrant, which needs no other program."""
    with progress.step("pack", f"pack {name(lab)}"):
        for each in FILES:
            shutil.copyfile(_folder(lab) / each, folder / each)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Import the box from a folder that `pack` has filled."""
    _add(lab, folder, progress)


def convert(made: Path, vmdk: Path, log: Path) -> None:
    """Convert a golden disk for VirtualBox: compressed, as a stream."""
    words = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    process.run([*words, made, vmdk], log=log, timeout=1800)


def describe(folder: Path, mark: str) -> None:
    """Write all files except the disk and the bill of materials, for the disk in that folder.

    The same disk gives the same bytes.
    """
    _settle_content_id(folder / VMDK, mark)
    known = {
        "box": f"ha-lab-golden-{mark}",
        "machine": uuid.uuid5(uuid.NAMESPACE_OID, f"ha-lab machine {mark}"),
        "disk": uuid.uuid5(uuid.NAMESPACE_OID, f"ha-lab disk {mark}"),
        "file": VMDK,
        "bytes": (folder / VMDK).stat().st_size,
        "capacity": disk.VIRTUAL_GIB * 2**30,
    }
    (folder / OVF).write_text(template("box.ovf.j2", **known), encoding="utf-8")
    sums = (f"SHA256 ({each}) = {_sha256(folder / each)}\n" for each in (OVF, VMDK))
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    about = {"provider": "virtualbox", "architecture": machine_architecture()}
    (folder / "metadata.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    # No base_mac, so that each clone's first adapter gets its own address.
    (folder / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n', encoding="utf-8")


def _add(lab: Lab, folder: Path, progress: Progress) -> None:
    with progress.step("box", f"add it to Vagrant as {name(lab)}") as step:
        boxes.add(name(lab), "virtualbox", boxes.pack(folder, FILES), step.log)


def _folder(lab: Lab) -> Path:
    folder = boxes.folder(name(lab), "virtualbox")
    assert folder is not None  # callers have checked that it exists
    return folder


def _forget_master(box: str) -> bool:
    """Remove the machine that Vagrant clones a box's machines from; False if clones are based on it."""
    folder = boxes.folder(box, "virtualbox")
    note = folder / "master_id" if folder else None
    if note is None or not note.exists() or shutil.which("VBoxManage") is None:
        return True
    words = ["VBoxManage", "unregistervm", note.read_text(encoding="utf-8").strip(), "--delete"]
    said = process.run(words, accept=None, timeout=120)
    return said.ok or "Could not find a registered machine" in said.stderr


def _settle_content_id(vmdk: Path, mark: str) -> None:
    """Replace qemu-img's random content id by one that depends only on the golden disk."""
    with vmdk.open("r+b") as file:
        head = file.read(64 * 1024)
        place = head.index(b"\n" + CONTENT_ID) + 1 + len(CONTENT_ID)
        file.seek(place)
        file.write(mark[:8].encode().ljust(head.index(b"\n", place) - place))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
