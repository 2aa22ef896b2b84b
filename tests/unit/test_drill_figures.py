from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import pytest

from lab.drill.figures import FIGURES, PER_PROBE, PROBES, figures, sentence
from lab.drill.recording import Event, Figure, Mark, Pause, Recording, Sample, Stream

INJECTED = 10.0
INJECT = Mark(at=INJECTED, kind="inject", what="cp1 killed")
HEAL = Mark(at=20.0, kind="heal", what="cp1 started")


def recording(**parts: Any) -> Recording:
    """A run of 30 s, with a fault at 10 s."""
    parts.setdefault("marks", (INJECT,))
    return Recording(
        drill="kill", lab="mine", profile="tuned", run=1, began="now", **{"seconds": 30.0, **parts}
    )


def asked(started: float, seconds: float = 0.1, error: str = "", value: int = 0) -> Sample:
    return Sample(started=started, seconds=seconds, error=error, value=value)


def mark(kind: Literal["detect", "whole"], at: float, what: str = "") -> Mark:
    return Mark(at=at, kind=kind, what=what)


def written(*numbers: int, every: float = 1.0, since: float = INJECTED) -> tuple[Sample, ...]:
    """Acknowledged writes, at even times after the injection."""
    return tuple(asked(since + every * i, value=number) for i, number in enumerate(numbers))


def seen(*numbers: int, every: float = 1.0, since: float = INJECTED) -> tuple[Event, ...]:
    return tuple(Event(at=since + every * i, value=number) for i, number in enumerate(numbers))


def value(run: Recording, name: str) -> float | None:
    return by_name(figures(run, {}))[name].value


def by_name(found: Iterable[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in found}


@pytest.fixture(params=PROBES)
def probe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_figure_is_there_in_the_table_s_order_whatever_was_seen() -> None:
    assert [figure.name for figure in figures(recording(marks=()), {})] == list(FIGURES)


def test_every_figure_has_a_sentence_and_one_for_each_component() -> None:
    assert all(sentence(name) for name in FIGURES)
    assert "cp1's etcd" in sentence("whole_s.cp1's etcd")


def test_seconds_and_counts_are_told_apart() -> None:
    units = {
        figure.name: figure.unit for figure in figures(recording(marks=(INJECT, mark("whole", 12, "w1"))), {})
    }
    counts = {name for name, unit in units.items() if not unit}
    assert {"connections.failed_after_5s", "writes.lost", "watch.missed", "leader_changes"} <= counts
    assert {units[name] for name in ("detect_s", "writes.longest_gap_s", "whole_s", "whole_s.w1")} == {"s"}


def test_a_limit_is_kept_with_its_figure_and_judged() -> None:
    run = recording(connections=(asked(11), asked(12, error="refused")))
    found = by_name(figures(run, {"connections.failed": 0, "connections.slow": 0}))
    assert (found["connections.failed"].limit, found["connections.failed"].holds) == (0, False)
    assert found["connections.slow"].holds
    assert found["connections.asked"].limit is None


def test_a_limit_on_what_was_not_seen_does_not_hold() -> None:
    limits = dict.fromkeys([*FIGURES, "whole_s.cp1"], 1e9)
    nothing = by_name(figures(recording(marks=()), limits))
    told_always = {"leader_changes", "pauses.longest_s"}
    assert {name for name, figure in nothing.items() if figure.holds} == told_always
    assert {name for name, figure in nothing.items() if figure.value is not None} == told_always


def test_a_limit_on_no_figure_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"connections\.faild"):
        figures(recording(), {"connections.faild": 0})


def test_detection_counts_from_the_injection_to_the_first_who_noticed() -> None:
    marks = (mark("detect", 9), INJECT, mark("detect", 14), mark("detect", 12.5))
    assert value(recording(marks=marks), "detect_s") == 2.5
    assert value(recording(), "detect_s") is None


def test_whole_counts_from_the_healing_and_the_last_component_decides() -> None:
    marks = (mark("whole", 1, "cp1"), INJECT, HEAL, mark("whole", 22, "cp1"), mark("whole", 25, "etcd"))
    found = by_name(figures(recording(marks=(*marks, mark("whole", 28, "cp1"))), {"whole_s.etcd": 4}))
    assert (found["whole_s.cp1"].value, found["whole_s.etcd"].value, found["whole_s"].value) == (2, 5, 5)
    assert not found["whole_s.etcd"].holds


def test_what_was_whole_before_anyone_healed_took_no_time() -> None:
    assert value(recording(marks=(INJECT, mark("whole", 15, "etcd"), HEAL)), "whole_s.etcd") == 0


def test_where_nothing_was_healed_whole_counts_from_the_injection() -> None:
    assert value(recording(marks=(INJECT, mark("whole", 15, "etcd"))), "whole_s") == 5
    assert value(recording(), "whole_s") is None


def test_nothing_failed(probe: str) -> None:
    run = recording(**{probe: tuple(asked(float(second)) for second in range(30))})
    expected = {"asked": 20, "slowest_s": 0.1, "longest_gap_s": 1.0}
    for name in PER_PROBE:
        assert value(run, f"{probe}.{name}") == expected.get(name, 0), name


def test_all_failed(probe: str) -> None:
    run = recording(**{probe: tuple(asked(10.0 + second, 0.5, "timed out") for second in range(20))})
    expected = {"asked": 20, "failed": 20, "failed_after_5s": 14, "slowest_s": 0.5, "longest_gap_s": 19.5}
    for name in PER_PROBE:
        assert value(run, f"{probe}.{name}") == expected.get(name, 0), name


def test_no_requests_at_all(probe: str) -> None:
    assert [value(recording(), f"{probe}.{name}") for name in PER_PROBE] == [None] * len(PER_PROBE)


def test_no_request_after_the_injection_says_nothing_of_such(probe: str) -> None:
    run = recording(**{probe: (asked(5), asked(9.5, 1.0, "reset"))})
    assert (value(run, f"{probe}.asked"), value(run, f"{probe}.in_flight_lost")) == (0, 1)
    assert value(run, f"{probe}.failed") is None
    assert value(run, f"{probe}.longest_gap_s") is None


def test_without_an_injection_nothing_is_said_of_what_followed_it(probe: str) -> None:
    run = recording(marks=(), **{probe: (asked(5), asked(15, error="reset"))})
    assert value(run, f"{probe}.failed") is None


def test_what_was_in_flight_at_the_injection_is_counted_apart(probe: str) -> None:
    samples = (
        asked(8.0, 0.5, "refused"),  # before
        asked(9.0, 1.0, "reset"),  # ended with it
        asked(9.5, 3.0, "timed out"),
        asked(9.9, 0.2),  # survived it
        asked(10.0, 0.1, "reset"),  # begun with it
        asked(11.0, 0.1),
    )
    run = recording(**{probe: samples})
    counts = {
        name: value(run, f"{probe}.{name}") for name in ("failed", "in_flight_lost", "failed_before", "asked")
    }
    assert counts == {"failed": 1, "in_flight_lost": 2, "failed_before": 1, "asked": 2}


def test_a_failure_is_late_by_when_it_was_asked(probe: str) -> None:
    samples = (asked(14.9, 3.0, "timed out"), asked(15.0, error="reset"), asked(15.1, error="reset"))
    assert value(recording(**{probe: samples}), f"{probe}.failed_after_5s") == 1


def test_slow_is_answered_late_and_slowest_counts_failures_too(probe: str) -> None:
    samples = (asked(9, 8.0), asked(11, 1.0), asked(12, 1.1), asked(13, 2.0), asked(14, 5.0, "timed out"))
    run = recording(**{probe: samples})
    assert (value(run, f"{probe}.slow"), value(run, f"{probe}.slowest_s")) == (2, 5.0)


def test_the_gap_is_between_good_answers_whenever_they_were_asked(probe: str) -> None:
    samples = (
        asked(9.9, 1.1),  # in flight, answered at 11
        asked(11.5, 5.5),  # slow: answered at 17
        asked(12.0, 0.1, "reset"),
        asked(13.3, 0.5),  # overtakes: 13.8
        asked(18.0, 0.2),
    )
    assert value(recording(**{probe: samples}), f"{probe}.longest_gap_s") == 3.2


def test_the_gap_begins_at_the_injection_not_at_the_last_answer_before_it(probe: str) -> None:
    assert value(recording(**{probe: (asked(2), asked(13, 0.5))}), f"{probe}.longest_gap_s") == 3.5


def test_the_gap_that_has_not_ended_counts_to_the_last_failure(probe: str) -> None:
    samples = (asked(11, 0.0), asked(12, 9.0, "timed out"), asked(15, 0.1, "refused"))
    assert value(recording(**{probe: samples}), f"{probe}.longest_gap_s") == 10


def test_a_pause_of_the_host_is_told_beside_and_takes_nothing_off(probe: str) -> None:
    samples = (asked(10, 0.5), asked(11, 3.5), asked(15, 2.0), asked(17.5, 0.5))
    pauses = (Pause(at=9.9, seconds=0.2), Pause(at=12, seconds=1.5), Pause(at=14, seconds=1.0))
    run = recording(pauses=pauses, **{probe: samples})
    assert (value(run, f"{probe}.longest_gap_s"), value(run, f"{probe}.gap_paused_s")) == (4.0, 2.0)
    assert (value(run, f"{probe}.slow"), value(run, f"{probe}.slow_paused")) == (2, 1)
    assert value(run, "pauses.longest_s") == 1.5


def test_without_pauses_the_longest_one_is_none_of_them() -> None:
    assert value(recording(), "pauses.longest_s") == 0


def test_an_acknowledged_write_that_is_not_there_is_lost() -> None:
    writes = (*written(1, 2, 3), asked(14, 3.0, "timed out", 4))
    assert value(recording(writes=writes, read_back=(0, 1, 3)), "writes.lost") == 1
    assert value(recording(writes=writes, read_back=(0, 1, 2, 3)), "writes.lost") == 0
    assert value(recording(writes=writes, read_back=(0, 1, 2, 3, 4)), "writes.lost") == 0


def test_a_cluster_that_has_none_of_them_has_lost_all() -> None:
    assert value(recording(writes=written(1, 2), read_back=(0,)), "writes.lost") == 2


def test_what_was_not_read_back_is_neither_lost_nor_proven() -> None:
    found = by_name(figures(recording(writes=written(1, 2)), {"writes.lost": 0}))["writes.lost"]
    assert (found.value, found.holds) == (None, False)


def test_where_nothing_was_acknowledged_nothing_is_said_of_it() -> None:
    run = recording(writes=(asked(11, error="refused", value=1),), read_back=(0, 1), watch=seen(1))
    names = ("writes.lost", "watch.missed", "watch.repeated", "watch.out_of_order")
    assert [value(run, name) for name in names] == [None] * 4


def test_only_acknowledged_writes_must_be_seen() -> None:
    writes = (*written(1, 2, 3), asked(14, 3.0, "timed out", 4))
    assert value(recording(writes=writes, watch=seen(1, 3)), "watch.missed") == 1
    assert value(recording(writes=writes, watch=seen(1, 2, 3, 4)), "watch.missed") == 0
    assert value(recording(writes=writes), "watch.missed") == 3


def test_events_that_come_again_are_counted() -> None:
    run = recording(writes=written(1, 2, 3), watch=seen(1, 2, 1, 2, 2, 3))
    assert (value(run, "watch.repeated"), value(run, "watch.out_of_order")) == (3, 0)


def test_an_acknowledged_write_after_a_later_one_is_out_of_order() -> None:
    assert value(recording(writes=written(1, 2, 3, 4), watch=seen(1, 4, 2, 3)), "watch.out_of_order") == 2


def test_a_write_that_its_writer_gave_up_may_happen_late() -> None:
    writes = (*written(1, 3), asked(11, 3.0, "timed out", 2))
    assert value(recording(writes=writes, watch=seen(1, 3, 2)), "watch.out_of_order") == 0


def test_the_watch_s_gap_begins_at_the_injection_and_ends_with_the_last_write() -> None:
    run = recording(
        writes=written(1, 2, 3), watch=(*seen(1, since=9), *seen(2, 3, since=14, every=3)), pauses=PAUSED
    )
    assert (value(run, "watch.gap_s"), value(run, "watch.gap_paused_s")) == (4.0, 0.5)


PAUSED = (Pause(at=11, seconds=0.5),)


def test_a_watch_that_died_has_a_gap_to_the_end() -> None:
    run = recording(writes=written(1, 2, 3, 4), watch=seen(1, 2))
    assert value(run, "watch.gap_s") == 19.0


def test_an_event_missed_in_the_middle_is_no_gap_to_the_end() -> None:
    assert value(recording(writes=written(1, 2, 3), watch=seen(1, 3)), "watch.gap_s") == 1.0


def test_a_watch_that_saw_nothing_after_the_injection_has_no_gap_and_does_not_hold() -> None:
    run = recording(writes=written(1, since=5), watch=seen(1, since=5))
    found = by_name(figures(run, {"watch.gap_s": 100}))["watch.gap_s"]
    assert (found.value, found.holds) == (None, False)


def test_streams_that_broke_after_the_injection_were_cut() -> None:
    streams = (
        Stream(opened=0, ended=5, error="closed"),
        Stream(opened=5, ended=11, error="reset"),
        Stream(opened=11, ended=14, error="stalled"),
        Stream(opened=14, ended=30),
    )
    assert value(recording(streams=streams), "watch.cut") == 2
    assert value(recording(streams=streams[3:]), "watch.cut") == 0
    assert value(recording(), "watch.cut") is None


def test_leader_changes_are_told() -> None:
    assert value(recording(leader_changes=2), "leader_changes") == 2
