"""Recovers a lab whose etcd quorum was lost for good: from a survivor, else from the newest backup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabStateError
from lab.plans import quorum
from lab.session import Session
from lab.verbs import backup as backing_up
from lab.verbs import recover as recovering
from lab.workspace import backup as backups
from lab.workspace import recovery
from lab.workspace.backup import Backup

if TYPE_CHECKING:
    from lab.drill.scene import Scene


def recover(scene: Scene) -> None:
    """Recover etcd on all members, unless all of them are healthy. The caller holds the lab's lock.

    A survivor's snapshot has every write that the member has applied; a leader has applied all that were
    acknowledged.
    """
    session = scene.session
    earlier = recovery.read(session.workspace)
    if earlier is None and _all_healthy(session):
        return
    backup = backups.read(Path(earlier.file)) if earlier else _of_a_survivor(session) or _newest(session)
    recovering.restore(session, backup, consent=True, confirm=lambda question: True)


def _all_healthy(session: Session) -> bool:
    found = quorum.membership(session.lab, session.remote)
    return found.healthy >= {node.name for node in session.lab.etcd_members}


def _of_a_survivor(session: Session) -> Backup | None:
    """A backup from the member with the newest data that answers; None if none can give one."""
    found = quorum.stored_membership(session.lab, session.remote, session.lab.etcd_members)
    member = session.lab.node(found.newest) if found else None
    if member is None:
        return None
    try:
        return backing_up.write(session, backing_up.new_file(session), member)
    except LabStateError as error:
        session.progress.say(f"{member.name} has data, but can't give a snapshot: {error.message}")
        return None


def _newest(session: Session) -> Backup:
    path = backups.newest(session.workspace.backups)
    if path is None:
        raise LabStateError(
            "no etcd member has its data, and there is no backup in .lab/backups",
            hint="`./inv recover FILE` restores a backup from elsewhere; without one the cluster is lost: "
            "`./inv destroy`, then `./inv up`",
        )
    session.progress.say(f"no etcd member has its data, so the newest backup is restored: {path}")
    return backups.read(path)
