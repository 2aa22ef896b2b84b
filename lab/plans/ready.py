"""When a lab is ready: once the checks of `verify` hold. There is no other definition of "ready".

`up` waits for the checks that the API alone answers, and looks at them often. Then it waits for all that need
no pods of their own, for which every machine is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from lab.errors import LabStateError
from lab.health.checks import cases
from lab.health.checks.check import Verdict
from lab.health.checks.workers_and_network import only_users_change_taints
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

TAINTS = "node-taints"
"""The check of what users change, too, and `up` does not change back."""

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
    _wait(job, "the lab to be healthy", lambda: why_not_healthy(job), HEALTHY_TIMEOUT)
    return False


def _wait(job: Job, what: str, check: Callable[[], str | None], timeout: float) -> None:
    job.wait_until(
        check, what=what, timeout=timeout, hint="`./inv verify` says what each means and what to try"
    )


def why_not_healthy(job: Job) -> str | None:
    """The checks that do not hold now, the first few with what they found; None when all hold.

    Nodes that are cordoned are named in the step's note. Raises LabStateError where only taints are wrong that
    neither `up` nor Kubernetes changes: no wait would end that.
    """
    context = job.context
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False)
    verdicts = _verdicts(context.lab, facts, None)
    bad = [verdict for verdict in verdicts if not verdict.good]
    if bad and all(verdict.name == TAINTS for verdict in bad):
        nodes = [node for node in context.lab.kubernetes_nodes if node.name in {each.machine for each in bad}]
        if all(only_users_change_taints(context.lab, facts, node) for node in nodes):
            what = "the lab is up, but nodes have other taints than their roles, and `up` does not change them"
            raise LabStateError(f"{what}: {_in_words(bad)}", hint=bad[0].hint)
    cordoned = [each.machine for each in verdicts if each.name == TAINTS and each.outcome == "warns"]
    job.shown.note = "; ".join(
        f"{name} is cordoned: no new pods start there until `kubectl uncordon {name}`" for name in cordoned
    )
    return _in_words(bad)


def _why_not(context: Context, names: Collection[str]) -> str | None:
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False, of=())
    return _in_words([verdict for verdict in _verdicts(context.lab, facts, names) if not verdict.good])


def _verdicts(lab: Lab, facts: Facts, names: Collection[str] | None) -> list[Verdict]:
    """The checks of these names, or all that need no pods of their own, judged."""
    return [
        case.judge(facts)
        for case in cases(lab)
        if (case.check.name in names if names is not None else not case.check.probes)
    ]


def _in_words(bad: Sequence[Verdict]) -> str | None:
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return "; ".join(f"{verdict.title}: {verdict.found}" for verdict in bad[:NAMED]) + more or None
