"""Kubernetes' own conformance tests on a lab of seven, ended in the middle, and what is left after."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab.conformance import delivery, leftovers, suite
from lab.health.cluster import Api
from tests.labs.conftest import TestLab, only_lab

pytestmark = pytest.mark.whole

FEW = r"server version|DNS should provide DNS for the cluster|intra-pod communication: http"


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with only_lab("ha-lab-conformance", network={"subnet": "192.168.74.0/24"}) as made:
        made.succeed("up")
        yield made


def left_in(lab: TestLab) -> list[str]:
    """What a run has left in the lab: objects, and images on machines."""
    session = lab.session
    objects = [each.title for each in leftovers.find(Api(session.workspace.kubeconfig))]
    built = suite.Suite(suite.folder(session.lab))
    listed = {
        node.name: session.remote.run(node, [*delivery.CTR, "list"]).stdout for node in session.lab.workers
    }
    images = [f"{name}: {each}" for name, said in listed.items() for each in delivery.names(said, built.images)]
    return [*objects, *images]


def test_a_few_tests_pass_and_nothing_is_left(lab: TestLab) -> None:
    ended = lab.inv("conformance", "--focus", FEW, "--json", "--yes", timeout=3600)
    found = json.loads(ended.out)
    assert (ended.code, len(found["passed"]), found["failed"], found["left"]) == (0, 3, [], [])
    assert found["tests"] == len(found["passed"]) + len(found["not_run"])
    assert left_in(lab) == []
    assert lab.inv("verify").code == 0


def test_one_that_is_ended_in_the_middle_leaves_nothing(lab: TestLab) -> None:
    process = subprocess.Popen(
        lab.argv("conformance", "--quick"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not any("e2e-run" in str(each) for each in namespaces(lab)):
        assert process.poll() is None, "it ended before a test began"
        assert time.monotonic() < deadline, "no test began within 300 s"
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    assert left_in(lab) == []


def test_the_quick_set_passes_within_ten_minutes(lab: TestLab) -> None:
    ended = lab.succeed("conformance", "--quick")
    assert "conformance tests passed" in ended.said
    assert ended.seconds < 600
    assert left_in(lab) == []


def test_a_lab_without_two_workers_that_take_pods_is_refused(lab: TestLab) -> None:
    kubectl = ("sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf")
    lab.session.remote.run(lab.session.lab.first, [*kubectl, "cordon", "w1", "w2"])
    try:
        ended = lab.inv("conformance", "--quick")
        assert ended.code == 1
        assert "w1: cordoned" in ended.said
    finally:
        lab.session.remote.run(lab.session.lab.first, [*kubectl, "uncordon", "w1", "w2"])


def namespaces(lab: TestLab) -> list[object]:
    return list(Api(lab.session.workspace.kubeconfig).get("/api/v1/namespaces")["items"])
