"""What the API may refuse new pods for: webhooks, quotas, limits, namespaces' labels; and its refusals.

Only of the namespaces that the cluster itself needs. Services of webhooks, and owners of refused pods, are
asked for only where there are any, so that a cluster without such objects costs a few short answers.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lab.errors import LabStateError
from lab.health.cluster import Api, refusal
from lab.health.reading import listed, mapping, number, read, text
from lab.model import Lab
from lab.unknown import Unknown, asked

T = TypeVar("T")
SYSTEM = ("kube-system", "kube-flannel")
"""The namespaces of what the cluster itself needs."""

KINDS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
FAILED_CREATE = "FailedCreate"
"""The reason of the event by which a DaemonSet's or a ReplicaSet's controller says that the API took no pod."""

OWNERS = {"DaemonSet": "daemonsets", "ReplicaSet": "replicasets"}
AT_ONCE = 10


@dataclass(frozen=True)
class Rule:
    """Requests that a webhook is asked about: operations, API groups and resources, "*" being any."""

    operations: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]

    def matches(self, operation: str, group: str, resource: str) -> bool:
        """Whether a request falls under it; `resource` is such as "pods" or "nodes/status"."""
        main, _, part = resource.partition("/")
        fitting = {resource, "*/*", f"{main}/*" if part else "*", f"*/{part}"}
        return (
            bool(self.operations & {operation, "*"})
            and bool(self.groups & {group, "*"})
            and bool(self.resources & fitting)
        )


@dataclass(frozen=True)
class NamespaceSelector:
    """Which namespaces a webhook is asked about, by their labels."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def selects(self, labels: dict[str, str]) -> bool:
        """Whether a namespace with these labels is one of them (Kubernetes' rules of label selectors)."""
        return all(labels.get(key) == value for key, value in self.labels) and all(
            _holds(operator, key, values, labels) for key, operator, values in self.expressions
        )


@dataclass(frozen=True)
class WebhookFact:
    """One webhook of a configuration.

    `refuses` is whether the API refuses a request for which it can't be asked (failurePolicy Fail). `problem`
    is why it can't answer, as far as its Service shows; None where it may. `recovers`: it may without help,
    since pods that only have to become Ready are behind its Service.
    """

    kind: str
    configuration: str
    name: str
    refuses: bool
    rules: tuple[Rule, ...]
    namespaces: NamespaceSelector
    problem: str | None = None
    recovers: bool = False

    def asked_about(self, operation: str, group: str, resource: str, labels: dict[str, str] | None) -> bool:
        """Whether it is asked about such a request; `labels` are those of the namespace, None for none.

        By what else a configuration may narrow it down (objectSelector, matchConditions) nothing is left out.
        """
        return any(rule.matches(operation, group, resource) for rule in self.rules) and (
            labels is None or self.namespaces.selects(labels)
        )


@dataclass(frozen=True)
class QuotaFact:
    """One ResourceQuota: the names of what it limits, and of what of that is used up (counts only)."""

    namespace: str
    name: str
    limited: tuple[str, ...]
    used_up: tuple[str, ...]


@dataclass(frozen=True)
class LimitFact:
    """One LimitRange that sets a minimum or a maximum."""

    namespace: str
    name: str


@dataclass(frozen=True)
class RefusalFact:
    """The API refused a pod, which its owner (such as `DaemonSet/kube-proxy`) still lacks."""

    namespace: str
    owner: str
    message: str


@dataclass(frozen=True)
class AdmissionFacts:
    """What may keep the cluster's own pods from being created. `namespaces` are labels by name."""

    webhooks: tuple[WebhookFact, ...] | Unknown
    namespaces: dict[str, dict[str, str]] | Unknown
    quotas: tuple[QuotaFact, ...] | Unknown
    limits: tuple[LimitFact, ...] | Unknown
    refusals: tuple[RefusalFact, ...] | Unknown


def ask_admission(lab: Lab, api: Api) -> AdmissionFacts:
    """Ask everything side by side. Never raises LabError: what can't be asked is Unknown."""
    with ThreadPoolExecutor(max_workers=lab.at_once(AT_ONCE)) as pool:

        def ask(question: Callable[[Api], T]) -> Future[T | Unknown]:
            return pool.submit(asked, lambda: question(api))

        webhooks = ask(_webhooks)
        namespaces = ask(lambda api: read_namespaces(api.get("/api/v1/namespaces")))
        quotas = ask(lambda api: read_quotas(api.get("/api/v1/resourcequotas")))
        limits = ask(lambda api: read_limits(api.get("/api/v1/limitranges")))
        refusals = ask(_refusals)
        return AdmissionFacts(
            webhooks.result(), namespaces.result(), quotas.result(), limits.result(), refusals.result()
        )


def read_webhooks(kind: str, answer: dict[str, Any]) -> tuple[tuple[WebhookFact, tuple[str, str] | None], ...]:
    """Read a list of configurations of that kind: each webhook, and its Service's namespace and name, if any.

    Raises CouldNotAsk where it is none.
    """
    return read(f"the API's list of {kind}s", answer, lambda said: _configurations(kind, said))


def read_namespaces(answer: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Read the API's NamespaceList: name → labels. Raises CouldNotAsk where it is none."""
    return read("the API's list of namespaces", answer, _labels)


def read_quotas(answer: dict[str, Any]) -> tuple[QuotaFact, ...]:
    """Read the API's ResourceQuotaList, of SYSTEM only. Raises CouldNotAsk where it is none."""
    return read("the API's list of quotas", answer, lambda said: tuple(_quota(each) for each in _own(said)))


def read_limits(answer: dict[str, Any]) -> tuple[LimitFact, ...]:
    """Read the API's LimitRangeList, of SYSTEM only. Raises CouldNotAsk where it is none."""
    return read("the API's list of limits", answer, _limits)


def read_refusals(answer: dict[str, Any]) -> tuple[RefusalFact, ...]:
    """Read an EventList: the last FailedCreate of each owner. Raises CouldNotAsk where it is none."""
    return read("the API's list of events", answer, _last_refusals)


def service_problem(namespace: str, name: str, service: object, slices: object) -> tuple[str | None, bool]:
    """Why a webhook's Service has nothing that answers, or None; and whether it may have without help.

    `service` is None where there is none, `slices` its EndpointSliceList.
    """
    if service is None:
        return f"its Service {namespace}/{name} does not exist", False
    ready = read(f"the endpoints of {namespace}/{name}", slices, _ready)
    if not ready:
        return f"its Service {namespace}/{name} has no pod behind it", False
    return (None, False) if any(ready) else (f"no pod behind its Service {namespace}/{name} is Ready", True)


def _webhooks(api: Api) -> tuple[WebhookFact, ...]:
    found = []
    for kind in KINDS:
        for webhook, service in read_webhooks(kind, api.get(f"{REGISTRATION}/{kind.lower()}s")):
            if service is None or not webhook.refuses:
                found.append(webhook)
                continue
            problem, recovers = _ask_service(api, *service)
            found.append(replace(webhook, problem=problem, recovers=recovers))
    return tuple(found)


def _ask_service(api: Api, namespace: str, name: str) -> tuple[str | None, bool]:
    service = _there(api, f"/api/v1/namespaces/{namespace}/services/{name}")
    if service is None:
        return service_problem(namespace, name, None, None)
    where = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    slices = api.get(f"{where}?labelSelector=kubernetes.io%2Fservice-name%3D{name}")
    return service_problem(namespace, name, service, slices)


def _refusals(api: Api) -> tuple[RefusalFact, ...]:
    """Events last for an hour: those count whose owner still has fewer pods than it wants."""
    found = []
    for namespace in SYSTEM:
        where = f"/api/v1/namespaces/{namespace}/events?fieldSelector=reason%3D{FAILED_CREATE}"
        for each in read_refusals(api.get(where)):
            kind, _, name = each.owner.partition("/")
            owner = _there(api, f"/apis/apps/v1/namespaces/{namespace}/{OWNERS[kind]}/{name}")
            if owner is not None and read(f"{each.owner}'s status", owner, _lacks_pods):
                found.append(each)
    return tuple(found)


def _there(api: Api, path: str) -> dict[str, Any] | None:
    """An object; None where there is none of that name."""
    status, body = api.request("GET", path)
    if status == http.client.NOT_FOUND:
        return None
    if status != http.client.OK:
        raise LabStateError(f"the API answered {status} to GET {path}: {refusal(body)}")
    return read(f"the API's answer to GET {path}", body, lambda said: mapping(json.loads(said)), quoted=False)


def _configurations(
    kind: str, answer: dict[str, Any]
) -> tuple[tuple[WebhookFact, tuple[str, str] | None], ...]:
    return tuple(
        (_webhook(kind, text(item["metadata"]["name"]), hook), _service(hook["clientConfig"]))
        for item in listed(answer["items"])
        for hook in listed(item.get("webhooks") or [])
    )


def _webhook(kind: str, configuration: str, hook: dict[str, Any]) -> WebhookFact:
    selector = mapping(hook.get("namespaceSelector") or {})
    return WebhookFact(
        kind,
        configuration,
        text(hook["name"]),
        hook.get("failurePolicy") == "Fail",
        tuple(
            Rule(
                frozenset(text(each) for each in listed(rule["operations"])),
                frozenset(text(each) for each in listed(rule["apiGroups"])),
                frozenset(text(each) for each in listed(rule["resources"])),
            )
            for rule in listed(hook.get("rules") or [])
        ),
        NamespaceSelector(
            tuple((key, text(value)) for key, value in mapping(selector.get("matchLabels") or {}).items()),
            tuple(
                (text(each["key"]), text(each["operator"]), tuple(map(text, listed(each.get("values") or []))))
                for each in listed(selector.get("matchExpressions") or [])
            ),
        ),
    )


def _service(client: dict[str, Any]) -> tuple[str, str] | None:
    service = client.get("service")
    return None if service is None else (text(service["namespace"]), text(service["name"]))


def _holds(operator: str, key: str, values: tuple[str, ...], labels: dict[str, str]) -> bool:
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return (key in labels) is (operator == "Exists")


def _ready(slices: object) -> list[bool]:
    """Whether each endpoint is ready; one that says nothing is (EndpointConditions.ready of the API)."""
    return [
        mapping(endpoint.get("conditions") or {}).get("ready") is not False
        for each in listed(mapping(slices)["items"])
        for endpoint in listed(each["endpoints"] or [])
    ]


def _labels(answer: dict[str, Any]) -> dict[str, dict[str, str]]:
    items = [mapping(item["metadata"]) for item in listed(answer["items"])]
    return {text(each["name"]): dict(mapping(each.get("labels") or {})) for each in items}


def _own(answer: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return [item for item in listed(answer["items"]) if item["metadata"]["namespace"] in SYSTEM]


def _quota(item: dict[str, Any]) -> QuotaFact:
    status = mapping(item.get("status") or {})
    hard = mapping(status.get("hard") or item["spec"].get("hard") or {})
    used = mapping(status.get("used") or {})
    full = [name for name, limit in hard.items() if _count(used.get(name)) >= _count(limit) >= 0]
    metadata = item["metadata"]
    return QuotaFact(text(metadata["namespace"]), text(metadata["name"]), tuple(hard), tuple(full))


def _count(quantity: object) -> int:
    """A number of objects; -1 for what is measured in another way, such as `100m` or `1Gi`, or not at all."""
    return int(quantity) if isinstance(quantity, str) and quantity.isdecimal() else -1


def _limits(answer: dict[str, Any]) -> tuple[LimitFact, ...]:
    return tuple(
        LimitFact(text(item["metadata"]["namespace"]), text(item["metadata"]["name"]))
        for item in _own(answer)
        if any({"min", "max", "maxLimitRequestRatio"} & set(each) for each in listed(item["spec"]["limits"]))
    )


def _last_refusals(answer: dict[str, Any]) -> tuple[RefusalFact, ...]:
    found: dict[tuple[str, str], tuple[str, RefusalFact]] = {}
    for item in listed(answer["items"]):
        about = item["involvedObject"]
        if item["reason"] != FAILED_CREATE or about["kind"] not in OWNERS:
            continue
        namespace, owner = text(about["namespace"]), f"{about['kind']}/{text(about['name'])}"
        when = item.get("lastTimestamp") or item.get("eventTime") or item["metadata"]["creationTimestamp"]
        message = text(item["message"]).removeprefix("Error creating: ")
        before = found.get((namespace, owner))
        if before is None or text(when) >= before[0]:
            found[namespace, owner] = when, RefusalFact(namespace, owner, message)
    return tuple(fact for _, fact in found.values())


def _lacks_pods(owner: dict[str, Any]) -> bool:
    status = mapping(owner.get("status") or {})
    if "desiredNumberScheduled" in status:
        return number(status.get("currentNumberScheduled", 0)) < number(status["desiredNumberScheduled"])
    return number(status.get("replicas", 0)) < number(owner["spec"].get("replicas", 1))
