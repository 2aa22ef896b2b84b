"""Where the API's address was in a drill, from the logs of two load balancers; and the drills about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.config import default, load
from lab.drill import address, catalogue, command, recovery
from lab.drill.address import Log
from lab.drill.figures import figures, sentence, unit
from lab.drill.page import page
from lab.drill.recording import Holding, Mark, Recording
from lab.drill.scene import Scene, holder
from lab.drill.timeline import HELD, timeline
from lab.errors import ConfigError, LabStateError, WaitTimedOut
from lab.model import Lab, Node
from lab.plans import pair
from lab.session import Session
from lab.system import process
from lab.system.paths import REPOSITORY
from lab.workspace import Workspace
from tests.unit.drills import recording, report, result
from tests.unit.fakes import FakeRemote, progress

PAIR = load(REPOSITORY / "examples" / "two-load-balancers.yaml")
TAKEN, FAULT, STOPPED = (
    "(api) Entering MASTER STATE",
    "(api) Entering FAULT STATE",
    "Stopping",
)
CLIENT = "192.168.62.1:40022 [30/Nov/2026:11:00:00.123]"


def opened(folder: Path, lab: Lab = PAIR) -> Session:
    workspace = Workspace(folder / ".lab")
    return Session(folder / "lab.yaml", lab, workspace, FakeRemote(lab, workspace), progress(folder))


def journal(entries: Iterable[tuple[float, str]], zero: float = 1000.0) -> list[str]:
    """Lines of journald's, at seconds after the recording's zero."""
    return [
        json.dumps({"__REALTIME_TIMESTAMP": str(int((zero + at) * 1e6)), "MESSAGE": message})
        for at, message in entries
    ]


def told(*changes: tuple[float, bool], booted: float = -100.0, ended: Sequence[float] = ()) -> Log:
    return Log(booted, changes, tuple(ended))


def spans(found: Iterable[Holding]) -> list[tuple[str, float, float]]:
    return [(each.machine, round(each.since, 2), round(each.until, 2)) for each in found]


# What the logs say.


def test_keepalived_s_states_and_the_ends_of_connections_are_read_on_the_recording_s_clock() -> None:
    # As keepalived 2.3.3 wrote them, and HAProxy's tcplog.
    said = [
        (-20.0, "(api) Entering BACKUP STATE"),
        (-18.5, TAKEN),
        (2.0, f"{CLIENT} apiserver apiserverbackend/cp1 1/0/5 4012 -- 3/2/1/0/0 0/0"),
        (2.5, "Script `haproxy` now returning 1"),
        (3.0, "VRRP_Script(haproxy) failed (exited with status 1)"),
        (3.01, FAULT),
        (4.0, "Stopping frontend apiserver in 0 ms."),
        (4.5, STOPPED),
        (5.0, f"{CLIENT} statistics statistics/<STATS> 0/0/0/0/0 200"),
        (6.0, "(api) Backup received priority 0 advertisement"),
    ]
    found = address.read("@900", journal(said), 1000.0)
    assert found.booted == -100.0
    assert [(round(at, 2), has) for at, has in found.changes] == [
        (-20.0, False),
        (-18.5, True),
        (3.01, False),
        (4.5, False),
    ]
    assert [round(at, 2) for at in found.ended] == [2.0]


def test_the_instance_of_the_write_up_s_profile_is_read_too() -> None:
    said = [(0.0, "(VI_1) Entering BACKUP STATE (init)"), (1.0, "(VI_1) Entering MASTER STATE")]
    found = address.read("@0", journal(said), 1000.0)
    assert [has for _, has in found.changes] == [False, True]


def test_a_load_balancer_is_asked_on_its_own_clock(tmp_path: Path) -> None:
    session, ahead = opened(tmp_path), 3600.0
    now = time.time()
    asked: list[tuple[str, str]] = []

    class Telling(FakeRemote):
        def run(self, node: Node, command: Sequence[str], **how: Any) -> process.Result:
            asked.append((node.name, command[0]))
            lines = [
                f"{time.time() + ahead:.6f}",
                f"@{now + ahead - 50:.0f}",
                *journal([(2.0, TAKEN)], now + ahead),
            ]
            return process.Result(tuple(command), 0, "\n".join(lines) + "\n", "", 0.0)

    there = replace(session, remote=Telling(PAIR, session.workspace))
    found = address.ask(there, PAIR.pair[1], now)
    assert round(found.booted) == -50
    assert [(round(at), has) for at, has in found.changes] == [(2, True)]
    [(name, line)] = asked
    assert name == "lb2"
    # Counted back from the machine's present, whose clock differs.
    assert line.endswith(" --since=-60s")
    assert "--unit keepalived --unit haproxy" in line


# Who had it when.


def test_the_address_moves_when_its_holder_gives_it_up() -> None:
    found = address.holdings({"lb1": told((10.2, False)), "lb2": told((10.3, True))}, {"lb1"}, 10.0, 30.0)
    assert spans(found) == [("lb1", 0.0, 10.2), ("lb2", 10.3, 30.0)]


def test_a_machine_that_lost_its_power_has_had_the_address_until_then() -> None:
    gone = told((24.0, False), booted=22.0)  # its log from before is gone, or ends without a word
    found = address.holdings({"lb1": gone, "lb2": told((11.5, True))}, {"lb1"}, 10.0, 30.0)
    assert spans(found) == [("lb1", 0.0, 10.0), ("lb2", 11.5, 30.0)]
    kept = told((-50.0, True), (24.0, False), booted=22.0)
    assert spans(address.holdings({"lb1": kept}, {"lb1"}, 10.0, 30.0)) == [("lb1", 0.0, 10.0)]


def test_both_may_have_it_and_one_may_have_it_again() -> None:
    lb2 = told((11.0, True), (20.0, False), (25.0, True))
    found = address.holdings({"lb1": told(), "lb2": lb2}, {"lb1"}, 10.0, 30.0)
    assert spans(found) == [("lb1", 0.0, 30.0), ("lb2", 11.0, 20.0), ("lb2", 25.0, 30.0)]


def test_what_is_not_within_the_recording_does_not_count() -> None:
    found = address.holdings({"lb1": told((-3.0, True), (31.0, True))}, set(), 10.0, 30.0)
    assert found == ()


def test_connections_are_counted_that_ended_while_the_fault_was_in() -> None:
    both = {"lb1": told(ended=(9.9, 10.0, 12.0, 20.1)), "lb2": told(ended=(15.0,))}
    assert address.ended(both, 10.0, 20.0) == {"lb1": 2, "lb2": 1}


def test_a_move_while_the_fault_was_in_is_when_it_was_detected() -> None:
    holders = [
        Holding(machine="lb1", since=0, until=10),
        Holding(machine="lb2", since=11.5, until=30),
        Holding(machine="lb1", since=25, until=30),
    ]
    assert address.marks(holders, 10.0, 20.0) == (
        Mark(at=11.5, kind="detect", what="lb2 has the API's address"),
    )


# Figures and the page.

INJECT, HEAL = Mark(at=10, kind="inject", what="x"), Mark(at=20, kind="heal", what="x")


def moved(*holders: tuple[str, float, float], ended_at: dict[str, int] | None = None) -> Recording:
    return Recording(
        drill="split-brain",
        lab="mine",
        profile="tuned",
        run=1,
        began="",
        seconds=30,
        marks=(INJECT, HEAL),
        holders=tuple(Holding(machine=name, since=since, until=until) for name, since, until in holders),
        ended_at=ended_at or {},
    )


def values(run: Recording) -> dict[str, float | None]:
    return {
        each.name: each.value for each in figures(run, {}) if each.name.startswith(("address.", "ended_at."))
    }


def test_figures_say_how_often_it_moved_and_how_long_it_was_nowhere_or_twice() -> None:
    assert values(moved(("lb1", 0, 10), ("lb2", 11.5, 30))) == {
        "address.moves": 1,
        "address.nowhere_s": 1.5,
        "address.twice_s": 0,
    }
    twice = moved(("lb1", 0, 30), ("lb2", 12, 21), ("lb2", 25, 26), ended_at={"lb1": 200, "lb2": 30})
    assert values(twice) == {
        "address.moves": 2,
        "address.nowhere_s": 0,
        "address.twice_s": 10,
        "ended_at.lb1": 200,
        "ended_at.lb2": 30,
    }
    assert values(moved(("lb1", 0, 5), ("lb2", 8, 30)))["address.nowhere_s"] == 0, "before the fault"
    assert values(moved(("lb1", 0, 10)))["address.nowhere_s"] == 20


def test_without_a_shared_address_there_are_no_such_figures() -> None:
    assert values(moved()) == dict.fromkeys(("address.moves", "address.nowhere_s", "address.twice_s"))


def test_the_connections_of_each_load_balancer_have_a_sentence_and_are_a_count() -> None:
    assert sentence("ended_at.lb2") == "connections through lb2 that ended while the fault was in"
    assert unit("ended_at.lb2") == ""
    assert unit("address.twice_s") == "s"


def test_the_page_draws_who_had_the_address_when() -> None:
    run = recording().model_copy(
        update={"holders": moved(("lb1", 0, 10), ("lb2", 11.5, 30)).holders, "ended_at": {"lb1": 7, "lb2": 9}}
    )
    drawn = timeline(run)
    assert [row.machine for row in drawn.holders] == ["lb1", "lb2"]
    [(start, end)] = drawn.holders[1].bars
    assert (round(start, 1), round(end, 1)) == (round(100 * 11.5 / 90, 1), round(100 * 30 / 90, 1))
    assert drawn.holders[1].y > drawn.holders[0].y + HELD
    assert drawn.wholes_y > drawn.holders[1].y + HELD
    text = page(report(result(run)))
    assert text.count('class="held"') == 2
    for said in ("lb2 has the API&#39;s address", "lb2이(가) API 주소를 가진 시간", "Connections ended at lb2"):
        assert said in text
    assert 'class="held"' not in page(report(result(recording())))


# The drills.


def drill(name: str) -> catalogue.Drill:
    return next(each for each in catalogue.DRILLS if each.name == name)


OF_TWO = ("stop-haproxy-on-holder", "split-brain", "flap", "move-address")


def test_drills_of_two_load_balancers_say_so_where_there_is_one() -> None:
    for name in OF_TWO:
        assert drill(name).lab_problem(default()) == f"{name} needs 2 load balancers, and ha-lab has 1"
        assert drill(name).lab_problem(PAIR) is None


def test_such_a_drill_on_a_lab_with_one_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(tmp_path, default())
    monkeypatch.setattr(command, "require_up", lambda session: None)
    with pytest.raises(ConfigError, match="split-brain needs 2 load balancers") as caught:
        command.drill(session, "split-brain", repeat="1", compare="", consent=False, confirm=lambda _: False)
    assert caught.value.exit_code == 2


def test_all_drills_are_those_that_the_lab_has_load_balancers_for() -> None:
    assert not {each.name for each in command.chosen("all", default())} & set(OF_TWO)
    assert set(OF_TWO) <= {each.name for each in command.chosen("all", PAIR)}


def test_a_killed_load_balancer_of_two_has_other_limits() -> None:
    kill = drill("kill-load-balancer")
    assert dict(kill.limits_in(default())) == {"whole_s.the API": 30}
    assert kill.limits_in(PAIR)["connections.longest_gap_s"] == 2
    assert drill("kill-control-plane").limits_in(PAIR) == drill("kill-control-plane").limits


def test_the_holder_is_the_machine_to_break(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert isinstance(session.remote, FakeRemote)
    session.remote.holding = {"lb2"}
    assert holder(session).name == "lb2"
    assert [node.name for node in drill("kill-load-balancer").victims(session)] == ["lb2"]
    assert holder(opened(tmp_path, default())).name == "lb1"


@pytest.mark.parametrize(
    ("holding", "said"), [(set(), "no load balancer has"), ({"lb1", "lb2"}, "both load bal")]
)
def test_without_one_holder_no_drill_begins(tmp_path: Path, holding: set[str], said: str) -> None:
    session = opened(tmp_path)
    assert isinstance(session.remote, FakeRemote)
    session.remote.holding = holding
    with pytest.raises(LabStateError, match=f"{said}.* the API's address, 192.168.62.5"):
        holder(session)


class Flapping(FakeRemote):
    """Load balancers whose HAProxy is stopped and started: the address goes to the other one."""

    def __init__(self, folder: Path, *, moves: bool = True) -> None:
        super().__init__(PAIR, Workspace(folder / ".lab"))
        self.holding, self.moves = {"lb1"}, moves
        self.faults: list[str] = []

    def run(self, node: Node, command: Sequence[str], **how: Any) -> process.Result:
        """Inject and revert haproxy_stopped; the rest is asked."""
        if command[1] != "bash":
            return super().run(node, command, **how)
        _, name, action = command[3:6]
        assert name == "haproxy_stopped"
        self.faults.append(f"{action} {node.name}")
        if action == "inject" and self.moves:
            assert self.holding == {node.name}
            self.holding = {"lb1", "lb2"} - {node.name}
        return process.Result(tuple(command), 0, "", "", 0.0)


def test_flap_stops_haproxy_where_the_address_is_until_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "NOTICED", 0.0)
    remote = Flapping(tmp_path)
    session = replace(opened(tmp_path), remote=remote)
    marks: list[tuple[str, str]] = []
    drill("flap").inject(Scene(session, PAIR.pair, lambda *mark: marks.append(mark)))
    assert remote.faults == [
        *("inject lb1", "heal lb1", "inject lb2", "heal lb2", "inject lb1", "heal lb1"),
    ]
    assert marks == [("inject", "the fault")]


def test_flap_reports_an_address_that_does_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MOVED", 0.1)
    session = replace(opened(tmp_path), remote=Flapping(tmp_path, moves=False))
    with pytest.raises(WaitTimedOut, match=r"the API's address to leave lb1.*at lb1"):
        drill("flap").inject(Scene(session, PAIR.pair, lambda *_: None))


def test_a_load_balancer_of_two_has_recovered_once_its_own_haproxy_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ready(node_address: Any, port: int, ca: str) -> None:
        asked.append(f"{node_address}:{port}")

    monkeypatch.setattr(recovery, "_why_not_ready", ready)
    monkeypatch.setattr(Scene, "api", property(lambda scene: type("Api", (), {"ca": ""})()))
    marks: list[tuple[str, str]] = []
    scene = Scene(opened(tmp_path), PAIR.pair[:1], lambda *mark: marks.append(mark))
    recovery.wait_for_recovery(scene, 1.0)
    assert sorted(asked) == ["192.168.62.5:6443", "192.168.62.6:6443"]
    assert ("whole", "lb1 HAProxy") in marks


def test_a_lab_with_one_load_balancer_is_not_asked_where_its_address_is(tmp_path: Path) -> None:
    session = opened(tmp_path, default())
    assert pair.holding(session.lab, session.remote) == frozenset()


def test_a_planned_move_is_marked_before_it_happens() -> None:
    """Its script takes a second, in which all of it is over."""
    order: list[str] = []

    class Marking(SimpleNamespace):
        def injected(self) -> None:
            order.append("mark")

        def fault(self, name: str, action: str) -> None:
            order.append(f"{name} {action}")

    [drill] = [each for each in catalogue.DRILLS if each.name == "move-address"]
    drill.inject(cast("Scene", Marking()))
    assert order == ["mark", "address_given_up inject"]
