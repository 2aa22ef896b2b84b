"""etcd's quorum: which members may leave, and how many failures the cluster tolerates.

The arithmetic is that of etcd's FAQ, "What is failure tolerance?".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.errors import LabError
from lab.health.cluster import MemberFact
from lab.health.facts.gather import COMMAND, MACHINE_TIMEOUT
from lab.health.facts.machine import EtcdStatus, Machine, read_sections
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.remote import Remote, side_by_side


@dataclass(frozen=True)
class Membership:
    """etcd's voting members by name, and those that report that they are healthy.

    If none does, etcd can't be asked, and the members are assumed to be the lab's.
    """

    members: tuple[str, ...]
    healthy: frozenset[str]


@dataclass(frozen=True)
class StoredMembership:
    """etcd's voting members as stored by `newest`, the member with the newest data of those asked."""

    members: tuple[str, ...]
    newest: str


@dataclass(frozen=True)
class Problem:
    """Why members can't leave now, or why etcd can't go on, and what to do."""

    what: str
    next: str


def needed(members: int) -> int:
    """How many members must respond for etcd to accept writes."""
    return members // 2 + 1


def tolerance(members: int) -> int:
    """How many members may fail."""
    return members - needed(members) if members else 0


def loss(before: Lab, after: Lab) -> str | None:
    """How a smaller lab tolerates fewer failures, as a phrase; None if it tolerates as many."""
    was, becomes = (tolerance(len(lab.etcd_members)) for lab in (before, after))
    if becomes >= was:
        return None
    left = len(after.control_planes)
    survives = f"{becomes} may fail" if becomes else "none may fail any more"
    plural, present = "s" if left > 1 else "", len(before.control_planes)
    return f"with {left} control plane{plural}, {survives}; with the present {present}, {was} may"


def membership(lab: Lab, remote: Remote) -> Membership:
    """Ask each machine's member for its health and its member list, in parallel. Never raises LabError."""
    answers = side_by_side("asking etcd", lab.etcd_members, lambda node: _voting(lab, remote, node))
    healthy = {name: members for name, members in answers.items() if members is not None}
    listed = next(iter(healthy.values()), tuple(node.name for node in lab.etcd_members))
    return Membership(listed, frozenset(healthy))


def problem(members: Sequence[str], healthy: Collection[str], leaving: Sequence[str]) -> Problem | None:
    """Why these members can't leave one by one, those that do not respond first; None if they can.

    Each membership change is a write, which needs a majority; afterwards a majority of the remaining members
    has to respond (etcd, "Runtime reconfiguration").
    """
    there = list(members)
    for name in in_order(leaving, healthy):
        if name not in there:
            continue
        if len(there) == 1:
            return Problem(
                f"{name} can't leave: it has the only etcd member, and so all of the cluster's data",
                "let others join first: `./inv up`, with nodes.control_planes.count at 3 or more",
            )
        answer = [each for each in there if each in healthy]
        silent = [each for each in there if each not in healthy]
        stay = [each for each in answer if each != name]
        after = len(there) - 1
        if len(answer) < needed(len(there)) or len(stay) < needed(after):
            others = [each for each in silent if each not in leaving]
            return Problem(
                f"{name} can't leave now: of etcd's {len(there)} members "
                f"{', '.join(silent)} {'do' if len(silent) > 1 else 'does'} not answer, and "
                f"without {name} {len(stay)} of {after} would, where {needed(after)} are needed",
                f"bring {', '.join(others)} back first: `./inv up`, or `./inv replace {others[0]}`"
                if others
                else "`./inv status` shows what runs; `./inv up` brings back what it can",
            )
        there.remove(name)
    return None


def restart_problem(members: Sequence[str], healthy: Collection[str], name: str) -> Problem | None:
    """Why this member can't be restarted now; None if it can.

    The others have to be a majority meanwhile. Of one or two members they never are: there it is enough that
    they respond.
    """
    others = [each for each in members if each != name]
    silent = [each for each in others if each not in healthy]
    enough = min(needed(len(members)), len(others))
    if len(others) - len(silent) >= enough:
        return None
    return Problem(
        f"{name}'s etcd member can't be restarted now: {enough} of the others must answer meanwhile, and "
        f"{', '.join(silent)} {'do' if len(silent) > 1 else 'does'} not",
        f"bring {', '.join(silent)} back first: `./inv up`, or `./inv replace {silent[0]}`",
    )


def rejoin_problem(members: Sequence[str], healthy: Collection[str], again: Sequence[str]) -> Problem | None:
    """Why these members can't be removed and join again one by one; None if they can.

    A machine that joins again loses its member's data, so the others must be a majority.
    """
    if problem(members, healthy, again) is None:
        return None
    voting = [name for name in again if name in members]
    stay = [name for name in members if name not in voting]
    answer = [name for name in stay if name in healthy]
    silent = [name for name in stay if name not in healthy]
    has, its = ("has", "its") if len(voting) == 1 else ("have", "their")
    said = f"{len(answer)} of etcd's {len(members)} members respond ({', '.join(answer) or 'none'})"
    what = (
        f"{', '.join(voting)} {has} to join again, which removes {its} etcd data, so the others need a "
        f"majority: {said}, and {needed(len(members))} are needed. No machine was reset"
    )
    if len(stay) >= needed(len(members)):
        return Problem(
            what,
            f"bring {', '.join(silent)} back: `./inv status` shows what is wrong there, "
            f"`./inv logs` collects what etcd says; then `./inv up`",
        )
    newest = (answer or stay or voting)[0]
    return Problem(what, _sole_member(newest, "`./inv up`") if stay else _WITHOUT_DATA)


def unknown_problem(members: Sequence[str], left: Sequence[str], reason: str) -> Problem:
    """Why `up` stops if most members' machines no longer exist, and the others can't be asked.

    `members` are those in lab.yaml, `left` those of them whose machines exist; `reason` is why they can't be
    asked.
    """
    gone = [name for name in members if name not in left]
    machines, do = ("machine", "does") if len(gone) == 1 else ("machines", "do")
    return Problem(
        f"etcd may have lost its majority: of its {len(members)} members the {machines} of "
        f"{', '.join(gone)} {do} not exist any more, {needed(len(members))} are needed, and what is left can't "
        f"be asked: {reason}. No machine was made",
        "`./inv status` shows what runs, `./inv logs` collects what etcd says; once it runs on "
        f"{left[0]}, `./inv up` shows what can be recovered",
    )


def without_data_problem(lab: Lab, joined: Collection[str]) -> Problem | None:
    """Why etcd can't be begun again on machines of its own; None if no control plane uses its data yet.

    `joined` are the machines that have joined the cluster, or etcd, completely.
    """
    members = [node.name for node in etcd_machines(lab)]
    users = [node.name for node in lab.control_planes if node.name in joined]
    if not members or not users or any(name in joined for name in members):
        return None
    return Problem(
        f"etcd's data is lost: {', '.join(users)} used it, and none of {', '.join(members)} has a complete "
        "member. No empty etcd was begun in its place",
        "`./inv recover FILE` restores a backup into these machines, and `./inv restore NAME` a checkpoint; "
        "without either: `./inv destroy`, then `./inv up`",
    )


def without_keys_problem(lab: Lab, found: Mapping[str, str]) -> Problem | None:
    """Why a cluster can't be begun on the data of an etcd that is there; None if nothing depends on its keys.

    `found` is what each machine has of the cluster (`JoinState`).
    """
    users = [node.name for node in lab.workers if found.get(node.name) == "joined"]
    planes = [node.name for node in lab.control_planes if found.get(node.name) != "fresh"]
    if not users or planes or not any(found.get(node.name) == "joined" for node in etcd_machines(lab)):
        return None
    return Problem(
        "the keys that control planes share are lost with them, and pods on "
        f"{', '.join(users)} have tokens that they signed. No new cluster was begun on etcd's data",
        "`./inv restore NAME` restores a checkpoint (`./inv checkpoints`); without one: `./inv destroy`, then "
        "`./inv up`",
    )


def _sole_member(name: str, then: str) -> str:
    """How to continue with the data of one member, and without it."""
    return (
        f"the cluster's data is still on {name}, except for writes that it had not received. "
        f"`./inv ssh {name} -- sudo /opt/ha-lab/sole-member.sh` makes its member the only one, then "
        f"{then} creates the others, which then join. {_WITHOUT_DATA}"
    )


_WITHOUT_DATA = "With a backup: `./inv recover FILE`. Without the data: `./inv destroy`, then `./inv up`"


def stored_membership(lab: Lab, remote: Remote, nodes: Iterable[Node]) -> StoredMembership | None:
    """Ask the members on these machines for their stored member lists, in parallel; None if none responds.

    This needs no majority. Never raises LabError.
    """
    answers = side_by_side("asking etcd", nodes, lambda node: _stored(lab, remote, node))
    stored = {name: answer for name, answer in answers.items() if answer is not None}
    if not stored:
        return None
    newest = max(stored, key=lambda name: stored[name][0])
    return StoredMembership(stored[newest][1], newest)


def lost_problem(found: StoredMembership, left: Collection[str]) -> Problem | None:
    """Why etcd can't regain a majority with the members whose machines exist (`left`); None if it can.

    The member of a machine that is created again is a new one, which a majority has to accept (etcd, "Disaster
    recovery").
    """
    here = [name for name in found.members if name in left]
    gone = [name for name in found.members if name not in left]
    if len(here) >= needed(len(found.members)):
        return None
    are, machines, do = ("is" if len(here) == 1 else "are"), "machine", "does"
    if len(gone) > 1:
        machines, do = "machines", "do"
    others = [name for name in here if name != found.newest]
    then = f"`./inv replace {others[0]}`" if others else "`./inv up`"
    return Problem(
        f"etcd has lost its majority for good: {len(here)} of its {len(found.members)} members {are} left "
        f"({', '.join(here)}), and {needed(len(found.members))} are needed. The {machines} of "
        f"{', '.join(gone)} {do} not exist any more, and machines that are created again can't join without a "
        "majority",
        _sole_member(found.newest, then),
    )


def in_order(leaving: Sequence[str], healthy: Collection[str]) -> list[str]:
    """The order in which members leave: those that do not respond first, as they only weaken the majority."""
    return sorted(leaving, key=lambda each: each in healthy)


@dataclass(frozen=True)
class Running:
    """What etcd's members run: the name of the leader, "" if unknown, and each one's version."""

    leader: str
    versions: Mapping[str, str]


def running(lab: Lab, remote: Remote) -> Running:
    """Ask each machine's member for its version, and who leads, in parallel. Never raises LabError."""
    answers = side_by_side("asking etcd", lab.etcd_members, lambda node: _status(remote, node))
    found = {name: status for name, status in answers.items() if status is not None}
    leaders = [name for name, status in found.items() if status.member == status.leader]
    return Running(leaders[0] if leaders else "", {name: each.version for name, each in found.items()})


def _status(remote: Remote, node: Node) -> EtcdStatus | None:
    try:
        said = remote.run(node, ["sudo", COMMAND, "etcd-status"], timeout=MACHINE_TIMEOUT, accept=None).stdout
        return Machine(node.name, read_sections(said), 0.0).etcd_status
    except LabError:
        return None


def _voting(lab: Lab, remote: Remote, node: Node) -> tuple[str, ...] | None:
    """All voting members as listed by this machine's member; None if that is not healthy.

    The machine may have another checkout's facts.sh: these two answers have the same format in all.
    """
    try:
        command = ["sudo", COMMAND, "etcd-health", "etcd-members"]
        said = remote.run(node, command, timeout=MACHINE_TIMEOUT, accept=None).stdout
        machine = Machine(node.name, read_sections(said), 0.0)
        if machine.etcd_health != "healthy":
            return None
        return _names(lab, machine.etcd_members)
    except LabError:
        return None


def _stored(lab: Lab, remote: Remote, node: Node) -> tuple[int, tuple[str, ...]] | None:
    """This machine's member: the index of its raft log, and the voting members that it has stored."""
    try:
        command = ["sudo", COMMAND, "etcd-status", "etcd-stored-members"]
        said = remote.run(node, command, timeout=MACHINE_TIMEOUT, accept=None).stdout
        machine = Machine(node.name, read_sections(said), 0.0)
        return machine.etcd_status.index, _names(lab, machine.etcd_stored_members)
    except LabError:
        return None


def _names(lab: Lab, members: Iterable[MemberFact]) -> tuple[str, ...]:
    """The names of the voting members. One that never started has no name yet, and is found by its address."""
    names = {str(each.address): each.name for each in lab.etcd_members}
    voting = [member for member in members if not member.learner]
    return tuple(each.name or names.get(host := _host(each), host) for each in voting)


def _host(member: MemberFact) -> str:
    return urlsplit(member.peer_urls[0]).hostname or "" if member.peer_urls else ""
