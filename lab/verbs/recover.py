"""Recovers a lab from a backup: etcd on all control planes, even after its quorum was lost for good.

Everything that prevents a recovery is found before anything is changed; what will be lost is shown, and needs
consent. A recovery is recorded before the first control plane is stopped, so that the same command continues
it after an interruption.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab import providers
from lab.errors import ConfigError, HostNotFit, LabError, LabStateError
from lab.model import Node
from lab.model.change import Change
from lab.plans import engine, quorum
from lab.plans import recover as plans
from lab.plans.recover import Found
from lab.plans.situation import Situation, Source
from lab.remote import side_by_side
from lab.session import Session, has_machines
from lab.verbs import answers, losses, render
from lab.verbs.interrupted import restore_problem
from lab.verbs.up import Confirm, Run, keep_kubeconfig
from lab.workspace import backup as backups
from lab.workspace import made, recovery
from lab.workspace.backup import Backup, Inventory
from lab.workspace.made import Made
from lab.workspace.recovery import Recovery
from lab.workspace.render import credentials

KEYS_TIMEOUT = 20.0
"""Seconds for a member to list its keys."""

WAL = 64 * 2**20
"""Bytes of the log that etcd allocates for a new data folder (etcd, server/storage/wal, SegmentSizeBytes)."""


@dataclass(frozen=True)
class Scene:
    """The control planes, and the etcd machines, as they were found.

    `members` of etcd are recovered. `others` are control planes that run no etcd. `silent` exist and do not
    respond, and are removed: with their old data they would be another cluster, or answer from it. `absent` do
    not exist, or never joined; `up` lets them join.
    """

    members: tuple[Node, ...]
    others: tuple[Node, ...]
    silent: tuple[Node, ...]
    absent: tuple[Node, ...]
    found: Mapping[str, Found]


def recover(session: Session, path: Path, *, consent: bool, confirm: Confirm) -> tuple[Node, ...]:
    """Recover the lab from a backup, and show what is as in it and what is gone.

    Return the machines that `up` has yet to create. Raises ConfigError for a file that is no backup or damaged,
    LabStateError for that of another lab or of a newer etcd, HostNotFit for a full disk: nothing is changed
    then, but stopped machines may have been started.
    """
    backup = backups.read(path.absolute())
    if session.made is None or not has_machines(session):
        raise LabStateError("the lab has no machines, so none can be recovered", hint="`./inv up` creates them")
    with session.workspace.lock():
        session.workspace.rotate_logs()
        return restore(session, backup, consent=consent, confirm=confirm)


def restore(session: Session, backup: Backup, *, consent: bool, confirm: Confirm) -> tuple[Node, ...]:
    """The same from a backup that was read; the caller holds the lab's lock."""
    record = made.read(session.workspace)
    assert record is not None
    session = replace(session, made=record)
    problem = restore_problem(session)
    if problem:
        raise LabStateError(problem.what, hint=problem.next)
    require_own(backup, record)
    render.write(session, record, record.golden)
    run = Run(session, credentials.new_run_secrets())
    scene = _look(session)
    _require_possible(backup, scene)
    earlier = recovery.read(session.workspace)
    with session.progress.asking("etcd's present keys"):
        before = earlier.before if earlier else _inventory(session, scene.members)
    if not consent and not confirm(question(session, backup, scene, before, earlier)):
        raise LabStateError("nothing was restored", hint="`./inv status` shows how the lab is")
    return _carry_out(run, backup, scene, before, earlier)


def require_own(backup: Backup, record: Made) -> None:
    """Raise LabStateError if the backup is of another lab, whose keys and nodes are not this one's."""
    if backup.manifest.owner != record.owner:
        same = " with the same name" if backup.manifest.lab == record.lab.name else ""
        raise LabStateError(
            f"{backup.path} is of another lab{same}: {backup.manifest.lab}, {backup.manifest.owner}; this one "
            f"is {record.lab.name}, {record.owner}",
            hint="a lab that was destroyed and created again is another one; this one's are in .lab/backups",
        )


def question(
    session: Session, backup: Backup, scene: Scene, before: Inventory | None, earlier: Recovery | None
) -> str:
    """The question before anything is changed: the state of etcd, and what will be lost."""
    about = backup.manifest
    names = [node.name for node in scene.members]
    sentences = [] if earlier else [_state(session, names)]
    if earlier:
        sentences.append(f"A recovery from {earlier.file} was interrupted.")
    if before is None:
        sentences.append(
            f"No etcd member can list its keys: whatever was written since {about.taken} will be lost."
        )
    else:
        said = losses.in_words(losses.losses(backup.inventory, before))
        sentences += said or [f"Nothing in etcd has changed since {about.taken}."]
    if scene.silent:
        silent = ", ".join(node.name for node in scene.silent)
        why = "it does not respond" if len(scene.silent) == 1 else "they do not respond"
        sentences.append(f"{silent} will be removed, with all data that is only there: {why}.")
    sentences.append(
        f"etcd on {', '.join(names)} goes back to {about.taken} (revision {about.revision}); the API is down "
        "meanwhile."
    )
    return " ".join([*sentences, "Continue? [y/N] "])


def _state(session: Session, names: Sequence[str]) -> str:
    with session.progress.asking("etcd's members"):
        found = quorum.membership(session.lab, session.remote)
    healthy = sorted(name for name in found.members if name in found.healthy)
    if len(healthy) == len(found.members):
        return "etcd is healthy, so no recovery is needed."
    if len(healthy) >= quorum.needed(len(found.members)):
        return f"etcd has a majority ({', '.join(healthy)}), so `./inv up` can repair it without any loss."
    return "etcd has no majority."


def _look(session: Session) -> Scene:
    """Start the machines that exist and run etcd or use it, and ask each about its etcd."""
    lab = session.lab
    with session.progress.asking("what state the machines are in"):
        states = providers.states(lab, session.workspace)
    concerned = tuple(node for node in lab.nodes if node.spec.serves_api or lab.is_etcd_member(node))
    exist = tuple(node for node in concerned if states[node.name] not in ("absent", "incomplete"))
    # The load balancer, too: checks ask the API through it.
    answers.start(session, lab, states, (*exist, *lab.balancers))
    # One that does not respond in time counts as dead, and its data as lost.
    silent = answers.silent(session, exist, patient=exist, note="does not respond")
    there = [node for node in exist if node not in silent]
    if not any(node.spec.serves_api for node in there):
        raise LabStateError(
            "no control plane responds, so none can be recovered",
            hint="`./inv status` shows why; `./inv up` starts or creates machines",
        )
    if not any(lab.is_etcd_member(node) for node in there):
        raise LabStateError(
            "no etcd machine responds, so none can be recovered",
            hint="`./inv status` shows why; `./inv up` starts or creates machines",
        )
    with session.progress.asking("each machine's report on its etcd"):
        side_by_side("copying scripts", there, session.remote.deliver)
        found = side_by_side("asking the machines", there, lambda node: plans.look(session.remote, node))
    # An etcd machine is restored, whatever it has: made again it has nothing, and a member that has not
    # joined completely would go on with the data of another etcd.
    joined = tuple(node for node in there if found[node.name].member or not node.spec.serves_api)
    members = tuple(node for node in joined if lab.is_etcd_member(node))
    others = tuple(node for node in joined if node not in members)
    absent = tuple(node for node in concerned if node not in (*joined, *silent))
    if not any(node.spec.serves_api for node in joined):
        raise LabStateError(
            "no control plane has joined a cluster yet", hint="`./inv up` creates what is missing"
        )
    return Scene(members, others, silent, absent, found)


def _require_possible(backup: Backup, scene: Scene) -> None:
    """Raise with every reason why these machines can't be recovered from this backup."""
    about = backup.manifest
    problems = []
    for node in (*scene.members, *scene.others):
        found = scene.found[node.name]
        problems += [f"{node.name}: {each}" for each in found.problems]
        if found.etcd and _minor(about.etcd) > _minor(found.etcd):
            problems.append(
                f"{node.name} has etcd {found.etcd}, and the backup is of etcd {about.etcd}, which is newer"
            )
    if problems:
        raise LabStateError(
            "this backup can't be restored here:\n" + "\n".join(problems),
            hint="the backup of a newer etcd needs a lab with that Kubernetes version; `./inv up` repairs "
            "files that are missing or broken",
        )
    needed = 2 * about.size + 2 * WAL
    free = {node.name: scene.found[node.name].free for node in scene.members}
    small = {name: space for name, space in free.items() if space < needed}
    if small:
        raise HostNotFit(
            "\n".join(
                f"{name}'s disk has {space // 2**20} MiB free for etcd, and {needed // 2**20} MiB are needed"
                for name, space in small.items()
            ),
            hint="free some on these machines; `./inv bake --prune` frees some on this host",
        )


def _minor(version: str) -> tuple[int, ...]:
    """The part of a version that decides whether it can read another one's data: `3.6.8` → (3, 6)."""
    try:
        return tuple(int(part) for part in version.split(".")[:2])
    except ValueError as error:
        raise ConfigError([f"{version!r} is not a version of etcd"]) from error


def _inventory(session: Session, members: Sequence[Node]) -> Inventory | None:
    """The keys of the member with the newest data that answers; None if none does."""
    found: list[dict[str, int]] = []

    def ask(node: Node) -> None:
        try:
            said = session.remote.run(node, plans.KEYS, timeout=KEYS_TIMEOUT).stdout
            found.append(backups.inventory(said))
        except (LabError, ValueError, KeyError, TypeError):
            return

    side_by_side("asking etcd", members, ask)
    return max(found, key=lambda keys: max(keys.values(), default=0), default=None)


def _carry_out(
    run: Run, backup: Backup, scene: Scene, before: Inventory | None, earlier: Recovery | None
) -> tuple[Node, ...]:
    session, names = run.session, tuple(node.name for node in scene.members)
    goes_on = (
        earlier is not None
        and (earlier.sha256, earlier.members) == (backup.sha256, names)
        and all(scene.found[name].token == earlier.token for name in names)
    )
    token = earlier.token if goes_on and earlier else f"recovery-{secrets.token_hex(6)}"
    machines = (*scene.members, *scene.others, *_answering_workers(session))
    bump = plans.revision_bump(backup.manifest.revision, time.time())
    source = Source(backup, token, bump, _has_the_ca(session, backup), restored=goes_on)
    first = next(node for node in machines if node.spec.serves_api)
    situation = Situation(first, machines, recovery=source)
    if earlier is None and any(scene.found[name].token != plans.NO_TOKEN for name in names):
        # Of a recovery that was killed when it was complete. With its token, today's data would not be kept.
        engine.run(plans.FINISH, run.context(situation))
    recovery.write(session.workspace, Recovery(str(backup.path), backup.sha256, token, names, before))
    with session.progress.live():
        if scene.silent:
            _remove(session, scene.silent)
        engine.run(plans.START if goes_on else plans.RECOVER, run.context(situation))
        recovery.remove(session.workspace)
        engine.run(plans.FINISH, run.context(situation))
    if before is None:
        session.progress.say(
            f"What was written since {backup.manifest.taken} is lost; no member could list it."
        )
    else:
        session.progress.say(losses.table(losses.losses(backup.inventory, before)))
    missing = (*scene.silent, *scene.absent)
    if not missing:
        _complete(run)
    return missing


def _remove(session: Session, silent: Sequence[Node]) -> None:
    """Remove machines that do not respond: if one started again, its member would be another cluster."""
    with session.progress.step("recovery-remove", "machines that do not respond are removed") as step:
        for node in silent:
            record = made.read(session.workspace)
            assert record is not None
            providers.remove_machines(record.lab, session.workspace, [node.name], step.log)
            made.write(session.workspace, record.without(node.name, node))


def _has_the_ca(session: Session, backup: Backup) -> bool:
    """Whether the backup's CA is still the lab's; under another one its other keys are useless."""
    return backup.pki["ca.crt"].strip() == credentials.ca_certificate(session.workspace).strip()


def _answering_workers(session: Session) -> tuple[Node, ...]:
    """The workers whose kubelets can be restarted now; others start with their machines."""
    workers = session.lab.workers
    with session.progress.asking("an answer of each worker"):
        reasons = side_by_side("ssh", workers, session.remote.why_not_reachable)
    return tuple(node for node in workers if not reasons[node.name])


def _complete(run: Run) -> None:
    """Let `up` repair what the backup lacks, and wait for all checks that need no test pods."""
    try:
        with run.session.progress.live():
            run.up(known=True, until="", change=Change())
        keep_kubeconfig(run.session)
    except LabError as error:
        raise LabStateError(
            f"etcd is recovered, but the lab is not healthy yet: {error.message}",
            hint="; ".join(["`./inv up` goes on from here", *([error.hint] if error.hint else [])]),
            log=error.log,
        ) from error


def next_step(missing: Sequence[Node]) -> str:
    """What to do after a recovery: the machines that do not exist are still to be created."""
    if missing:
        return f"./inv up creates {', '.join(node.name for node in missing)} again"
    return "./inv verify"
