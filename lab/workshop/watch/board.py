"""The last answer of each source, and when it came. Sources write it, each on its own; the view reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from lab.health.cluster import BackendFact, NodeFact
from lab.health.facts.api import LeaseFact
from lab.health.facts.machine import EtcdStatus

NODES, LEASES = "nodes", "leases"
"""The names of the two sources that are questions to the API; the others are machines' names."""


@dataclass(frozen=True)
class Balancing:
    """A load balancer: whether it has the API's address, and its HAProxy's servers in their order.

    `problem` is why HAProxy does not say them; it may have stopped where the address still is.
    """

    holds: bool
    servers: tuple[BackendFact, ...]
    problem: str = ""


@dataclass(frozen=True)
class Nodes:
    """The cluster's nodes, as the API has them."""

    nodes: tuple[NodeFact, ...]


@dataclass(frozen=True)
class Leases:
    """The leases of kube-system, and this host's time when they were asked for."""

    leases: tuple[LeaseFact, ...]
    asked_at: datetime


Answer = Balancing | EtcdStatus | Nodes | Leases


@dataclass(frozen=True)
class Heard:
    """A source's last answer, when it came by the board's clock, and why no newer one has come ("" if one may).

    Before the first answer, `answer` and `at` are None.
    """

    answer: Answer | None = None
    at: float | None = None
    problem: str = ""


@dataclass
class Board:
    """What was heard of each source, by its name: a machine's, `nodes` or `leases`. `clock` is in seconds."""

    clock: Callable[[], float]
    _heard: dict[str, Heard] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _count: int = 0

    def answered(self, source: str, answer: Answer) -> None:
        """Keep a new answer."""
        self._put(source, Heard(answer, self.clock()))

    def failed(self, source: str, problem: str) -> None:
        """Keep why a source does not answer now, beside its last answer."""
        with self._changed:
            self._put(source, replace(self._heard.get(source, Heard()), problem=problem))

    def heard(self) -> Mapping[str, Heard]:
        """All that was heard, as it is now."""
        with self._changed:
            return dict(self._heard)

    def wait(self, seen: int, seconds: float) -> int:
        """Wait until there is more than was `seen`, or for so many seconds; return the next `seen`."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, seconds)
            return self._count

    def _put(self, source: str, heard: Heard) -> None:
        with self._changed:
            self._heard[source] = heard
            self._count += 1
            self._changed.notify_all()
