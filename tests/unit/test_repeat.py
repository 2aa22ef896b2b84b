"""`status --watch`: what has changed is marked and named, and Ctrl-C ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.health import repeat, status
from lab.health.causes import Cause
from lab.health.status import Status
from lab.session import Session
from lab.system.progress import Progress
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, printed
from tests.unit.recorded_facts import lab, silent
from tests.unit.test_status import looked, of_two, server_down

WELL = looked()
LOST = looked(silent("cp2"), server_down("cp2"))


def test_nothing_changed_at_the_first_look_and_where_nothing_differs() -> None:
    assert repeat.changes(None, WELL) == ()
    assert repeat.changes(WELL, WELL) == ()
    assert repeat.changed(None, WELL) == frozenset()


def test_each_thing_that_a_lost_machine_changes_is_a_line() -> None:
    lines = repeat.changes(WELL, LOST)
    assert lines[:2] == (f"{WELL.lab}: healthy → degraded", "cp1: if lost: works → stops")
    assert "cp2: answers: yes → no" in lines
    assert "cp2: if lost: works → -" in lines
    assert "problem: cp2 can't be asked: no answer within 15 s" in lines
    assert repeat.changed(WELL, LOST) == {"cp1", "cp2", "cp3"}
    back = repeat.changes(LOST, WELL)
    assert "cp2: answers: no → yes" in back
    assert "no longer a problem: cp2 can't be asked: no answer within 15 s" in back


def test_an_address_and_a_leadership_that_move_are_lines() -> None:
    before = of_two()
    after = replace(before, holder="lb2", leader="")
    assert repeat.changes(before, after) == (
        "API's address: lb1 → lb2",
        "etcd's leader: cp1 → none known",
    )


def test_why_a_lab_goes_down_is_said_and_a_paused_machine_named() -> None:
    paused = tuple(
        replace(machine, answers=False, state="paused") if machine.name == "w1" else machine
        for machine in WELL.machines
    )
    lines = repeat.changes(WELL, replace(WELL, health="down", problem="timed out", machines=paused))
    assert lines == (f"{WELL.lab}: healthy → down: timed out", "w1: answers: yes → no: paused")


def test_a_problem_whose_words_differ_each_time_is_one_line_and_so_is_a_cause() -> None:
    first = replace(WELL, problems=("clock[w1]: off by 1.2 s",), causes=(Cause("disk", "free", detail="1 %"),))
    second = replace(WELL, problems=("clock[w1]: off by 1.3 s",), causes=(Cause("disk", "free", detail="2 %"),))
    assert repeat.changes(WELL, first) == ("problem: clock[w1]: off by 1.2 s", "cause: disk: 1 %")
    assert repeat.changes(first, second) == ()


@pytest.fixture
def session(tmp_path: Path) -> Session:
    workspace = Workspace(tmp_path / ".lab")
    progress = Progress(printed()[0], workspace.logs)
    return Session(tmp_path / "lab.yaml", lab(), workspace, FakeRemote(lab(), workspace), progress)


def repeated(session: Session, monkeypatch: pytest.MonkeyPatch, *looks: Status) -> list[float]:
    """Let these be what is seen, and then Ctrl-C; return how long was waited each time."""
    slept: list[float] = []

    def seen() -> Iterator[Status]:
        yield from looks
        raise KeyboardInterrupt

    found = seen()
    monkeypatch.setattr(status, "look", lambda _session: next(found))
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(KeyboardInterrupt):
        repeat.watch(session)
    return slept


def test_into_a_file_there_is_one_table_and_then_a_line_for_each_change(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, text = printed()
    session.progress.console = console
    assert repeated(session, monkeypatch, WELL, WELL, LOST, LOST) == [repeat.INTERVAL] * 4
    said = text.getvalue()
    assert said.count("if lost\n") == 1
    assert said.count("cp2: answers: yes → no\n") == 1
    assert said.index("changes follow, Ctrl-C ends") < said.index("healthy → degraded")


def test_on_a_terminal_the_table_is_drawn_again_with_the_changed_rows_marked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = printed()
    session.progress.console = Console(file=text, width=150, force_terminal=True, highlight=False)
    repeated(session, monkeypatch, WELL, LOST, LOST)
    first, second, third = text.getvalue().split("\x1b[2J")[1:]
    assert "cp2 *" not in first
    assert "cp2 *" in second
    assert "w1 *" not in second
    assert "\x1b[7m" in second, "in reverse video"
    assert "cp2 *" not in third
    assert "cp2: answers: yes → no" in third, "the newest changes stay"
    assert "; the next look is in 5 s; Ctrl-C ends" in third
