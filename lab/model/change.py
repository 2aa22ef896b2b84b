"""Compares an existing lab with an edited lab.yaml. Pure: from two labs to one record.

One table has the effect of each key of lab.yaml. `up` makes the changes for which there is a plan. An
impossible change has a reason and what to do instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lab.model import Lab, Node
from lab.model.roles import ROLES, Role

BEGIN_AGAIN = "change it back; or remove this lab with `./inv destroy`, then `./inv up` creates the other one"
ANOTHER_LAB = "change it back; or create the other lab beside this one, with a lab file in another folder"


@dataclass(frozen=True)
class Effect:
    """The effect of a changed key on existing machines.

    `members`: machines are added or removed. `upgraded`: machines get another version of Kubernetes, one by
    one. `resized`: a machine is stopped, changed and started, if its provider enforces sizes. `load-balancer`,
    `pod-network`, `network-policy` and `addons`: configuration that `up` applies. `none`: no machine is
    affected. `impossible`: there is no plan for it. `why` is the reason why it is impossible or affects no
    machine. `instead` is what to do.
    """

    kind: Literal[
        "members",
        "upgraded",
        "resized",
        "load-balancer",
        "pod-network",
        "network-policy",
        "addons",
        "none",
        "impossible",
    ]
    why: str = ""
    instead: str = ""


def _impossible(why: str, instead: str = BEGIN_AGAIN) -> Effect:
    return Effect("impossible", why, instead)


POD_NETWORK = "network.pod_network"
"""The key whose value may be a file; a change of the file counts as a change of the key."""

VERSION = "kubernetes.version"
"""The key whose effect depends on its values: one minor at a time, and never back."""

ETCD_COUNT = "nodes.etcd.count"
"""The key whose effect depends on its values: 0 is another topology."""

BALANCERS = f"nodes.{ROLES[Role.LOAD_BALANCER].config_key}.count"
"""The key that gives the API another address, and so changes VIRTUAL_ADDRESS, too."""

VIRTUAL_ADDRESS = "network.virtual_address"
"""The API's address with two load balancers; a lab with one has none."""

_UPGRADED = Effect("upgraded")
_OTHER_TOPOLOGY = _impossible(
    "etcd's data is on the control planes or on machines of its own, and no plan moves it while "
    "the API uses it",
    ANOTHER_LAB,
)
_OTHER_MEMBERS = _impossible("each API server is configured with the addresses of etcd's members", ANOTHER_LAB)
_FETCHED = Effect("none", "machines have what was fetched already")
_MEMBERS = Effect("members")
_RESIZED = Effect("resized", "this provider's machines share what the host has")

_GROUP: Mapping[str, Effect] = {
    "prefix": _impossible("a machine's name is in certificates, in etcd and in its Node object"),
    "count": _MEMBERS,
    "first_address": _impossible("a machine's address is in certificates, in etcd and in HAProxy"),
    "cpus": _RESIZED,
    "memory_mib": _RESIZED,
}

EFFECTS: Mapping[str, Effect] = {
    "name": _impossible("machines, networks and the kubeconfig's context carry it", ANOTHER_LAB),
    "provider": _impossible("machines can't move from one provider to another", ANOTHER_LAB),
    VERSION: _UPGRADED,
    "kubernetes.source": Effect("none", "machines keep the golden machine that they are clones of"),
    VIRTUAL_ADDRESS: _impossible("certificates, kubeconfigs and nodes know the API by it"),
    "network.subnet": _impossible("every machine, certificate and etcd member has an address in it"),
    "network.pods": _impossible("each node has a part of it already, and its pods have addresses there"),
    "network.services": _impossible("Services, CoreDNS and the API's certificate have addresses in it"),
    POD_NETWORK: Effect("pod-network"),
    "network.policy": Effect("network-policy"),
    "network.public_addresses": Effect("none", "it only says which networks lab.yaml may have"),
    "load_balancer.profile": Effect("load-balancer"),
    "load_balancer.health_path": Effect("load-balancer"),
    "load_balancer.port": _impossible("kubelets, kubeconfigs and kube-proxy know the API by it"),
    "addons": Effect("addons"),
    "mirrors.debian": _FETCHED,
    "mirrors.debian_security": _FETCHED,
    "mirrors.files": _FETCHED,
    "mirrors.images": _FETCHED,
    "mirrors.go": _FETCHED,
    "libvirt.uri": _impossible("the machines are on the other host", ANOTHER_LAB),
    "libvirt.emulated": _impossible("it is part of each domain, and of all its timeouts"),
    "libvirt.pool": _impossible("the machines' disks are in it"),
    "libvirt.management": _impossible("each machine has an address in it"),
    **{f"nodes.{spec.config_key}.{key}": effect for spec in ROLES.values() for key, effect in _GROUP.items()},
    BALANCERS: _impossible("it changes the API's address, which certificates, kubeconfigs and nodes have"),
    ETCD_COUNT: _OTHER_TOPOLOGY,
}
"""Every key of lab.yaml. A test fails when a key is missing here."""


def version_effect(before: str, after: str) -> Effect:
    """The effect of another Kubernetes version: kubeadm upgrades one minor at a time, and never downgrades.

    kubernetes.io, "Upgrading kubeadm clusters" and "Version Skew Policy".
    """
    was, becomes = _numbers(before), _numbers(after)
    if becomes < was:
        return _impossible(
            "Kubernetes can't be downgraded: its new version may have stored what the earlier one can't read",
            f"change it back to {before}; the way back is a checkpoint from before (`./inv checkpoints`)",
        )
    if becomes[:2] > (was[0], was[1] + 1):
        return _impossible(
            "kubeadm upgrades one minor version at a time",
            f"set it to a version of {was[0]}.{was[1] + 1} first, then `./inv up`, and go on from there",
        )
    return _UPGRADED


def etcd_count_effect(before: str, after: str) -> Effect:
    """The effect of another number of machines for etcd alone."""
    return _OTHER_TOPOLOGY if "0" in (before, after) else _OTHER_MEMBERS


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


@dataclass(frozen=True)
class Setting:
    """One changed key of lab.yaml: the value as created, and as wanted.

    `under_way` is the Kubernetes version that an upgrade under way leads to.
    """

    key: str
    before: str
    after: str
    under_way: str = ""

    @property
    def effect(self) -> Effect:
        """The effect on the machines."""
        if self.under_way and self.after != self.under_way:
            return _impossible(
                f"an upgrade to {self.under_way} is under way, and some machines have that version already",
                f"set it to {self.under_way}, then `./inv up` completes the upgrade",
            )
        if self.key == VERSION:
            return version_effect(self.before, self.after)
        if self.key == ETCD_COUNT:
            return etcd_count_effect(self.before, self.after)
        return EFFECTS[self.key]


@dataclass(frozen=True)
class Change:
    """Everything that differs. `resized` are machines that stay, `settings` every key that differs."""

    added: tuple[Node, ...] = ()
    removed: tuple[Node, ...] = ()
    resized: tuple[Node, ...] = ()
    settings: tuple[Setting, ...] = ()

    @property
    def impossible(self) -> tuple[Setting, ...]:
        """The changes for which there is no plan."""
        return self._of("impossible")

    @property
    def upgraded(self) -> Setting | None:
        """The change of the Kubernetes version, if there is one that `up` makes."""
        return next(iter(self._of("upgraded")), None)

    @property
    def reconfigured(self) -> tuple[Setting, ...]:
        """Configuration that `up` applies to machines that stay as they are."""
        return self._of("load-balancer", "pod-network", "network-policy", "addons")

    @property
    def untouched(self) -> tuple[Setting, ...]:
        """Changes that affect no machine, including sizes if the provider does not enforce them."""
        return self._of("none") if self.resized else self._of("none", "resized")

    def _of(self, *kinds: str) -> tuple[Setting, ...]:
        return tuple(setting for setting in self.settings if setting.effect.kind in kinds)


def change(
    made: Lab,
    wanted: Lab,
    *,
    sizes_enforced: bool,
    manifests: tuple[str, str] = ("", ""),
    upgrading: str = "",
) -> Change:
    """What has to change in `made` to get `wanted`.

    `sizes_enforced`: the provider gives machines exactly the CPUs and the memory in lab.yaml; otherwise another
    size changes nothing. `manifests` are the SHA-256 of the pod network's manifest as last applied and of the
    present file, each "" if unknown or if there is no file. `upgrading` is the Kubernetes version that an
    upgrade under way leads to, "" if none is.
    """
    before, after = settings(made), settings(wanted)
    if before[POD_NETWORK] == after[POD_NETWORK] and all(manifests) and manifests[0] != manifests[1]:
        for values, sha256 in ((before, manifests[0]), (after, manifests[1])):
            values[POD_NETWORK] += f" (sha256 {sha256[:12]}…)"
    # Another number of load balancers says so itself: the virtual address only follows from it.
    implied = {VIRTUAL_ADDRESS} if before[BALANCERS] != after[BALANCERS] else set()
    differing = tuple(
        Setting(key, before[key], after[key], upgrading if key == VERSION else "")
        for key in EFFECTS
        if key not in implied
        and (_differs(key, before.get(key), after.get(key)) or (key == VERSION and upgrading))
    )
    stay = [(made.node(node.name), node) for node in wanted.nodes]
    return Change(
        added=tuple(node for was, node in stay if was is None),
        removed=tuple(node for node in made.nodes if wanted.node(node.name) is None),
        resized=tuple(
            node
            for was, node in stay
            if sizes_enforced and was and (was.cpus, was.memory_mib) != (node.cpus, node.memory_mib)
        ),
        settings=differing,
    )


def _differs(key: str, before: str | None, after: str | None) -> bool:
    # A key that one of the labs does not have can't differ: of a group without machines, or of another
    # provider.
    if None in (before, after):
        return False
    return before != after


def settings(lab: Lab) -> dict[str, str]:
    """A lab as lab.yaml's keys and values, as far as its machines show them.

    A machine's name is its group's prefix and a one-digit number (`lab.config`), so each machine shows the
    prefix and the first address, even if the first machine is missing. How many load balancers a lab has is
    shown by its virtual address, even if one of two is missing.
    """
    found = dict(_flat("", lab.model_dump(mode="json", exclude={"nodes", "libvirt"})))
    if lab.libvirt is not None:
        found |= dict(_flat("libvirt.", lab.libvirt.model_dump(mode="json")))
    for role, spec in ROLES.items():
        nodes = lab.by_role(role)
        group = f"nodes.{spec.config_key}"
        found[f"{group}.count"] = str(len(nodes))
        if nodes:
            found[f"{group}.prefix"] = _each(node.name[:-1] for node in nodes)
            found[f"{group}.first_address"] = _each(node.address - (int(node.name[-1]) - 1) for node in nodes)
            found[f"{group}.memory_mib"] = _each(node.memory_mib for node in nodes)
            if not lab.emulated:  # emulated machines have one CPU each, whatever lab.yaml says
                found[f"{group}.cpus"] = _each(node.cpus for node in nodes)
    found[BALANCERS] = "2" if lab.network.virtual_address else "1"
    return found


def _each(values: Iterable[object]) -> str:
    """The common value of a group's machines; all values during a change."""
    return ", ".join(dict.fromkeys(map(str, values)))


def _flat(prefix: str, data: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in EFFECTS:
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in sorted(value.items())) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value in ("", None) else str(value)
