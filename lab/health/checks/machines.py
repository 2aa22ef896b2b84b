"""Host facts: each machine has its own identity and the settings that Kubernetes needs."""

from __future__ import annotations

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect,
    expect_none,
    holds,
    only_if_all_answered,
)
from lab.health.facts.gather import Facts
from lab.health.facts.machine import Identity
from lab.model import Lab, Node
from lab.model.selectors import every_machine, kubernetes_nodes
from lab.unknown import known

SKEW = 0.5
"""Seconds that a machine's clock may be off; etcd warns from 1 s on, leases and certificates fail later.

An emulated machine's clock has a resolution of one second, and asking it takes longer.
"""


def own_name(lab: Lab, facts: Facts, node: Node) -> Finding:
    machine = facts.machine(node)
    found = f"{machine.hostname}, which is {', '.join(machine.own_addresses) or 'no address'} there"
    return expect(f"{node.name}, which is {node.address} there", found)


def unique_identities(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.nodes, lambda machine: machine.identity)
    bad = [
        f"{' and '.join(names)} have the same {what}"
        for what in ("hostname", "machine_id", "product_uuid", "mac", "host_key")
        for names in _sharing(found, what)
    ]
    expected = "hostname, machine-id, product_uuid, MAC address and host key of each machine its own"
    return only_if_all_answered(expect_none(expected, bad), silent)


def _sharing(found: dict[str, Identity], what: str) -> list[list[str]]:
    """Machines that share a value, as lists of names. "none" means that a machine can't have one."""
    owners: dict[str, list[str]] = {}
    for name, identity in found.items():
        owners.setdefault(str(getattr(identity, what)), []).append(name)
    return [names for value, names in owners.items() if len(names) > 1 and value != "none"]


def network_services(lab: Lab, facts: Facts, node: Node) -> Finding:
    services = facts.machine(node).services
    needed = ["ha-lab-network", *(["ha-lab-dns"] if node in lab.kubernetes_nodes else [])]
    bad = [name for name in needed if name not in services or not services[name].running]
    return expect_none(f"running: {', '.join(needed)}", [f"{name} does not run" for name in bad])


def kernel_settings(lab: Lab, facts: Facts, node: Node) -> Finding:
    wanted = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
    return expect(wanted, facts.machine(node).kernel)


def cgroup_driver(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect({"containerd": "systemd", "kubelet": "systemd"}, facts.machine(node).cgroup_drivers)


def clock(lab: Lab, facts: Facts, node: Node) -> Finding:
    skew, most = known(facts.machine(node).skew), SKEW * lab.patience
    return Finding(f"within {most} s of this host's", f"{skew:.1f} s off", holds(skew <= most))


CHECKS = (
    MachineCheck(
        "own-name",
        every_machine,
        own_name,
        means="kubelet and etcd listen at the address of their own name, where other machines can't reach them",
        hint="on the machine: `systemctl restart ha-lab-network` writes /etc/hosts again",
    ),
    LabCheck(
        "unique-identities",
        unique_identities,
        means="Kubernetes and pod networks distinguish machines by these: two with the same one conflict",
        hint="`./inv replace NAME` creates one of the two again, with its own identity",
    ),
    MachineCheck(
        "network-services",
        every_machine,
        network_services,
        means="the lab's names and routes are not set after a boot, or pods can't resolve external names",
        hint="on the machine: `systemctl restart ha-lab-network ha-lab-dns`, `journalctl -u ha-lab-network`",
    ),
    MachineCheck(
        "kernel-settings",
        kubernetes_nodes,
        kernel_settings,
        means="packets from pods are not forwarded, or bypass kube-proxy's rules",
        hint="on the machine: `sysctl --system`; `./inv doctor` checks the host's kernel",
    ),
    MachineCheck(
        "cgroup-driver",
        kubernetes_nodes,
        cgroup_driver,
        means="two managers change the same cgroups, and pods are killed under load; a kubelet's own setting "
        "misleads where it differs, since the kubelet takes the driver that containerd reports",
        hint="SystemdCgroup in /etc/containerd/config.toml and cgroupDriver in /var/lib/kubelet/config.yaml",
    ),
    MachineCheck(
        "clock",
        every_machine,
        clock,
        means="leases look expired, certificates not yet valid, logs do not show what came first",
        hint="with virtual machines: is a time service running there? A suspended host sets clocks back",
    ),
)
