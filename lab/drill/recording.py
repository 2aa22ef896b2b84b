"""The records of a drill: what was observed and when, and the figures computed from it. Frozen, and JSON.

All times are seconds of the host's monotonic clock since the start of the probes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lab.model import Frozen

Kind = Literal["inject", "detect", "heal", "whole", "begin", "step", "end"]
"""Drills have the first four; measured changes have the last three and `whole`. `heal` is the revert of the
fault, `whole` the recovery of a component."""


class Sample(Frozen):
    """One request of a probe; `error` is why it failed, "" if it succeeded.

    `value` is the number that a write wrote; 0 for other probes.
    """

    started: float
    seconds: float
    error: str = ""
    value: int = 0

    @property
    def ended(self) -> float:
        """When the request was answered or had failed."""
        return self.started + self.seconds


class Event(Frozen):
    """One write as the watch received it."""

    at: float
    value: int


class Stream(Frozen):
    """One connection of the watch, and why it ended ("" if the drill ended it)."""

    opened: float
    ended: float
    error: str = ""


class Mark(Frozen):
    """A time: a fault was injected, detected or reverted, or a component recovered.

    For a change: it began, a step began, it ended.
    """

    at: float
    kind: Kind
    what: str


class Pause(Frozen):
    """A time in which this host ran no probe, so that the cluster is not blamed for it."""

    at: float
    seconds: float


class Holding(Frozen):
    """A time in which a load balancer had the API's address, where two share it."""

    machine: str
    since: float
    until: float


class Title(Frozen):
    """A measured change's title, in both languages."""

    en: str
    ko: str


class Recording(Frozen):
    """One run of a drill, or one measured change (which has a `title`), as observed from the host.

    `connections`: new connections, each of which reads an object. `writes`: on a keep-alive connection,
    one after the other. `service`: a Service of the cluster, through its node port. `watch`: every write that a
    watch received. `read_back`: the numbers of all writes that the cluster had at the end. `victims`: the
    machines with the fault. `leader_changes`: of etcd, during the run. `holders`: when each load balancer had
    the API's address, if two share it; `ended_at`: how many connections ended at each while the fault was in.
    """

    drill: str
    lab: str
    profile: str
    run: int
    began: str
    seconds: float
    victims: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    connections: tuple[Sample, ...] = ()
    writes: tuple[Sample, ...] = ()
    service: tuple[Sample, ...] = ()
    watch: tuple[Event, ...] = ()
    streams: tuple[Stream, ...] = ()
    pauses: tuple[Pause, ...] = ()
    read_back: tuple[int, ...] = ()
    leader_changes: int = 0
    holders: tuple[Holding, ...] = ()
    ended_at: dict[str, int] = Field(default_factory=dict)
    title: Title | None = None

    @property
    def started(self) -> float | None:
        """When the fault was injected or the change began; None if neither happened."""
        injected = self.first("inject")
        return self.first("begin") if injected is None else injected

    @property
    def ended(self) -> float | None:
        """When the fault was reverted or the change ended; None if neither happened."""
        healed = self.first("heal")
        return self.first("end") if healed is None else healed

    def first(self, kind: str) -> float | None:
        """The time of the first mark of a kind; None if there is none."""
        return min((mark.at for mark in self.marks if mark.kind == kind), default=None)


class Figure(Frozen):
    """One number of a run. `limit` is its maximum; None: shown, not judged. `value` None: not observed."""

    name: str
    value: float | None
    unit: Literal["s", ""] = ""
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit; without a value it is not."""
        return self.limit is None or (self.value is not None and self.value <= self.limit)


class Exemption(Frozen):
    """A figure without its usual limit in a measured change, and why, in both languages."""

    figure: str
    en: str
    ko: str


class Result(Frozen):
    """One judged run of a drill. `problem` is why it could not be completed, or "".

    `exemptions` are the usual limits that this change does not have.
    """

    recording: Recording
    figures: tuple[Figure, ...] = ()
    problem: str = ""
    exemptions: tuple[Exemption, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the drill was completed and every figure is within its limit."""
        return not self.problem and all(figure.holds for figure in self.figures)


class Report(Frozen):
    """The results of one `drill` command. `host`: conditions of the figures (cores, memory, kernel)."""

    lab: str
    kubernetes: str
    provider: str
    began: str
    host: dict[str, str]
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether every run passed."""
        return bool(self.results) and all(result.passed for result in self.results)
