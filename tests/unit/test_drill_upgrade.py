"""The drill that rehearses an upgrade, on a lab that lives in memory, with its checkpoints (saved_world.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.drill import catalogue, command, measure, rehearsal, run, undo
from lab.drill.recording import Recording, Report, Result, Title
from lab.drill.scene import Scene
from lab.errors import ConfigError, LabError, LabStateError
from lab.model import Lab
from lab.session import Session
from lab.verbs import checkpoint
from lab.workspace import checkpoints
from tests.unit import saved_world
from tests.unit.saved_world import SavedWorld
from tests.unit.world import KilledError, World, lab_of, live

OLD, NEW = "1.36.3", "1.37.2"
ALL = ("cp1", "cp2", "cp3", "w1", "w2")


class Drilled:
    """A lab that is up with the old version; what was measured, and what was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = live(World(folder), monkeypatch)
        self.saved: SavedWorld = saved_world.live(self.world, monkeypatch)
        self.measured: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.settled = 0

        def settle(session: Session, patience: float) -> None:
            self.settled += 1

        for module in (checkpoint, command, rehearsal):
            monkeypatch.setattr(module, "of_lab", lambda session, lab: self.of_lab(lab))
        monkeypatch.setattr(checkpoint, "close_connections", lambda session: None)
        monkeypatch.setattr(run, "settle", settle)
        monkeypatch.setattr(command, "require_up", lambda session: None)
        monkeypatch.setattr(measure, "measured", self.measure)
        self.world.up(lab_of(folder, version=OLD))
        self.world.touches.clear()

    def of_lab(self, lab: Lab) -> Session:
        self.world.wanted = lab
        return self.world.session(lab)

    def session(self) -> Session:
        """That of a new command, on the lab as it was made."""
        self.world.dead = False
        return self.of_lab(self.world.record.lab)

    def measure(
        self, session: Session, title: Title, work: Callable[[], None], **words: Any
    ) -> tuple[Report, Path]:
        """Stand in for the probes; the work is done."""
        self.measured.append(words)
        work()
        self.measured[-1]["versions"] = self.versions
        recording = Recording(
            drill=words["drill"], lab="", profile=words["profile"], run=words["number"], began="", seconds=1
        )
        began = f"2026-01-01T00:00:0{len(self.measured)}+00:00"
        found = Report(
            lab="", kubernetes="", provider="", began=began, host={}, results=(Result(recording=recording),)
        )
        return found, self.world.folder

    @property
    def versions(self) -> set[str]:
        return {self.world.machine(name).version for name in ALL}

    def drill(self, *, answer: bool = True, repeat: str = "1", compare: str = "") -> Report:
        def confirm(question: str) -> bool:
            self.asked.append(question)
            return answer

        found, _ = command.drill(
            self.session(), "upgrade", repeat=repeat, compare=compare, consent=False, confirm=confirm
        )
        return found

    def require_as_before(self) -> None:
        """The lab is what it was before the drill, and nothing of it is left."""
        assert self.versions == {OLD}
        record = self.world.record
        assert (record.lab.kubernetes.version, record.upgrading, record.restoring) == (OLD, "", "")
        assert {machine.kubernetes for machine in record.machines.values()} == {OLD}
        assert (self.saved.names(), checkpoints.names(self.world.workspace)) == (set(), ())
        assert undo.pending(self.session()) == ""
        assert all(self.world.machine(name).state == "running" for name in ALL)
        assert not self.world.workspace.payloads.exists()


@pytest.fixture
def drilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drilled:
    return Drilled(tmp_path, monkeypatch)


def test_the_lab_is_upgraded_while_it_is_measured_and_is_then_as_before(drilled: Drilled) -> None:
    found = drilled.drill()
    [words] = drilled.measured
    assert words["versions"] == {NEW}
    assert words["limits"] == {"connections.failed": 0, "writes.longest_gap_s": 3}
    assert [result.recording.drill for result in found.results] == ["upgrade"]
    assert drilled.settled == 2, "before all, and once the machines have started again"
    drilled.require_as_before()
    [path] = (drilled.world.workspace.root / "drills").glob("*-upgrade/report.json")
    assert json.loads(path.read_text())["results"]


def test_it_is_compared_with_kubeadm_s_order_by_itself_on_the_same_lab(drilled: Drilled) -> None:
    found = drilled.drill(compare="plain")
    assert [(each["profile"], each["versions"]) for each in drilled.measured] == [("", {NEW}), ("plain", {NEW})]
    assert [result.recording.profile for result in found.results] == ["", "plain"]
    assert drilled.world.words["upgrade cp1"] == (NEW, "3.7.2-0", "--plain")
    drilled.require_as_before()


def test_it_is_repeated_from_the_same_state(drilled: Drilled) -> None:
    found = drilled.drill(repeat="2")
    assert [result.recording.run for result in found.results] == [1, 2]
    assert drilled.world.touches.count("save cp1") == drilled.world.touches.count("load cp1") == 2


def test_it_is_asked_about_and_a_no_changes_nothing(drilled: Drilled) -> None:
    with pytest.raises(LabStateError, match="nothing was changed"):
        drilled.drill(answer=False)
    assert "upgraded to Kubernetes 1.37.2, and given their saved states again" in drilled.asked[0]
    assert "will be lost. Continue? [y/N]" in drilled.asked[0]
    assert drilled.world.touches == []


def test_a_failed_upgrade_is_reported_and_the_lab_is_as_before(drilled: Drilled) -> None:
    drilled.world.break_at("upgrade cp2", "after", LabError("kubeadm said no"))
    with pytest.raises(LabError, match="kubeadm said no"):
        drilled.drill()
    drilled.require_as_before()


@pytest.mark.parametrize(
    "at",
    [
        *("stop w1", "save cp2", "discard w2"),
        *("start cp1", "payload cp1", "upgrade cp1", "upgrade w2"),
        *("load cp3", "discard cp1"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_drill_that_was_killed_is_reverted_by_the_next_command(drilled: Drilled, at: str, when: str) -> None:
    drilled.world.break_at(at, when, KilledError())  # type: ignore[arg-type]
    with pytest.raises(KilledError):
        drilled.drill()
    assert undo.pending(drilled.session()).startswith("upgrade on ")
    assert "reverted: upgrade on" in command.heal(drilled.session())
    drilled.require_as_before()


def test_it_can_be_left_in_and_reverted_later(drilled: Drilled, monkeypatch: pytest.MonkeyPatch) -> None:
    said = command.keep(drilled.session(), "upgrade", consent=True, confirm=lambda question: False)
    assert "the fault is in and stays in" in said
    assert drilled.versions == {NEW}
    command.heal(drilled.session())
    drilled.require_as_before()


def test_the_next_drill_begins_on_the_lab_as_it_was_before_one_that_was_left_in(drilled: Drilled) -> None:
    command.keep(drilled.session(), "upgrade", consent=True, confirm=lambda question: False)
    assert drilled.session().lab.kubernetes.version == NEW, "which has no next version"
    drilled.drill()
    assert len(drilled.measured) == 1
    drilled.require_as_before()


# Refused.


def test_a_checkpoint_of_that_name_is_another_s_and_stays(drilled: Drilled) -> None:
    checkpoint.save(drilled.session(), rehearsal.CHECKPOINT)
    drilled.world.touches.clear()
    with pytest.raises(LabStateError, match="there is a checkpoint before-drill-upgrade already"):
        drilled.drill()
    assert drilled.world.touches == []
    assert undo.pending(drilled.session()) == ""


def test_a_lab_with_the_newest_version_has_nothing_to_rehearse(tmp_path: Path) -> None:
    [drill] = command.chosen("upgrade", default())
    said = drill.lab_problem(lab_of(tmp_path, version="1.37.2"))
    assert said is not None
    assert "needs a later version that the kit has" in said
    assert drill.lab_problem(lab_of(tmp_path, version="1.35.4")) is None


def test_the_next_version_is_one_minor_later(drilled: Drilled, tmp_path: Path) -> None:
    lab = lab_of(tmp_path, version="1.35.4")
    assert rehearsal.wanted(drilled.of_lab(lab)).lab.kubernetes.version == "1.36.3"


def test_it_belongs_to_no_list_of_all_drills() -> None:
    assert "upgrade" not in {each.name for each in command.chosen("all", default())}
    with pytest.raises(ConfigError):
        command.chosen("upgrades", default())


def test_nothing_is_put_back_where_nothing_was_saved(drilled: Drilled) -> None:
    [drill] = command.chosen("upgrade", default())
    session = drilled.session()
    drill.heal(Scene(session, session.lab.nodes, lambda kind, what: None))
    assert drilled.world.touches == []
    assert drill in catalogue.DRILLS
