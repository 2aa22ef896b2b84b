"""What the page shows of a lab, as JSON: each machine, and what is known about it now. Pure.

An answer that is older than STALE seconds is still shown, as stale, with its age. The leader, the holder of the
address and the quorum are judged from newer ones only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.health.checks import etcd
from lab.health.cluster import BackendFact, NodeFact
from lab.health.facts.api import LeaseFact
from lab.health.facts.machine import EtcdStatus
from lab.model import Lab, Node
from lab.workshop.watch import words
from lab.workshop.watch.board import LEASES, NODES, Balancing, Heard, Leases, Nodes

STALE = 2.5
"""Seconds after which an answer is stale: five of a machine's, two of the API's were due by then."""

RECENT = 1.2
"""Seconds: of several load balancers that say that they have the address, only those count that said so since.

A machine that has lost its power said so last before the other one took the address, which is no split brain.
"""

LEADERS = ("kube-controller-manager", "kube-scheduler")
"""The leases of which one control plane at a time is the holder."""


@dataclass(frozen=True)
class Known:
    """What was heard, sorted: `fresh` are the sources whose last answer is not stale, by name."""

    lab: Lab
    heard: Mapping[str, Heard]
    now: float

    def is_fresh(self, source: str) -> bool:
        """Whether a source's last answer is not stale."""
        return self.age(source) <= STALE * self.lab.patience

    def age(self, source: str) -> float:
        """How many seconds ago a source answered last; infinite if it never did."""
        at = self.heard.get(source, Heard()).at
        return math.inf if at is None else self.now - at

    @property
    def is_complete(self) -> bool:
        """Whether every source has answered or failed: before that, what is new has only not been heard yet."""
        asked = (*self.lab.balancers, *self.lab.etcd_members)
        return {NODES, LEASES, *(node.name for node in asked)} <= set(self.heard)

    @property
    def members(self) -> dict[str, EtcdStatus]:
        """The last answer of each etcd member, stale or not."""
        said = {node.name: self.heard.get(node.name, Heard()).answer for node in self.lab.etcd_members}
        return {name: answer for name, answer in said.items() if isinstance(answer, EtcdStatus)}

    @property
    def fresh_members(self) -> dict[str, EtcdStatus]:
        """The etcd members that answer now."""
        return {name: status for name, status in self.members.items() if self.is_fresh(name)}

    @property
    def leader(self) -> str:
        """The member that leads etcd now; "" if none does, or none says so."""
        return etcd.leader(self.fresh_members, self.members)

    @property
    def balancers(self) -> dict[str, Balancing]:
        """The last answer of each load balancer, stale or not."""
        said = {node.name: self.heard.get(node.name, Heard()).answer for node in self.lab.balancers}
        return {name: answer for name, answer in said.items() if isinstance(answer, Balancing)}

    @property
    def holders(self) -> tuple[str, ...]:
        """The load balancers that have the API's address now."""
        found = [name for name, each in self.balancers.items() if each.holds and self.is_fresh(name)]
        recent = [name for name in found if self.age(name) <= RECENT * self.lab.patience]
        return tuple(found if len(found) == 1 else recent)

    @property
    def nodes(self) -> dict[str, NodeFact]:
        """The cluster's nodes as the API had them last."""
        answer = self.heard.get(NODES, Heard()).answer
        return {node.name: node for node in answer.nodes} if isinstance(answer, Nodes) else {}

    @property
    def leases(self) -> Leases | None:
        """The leases as the API had them last."""
        answer = self.heard.get(LEASES, Heard()).answer
        return answer if isinstance(answer, Leases) else None


def view(known: Known) -> dict[str, Any]:
    """Return what the page shows; texts are pairs of languages."""
    lab = known.lab
    return {
        "machines": [_machine(known, node) for node in lab.nodes],
        "complete": known.is_complete,
        "holders": known.holders,
        "leader": known.leader,
        "etcd": words.quorum(len(known.fresh_members), len(lab.etcd_members), known.leader)._asdict(),
        "nodes": _heard(known, NODES),
        "leases": _heard(known, LEASES) | {"list": _leases(known)},
    }


def lease_holder(lease: LeaseFact) -> str:
    """The machine that holds a leader's lease: the identity is its host name, `_` and a number of its own."""
    return lease.holder.partition("_")[0]


def is_up(server: BackendFact) -> bool:
    """Whether HAProxy sends new connections to a server."""
    return server.status.startswith("UP")


def _machine(known: Known, node: Node) -> dict[str, Any]:
    asked = node in (*known.lab.balancers, *known.lab.etcd_members)
    found = known.nodes.get(node.name)
    balancing, member = known.balancers.get(node.name), known.members.get(node.name)
    leases = known.leases.leases if known.leases else ()
    return {
        "name": node.name,
        "heard": _heard(known, node.name) if asked else None,
        "holds": node.name in known.holders,
        "leads": node.name == known.leader,
        "node": {"ready": found.ready, "reason": "" if found.ready else found.reason} if found else None,
        "servers": [_server(each) for each in balancing.servers] if balancing else [],
        "haproxy": balancing.problem if balancing else "",
        "member": {"term": member.term, "index": member.index} if member else None,
        "leases": [each.name for each in leases if each.name in LEADERS and lease_holder(each) == node.name],
    }


def _server(server: BackendFact) -> dict[str, Any]:
    return {
        "name": server.name,
        "status": server.status,
        "up": is_up(server),
        "open": server.open,
        "sessions": server.sessions,
    }


def _heard(known: Known, source: str) -> dict[str, Any]:
    """How old a source's last answer is, in seconds, and why there is no newer one."""
    heard = known.heard.get(source, Heard())
    age = None if heard.at is None else round(known.age(source), 1)
    return {"age": age, "stale": not known.is_fresh(source), "problem": heard.problem}


def _leases(known: Known) -> list[dict[str, Any]]:
    """The leases that show who lives: leaders' first, then each API server's own; with their age in seconds."""
    said, heard = known.leases, known.heard.get(LEASES, Heard())
    if said is None or heard.at is None:
        return []
    since = known.now - heard.at
    ages = [(each, max(0.0, (said.asked_at - each.renewed).total_seconds()) + since) for each in said.leases]
    leaders = [
        {"name": each.name, "holder": lease_holder(each), "age": round(age, 1)}
        for each, age in ages
        if each.name in LEADERS
    ]
    servers = [
        {"name": "kube-apiserver", "holder": each.server, "age": round(age, 1)}
        for each, age in ages
        if each.server
    ]
    return [*leaders, *sorted(servers, key=lambda each: str(each["holder"]))]
