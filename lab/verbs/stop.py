"""Shuts down all or some of a lab's machines; `up` starts them again."""

from __future__ import annotations

from collections.abc import Sequence

from lab.errors import LabError, LabStateError
from lab.model import Node
from lab.plans import engine
from lab.plans.engine import Context
from lab.plans.situation import Situation
from lab.plans.stop import STOP
from lab.session import Session, machine
from lab.workspace.render import credentials


def close_connections(session: Session, nodes: Sequence[Node] | None = None) -> None:
    """Close the connections to some machines, or to all. One that can't be closed is only reported."""
    try:
        with session.progress.asking("connections to the machines to close"):
            session.remote.close_connections(nodes)
    except LabError as error:
        session.progress.say(f"{error.message}: it closes with its machine, or a minute later")


def stop(session: Session, names: Sequence[str]) -> tuple[Node, ...]:
    """Shut down the machines with these names, or all; return those that were running.

    Raises ConfigError for an unknown name, LabStateError if there are no machines.
    """
    nodes = tuple(machine(session, name) for name in dict.fromkeys(names)) or session.lab.nodes
    if not session.workspace.has_machines():
        raise LabStateError("the lab has no machines, so none can be stopped", hint="`./inv up` creates them")
    with session.workspace.lock(), session.progress.live():
        session.workspace.rotate_logs()
        close_connections(session, nodes)
        context = Context(
            session.lab,
            session.workspace,
            session.remote,
            session.progress,
            credentials.new_run_secrets(),
            Situation(session.lab.first, nodes),
        )
        engine.run(STOP, context)
    stopped = {step.machine for step in session.progress.finished if step.outcome == "done"}
    return tuple(node for node in nodes if node.name in stopped)
