"""Checks addresses: are the networks of lab.yaml free on this host?

If another route covers a lab address, its traffic would leave this host, so that is never just a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from lab.host import DockerNetwork, Route, Unknown
from lab.host.docker import network_name
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Finding, fit, note, unfit
from lab.model import Lab, is_private
from lab.model.roles import ROLES

VIRTUALBOX_NAT = IPv4Network("10.0.2.0/24")

# VirtualBox allows host-only networks only in the first, so that is tried first.
SUBNETS = (IPv4Network("192.168.56.0/21"), IPv4Network("192.168.0.0/16"))
CLUSTER_NETWORKS = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"))

DOCKER_BRIDGE = re.compile(r"docker0|br-[0-9a-f]{12}")

_WHY = {
    "subnet": "Traffic for the lab's machines would go elsewhere, and {provider} may refuse the network.",
    "pods": "Pods and this host's hosts at these addresses could not reach each other.",
    "services": "Services would hide hosts that have these addresses in this host's networks.",
}


def networks(case: Case, called: str, *, has_nat: bool = False) -> Iterator[Finding]:
    """Does any of the lab's three networks overlap another one, or one that this host uses?

    `called` is the provider's name in a sentence; `has_nat`: its machines have an address in VIRTUALBOX_NAT.
    """
    lab = case.lab.network
    wanted = {"subnet": lab.subnet, "pods": lab.pods, "services": lab.services}
    yield from _unasked(case)
    taken = dict(used(case))
    for key, network in wanted.items():
        others = {f"network.{name}": other for name, other in wanted.items() if name != key}
        clashes = [who for who, other in (others | taken).items() if other.overlaps(network)]
        if key == "subnet":
            clashes += [who for who in _foreign_ways(case) if who not in clashes]
        if not clashes:
            what = f"{network} overlaps no known network"
            if is_private(network):
                yield fit(f"network-{key}", f"Network of {key}", what)
            else:
                why = "lab.yaml allows public addresses. Their owners can't be reached while the lab is up."
                yield note(f"network-{key}", f"Network of {key}", f"{what}, and is not private", why)
            continue
        repair = _advice(case.lab, key, [*taken.values(), *others.values()])
        what = f"{network} overlaps {', '.join(clashes)}"
        why = _WHY[key].format(provider=called)
        yield unfit(f"network-{key}", f"Network of {key}", what, why, repair)
    yield from _virtualbox(case, wanted, has_nat=has_nat)


def free_network(within: Iterable[IPv4Network], prefix: int, taken: Iterable[IPv4Network]) -> str:
    """Return the first network of that size that overlaps none of `taken`; "" if there is none."""
    used = list(taken)
    candidates = chain.from_iterable(each.subnets(new_prefix=prefix) for each in within)
    return next((str(each) for each in candidates if not any(each.overlaps(other) for other in used)), "")


def own_network(case: Case) -> DockerNetwork | None:
    """The lab's own network: it has the name that Vagrant gives it, and only our containers are on it."""
    found = case.host.docker_networks
    for network in () if isinstance(found, Unknown) else found:
        attached = [each for each in case.containers if network.name in each.networks]
        if network.name == network_name(case.lab) and all(map(case.is_ours, attached)):
            return network
    return None


def own_device(case: Case) -> str | None:
    """The device of the lab's own network on this host, if the kernel routes to the lab through one."""
    way, own = case.host.way, own_network(case)
    if isinstance(way, Unknown) or not way.device or way.gateway:
        return None
    known = case.host.provider.owns_device(case.lab, case.host, way.device) if case.host.provider else None
    return way.device if known or (own and own.device == way.device) else None


def _is_way_to_remote(case: Case, route: Route) -> bool:
    """Whether a route leads to machines on another host, as intended."""
    return bool(case.lab.remote_host and route.gateway) and route.network == case.lab.network.subnet


def used(case: Case) -> Iterator[tuple[str, IPv4Network]]:
    """The networks that this host uses, each with a description; without the lab's own."""
    own, host = own_network(case), case.host
    own_networks = host.provider.own_networks(case.lab) if host.provider else {}
    docker_networks = () if isinstance(host.docker_networks, Unknown) else host.docker_networks
    for each in docker_networks:
        if each != own:
            yield from ((f"docker's network {each.name} ({subnet})", subnet) for subnet in each.subnets)
    if not isinstance(host.libvirt_networks, Unknown):
        for name, subnet in host.libvirt_networks.items():
            if own_networks.get(name) == subnet:
                continue
            yield f"libvirt's network {name} ({subnet})", subnet
    bridges = {each.device for each in docker_networks}  # listed above, by name
    for route in () if isinstance(host.routes, Unknown) else host.routes:
        known = _is_default(route) or route.device in bridges or _may_be_own(case, route.device)
        if not (known or _is_way_to_remote(case, route)):
            yield f"the route {route}", route.network


def _foreign_ways(case: Case) -> list[str]:
    """The kernel's route to the lab, unless that is our bridge or a default route."""
    way, own = case.host.way, own_network(case)
    if isinstance(way, Unknown) or not way.device or isinstance(case.host.routes, Unknown):
        return []
    defaults = {(route.device, route.gateway) for route in case.host.routes if _is_default(route)}
    if case.lab.remote_host:
        return []  # the lab is on another host; a separate check covers the route to it
    is_own = (own and way.device == own.device) or _may_be_own(case, way.device)
    if is_own or (way.device, way.gateway) in defaults:
        return []
    if any(case.lab.route_target in network for network in dict(used(case)).values()):
        return []  # reported already, with the route's or the network's name
    return [f"the route to {case.lab.route_target} via {way.gateway or way.device}"]


def _may_be_own(case: Case, device: str) -> bool:
    """Whether a device is the lab's, or may be: a docker bridge while docker can't be asked.

    Bridges outlive a stopped daemon, and a lab must not keep its own daemon from being started.
    """
    known = case.host.provider.owns_device(case.lab, case.host, device) if case.host.provider else None
    if known is not None:
        return known
    return isinstance(case.host.docker_networks, Unknown) and bool(DOCKER_BRIDGE.fullmatch(device))


def _is_default(route: Route) -> bool:
    """Whether it is a default route; VPNs split that into two halves."""
    return route.network.prefixlen <= 1


def _unasked(case: Case) -> Iterator[Finding]:
    host = case.host
    why = "An overlap would go unnoticed."
    for title, found in (
        ("Routes", host.routes),
        ("docker's networks", host.docker_networks),
        ("Route to the lab", host.way),
        ("libvirt", host.libvirt_networks),
    ):
        if isinstance(found, Unknown):
            yield note("addresses", title, f"could not be asked: {found.reason}", why)


def _advice(lab: Lab, key: str, taken: list[IPv4Network]) -> str:
    """The lines for lab.yaml that fix it."""
    if key != "subnet":
        free = free_network(CLUSTER_NETWORKS, 16, [*taken, VIRTUALBOX_NAT])
        return f"# in lab.yaml:\nnetwork: {{{key}: {free}}}" if free else "# choose a free one in lab.yaml"
    free = free_network(SUBNETS, 24, [*taken, lab.network.subnet])
    if not free:
        return "# choose a free network.subnet in lab.yaml"
    lines = ["# in lab.yaml:", f"network: {{subnet: {free}}}", "nodes:"]
    for role, spec in ROLES.items():
        nodes = lab.by_role(role)
        if nodes:
            last = int(nodes[0].address) - int(lab.network.subnet.network_address)
            offset = last if last + len(nodes) < 255 else spec.first_offset
            address = IPv4Network(free).network_address + offset
            lines.append(f"  {spec.config_key}: {{first_address: {IPv4Address(address)}}}")
    return "\n".join(lines)


def _virtualbox(case: Case, wanted: dict[str, IPv4Network], *, has_nat: bool) -> Iterator[Finding]:
    for key, network in wanted.items():
        if not network.overlaps(VIRTUALBOX_NAT):
            continue
        what = f"network.{key} {network} overlaps VirtualBox's NAT network {VIRTUALBOX_NAT}"
        why = "Every VirtualBox machine has an address in that network, and would confuse the two."
        repair = _advice(case.lab, key, [*dict(used(case)).values(), *wanted.values()])
        if has_nat:
            yield unfit("network-virtualbox", "VirtualBox", what, why, repair)
        else:
            yield note("network-virtualbox", "VirtualBox", what, f"{why} {case.lab.provider} has none.")
