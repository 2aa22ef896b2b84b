"""Selectors: functions from a lab to some of its machines, for checks, tasks, drills and tests."""

from __future__ import annotations

from collections.abc import Callable

from lab.model import Lab, Node

Selector = Callable[[Lab], tuple[Node, ...]]


def every_machine(lab: Lab) -> tuple[Node, ...]:
    """Every machine of the lab."""
    return lab.nodes


def balancers(lab: Lab) -> tuple[Node, ...]:
    """The machines that run HAProxy."""
    return lab.balancers


def pair(lab: Lab) -> tuple[Node, ...]:
    """The load balancers that share the virtual address; none where there is only one."""
    return lab.pair


def control_planes(lab: Lab) -> tuple[Node, ...]:
    """The machines that run an API server."""
    return lab.control_planes


def workers(lab: Lab) -> tuple[Node, ...]:
    """The workers; may be none."""
    return lab.workers


def kubernetes_nodes(lab: Lab) -> tuple[Node, ...]:
    """The machines that are Kubernetes nodes."""
    return lab.kubernetes_nodes


def etcd_members(lab: Lab) -> tuple[Node, ...]:
    """The machines that run etcd."""
    return lab.etcd_members


def etcd_machines(lab: Lab) -> tuple[Node, ...]:
    """The machines that run etcd and nothing else; none where control planes run it."""
    return lab.etcd_members if lab.external_etcd else ()


def cluster_machines(lab: Lab) -> tuple[Node, ...]:
    """The Kubernetes nodes, and the etcd machines."""
    return lab.cluster_machines


def first(lab: Lab) -> tuple[Node, ...]:
    """The control plane that a new cluster starts on."""
    return (lab.first,)


SINGULAR: dict[str, Selector] = {
    "load_balancer": balancers,
    "control_plane": control_planes,
    "worker": workers,
    "kubernetes_node": kubernetes_nodes,
    "etcd_member": etcd_members,
    "machine": every_machine,
}
"""The singular names, as tests' parameters: for each role and for common properties."""
