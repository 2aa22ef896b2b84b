"""Repeats the status until Ctrl-C, with what has changed since the last look marked.

On a terminal the table is drawn again in its place, with the newest changes below it. Elsewhere each change is
a line with its time, after one complete table.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from lab.health import status
from lab.health.status import COLOURS, Status
from lab.session import Session

INTERVAL = 5.0
"""Seconds from the end of a look to the next one, each of which asks every machine everything."""

SHOWN = 8
"""How many of the newest changes are below the table."""


def watch(session: Session) -> None:
    """Show the status again and again. Ends with KeyboardInterrupt only."""
    console = session.progress.console
    before: Status | None = None
    newest: deque[Text] = deque(maxlen=SHOWN)
    wait = INTERVAL * session.lab.patience
    while True:
        found = status.look(session)
        stamp = time.strftime("%H:%M:%S")
        lines = [Text(f"{stamp}  {line}", COLOURS[found.health]) for line in changes(before, found)]
        newest.extend(lines)
        if console.is_interactive:
            end = f"as of {stamp}; the next look is in {wait:.0f} s; Ctrl-C ends"
            _draw(console, found, before, newest, end)
        elif before is None:
            console.print(status.shown(found))
            console.print(f"{stamp}  changes follow, Ctrl-C ends")
        else:
            for line in lines:
                console.print(line, soft_wrap=True)
        before = found
        time.sleep(wait)


def changes(before: Status | None, after: Status) -> tuple[str, ...]:
    """What differs between two looks, a line each; nothing of the first one."""
    return () if before is None else tuple(_changes(before, after))


def changed(before: Status | None, after: Status) -> frozenset[str]:
    """The names of the machines whose row differs between two looks."""
    known = {machine.name: machine for machine in before.machines} if before else {}
    return frozenset(each.name for each in after.machines if known.get(each.name, each) != each)


def _draw(console: Console, found: Status, before: Status | None, newest: deque[Text], end: str) -> None:
    console.clear()
    console.print(status.shown(found, changed(before, found)))
    console.print()
    for line in newest:
        console.print(line)
    console.print(end)


def _changes(before: Status, after: Status) -> Iterator[str]:
    if before.health != after.health:
        why = f": {after.problem}" if after.problem else ""
        yield f"{after.lab}: {before.health} → {after.health}{why}"
    if before.holder != after.holder:
        yield f"API's address: {before.holder or 'unknown'} → {after.holder or 'unknown'}"
    if before.leader != after.leader:
        yield f"etcd's leader: {before.leader or 'none known'} → {after.leader or 'none known'}"
    known = {machine.name: machine for machine in before.machines}
    for machine in after.machines:
        was = known.get(machine.name, machine)
        for what, old, new in (
            ("answers", _answers(was), _answers(machine)),
            ("cluster", was.cluster, machine.cluster),
            ("version", was.version or "-", machine.version or "-"),
            ("if lost", was.if_lost or "-", machine.if_lost or "-"),
        ):
            if old != new:
                yield f"{machine.name}: {what}: {old} → {new}"
    # A problem's words may have figures that differ each time, so its check identifies it.
    yield from _come_and_gone("problem", _by_check(before.problems), _by_check(after.problems))
    causes = [{cause.what: cause.sentence for cause in each.causes} for each in (before, after)]
    yield from _come_and_gone("cause", *causes)


def _answers(machine: status.MachineStatus) -> str:
    return "yes" if machine.answers else f"no: {machine.state}" if machine.state else "no"


def _by_check(problems: tuple[str, ...]) -> dict[str, str]:
    return {line.partition(": ")[0]: line for line in problems}


def _come_and_gone(kind: str, before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    yield from (f"{kind}: {line}" for key, line in after.items() if key not in before)
    yield from (f"no longer a {kind}: {line}" for key, line in before.items() if key not in after)
