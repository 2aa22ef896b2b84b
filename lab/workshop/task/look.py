"""Checks tasks on the lab: asks only for what they need, judges it, and counts how often each was checked.

`.lab/tasks.json` has how often a task was checked since it was last done; each time shows one more hint.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.config.shape import whole
from lab.errors import ConfigError, LabError
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.health.status import SOON
from lab.model import Lab
from lab.session import Session
from lab.verbs.up import keep_kubeconfig
from lab.workshop.task import kept
from lab.workshop.task.catalogue import TASKS
from lab.workshop.task.task import Found, Sight, State, Task, state

MAKE = (
    "`./inv up --until load-balancer` creates the machines, for manual work; `./inv up` creates a complete lab"
)


@dataclass(frozen=True)
class Result:
    """The result for a task. `asked` is how often it was checked since it was last done, including now."""

    number: int
    name: str
    title: str
    state: State
    found: tuple[Found, ...] = ()
    hints: tuple[str, ...] = ()
    asked: int = 0


def numbered(word: str) -> Task:
    """The task of that number. Raises ConfigError if there is none."""
    try:
        number = whole(word, range(1, len(TASKS) + 1), "")
    except ValueError as error:
        hint = f"tasks are numbered from 1 to {len(TASKS)}; `./inv task` shows them all"
        raise ConfigError([f"there is no task {word!r}"], hint=hint) from error
    return TASKS[number - 1]


def progress(session: Session) -> tuple[Result, ...]:
    """The results for all tasks; asks everything once. Shows no hints, and does not count as a check."""
    return tuple(
        Result(task.number, task.name, task.title, state(found), found)
        for task, found in zip(TASKS, _judged(session, TASKS), strict=True)
    )


def ask(session: Session, task: Task) -> Result:
    """The result for one task, with one more hint than the last time."""
    (found,) = _judged(session, (task,), again=task.asks is not None and task.asks.api)
    asked = _count(session, task, done=not found)
    hints = tuple(filled(hint, session.lab) for hint in task.hints[:asked])
    return Result(task.number, task.name, task.title, state(found), found, hints, asked)


def _judged(session: Session, tasks: Sequence[Task], *, again: bool = False) -> list[tuple[Found, ...]]:
    """What each task lacks.

    With `again`, machines and API are asked once more if one lacks something: a cluster has slow moments.
    """
    absent = _absent(session)
    nothing = Sight(session.lab, _nothing(session), kept.look(session))
    if absent:
        return [(absent,) if task.asks else task.judge(nothing) for task in tasks]
    barred = {task.number: task.barred(nothing) for task in tasks}
    free = [task for task in tasks if not barred[task.number]]
    found = _asked(session, nothing, free)
    if again and any(found.values()):
        time.sleep(SOON * session.lab.patience)
        found = _asked(session, nothing, free)
    return [barred[task.number] or found[task.number] for task in tasks]


def _asked(session: Session, nothing: Sight, tasks: Sequence[Task]) -> dict[int, tuple[Found, ...]]:
    """What each task lacks by its number, from what the machines answer now."""
    sight = replace(nothing, facts=_gathered(session, tasks))
    return {task.number: task.judge(sight) for task in tasks}


def _absent(session: Session) -> Found | None:
    """Why no machine can be asked; nothing may be sent to the lab's addresses then."""
    expected = "the lab's machines run"
    if not session.workspace.has_machines() or not session.workspace.ssh_config.exists():
        return Found("not yet", "", expected, f"{session.lab.name} has not been brought up", MAKE)
    reason = session.remote.route_problem()
    if reason:
        return Found("broken", "", expected, reason, "`./inv up` starts what does not run")
    return None


def _gathered(session: Session, tasks: Sequence[Task]) -> Facts:
    asks = [task.asks for task in tasks if task.asks]
    if not asks:
        return _nothing(session)
    lab, cluster = session.lab, any(each.api for each in asks)
    if cluster and not session.workspace.kubeconfig.exists():
        with contextlib.suppress(LabError):  # if it differs from the lab's, a task finds that
            keep_kubeconfig(session)
    # The same names for all machines; each answers only those that its role knows.
    named = dict.fromkeys(name for each in asks for name in each.answers)
    answers = () if any(not each.answers for each in asks) else tuple(named)
    of = {node for each in asks for node in each.machines(lab)}
    asker = by_ssh(session.remote)
    return gather(
        lab, session.workspace, session.remote, asker, probes=False, answers=answers, of=of, cluster=cluster
    )


def _nothing(session: Session) -> Facts:
    asker = by_ssh(session.remote)
    return gather(session.lab, session.workspace, session.remote, asker, probes=False, of=(), cluster=False)


def _count(session: Session, task: Task, *, done: bool) -> int:
    """Count one more check, or start again once the task is done. Counts nothing without a lab.

    If the count can't be written, no further hints are shown; the result matters more.
    """
    file = session.workspace.tasks
    if not session.workspace.has_machines():
        return 0
    counts: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        read = json.loads(file.read_text(encoding="utf-8"))
        counts = {key: count for key, count in read.items() if isinstance(count, int)}
    asked = 0 if done else counts.get(str(task.number), 0) + 1
    counts[str(task.number)] = asked
    with contextlib.suppress(LabError):
        session.workspace.write(file, json.dumps(counts, indent=2, sort_keys=True) + "\n")
    return asked


def filled(hint: str, lab: Lab) -> str:
    """Return a hint with the names of the lab's machines filled in."""
    return hint.format(first=lab.first.name, balancer=", ".join(node.name for node in lab.balancers))
