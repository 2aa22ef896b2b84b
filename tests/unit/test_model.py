from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from pydantic import ValidationError

from lab.config import default, load
from lab.model import Lab, LoadBalancer, Network, Node
from lab.model.roles import Role
from lab.system.paths import REPOSITORY
from tests.unit.fakes import with_a_second_balancer


def names(nodes: tuple[Node, ...]) -> list[str]:
    return [node.name for node in nodes]


@pytest.fixture
def lab() -> Lab:
    return default()


def test_nodes_are_in_bring_up_order(lab: Lab) -> None:
    assert names(lab.nodes) == ["lb1", "cp1", "cp2", "cp3", "w1", "w2", "w3"]


def test_each_role_has_its_view(lab: Lab) -> None:
    assert names(lab.balancers) == ["lb1"]
    assert names(lab.control_planes) == ["cp1", "cp2", "cp3"]
    assert names(lab.workers) == ["w1", "w2", "w3"]
    assert names(lab.kubernetes_nodes) == ["cp1", "cp2", "cp3", "w1", "w2", "w3"]
    assert names(lab.etcd_members) == ["cp1", "cp2", "cp3"]
    assert names(lab.by_role(Role.LOAD_BALANCER)) == ["lb1"]


def test_the_first_control_plane_is_first_by_place_not_by_name(lab: Lab) -> None:
    _, *rest = lab.nodes
    turned = lab.model_copy(update={"nodes": (lab.nodes[0], *reversed(rest))})
    assert turned.first.name == "cp3"


def test_the_api_is_reached_through_the_load_balancer(lab: Lab) -> None:
    moved = lab.model_copy(update={"load_balancer": LoadBalancer(port=8443)})
    assert moved.api.host_port == "192.168.56.10:8443"
    assert moved.api.url == "https://192.168.56.10:8443"
    assert moved.api.certificate_names == ("192.168.56.10", "lb1")


def test_the_certificate_has_the_names_of_every_load_balancer(lab: Lab) -> None:
    assert with_a_second_balancer(lab).api.certificate_names == (
        "192.168.56.10",
        "lb1",
        "192.168.56.9",
        "lb2",
    )


def test_two_load_balancers_share_the_api_s_address() -> None:
    lab = load(REPOSITORY / "examples/two-load-balancers.yaml")
    assert names(lab.pair) == ["lb1", "lb2"]
    assert lab.api.url == "https://192.168.62.5:6443"
    assert lab.api.certificate_names == ("192.168.62.5", "192.168.62.6", "lb1", "192.168.62.7", "lb2")
    assert lab.route_target == IPv4Address("192.168.62.6")


def test_one_load_balancer_shares_nothing(lab: Lab) -> None:
    assert lab.pair == ()
    assert with_a_second_balancer(lab).pair == ()


def test_routing_tables_are_asked_about_an_address_that_is_no_kubernetes_node_s(lab: Lab) -> None:
    assert lab.route_target in lab.network.subnet
    assert lab.route_target not in {lab.network.gateway, *(node.address for node in lab.kubernetes_nodes)}


def test_the_gateway_is_the_subnets_first_address() -> None:
    assert Network().gateway == IPv4Address("192.168.56.1")


def test_a_node_is_found_by_name_or_not_at_all(lab: Lab) -> None:
    found = lab.node("w2")
    assert found is not None
    assert found.role is Role.WORKER
    assert lab.node("w9") is None


def test_a_lab_never_changes(lab: Lab) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        lab.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        lab.first.memory_mib = 1
    with pytest.raises(ValidationError, match="frozen"):
        lab.api.port = 1


def test_a_record_takes_no_unknown_key() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Network.model_validate({"subnets": "10.0.0.0/8"})


def test_a_lab_survives_json(lab: Lab) -> None:
    assert Lab.model_validate_json(lab.model_dump_json()) == lab
