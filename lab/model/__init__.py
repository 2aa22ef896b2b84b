"""The lab as data: frozen, validated, with the views that other modules need.

`lab.config` creates a `Lab` from lab.yaml; nothing here reads files or connects to anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.model.roles import ROLES, Role, RoleSpec

Provider = Literal["docker", "libvirt", "virtualbox"]


LABEL = "ha-lab.workspace"
"""The key of the label on a lab's containers and domains; `owner_label` is the complete label."""


class Frozen(BaseModel):
    """A record that refuses unknown keys and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(Frozen):
    """One machine. `address` is its fixed address on the lab's network."""

    name: str
    role: Role
    address: IPv4Address
    cpus: int
    memory_mib: int

    @property
    def spec(self) -> RoleSpec:
        """The properties of its role."""
        return ROLES[self.role]


class Kubernetes(Frozen):
    """Which Kubernetes, and where its binaries come from."""

    version: str = "1.36.3"
    source: Literal["auto", "modules", "upstream"] = "auto"


PRIVATE = tuple(
    IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
"""Private addresses: RFC 1918, and RFC 6598 for carriers' networks."""


class Network(Frozen):
    """The three networks of the lab. `pod_network` is `flannel` or the path of a manifest.

    `policy` is what the kit runs beside it to enforce NetworkPolicies; a manifest may bring its own.
    `public_addresses`: lab.yaml allows networks outside PRIVATE, whose owners the lab then can't reach.
    `virtual_address` is the API's where two load balancers share it; None where there is one.
    """

    subnet: IPv4Network = IPv4Network("192.168.56.0/24")
    virtual_address: IPv4Address | None = None
    pods: IPv4Network = IPv4Network("10.244.0.0/16")
    services: IPv4Network = IPv4Network("10.96.0.0/16")
    pod_network: str = "flannel"
    policy: Literal["kube-router", "none"] = "kube-router"
    public_addresses: bool = False

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address on the lab's network: the first one."""
        return self.subnet.network_address + 1


def is_private(network: IPv4Network) -> bool:
    """Whether all of a network's addresses are in PRIVATE."""
    return any(network.subnet_of(each) for each in PRIVATE)


class LoadBalancer(Frozen):
    """How HAProxy serves the API servers."""

    profile: Literal["tuned", "reference"] = "tuned"
    health_path: str = "/readyz"
    port: int = Field(default=6443, ge=1, le=65535)

    @property
    def asked_path(self) -> str:
        """The path that HAProxy's health check asks for: /healthz in the write-up, and so in its profile."""
        return "/healthz" if self.profile == "reference" else self.health_path


class Endpoint(Frozen):
    """The API's address and port. `certificate_names`: the names and addresses that clients may use."""

    address: IPv4Address
    port: int
    certificate_names: tuple[str, ...]

    @property
    def host_port(self) -> str:
        """As `address:port`: kubeadm's `controlPlaneEndpoint`."""
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        """The server of every kubeconfig."""
        return f"https://{self.host_port}"


class Mirrors(Frozen):
    """Hosts to use instead of upstream's; empty means upstream's own.

    `files` is for the hosts of release files, `images` for registries: by the host's name.

    Downloads are still verified: Debian's packages by their signatures, Go modules by go.sum, files and
    images by the lock's hashes.
    """

    debian: str = ""
    debian_security: str = ""
    files: dict[str, str] = {}
    images: dict[str, str] = {}
    go: str = ""


EMULATION_PATIENCE = 10
"""The factor for timeouts without KVM; docs/measurements.md has the measurements."""

EMULATED_CPUS = 1
"""CPUs of a machine without KVM, whatever lab.yaml says: with two, kernels crashed (decision 0015)."""


class Libvirt(Frozen):
    """libvirt's connection, and what its machines use.

    `emulated`: the CPU is emulated, since KVM is missing or does not work. `management` is the network through
    which Vagrant reaches machines and they reach other networks.
    """

    uri: str = "qemu:///system"
    emulated: bool = False
    pool: str = "default"
    management: IPv4Network = IPv4Network("192.168.121.0/24")

    @property
    def remote(self) -> bool:
        """Whether the machines are on another host."""
        return "+" in self.uri.partition("://")[0]

    @property
    def patience(self) -> int:
        """The factor for timeouts."""
        return EMULATION_PATIENCE if self.emulated else 1


class Lab(Frozen):
    """A lab. `nodes` is in bring-up order: load balancers, etcd machines, control planes, workers."""

    name: str = "ha-lab"
    provider: Provider = "docker"
    kubernetes: Kubernetes = Kubernetes()
    network: Network = Network()
    load_balancer: LoadBalancer = LoadBalancer()
    addons: tuple[str, ...] = ()
    """Names of `lab.model.addons.ADDONS`, in its order."""
    mirrors: Mirrors = Mirrors()
    libvirt: Libvirt | None = None
    """None with any other provider."""
    nodes: tuple[Node, ...]

    @property
    def emulated(self) -> bool:
        """Whether the machines' CPUs are emulated."""
        return self.libvirt is not None and self.libvirt.emulated

    @property
    def remote_host(self) -> str | None:
        """The libvirt URI of the host that the machines run on; None if that is this host."""
        return self.libvirt.uri if self.libvirt and self.libvirt.remote else None

    @property
    def patience(self) -> int:
        """The one factor for all timeouts; 1 unless machines are emulated."""
        return self.libvirt.patience if self.libvirt else 1

    @property
    def check_timeout(self) -> int:
        """Seconds that HAProxy gives an API server for its answer to a check.

        Emulated, one took more than ten while pods started beside it, and HAProxy took it for down.
        """
        return 3 * self.patience if self.emulated else 1

    def at_once(self, most: int) -> int:
        """How many questions to ask in parallel: one if machines are emulated.

        Parallel questions would take the host's CPUs from the control plane, whose etcd would then answer its
        API server's health check too late.
        """
        return 1 if self.emulated else most

    def by_role(self, role: Role) -> tuple[Node, ...]:
        """The nodes of one role, in order. No other code filters by role."""
        return tuple(node for node in self.nodes if node.role is role)

    def where(self, has: Callable[[RoleSpec], bool]) -> tuple[Node, ...]:
        """The nodes of the roles for which `has` is true, role by role in bring-up order."""
        return tuple(node for role, spec in ROLES.items() if has(spec) for node in self.by_role(role))

    @property
    def balancers(self) -> tuple[Node, ...]:
        """The machines that run HAProxy."""
        return self.where(lambda role: role.balances)

    @property
    def api(self) -> Endpoint:
        """The API's endpoint for everyone: the virtual address, or that of the only load balancer."""
        address = self.network.virtual_address or self.balancers[0].address
        names = dict.fromkeys(
            (str(address), *(name for each in self.balancers for name in (str(each.address), each.name)))
        )
        return Endpoint(address=address, port=self.load_balancer.port, certificate_names=tuple(names))

    @property
    def pair(self) -> tuple[Node, ...]:
        """The load balancers that share the virtual address; none where there is only one load balancer."""
        return self.balancers if self.network.virtual_address else ()

    def standby_first(self, holding: Collection[str]) -> tuple[Node, ...]:
        """The load balancers, those last that hold the virtual address: users notice what goes wrong there."""
        return tuple(sorted(self.balancers, key=lambda node: node.name in holding))

    @property
    def route_target(self) -> IPv4Address:
        """An address on the lab's network, to look up in a routing table.

        This host uses it, and flannel on each Kubernetes node. It belongs to none of them, since the route to
        an own address is the loopback interface.
        """
        return self.balancers[0].address

    @property
    def etcd_members(self) -> tuple[Node, ...]:
        """The machines that run etcd: machines of its own, else the control planes."""
        return tuple(node for node in self.nodes if self.is_etcd_member(node))

    @property
    def external_etcd(self) -> bool:
        """Whether etcd runs on machines of its own ("external"), and not on the control planes ("stacked").

        Those are kubeadm's words (kubernetes.io, "Options for Highly Available Topology").
        """
        return any(node.spec.etcd_member and not node.spec.serves_api for node in self.nodes)

    @property
    def topology(self) -> Literal["stacked", "external"]:
        """Where etcd runs, in kubeadm's word."""
        return "external" if self.external_etcd else "stacked"

    def is_etcd_member(self, node: Node) -> bool:
        """Whether a machine, which the lab may no longer have, runs etcd in this lab's topology."""
        return node.spec.etcd_member and node.spec.serves_api != self.external_etcd

    @property
    def cluster_machines(self) -> tuple[Node, ...]:
        """The machines that keep files of the cluster: its nodes, and those of etcd."""
        return tuple(node for node in self.nodes if node.spec.runs_kubelet or self.is_etcd_member(node))

    @property
    def control_planes(self) -> tuple[Node, ...]:
        """The control planes; the first is where `kubeadm init` runs."""
        return self.by_role(Role.CONTROL_PLANE)

    @property
    def first(self) -> Node:
        """The control plane that a new cluster starts on."""
        return self.control_planes[0]

    @property
    def workers(self) -> tuple[Node, ...]:
        """The workers; may be none."""
        return self.by_role(Role.WORKER)

    @property
    def kubernetes_nodes(self) -> tuple[Node, ...]:
        """Every machine that is a Kubernetes node."""
        return self.where(lambda role: role.runs_kubelet)

    def node(self, name: str) -> Node | None:
        """The node of that name, if there is one."""
        return next((node for node in self.nodes if node.name == name), None)


def machine_name(lab: Lab, node: Node) -> str:
    """The name of a machine in docker or a hypervisor."""
    return machine_called(lab, node.name)


def machine_called(lab: Lab, name: str) -> str:
    """The same for a machine that may no longer be in lab.yaml, by its name there."""
    return f"{lab.name}-{name}"


def owner_label(owner: str) -> str:
    """The label `KEY=VALUE` on a lab's containers, networks and domains.

    `owner` is the lab's own value (`lab.workspace.made`). All code that sets or looks for such a label uses
    this.
    """
    return f"{LABEL}={owner}"
