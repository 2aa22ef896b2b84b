"""Causes in add-ons, and in what serves metrics: what was removed, and whose certificate is not accepted."""

from __future__ import annotations

from collections.abc import Iterator

from lab.health.causes.cause import Cause, Found, listed
from lab.health.checks.control_planes import METRICS
from lab.model.addons import ADDONS
from lab.unknown import CouldNotAsk

LISTENING = ("kube-controller-manager", "kube-scheduler")
"""Those whose manifests say where they listen."""


def changed(found: Found) -> Iterator[Cause]:
    """Add-ons of which something was deleted or changed since `up` applied them."""
    said = "; ".join(verdict.found for verdict in found.bad if verdict.name == "cluster-objects")
    for name in found.lab.addons:
        if f"{name} is not what its manifest says" in said or f"{name} lacks its " in said:
            yield Cause(
                f"the add-on {name} was changed or deleted since `up` applied it",
                "`./inv up` applies its manifest again",
                titles=found.titles("cluster-objects", ADDONS[name].check),
                passes=True,
            )


def certificates(found: Found) -> Iterator[Cause]:
    """Kubelets without a certificate that the cluster has signed for them."""
    names = [
        each.machine for each in found.bad if each.name == "kubelet-certificate" and each.outcome == "fails"
    ]
    if names:
        yield Cause(
            f"{listed(names)} {'has' if len(names) == 1 else 'have'} no serving certificate for the kubelet "
            "that the cluster has signed",
            "`./inv up` approves its request, where that is for this node alone",
            titles=found.titles("kubelet-certificate", "metrics-server"),
            passes=True,
        )


def listeners(found: Found) -> Iterator[Cause]:
    """Schedulers and controller managers that run and do not listen at their machine's address."""
    failing = {each.title for each in found.bad if each.outcome == "fails"}
    for node in found.lab.control_planes:
        try:
            said = found.facts.machine(node).metrics
        except CouldNotAsk:
            continue
        for name in LISTENING:
            answer = said.get(name, {}).get("certificate")
            title = f"static-pods-ready[{node.name}]"
            if answer is None or answer.status or title not in failing:
                continue
            yield Cause(
                f"{name} on {node.name} does not answer at {node.address}, port {METRICS[name]}, where its "
                "probes ask it: it has ended, or its manifest has another --bind-address than 0.0.0.0",
                f"`./inv up` writes /etc/kubernetes/manifests/{name}.yaml again; `kubectl -n kube-system logs "
                f"{name}-{node.name}` says why it ends",
                titles=found.titles("system-pods-ready") | {title, f"control-plane-metrics[{node.name}]"},
                passes=True,
            )
