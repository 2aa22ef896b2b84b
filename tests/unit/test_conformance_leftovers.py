"""What the suite leaves in a cluster is found by who made it, and nothing of the user's is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.conformance import delivery, leftovers, run
from lab.errors import LabStateError

SUITE, USER = "e2e.test", "kubectl-create"


def made_by(*makers: str, times: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The API's notes of who wrote an object, one after the other."""
    clock = times or tuple(f"2026-11-29T10:00:{second:02d}Z" for second in range(len(makers)))
    return [
        {"manager": maker, "operation": "Update", "time": time}
        for maker, time in zip(makers, clock, strict=True)
    ]


def item(name: str, *makers: str, namespace: str = "", labels: dict[str, str] | None = None) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    return {"metadata": {"name": name, "managedFields": made_by(*makers), "labels": labels or {}, **where}}


class FakeApi:
    """A cluster with three groups of kinds; what is deleted is gone when it is next asked."""

    def __init__(self) -> None:
        """Have things of the suite's, of the user's and of the cluster's own."""
        self.deleted: list[str] = []
        self.patched: dict[str, Any] = {}
        self.stuck: set[str] = set()
        self.refused: set[str] = set()
        self.status = 200
        self.items: dict[str, list[dict[str, Any]]] = {
            "/api/v1/namespaces": [
                item("default", "kube-apiserver"),
                item("mine", USER),
                item("pods-1234", SUITE, "kube-controller-manager"),
                item("webhook-markers", "helm", labels={"e2e-run": "x"}),
            ],
            "/api/v1/nodes": [{**item("w1", "kubeadm", SUITE), "spec": {}}],
            "/api/v1/configmaps": [
                item("in-its-own", SUITE, namespace="pods-1234"),
                item("left", SUITE, namespace="kube-system"),
                item("mine", USER, SUITE, namespace="default"),
            ],
            "/apis/apiregistration.k8s.io/v1/apiservices": [item("v1alpha1.wardle.example.com", SUITE)],
        }
        self.kinds = {
            "/api/v1": [
                {"name": "namespaces", "namespaced": False, "verbs": ["list", "delete"]},
                {"name": "nodes", "namespaced": False, "verbs": ["list", "delete"]},
                {"name": "configmaps", "namespaced": True, "verbs": ["list", "delete"]},
                {"name": "events", "namespaced": True, "verbs": ["list", "delete"]},
                {"name": "bindings", "namespaced": True, "verbs": ["create"]},
                {"name": "namespaces/status", "namespaced": False, "verbs": ["list", "delete"]},
            ],
            "/apis/apiregistration.k8s.io/v1": [
                {"name": "apiservices", "namespaced": False, "verbs": ["list", "delete"]}
            ],
        }

    def get(self, path: str) -> dict[str, Any]:
        """Answer what is asked of it, and nothing else."""
        if path == "/apis":
            versions = ["apiregistration.k8s.io/v1", "wardle.example.com/v1alpha1"]
            return {"groups": [{"preferredVersion": {"groupVersion": each}} for each in versions]}
        if path in self.kinds:
            return {"resources": self.kinds[path]}
        return {"items": self.items[path]}

    def request(self, method: str, path: str, body: object = None, content_type: str = "") -> tuple[int, str]:
        """Delete, patch, or say whether a group answers: the suite's aggregated API has no server any more."""
        if method == "GET":
            return (503, "") if "wardle" in path else (self.status, json.dumps(self.get(path)))
        if path in self.refused:
            return 500, "etcdserver: leader changed"
        if method == "PATCH":
            self.patched[path] = body
            return 200, ""
        assert method == "DELETE", method
        self.deleted.append(path)
        if path not in self.stuck:
            for items in self.items.values():
                items[:] = [each for each in items if path.rpartition("/")[2] not in _names(each)]
        return 200, json.dumps({})


def _names(each: dict[str, Any]) -> set[str]:
    """An object's name and its namespace's, with which it goes."""
    return {each["metadata"]["name"], each["metadata"].get("namespace", "")}


def test_only_what_the_suite_made_is_found() -> None:
    found = leftovers.find(FakeApi())  # type: ignore[arg-type]
    assert [each.title for each in found] == [
        "apiservices v1alpha1.wardle.example.com",  # first, since a namespace can't go without its API's server
        "namespaces pods-1234",
        "namespaces webhook-markers",
        "configmaps left",
    ]


def test_all_of_it_is_removed_and_nothing_else(tmp_path: Path) -> None:
    api = FakeApi()
    assert leftovers.remove(api, tmp_path / "log") == ()  # type: ignore[arg-type]
    assert api.deleted == [
        "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com",
        "/api/v1/namespaces/pods-1234",
        "/api/v1/namespaces/webhook-markers",
        "/api/v1/namespaces/kube-system/configmaps/left",
    ]


def test_what_does_not_go_is_named_after_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    api = FakeApi()
    api.stuck = {"/api/v1/namespaces/pods-1234"}
    assert leftovers.remove(api, tmp_path / "log", timeout=0.1) == ("namespaces pods-1234",)  # type: ignore[arg-type]
    assert api.deleted.count("/api/v1/namespaces/pods-1234") == 1


def test_what_the_api_refused_to_delete_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FakeApi()
    api.refused = {"/api/v1/namespaces/pods-1234"}
    monkeypatch.setattr(time, "sleep", lambda seconds: api.refused.clear())
    assert leftovers.remove(api, tmp_path / "log") == ()  # type: ignore[arg-type]


def test_a_node_that_keeps_the_suite_s_marks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    api = FakeApi()
    w1 = node({"unschedulable": True}, {"f:spec": {"f:unschedulable": {}}})
    w1["metadata"]["managedFields"] = [*made_by("kubeadm"), *w1["metadata"]["managedFields"]]
    w1["metadata"]["managedFields"][1]["time"] = "2026-11-29T11:00:00Z"
    api.items["/api/v1/nodes"] = [w1]
    api.refused = {"/api/v1/nodes/w1"}
    left = leftovers.remove(api, tmp_path / "log", timeout=0.1)  # type: ignore[arg-type]
    assert left == ("its marks on the node w1",)


@pytest.mark.parametrize(
    ("makers", "times", "expected"),
    [
        ((SUITE,), ("2026-11-29T10:00:00Z",), True),
        ((USER,), ("2026-11-29T10:00:00Z",), False),
        ((USER, SUITE), ("2026-11-29T10:00:00Z", "2026-11-29T10:00:05Z"), False),
        ((SUITE, USER), ("2026-11-29T10:00:09Z", "2026-11-29T10:00:05Z"), False),
        (("kube-controller-manager", SUITE), ("2026-11-29T10:00:05Z", "2026-11-29T10:00:05Z"), True),
        ((), (), False),
    ],
)
def test_the_first_that_wrote_an_object_made_it(
    makers: tuple[str, ...], times: tuple[str, ...], expected: bool
) -> None:
    assert leftovers.is_made_by_the_suite({"managedFields": made_by(*makers, times=times)}) is expected


def node(spec: dict[str, Any], fields: dict[str, Any], maker: str = SUITE) -> dict[str, Any]:
    return {"metadata": {"name": "w1", "managedFields": [{"manager": maker, "fieldsV1": fields}]}, "spec": spec}


EVICT = {"key": "kubernetes.io/e2e-evict-taint-key", "effect": "NoExecute"}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def test_labels_and_taints_of_the_suite_are_taken_off_a_node() -> None:
    fields = {"f:metadata": {"f:labels": {"f:kubernetes.io/e2e-1": {}, ".": {}}}, "f:spec": {"f:taints": {}}}
    assert leftovers.node_patch(node({"taints": [EVICT, NOT_READY]}, fields)) == {
        "metadata": {"labels": {"kubernetes.io/e2e-1": None}},
        "spec": {"taints": [NOT_READY]},
    }


def test_a_node_that_the_suite_cordoned_takes_pods_again() -> None:
    found = leftovers.node_patch(node({"unschedulable": True}, {"f:spec": {"f:unschedulable": {}}}))
    assert found == {"spec": {"unschedulable": None}}


@pytest.mark.parametrize("maker", ["kubectl-taint", "kubectl"])
def test_what_somebody_else_put_on_a_node_stays(maker: str) -> None:
    fields = {"f:metadata": {"f:labels": {"f:mine": {}}}, "f:spec": {"f:taints": {}, "f:unschedulable": {}}}
    assert leftovers.node_patch(node({"taints": [EVICT], "unschedulable": True}, fields, maker)) == {}


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
AGNHOST, PAUSE = "registry.k8s.io/e2e-test-images/agnhost:2.63.0", "registry.k8s.io/pause:3.10.2"
LISTED = f"""\
REF TYPE DIGEST SIZE PLATFORMS LABELS
{AGNHOST} {MANIFEST} sha256:aa 200.0 MiB linux/amd64 io.cri-containerd.image=managed
{PAUSE} {MANIFEST} sha256:bb 700.0 KiB linux/amd64 io.cri-containerd.pinned=pinned
sha256:11 {MANIFEST} sha256:aa 200.0 MiB linux/amd64 io.cri-containerd.image=managed
sha256:22 {MANIFEST} sha256:bb 700.0 KiB linux/amd64 io.cri-containerd.image=managed
"""


def test_an_image_goes_with_the_second_name_that_containerd_has_for_it() -> None:
    assert delivery.names(LISTED, [AGNHOST]) == (AGNHOST, "sha256:11")


ETCD, SUITES_ETCD = "registry.k8s.io/etcd:3.6.16-0", "registry.k8s.io/etcd:3.6.8-0"
WITH_ETCD = f"{LISTED}{ETCD} {MANIFEST} sha256:cc 20.0 MiB linux/amd64 -\n"


def test_etcd_gets_the_suite_s_name_besides_and_loses_that_alone() -> None:
    wanted = [SUITES_ETCD, PAUSE]
    assert delivery.lacking(WITH_ETCD, wanted) == {SUITES_ETCD: ETCD}
    assert delivery.second_names(WITH_ETCD, wanted) == ()
    tagged = f"{WITH_ETCD}{SUITES_ETCD} {MANIFEST} sha256:cc 20.0 MiB linux/amd64 -\n"
    assert delivery.lacking(tagged, wanted) == {}
    assert delivery.second_names(tagged, wanted) == (SUITES_ETCD,)


def test_a_machine_whose_own_etcd_has_the_suite_s_name_keeps_it() -> None:
    own = f"{LISTED}{SUITES_ETCD} {MANIFEST} sha256:cc 20.0 MiB linux/amd64 -\n"
    assert delivery.lacking(own, [SUITES_ETCD]) == {}
    assert delivery.second_names(own, [SUITES_ETCD]) == ()
    assert delivery.lacking(LISTED, [SUITES_ETCD]) == {}, "and one without any etcd is left alone"


def test_of_machines_without_them_no_image_goes() -> None:
    assert delivery.names(LISTED, ["registry.k8s.io/e2e-test-images/busybox:1"]) == ()


def api_node(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


MASTER = {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}
LAB = default()


def test_workers_that_take_pods_are_found() -> None:
    found = run.require_workers(LAB.nodes, [api_node("cp1", **MASTER), api_node("w1"), api_node("w2")])
    assert [each.name for each in found] == ["w1", "w2"]


def test_a_lab_with_one_worker_that_takes_pods_is_refused_with_the_reasons() -> None:
    items = [api_node("cp1", **MASTER), api_node("w1"), api_node("w2", unschedulable=True), api_node("w3")]
    items[3]["status"]["conditions"][0]["status"] = "Unknown"
    with pytest.raises(LabStateError) as caught:
        run.require_workers(LAB.nodes, items)
    assert "needs 2 workers that take pods, and this lab has 1" in caught.value.message
    assert "w2: cordoned; w3: not Ready" in caught.value.message
    assert "uncordon" in caught.value.hint


@pytest.mark.parametrize("status", [500, 503])
def test_an_api_that_does_not_answer_is_no_clean_cluster(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    api = FakeApi()
    api.status = status
    [left] = leftovers.remove(api, tmp_path / "log", timeout=0.1)  # type: ignore[arg-type]
    assert f"the API answered {status}" in left
