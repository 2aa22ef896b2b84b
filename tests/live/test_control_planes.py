"""The control planes, each asked directly, and etcd, each member asked for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.cluster import Api, ask_health, read_members
from lab.model import Lab, Node

ETCDCTL = (
    "etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt"
    " --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt"
    " --key /etc/kubernetes/pki/etcd/healthcheck-client.key --command-timeout 5s"
    " --endpoints https://127.0.0.1:2379 "
)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_the_api_server_itself_is_healthy(api: Api, control_plane: Node, path: str) -> None:
    status, text = ask_health(control_plane.address, 6443, path, api.ca)
    assert (status, text) == (200, "ok"), f"{control_plane.name} answered {status} {text!r} to {path}"


def test_this_member_sees_every_control_plane_as_a_started_voting_member(
    lab: Lab, host: Callable[[Node], Any], control_plane: Node
) -> None:
    answer = host(control_plane).check_output(ETCDCTL + "member list --write-out json")
    found = {(m.name, m.peer_urls, m.learner) for m in read_members(answer)}
    assert found == {(n.name, (f"https://{n.address}:2380",), False) for n in lab.control_planes}


def test_this_member_is_healthy_and_without_alarm(host: Callable[[Node], Any], control_plane: Node) -> None:
    machine = host(control_plane)
    assert machine.run(ETCDCTL + "endpoint health").rc == 0
    assert machine.check_output(ETCDCTL + "alarm list") == ""


@pytest.mark.parametrize("component", ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"])
def test_its_static_pods_are_ready(api: Api, control_plane: Node, component: str) -> None:
    name = f"{component}-{control_plane.name}"
    found = {pod.name: pod.ready for pod in api.pods("kube-system")}
    assert found.get(name) is True, f"{name}: {'not Ready' if name in found else 'there is no such pod'}"


def test_its_administrators_kubeconfig_points_at_the_load_balancer(
    lab: Lab, host: Callable[[Node], Any], control_plane: Node
) -> None:
    text = host(control_plane).file("/etc/kubernetes/admin.conf").content_string
    assert f"server: {lab.api_url}\n" in text


def test_its_keys_are_readable_by_root_only(host: Callable[[Node], Any], control_plane: Node) -> None:
    found = host(control_plane).check_output(
        "find /etc/kubernetes/pki -name '*.key' -perm /077;"
        " find /etc/kubernetes -maxdepth 1 -name '*.conf' -perm /077"
    )
    assert found == "", f"readable by others: {found}"
