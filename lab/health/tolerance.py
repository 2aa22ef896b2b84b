"""Which one further machine a lab can lose, and which loss would stop it. Pure: judges gathered facts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from lab.health.facts.gather import Facts
from lab.model import Lab, Node
from lab.unknown import CouldNotAsk, Unknown

IfLost = Literal["works", "stops"]
"""What the lab does if one machine more is lost."""

OF_THE_LOAD_BALANCER = "the loss of the load balancer; no other single loss"
OF_TWO = "no single further loss; only that of two machines"
"""What would stop a lab that can lose one machine more, with one load balancer and with two."""


@dataclass(frozen=True)
class Loss:
    """A loss that would stop the lab: that of any one of these machines, and why.

    `kind` is what they are, for when it is not known which of them are there.
    """

    names: tuple[str, ...]
    why: str
    kind: str = "machine"

    @property
    def sentence(self) -> str:
        """The loss in words."""
        return f"the loss of {' or '.join(self.names) or f'any {self.kind}'}: {self.why}"


def sentences(lab: Lab, facts: Facts) -> tuple[str, ...]:
    """Each further loss of one machine that would stop the lab, apart from that of the only load balancer."""
    found = tuple(loss.sentence for loss in losses(lab, facts))
    return found or (OF_TWO if lab.pair else OF_THE_LOAD_BALANCER,)


def if_lost(lab: Lab, facts: Facts, there: Collection[str]) -> dict[str, IfLost]:
    """What a lab that works does if one of the machines that are `there` is lost, by its name."""
    stopping = {name for loss in losses(lab, facts) for name in loss.names}
    stopping |= set() if lab.pair else {node.name for node in lab.balancers}
    return {name: "stops" if name in stopping else "works" for name in there}


def losses(lab: Lab, facts: Facts) -> tuple[Loss, ...]:
    """Each further loss of one machine that would stop the lab, apart from that of the only load balancer."""
    balancing = [node.name for node in lab.pair if _balances(facts, node)]
    serving = [name for name, answers in facts.api.direct.items() if answers["/readyz"] == (200, "ok")]
    voting = [node.name for node in lab.etcd_members if _etcd_is_well(facts, node.name)]
    quorum = len(lab.etcd_members) // 2 + 1
    nodes = () if isinstance(facts.api.nodes, Unknown) else facts.api.nodes
    ready = {node.name for node in nodes if node.ready}
    working = [node.name for node in lab.workers if node.name in ready]
    pods = () if isinstance(facts.api.pods, Unknown) else facts.api.pods
    naming = sorted({pod.node for pod in pods if pod.name.startswith("coredns-") and pod.ready})
    found = []
    if len(voting) <= quorum:
        why = f"etcd needs {quorum} of its {len(lab.etcd_members)} members to take writes"
        found.append(Loss(tuple(voting), why, "etcd machine" if lab.external_etcd else "control plane"))
    for names, why in (
        (balancing, "the other load balancer could not take over"),
        (serving, "no other API server is well"),
        (working, "no other worker is Ready"),
        (naming, "no other node answers pods' questions for names"),
    ):
        if len(names) == 1:
            found.append(Loss(tuple(names), why))
    return tuple(found)


def _balances(facts: Facts, node: Node) -> bool:
    """Whether a load balancer could have the shared address: its HAProxy and its keepalived run."""
    try:
        services = facts.machine(node).services
    except CouldNotAsk:
        return False
    return all(name in services and services[name].running for name in ("haproxy", "keepalived"))


def _etcd_is_well(facts: Facts, name: str) -> bool:
    machine = facts.machines[name]
    if isinstance(machine, Unknown):
        # An API server is ready only while its own member is well.
        return name in facts.api.direct and facts.api.direct[name]["/readyz"] == (200, "ok")
    section = machine.sections.get("etcd-health")
    return section is not None and section.code == 0
