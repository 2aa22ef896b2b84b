"""The shape of lab.yaml: its keys, and for each the rule that its value must keep.

A rule takes what the file has (text, a list, a mapping) and gives what the model wants, or says what is
wrong and, in brackets, what is allowed. Rules that need several keys are in `lab.config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidationInfo

from lab.model import Frozen, Kubernetes, Libvirt, LoadBalancer, Mirrors, Network, Provider
from lab.model.addons import ADDONS

Ip = TypeVar("Ip", IPv4Address, IPv4Network)

# This network, loopback, link-local, and everything from multicast up.
NOT_FOR_MACHINES = [IPv4Network(n) for n in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")]
MANIFEST_LIMIT = 8 * 2**20  # bytes; Calico's, with all its definitions, has half a MiB
PORTS = {*range(1, 65536)} - {22, 8404}  # those two are taken on the load balancer


def shown(value: object) -> str:
    """A value from the file, formatted for a message: short, on one line, without hidden characters."""
    if not isinstance(value, str):
        return "a list" if isinstance(value, list) else "a mapping"
    return value if re.fullmatch(r"[\w.:/+-]{1,60}", value, re.ASCII) else repr(value[:60])


def guess(value: object, known: Sequence[str]) -> str:
    """The closest known value as a suggestion, and all known values."""
    near = get_close_matches(value, known, n=1) if isinstance(value, str) else []
    return (f", did you mean {near[0]}?" if near else "") + f" ({', '.join(known)})"


def choice(*allowed: str, later: Sequence[str] = ()) -> BeforeValidator:
    """One of a few words; `later` ones are known, and refused as not there yet."""

    def check(value: object) -> str:
        if value in later:
            raise ValueError(f"{value} is not supported yet by this version ({', '.join(allowed)})")
        if value not in allowed:
            raise ValueError(f"{shown(value)} is not known here{guess(value, allowed)}")
        return str(value)

    return BeforeValidator(check)


def number(allowed: Container[int], rule: str) -> BeforeValidator:
    """A whole number."""
    return BeforeValidator(lambda value: whole(value, allowed, rule))


def yes_or_no(value: object) -> bool:
    """A word that is true or false; YAML 1.1's others (yes, on) mean different things to different readers."""
    if value not in ("true", "false"):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value == "true"


def whole(value: object, allowed: Container[int], rule: str) -> int:
    """Read a whole number. Leading zeros are refused: 010 is eight to YAML 1.1 and ten to everyone else."""
    if not isinstance(value, str) or not re.fullmatch(r"-?(0|[1-9][0-9]{0,30})", value):
        raise ValueError(f"{shown(value)} is not a whole number ({rule})")
    if int(value) not in allowed:
        raise ValueError(f"{value} is not possible ({rule})")
    return int(value)


def at_least(least: int, why: str = "") -> BeforeValidator:
    """A whole number with no upper end that a file could know; the doctor compares with the host."""
    return number(range(least, 10**9), f"{least} {why}, or more" if why else f"{least} or more")


def label(pattern: str, longest: int) -> BeforeValidator:
    """A name, or the beginning of one, that is valid in a host name."""
    rule = f"lowercase letters, digits and '-'; a letter first; at most {longest}"

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or len(value) > longest:
            raise ValueError(f"{shown(value)} can't be used in a host name ({rule})")
        return value

    return BeforeValidator(check)


def pinned_version(value: object) -> str:
    """A Kubernetes version that the kit has pins for."""
    from lab.golden.supply.releases import supported  # here, so that a lab.yaml without a version asks nothing

    if value not in supported():
        raise ValueError(f"{shown(value)} is not a supported version{guess(value, supported())}")
    return str(value)


def address(value: object) -> IPv4Address | None:
    """One machine's address; empty for the default."""
    if value == "":
        return None
    return _ipv4(value, IPv4Address, "an IPv4 address such as 192.168.56.10")


def network(value: object) -> IPv4Network:
    """A network, written with its own address and its prefix length."""
    rule = "an IPv4 network such as 192.168.56.0/24"
    if isinstance(value, str) and not re.search(r"/[0-9]{1,3}$", value):
        raise ValueError(f"{shown(value)} has no prefix length ({rule})")
    found = _ipv4(value, lambda text: IPv4Network(text, strict=False), rule)
    if str(found) != value:
        raise ValueError(f"{shown(value)} has host bits set ({found} is the network around it)")
    return found


def _ipv4(value: object, make: Callable[[str], Ip], rule: str) -> Ip:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not {rule}")
    if value.count(":") > 1:
        raise ValueError(f"{shown(value)} looks like IPv6, which is not supported ({rule})")
    try:
        found = make(value)
    except ValueError as error:
        raise ValueError(f"{shown(value)} is not {rule}") from error
    if any(IPv4Network(str(found)).overlaps(special) for special in NOT_FOR_MACHINES):
        raise ValueError(f"{shown(value)} is, or holds, what no machine can have ({rule})")
    return found


def flannel_or_manifest(value: object, info: ValidationInfo) -> str:
    """`flannel`, or the absolute path of a manifest, every character of it as it was given.

    A relative path starts at `folder` of the validation's context: where the lab file lies.
    """
    if value == "flannel":
        return "flannel"
    rule = "flannel, or the path of a manifest, relative to this file"
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is neither ({rule})")
    folder = cast(dict[str, Path], info.context)["folder"]
    manifest = (folder / value).absolute()
    try:
        if not manifest.is_file():
            raise ValueError(f"{shown(value)} is not a file ({rule})")
        with manifest.open("rb") as file:
            content = file.read(MANIFEST_LIMIT + 1)
        if len(content) > MANIFEST_LIMIT:
            raise ValueError(
                f"{shown(value)} is larger than {MANIFEST_LIMIT >> 20} MiB, too large for a manifest ({rule})"
            )
        content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(value)} is not a text in UTF-8 ({rule})") from error
    except OSError as error:
        raise ValueError(f"{shown(value)} can't be read: {error.strerror} ({rule})") from error
    return str(manifest)


def known_addons(value: object) -> tuple[str, ...]:
    """A list of add-ons, each once; given back in the order of ADDONS, so that no order is a change."""
    rule = f"a list, such as [{', '.join(ADDONS)}]"
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a list ({rule})")
    for each in value:
        if not isinstance(each, str) or each not in ADDONS:
            raise ValueError(f"{shown(each)} is not an add-on that is known here{guess(each, tuple(ADDONS))}")
        if value.count(each) > 1:
            raise ValueError(f"{each} is there {value.count(each)} times (once is enough)")
    return tuple(name for name in ADDONS if name in value)


def libvirt_uri(value: object) -> str:
    """Where libvirt is: this host's system instance, or another host's over ssh."""
    rule = "qemu:///system, or qemu+ssh://USER@HOST/system"
    elsewhere = r"qemu\+ssh://([\w.-]+@)?(?P<host>[\w.-]+)(:(?P<port>[0-9]{1,5}))?/system"
    if value != "qemu:///system" and not _is_place(re.fullmatch(elsewhere, str(value), re.ASCII)):
        raise ValueError(f"{shown(value)} is not possible ({rule})")
    return str(value)


def pool_name(value: object) -> str:
    """A storage pool of libvirt's, by its name."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w][\w.-]{0,59}", value, re.ASCII):
        raise ValueError(f"{shown(value)} is no storage pool's name (letters, digits, '_', '.', '-')")
    return value


AT = r"(?P<host>[a-z0-9.-]+|\[[0-9a-f:]+\])(:(?P<port>[0-9]{1,5}))?"
URL = re.compile(rf"https?://{AT}(/[\w.:~%+@/-]*)?", re.ASCII | re.IGNORECASE)
REGISTRY = re.compile(rf"(https?://)?{AT}(/[a-z0-9._/-]*[a-z0-9])?", re.ASCII | re.IGNORECASE)


def _is_place(found: re.Match[str] | None) -> bool:
    """Whether what was read of a place has a host that can be one, and a port that can be one or none."""
    if found is None:
        return False
    host, port = found["host"], found["port"]
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
    elif not all(
        re.fullmatch(r"\w([\w-]{0,61}\w)?", part, re.ASCII) for part in host.removesuffix(".").split(".")
    ):
        return False
    return port is None or 1 <= int(port) <= 65535


def mirror_url(value: object) -> str:
    """The URL of a mirror of an upstream host: http or https, without a login, a query or a fragment."""
    return _mirror(value, "a URL such as https://mirror.example/debian")


def mirror_of_files(value: object) -> str:
    """The URL of a mirror of a host of release files; its rule is that of `mirror_url`."""
    return _mirror(value, "for each host a URL such as https://mirror.example/k8s")


def _mirror(value: object, rule: str) -> str:
    _no_login(value)
    if not isinstance(value, str) or not _is_place(URL.fullmatch(value)):
        raise ValueError(f"{shown(value)} is not a mirror's URL ({rule})")
    return value.rstrip("/")


def mirror_registry(value: object) -> str:
    """A registry, and a path in it, that mirrors another registry; http only if given."""
    rule = "HOST, HOST:PORT or HOST/PATH, with http:// before it where it has no TLS"
    _no_login(value)
    if not isinstance(value, str) or not _is_place(REGISTRY.fullmatch(value)):
        raise ValueError(f"{shown(value)} is not a registry ({rule})")
    return value.removeprefix("https://")


def host_name(value: object) -> str:
    """One of the hosts that release files come from."""
    from lab.golden.supply.parts import file_hosts

    if value not in file_hosts():
        raise ValueError(f"{shown(value)} is not a host of release files ({', '.join(file_hosts())})")
    return str(value)


def registry_name(value: object) -> str:
    """A registry as it appears at the beginning of images' names."""
    named = re.fullmatch(r"(?P<host>[a-z0-9-]+(\.[a-z0-9-]+)+)(:(?P<port>[0-9]{1,5}))?", str(value), re.ASCII)
    if not isinstance(value, str) or not _is_place(named):
        raise ValueError(f"{shown(value)} is not the name of a registry (a host, such as registry.k8s.io)")
    return value


def _no_login(value: object) -> None:
    """Refuse a password where anyone may read it; it is not repeated in the message either."""
    if isinstance(value, str) and "@" in value:  # anywhere, since a password may hold any other sign
        raise ValueError(
            "holds a login, which does not belong in this file (for files and images, put it into ~/.netrc)"
        )


FORMER = {
    "kubernetes_packages": "was removed: Kubernetes is downloaded as release files, set `mirrors.files` instead"
}
"""Keys of earlier versions, and what became of them."""

# The keys. Sections inherit from the model, so that what comes out fits into it.

Address = Annotated[IPv4Address | None, BeforeValidator(address)]
Subnet = Annotated[IPv4Network, BeforeValidator(network)]
Name = Annotated[str, label(r"[a-z]([a-z0-9-]*[a-z0-9])?", 30)]
Prefix = Annotated[str, label(r"[a-z][a-z0-9-]*", 20)]


class KubernetesSection(Kubernetes):
    """Which Kubernetes, and from where."""

    version: Annotated[str, BeforeValidator(pinned_version)] = Kubernetes().version
    source: Annotated[Literal["auto", "modules", "upstream"], choice("auto", "modules", "upstream")] = "auto"


class NetworkSection(Network):
    """The networks."""

    subnet: Subnet = Network().subnet
    virtual_address: Address = None
    pods: Subnet = Network().pods
    services: Subnet = Network().services
    pod_network: Annotated[str, BeforeValidator(flannel_or_manifest)] = Network().pod_network
    policy: Annotated[Literal["kube-router", "none"], choice("kube-router", "none")] = Network().policy
    public_addresses: Annotated[bool, BeforeValidator(yes_or_no)] = False


class LoadBalancerSection(LoadBalancer):
    """How HAProxy is set."""

    profile: Annotated[Literal["tuned", "reference"], choice("tuned", "reference")] = "tuned"
    health_path: Annotated[str, choice("/healthz", "/livez", "/readyz")] = "/readyz"
    port: Annotated[int, number(PORTS, "1 to 65535, not 22 (sshd), not 8404 (statistics)")] = 6443


class MirrorsSection(Mirrors):
    """Other hosts for what is fetched."""

    debian: Annotated[str, BeforeValidator(mirror_url)] = ""
    debian_security: Annotated[str, BeforeValidator(mirror_url)] = ""
    files: dict[
        Annotated[str, BeforeValidator(host_name)], Annotated[str, BeforeValidator(mirror_of_files)]
    ] = Field(default_factory=dict)
    images: dict[
        Annotated[str, BeforeValidator(registry_name)], Annotated[str, BeforeValidator(mirror_registry)]
    ] = Field(default_factory=dict)
    go: Annotated[str, BeforeValidator(mirror_url)] = ""


class LibvirtSection(Frozen):
    """How libvirt is reached, and its pool and network; for that provider only."""

    uri: Annotated[str, BeforeValidator(libvirt_uri)] = Libvirt().uri
    emulated: Annotated[Literal["auto", "true", "false"], choice("auto", "true", "false")] = "auto"
    pool: Annotated[str, BeforeValidator(pool_name)] = Libvirt().pool
    management: Subnet = Libvirt().management


class Group(Frozen):
    """The machines of one role: alike, their addresses in a row."""

    prefix: Prefix
    count: int
    first_address: Address = None
    cpus: int
    memory_mib: int


class LoadBalancers(Group):
    """The load balancers."""

    prefix: Prefix = "lb"
    count: Annotated[int, number([1, 2], "1 or 2: two share the API's address")] = 1
    cpus: Annotated[int, at_least(1)] = 1
    memory_mib: Annotated[int, at_least(128, "MiB")] = 512


class EtcdMachines(Group):
    """The machines that run etcd and nothing else; without any, the control planes run it."""

    prefix: Prefix = "etcd"
    count: Annotated[
        int, number([0, 1, 3, 5], "0, 1, 3 or 5: with 0 control planes run etcd, which wants an odd number")
    ] = 0
    cpus: Annotated[int, at_least(1)] = 1
    memory_mib: Annotated[int, at_least(512, "MiB")] = 1024


class ControlPlanes(Group):
    """The control planes, with what kubeadm's preflight checks ask for."""

    prefix: Prefix = "cp"
    count: Annotated[int, number([1, 3, 5], "1, 3 or 5: etcd wants an odd number")] = 3
    cpus: Annotated[int, at_least(2, "as kubeadm wants")] = 2
    memory_mib: Annotated[int, at_least(1700, "MiB, as kubeadm wants")] = 2048


class Workers(Group):
    """The workers."""

    prefix: Prefix = "w"
    count: Annotated[int, number(range(10), "0 to 9")] = 3
    cpus: Annotated[int, at_least(1)] = 2
    memory_mib: Annotated[int, at_least(512, "MiB")] = 1536


class Nodes(Frozen):
    """The groups of machines."""

    load_balancers: LoadBalancers = LoadBalancers()
    etcd: EtcdMachines = EtcdMachines()
    control_planes: ControlPlanes = ControlPlanes()
    workers: Workers = Workers()


class File(Frozen):
    """The whole of lab.yaml."""

    name: Name = "ha-lab"
    provider: Annotated[Literal["auto"] | Provider, choice("auto", "docker", "libvirt", "virtualbox")] = "auto"
    kubernetes: KubernetesSection = KubernetesSection()
    network: NetworkSection = NetworkSection()
    nodes: Nodes = Nodes()
    load_balancer: LoadBalancerSection = LoadBalancerSection()
    addons: Annotated[tuple[str, ...], BeforeValidator(known_addons)] = ()
    mirrors: MirrorsSection = MirrorsSection()
    libvirt: LibvirtSection = LibvirtSection()
