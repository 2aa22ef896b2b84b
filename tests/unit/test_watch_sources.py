"""Asking a lab again and again: each source on its own, whatever the others do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lab import config
from lab.errors import CommandFailed, CommandTimedOut, LabStateError
from lab.health.cluster import NodeFact
from lab.health.facts.api import LeaseFact
from lab.health.facts.machine import EtcdStatus
from lab.model import Lab, Node
from lab.session import Session
from lab.system import process
from lab.workshop.watch import sources
from lab.workshop.watch.board import LEASES, NODES, Balancing, Board, Heard, Leases, Nodes
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, progress
from tests.unit.watched import external, lease, node, pair

STAT = "# pxname,svname,status,stot,scur\napiserverbackend,cp1,UP,7,2"
STATUS = '[{"Status": {"header": {"member_id": 11}, "leader": 12, "raftTerm": 4, "raftIndex": 99}}]'
Lines = Callable[[], Iterator[str]]


class Machines(FakeRemote):
    """Machines that are followed: each prints what a test says, and then keeps quiet until the watch is over.

    `followed` counts connections by machine; `commands` are the words of each.
    """

    def __init__(self, lab: Lab, workspace: Workspace) -> None:
        """Let all be well."""
        super().__init__(lab, workspace)
        self.followed: Counter[str] = Counter()
        self.commands: dict[str, list[str]] = {}
        self.prints: dict[str, Lines] = {}
        self.no_route: str | None = None

    def route_problem(self) -> str | None:
        """Say what the test does."""
        return self.no_route

    def follow(
        self,
        node: Node,
        command: Sequence[str],
        heard: Callable[[str], None],
        *,
        silence: float,
        over: Callable[[], bool],
    ) -> process.Result:
        """Print what this machine prints."""
        self.followed[node.name] += 1
        self.commands[node.name] = list(command)
        for line in self.prints.get(node.name, lambda: well(node))():
            heard(line)
        while not over():
            time.sleep(0.01)
        return process.Result(tuple(command), 0, "", "", 0.0)


class Cluster:
    """The API as a test has it, in place of `Api`."""

    broken: str = ""
    made = 0

    def __init__(self, kubeconfig: Path, timeout: float) -> None:
        """Count it."""
        Cluster.made += 1
        self.timeout = timeout

    def nodes(self) -> tuple[NodeFact, ...]:
        """Answer, unless it is broken."""
        if Cluster.broken:
            raise LabStateError(Cluster.broken)
        return (node("cp1"),)


def well(node: Node) -> Iterator[str]:
    """One round of a machine that is well."""
    if node.name.startswith("lb"):
        yield from (
            "== backends 0",
            *STAT.split("\n"),
            "== address 0",
            "here" if node.name == "lb1" else "elsewhere",
        )
    else:
        yield from ("== etcd-status 0", STATUS)
    yield "== end 0"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    workspace = Workspace(tmp_path / ".lab")
    Cluster.broken, Cluster.made = "", 0
    monkeypatch.setattr(sources, "Api", Cluster)
    monkeypatch.setattr(sources, "ask_leases", lambda api: (lease("kube-scheduler", "cp1_1"),))
    for name in ("AGAIN", "API_PAUSE"):
        monkeypatch.setattr(sources, name, 0.02)
    lab = pair()
    return Session(tmp_path / "lab.yaml", lab, workspace, Machines(lab, workspace), progress(tmp_path / "logs"))


def machines(session: Session) -> Machines:
    assert isinstance(session.remote, Machines)
    return session.remote


def watched(session: Session, until: Callable[[Board], object], seconds: float = 20) -> Board:
    """Ask until something is true of the board; return that."""
    board, broken = Board(time.monotonic), list[BaseException]()
    with sources.asking(session, board, broken.append):
        end = time.monotonic() + seconds
        while not until(board):
            assert time.monotonic() < end, board.heard()
            assert broken == []
            time.sleep(0.01)
    assert broken == []
    return board


def answered(board: Board, *names: str) -> bool:
    return all(board.heard().get(name, Heard()).answer is not None for name in names)


ALL = ("lb1", "lb2", "cp1", "cp2", "cp3", NODES, LEASES)


def test_every_source_is_asked_over_one_connection_and_a_worker_is_none(session: Session) -> None:
    board = watched(session, lambda board: answered(board, *ALL))
    found = {name: heard.answer for name, heard in board.heard().items()}
    assert set(found) == set(ALL)
    assert machines(session).followed == dict.fromkeys(ALL[:5], 1)
    balancing = found["lb1"]
    assert isinstance(balancing, Balancing)
    assert balancing.holds
    assert [(each.name, each.open, each.sessions) for each in balancing.servers] == [("cp1", 2, 7)]
    assert found["lb2"] == Balancing(False, balancing.servers)
    assert found["cp1"] == EtcdStatus(11, 12, 4, 99, False, "")
    assert found[NODES] == Nodes((node("cp1"),))
    leases = found[LEASES]
    assert isinstance(leases, Leases)
    assert isinstance(leases.leases[0], LeaseFact)


def test_the_script_is_asked_twice_a_second_and_ends_by_itself(session: Session) -> None:
    watched(session, lambda board: answered(board, *ALL))
    command = machines(session).commands
    assert command["lb1"] == ["sudo", "/opt/ha-lab/follow.sh", "0.5", "1200", "backends", "address"]
    assert command["cp1"] == ["sudo", "/opt/ha-lab/follow.sh", "0.5", "1200", "etcd-status"]


def test_machines_of_etcd_are_asked_in_the_place_of_control_planes(session: Session) -> None:
    lab = external()
    remote = Machines(lab, session.workspace)
    elsewhere = Session(session.path, lab, session.workspace, remote, session.progress)
    watched(elsewhere, lambda board: answered(board, "lb1", "etcd1", "etcd2", "etcd3", NODES, LEASES))
    assert set(remote.followed) == {"lb1", "etcd1", "etcd2", "etcd3"}
    assert remote.commands["etcd1"] == ["sudo", "/opt/ha-lab/follow.sh", "0.5", "1200", "etcd-status"]


def test_the_only_load_balancer_is_not_asked_for_an_address_that_it_has(
    session: Session, tmp_path: Path
) -> None:
    lab = config.default()
    remote = Machines(lab, session.workspace)
    remote.prints["lb1"] = lambda: iter(["== backends 0", STAT, "== end 0"])
    alone = Session(session.path, lab, session.workspace, remote, session.progress)
    board = watched(alone, lambda board: answered(board, "lb1"))
    assert remote.commands["lb1"][-1] == "backends"
    balancing = board.heard()["lb1"].answer
    assert isinstance(balancing, Balancing)
    assert balancing.holds


def test_one_that_hangs_holds_up_no_other(session: Session) -> None:
    hanging = threading.Event()

    def nothing() -> Iterator[str]:
        hanging.wait(30)
        yield from ()

    machines(session).prints["cp2"] = nothing
    try:
        board = watched(session, lambda board: answered(board, *(name for name in ALL if name != "cp2")))
    finally:
        hanging.set()
    assert "cp2" not in board.heard()


def test_a_machine_that_says_nothing_is_named_and_tried_again(session: Session) -> None:
    def dies() -> Iterator[str]:
        if machines(session).followed["cp2"] < 3:
            raise CommandTimedOut(["ssh"], "said nothing for 4 s")
        return well(cp2)

    [cp2] = [each for each in session.lab.nodes if each.name == "cp2"]
    machines(session).prints["cp2"] = dies
    said: set[str] = set()

    def both(board: Board) -> bool:
        said.add(board.heard().get("cp2", Heard()).problem)
        return answered(board, "cp2")

    board = watched(session, both)
    assert "cp2 does not answer" in said
    assert board.heard()["cp2"].problem == ""
    assert machines(session).followed["cp2"] == 3


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("sudo: /opt/ha-lab/follow.sh: command not found\n", "cp1 has another checkout's scripts: `./inv up`"),
        (
            "noise\nssh: connect to host cp1 port 22: No route to host\n",
            "cp1: ssh: connect to host cp1 port 22",
        ),
        ("", "cp1: ssh failed without a message"),
    ],
)
def test_why_a_connection_ended_is_the_problem(
    session: Session, monkeypatch: pytest.MonkeyPatch, stderr: str, says: str
) -> None:
    failed = process.Result(("ssh",), 255, "", stderr, 0.1)
    monkeypatch.setattr(machines(session), "follow", lambda *_, **__: failed)
    board = watched(session, lambda board: board.heard().get("cp1", Heard()).problem)
    assert board.heard()["cp1"].problem.startswith(says)


def test_an_answer_that_failed_leaves_the_last_one_and_says_why(session: Session) -> None:
    def stops() -> Iterator[str]:
        yield from (
            "== etcd-status 0",
            STATUS,
            "== end 0",
            "== etcd-status 1",
            "context deadline exceeded",
            "== end 0",
        )

    machines(session).prints["cp1"] = stops
    board = watched(session, lambda board: board.heard().get("cp1", Heard()).problem)
    assert board.heard()["cp1"].answer == EtcdStatus(11, 12, 4, 99, False, "")
    assert "cp1 could not report etcd-status (exit code 1): context deadline" in board.heard()["cp1"].problem


def test_a_round_is_judged_by_its_own_answers_only(session: Session) -> None:
    machines(session).prints["cp1"] = lambda: iter(["== etcd-status 0", STATUS, "== end 0", "== end 0"])
    board = watched(session, lambda board: board.heard().get("cp1", Heard()).problem)
    assert board.heard()["cp1"].problem == "cp1 said nothing of etcd-status"


@pytest.mark.parametrize(
    ("head", "says"), [("== backends 0", "can't be read"), ("== backends 1", "could not report backends")]
)
def test_a_load_balancer_without_haproxy_still_says_where_the_address_is(
    session: Session, head: str, says: str
) -> None:
    machines(session).prints["lb1"] = lambda: iter([head, "x", "== address 0", "here", "== end 0"])
    balancing = watched(session, lambda board: answered(board, "lb1")).heard()["lb1"].answer
    assert isinstance(balancing, Balancing)
    assert (balancing.holds, balancing.servers) == (True, ())
    assert says in balancing.problem


def test_an_answer_that_can_not_be_read_is_a_problem_and_no_bug(session: Session) -> None:
    machines(session).prints["cp1"] = lambda: iter(["== etcd-status 0", "{", "== end 0"])
    board = watched(session, lambda board: board.heard().get("cp1", Heard()).problem)
    assert "cp1's answer to etcd-status can't be read" in board.heard()["cp1"].problem


def test_the_api_that_refuses_is_asked_again_with_the_kubeconfig_as_it_is_then(session: Session) -> None:
    Cluster.broken = "the API can't be asked: refused"
    said: set[str] = set()

    def recovered(board: Board) -> bool:
        problem = board.heard().get(NODES, Heard()).problem
        said.add(problem)
        if problem:
            Cluster.broken = ""
        return answered(board, NODES, LEASES)

    watched(session, recovered)
    assert "the API can't be asked: refused" in said
    assert Cluster.made >= 3, "again after the failure"


def test_while_the_network_is_down_nothing_is_sent(session: Session) -> None:
    machines(session).no_route = "the lab's network is not up on this host"
    board = watched(session, lambda board: len(board.heard()) == len(ALL))
    assert {heard.problem for heard in board.heard().values()} == {"the lab's network is not up on this host"}
    assert machines(session).followed == {}
    assert Cluster.made == 0


def test_a_bug_is_handed_on_and_not_taken_for_silence(session: Session) -> None:
    def bug() -> Iterator[str]:
        raise KeyError("bug")
        yield ""

    machines(session).prints["cp1"] = bug
    broken: list[BaseException] = []
    with sources.asking(session, Board(time.monotonic), broken.append):
        end = time.monotonic() + 20
        while not broken:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert isinstance(broken[0], KeyError)


def test_a_command_that_can_not_start_is_a_problem_of_its_source(session: Session) -> None:
    def missing() -> Iterator[str]:
        raise CommandFailed(["ssh"], "could not start: no such program")
        yield ""

    machines(session).prints["lb2"] = missing
    board = watched(session, lambda board: board.heard().get("lb2", Heard()).problem)
    assert "`ssh` could not start" in board.heard()["lb2"].problem


def test_no_thread_is_left_behind(session: Session) -> None:
    before = threading.active_count()
    watched(session, lambda board: answered(board, *ALL))
    assert threading.active_count() == before
