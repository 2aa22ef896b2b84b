"""Computes the layout of a run's timeline, which the page's template draws. Pure.

Horizontal positions are per cent of the width, and bars are counted in `BINS`, so that the drawing fits phones
and large screens. Vertical ones are pixels. A bin shows its worst and slowest sample, so thousands of samples
need no more space than hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lab.drill.figures import SLOW
from lab.drill.recording import Mark, Recording

BINS = 400
FASTEST, DECADES = 0.001, 4
"""The logarithmic scale of the bars: from a millisecond, over this many decades."""

UP, DOWN = 34, 7
"""Pixels of a lane above its baseline, for responses, and below it, for failures only."""

LABEL, TITLE, GAP, AXIS = 17, 18, 10, 36
HELD = 8
"""Pixels of a bar that shows when a load balancer had the API's address."""

RIGHT_SIDE = 55.0
"""From this per cent on, a label is to the left of its line, so that it stays on the page."""

Side = Literal["start", "middle", "end"]


class Span(NamedTuple):
    """The part of a recording's clock that is drawn, and the second that is shown as 0."""

    start: float
    end: float
    zero: float

    def place(self, at: float) -> float:
        """The position of a time, in per cent of the width."""
        return 100 * min(1.0, max(0.0, (at - self.start) / (self.end - self.start)))

    def bin(self, at: float) -> int:
        """The bin of a time."""
        return min(BINS - 1, int(self.place(at) / 100 * BINS))


class Line(NamedTuple):
    """A drawn mark: `y` is its label's baseline; without a label only the line is drawn."""

    x: float
    mark: Mark
    seconds: float
    y: int
    side: Side
    labelled: bool


class Tick(NamedTuple):
    """A second of the axis."""

    x: float
    text: str
    side: Side


class Counts(NamedTuple):
    """The totals of a lane."""

    asked: int
    slow: int
    failed: int


@dataclass(frozen=True)
class Lane:
    """One probe's bars, one SVG path for each kind in `BINS` × (UP + DOWN); `y` is the lane's top."""

    name: str
    y: int
    counts: Counts
    answered: str
    slow: str
    failed: str
    connected: str = ""


@dataclass(frozen=True)
class HolderRow:
    """When one load balancer had the API's address: bars from and to, in per cent; `y` is the bars' top."""

    machine: str
    y: int
    bars: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Timeline:
    """Everything that is drawn of one run."""

    height: int
    top: int
    bottom: int
    injected: bool
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    pauses: tuple[tuple[float, float], ...]
    lanes: tuple[Lane, ...]
    holders: tuple[HolderRow, ...]
    wholes: tuple[float, ...]
    wholes_y: int


class Seen(NamedTuple):
    """One response in a lane."""

    started: float
    ended: float
    failed: bool


def timeline(recording: Recording, before: float | None = None, after: float | None = None) -> Timeline:
    """Return the drawing of a run, from `before` seconds before the injection to `after` seconds after it.

    Both default to the run's own; drawings to be compared get the same values.
    """
    span = _span(recording, before, after)
    lines = _lines(recording.marks, span)
    top = LABEL * sum(line.labelled for line in lines) + 4
    lanes = _lanes(recording, span, top)
    wholes = tuple(span.place(mark.at) for mark in recording.marks if mark.kind == "whole")
    holders = _holders(recording, span, top + len(lanes) * (TITLE + UP + DOWN + GAP))
    wholes_y = top + len(lanes) * (TITLE + UP + DOWN + GAP) + len(holders) * (TITLE + HELD + GAP)
    bottom = wholes_y + (TITLE + 12 if wholes else 0)
    return Timeline(
        height=bottom + AXIS,
        top=top,
        bottom=bottom,
        injected=recording.started is not None,
        ticks=_ticks(span),
        lines=lines,
        pauses=tuple((span.place(p.at), span.place(p.at + p.seconds)) for p in recording.pauses),
        lanes=lanes,
        holders=holders,
        wholes=wholes,
        wholes_y=wholes_y,
    )


def reach(recording: Recording) -> tuple[float, float]:
    """Return the seconds that a run has before its injection, and after it."""
    zero = recording.started or 0.0
    return zero, max(recording.seconds, zero) - zero


def _span(recording: Recording, before: float | None, after: float | None) -> Span:
    zero = recording.started or 0.0
    own = reach(recording)
    start = zero - (own[0] if before is None else before)
    end = zero + (own[1] if after is None else after)
    return Span(start, max(end, start + 1), zero)


def _lines(marks: tuple[Mark, ...], span: Span) -> tuple[Line, ...]:
    """Lines for all marks; the first of each kind (for `whole`: the last) has a label in a row of its own.

    Steps of a change have no labels, since there are too many.

    Labels to the right of their lines are in order of time, those to the left in reverse order, so that no line
    crosses a label on its side.
    """
    ordered = sorted(marks, key=lambda mark: mark.at)
    labelled: dict[str, Mark] = {}
    for mark in ordered:
        if mark.kind == "whole" or mark.kind not in {*labelled, "step"}:
            labelled[mark.kind] = mark
    right = [m for m in labelled.values() if span.place(m.at) < RIGHT_SIDE]
    left = [m for m in labelled.values() if span.place(m.at) >= RIGHT_SIDE]
    rows = sorted(right, key=lambda m: m.at) + sorted(left, key=lambda m: -m.at)
    lines = [_line(mark, span, (row + 1) * LABEL, labelled=True) for row, mark in enumerate(rows)]
    height = len(rows) * LABEL
    others = [mark for mark in ordered if mark not in rows and mark.kind != "whole"]
    return (*(_line(mark, span, height, labelled=False) for mark in others), *lines)


def _line(mark: Mark, span: Span, y: int, *, labelled: bool) -> Line:
    x = span.place(mark.at)
    return Line(x, mark, mark.at - span.zero, y - 4, "start" if x < RIGHT_SIDE else "end", labelled)


def _ticks(span: Span) -> tuple[Tick, ...]:
    first, last = span.start - span.zero, span.end - span.zero
    step = _step((last - first) / 6)
    found = []
    for number in range(math.ceil(first / step), math.floor(last / step) + 1):
        x = span.place(span.zero + number * step)
        side: Side = "start" if x < 3 else "end" if x > 97 else "middle"
        found.append(Tick(x, f"{number * step:g}".replace("-", "−"), side))
    return tuple(found)


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)


def _lanes(recording: Recording, span: Span, top: int) -> tuple[Lane, ...]:
    """A lane for every probe with samples, one below the other."""
    probes = {
        "connections": [Seen(s.started, s.ended, bool(s.error)) for s in recording.connections],
        "writes": [Seen(s.started, s.ended, bool(s.error)) for s in recording.writes],
        "watch": _watched(recording),
        "service": [Seen(s.started, s.ended, bool(s.error)) for s in recording.service],
    }
    lanes: list[Lane] = []
    for name, seen in probes.items():
        if seen:
            y = top + len(lanes) * (TITLE + UP + DOWN + GAP) + TITLE
            connected = _connected(recording, span) if name == "watch" else ""
            lanes.append(_lane(name, y, seen, span, connected))
    return tuple(lanes)


def _holders(recording: Recording, span: Span, top: int) -> tuple[HolderRow, ...]:
    """A row for each load balancer that had the shared address at some time, by name."""
    names = sorted({each.machine for each in recording.holders})
    return tuple(
        HolderRow(
            name,
            top + index * (TITLE + HELD + GAP) + TITLE,
            tuple(
                (span.place(each.since), span.place(each.until))
                for each in recording.holders
                if each.machine == name
            ),
        )
        for index, name in enumerate(names)
    )


def _watched(recording: Recording) -> list[Seen]:
    """Each event, lasting from its write's start to its arrival; and each unwanted end of a stream."""
    began = {write.value: write.started for write in recording.writes}
    events = [Seen(min(began.get(e.value, e.at), e.at), e.at, False) for e in recording.watch]
    return events + [Seen(s.ended, s.ended, True) for s in recording.streams if s.error]


def _lane(name: str, y: int, seen: list[Seen], span: Span, connected: str) -> Lane:
    heights, kinds = [0] * BINS, [0] * BINS
    for one in seen:
        kind = 3 if one.failed else 2 if one.ended - one.started > SLOW else 1
        height = _height(one.ended - one.started)
        # A watch event is drawn at its arrival, since there was no request.
        first = span.bin(one.ended if name == "watch" else one.started)
        for place in range(first, span.bin(one.ended) + 1):
            heights[place] = max(heights[place], height)
            kinds[place] = max(kinds[place], kind)
    heights = [UP if kind == 3 else height for height, kind in zip(heights, kinds, strict=True)]
    counts = Counts(
        sum(not one.failed for one in seen) if name == "watch" else len(seen),
        sum(not one.failed and one.ended - one.started > SLOW for one in seen),
        sum(one.failed for one in seen),
    )
    answered, slow, failed = (_path(_runs(heights, kinds, kind), kind) for kind in (1, 2, 3))
    return Lane(name, y, counts, answered, slow, failed, connected)


def _height(seconds: float) -> int:
    share = math.log10(max(seconds, FASTEST) / FASTEST) / DECADES
    return max(2, round(UP * min(1.0, share)))


def _runs(heights: list[int], kinds: list[int], kind: int) -> Iterable[tuple[int, int, int]]:
    """Neighbouring bins of one kind and height, as (first, how many, height)."""
    start = 0
    while start < BINS:
        end = start + 1
        while end < BINS and (kinds[end], heights[end]) == (kinds[start], heights[start]):
            end += 1
        if kinds[start] == kind:
            yield start, end - start, heights[start]
        start = end


def _path(runs: Iterable[tuple[int, int, int]], kind: int) -> str:
    """Bars as one path; failures reach from the top to below the baseline."""
    if kind == 3:
        return "".join(f"M{x} 0h{n}v{UP + DOWN}h-{n}z" for x, n, _ in runs)
    return "".join(f"M{x} {UP}v-{height}h{n}v{height}z" for x, n, height in runs)


def _connected(recording: Recording, span: Span) -> str:
    """The line for the time in which the watch was connected."""
    return "".join(f"M{span.bin(s.opened)} {UP + 4}H{span.bin(s.ended) + 1}" for s in recording.streams)
