"""What chapters 4 to 7 result in: the first control plane, certificates, joins, the pod network."""

from __future__ import annotations

from collections.abc import Iterator

from lab.health.facts.machine import Machine
from lab.model.selectors import first
from lab.unknown import known
from lab.workshop.task.machines import ca_there
from lab.workshop.task.task import Checks, Found, Sight

FLANNEL = "kube-flannel"
FAILING = 2
"""Restarts of an agent's container from which on it counts as failing."""
WAIT = "wait for it, then check again"
RESET = (
    "on it: `kubeadm reset --force`, then `./inv up --until control-plane`, which puts the lab's CA back, "
    "and init again with /opt/ha-lab/kubeadm-init.yaml"
)
"""How to undo an init whose cluster no machine of the lab could join."""

with_the_lab_s_ca = Checks(("cluster-ca",), first, hint=RESET)


def ready_for_init(sight: Sight) -> Iterator[Found]:
    """The lab's CA is there before init: kubeadm creates its own if it finds none."""
    machine = sight.facts.machine(sight.lab.first)
    if machine.membership == "fresh" and not _kubeadm_runs(machine):
        yield from tuple(ca_there(sight)) or with_the_lab_s_ca(sight)


def initialised(sight: Sight) -> Iterator[Found]:
    node = sight.lab.first
    machine = sight.facts.machine(node)
    has = machine.membership
    if _kubeadm_runs(machine):
        yield Found("not yet", node.name, "`kubeadm init` has ended", "kubeadm is running", WAIT)
    elif has == "fresh":
        yield Found("not yet", node.name, "`kubeadm init` was done", "no part of a cluster is there")
    elif has == "partial":
        yield Found("broken", node.name, "`kubeadm init` has succeeded", "it was only half done", RESET)


def after_init(sight: Sight) -> Iterator[Found]:
    """For later tasks: while init is missing or half done, task 4 comes first."""
    for found in initialised(sight):
        yield Found("not yet", found.machine, "task 4 is done", found.found, "`./inv task 4` shows what to do")


def endpoint_is_the_lab_s(sight: Sight) -> Iterator[Found]:
    """Control planes can join. A later part finds an API server that does not answer."""
    node = sight.lab.first
    said = sight.facts.machine(node).section("endpoint")
    has, wanted = said.text.strip(), sight.lab.api.host_port
    if not said.code and has != wanted:
        expected = f"a cluster whose controlPlaneEndpoint is {wanted}"
        yield Found("broken", node.name, expected, has or "it has none, so no control plane can join", RESET)


def lets_machines_in(sight: Sight) -> Iterator[Found]:
    """While machines have yet to join, the secrets that they need are there."""
    missing = [node for node in sight.lab.kubernetes_nodes if node.name in _not_joined(sight)]
    secrets = known(sight.facts.api.secrets)
    lost = []
    if missing and not any(kind == "bootstrap.kubernetes.io/token" for _, kind in secrets):
        lost.append("no bootstrap token")
    if any(node in sight.lab.control_planes for node in missing) and "kubeadm-certs" not in dict(secrets):
        lost.append("no Secret kubeadm-certs")
    if lost:
        names = ", ".join(node.name for node in missing)
        hint = (
            f"both expire after two hours: `./inv up --until pod-network` puts a new token and certificate key "
            f"into /root/secrets.sed on {sight.lab.first.name}"
        )
        yield Found("broken", "", f"the secrets with which {names} will join", ", ".join(lost), hint)


def joined(sight: Sight) -> Iterator[Found]:
    missing = _not_joined(sight)
    for node in sight.lab.kubernetes_nodes:
        machine = sight.facts.machine(node)
        has = machine.membership
        half = f"on it: `kubeadm reset --force`, and join again; or `./inv up`, which does both for {node.name}"
        if _kubeadm_runs(machine):
            yield Found("not yet", node.name, "`kubeadm join` has ended", "kubeadm is running", WAIT)
        elif has == "partial":
            yield Found("broken", node.name, "`kubeadm join` has succeeded", "it was only half done", half)
        elif node.name in missing and has in ("joined", "damaged"):
            found = "it has joined another cluster, not this one"
            yield Found("broken", node.name, "a node of the cluster", found, half)
        elif has == "fresh" and node.name not in missing:
            found = "its Node object exists, but the machine has no part of the cluster"
            again = f"`kubectl delete node {node.name}`, and join again; or `./inv up`, which does both"
            yield Found("broken", node.name, "`kubeadm join` was done", found, again)
        elif node.name in missing:
            yield Found("not yet", node.name, "`kubeadm join` was done", "no part of a cluster is there")


def all_joined(sight: Sight) -> Iterator[Found]:
    missing = sorted(_not_joined(sight))
    if missing:
        found = f"{', '.join(missing)} not in the cluster"
        yield Found("not yet", "", "all nodes in the cluster", found, "task 6 is to join them")


def network_applied(sight: Sight) -> Iterator[Found]:
    if sight.lab.network.pod_network != "flannel":
        return
    if not any(pod.namespace == FLANNEL for pod in known(sight.facts.api.pods)):
        yield Found("not yet", "", "flannel's pods", "there are none: the pod network has not been applied")


def agents_live(sight: Sight) -> Iterator[Found]:
    starts = known(sight.facts.api.restarts)[1]
    for pod in known(sight.facts.api.pods):
        count = starts.get(f"{pod.namespace}/{pod.name}", 0)
        if pod.namespace == FLANNEL and not pod.ready and count >= FAILING:
            # Not `kubectl logs`: by hand, kubelets have no serving certificate yet.
            hint = (
                "on it, `crictl ps --all --name kube-flannel` and `crictl logs` with its ID show why; "
                "podSubnet and flannel's Network must agree"
            )
            yield Found("broken", pod.node, f"{pod.name} is Ready", f"it was restarted {count} times", hint)


def coredns_ready(sight: Sight) -> Iterator[Found]:
    pods = [pod for pod in known(sight.facts.api.pods) if pod.name.startswith("coredns-")]
    if not any(pod.ready for pod in pods):
        found = "none is" if pods else "there is none"
        hint = "they wait for a node with a network, then need half a minute"
        yield Found("not yet", "", "CoreDNS's pods are Ready", found, hint)


def _kubeadm_runs(machine: Machine) -> bool:
    """Whether kubeadm is running there now: an incomplete state is then neither missing nor wrong."""
    return machine.section("kubeadm").code == 0


def _not_joined(sight: Sight) -> set[str]:
    there = {node.name for node in known(sight.facts.api.nodes)}
    return {node.name for node in sight.lab.kubernetes_nodes} - there
