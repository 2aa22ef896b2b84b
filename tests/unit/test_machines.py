from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import providers as machines
from lab.config import default
from lab.errors import CommandFailed, LabStateError
from lab.providers import containers
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
    assert log.read_text().splitlines()[1:] == ["said", "complained"]


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
    assert machines.lost_sight_of(workspace) == ["bbb"]
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
    networks = "[ $2 = rm ] || echo 5f2a"
    seen = tell(workspace, monkeypatch, "docker", ps="echo aaa; echo bbb", rm="true", network=networks)
    vagrant = tell(workspace, monkeypatch, "vagrant", destroy="true")
    made(workspace, "cp1", "aaa")
    machines.remove(workspace, log)
    asked = seen.read_text()
    for container in ("aaa", "bbb"):
        assert f"rm --force --volumes {container}" in asked
    assert f"network ls --quiet --filter label=ha-lab.workspace={workspace.root}\n" in asked
    assert "network rm 5f2a\n" in asked
    assert vagrant.read_text().split()[:2] == ["destroy", "--force"]


def test_removing_where_nothing_is_asks_vagrant_nothing(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tell(workspace, monkeypatch, "docker", ps="true", network="true")
    vagrant = tell(workspace, monkeypatch, "vagrant")
    machines.remove(workspace, log)
    assert "rm" not in seen.read_text().split()
    assert not vagrant.exists()


def test_states_are_what_vagrant_says_of_each_machine(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "1,cp1,provider-name,docker",
        "1,cp1,state,running",
        "1,w1,provider-name,docker",
        "1,w1,state,stopped",
    ]
    tell(workspace, monkeypatch, "vagrant", status=f"printf '%s\\n' {' '.join(rows)}")
    assert machines.states(workspace, log) == {"cp1": "running", "w1": "stopped"}
