"""What is known of a host: frozen records that `gather` fills and tests write themselves.

A question that could not be asked is `Unknown`, with the reason: never a no, and never a yes.
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
    """The host's memory in MiB; `available` is the kernel's own estimate of what can still be had."""

    total: int
    available: int
    swap: int


@dataclass(frozen=True)
class Folder:
    """A folder, or the nearest one above it that exists: free MiB, the disk's number, who may write."""

    path: Path
    free: int
    device: int
    writable: bool


@dataclass(frozen=True)
class FileSystem:
    """What a path is on: where that is mounted, its kind as the kernel names it, and its source."""

    mounted: Path
    kind: str
    source: str


@dataclass(frozen=True)
class Configured:
    """One setting of docker's daemon: its value as JSON has it, and where it is written, for a person."""

    value: Any
    place: str


@dataclass(frozen=True)
class Daemon:
    """docker's daemon as its client finds it, and `words`, what was said where it did not answer.

    `absent`: nothing listens. `denied`: it does not let this user in. `elsewhere`: `endpoint` is not a
    socket of this host, and it was not asked. `mute`: something else is wrong. `chosen` is what says that it is
    this daemon: "DOCKER_HOST" or a context; "" where that is docker's default.

    `driver` is its storage driver and `about_driver` what that says of itself, `runtime` what runs containers
    where nothing else is asked for. `settings` are what it was configured with, by the keys of daemon.json.
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
        """Where it is, and by what it was chosen where that is not docker's own default."""
        return f"{self.endpoint} ({self.chosen})" if self.chosen else self.endpoint


@dataclass(frozen=True)
class Container:
    """A container: `owner` is the lab that its label says it belongs to, "" when it says nothing.

    `folder_exists` is whether that lab's folder is still where it was made. One that is `paused` runs, but does
    not respond.
    """

    name: str
    running: bool
    owner: str
    networks: tuple[str, ...]
    folder_exists: bool = True
    paused: bool = False

    @property
    def folder(self) -> str:
        """The `.lab/` where that lab was made; "" when it says nothing."""
        return self.owner.partition("#")[0]


@dataclass(frozen=True)
class DockerNetwork:
    """A network of docker's: `device` is its bridge on the host, whether that is up or not.

    `isolates`: docker lets no container on it reach another one (its option enable_icc is false).
    """

    name: str
    device: str
    subnets: tuple[IPv4Network, ...]
    isolates: bool = False


System = Literal["linux", "macos", "wsl"]
"""What kind of host this is; wsl is a Linux whose machines are Windows' to run."""


@dataclass(frozen=True)
class Route:
    """One of the host's routes; `gateway` is "" on a link."""

    network: IPv4Network
    device: str
    gateway: str = ""

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"{self.network}{via}{f' dev {self.device}' if self.device else ''}"


@dataclass(frozen=True)
class Way:
    """Where the kernel would send a packet for the lab; an empty `device` means nowhere."""

    device: str
    gateway: str = ""


@dataclass(frozen=True)
class Cgroups:
    """The control groups' version, and the controllers that are switched on."""

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
    """A chain of nftables for forwarded packets: its place, its policy for what no rule takes, its text."""

    family: str
    table: str
    name: str
    policy: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True)
class Forwarding:
    """What this host's firewall does with packets between machines.

    `bridged`: such packets go through it at all. `rules` are the lines of `iptables --list-rules`; `chains` are
    nftables' own, without those that iptables keeps there. `services` are the firewall services that run.
    """

    bridged: bool = False
    rules: tuple[str, ...] | Unknown = ()
    chains: tuple[ForwardChain, ...] | Unknown = ()
    services: tuple[str, ...] = ()


Presence = Literal["there", "loadable", "missing"]
"""Of a kernel feature: usable now, a module that can be loaded, or not in this kernel."""


class ProviderFacts(Protocol):
    """What a provider's own client says of this host: a frozen record in that provider's folder."""

    def running(self, owner: str) -> frozenset[str]:
        """The provider's names of the machines that run and carry that label (`lab.model.owner_label`)."""
        ...

    def own_networks(self, lab: Lab) -> Mapping[str, IPv4Network]:
        """Those of libvirt's networks that are made for a lab, by their names; empty for other providers."""
        ...

    def owns_device(self, lab: Lab, host: HostFacts, device: str) -> bool | None:
        """Whether a network device of this host is one of the lab's networks; None where that isn't known."""
        ...


@dataclass(frozen=True)
class HostFacts:
    """All that the doctor knows of a host. `programs` holds the names of those found on PATH."""

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
    """Whether the certificate authorities that Go's programs trust are there."""
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
    """What docker's data is on."""
    forwarding: Forwarding = Forwarding()
    provider: ProviderFacts | None = None
    """None where the lab's provider has no client of its own, or was not asked."""
    system: System = "linux"
