from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.errors import CommandFailed
from lab.health.facts.gather import COMMAND
from lab.model import Lab, Node
from lab.plans import quorum
from lab.system import process
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote

LAB = default()
CP = ("cp1", "cp2", "cp3", "cp4", "cp5")


@pytest.mark.parametrize(
    ("members", "majority", "losses"), [(0, 1, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2)]
)
def test_a_majority_must_answer_and_the_rest_may_be_lost(members: int, majority: int, losses: int) -> None:
    assert (quorum.needed(members), quorum.tolerance(members)) == (majority, losses)


@pytest.mark.parametrize(
    ("members", "silent", "leaving"),
    [
        (3, (), ("cp3",)),
        (3, (), ("cp1",)),
        (3, (), ("cp2", "cp3")),  # to one
        (5, (), ("cp4", "cp5")),
        (5, (), ("cp2", "cp3", "cp4", "cp5")),
        (3, ("cp3",), ("cp3",)),  # a dead one only weakens the majority
        (3, ("cp2",), ("cp2", "cp3")),  # the dead one first, then two of two answer
        (3, ("cp3",), ("cp2", "cp3")),  # whichever order they are named in
        (5, ("cp4", "cp5"), ("cp4", "cp5")),
        (5, ("cp1",), ("cp5",)),  # three of the four that stay answer
        (2, (), ("cp2",)),
        (3, (), ("w1",)),  # no member
        (3, ("cp1", "cp2"), ()),  # nothing leaves
    ],
)
def test_members_may_leave_while_a_majority_answers(
    members: int, silent: Sequence[str], leaving: Sequence[str]
) -> None:
    assert quorum.problem(CP[:members], set(CP) - set(silent), leaving) is None


@pytest.mark.parametrize(
    ("members", "silent", "leaving", "what", "way_out"),
    [
        (
            3,
            ("cp1",),
            ("cp2",),
            "cp2 can't leave now: of etcd's 3 members cp1 does not answer, and without cp2 1 of 2 would, where "
            "2 are needed",
            "bring cp1 back first: `./inv up`, or `./inv replace cp1`",
        ),
        (
            3,
            ("cp1",),
            ("cp2", "cp3"),
            "cp2 can't leave now: of etcd's 3 members cp1 does not answer, and without cp2 1 of 2 would, where "
            "2 are needed",
            "bring cp1 back first: `./inv up`, or `./inv replace cp1`",
        ),
        (
            3,
            ("cp1", "cp2"),
            ("cp3",),
            "cp3 can't leave now: of etcd's 3 members cp1, cp2 do not answer, and without cp3 0 of 2 would, "
            "where 2 are needed",
            "bring cp1, cp2 back first: `./inv up`, or `./inv replace cp1`",
        ),
        (
            3,
            ("cp2", "cp3"),
            ("cp2", "cp3"),
            "cp2 can't leave now: of etcd's 3 members cp2, cp3 do not answer, and without cp2 1 of 2 would, "
            "where 2 are needed",
            "`./inv status` shows what runs; `./inv up` brings back what it can",
        ),
        (
            5,
            ("cp1", "cp2"),
            ("cp5",),
            "cp5 can't leave now: of etcd's 5 members cp1, cp2 do not answer, and without cp5 2 of 4 would, "
            "where 3 are needed",
            "bring cp1, cp2 back first: `./inv up`, or `./inv replace cp1`",
        ),
        (
            1,
            (),
            ("cp1",),
            "cp1 can't leave: it has the only etcd member, and so all of the cluster's data",
            "let others join first: `./inv up`, with nodes.control_planes.count at 3 or more",
        ),
    ],
)
def test_members_can_t_leave_where_no_majority_would_be_left(
    members: int, silent: Sequence[str], leaving: Sequence[str], what: str, way_out: str
) -> None:
    found = quorum.problem(CP[:members], set(CP) - set(silent), leaving)
    assert found == quorum.Problem(what, way_out)


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [
        (3, 1, "with 1 control plane, none may fail any more; with the present 3, 1 may"),
        (5, 3, "with 3 control planes, 1 may fail; with the present 5, 2 may"),
        (5, 1, "with 1 control plane, none may fail any more; with the present 5, 2 may"),
        (3, 3, None),
        (1, 3, None),
    ],
)
def test_what_a_smaller_lab_can_t_survive_is_named(before: int, after: int, loss: str | None) -> None:
    assert quorum.loss(_with(before), _with(after)) == loss


def _with(count: int) -> Lab:
    first = LAB.first
    nodes = [
        first.model_copy(update={"name": f"cp{number}", "address": first.address + number - 1})
        for number in range(1, count + 1)
    ]
    return LAB.model_copy(update={"nodes": (*LAB.balancers, *nodes, *LAB.workers)})


# Asking.


class Etcd(FakeRemote):
    """Machines that answer with these members, or not at all."""

    def __init__(self, folder: Path, said: Callable[[str], str]) -> None:
        super().__init__(LAB, Workspace(folder))
        self.said = said

    def run(self, node: Node, command: Sequence[str], **options: Any) -> process.Result:
        assert tuple(command) == ("sudo", COMMAND, "etcd-health", "etcd-members")
        assert options["accept"] is None
        return process.Result(tuple(command), 0, self.said(node.name), "", 0.0)


def answer(names: Sequence[str], *, healthy: bool = True, learner: str = "", unnamed: str = "") -> str:
    members: list[dict[str, Any]] = [
        {"ID": number, "name": name, "peerURLs": [f"https://{name}:2380"]} for number, name in enumerate(names)
    ]
    if learner:
        members.append({"ID": 98, "name": learner, "peerURLs": ["https://x:2380"], "isLearner": True})
    if unnamed:
        members.append({"ID": 99, "peerURLs": [f"https://{unnamed}:2380"]})
    health = json.dumps([{"endpoint": "https://127.0.0.1:2379", "health": healthy}])
    listed = json.dumps({"members": members})
    # Another checkout's script begins otherwise, and says these two all the same.
    return (
        f"== script 0\nabc  -\n\n== etcd-health 0\n{health}\n\n== etcd-members 0\n{listed}\n\n== clock 0\n1\n"
    )


def test_each_machine_s_member_is_asked_for_its_own_health(tmp_path: Path) -> None:
    remote = Etcd(tmp_path, lambda name: answer(CP[:3], healthy=name != "cp2"))
    found = quorum.membership(LAB, remote)
    assert found == quorum.Membership(("cp1", "cp2", "cp3"), frozenset({"cp1", "cp3"}))


def test_etcd_s_own_members_count_and_not_those_that_lab_yaml_would_have(tmp_path: Path) -> None:
    def said(name: str) -> str:
        if name != "cp1":
            raise CommandFailed(["ssh"], "No route to host")
        return answer(["cp1"], learner="cp2")

    found = quorum.membership(LAB, Etcd(tmp_path, said))
    assert found == quorum.Membership(("cp1",), frozenset({"cp1"}))
    assert quorum.problem(found.members, found.healthy, ("cp2", "cp3")) is None


def test_a_voting_member_that_never_started_is_known_by_its_address(tmp_path: Path) -> None:
    cp3 = LAB.node("cp3")
    assert cp3 is not None
    remote = Etcd(tmp_path, lambda name: answer(["cp1", "cp2"], unnamed=str(cp3.address)))
    assert quorum.membership(LAB, remote).members == ("cp1", "cp2", "cp3")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "== etcd-health 1\nError: unhealthy\n\n== etcd-members 1\nError: context deadline exceeded\n",
        "== etcd-health 0\n[]\n",
        answer(CP[:3], healthy=False),
        answer(CP[:3]).replace('"members"', '"other"'),
    ],
)
def test_an_answer_that_is_none_is_not_taken_for_health(tmp_path: Path, said: str) -> None:
    found = quorum.membership(LAB, Etcd(tmp_path, lambda name: said))
    assert found == quorum.Membership(("cp1", "cp2", "cp3"), frozenset())


# What is left of it.


@pytest.mark.parametrize(
    ("members", "newest", "left", "problem"),
    [
        (CP[:3], "cp1", ("cp1", "cp3"), None),
        (CP[:1], "cp1", ("cp1",), None),  # cp2 and cp3 had not joined yet
        (
            CP[:3],
            "cp2",
            ("cp2",),
            ("1 of its 3 members is left (cp2), and 2 are needed", "then `./inv up` creates"),
        ),
        (
            CP[:2],
            "cp1",
            ("cp1",),
            ("1 of its 2 members is left (cp1), and 2 are needed", "then `./inv up` creates"),
        ),
        (
            CP,
            "cp4",
            ("cp1", "cp4"),
            ("2 of its 5 members are left (cp1, cp4), and 3 are needed", "then `./inv replace cp1` creates"),
        ),
    ],
)
def test_what_is_left_of_etcd_and_what_can_be_had_back_is_said(
    members: tuple[str, ...], newest: str, left: Sequence[str], problem: tuple[str, str] | None
) -> None:
    found = quorum.lost_problem(quorum.StoredMembership(members, newest), left)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert found.what.startswith("etcd has lost its majority for good: " + problem[0])
        assert f"`./inv ssh {newest} -- sudo /opt/ha-lab/sole-member.sh`" in found.next
        assert problem[1] in found.next


@pytest.mark.parametrize(
    ("members", "healthy", "again"),
    [
        (CP[:3], ("cp2", "cp3"), ("cp1",)),
        (CP[:3], CP[:3], ("cp2",)),
        (CP[:2], ("cp1",), ("cp3",)),  # half a join, which etcd has no member of
        (CP, CP[2:], ("cp1", "cp2")),
    ],
)
def test_members_may_join_again_while_a_majority_is_left(
    members: Sequence[str], healthy: Sequence[str], again: Sequence[str]
) -> None:
    assert quorum.rejoin_problem(members, healthy, again) is None


@pytest.mark.parametrize(
    ("members", "healthy", "again", "what", "way_out"),
    [
        (
            CP,
            CP[3:],
            ("cp1",),
            "2 of etcd's 5 members respond (cp4, cp5), and 3 are needed",
            "bring cp2, cp3 back: ",
        ),
        (
            CP[:2],
            (),
            ("cp2",),
            "0 of etcd's 2 members respond (none), and 2 are needed",
            "still on cp1, except",
        ),
        (CP[:2], (), CP[:2], "0 of etcd's 2 members respond (none), and 2 are needed", "Without the data: "),
    ],
)
def test_why_members_can_t_join_again_is_said_with_the_least_that_helps(
    members: Sequence[str], healthy: Sequence[str], again: Sequence[str], what: str, way_out: str
) -> None:
    found = quorum.rejoin_problem(members, healthy, again)
    assert found is not None
    assert what in found.what
    assert way_out in found.next


def stored(index: int) -> str:
    """What a member has stored, as facts.sh prints it."""
    status = json.dumps([{"Status": {"header": {"member_id": 1}, "raftIndex": index}}])
    listed = answer(CP[:3], learner="cp4").partition("== etcd-members 0\n")[2].partition("\n")[0]
    return f"== etcd-status 0\n{status}\n\n== etcd-stored-members 0\n{listed}\n\n== clock 0\n1\n"


def test_members_are_asked_for_what_they_have_stored_and_the_newest_counts(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    class Stored(Etcd):
        def run(self, node: Node, command: Sequence[str], **options: Any) -> process.Result:
            asked.append(tuple(command))
            if node.name == "cp3":
                raise CommandFailed(["ssh"], "No route to host")
            return process.Result(tuple(command), 0, self.said(node.name), "", 0.0)

    remote = Stored(tmp_path, lambda name: stored({"cp1": 7, "cp2": 9}[name]))
    assert quorum.stored_membership(LAB, remote, LAB.etcd_members) == quorum.StoredMembership(
        ("cp1", "cp2", "cp3"), "cp2"
    )
    assert set(asked) == {("sudo", COMMAND, "etcd-status", "etcd-stored-members")}
    silent = Stored(tmp_path, lambda name: "== etcd-status 1\nError\n\n== etcd-stored-members 1\nError\n")
    assert quorum.stored_membership(LAB, silent, LAB.etcd_members) is None


@pytest.mark.parametrize(
    ("members", "silent", "name"),
    [
        (3, (), "cp1"),
        (3, ("cp2",), "cp2"),
        (5, ("cp1",), "cp5"),
        (5, ("cp1", "cp5"), "cp5"),
        (2, (), "cp1"),
        (1, ("cp1",), "cp1"),
    ],
)
def test_a_member_may_be_restarted_while_the_others_are_a_majority(
    members: int, silent: Sequence[str], name: str
) -> None:
    assert quorum.restart_problem(CP[:members], set(CP) - set(silent), name) is None


@pytest.mark.parametrize(
    ("members", "silent", "name", "what"),
    [
        (3, ("cp2",), "cp1", "2 of the others must answer meanwhile, and cp2 does not"),
        (5, ("cp2", "cp3"), "cp1", "3 of the others must answer meanwhile, and cp2, cp3 do not"),
        (2, ("cp2",), "cp1", "1 of the others must answer meanwhile, and cp2 does not"),
    ],
)
def test_no_member_is_restarted_where_the_others_would_be_no_majority(
    members: int, silent: Sequence[str], name: str, what: str
) -> None:
    found = quorum.restart_problem(CP[:members], set(CP) - set(silent), name)
    assert found is not None
    assert found.what == f"{name}'s etcd member can't be restarted now: {what}"
    assert "`./inv replace cp2`" in found.next
