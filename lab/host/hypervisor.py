"""Determines whether this host has a working hypervisor: cheap checks first, then KVM by booting a kernel.

/dev/kvm may exist and open, and still hang when a kernel runs on it. So a stock kernel is started on it, and
has to print a line on its serial console. The result is cached until this host reboots or the kernel changes.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.errors import CommandFailed
from lab.host.places import cache_folder, disks_folder, vagrant_home
from lab.system import process
from lab.unknown import Unknown

KVM = Path("/dev/kvm")
EMULATOR = "qemu-system-x86_64"
PROBE_TIMEOUT = 10.0
"""Seconds until a kernel prints its first line; 0.1 s is usual with KVM."""

FIRST_WORDS = "Linux version"
"""The first line of every running kernel."""

PLUGIN = "vagrant-libvirt"
LIBVIRT_SOCKET = Path("/run/libvirt/libvirt-sock")


def plugin(home: Path | None = None, system: Path = Path("/usr/share/rubygems-integration")) -> bool:
    """Whether Vagrant has its libvirt plugin: Debian's package, or one that the user installed."""
    if any(True for _ in system.glob(f"*/gems/{PLUGIN}-*")):
        return True
    try:
        installed = json.loads(((home or vagrant_home()) / "plugins.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(installed, dict) and PLUGIN in installed.get("installed", {})


def libvirtd_answers(door: Path = LIBVIRT_SOCKET) -> bool:
    """Whether this user can connect to libvirt's daemon."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(1)
        try:
            knock.connect(str(door))
        except OSError:
            return False
    return True


def virtualbox(driver: Path = Path("/dev/vboxdrv")) -> bool:
    """Whether VirtualBox is installed and its driver loaded, which it always is on macOS."""
    return shutil.which("VBoxManage") is not None and (driver.exists() or os.uname().sysname == "Darwin")


def closed_to_libvirt(device: Path = KVM) -> bool:
    """Whether the device exists and the group kvm, which libvirt's user is in, has no access."""
    try:
        about = device.stat()
        everyone = about.st_mode & 0o006 == 0o006
        return not everyone and (about.st_mode & 0o060 != 0o060 or grp.getgrgid(about.st_gid).gr_name != "kvm")
    except (OSError, KeyError):
        return False


def kernels(disks: Iterable[Path], boot: Path = Path("/boot")) -> list[Path]:
    """Kernels that the probe may start, in order: the golden disks', then this host's own."""
    own = boot / f"vmlinuz-{os.uname().release}"
    return [path for path in (*disks, own, *sorted(boot.glob("vmlinuz-*"))) if os.access(path, os.R_OK)]


def kvm() -> bool | Unknown:
    """Whether KVM runs a kernel here, tried with the newest golden disk's kernel if there is one."""
    disks = sorted(disks_folder().glob("*/vmlinuz"), key=lambda path: -path.stat().st_mtime)
    return kvm_works(kernels(disks))


def kvm_works(candidates: Sequence[Path], device: Path = KVM) -> bool | Unknown:
    """Whether KVM runs a kernel. Immediate without KVM, else at most PROBE_TIMEOUT, once per boot.

    Unknown if there is no kernel to start, or no emulator to start it with.
    """
    if not os.access(device, os.R_OK | os.W_OK):
        return False
    if shutil.which(EMULATOR) is None:
        return Unknown(f"{EMULATOR} is not installed")
    if not candidates:
        return Unknown("there is no kernel to try it with")
    kernel = candidates[0]
    kept = cache_folder() / "kvm.json"
    mark = _mark(kernel)
    known = _read(kept)
    if known.get("mark") != mark:
        known = {"mark": mark, "works": _runs(kernel)}
        _keep(kept, known)
    return known.get("works") is True


def _runs(kernel: Path) -> bool:
    """Start only the kernel on KVM: it panics without a root file system, which is enough."""
    with tempfile.TemporaryDirectory(prefix="ha-lab-kvm-") as folder:
        console = Path(folder) / "console"
        words = [
            *(EMULATOR, "-accel", "kvm", "-cpu", "host", "-m", "256", "-display", "none", "-nodefaults"),
            *("-no-reboot", "-serial", f"file:{console}", "-kernel", str(kernel)),
            *("-append", "earlyprintk=serial console=ttyS0 panic=-1"),
        ]
        # It may hang, or not reach its panic: what it has printed counts.
        with contextlib.suppress(CommandFailed):
            process.run(words, accept=None, timeout=PROBE_TIMEOUT)
        try:
            return FIRST_WORDS in console.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False


def _mark(kernel: Path) -> str:
    """The boot of this host and the kernel that a result is for."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    about = kernel.stat()
    return f"{boot} {kernel} {about.st_size} {about.st_mtime_ns}"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(path: Path, what: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(what), encoding="utf-8")
        partial.replace(path)
    except OSError:
        return  # asked again the next time
