"""Arranges a report: drills, their profiles, and each figure over the repeats. Pure.

Report → Drill(name, profiles) → Runs(profile, results) → Row(name, median, low, high, limit, broken)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from lab.drill.recording import Figure, Report, Result, Title
from lab.drill.stories import STORIES
from lab.drill.words import ENDED, RECOVERY

FIRST_PROFILES = ("tuned", "reference")
GAP = "longest_gap_s"

ALWAYS = (
    *("detect_s", "connections.longest_gap_s", "connections.failed", "connections.slow"),
    *("writes.longest_gap_s", "writes.failed", "writes.slow", "writes.lost"),
    *("service.longest_gap_s", "service.failed", "service.slow"),
    *("watch.gap_s", "watch.missed", "watch.repeated", "watch.cut", "leader_changes", "whole_s"),
    *("address.moves", "address.nowhere_s", "address.twice_s"),
)
"""Figures that are shown even without a limit."""


@dataclass(frozen=True)
class Row:
    """One figure over a drill's runs. `median` None: no run has it. `limit` None: shown, not judged."""

    name: str
    median: float | None
    low: float | None
    high: float | None
    limit: float | None
    runs: int
    unseen: int
    broken: int

    @property
    def holds(self) -> bool:
        """Whether it held in every run."""
        return not self.broken

    @property
    def matters(self) -> bool:
        """Whether a short table shows it."""
        return self.limit is not None or self.name in ALWAYS or self.name.startswith((RECOVERY, ENDED))


@dataclass(frozen=True)
class Runs:
    """All runs of a drill with one profile, in the order of their numbers."""

    profile: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> int:
        """How many runs passed."""
        return sum(result.passed for result in self.results)

    @property
    def problems(self) -> tuple[tuple[int, str], ...]:
        """Runs that were not completed, and why."""
        return tuple((result.recording.run, result.problem) for result in self.results if result.problem)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every figure that any run has or judges, in order of first appearance."""
        names = dict.fromkeys(figure.name for result in self.results for figure in result.figures)
        rows = (_row(name, self.results) for name in names)
        return tuple(row for row in rows if row.median is not None or row.limit is not None)

    def row(self, name: str) -> Row | None:
        """One figure over the runs; None if no run has or judges it."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def shown(self) -> tuple[Result, Literal["worst", "median"]]:
        """The run to show: the worst if any failed, otherwise the median by its longest gap."""
        ranked = sorted(self.results, key=_badness)
        if self.passed < len(ranked):
            return ranked[-1], "worst"
        return ranked[len(ranked) // 2], "median"


@dataclass(frozen=True)
class Drill:
    """One drill, or one measured change, with all its profiles, tuned first."""

    name: str
    profiles: tuple[Runs, ...]

    @property
    def title(self) -> Title | None:
        """The title of a measured change; None for a drill."""
        return self.profiles[0].results[0].recording.title

    @property
    def names(self) -> tuple[str, ...]:
        """The figures of all profiles, in order."""
        return tuple(dict.fromkeys(row.name for runs in self.profiles for row in runs.rows))


def summarise(report: Report) -> tuple[Drill, ...]:
    """Return the report's drills: those with a description in its order, then the others."""
    names = dict.fromkeys(result.recording.drill for result in report.results)
    order = [*(name for name in STORIES if name in names), *(name for name in names if name not in STORIES)]
    return tuple(Drill(name, _profiles(report, name)) for name in order)


def profiles(report: Report) -> tuple[str, ...]:
    """Return the HAProxy profiles in the report, tuned first."""
    return _ordered({result.recording.profile for result in report.results})


def _profiles(report: Report, drill: str) -> tuple[Runs, ...]:
    found: dict[str, list[Result]] = {}
    for result in report.results:
        if result.recording.drill == drill:
            found.setdefault(result.recording.profile, []).append(result)
    return tuple(
        Runs(profile, tuple(sorted(found[profile], key=lambda result: result.recording.run)))
        for profile in _ordered(set(found))
    )


def _ordered(names: set[str]) -> tuple[str, ...]:
    return (*(n for n in FIRST_PROFILES if n in names), *sorted(names - set(FIRST_PROFILES)))


def _row(name: str, results: tuple[Result, ...]) -> Row:
    figures = [figure for result in results for figure in result.figures if figure.name == name]
    seen = sorted(figure.value for figure in figures if figure.value is not None)
    return Row(
        name,
        median(seen) if seen else None,
        seen[0] if seen else None,
        seen[-1] if seen else None,
        min((figure.limit for figure in figures if figure.limit is not None), default=None),
        len(figures),
        len(figures) - len(seen),
        sum(not figure.holds for figure in figures),
    )


def _badness(result: Result) -> tuple[bool, int, float]:
    """A sort key for how bad a run is: not completed, limits exceeded, longest gap of any probe."""
    gaps = [_gap(figure) for figure in result.figures if figure.name.endswith(GAP)]
    return bool(result.problem), sum(not f.holds for f in result.figures), max(gaps, default=0.0)


def _gap(figure: Figure) -> float:
    return figure.value if figure.value is not None else 0.0
