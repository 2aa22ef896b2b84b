"""Causes in the cluster's own objects: those that were deleted after kubeadm or `up` created them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.health.causes.cause import Cause, Found, listed
from lab.health.checks.workers_and_network import KUBE_ROUTER_PODS
from lab.unknown import Unknown

LACKS = re.compile(r"\bthe cluster lacks its (\w+ [^;,\s]+)")
"""How unfinished.sh names a deleted object."""

REFUSED = "the API refuses admin.conf"
"""Its message if it could not check them, which is another cause (`lab.health.causes.api`)."""

NEEDED_BY = {
    "coredns": ("dns", "coredns-spread", "system-pods-ready"),
    "kube-dns": ("dns",),
    "kube-proxy": ("kube-proxy", "kube-proxy-server", "cluster-ip", "node-port", "dns", "system-pods-ready"),
}
"""The checks that fail if an object with this name is missing."""


def deleted(found: Found) -> Iterator[Cause]:
    """Objects of `kubeadm init` that the cluster lacks."""
    said = " ".join(verdict.found for verdict in found.bad if verdict.name == "cluster-objects")
    lacking = list(dict.fromkeys(LACKS.findall(said)))
    if lacking and REFUSED not in said:
        needed = {check for each in lacking for check in NEEDED_BY.get(each.partition(" ")[2], ())}
        yield Cause(
            f"the cluster lacks its {listed(lacking)}",
            f"`./inv up` creates {'it' if len(lacking) == 1 else 'them'} again",
            titles=found.titles("cluster-objects", *needed),
            passes=True,
        )


def no_policy_agent(found: Found) -> Iterator[Cause]:
    """A kube-router that runs on no node: where it fails on some, its own check says where."""
    pods = found.facts.api.pods
    if found.lab.network.policy != "kube-router" or isinstance(pods, Unknown) or not pods:
        return
    if not any(pod.namespace == "kube-system" and pod.name.startswith(KUBE_ROUTER_PODS) for pod in pods):
        yield Cause(
            "kube-router runs on no node, so NetworkPolicies deny nothing to new pods",
            "`./inv up` applies its manifest again",
            titles=found.titles("network-policy-agent", "network-policy", "cluster-objects"),
            passes=True,
        )
