"""The states of VirtualBox's machines, as its snapshots.

A snapshot of a machine that is off has its disks and its settings. From then on the machine writes to another
disk file, which has only what differs. It goes when its machine is removed. As in `machines`, VBoxManage's
options and output are from its manual and source.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lab.errors import CommandFailed, LabStateError
from lab.host.ask import ENVIRONMENT
from lab.model import Lab, Node, machine_name
from lab.providers.protocol import Room
from lab.providers.snapshots import GONE, snapshot_name
from lab.providers.virtualbox.machines import NO_MACHINE
from lab.system import process
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved

SNAPSHOT_TIMEOUT = 900.0
"""Seconds to take, restore or delete a snapshot; to delete one, VirtualBox merges disk files."""

NO_SNAPSHOTS = "does not have any snapshots"
"""What VBoxManage prints, with exit code 1, about a machine without snapshots."""

NAME = re.compile(r'^SnapshotName[^=]*="(.*)"$', re.MULTILINE)
DISK = re.compile(r'^"[^"]*-ImageUUID-0-0"="([0-9a-f-]+)"$', re.MULTILINE)
SETTINGS = re.compile(r'^CfgFile="(.*)"$', re.MULTILINE)
SIZE = re.compile(r"^Size on disk:\s+([0-9]+) MBytes", re.MULTILINE)


def room(lab: Lab, workspace: Workspace) -> Room:
    """The MiB of all machines' disks, and what is free where VirtualBox keeps them.

    A disk that changes completely takes its size once more.
    """
    about = [
        said for node in lab.nodes if (said := _ask("showvminfo", machine_name(lab, node), "--machinereadable"))
    ]
    settings = [found[1] for each in about if (found := SETTINGS.search(each))]
    if not settings:
        raise LabStateError(
            "VirtualBox does not say where it keeps the machines", hint="`./inv status` shows them"
        )
    return Room(sum(map(_taken, about)), shutil.disk_usage(Path(settings[0]).parent).free // 2**20)


def save(lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> Saved:
    """Take a snapshot. It takes at most what the machine's disk takes now."""
    if _has(lab, node, name):
        _snapshot(lab, "delete", node, name, log)
    taken = _taken(_ask("showvminfo", machine_name(lab, node), "--machinereadable"))
    _snapshot(lab, "take", node, name, log)
    return Saved(mib=taken)


def load(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved, log: Path) -> None:
    """Restore a stopped machine's snapshot; it stays off."""
    _snapshot(lab, "restore", node, name, log)


def problem(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved) -> str | None:
    """Whether the machine lacks that snapshot."""
    return None if _has(lab, node, name) else GONE


def _has(lab: Lab, node: Node, name: str) -> bool:
    """Whether a machine has that snapshot; False if there is no such machine."""
    said = _ask("snapshot", machine_name(lab, node), "list", "--machinereadable")
    return snapshot_name(name) in NAME.findall(said)


def discard(lab: Lab, workspace: Workspace, name: str, log: Path) -> None:
    """Delete that snapshot of all machines that have it."""
    for node in lab.nodes:
        if _has(lab, node, name):
            _snapshot(lab, "delete", node, name, log)


def _snapshot(lab: Lab, verb: str, node: Node, name: str, log: Path) -> None:
    words = ["VBoxManage", "snapshot", machine_name(lab, node), verb, snapshot_name(name)]
    process.run(words, log=log, timeout=SNAPSHOT_TIMEOUT, env=ENVIRONMENT)


def _taken(about: str) -> int:
    """The MiB of the disk of a machine, from VirtualBox's facts about it: the first of its first controller."""
    disk = DISK.search(about)
    size = SIZE.search(_ask("showmediuminfo", "disk", disk[1])) if disk else None
    return int(size[1]) if size else 0


def _ask(*words: str) -> str:
    """What VBoxManage prints; "" about a machine that does not exist or has no snapshots."""
    try:
        return process.run(["VBoxManage", *words], timeout=60, env=ENVIRONMENT).stdout.replace("\r", "")
    except CommandFailed as error:
        if NO_MACHINE in error.tail.lower() or NO_SNAPSHOTS in error.tail.lower():
            return ""
        raise
