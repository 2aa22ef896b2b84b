"""Shutting machines down: which, in which order, and what is reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import providers
from lab.errors import CommandFailed, ConfigError, LabError, LabStateError, NodeFailed
from lab.model import Lab, Node
from lab.plans.stop import STOP_TIMEOUT
from lab.providers import MachineState
from lab.session import Session
from lab.system.progress import Progress
from lab.verbs import stop
from tests.unit.fakes import FakeRemote, keep_made, printed
from tests.unit.sessions import as_made, let_exist, wanted


class World:
    """Machines that are shut down, in order, and how each was."""

    def __init__(self, session: Session) -> None:
        """Let all run."""
        self.states: dict[str, MachineState] = {node.name: "running" for node in session.lab.nodes}
        self.events: list[str] = []
        self.hung_up: list[str] = []
        self.disorderly: set[str] = set()
        self.refusing: set[str] = set()
        self.timeouts: set[float] = set()

    def state(self, lab: Lab, node: Node) -> MachineState:
        """The state of one."""
        return self.states[node.name]

    def stop(self, lab: Lab, node: Node, timeout: float) -> bool:
        """Shut one down."""
        if node.name in self.refusing:
            raise CommandFailed(["docker", "stop", node.name], "ended with exit code 1")
        self.events.append(node.name)
        self.timeouts.add(timeout)
        self.states[node.name] = "stopped"
        return node.name not in self.disorderly

    def close_connections(self, nodes: Iterable[Node] | None = None) -> None:
        """Keep to which machines connections were ended."""
        assert nodes is not None
        assert not self.events, "a connection that is open would wait for a machine that is gone"
        self.hung_up += [node.name for node in nodes]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    opened = wanted(tmp_path)
    keep_made(opened.workspace, opened.lab)
    let_exist(opened.workspace)
    found = as_made(tmp_path)
    return replace(found, remote=FakeRemote(found.lab, found.workspace))


@pytest.fixture
def world(session: Session, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(session)
    monkeypatch.setattr(providers, "state", found.state)
    monkeypatch.setattr(providers, "stop", found.stop)
    monkeypatch.setattr(session.remote, "close_connections", found.close_connections)
    return found


def names(nodes: Iterable[Node]) -> list[str]:
    return [node.name for node in nodes]


def test_all_machines_are_shut_down_workers_first_and_the_load_balancer_last(
    session: Session, world: World
) -> None:
    assert names(stop.stop(session, [])) == ["lb1", "cp1", "cp2", "cp3", "w1", "w2", "w3"]
    assert sorted(world.events[:3]) == ["w1", "w2", "w3"]
    assert sorted(world.events[3:6]) == ["cp1", "cp2", "cp3"]
    assert world.events[6:] == ["lb1"]
    assert world.hung_up == names(session.lab.nodes)
    assert world.timeouts == {STOP_TIMEOUT}


def test_a_connection_that_does_not_end_keeps_no_machine_running(
    session: Session, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close_connections(nodes: object) -> None:
        raise NodeFailed("to end the connection", {"w3": LabError("`ssh` did not end within 10 s")})

    monkeypatch.setattr(session.remote, "close_connections", close_connections)
    console, text = printed()
    shown = replace(session, progress=Progress(console, session.workspace.logs))
    assert names(stop.stop(shown, ["w3"])) == ["w3"]
    assert "to end the connection failed on w3: `ssh` did not end within 10 s" in text.getvalue()


def test_only_those_that_are_named_are_shut_down(session: Session, world: World) -> None:
    assert names(stop.stop(session, ["cp2", "w3"])) == ["cp2", "w3"]
    assert world.events == ["w3", "cp2"]
    assert world.hung_up == ["cp2", "w3"]


def test_a_machine_that_is_named_twice_is_one_machine(session: Session, world: World) -> None:
    assert names(stop.stop(session, ["w3", "w3"])) == ["w3"]
    assert world.events == world.hung_up == ["w3"]


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_those_that_did_not_run_are_not_among_those_that_were_stopped(
    session: Session, world: World, state: MachineState
) -> None:
    world.states |= {"w1": state, "cp3": state}
    assert names(stop.stop(session, ["w1", "w2", "cp3"])) == ["w2"]
    assert world.events == ["w2"]


def test_where_none_ran_none_was_stopped(session: Session, world: World) -> None:
    world.states = dict.fromkeys(world.states, "stopped")
    assert stop.stop(session, []) == ()
    assert world.events == []


@pytest.mark.parametrize("state", ["paused", "incomplete"])
def test_those_that_have_power_are_stopped_whatever_else_they_are(
    session: Session, world: World, state: MachineState
) -> None:
    world.states["w1"] = state
    assert names(stop.stop(session, ["w1"])) == ["w1"]


@pytest.mark.parametrize("wrong", [["w9"], ["w3", "w9"], [" w3"]])
def test_a_name_that_there_is_not_stops_nothing(session: Session, world: World, wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match="there is no machine") as caught:
        stop.stop(session, wrong)
    assert caught.value.hint == "its machines: lb1, cp1, cp2, cp3, w1, w2, w3"
    assert world.events == world.hung_up == []


def test_a_lab_without_machines_has_none_to_stop(tmp_path: Path) -> None:
    opened = wanted(tmp_path)
    with pytest.raises(LabStateError, match="the lab has no machines") as caught:
        stop.stop(opened, [])
    assert caught.value.hint == "`./inv up` creates them"
    assert not opened.workspace.root.exists()


def test_a_machine_that_lab_yaml_has_no_longer_is_stopped_by_its_name(
    session: Session, world: World, tmp_path: Path
) -> None:
    edited = as_made(tmp_path, "name: mine\nprovider: docker\nnodes: {workers: {count: 1}}\n")
    assert names(stop.stop(replace(edited, remote=session.remote), ["w3"])) == ["w3"]


def test_a_machine_whose_power_was_cut_is_said_to_be(session: Session, world: World) -> None:
    world.disorderly = {"w2"}
    console, text = printed()
    session = replace(session, progress=Progress(console, session.workspace.logs))
    assert names(stop.stop(session, ["w1", "w2"])) == ["w1", "w2"]
    (line,) = [line for line in text.getvalue().splitlines() if "its power was cut" in line]
    assert "w2" in line
    assert f"after {STOP_TIMEOUT:.0f} s" in line


def test_what_the_others_speak_through_stays_where_one_of_them_did_not_stop(
    session: Session, world: World
) -> None:
    world.refusing = {"w2"}
    with pytest.raises(NodeFailed, match="w2"):
        stop.stop(session, [])
    assert sorted(world.events) == ["w1", "w3"]


def test_a_lab_in_use_is_not_stopped(session: Session, world: World) -> None:
    with session.workspace.lock(), pytest.raises(LabStateError, match="this lab is in use"):
        stop.stop(session, [])
    assert world.events == world.hung_up == []


def test_a_stop_s_logs_begin_again(session: Session, world: World) -> None:
    session.workspace.write(session.workspace.logs / "01-boot.log", "an earlier run's")
    stop.stop(session, ["w3"])
    assert not (session.workspace.logs / "01-boot.log").exists()
    assert (session.workspace.root / "logs.previous" / "01-boot.log").exists()
