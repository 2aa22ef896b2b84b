"""Checks the lab's own keys, and whether its CA is valid by this host's clock, before machines are created."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from lab.host.doctor.case import Case
from lab.host.doctor.finding import Finding, fit, note, unfit
from lab.workspace.kubeconfig import client_hint
from lab.workspace.render.credentials import ca_hint

SOON = timedelta(days=30)
TITLE = "The lab's CA"
KUBECONFIG = "The lab's kubeconfig"

UNUSABLE = {
    "ca": (TITLE, "Every machine trusts the certificates that it signs."),
    "ssh-key": ("The lab's ssh key", "Every machine is set up with it and accepts no other."),
}
"""A title for each of the lab's own keys that can't be used, and why that matters."""


def keys(case: Case) -> Iterator[Finding]:
    """Can the lab's CA and ssh key be used, if they exist? Reports only those that can't."""
    for check, problem in case.own.unusable.items():
        title, why = UNUSABLE[check]
        yield unfit(check, title, problem.what, why, f"# {problem.hint}")


def client(case: Case) -> Iterator[Finding]:
    """Is the kubeconfig's client certificate valid, now and for some time? Only a note: `up` renews it."""
    found = case.own.client
    if found is None:
        return
    problem = found.problem(case.own.now)
    why = "With an invalid one the API rejects kubectl and this kit."
    if problem or found.until - case.own.now < SOON:
        what = problem or f"its client certificate ends on {found.until:%Y-%m-%d}"
        yield note("kubeconfig", KUBECONFIG, what, why, client_hint(case.lab))
    else:
        yield fit("kubeconfig", KUBECONFIG, f"valid until {found.until:%Y-%m-%d}")


def authority(case: Case) -> Iterator[Finding]:
    """Is the cluster's CA valid, now and for some time? Reports nothing if it was not generated yet."""
    found = case.own.ca
    if found is None or "ca" in case.own.unusable:
        return
    problem = found.problem(case.own.now)
    if problem:
        why = "Machines would reject one another's certificates."
        yield unfit("ca", TITLE, problem, why, ca_hint(found, has_machines=case.own.has_machines))
    elif found.until - case.own.now < SOON:
        why = "After that the cluster does not work. A new lab gets a CA that is valid for ten years."
        yield note("ca", TITLE, f"ends on {found.until:%Y-%m-%d}", why)
    else:
        yield fit("ca", TITLE, f"valid until {found.until:%Y-%m-%d}")
