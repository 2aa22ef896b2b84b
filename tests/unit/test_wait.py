from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from lab.errors import LabStateError, WaitTimedOut
from lab.system.paths import REPOSITORY
from lab.system.progress import WAITING
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


# What is waited for, as the progress and the reader of a log see it.


def waited(clock: FakeClock, log: Path, seconds: float, *, check_takes: float = 0.0) -> list[str]:
    """Wait that long with a log; return its lines without their times."""

    def check() -> str | None:
        clock.now += check_takes
        now = clock.now - clock.START
        return None if now >= seconds else f"no\n  at {now:.0f}"

    wait_until(check, what="cp1 to answer", timeout=100, interval=0.5, log=log, clock=clock)
    lines = log.read_text().splitlines()
    assert all(WAITING.match(line) for line in lines), "the progress knows none of them"
    return [line.partition("] ")[2] for line in lines]


def test_what_is_waited_for_is_written_down_before_the_first_question_is_answered(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "01-machine.log"

    def check() -> None:
        assert log.read_text().endswith("] waiting for cp1 to answer\n")

    wait_until(check, what="cp1 to answer", timeout=10, log=log, clock=FakeClock())


def test_a_reason_is_written_down_after_five_seconds_at_the_latest_and_then_now_and_again(
    tmp_path: Path,
) -> None:
    assert waited(FakeClock(), tmp_path / "log", 40) == [
        "waiting for cp1 to answer",
        "waiting for cp1 to answer (4 s): no at 4",
        "waiting for cp1 to answer (20 s): no at 20",
        "waiting for cp1 to answer (34 s): no at 34",
    ]


def test_a_short_wait_has_no_reason(tmp_path: Path) -> None:
    assert waited(FakeClock(), tmp_path / "log", 3) == ["waiting for cp1 to answer"]


def test_a_slow_answer_is_written_down_as_soon_as_it_is_there(tmp_path: Path) -> None:
    assert waited(FakeClock(), tmp_path / "log", 25, check_takes=14)[1:] == [
        "waiting for cp1 to answer (14 s): no at 14"
    ]


def test_a_wait_without_a_log_writes_nothing(tmp_path: Path) -> None:
    wait_until(lambda: None, what="it", timeout=10, clock=FakeClock())
    assert list(tmp_path.iterdir()) == []


WITHOUT_A_LOG = {
    "lab/drill/catalogue.py": 1,  # while probes run
    "lab/drill/observe.py": 2,  # within `progress.asking`, or while probes run for as long as the drill says
    "lab/drill/probes.py": 2,  # 10 s at most
    "lab/drill/run.py": 2,  # while probes run
    "lab/drill/workload.py": 2,  # within `progress.asking`
    "lab/golden/supply/shelf.py": 1,  # within `progress.asking`
    "lab/health/facts/probes.py": 4,  # 20 s at most
    "lab/providers/shutdown.py": 1,  # the limit is its reason: its power is cut then
}
"""How many waits of a module write down no reason while they last, and why that is no silent wait of 20 s."""


def test_a_wait_that_may_last_writes_down_its_reason_as_it_goes_on() -> None:
    found: Counter[str] = Counter()
    for path in sorted((REPOSITORY / "lab").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for call in ast.walk(ast.parse(text)) if "wait_until" in text else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "wait_until":
                found[str(path.relative_to(REPOSITORY))] += "log" not in {word.arg for word in call.keywords}
    assert +found == WITHOUT_A_LOG
