from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import config
from lab.drill import workload
from lab.errors import LabStateError, WaitTimedOut
from lab.health.cluster import Api
from lab.model import Lab
from lab.model.roles import Role
from lab.system.wait import wait_until
from tests.unit.fakes import FakeClock

SPACE = "/api/v1/namespaces/ha-lab-drill"


class FakeApi(Api):
    """A cluster as the drill's workload sees it: what was made, and pods that are Ready after a while."""

    def __init__(self) -> None:
        """Have nothing."""
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[str] = []
        self.slowness = 2
        self.going = 0
        self.unready: set[str] = set()
        self.says: dict[str, tuple[int, str]] = {}
        self.silent = 0

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Answer as the API would."""
        if self.silent:
            self.silent -= 1
            raise LabStateError("the API can't be asked: timed out")
        where, _, query = path.partition("?")
        if method != "GET":
            self.events.append(f"{method} {where}")
        if f"{method} {where}" in self.says:
            return self.says[f"{method} {where}"]
        match method:
            case "POST":
                return self._made(where, body)
            case "DELETE":
                return self._removed(where)
            case "PUT":
                assert where in self.objects
                self.objects[where] = stored = {**json.loads(json.dumps(body))}
                stored["metadata"]["resourceVersion"] = "4711"
                return 200, json.dumps(stored)
        if where == f"{SPACE}/pods":
            return 200, json.dumps({"items": self._pods(query.removeprefix("labelSelector=app%3D"))})
        if self.going and where == SPACE:
            self.going -= 1
            if not self.going:
                self.objects.clear()
        found = self.objects.get(where)
        return (200, json.dumps(found)) if found else (404, "not found")

    def _made(self, where: str, body: object) -> tuple[int, str]:
        made = json.loads(json.dumps(body))
        path = f"{where}/{made['metadata']['name']}"
        if path in self.objects:
            return 409, "already exists"
        if made["kind"] == "Service":
            made["spec"]["ports"][0]["nodePort"] = 30123
        self.objects[path] = made
        return 201, json.dumps(made)

    def _removed(self, where: str) -> tuple[int, str]:
        if where not in self.objects:
            return 404, "not found"
        if where == SPACE:
            self.going = 3
            return 200, "{}"
        del self.objects[where]
        return 200, "{}"

    def _pods(self, app: str) -> list[dict[str, Any]]:
        self.slowness -= 1
        found = self.objects.get(f"{workload.DEPLOYMENTS}/{app}", {"spec": {"replicas": 0}})
        names = [f"{app}-{number}" for number in range(found["spec"]["replicas"])]
        return [self._pod(name, self.slowness < 0 and name not in self.unready) for name in names]

    def _pod(self, name: str, ready: bool) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": str(ready)}]
        return {
            "metadata": {"namespace": "ha-lab-drill", "name": name},
            "spec": {"nodeName": "w1"},
            "status": {"phase": "Running", "conditions": conditions},
        }

    def deployment(self, name: str = "probe") -> dict[str, Any]:
        """A Deployment as it was sent."""
        spec: dict[str, Any] = self.objects[f"{workload.DEPLOYMENTS}/{name}"]["spec"]
        return spec


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def lab() -> Lab:
    return config.default()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Waiting takes no time here."""
    fake = FakeClock()
    monkeypatch.setattr(workload, "wait_until", partial(wait_until, clock=fake))
    return fake


def without_workers(lab: Lab, left: int = 0) -> Lab:
    kept = [node for node in lab.nodes if node.role is not Role.WORKER]
    return lab.model_copy(update={"nodes": (*kept, *lab.workers[:left])})


def test_the_whole_workload_is_made_and_waited_for(api: FakeApi, lab: Lab) -> None:
    assert workload.deploy(api, lab) == 30123
    assert set(api.objects) == {SPACE, workload.COUNTER, workload.SERVICE, f"{workload.DEPLOYMENTS}/probe"}
    assert api.slowness < 0
    assert workload.why_not_running(api) is None


@pytest.mark.parametrize(("workers", "replicas"), [(3, 3), (2, 2), (1, 2), (0, 2)])
def test_there_is_a_pod_for_each_worker_and_two_at_least(
    api: FakeApi, lab: Lab, workers: int, replicas: int
) -> None:
    workload.deploy(api, without_workers(lab, workers))
    assert api.deployment()["replicas"] == replicas


def test_what_the_workload_waits_for_is_written_down(api: FakeApi, lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "workload.log"
    workload.deploy(api, lab, log=log)
    workload.deploy(api, lab, log=log)
    words = [line.partition("] ")[2] for line in log.read_text().splitlines()]
    run = "waiting for the drill's workload to run"
    assert words == [run, "waiting for namespace ha-lab-drill to be gone", run]


def test_no_pod_is_put_on_a_node_whose_machine_is_off(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    assert "affinity" not in api.deployment()["template"]["spec"]
    api.objects.clear()
    workload.deploy(api, lab, avoided={"w2", "cp1"})
    affinity = api.deployment()["template"]["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["cp1", "w2"]}
    ]


def test_control_planes_run_it_only_where_there_is_no_worker(api: FakeApi, lab: Lab) -> None:
    def tolerated(which: Lab) -> set[str]:
        api.objects.clear()
        workload.deploy(api, which)
        return {each["key"] for each in api.deployment()["template"]["spec"]["tolerations"]}

    evicted = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert tolerated(lab) == evicted
    assert tolerated(without_workers(lab, 1)) == evicted
    assert tolerated(without_workers(lab)) == {*evicted, "node-role.kubernetes.io/control-plane"}


def test_pods_leave_a_lost_node_within_a_drill(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    tolerations = api.deployment()["template"]["spec"]["tolerations"]
    assert [(each["effect"], each["tolerationSeconds"]) for each in tolerations] == [("NoExecute", 5)] * 2


def test_the_image_is_the_node_s_own(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    (container,) = api.deployment()["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("localhost/ha-lab/probe:1", "Never")


def test_the_service_and_the_spread_select_the_pods(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    pod = api.deployment()["template"]
    labels = pod["metadata"]["labels"]
    assert api.objects[workload.SERVICE]["spec"]["selector"] == labels
    assert api.deployment()["selector"]["matchLabels"] == labels
    assert pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels


def test_what_an_earlier_run_left_is_removed_first(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.events.clear()
    workload.deploy(api, lab)
    assert api.events[:2] == [f"DELETE {SPACE}", "POST /api/v1/namespaces"]


def test_pods_that_never_get_ready_are_named(api: FakeApi, lab: Lab) -> None:
    api.unready = {"probe-1"}
    with pytest.raises(WaitTimedOut, match=r"2 of 3 pods are Ready: probe-1 on w1 is Running") as caught:
        workload.deploy(api, lab, timeout=7)
    assert "not after 7 s" in caught.value.message
    assert "kubectl -n ha-lab-drill" in caught.value.hint


def test_an_api_that_says_no_is_told_with_what_was_asked(api: FakeApi, lab: Lab) -> None:
    api.says[f"POST {workload.DEPLOYMENTS}"] = (403, "forbidden: quota")
    with pytest.raises(LabStateError, match="answered 403 to a new Deployment probe: forbidden: quota"):
        workload.deploy(api, lab)


def test_removing_waits_until_nothing_is_left(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    workload.remove(api)
    assert (api.objects, api.going) == ({}, 0)


def test_removing_what_is_not_there_is_no_error(api: FakeApi) -> None:
    workload.remove(api)


def test_a_namespace_that_does_not_go_is_an_error(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.says[f"DELETE {SPACE}"] = (200, "{}")
    with pytest.raises(WaitTimedOut, match="namespace ha-lab-drill to be gone: not after 9 s"):
        workload.remove(api, timeout=9)
    api.says[f"DELETE {SPACE}"] = (500, "etcdserver: no leader")
    with pytest.raises(LabStateError, match=r"answered 500 to DELETE .*no leader"):
        workload.remove(api)


def test_a_workload_that_lost_a_pod_says_which(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.unready = {"probe-0", "probe-2"}
    assert workload.why_not_running(api) == (
        "1 of 3 pods are Ready: probe-0 on w1 is Running; probe-2 on w1 is Running"
    )


def test_a_workload_that_is_gone_does_not_run(api: FakeApi) -> None:
    assert "answered 404" in (workload.why_not_running(api) or "")


def test_an_api_that_can_t_be_asked_is_a_reason_and_no_error(api: FakeApi) -> None:
    api.silent = 1
    assert "timed out" in (workload.why_not_running(api) or "")


def test_a_new_workload_runs_and_is_removed(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    before = set(api.objects)
    api.slowness = 3
    assert workload.schedules(api, lab, "after-1") >= 0
    assert api.slowness < 0
    assert api.events[-2:] == [f"POST {workload.DEPLOYMENTS}", f"DELETE {workload.DEPLOYMENTS}/after-1"]
    assert set(api.objects) == before


def test_a_new_workload_is_none_of_the_service_s(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.says[f"DELETE {workload.DEPLOYMENTS}/after-1"] = (200, "{}")  # kept, to look at
    workload.schedules(api, lab, "after-1")
    assert api.deployment("after-1")["replicas"] == 1
    assert api.deployment("after-1")["template"]["metadata"]["labels"] == {"app": "after-1"}


def test_a_new_workload_that_does_not_run_is_removed_too(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.unready = {"after-1-0"}
    with pytest.raises(WaitTimedOut, match=r"a new workload \(after-1\) to run: not after 11 s: 0 of 1"):
        workload.schedules(api, lab, "after-1", timeout=11)
    assert f"{workload.DEPLOYMENTS}/after-1" not in api.objects


def test_counting_starts_anew_from_a_version(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.objects[workload.COUNTER]["data"] = {"counter": "9", "n0": "", "n9": ""}
    assert workload.start_counting(api) == "4711"
    assert api.objects[workload.COUNTER]["data"] == {"counter": "0", "n0": ""}
    api.says[f"PUT {workload.COUNTER}"] = (404, "not found")
    with pytest.raises(LabStateError, match="answered 404 to PUT"):
        workload.start_counting(api)


def test_each_write_has_its_own_key_and_touches_no_other() -> None:
    patch = json.loads(workload.write_of(41))
    assert patch["data"] == {"counter": "41", "n41": ""}
    assert set(patch) == {"data", "metadata"}
    assert patch["metadata"] == {"managedFields": [{}]}


def test_all_numbers_are_read_back_and_nothing_else(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    assert workload.read_back(api) == (0,)
    api.objects[workload.COUNTER]["data"] = {"counter": "12", "n0": "", "n12": "", "n7": "", "nothing": ""}
    assert workload.read_back(api) == (0, 7, 12)


def test_reading_back_is_tried_until_the_api_answers(api: FakeApi, lab: Lab) -> None:
    workload.deploy(api, lab)
    api.silent = 3
    assert workload.read_back(api, timeout=5) == (0,)
    api.silent = 100
    with pytest.raises(WaitTimedOut, match="the writes to be read back: not after 5 s: the API can't be asked"):
        workload.read_back(api, timeout=5)


def test_a_counter_that_is_gone_is_not_an_empty_one(api: FakeApi) -> None:
    with pytest.raises(WaitTimedOut, match="answered 404"):
        workload.read_back(api, timeout=1)
