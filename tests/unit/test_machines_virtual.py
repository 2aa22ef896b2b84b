from __future__ import annotations

from pathlib import Path

import pytest

from lab import providers as machines
from lab.config import default
from lab.errors import CommandFailed, LabStateError
from lab.model import Lab, Libvirt
from lab.providers import vagrant
from lab.system import process
from lab.workspace import Workspace
from tests.unit.hosts import FakeRun

URI = "qemu:///system"
VIRSH = f"virsh --connect {URI}"
LAB = default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt()})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / ".lab")
    made.write(made.vagrantfile, "# rendered\n")
    made.write_identity({"provider": "libvirt", "libvirt": {"uri": URI}})
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    told = FakeRun()
    monkeypatch.setattr(process, "run", told)
    return told


def made(workspace: Workspace, name: str, mark: str) -> None:
    workspace.write(workspace.root / ".vagrant" / "machines" / name / "libvirt" / "id", mark)


def test_booting_makes_machines_with_libvirt_and_does_not_provision(run: FakeRun, workspace: Workspace) -> None:
    run.tell("vagrant up")
    machines.boot(workspace, workspace.logs / "01-boot.log")
    assert run.asked == [("vagrant", "up", "--no-provision", "--provider=libvirt")]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Name `ha-lab-cp1` of domain about to create is already taken.", "this lab's names"),
        ("qemu-img: No space left on device", "the disk is full"),
        ("internal error: Network is already in use by interface eth0", "already uses the lab's subnet"),
        ("error: Failed to apply firewall rules /usr/sbin/iptables -w", "firewall"),
        ("The specified wait_for timeout (2 seconds) was exceeded", "no address"),
    ],
)
def test_what_libvirt_refuses_becomes_a_sentence_about_the_lab(
    run: FakeRun, workspace: Workspace, said: str, sentence: str
) -> None:
    log = workspace.logs / "01-boot.log"
    run.tell("vagrant up", said, code=1)
    with pytest.raises(LabStateError, match=sentence) as caught:
        machines.boot(workspace, log)
    assert (bool(caught.value.hint), caught.value.log) == (True, log)


def test_threads_of_the_plugin_that_trip_over_one_another_get_up_again(
    run: FakeRun, workspace: Workspace
) -> None:
    # Recorded from `vagrant destroy --parallel`, vagrant-libvirt 0.11.2.
    said = "constant VagrantPlugins::ProviderLibvirt::Action::ProvisionerCleanup not defined"
    run.tell("vagrant up", said, code=1)
    with pytest.raises(CommandFailed):
        machines.boot(workspace, workspace.logs / "01-boot.log")
    assert len(run.asked) == vagrant.ATTEMPTS


def test_a_vagrant_that_fails_in_words_of_its_own_has_failed(run: FakeRun, workspace: Workspace) -> None:
    run.tell("vagrant up", "a strange word", code=1)
    with pytest.raises(CommandFailed):
        machines.boot(workspace, workspace.logs / "01-boot.log")


def test_machines_that_vagrant_has_lost_are_known_by_what_they_carry(
    run: FakeRun, workspace: Workspace
) -> None:
    made(workspace, "lb1", "aaa")
    run.tell(f"{VIRSH} list --all --uuid", "aaa\nbbb\nccc\n\n")
    run.tell(f"{VIRSH} desc bbb", f"ha-lab.workspace={workspace.root}\n")
    run.tell(f"{VIRSH} desc ccc", "ha-lab.workspace=/home/another/.lab\n")
    assert machines.lost_sight_of(workspace) == ["bbb"]
    run.tell(f"{VIRSH} domname bbb", "ha-lab-cp1\n\n")
    machines.adopt(LAB, workspace)
    assert (workspace.root / ".vagrant/machines/cp1/libvirt/id").read_text() == "bbb"


def test_removing_takes_the_labs_own_and_nothing_else(run: FakeRun, workspace: Workspace) -> None:
    made(workspace, "lb1", "aaa")
    run.tell("vagrant destroy")
    run.tell(f"{VIRSH} list --all --uuid", "bbb\nccc\n")
    run.tell(f"{VIRSH} desc bbb", f"ha-lab.workspace={workspace.root}\n")
    run.tell(f"{VIRSH} desc ccc", "somebody's\n")
    run.tell(f"{VIRSH} destroy bbb", code=1, stderr="domain is not running")
    run.tell(f"{VIRSH} undefine bbb")
    machines.remove(workspace, workspace.logs / "01-destroy.log")
    assert ("vagrant", "destroy", "--force", "--no-parallel") in run.asked
    undone = [words for words in run.asked if "undefine" in words]
    assert [words[-2:] for words in undone] == [("bbb", "--remove-all-storage")]


def test_power_is_cut_on_the_spot_and_given_back(run: FakeRun) -> None:
    silent: list[str] = []
    run.tell(f"{VIRSH} domstate ha-lab-cp1", "running\n\n")
    run.tell(f"{VIRSH} destroy ha-lab-cp1")
    machines.power_off(LAB, [LAB.first], lambda: silent.append("cp1"))
    assert silent == ["cp1"]
    machines.power_on(LAB, [LAB.first])
    assert not any("start" in words for words in run.asked)
    run.tell(f"{VIRSH} domstate ha-lab-cp1", "shut off\n\n")
    run.tell(f"{VIRSH} start ha-lab-cp1")
    machines.power_on(LAB, [LAB.first])
    assert any("start" in words for words in run.asked)


def test_a_machine_that_is_not_there_is_neither_on_nor_off(run: FakeRun) -> None:
    run.tell(f"{VIRSH} domstate ha-lab-cp1", code=1, stderr="failed to get domain 'ha-lab-cp1'")
    with pytest.raises(CommandFailed):
        machines.is_on(LAB, LAB.first)


def test_another_hosts_libvirt_is_asked_there(run: FakeRun) -> None:
    uri = "qemu+ssh://ada@big/system"
    lab = LAB.model_copy(update={"libvirt": Libvirt(uri=uri)})
    run.tell(f"virsh --connect {uri} domstate ha-lab-cp1", "running\n")
    assert machines.is_on(lab, lab.first)


def test_virtualbox_has_words_of_its_own_for_power(run: FakeRun) -> None:
    lab: Lab = default().model_copy(update={"provider": "virtualbox"})
    run.tell("VBoxManage showvminfo ha-lab-cp1 --machinereadable", 'name="ha-lab-cp1"\nVMState="running"\n')
    run.tell("VBoxManage controlvm ha-lab-cp1 poweroff")
    machines.power_off(lab, [lab.first], lambda: None)
    assert run.asked[-1] == ("VBoxManage", "controlvm", "ha-lab-cp1", "poweroff")


def test_emulated_machines_have_longer_to_boot(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    given: list[float] = []

    class Kept:
        def __init__(self, *_: object, timeout: float, **__: str) -> None:
            given.append(timeout)

        def up(self, **_: object) -> None:
            pass

    monkeypatch.setattr(vagrant, "LoggedVagrant", Kept)
    machines.boot(workspace, workspace.logs / "01-boot.log")
    workspace.write_identity({"provider": "libvirt", "libvirt": {"emulated": True}})
    machines.boot(workspace, workspace.logs / "02-boot.log")
    assert given == [900, 9000]
