"""Every Kubernetes node: what the API says of it, and what the machine itself says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.cluster import Api
from lab.model import Lab, Node, Role


def test_the_cluster_has_exactly_the_nodes_of_lab_yaml(lab: Lab, api: Api) -> None:
    assert [node.name for node in api.nodes()] == sorted(node.name for node in lab.kubernetes_nodes)


def test_the_node_is_ready(api: Api, kubernetes_node: Node) -> None:
    found = {node.name: node for node in api.nodes()}[kubernetes_node.name]
    assert found.ready, f"{found.name} is not Ready: {found.reason}"


def test_the_node_has_its_role_version_and_lab_address(lab: Lab, api: Api, kubernetes_node: Node) -> None:
    found = {node.name: node for node in api.nodes()}[kubernetes_node.name]
    is_control_plane = kubernetes_node.role is Role.CONTROL_PLANE
    assert found.control_plane is is_control_plane
    assert found.version == f"v{lab.kubernetes.version}"
    assert found.internal_ips == (str(kubernetes_node.address),)
    assert ("node-role.kubernetes.io/control-plane" in found.taints) is is_control_plane


def test_the_kubelet_and_the_container_runtime_run_and_will_after_a_reboot(
    host: Callable[[Node], Any], kubernetes_node: Node
) -> None:
    for name in ("kubelet", "containerd"):
        service = host(kubernetes_node).service(name)
        assert service.is_running, f"{name} does not run on {kubernetes_node.name}"
        assert service.is_enabled, f"{name} would not come back on {kubernetes_node.name}"


def test_a_workers_kubelet_points_at_the_load_balancer(
    lab: Lab, host: Callable[[Node], Any], worker: Node
) -> None:
    text = host(worker).file("/etc/kubernetes/kubelet.conf").content_string
    assert f"server: {lab.api_url}\n" in text


def test_a_control_planes_kubelet_points_at_its_own_api_server_or_the_load_balancer(
    lab: Lab, host: Callable[[Node], Any], control_plane: Node
) -> None:
    # kubeadm's ControlPlaneKubeletLocalMode, on since 1.33: its own, so that a newer kubelet never
    # speaks to an older API server; the first control plane keeps what init wrote.
    text = host(control_plane).file("/etc/kubernetes/kubelet.conf").content_string
    own = f"server: https://{control_plane.address}:6443\n"
    assert own in text or f"server: {lab.api_url}\n" in text


def test_its_own_name_means_its_lab_address(host: Callable[[Node], Any], machine: Node) -> None:
    found = host(machine).check_output("getent ahostsv4 %s | awk '{ print $1 }' | sort -u", machine.name)
    assert found.split() == [str(machine.address)]


def test_machine_ids_and_host_keys_are_unique(lab: Lab, host: Callable[[Node], Any]) -> None:
    facts = [
        host(node).check_output("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2")
        for node in lab.nodes
    ]
    lines = [line for fact in facts for line in fact.splitlines()]
    assert len(lines) == 2 * len(lab.nodes)
    assert len(set(lines)) == len(lines), "two machines share an identity"
