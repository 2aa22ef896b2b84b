"""Hand-made drill reports for tests: what a run looks like, without a lab. The same every time."""

from __future__ import annotations

import functools
from random import Random

from lab.drill.figures import figures
from lab.drill.recording import Event, Mark, Pause, Recording, Report, Result, Sample, Stream
from lab.drill.stories import STORIES

INJECT, HEAL = 6.0, 46.0
COMPONENTS = ("kube-apiserver cp2", "etcd cp2", "node cp2", "HAProxy's server cp2")
LIMITS = {
    **{
        "detect_s": 3,
        "connections.failed": 3,
        "connections.failed_after_5s": 0,
        "connections.longest_gap_s": 2,
    },
    **{"writes.failed": 3, "writes.longest_gap_s": 5, "writes.lost": 0, "service.failed": 0},
    **{"watch.gap_s": 5, "watch.missed": 0, "watch.repeated": 0, "leader_changes": 1, "whole_s": 120},
}
HOST = {"cores": "2", "memory": "24 GiB", "kernel": "6.1.0-37-amd64"}


def samples(random: Random, count: int, seconds: float, *, down: float, value: int = 0) -> tuple[Sample, ...]:
    """Requests at an even pace: failures for `down` seconds from the injection, then some slow ones."""
    found = []
    for number in range(count):
        started = number * seconds / count
        took, error = random.uniform(0.004, 0.03), ""
        if INJECT <= started < INJECT + down:
            took, error = 0.4, "connection refused"
        elif INJECT + down <= started < INJECT + down + 1.5 and number % 3 == 0:
            took = random.uniform(0.3, 1.8)
        found.append(
            Sample(
                started=round(started, 4),
                seconds=round(took, 4),
                error=error,
                value=value + number if value else 0,
            )
        )
    return tuple(found)


def recording(
    drill: str = "kill-control-plane",
    profile: str = "tuned",
    run: int = 1,
    *,
    count: int = 300,
    down: float = 0.4,
) -> Recording:
    """One run of 90 s with everything in it: marks, a pause of the host, a cut watch."""
    random = Random(f"{drill} {profile} {run}")  # noqa: S311  not for secrets
    seconds = 90.0
    writes = samples(random, count, seconds, down=down, value=1)
    acknowledged = [write for write in writes if not write.error]
    wholes = [
        Mark(at=HEAL + 2 + 4.5 * place + random.random(), kind="whole", what=component)
        for place, component in enumerate(COMPONENTS)
    ]
    return Recording(
        drill=drill,
        lab="ha-lab",
        profile=profile,
        run=run,
        began="2025-11-24T12:30:00+00:00",
        seconds=seconds,
        victims=("cp2",),
        marks=(
            Mark(at=INJECT, kind="inject", what="cp2 killed"),
            Mark(at=INJECT + 0.3 + down, kind="detect", what="HAProxy marked cp2 down"),
            Mark(at=HEAL, kind="heal", what="cp2 started"),
            *wholes,
        ),
        connections=samples(random, count, seconds, down=down),
        writes=writes,
        service=samples(random, count, seconds, down=0),
        watch=tuple(Event(at=write.ended + 0.02, value=write.value) for write in acknowledged),
        streams=(
            Stream(opened=0.2, ended=INJECT + 0.2, error="connection reset"),
            Stream(opened=INJECT + 1.4, ended=seconds),
        ),
        pauses=(Pause(at=20.0, seconds=1.2),),
        # The ConfigMap starts with 0.
        read_back=(0, *(write.value for write in acknowledged)),
        leader_changes=1,
    )


def result(run: Recording) -> Result:
    """A run, judged."""
    return Result(recording=run, figures=figures(run, LIMITS))


def report(*results: Result) -> Report:
    """What one command found."""
    return Report(
        lab="ha-lab",
        kubernetes="1.36.3",
        provider="docker",
        began="2025-11-24T12:30:00+00:00",
        host=HOST,
        results=results or (result(recording()),),
    )


def whole_report(*, runs: int = 5, count: int = 1200, profiles: tuple[str, ...] = ("tuned",)) -> Report:
    """All drills, repeated; with "reference" more fails, and so it does in the last run of one tuned drill."""
    return report(
        *(
            _repeated(drill, profile, run, count, _down(drill, profile, run))
            for drill in STORIES
            for profile in profiles
            for run in range(1, runs + 1)
        )
    )


def _repeated(drill: str, profile: str, run: int, count: int, down: float) -> Result:
    """A run of a drill, with the samples of its other runs that were down as long: to make them takes long."""
    first = _first(drill, profile, count, down)
    return first.model_copy(update={"recording": first.recording.model_copy(update={"run": run})})


@functools.cache
def _first(drill: str, profile: str, count: int, down: float) -> Result:
    return result(recording(drill, profile, count=count, down=down))


def _down(drill: str, profile: str, run: int) -> float:
    if profile == "reference":
        return 2.0 + run
    return 6.0 if (drill, run) == ("lose-quorum", 2) else 0.15
