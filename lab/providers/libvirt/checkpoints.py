"""The states of libvirt's machines, as internal snapshots of their disks.

A snapshot of a machine that is shut off has its disks and its settings. It is in the disk's own file (qcow2),
takes a second, and shares all data with the disk until the disk changes. It goes when its machine is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabStateError
from lab.model import Lab, Node, machine_name
from lab.providers.libvirt import virsh
from lab.providers.libvirt.host import TABLE_HEAD
from lab.providers.protocol import Room
from lab.providers.snapshots import GONE, snapshot_name
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved

SNAPSHOT_TIMEOUT = 300.0
"""Seconds to take, revert to or delete a snapshot; one is usual, a few to delete one of a running machine."""

ALLOCATION = re.compile(r"^Allocation:\s*([0-9]+)", re.MULTILINE)
AVAILABLE = re.compile(r"^Available:\s*([0-9]+)", re.MULTILINE)


def room(lab: Lab, workspace: Workspace) -> Room:
    """The MiB of all machines' disks, and what is free in the pool.

    A disk that changes completely takes its size once more.
    """
    settings = virsh.settings_of(lab)
    said = virsh.ask(settings, "pool-info", "--bytes", settings.pool)
    free = AVAILABLE.search(said)
    if free is None:
        raise LabStateError(
            f"libvirt does not say what is free in its pool {settings.pool}", hint="`./inv doctor` checks it"
        )
    return Room(taken=sum(_taken(lab, node) for node in lab.nodes), free=int(free[1]) // 2**20)


def save(lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> Saved:
    """Take a snapshot. It takes at most what the machine's disks take now."""
    if _has(lab, node, name):
        _snapshot(lab, "snapshot-delete", node, name)
    settings, words = virsh.settings_of(lab), (machine_name(lab, node), "--name", snapshot_name(name))
    virsh.ask(settings, "snapshot-create-as", *words, timeout=SNAPSHOT_TIMEOUT)
    return Saved(mib=_taken(lab, node))


def load(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved, log: Path) -> None:
    """Revert a stopped machine to its snapshot; it stays off, since the snapshot was taken of one that was."""
    _snapshot(lab, "snapshot-revert", node, name)


def problem(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved) -> str | None:
    """Whether the machine lacks that snapshot."""
    return None if _has(lab, node, name) else GONE


def _has(lab: Lab, node: Node, name: str) -> bool:
    """Whether a machine has that snapshot; False if there is no such machine."""
    said = virsh.ask_domain(virsh.settings_of(lab), "snapshot-list", machine_name(lab, node), "--name")
    return snapshot_name(name) in (said or "").split()


def discard(lab: Lab, workspace: Workspace, name: str, log: Path) -> None:
    """Delete that snapshot of all machines that have it."""
    for node in lab.nodes:
        if _has(lab, node, name):
            _snapshot(lab, "snapshot-delete", node, name)


def _snapshot(lab: Lab, verb: str, node: Node, name: str) -> None:
    words = (verb, machine_name(lab, node), snapshot_name(name))
    virsh.ask(virsh.settings_of(lab), *words, timeout=SNAPSHOT_TIMEOUT)


def _taken(lab: Lab, node: Node) -> int:
    """The MiB of a machine's disks; 0 if there is no such machine."""
    settings, domain = virsh.settings_of(lab), machine_name(lab, node)
    found = [ALLOCATION.search(virsh.ask(settings, "domblkinfo", domain, disk)) for disk in _disks(lab, node)]
    return sum(int(each[1]) for each in found if each) // 2**20


def _disks(lab: Lab, node: Node) -> Iterator[str]:
    """The devices of a machine's disks, such as vda. A row is `TYPE DEVICE TARGET SOURCE`."""
    said = virsh.ask_domain(virsh.settings_of(lab), "domblklist", machine_name(lab, node), "--details")
    for line in (said or "").splitlines()[TABLE_HEAD:]:
        _, device, target, *_ = line.split()
        if device == "disk":
            yield target
