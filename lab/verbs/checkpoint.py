"""`checkpoint`, `checkpoints` and `restore`: all machines of a lab as they were at one instant.

To save them, the machines are shut down together, copied and started. To restore them, their power is cut, they
get the saved states, and start. Between the first machine and the last one the record says so
(`Made.restoring`), and `up` refuses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from lab import providers
from lab.errors import ConfigError, HostNotFit, LabError, LabStateError
from lab.model.change import Change, Setting, change
from lab.plans import already, engine
from lab.plans.checkpoint import RESTORE, SAVE
from lab.plans.engine import Context
from lab.plans.situation import Situation
from lab.providers import MachineState, provider_of
from lab.session import Session, has_machines, of_lab
from lab.verbs import render
from lab.verbs.interrupted import require_not_interrupted, restore_problem
from lab.verbs.stop import close_connections
from lab.verbs.up import Confirm, Run
from lab.workspace import checkpoints, made, recovery
from lab.workspace.checkpoints import Checkpoint
from lab.workspace.made import Made
from lab.workspace.render import credentials


def save(session: Session, name: str) -> Checkpoint:
    """Save all machines under that name, and start them again; return the checkpoint.

    What can be refused is refused before a machine is stopped. Raises ConfigError for a name that can't be used
    or exists, LabStateError for a lab without machines, HostNotFit if the disk has too little space. If saving
    fails, the machines are started again and nothing of it is left.
    """
    checkpoints.require_name(name)
    with session.workspace.lock():
        return take(session, name)


def take(session: Session, name: str) -> Checkpoint:
    """The same; the caller holds the lab's lock."""
    session = _as_recorded(session)
    begun = checkpoints.find(session.workspace, name)
    if begun and begun.complete:
        raise ConfigError(
            [f"there is a checkpoint {name} already, of {_moment(begun)}"],
            hint=f"choose another name; or `./inv checkpoints --remove {name}` first",
        )
    _require_no_change_under_way(session)
    healthy = _health(session, begun)
    if begun:
        # Incomplete, and in the way of another attempt on a small disk.
        _discard(session, name)
    _require_room(session)
    checkpoints.begin(
        session.workspace,
        Checkpoint(name=name, taken=datetime.now(UTC), made=_record(session), healthy=healthy),
    )
    session.workspace.rotate_logs()
    close_connections(session)
    try:
        with session.progress.live():
            engine.run(
                SAVE, _context(session, Situation(session.lab.first, session.lab.nodes, checkpoint=name))
            )
    except LabError:
        _undo(session, name, healthy=healthy)
        raise
    done = checkpoints.complete(session.workspace, name)
    took = session.progress.seconds
    session.progress.say(f"the checkpoint {name} is complete after {took:.0f} s; the machines start again")
    _start(session, healthy=healthy)
    return done


def abandon(session: Session, name: str) -> None:
    """Remove an incomplete checkpoint, and start the machines that were stopped for it.

    The caller holds the lab's lock.
    """
    begun = checkpoints.find(session.workspace, name)
    assert begun is not None
    assert not begun.complete
    session = _as_recorded(session)
    _discard(session, name)
    _start(session, healthy=begun.healthy)
    # Last: as long as it is there, another run finds out that the machines are to be started.
    checkpoints.remove(session.workspace, name)


def restore(session: Session, name: str, *, consent: bool, confirm: Confirm) -> Checkpoint:
    """Give all machines the states of a checkpoint, and start them; return the checkpoint.

    `session` is the lab as lab.yaml describes it. What can be refused is refused before the question. Raises
    ConfigError for an unknown checkpoint or one of another lab.yaml, LabStateError if a machine's state is
    missing or the answer is no, HostNotFit if the disk has too little space.
    """
    with session.workspace.lock():
        return bring_back(session, name, consent=consent, confirm=confirm)


def bring_back(session: Session, name: str, *, consent: bool, confirm: Confirm) -> Checkpoint:
    """The same; the caller holds the lab's lock."""
    session = dataclasses.replace(session, made=made.read(session.workspace))
    found = _complete(session, name)
    _require_same_lab(session, found)
    session = of_lab(session, found.made.lab)
    states = _states(session)
    absent = tuple(node for node in session.lab.nodes if states[node.name] in ("absent", "incomplete"))
    _require_saved(session, found)
    _require_room(session, replacing=found)
    if not consent and not confirm(question(session, found)):
        raise LabStateError("nothing was changed", hint="`./inv checkpoints` lists the checkpoints")
    session.workspace.rotate_logs()
    close_connections(session)
    if absent:
        # Vagrant creates them from its file, which may be of a lab.yaml that was rendered since.
        render.record_and_write(session, found.made.golden)
    made.update(session.workspace, lambda record: record.model_copy(update={"restoring": name}))
    situation = Situation(session.lab.first, session.lab.nodes, absent=absent, checkpoint=name)
    plan = tuple(step for step in RESTORE if absent or step.name != "create")
    with session.progress.live():
        engine.run(plan, _context(session, situation))
    recovery.remove(session.workspace)  # all members have the checkpoint's data
    checkpoints.put_back(session.workspace, found)
    _start(_as_recorded(session), healthy=found.healthy)
    return found


def listed(session: Session) -> RenderableType:
    """The table of all checkpoints: when each was taken, of what, and what it takes on the disk."""
    rows = _all(session)
    if not rows:
        return "this lab has no checkpoints\nnext: ./inv checkpoint NAME saves all machines as they are now"
    table = Table("checkpoint", "taken", "machines", "MiB", "", box=None, pad_edge=False)
    for name, found in rows.items():
        if isinstance(found, Checkpoint):
            table.add_row(name, _moment(found), _machines(found), str(found.size), _remark(session, found))
        else:
            table.add_row(name, "", "", "", found)
    return table


def to_json(session: Session) -> str:
    """The same as JSON. `problem` is null for a checkpoint that can be restored now."""
    rows = [_row(session, name, found) for name, found in _all(session).items()]
    return json.dumps({"checkpoints": rows}, indent=2)


def _row(session: Session, name: str, found: Checkpoint | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"name": name, "taken": None, "machines": [], "mib": None, "healthy": None, "problem": found}
    return {
        "name": name,
        "taken": found.taken.isoformat(timespec="seconds"),
        "machines": list(found.machines),
        "mib": found.size,
        "healthy": found.healthy,
        "problem": _remark(session, found) or None,
    }


def remove(session: Session, name: str) -> None:
    """Remove a checkpoint, complete or not.

    Raises ConfigError if there is none, LabStateError if an interrupted restore needs it.
    """
    _require_known(session, name)
    with session.workspace.lock():
        discard(session, name)


def discard(session: Session, name: str) -> None:
    """The same for one that there is; the caller holds the lab's lock."""
    session = _as_recorded(session)
    if session.made and session.made.restoring == name:
        problem = restore_problem(session)
        assert problem is not None
        raise LabStateError(problem.what, hint=problem.next)
    _discard(session, name)
    checkpoints.remove(session.workspace, name)


def removal_question(session: Session, name: str) -> str:
    """The question before a checkpoint is removed. Raises ConfigError if there is none of that name."""
    _require_known(session, name)
    return f"The checkpoint {_with_size(session, name)} will be removed. Continue? [y/N] "


def destroyed_with(session: Session) -> str:
    """The checkpoints that `destroy` would remove, as a phrase; "" if there are none."""
    names = checkpoints.names(session.workspace)
    if not names:
        return ""
    which = "checkpoint" if len(names) == 1 else "checkpoints"
    return f"and its {which} {', '.join(_with_size(session, name) for name in names)}"


def question(session: Session, found: Checkpoint) -> str:
    """The question before a restore: what will be lost."""
    others = [
        each.name
        for each in _all(session).values()
        if isinstance(each, Checkpoint) and each.taken > found.taken
    ]
    kept = f" The checkpoints that were taken since stay ({', '.join(others)})." if others else ""
    when = f"{_moment(found)} ({_age(found)} ago)"
    return (
        f"All {len(found.machines)} machines of {session.lab.name} go back to {found.name}, of {when}. "
        f"All that was done since on the machines and in the cluster will be lost.{kept} "
        "Continue? [y/N] "
    )


def _as_recorded(session: Session) -> Session:
    """The lab as its record has it now, which another run may have changed before the lock was taken."""
    record = made.read(session.workspace)
    return dataclasses.replace(of_lab(session, record.lab if record else session.lab), made=record)


def _record(session: Session) -> Made:
    """The lab's record. Raises LabStateError if there are no machines."""
    if session.made is None or not has_machines(session):
        raise LabStateError(
            "the lab has no machines, so there is nothing to save", hint="`./inv up` creates them"
        )
    return session.made


def _require_no_change_under_way(session: Session) -> None:
    """Raise LabStateError while a change, a restore or a recovery is incomplete: no state to go back to."""
    record = _record(session)
    require_not_interrupted(session)
    if record.upgrading:
        raise LabStateError(
            f"an upgrade to Kubernetes {record.upgrading} is under way, so the lab can't be saved now",
            hint="`./inv up` completes it",
        )
    names = dict.fromkeys((*record.leaving, *record.resizing))
    missing = [node.name for node in record.lab.nodes if node.name not in record.machines]
    if names or missing:
        raise LabStateError(
            f"a change of {', '.join([*names, *missing])} was interrupted, so the lab can't be saved now",
            hint="`./inv up` completes it",
        )


def _health(session: Session, begun: Checkpoint | None) -> bool:
    """Whether all checks pass before the machines are stopped; shows those that fail, which is no obstacle.

    An interrupted checkpoint of that name has found it out before it stopped them. Raises LabStateError if
    machines do not run otherwise.
    """
    states = _states(session)
    off = [f"{name} is {state}" for name, state in states.items() if state != "running"]
    if off and begun and not any(state in ("absent", "incomplete") for state in states.values()):
        return begun.healthy
    if off or session.remote.route_problem():
        what = ", ".join(off) or session.remote.route_problem()
        raise LabStateError(f"not all machines run: {what}", hint="`./inv up` starts them")
    with session.progress.asking("the checks whether the lab is healthy"):
        problems = already.problems(session.lab, session.workspace, session.remote)
    for problem in problems[:3]:
        session.progress.say(f"saved as it is: {problem}")
    return not problems


def _require_room(session: Session, replacing: Checkpoint | None = None) -> None:
    """Raise HostNotFit if the disk has too little space to save all machines, or to restore that checkpoint."""
    with session.progress.asking("the sizes of the machines' states"):
        room = providers.checkpoints_of(session.lab).room(session.lab, session.workspace)
    # What a restore replaces is removed first.
    grows = room.taken if replacing is None else max(0, replacing.size - room.taken)
    if grows and room.free < grows + providers.SPARE_MIB:
        raise HostNotFit(
            f"{grows} MiB are needed, with {providers.SPARE_MIB} MiB to spare, and {room.free} MiB are free "
            f"where {session.lab.provider} keeps machines",
            hint="free some: `./inv checkpoints` shows what checkpoints take, and `--remove NAME` removes one; "
            "`./inv bake --prune` removes old golden machines",
        )


def _complete(session: Session, name: str) -> Checkpoint:
    """The complete checkpoint of that name. Raises ConfigError, with the names of those that there are."""
    _require_known(session, name)
    found = checkpoints.find(session.workspace, name)
    if found is None or not found.complete:
        raise LabStateError(
            f"the checkpoint {name} is incomplete: saving it was interrupted",
            hint=f"`./inv checkpoints --remove {name}` removes it",
        )
    return found


def _require_known(session: Session, name: str) -> None:
    names = checkpoints.names(session.workspace)
    if name not in names:
        raise ConfigError(
            [f"this lab has no checkpoint {name!r}"],
            hint=f"its checkpoints: {', '.join(names)}" if names else "`./inv checkpoint NAME` saves one",
        )


def _require_same_lab(session: Session, found: Checkpoint) -> None:
    """Raise ConfigError with what differs between a checkpoint and lab.yaml, or the machines of now."""
    problem = _difference(session, found)
    if problem:
        raise ConfigError([f"the checkpoint {found.name} is of another lab: {problem}"], hint=_WAY_BACK)


_WAY_BACK = (
    "set lab.yaml back to the checkpoint's values, the first of each pair, then repeat the command; if "
    "machines were added or removed since, `./inv up` first removes or creates them"
)


def _difference(session: Session, found: Checkpoint) -> str:
    """What of a checkpoint differs from lab.yaml or from the machines that there are; "" if nothing."""
    changed = change(
        found.made.lab,
        session.lab,
        sizes_enforced=provider_of(found.made.lab).enforces_sizes,
        manifests=(found.made.manifest, _manifest(session)),
    )
    differing = [f"{each.key}: {each.before} → {each.after}" for each in _that_matter(changed)]
    now = session.made.machines if session.made else {}
    then = found.made.machines
    more = [f"{name} was created since" for name in now if name not in then]
    less = [f"{name} was removed since" for name in then if name not in now]
    return "; ".join([*differing, *more, *less])


def _that_matter(changed: Change) -> list[Setting]:
    """The changed keys that affect machines."""
    return [each for each in changed.settings if each not in changed.untouched]


def _manifest(session: Session) -> str:
    try:
        return made.manifest_sha256(session.lab)
    except OSError:
        return ""  # which `up` reports; machines have a copy of it


def _require_saved(session: Session, found: Checkpoint) -> None:
    """Raise LabStateError with the machines whose states can't be loaded, and why."""
    lab, workspace, saving = session.lab, session.workspace, providers.checkpoints_of(session.lab)
    with session.progress.asking("the machines' saved states"):
        problems = {
            node.name: saving.problem(lab, workspace, node, found.name, found.machines[node.name])
            for node in lab.nodes
        }
    said = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if said:
        raise LabStateError(
            f"the checkpoint {found.name} can't be restored: {'; '.join(said)}",
            hint=f"`./inv checkpoints` lists the others; `--remove {found.name}` removes this one",
        )


def _states(session: Session) -> Mapping[str, MachineState]:
    with session.progress.asking("what state the machines are in"):
        return providers.states(session.lab, session.workspace)


def _context(session: Session, situation: Situation) -> Context:
    secrets = credentials.new_run_secrets()
    return Context(session.lab, session.workspace, session.remote, session.progress, secrets, situation)


def _start(session: Session, *, healthy: bool) -> None:
    """Start the machines. Only a lab that was healthy is brought to that again: `up` would repair others."""
    record = _record(session)
    session = dataclasses.replace(session, made=render.record_and_write(session, record.golden))
    run = Run(session, credentials.new_run_secrets())
    with session.progress.live():
        run.up(known=True, until="", change=Change()) if healthy else run.start()


def _undo(session: Session, name: str, *, healthy: bool) -> None:
    """After a failure to save: remove what was saved, and start the machines. Only the failure is reported."""
    with contextlib.suppress(LabError):
        _discard(session, name)
        checkpoints.remove(session.workspace, name)
    with contextlib.suppress(LabError):
        _start(session, healthy=healthy)


def _discard(session: Session, name: str) -> None:
    """Remove the machines' states that are saved under that name, complete or not."""
    with session.progress.step("discard", f"remove the saved states of {name}") as step:
        providers.checkpoints_of(session.lab).discard(session.lab, session.workspace, name, step.log)


_INCOMPLETE = "incomplete: saving it was interrupted"


def _all(session: Session) -> dict[str, Checkpoint | str]:
    """Every checkpoint by its name, oldest first; then those that can't be used, each with the reason."""
    usable: list[Checkpoint] = []
    others: dict[str, Checkpoint | str] = {}
    for name in checkpoints.names(session.workspace):
        try:
            found = checkpoints.find(session.workspace, name)
        except LabError as error:
            others[name] = error.message
        else:
            if found and found.complete:
                usable.append(found)
            else:
                others[name] = _INCOMPLETE
    return {each.name: each for each in sorted(usable, key=lambda each: each.taken)} | others


def _remark(session: Session, found: Checkpoint) -> str:
    """Why a checkpoint can't be restored now; "" if nothing is known against it."""
    different = _difference(session, found)
    return f"of another lab: {different}" if different else ""


def _machines(found: Checkpoint) -> str:
    return f"{len(found.machines)}" if found.healthy else f"{len(found.machines)}, not healthy then"


def _with_size(session: Session, name: str) -> str:
    found = _all(session).get(name)
    return f"{name} ({found.size} MiB)" if isinstance(found, Checkpoint) else name


def _moment(found: Checkpoint) -> str:
    return f"{found.taken.astimezone():%Y-%m-%d %H:%M}"


def _age(found: Checkpoint) -> str:
    minutes = int((datetime.now(UTC) - found.taken).total_seconds() // 60)
    for unit, size in (("days", 1440), ("hours", 60)):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit}"
    return f"{minutes} min"
