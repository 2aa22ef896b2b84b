"""The verb `conformance`: what is refused before anything is built or touched, and in which order."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.conformance import run, suite, tests
from lab.conformance.tests import Request, Selection
from lab.errors import ConfigError, HostNotFit, LabStateError
from lab.health import status
from lab.health.status import Status
from lab.session import Session
from lab.verbs import bake
from lab.verbs import conformance as verb
from tests.unit.fakes import recorded
from tests.unit.sessions import on_any_host, wanted

GIB = 2**30


class World:
    """A lab, a host and a suite; what is done to them is kept."""

    def __init__(self, folder: Path) -> None:
        """All is well, and the suite is not built."""
        self.events: list[str] = []
        self.built, self.free = False, 100 * GIB
        self.unfit: LabStateError | None = None
        names = tests.names_of(recorded("conformance/list-conformance-tests.yaml"))
        (folder / suite.LIST).write_text("\n".join(names) + "\n", encoding="utf-8")
        self.suite = suite.Suite(folder)
        self.selected: Selection | None = None

    def require_fit(self, session: Session) -> tuple[Any, ...]:
        """Whether the lab can be judged."""
        self.events.append("look at the lab")
        if self.unfit:
            raise self.unfit
        return session.lab.workers

    def make_fit(self, session: Session, purposes: set[str], *, consent: bool) -> None:
        """Let the doctor look."""
        self.events.append(f"fit for {'+'.join(sorted(purposes))}")

    def build(self, *_: object) -> suite.Suite:
        """Build the suite, or find it there."""
        self.events.append("there" if self.built else "build")
        return self.suite

    def carry_out(self, session: Session, built: object, nodes: Any, selection: Selection, *_: object) -> str:
        """Run it."""
        self.events.append(f"run on {' '.join(node.name for node in nodes)}")
        self.selected = selection
        return "outcome"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    on_any_host(monkeypatch)
    (tmp_path / "suite").mkdir()
    found = World(tmp_path / "suite")
    monkeypatch.setattr(run, "require_fit", found.require_fit)
    monkeypatch.setattr(run, "carry_out", found.carry_out)
    monkeypatch.setattr(suite, "is_built", lambda lab: found.built)
    monkeypatch.setattr(suite, "build", found.build)
    monkeypatch.setattr(bake, "make_fit", found.make_fit)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=found.free))
    return found


QUICK = tests.quick()


def conform(folder: Path, junit: Path | None = None, **wish: Any) -> object:
    return verb.conformance(wanted(folder / "lab"), Request(**wish), junit=junit, consent=True)


def test_the_suite_is_built_once_and_run_on_the_workers(world: World, tmp_path: Path) -> None:
    assert conform(tmp_path, quick=True) == "outcome"
    assert world.events == ["look at the lab", "fit for bake", "build", "run on w1 w2 w3"]
    assert world.selected is not None
    assert len(world.selected.run) == len(tests.quick())
    world.events.clear()
    world.built = True
    conform(tmp_path, focus="DNS")
    assert world.events == ["look at the lab", "there", "run on w1 w2 w3"]


def test_a_bad_expression_is_refused_before_the_lab_is_asked(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--focus \(DNS"):
        conform(tmp_path, focus="(DNS")
    assert world.events == []


def test_a_lab_that_can_t_be_judged_is_refused_before_the_suite_is_built(world: World, tmp_path: Path) -> None:
    world.unfit = LabStateError("the lab is degraded")
    with pytest.raises(LabStateError, match="degraded"):
        conform(tmp_path)
    assert world.events == ["look at the lab"]


def test_a_focus_on_nothing_is_refused_before_the_lab_is_touched(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="matches none of the 446"):
        conform(tmp_path, focus="no such test")
    assert "run" not in " ".join(world.events)


def test_no_room_for_the_build_is_the_host_s_problem(world: World, tmp_path: Path) -> None:
    world.free = 5 * GIB
    with pytest.raises(HostNotFit, match="the build of the suite needs 6000 MiB"):
        conform(tmp_path)
    assert world.events == ["look at the lab"]


def test_no_room_for_the_logs_is_found_before_the_lab_is_touched(world: World, tmp_path: Path) -> None:
    world.built, world.free = True, 100 * 2**20
    with pytest.raises(HostNotFit, match="the logs of the suite needs"):
        conform(tmp_path)
    assert world.events == ["look at the lab", "there"]


def test_a_junit_file_in_no_folder_is_refused_first(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        conform(tmp_path, junit=tmp_path / "nowhere" / "junit.xml")
    assert world.events == []


def test_a_folder_is_no_junit_file(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        conform(tmp_path, junit=tmp_path)
    assert world.events == []


def test_what_another_version_s_suite_lacks_of_quick_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = wanted(tmp_path / "lab")
    verb.conformance(session, Request(quick=True), junit=None, consent=True)
    shown = session.progress.console.file
    assert "does not have" not in shown.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(tests, "quick", lambda: frozenset({"[sig-network] DNS should be gone", *QUICK}))
    verb.conformance(session, Request(quick=True), junit=None, consent=True)
    said = " ".join(shown.getvalue().split())  # type: ignore[attr-defined]
    assert "that the suite of Kubernetes 1.36.3 does not have" in said
    assert "not run: [sig-network] DNS should be gone" in said
    assert world.selected is not None
    assert len(world.selected.run) == len(QUICK)


WELL = Status("mine", "https://192.168.56.10:6443", "healthy", (), "")


def answering(monkeypatch: pytest.MonkeyPatch, found: Status, nodes: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(run, "require_up", lambda session: None)
    monkeypatch.setattr(status, "look", lambda session: found)
    monkeypatch.setattr(run, "_api", lambda session: SimpleNamespace(get=lambda path: {"items": nodes}))


def node(name: str) -> dict[str, Any]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": name}, "spec": {}, "status": ready}


def test_a_lab_that_is_down_is_refused_with_its_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    down = Status("mine", "", "down", (), "HAProxy does not run on lb1")
    answering(monkeypatch, down, [])
    with pytest.raises(LabStateError, match=r"the lab is down, .*HAProxy does not run on lb1"):
        run.require_fit(wanted(tmp_path))


def test_a_degraded_lab_is_refused_with_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    degraded = Status("mine", "", "degraded", (), "", ("cp2: kubelet does not run",))
    answering(monkeypatch, degraded, [node("w1"), node("w2")])
    with pytest.raises(LabStateError, match=r"degraded, .*cp2: kubelet does not run"):
        run.require_fit(wanted(tmp_path))


def test_too_few_workers_are_named_rather_than_what_follows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    degraded = Status("mine", "", "degraded", (), "", ("w2 is cordoned",))
    answering(monkeypatch, degraded, [node("w1")])
    with pytest.raises(LabStateError, match="needs 2 workers"):
        run.require_fit(wanted(tmp_path))


def test_a_healthy_lab_with_two_workers_is_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, WELL, [node("w1"), node("w2")])
    assert [each.name for each in run.require_fit(wanted(tmp_path))] == ["w1", "w2"]


def test_a_lab_that_was_never_brought_up_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_any_host(monkeypatch)
    with pytest.raises(LabStateError, match="has not been brought up"):
        run.require_fit(wanted(tmp_path))
