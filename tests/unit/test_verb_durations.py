"""How long steps take: what was measured here last, and figures for what never was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.up import UP
from lab.system.progress import Outcome, StepTime
from lab.verbs import durations
from lab.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


def step(name: str, machine: str, seconds: float, outcome: Outcome = "done") -> StepTime:
    return StepTime(name, name, machine, 0.0, seconds, outcome)


def test_every_step_that_a_forecast_counts_has_a_figure_and_nothing_else_has() -> None:
    assert {*durations.MEASURED} == {"bake", *(step.name for step in (*UP, *REMOVE, *RESIZE))}


def test_what_was_measured_here_comes_before_the_makers_figure() -> None:
    assert durations.of("boot", {"boot": 99.0}) == 99.0
    assert durations.of("boot", {}) == durations.MEASURED["boot"]


def test_the_slowest_machine_counts_and_what_was_measured_before_stays(workspace: Workspace) -> None:
    assert durations.read(workspace) == {}
    durations.keep(workspace, [step("node", "cp1", 2.04), step("node", "w1", 3.16), step("boot", "", 12)])
    durations.keep(workspace, [step("node", "cp1", 1.5)])
    assert durations.read(workspace) == {"node": 1.5, "boot": 12.0}
    assert json.loads(workspace.durations.read_text()) == {"node": 1.5, "boot": 12.0}


@pytest.mark.parametrize("outcome", ["unchanged", "failed"])
def test_a_step_that_found_nothing_to_change_or_failed_measures_nothing(
    workspace: Workspace, outcome: Outcome
) -> None:
    durations.keep(workspace, [step("node", "cp1", 60, outcome)])
    assert not workspace.durations.exists()


@pytest.mark.parametrize("text", ["{", "", "[]", "[1]", '{"boot": "x"}', '{"boot": null}', '{"boot": []}'])
def test_figures_that_can_t_be_read_are_none(workspace: Workspace, text: str) -> None:
    workspace.write(workspace.durations, text)
    assert durations.read(workspace) == {}
    durations.keep(workspace, [step("boot", "", 12)])
    assert durations.read(workspace) == {"boot": 12.0}
