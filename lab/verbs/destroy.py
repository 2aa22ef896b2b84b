"""Removes a lab: its machines, networks, connections and `.lab/`; nothing else."""

from __future__ import annotations

from lab import providers
from lab.session import Session


def destroy(session: Session) -> bool:
    """Remove all that is the lab's; False when there was nothing."""
    workspace = session.workspace
    if not workspace.root.exists():
        return False
    with workspace.lock():
        with session.progress.step("destroy", "remove machines, network and files") as step:
            if workspace.ssh_config.exists():
                session.remote.hang_up()
            providers.remove(workspace, step.log)
        workspace.remove()
    return True
