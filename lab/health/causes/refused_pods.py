"""Causes in the API: what makes it reject the cluster's own pods, or the kubelets' requests.

Two kinds of signs: an object that can be the reason for missing pods, and the message with which the API has
rejected a pod. An object is not a cause while no pod is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lab.health.causes.cause import Cause, Found
from lab.health.facts.admission import SYSTEM, RefusalFact, WebhookFact
from lab.unknown import Unknown

ENFORCE = "pod-security.kubernetes.io/enforce"
"""The label by which a namespace refuses pods (kubernetes.io, "Pod Security Admission")."""

FORBIDDING = ("baseline", "restricted")
"""Its levels that refuse the cluster's own pods, which use the host's network and folders."""

WEBHOOK = re.compile(r'webhook "([^"]+)"')
QUOTA = re.compile(r"(?:exceeded|failed) quota: ([a-z0-9.-]+)", re.IGNORECASE)
SECURITY = re.compile(r'violates PodSecurity "[^"]+"')
LIMIT = re.compile(r"(?:minimum|maximum) \S+ usage per \w+ is |limit to request ratio per ")
"""How Kubernetes' admission plugins word a refusal (webhooks, ResourceQuota, PodSecurity, LimitRanger)."""

AGENTS = {"kube-proxy": "kube-proxy-", "network-policy-agent": "kube-router-"}
"""Checks of a pod that each node has in kube-system, and how its name begins."""

COUNTS = ("pods", "count/pods")
COMPUTE = re.compile(r"(requests\.|limits\.)?(cpu|memory)")
"""What a quota can limit: the number of pods, or resources that each pod then has to declare."""

REMOVES = "removes it"


def webhooks(found: Found) -> Iterator[Cause]:
    """Webhooks that the API has to call but can't, and those that deny requests."""
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.webhooks, Unknown):
        return
    said = [*(each.message for each in _refusals(found)), *(verdict.found for verdict in found.bad)]
    for hook in admission.webhooks:
        own = f'webhook "{hook.name}"'
        quoted = next((text for text in said if own in text), None)
        refuses = quoted is not None and f"{own} denied the request" in quoted
        problem = hook.problem if hook.refuses else None
        if quoted is None and problem is None:
            continue
        why = problem if quoted is None or problem is not None else quoted.rpartition(f"{own}: ")[2]
        if refuses:
            assert quoted is not None
            sentence = f"refuses what the lab needs{quoted.rpartition(f'{own} denied the request')[2]}"
        else:
            sentence = f"has to approve what the lab needs and can't be called: {why}"
        yield Cause(
            f"the webhook {hook.name} in the {hook.kind} {hook.configuration} {sentence}",
            f"{found.kubectl('delete', hook.kind.lower(), hook.configuration)} {REMOVES}",
            titles=_fail_for(found, hook),
            words=(own,),
            passes=hook.recovers and not refuses,
        )


def _fail_for(found: Found, hook: WebhookFact) -> frozenset[str]:
    """The titles of the checks that fail if the API rejects the requests that this webhook is for."""
    titles: frozenset[str] = frozenset()
    for namespace in SYSTEM:
        if hook.asked_about("CREATE", "", "pods", _labels(found, namespace)):
            titles |= _of_missing_pods(found, namespace)
    leases = "coordination.k8s.io", "leases"
    alive = hook.asked_about("UPDATE", *leases, _labels(found, "kube-node-lease"))
    if alive or hook.asked_about("UPDATE", "", "nodes/status", None):
        titles |= found.titles("node-ready", "node-taints", "nodes-are-all-ready")
    if hook.asked_about("UPDATE", *leases, _labels(found, "kube-system")):
        titles |= found.titles("identity-leases", "leader-leases")
    return titles


def _labels(found: Found, namespace: str) -> dict[str, str]:
    """A namespace's labels; if unknown, the one that every namespace has."""
    named = {"kubernetes.io/metadata.name": namespace}
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.namespaces, Unknown):
        return named
    return admission.namespaces.get(namespace, named)


def _of_missing_pods(found: Found, namespace: str) -> frozenset[str]:
    """The titles of the checks that fail because a pod of this namespace is missing."""
    pods = found.facts.api.pods
    if isinstance(pods, Unknown):
        return frozenset()
    there = [(pod.name, pod.node) for pod in pods if pod.namespace == namespace]

    def lacks(prefix: str, node: str) -> bool:
        return not any(name.startswith(prefix) and on == node for name, on in there)

    titles = set() if there else set(found.titles("system-pods-ready"))
    for verdict in found.bad:
        if namespace == "kube-flannel":
            # Without flannel's agent a node has no pod network, and is not Ready.
            ours = verdict.name in ("pod-network-agent", "node-ready", "node-taints")
            missing = ours and lacks("kube-flannel-ds-", verdict.machine)
        elif verdict.name == "static-pods-ready":
            missing = "is not there" in verdict.found
        elif verdict.name == "coredns-spread":
            missing = sum(name.startswith("coredns-") for name, _ in there) < 2
        else:
            prefix = AGENTS.get(verdict.name)
            missing = prefix is not None and lacks(prefix, verdict.machine)
        if missing:
            titles.add(verdict.title)
    return frozenset(titles)


def quotas(found: Found) -> Iterator[Cause]:
    """Quotas that are used up, or that require declarations that not all of the cluster's own pods have."""
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.quotas, Unknown):
        return
    for quota in admission.quotas:
        said = (QUOTA.search(each.message) for each in _refusals(found, quota.namespace))
        quoted = [
            match.string[match.end() :].lstrip(",: ") for match in said if match and match[1] == quota.name
        ]
        full = [each for each in quota.used_up if each in COUNTS]
        declared = [each for each in quota.limited if COMPUTE.fullmatch(each)]
        if not (quoted or full or declared):
            continue
        reasons = [
            *quoted,
            *(f"{each} used up" for each in full),
            *(f"{each} must be declared" for each in declared),
        ]
        yield Cause(
            f"the ResourceQuota {quota.name} in {quota.namespace} makes the API refuse the cluster's own pods: "
            f"{reasons[0]}",
            _delete(found, quota.namespace, "resourcequota", quota.name),
            titles=_of_missing_pods(found, quota.namespace),
        )


def limits(found: Found) -> Iterator[Cause]:
    """LimitRanges that a pod violates."""
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.limits, Unknown):
        return
    for limit in admission.limits:
        quoted = [each.message for each in _refusals(found, limit.namespace) if LIMIT.search(each.message)]
        why = f": {quoted[0].rpartition('is forbidden: ')[2]}" if quoted else ""
        yield Cause(
            f"the LimitRange {limit.name} in {limit.namespace} makes the API refuse the cluster's own pods"
            f"{why}",
            _delete(found, limit.namespace, "limitrange", limit.name),
            titles=_of_missing_pods(found, limit.namespace),
        )


def _delete(found: Found, namespace: str, kind: str, name: str) -> str:
    return f"{found.kubectl('--namespace', namespace, 'delete', kind, name)} {REMOVES}"


def security(found: Found) -> Iterator[Cause]:
    """Labels that make a namespace reject pods that use the host."""
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.namespaces, Unknown):
        return
    for namespace in SYSTEM:
        level = admission.namespaces.get(namespace, {}).get(ENFORCE)
        if level in FORBIDDING:
            words = ("label", "--overwrite", "namespace", namespace, f"{ENFORCE}=privileged")
            yield Cause(
                f"the label {ENFORCE}={level} on the namespace {namespace} makes the API refuse the cluster's "
                "own pods",
                f"{found.kubectl(*words)} allows them",
                titles=_of_missing_pods(found, namespace),
            )


def refused(found: Found) -> Iterator[Cause]:
    """Rejections for any other reason, with the API's message and the objects."""
    for each in _refusals(found):
        if any(sign.search(each.message) for sign in (WEBHOOK, QUOTA, SECURITY, LIMIT)):
            continue
        kind, _, name = each.owner.partition("/")
        shows = found.kubectl("--namespace", each.namespace, "describe", kind.lower(), name)
        yield Cause(
            f"the API refuses pods of the {kind} {name} in {each.namespace}: {each.message}",
            f"`./inv up` repairs what is the lab's own; {shows} shows what was tried",
            titles=_of_missing_pods(found, each.namespace),
            passes=True,
        )


def _refusals(found: Found, namespace: str = "") -> Sequence[RefusalFact]:
    """The rejections in a namespace; in all namespaces for ""."""
    admission = found.facts.admission
    if isinstance(admission, Unknown) or isinstance(admission.refusals, Unknown):
        return ()
    return [each for each in admission.refusals if namespace in ("", each.namespace)]
