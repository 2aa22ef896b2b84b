"""etcd's quorum: who may leave, and what a smaller cluster can't survive.

The arithmetic is that of etcd's FAQ, "What is failure tolerance?".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lab.errors import LabError
from lab.health.facts.gather import ask_machine
from lab.model import Lab, Node
from lab.remote import Remote


@dataclass(frozen=True)
class Problem:
    """Why members can't leave now, and what to do."""

    what: str
    next: str


def needed(members: int) -> int:
    """How many members must answer for etcd to take writes."""
    return members // 2 + 1


def tolerance(members: int) -> int:
    """How many members may be lost."""
    return members - needed(members) if members else 0


def loss(before: Lab, after: Lab) -> str | None:
    """What a lab can't survive any more once it is smaller; None where that is the same."""
    was, becomes = (tolerance(len(lab.etcd_members)) for lab in (before, after))
    if becomes >= was:
        return None
    survives = f"{becomes} of them may fail" if becomes else "none of them may fail any more"
    return (
        f"With {len(after.control_planes)} instead of {len(before.control_planes)} control planes {survives} "
        f"(now: {was})."
    )


def healthy_members(lab: Lab, remote: Remote) -> frozenset[str]:
    """The machines whose etcd member says that it is healthy, each asked itself, one after the other."""
    return frozenset(node.name for node in lab.etcd_members if _is_healthy(remote, node))


def problem(members: Sequence[str], healthy: Collection[str], leaving: Sequence[str]) -> Problem | None:
    """Why these members can't leave, one after the other, those that do not answer first; None when they can.

    Each change of the membership is a write, which a majority has to take, and afterwards a majority of those
    that stay has to answer (etcd, "Runtime reconfiguration").
    """
    there = list(members)
    for name in sorted(leaving, key=lambda each: each in healthy):
        if name not in there:
            continue
        answer = [each for each in there if each in healthy]
        silent = [each for each in there if each not in healthy]
        stay = [each for each in answer if each != name]
        after = len(there) - 1
        if len(answer) < needed(len(there)) or len(stay) < needed(after):
            others = [each for each in silent if each not in leaving]
            return Problem(
                f"{name} can't leave now: of etcd's {len(there)} members "
                f"{', '.join(silent) or 'none'} {'do' if len(silent) != 1 else 'does'} not answer, and "
                f"without {name} {len(stay)} of {after} would, where {needed(after)} are needed",
                f"bring {', '.join(others)} back first: `./inv up`, or `./inv replace {others[0]}`"
                if others
                else "`./inv status` shows what runs; `./inv up` brings back what it can",
            )
        there.remove(name)
    return None


def _is_healthy(remote: Remote, node: Node) -> bool:
    try:
        return ask_machine(remote, node, "etcd-health").etcd_health == "healthy"
    except LabError:
        return False
