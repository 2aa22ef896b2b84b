"""The control planes: each API server asked directly, and the leaders."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from datetime import timedelta

from lab.health.checks.check import Finding, LabCheck, MachineCheck, expect, expect_none
from lab.health.facts.api import SERVER_PATHS
from lab.health.facts.gather import Facts
from lab.health.facts.machine import MetricsFact
from lab.model import Lab, Node
from lab.model.selectors import control_planes
from lab.unknown import Unknown, known

OK = (200, "ok")
METRICS = {"etcd": 2379, "kube-controller-manager": 10257, "kube-scheduler": 10259, "kube-proxy": 10249}
"""The ports of a control plane at which a Prometheus finds metrics, besides those of API server and kubelet."""

OPEN_METRICS = ("kube-proxy",)
"""Those that ask no one who they are: they have no such option."""

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
LEADERS = ("kube-controller-manager", "kube-scheduler")

LEADER_LEASE = timedelta(seconds=20)
"""A leader renews every 2 s, and another one takes over 15 to 17.5 s after it stopped doing so."""

TAKEN_BACK = timedelta(seconds=30)
"""The time after which a restarted kubelet has corrected a premature Ready of its static pods."""

IDENTITY_LEASE = timedelta(seconds=40)
"""An API server renews its own every 10 s (kube-apiserver, IdentityLeaseRenewIntervalPeriod)."""


def api_server_healthy(lab: Lab, facts: Facts, node: Node) -> Finding:
    bad = []
    for path in SERVER_PATHS:
        answer = facts.api.direct[node.name][path]
        if isinstance(answer, Unknown):
            bad.append(f"{path}: {answer.reason}")
        elif answer != OK:
            bad.append(f"{path}: {answer[0]} {answer[1][:200]}")
    return expect_none(f"200 ok from https://{node.address}:6443, its certificate verified", bad)


def static_pods_ready(lab: Lab, facts: Facts, node: Node) -> Finding:
    longest = TAKEN_BACK * lab.patience
    ready = {
        pod.name: pod.is_ready_at(facts.api.asked_at, longest)
        for pod in known(facts.api.pods)
        if pod.namespace == "kube-system"
    }
    components = (*COMPONENTS, *(("etcd",) if node in lab.etcd_members else ()))
    names = [f"{component}-{node.name}" for component in components]
    bad = [f"{name} {'is not Ready' if name in ready else 'is not there'}" for name in names]
    return expect_none(
        f"Ready: {', '.join(components)}",
        [line for name, line in zip(names, bad, strict=True) if not ready.get(name)],
    )


def control_plane_metrics(lab: Lab, facts: Facts, node: Node) -> Finding:
    found = facts.machine(node).metrics
    parts = [name for name in METRICS if name != "etcd" or node in lab.etcd_members]
    return expect_none(
        f"{', '.join(parts)} give metrics at {node.address} to authorised users, and to no one else",
        filter(None, (metrics_problem(name, found.get(name, {})) for name in parts)),
    )


def metrics_problem(name: str, found: Mapping[str, MetricsFact]) -> str | None:
    """Why a part's metrics can't be read, or by anyone; None if they are as they should be."""
    nothing = MetricsFact(0, "it was not asked")
    anonymous, certificate = found.get("anonymous", nothing), found.get("certificate", nothing)
    if certificate.status != http.client.OK:
        answer = f"status {certificate.status}" if certificate.status else f"no answer ({certificate.words})"
        return f"{name} at port {METRICS[name]}: {answer}"
    if anonymous.status == http.client.OK and name not in OPEN_METRICS:
        return f"{name} at port {METRICS[name]} gives them to anyone"
    return None


def admin_kubeconfig(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect(lab.api.url, facts.machine(node).text("admin-server").strip())


def identity_leases(lab: Lab, facts: Facts) -> Finding:
    fresh = {
        lease.server
        for lease in known(facts.api.leases)
        if lease.server and facts.api.asked_at - lease.renewed < IDENTITY_LEASE * lab.patience
    }
    return expect({node.name for node in lab.control_planes}, fresh)


def api_endpoints(lab: Lab, facts: Facts) -> Finding:
    return expect({str(node.address) for node in lab.control_planes}, known(facts.api.endpoints))


def leader_leases(lab: Lab, facts: Facts) -> Finding:
    leases = {lease.name: lease for lease in known(facts.api.leases)}
    longest = LEADER_LEASE * lab.patience
    names = {node.name for node in lab.control_planes}
    bad = []
    for leader in LEADERS:
        if leader not in leases:
            bad.append(f"{leader} has no lease")
            continue
        lease = leases[leader]
        holder, age = lease.holder.partition("_")[0], facts.api.asked_at - lease.renewed
        if holder not in names:
            bad.append(f"{leader} is led by {lease.holder or 'no instance'}")
        elif age >= longest:
            bad.append(f"{leader} on {holder} renewed {age.total_seconds():.0f} s ago")
    return expect_none(
        f"each of {', '.join(LEADERS)} led from a control plane, renewed within "
        f"{longest.total_seconds():.0f} s",
        bad,
    )


CHECKS = (
    MachineCheck(
        "api-server-healthy",
        control_planes,
        api_server_healthy,
        means="this API server does not serve, so the lab depends on the others; the load balancer hides it",
        hint="on the machine: `sudo ls /var/log/pods`, `journalctl -u kubelet`; `./inv up` brings back a "
        "machine that is gone",
    ),
    MachineCheck(
        "static-pods-ready",
        control_planes,
        static_pods_ready,
        means="a part of this control plane does not work; the other control planes take over its work",
        hint="`kubectl -n kube-system describe pod NAME`; /etc/kubernetes/manifests has a file for each",
    ),
    MachineCheck(
        "control-plane-metrics",
        control_planes,
        control_plane_metrics,
        means="a Prometheus of yours has a red target here, or others read what is not for them",
        hint="scheduler and controller manager have --bind-address=0.0.0.0 in /etc/kubernetes/manifests, and "
        "`./inv up` sets it again; docs/monitoring.md says who may read what",
    ),
    MachineCheck(
        "admin-kubeconfig",
        control_planes,
        admin_kubeconfig,
        means="users of this machine's admin.conf depend on one API server instead of all",
        hint="put the load balancer's URL back as `server:` in /etc/kubernetes/admin.conf",
    ),
    LabCheck(
        "identity-leases",
        identity_leases,
        means="an API server does not write to the cluster, or one that is not the lab's does",
        hint="`kubectl -n kube-system get leases -l apiserver.kubernetes.io/identity=kube-apiserver -o yaml`",
    ),
    LabCheck(
        "api-endpoints",
        api_endpoints,
        means="pods reach the API at these addresses: a missing one is not used, a wrong one loses requests",
        hint="`kubectl get endpointslices kubernetes -o yaml`; each server's --advertise-address is its entry",
    ),
    LabCheck(
        "leader-leases",
        leader_leases,
        means="Deployments get no pods, or pods no node: running pods continue, new ones don't start",
        hint="`kubectl -n kube-system get leases`, then the logs of that component on each control plane",
    ),
)
