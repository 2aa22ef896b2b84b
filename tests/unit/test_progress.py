from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from lab.system import progress as progress_module
from lab.system.progress import Progress
from tests.unit.fakes import FakeClock, printed, progress


def test_every_step_has_a_numbered_log(tmp_path: Path) -> None:
    run = progress(tmp_path)
    with run.step("boot", "vagrant up") as first, run.step("node", "names", "cp1") as second:
        assert first.log == tmp_path / "01-boot.log"
        assert second.log == tmp_path / "02-cp1-node.log"


def test_off_a_terminal_a_step_is_a_line_at_its_start_and_one_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.system.progress.time.monotonic", FakeClock().monotonic)
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.live(), run.step("node", "names and routes", "cp1"):
        pass
    start, end = text.getvalue().splitlines()
    assert re.fullmatch(r" +0\.0 s  … cp1  names and routes", start)
    assert re.fullmatch(r" +0\.0 s  ✓ cp1  names and routes  0\.0 s", end)


def test_a_long_machine_name_stays_apart_from_the_step(tmp_path: Path) -> None:
    console, text = printed()
    with Progress(console, tmp_path).step("node", "names", "control-plane1"):
        pass
    assert "control-plane1 names" in text.getvalue()


def test_a_step_that_raises_has_failed(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)

    def interrupted() -> None:
        with run.step("node", "names", "cp1") as step:
            step.unchanged()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.finished[0].outcome == "failed"
    assert "✗ cp1" in text.getvalue()


def test_a_step_that_changed_nothing_says_so(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.step("node", "names", "cp1") as step:
        step.unchanged()
    assert run.finished[0].outcome == "unchanged"
    assert "= cp1" in text.getvalue()


def test_a_note_is_shown_at_the_end(tmp_path: Path) -> None:
    console, text = printed()
    with Progress(console, tmp_path).step("modules", "build") as step:
        step.note = "12 of 30"
    start, end = text.getvalue().splitlines()
    assert "12 of 30" not in start
    assert end.endswith("12 of 30")


def test_finished_steps_are_kept_with_their_times(tmp_path: Path) -> None:
    run = progress(tmp_path)
    with run.step("boot", "vagrant up"), run.step("node", "names", "cp1"):
        pass
    inner, outer = run.finished
    assert (inner.name, inner.title, inner.machine, inner.outcome) == ("node", "names", "cp1", "done")
    assert (outer.name, outer.machine) == ("boot", "")
    assert 0 <= outer.started <= inner.started <= run.seconds
    assert 0 <= inner.seconds <= outer.seconds


def test_steps_of_many_threads_never_share_a_number(tmp_path: Path) -> None:
    run = progress(tmp_path)

    def work(number: int) -> Path:
        with run.step("node", "names", f"m{number}") as step:
            return step.log

    with ThreadPoolExecutor(max_workers=16) as pool:
        logs = list(pool.map(work, range(200)))
    assert {log.name.partition("-")[0] for log in logs} == {f"{n:02d}" for n in range(1, 201)}
    assert len(run.finished) == 200


def test_what_is_said_may_hold_anything(tmp_path: Path) -> None:
    console, text = printed()
    Progress(console, tmp_path).say("a path: /tmp/x")
    assert text.getvalue() == "a path: /tmp/x\n"


# What takes long.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a word be due at once, and the next one never."""
    monkeypatch.setattr(progress_module, "FIRST_NOTICE", 0.0)
    monkeypatch.setattr(progress_module, "LOOK_AGAIN", 0.01)


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@pytest.mark.usefixtures("impatient")
def test_off_a_terminal_a_step_that_takes_long_says_what_it_waits_for(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.step("machine", "starts and answers", "cp1") as step:
        step.log.write_text("some words\n[12:00:00] waiting for cp1 to answer by ssh (5 s): No route to host\n")
        until(lambda: len(text.getvalue().splitlines()) == 2)
        time.sleep(0.1)
    first, again, end = text.getvalue().splitlines()
    line = (
        r" +0\.\d s  … cp1  starts and answers  0 s  waiting for cp1 to answer by ssh \(5 s\): No route to host"
    )
    assert re.fullmatch(line, again), "and not once more until the next word is due"
    assert "waiting" not in first + end


@pytest.mark.usefixtures("impatient")
def test_a_step_that_is_at_work_is_not_taken_for_one_that_waits(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.step("boot", "make machines") as step:
        step.log.write_text("[12:00:00] waiting for the API\nnow it works\n")
        assert step.waits_for == ""
        time.sleep(0.1)
    assert len(text.getvalue().splitlines()) == 2


@pytest.mark.usefixtures("impatient")
def test_a_step_that_takes_very_long_is_shown_whatever_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.step("boot", "make machines") as step:
        time.sleep(0.1)
        assert len(text.getvalue().splitlines()) == 1
        step.began -= 20
        until(lambda: len(text.getvalue().splitlines()) == 2)
    assert text.getvalue().splitlines()[1].endswith("… make machines  20 s  still running")


@pytest.mark.usefixtures("impatient")
def test_a_step_that_takes_very_long_shows_how_far_it_is(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.step("upstream", "download") as step:
        step.note = "3 of 15 parts, 120 MiB, 11.9 MiB/s"
        step.began -= 20
        until(lambda: len(text.getvalue().splitlines()) == 2)
    assert text.getvalue().splitlines()[1].endswith("… download  20 s  3 of 15 parts, 120 MiB, 11.9 MiB/s")


def test_what_the_end_repeats_is_printed_at_once_and_kept(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    run.remark("refused: kubelet")
    assert run.remarks == ["refused: kubelet"]
    assert text.getvalue() == "refused: kubelet\n"


@pytest.mark.usefixtures("impatient")
def test_words_are_repeated_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "NEXT_NOTICE", 0.02)
    console, text = printed()
    with Progress(console, tmp_path).step("boot", "make machines"):
        until(lambda: len(text.getvalue().splitlines()) >= 4)


def test_a_word_is_due_after_five_seconds_and_again_after_twenty() -> None:
    assert (progress_module.FIRST_NOTICE, progress_module.NEXT_NOTICE) == (5.0, 20.0)
    assert progress_module.LOOK_AGAIN <= 0.5


@pytest.mark.usefixtures("impatient")
def test_the_thread_that_looks_at_steps_ends_with_them_and_begins_again(tmp_path: Path) -> None:
    run = progress(tmp_path)
    for _ in range(2):
        with run.step("boot", "make machines"), run.asking("an answer"):
            watcher = run._watcher
            assert watcher is not None
        until(lambda watcher=watcher: not watcher.is_alive())  # type: ignore[misc]
        assert run._watcher is None
        assert run._running == []


@pytest.mark.usefixtures("impatient")
def test_a_question_is_shown_only_where_its_answer_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, text = printed()
    run = Progress(console, tmp_path / "logs")
    with run.asking("an answer of each machine"):
        until(lambda: bool(text.getvalue()))
    assert re.fullmatch(
        r" +0\.\d s  … waiting for an answer of each machine  0 s  no answer yet\n", text.getvalue()
    )
    monkeypatch.setattr(progress_module, "FIRST_NOTICE", 5.0)
    with run.asking("an answer of each machine"):
        time.sleep(0.05)
    assert len(text.getvalue().splitlines()) == 1
    assert run.finished == []
    assert not (tmp_path / "logs").exists()


@pytest.mark.usefixtures("impatient")
def test_on_a_terminal_the_live_list_shows_it_and_no_line_is_printed(tmp_path: Path) -> None:
    out = io.StringIO()
    run = Progress(Console(file=out, force_terminal=True, width=120), tmp_path)
    with run.live(), run.step("machine", "starts and answers", "cp1") as step, run.asking("etcd's members"):
        step.log.write_text("[12:00:00] waiting for cp1 to answer by ssh\n")
        time.sleep(0.1)
        shown = io.StringIO()
        Console(file=shown, width=120).print(run._render())
    assert "cp1  starts and answers  0 s  waiting for cp1 to answer by ssh" in shown.getvalue()
    assert "waiting for etcd's members  0 s" in shown.getvalue()
    assert "…" not in out.getvalue()


@pytest.mark.usefixtures("impatient")
def test_a_question_that_usually_takes_long_is_shown_after_that(tmp_path: Path) -> None:
    console, text = printed()
    run = Progress(console, tmp_path)
    with run.asking("all answers", usual=30):
        time.sleep(0.1)
    assert text.getvalue() == ""
