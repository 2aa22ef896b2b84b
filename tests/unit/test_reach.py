"""Whom machines reach: reading what they say, and asking them before `up` goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.errors import CommandFailed
from lab.host import Container, DockerNetwork, Way
from lab.host.doctor import examination
from lab.host.doctor.finding import Finding
from lab.host.reach import Reach, reach, read_reach
from lab.model import Node, machine_name
from lab.system.process import Result
from lab.workspace import Workspace
from tests.unit.hosts import host

LAB = default()
SAID = {
    "lb1": "cp1\ncp2\ncp3\n",
    "cp1": "lb1 no answer within 3 s\ncp2\ncp3 No route to host\n",
    "w1": "lb1\ncp1\ncp2\ncp3\n",
}


def test_each_line_is_a_machine_and_why_it_is_not_reached() -> None:
    assert read_reach(SAID["cp1"]) == {"lb1": "no answer within 3 s", "cp2": "", "cp3": "No route to host"}
    assert read_reach("\n") == {}


def test_only_machines_that_answer_this_host_count() -> None:
    found = reach({name: read_reach(text) for name, text in SAID.items()})
    assert set(found.pairs) == {("lb1", "cp1"), ("cp1", "lb1"), ("w1", "lb1"), ("w1", "cp1")}
    assert found.broken == {("cp1", "lb1"): "no answer within 3 s"}
    assert not found.all_broken
    assert found.described() == "cp1 does not reach lb1 (no answer within 3 s)"


def test_nobody_to_ask_is_no_one_apart() -> None:
    assert not Reach({}).all_broken
    assert Reach({("a", "b"): ""}).described() == ""


@dataclass
class FakeMachines:
    """Stands for the machines: answers reach.sh as it was told, refuses all else."""

    answers: dict[str, tuple[int, str] | CommandFailed]
    route: str | None = None
    asked: list[str] = field(default_factory=list)
    begun: threading.Barrier | None = None

    def __call__(self, lab: object, workspace: object) -> FakeMachines:
        """Be the way to the machines."""
        return self

    def route_problem(self) -> str | None:
        """Say what this test says of the lab's network."""
        return self.route

    def run(self, node: Node, command: Sequence[str], **named: Any) -> Result:
        """Answer as this test says."""
        assert list(command) == ["/opt/ha-lab/reach.sh"]
        assert 4 < named["timeout"] <= 6, "a machine that hangs costs a few seconds"
        self.asked.append(node.name)
        if self.begun:
            self.begun.wait(timeout=5)
        answer = self.answers[node.name]
        if isinstance(answer, CommandFailed):
            raise answer
        return Result(tuple(command), answer[0], answer[1], "", 0.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / ".lab")
    found.write(found.ssh_config, "")
    return found


def look(
    machines: FakeMachines,
    running: Sequence[str],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    paused: Sequence[str] = (),
) -> Finding | None:
    """What the doctor finds between the machines of a lab of which some run, and some of those are paused."""
    network = DockerNetwork("vagrant_network_192.168.56.0/24", "br-own", (IPv4Network("192.168.56.0/24"),))
    nodes = [node for node in LAB.nodes if node.name in running]
    containers = tuple(
        Container(
            machine_name(LAB, node),
            True,
            str(workspace.root),
            (network.name,),
            paused=node.name in paused,
        )
        for node in nodes
    )
    facts = host(containers=containers, docker_networks=(network,), way=Way("br-own"))
    monkeypatch.setattr("lab.host.gather", lambda *_, **__: facts)
    monkeypatch.setattr(examination, "Remote", machines)
    findings = examination.look(LAB, workspace, baked=True)
    return next((each for each in findings if each.check == "forwarding"), None)


def test_the_doctor_asks_the_machines_that_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"lb1": "cp1", "cp1": "lb1", "w1": "lb1"}
    machines = FakeMachines({name: (0, f"{other} no answer within 3 s\n") for name, other in others.items()})
    found = look(machines, [*others], workspace, monkeypatch)
    assert sorted(machines.asked) == sorted(others)
    assert found is not None
    assert (found.verdict, found.what) == ("unfit", "no machine reaches another one (no answer within 3 s)")


def test_machines_that_do_not_answer_or_have_older_scripts_are_passed_over(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = FakeMachines(
        {
            "lb1": (0, "cp1\ncp2 no answer within 3 s\n"),
            "cp1": (127, "bash: /opt/ha-lab/reach.sh: No such file or directory\n"),
            "cp2": CommandFailed(["ssh"], "did not end within 15 s"),
            "w1": (0, "lb1\ncp1\ncp2 no answer within 3 s\n"),
        }
    )
    found = look(machines, ["lb1", "cp1", "cp2", "w1"], workspace, monkeypatch)
    assert found is not None
    assert (found.verdict, found.what) == ("fit", "machines reach one another")


def test_nobody_is_asked_while_the_lab_s_network_is_down(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = FakeMachines({}, route="the lab's network 192.168.56.0/24 is not up on this host")
    look(machines, ["lb1", "cp1"], workspace, monkeypatch)
    assert machines.asked == []


def test_machines_are_asked_at_the_same_time_and_paused_ones_are_not_asked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = FakeMachines({"lb1": (0, "cp1\n"), "cp1": (0, "lb1\n")}, begun=threading.Barrier(2))
    found = look(machines, ["lb1", "cp1", "w1"], workspace, monkeypatch, paused=["w1"])
    assert sorted(machines.asked) == ["cp1", "lb1"]
    assert found is not None
    assert found.what == "machines reach one another"


def test_one_machine_alone_is_not_asked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = FakeMachines({})
    look(machines, ["lb1"], workspace, monkeypatch)
    assert machines.asked == []


def test_a_ca_that_is_not_valid_is_found_by_the_doctor(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write_secret(workspace.secrets / "ca.crt", "no certificate")
    monkeypatch.setattr("lab.host.gather", lambda *_, **__: host())
    findings = {each.check: each for each in examination.look(LAB, workspace, baked=True)}
    assert findings["ca"].verdict == "unfit"
    assert str(workspace.secrets / "ca.crt") in findings["ca"].what
    workspace.write_secret(workspace.secrets / "id_ed25519", "")
    workspace.write_secret(workspace.secrets / "id_ed25519.pub", "")
    found = {each.check: each for each in examination.look(LAB, workspace, baked=True)}["ssh-key"]
    assert (found.verdict, found.what) == ("unfit", f"{workspace.secrets / 'id_ed25519.pub'} is empty")
    assert "the next run generates a new pair" in found.repair
