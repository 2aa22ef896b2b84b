"""When a lab is ready: once the checks of `verify` hold. There is no other definition of "ready".

`up` waits for the checks that the API alone answers, and looks at them often. Then it waits for all that need
no pods of their own, for which every machine is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from lab.health.checks import cases
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.model import Lab
from lab.plans.engine import Context, Job

READY_TIMEOUT = 300.0
"""Seconds for machines that have joined to be Ready, and for their pods; 10 s and 20 s are usual."""

HEALTHY_TIMEOUT = 120.0
"""Seconds for the rest of the checks to hold once all pods are Ready; most hold at the first look."""

NODES = frozenset({"exact-nodes", "node-ready"})
PODS = NODES | {
    "node-as-declared",
    "node-taints",
    "static-pods-ready",
    "kube-proxy",
    "pod-network-agent",
    "system-pods-ready",
    "coredns-spread",
    "identity-leases",
    "api-endpoints",
    "leader-leases",
}
"""Names of checks that the API answers: of nodes, and of what runs on them. The rest is waited for last."""

NAMED = 3
"""How many of the checks that do not hold yet are named in a reason."""


def wait_for_nodes(job: Job) -> bool:
    """Wait until the cluster has exactly the lab's nodes, all Ready."""
    _wait(job, "all nodes to be Ready", lambda: _why_not(job.context, NODES), READY_TIMEOUT)
    return False


def wait_for_pods(job: Job) -> bool:
    """Wait until what runs on the nodes is Ready, too."""
    _wait(job, "all system pods to be Ready", lambda: _why_not(job.context, PODS), READY_TIMEOUT)
    return False


def wait_for_health(job: Job) -> bool:
    """Wait until every check holds that needs no pods of its own."""
    _wait(job, "the lab to be healthy", lambda: why_not_healthy(job.context), HEALTHY_TIMEOUT)
    return False


def _wait(job: Job, what: str, check: Callable[[], str | None], timeout: float) -> None:
    job.wait_until(
        check, what=what, timeout=timeout, hint="`./inv verify` says what each means and what to try"
    )


def why_not_healthy(context: Context) -> str | None:
    """The checks that do not hold now, the first few with what they found; None when all hold."""
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False)
    return _judged(context.lab, facts, None)


def _why_not(context: Context, names: Collection[str]) -> str | None:
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False, of=())
    return _judged(context.lab, facts, names)


def _judged(lab: Lab, facts: Facts, names: Collection[str] | None) -> str | None:
    asked = [
        case
        for case in cases(lab)
        if (case.check.name in names if names is not None else not case.check.probes)
    ]
    bad = [verdict for verdict in (case.judge(facts) for case in asked) if not verdict.good]
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return "; ".join(f"{verdict.title}: {verdict.found}" for verdict in bad[:NAMED]) + more or None
