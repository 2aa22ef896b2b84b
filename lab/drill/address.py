"""Which of two load balancers had the API's address when, and how many connections ended there: from logs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lab.drill.recording import Holding, Mark
from lab.model import Node
from lab.session import Session

STATE = re.compile(r"^\((?:api|VI_1)\) Entering (MASTER|BACKUP|FAULT) STATE|^Stopping$")
"""keepalived's vrrp_scheduler.c and main.c: the states of an instance, and that keepalived stops.

The names of the instances are those of provision/templates/keepalived.*.conf.j2.
"""

ENDED = re.compile(r" apiserver apiserverbackend/\S+ ")
"""A line of HAProxy's about a connection that has ended (configuration manual 8.2.2, TCP log format)."""

QUESTION = (
    "date +%s.%N; systemctl show --timestamp unix --property UserspaceTimestamp --value; "
    "sudo journalctl --unit keepalived --unit haproxy --output json --since=-{ago:.0f}s"
)

EARLIER = 60
"""Seconds before the recording from which logs are read; all of them would be too many."""


@dataclass(frozen=True)
class Log:
    """What a load balancer's logs say, in seconds on the recording's clock.

    `booted`: since when it runs. `changes`: when it took the address (True) or released it. `ended`: when
    connections to the API through it ended.
    """

    booted: float
    changes: tuple[tuple[float, bool], ...]
    ended: tuple[float, ...]


def ask(session: Session, balancer: Node, wall: float) -> Log:
    """Ask one load balancer; `wall` is the wall clock at the recording's zero. Raises CommandFailed."""
    asked = time.time()
    said = session.remote.run(
        balancer, [QUESTION.format(ago=asked - wall + EARLIER)], timeout=30
    ).stdout.splitlines()
    zero = wall + float(said[0]) - (asked + time.time()) / 2  # that moment by the machine's clock
    return read(said[1], said[2:], zero)


def read(booted: str, lines: Iterable[str], zero: float) -> Log:
    """Parse systemd's `@SECONDS` and journald's JSON lines; `zero` is the recording's, by that clock."""
    changes: list[tuple[float, bool]] = []
    ended = []
    for line in lines:
        entry = json.loads(line)
        at, message = int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - zero, str(entry.get("MESSAGE", ""))
        state = STATE.search(message)
        if state:
            changes.append((at, state[1] == "MASTER"))
        elif ENDED.search(message):
            ended.append(at)
    return Log(float(booted.removeprefix("@")) - zero, tuple(sorted(changes)), tuple(sorted(ended)))


def holdings(
    logs: Mapping[str, Log], first: Collection[str], injected: float, seconds: float
) -> tuple[Holding, ...]:
    """When each load balancer had the address, in a recording of so many seconds.

    `first` are those that had it at the beginning. One that has booted since the injection lost its power then.
    """
    found = []
    for name, one in logs.items():
        off = [(injected, False)] if one.booted > injected else []
        within = [(at, has) for at, has in one.changes if 0 <= at < seconds]
        since = 0.0 if name in first else None
        for at, has in (*sorted([*off, *within]), (seconds, False)):
            if since is not None and not has:
                found.append(Holding(machine=name, since=since, until=at))
                since = None
            elif since is None and has:
                since = at
    return tuple(sorted(found, key=lambda each: (each.since, each.machine)))


def ended(logs: Mapping[str, Log], injected: float, healed: float) -> dict[str, int]:
    """How many connections ended at each load balancer while the fault was in."""
    return {name: sum(injected <= at <= healed for at in one.ended) for name, one in logs.items()}


def marks(holders: Iterable[Holding], injected: float, healed: float) -> tuple[Mark, ...]:
    """A mark for each load balancer that took the address while the fault was in."""
    return tuple(
        Mark(at=each.since, kind="detect", what=f"{each.machine} has the API's address")
        for each in holders
        if injected <= each.since <= healed
    )
