"""This room says whether a host is fit for a lab, and mends what it may.

    finding.py       what is said, to people and to programs
    case.py          what every check is given
    tools.py  resources.py  kernel.py  addresses.py  libvirt.py  virtualbox.py     the checks
    mending.py       the only one that changes the host, after consent

`lab.host` asks the system; the checks only judge, and every one looks at the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lab import host, made
from lab.doctor import addresses, kernel, libvirt, resources, tools, virtualbox
from lab.doctor.case import PURPOSES, Case
from lab.doctor.finding import Finding, Verdict, exit_code, shown, to_json
from lab.doctor.mending import mend
from lab.errors import HostNotFit
from lab.host import HostFacts
from lab.model import Lab
from lab.system.progress import Progress
from lab.workspace import Workspace

__all__ = [
    "PURPOSES",
    "Finding",
    "Verdict",
    "examine",
    "exit_code",
    "look",
    "make_fit",
    "mend",
    "require",
    "shown",
    "to_json",
]

Check = Callable[[Case], Iterable[Finding]]

# In the order of mending: programs before the daemon that they bring.
FOR_TOOLS: tuple[Check, ...] = (tools.system, tools.packages, tools.toolchains)
FOR_CONTAINERS: tuple[Check, ...] = (
    tools.daemon,
    tools.vagrant,
    resources.memory,
    resources.cpus,
    resources.disk,
    resources.folders,
    resources.cgroups,
    resources.inotify,
    kernel.capabilities,
    kernel.features,
    kernel.swap,
    addresses.networks,
    addresses.names,
)
FOR_LIBVIRT: tuple[Check, ...] = (
    libvirt.daemon,
    tools.vagrant,
    libvirt.plugin,
    libvirt.hypervisor,
    libvirt.kvm_device,
    libvirt.pool,
    libvirt.firewall,
    resources.memory,
    resources.disk,
    resources.folders,
    addresses.networks,
    libvirt.management,
    libvirt.names,
    libvirt.leases,
    libvirt.remote,
)
FOR_VIRTUALBOX: tuple[Check, ...] = (
    virtualbox.program,
    tools.vagrant,
    virtualbox.driver,
    resources.memory,
    resources.disk,
    resources.folders,
    addresses.networks,
    virtualbox.disk,
    virtualbox.subnet,
    virtualbox.names,
)
FOR_MACHINES = {"docker": FOR_CONTAINERS, "libvirt": FOR_LIBVIRT, "virtualbox": FOR_VIRTUALBOX}
"""What a host must have for its machines, by the lab's provider."""

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
    checks = FOR_TOOLS + (FOR_MACHINES[lab.provider] if purposes - WITHOUT_MACHINES else ())
    return tuple(finding for check in checks for finding in check(case))


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
    facts = host.gather(lab, workspace)
    return facts, examine(lab, facts, owner=made.owner(workspace), purposes=purposes, baked=baked)


def _next(mendable: Sequence[Finding], unfit: Sequence[Finding]) -> str:
    if not mendable:
        return "run the commands above, then this again"
    done = "all of this" if not unfit else ", ".join(finding.title for finding in mendable)
    last = "" if not unfit else ", once the rest is mended by hand"
    return f"run the commands above, or add `--yes`, which does {done}{last}"
