"""Whether this host is fit for a lab: all checks, what is missing, and repairs with consent."""

from __future__ import annotations

from collections.abc import Sequence

from lab import host
from lab.errors import HostNotFit
from lab.host import HostFacts
from lab.host.doctor import tools
from lab.host.doctor.case import PURPOSES, Case
from lab.host.doctor.finding import Finding
from lab.host.doctor.mending import mend
from lab.model import Lab
from lab.providers import provider_of
from lab.system.progress import Progress
from lab.workspace import Workspace, made

WITHOUT_MACHINES = frozenset({"lint", "lock", "pdf", "korean"})
"""For these, nothing is asked of a host but its programs."""

ROUNDS = 3
"""How often mending is gone over: what is installed in one can be asked in the next."""


def examine(
    lab: Lab,
    facts: HostFacts,
    *,
    owner: str,
    purposes: frozenset[str] = PURPOSES,
    baked: bool = False,
) -> tuple[Finding, ...]:
    """Judge a host by its facts; asks nothing.

    `owner` is the label value by which the lab's own machines are known; `baked` says that the golden
    machine is there. Machines that run already need nothing more.
    """
    case = Case(lab, facts, owner, purposes, baked)
    provider = provider_of(lab)
    # In the order of repairs: programs before the daemon that they bring.
    findings = [*tools.system(case), *tools.packages(case, provider.tools), *tools.toolchains(case)]
    if purposes - WITHOUT_MACHINES:
        findings += [finding for check in provider.checks for finding in check(case)]
    return tuple(findings)


def look(lab: Lab, workspace: Workspace, *, baked: bool) -> tuple[Finding, ...]:
    """Examine this host for bringing the lab up, and for baking where that is still to be done."""
    purposes = frozenset({"up"} if baked else {"up", "bake"})
    return _look(lab, workspace, purposes, baked)[1]


def require(findings: Sequence[Finding], *, consent: bool) -> None:
    """Return where the host is fit, or `consent` makes it so.

    Raises HostNotFit with one message: all that is missing, with the commands that mend it.
    """
    unfit = [finding for finding in findings if finding.verdict == "unfit"]
    mendable = [finding for finding in findings if finding.verdict == "mendable"]
    if not unfit and (consent or not mendable):
        return
    lines = ["this host is not fit for the lab:"]
    for finding in (*mendable, *unfit):
        lines.append(f"- {finding.title}: {finding.what}. {finding.why}".rstrip())
        lines += [f"    {line}" for line in finding.mend.splitlines()]
    raise HostNotFit("\n".join(lines), hint=_next(mendable, unfit))


def make_fit(
    lab: Lab,
    workspace: Workspace,
    *,
    purposes: frozenset[str],
    baked: bool,
    consent: bool,
    progress: Progress,
) -> HostFacts:
    """Return the facts of a fit host, mended with `consent` where it has to be. Raises HostNotFit."""
    facts, findings = _look(lab, workspace, purposes, baked)
    require(findings, consent=consent)
    for _ in range(ROUNDS):
        if not any(finding.verdict == "mendable" for finding in findings):
            break
        mend(findings, progress)
        before = findings
        facts, findings = _look(lab, workspace, purposes, baked)
        require(findings, consent=consent and findings != before)
    require(findings, consent=False)
    return facts


def _look(
    lab: Lab, workspace: Workspace, purposes: frozenset[str], baked: bool
) -> tuple[HostFacts, tuple[Finding, ...]]:
    provider = provider_of(lab)
    programs = [tool.name for tool in provider.tools]
    facts = host.gather(lab, workspace, programs=programs, ask_provider=provider.look)
    return facts, examine(lab, facts, owner=made.owner(workspace), purposes=purposes, baked=baked)


def _next(mendable: Sequence[Finding], unfit: Sequence[Finding]) -> str:
    if not mendable:
        return "run the commands above, then this again"
    done = "all of this" if not unfit else ", ".join(finding.title for finding in mendable)
    last = "" if not unfit else ", once the rest is mended by hand"
    return f"run the commands above, or add `--yes`, which does {done}{last}"
