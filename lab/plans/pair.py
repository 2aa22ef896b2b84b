"""Which of two load balancers has the API's address: changes begin on the other one."""

from __future__ import annotations

from lab.errors import LabError
from lab.health.facts.gather import ask_machine
from lab.model import Lab, Node
from lab.remote import Remote
from lab.unknown import CouldNotAsk


def holding(lab: Lab, remote: Remote) -> frozenset[str]:
    """The names of those that have the address; none where one load balancer needs no other address.

    One that does not answer does not count as having it.
    """
    return frozenset(node.name for node in lab.pair if _holds(node, remote))


def _holds(node: Node, remote: Remote) -> bool:
    try:
        return ask_machine(remote, node, "virtual-address").virtual_address.here
    except (LabError, CouldNotAsk):
        return False
