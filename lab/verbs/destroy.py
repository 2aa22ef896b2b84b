"""Removes a lab: its machines, networks, connections, its context in the user's kubeconfig, and `.lab/`."""

from __future__ import annotations

from lab import providers
from lab.errors import LabStateError
from lab.session import Session
from lab.verbs.stop import close_connections
from lab.workspace import kubeconfig


def destroy(session: Session) -> bool:
    """Remove everything that belongs to the lab; False if there was nothing.

    A part that can't be removed does not stop the removal of others. `.lab/` is removed last, since it has the
    machines' label: if a machine is left, the next `destroy` removes it.
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
