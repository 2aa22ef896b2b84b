"""Computes figures from a recording, and compares each with its limit. Pure.

Pauses of the host are never subtracted from a figure; their share is shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Literal, TypeVar

from lab.drill.recording import Figure, Pause, Recording, Sample

SLOW = 1.0
"""Seconds after which a response counts as slow."""

LATER = 5.0
"""Seconds after the injection after which a failure counts as late."""

PER_PROBE = {
    "asked": "requests started after the injection",
    "failed": "of those, the failed ones",
    "failed_after_5s": "of the failed ones, those started later than 5 s after the injection",
    "in_flight_lost": "requests started before the injection and failed after it",
    "failed_before": "requests that failed before the injection",
    "slow": "requests started after the injection and answered after more than 1 s",
    "slow_paused": "of the slow ones, those during which this host paused",
    "slowest_s": "the longest time of a request started after the injection, answered or not",
    "longest_gap_s": "the longest time without a successful response, from the injection to the last request",
    "gap_paused_s": "how much of that time this host paused",
}
"""Figures of each of PROBES, by the part of their name after the dot, with their meaning."""

PROBES = ("connections", "writes", "service")

FIGURES = {
    "detect_s": "from the injection until the load balancer or the cluster detected it",
    **{f"{probe}.{name}": text for probe in PROBES for name, text in PER_PROBE.items()},
    "writes.lost": "acknowledged writes that the cluster did not have at the end",
    "watch.gap_s": "the longest time without a watch event, from the injection to the event of the last write",
    "watch.gap_paused_s": "how much of that time this host paused",
    "watch.missed": "acknowledged writes that the watch never received",
    "watch.repeated": "events that the watch received twice",
    "watch.out_of_order": "acknowledged writes that the watch received after a later one",
    "watch.cut": "watch streams that broke or stalled after the injection",
    "leader_changes": "etcd leader changes during the run",
    "address.moves": "how often a load balancer took the API's address after the injection",
    "address.nowhere_s": "the longest time after the injection in which no load balancer had the API's address",
    "address.twice_s": "how long after the injection both load balancers had the API's address",
    "pauses.longest_s": "the longest time in which this host ran no probe",
    "whole_s": "from the revert (from the injection, if nothing was reverted) until everything has recovered",
}
"""Every figure, in order, with its meaning; then `detect_s.WHAT` and `whole_s.COMPONENT`, one for each mark.

Last is `ended_at.MACHINE` for each of two load balancers.
"""

DETECT, RECOVERY, ENDED = "detect_s", "whole_s", "ended_at"

T = TypeVar("T")
Values = dict[str, float | None]


def figures(recording: Recording, limits: Mapping[str, float]) -> tuple[Figure, ...]:
    """Every figure of a run, in FIGURES' order, each with its limit (name → maximum), if any.

    A limit for something that was not observed gives a figure without a value, which fails. Raises ValueError
    for a limit on an unknown figure, which would never be judged.
    """
    unknown = [name for name in limits if name not in FIGURES and not _of_a_mark(name)]
    if unknown:
        raise ValueError(f"there is no figure {', '.join(unknown)} to limit: see lab.drill.figures.FIGURES")
    values = _values(recording)
    names = [*values, *(name for name in limits if name not in values)]
    return tuple(
        Figure(name=name, value=values.get(name), unit=unit(name), limit=limits.get(name)) for name in names
    )


def sentence(name: str) -> str:
    """What a figure means."""
    kind, _, what = name.partition(".")
    if kind == ENDED:
        return f"connections through {what} that ended while the fault was in"
    if not _of_a_mark(name):
        return FIGURES[name]
    return (
        f"from the revert until {what} has recovered"
        if kind == RECOVERY
        else f"from the injection until {what}"
    )


def _of_a_mark(name: str) -> bool:
    return name.startswith((f"{DETECT}.", f"{RECOVERY}."))


def unit(name: str) -> Literal["s", ""]:
    """A figure's unit: "s", or "" for a count."""
    return "s" if name.endswith("_s") or _of_a_mark(name) else ""


def _values(recording: Recording) -> Values:
    injected = recording.started
    values: Values = dict.fromkeys(FIGURES)
    if injected is not None:
        values |= _detected(recording, injected) | _recovered(recording, injected)
        for probe in PROBES:
            found = _requests(getattr(recording, probe), injected, recording.pauses)
            values |= {f"{probe}.{name}": value for name, value in found.items()}
        values |= _watch_gap(recording, injected)
        if recording.streams:
            values["watch.cut"] = _count(recording.streams, lambda s: bool(s.error) and s.ended >= injected)
        values |= _address(recording, injected)
    values |= _kept(recording)
    values |= {f"{ENDED}.{name}": count for name, count in recording.ended_at.items()}
    values["leader_changes"] = recording.leader_changes
    values["pauses.longest_s"] = max((pause.seconds for pause in recording.pauses), default=0.0)
    return {name: None if value is None else round(value, 3) for name, value in values.items()}


def _detected(recording: Recording, injected: float) -> Values:
    found: dict[str, float] = {}
    for mark in recording.marks:
        if mark.kind == "detect" and mark.at >= injected:
            name = f"{DETECT}.{mark.what}"
            found[name] = min(found.get(name, mark.at - injected), mark.at - injected)
    return {DETECT: min(found.values(), default=None), **found}


def _recovered(recording: Recording, injected: float) -> Values:
    """Each component's recovery time, by its first mark after the injection; 0 if before the revert."""
    healed = recording.ended
    since = injected if healed is None else healed
    found: dict[str, float] = {}
    for mark in recording.marks:
        if mark.kind == "whole" and mark.at >= injected:
            name = f"{RECOVERY}.{mark.what}"
            found[name] = min(found.get(name, mark.at), mark.at)
    times = {name: max(0.0, at - since) for name, at in found.items()}
    return {RECOVERY: max(times.values(), default=None), **times}


def _requests(samples: tuple[Sample, ...], injected: float, pauses: tuple[Pause, ...]) -> Values:
    """PER_PROBE's figures of one probe; those about requests after the injection are None without any."""
    before = [sample for sample in samples if sample.started < injected]
    asked = [sample for sample in samples if sample.started >= injected]
    if not samples:
        return {}
    values: Values = {
        "asked": len(asked),
        "in_flight_lost": _count(before, lambda s: bool(s.error) and s.ended >= injected),
        "failed_before": _count(before, lambda s: bool(s.error) and s.ended < injected),
    }
    if not asked:
        return values
    slow = [sample for sample in asked if not sample.error and sample.seconds > SLOW]
    answers = [sample.ended for sample in samples if not sample.error]
    gap = _longest(injected, answers, max(sample.ended for sample in asked))
    return values | {
        "failed": _count(asked, lambda s: bool(s.error)),
        "failed_after_5s": _count(asked, lambda s: bool(s.error) and s.started > injected + LATER),
        "slow": len(slow),
        "slow_paused": _count(slow, lambda s: _paused(pauses, s.started, s.ended) > 0),
        "slowest_s": max(sample.seconds for sample in asked),
        "longest_gap_s": gap[1] - gap[0],
        "gap_paused_s": _paused(pauses, *gap),
    }


def _watch_gap(recording: Recording, injected: float) -> Values:
    """The longest silence, until the last acknowledged write's event, or the run's end if that never came."""
    moments = [event.at for event in recording.watch if event.at >= injected]
    if not moments:
        return {}
    unseen = _acknowledged(recording) - {event.value for event in recording.watch}
    owed = bool(unseen) and max(unseen) > max(event.value for event in recording.watch)
    until = max([recording.seconds, *moments]) if owed else max(moments)
    gap = _longest(injected, moments, until)
    return {"watch.gap_s": gap[1] - gap[0], "watch.gap_paused_s": _paused(recording.pauses, *gap)}


def _address(recording: Recording, injected: float) -> Values:
    """Where the shared address was after the injection; nothing where it is not known, or none is shared."""
    if not recording.holders:
        return {}
    edges = sorted({injected, recording.seconds, *(e for h in recording.holders for e in (h.since, h.until))})
    spans = [(one, other) for one, other in pairwise(edges) if one >= injected]
    counts = [sum(h.since <= one and other <= h.until for h in recording.holders) for one, other in spans]
    nowhere = [span for span, count in zip(spans, counts, strict=True) if count == 0]
    twice = [span for span, count in zip(spans, counts, strict=True) if count > 1]
    return {
        "address.moves": sum(each.since >= injected for each in recording.holders),
        "address.nowhere_s": max((other - one for one, other in nowhere), default=0.0),
        "address.twice_s": sum(other - one for one, other in twice),
    }


def _kept(recording: Recording) -> Values:
    """What happened to acknowledged writes; None if there were none."""
    acknowledged = _acknowledged(recording)
    if not acknowledged:
        return {}
    seen = [event.value for event in recording.watch]
    return {
        # The ConfigMap has at least the number 0 that it started with, so an empty result means "not read".
        "writes.lost": len(acknowledged - set(recording.read_back)) if recording.read_back else None,
        "watch.missed": len(acknowledged - set(seen)),
        "watch.repeated": len(seen) - len(set(seen)),
        "watch.out_of_order": _out_of_order(value for value in dict.fromkeys(seen) if value in acknowledged),
    }


def _acknowledged(recording: Recording) -> set[int]:
    return {sample.value for sample in recording.writes if not sample.error}


def _out_of_order(values: Iterable[int]) -> int:
    """How many come after a greater one. Writes that timed out may arrive late, and are not counted."""
    greatest = late = 0
    for value in values:
        late += value < greatest
        greatest = max(greatest, value)
    return late


def _longest(since: float, moments: Iterable[float], until: float) -> tuple[float, float]:
    """The longest interval between two times, including `since` and `until`."""
    edges = [since, *sorted(moment for moment in moments if since < moment < until), until]
    return max(pairwise(edges), key=lambda stretch: stretch[1] - stretch[0])


def _paused(pauses: Iterable[Pause], since: float, until: float) -> float:
    """Seconds of pauses between two times."""
    shares = (min(until, pause.at + pause.seconds) - max(since, pause.at) for pause in pauses)
    return sum(share for share in shares if share > 0)


def _count(found: Iterable[T], holds: Callable[[T], bool]) -> int:
    return sum(map(holds, found))
