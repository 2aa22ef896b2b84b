from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab import providers as machines
from lab.config import default
from lab.errors import CommandFailed, LabStateError, WaitTimedOut
from lab.model import Lab, Libvirt
from lab.providers import vagrant
from lab.system import process
from lab.workspace import Workspace
from tests.unit.fakes import keep_made
from tests.unit.hosts import FakeRun

URI = "qemu:///system"
VIRSH = f"virsh --connect {URI}"
LAB = default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt()})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / ".lab")
    made.write(made.vagrantfile, "# rendered\n")
    keep_made(made, LAB)
    return made


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
    assert machines.unknown_to_vagrant(workspace) == ["bbb"]
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
    assert [words[3:] for words in undone] == [
        ("undefine", "bbb", "--managed-save", "--snapshots-metadata", "--remove-all-storage")
    ]


def test_a_refusal_after_the_last_machine_was_forgotten_is_reported(
    run: FakeRun, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(workspace, "lb1", "aaa")
    run.tell("vagrant destroy", "the network is in use", code=1)
    monkeypatch.setattr(vagrant, "ids_by_name", lambda workspace: {})
    [refused] = vagrant.destroy(workspace, workspace.logs / "01-destroy.log")
    assert "the network is in use" in refused.tail


def test_what_libvirt_refuses_to_remove_keeps_nothing_else(run: FakeRun, workspace: Workspace) -> None:
    log = workspace.logs / "01-destroy.log"
    for name, mark in (("lb1", "aaa"), ("cp1", "bbb"), ("w1", "ccc")):
        made(workspace, name, mark)
    run.tell("vagrant destroy", "the first that is refused ends it", code=1)
    run.tell("vagrant destroy lb1")
    run.tell("vagrant destroy cp1", "cp1 is busy", code=1)
    run.tell("vagrant destroy w1", "w1 is busy", code=1)
    run.tell(f"{VIRSH} list --all --uuid", "bbb\nccc\nddd\neee\n")
    for mark in ("ddd", "eee"):
        run.tell(f"{VIRSH} desc {mark}", f"ha-lab.workspace={workspace.root}\n")
        run.tell(f"{VIRSH} destroy {mark}")
    run.tell(f"{VIRSH} undefine ddd", "ddd has a lock", code=1)
    run.tell(f"{VIRSH} undefine eee")
    with pytest.raises(LabStateError, match="libvirt did not remove everything of this lab") as caught:
        machines.remove(workspace, log)
    for words in ("cp1 is busy", "w1 is busy", "ddd has a lock"):
        assert words in caught.value.message
    assert "the first that is refused" not in caught.value.message
    assert "`./inv destroy` again removes the rest" in caught.value.hint
    assert f"`{VIRSH} list --all` shows it" in caught.value.hint
    assert caught.value.log == log
    assert [words[4] for words in run.asked if "undefine" in words] == ["ddd", "eee"]


def test_a_libvirt_that_does_not_answer_has_not_removed_the_lab(
    run: FakeRun, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    run.tell(f"{VIRSH} list --all --uuid", code=1, stderr="error: failed to connect to the hypervisor")
    assert machines.unknown_to_vagrant(workspace) == []
    with pytest.raises(LabStateError, match="failed to connect to the hypervisor"):
        machines.remove(workspace, workspace.logs / "01-destroy.log")


def test_a_refusal_that_passed_at_the_second_try_is_none(run: FakeRun, workspace: Workspace) -> None:
    made(workspace, "lb1", "aaa")
    run.tell("vagrant destroy", "two threads raced", code=1)
    run.tell("vagrant destroy lb1")
    run.tell(f"{VIRSH} list --all --uuid", "")
    machines.remove(workspace, workspace.logs / "01-destroy.log")


def test_a_host_without_libvirt_has_no_machine_of_a_lab_that_was_only_rendered(
    run: FakeRun, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    machines.remove(workspace, workspace.logs / "01-destroy.log")
    assert run.asked == []


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


def test_a_machine_that_is_not_there_can_be_switched_neither_on_nor_off(run: FakeRun) -> None:
    run.tell(f"{VIRSH} domstate ha-lab-cp1", code=1, stderr="error: failed to get domain 'ha-lab-cp1'")
    assert machines.state(LAB, LAB.first) == "absent"
    with pytest.raises(LabStateError, match="cp1 does not exist"):
        machines.power_on(LAB, [LAB.first])
    with pytest.raises(LabStateError, match="cp1 does not exist"):
        machines.power_off(LAB, [LAB.first], lambda: None)


def test_another_hosts_libvirt_is_asked_there(run: FakeRun) -> None:
    uri = "qemu+ssh://ada@big/system"
    lab = LAB.model_copy(update={"libvirt": Libvirt(uri=uri)})
    run.tell(f"virsh --connect {uri} domstate ha-lab-cp1", "running\n")
    assert machines.state(lab, lab.first) == "running"


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
    keep_made(workspace, LAB.model_copy(update={"libvirt": Libvirt(emulated=True)}))
    machines.boot(workspace, workspace.logs / "02-boot.log")
    assert given == [900, 9000]


DOMAINS = """\
 Id   Name         State
-----------------------------
 1    ha-lab-cp1   running
 2    ha-lab-cp2   paused
 3    ha-lab-w1    in shutdown
 -    ha-lab-cp3   shut off
 -    ha-lab-w2    shut off
 -    somebody-s   shut off

"""
"""As virsh 9.0 prints it."""


def test_states_of_libvirts_machines_are_those_of_this_labs_own(run: FakeRun, workspace: Workspace) -> None:
    run.tell(f"{VIRSH} list --all", DOMAINS)
    run.tell(f"{VIRSH} desc", f"ha-lab.workspace={workspace.root}\n")
    run.tell(f"{VIRSH} desc ha-lab-w2", "ha-lab.workspace=/home/another/.lab\n")
    assert machines.states(LAB, workspace) == {
        "lb1": "absent",
        "cp1": "running",
        "cp2": "paused",
        "cp3": "stopped",
        "w1": "running",
        "w2": "absent",
        "w3": "absent",
    }


def test_a_libvirt_that_does_not_answer_is_no_absent_machine(run: FakeRun, workspace: Workspace) -> None:
    run.tell(f"{VIRSH}", code=1, stderr="error: failed to connect to the hypervisor")
    for ask in (lambda: machines.state(LAB, LAB.first), lambda: machines.states(LAB, workspace)):
        with pytest.raises(CommandFailed, match="failed to connect"):
            ask()


def test_some_of_libvirts_machines_are_removed_with_their_disks(run: FakeRun, workspace: Workspace) -> None:
    for name in ("w1", "w2", "w8", "w9"):
        made(workspace, name, f"uuid-{name}")
    run.tell(f"{VIRSH} desc ha-lab-w2", f"ha-lab.workspace={workspace.root}\n")
    run.tell(f"{VIRSH} desc ha-lab-w8", "ha-lab.workspace=/home/another/.lab\n")
    run.tell(f"{VIRSH} desc ha-lab-w9", code=1, stderr="error: failed to get domain 'ha-lab-w9'")
    run.tell(f"{VIRSH} destroy ha-lab-w2", code=1, stderr="domain is not running")
    run.tell(f"{VIRSH} undefine ha-lab-w2")
    machines.remove_machines(LAB, workspace, ["w2", "w8", "w9"], workspace.logs / "01-remove.log")
    assert run.asked[-1][-1] != "ha-lab-w8"
    assert [words[3:5] for words in run.asked if words[3] == "undefine"] == [("undefine", "ha-lab-w2")]
    assert [path.name for path in (workspace.root / ".vagrant/machines").iterdir()] == ["w1"]


def test_a_disk_that_could_not_be_removed_is_not_forgotten(run: FakeRun, workspace: Workspace) -> None:
    made(workspace, "w2", "uuid")
    run.tell(f"{VIRSH} desc ha-lab-w2", f"ha-lab.workspace={workspace.root}\n")
    run.tell(f"{VIRSH} destroy ha-lab-w2")
    run.tell(f"{VIRSH} undefine ha-lab-w2", code=1, stderr="cannot remove the volume")
    with pytest.raises(CommandFailed):
        machines.remove_machines(LAB, workspace, ["w2"], workspace.logs / "01-remove.log")
    assert machines.known_to_vagrant(workspace)


def test_a_virtual_machine_is_stopped_by_its_power_button(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["running", "running", "in shutdown", "shut off"])
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def asked(words: list[str], **_: object) -> process.Result:
        said = next(answers) if "domstate" in words else ""
        return process.Result(tuple(words), 0, said, "", 0.0)

    monkeypatch.setattr(process, "run", asked)
    assert machines.stop(LAB, LAB.first, 60)
    assert list(answers) == []


def test_the_power_of_one_that_does_not_stop_in_time_is_cut(run: FakeRun) -> None:
    run.tell(f"{VIRSH} domstate ha-lab-cp1", "running\n")
    run.tell(f"{VIRSH} shutdown ha-lab-cp1")
    run.tell(f"{VIRSH} destroy ha-lab-cp1")
    assert not machines.stop(LAB, LAB.first, 0)
    assert run.asked[-1][3:] == ("destroy", "ha-lab-cp1")


def test_a_paused_virtual_machine_goes_on(run: FakeRun) -> None:
    run.tell(f"{VIRSH} domstate ha-lab-cp1", "paused\n")
    run.tell(f"{VIRSH} resume ha-lab-cp1")
    machines.resume(LAB, LAB.first)
    assert run.asked[-1][3:] == ("resume", "ha-lab-cp1")


def test_a_virtual_machine_gets_the_sizes_of_lab_yaml(run: FakeRun) -> None:
    node = LAB.first.model_copy(update={"cpus": 4, "memory_mib": 3072})
    run.tell(f"{VIRSH} setvcpus ha-lab-cp1")
    run.tell(f"{VIRSH} setmaxmem ha-lab-cp1")
    run.tell(f"{VIRSH} setmem ha-lab-cp1")
    machines.resize(LAB, node)
    assert [" ".join(words[3:]) for words in run.asked] == [
        "setvcpus ha-lab-cp1 4 --config --maximum",
        "setvcpus ha-lab-cp1 4 --config",
        "setmaxmem ha-lab-cp1 3072MiB --config",
        "setmem ha-lab-cp1 3072MiB --config",
    ]
    assert machines.provider_of(LAB).enforces_sizes


# VirtualBox, which no build machine can run: its words as its source has them (VBoxManageInfo.cpp).

VIRTUALBOX = default().model_copy(update={"provider": "virtualbox"})
NOT_REGISTERED = "VBoxManage: error: Could not find a registered machine named 'ha-lab-w9'\n"


def about(run: FakeRun, machine: str, state: str, owner: str = "") -> None:
    lines = [f'name="{machine}"', f'VMState="{state}"', *([f'description="{owner}"'] if owner else [])]
    run.tell(f"VBoxManage showvminfo {machine} --machinereadable", "\r\n".join(lines) + "\r\n")


@pytest.fixture
def vbox(workspace: Workspace) -> Workspace:
    keep_made(workspace, LAB.model_copy(update={"provider": "virtualbox", "libvirt": None}))
    return workspace


def test_booting_some_of_virtualboxs_machines_names_them(run: FakeRun, vbox: Workspace) -> None:
    run.tell("vagrant up")
    machines.boot(vbox, vbox.logs / "01-boot.log", ["w2"])
    assert run.asked == [("vagrant", "up", "w2", "--no-provision", "--provider=virtualbox")]


def test_states_of_virtualboxs_machines_are_those_of_this_labs_own(run: FakeRun, vbox: Workspace) -> None:
    names = ("cp1", "cp2", "cp3", "w1", "w2", "w3")
    uuids = {name: f"{number}1111111-2222-3333-4444-555555555555" for number, name in enumerate(names)}
    run.tell("VBoxManage list vms", "".join(f'"ha-lab-{name}" {{{uuids[name]}}}\n' for name in names))
    vbox.write(vbox.root / ".vagrant/machines/cp1/virtualbox/id", uuids["cp1"])
    about(run, "ha-lab-cp1", "running")
    own = f"ha-lab.workspace={vbox.root}"
    for name, said in (("cp2", "paused"), ("cp3", "poweroff"), ("w1", "aborted"), ("w2", "stopping")):
        about(run, f"ha-lab-{name}", said, own)
    about(run, "ha-lab-w3", "running", "ha-lab.workspace=/home/another/.lab")
    assert machines.states(VIRTUALBOX, vbox) == {
        "lb1": "absent",
        "cp1": "running",
        "cp2": "paused",
        "cp3": "stopped",
        "w1": "stopped",
        "w2": "running",
        "w3": "absent",
    }


def test_some_of_virtualboxs_machines_are_removed_with_their_disks(run: FakeRun, vbox: Workspace) -> None:
    vbox.write(vbox.root / ".vagrant/machines/w2/virtualbox/id", "uuid-w2")
    about(run, "uuid-w2", "running")
    about(run, "ha-lab-w7", "poweroff", f"ha-lab.workspace={vbox.root}")
    about(run, "ha-lab-w8", "running", "ha-lab.workspace=/home/another/.lab")
    run.tell("VBoxManage showvminfo ha-lab-w9", code=1, stderr=NOT_REGISTERED)
    for machine in ("uuid-w2", "ha-lab-w7"):
        run.tell(f"VBoxManage controlvm {machine} poweroff", code=1, stderr="is not currently running")
        run.tell(f"VBoxManage unregistervm {machine} --delete")
    machines.remove_machines(VIRTUALBOX, vbox, ["w2", "w7", "w8", "w9"], vbox.logs / "01-remove.log")
    removed = [words[2] for words in run.asked if words[1] == "unregistervm"]
    assert removed == ["uuid-w2", "ha-lab-w7"]
    assert not machines.known_to_vagrant(vbox)


def test_what_virtualbox_refuses_to_remove_keeps_nothing_else(run: FakeRun, vbox: Workspace) -> None:
    for name in ("lb1", "cp1", "w1"):
        vbox.write(vbox.root / ".vagrant/machines" / name / "virtualbox/id", f"id of {name}")
    run.tell("vagrant destroy", "the first that is refused ends it", code=1)
    run.tell("vagrant destroy cp1", "cp1 is locked", code=1)
    run.tell("vagrant destroy lb1", "lb1 is locked", code=1)
    run.tell("vagrant destroy w1")
    with pytest.raises(LabStateError, match="VirtualBox did not remove everything of this lab") as caught:
        machines.remove(vbox, vbox.logs / "01-destroy.log")
    assert "cp1 is locked" in caught.value.message
    assert "lb1 is locked" in caught.value.message
    assert "`VBoxManage list vms` shows it" in caught.value.hint
    assert ("vagrant", "destroy", "w1", "--force", "--no-parallel") in run.asked


def test_a_machine_that_virtualbox_does_not_let_go_of_is_not_forgotten(
    run: FakeRun, vbox: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    vbox.write(vbox.root / ".vagrant/machines/w2/virtualbox/id", "uuid-w2")
    monkeypatch.setattr("lab.providers.virtualbox.machines.RELEASE_TIMEOUT", 0.0)
    about(run, "uuid-w2", "running")
    run.tell("VBoxManage controlvm uuid-w2 poweroff")
    run.tell("VBoxManage unregistervm uuid-w2 --delete", code=1, stderr="error: Cannot unregister: locked")
    with pytest.raises(WaitTimedOut, match="locked"):
        machines.remove_machines(VIRTUALBOX, vbox, ["w2"], vbox.logs / "01-remove.log")
    assert machines.known_to_vagrant(vbox)


def test_virtualbox_has_words_of_its_own_for_all_that_is_done_to_a_machine(run: FakeRun) -> None:
    node = VIRTUALBOX.first.model_copy(update={"cpus": 4, "memory_mib": 3072})
    about(run, "ha-lab-cp1", "poweroff")
    run.tell("VBoxManage startvm")
    machines.power_on(VIRTUALBOX, [node])
    run.tell("VBoxManage modifyvm")
    machines.resize(VIRTUALBOX, node)
    about(run, "ha-lab-cp1", "paused")
    run.tell("VBoxManage controlvm")
    machines.resume(VIRTUALBOX, node)
    about(run, "ha-lab-cp1", "running")
    assert not machines.stop(VIRTUALBOX, node, 0)
    run.tell("VBoxManage showvminfo ha-lab-cp1", code=1, stderr=NOT_REGISTERED)
    assert [" ".join(words[1:]) for words in run.asked if "showvminfo" not in words] == [
        "startvm ha-lab-cp1 --type headless",
        "modifyvm ha-lab-cp1 --cpus 4 --memory 3072",
        "controlvm ha-lab-cp1 resume",
        "controlvm ha-lab-cp1 acpipowerbutton",
        "controlvm ha-lab-cp1 poweroff",
    ]
