from __future__ import annotations

import base64
import json
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from lab.errors import LabStateError
from lab.health.cluster import (
    Api,
    BackendFact,
    MemberFact,
    PodFact,
    read_backends,
    read_members,
    read_nodes,
    read_pods,
)
from lab.workspace.render.credentials import Pair, kubelet_client, new_ca
from tests.unit.fakes import CA, recorded


def test_nodes_are_read_by_name_with_role_version_and_address() -> None:
    nodes = read_nodes(json.loads(recorded("kubectl/nodes.healthy.json")))
    assert [node.name for node in nodes] == ["cp1", "cp2", "cp3", "w1", "w2", "w3"]
    assert all(node.ready for node in nodes)
    assert [node.control_plane for node in nodes] == [True] * 3 + [False] * 3
    assert {node.version for node in nodes} == {"v1.36.3"}
    assert nodes[0].internal_ips == ("192.168.56.11",)
    assert nodes[0].taints == ("node-role.kubernetes.io/control-plane",)
    assert nodes[3].taints == ()


def test_a_node_that_is_not_ready_says_why() -> None:
    cp1, cp2, w1 = read_nodes(json.loads(recorded("kubectl/nodes.broken.json")))
    assert cp1.ready
    assert (cp2.ready, cp2.reason) == (False, "Kubelet stopped posting node status.")
    assert (w1.ready, w1.reason) == (False, "no Ready condition yet")


def test_pods_are_read_and_those_on_their_way_out_left_aside() -> None:
    assert read_pods(json.loads(recorded("kubectl/pods.json"))) == (
        PodFact("kube-system", "etcd-cp1", "cp1", "Running", True),
        PodFact("kube-system", "coredns-6f6b679f8f-abcde", "w1", "Running", False),
        PodFact("default", "waiting", "", "Pending", False),
    )


def test_etcd_members_are_read_by_id() -> None:
    members = read_members(recorded("etcd/member-list.healthy.json"))
    assert {member.name for member in members} == {"cp1", "cp2", "cp3"}
    assert [member.id for member in members] == sorted(member.id for member in members)
    assert not any(member.learner for member in members)


def test_a_learner_and_a_member_that_never_started_are_told_apart() -> None:
    members = read_members(recorded("etcd/member-list.learner.json"))
    assert MemberFact(3398771922031133021, "cp2", ("https://192.168.56.12:2380",), True) in members
    assert MemberFact(9216603711530421772, "", ("https://192.168.56.13:2380",), True) in members


def test_only_the_servers_of_the_api_s_backend_are_read() -> None:
    assert read_backends(recorded("haproxy/show-stat.healthy.csv")) == (
        BackendFact("cp1", "UP", "L7OK", "200", 71, open=6),
        BackendFact("cp2", "UP", "L7OK", "200", 71, open=6),
        BackendFact("cp3", "UP", "L7OK", "200", 70, open=6),
    )


def test_a_server_that_is_down_says_how() -> None:
    _, cp2, cp3 = read_backends(recorded("haproxy/show-stat.one-down.csv"))
    assert cp2 == BackendFact("cp2", "DOWN", "L4TOUT", "", 39, open=0)
    assert cp3 == BackendFact("cp3", "UP 1/2", "L7STS", "500", 0, open=6)


def test_a_server_that_is_just_being_checked_has_no_code_yet() -> None:
    checked = recorded("haproxy/show-stat.healthy.csv").replace(",L7OK,200,", ",* L7OK,0,", 1)
    assert read_backends(checked)[0] == BackendFact("cp1", "UP", "L7OK", "0", 71, checking=True, open=6)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a word",
        "clusters: []",
        "{",
        "clusters: [{cluster: {certificate-authority-data: '!'}}]\nusers: [{user: {}}]",
        yaml.safe_dump(
            {
                "clusters": [
                    {
                        "cluster": {
                            "server": "https://192.0.2.1:6443",
                            "certificate-authority-data": base64.b64encode(CA.encode()).decode(),
                        }
                    }
                ],
                "users": [{"user": {"client-certificate-data": "eA==", "client-key-data": "eA=="}}],
            }
        ),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(LabStateError, match="can't be used"):
        Api(path)


def test_a_kubeconfig_that_is_read_again_adds_its_ca_and_keeps_the_context_that_others_have(
    tmp_path: Path,
) -> None:
    path, cas = tmp_path / "kubeconfig", [new_ca(), new_ca()]

    def write(ca: Pair) -> None:
        client = kubelet_client("cp1", ca)
        parts = {"ca": ca.certificate, "crt": client.certificate, "key": client.key}
        data = {name: base64.b64encode(text.encode()).decode() for name, text in parts.items()}
        cluster = {"server": "https://192.168.56.10:6443", "certificate-authority-data": data["ca"]}
        user = {"client-certificate-data": data["crt"], "client-key-data": data["key"]}
        path.write_text(yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": user}]}))

    write(cas[0])
    api = Api(path)
    context = api.context
    write(cas[1])
    api.read_again()
    assert (api.ca, api.context) == (cas[1].certificate, context)
    assert len(context.get_ca_certs()) == 2
    path.write_text("{")
    with pytest.raises(LabStateError, match="no kubeconfig"):
        api.read_again()


def test_a_missing_kubeconfig_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabStateError, match="can't be used") as caught:
        Api(tmp_path / "kubeconfig")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_what_a_broken_kubeconfig_holds_is_in_no_error(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("users:\n- user:\n    client-key-data: 'S3CRET\n    token: S3CRET: S3CRET\n")
    with pytest.raises(LabStateError, match="no kubeconfig") as caught:
        Api(path)
    assert "S3CRET" not in "".join(traceback.format_exception(caught.value))


# A pod that its kubelet calls Ready too early (docs/decisions/0009-kubelet-asks-again.md).

START = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ready_after", "now_after", "delay", "believed"),
    [
        (12, 13, 10, True),  # its startup probe has passed
        (10, 10, 10, True),
        (2, 3, 10, False),  # no probe can have passed by then
        (2, 32, 10, False),
        (2, 33, 10, True),  # a kubelet would have taken it back by now
        (0, 1, 0, True),  # the probe may pass at once
    ],
)
def test_a_static_pod_is_believed_once_its_startup_probe_can_have_passed(
    ready_after: int, now_after: int, delay: int, believed: bool
) -> None:
    pod = PodFact(
        *("kube-system", "etcd-cp1", "cp1", "Running", True),
        ready_since=START + timedelta(seconds=ready_after),
        started=START,
        startup_delay=delay,
    )
    now = START + timedelta(seconds=now_after)
    assert pod.is_ready_at(now, timedelta(seconds=30)) is believed
    assert not replace(pod, ready=False).is_ready_at(now, timedelta(seconds=30))


def test_a_pod_without_a_startup_probe_is_believed_at_once() -> None:
    pod = PodFact("kube-system", "kube-proxy-1", "w1", "Running", True, ready_since=START)
    assert pod.is_ready_at(START, timedelta(seconds=30))


def test_a_startup_probe_s_delay_and_its_container_s_start_are_read() -> None:
    """Of the first container that has one; a kubelet's own times, in the form of RFC 3339."""
    probed = {"name": "etcd", "startupProbe": {"initialDelaySeconds": 10}}
    running = {"running": {"startedAt": "2026-11-28T06:00:00Z"}}
    item = {
        "metadata": {"namespace": "kube-system", "name": "etcd-cp1"},
        "spec": {"nodeName": "cp1", "containers": [{"name": "other"}, probed]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T06:00:02Z"}],
            "containerStatuses": [
                {"name": "other", "state": {"running": {"startedAt": "2026-11-28T05:00:00Z"}}},
                {"name": "etcd", "state": running},
            ],
        },
    }
    [pod] = read_pods({"items": [item]})
    assert (pod.started, pod.ready_since, pod.startup_delay) == (START, START + timedelta(seconds=2), 10)
    assert not pod.is_ready_at(START + timedelta(seconds=3), timedelta(seconds=30))
