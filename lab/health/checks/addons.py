"""Add-ons: each does what it is there for. `lab.model.addons.ADDONS` names the check of each."""

from __future__ import annotations

from lab.health.checks.check import Finding, LabCheck, expect, holds
from lab.health.facts.gather import Facts
from lab.model import Lab
from lab.unknown import known


def metrics_server(lab: Lab, facts: Facts) -> Finding:
    nodes = {node.name for node in lab.kubernetes_nodes}
    found = known(facts.api.metrics)
    if isinstance(found, str):
        return Finding(f"figures of {', '.join(sorted(nodes))}", f"the API answers {found}", "fails")
    return expect({f"figures of {name}" for name in nodes}, {f"figures of {name}" for name in found})


def local_path(lab: Lab, facts: Facts) -> Finding:
    why = known(known(facts.probes).volume)
    return Finding("a pod writes to a new volume", why or "it does", holds(why is None))


CHECKS = (
    LabCheck(
        "metrics-server",
        metrics_server,
        addon="metrics-server",
        means="`kubectl top` has no figures of these nodes, and HorizontalPodAutoscalers stay as they are",
        hint="see kubelet-certificate, and `kubectl -n kube-system logs deployment/metrics-server` for "
        "kubelets that it can't ask; `./inv up` applies its manifest again",
    ),
    LabCheck(
        "local-path",
        local_path,
        addon="local-path",
        probes=True,
        means="pods with a new PersistentVolumeClaim do not start; those that have their volume go on",
        hint="`kubectl -n local-path-storage get pods`, and `kubectl -n local-path-storage logs "
        "deployment/local-path-provisioner`; `./inv up` applies its manifest again",
    ),
)
