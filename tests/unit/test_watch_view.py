"""What the page of `watch` shows of the last answers, and what counts as a change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.health.checks import etcd
from lab.model import Libvirt
from lab.workshop.watch.board import LEASES, NODES, Balancing, Board
from lab.workshop.watch.diary import KEPT, Diary, changes
from lab.workshop.watch.view import RECENT, STALE, Known, view
from tests.unit.watched import Clock, external, leases, member, nodes, pair, servers, told

LAB = pair()
Told = tuple[Board, Clock]


@pytest.fixture
def world() -> Told:
    return told(LAB)


def known(world: Told) -> Known:
    board, clock = world
    return Known(LAB, board.heard(), clock.now)


def shown(world: Told, name: str) -> dict[str, Any]:
    [found] = [each for each in view(known(world))["machines"] if each["name"] == name]
    return dict(found)


def said(world: Told, change: Callable[[], None], seconds: float = 0.5) -> list[str]:
    """What is said to have changed once something has and so many seconds are over."""
    before = known(world)
    change()
    world[1].now += seconds
    return [each.en for each in changes(before, known(world))]


def all_but(world: Told, *silent: str) -> None:
    """Let every source but these answer again what it answered last."""
    board, _ = world
    for source, heard in board.heard().items():
        if source not in silent and heard.answer is not None:
            board.answered(source, heard.answer)


# The view.


def test_of_a_lab_that_is_well_everything_has_its_place(world: Told) -> None:
    found = view(known(world))
    assert [each["name"] for each in found["machines"]] == [node.name for node in LAB.nodes]
    assert (found["holders"], found["leader"]) == (("lb1",), "cp2")
    assert found["etcd"]["en"] == "etcd: 3 of 3 members answer, cp2 leads; 1 more may be lost"
    assert "리더 cp2" in found["etcd"]["ko"]
    assert shown(world, "lb1")["holds"] is True
    assert shown(world, "lb2")["holds"] is False
    assert shown(world, "lb1")["servers"][0] == {
        "name": "cp1",
        "status": "UP",
        "up": True,
        "open": 3,
        "sessions": 1200,
    }
    assert shown(world, "cp2")["leads"] is True
    assert shown(world, "cp2")["member"] == {"term": 4, "index": 51234}
    assert shown(world, "cp1")["leases"] == ["kube-controller-manager"]
    assert shown(world, "w1") == {
        **dict.fromkeys(("holds", "leads"), False),
        **{"name": "w1", "heard": None, "member": None, "haproxy": "", "servers": [], "leases": []},
        "node": {"ready": True, "reason": ""},
    }
    json.dumps(found)


def test_members_on_machines_of_their_own_are_asked_for_what_etcd_says() -> None:
    lab = external()
    board, clock = told(lab)
    now = Known(lab, board.heard(), clock.now)
    found = view(now)
    shown = {each["name"]: each for each in found["machines"]}
    assert (found["leader"], found["complete"]) == ("etcd2", True)
    assert found["etcd"]["en"] == "etcd: 3 of 3 members answer, etcd2 leads; 1 more may be lost"
    assert shown["etcd2"]["leads"] is True
    assert shown["etcd2"]["member"] == {"term": 4, "index": 51234}
    assert shown["etcd2"]["node"] is None, "it is no Kubernetes node"
    assert (shown["cp2"]["heard"], shown["cp2"]["member"]) == (None, None), "what is asked of it, the API says"
    assert shown["cp2"]["node"] == {"ready": True, "reason": ""}
    for name in ("etcd1", "etcd3"):
        board.answered(name, member(name, "etcd3", term=5))
    said = [each.en for each in changes(now, Known(lab, board.heard(), clock.now))]
    assert said == ["etcd3 leads etcd, in term 5"]


def test_leases_have_their_holders_and_their_ages(world: Told) -> None:
    world[1].now += 2
    found = view(known(world))["leases"]
    assert found["list"][:2] == [
        {"name": "kube-controller-manager", "holder": "cp1", "age": 3.0},
        {"name": "kube-scheduler", "holder": "cp3", "age": 3.0},
    ]
    assert [(each["holder"], each["age"]) for each in found["list"][2:]] == [
        ("cp1", 7.0),
        ("cp2", 7.0),
        ("cp3", 7.0),
    ]
    assert found["age"] == 2.0


def test_a_silent_source_is_stale_with_its_age_its_last_answer_and_why(world: Told) -> None:
    board, clock = world
    clock.now += STALE + 1
    all_but(world, "cp2", NODES)
    board.failed("cp2", "cp2 does not answer")
    cp2 = shown(world, "cp2")
    assert cp2["heard"] == {"age": 3.5, "stale": True, "problem": "cp2 does not answer"}
    assert cp2["member"]["index"] == 51234
    assert shown(world, "cp1")["heard"] == {"age": 0.0, "stale": False, "problem": ""}
    assert view(known(world))["nodes"]["stale"] is True
    assert view(known(world))["leases"]["stale"] is False


def test_what_was_never_heard_has_no_age_and_nothing_is_made_up() -> None:
    world = Board(Clock()), Clock()
    found = view(known(world))
    assert found["machines"][0]["heard"] == {"age": None, "stale": True, "problem": ""}
    assert (found["holders"], found["leader"], found["leases"]["list"]) == ((), "", [])
    assert {each["node"] for each in found["machines"]} == {None}
    assert found["etcd"]["en"].startswith("etcd: 0 of 3 members answer (quorum 2); no leader is known")


def test_a_view_is_complete_once_every_source_has_answered_or_failed() -> None:
    board, clock = Board(Clock()), Clock()
    heard, _ = told(LAB)
    for source, each in heard.heard().items():
        assert not view(Known(LAB, board.heard(), clock.now))["complete"]
        if source == "cp2":
            board.failed(source, "refused")
        elif each.answer is not None:
            board.answered(source, each.answer)
    assert view(Known(LAB, board.heard(), clock.now))["complete"]


def test_an_emulated_lab_s_answers_are_stale_later(world: Told) -> None:
    slow = LAB.model_copy(update={"provider": "libvirt", "libvirt": Libvirt(emulated=True)})
    board, clock = world
    assert not Known(LAB, board.heard(), clock.now + 2 * STALE).is_fresh("cp1")
    assert Known(slow, board.heard(), clock.now + 2 * STALE).is_fresh("cp1")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"cp1": ("cp2", 4), "cp2": ("cp2", 4), "cp3": ("cp2", 4)}, "cp2"),
        ({"cp1": ("cp3", 5), "cp2": ("cp2", 4), "cp3": ("cp3", 5)}, "cp3"),
        ({"cp1": ("", 5), "cp2": ("cp2", 4), "cp3": ("", 5)}, ""),
        ({"cp1": ("", 4), "cp2": ("cp2", 4), "cp3": ("cp2", 4)}, "cp2"),
        ({"cp1": ("cp1", 5), "cp2": ("cp2", 5)}, ""),
    ],
    ids=[
        "all agree",
        "a leader that is cut off",
        "an election",
        "one has not heard yet",
        "no two lead in a term",
    ],
)
def test_the_leader_is_the_one_that_is_followed_in_the_highest_term(
    answers: dict[str, tuple[str, int]], says: str
) -> None:
    statuses = {name: member(name, leader, term) for name, (leader, term) in answers.items()}
    assert etcd.leader(statuses) == says


def test_a_leader_whose_machine_is_silent_is_known_by_its_followers(world: Told) -> None:
    world[1].now += STALE + 1
    all_but(world, "cp2")
    assert known(world).leader == "cp2"
    assert view(known(world))["etcd"]["en"].endswith("2 of 3 members answer, cp2 leads; no more may be lost")


def test_of_two_that_claim_the_address_one_that_was_heard_long_ago_does_not_count(world: Told) -> None:
    board, clock = world
    clock.now += RECENT + 0.1
    board.answered("lb2", Balancing(True, servers()))
    assert known(world).holders == ("lb2",), "lb1 has lost its power since"
    board.answered("lb1", Balancing(True, servers()))
    assert known(world).holders == ("lb1", "lb2"), "both have it"


# What has changed.


def test_nothing_has_changed_where_only_figures_grow(world: Told) -> None:
    def grow() -> None:
        world[0].answered("cp1", member("cp1", "cp2", index=51300))
        world[0].answered("lb1", Balancing(True, servers(cp1=1300)))

    assert said(world, grow) == []


def test_an_address_that_moves_is_a_change_and_so_are_both_and_none(world: Told) -> None:
    board, _ = world
    assert said(world, lambda: board.answered("lb2", Balancing(True, servers()))) == [
        "lb1 + lb2 both have the API's address"
    ]
    assert said(world, lambda: board.answered("lb1", Balancing(False, servers()))) == [
        "lb2 has the API's address"
    ]
    assert said(world, lambda: board.answered("lb2", Balancing(False, servers()))) == [
        "no load balancer is known to have the API's address"
    ]


def test_an_election_is_two_changes(world: Told) -> None:
    board, _ = world

    def no_leader() -> None:
        for name in ("cp1", "cp3"):
            board.answered(name, member(name, "", 5))

    def another() -> None:
        for name in ("cp1", "cp3"):
            board.answered(name, member(name, "cp3", 5))

    assert said(world, no_leader) == ["no leader of etcd is known"]
    assert said(world, another) == ["cp3 leads etcd, in term 5"]


def test_servers_nodes_and_leases_that_change_are_named(world: Told) -> None:
    board, _ = world
    down = Balancing(True, servers(down="cp2"))
    assert said(world, lambda: board.answered("lb1", down)) == ["HAProxy on lb1 marks cp2 DOWN"]
    up = Balancing(True, servers())
    assert said(world, lambda: board.answered("lb1", up)) == ["HAProxy on lb1 marks cp2 UP"]
    assert said(world, lambda: board.answered(NODES, nodes(LAB, "w2"))) == ["w2 is not Ready"]
    assert said(world, lambda: board.answered(NODES, nodes(LAB))) == ["w2 is Ready"]
    assert said(world, lambda: board.answered(LEASES, leases("cp3"))) == [
        "cp3 holds the lease kube-controller-manager"
    ]


def test_a_load_balancer_whose_haproxy_has_stopped_still_has_the_address(world: Told) -> None:
    stopped = Balancing(True, (), "lb1 could not report backends (exit code 1): Connection refused")
    assert said(world, lambda: world[0].answered("lb1", stopped)) == ["HAProxy on lb1 does not answer"]
    assert known(world).holders == ("lb1",)
    assert shown(world, "lb1")["haproxy"] == stopped.problem
    again = Balancing(True, servers())
    assert said(world, lambda: world[0].answered("lb1", again)) == ["HAProxy on lb1 answers again"]


def test_a_lease_without_a_holder_is_no_change(world: Told) -> None:
    found = leases()
    none = replace(found, leases=tuple(replace(each, holder="") for each in found.leases))
    assert said(world, lambda: world[0].answered(LEASES, none)) == []


def test_a_source_that_falls_silent_and_comes_back_is_named(world: Told) -> None:
    board, clock = world
    assert said(world, lambda: all_but(world), STALE + 1)
    all_but(world)
    before = known(world)
    clock.now += STALE + 1
    all_but(world, "cp2", NODES)
    assert [each.en for each in changes(before, known(world))] == [
        "cp2: no answer",
        "the API (nodes): no answer",
    ]
    assert said(world, lambda: board.answered("cp2", member("cp2", "cp2"))) == ["cp2 answers again"]


def test_a_lab_that_is_heard_for_the_first_time_has_not_changed() -> None:
    clock = Clock()
    board = Board(clock)
    diary, lab = Diary(), pair()
    sources, _ = told(lab)
    for source, heard in sources.heard().items():
        assert heard.answer is not None
        board.answered(source, heard.answer)
        assert diary.entries(Known(lab, board.heard(), clock.now), "14:50") == []


def test_the_newest_changes_are_first_and_few_are_kept(world: Told) -> None:
    diary = Diary()
    assert diary.entries(known(world), "14:50:00") == []
    for second in range(KEPT + 3):
        world[0].answered(NODES, nodes(LAB, *([] if second % 2 else ["w1"])))
        found = diary.entries(known(world), f"14:50:{second:02d}")
    assert len(found) == KEPT
    assert found[0]["time"] == f"14:50:{KEPT + 2}"
    assert found[0]["what"]["en"] == "w1 is not Ready"
    assert diary.entries(known(world), "14:51:00") == found, "nothing new"


# The board.


def test_waiting_ends_with_the_next_answer_or_with_its_time(world: Told) -> None:
    board, _ = world
    seen = board.wait(-1, 0)
    began = time.monotonic()
    assert board.wait(seen, 0.05) == seen
    assert time.monotonic() - began >= 0.05
    threading.Timer(0.1, board.failed, ("w9", "gone")).start()
    assert board.wait(seen, 30) == seen + 1
    assert board.heard()["w9"].problem == "gone"


def test_a_failure_leaves_the_last_answer_and_the_next_answer_ends_it(world: Told) -> None:
    board, _ = world
    board.failed("cp1", "refused")
    assert board.heard()["cp1"].answer == member("cp1", "cp2")
    assert board.heard()["cp1"].problem == "refused"
    board.answered("cp1", member("cp1", "cp2"))
    assert board.heard()["cp1"].problem == ""
