"""Reads from HAProxy's log when it marked API servers down and up."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from itertools import chain

from lab.drill.recording import Mark
from lab.model import Node
from lab.session import Session

# HAProxy, configuration manual 8.2.1 and server.c: what is logged when checks change a server's state.
CHANGED = re.compile(r"Server apiserverbackend/(\S+) is (DOWN|UP)\b")


def read(session: Session, balancer: Node, since: float) -> tuple[tuple[float, str, bool], ...]:
    """When servers went down or up (True) since then, by this host's clock, without duplicates, in order.

    Raises CommandFailed if that load balancer can't be asked.
    """
    asked = time.time()
    command = f"date +%s.%N; sudo journalctl --unit haproxy --output json --since @{since:.6f}"
    said = session.remote.run(balancer, [command], timeout=30).stdout.splitlines()
    ahead = float(said[0]) - (asked + time.time()) / 2 if len(said) > 1 else 0.0
    return changes(said[1:], ahead)


def changes(lines: Iterable[str], ahead: float) -> tuple[tuple[float, str, bool], ...]:
    """Parse journald's JSON lines from a machine whose clock is `ahead` seconds ahead of ours.

    HAProxy reports each change on standard error and to syslog; duplicates are dropped.
    """
    found: list[tuple[float, str, bool]] = []
    state: dict[str, bool] = {}
    for line in lines:
        entry = json.loads(line)
        match = CHANGED.search(str(entry.get("MESSAGE", "")))
        if match and state.get(match[1]) != (match[2] == "UP"):
            state[match[1]] = match[2] == "UP"
            found.append((int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - ahead, match[1], state[match[1]]))
    return tuple(sorted(found))


def marks(session: Session, wall: float, injected: float, healed: float) -> tuple[Mark, ...]:
    """Marks for the changes in HAProxy's log; `wall` is the wall clock at the recording's zero.

    Down after the fault means detected; up after the revert means recovered. All load balancers are asked, and
    each change is a mark.
    """
    noticed = []
    for at, name, up in _changes(session, wall, injected):
        if not up and injected <= at <= healed:
            noticed.append(Mark(at=at, kind="detect", what=f"HAProxy takes {name} out"))
        elif up and at > healed:
            noticed.append(Mark(at=at, kind="whole", what=f"{name} behind the load balancer"))
    return tuple(noticed)


def steps(session: Session, wall: float, began: float) -> tuple[Mark, ...]:
    """The same for a change, of which every server's going out and coming back is a step."""
    said = {True: "{} behind the load balancer", False: "HAProxy takes {} out"}
    return tuple(
        Mark(at=at, kind="step", what=said[up].format(name)) for at, name, up in _changes(session, wall, began)
    )


def _changes(session: Session, wall: float, since: float) -> list[tuple[float, str, bool]]:
    """When servers of any load balancer went down or up (True) since then, on the recording's clock."""
    said = [read(session, balancer, wall + since) for balancer in session.lab.balancers]
    return [(at - wall, name, up) for at, name, up in sorted(chain.from_iterable(said))]
