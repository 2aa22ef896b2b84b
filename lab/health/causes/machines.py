"""Causes on machines: one that does not run, a kubelet that exits, a lack of resources, removed images."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from lab.health.causes.cause import ON_THEIR_OWN, Cause, Found, listed
from lab.health.facts.admission import SYSTEM
from lab.health.facts.gather import OFF
from lab.health.facts.machine import Machine, ServiceFact
from lab.model import Lab, Node
from lab.unknown import CouldNotAsk, Unknown

NEVER_PULLED = "ErrImageNeverPull"
PULLED = ("ErrImagePull", "ImagePullBackOff")
"""The kubelet's reasons for a container whose image is not on the node; for PULLED it asked a registry."""

SHORT_OF = {"DiskPressure": "disk space", "MemoryPressure": "memory", "PIDPressure": "process IDs"}
"""The resource that a node lacks, by its condition (kubernetes.io, "Node-pressure Eviction")."""

FREE = {
    "DiskPressure": "free some disk space: `./inv ssh {node}` and `df -h / /var/lib` show what is left. "
    "Machines that are containers share this host's disk: `./inv bake --prune` frees some of it. The kubelet "
    "clears the condition up to 5 minutes later",
    "MemoryPressure": "`./inv ssh {node}` and `ps aux --sort -rss` show what uses it: run less there, or raise "
    "memory_mib in lab.yaml and `./inv up`",
    "PIDPressure": "`./inv ssh {node}` and `ps -eLf` show what uses them: end it",
}

STARTS_PODS = (
    *("node-taints", "kube-proxy", "pod-network-agent", "network-policy-agent", "static-pods-ready"),
    *("pod-starts", "pod-to-pod", "cluster-ip", "node-port", "dns", "network-policy", "pod-logs", "pod-exec"),
)
"""Checks of a node that fail if its kubelet starts no pods."""

OF_KUBELET = ("etcd-machine-services", "node-services", "kubelet-and-containerd-run", "node-ready")
"""Checks of a node that fail if its kubelet does not keep running, besides STARTS_PODS."""

OF_ALL_NODES = ("exact-nodes", "nodes-are-all-ready")
"""Checks of the lab that fail if the cluster lacks a node."""

RECOVER = "`./inv plan` shows what can be recovered"

STARTS = {"paused": "resumes {it}", "stopped": "starts {it}"}
"""What `up` does about a machine in such a state; in any other state it creates it."""


def off(found: Found) -> Iterator[Cause]:
    """Machines that are paused, stopped or absent."""
    lab, states = found.lab, found.facts.off
    for state in dict.fromkeys(states.values()):
        names = [node.name for node in lab.nodes if states.get(node.name) == state]
        does = STARTS.get(state, "creates {it}").format(it="it" if len(names) == 1 else "them")
        yield Cause(
            f"{listed(names)} {OFF[state] if len(names) == 1 else _plural(OFF[state])}",
            RECOVER if state not in STARTS and _etcd_is_lost(found) else f"`./inv up` {does}",
            titles=frozenset(verdict.title for verdict in found.bad if not verdict.machine),
            machines=frozenset(names),
            words=tuple(f"{name} {OFF[state]}" for name in names),
            everything=_no_api_without(lab, names),
        )


def not_joined(found: Found) -> Iterator[Cause]:
    """Running machines that are not nodes of the cluster, for example after an interrupted `up`."""
    nodes = found.facts.api.nodes
    if isinstance(nodes, Unknown):
        return
    listed_nodes = {node.name for node in nodes}
    missing = [node.name for node in found.lab.kubernetes_nodes if node.name not in listed_nodes]
    names = [name for name in missing if _membership(found, name) in ("fresh", "partial")]
    if names:
        yield Cause(
            f"{listed(names)} {'has' if len(names) == 1 else 'have'} not joined the cluster",
            f"`./inv up` joins {'it' if len(names) == 1 else 'them'}",
            titles=_of_no_node(found, names)
            | (found.titles(*OF_ALL_NODES) if names == missing else frozenset()),
            passes=True,
        )


def lost_files(found: Found) -> Iterator[Cause]:
    """Nodes, and etcd machines, with missing or broken files of kubeadm."""
    nodes = found.facts.api.nodes
    listed_nodes = set() if isinstance(nodes, Unknown) else {node.name for node in nodes}
    for node in found.lab.cluster_machines:
        has = _membership(found, node.name)
        known = node.name in listed_nodes or not node.spec.runs_kubelet
        if has == "damaged" or (has in ("fresh", "partial") and known):
            reasons = _broken_files(found.facts.machines[node.name])
            yield Cause(
                f"{node.name} has {'lost files that kubeadm wrote' if reasons else 'not completed its join'}",
                f"`./inv up` {'writes them again' if has == 'damaged' else 'joins it again'}"
                if has == "damaged" or not _etcd_is_lost(found)
                else RECOVER,
                titles=_of_no_node(found, [node.name]),
                passes=True,
                detail="; ".join(reasons),
            )


def _etcd_is_lost(found: Found) -> bool:
    """Whether most of etcd's members have no data, and something has used it: `up` makes no new ones then."""
    lab, states = found.lab, found.facts.off
    gone = [
        node.name
        for node in lab.etcd_members
        if states.get(node.name, "stopped") not in STARTS
        or _membership(found, node.name) in ("fresh", "partial")
    ]
    used = any(_membership(found, node.name) in ("joined", "damaged") for node in lab.control_planes)
    return used and 2 * len(gone) > len(lab.etcd_members)


def _of_no_node(found: Found, names: Collection[str]) -> frozenset[str]:
    """The titles of the checks that fail on machines that are not complete nodes."""
    return frozenset(
        each.title for each in found.bad if each.machine in names and each.group not in ON_THEIR_OWN
    )


def _broken_files(machine: Machine | Unknown) -> tuple[str, ...]:
    """The missing or broken files that the machine reports; empty if it does not respond."""
    try:
        return () if isinstance(machine, Unknown) else machine.broken_files
    except CouldNotAsk:
        return ()


def _membership(found: Found, name: str) -> str:
    """Whether a machine has joined (`Machine.membership`); "" if unknown."""
    machine = found.facts.machines[name]
    try:
        return "" if isinstance(machine, Unknown) else machine.membership
    except CouldNotAsk:
        return ""


def stopped_kubelets(found: Found) -> Iterator[Cause]:
    """Kubelets that do not run on joined nodes; systemd does not start one that was stopped."""
    for node in found.lab.cluster_machines:
        machine = found.facts.machines[node.name]
        if isinstance(machine, Unknown) or _membership(found, node.name) != "joined":
            continue
        service = _kubelet(machine)
        if service and not service.running and not _kubelet_loop(machine):
            yield Cause(
                f"the kubelet on {node.name} does not run",
                "`./inv up` starts it",
                titles=_of_kubelet(found, node),
                passes=True,
            )


def _of_kubelet(found: Found, node: Node) -> frozenset[str]:
    """The titles of the checks that fail if a node's kubelet does not keep running."""
    own = {each.title for each in found.bad if each.machine == node.name and each.name in OF_KUBELET}
    return _of_pods_on(found, [node.name]) | own | found.titles("nodes-are-all-ready")


def _plural(words: str) -> str:
    return words.replace("is ", "are ").replace("does ", "do ").replace("was ", "were ")


def _no_api_without(lab: Lab, names: Collection[str]) -> bool:
    """Whether these are all load balancers or control planes, or so many members that etcd has no majority."""
    balancers = [node for node in lab.balancers if node.name not in names]
    members = [node for node in lab.etcd_members if node.name not in names]
    serving = [node for node in lab.control_planes if node.name not in names]
    return not balancers or not serving or 2 * len(members) <= len(lab.etcd_members)


def kubelets(found: Found) -> Iterator[Cause]:
    """Kubelets that systemd restarts again and again, with the last error of each if known."""
    for node in found.lab.cluster_machines:
        machine = found.facts.machines[node.name]
        loop = None if isinstance(machine, Unknown) else _kubelet_loop(machine)
        if not loop:
            continue
        again = f"; `./inv replace {node.name}` creates this machine again"
        yield Cause(
            f"the kubelet on {node.name} ends soon after each start",
            f"`./inv ssh {node.name} -- sudo journalctl -u kubelet -n 50` shows why"
            f"{again if _can_be_replaced(found.lab, node) else ''}",
            titles=_of_kubelet(found, node),
            detail=loop,
        )


def _kubelet_loop(machine: Machine) -> str | None:
    """How often the kubelet was restarted, and its last error; None if it runs or that is unknown."""
    service = _kubelet(machine)
    try:
        loop = None if service is None else machine.restart_loop(service)
    except CouldNotAsk:
        return None
    if loop is None:
        return None
    try:
        error = machine.kubelet_error
    except CouldNotAsk:
        error = ""
    return f"{loop}; its last error: {error}" if error else loop


def _kubelet(machine: Machine) -> ServiceFact | None:
    """The kubelet's unit, or None if unknown."""
    try:
        return machine.services.get("kubelet")
    except CouldNotAsk:
        return None


def _can_be_replaced(lab: Lab, node: Node) -> bool:
    return lab.etcd_members != (node,) and lab.control_planes != (node,)


def pressure(found: Found) -> Iterator[Cause]:
    """Nodes whose kubelet evicts pods, and takes no new ones."""
    nodes = found.facts.api.nodes
    for kind, what in SHORT_OF.items():
        taint = f"node.kubernetes.io/{_dashed(kind)}"
        names = [
            node.name
            for node in (() if isinstance(nodes, Unknown) else nodes)
            if kind in node.pressures or taint in node.taints
        ]
        if names:
            yield Cause(
                f"{listed(names)} {'has' if len(names) == 1 else 'have'} too little {what} ({kind}), so the "
                "kubelet evicts pods and refuses new ones",
                FREE[kind].format(node=names[0]),
                titles=_of_pods_on(found, names),
            )


def _dashed(kind: str) -> str:
    """`DiskPressure` → `disk-pressure`, as taints have it; `PIDPressure` → `pid-pressure`."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "-", kind).lower()


def _of_pods_on(found: Found, names: Collection[str]) -> frozenset[str]:
    """The titles of the checks that fail if the kubelets of these nodes start no pods."""
    of_nodes = {each.title for each in found.bad if each.machine in names and each.name in STARTS_PODS}
    return found.titles("coredns-spread", "system-pods-ready") | of_nodes


def images(found: Found) -> Iterator[Cause]:
    """Nodes that lack images of the cluster's own pods, which the golden machine contained."""
    lacking: dict[str, dict[str, str]] = {}
    for node, image, reason in _lacking(found):
        lacking.setdefault(node, {})[image] = reason
    for node, reasons in lacking.items():
        yield Cause(
            f"{node} no longer has the images {listed(sorted(reasons))}"
            if len(reasons) > 1
            else f"{node} no longer has the image {next(iter(reasons))}",
            f"`./inv replace {node}` creates this machine again, with all images",
            titles=_of_pods_on(found, [node]),
            passes=any(reason in PULLED for reason in reasons.values()),
        )


def _lacking(found: Found) -> Iterator[tuple[str, str, str]]:
    """Node, image and the kubelet's reason of each container that waits for an image of the golden machine."""
    pods, probes = found.facts.api.pods, found.facts.probes
    for pod in () if isinstance(pods, Unknown) else pods:
        for each in pod.waiting:
            if pod.namespace in SYSTEM and each.reason in (NEVER_PULLED, *PULLED):
                yield pod.node, each.image, each.reason
    for node, why in ({} if isinstance(probes, Unknown) else probes.started).items():
        image = re.search(r'image "([^"]+)"', why or "")
        if why and why.startswith(NEVER_PULLED) and image:
            yield node, image[1], NEVER_PULLED
