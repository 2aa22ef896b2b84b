"""Every command of the handout, typed in its order into a real lab: once by each of the two ways through it.

With --whole also by hand into a lab with external etcd and two load balancers.

A chapter's commands are read when it is their turn, since a chapter with a drill's figures may differ from what
it was before. Both languages have the same commands, which tests/unit checks.
"""

from __future__ import annotations

import shlex
import subprocess
import time

import pytest
from _pytest.mark import ParameterSet

from lab.exit_codes import TASK_NOT_YET
from lab.system.paths import REPOSITORY
from lab.workshop.handout.command import read_chapters
from lab.workshop.handout.prose import HOST, WAYS, Command, commands
from tests.labs.conftest import TestLab

NUMBERS = range(1, 12)
LONGEST = 600
"""Seconds for one command; the longest are `up` and a drill."""
BY_HAND = {3, 4, 6, 7}
"""Chapters whose task is not done before their commands are typed, by hand."""

SAME_BY_HAND = {8, 9, 10}
"""Chapters whose commands by hand include all others: only --whole types them by the other way, too."""


def _walks() -> list[ParameterSet]:
    """Each chapter by each way."""
    return [
        pytest.param(way, number, marks=[pytest.mark.whole] if way != "hand" and number in SAME_BY_HAND else [])
        for way in WAYS
        for number in NUMBERS
    ]


def _commands(lab: TestLab, number: int, way: str) -> list[Command]:
    session = lab.session
    read = read_chapters(session, session.lab, "en", str(session.path))
    found = [each for chapter in read if chapter.number == number for each in commands(chapter, session.lab)]
    assert found, f"chapter {number} has no command"
    return [each for each in found if each.way in ("", way)]


def _argv(lab: TestLab, command: Command) -> list[str]:
    """As it is typed: on the host in the checkout, on a machine by root in a login shell."""
    if command.on == HOST:
        return ["bash", "-ec", command.text]
    typed = f"sudo bash -lec {shlex.quote(command.text)}"
    return ["ssh", "-F", str(lab.folder / ".lab" / "ssh_config"), command.on, "--", typed]


def _type(lab: TestLab, command: Command) -> None:
    started = time.monotonic()
    done = subprocess.run(
        _argv(lab, command),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    print(f"{command.on}, line {command.line}, {time.monotonic() - started:.1f} s: {done.returncode}")
    print(f"$ {command.text}\n{done.stdout}{done.stderr}")
    assert done.returncode in command.exits, (
        f"on {command.on}: {command.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )


def _type_all(lab: TestLab, way: str, number: int) -> None:
    """Type a chapter's commands, and let its task say that by hand they were needed."""
    asked = _commands(lab, number, way)
    assert any(each.text.startswith("./inv task") and each.text.endswith(f" {number}") for each in asked)
    if way == "hand" and number in BY_HAND:
        assert lab.inv("task", str(number)).code == TASK_NOT_YET
    for command in asked:
        _type(lab, command)


@pytest.mark.parametrize(("way", "number"), _walks())
def test_a_chapters_commands_do_on_a_lab_what_its_task_asks(walked: TestLab, way: str, number: int) -> None:
    _type_all(walked, way, number)


@pytest.mark.whole
@pytest.mark.parametrize("number", NUMBERS)
def test_a_chapters_commands_do_that_with_external_etcd_and_two_load_balancers(
    walked_external: TestLab, number: int
) -> None:
    _type_all(walked_external, "hand", number)
