"""Removes a lab: its machines, networks, connections, its context in the user's kubeconfig, and `.lab/`."""

from __future__ import annotations

from lab import providers
from lab.errors import LabStateError
from lab.session import Session
from lab.verbs.stop import close_connections
from lab.workspace import kubeconfig


def destroy(session: Session) -> bool:
    """Remove all that is the lab's; False when there was nothing.

    What can't be removed keeps nothing else from being removed. `.lab/` is last: while a machine is left, its
    label is in there, and the next `destroy` ends what this one could not.
    """
    workspace = session.workspace
    if not workspace.root.exists():
        return False
    with workspace.lock():
        with session.progress.step("destroy", "remove machines, network and files") as step:
            try:
                kubeconfig.unmerge(session.lab, workspace)
            except LabStateError as error:
                session.progress.say(f"{error.message}: {error.hint}")
            if workspace.ssh_config.exists():
                close_connections(session)
            session.remote.remove_sockets()
            providers.remove(workspace, step.log)
        workspace.remove()
    return True
