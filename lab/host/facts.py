"""Facts about a host: frozen records that `gather` fills, and that tests create themselves.

A fact that could not be determined is `Unknown`, with the reason; it never counts as a yes or a no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal, Protocol

from lab.model import Lab
from lab.unknown import Unknown


@dataclass(frozen=True)
class Memory:
    """The host's memory in MiB; `available` is the kernel's estimate of what is still available."""

    total: int
    available: int
    swap: int


@dataclass(frozen=True)
class Folder:
    """A folder, or its nearest existing parent: free MiB, device number, whether it is writable."""

    path: Path
    free: int
    device: int
    writable: bool


@dataclass(frozen=True)
class FileSystem:
    """The file system of a path: mount point, type as the kernel names it, and source."""

    mounted: Path
    kind: str
    source: str


@dataclass(frozen=True)
class Configured:
    """One setting of docker's daemon: its JSON value, and where it is set, for messages."""

    value: Any
    place: str


@dataclass(frozen=True)
class Daemon:
    """docker's daemon as seen by its client; `words` is the client's message if it did not respond.

    `absent`: nothing listens. `denied`: this user has no access. `elsewhere`: `endpoint` is not a socket of
    this host, and it was not asked. `mute`: another problem. `chosen` is what selects this daemon:
    "DOCKER_HOST" or a context; "" for docker's default.

    `driver` is its storage driver and `about_driver` that driver's status, `runtime` the default runtime.
    `settings` is its configuration, by the keys of daemon.json.
    """

    state: Literal["answers", "no client", "absent", "denied", "elsewhere", "mute"]
    endpoint: str
    words: str = ""
    version: str = ""
    kernel: str = ""
    data: Path = Path("/var/lib/docker")
    security: tuple[str, ...] = ()
    driver: str = ""
    about_driver: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""
    settings: Mapping[str, Configured] | Unknown = field(default_factory=dict)
    chosen: str = ""

    @property
    def place(self) -> str:
        """Its endpoint, and what selected it, unless that is docker's default."""
        return f"{self.endpoint} ({self.chosen})" if self.chosen else self.endpoint


@dataclass(frozen=True)
class Container:
    """A container: `owner` is the lab that its label names, "" if it has none.

    `folder_exists`: that lab's folder still exists. A `paused` container runs, but does not respond.
    """

    name: str
    running: bool
    owner: str
    networks: tuple[str, ...]
    folder_exists: bool = True
    paused: bool = False

    @property
    def folder(self) -> str:
        """The `.lab/` where that lab was created; "" if there is no label."""
        return self.owner.partition("#")[0]


@dataclass(frozen=True)
class DockerNetwork:
    """A docker network: `device` is its bridge on the host, even if that is down.

    `isolates`: containers on it can't reach one another (its option enable_icc is false).
    """

    name: str
    device: str
    subnets: tuple[IPv4Network, ...]
    isolates: bool = False


System = Literal["linux", "macos", "wsl"]
"""The kind of host; wsl is a Linux on Windows, whose virtual machines run on Windows."""


@dataclass(frozen=True)
class Route:
    """One of the host's routes; `gateway` is "" for a direct link."""

    network: IPv4Network
    device: str
    gateway: str = ""

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.network}{via}{f' dev {self.device}' if self.device else ''}"


@dataclass(frozen=True)
class Way:
    """The kernel's route for a packet to the lab; `device` is "" if there is none."""

    device: str
    gateway: str = ""


@dataclass(frozen=True)
class Cgroups:
    """The version of the control groups, and the enabled controllers."""

    version: Literal[1, 2]
    controllers: frozenset[str]


@dataclass(frozen=True)
class Inotify:
    """The host's limits, each counted per user, and how many instances root has open."""

    instances: int
    watches: int
    used: int | Unknown


@dataclass(frozen=True)
class ForwardChain:
    """A chain of nftables for forwarded packets: family, table, name, default policy, and text."""

    family: str
    table: str
    name: str
    policy: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True)
class Forwarding:
    """How this host's firewall treats packets between machines.

    `bridged`: such packets pass the firewall at all. `rules` are the lines of `iptables --list-rules`; `chains`
    are those of nftables, without iptables' own. `services` are the running firewall services.
    """

    bridged: bool = False
    rules: tuple[str, ...] | Unknown = ()
    chains: tuple[ForwardChain, ...] | Unknown = ()
    services: tuple[str, ...] = ()


Presence = Literal["there", "loadable", "missing"]
"""Whether a kernel feature is usable now, is a module that can be loaded, or is missing."""


class ProviderFacts(Protocol):
    """What a provider's client reports about this host: a frozen record in that provider's folder."""

    def running(self, owner: str) -> frozenset[str]:
        """The provider's names of the running machines with that label (`lab.model.owner_label`)."""
        ...

    def own_networks(self, lab: Lab) -> Mapping[str, IPv4Network]:
        """The networks that libvirt creates for a lab, by name; empty for other providers."""
        ...

    def owns_device(self, lab: Lab, host: HostFacts, device: str) -> bool | None:
        """Whether a network device of this host belongs to the lab's networks; None if unknown."""
        ...


@dataclass(frozen=True)
class HostFacts:
    """All facts about a host. `programs` are the names of those found on PATH."""

    uid: int
    python: tuple[int, ...]
    kernel: str
    systemd: bool
    cpus: int
    memory: Memory | Unknown
    tmp: Folder | Unknown
    cache: Folder | Unknown
    workspace: Folder | Unknown
    docker_data: Folder | Unknown
    programs: frozenset[str]
    static_libc: bool
    static_libseccomp: bool
    trixie_key: bool
    authorities: bool
    """Whether the CA bundle that Go programs use exists."""
    korean_font: bool
    vagrant: tuple[int, ...] | Unknown
    daemon: Daemon
    containers: tuple[Container, ...] | Unknown
    docker_networks: tuple[DockerNetwork, ...] | Unknown
    libvirt_networks: Mapping[str, IPv4Network] | Unknown
    routes: tuple[Route, ...] | Unknown
    way: Way | Unknown
    cgroups: Cgroups | Unknown
    inotify: Inotify | Unknown
    capabilities: frozenset[str] | Unknown
    features: Mapping[str, Presence | Unknown]
    docker_file_system: FileSystem | Unknown = FileSystem(Path("/"), "ext4", "/dev/sda1")
    """The file system of docker's data."""
    forwarding: Forwarding = Forwarding()
    provider: ProviderFacts | None = None
    """None if the lab's provider has no client of its own, or was not asked."""
    system: System = "linux"
