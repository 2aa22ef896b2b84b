"""Reads facts about the kernel from /proc and /sys.

Every function takes the root of those trees, so that tests can use recorded ones.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lab.host.facts import Cgroups, FileSystem, Inotify, Memory, Presence
from lab.unknown import Unknown

# In the order of their bits (linux/capability.h).
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

# Feature: its option in the kernel's configuration, and a path that exists when it can be used.
FEATURES = {
    "overlay": ("CONFIG_OVERLAY_FS", "sys/module/overlay"),
    "vxlan": ("CONFIG_VXLAN", "sys/module/vxlan"),
    "br_netfilter": ("CONFIG_BRIDGE_NETFILTER", "proc/sys/net/bridge/bridge-nf-call-iptables"),
    "ip_set": ("CONFIG_IP_SET", "sys/module/ip_set"),
    "xt_set": ("CONFIG_NETFILTER_XT_SET", "sys/module/xt_set"),
    "xt_physdev": ("CONFIG_NETFILTER_XT_MATCH_PHYSDEV", "sys/module/xt_physdev"),
}


def memory(root: Path) -> Memory | Unknown:
    """Read the host's memory, in MiB."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        return Memory(kib["MemTotal"] // 1024, kib["MemAvailable"] // 1024, kib.get("SwapTotal", 0) // 1024)
    except (OSError, KeyError, ValueError, IndexError) as error:
        return Unknown(f"/proc/meminfo can't be read: {error}")


def cgroups(root: Path) -> Cgroups | Unknown:
    """Read the version of the control groups, and the controllers that this kernel has enabled."""
    try:
        unified = root / "sys/fs/cgroup/cgroup.controllers"
        if unified.exists():
            return Cgroups(2, frozenset(unified.read_text().split()))
        rows = [line.split() for line in (root / "proc/cgroups").read_text().splitlines()[1:]]
        return Cgroups(1, frozenset(row[0] for row in rows if row[3] == "1"))
    except (OSError, IndexError) as error:
        return Unknown(f"/proc/cgroups can't be read: {error}")


def inotify(root: Path, *, uid: int) -> Inotify | Unknown:
    """Read the inotify limits, and count the instances of root, who runs the containers.

    `uid` is the current user's: only root can inspect root's processes.
    """
    folder = root / "proc/sys/fs/inotify"
    try:
        instances = int((folder / "max_user_instances").read_text())
        watches = int((folder / "max_user_watches").read_text())
    except (OSError, ValueError) as error:
        return Unknown(f"fs.inotify can't be read: {error}")
    used = inotify_in_use(root, 0) if uid == 0 else Unknown("only root can count root's inotify instances")
    return Inotify(instances, watches, used)


def inotify_in_use(root: Path, owner: int) -> int:
    """Count the inotify instances that the processes of one user hold open.

    One that several processes share counts for each, so this is an upper estimate.
    """
    return sum(_inotify_of(process) for process in _processes(root) if _owner(process) == owner)


def capabilities(root: Path) -> frozenset[str] | Unknown:
    """Read the capabilities that containers can get: dockerd's bounding set, else our own."""
    process = next((process for process in _processes(root) if _is_dockerd(process)), root / "proc/self")
    try:
        for line in (process / "status").read_text().splitlines():
            if line.startswith("CapBnd:"):
                mask = int(line.split()[1], 16)
                return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
    except (OSError, ValueError, IndexError) as error:
        return Unknown(f"the capability bounding set can't be read: {error}")
    return Unknown(f"{process}/status has no line CapBnd")


def dockerd_words(root: Path) -> list[str]:
    """Read the command line of docker's daemon; empty if none runs, or this user may not see it."""
    process = next((process for process in _processes(root) if _is_dockerd(process)), None)
    return (_read(process / "cmdline") or "").split("\0")[:-1] if process else []


def file_system(root: Path, path: Path) -> FileSystem | Unknown:
    """Read which file system a path is on, from this process's mounts; the path need not exist."""
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
        mounts = [_mount(line) for line in lines]
    except (OSError, ValueError, IndexError) as error:
        return Unknown(f"/proc/self/mountinfo can't be read: {error}")
    above = [each for each in mounts if path.is_relative_to(each.mounted)]
    # The last of several mounts at one path hides the others.
    return (
        max(reversed(above), key=lambda each: len(each.mounted.parts))
        if above
        else Unknown(f"no mount has {path}")
    )


def _mount(line: str) -> FileSystem:
    """One line of mountinfo (proc_pid_mountinfo(5)); spaces in paths are written as octal escapes."""
    before, _, after = line.partition(" - ")
    mounted = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split()[4])
    kind, source = after.split()[:2]
    return FileSystem(Path(mounted), kind, source)


def forwards_bridged(root: Path) -> bool:
    """Whether packets between machines on one bridge pass this host's rules for forwarded packets.

    They do once br_netfilter is loaded, unless it is disabled (kernel.org, "Bridge", br_netfilter).
    """
    return (_read(root / "proc/sys/net/bridge/bridge-nf-call-iptables") or "0").strip() == "1"


def features(root: Path, release: str) -> dict[str, Presence | Unknown]:
    """Determine which of FEATURES this kernel has, without loading a module."""
    modules = _read(root / "lib/modules" / release / "modules.dep")
    builtin = _read(root / "lib/modules" / release / "modules.builtin")
    config = _configuration(root, release)
    return {
        name: _feature(name, option, (root / sign).exists(), modules, builtin, config)
        for name, (option, sign) in FEATURES.items()
    }


def _feature(
    name: str, option: str, seen: bool, modules: str | None, builtin: str | None, config: str | None
) -> Presence | Unknown:
    if seen or f"/{name}.ko" in (builtin or ""):
        return "there"
    if f"/{name}.ko" in (modules or ""):
        return "loadable"
    if config is None:
        reason = "this kernel's configuration was not found (/proc/config.gz, /boot/config-*)"
        return Unknown(reason) if modules is None else "missing"
    if f"{option}=y" in config.splitlines():
        return "there"
    if f"{option}=m" in config.splitlines() and modules is None:
        return Unknown("it is a module, and this kernel's /lib/modules is not on this host")
    return "missing"


def _configuration(root: Path, release: str) -> str | None:
    try:
        return gzip.decompress((root / "proc/config.gz").read_bytes()).decode()
    except (OSError, EOFError):
        return _read(root / f"boot/config-{release}")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _processes(root: Path) -> Iterator[Path]:
    return (root / "proc").glob("[0-9]*")  # empty without /proc


def _is_dockerd(process: Path) -> bool:
    return (_read(process / "comm") or "").strip() == "dockerd"


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:  # it has ended
        return None


def _inotify_of(process: Path) -> int:
    count = 0
    try:
        with os.scandir(process / "fd") as handles:
            for handle in handles:
                count += os.readlink(handle.path).endswith("inotify")
    except OSError:  # it has ended, or closed that file meanwhile
        pass
    return count
