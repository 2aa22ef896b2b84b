"""What runs in the cluster: the system's own pods, and the network as a pod on every node sees it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

from lab.cluster import Api
from lab.model import Lab, Node
from tests.live.probe import Probes

SYSTEM = ("kube-system", "kube-flannel")


def test_every_system_pod_is_ready(api: Api) -> None:
    pods = [pod for pod in api.pods() if pod.namespace in SYSTEM]
    assert pods
    bad = [f"{p.namespace}/{p.name} on {p.node}: {p.phase}" for p in pods if not p.ready]
    assert not bad, f"not Ready: {', '.join(bad)}"


def test_kube_proxy_runs_on_every_node(lab: Lab, api: Api) -> None:
    nodes = {pod.node for pod in api.pods("kube-system") if pod.name.startswith("kube-proxy-")}
    assert nodes == {node.name for node in lab.kubernetes_nodes}


def test_kube_proxy_points_at_the_load_balancer(lab: Lab, api: Api) -> None:
    config = api.get("/api/v1/namespaces/kube-system/configmaps/kube-proxy")["data"]["kubeconfig.conf"]
    assert f"server: {lab.api_url}\n" in config


def test_the_api_servers_endpoints_are_the_lab_addresses(lab: Lab, api: Api) -> None:
    slices = api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
    found = {address for endpoint in slices["endpoints"] for address in endpoint["addresses"]}
    assert found == {str(node.address) for node in lab.control_planes}


def test_a_pod_on_this_node_resolves_names(lab: Lab, probes: Probes, kubernetes_node: Node) -> None:
    found = probes.seen[kubernetes_node.name].get("dns", "")
    assert found == str(lab.network.services.network_address + 1), (
        f"kubernetes.default resolved to {found!r} from a pod on {kubernetes_node.name}"
    )


def test_a_pod_on_this_node_reaches_a_service(lab: Lab, probes: Probes, kubernetes_node: Node) -> None:
    found = probes.seen[kubernetes_node.name].get("service", "")
    assert found in {node.name for node in lab.kubernetes_nodes}, (
        f"the probe Service answered {found!r} to a pod on {kubernetes_node.name}"
    )


def test_a_pod_on_this_node_reaches_the_pods_on_all_nodes(probes: Probes, kubernetes_node: Node) -> None:
    seen = probes.seen[kubernetes_node.name]
    found = {node: seen.get(f"pod:{address}", "no answer") for node, address in probes.addresses.items()}
    assert found == {node: node for node in probes.addresses}


def test_pods_have_addresses_of_the_pod_network(lab: Lab, probes: Probes) -> None:
    outside = {n: a for n, a in probes.addresses.items() if IPv4Address(a) not in lab.network.pods}
    assert not outside, f"outside {lab.network.pods}: {json.dumps(outside)}"
