"""What a drill leaves behind: what was seen and when, and what is made of it. Frozen, and JSON.

All times are seconds on one monotonic clock of the host, counted from the start of the probes.
"""

from __future__ import annotations

from typing import Literal

from lab.model import Frozen

Kind = Literal["inject", "detect", "heal", "whole", "begin", "step", "end"]
"""Of drills the first four; of measured changes the last three, and `whole`."""


class Sample(Frozen):
    """One request of a probe; `error` is why it was not answered as it should be, "" when it was.

    `value` is the number that a write wrote; other probes leave it 0.
    """

    started: float
    seconds: float
    error: str = ""
    value: int = 0

    @property
    def ended(self) -> float:
        """When the answer, or the lack of one, was known."""
        return self.started + self.seconds


class Event(Frozen):
    """One write as the watch saw it."""

    at: float
    value: int


class Stream(Frozen):
    """One connection of the watch, and why it ended ("" when the drill ended it)."""

    opened: float
    ended: float
    error: str = ""


class Mark(Frozen):
    """A moment: the fault went in, somebody noticed, it was undone, a part was whole again.

    Of a change: it began, a step of it began, it ended.
    """

    at: float
    kind: Kind
    what: str


class Pause(Frozen):
    """A time in which this host let no probe run, so that nobody else is blamed for it."""

    at: float
    seconds: float


class Title(Frozen):
    """What a measured change is called, in both languages."""

    en: str
    ko: str


class Recording(Frozen):
    """One run of one drill, or one measured change (which has a `title`), as it was seen from the host.

    `connections`: new connections, GET /readyz each. `writes`: on a kept-alive connection, one after the
    other. `service`: a Service of the cluster, asked at workers. `watch`: every write as a watch saw it.
    `read_back`: the numbers of all writes that the cluster still had at the end. `victims`: the machines
    that the fault was put into. `leader_changes`: of etcd, during the run.
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
    title: Title | None = None

    @property
    def started(self) -> float | None:
        """When the fault was injected, or the change began; None when neither happened."""
        injected = self.first("inject")
        return self.first("begin") if injected is None else injected

    @property
    def ended(self) -> float | None:
        """When the fault was reverted, or the change had ended; None when neither happened."""
        healed = self.first("heal")
        return self.first("end") if healed is None else healed

    def first(self, kind: str) -> float | None:
        """When a kind of mark was first set; None when it never was."""
        return min((mark.at for mark in self.marks if mark.kind == kind), default=None)


class Figure(Frozen):
    """One number of a run. `limit` is the most it may be; None: told, not judged. `value` None: not seen."""

    name: str
    value: float | None
    unit: Literal["s", ""] = ""
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit; what was not seen is not within any."""
        return self.limit is None or (self.value is not None and self.value <= self.limit)


class Exemption(Frozen):
    """A figure that has no limit in one measured change, and why in both languages."""

    figure: str
    en: str
    ko: str


class Result(Frozen):
    """One run of a drill, judged. `problem` is why it could not be carried through, if so.

    `exemptions` are the limits that other changes have and this one has not.
    """

    recording: Recording
    figures: tuple[Figure, ...] = ()
    problem: str = ""
    exemptions: tuple[Exemption, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the drill was carried through and every figure holds."""
        return not self.problem and all(figure.holds for figure in self.figures)


class Report(Frozen):
    """Everything one `drill` command found. `host`: what the figures depend on (cores, memory, kernel)."""

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
