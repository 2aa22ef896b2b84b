"""Checkpoints of virtual machines: snapshots, as virsh and VBoxManage are asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.config import default
from lab.errors import CommandFailed, LabStateError
from lab.model import Libvirt
from lab.providers.libvirt import checkpoints as libvirt
from lab.providers.protocol import Room
from lab.providers.virtualbox import checkpoints as virtualbox
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved
from tests.unit.hosts import FakeRun

VIRSH = "virsh --connect qemu:///system"
LAB = default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt(), "nodes": default().nodes[:2]})
LB1, CP1 = LAB.nodes
BOX = LAB.model_copy(update={"provider": "virtualbox", "libvirt": None})

# As libvirt 9.0 prints them.
POOL = """\
Name:           default
State:          running
Capacity:       270561361920
Allocation:     51279360000
Available:      219282001920
"""
DISKS = """\
 Type   Device   Target   Source
----------------------------------------------------------------
 file   disk     vda      /var/lib/libvirt/images/ha-lab-cp1.img
 file   cdrom    sda      -

"""
BLOCK = """\
Capacity:       21474836480
Allocation:     1073741824
Physical:       1073741824
"""

# As VBoxManage's source prints them.
ABOUT = """\
name="ha-lab-cp1"
CfgFile="{folder}/ha-lab-cp1/ha-lab-cp1.vbox"
"SATA Controller-0-0"="{folder}/ha-lab-cp1/box-disk001.vmdk"
"SATA Controller-ImageUUID-0-0"="11111111-2222-3333-4444-555555555555"
"SATA Controller-1-0"="/home/ada/lab/.lab/key.iso"
"SATA Controller-ImageUUID-1-0"="99999999-2222-3333-4444-555555555555"
VMState="poweroff"
"""
MEDIUM = """\
UUID:           11111111-2222-3333-4444-555555555555
State:          created
Capacity:       20480 MBytes
Size on disk:   1024 MBytes
"""
SNAPSHOTS = """\
SnapshotName="yours"
SnapshotUUID="22222222-2222-3333-4444-555555555555"
SnapshotName-1="ha-lab-start"
SnapshotUUID-1="33333333-2222-3333-4444-555555555555"
CurrentSnapshotName="ha-lab-later"
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


@pytest.fixture
def log(workspace: Workspace) -> Path:
    return workspace.logs / "01-save.log"


def changed(run: FakeRun, *verbs: str) -> list[str]:
    """The commands that change something, without the program and its connection."""
    lines = [" ".join(words) for words in run.asked if any(verb in words for verb in verbs)]
    return [line.removeprefix(f"{VIRSH} ").removeprefix("VBoxManage ") for line in lines]


def test_libvirt_takes_a_snapshot_and_says_what_it_may_take(
    run: FakeRun, workspace: Workspace, log: Path
) -> None:
    run.tell(f"{VIRSH} snapshot-list ha-lab-cp1 --name", "yours\nha-lab-start2\n")
    run.tell(f"{VIRSH} snapshot-create-as ha-lab-cp1")
    run.tell(f"{VIRSH} domblklist ha-lab-cp1 --details", DISKS)
    run.tell(f"{VIRSH} domblkinfo ha-lab-cp1 vda", BLOCK)
    assert libvirt.save(LAB, workspace, CP1, "start", log) == Saved(mib=1024)
    assert changed(run, "snapshot-create-as", "snapshot-delete") == [
        "snapshot-create-as ha-lab-cp1 --name ha-lab-start"
    ]


def test_libvirt_replaces_the_snapshot_of_an_interrupted_run(
    run: FakeRun, workspace: Workspace, log: Path
) -> None:
    run.tell(f"{VIRSH} snapshot-list ha-lab-cp1 --name", "yours\nha-lab-start\n")
    run.tell(f"{VIRSH} snapshot-delete ha-lab-cp1 ha-lab-start")
    run.tell(f"{VIRSH} snapshot-create-as ha-lab-cp1")
    run.tell(f"{VIRSH} domblklist ha-lab-cp1 --details", "")
    libvirt.save(LAB, workspace, CP1, "start", log)
    assert changed(run, "snapshot-create-as", "snapshot-delete")[0] == "snapshot-delete ha-lab-cp1 ha-lab-start"


def test_libvirt_reverts_and_discards_only_its_own(run: FakeRun, workspace: Workspace, log: Path) -> None:
    run.tell(f"{VIRSH} snapshot-revert ha-lab-cp1 ha-lab-start")
    libvirt.load(LAB, workspace, CP1, "start", Saved(mib=1), log)
    run.tell(f"{VIRSH} snapshot-list ha-lab-cp1 --name", "yours\nha-lab-start\n\n")
    run.tell(
        f"{VIRSH} snapshot-list ha-lab-lb1 --name", code=1, stderr="error: failed to get domain 'ha-lab-lb1'"
    )
    assert libvirt.problem(LAB, workspace, CP1, "start", Saved(mib=1)) is None
    assert "went with the machine" in (libvirt.problem(LAB, workspace, LB1, "start", Saved(mib=1)) or "")
    run.tell(f"{VIRSH} snapshot-delete ha-lab-cp1 ha-lab-start")
    libvirt.discard(LAB, workspace, "start", log)
    assert changed(run, "snapshot-delete") == ["snapshot-delete ha-lab-cp1 ha-lab-start"]


def test_libvirt_s_room_is_that_of_its_pool(run: FakeRun, workspace: Workspace) -> None:
    run.tell(f"{VIRSH} pool-info --bytes default", POOL)
    run.tell(f"{VIRSH} domblklist ha-lab-cp1 --details", DISKS)
    run.tell(f"{VIRSH} domblkinfo ha-lab-cp1 vda", BLOCK)
    run.tell(
        f"{VIRSH} domblklist ha-lab-lb1 --details", code=1, stderr="error: failed to get domain 'ha-lab-lb1'"
    )
    assert libvirt.room(LAB, workspace) == Room(taken=1024, free=209123)
    run.tell(f"{VIRSH} pool-info --bytes default", "Name: default\nState: inactive\n")
    with pytest.raises(LabStateError, match="does not say what is free in its pool default"):
        libvirt.room(LAB, workspace)


def test_virtualbox_takes_a_snapshot_and_says_what_it_may_take(
    run: FakeRun, workspace: Workspace, log: Path
) -> None:
    about = "VBoxManage showvminfo ha-lab-cp1 --machinereadable"
    run.tell("VBoxManage snapshot ha-lab-cp1 list", code=1, stderr="This machine does not have any snapshots")
    run.tell(about, ABOUT.replace("\n", "\r\n"))
    run.tell("VBoxManage showmediuminfo disk 11111111-2222-3333-4444-555555555555", MEDIUM)
    run.tell("VBoxManage snapshot ha-lab-cp1 take ha-lab-start")
    assert virtualbox.save(BOX, workspace, CP1, "start", log) == Saved(mib=1024)
    run.tell("VBoxManage snapshot ha-lab-cp1 list", SNAPSHOTS)
    run.tell("VBoxManage snapshot ha-lab-cp1 delete ha-lab-start")
    virtualbox.save(BOX, workspace, CP1, "start", log)
    assert changed(run, "take", "delete") == [
        "snapshot ha-lab-cp1 take ha-lab-start",
        "snapshot ha-lab-cp1 delete ha-lab-start",
        "snapshot ha-lab-cp1 take ha-lab-start",
    ]


def test_virtualbox_restores_and_discards_only_its_own(run: FakeRun, workspace: Workspace, log: Path) -> None:
    run.tell("VBoxManage snapshot ha-lab-cp1 restore ha-lab-start")
    virtualbox.load(BOX, workspace, CP1, "start", Saved(mib=1), log)
    run.tell("VBoxManage snapshot ha-lab-cp1 list", SNAPSHOTS)
    missing = "VBoxManage: error: Could not find a registered machine named 'ha-lab-lb1'"
    run.tell("VBoxManage snapshot ha-lab-lb1 list", code=1, stderr=missing)
    assert virtualbox.problem(BOX, workspace, CP1, "start", Saved(mib=1)) is None
    assert "went with the machine" in (virtualbox.problem(BOX, workspace, CP1, "later", Saved(mib=1)) or ""), (
        "the current one is listed by its own line, too"
    )
    assert "went with the machine" in (virtualbox.problem(BOX, workspace, LB1, "start", Saved(mib=1)) or "")
    run.tell("VBoxManage snapshot ha-lab-cp1 delete ha-lab-start")
    virtualbox.discard(BOX, workspace, "start", log)
    assert changed(run, "delete") == ["snapshot ha-lab-cp1 delete ha-lab-start"]
    run.tell("VBoxManage snapshot ha-lab-cp1 list", code=1, stderr="E_ACCESSDENIED")
    with pytest.raises(CommandFailed, match="E_ACCESSDENIED"):
        virtualbox.problem(BOX, workspace, CP1, "start", Saved(mib=1))


def test_virtualbox_s_room_is_that_of_its_folder(run: FakeRun, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "ha-lab-cp1").mkdir()
    missing = "VBoxManage: error: Could not find a registered machine named 'ha-lab-lb1'"
    run.tell("VBoxManage showvminfo ha-lab-lb1 --machinereadable", code=1, stderr=missing)
    run.tell("VBoxManage showvminfo ha-lab-cp1 --machinereadable", ABOUT.format(folder=tmp_path))
    run.tell("VBoxManage showmediuminfo disk", MEDIUM)
    room = virtualbox.room(BOX, workspace)
    assert room.taken == 1024
    assert room.free > 0
    run.tell("VBoxManage showvminfo ha-lab-cp1 --machinereadable", code=1, stderr=missing)
    with pytest.raises(LabStateError, match="does not say where it keeps the machines"):
        virtualbox.room(BOX, workspace)
