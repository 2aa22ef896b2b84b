"""Causes: problems that explain several failing checks, found in the facts and reported once, above the checks.

SIGNS has a row for each kind of cause, with the function that finds it. A cause only counts if a check fails
because of it. It names the object or the machine that is the problem, and the simplest fix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lab.health.causes import addons, api, machines, objects, refused_pods
from lab.health.causes.cause import Cause, Found, Sign
from lab.health.checks.check import Verdict
from lab.health.facts.gather import Facts
from lab.model import Lab

__all__ = ["OF_MACHINES", "SIGNS", "Cause", "Sign", "explained", "find"]

OF_MACHINES: tuple[Sign, ...] = (
    Sign("a machine that does not run", machines.off),
    Sign("machines that do not reach one another", api.apart),
)
"""Those that need no cluster."""

SIGNS: tuple[Sign, ...] = (
    *OF_MACHINES,
    Sign("a machine that has not joined", machines.not_joined),
    Sign("a node that has lost files", machines.lost_files),
    Sign("a CA that is not valid now", api.ca_not_valid),
    Sign("a kubeconfig whose certificate is not valid now", api.client_not_valid),
    Sign("HAProxy that does not run", api.without_haproxy),
    Sign("an address that both load balancers have, or neither", api.without_one_holder),
    Sign("an administrator whom the API refuses", api.administrator_refused),
    Sign("objects of the cluster that were deleted", objects.deleted),
    Sign("NetworkPolicies that nothing enforces", objects.no_policy_agent),
    Sign("an add-on that was changed or deleted", addons.changed),
    Sign("a kubelet that ends again and again", machines.kubelets),
    Sign("a kubelet that does not run", machines.stopped_kubelets),
    Sign("a kubelet without a certificate of the cluster's", addons.certificates),
    Sign("a scheduler or controller manager that listens elsewhere", addons.listeners),
    Sign("a webhook that can't be called, or refuses", refused_pods.webhooks),
    Sign("a quota on the cluster's own pods", refused_pods.quotas),
    Sign("limits on the cluster's own pods", refused_pods.limits),
    Sign("a namespace that refuses the cluster's own pods", refused_pods.security),
    Sign("a node with too little disk space, memory or process IDs", machines.pressure),
    Sign("images that were removed from a node", machines.images),
    Sign("pods that the API refuses for another reason", refused_pods.refused),
    Sign("an API that is not reached", api.not_reached, of_the_rest=True),
)
"""The table, in the order in which causes are shown."""


def find(
    lab: Lab, facts: Facts, verdicts: Iterable[Verdict], signs: Iterable[Sign] = SIGNS
) -> tuple[Cause, ...]:
    """The causes of the failing checks, each once, with the titles of its checks."""
    bad = tuple(verdict for verdict in verdicts if not verdict.good)
    found: dict[str, Cause] = {}
    for sign in signs if bad else ():
        known = explained(found.values()) if sign.of_the_rest else frozenset()
        asked = tuple(verdict for verdict in bad if verdict.title not in known)
        for cause in sign.shows(Found(lab, facts, asked)):
            titles = tuple(verdict.title for verdict in asked if cause.is_of(verdict))
            if titles:
                found.setdefault(cause.what, replace(cause, explains=titles))
    return tuple(found.values())


def explained(causes: Iterable[Cause]) -> frozenset[str]:
    """The titles of the checks with a known cause."""
    return frozenset(title for cause in causes for title in cause.explains)
