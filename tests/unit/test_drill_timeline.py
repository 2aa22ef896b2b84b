from __future__ import annotations

import re

import pytest

from lab.drill.recording import Event, Mark, Pause, Recording, Sample, Stream
from lab.drill.timeline import BINS, DOWN, UP, Lane, reach, timeline
from tests.unit.drills import recording

EMPTY = Recording(drill="kill-worker", lab="ha-lab", profile="tuned", run=1, began="", seconds=100)


def run(**seen: object) -> Recording:
    """A run of 100 s with the injection at 20 s: a bin is a quarter of a second."""
    return EMPTY.model_copy(update={"marks": (Mark(at=20, kind="inject", what="w1 killed"),), **seen})


def lane(name: str, **seen: object) -> Lane:
    return next(each for each in timeline(run(**seen)).lanes if each.name == name)


def bars(path: str) -> list[tuple[int, int]]:
    """The first bin of each bar of a path, and how many it covers."""
    return [(int(x), int(n)) for x, n in re.findall(r"M(\d+) \d+(?:v-\d+)?h(\d+)", path)]


def test_moments_stand_where_their_seconds_say() -> None:
    marks = (*run().marks, Mark(at=50, kind="heal", what=""), Mark(at=75, kind="whole", what="node w1"))
    drawn = timeline(run(marks=marks, pauses=(Pause(at=10, seconds=5),)))
    assert {line.mark.kind: (line.x, line.seconds) for line in drawn.lines} == {
        "inject": (20, 0),
        "heal": (50, 30),
        "whole": (75, 55),
    }
    assert drawn.wholes == (75,)
    assert drawn.pauses == ((10, 15),)


def test_the_axis_counts_from_the_injection_in_round_steps() -> None:
    ticks = timeline(run()).ticks
    assert [(tick.text, tick.x) for tick in ticks] == [
        *(("−20", 0), ("0", 20), ("20", 40), ("40", 60), ("60", 80), ("80", 100))
    ]
    assert (ticks[0].side, ticks[1].side, ticks[-1].side) == ("start", "middle", "end")


def test_a_run_without_an_injection_counts_from_its_start() -> None:
    drawn = timeline(EMPTY)
    assert not drawn.injected
    assert drawn.ticks[0].text == "0"
    assert reach(EMPTY) == (0, 100)


def test_runs_that_are_compared_get_one_scale() -> None:
    drawn = timeline(run(), before=50, after=150)
    assert drawn.lines[0].x == 25
    assert drawn.ticks[-1].text == "150"


def test_answers_slow_ones_and_failures_are_drawn_apart_and_as_long_as_they_took() -> None:
    found = lane(
        "connections",
        connections=(
            Sample(started=10, seconds=0.01),
            Sample(started=30, seconds=1.6),
            Sample(started=50, seconds=5, error="timed out"),
        ),
    )
    assert bars(found.answered) == [(40, 1)]
    assert bars(found.slow) == [(120, 7)]
    assert bars(found.failed) == [(200, 21)]
    assert found.counts == (3, 1, 1)


def test_the_worst_of_a_bin_is_what_it_shows() -> None:
    ok, bad = Sample(started=50, seconds=0.01), Sample(started=50.1, seconds=0.01, error="refused")
    found = lane("writes", writes=(ok, bad, ok))
    assert (found.answered, bars(found.failed)) == ("", [(200, 1)])


@pytest.mark.parametrize(("seconds", "height"), [(0.0001, 2), (0.01, UP // 4), (1.0, 26), (10, UP), (60, UP)])
def test_bars_are_as_high_as_answers_took_long(seconds: float, height: int) -> None:
    found = lane("service", service=(Sample(started=50, seconds=seconds),))
    assert f"v-{height}h" in found.answered + found.slow


def test_only_failures_reach_below_the_base() -> None:
    found = lane("writes", writes=(Sample(started=50, seconds=0.01, error="refused"),))
    assert found.failed == f"M200 0h1v{UP + DOWN}h-1z"


def test_the_watch_shows_events_as_late_as_they_came_cuts_and_when_it_was_connected() -> None:
    found = lane(
        "watch",
        writes=(Sample(started=30, seconds=0.01, value=1), Sample(started=40, seconds=0.01, value=2)),
        watch=(Event(at=30.1, value=1), Event(at=43, value=2)),
        streams=(Stream(opened=0, ended=25, error="reset"), Stream(opened=30, ended=100)),
    )
    assert bars(found.answered) == [(120, 1)]
    assert bars(found.slow) == [(172, 1)]
    assert bars(found.failed) == [(100, 1)]
    assert found.counts == (2, 1, 1)
    assert found.connected == f"M0 {UP + 4}H101M120 {UP + 4}H{BINS}"


def test_a_probe_that_saw_nothing_has_no_lane() -> None:
    drawn = timeline(run(service=(Sample(started=1, seconds=1),)))
    assert [each.name for each in drawn.lanes] == ["service"]
    assert timeline(run()).lanes == ()


def test_everything_stays_within_the_drawing() -> None:
    late = (Sample(started=99, seconds=60, error="timed out"), Sample(started=130, seconds=1))
    drawn = timeline(run(connections=late, pauses=(Pause(at=99, seconds=9),)))
    assert sum(bars(drawn.lanes[0].failed)[-1]) == BINS
    assert drawn.pauses == ((99, 100),)


def test_labels_have_rows_of_their_own() -> None:
    labelled = [line for line in timeline(recording()).lines if line.labelled]
    assert sorted(line.mark.kind for line in labelled) == ["detect", "heal", "inject", "whole"]
    assert len({line.y for line in labelled}) == 4


def test_a_line_crosses_no_label_that_opens_to_its_side() -> None:
    marks = [Mark(at=at, kind="detect", what="") for at in (1.0, 2.0, 98.0)]
    marks += [
        Mark(at=3, kind="inject", what=""),
        Mark(at=90, kind="heal", what=""),
        Mark(at=95, kind="whole", what=""),
    ]
    lines = [line for line in timeline(EMPTY.model_copy(update={"marks": tuple(marks)})).lines if line.labelled]
    for side in ("start", "end"):
        same = sorted((line for line in lines if line.side == side), key=lambda line: line.y)
        places = [line.x for line in same]
        assert len(same) == 2
        assert places == sorted(places, reverse=side == "end")


def test_of_several_marks_of_a_kind_one_is_labelled_and_of_whole_the_last() -> None:
    drawn = timeline(
        run(
            marks=(
                *(Mark(at=20, kind="inject", what="w1"), Mark(at=21, kind="inject", what="w2")),
                *(Mark(at=60, kind="whole", what="w1"), Mark(at=70, kind="whole", what="w2")),
            )
        )
    )
    assert [line.mark.at for line in drawn.lines if line.labelled] == [20, 70]
    assert [line.mark.at for line in drawn.lines if not line.labelled] == [21]
    assert len(drawn.wholes) == 2
