from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import providers as machines
from lab.config import default
from lab.errors import CommandFailed, LabStateError
from lab.providers.docker import freezer
from lab.providers.docker import machines as containers
from lab.workspace import Workspace
from tests.unit.fakes import first_on_path, program

LAB = default()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / ".lab")
    made.write(made.vagrantfile, "# rendered\n")
    return made


@pytest.fixture
def log(workspace: Workspace) -> Path:
    return workspace.logs / "01-boot.log"


def tell(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str, **answers: str) -> Path:
    """A program that does what it was told for some first word and refuses every other.

    Returns the file where its words are kept.
    """
    folder = workspace.root.parent / "bin"
    seen = workspace.root.parent / f"{name}.words"
    cases = "\n".join(f"{word}) {body} ;;" for word, body in answers.items())
    program(
        folder, name, f'echo "$*" >>{seen}\ncase $1 in\n{cases}\n*) echo "refused: $*" >&2; exit 97 ;;\nesac'
    )
    first_on_path(folder, monkeypatch)
    return seen


def made(workspace: Workspace, name: str, container: str) -> None:
    workspace.write(workspace.root / ".vagrant" / "machines" / name / "docker" / "id", container)


@pytest.fixture(autouse=True)
def no_containers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker that has no container of the lab's, so that no test asks this host's own."""
    tell(workspace, monkeypatch, "docker", ps="true")


def test_booting_makes_machines_with_docker_and_does_not_provision(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'echo "$PWD $HA_LAB_BOOT_ONLY $VAGRANT_CHECKPOINT_DISABLE $LC_ALL"'
    seen = tell(workspace, monkeypatch, "vagrant", up=body)
    machines.boot(workspace, log)
    assert sorted(seen.read_text().split()) == ["--no-provision", "--provider=docker", "up"]
    assert f"{workspace.root} 1 1 C.UTF-8" in log.read_text()


def test_what_vagrant_says_is_in_the_log(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace, monkeypatch, "vagrant", up="echo said; echo complained >&2")
    machines.boot(workspace, log)
    assert log.read_text().splitlines()[-2:] == ["said", "complained"]


def test_a_vagrant_that_fails_has_failed(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace, monkeypatch, "vagrant", up="echo 'a strange word' >&2; exit 1")
    with pytest.raises(CommandFailed, match="a strange word") as caught:
        machines.boot(workspace, log)
    assert caught.value.log == log
    assert "./inv doctor" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            'Conflict. The container name "/ha-lab-cp1" is already in use by container "0123"',
            "docker has containers with this lab",
        ),
        (
            "invalid pool request: Pool overlaps with other one on this address space",
            "already uses the lab's subnet",
        ),
        ("write /var/lib/docker/x: no space left on device", "the disk is full"),
        ("mkdir: No space left on device", "the disk is full"),
    ],
)
def test_what_docker_refuses_becomes_a_sentence_about_the_lab(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch, said: str, sentence: str
) -> None:
    tell(workspace, monkeypatch, "vagrant", up=f"echo '{said}' >&2; exit 1")
    with pytest.raises(LabStateError, match=sentence) as caught:
        machines.boot(workspace, log)
    assert caught.value.hint
    assert caught.value.log == log


def test_a_container_of_somebody_s_that_went_away_meanwhile_is_no_failure(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = workspace.root / "tried"
    once = f"[ -e {tried} ] && exit 0; touch {tried}; echo 'No such object: 1f' >&2; exit 1"
    seen = tell(workspace, monkeypatch, "vagrant", up=once)
    machines.boot(workspace, log)
    assert len(seen.read_text().splitlines()) == 2


def test_a_host_without_vagrant_is_told_so(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workspace.root))
    with pytest.raises(CommandFailed, match="could not start"):
        machines.boot(workspace, log)


def test_a_lab_is_known_by_the_machines_it_made(workspace: Workspace) -> None:
    assert not machines.known_to_vagrant(workspace)
    made(workspace, "cp1", "0123")
    assert machines.known_to_vagrant(workspace)


def test_containers_of_ours_that_vagrant_has_lost_are_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "docker", ps="echo aaa; echo bbb")
    made(workspace, "cp1", "aaa\n")
    assert containers.own_containers(workspace) == ["aaa", "bbb"]
    assert machines.unknown_to_vagrant(workspace) == ["bbb"]
    assert f"--filter label=ha-lab.workspace={workspace.root}" in seen.read_text()


def test_lost_containers_are_told_to_vagrant_again_by_their_names(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = "case $4 in aaa) echo /ha-lab-cp1 ;; bbb) echo /somebody-else ;; *) exit 97 ;; esac"
    tell(workspace, monkeypatch, "docker", ps="echo aaa; echo bbb; echo ccc", inspect=inspect)
    made(workspace, "w1", "ccc")
    machines.adopt(LAB, workspace)
    assert {
        path.parent.parent.name: path.read_text() for path in workspace.root.glob(".vagrant/machines/*/*/id")
    } == {
        "w1": "ccc",
        "cp1": "aaa",
    }


def test_booting_waits_for_a_killed_run_s_vagrant(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace, monkeypatch, "vagrant", up="true")
    with subprocess.Popen(["sh", "-c", "sleep 0.5; : vagrant"], cwd=workspace.root) as earlier:
        machines.boot(workspace, log)
        assert earlier.poll() is not None


def test_removing_takes_containers_and_the_network_and_nothing_else(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, volumes = "[ $2 = rm ] || echo 5f2a", "[ $2 = rm ] || echo a-checkpoint"
    told = {"ps": "echo aaa; echo bbb", "rm": "true", "network": networks, "volume": volumes}
    seen = tell(workspace, monkeypatch, "docker", **told)
    vagrant = tell(workspace, monkeypatch, "vagrant", destroy="true")
    made(workspace, "cp1", "aaa")
    machines.remove(workspace, log)
    asked = seen.read_text()
    for container in ("aaa", "bbb"):
        assert f"rm --force --volumes {container}" in asked
    assert f"network ls --quiet --filter label=ha-lab.workspace={workspace.root}\n" in asked
    assert "network rm 5f2a\n" in asked
    assert f"volume ls --quiet --filter label=ha-lab.workspace.checkpoint={workspace.root}\n" in asked
    assert "volume rm a-checkpoint\n" in asked
    assert vagrant.read_text().split()[:2] == ["destroy", "--force"]


def test_a_container_that_is_frozen_is_thawed_and_removed(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(freezer, "ROOT", tmp_path / "freezer")
    state = tmp_path / "freezer/docker/aaa/pod/freezer.state"
    state.parent.mkdir(parents=True)
    state.write_text("FROZEN\n")
    never = "tried to kill container, but did not receive an exit event"
    removing = f"[ $4 = bbb ] || grep -q THAWED {state} || {{ echo '{never}' >&2; exit 1; }}"
    seen = tell(
        workspace, monkeypatch, "docker", ps="echo aaa; echo bbb", rm=removing, network="true", volume="true"
    )
    machines.remove(workspace, log)
    assert seen.read_text().count("rm --force --volumes aaa") == 2
    assert state.read_text() == "THAWED"


def test_what_docker_refuses_to_remove_keeps_nothing_else(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing = "[ $4 != aaa ] || { echo 'device or resource busy' >&2; exit 1; }"
    networks = "[ $2 = rm ] && { echo 'network has active endpoints' >&2; exit 1; } || echo 5f2a"
    seen = tell(
        workspace, monkeypatch, "docker", ps="echo aaa; echo bbb", rm=removing, network=networks, volume="true"
    )
    vagrant = tell(workspace, monkeypatch, "vagrant", destroy="exit 1")
    made(workspace, "cp1", "aaa")
    with pytest.raises(LabStateError, match="docker did not remove everything of this lab") as caught:
        machines.remove(workspace, log)
    assert "rm --force --volumes bbb" in seen.read_text()
    assert vagrant.exists()
    assert "network rm 5f2a\n" in seen.read_text()
    for words in ("aaa", "device or resource busy", "has active endpoints"):
        assert words in caught.value.message
    assert caught.value.hint.startswith("`./inv destroy` again removes the rest")
    assert "`docker network inspect 5f2a` names the containers on it" in caught.value.hint


def test_networks_that_docker_does_not_list_hide_no_other_refusal(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = "echo 'device or resource busy' >&2; exit 1"
    tell(
        workspace,
        monkeypatch,
        "docker",
        ps="echo aaa",
        rm=busy,
        network="echo 'no answer' >&2; exit 1",
        volume="true",
    )
    with pytest.raises(LabStateError, match="docker did not remove everything of this lab") as caught:
        machines.remove(workspace, log)
    assert "device or resource busy" in caught.value.message
    assert "no answer" in caught.value.message


def test_a_vagrant_that_fails_without_machines_does_not_matter(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = f"[ -e {workspace.root}/asked ] || echo aaa; touch {workspace.root}/asked"
    networks = "[ $2 = rm ] || echo 5f2a"
    seen = tell(workspace, monkeypatch, "docker", ps=once, rm="true", network=networks, volume="true")
    tell(workspace, monkeypatch, "vagrant", destroy="exit 1")
    made(workspace, "cp1", "aaa")
    machines.remove(workspace, log)
    assert "network rm 5f2a\n" in seen.read_text()


def test_a_machine_that_went_meanwhile_is_as_good_as_removed(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "echo 'Error response from daemon: No such container: aaa' >&2; exit 1"
    tell(workspace, monkeypatch, "docker", ps="echo aaa", rm=gone, network="true", volume="true")
    machines.remove(workspace, log)


def test_removing_where_nothing_is_asks_vagrant_nothing(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "docker", ps="true", network="true", volume="true")
    vagrant = tell(workspace, monkeypatch, "vagrant")
    machines.remove(workspace, log)
    assert "rm" not in seen.read_text().split()
    assert not vagrant.exists()


def test_booting_some_machines_names_them(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "vagrant", up="true")
    machines.boot(workspace, log, ["w2", "w3"])
    assert seen.read_text() == "up w2 w3 --no-provision --provider=docker\n"


def test_booting_none_asks_vagrant_nothing_since_without_a_name_it_takes_all(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "vagrant")
    machines.boot(workspace, log, [])
    assert not seen.exists()


def test_booting_some_machines_stops_no_other_that_has_no_network(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = "case $4 in aaa) echo true bridge ;; *) exit 97 ;; esac"
    seen = tell(workspace, monkeypatch, "docker", ps="echo aaa; echo bbb", inspect=inspect, stop="true")
    tell(workspace, monkeypatch, "vagrant", up="true")
    made(workspace, "w1", "aaa")
    made(workspace, "w2", "bbb")
    machines.boot(workspace, log, ["w1"])
    assert [line for line in seen.read_text().splitlines() if line.startswith("stop")] == ["stop --time 5 aaa"]


ON = "bridge,vagrant_network_192.168.56.0/24"
ROWS = "; ".join(
    f"echo {row} {ON}"
    for row in ("aaa running ha-lab-w1", "bbb exited ha-lab-w2", "ccc running other/lab,ha-lab-cp1")
)


def test_some_machines_are_removed_and_the_others_and_the_network_stay(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "docker", ps=ROWS, rm="true")
    for name, container in (("w1", "aaa"), ("w2", "bbb"), ("cp1", "ccc")):
        made(workspace, name, container)
    machines.remove_machines(LAB, workspace, ["w2", "cp1"], log)
    asked = seen.read_text().splitlines()
    assert f"--filter label=ha-lab.workspace={workspace.root} " in asked[0]
    assert sorted(asked[1:]) == ["rm --force --volumes bbb", "rm --force --volumes ccc"]
    assert [path.name for path in (workspace.root / ".vagrant/machines").iterdir()] == ["w1"]


def test_a_machine_that_lab_yaml_names_no_longer_is_removed_too(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "docker", ps="echo ddd running ha-lab-w9", rm="true")
    assert LAB.node("w9") is None
    machines.remove_machines(LAB, workspace, ["w9"], log)
    assert seen.read_text().splitlines()[1:] == ["rm --force --volumes ddd"]


def test_removing_machines_that_are_gone_only_lets_vagrant_forget_them(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace, monkeypatch, "docker", ps=ROWS)
    made(workspace, "w3", "not among the lab's own")
    machines.remove_machines(LAB, workspace, ["w3"], log)
    machines.remove_machines(LAB, workspace, ["w3"], log)
    assert not machines.known_to_vagrant(workspace)


def test_a_container_that_could_not_be_removed_is_not_forgotten(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace, monkeypatch, "docker", ps=ROWS, rm="echo device busy >&2; exit 1")
    made(workspace, "w1", "aaa")
    with pytest.raises(CommandFailed, match="device busy"):
        machines.remove_machines(LAB, workspace, ["w1"], log)
    assert machines.known_to_vagrant(workspace)


def test_states_are_those_of_this_labs_containers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = f"{ROWS}; echo ddd paused ha-lab-cp2 {ON}; echo eee created ha-lab-w3 bridge"
    rows += f"; echo fff dead ha-lab-cp3 {ON}"
    seen = tell(workspace, monkeypatch, "docker", ps=rows)
    assert machines.states(LAB, workspace) == {
        "lb1": "absent",
        "cp1": "running",
        "cp2": "paused",
        "cp3": "stopped",
        "w1": "running",
        "w2": "stopped",
        "w3": "incomplete",
    }
    assert len(seen.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("echo running", "running"),
        ("echo paused", "paused"),
        ("echo exited", "stopped"),
        ("echo 'Error: No such container: ha-lab-cp1' >&2; exit 1", "absent"),
        ("echo 'error: no such object: ha-lab-cp1' >&2; exit 1", "absent"),
    ],
)
def test_the_state_of_a_machine_is_what_docker_says(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    tell(workspace, monkeypatch, "docker", inspect=answer)
    assert machines.state(LAB, LAB.first) == state


def test_a_docker_that_does_not_answer_is_no_absent_machine(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    tell(workspace, monkeypatch, "docker", inspect=f"echo '{said}' >&2; exit 1")
    with pytest.raises(CommandFailed, match="Cannot connect"):
        machines.state(LAB, LAB.first)


@pytest.mark.parametrize(("code", "orderly"), [("130", True), ("0", True), ("137", False)])
def test_a_machine_is_stopped_in_an_orderly_way_or_says_that_it_was_killed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: str, orderly: bool
) -> None:
    inspect = f"case $5 in *Status*) echo running ;; *ExitCode*) echo {code} ;; *) exit 97 ;; esac"
    seen = tell(workspace, monkeypatch, "docker", inspect=inspect, stop="true")
    assert machines.stop(LAB, LAB.first, 30) is orderly
    assert "stop --time 30 ha-lab-cp1" in seen.read_text().splitlines()


def test_a_paused_machine_goes_on_before_it_is_stopped(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = "case $5 in *Status*) echo paused ;; *ExitCode*) echo 130 ;; *) exit 97 ;; esac"
    seen = tell(workspace, monkeypatch, "docker", inspect=inspect, unpause="true", stop="true")
    assert machines.stop(LAB, LAB.first, 30)
    assert [line.split()[0] for line in seen.read_text().splitlines()] == [
        "inspect",
        "unpause",
        "stop",
        "inspect",
    ]


@pytest.mark.parametrize("answer", ["echo exited", "echo 'Error: No such container' >&2; exit 1"])
def test_a_machine_that_is_stopped_or_absent_is_left_as_it_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    tell(workspace, monkeypatch, "docker", inspect=answer)
    assert machines.stop(LAB, LAB.first, 30)
    machines.resume(LAB, LAB.first)


def test_a_container_has_no_size_to_change(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tell(workspace, monkeypatch, "docker")
    machines.resize(LAB, LAB.first)
    assert not seen.exists()
    assert not machines.provider_of(LAB).enforces_sizes
