from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.system.progress import Progress
from tests.unit.fakes import printed, progress


def test_every_step_has_a_numbered_log(tmp_path: Path) -> None:
    run = progress(tmp_path)
    with run.step("boot", "vagrant up") as first, run.step("node", "names", "cp1") as second:
        assert first.log == tmp_path / "01-boot.log"
        assert second.log == tmp_path / "02-cp1-node.log"


def test_off_a_terminal_a_step_is_a_line_at_its_start_and_one_at_its_end(tmp_path: Path) -> None:
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
