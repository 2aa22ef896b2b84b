"""Turns lab.yaml into a `Lab`, or reports all of its problems, line by line.

`lab.config.shape` and pydantic check each key by itself; this module then checks keys against one another.
Checks that depend on an invalid key are skipped, so that one mistake causes one problem. A number of machines
that is not allowed is a number all the same: if their addresses would clash, that is another mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.config import manifest, yamlfile
from lab.config.shape import FORMER, File, Group, guess, shown
from lab.config.yamlfile import Key
from lab.errors import ConfigError
from lab.model import (
    EMULATED_CPUS,
    PRIVATE,
    Kubernetes,
    Lab,
    Libvirt,
    LoadBalancer,
    Mirrors,
    Network,
    Node,
    Provider,
    is_private,
)
from lab.model.roles import ROLES, Role

NEAR = 256
"""How far from a subnet's own address a machine's may be for the subnet to be only too small."""

VIRTUAL_OFFSET = 5
"""The address that two load balancers share if lab.yaml names none, counted from the subnet's own.

Theirs follow it then: the control planes' begin at the one after that of a single load balancer.
"""

HINT = "correct it and try again: the kit's own lab.yaml explains every key, examples/ has lab files that work"

SUBNET, PODS, SERVICES = ("network", "subnet"), ("network", "pods"), ("network", "services")
VIRTUAL_ADDRESS = ("network", "virtual_address")
POD_NETWORK = ("network", "pod_network")
POLICY = ("network", "policy")
PUBLIC_ADDRESSES = ("network", "public_addresses")
MANAGEMENT = ("libvirt", "management")


class Choice(NamedTuple):
    """What a lab file may leave to the host: the provider, and whether CPUs are emulated."""

    provider: Provider
    emulated: bool


def as_written(file: File) -> Choice:
    """The choice without asking the host: what the file says, else docker, without emulation."""
    return Choice("docker" if file.provider == "auto" else file.provider, file.libvirt.emulated == "true")


def load(path: Path, settle: Callable[[File], Choice] = as_written) -> Lab:
    """Read a lab file; one that is missing or empty is the seven-machine default.

    `settle` resolves the file's `auto`. Raises ConfigError with every problem, in the order of the file's
    lines.
    """
    name = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    document = yamlfile.read(path, name, hint=HINT)
    file, broken, given = _judge_alone(document.data, folder=path.parent)
    problems = document.problems + [document.problem([key], what) for key, what in broken.items()]
    for role in Role:
        count = given.get(_key(role, "count"))
        if isinstance(count, str) and re.fullmatch("[1-9]", count):
            file = _with_count(file, role, int(count))
            del broken[_key(role, "count")]
    lab = _lab(file, settle(file))
    problems += [
        document.problem(keys, what)
        for keys, what in _clashes(lab, _management(file, lab))
        if not any(key[: len(bad)] == bad for key in keys for bad in broken)
    ]
    if problems:
        problems.sort(key=lambda problem: problem.line)
        sentences = [f"{name}:{line}: {_dotted(key)}: {what}" for line, key, what in problems]
        raise ConfigError(sentences, hint=HINT)
    return lab


def lines(path: Path) -> dict[str, int]:
    """The line of each key in a lab file: `nodes.workers.count` → 12."""
    return {_dotted(key): line for key, line in yamlfile.read(path, path.name, hint=HINT).lines.items()}


def default() -> Lab:
    """The seven-machine lab of an empty file."""
    return _lab(File(), as_written(File()))


def _dotted(key: Key) -> str:
    return ".".join(map(shown, key))


def _judge_alone(data: dict[str, Any], folder: Path) -> tuple[File, dict[Key, str], dict[Key, object]]:
    """The file without its invalid keys, the problems of those, and what they had."""
    context = {"folder": folder}
    try:
        return File.model_validate(data, context=context), {}, {}
    except ValidationError as error:
        broken = {_place(one): _sentence(one) for one in error.errors(include_url=False)}
    given = {key: reduce(getitem, key[:-1], data).pop(key[-1]) for key in broken}
    return File.model_validate(data, context=context), broken, given


def _with_count(file: File, role: Role, count: int) -> File:
    """The file with another number of machines of a role, which need not be allowed."""
    name = ROLES[role].config_key
    group = getattr(file.nodes, name).model_copy(update={"count": count})
    return file.model_copy(update={"nodes": file.nodes.model_copy(update={name: group})})


def _place(error: ErrorDetails) -> Key:
    """The key of an error; pydantic appends a marker if the error is about a mapping's key itself."""
    place = tuple(map(str, error["loc"]))
    return place[:-1] if place[-1] == "[key]" else place


def _sentence(error: ErrorDetails) -> str:
    """Rephrase pydantic's error; those about values already come from `lab.config.shape`."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "dict_type":
        names = (
            "hosts, such as dl.k8s.io" if error["loc"][-1] == "files" else "registries, such as registry.k8s.io"
        )
        return f"needs keys below it, not {shown(error['input'])} ({names})"
    section: Any = File
    for key in error["loc"][:-1]:
        section = section.model_fields[key].annotation
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        return FORMER.get(name) or f"unknown key{guess(name, list(section.model_fields))}"
    if error["type"] == "model_type":
        inside = ", ".join(section.model_fields[error["loc"][-1]].annotation.model_fields)
        return f"needs keys below it, not {shown(error['input'])} ({inside})"
    return error["msg"]


def _lab(file: File, choice: Choice) -> Lab:
    """The model of a file with valid keys; addresses may still conflict."""
    subnet = file.network.subnet.network_address
    nodes = []
    for role, spec in ROLES.items():
        group: Group = getattr(file.nodes, spec.config_key)
        offset = VIRTUAL_OFFSET + 1 if spec.balances and group.count > 1 else spec.first_offset
        first = group.first_address or subnet + offset
        nodes += [
            Node(
                name=f"{group.prefix}{index + 1}",
                role=role,
                address=first + index,
                cpus=EMULATED_CPUS if choice.emulated else group.cpus,
                memory_mib=group.memory_mib,
            )
            for index in range(group.count)
        ]
    return Lab(
        name=file.name,
        provider=choice.provider,
        kubernetes=Kubernetes(**dict(file.kubernetes)),
        network=Network(**dict(file.network) | {"virtual_address": _virtual_address(file)}),
        load_balancer=LoadBalancer(**dict(file.load_balancer)),
        addons=file.addons,
        mirrors=Mirrors(**dict(file.mirrors)),
        libvirt=Libvirt(**dict(file.libvirt) | {"emulated": choice.emulated})
        if choice.provider == "libvirt"
        else None,
        nodes=tuple(nodes),
    )


def _virtual_address(file: File) -> IPv4Address | None:
    """The address that two load balancers share. With one the file's is kept, for `_wrong_virtual_address`."""
    if file.network.virtual_address or file.nodes.load_balancers.count == 1:
        return file.network.virtual_address
    return file.network.subnet.network_address + VIRTUAL_OFFSET


# Checks of several keys. A clash has the keys that it depends on, the likeliest to be corrected first, and a
# sentence.

Clash = tuple[Sequence[Key], str]


def _management(file: File, lab: Lab) -> IPv4Network | None:
    """The management network, if libvirt creates the machines or the file configures it."""
    return file.libvirt.management if lab.libvirt or file.libvirt.model_fields_set & {"management"} else None


def _clashes(lab: Lab, management: IPv4Network | None) -> Iterator[Clash]:
    networks = {SUBNET: lab.network.subnet, PODS: lab.network.pods, SERVICES: lab.network.services}
    if management:
        networks[MANAGEMENT] = management
        yield from _wrong_management(management, machines=len(lab.nodes))
    if not lab.network.public_addresses:
        yield from _public(networks)
    for (one, its), (other, others) in combinations(networks.items(), 2):
        if its.overlaps(others):
            yield (
                (other, one),
                f"{_dotted(one)} {its} and {_dotted(other)} {others} overlap, which they must not",
            )
    yield from _wrong_sizes(lab)
    yield from _wrong_virtual_address(lab)
    if lab.network.pod_network != "flannel":
        yield from _wrong_manifest(Path(lab.network.pod_network), lab.network)
    for one_role, other_role in combinations(Role, 2):
        yield from _twins(lab, one_role, other_role)


def _wrong_manifest(path: Path, network: Network) -> Iterator[Clash]:
    text = path.read_text(encoding="utf-8")
    faults = manifest.faults(text, network.pods)
    for fault in faults:
        keys = (POD_NETWORK, PODS) if fault.pods else (POD_NETWORK,)
        yield keys, f"{shown(path.name)}:{fault.line}: {fault.what}"
    twin = manifest.line_of_kube_router(text) if network.policy == "kube-router" and not faults else None
    if twin:
        what = f"{shown(path.name)}:{twin} has kube-router, which the kit would run a second time"
        yield (POLICY, POD_NETWORK), f"{what} ({_dotted(POLICY)}: none)"


def _public(networks: Mapping[tuple[str, str], IPv4Network]) -> Iterator[Clash]:
    """Public networks: the lab, and with `subnet` this host, could not reach their owners."""
    allowed = f"{', '.join(map(str, PRIVATE))}; or set {_dotted(PUBLIC_ADDRESSES)}: true"
    for key, network in networks.items():
        if not is_private(network):
            what = f"{network} is not private: its addresses belong to others, which the lab could not reach"
            yield (key, PUBLIC_ADDRESSES), f"{what} ({allowed})"


def _wrong_management(management: IPv4Network, machines: int) -> Iterator[Clash]:
    smallest = _smallest(machines)
    if not 16 <= management.prefixlen <= smallest:  # libvirt refuses DHCP for larger ones
        rule = f"/16 to /{smallest}: libvirt gives each of {machines} machines an address in it"
        yield (MANAGEMENT, *_counts()), f"{management} has the wrong size ({rule})"


def _smallest(machines: int) -> int:
    """The prefix length of the smallest network for them, the network address, the host and broadcast."""
    return 32 - (machines + 2).bit_length()


def _counts() -> list[Key]:
    return [_key(role, "count") for role in Role]


def _wrong_sizes(lab: Lab) -> Iterator[Clash]:
    subnet, pods, services = lab.network.subnet, lab.network.pods, lab.network.services
    counts = _counts()
    machines, nodes = len(lab.nodes), len(lab.kubernetes_nodes)
    taken = machines + bool(lab.pair)
    if subnet.prefixlen > _smallest(taken):
        what = f"{machines} machines{' and a virtual address' if lab.pair else ''}"
        # Addresses have gaps, and the highest one has to fit, too, unless it is far away.
        places = [int(node.address) - int(subnet.network_address) for node in lab.nodes]
        fits = _smallest(max(taken, *(place - 1 for place in places if place < NEAR)))
        yield (SUBNET, *counts), f"{subnet} is too small for {what} (/{fits} or larger)"
    else:
        for role in Role:
            yield from _wrong_place(lab, role)
    smallest = 24 - (nodes - 1).bit_length()
    if not 8 <= pods.prefixlen <= smallest:  # the controller manager can assign at most 16 bits
        rule = f"/8 to /{smallest}: each of {nodes} Kubernetes nodes gets a /24 of it"
        yield (PODS, *counts), f"{pods} has the wrong size ({rule})"
    if not 12 <= services.prefixlen <= 24:
        yield (SERVICES,), f"{services} has the wrong size (/12 to /24: kubeadm allows 20 bits at most)"


def _wrong_place(lab: Lab, role: Role) -> Iterator[Clash]:
    """The first machine of a group with an invalid address; the others would repeat the problem."""
    for node in lab.by_role(role):
        problem = _place_problem(lab.network, node.address)
        if problem:
            keys = (_key(role, "first_address"), _key(role, "count"), SUBNET)
            yield keys, f"{node.name} would have {node.address}, {problem}"
            return


def _wrong_virtual_address(lab: Lab) -> Iterator[Clash]:
    """A virtual address that nothing moves, that is not one of the subnet's, or that a machine has."""
    address = lab.network.virtual_address
    if address is None:
        return
    for role in Role:
        if ROLES[role].balances and len(lab.by_role(role)) == 1:
            what = f"{address} has no second load balancer to move to"
            yield (VIRTUAL_ADDRESS, _key(role, "count")), f"{what} ({_dotted(_key(role, 'count'))}: 2)"
        taken = next((node for node in lab.by_role(role) if node.address == address), None)
        if taken:
            keys = (VIRTUAL_ADDRESS, _key(role, "first_address"), _key(role, "count"), SUBNET)
            yield keys, f"{address} is the address of {taken.name}, and would be the virtual address, too"
    problem = _place_problem(lab.network, address)
    if problem:
        yield (VIRTUAL_ADDRESS, SUBNET), f"{address} can't be the virtual address: it is {problem}"


def _place_problem(network: Network, address: IPv4Address) -> str | None:
    """Why nothing in a lab can have that address, with those that are possible; None if it can."""
    subnet = network.subnet
    first, last = network.gateway + 1, subnet.broadcast_address - 1
    if first <= address <= last:
        return None
    taken = {
        subnet.network_address: "the subnet's own address",
        network.gateway: "the host's own on that network",
        subnet.broadcast_address: "the subnet's broadcast address",
    }
    return f"{taken.get(address, f'outside {_dotted(SUBNET)}, {subnet}')} ({first} to {last})"


def _twins(lab: Lab, one: Role, other: Role) -> Iterator[Clash]:
    """The first name and the first address that two groups share; within a group there are no duplicates."""
    for what, key in (("name", "prefix"), ("address", "first_address")):
        names = {getattr(node, what) for node in lab.by_role(one)}
        shared = next((node for node in lab.by_role(other) if getattr(node, what) in names), None)
        if shared:
            # Of two load balancers the second is the new one, beside an address that fitted one.
            first, second = (one, other) if what == "address" and _is_pair(lab, one) else (other, one)
            hangs_on = [_key(role, part) for part in (key, "count") for role in (first, second)]
            groups = f"{_dotted(_key(one))} and {_dotted(_key(other))}"
            said = f"{groups} would both have the {what} {getattr(shared, what)}"
            if first == one:
                default = lab.network.subnet.network_address + VIRTUAL_OFFSET + 1
                said += f" (without {_dotted(_key(one, key))} they are at {default} and {default + 1})"
            yield [*hangs_on, SUBNET], said


def _is_pair(lab: Lab, role: Role) -> bool:
    return ROLES[role].balances and len(lab.by_role(role)) > 1


def _key(role: Role, *rest: str) -> Key:
    return ("nodes", ROLES[role].config_key, *rest)
