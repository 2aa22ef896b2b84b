"""Shows the lab's state at a glance: healthy, degraded or down, and which failures would stop it.

It judges the same facts as verify, but runs no pods, so it takes some seconds where verify takes ten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from lab import exit_codes
from lab.errors import LabError
from lab.health import causes, tolerance
from lab.health.causes import Cause
from lab.health.causes.cause import listed
from lab.health.causes.machines import RECOVER
from lab.health.checks import cases, etcd, virtual_address
from lab.health.checks.check import Verdict, answers
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.health.facts.machine import Machine
from lab.health.tolerance import IfLost
from lab.model import Lab
from lab.session import Session, was_complete
from lab.unknown import Unknown

Health = Literal["healthy", "degraded", "down"]
EXIT_CODES: dict[Health, int] = {
    "healthy": exit_codes.DONE,
    "degraded": exit_codes.DEGRADED,
    "down": exit_codes.DOWN,
}
COLOURS: dict[Health, str] = {"healthy": "bold green", "degraded": "bold yellow", "down": "bold red"}

WORKING_PARTS = ("load balancer", "control planes", "etcd", "workers and network")
"""The groups of checks that say whether the lab works; what is private or unique is verify's to say."""

API_CHECK = "api-through-it"
"""The check that the API answers through the load balancer: its cause is why a lab is down."""

FIRST = 8
"""How many findings are shown of a lab that is down."""

SOON = 2.0
"""Seconds before a second look at what may pass: etcd elects a leader in one or two."""

ADDRESS, LEADERSHIP = "API's address", "etcd's leader"
"""What one machine at a time has."""

NO_CLUSTER = "there is no cluster yet that this host knows of"
NO_KUBECONFIG = "the kubeconfig is missing on this host, so the API can't be asked"
"""Why the API is not asked: `up` has not got so far yet, or the file was removed."""


@dataclass(frozen=True)
class MachineStatus:
    """One machine: whether it answers, and what the cluster says (`-` for one that is no node of it).

    `state` is the provider's for one that does not answer since it does not run, such as "paused"; else "".
    `version` is its kubelet's, as the cluster shows it; "" for a machine that is no node. `has` is what only
    one machine has at a time: ADDRESS, LEADERSHIP. `if_lost` is what the lab does if it loses this machine,
    too; None where the lab is down, or the machine is lost already.
    """

    name: str
    role: str
    address: str
    answers: bool
    cluster: str
    state: str = ""
    version: str = ""
    has: tuple[str, ...] = ()
    if_lost: IfLost | None = None


@dataclass(frozen=True)
class Status:
    """The lab. `problem` is why the API does not answer, the cause of it where known; "" when it answers.

    `causes` are common causes of failing checks, `problems` the checks that fail for another reason and what
    they found (of a lab that is down one line for each check), `losses` what would stop a degraded lab.
    `upgrading` is the Kubernetes version that an upgrade under way leads to; "" if none is. `holder` is the
    load balancer that has the API's address, where two share it; "" if that is not one, or unknown. `leader` is
    the machine whose etcd member leads; "" if none does, or if it is unknown.
    """

    lab: str
    api: str
    health: Health
    machines: tuple[MachineStatus, ...]
    problem: str
    problems: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    upgrading: str = ""
    holder: str = ""
    leader: str = ""

    @property
    def place(self) -> str:
        """The API's URL, and which load balancer has its address if two share it."""
        return f"{self.api}, at {self.holder}" if self.holder else self.api

    @property
    def tolerance(self) -> str:
        """Who leads etcd, and which one machine the lab can still lose, in words; "" of a lab that is down."""
        if self.health == "down":
            return ""
        led = f"{self.leader} leads etcd" if self.leader else "no member is known to lead etcd"
        spare = [machine.name for machine in self.machines if machine.if_lost == "works"]
        which = f"any one of {listed(spare)}" if len(spare) > 1 else "".join(spare) or "no machine"
        if len(spare) == len(self.machines):
            which = "any one machine"
        return f"{led}; the lab tolerates the loss of {which}"

    @property
    def versions_differ(self) -> bool:
        """Whether machines have more than one Kubernetes version."""
        return len({machine.version for machine in self.machines if machine.version}) > 1

    @property
    def all_ready(self) -> bool:
        """Whether every machine answers and every node is Ready."""
        return not self.problem and all(m.answers and m.cluster in ("Ready", "-") for m in self.machines)

    @property
    def exit_code(self) -> int:
        """The exit code of `status`."""
        return EXIT_CODES[self.health]


def look(session: Session) -> Status:
    """Ask machines and API, side by side; what can't be asked is said to be so. Never raises LabError.

    A finding without a known cause, of a lab whose machines are all there, may be an election or a slow moment
    of this host: then they are asked once more.
    """
    found = _look(session)
    if found.health == "degraded" and found.all_ready and not found.causes:
        time.sleep(SOON * session.lab.patience)
        found = _look(session)
    return found


def _look(session: Session) -> Status:
    reason = why_not_up(session)
    if reason is not None:
        return _down(session.lab, reason)
    lab, workspace, remote = session.lab, session.workspace, session.remote
    cluster = workspace.kubeconfig.exists()
    asker = by_ssh(remote)
    facts = gather(lab, workspace, remote, asker, probes=False, cluster=cluster, admission=cluster)
    not_asked = "" if cluster else NO_KUBECONFIG if was_complete(session) else NO_CLUSTER
    return judge(lab, facts, not_asked=not_asked)


def judge(lab: Lab, facts: Facts, *, not_asked: str = "") -> Status:
    """Return what the facts amount to; if the API was not asked, for this reason, those of machines alone."""
    cluster = not not_asked
    bad = _bad(lab, facts)
    known = causes.find(lab, facts, bad, causes.SIGNS if cluster else causes.OF_MACHINES)
    problem = not_asked or _api_problem(facts)
    if problem:
        problem = next((each.sentence for each in known if API_CHECK in each.explains), problem)
    silent, others = _unexplained(facts, bad, known)
    health: Health = "down" if problem else "degraded" if silent or others or known else "healthy"
    problems = (
        (*silent, *(_once_for_each_check(others) if problem else map(_finding, others))) if cluster else ()
    )
    losses = tolerance.sentences(lab, facts) if health == "degraded" else ()
    holding, _ = virtual_address.holders(lab, facts)
    statuses, _ = answers(facts, lab.etcd_members, lambda machine: machine.etcd_status)
    leader = etcd.leader(statuses)
    machines = _machines(lab, facts, works=health != "down", holding=holding, leader=leader)
    return Status(
        lab.name,
        lab.api.url,
        health,
        machines,
        problem or "",
        problems,
        losses,
        causes=known,
        upgrading=facts.upgrading,
        holder=next(iter(holding)) if len(holding) == 1 else "",
        leader=leader,
    )


def to_json(status: Status) -> str:
    """Return the status as JSON text."""
    known = [each.as_json for each in status.causes]
    return json.dumps(asdict(status) | {"causes": known, "all_ready": status.all_ready}, indent=2)


def shown(status: Status, marked: Collection[str] = ()) -> RenderableType:
    """Return the status as a table for people; the rows of `marked` machines stand out."""
    # A narrow terminal breaks the last columns between words, and cuts no name or address.
    columns: list[Column | str] = [
        *(Column(name, no_wrap=True) for name in ("machine", "role", "address")),
        *("answers", "cluster"),
        *(["version"] if status.versions_differ else []),
    ]
    table = Table(*columns, "has", "if lost", box=None, pad_edge=False)
    for machine in status.machines:
        why = f": {machine.state}" if machine.state else ""
        answers = Text("yes", "green") if machine.answers else Text(f"no{why}", "red")
        colour = "green" if machine.cluster in ("Ready", "-") else "red"
        version = [machine.version or "-"] if status.versions_differ else []
        cluster = Text(machine.cluster, colour)
        lost = Text(machine.if_lost or "-", "yellow" if machine.if_lost == "stops" else "")
        has = ", ".join(machine.has) or "-"
        name, style = (f"{machine.name} *", "reverse") if machine.name in marked else (machine.name, None)
        said = (name, machine.role, machine.address)
        table.add_row(*said, answers, cluster, *version, has, lost, style=style)
    return Group(table, "", *(Text(line, COLOURS[status.health]) for line in _lines(status)))


def _lines(status: Status) -> list[str]:
    under_way = f"an upgrade to Kubernetes {status.upgrading} is under way; `./inv up` continues it"
    if status.health == "healthy":
        said = [f"{status.lab}: healthy; the API is {status.place}", status.tolerance]
        return [*said, under_way] if status.upgrading else said
    known = [line for each in status.causes for line in _cause(each, status.problem)]
    if status.health == "down":
        by_hand = ", or manually: ./inv task" if status.problem == NO_CLUSTER else ""
        more = len(status.problems) - FIRST
        first = [f"  problem: {line}" for line in status.problems[:FIRST]]
        first += [f"  and {more} more: `./inv verify` shows all"] if more > 0 else []
        verb = "plan" if any(each.fix == RECOVER for each in status.causes) else "up"
        return [f"{status.lab}: down: {status.problem}", *known, *first, f"next: ./inv {verb}{by_hand}"]
    lines = [f"{status.lab}: degraded; it works, and the API is {status.place}", *known]
    lines += [f"  problem: {line}" for line in status.problems]
    lines += [f"  would stop it: {line}" for line in status.losses]
    lines += [status.tolerance]
    lines += [under_way] if status.upgrading else []
    return [*lines, "next: `./inv up` repairs what it can; `./inv verify` explains failing checks"]


def _cause(cause: Cause, problem: str) -> list[str]:
    """A cause and what removes it; that only, where it is the problem, which was shown."""
    first, *more = cause.fix.splitlines()
    lines = [f"  fix: {first}", *(f"       {line}" for line in more)]
    return (
        lines if cause.sentence == problem else [f"  cause: {cause.sentence}", *(f"  {line}" for line in lines)]
    )


def why_not_up(session: Session) -> str | None:
    """Why there is nothing that could be asked; None if there is. Reads files and routes only."""
    workspace = session.workspace
    if not workspace.ssh_config.exists() or not (workspace.kubeconfig.exists() or workspace.has_machines()):
        return "the lab is not up"
    try:
        return session.remote.route_problem()
    except LabError as error:
        return error.message


def _down(lab: Lab, reason: str) -> Status:
    machines = tuple(
        MachineStatus(
            n.name, n.role.value, str(n.address), False, "unknown" if n in lab.kubernetes_nodes else "-"
        )
        for n in lab.nodes
    )
    return Status(lab.name, lab.api.url, "down", machines, reason)


def _machines(
    lab: Lab, facts: Facts, *, works: bool, holding: Collection[str], leader: str
) -> tuple[MachineStatus, ...]:
    nodes = () if isinstance(facts.api.nodes, Unknown) else facts.api.nodes
    missing = "unknown" if isinstance(facts.api.nodes, Unknown) else "not a node"
    versions = {node.name: node.version for node in nodes}
    said = {node.name: "Ready" if node.ready else f"not Ready: {node.reason}" for node in nodes}
    # For 40 s after its kubelet has ended, the API still calls a node Ready.
    said |= {name: "unknown" for name in facts.off if said.get(name) == "Ready"}
    there = [name for name, machine in facts.machines.items() if works and _answers(machine)]
    lost = tolerance.if_lost(lab, facts, there)
    return tuple(
        MachineStatus(
            node.name,
            node.role.value,
            str(node.address),
            _answers(facts.machines[node.name]),
            said.get(node.name, missing) if node in lab.kubernetes_nodes else "-",
            facts.off.get(node.name, ""),
            versions.get(node.name, ""),
            (*([ADDRESS] if node.name in holding else []), *([LEADERSHIP] if node.name == leader else [])),
            lost.get(node.name),
        )
        for node in lab.nodes
    )


def _answers(machine: Machine | Unknown) -> bool:
    return machine.answered if isinstance(machine, Unknown) else True


def _api_problem(facts: Facts) -> str | None:
    """Why the API does not serve its users; None where it does."""
    answer = facts.api.health["/readyz"]
    if isinstance(answer, Unknown):
        return answer.reason
    if answer[0] != 200:
        return f"the API answered {answer[0]} to /readyz: {answer[1][:200]}"
    return facts.api.nodes.reason if isinstance(facts.api.nodes, Unknown) else None


def _bad(lab: Lab, facts: Facts) -> tuple[Verdict, ...]:
    """The checks that do not hold, of the parts that make the lab work."""
    asked = [case for case in cases(lab) if case.group in WORKING_PARTS and not case.check.probes]
    return tuple(verdict for case in asked if not (verdict := case.judge(facts)).good)


def _unexplained(
    facts: Facts, bad: tuple[Verdict, ...], known: tuple[Cause, ...]
) -> tuple[list[str], list[Verdict]]:
    """What no cause explains: why machines do not answer, each once, and the other checks that do not hold."""
    silent = [
        machine.reason
        for name, machine in facts.machines.items()
        if isinstance(machine, Unknown) and name not in facts.off
    ]
    explained = causes.explained(known)
    others = [
        verdict
        for verdict in bad
        if verdict.title not in explained
        and (verdict.outcome == "fails" or not any(why in verdict.found for why in silent))
    ]
    return silent, others


def _finding(verdict: Verdict) -> str:
    return f"{verdict.title}: {verdict.found}"


def _once_for_each_check(verdicts: list[Verdict]) -> list[str]:
    """The first finding of each check, and where else that check does not hold."""
    lines = []
    for name in dict.fromkeys(verdict.name for verdict in verdicts):
        first, *more = [verdict for verdict in verdicts if verdict.name == name]
        also = f" (also on {listed([verdict.machine for verdict in more])})" if more else ""
        lines.append(f"{first.title}{also}: {first.found}")
    return lines
