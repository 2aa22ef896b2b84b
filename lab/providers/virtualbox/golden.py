"""The golden disk as a box of Vagrant's for VirtualBox, under its content hash.

A box is what `VBoxManage import` reads, and what Vagrant wants to know:

    box.ovf  box.mf         the machine, in the words of DMTF's OVF 1.0 (DSP0243) and VirtualBox's own; sums
    box-disk001.vmdk        its disk, streamOptimized
    metadata.json  Vagrantfile  bom.json     Vagrant's; what went in

The hardware is the least that boots: sizes, the lab's network and the disc with its key are set when machines
are made from it. VirtualBox can't run on build machines; docs/decisions/0020 says what was tried instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
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
"""All that a box holds. Vagrant itself puts other files beside them."""

CONTENT_ID = b"CID="
"""Where a VMDK's descriptor has the number by which disks that stand on it know it; qemu-img makes one up."""


def key(lab: Lab) -> str:
    """Return the box's content hash, which is its disk's."""
    return disk.key(lab)


def name(lab: Lab) -> str:
    """Return the box's name."""
    return boxes.name(key(lab))


def exists(box: str) -> bool:
    """Whether Vagrant has the box of that name."""
    return boxes.exists(box, "virtualbox")


def make(lab: Lab, progress: Progress) -> None:
    """Make the golden disk if need be, and add it as a box; nothing is downloaded. Raises LabError."""
    made = disk.make(lab, progress)
    with build.workshop(f"vbox-{key(lab)}", lambda: not exists(name(lab)), progress) as folder:
        if folder is None:
            return
        with progress.step("vmdk", "make VirtualBox's form of the disk") as step:
            convert(made, folder / VMDK, step.log)
            describe(folder, key(lab))
            shutil.copy(made.parent / disk.BILL, folder)
        _add(lab, folder, progress)


def bill_of_materials(box: str) -> str:
    """Return the box's own list of what went in, as JSON text."""
    return boxes.bill_of_materials(box, "virtualbox")


def prune(lab: Lab) -> list[str]:
    """Remove every golden box but this lab's, and old disks; return their names.

    The machine that Vagrant keeps to clone others from goes with its box; VirtualBox refuses where clones
    stand on it, and that is right.
    """
    removed = []
    for old in boxes.baked("virtualbox"):
        if old != name(lab) and _forget_master(old):
            boxes.remove(old, "virtualbox")
            removed.append(old)
    return [*removed, *disk.prune(key(lab))]


def size(lab: Lab) -> int:
    """Return what the box takes where Vagrant keeps it, in MiB."""
    folder = _folder(lab)
    return sum((folder / each).stat().st_size for each in FILES) // 2**20 + 1


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Put the box's files into that folder, for another host's Vagrant, which needs no other program."""
    with progress.step("pack", f"pack {name(lab)}"):
        for each in FILES:
            shutil.copyfile(_folder(lab) / each, folder / each)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Take the box from a folder that `pack` has filled."""
    _add(lab, folder, progress)


def convert(made: Path, vmdk: Path, log: Path) -> None:
    """Make VirtualBox's form of a golden disk: compressed, and read from its beginning to its end."""
    words = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    process.run([*words, made, vmdk], log=log, timeout=1800)


def describe(folder: Path, mark: str) -> None:
    """Write all but the disk and the list of what went in, for the disk that is in that folder.

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
    # No base_mac: each clone's first adapter then gets an address of its own.
    (folder / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n', encoding="utf-8")


def _add(lab: Lab, folder: Path, progress: Progress) -> None:
    with progress.step("box", f"give it to Vagrant as {name(lab)}") as step:
        boxes.add(name(lab), "virtualbox", boxes.pack(folder, FILES), step.log)


def _folder(lab: Lab) -> Path:
    folder = boxes.folder(name(lab), "virtualbox")
    assert folder is not None  # it is there, says who asks
    return folder


def _forget_master(box: str) -> bool:
    """Remove the machine that Vagrant clones a box's machines from; False where it is still stood on."""
    folder = boxes.folder(box, "virtualbox")
    note = folder / "master_id" if folder else None
    if note is None or not note.exists() or shutil.which("VBoxManage") is None:
        return True
    words = ["VBoxManage", "unregistervm", note.read_text(encoding="utf-8").strip(), "--delete"]
    said = process.run(words, accept=None, timeout=120)
    return said.ok or "Could not find a registered machine" in said.stderr


def _settle_content_id(vmdk: Path, mark: str) -> None:
    """Give the disk's content a number that hangs on the golden disk alone; qemu-img makes one up."""
    with vmdk.open("r+b") as file:
        head = file.read(64 * 1024)
        place = head.index(b"\n" + CONTENT_ID) + 1 + len(CONTENT_ID)
        file.seek(place)
        file.write(mark[:8].encode().ljust(head.index(b"\n", place) - place))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
