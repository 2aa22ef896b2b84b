"""How long steps take: what was measured here last, and figures for what never was."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab import model
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.up import UP
from lab.plans.upgrade import UPGRADE
from lab.system.paths import REPOSITORY
from lab.system.progress import Outcome, StepTime
from lab.verbs import durations
from lab.verbs.durations import Figures
from lab.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


def step(name: str, machine: str, seconds: float, outcome: Outcome = "done") -> StepTime:
    title = next(each.title for each in (*UP, *REMOVE, *RESIZE) if each.name == name)
    return StepTime(name, title, machine, 0.0, seconds, outcome)


def test_every_step_that_a_forecast_counts_has_a_figure_and_nothing_else_has() -> None:
    of_machines = [step.name for step in UPGRADE if step.on]
    assert {*durations.MEASURED} == {"bake", *(step.name for step in (*UP, *REMOVE, *RESIZE)), *of_machines}


def test_the_measurements_page_has_these_figures() -> None:
    _, _, section = (REPOSITORY / "docs/measurements.md").read_text().partition("\n## What `plan` assumes\n")
    rows = re.findall(r"^\| ([a-z-]+) \| ([0-9.]+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert {name: float(seconds) for name, seconds in rows} == durations.MEASURED


def test_what_was_measured_here_comes_before_the_makers_figure() -> None:
    assert Figures({"boot": 99.0}).of("boot") == 99.0
    assert Figures({}).of("boot") == durations.MEASURED["boot"]


def test_emulated_machines_take_longer_and_what_they_took_counts_as_it_is(workspace: Workspace) -> None:
    lab = model.Lab(nodes=(), provider="libvirt", libvirt=model.Libvirt(emulated=True))
    durations.keep(workspace, [step("node", "cp1", 21.0)])
    figures = durations.of_lab(lab, workspace)
    assert figures.of("boot") == 10 * durations.MEASURED["boot"]
    assert figures.of("node") == 21.0
    assert figures.of("bake") == durations.MEASURED["bake"], "this host bakes, and no machine"
    hardware = lab.model_copy(update={"libvirt": model.Libvirt()})
    assert durations.of_lab(hardware, workspace).of("boot") == durations.MEASURED["boot"]


def test_what_a_run_has_waited_for_is_kept_though_it_changed_nothing(workspace: Workspace) -> None:
    waited = [step("pods-ready", "", 17.9, "unchanged"), step("node", "cp1", 0.1, "unchanged")]
    durations.keep(workspace, waited)
    assert durations.read(workspace) == {"pods-ready": 17.9}


def test_what_a_step_does_in_the_place_of_the_usual_is_kept_apart(workspace: Workspace) -> None:
    token = replace(step("control-plane-init", "cp1", 2.5), title="join token and certificate key")
    usual = step("control-plane-init", "cp1", 11.0)
    assert usual.title == "kubeadm init"
    durations.keep(workspace, [usual])
    durations.keep(workspace, [token])
    figures = Figures(durations.read(workspace))
    assert figures.of("control-plane-init", "kubeadm init") == figures.of("control-plane-init") == 11.0
    assert figures.of("control-plane-init", "join token and certificate key") == 2.5
    other = figures.of("control-plane-init", "the cluster is initialised")
    assert other == durations.MEASURED["control-plane-init"]


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
