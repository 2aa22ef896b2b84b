"""Starts machines that do not run, and asks machines for an answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lab import providers
from lab.errors import WaitTimedOut
from lab.model import Lab, Node
from lab.providers import MachineState
from lab.remote import side_by_side
from lab.session import Session
from lab.system.wait import wait_until

TIMEOUT = 60.0
"""Seconds for a machine that was started to answer."""


def start(
    session: Session, lab: Lab, states: Mapping[str, MachineState], nodes: Sequence[Node]
) -> tuple[Node, ...]:
    """Start those that are stopped or paused, and return them. `lab`: which the machines are part of."""
    off = tuple(node for node in nodes if states.get(node.name) in ("stopped", "paused"))
    if off:
        with session.progress.asking(f"{', '.join(node.name for node in off)} to be started"):
            for node in off:
                providers.resume(lab, node)
            providers.power_on(lab, [node for node in off if states[node.name] == "stopped"])
    return off


def silent(
    session: Session, nodes: Sequence[Node], *, patient: Collection[Node], note: str
) -> tuple[Node, ...]:
    """Return the machines that do not respond by ssh; those of `patient` have TIMEOUT for it.

    `note` is shown beside one of these that did not.
    """

    def does_not_respond(node: Node) -> bool:
        if session.remote.why_not_reachable(node) is None:
            return False
        if node not in patient:
            return True
        with session.progress.step("machine", "starts and answers", node.name) as shown:
            try:
                wait_until(
                    lambda: session.remote.why_not_reachable(node),
                    what=f"{node.name} to answer by ssh",
                    timeout=TIMEOUT * session.lab.patience,
                    log=shown.log,
                )
            except WaitTimedOut:
                shown.note = note
                return True
        return False

    with session.progress.asking(f"an answer of {', '.join(node.name for node in nodes)}"):
        found = side_by_side("asking for an answer", nodes, does_not_respond)
    return tuple(node for node in nodes if found[node.name])
