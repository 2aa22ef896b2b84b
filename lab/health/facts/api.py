"""Asks the cluster's API, through the load balancer and each server itself, from this host.

Every question goes on a connection of its own, all side by side, each with a deadline.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lab.health.cluster import Api, NodeFact, PodFact, ask_health, read_nodes, read_pods, refusal
from lab.health.reading import listed, mapping, moment, number, read, server_in, text
from lab.model import Lab
from lab.unknown import Unknown, asked

T = TypeVar("T")
ANSWER_TIMEOUT = 4.0
"""Seconds for the API to answer one question; a healthy one takes 0.05 s."""

AT_ONCE = 24
"""Questions side by side."""

SERVER_PATHS = ("/livez", "/readyz")
IDENTITY = "apiserver.kubernetes.io/identity"


NOT_ASKED = Unknown("metrics were not asked for")


@dataclass(frozen=True)
class LeaseFact:
    """One lease of kube-system. `server` is the API server that it identifies, "" for a leader's lease."""

    name: str
    holder: str
    renewed: datetime
    server: str


@dataclass(frozen=True)
class ApiFacts:
    """What the API says. Health answers are status and text; `direct` is by control plane, then by path.

    `asked_at` is this host's clock; `restarts` are every container's restarts, by pod, when facts were begun
    and when they were complete. `metrics` are the nodes whose use of CPU and memory metrics-server knows, or
    what the API says instead; asked only where lab.yaml asks for metrics-server.
    """

    asked_at: datetime
    health: dict[str, tuple[int, str] | Unknown]
    direct: dict[str, dict[str, tuple[int, str] | Unknown]]
    nodes: tuple[NodeFact, ...] | Unknown
    pods: tuple[PodFact, ...] | Unknown
    leases: tuple[LeaseFact, ...] | Unknown
    endpoints: frozenset[str] | Unknown
    secrets: tuple[tuple[str, str], ...] | Unknown
    kube_proxy_server: str | Unknown
    restarts: tuple[dict[str, int], dict[str, int]] | Unknown
    metrics: frozenset[str] | str | Unknown = NOT_ASKED


def health_paths(lab: Lab) -> tuple[str, ...]:
    """The paths that the API is asked for: that of HAProxy's check, and those that Kubernetes documents."""
    return tuple(dict.fromkeys(("/healthz", "/livez", "/readyz", lab.load_balancer.asked_path)))


def ask_api(lab: Lab, api: Api | Unknown, ca: str | Unknown) -> ApiFacts:
    """Ask everything at once. Never raises LabError: what can't be asked is Unknown."""
    with ThreadPoolExecutor(max_workers=lab.at_once(AT_ONCE)) as pool:

        def health(
            address: Any, port: int, path: str, *, balanced: bool = False
        ) -> Future[tuple[int, str] | Unknown]:
            if isinstance(ca, Unknown):
                return pool.submit(lambda: ca)
            timeout = ANSWER_TIMEOUT * lab.patience
            return pool.submit(asked, lambda: ask_health(address, port, path, ca, timeout, balanced=balanced))

        def ask(question: Callable[[Api], T]) -> Future[T | Unknown]:
            if isinstance(api, Unknown):
                return pool.submit(lambda: api)
            return pool.submit(asked, lambda: question(api))

        pods = ask(lambda api: api.get("/api/v1/pods"))
        address, port = lab.api.address, lab.api.port
        through = {path: health(address, port, path, balanced=True) for path in health_paths(lab)}
        direct = {
            node.name: {path: health(node.address, 6443, path) for path in health_paths(lab)}
            for node in lab.control_planes
        }
        nodes = ask(lambda api: read_nodes(api.get("/api/v1/nodes")))
        leases = ask(ask_leases)
        endpoints = ask(lambda api: read_endpoints(api.get(_ENDPOINTS)))
        secrets = ask(lambda api: api.secrets("kube-system"))
        proxy = ask(lambda api: read_kube_proxy_server(api.get(_KUBE_PROXY)))
        metrics = ask(_node_metrics) if "metrics-server" in lab.addons else None
        podlist = pods.result()
        return ApiFacts(
            datetime.now(UTC),
            {path: answer.result() for path, answer in through.items()},
            {name: {p: a.result() for p, a in answers.items()} for name, answers in direct.items()},
            nodes.result(),
            _read(podlist, read_pods),
            leases.result(),
            endpoints.result(),
            secrets.result(),
            proxy.result(),
            _read(podlist, lambda answer: (read_restarts(answer),) * 2),
            metrics.result() if metrics else NOT_ASKED,
        )


def ask_leases(api: Api) -> tuple[LeaseFact, ...]:
    """The leases of kube-system. Raises LabStateError as `Api.get` does, CouldNotAsk as `read_leases`."""
    return read_leases(api.get(f"{_COORDINATION}/namespaces/kube-system/leases"))


def ask_restarts(api: Api) -> dict[str, int] | Unknown:
    """Every pod's restarts now: `namespace/name` → how many of its containers' starts were not the first."""
    return asked(lambda: read_restarts(api.get("/api/v1/pods")))


def read_restarts(answer: dict[str, Any]) -> dict[str, int]:
    """Read the API's PodList. Raises CouldNotAsk where it is none."""
    return read("the API's list of pods", answer, _restarts)


def read_leases(answer: dict[str, Any]) -> tuple[LeaseFact, ...]:
    """Read the API's LeaseList; leases that were never renewed are left aside.

    Raises CouldNotAsk where it is none.
    """
    return read("the API's list of leases", answer, _leases)


def read_endpoints(answer: dict[str, Any]) -> frozenset[str]:
    """Read an EndpointSlice: the addresses in it. Raises CouldNotAsk where it is none."""
    return read("the API's own EndpointSlice", answer, _addresses)


def read_kube_proxy_server(answer: dict[str, Any]) -> str:
    """Read kube-proxy's ConfigMap: the API server that it is configured to use.

    Raises CouldNotAsk where it is none.
    """
    return read("kube-proxy's ConfigMap", answer, _server_in)


def read_node_metrics(answer: dict[str, Any]) -> frozenset[str]:
    """Read a NodeMetricsList: the nodes with figures. Raises CouldNotAsk where it is none."""
    return read("the API's list of node metrics", answer, _measured)


def open_api(kubeconfig: Path, timeout: float) -> Api | Unknown:
    """The API as the lab's administrator, each answer within `timeout` seconds, or why that can't be."""
    return asked(lambda: Api(kubeconfig, timeout))


_COORDINATION = "/apis/coordination.k8s.io/v1"
_ENDPOINTS = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
_METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
_KUBE_PROXY = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"


def _node_metrics(api: Api) -> frozenset[str] | str:
    status, body = api.request("GET", _METRICS)
    if status != http.client.OK:
        return f"{status} {refusal(body)}"
    return read_node_metrics(
        read("the API's list of node metrics", body, lambda said: mapping(json.loads(said)))
    )


def _measured(answer: dict[str, Any]) -> frozenset[str]:
    return frozenset(
        text(item["metadata"]["name"])
        for item in listed(answer["items"])
        if {"cpu", "memory"} <= set(mapping(item["usage"]))
    )


def _restarts(answer: dict[str, Any]) -> dict[str, int]:
    return {
        f"{item['metadata']['namespace']}/{item['metadata']['name']}": sum(
            number(container.get("restartCount", 0))
            for container in listed(item["status"].get("containerStatuses", []))
        )
        for item in listed(answer["items"])
    }


def _leases(answer: dict[str, Any]) -> tuple[LeaseFact, ...]:
    return tuple(
        LeaseFact(
            text(item["metadata"]["name"]),
            text(item["spec"].get("holderIdentity", "")),
            moment(item["spec"]["renewTime"]),
            _server(mapping(item["metadata"].get("labels", {}))),
        )
        for item in listed(answer["items"])
        if item["spec"].get("renewTime")
    )


def _addresses(answer: dict[str, Any]) -> frozenset[str]:
    endpoints = listed(answer["endpoints"] or [])  # null where there is none
    return frozenset(text(address) for endpoint in endpoints for address in listed(endpoint["addresses"]))


def _server_in(answer: dict[str, Any]) -> str:
    return server_in(text(answer["data"]["kubeconfig.conf"]))


def _server(labels: dict[str, Any]) -> str:
    return text(labels.get("kubernetes.io/hostname", "")) if labels.get(IDENTITY) == "kube-apiserver" else ""


def _read(answer: dict[str, Any] | Unknown, reader: Callable[[dict[str, Any]], T]) -> T | Unknown:
    return answer if isinstance(answer, Unknown) else asked(lambda: reader(answer))
