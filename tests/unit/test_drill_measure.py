"""A change is measured by the drills' probes, and its report is written however it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.drill import (
    balancer_log,
    catalogue,
    measure,
    observe,
    probes,
    recovery,
    report,
    run,
    stream,
    undo,
    workload,
)
from lab.drill.page import page
from lab.drill.recording import Exemption, Report, Title
from lab.drill.scene import Etcd, Scene
from lab.errors import LabError, LabStateError
from lab.health import verify
from lab.health.cluster import Api, NodeFact
from lab.model import Lab, LoadBalancer, Network, Node
from lab.model.roles import Role
from lab.session import Session, with_profile
from lab.system import process, wait
from lab.workspace import Workspace
from tests.unit.apiserver import HOST, ApiServer
from tests.unit.fakes import FakeRemote, printed, progress

pytestmark = pytest.mark.slow

TITLE = Title(en="A change of the lab: 1 worker more", ko="랩 변경: 워커 1대 추가")
PORT = 30123


class World:
    """A lab whose cluster is an ApiServer, and what was done to it, in order."""

    def __init__(self, session: Session, server: ApiServer) -> None:
        self.session, self.server = session, server
        self.done: list[str] = []
        self.not_whole = ""
        self.term = 7
        self.deployed: tuple[Lab, int] | None = None
        self.waited_for: tuple[str, ...] = ()
        self.avoided: tuple[str, ...] = ()
        self.keep: tuple[str, ...] = ("lb1", "cp1", "w1")
        self.seconds = 0.05  # that the work takes

    def deploy(
        self,
        api: Api,
        lab: Lab,
        timeout: float = 60.0,
        *,
        replicas: int = 0,
        avoided: Collection[str] = (),
        log: Path | None = None,
    ) -> int:
        assert log is not None
        self.done.append("deploy")
        self.deployed, self.avoided = (lab, replicas), tuple(avoided)
        return self.server.node_port

    def remove(self, api: Api, timeout: float = 60.0, log: Path | None = None) -> None:
        process.raise_if_interrupted("the workload is removed")
        self.done.append("remove")

    def schedules(self, api: Api, lab: Lab, name: str, timeout: float = 60.0) -> float:
        self.done.append(f"schedules {name}")
        return 0.1

    def wait_for_recovery(self, scene: Scene, timeout: float, log: Path | None = None) -> None:
        self.waited_for = tuple(node.name for node in scene.victims)
        if self.not_whole:
            raise LabError(self.not_whole)
        scene.mark("whole", "the API")

    def work(self) -> None:
        self.done.append("work")
        with self.session.progress.step("join", "a worker joins", "w2"):
            time.sleep(self.seconds)

    def measured(
        self, work: Callable[[], None] | None = None, exemptions: tuple[Exemption, ...] = ()
    ) -> tuple[Report, Path]:
        keep = tuple(node for node in self.session.lab.nodes if node.name in self.keep)
        return measure.measured(
            self.session, TITLE, work or self.work, keep=keep, off={"w3"}, exemptions=exemptions
        )

    @property
    def kept(self) -> Report:
        """The one report that was written."""
        [path] = (self.session.workspace.root / "drills").glob("*/report.json")
        assert path.parent.name.endswith("-up")
        assert "<title>" in path.with_suffix(".html").read_text()
        return report.read(path)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Everything but the probes and the report is a stand-in."""
    monkeypatch.setattr(observe, "BEFORE", 0.1)
    monkeypatch.setattr(measure, "AFTER", 0.1)
    monkeypatch.setattr(run, "AFTER", 0.1)
    monkeypatch.setattr(stream, "LOOK", 0.05)
    monkeypatch.setattr(stream, "PAUSE", 0.02)
    with ApiServer(tmp_path).running() as server:
        roles = (("lb1", "load-balancer"), ("cp1", "control-plane"), ("w1", "worker"), ("w2", "worker"))
        nodes = tuple(
            Node(name=name, role=Role(role), address=IPv4Address(HOST), cpus=1, memory_mib=1)
            for name, role in roles
        )
        balancer = LoadBalancer(port=server.port)
        lab = Lab(nodes=nodes, network=Network(subnet=IPv4Network("127.0.0.0/24")), load_balancer=balancer)
        workspace = Workspace(tmp_path / ".lab")
        workspace.write_secret(workspace.kubeconfig, server.kubeconfig.read_text())
        session = Session(tmp_path / "lab.yaml", lab, workspace, FakeRemote(lab, workspace), progress(tmp_path))
        made = World(session, server)
        for name in ("deploy", "remove", "schedules"):
            monkeypatch.setattr(workload, name, getattr(made, name))
        monkeypatch.setattr(workload, "why_not_running", lambda api, name="probe": None)
        facts = [NodeFact(n, True, "", "", n == "cp1", (), (), "") for n in ("cp1", "w1", "w9")]
        monkeypatch.setattr(Api, "nodes", lambda api: tuple(facts))
        monkeypatch.setattr(measure, "raft_term", lambda session, node: made.term)
        monkeypatch.setattr(measure, "wait_for_recovery", made.wait_for_recovery)
        monkeypatch.setattr(run, "wait_for_recovery", made.wait_for_recovery)
        monkeypatch.setattr(balancer_log, "read", taken_out)
        yield made
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"_connect", "_write", "_ask_service", "_follow", "_beat"}


def taken_out(session: Session, balancer: Node, since: float) -> tuple[tuple[float, str, bool], ...]:
    """What HAProxy's log has."""
    return ((since + 0.01, "cp1", False),)


def figure(found: Report, name: str) -> tuple[float | None, float | None]:
    [each] = [each for each in found.results[0].figures if each.name == name]
    return each.value, each.limit


def test_a_change_is_measured_and_reported(world: World) -> None:
    world.seconds = 0.2
    found, folder = world.measured()
    assert found.passed, found.results[0].problem
    assert world.done == ["deploy", "work", "schedules after-the-change", "remove"]
    assert world.kept == found
    assert folder.name.endswith("-up")
    for name in ("connections.failed", "writes.lost", "watch.missed", "watch.out_of_order"):
        assert figure(found, name) == (0, 0)
    recording = found.results[0].recording
    assert recording.title == TITLE
    assert recording.connections
    assert recording.read_back[-1] >= recording.writes[-1].value
    kinds = [(mark.kind, mark.what) for mark in recording.marks if mark.what != "HAProxy takes cp1 out"]
    assert kinds == [
        ("begin", TITLE.en),
        ("step", "w2 a worker joins"),
        ("end", TITLE.en),
        ("whole", "the lab"),
    ]
    begin, step, end, _ = (mark.at for mark in recording.marks if mark.what != "HAProxy takes cp1 out")
    assert 0.1 <= begin <= step < end
    assert end - begin >= 0.2


def test_the_workload_is_for_the_workers_that_are_there_and_the_service_is_asked_at_those_that_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def probing(remote: Any, api: Api, *, via: tuple[Node, ...], node_port: int, limit: float) -> Any:
        asked.append(tuple(node.name for node in via))
        return probes.probing(remote, api, via=via, node_port=node_port, limit=limit)

    monkeypatch.setattr(observe, "probing", probing)
    world.measured()
    assert asked == [("w1",)]
    assert world.deployed is not None
    assert ([n.name for n in world.deployed[0].nodes], world.deployed[1]) == (["lb1", "cp1", "w1"], 2)
    assert world.avoided == ("w3",), "its Node may still be Ready"
    assert world.waited_for == ("lb1", "cp1", "w1", "w2")


def test_what_haproxy_did_is_a_step_and_no_detection(world: World) -> None:
    found, _ = world.measured()
    marks = found.results[0].recording.marks
    assert ("step", "HAProxy takes cp1 out") in [(mark.kind, mark.what) for mark in marks]
    assert figure(found, "detect_s") == (None, None)


def refusing_for_a_while(world: World) -> Callable[[], None]:
    def work() -> None:
        server = world.server
        server.break_("object", "refuse")
        with server.changed:
            enough = server.asked["object"] + 3
            assert server.changed.wait_for(lambda: server.asked["object"] >= enough, timeout=10)
        server.break_("object", "")

    return work


def test_connections_that_fail_during_a_change_are_over_the_limit(world: World) -> None:
    found, _ = world.measured(refusing_for_a_while(world))
    failed, limit = figure(found, "connections.failed")
    assert (failed or 0) > 1
    assert limit == 0
    assert not found.passed
    assert found.results[0].exemptions == ()


def test_a_change_that_can_t_keep_a_limit_does_not_have_it_and_the_report_says_why(world: World) -> None:
    exemption = Exemption(figure="connections.failed", en="lb1 is off", ko="lb1 꺼짐")
    found, folder = world.measured(refusing_for_a_while(world), (exemption,))
    failed, limit = figure(found, "connections.failed")
    assert (failed or 0) > 1
    assert limit is None
    assert figure(found, "writes.lost") == (0, 0)
    assert found.passed
    assert world.kept.results[0].exemptions == (exemption,)
    console, text = printed()
    console.print(measure.shown(found, folder))
    assert "lb1 is off" in text.getvalue()
    assert ">lb1 is off<" in page(found)
    assert ">lb1 꺼짐<" in page(found)


def test_the_write_ups_load_balancer_may_lose_connections(world: World) -> None:
    world.session = with_profile(world.session, "reference")
    world.session = replace(world.session, remote=FakeRemote(world.session.lab, world.session.workspace))
    exemption = Exemption(figure="connections.failed", en="lb1 is off", ko="lb1 꺼짐")
    found, _ = world.measured(exemptions=(exemption,))
    assert figure(found, "connections.failed") == (0, None)
    assert figure(found, "writes.lost") == (0, 0)
    assert found.results[0].exemptions == (), "there is no limit to be exempt from"


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (LabError("w2 does not boot"), f"{TITLE.en} failed: w2 does not boot"),
        (KeyboardInterrupt(), f"{TITLE.en}: interrupted"),
        (ValueError("a fault of ours"), f"{TITLE.en} failed: ValueError: a fault of ours"),
    ],
)
def test_a_change_that_fails_is_reported_and_its_error_is_raised(
    world: World, end: BaseException, problem: str
) -> None:
    def work() -> None:
        time.sleep(0.2)
        raise end

    with pytest.raises(type(end)) as raised:
        world.measured(work)
    assert raised.value is end
    assert world.done == ["deploy", "remove"]
    found = world.kept
    assert found.results[0].problem == problem
    assert not found.passed
    assert found.results[0].recording.connections
    assert figure(found, "writes.lost") == (0, 0)


def test_an_interrupt_stops_commands_and_yet_all_is_ended_and_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_stopped", type(process._stopped)())

    def work() -> None:
        time.sleep(0.2)
        process.interrupt()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.measured(work)
    assert world.done == ["deploy", "remove"]
    assert world.kept.results[0].recording.read_back


def test_a_second_interrupt_waits_for_the_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = workload.read_back

    def read_back(api: Api, timeout: float = 60.0) -> tuple[int, ...]:
        signal.raise_signal(signal.SIGINT)
        return real(api, timeout)

    monkeypatch.setattr(workload, "read_back", read_back)

    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.measured(work)
    assert world.done == ["deploy", "remove"]
    assert world.kept.results[0].problem == f"{TITLE.en}: interrupted"


def test_an_interrupt_while_the_lab_recovers_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(scene: Scene, timeout: float, log: Path | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "wait_for_recovery", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.measured()
    assert world.kept.results[0].problem == f"{TITLE.en}: interrupted"
    assert world.done == ["deploy", "work", "remove"]


def test_a_lab_that_does_not_recover_is_a_problem_of_the_report(world: World) -> None:
    world.not_whole = "cp1 API server: answered 500"
    found, _ = world.measured()
    assert found.results[0].problem == "cp1 API server: answered 500"
    assert world.kept == found
    assert world.done[-1] == "remove"


def test_work_that_outlasts_the_probes_is_a_problem_of_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LONGEST", 0.3)
    world.seconds = 0.4
    found, _ = world.measured()
    assert found.results[0].problem == "the work took longer than the 0.3 s that probes may run"


def test_a_workload_that_can_t_be_removed_hides_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(api: Api, timeout: float = 60.0) -> None:
        raise LabError("the API is gone")

    def work() -> None:
        raise LabError("w2 does not boot")

    monkeypatch.setattr(workload, "remove", remove)
    with pytest.raises(LabError, match="w2 does not boot"):
        world.measured(work)
    with pytest.raises(LabError, match="the API is gone"):
        world.measured()


def refused(world: World) -> LabError:
    with pytest.raises(LabError) as raised:
        world.measured()
    assert world.done == []
    assert not (world.session.workspace.root / "drills").exists()
    return raised.value


def test_a_lab_that_was_never_up_has_no_users_to_measure(world: World) -> None:
    world.session.workspace.kubeconfig.unlink()
    assert "has not been brought up" in refused(world).message


def test_a_lab_whose_api_does_not_serve_is_not_measured(world: World) -> None:
    world.server.break_("readyz", "refuse")
    error = refused(world)
    assert "nothing can be measured" in error.message
    assert "500" in error.message
    assert "without --measure" in error.hint
    world.server.break_("readyz", "drop")
    assert "nothing can be measured" in refused(world).message


def test_a_change_that_no_control_plane_outlasts_is_not_measured(world: World) -> None:
    world.keep = ("lb1", "w1")
    error = refused(world)
    assert "no control plane runs both before and after this change" in error.message
    assert "without --measure" in error.hint


def test_a_lab_with_a_drills_fault_in_it_is_not_measured(world: World) -> None:
    scene = Scene(world.session, world.session.lab.control_planes, lambda kind, what: None)
    undo.remember(scene, catalogue.DRILLS[0])
    assert "drill --heal" in refused(world).hint


def test_a_change_that_is_a_drill_s_own_is_measured_under_its_name(world: World) -> None:
    upgrade = next(each for each in catalogue.DRILLS if each.name == "upgrade")
    undo.remember(Scene(world.session, world.session.lab.nodes, lambda kind, what: None), upgrade)
    keep = tuple(node for node in world.session.lab.nodes if node.name in world.keep)
    found, folder = measure.measured(
        world.session, TITLE, world.work, keep=keep, drill="upgrade", number=2, profile="plain"
    )
    [result] = found.results
    assert (result.recording.drill, result.recording.run, result.recording.profile) == ("upgrade", 2, "plain")
    assert folder.name.endswith("-upgrade")
    assert {figure.name for figure in result.figures if figure.limit is not None} == set(catalogue.ALWAYS)
    assert "kubeadm&#39;s documented order" in (folder / "report.html").read_text()


def test_a_workload_that_does_not_run_keeps_the_work_from_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deploy(*_: object, **__: object) -> int:
        raise LabStateError("pods are not Ready")

    monkeypatch.setattr(workload, "deploy", deploy)
    with pytest.raises(LabError, match="pods are not Ready"):
        world.measured()
    assert world.done == ["remove"]


def test_a_probe_without_a_good_answer_keeps_the_work_from_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SETTLE", 1.0)  # 0.3 s is too short for a first write on a busy machine
    world.server.break_("page", "refuse")
    with pytest.raises(LabError, match="no successful response to the Service"):
        world.measured()
    assert world.done == ["deploy", "remove"]


WAITS = {
    "the API's readiness": (measure, "ask_health"),
    "the API to list its nodes": (Api, "nodes"),
    "etcd's raft term on cp1": (measure, "raft_term"),
    "a successful response to every probe": (probes, "start_counting"),
    "the probes' last responses": (probes.Probes, "finish"),
    "the writes that the cluster has": (workload, "read_back"),
    "every older workload to run, and then a new one": (workload, "schedules"),
    "HAProxy's log": (balancer_log, "read"),
    "namespace ha-lab-drill to be removed": (workload, "remove"),
}


@pytest.mark.parametrize("what", WAITS)
def test_each_wait_before_and_after_the_work_says_what_it_waits_for(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    owner, name = WAITS[what]
    asks = getattr(owner, name)
    shown: list[list[str]] = []

    def ask(*words: Any, **options: Any) -> Any:
        shown.append([step.title for step in world.session.progress._running])
        return asks(*words, **options)

    monkeypatch.setattr(owner, name, ask)
    world.measured()
    assert shown
    assert all(f"waiting for {what}" in titles for titles in shown)


def test_a_lab_that_recovers_says_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[Path | None] = []

    def wait_for_recovery(scene: Scene, timeout: float, log: Path | None = None) -> None:
        logs.append(log)
        [step] = world.session.progress._running
        assert (step.title, step.log) == ("every machine serves again", log)

    monkeypatch.setattr(measure, "wait_for_recovery", wait_for_recovery)
    found, _ = world.measured()
    assert logs[0] is not None
    assert found.passed, found.results[0].problem


def test_what_does_not_serve_yet_is_written_to_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wait, "FIRST_NOTICE", 0.0)
    log = tmp_path / "recovery.log"
    answers = iter(["answered 500: etcd failed"])
    monkeypatch.setattr(recovery, "_why_not_ready", lambda *words: next(answers, None))
    recovery.wait_for_recovery(Scene(world.session, (), lambda kind, what: None), 10.0, log)
    assert log.read_text().splitlines()[-1].endswith("(0 s): the API: answered 500: etcd failed")


def test_a_measured_change_is_shown_by_its_title(world: World) -> None:
    found, folder = world.measured()
    console, text = printed()
    console.print(measure.shown(found, folder))
    said = text.getvalue()
    assert TITLE.en in said
    assert "✓ 1 of 1 passed" in said
    assert f"{folder}/report.html" in said
    made = page(found)
    for words in (TITLE.en, TITLE.ko, "A measured change", "seconds from the beginning of the change"):
        assert words in made
    assert "injection" not in made
    assert "Failure drills" not in made


def test_a_drill_is_carried_out_by_the_same_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    green = SimpleNamespace(green=True, verdicts=[])
    monkeypatch.setattr(verify, "run", lambda session: green)
    terms = iter((7, 8))
    monkeypatch.setattr(run, "etcd", lambda session: Etcd(session.lab.first, next(terms)))
    drill = catalogue.Drill(
        "reload-load-balancer",
        lambda session: (session.lab.balancers[0],),
        lambda scene: world.done.append("inject"),
        lambda scene: world.done.append("heal"),
        seconds=0.3,
        control_planes=1,
        limits={"connections.failed": 0},
    )
    [result] = run.carry_out(world.session, [drill], repeat=1, profiles=["tuned"])
    assert result.passed, result
    order = ["deploy", "inject", "heal", "schedules after-reload-load-balancer-1", "remove"]
    assert world.done == order
    recording = result.recording
    assert (recording.leader_changes, recording.victims, recording.title) == (1, ("lb1",), None)
    assert [mark.kind for mark in recording.marks if mark.kind != "detect"] == [
        *("inject", "heal", "whole", "whole")
    ]
    assert recording.read_back
    assert {figure.name for figure in result.figures if figure.limit is not None} == {
        *catalogue.ALWAYS,
        "connections.failed",
    }


def test_a_drill_that_fails_early_has_no_leader_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "run", lambda session: SimpleNamespace(green=True, verdicts=[]))
    monkeypatch.setattr(run, "etcd", lambda session: Etcd(session.lab.first, 7))

    def unreadable(api: Api, timeout: float = 60.0) -> tuple[int, ...]:
        raise LabError("the API gave no answer")

    monkeypatch.setattr(workload, "read_back", unreadable)
    nothing: Callable[[Scene], None] = lambda scene: None  # noqa: E731
    drill = catalogue.Drill("a-drill", lambda session: (), nothing, nothing, seconds=0.1, control_planes=1)
    [result] = run.carry_out(world.session, [drill], repeat=1, profiles=["tuned"])
    assert result.problem == "the API gave no answer"
    assert result.recording.leader_changes == 0


def test_a_report_is_kept_by_its_time_and_name(world: World) -> None:
    found = report.begin(world.session).model_copy(update={"began": "2026-11-28T06:12:13+00:00"})
    folder = report.keep(found, world.session.workspace, "up")
    assert folder == world.session.workspace.root / "drills" / "20261128-061213-up"
    assert report.read(folder / "report.json") == found
