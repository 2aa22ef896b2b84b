"""Workers and network: every node in the API, what runs on it, and what a test pod on it observes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect,
    expect_none,
    holds,
    shown,
)
from lab.health.cluster import NodeFact, PodFact
from lab.health.facts.admission import SYSTEM
from lab.health.facts.apart import reach_of
from lab.health.facts.gather import Facts
from lab.health.facts.probes import (
    EGRESS_DENIED,
    INGRESS_DENIED,
    PORT,
    PROTOCOLS,
    SECOND,
    ProbeFacts,
    Seen,
    may_enforce_policies,
    policy_question,
)
from lab.health.reading import read
from lab.model import Lab, Node
from lab.model.addons import ADDONS
from lab.model.selectors import kubernetes_nodes
from lab.unknown import CouldNotAsk, Unknown, known

KUBE_ROUTER_PODS = "kube-router-"
"""How the names of kube-router's pods begin, one on each node."""

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
CORDONED = "node.kubernetes.io/unschedulable"
KUBERNETES_TAINTS = "node.kubernetes.io/"
"""The prefix of taints that Kubernetes sets and removes by itself, except for that of a cordon.

They are those of conditions (kubernetes.io, "Taints and Tolerations").
"""


def _nodes_with_flannel(lab: Lab) -> tuple[Node, ...]:
    return lab.kubernetes_nodes if lab.network.pod_network == "flannel" else ()


def _nodes_with_kube_router(lab: Lab) -> tuple[Node, ...]:
    return lab.kubernetes_nodes if lab.network.policy == "kube-router" else ()


def _nodes_without_policies(lab: Lab) -> tuple[Node, ...]:
    return () if may_enforce_policies(lab) else lab.kubernetes_nodes


def machines_reach(lab: Lab, facts: Facts) -> Finding:
    said, silent = answers(facts, lab.nodes, lambda machine: machine.reach)
    if not said:
        raise CouldNotAsk("; ".join(silent))
    # Not `only_if_all_answered`: other checks name the machines that are silent, and these would be no finding.
    others = (
        "the load balancer, the control planes and etcd"
        if lab.external_etcd
        else "the load balancer and the control planes"
    )
    return expect_none(f"machines reach {others}", [reach_of(facts.machines).described()])


def exact_nodes(lab: Lab, facts: Facts) -> Finding:
    return expect({node.name for node in lab.kubernetes_nodes}, {node.name for node in known(facts.api.nodes)})


def _node(facts: Facts, node: Node) -> NodeFact | None:
    return next((each for each in known(facts.api.nodes) if each.name == node.name), None)


def node_ready(lab: Lab, facts: Facts, node: Node) -> Finding:
    found = _node(facts, node)
    if found is None:
        return Finding("Ready", "the cluster has no such node", "fails")
    return Finding("Ready", "Ready" if found.ready else f"not Ready: {found.reason}", holds(found.ready))


def node_as_declared(lab: Lab, facts: Facts, node: Node) -> Finding:
    found = _node(facts, node)
    control_plane, addresses = node in lab.control_planes, (str(node.address),)
    declared = _described(control_plane, f"v{lab.kubernetes.version}", addresses)
    if found is None:
        return Finding(declared, "the cluster has no such node", "fails")
    seen = _described(found.control_plane, found.version, found.internal_ips)
    if facts.upgrading and seen == _described(control_plane, f"v{facts.upgrading}", addresses):
        return Finding(declared, f"{seen}: an upgrade is under way", "holds")
    return expect(declared, seen)


def _described(control_plane: bool, version: str, addresses: tuple[str, ...]) -> str:
    return f"{'a control plane' if control_plane else 'a worker'}, {version}, at {', '.join(addresses)}"


def node_taints(lab: Lab, facts: Facts, node: Node) -> Finding:
    found = _node(facts, node)
    if found is None:
        return Finding("its role's taints", "the cluster has no such node", "fails")
    expected, taints = _taints_of_its_role(lab, node), set(found.taints)
    if taints - expected == {CORDONED} and expected <= taints:
        # Users cordon nodes for a while, so that is no fault of the lab.
        return Finding(shown(expected), "cordoned, so no new pods start here", "warns")
    return expect(expected, taints)


def _taints_of_its_role(lab: Lab, node: Node) -> set[str]:
    return {CONTROL_PLANE} if node in lab.control_planes else set()


def only_users_change_taints(lab: Lab, facts: Facts, node: Node) -> bool:
    """Whether a node only has taints that neither Kubernetes nor `up` would change."""
    found = _node(facts, node)
    differing = _taints_of_its_role(lab, node) ^ set(found.taints if found else ())
    return not any(taint.startswith(KUBERNETES_TAINTS) and taint != CORDONED for taint in differing)


def node_services(lab: Lab, facts: Facts, node: Node) -> Finding:
    machine = facts.machine(node)
    services = machine.services
    bad = []
    for name in ("kubelet", "containerd"):
        service = services.get(name)
        if service is None or not service.running:
            bad.append(f"{name} does not run")
        elif loop := machine.restart_loop(service):
            bad.append(loop)
        elif not service.enabled:
            bad.append(f"{name} would not come back after a reboot")
    return expect_none("kubelet and containerd run, and will after a reboot", bad)


def kubelet_server(lab: Lab, facts: Facts, node: Node) -> Finding:
    # kubeadm's ControlPlaneKubeletLocalMode, on since 1.33: its own, so that a newer kubelet never
    # speaks to an older API server; the first control plane keeps what init wrote.
    own = f"https://{node.address}:6443"
    allowed = [lab.api.url, own] if node in lab.control_planes else [lab.api.url]
    found = facts.machine(node).text("kubelet-server").strip()
    return Finding(" or ".join(allowed), found or "nothing", holds(found in allowed))


def kube_proxy_server(lab: Lab, facts: Facts) -> Finding:
    return expect(lab.api.url, known(facts.api.kube_proxy_server))


def kube_proxy(lab: Lab, facts: Facts, node: Node) -> Finding:
    return _ready_pod(facts, node, "kube-system", "kube-proxy-")


def pod_network_agent(lab: Lab, facts: Facts, node: Node) -> Finding:
    pod = _ready_pod(facts, node, "kube-flannel", "kube-flannel-ds-")
    known_node = _node(facts, node)
    found = known_node.pod_network_address if known_node else ""
    up = known_node is not None and known_node.pod_network_up
    # Machines have a network beside the lab's, which flannel uses where it is not configured otherwise.
    return Finding(
        f"{pod.expected}, receiving at {node.address}",
        f"{pod.found}, receiving at {found or 'no address'}{'' if up else '; it does not say that it is up'}",
        holds(pod.outcome == "holds" and up and found == str(node.address)),
    )


def network_policy_agent(lab: Lab, facts: Facts, node: Node) -> Finding:
    return _ready_pod(facts, node, "kube-system", KUBE_ROUTER_PODS)


def _ready_pod(facts: Facts, node: Node, namespace: str, prefix: str) -> Finding:
    pods = [
        pod
        for pod in known(facts.api.pods)
        if pod.namespace == namespace and pod.node == node.name and pod.name.startswith(prefix)
    ]
    found = ", ".join(_pod_state(pod) for pod in pods) or f"no pod {prefix}… of {namespace} is on this node"
    return Finding(f"{prefix}… Ready on this node", found, holds(any(pod.ready for pod in pods)))


def _pod_state(pod: PodFact) -> str:
    return f"{pod.name} is {'Ready' if pod.ready else f'not Ready ({pod.phase})'}"


def pod_network_interface(lab: Lab, facts: Facts, node: Node) -> Finding:
    flags = facts.machine(node).pod_network_interface
    return Finding("flannel.1 is up", shown(flags), holds("UP" in flags))


def system_pods_ready(lab: Lab, facts: Facts) -> Finding:
    # A Job's pod that has ended is not Ready and never will be.
    own = tuple(ADDONS[name].pods for name in lab.addons)
    pods = [
        p
        for p in known(facts.api.pods)
        if (p.namespace in SYSTEM or f"{p.namespace}/{p.name}".startswith(own))
        and p.phase not in ("Succeeded", "Failed")
    ]
    bad = [f"{pod.namespace}/{_pod_state(pod)}" for pod in pods if not pod.ready]
    return expect_none("every system pod Ready", bad if pods else ["there are no system pods"])


def coredns_spread(lab: Lab, facts: Facts) -> Finding:
    nodes = [pod.node for pod in _coredns(facts)]
    wanted = min(2, len(lab.kubernetes_nodes))
    spread = len(set(nodes) - {""}) >= wanted
    return Finding(
        f"replicas on {wanted} different nodes at least",
        f"{len(nodes)} replicas, on {', '.join(sorted(nodes)) or 'no node'}",
        holds(spread),
    )


def _coredns(facts: Facts) -> list[PodFact]:
    return [p for p in known(facts.api.pods) if p.namespace == "kube-system" and p.name.startswith("coredns-")]


def restarts_stand_still(lab: Lab, facts: Facts) -> Finding:
    before, after = known(facts.api.restarts)
    rising = [
        f"{name}: {before[name]} → {count}" for name, count in after.items() if count > before.get(name, count)
    ]
    return expect_none("no container restarts while verify looks", rising)


def pod_starts(lab: Lab, facts: Facts, node: Node) -> Finding:
    why = known(facts.probes).started[node.name]
    return Finding("a pod becomes Ready on this node", why or "it does", holds(not why))


def _seen(facts: Facts, node: Node) -> Seen:
    return known(known(facts.probes).seen[node.name])


def pod_to_pod(lab: Lab, facts: Facts, node: Node) -> Finding:
    seen = _seen(facts, node)
    bad = [
        f"{name}: {seen.get(f'pod:{name}') or 'no answer'}"
        for name in known(facts.probes).peers
        if seen.get(f"pod:{name}") != name
    ]
    return expect_none("4000 bytes each way between a pod here and one on every node", bad)


def pod_addresses(lab: Lab, facts: Facts) -> Finding:
    outside = [
        f"{node}: {address}"
        for node, address in known(facts.probes).peers.items()
        if read(f"the address of the pod on {node}", address, IPv4Address) not in lab.network.pods
    ]
    return expect_none(f"every pod's address in {lab.network.pods}", outside)


def cluster_ip(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect(node.name, _seen(facts, node).get("service") or "no answer")


def node_port(lab: Lab, facts: Facts, node: Node) -> Finding:
    probes = known(facts.probes)
    said = {"this host": known(probes.node_ports[node.name])}
    for asker, seen in probes.seen.items():
        if asker != node.name and not isinstance(seen, Unknown):
            said[f"a pod on {asker}"] = seen.get(f"port:{node.name}") or "no answer"
    bad = [f"to {asker}: {answer}" for asker, answer in said.items() if answer != node.name]
    return expect_none(f"{node.name} answers to {', '.join(said)}", bad)


def dns(lab: Lab, facts: Facts, node: Node) -> Finding:
    seen = _seen(facts, node)
    found = {"kubernetes.default": seen.get("dns") or "no answer"}
    return expect({"kubernetes.default": str(lab.network.services.network_address + 1)}, found)


class _Asked(NamedTuple):
    """What came of asking a pod on one node from a pod on another, by one protocol.

    `beside`: both pods are on one node. `answers` are by port.
    """

    asker: str
    target: str
    protocol: str
    beside: bool
    answers: dict[int, str]

    @property
    def reached(self) -> bool:
        """Whether it answered where the NetworkPolicy allows it, so that the other answers mean something."""
        return self.answers[PORT] == self.target and all(self.answers.values())

    @property
    def route(self) -> str:
        """Who asked whom, in words."""
        return "between two pods here" if self.beside else f"from {self.asker} to {self.target}"


def network_policy(lab: Lab, facts: Facts, node: Node) -> Finding:
    """Judge what a NetworkPolicy does to pods of this node: what they ask, and what they are asked."""
    probes = known(facts.probes)
    if _seen(facts, node).get("policy") == NO_PERL:
        found = "not asked: this machine's image of the probe is an earlier version's"
        return Finding(POLICY_HOLDS, found, "warns")
    asked = [each for each in _policy_asked(probes) if node.name in (each.asker, each.target)]
    _require_reached(probes, node, asked)
    # A pod's own node judges what it asks, and what it is asked.
    judged = [
        (f"{each.protocol.upper()} {direction} {each.route} is not denied", each.answers[port] == each.target)
        for each in asked
        if each.reached
        for direction, port, at in (
            ("egress", EGRESS_DENIED, each.asker),
            ("ingress", INGRESS_DENIED, each.target),
        )
        if at == node.name
    ]
    answered = [says for says, answers in judged if answers]
    if lab.network.policy == "kube-router":
        return expect_none(POLICY_HOLDS, answered)
    if len(answered) == len(judged):
        return Finding(POLICY_HOLDS_OR_NOTHING, DENIES_NOTHING, "holds", note=DENIES_NOTHING)
    if not answered:
        return Finding(POLICY_HOLDS_OR_NOTHING, ENFORCED, "holds", note=ENFORCED)
    return Finding(POLICY_HOLDS_OR_NOTHING, f"only in part: {'; '.join(answered)}", "warns")


def _policy_asked(probes: ProbeFacts) -> Iterator[_Asked]:
    """All that pods which could be asked have seen under the policy."""
    node_of_second, problem = probes.second
    for asker, neighbours in probes.neighbours.items():
        seen = probes.seen[asker]
        if isinstance(seen, Unknown):
            continue  # that pod's own checks say so
        targets = {name: name for name in neighbours}
        if asker == node_of_second and not problem:
            targets[SECOND] = asker
        for name, target in targets.items():
            for protocol in PROTOCOLS:
                ports = (PORT, INGRESS_DENIED, EGRESS_DENIED)
                answers = {port: seen.get(policy_question(name, protocol, port), "") for port in ports}
                yield _Asked(asker, target, protocol, name == SECOND, answers)


def _require_reached(probes: ProbeFacts, node: Node, asked: list[_Asked]) -> None:
    """Raise CouldNotAsk where the allowed port was not reached: the others' silence is no denial then."""
    node_of_second, problem = probes.second
    if node.name == node_of_second and problem:
        raise CouldNotAsk(f"the second pod on {node.name} did not start: {problem}")
    for protocol in PROTOCOLS:
        of_protocol = [each for each in asked if each.protocol == protocol]
        kinds = (
            [each for each in of_protocol if each.beside],
            [each for each in of_protocol if not each.beside and each.asker == node.name],
            [each for each in of_protocol if not each.beside and each.target == node.name],
        )
        for kind in kinds:
            if kind and not any(each.reached for each in kind):
                routes = ", ".join(each.route for each in kind)
                what = f"{protocol.upper()} {routes} does not work at port {PORT}, which the policy allows"
                raise CouldNotAsk(f"a denial can't be distinguished from no answer: {what}")


def no_policy_rules(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect_none("no rules of a kube-router that is gone", facts.machine(node).policy_chains[:3])


def pod_logs(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect(f"probe on {node.name}", known(known(facts.probes).logs[node.name]).strip())


def pod_exec(lab: Lab, facts: Facts, node: Node) -> Finding:
    seen = known(facts.probes).seen[node.name]
    if isinstance(seen, Unknown) and known(facts.probes).started[node.name]:
        known(seen)  # no pod, so nothing to run a command in: that is pod-starts' to say
    found = seen.reason if isinstance(seen, Unknown) else "it answers"
    return expect("it answers", found)


def node_files(lab: Lab, facts: Facts, node: Node) -> Finding:
    machine = facts.machine(node)
    has = machine.membership
    found = [LACKS.get(has, f"it answers {has}")] if has != "joined" else []
    return expect_none("all that kubeadm wrote is there and complete", machine.broken_files or found)


def cluster_objects(lab: Lab, facts: Facts) -> Finding:
    said, silent = answers(facts, lab.control_planes, lambda machine: machine.unfinished)
    if not said:
        raise CouldNotAsk("; ".join(silent))
    left = next(iter(said.values()))
    reasons = [line.partition(" ")[2] for line in left if line.startswith("control-plane-init ")]
    says = "the pod network, or what enforces NetworkPolicies, is not what lab.yaml and its manifest say"
    pod_network = [says] if "pod-network" in left else []
    addons = [line.removeprefix("addons ") for line in left if line.startswith("addons ")]
    return expect_none(
        "all that kubeadm init and the manifests of the pod network and add-ons create",
        [*reasons, *pod_network, *addons],
    )


POLICY_HOLDS = "what a NetworkPolicy allows is reached, and what it denies is not, by TCP and UDP"
POLICY_HOLDS_OR_NOTHING = "NetworkPolicies are enforced, or deny nothing at all"
DENIES_NOTHING = (
    "a NetworkPolicy denies nothing in this lab, since nothing enforces it (network.policy in lab.yaml is none)"
)
ENFORCED = "NetworkPolicies are enforced, by what was installed beside the kit's own (network.policy is none)"
NO_PERL = "no perl"
"""What provision/pod/ask.sh says in the image of a version that did not ask under a policy."""

LACKS = {
    "fresh": "nothing that kubeadm writes is there",
    "partial": "a join that was not completed",
    "damaged": "files are missing or broken",
}
"""What a machine has that is no complete node, by its word for that (`Machine.membership`)."""

CHECKS = (
    LabCheck(
        "machines-reach-one-another",
        machines_reach,
        means="packets between machines are lost, so the API may be unreachable, and etcd without a majority",
        hint="`./inv doctor` shows what blocks them on this host; on the machine: `nft list ruleset`",
    ),
    LabCheck(
        "exact-nodes",
        exact_nodes,
        means="the cluster is not the one that lab.yaml describes",
        hint="`./inv up` joins missing machines; `kubectl delete node NAME` removes a Node without a machine",
    ),
    MachineCheck(
        "node-files",
        kubernetes_nodes,
        node_files,
        means="running programs have read these files; their next start, or the next boot, fails",
        hint="`./inv up` restores them, or joins the machine again",
    ),
    LabCheck(
        "cluster-objects",
        cluster_objects,
        means="machines can't join, or parts of the cluster are not restarted when they end",
        hint="`./inv up` creates them again",
    ),
    MachineCheck(
        "node-ready",
        kubernetes_nodes,
        node_ready,
        means="no new pods start here, and the existing ones are replaced on other nodes after five minutes",
        hint="`kubectl describe node NAME`; on the machine: `journalctl -u kubelet`",
    ),
    MachineCheck(
        "node-as-declared",
        kubernetes_nodes,
        node_as_declared,
        means="with another address logs, exec and the pod network fail; with another version or role "
        "the lab does not match lab.yaml",
        hint="--node-ip in /var/lib/kubelet/kubeadm-flags.env, then `systemctl restart kubelet`",
    ),
    MachineCheck(
        "node-taints",
        kubernetes_nodes,
        node_taints,
        means="pods are not scheduled here although they could, or are scheduled to a control plane",
        hint="`kubectl describe node NAME` shows its taints; `kubectl taint node NAME KEY-` removes one, "
        "`kubectl uncordon NAME` that of a cordon",
    ),
    MachineCheck(
        "node-services",
        kubernetes_nodes,
        node_services,
        means="without these the node starts and stops no container, now or after its next boot",
        hint="on it: `systemctl enable --now kubelet containerd`; `journalctl -u kubelet` shows why not",
    ),
    MachineCheck(
        "kubelet-server",
        kubernetes_nodes,
        kubelet_server,
        means="the node depends on one other machine's API server, and fails with it",
        hint="restore the address in `server:` in /etc/kubernetes/kubelet.conf and restart the kubelet",
    ),
    LabCheck(
        "kube-proxy-server",
        kube_proxy_server,
        means="every node's kube-proxy depends on one API server instead of all: Services freeze with it",
        hint="`kubectl -n kube-system edit configmap kube-proxy`, then restart the kube-proxy pods",
    ),
    MachineCheck(
        "kube-proxy",
        kubernetes_nodes,
        kube_proxy,
        means="Services on this node keep their old endpoints, or do not work at all",
        hint="`kubectl -n kube-system get pods -o wide` and that pod's logs",
    ),
    MachineCheck(
        "pod-network-agent",
        _nodes_with_flannel,
        pod_network_agent,
        means="routes to pods on other nodes are not maintained here, or use another network than the lab's",
        hint="`kubectl -n kube-flannel get pods -o wide` and that pod's logs; at another address, the manifest "
        "was applied without the lab's part, and `./inv up` applies it",
    ),
    MachineCheck(
        "pod-network-interface",
        _nodes_with_flannel,
        pod_network_interface,
        means="pods here do not reach those on other nodes",
        hint="`./inv up` sets it up and makes the agent set its routes again",
    ),
    MachineCheck(
        "network-policy-agent",
        _nodes_with_kube_router,
        network_policy_agent,
        means="new pods here are under no NetworkPolicy, and changes of policies have no effect here",
        hint="`kubectl -n kube-system get pods -l k8s-app=kube-router -o wide` and that pod's logs; `./inv up` "
        "applies its manifest again",
    ),
    MachineCheck(
        "no-policy-rules",
        _nodes_without_policies,
        no_policy_rules,
        means="packets are denied by NetworkPolicies as they were when kube-router ended",
        hint="`./inv up` removes them",
    ),
    LabCheck(
        "system-pods-ready",
        system_pods_ready,
        means="a part of the cluster itself does not work",
        hint="`kubectl describe pod` and `kubectl logs` of those named; `./inv logs` collects all",
    ),
    LabCheck(
        "coredns-spread",
        coredns_spread,
        means="names only resolve while one machine runs, or not at all",
        hint="`kubectl -n kube-system scale deployment coredns --replicas 2`; if both are on one node, "
        "delete one of the pods",
    ),
    LabCheck(
        "restarts-stand-still",
        restarts_stand_still,
        means="a container exits and is restarted again and again, and only works intermittently",
        hint="`kubectl logs --previous` of those named; a slow disk can also be the reason",
    ),
    MachineCheck(
        "pod-starts",
        kubernetes_nodes,
        pod_starts,
        probes=True,
        means="nothing new starts on this node",
        hint="on the machine: `journalctl -u kubelet`; see node-ready and pod-network-agent",
    ),
    MachineCheck(
        "pod-to-pod",
        kubernetes_nodes,
        pod_to_pod,
        probes=True,
        means="pods here do not reach those there, or only with small packets, so that requests hang",
        hint="see pod-network-agent on both; `ip -d link show flannel.1` has the MTU, `ip route` the route",
    ),
    LabCheck(
        "pod-addresses",
        pod_addresses,
        probes=True,
        means="pods have addresses that no other network routes to",
        hint="/etc/cni/net.d on the node named; kubeadm's podSubnet and the pod network must agree",
    ),
    MachineCheck(
        "cluster-ip",
        kubernetes_nodes,
        cluster_ip,
        probes=True,
        means="pods on this node do not reach Services at their own addresses",
        hint="see kube-proxy on this node, and its logs",
    ),
    MachineCheck(
        "node-port",
        kubernetes_nodes,
        node_port,
        probes=True,
        means="a Service of type NodePort is not reached at this node's address",
        hint="on the machine: `iptables-save -t nat | grep NODEPORTS`; does `nft list ruleset` drop it?",
    ),
    MachineCheck(
        "dns",
        kubernetes_nodes,
        dns,
        probes=True,
        means="pods on this node can't resolve names",
        hint="`kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide`; then cluster-ip and pod-to-pod",
    ),
    MachineCheck(
        "network-policy",
        kubernetes_nodes,
        network_policy,
        probes=True,
        means="a NetworkPolicy does not do here what it says, so pods are reached that should not be",
        hint="see network-policy-agent and pod-to-pod; on the machine: `iptables-save -t filter | grep NWPLCY`",
    ),
    MachineCheck(
        "pod-logs",
        kubernetes_nodes,
        pod_logs,
        probes=True,
        means="`kubectl logs` does not work for pods on this node",
        hint="the API server asks the kubelet at the node's address, port 10250: see node-as-declared",
    ),
    MachineCheck(
        "pod-exec",
        kubernetes_nodes,
        pod_exec,
        probes=True,
        means="`kubectl exec` does not work for pods on this node",
        hint="the API server asks the kubelet at the node's address, port 10250: see node-as-declared",
    ),
)
