"""Recorded on a build machine (libvirt 9.0, Debian 12), or as virsh prints it there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.host import Unknown, hypervisor
from lab.model import Lab, Libvirt
from lab.providers.libvirt.host import Domain, LibvirtHost, Pool, look
from lab.system import process
from tests.unit.hosts import FakeRun, recorded

VIRSH = "virsh --connect qemu:///system"
LAB = default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt()})
POOL_INFO = """Name:           default
UUID:           5a4b2a3e-1b1f-4b19-8d5c-7a6a3d3c1c11
State:          running
Persistent:     yes
Autostart:      yes
Capacity:       270553174016
Allocation:     199231361024
Available:      71321812992

"""
VOLUMES = """ Name                                  Path
------------------------------------------------------------------------------
 ha-lab-cp1.img                        /var/lib/libvirt/images/ha-lab-cp1.img
 ha-lab-VAGRANTSLASH-golden-0_box.img  /var/lib/libvirt/images/ha-lab-VAGRANTSLASH-golden-0_box.img

"""
LEASES = """ Expiry Time           MAC address         Protocol   IP address          Hostname   Client ID
----------------------------------------------------------------------------------------------------
 2026-11-25 03:22:01   52:54:00:1d:c0:4e   ipv4       192.168.121.84/24   lb1        01:52:54:00:1d:c0:4e

"""


@pytest.fixture
def virsh(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(hypervisor, "plugin", lambda: True)
    monkeypatch.setattr(hypervisor, "kvm_works", lambda kernels: False)
    run.tell(f"{VIRSH} version", recorded("virsh-version.txt"))
    run.tell(f"{VIRSH} pool-info --bytes default", POOL_INFO)
    run.tell(f"{VIRSH} vol-list default", VOLUMES)
    run.tell(f"{VIRSH} list --name", "ha-lab-lb1\n\n")
    run.tell(f"{VIRSH} list --all --name", "ha-lab-lb1\nha-lab-cp1\nsomebody\n\n")
    run.tell(f"{VIRSH} desc ha-lab-lb1", "ha-lab.workspace=/home/ada/lab/.lab\n")
    run.tell(f"{VIRSH} desc ha-lab-cp1", "No description for domain: ha-lab-cp1\n")
    run.tell(f"{VIRSH} net-list --name", "vagrant-libvirt\n\n")
    run.tell(f"{VIRSH} net-dumpxml vagrant-libvirt", "<network><bridge name='virbr1' stp='on'/></network>")
    run.tell(f"{VIRSH} net-dhcp-leases vagrant-libvirt", LEASES)
    return run


def asked(lab: Lab) -> LibvirtHost:
    return look(lab, Path("/nowhere"), Path("/nowhere"))


def test_all_of_libvirt_is_told_in_one_record(virsh: FakeRun) -> None:
    found = asked(LAB)
    assert (found.state, found.hypervisor, found.plugin, found.kvm) == ("answers", "QEMU 7.2.22", True, False)
    volumes = frozenset({"ha-lab-cp1.img", "ha-lab-VAGRANTSLASH-golden-0_box.img"})
    assert found.pool == Pool("default", True, 68017, volumes)
    assert found.bridges == {"vagrant-libvirt": "virbr1"}
    assert found.leases == {"192.168.121.84": "lb1 (52:54:00:1d:c0:4e), on vagrant-libvirt"}


def test_only_machines_of_the_labs_names_are_looked_at(virsh: FakeRun) -> None:
    assert asked(LAB).domains == (
        Domain("ha-lab-lb1", True, "ha-lab.workspace=/home/ada/lab/.lab", folder_exists=False),
        Domain("ha-lab-cp1", False, "No description for domain: ha-lab-cp1"),
    )


def test_a_lab_s_folder_is_looked_for(virsh: FakeRun, tmp_path: Path) -> None:
    virsh.tell(f"{VIRSH} desc ha-lab-lb1", f"ha-lab.workspace={tmp_path}#0123\n")
    found = asked(LAB).domains[0]
    assert found.folder == str(tmp_path)
    assert found.folder_exists


def test_a_folder_that_this_user_may_not_see_is_not_taken_for_gone(
    virsh: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: str, **words: Any) -> os.stat_result:
        if str(path).startswith("/home/ada"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **words)

    monkeypatch.setattr(os, "stat", stat)
    assert asked(LAB).domains[0].folder_exists


def test_a_pool_that_is_not_there_is_none(virsh: FakeRun) -> None:
    virsh.tell(f"{VIRSH} pool-info --bytes default", code=1, stderr="error: failed to get pool 'default'")
    assert asked(LAB).pool is None


@pytest.mark.parametrize(("physical", "torn"), [(99, True), (100, False)])
def test_a_copy_of_the_golden_disk_that_is_shorter_than_its_box_is_torn(
    virsh: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, physical: int, torn: bool
) -> None:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path))
    box = tmp_path / "boxes" / "ha-lab-VAGRANTSLASH-golden-01" / "0" / "libvirt" / "box.img"
    box.parent.mkdir(parents=True)
    box.write_bytes(b"x" * 100)
    name = "ha-lab-VAGRANTSLASH-golden-01_vagrant_box_image_0_1764036000_box.img"
    virsh.tell(
        f"{VIRSH} vol-list default", f" Name   Path\n---\n {name}   /pool/{name}\n other.img   /pool/o\n"
    )
    described = f"<volume><physical unit='bytes'>{physical}</physical></volume>"
    virsh.tell(f"{VIRSH} vol-dumpxml --pool default {name}", described)
    pool = asked(LAB).pool
    assert pool is not None
    assert pool.torn == ((name,) if torn else ())


def test_a_pool_that_is_stopped_is_not_listed(virsh: FakeRun) -> None:
    virsh.tell(f"{VIRSH} pool-info --bytes default", POOL_INFO.replace("running", "inactive"))
    del virsh.answers[f"{VIRSH} vol-list default"]
    assert asked(LAB).pool == Pool("default", False, 68017)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory", "absent"),
        ("Failed to connect socket to '/var/run/libvirt/libvirt-sock': Connection refused", "absent"),
        ("Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied", "denied"),
        ("authentication unavailable: no polkit agent available to authenticate action", "denied"),
        ("internal error: Unable to get system bus connection: Could not connect", "denied"),
        ("internal error: something else", "mute"),
    ],
)
def test_why_libvirt_does_not_answer_is_told_by_its_own_words(virsh: FakeRun, said: str, state: str) -> None:
    virsh.tell(f"{VIRSH} version", code=1, stderr=f"error: failed to connect to the hypervisor\nerror: {said}")
    found = asked(LAB)
    assert found.state == state
    assert said.split(":")[0] in found.words
    assert found.pool is None


def test_a_host_without_virsh_has_no_client(virsh: FakeRun) -> None:
    virsh.fail(f"{VIRSH} version", "could not start: no such program")
    assert asked(LAB).state == "no client"


def test_another_host_s_kvm_is_not_tried_here(virsh: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypervisor, "kvm_works", lambda kernels: pytest.fail("tried"))
    uri = "qemu+ssh://ada@big/system"
    virsh.tell(f"virsh --connect {uri} version", code=1, stderr="Host key verification failed.")
    found = asked(_at(uri))
    assert (found.state, isinstance(found.kvm, Unknown)) == ("mute", True)


def _at(uri: str) -> Lab:
    return LAB.model_copy(update={"libvirt": Libvirt(uri=uri)})
