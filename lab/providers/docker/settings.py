"""Checks docker's daemon settings for machines, which are containers that run systemd.

Two settings are overridden for machines (`lab.workspace.render.UNCONFINED`): no-new-privileges, which keeps
sudo from becoming root, and init, which runs another process before systemd. Others don't affect machines: icc
is only for docker's default bridge, and live-restore for containers that outlive the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lab.host import Configured, Daemon, Unknown
from lab.host.docker import ICC
from lab.host.dockerd import CONFIGURATION
from lab.host.doctor.addresses import own_network
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Finding, fit, note, unfit

RESTART = "sudo systemctl restart docker   # this stops machines; `./inv up` starts them again"

TRIED_DRIVERS = ("overlay2", "overlayfs", "btrfs")
"""Tested storage drivers: docker's default, that of its containerd image store, and one whose volumes support
overlayfs."""

REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "virtiofs", "vboxsf", "fuse", "lustre")
"""File systems over the network or outside the kernel; `fuse.sshfs` is a kind of fuse."""

TRIED_RUNTIMES = ("", "runc", "crun", "nvidia", "io.containerd.runc.v2")

FILES_NEEDED, FILES_WANTED = 4096, 65536
"""Open files for a machine: below the first, etcd and the API server refuse connections under light load; etcd
requests the second itself."""

VFS_COPY_MIB = 1400
"""MiB of each machine with the storage driver vfs, which copies all of the golden machine."""


def settings(case: Case) -> Iterator[Finding]:
    """Do the settings of docker's daemon allow what machines need?"""
    found = case.host.daemon
    if found.state != "answers":
        return
    findings = [
        *_storage(case, found),
        *_runtime(found),
        *_limits(found),
        *_networks(case, found),
        *_lifted(found),
    ]
    if isinstance(found.settings, Unknown):
        what = f"some settings are unknown: {found.settings.reason}"
        why = (
            "default-ulimits and iptables are only there. Machines may have too few open files, or no network."
        )
        findings.append(note("docker-settings", "docker's settings", what, why))
    yield from findings or [fit("docker-settings", "docker's settings", "machines can run with them")]


def place(found: Daemon, key: str) -> str:
    """Where a setting is set; if unknown, the file in which it usually is."""
    known = _settings(found).get(key)
    return known.place if known else str(CONFIGURATION)


def _settings(found: Daemon) -> Mapping[str, Configured]:
    return {} if isinstance(found.settings, Unknown) else found.settings


def _value(found: Daemon, *keys: str) -> Any:
    """The value of a setting, or of a nested one; None if it is not set."""
    first, *rest = keys
    known = _settings(found).get(first)
    value: Any = known.value if known else None
    for key in rest:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _change(found: Daemon, key: str, what: str) -> str:
    return f"# {place(found, key)}: {what}\n{RESTART}"


def _storage(case: Case, found: Daemon) -> Iterator[Finding]:
    check, title = "docker-storage", "docker's data"
    disk = case.host.docker_file_system
    elsewhere = _change(found, "data-root", f'"data-root": a folder on a local disk, not {found.data}')
    if isinstance(disk, Unknown):
        yield note(check, title, disk.reason, "Machines need a local disk that overlayfs works on.")
    elif disk.kind.partition(".")[0] in REMOTE:
        why = "etcd waits until each write is on disk; containers need overlayfs, which does not work there."
        yield unfit(
            check, title, f"{found.data} is on {disk.source} ({disk.kind}), not a local disk", why, elsewhere
        )
    elif disk.kind == "overlay":
        why = "Machines run containers on overlayfs, which does not work on another overlay."
        yield unfit(check, title, f"{found.data} is on an overlay itself", why, elsewhere)
    elif disk.kind == "zfs":
        why = "overlayfs works on it since OpenZFS 2.2; with earlier versions pods do not start."
        yield note(check, title, f"{found.data} is on zfs", why, "zfs version   # 2.2 or later?")
    if found.about_driver.get("Supports d_type") == "false":
        why = "overlayfs needs d_type, so pods do not start (an xfs made with `mkfs.xfs -n ftype=1` has it)."
        yield unfit(check, title, f"{found.data} is on a disk without d_type", why, elsewhere)
    if found.driver == "vfs":
        waiting = len(case.waiting)
        what = "the storage driver is vfs, which copies the golden machine for each machine"
        why = f"{waiting} machines take {waiting * VFS_COPY_MIB} MiB more, and minutes to create."
        repair = _change(
            found, "storage-driver", '"storage-driver": "overlay2", after which images are built again'
        )
        yield note(check, title, what, why, repair)
    elif found.driver and found.driver not in (*TRIED_DRIVERS, "zfs"):
        why = "Machines have not been tried with it."
        repair = _change(found, "storage-driver", '"storage-driver": "overlay2", if machines fail')
        yield note(check, title, f"the storage driver is {found.driver}", why, repair)


def _runtime(found: Daemon) -> Iterator[Finding]:
    if found.runtime not in TRIED_RUNTIMES:
        what = f"containers are run by {found.runtime}, not by runc"
        why = "Machines mount file systems and run containers themselves, which few other runtimes allow."
        repair = _change(found, "default-runtime", 'remove it, or "default-runtime": "runc"')
        yield unfit("docker-runtime", "docker's runtime", what, why, repair)


def _limits(found: Daemon) -> Iterator[Finding]:
    files = _value(found, "default-ulimits", "nofile", "Hard")
    if not isinstance(files, int) or files < 0 or files >= FILES_WANTED:
        return
    check, title = "docker-open-files", "Open files"
    what = f"docker gives a machine {files} (default-ulimits, nofile)"
    why = "etcd, the API server and containerd have a file open for each connection and container."
    repair = _change(found, "default-ulimits", f"at least {FILES_WANTED} for nofile, or remove it")
    if files < FILES_NEEDED:
        yield unfit(check, title, what, why, repair)
    else:
        yield note(check, title, what, why, repair)


def _networks(case: Case, found: Daemon) -> Iterator[Finding]:
    check, title = "docker-networks", "docker's networks"
    own = own_network(case)
    why = "Machines could not reach the API through the load balancer, and etcd members not one another."
    if own and own.isolates:
        what = f"{own.name} lets no machine reach another one ({ICC} is false)"
        repair = f"sudo iptables -I DOCKER-USER -i {own.device} -o {own.device} -j ACCEPT"
        yield unfit(check, title, what, why, repair)
    elif own is None and str(_value(found, "default-network-opts", "bridge", ICC)).lower() == "false":
        what = f"new networks let no container reach another one ({ICC} is false)"
        yield unfit(check, title, what, why, _change(found, "default-network-opts", f"remove {ICC}"))
    if _value(found, "iptables") is False:
        what = "docker adds no rules to this host's firewall (iptables is false)"
        why = "Pods reach nothing outside this host, unless your own rules masquerade them. The lab needs none."
        repair = _change(found, "iptables", "remove it, if pods need to reach other hosts")
        yield note(check, title, what, why, repair)


def _lifted(found: Daemon) -> Iterator[Finding]:
    """Settings that are overridden, but apply to machines that an earlier version of the kit created."""
    if "name=no-new-privileges" in found.security or _value(found, "no-new-privileges") is True:
        what = "no-new-privileges is on; machines are created without it, since sudo could not become root"
        why = "Machines that an earlier version of the kit created get it when docker restarts."
        repair = "./inv replace NAME   # a machine on which sudo fails"
        yield note("docker-privileges", "docker's settings", what, why, repair)
