"""The properties of each role: ROLES has one row for each, which all other modules use.

A new role needs a member of `Role`, a row here, a section of `lab.config.shape.Nodes` for its key, and the
templates and scripts that the row names. `tests/unit/test_roles.py` fails if one of them is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """What a machine is for, with kubeadm's names; the value is used in tables, messages and node.env."""

    LOAD_BALANCER = "load-balancer"
    ETCD = "etcd"
    CONTROL_PLANE = "control-plane"
    WORKER = "worker"


Secret = Literal["bootstrap-token", "certificate-key", "proxy", "cluster-ca-key", "etcd-ca-key"]
"""Secrets that a run gives to a machine, in memory only: to join, to join as a control plane, this host's
proxies, to run `kubeadm init` with the lab's own CA, to make certificates with the lab's own CA of etcd (only
where etcd has machines of its own)."""


@dataclass(frozen=True)
class RoleSpec:
    """The properties of a role.

    config_key: its section under `nodes` in lab.yaml.
    first_offset: where its addresses start, counted from the subnet's own address, if lab.yaml has none.
    runs_kubelet: its machines are Kubernetes nodes.
    etcd_member: its machines are members of etcd; control planes only where no machine of the lab runs etcd
        alone (`Lab.is_etcd_member`).
    serves_api: its machines run an API server, which HAProxy sends connections to.
    balances: its machines run HAProxy.
    cluster_ca: where its machines keep the certificate of the cluster's CA; "" if they need none.
    templates: file below the machine's folder → template of provision/templates. `{profile}` is the load
        balancer's profile; COREDNS_PATCH is left out where there is one Kubernetes node, NETWORK_POLICY where
        lab.yaml wants none, PROBE_PATCHES where machines are not emulated, KEEPALIVED where there is one load
        balancer, ETCD_CLIENT where control planes run etcd.
    copies: files of provision/node that its machines get unchanged, besides scripts.
    scripts: scripts of provision/node that its machines get, by name.
    secrets, first_secrets: the secrets of each machine, and the additional ones of the machine that the
    cluster starts on.
    memory_mib: MiB of a container machine. Measured: 2.0 to 2.1 GiB for seven.
    inotify_instances: inotify instances of one machine. Measured: 115 for seven.
    """

    config_key: str
    first_offset: int
    runs_kubelet: bool
    etcd_member: bool
    serves_api: bool
    balances: bool
    cluster_ca: str
    templates: Mapping[str, str]
    scripts: tuple[str, ...]
    secrets: frozenset[Secret]
    memory_mib: int
    inotify_instances: int
    copies: tuple[str, ...] = ()
    first_secrets: frozenset[Secret] = frozenset()


_EVERY_MACHINE = {"node.env": "node.env.j2", "network.env": "network.env.j2", "hosts": "hosts.j2"}
_JOINS = {"kubeadm-join.yaml": "kubeadm-join.yaml.j2", "token.conf": "token.conf.j2"}
_ASKING = ("collect", "facts", "pods", "probe", "reach")

_PKI_CA = "/etc/kubernetes/pki/ca.crt"

POD_NETWORK = "pod-network/kustomization.yaml"
"""The pod network's kustomization; beside it is the manifest that lab.yaml may name."""

NETWORK_POLICY = "pod-network/kube-router.yaml"
"""What enforces NetworkPolicies, where that is the kit's."""

COREDNS_PATCH = "patches/corednsdeployment+strategic.yaml"
"""A patch of CoreDNS's Deployment; its name determines what kubeadm patches, and how."""

PROBE_PATCHES = tuple(
    f"patches/{name}+strategic.yaml"
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
)
"""Patches of the probes of static pods, where machines are emulated."""

ETCD_CLIENT = "kubeadm-etcd-client.yaml"
"""What kubeadm makes a control plane's client certificate by, where etcd runs on other machines."""

KEEPALIVED = {
    "keepalived.conf": "keepalived.{profile}.conf.j2",
    "keepalived-check.sh": "keepalived-check.{profile}.sh.j2",
}
"""What moves the virtual address, where two load balancers share one."""

ROLES: Mapping[Role, RoleSpec] = {
    Role.LOAD_BALANCER: RoleSpec(
        config_key="load_balancers",
        first_offset=10,
        runs_kubelet=False,
        etcd_member=False,
        serves_api=False,
        balances=True,
        cluster_ca="/etc/haproxy/kubernetes-ca.crt",
        templates=_EVERY_MACHINE | {"haproxy.cfg": "haproxy.{profile}.cfg.j2"} | KEEPALIVED,
        copies=("cut-off.lua",),
        scripts=(*_ASKING, "follow", "unfinished", "load-balancer", "give-up-address"),
        secrets=frozenset(),
        memory_mib=100,
        inotify_instances=13,
    ),
    Role.ETCD: RoleSpec(
        config_key="etcd",
        first_offset=31,
        runs_kubelet=False,
        etcd_member=True,
        serves_api=False,
        balances=False,
        cluster_ca="",
        templates=_EVERY_MACHINE
        | {
            "kubeadm-etcd.yaml": "kubeadm-etcd.yaml.j2",
            "kubelet.yaml": "kubelet-etcd.yaml.j2",
            "patches/etcd+strategic.yaml": "etcd+strategic.yaml.j2",
        },
        copies=("20-etcd-service-manager.conf",),
        scripts=(
            *(*_ASKING, "follow"),
            *("node", "etcd", "remove-member", "sole-member", "backup", "recover", "renew-certificates"),
            *("payload", "upgrade"),
        ),
        secrets=frozenset({"etcd-ca-key", "proxy"}),
        memory_mib=150,
        inotify_instances=16,
    ),
    Role.CONTROL_PLANE: RoleSpec(
        config_key="control_planes",
        first_offset=11,
        runs_kubelet=True,
        etcd_member=True,
        serves_api=True,
        balances=False,
        cluster_ca=_PKI_CA,
        templates=_EVERY_MACHINE
        | _JOINS
        | {
            "kubeadm-init.yaml": "kubeadm-init.yaml.j2",
            POD_NETWORK: "kustomization.yaml.j2",
            NETWORK_POLICY: "kube-router.yaml.j2",
            COREDNS_PATCH: "corednsdeployment+strategic.yaml.j2",
            ETCD_CLIENT: "kubeadm-etcd-client.yaml.j2",
        }
        | {path: f"{path.removeprefix('patches/')}.j2" for path in PROBE_PATCHES},
        scripts=(
            *(*_ASKING, "follow", "unfinished"),
            *("node", "control-plane-init", "control-plane-join", "pod-network", "policy-rules", "addons"),
            *("kubelet-certificates", "revoke", "restart-kubelet"),
            *("drain", "leave", "remove-member", "repair", "sole-member", "backup", "recover"),
            *("renew-certificates", "rotate-ca"),
            *("payload", "upgrade"),
        ),
        secrets=frozenset({"bootstrap-token", "certificate-key", "proxy", "etcd-ca-key"}),
        first_secrets=frozenset({"cluster-ca-key"}),
        memory_mib=400,
        inotify_instances=17,
    ),
    Role.WORKER: RoleSpec(
        config_key="workers",
        first_offset=21,
        runs_kubelet=True,
        etcd_member=False,
        serves_api=False,
        balances=False,
        cluster_ca=_PKI_CA,
        templates=_EVERY_MACHINE | _JOINS,
        scripts=(
            *(*_ASKING, "node", "policy-rules", "worker-join"),
            *("restart-kubelet", "rotate-ca", "payload", "upgrade"),
        ),
        secrets=frozenset({"bootstrap-token", "proxy"}),
        memory_mib=200,
        inotify_instances=17,
    ),
}
"""Every role's row, in bring-up order."""
