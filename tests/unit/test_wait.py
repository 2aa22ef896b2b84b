from __future__ import annotations

import pytest

from lab.errors import LabStateError, WaitTimedOut
from lab.system.wait import wait_until
from tests.unit.fakes import FakeClock


def test_a_condition_that_holds_costs_no_time() -> None:
    clock = FakeClock()
    assert wait_until(lambda: None, what="it", timeout=10, clock=clock) == 0
    assert clock.slept == []


def test_waiting_ends_as_soon_as_the_condition_holds() -> None:
    clock = FakeClock()
    answers = iter(["not yet", "not yet", None])
    assert wait_until(lambda: next(answers), what="it", timeout=10, interval=2, clock=clock) == 4
    assert clock.slept == [2, 2]


def test_the_last_reason_is_told_when_time_is_up() -> None:
    clock = FakeClock()
    with pytest.raises(WaitTimedOut) as caught:
        wait_until(
            lambda: f"said no at {clock.now - clock.START:.0f}",
            what="cp1 answers",
            timeout=10,
            interval=4,
            hint="look at cp1",
            clock=clock,
        )
    assert caught.value.message == "cp1 answers: not after 10 s: said no at 10"
    assert caught.value.reason == "said no at 10"
    assert caught.value.hint == "look at cp1"


def test_the_condition_is_asked_once_more_at_the_deadline() -> None:
    clock = FakeClock()
    asked = []

    def check() -> str | None:
        asked.append(clock.now - clock.START)
        return None if asked[-1] >= 10 else "no"

    assert wait_until(check, what="it", timeout=10, interval=4, clock=clock) == 10
    assert asked == [0, 4, 8, 10]


def test_a_slow_no_is_not_the_last_word() -> None:
    clock = FakeClock()
    asked = []

    def slow() -> str | None:
        asked.append(clock.now)
        clock.sleep(30)
        return "no" if len(asked) == 1 else None

    assert wait_until(slow, what="it", timeout=10, clock=clock) == 60


def test_a_check_that_raises_gives_up_at_once() -> None:
    clock = FakeClock()

    def check() -> str:
        raise LabStateError("it will never be")

    with pytest.raises(LabStateError, match="it will never be"):
        wait_until(check, what="it", timeout=10, clock=clock)
    assert clock.slept == []


def test_a_reason_without_words_is_neither_a_yes_nor_a_wait_in_silence() -> None:
    clock = FakeClock()
    with pytest.raises(AssertionError, match="it: an empty reason"):
        wait_until(lambda: "", what="it", timeout=10, clock=clock)
    assert clock.slept == []
