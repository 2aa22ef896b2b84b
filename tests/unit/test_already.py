"""Whether a lab is already all that `up` would make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import providers
from lab.errors import CommandFailed
from lab.health.checks import cases
from lab.health.facts.gather import Facts
from lab.model import Node
from lab.plans import already, renew
from lab.unknown import Unknown
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote
from tests.unit.recorded_facts import Alter, facts, lab, section, silent, told_otherwise


class Up:
    """The recorded lab, whose machines have what is rendered in `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(folder / ".lab")
        self.states: dict[str, Any] = {node.name: "running" for node in lab().nodes}
        self.remote = FakeRemote(lab(), self.workspace)
        for node in lab().nodes:
            path = self.workspace.node(node.name)
            (path / "pod-network").mkdir(parents=True)
            (path / "node.env").write_text(f"NODE_NAME={node.name}\n")
            (path / "pod-network" / "flannel.yaml").write_text("{}\n")
            secrets = self.workspace.secrets / node.name
            secrets.mkdir(parents=True)
            (secrets / "secrets").write_text("of one run")
        self.found = facts()
        for node in lab().nodes:
            self.alter(section(node.name, "given", f"{already.files_hash(self.workspace, node)}  -\n"))
        monkeypatch.setattr(providers, "states", lambda lab, workspace: self.states)
        monkeypatch.setattr(already, "gather", self.gather)

    def alter(self, change: Alter) -> None:
        self.found = change(self.found)

    def gather(self, *words: object, probes: bool, admission: bool) -> Facts:
        assert not probes
        return replace(self.found, probes=Unknown("pods were not asked"))

    @property
    def problems(self) -> tuple[str, ...]:
        return already.problems(lab(), self.workspace, self.remote)

    @property
    def is_up(self) -> bool:
        return already.is_up(lab(), self.workspace, self.remote)


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Up:
    return Up(tmp_path, monkeypatch)


def test_nothing_is_wrong_with_a_lab_that_is_well(it: Up) -> None:
    assert it.problems == ()


def test_what_is_wrong_is_shown_as_its_cause_where_that_is_known(it: Up) -> None:
    runs = "Id=kubelet.service\nActiveState=active"
    it.alter(told_otherwise("w3", "services", runs, runs.replace("=active", "=inactive")))
    it.alter(section("w2", "kubelet-server", "https://192.168.57.11:6443"))
    cause, other = it.problems
    assert cause == "the kubelet on w3 does not run"
    assert other.startswith("kubelet-server[w2]: ")


def test_a_lab_that_is_well_and_has_what_is_rendered_is_up(it: Up) -> None:
    assert it.is_up


def test_a_static_pod_that_is_older_than_its_certificates_keeps_the_lab_from_being_up(it: Up) -> None:
    it.remote.renewals["cp3"] = "started before its certificates were written: kube-scheduler\n"
    assert not it.is_up


def test_a_control_plane_that_can_t_list_its_certificates_is_left_to_the_steps(
    it: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(node: Node, remote: object) -> tuple[str, ...]:
        if node.name == "cp2":
            raise CommandFailed(["ssh"], "did not end")
        return ()

    monkeypatch.setattr(renew, "left", left)
    assert not it.is_up


@pytest.mark.parametrize("state", ["paused", "stopped", "absent", "incomplete"])
def test_a_machine_that_does_not_run_is_not_asked(it: Up, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it.states["w2"] = state
    monkeypatch.setattr(already, "gather", lambda *_, **__: pytest.fail("asked"))
    assert not it.is_up


def test_nothing_is_asked_while_the_lab_s_network_is_down(it: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it.remote, "route_problem", lambda: "the lab's network is not up")
    monkeypatch.setattr(already, "gather", lambda *_, **__: pytest.fail("asked"))
    assert not it.is_up


@pytest.mark.parametrize("path", ["nodes/cp2/node.env", "nodes/cp2/pod-network/flannel.yaml"])
def test_another_rendering_is_not_on_the_machine_yet(it: Up, path: str) -> None:
    (it.workspace.root / path).write_text("another\n")
    assert not it.is_up


def test_other_proxies_are_not_on_the_machine_yet_and_secrets_of_a_run_do_not_stay_there(it: Up) -> None:
    (it.workspace.secrets / "w1" / "secrets").write_text("of another run")
    (it.workspace.secrets / "w1" / "proxy.env").write_text("")
    assert it.is_up
    (it.workspace.secrets / "w1" / "proxy.env").write_text('HTTPS_PROXY="http://proxy.example:3128"\n')
    assert not it.is_up


@pytest.mark.parametrize("change", [silent("cp1"), section("cp1", "given", "sha256sum: no such file", 1)])
def test_what_can_not_be_asked_is_not_taken_for_well(it: Up, change: Alter) -> None:
    it.alter(change)
    assert not it.is_up


@pytest.mark.parametrize("outcome", ["warns", "fails", "could-not-ask"])
def test_a_check_that_does_not_hold_keeps_the_lab_from_being_up(
    it: Up, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = (case for case in cases(lab()) if not case.check.probes)

    def judge(found: Facts) -> Any:
        return replace(first.judge(found), outcome=outcome)

    altered = SimpleNamespace(check=first.check, node=first.node, judge=judge)
    monkeypatch.setattr(already, "cases", lambda lab: [altered, *rest])
    assert not it.is_up
