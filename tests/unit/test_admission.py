"""What may keep pods from being created, as the API's objects show it: forms as Kubernetes has them."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabStateError
from lab.health.cluster import LONGEST_REFUSAL, Api, refusal
from lab.health.facts.admission import (
    AdmissionFacts,
    LimitFact,
    NamespaceSelector,
    QuotaFact,
    RefusalFact,
    Rule,
    WebhookFact,
    ask_admission,
    read_limits,
    read_quotas,
    read_refusals,
    read_webhooks,
    service_problem,
)
from lab.unknown import CouldNotAsk, Unknown
from tests.unit.recorded_facts import facts, lab

REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
VALIDATING = "ValidatingWebhookConfiguration"
EVERYTHING = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*"}
PODS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}


def configuration(name: str = "gate", **hook: Any) -> dict[str, Any]:
    """A configuration with one webhook, as the API shows it after its defaults were filled in."""
    service = {"name": "gate", "namespace": "default", "path": "/check", "port": 443}
    webhook = {
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": service},
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "name": "pods.gate.example.com",
        "namespaceSelector": {},
        "objectSelector": {},
        "rules": [PODS],
        "sideEffects": "None",
        "timeoutSeconds": 10,
    }
    return {"metadata": {"name": name}, "webhooks": [webhook | hook]}


def read_one(**hook: Any) -> tuple[WebhookFact, tuple[str, str] | None]:
    [found] = read_webhooks(VALIDATING, {"items": [configuration(**hook)]})
    return found


def event(
    message: str, owner: str = "DaemonSet/kube-proxy", at: str = "2026-11-28T10:00:00Z"
) -> dict[str, Any]:
    kind, _, name = owner.partition("/")
    about = {"apiVersion": "apps/v1", "kind": kind, "name": name, "namespace": "kube-system"}
    return {
        "metadata": {"name": f"{name}.18", "creationTimestamp": at},
        "involvedObject": about,
        "reason": "FailedCreate",
        "message": f"Error creating: {message}",
        "lastTimestamp": at,
        "type": "Warning",
    }


class AnsweringApi(Api):
    """An API that has these objects by path, and is asked for no other."""

    def __init__(self, **objects: Any) -> None:
        """Have nothing in the way."""
        self.asked: list[str] = []
        empty = [
            *(f"{REGISTRATION}/{kind}webhookconfigurations" for kind in ("validating", "mutating")),
            *(f"/api/v1/{kind}" for kind in ("namespaces", "resourcequotas", "limitranges")),
            *(
                f"/api/v1/namespaces/{namespace}/events?fieldSelector=reason%3DFailedCreate"
                for namespace in ("kube-system", "kube-flannel")
            ),
        ]
        self.there: dict[str, Any] = {path: {"items": []} for path in empty} | objects

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Answer a GET."""
        assert method == "GET"
        self.asked.append(path)
        found = self.there[path]
        if found is None:
            status = {"kind": "Status", "code": 404, "message": f"{path} not found"}
            return http.client.NOT_FOUND, json.dumps(status)
        return (http.client.OK, json.dumps(found)) if not isinstance(found, int) else (found, "no")


def test_a_cluster_in_which_nothing_is_in_the_way_is_asked_seven_questions() -> None:
    api = AnsweringApi()
    assert ask_admission(lab(), api) == AdmissionFacts((), {}, (), (), ())
    assert sorted(api.asked) == sorted(api.there)


def test_what_can_t_be_asked_leaves_the_rest_known() -> None:
    found = ask_admission(lab(), AnsweringApi(**{"/api/v1/resourcequotas": 503}))
    assert found.quotas == Unknown("the API answered 503 to GET /api/v1/resourcequotas: no")
    assert found.limits == ()


SERVICE = "/api/v1/namespaces/default/services/gate"
SLICES = (
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    "?labelSelector=kubernetes.io%2Fservice-name%3Dgate"
)


def slices(*ready: bool | None) -> dict[str, Any]:
    endpoints = [{"addresses": ["10.244.1.9"], "conditions": {"ready": each}} for each in ready]
    return {"items": [{"endpoints": endpoints or None}]}


@pytest.mark.parametrize(
    ("service", "there", "problem", "recovers"),
    [
        (None, None, "its Service default/gate does not exist", False),
        ({}, {"items": []}, "its Service default/gate has no pod behind it", False),
        ({}, slices(), "its Service default/gate has no pod behind it", False),
        ({}, slices(False, False), "no pod behind its Service default/gate is Ready", True),
        ({}, slices(False, True), None, False),
        ({}, slices(None), None, False),
    ],
)
def test_a_webhook_that_must_be_asked_is_held_against_its_service(
    service: Any, there: Any, problem: str | None, recovers: bool
) -> None:
    configured = {f"{REGISTRATION}/validatingwebhookconfigurations": {"items": [configuration()]}}
    api = AnsweringApi(**configured, **{SERVICE: service, SLICES: there})
    found = ask_admission(lab(), api).webhooks
    assert not isinstance(found, Unknown)
    [hook] = found
    assert (hook.kind, hook.configuration, hook.name) == (VALIDATING, "gate", "pods.gate.example.com")
    assert (hook.problem, hook.recovers) == (problem, recovers)
    assert (SLICES in api.asked) is (service is not None)


@pytest.mark.parametrize(
    "hook", [{"failurePolicy": "Ignore"}, {"clientConfig": {"url": "https://gate.example.com/check"}}]
)
def test_no_service_is_asked_for_where_none_matters(hook: dict[str, Any]) -> None:
    path = f"{REGISTRATION}/mutatingwebhookconfigurations"
    api = AnsweringApi(**{path: {"items": [configuration(**hook)]}})
    found = ask_admission(lab(), api).webhooks
    assert not isinstance(found, Unknown)
    assert [(each.kind, each.problem) for each in found] == [("MutatingWebhookConfiguration", None)]


def test_endpoints_that_can_t_be_read_are_no_answer() -> None:
    with pytest.raises(CouldNotAsk, match="the endpoints of default/gate can't be read"):
        service_problem("default", "gate", {}, {"items": "none"})


@pytest.mark.parametrize(
    ("rule", "operation", "group", "resource", "matches"),
    [
        (PODS, "CREATE", "", "pods", True),
        (PODS, "UPDATE", "", "pods", False),
        (PODS, "CREATE", "apps", "pods", False),
        (PODS, "CREATE", "", "pods/status", False),
        (EVERYTHING, "UPDATE", "", "nodes/status", True),
        (PODS | {"resources": ["*"], "operations": ["*"]}, "UPDATE", "", "nodes", True),
        (PODS | {"resources": ["*"], "operations": ["*"]}, "UPDATE", "", "nodes/status", False),
        (PODS | {"resources": ["nodes/*"], "operations": ["*"]}, "UPDATE", "", "nodes/status", True),
        (PODS | {"resources": ["*/status"], "operations": ["*"]}, "UPDATE", "", "nodes/status", True),
    ],
)
def test_a_rule_matches_as_the_api_has_it(
    rule: dict[str, Any], operation: str, group: str, resource: str, matches: bool
) -> None:
    hook, _ = read_one(rules=[rule])
    assert hook.asked_about(operation, group, resource, None) is matches


NAME = "kubernetes.io/metadata.name"


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ({}, True),
        (None, True),
        ({"matchLabels": {"team": "a"}}, False),
        ({"matchLabels": {NAME: "kube-system"}}, True),
        ({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["kube-system"]}]}, True),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["kube-system"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, True),
    ],
)
def test_a_selector_selects_namespaces_by_their_labels(selector: Any, selects: bool) -> None:
    hook, _ = read_one(namespaceSelector=selector)
    assert hook.asked_about("CREATE", "", "pods", {NAME: "kube-system"}) is selects


def test_a_webhook_without_rules_is_asked_about_nothing() -> None:
    hook = WebhookFact(VALIDATING, "x", "x", True, (), NamespaceSelector())
    assert not hook.asked_about("CREATE", "", "pods", {})
    assert Rule(frozenset("*"), frozenset("*"), frozenset({"*/*"})).matches("CREATE", "", "pods")


def quota(hard: dict[str, str], used: dict[str, str], namespace: str = "kube-system") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}


def test_quotas_of_the_cluster_s_own_namespaces_are_read_with_what_is_used_up() -> None:
    answer = {
        "items": [
            quota({"pods": "13", "services": "5", "requests.cpu": "1"}, {"pods": "13", "services": "1"}),
            quota({"pods": "0"}, {"pods": "0"}, "mine"),
        ]
    }
    assert read_quotas(answer) == (
        QuotaFact("kube-system", "q", ("pods", "services", "requests.cpu"), ("pods",)),
    )
    with pytest.raises(CouldNotAsk):
        read_quotas({"items": [{"metadata": {"namespace": "kube-system"}}]})


def test_limits_that_limit_nothing_are_left_out() -> None:
    def limits(name: str, **limit: Any) -> dict[str, Any]:
        return {"metadata": {"namespace": "kube-system", "name": name}, "spec": {"limits": [limit]}}

    answer = {"items": [limits("a", type="Container", default={"cpu": "1"}), limits("b", max={"cpu": "1m"})]}
    assert read_limits(answer) == (LimitFact("kube-system", "b"),)


def test_the_last_refusal_of_each_owner_counts() -> None:
    answer = {
        "items": [
            event("old", at="2026-11-28T09:00:00Z"),
            event("new"),
            event("older", at="2026-11-28T08:00:00Z"),
            event("of another", "ReplicaSet/coredns-1"),
            event("nobody's", "Job/x"),
        ]
    }
    assert read_refusals(answer) == (
        RefusalFact("kube-system", "DaemonSet/kube-proxy", "new"),
        RefusalFact("kube-system", "ReplicaSet/coredns-1", "of another"),
    )


@pytest.mark.parametrize(
    ("owner", "there", "counts"),
    [
        ("daemonsets/kube-proxy", {"status": {"desiredNumberScheduled": 6, "currentNumberScheduled": 5}}, True),
        (
            "daemonsets/kube-proxy",
            {"status": {"desiredNumberScheduled": 6, "currentNumberScheduled": 6}},
            False,
        ),
        ("replicasets/coredns-1", {"spec": {"replicas": 2}, "status": {"replicas": 1}}, True),
        ("replicasets/coredns-1", {"spec": {"replicas": 2}, "status": {"replicas": 2}}, False),
        ("replicasets/coredns-1", {"spec": {"replicas": 0}, "status": {}}, False),
        ("replicasets/coredns-1", None, False),
    ],
)
def test_a_refusal_counts_while_its_owner_lacks_pods(owner: str, there: Any, counts: bool) -> None:
    kind, _, name = owner.partition("/")
    said = event("why", f"{'DaemonSet' if kind == 'daemonsets' else 'ReplicaSet'}/{name}")
    path = "/api/v1/namespaces/kube-system/events?fieldSelector=reason%3DFailedCreate"
    api = AnsweringApi(**{path: {"items": [said]}, f"/apis/apps/v1/namespaces/kube-system/{owner}": there})
    found = ask_admission(lab(), api).refusals
    assert not isinstance(found, Unknown)
    assert [each.message for each in found] == (["why"] if counts else [])


def test_the_recorded_lab_has_nothing_in_the_way() -> None:
    found = facts().admission
    assert isinstance(found, AdmissionFacts)
    assert isinstance(found.namespaces, dict)
    assert found.namespaces["kube-flannel"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_what_the_api_refuses_with_is_its_message_and_not_json() -> None:
    message = 'Internal error occurred: failed calling webhook "x": service "gate" not found'
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": 500}
    assert refusal(json.dumps(status, indent=1)) == message
    assert refusal("no\n  route") == "no route"
    assert refusal('["a"]') == '["a"]'
    assert refusal(json.dumps({"message": "x" * 999})) == "x" * LONGEST_REFUSAL + "…"


def test_an_error_of_the_api_has_its_message(tmp_path: Path) -> None:
    api = AnsweringApi(**{"/x": None})
    with pytest.raises(LabStateError, match=r"the API answered 404 to GET /x: /x not found$"):
        api.get("/x")
