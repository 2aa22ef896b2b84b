"""A lab is ready once the checks of `verify` pass. There is no other definition of "ready".

`up` first waits for the checks that only need the API, which it repeats often. Then it waits for all that need
no test pods, for which it asks every machine. If they fail for some seconds, it looks for a cause, and stops at
one that waiting does not fix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from lab.errors import LabStateError
from lab.health import causes
from lab.health.causes import Cause
from lab.health.checks import cases
from lab.health.checks.check import Verdict
from lab.health.checks.workers_and_network import only_users_change_taints
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.model import Lab, Node
from lab.plans.engine import Context, Job
from lab.unknown import Unknown

READY_TIMEOUT = 300.0
"""Seconds until joined machines are Ready, and until their pods are; 10 s and 20 s are usual."""

HEALTHY_TIMEOUT = 120.0
"""Seconds until the remaining checks pass once all pods are Ready; most pass at once."""

LOOK_INTERVAL = 5.0
"""Seconds before the first search for a cause, and between two, if all machines are asked at the same time."""

PAUSE_FACTOR = 2.0
"""How many times as long as a search the pause after it is at least: what is waited for needs the CPUs, too."""

CAUSE_LASTS = 20.0
"""Seconds after which a cause that is found again counts as permanent."""

NODES = frozenset({"exact-nodes", "node-ready"})
PODS = NODES | {
    "node-as-declared",
    "static-pods-ready",
    "kube-proxy",
    "pod-network-agent",
    "network-policy-agent",
    "system-pods-ready",
    "coredns-spread",
    "identity-leases",
    "api-endpoints",
    "leader-leases",
}
"""Names of checks that need only the API: of nodes, and of their pods. The rest is waited for last."""

TAINTS = "node-taints"
"""The check of taints, which users may change; `up` does not revert them."""

BACKENDS = frozenset({"backend-up", "backend-belief", "backend-takes-connections"})
"""Names of the checks of HAProxy's view of an API server."""

STEADY = frozenset(
    (
        *("admin-kubeconfig", "kubelet-server", "kube-proxy-server", "haproxy-configuration", "cgroup-driver"),
        "keepalived-configuration",
        *("open-keys", "logins", "same-keys", "cluster-ca", "certificate-names", "certificate-expiry"),
        *("own-name", "unique-identities", "kernel-settings", "node-files", "etcd-members", "etcd-no-learner"),
        *("etcd-machine-files", "etcd-same-ca"),
        *("kubeconfig-private", "kubeconfig-expiry", "secrets-private", "no-run-secret", "no-bootstrap-token"),
    )
)
"""Names of checks of files, settings and membership. Once every step is done, nothing changes their result."""

NAMED = 3
"""How many failing checks a reason names."""


def wait_for_nodes(job: Job) -> bool:
    """Wait until the cluster has exactly the lab's nodes, all Ready."""
    _wait(job, "all nodes to be Ready", lambda: _why_not(job.context, NODES), READY_TIMEOUT, NODES)
    return False


def wait_for_pods(job: Job) -> bool:
    """Wait until the nodes' system pods are Ready, too."""
    _wait(job, "all system pods to be Ready", lambda: _why_not(job.context, PODS), READY_TIMEOUT, PODS)
    return False


def wait_for_health(job: Job) -> bool:
    """Wait until every check that needs no test pods passes."""
    _wait(job, "the lab to be healthy", lambda: why_not_healthy(job), HEALTHY_TIMEOUT, None)
    return False


def _wait(
    job: Job,
    what: str,
    check: Callable[[], str | None],
    timeout: float,
    names: Collection[str] | None,
) -> None:
    """Wait for the checks of these names; None means all. Raises LabStateError for a permanent cause."""
    looks = _CauseSearch(job.context, what, names)

    def why_not() -> str | None:
        reason = check()
        return None if reason is None else looks.reason(reason)

    job.wait_until(why_not, what=what, timeout=timeout, hint="`./inv verify` explains the failing checks")


class _CauseSearch:
    """The search for a cause during one wait: what was found last, and since when."""

    def __init__(self, context: Context, what: str, names: Collection[str] | None) -> None:
        """Start now."""
        self._context, self._what, self._names = context, what, names
        machines = len(context.lab.nodes)
        self._pause = LOOK_INTERVAL * context.lab.patience * machines / context.lab.at_once(machines)
        self._next = time.monotonic() + self._pause
        self._since: dict[str, float] = {}
        self._shown = ""

    def reason(self, reason: str) -> str:
        """The causes found last, or else the reason itself; searches again when it is time.

        Raises LabStateError once a cause that waiting does not fix has lasted.
        """
        if time.monotonic() >= self._next:
            began = time.monotonic()
            found = _causes(self._context, self._names)
            now = time.monotonic()
            self._next = now + max(self._pause, PAUSE_FACTOR * (now - began))
            self._since = {each.what: self._since.get(each.what, now) for each in found}
            longest = CAUSE_LASTS * self._context.lab.patience
            lasting = [each for each in found if not each.passes and now - self._since[each.what] >= longest]
            if lasting:
                raise LabStateError(
                    f"{self._what}: waiting does not help: {'; '.join(each.sentence for each in lasting)} "
                    f"(so these checks fail: {lasting[0].affected})",
                    hint=_then_again(dict.fromkeys(each.fix for each in lasting)),
                )
            self._shown = "; ".join(each.sentence for each in found)
        return self._shown or reason


def _then_again(fixes: Iterable[str]) -> str:
    """The fixes, then `up`; one per line if a fix has commands with comments, so that it can be pasted."""
    between = "\n" if any("#" in fix for fix in fixes) else "; "
    return between.join((*fixes, "then `./inv up` again"))


def _causes(context: Context, names: Collection[str] | None) -> tuple[Cause, ...]:
    """The known causes why checks of these names fail now. None means all checks, on all machines.

    Otherwise it asks the machines whose nodes are not Ready; all machines if the API lists no nodes.
    """
    lab, workspace, remote, ask = context.lab, context.workspace, context.remote, by_ssh(context.remote)
    of = None if names is None else ()
    facts = gather(lab, workspace, remote, ask, probes=False, of=of, admission=True)
    bad = _bad(lab, facts, names)
    suspects = () if names is None else _suspects(lab, facts, bad)
    if suspects:
        asked = gather(lab, workspace, remote, ask, probes=False, of=suspects, cluster=False)
        facts = replace(facts, machines=asked.machines, off=asked.off, obstacle=asked.obstacle)
    return causes.find(lab, facts, bad)


def _suspects(lab: Lab, facts: Facts, bad: Iterable[Verdict]) -> tuple[Node, ...]:
    if isinstance(facts.api.nodes, Unknown):
        return lab.nodes
    not_ready = {verdict.machine for verdict in bad if verdict.name == "node-ready"}
    return tuple(node for node in lab.nodes if node.name in not_ready)


def cause_of(context: Context, machine: str, said: str) -> Cause | None:
    """Why the API rejected a machine's request, from a program's error line; None if unknown."""
    refused = Verdict("script", "", machine, "fails", "", said, "", "")
    ask = by_ssh(context.remote)
    facts = gather(context.lab, context.workspace, context.remote, ask, probes=False, of=(), admission=True)
    return next(iter(causes.find(context.lab, facts, [refused])), None)


def why_not_healthy(job: Job) -> str | None:
    """The failing checks, the first few with what they found; None when all pass.

    Warnings go to the step's note. Raises LabStateError if only checks fail that neither `up` nor Kubernetes
    will fix, since waiting would never end.
    """
    context = job.context
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False)
    verdicts = _verdicts(context.lab, facts, None)
    job.shown.note = "; ".join(_warnings([verdict for verdict in verdicts if verdict.outcome == "warns"]))
    bad = [verdict for verdict in verdicts if not verdict.good]
    if bad and all(_is_steady(context.lab, facts, verdict) for verdict in bad):
        hints = dict.fromkeys(f"{verdict.title}: {verdict.hint}" for verdict in bad)
        raise LabStateError(
            f"the lab is up, but not as `up` makes it, and `up` does not change this: {_in_words(bad)}",
            hint="\n".join(hints),
        )
    return _in_words(bad)


def why_not_well(context: Context, node: Node, *, drained: bool) -> str | None:
    """The first failing check about one machine, of those that waiting can fix and that need no pods; or None.

    `up` reports the others, such as a member of etcd that is not the lab's, when every step is done.
    `drained`: HAProxy gives it no connections now, so its view of the machine does not count.
    """
    lab, ask = context.lab, by_ssh(context.remote)
    of = (node,) if drained else (node, *lab.balancers)
    facts = gather(lab, context.workspace, context.remote, ask, probes=False, of=of)
    # Users taint nodes, too, and waiting would not change that; node-ready reports a node that is not Ready.
    skipped = {TAINTS} | (BACKENDS if drained else set())
    for case in cases(lab):
        if case.node == node and not case.check.probes and case.check.name not in skipped:
            verdict = case.judge(facts)
            if not verdict.good and not _is_steady(lab, facts, verdict):
                return f"{verdict.title}: {verdict.found}"
    return None


def _warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """What each warning is about, and what to do."""
    cordoned = [verdict.machine for verdict in verdicts if verdict.name == TAINTS]
    others = [verdict for verdict in verdicts if verdict.name != TAINTS]
    said = [f"{name} is cordoned: no new pods start there until `kubectl uncordon {name}`" for name in cordoned]
    return [*said, *filter(None, [_in_words(others)]), *dict.fromkeys(verdict.hint for verdict in others)]


def _is_steady(lab: Lab, facts: Facts, verdict: Verdict) -> bool:
    """Whether waiting can't fix a failing check."""
    node = lab.node(verdict.machine)
    if verdict.name == TAINTS and node is not None:
        return only_users_change_taints(lab, facts, node)
    return verdict.outcome == "fails" and verdict.name in STEADY


def _why_not(context: Context, names: Collection[str]) -> str | None:
    facts = gather(context.lab, context.workspace, context.remote, by_ssh(context.remote), probes=False, of=())
    return _in_words(_bad(context.lab, facts, names))


def _verdicts(lab: Lab, facts: Facts, names: Collection[str] | None) -> list[Verdict]:
    """The verdicts of the checks of these names, or of all that need no test pods."""
    return [
        case.judge(facts)
        for case in cases(lab)
        if (case.check.name in names if names is not None else not case.check.probes)
    ]


def _bad(lab: Lab, facts: Facts, names: Collection[str] | None) -> list[Verdict]:
    return [verdict for verdict in _verdicts(lab, facts, names) if not verdict.good]


def _in_words(bad: Sequence[Verdict]) -> str | None:
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return "; ".join(f"{verdict.title}: {verdict.found}" for verdict in bad[:NAMED]) + more or None
