"""Two scripts on one machine: the later one waits, or ends what an `up` that was killed has left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.provision.world import Ran, World

HOLDS = """#!/bin/bash
source "$(dirname "$0")/lib.sh"
exclusively
trap 'touch /run/ha-lab/restored' EXIT
echo $$ >/run/ha-lab/holding
{what}
finish
"""
LONG = "command sleep 40"
STUBBORN = "trap '' TERM; for _ in {1..400}; do command sleep 0.1; done"
TAKES = '#!/bin/bash\nsource "$(dirname "$0")/lib.sh"\nexclusively\nfinish\n'


@pytest.fixture
def w1(tmp_path: Path) -> World:
    """A machine on which an orphan may take a second, and anything else six."""
    world = World(tmp_path / "w1", "w1")
    lib = world.root / "opt/lib.sh"
    text = lib.read_text()
    for value, quick in (("ORPHAN_GRACE=20", "ORPHAN_GRACE=1"), ("300 * LAB_PATIENCE", "6 * LAB_PATIENCE")):
        assert value in text
        text = text.replace(value, quick)
    lib.write_text(
        text.replace("FIRST_NOTICE=5", "FIRST_NOTICE=0").replace("flock --wait 15", "flock --wait 2")
    )
    (world.root / "opt/takes.sh").write_text(TAKES)
    return world


@contextmanager
def held(world: World, what: str, up: str = "") -> Iterator[Callable[[], Ran]]:
    """While another script has the machine; the result is what became of it."""
    (world.root / "opt/holds.sh").write_text(HOLDS.replace("{what}", what))
    ran: list[Ran] = []
    thread = threading.Thread(target=lambda: ran.append(world.run("holds", up=up)))
    thread.start()
    holding = world.path("/run/ha-lab/holding")
    while not (holding.exists() and holding.read_text()):
        time.sleep(0.02)

    def ended() -> Ran:
        thread.join()
        return ran[0]

    try:
        yield ended
    finally:
        for each in holders(world):
            os.kill(each, signal.SIGKILL)
        thread.join()


def holders(world: World) -> list[int]:
    """The processes that have the machine's lock."""
    lock = world.path("/run/ha-lab/lock").stat()
    found = []
    for file in Path("/proc").glob("[0-9]*/fd/9"):
        try:
            same = os.path.samestat(file.stat(), lock)
        except OSError:
            continue
        if same:
            found.append(int(file.parts[2]))
    return found


def test_what_a_killed_up_left_running_is_ended_and_may_restore_what_it_changed(w1: World) -> None:
    with held(w1, LONG, up="first") as ended:
        ran = w1.run("takes", up="second")
        assert (ran.code, ran.last) == (0, "ha-lab: unchanged"), ran.said
        assert "ending holds.sh, which an earlier run left running here (SIGTERM)" in ran.said
        assert ended().code != 0
        assert w1.has("/run/ha-lab/restored")
        assert holders(w1) == []


def test_what_does_not_end_on_request_is_killed(w1: World) -> None:
    with held(w1, STUBBORN, up="first"):
        ran = w1.run("takes", up="second")
        assert (ran.code, ran.last) == (0, "ha-lab: unchanged"), ran.said
        assert "(SIGKILL)" in ran.said


def test_what_a_killed_script_had_started_is_ended_too(w1: World) -> None:
    with held(w1, LONG, up="first"):
        os.kill(int(w1.path("/run/ha-lab/holding").read_text()), signal.SIGKILL)
        assert w1.run("takes", up="second").code == 0
        assert holders(w1) == []


def test_an_earlier_script_that_ends_by_itself_is_not_ended(w1: World) -> None:
    lib = w1.root / "opt/lib.sh"
    lib.write_text(lib.read_text().replace("ORPHAN_GRACE=1", "ORPHAN_GRACE=50").replace("6 * LAB", "50 * LAB"))
    with held(w1, "command sleep 0.6", up="first") as ended:
        ran = w1.run("takes", up="second")
        assert (ran.code, "ending" in ran.said) == (0, False), ran.said
        assert (ended().code, ended().last) == (0, "ha-lab: unchanged")


@pytest.mark.parametrize(("theirs", "ours"), [("same", "same"), ("", "second"), ("first", "")])
def test_scripts_of_the_same_up_and_of_none_are_waited_for_and_named(w1: World, theirs: str, ours: str) -> None:
    lib = w1.root / "opt/lib.sh"
    lib.write_text(lib.read_text().replace("6 * LAB_PATIENCE", "3 * LAB_PATIENCE"))
    with held(w1, LONG, up=theirs):
        ran = w1.run("takes", up=ours)
        assert ran.code == 1
        assert "waiting for an earlier script on this machine to end (" in ran.said
        assert "): holds.sh is running" in ran.said
        assert "still running on this machine after 3 s: holds.sh, processes " in ran.said
        assert not w1.has("/run/ha-lab/restored")
