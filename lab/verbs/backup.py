"""Writes a backup: a verified snapshot of etcd and the keys that control planes share, in one private file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from lab.errors import CommandFailed, LabStateError
from lab.health.facts.gather import ask_machine
from lab.model import Node
from lab.plans import quorum
from lab.remote import RUN
from lab.session import Session, require_up
from lab.verbs import render
from lab.verbs.interrupted import require_not_interrupted
from lab.workspace import PRIVATE_FILE, made
from lab.workspace import backup as backups
from lab.workspace.backup import Backup, Manifest

SCRIPT = "/opt/ha-lab/backup.sh"

LOOK_TIMEOUT = 60.0
"""Seconds for a control plane to send the keys that it shares: some kilobytes."""

SNAPSHOT_TIMEOUT = 900.0
"""Seconds for a control plane to send everything; a backup of a new lab takes 2 in all."""


def backup(session: Session, path: Path | None) -> Backup:
    """Write a backup to `path`, or to a new file in `.lab/backups`, and return it.

    Raises ConfigError for a file that exists or can't be written, LabStateError if no etcd member is healthy,
    HostNotFit for a full disk; nothing is written then.
    """
    target = path.absolute() if path else new_file(session)
    if path:
        backups.require_new(target)
    require_up(session)
    with session.workspace.lock():
        session = replace(session, made=made.read(session.workspace))
        require_not_interrupted(session)
        return write(session, target, healthy_member(session))


def new_file(session: Session) -> Path:
    """The path of a new file in `.lab/backups`, named after the time in UTC."""
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))  # two in one second
    paths = (session.workspace.backups / f"{each}.tar" for each in names)
    return next(path for path in paths if not path.exists())


def write(session: Session, target: Path, member: Node) -> Backup:
    """The same from one member, which needs no majority; the caller holds the lab's lock. `target` is new."""
    record, lab = session.made, session.lab
    if record is None:
        raise LabStateError(
            "the lab has no machines, so there is nothing to back up", hint="`./inv up` creates them"
        )
    render.write(session, record, record.golden)
    session.remote.deliver(member)
    status = ask_machine(session.remote, member, "etcd-status").etcd_status
    backups.require_room(target.parent, status.size)
    part = backups.begin(target)
    try:
        with session.progress.step("backup", "etcd's snapshot, and the shared keys", member.name) as step:
            said = session.remote.run(
                member,
                ["sudo", "env", f"HA_LAB_RUN={RUN}", SCRIPT],
                output=part,
                timeout=SNAPSHOT_TIMEOUT,
            )
            step.log.parent.mkdir(parents=True, exist_ok=True)
            step.log.write_text(said.stderr, encoding="utf-8")
        if lab.external_etcd:
            _add_pki(session, part)
        about = Manifest(
            lab=lab.name,
            owner=record.owner,
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
            member=member.name,
            kubernetes=lab.kubernetes.version,
            etcd=status.version,
            external=lab.external_etcd,
        )
        return backups.complete(part, target, about, session.workspace.identity.read_text(encoding="utf-8"))
    except CommandFailed as error:
        backups.require_room(target.parent, status.size - part.stat().st_size)  # the disk may have filled up
        raise LabStateError(
            f"{member.name} could not make the backup: {_reason(error)}", hint=error.hint, log=error.log
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _add_pki(session: Session, part: Path) -> None:
    """Add the shared keys of a control plane, which the machine of an etcd member does not have."""
    reasons = []
    for node in session.lab.control_planes:
        silent = session.remote.why_not_reachable(node)
        if silent:
            reasons.append(f"{node.name}: {silent}")
            continue
        session.remote.deliver(node)
        shared = part.with_name(f"{part.name}.pki")
        try:
            shared.touch(mode=PRIVATE_FILE)
            session.remote.run(node, ["sudo", SCRIPT, "--pki"], output=shared, timeout=LOOK_TIMEOUT)
        except CommandFailed as error:  # one that has not joined has none
            reasons.append(f"{node.name}: {_reason(error)}")
        else:
            backups.add_pki(part, shared)
            return
        finally:
            shared.unlink(missing_ok=True)
    raise LabStateError(
        "no control plane gave the keys that control planes share, which the backup would lack:\n"
        + "\n".join(reasons),
        hint="`./inv up` repairs them",
    )


def destroyed_with(session: Session) -> str:
    """The backups that `destroy` would remove, as a phrase; "" if there are none."""
    number = len(backups.complete_in(session.workspace.backups))
    if not number:
        return ""
    return f"and its {'backup' if number == 1 else f'{number} backups'} in .lab/backups"


def _reason(error: CommandFailed) -> str:
    """Why a script of the kit failed, in its own words."""
    said = [line.strip().removeprefix("ERROR: ") for line in error.tail.splitlines() if "ERROR: " in line]
    own = [line for line in said if not line.startswith("exit code")]
    return (own or said or [error.message])[-1]


def healthy_member(session: Session) -> Node:
    """A machine whose etcd member is healthy, so that it has every acknowledged write."""
    with session.progress.asking("etcd's members"):
        found = quorum.membership(session.lab, session.remote)
    for node in session.lab.etcd_members:
        if node.name in found.healthy:
            return node
    raise LabStateError(
        f"none of etcd's members is healthy ({', '.join(found.members)}), so there is nothing to back up",
        hint="`./inv up` repairs what it can; `./inv recover FILE` goes back to an earlier backup",
    )
