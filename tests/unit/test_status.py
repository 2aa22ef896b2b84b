from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import status
from lab.cluster import Api, NodeFact, read_nodes
from lab.config import default
from lab.errors import LabStateError
from lab.progress import Progress
from lab.session import Session
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, printed, recorded


class FakeApi(Api):
    """An API whose nodes are the recorded ones."""

    answer = "kubectl/nodes.healthy.json"

    def __init__(self, kubeconfig: Path, timeout: float = 10.0) -> None:
        """Ask nobody."""

    def nodes(self) -> tuple[NodeFact, ...]:
        """Return what was recorded; none recorded is an API that doesn't answer."""
        if not self.answer:
            raise LabStateError("the API can't be asked: timed out")
        return read_nodes(json.loads(recorded(self.answer)))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    workspace, lab = Workspace(tmp_path / ".lab"), default()
    monkeypatch.setattr(status, "Api", FakeApi)
    workspace.write(workspace.ssh_config, "x")
    workspace.write_secret(workspace.kubeconfig, "x")
    return Session(
        tmp_path / "lab.yaml",
        lab,
        workspace,
        FakeRemote(lab, workspace),
        Progress(printed()[0], workspace.logs),
    )


def clusters(found: status.Status) -> list[str]:
    return [machine.cluster for machine in found.machines]


def shown(found: status.Status) -> str:
    console, text = printed()
    console.print(status.shown(found))
    return text.getvalue()


def test_a_lab_that_is_well_is_all_ready(session: Session) -> None:
    found = status.look(session)
    assert found.all_ready
    assert clusters(found) == ["-"] + ["Ready"] * 6
    assert "ha-lab: all is Ready; the API is https://192.168.56.10:6443" in shown(found)


def test_a_node_that_is_not_ready_or_unknown_is_said_to_be(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeApi, "answer", "kubectl/nodes.broken.json")
    found = status.look(session)
    assert not found.all_ready
    assert clusters(found)[1:4] == ["Ready", "not Ready: Kubelet stopped posting node status.", "unknown"]
    assert "not all is Ready" in shown(found)


def test_a_machine_that_does_not_answer_is_told(session: Session) -> None:
    assert isinstance(session.remote, FakeRemote)
    session.remote.down = {"lb1"}
    found = status.look(session)
    assert not found.all_ready
    assert [machine.name for machine in found.machines if not machine.answers] == ["lb1"]


def test_an_api_that_does_not_answer_is_told_with_its_reason(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeApi, "answer", "")
    found = status.look(session)
    assert found.problem == "the API can't be asked: timed out"
    assert not found.all_ready
    assert "the API can't be asked: timed out" in shown(found)
    assert "next: ./inv up" in shown(found)


def test_a_lab_that_is_not_up_is_not_asked(session: Session) -> None:
    session.workspace.ssh_config.unlink()
    session.workspace.kubeconfig.unlink()
    found = status.look(session)
    assert found.problem == "the lab is not up"
    assert not any(machine.answers for machine in found.machines)


def test_status_for_programs_says_the_same(session: Session) -> None:
    found = json.loads(status.to_json(status.look(session)))
    assert found["all_ready"] is True
    assert found["machines"][1] == {
        "name": "cp1",
        "role": "control-plane",
        "address": "192.168.56.11",
        "answers": True,
        "cluster": "Ready",
    }
