"""Labs that answer what a test says: their boards, and what is heard by default."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lab import config
from lab.health.cluster import BackendFact, NodeFact
from lab.health.facts.api import LeaseFact
from lab.health.facts.machine import EtcdStatus
from lab.model import Lab
from lab.system.paths import REPOSITORY
from lab.workshop.watch.board import LEASES, NODES, Answer, Balancing, Board, Leases, Nodes

SERVERS = ("cp1", "cp2", "cp3")
"""The control planes, which HAProxy sends connections to."""
IDS = {"cp1": 11, "cp2": 12, "cp3": 13, "etcd1": 21, "etcd2": 22, "etcd3": 23}
"""The ids of members of etcd, wherever they run."""
ASKED = datetime(2026, 11, 30, 14, 50, tzinfo=UTC)


def pair() -> Lab:
    """A lab of two load balancers, three control planes and workers."""
    return config.load(REPOSITORY / "examples" / "two-load-balancers.yaml")


def external() -> Lab:
    """A lab of three etcd machines, three control planes and workers, and one load balancer."""
    return config.load(REPOSITORY / "examples" / "external-etcd.yaml")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        """Begin at a time that is not zero."""
        self.now = 100.0

    def __call__(self) -> float:
        """The seconds now."""
        return self.now


def servers(down: str = "", **sessions: int) -> tuple[BackendFact, ...]:
    """HAProxy's servers, one of them down if that is said."""
    return tuple(
        BackendFact(name, "DOWN" if name == down else "UP", "L7OK", "200", sessions.get(name, 1200), False, 3)
        for name in SERVERS
    )


def member(name: str, leader: str, term: int = 4, index: int = 51234) -> EtcdStatus:
    """What a member says of itself; `leader` is "" for none."""
    return EtcdStatus(IDS[name], IDS.get(leader, 0), term, index, False, "3.6.16")


def node(name: str, ready: bool = True) -> NodeFact:
    """A node as the API has it."""
    why = "" if ready else "Kubelet stopped posting node status."
    return NodeFact(name, ready, why, "v1.36.3", name.startswith("cp"), (), (), "")


def lease(name: str, holder: str, server: str = "", ago: float = 1.0) -> LeaseFact:
    """A lease that was renewed so many seconds before it was asked for."""
    return LeaseFact(name, holder, ASKED - timedelta(seconds=ago), server)


def leases(manager: str = "cp1") -> Leases:
    """The leases; `manager` leads kube-controller-manager."""
    own = [lease(f"apiserver-{name}", f"apiserver-{name}_1", name, 5.0) for name in SERVERS]
    leading = [lease("kube-controller-manager", f"{manager}_2f0c"), lease("kube-scheduler", "cp3_91ab")]
    return Leases((*leading, *own), ASKED)


def nodes(lab: Lab, *not_ready: str) -> Nodes:
    """All nodes of a lab."""
    return Nodes(tuple(node(each.name, each.name not in not_ready) for each in lab.kubernetes_nodes))


def well(lab: Lab) -> dict[str, Answer]:
    """What every source answers while all is well: the second member leads."""
    leader = lab.etcd_members[1].name
    return {
        **{each.name: Balancing(each.name == "lb1", servers()) for each in lab.balancers},
        **{each.name: member(each.name, leader) for each in lab.etcd_members},
        NODES: nodes(lab),
        LEASES: leases(),
    }


def told(lab: Lab) -> tuple[Board, Clock]:
    """A board on which every source has just answered that all is well."""
    clock = Clock()
    board = Board(clock)
    for source, answer in well(lab).items():
        board.answered(source, answer)
    return board, clock
