from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.config import default
from lab.system.progress import Progress, StepTime
from lab.verbs import report
from lab.workspace import Workspace
from tests.unit.fakes import printed, progress

LAB = default()


def test_a_report_keeps_the_run_step_by_step(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    run = progress(workspace.logs)
    with run.step("node", "names", "cp1"):
        pass
    report.write(LAB, workspace, run, changed=True)
    found = json.loads(workspace.report.read_text())
    assert (found["lab"], found["kubernetes"], found["changed"]) == ("ha-lab", "1.36.3", True)
    assert [node["name"] for node in found["nodes"]] == [node.name for node in LAB.nodes]
    assert found["nodes"][0]["address"] == "192.168.56.10"
    assert [(step["name"], step["machine"], step["outcome"]) for step in found["steps"]] == [
        ("node", "cp1", "done")
    ]


def closing(tmp_path: Path, *, changed: bool) -> str:
    console, text = printed()
    run = Progress(console, tmp_path)
    run.finished = [
        StepTime("node", "names", "cp1", 0, 3.2, "done"),
        StepTime("node", "names", "w1", 0, 8.6, "done"),
        StepTime("boot", "vagrant up", "", 0, 24.1, "done"),
        StepTime("revoke", "gone", "cp1", 0, 0.2, "done"),
    ]
    console.print(report.closing(LAB, Workspace(tmp_path / ".lab"), run, changed=changed))
    return text.getvalue()


def test_the_end_names_machines_the_api_the_kubeconfig_and_what_to_type_next(tmp_path: Path) -> None:
    said = closing(tmp_path, changed=True)
    for node in LAB.nodes:
        assert f"{node.name:<7}  {node.role.value:<13}  {node.address}" in said
    assert "https://192.168.56.10:6443 (Kubernetes 1.36.3)" in said
    kubeconfig = tmp_path / ".lab" / "kubeconfig"
    assert f"next: export KUBECONFIG={kubeconfig}; ./inv verify" in said
    assert "ha-lab: the lab is up." in said


def test_the_end_repeats_what_came_from_where(tmp_path: Path) -> None:
    console, text = printed()
    run, workspace = progress(tmp_path), Workspace(tmp_path / ".lab")
    run.remark("refused: kubelet")
    console.print(report.closing(LAB, workspace, run, changed=True))
    console.print(report.stopped(LAB, workspace, run, "pod-network", ("a", "b")))
    assert text.getvalue().count("refused: kubelet\n") == 2
    report.write(LAB, workspace, run, changed=True)
    assert json.loads(workspace.report.read_text())["remarks"] == ["refused: kubelet"]


def test_the_end_quotes_a_folder_with_a_space_for_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my lab"
    folder.mkdir()
    kubeconfig = folder / ".lab" / "kubeconfig"
    assert f"next: export KUBECONFIG='{kubeconfig}'; ./inv verify" in closing(folder, changed=True)


def test_the_end_tells_the_longest_steps_by_their_slowest_machine(tmp_path: Path) -> None:
    assert "(boot 24 s, node 9 s)" in closing(tmp_path, changed=True)


def test_the_end_says_when_nothing_was_changed(tmp_path: Path) -> None:
    assert "the lab was up already; nothing was changed" in closing(tmp_path, changed=False)


@pytest.mark.parametrize(
    ("until", "task", "left"),
    [
        ("load-balancer", 3, "HAProxy, kubeadm init, the pod network, the joins"),
        ("control-plane", 4, "kubeadm init, the pod network, the joins"),
        ("pod-network", 6, "the pod network, the joins"),
        ("joins", 6, "the joins"),
    ],
)
def test_a_stop_tells_what_is_done_what_is_left_and_what_to_type_next(
    tmp_path: Path, until: str, task: int, left: str
) -> None:
    console, text = printed()
    workspace = Workspace(tmp_path / ".lab")
    console.print(report.stopped(LAB, workspace, progress(workspace.logs), until, ("names", "HAProxy")))
    said = text.getvalue()
    assert "done        machines run; names; HAProxy\n" in said
    assert f"left        {left}; `./inv task` shows what of it is done\n" in said
    assert "kubeconfig  none yet" in said
    assert f"stopped before {until}; ./inv up does the rest." in said
    assert said.endswith(f"next: ./inv task {task}\n")
