"""A drill's fault comes out whatever happens, and what is asked for is judged before anything is touched."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.config import default, load
from lab.drill import balancer_log, catalogue, command, run, undo
from lab.drill.figures import FIGURES, figures
from lab.drill.recording import Recording
from lab.drill.scene import Scene
from lab.drill.stories import STORIES
from lab.errors import ConfigError, LabError
from lab.health import verify
from lab.model import Node
from lab.session import Session
from lab.system import process
from lab.system.paths import REPOSITORY
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, progress, recorded, with_a_second_balancer


def test_limits_are_those_of_the_lab_s_topology() -> None:
    drill = next(each for each in catalogue.DRILLS if each.name == "kill-etcd-leader")
    external = load(REPOSITORY / "examples" / "external-etcd.yaml")
    assert (drill.limits_in(default()), drill.limits_in(external)) == (drill.limits, drill.external_limits)
    assert drill.limits != drill.external_limits


def unasked(question: str) -> bool:
    raise AssertionError(question)


UNASKED: dict[str, Any] = {"consent": False, "confirm": unasked}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    lab = default()
    workspace = Workspace(tmp_path / ".lab")
    return Session(tmp_path / "lab.yaml", lab, workspace, FakeRemote(lab, workspace), progress(tmp_path))


class Told:
    """A drill that keeps what was done, and a scene of it."""

    def __init__(self, session: Session) -> None:
        self.done: list[str] = []
        self.marks: list[tuple[str, str]] = []
        self.scene = Scene(session, session.lab.control_planes[:1], lambda *mark: self.marks.append(mark))
        self.drill = catalogue.Drill(
            "kill-control-plane",
            lambda session: session.lab.control_planes[:1],
            lambda scene: self.done.append("inject"),
            lambda scene: self.done.append("heal"),
        )


@pytest.mark.parametrize("end", [LabError("no"), KeyboardInterrupt(), RuntimeError("a fault of ours")])
def test_the_fault_comes_out_whatever_happens(session: Session, end: BaseException) -> None:
    told = Told(session)

    def broken() -> None:
        with undo.fault(told.scene, told.drill):
            told.drill.inject(told.scene)
            left = json.loads((session.workspace.drill / "fault.json").read_text())
            assert left == {"drill": "kill-control-plane", "victims": ["cp1"]}
            raise end

    with pytest.raises(type(end)):
        broken()
    assert told.done == ["inject", "heal"]
    assert told.marks == [("heal", "the fault")]
    assert not list(session.workspace.drill.iterdir())


def test_a_fault_that_can_t_be_taken_out_is_remembered(session: Session) -> None:
    told = Told(session)

    def fail(scene: Scene) -> None:
        raise LabError("docker does not answer")

    broken = catalogue.Drill("kill-control-plane", told.drill.victims, told.drill.inject, fail)
    with pytest.raises(LabError), undo.fault(told.scene, broken):
        pass
    assert (session.workspace.drill / "fault.json").exists()


def test_what_a_killed_drill_left_is_taken_out_by_the_next(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    healed: list[tuple[str, ...]] = []
    drill = catalogue.Drill(
        "a-drill",
        lambda session: (),
        lambda scene: None,
        lambda scene: healed.append(tuple(node.name for node in scene.victims)),
    )
    monkeypatch.setattr(undo, "DRILLS", (drill,))
    undo.remember(Scene(session, session.lab.control_planes[1:], lambda kind, what: None), drill)
    assert undo.leftovers(session) == ("a-drill on cp2, cp3",)
    assert healed == [("cp2", "cp3")]
    assert undo.leftovers(session) == ()


def test_commands_start_again_while_something_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stopped", type(process._stopped)())
    process.interrupt()
    with pytest.raises(LabError):
        process.run(["true"])
    with process.defer_interrupts():
        assert process.run(["true"]).ok
    with pytest.raises(LabError):
        process.run(["true"])


def test_an_interrupt_waits_until_all_is_undone() -> None:
    done = []

    def undo_something() -> None:
        with process.defer_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("undone")

    with pytest.raises(KeyboardInterrupt):
        undo_something()
    assert done == ["undone"]


def test_every_drill_has_a_story_and_limits_on_figures_that_exist() -> None:
    assert {drill.name for drill in catalogue.DRILLS} == set(STORIES)
    recording = Recording(drill="", lab="", profile="tuned", run=1, began="", seconds=1)
    for drill in catalogue.DRILLS:
        assert figures(recording, catalogue.ALWAYS | dict(drill.limits))
    assert set(catalogue.ALWAYS) <= set(FIGURES)


def test_a_lab_too_small_for_a_drill_is_told_so() -> None:
    lab = default()
    one = lab.model_copy(update={"nodes": tuple(n for n in lab.nodes if n.name in ("lb1", "cp1", "w1"))})
    unfit = {drill.name: drill.lab_problem(one) for drill in catalogue.DRILLS}
    assert unfit["lose-quorum"] == "lose-quorum needs 3 control planes, and ha-lab has 1"
    assert unfit["kill-worker"] == "kill-worker needs 2 workers, and ha-lab has 1"
    assert not unfit["reload-load-balancer"]
    assert not any(drill.lab_problem(lab) for drill in command.chosen("all", default()))


def test_a_drill_that_there_isn_t_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as told:
        command.chosen("kill-everything", default())
    assert "no drill 'kill-everything'" in told.value.message
    assert "lose-quorum" in told.value.hint
    fits = [each for each in catalogue.DRILLS if each.load_balancers == 1 and not each.external]
    usual = tuple(each for each in fits if each.in_all)
    assert command.chosen("all", default()) == usual


def test_what_is_wrong_with_the_words_is_told_all_at_once(session: Session) -> None:
    with pytest.raises(ConfigError) as told:
        command.drill(session, "lose-quorum", repeat="0", compare="fast", **UNASKED)
    assert len(told.value.problems) == 2


def test_an_upgrade_is_compared_with_the_plain_one_and_no_other_drill_is(session: Session) -> None:
    with pytest.raises(ConfigError, match="--compare reference: an upgrade is compared with plain"):
        command.drill(session, "upgrade", repeat="1", compare="reference", **UNASKED)
    with pytest.raises(ConfigError, match="--compare plain: the load balancer's profiles are"):
        command.drill(session, "lose-quorum", repeat="1", compare="plain", **UNASKED)


@pytest.mark.parametrize("repeat", ["x", "-1", "51", ""])
def test_a_repeat_that_is_no_number_of_runs_is_told(session: Session, repeat: str) -> None:
    with pytest.raises(ConfigError, match="from 1 to 50"):
        command.drill(session, "lose-quorum", repeat=repeat, compare="", **UNASKED)


@pytest.mark.parametrize(
    ("keep", "heal", "repeat", "name"),
    [(True, True, "1", ""), (True, False, "3", "lose-quorum"), (False, True, "1", "lose-quorum")],
)
def test_words_that_ask_for_two_things_are_refused(keep: bool, heal: bool, repeat: str, name: str) -> None:
    with pytest.raises(ConfigError):
        command.require_one_way(keep=keep, heal=heal, repeat=repeat, compare="", name=name)


def test_a_fault_that_is_in_can_be_told(session: Session) -> None:
    told = Told(session)
    assert undo.pending(session) == ""
    undo.remember(told.scene, told.drill)
    assert undo.pending(session) == "kill-control-plane on cp1"


def test_a_fault_that_is_taken_out_while_somebody_looks_is_none(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert undo.pending(session) == ""


def test_a_lab_that_is_not_up_is_not_drilled(session: Session) -> None:
    with pytest.raises(LabError, match="has not been brought up"):
        command.drill(session, "lose-quorum", repeat="1", compare="", **UNASKED)


def test_a_lab_whose_network_is_down_is_not_drilled(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.workspace.write_secret(session.workspace.kubeconfig, "here")
    monkeypatch.setattr(session.remote, "route_problem", lambda: "the lab's network is not up on this host")
    with pytest.raises(LabError, match="network is not up"):
        command.drill(session, "lose-quorum", repeat="1", compare="", **UNASKED)


def test_a_lab_that_is_not_green_is_left_as_it_is(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = SimpleNamespace(name="node-ready", good=False)
    looks = [SimpleNamespace(green=False, verdicts=[bad])] * 2
    monkeypatch.setattr(run, "SETTLED", 0.0)
    monkeypatch.setattr(verify, "run", lambda session: looks.pop())
    with pytest.raises(LabError, match=r"checks fail before the drill.*: node-ready"):
        run.require_green(session)


class TwoBalancers(FakeRemote):
    """Machines of a lab with two load balancers; they answer what a test expects, and refuse the rest."""

    def __init__(self, session: Session, answers: dict[str, str]) -> None:
        super().__init__(with_a_second_balancer(session.lab), session.workspace)
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def run(self, node: Node, command: Sequence[str], **how: Any) -> process.Result:
        """Keep what a machine was asked, and answer."""
        self.asked.append((node.name, " ".join(command)))
        return process.Result(tuple(command), 0, self.answers[node.name], "", 0.0)


def two(session: Session, **answers: str) -> tuple[Session, TwoBalancers]:
    remote = TwoBalancers(session, answers)
    return replace(session, lab=remote.lab, remote=remote), remote


def test_haproxy_is_reloaded_on_every_load_balancer(session: Session) -> None:
    opened, remote = two(session, lb1="", lb2="")
    marks: list[tuple[str, str]] = []
    Scene(opened, opened.lab.balancers, lambda *mark: marks.append(mark)).haproxy("reload")
    assert sorted(remote.asked) == [(name, "sudo systemctl reload haproxy") for name in ("lb1", "lb2")]
    assert marks == [("inject", "the fault")]


def test_what_each_load_balancer_noticed_is_marked_in_the_order_of_time(session: Session) -> None:
    now = time.time()

    def journal(after: float, word: str) -> str:
        message = f"Server apiserverbackend/cp1 is {word}"
        entry = {"MESSAGE": message, "__REALTIME_TIMESTAMP": str(int((now + after) * 1e6))}
        return f"{time.time():.6f}\n{json.dumps(entry)}\n"

    opened, _ = two(session, lb1=journal(3, "DOWN"), lb2=journal(2, "DOWN"))
    found = balancer_log.marks(opened, now, 0.0, 10.0)
    assert [mark.what for mark in found] == ["HAProxy takes cp1 out"] * 2
    assert [round(mark.at) for mark in found] == [2, 3]


def test_of_a_change_all_that_haproxy_noticed_is_a_step(session: Session) -> None:
    now = time.time()
    text = f"{now:.6f}\n"
    for after, word in ((2, "DOWN"), (30, "UP")):
        entry = {
            "MESSAGE": f"Server apiserverbackend/cp1 is {word}",
            "__REALTIME_TIMESTAMP": str(int((now + after) * 1e6)),
        }
        text += f"{json.dumps(entry)}\n"
    opened, _ = two(session, lb1=text, lb2="")
    found = [(round(mark.at), mark.kind, mark.what) for mark in balancer_log.steps(opened, now, 1.0)]
    assert found == [(2, "step", "HAProxy takes cp1 out"), (30, "step", "cp1 behind the load balancer")]


def test_haproxys_changes_are_read_once_each_on_our_clock() -> None:
    lines = recorded("haproxy/journal.json").splitlines()
    found = balancer_log.changes(lines, ahead=100.0)
    assert [(name, up) for _, name, up in found] == [("cp3", False), ("cp3", True)]
    first = json.loads(next(line for line in lines if "is DOWN" in line))
    assert found[0][0] == pytest.approx(int(first["__REALTIME_TIMESTAMP"]) / 1e6 - 100)
