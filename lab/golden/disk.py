"""Makes the golden disk: the golden machine's root with a kernel, on a disk that boots by itself.

Every provider of virtual machines uses the same one. It is kept as `CACHE/disks/KEY/`:

    disk.qcow2    compressed; 20 GiB to the machine, about 0.6 GiB on this host
    vmlinuz       the disk's own kernel, with which KVM is tested
    bom.json      the bill of materials

On the disk: an MBR with one partition, active, ext4, from 1 MiB to the end; GRUB for BIOS between them, with
the text and serial consoles for its terminals. Kernel and initial RAM disk know disks of virtio, SCSI, AHCI and
IDE; the root is found by its UUID, network interfaces are eth0 (DHCP) and eth1 (Vagrant's to set).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabStateError
from lab.golden import build, debian
from lab.host.places import disks_folder
from lab.model import Lab
from lab.system import process
from lab.system.paths import PROVISION
from lab.system.progress import Progress

VIRTUAL_GIB = 20
"""The size that machines see; unwritten space uses none on the host."""

PARTITION = 2**20
"""Where the partition begins, in bytes (provision/vm/disk.sh)."""

DISK, KERNEL, BILL = "disk.qcow2", "vmlinuz", "bom.json"


def packages() -> list[str]:
    """The Debian packages of a golden disk."""
    return [*debian.packages(), *debian.packages("packages-vm.txt")]


def key(lab: Lab) -> str:
    """Return the golden disk's content hash: 16 hex digits."""
    own = [path for path in (PROVISION / "vm").rglob("*") if path.is_file()]
    return build.key(lab, packages(), [PROVISION / "packages-vm.txt", *own])


def folder(mark: str) -> Path:
    """Return where the disk of that key is kept."""
    return disks_folder() / mark


def make(lab: Lab, progress: Progress) -> Path:
    """Return the lab's golden disk, a compressed qcow2 file; made if it isn't there.

    Needs root, through sudo, announced by its steps. Raises LabError; a disk with this name is complete.
    """
    final = folder(key(lab))
    if not final.exists():
        with build.workshop(f"disk-{key(lab)}", lambda: not final.exists(), progress) as workshop:
            if workshop is not None:
                root = build.root(lab, workshop, packages(), progress)
                _lay_out(root, workshop, progress).rename(_ready(final))
    return final / DISK


def keep(ready: Path, mark: str) -> None:
    """Keep a folder with a complete disk, on the cache's own file system, as the disk of that key."""
    ready.chmod(0o755)
    ready.rename(_ready(folder(mark)))


def files(mark: str, paths: Sequence[str], target: Path) -> None:
    """Write files and folders of a kept disk's root to a tar; those that it lacks are left out.

    Without root or a loop device: debugfs reads the partition where it lies. Everything in the tar is root's.
    """
    source = folder(mark) / DISK
    if not source.exists():
        raise LabStateError(
            f"{source} does not exist, so nothing can be taken from this golden machine",
            hint="`./inv bake` makes it again",
        )
    with tempfile.TemporaryDirectory(dir=disks_folder(), prefix=".files.") as temporary:
        raw, root, script = (Path(temporary) / name for name in ("disk.raw", "root", "commands"))
        root.mkdir()
        process.run(["qemu-img", "convert", "-O", "raw", source, raw], timeout=900)
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        lines = [f'rdump "/{path}" "{(root / path).parent}"\n' for path in paths]
        script.write_text("".join(lines), encoding="utf-8")
        process.run(["debugfs", "-f", script, f"{raw}?offset={PARTITION}"], timeout=900)
        there = [path for path in paths if (root / path).exists()]
        owned = ("--owner=0", "--group=0", "--numeric-owner")
        process.run(["tar", "-cf", target, *owned, "-C", root, "--", *there], timeout=900)


def prune(keep: str) -> list[str]:
    """Remove every golden disk except the one of that key; return the removed names."""
    others = [path for path in sorted(disks_folder().glob("*")) if path.name != keep]
    for path in others:
        shutil.rmtree(path)
    return [f"{path.parent.name}/{path.name}" for path in others]


def _ready(final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    return final


def _lay_out(root: Path, workshop: Path, progress: Progress) -> Path:
    whole = workshop / "disk"
    whole.mkdir()
    raw = workshop / "disk.raw"
    with progress.step("disk", f"make a disk that boots by itself{debian.through_sudo()}") as step:
        words = [
            PROVISION / "vm" / "disk.sh",
            root,
            PROVISION / "vm",
            workshop / "disk-root",
            raw,
            whole / KERNEL,
        ]
        process.run(process.as_root(*words, f"{VIRTUAL_GIB}G"), log=step.log, timeout=900)
        for path in (raw, whole / KERNEL):
            debian.own(path)
        process.run(
            ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, whole / DISK],
            log=step.log,
            timeout=1800,
        )
        shutil.copy(workshop / "payload" / "bom.json", whole / BILL)
    return whole
