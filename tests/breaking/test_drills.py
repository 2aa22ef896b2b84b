"""Drills on a real lab: they are carried through and told of, and undone when they are not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lab.drill import workload
from lab.drill.catalogue import DRILLS
from lab.drill.report import read
from lab.errors import LabError
from lab.exit_codes import BEYOND_LIMIT
from lab.health.cluster import Api
from tests.labs.conftest import TestLab

HARMLESS = ("watch.missed", "watch.out_of_order", "writes.lost")
"""What must hold in every run of every drill, whatever machine it runs on."""


USUAL = ("kill-control-plane", "freeze-api-server", "reload-load-balancer")
"""The drills that CI has time for, a machine, a program and a change; all others are run with --whole."""


def drilled(lab: TestLab, *words: str) -> tuple[int, dict[str, Any]]:
    """Run drills; return the exit code and the report."""
    done = subprocess.run(
        lab.argv("drill", *words, "--json"), capture_output=True, text=True, timeout=1500, check=False
    )
    print(done.stderr)
    assert done.stdout, f"no report (exit code {done.returncode}):\n{done.stderr}"
    return done.returncode, json.loads(done.stdout)


def figures(result: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in result["figures"]}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(drill.name, marks=() if drill.name in USUAL else pytest.mark.whole)
        for drill in DRILLS
        if drill.in_all and drill.load_balancers == 1 and not drill.external  # the others need another lab
    ],
)
def test_a_drill_is_carried_through_and_loses_nothing(lab: TestLab, name: str) -> None:
    code, report = drilled(lab, name)
    (result,) = report["results"]
    assert not result["problem"]
    found = figures(result)
    assert {figure: found[figure] for figure in HARMLESS} == dict.fromkeys(HARMLESS, 0)
    assert found["connections.asked"] > 100
    assert found["writes.asked"] > 30
    judged = [figure for figure in result["figures"] if figure["limit"] is not None]
    missed = [f for f in judged if f["value"] is None or f["value"] > f["limit"]]
    assert code == (BEYOND_LIMIT if missed else 0)
    print(f"{name}: {missed or 'within all limits'}")


def test_a_report_is_kept_and_reads_back(lab: TestLab) -> None:
    folder = max((lab.folder / ".lab" / "drills").iterdir())
    kept = read(folder / "report.json")
    assert kept.results[0].recording.connections
    assert "<title>" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_usual_drills_are_drills() -> None:
    assert set(USUAL) <= {drill.name for drill in DRILLS}


@pytest.mark.whole
def test_the_write_ups_load_balancer_beside_the_tuned_one(lab: TestLab) -> None:
    _, report = drilled(lab, "kill-control-plane", "--compare", "reference")
    found = {result["recording"]["profile"]: figures(result) for result in report["results"]}
    assert set(found) == {"tuned", "reference"}
    # What was not noticed before it was over took longest of all.
    tuned, reference = (found[profile]["detect_s"] or float("inf") for profile in ("tuned", "reference"))
    assert tuned < reference
    configuration = "sudo grep -c lua-load /etc/haproxy/haproxy.cfg"
    assert lab.succeed("ssh", "lb1", "--", configuration).said.strip() == "1", "lab.yaml's own is back"


def under_way(lab: TestLab, name: str) -> subprocess.Popen[str]:
    """A drill whose fault is in."""
    process = subprocess.Popen(
        lab.argv("drill", name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=lab.folder
    )
    fault = lab.folder / ".lab" / "drill" / "fault.json"
    _wait(lambda: "" if fault.exists() else "no fault is in", process)
    return process


def _wait(why_not: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while reason := why_not():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, reason
        time.sleep(0.05)


def frozen(lab: TestLab) -> list[str]:
    """The control planes whose API server stands still; containers' processes are the host's, too."""
    addresses = {f"--advertise-address={node.address}": node.name for node in lab.session.lab.control_planes}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words[0] == "kube-apiserver" and state == "T":
            found += [addresses[word] for word in words if word in addresses]
    return found


def test_ctrl_c_takes_the_fault_out(lab: TestLab) -> None:
    process = under_way(lab, "freeze-api-server")
    _wait(lambda: "" if frozen(lab) else "no API server stands still", process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not frozen(lab)
    assert not list((lab.folder / ".lab" / "drill").iterdir())
    api = Api(lab.session.workspace.kubeconfig)
    with pytest.raises(LabError, match="404"):
        api.get(f"/api/v1/namespaces/{workload.NAMESPACE}")


def test_a_second_drill_is_refused_and_one_that_was_killed_is_made_up_for(
    lab: TestLab,
) -> None:
    process = under_way(lab, "freeze-api-server")
    _wait(lambda: "" if frozen(lab) else "no API server stands still", process)
    second = lab.inv("drill", "reload-load-balancer")
    assert second.code == 1
    assert "in use" in second.said
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert frozen(lab)
    healed = lab.succeed("drill", "--heal")
    assert "freeze-api-server" in healed.said
    assert not frozen(lab)
    assert "no drill has left a fault" in lab.succeed("drill", "--heal").said


def test_a_fault_may_be_kept_to_look_at_and_up_takes_it_out(lab: TestLab) -> None:
    kept = lab.succeed("drill", "freeze-api-server", "--keep")
    assert "stays in" in kept.said
    assert frozen(lab)
    lab.succeed("up")
    assert not frozen(lab)


def test_a_lab_that_is_not_green_is_left_as_it_is(lab: TestLab) -> None:
    taint = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf taint node w1 mine=1:NoSchedule"
    lab.succeed("ssh", "cp1", "--", taint)
    try:
        ended = lab.inv("drill", "kill-control-plane")
    finally:
        lab.succeed("ssh", "cp1", "--", f"{taint}-")
    assert ended.code == 1
    assert "checks fail before the drill" in ended.said
    assert "node-taints" in ended.said
    assert not (lab.folder / ".lab" / "drill" / "fault.json").exists()
