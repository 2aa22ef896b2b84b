"""The acceptance list of the cluster that this kit builds, as plain testinfra tests: read it first.

`verify` runs them before the checks of lab.health.checks, which look closer and at more. The first paragraph of
a docstring is what is expected, `Means:` what a failure means, and `Try:` what to do about it: `verify` shows
all three. `host(NODE)` is a machine as testinfra has it, as root; the API is asked from this host, as users do.
"""

from __future__ import annotations

import json

import pytest

from lab.health import cluster
from lab.health.cluster import Api
from lab.model import Lab, Node
from tests.live.conftest import Hosts

pytestmark = pytest.mark.acceptance


def test_haproxy_service_runs_and_is_enabled(host: Hosts, load_balancer: Node) -> None:
    """HAProxy's service runs, and is enabled for the next boot.

    Means: nobody reaches the API without HAProxy, now or after the machine's next boot.
    Try: `./inv up` starts it; on the machine: `systemctl enable --now haproxy`.
    """
    assert host(load_balancer).service("haproxy").is_running
    assert host(load_balancer).service("haproxy").is_enabled


def test_haproxy_listens_on_the_port_of_the_api(host: Hosts, load_balancer: Node, lab: Lab) -> None:
    """HAProxy listens on the API's port, on all addresses of the load balancer.

    Means: clients are refused at the address that every kubeconfig has.
    Try: `ss -tlnp` on the machine lists what listens; `./inv up` writes HAProxy's configuration again.
    """
    assert host(load_balancer).socket(f"tcp://0.0.0.0:{lab.api.port}").is_listening


def test_haproxy_configuration_is_valid(host: Hosts, load_balancer: Node) -> None:
    """HAProxy accepts its configuration file.

    Means: HAProxy would not start again, or not reload, with the file as it is.
    Try: `./inv up` writes the lab's configuration again.
    """
    checked = host(load_balancer).run("haproxy -c -f /etc/haproxy/haproxy.cfg")
    assert checked.rc == 0, checked.stderr


def test_haproxy_has_a_server_for_each_control_plane(host: Hosts, load_balancer: Node, lab: Lab) -> None:
    """HAProxy's configuration has a server line for each control plane.

    Means: no connection goes to the API server of a control plane that has none.
    Try: `./inv up` writes the lab's configuration again.
    """
    lines = host(load_balancer).file("/etc/haproxy/haproxy.cfg").content_string.splitlines()
    servers = [line.split()[1:3] for line in lines if line.split()[:1] == ["server"]]
    assert servers == [[node.name, f"{node.address}:6443"] for node in lab.control_planes]


def test_healthz_answers_ok_through_the_load_balancer(api: Api, lab: Lab) -> None:
    """/healthz answers 200 ok through the load balancer, its certificate verified with the lab's CA.

    Means: kubectl and the workers' kubelets do not reach a healthy API server.
    Try: `./inv status` says which machines run.
    """
    answer = cluster.ask_health(lab.api.address, lab.api.port, "/healthz", api.ca, timeout=5.0 * lab.patience)
    assert answer == (200, "ok")


def test_nodes_are_all_ready(api: Api, lab: Lab) -> None:
    """Every control plane and worker of lab.yaml is a Ready node of the cluster, and no other machine is.

    Means: a node that is not Ready gets no new pods, and after some minutes it loses those that it has.
    Try: `kubectl describe node NAME` gives the reason; `./inv up` joins a machine that is missing.
    """
    assert {node.name: node.ready for node in api.nodes()} == {node.name: True for node in lab.kubernetes_nodes}


def test_etcd_has_one_voting_member_on_each_control_plane(host: Hosts, lab: Lab) -> None:
    """Each control plane, or each etcd machine, has one voting member, and no other machine has one.

    Means: the cluster survives the loss of fewer control planes than it was built for.
    Try: `./inv up` joins a missing member; `./inv verify -k etcd` says more.
    """
    pki, urls = "/etc/kubernetes/pki/etcd", [f"https://{node.address}:2379" for node in lab.etcd_members]
    answer = host(lab.etcd_members[0]).check_output(
        f"etcdctl --cacert {pki}/ca.crt --cert {pki}/healthcheck-client.crt --key {pki}/healthcheck-client.key "
        f"--endpoints {','.join(urls)} --command-timeout {5 * lab.patience}s member list --write-out json"
    )
    members = sorted((m.get("name", ""), m.get("isLearner", False)) for m in json.loads(answer)["members"])
    assert members == sorted((node.name, False) for node in lab.etcd_members)


def test_kubelet_and_containerd_run(host: Hosts, kubernetes_node: Node) -> None:
    """The kubelet and containerd run, with swap on the machine or without.

    Means: no container starts or stops on this node.
    Try: on it: `systemctl enable --now kubelet containerd`; `journalctl -u kubelet` gives the reason.
    """
    assert host(kubernetes_node).service("kubelet").is_running
    assert host(kubernetes_node).service("containerd").is_running


def test_admin_conf_points_at_the_load_balancer(host: Hosts, control_plane: Node, lab: Lab) -> None:
    """admin.conf has the load balancer's address, not that of one API server.

    Means: administrators who use this file lose the API with that one API server.
    Try: put the load balancer's URL back as `server:` in /etc/kubernetes/admin.conf.
    """
    assert host(control_plane).file("/etc/kubernetes/admin.conf").contains(f"server: {lab.api.url}$")


def test_worker_reaches_the_api_through_the_load_balancer(host: Hosts, worker: Node, lab: Lab) -> None:
    """A worker's kubelet has the load balancer's address, not that of one API server.

    Means: the worker is lost to the cluster with that one API server.
    Try: put the load balancer's URL back as `server:` in /etc/kubernetes/kubelet.conf and restart the kubelet.
    """
    assert host(worker).file("/etc/kubernetes/kubelet.conf").contains(f"server: {lab.api.url}$")
