"""Examines whether this host can run a lab: all checks, the list of problems, and repairs with consent."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from lab import host
from lab.errors import HostNotFit, LabError
from lab.host import HostFacts
from lab.host.doctor import certificates, forwarding, tools
from lab.host.doctor.case import PURPOSES, Case, Own
from lab.host.doctor.finding import Finding
from lab.host.doctor.repairs import repair
from lab.host.reach import Reach, reach, read_reach
from lab.model import Lab, Node
from lab.providers import provider_of
from lab.remote import Remote, side_by_side
from lab.system.progress import Progress
from lab.workspace import Workspace, kubeconfig, made
from lab.workspace.render import credentials, keys

WITHOUT_MACHINES = frozenset({"lint", "lock", "pdf", "korean"})
"""Purposes for which a host needs only programs."""

REACH = "/opt/ha-lab/reach.sh"
REACH_TIMEOUT = 6.0
"""Seconds for a machine to report which others it reaches: usually less than one, four if it reaches none.

All are asked in parallel, so this is also the delay that hanging machines cause.
"""

ROUNDS = 3
"""How many rounds of repairs: a program installed in one round can be asked in the next."""


def examine(
    lab: Lab,
    facts: HostFacts,
    *,
    owner: str,
    purposes: frozenset[str] = PURPOSES,
    baked: bool = False,
    own: Own | None = None,
) -> tuple[Finding, ...]:
    """Judge a host by its facts, without asking it anything.

    `own` is what is known about the lab itself. `owner` is the label value of the lab's own machines; `baked`:
    the golden machine exists. Running machines need nothing more.
    """
    provider = provider_of(lab)
    case = Case(lab, facts, owner, purposes, baked, provider.bridges_with_docker, own or Own())
    # In the order of repairs: programs before the daemon that they contain.
    findings = [*tools.system(case), *tools.packages(case, provider.tools), *tools.toolchains(case)]
    if purposes - WITHOUT_MACHINES:
        findings += [finding for check in provider.checks for finding in check(case)]
        findings += [
            *certificates.keys(case),
            *certificates.authority(case),
            *certificates.client(case),
            *forwarding.between_machines(case),
        ]
    return tuple(findings)


def look(lab: Lab, workspace: Workspace, *, baked: bool) -> tuple[Finding, ...]:
    """Examine this host for bringing the lab up, and for baking if that is not done yet."""
    purposes = frozenset({"up"} if baked else {"up", "bake"})
    return _look(lab, workspace, purposes, baked)[1]


def require(findings: Sequence[Finding], *, consent: bool) -> None:
    """Return if the host is fit, or can be made fit with `consent`.

    Raises HostNotFit with one message: all problems, with the commands that repair them.
    """
    unfit = [finding for finding in findings if finding.verdict == "unfit"]
    repairable = [finding for finding in findings if finding.verdict == "repairable"]
    if not unfit and (consent or not repairable):
        return
    lines = ["this host is not fit for the lab:"]
    for finding in (*repairable, *unfit):
        lines.append(f"- {finding.title}: {finding.what}. {finding.why}".rstrip())
        lines += [f"    {line}" for line in finding.repair.splitlines()]
    raise HostNotFit("\n".join(lines), hint=_next(repairable, unfit))


def make_fit(
    lab: Lab,
    workspace: Workspace,
    *,
    purposes: frozenset[str],
    baked: bool,
    consent: bool,
    progress: Progress,
) -> HostFacts:
    """Return the facts of a fit host, after repairs with `consent` if needed. Raises HostNotFit."""

    def looked() -> tuple[HostFacts, tuple[Finding, ...]]:
        with progress.asking("facts about this host, and answers from the running machines"):
            return _look(lab, workspace, purposes, baked)

    facts, findings = looked()
    require(findings, consent=consent)
    for _ in range(ROUNDS):
        if not any(finding.verdict == "repairable" for finding in findings):
            break
        repair(findings, progress)
        before = findings
        facts, findings = looked()
        require(findings, consent=consent and findings != before)
    require(findings, consent=False)
    return facts


def _look(
    lab: Lab, workspace: Workspace, purposes: frozenset[str], baked: bool
) -> tuple[HostFacts, tuple[Finding, ...]]:
    provider = provider_of(lab)
    programs = [tool.name for tool in provider.tools]
    facts = host.gather(lab, workspace, programs=programs, ask_provider=provider.look)
    owner = made.owner(workspace)
    case = Case(lab, facts, owner, purposes, baked, provider.bridges_with_docker)
    own = _own(case, workspace) if purposes - WITHOUT_MACHINES else None
    return facts, examine(lab, facts, owner=owner, purposes=purposes, baked=baked, own=own)


def _own(case: Case, workspace: Workspace) -> Own:
    """Gather what is known about the lab itself: the files of its keys, and the running machines."""
    problems = {"ca": keys.ca_problem(workspace), "ssh-key": keys.ssh_key_problem(workspace)}
    unusable = {check: problem for check, problem in problems.items() if problem}
    ca = None if "ca" in unusable else credentials.ca_validity(workspace)
    client = None
    with contextlib.suppress(LabError):  # `up` replaces a kubeconfig that can't be parsed
        client = kubeconfig.client_validity(workspace)
    return Own(ca, client, unusable, _reach(case, workspace), workspace.has_machines())


def _reach(case: Case, workspace: Workspace) -> Reach | None:
    """Ask the running machines which others they reach; None if the lab's network is not up.

    Paused machines would not respond, so they are not asked.
    """
    remote = Remote(case.lab, workspace)
    silent = {*case.waiting, *case.paused}
    running = [node for node in case.lab.nodes if node not in silent]
    if len(running) < 2 or not workspace.ssh_config.exists():
        return None

    def ask(node: Node) -> dict[str, str] | None:
        try:
            answer = remote.run(node, [REACH], accept=None, timeout=REACH_TIMEOUT)
        except LabError:
            return None
        # A machine with another checkout's scripts may not have this script.
        return read_reach(answer.stdout) if answer.ok else None

    try:
        if remote.route_problem():
            return None
        said = side_by_side("asking machines which others they reach", running, ask)
    except LabError:
        return None
    return reach({name: others for name, others in said.items() if others is not None})


def _next(repairable: Sequence[Finding], unfit: Sequence[Finding]) -> str:
    if not repairable:
        return "run the commands above, then repeat this command"
    done = "all of this" if not unfit else ", ".join(finding.title for finding in repairable)
    last = "" if not unfit else ", once you have fixed the rest"
    return f"run the commands above, or add `--yes`, which does {done}{last}"
