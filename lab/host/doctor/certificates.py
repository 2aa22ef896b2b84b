"""Judges the lab's own CA by this host's clock, before machines are made that would refuse it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from lab.host import Unknown
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Finding, fit, note, unfit
from lab.workspace.render.credentials import ca_way_out

SOON = timedelta(days=30)
TITLE = "The lab's CA"


def authority(case: Case) -> Iterator[Finding]:
    """Is the cluster's CA valid now, and for some time? Nothing is said of one that was not made yet."""
    found = case.own.ca
    if found is None:
        return
    if isinstance(found, Unknown):
        why = "Every machine gets it, and trusts what it has signed."
        yield unfit(
            "ca", TITLE, found.reason, why, "# restore the file; or start over: ./inv destroy, then ./inv up"
        )
        return
    problem = found.problem(case.own.now)
    if problem:
        why = "Machines would reject one another's certificates."
        yield unfit("ca", TITLE, problem, why, ca_way_out(found, has_machines=case.own.has_machines))
    elif found.until - case.own.now < SOON:
        why = "From then on the cluster does not work. A new lab gets a CA that is valid for ten years."
        yield note("ca", TITLE, f"ends on {found.until:%Y-%m-%d}", why)
    else:
        yield fit("ca", TITLE, f"valid until {found.until:%Y-%m-%d}")
