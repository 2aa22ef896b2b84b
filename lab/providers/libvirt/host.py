"""Gathers facts about libvirt, in few calls of its client: machines, the storage pool, networks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from lab.host import hypervisor
from lab.host.ask import ask
from lab.host.facts import HostFacts
from lab.host.places import GOLDEN_BOX, as_folder, boxes_folder, may_exist
from lab.model import LABEL, Lab, Libvirt, machine_name
from lab.providers.libvirt import virsh
from lab.system.process import Result
from lab.unknown import Unknown

DENIED = (
    *("Permission denied", "authentication unavailable", "access denied", "authentication failed"),
    "Unable to get system bus connection",  # without a system bus, only root has access
)
ABSENT = ("No such file or directory", "Connection refused")
RUNNING = "Running hypervisor:"
BRIDGE = re.compile(r"<bridge name='([^']+)'")
PATIENCE = 20.0
"""Seconds for one question: a daemon that has just started probes its emulators first, which takes four."""

State = Literal["no client", "absent", "denied", "mute"]
PHYSICAL = re.compile(r"<physical unit='bytes'>([0-9]+)<")
COPY = "_vagrant_box_image_"
"""The middle of a box's volume name in the pool: the box, this, and the time when the box was added."""

TABLE_HEAD = 2
"""The header lines of virsh's tables: the titles, and a rule."""


MANAGEMENT = "vagrant-libvirt"
"""The name of the management network of Vagrant's plugin."""


@dataclass(frozen=True)
class Pool:
    """A storage pool: whether it runs, and its free MiB. `volumes` are the names of its files.

    `torn` are incomplete copies of a box's disk.
    """

    name: str
    running: bool
    free: int
    volumes: frozenset[str] = frozenset()
    torn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Domain:
    """A libvirt domain; `owner` is its description, which is `LABEL=…/.lab` for a lab's machine.

    `folder_exists`: that lab's folder still exists; unknown for another host's.
    """

    name: str
    running: bool
    owner: str
    folder_exists: bool = True

    @property
    def folder(self) -> str:
        """The `.lab/` where its lab was created; "" if its description names none."""
        return self.owner.partition(f"{LABEL}=")[2].partition("#")[0]


@dataclass(frozen=True)
class LibvirtHost:
    """libvirt as seen by its client; `words` is the client's message if it did not respond.

    `absent`: nothing listens. `denied`: this user has no access. `mute`: another problem. `hypervisor` is what
    it runs machines with, or "". `pool` is None if none has the name in lab.yaml. `bridges` are the networks'
    devices, `leases` the addresses that its DHCP servers have given out, and to which machine. `kvm_closed`:
    /dev/kvm exists, but libvirt's own user can't open it.
    """

    state: Literal["answers", "no client", "absent", "denied", "mute"]
    plugin: bool
    kvm: bool | Unknown
    words: str = ""
    hypervisor: str = ""
    pool: Pool | None = None
    domains: tuple[Domain, ...] = ()
    bridges: Mapping[str, str] = field(default_factory=dict)
    kvm_closed: bool = False
    leases: Mapping[str, str] = field(default_factory=dict)

    def running(self, owner: str) -> frozenset[str]:
        """The names of the running machines with that description."""
        return frozenset(each.name for each in self.domains if each.running and each.owner == owner)

    def own_networks(self, lab: Lab) -> Mapping[str, IPv4Network]:
        """The networks that Vagrant's plugin creates for a lab, by name."""
        if lab.libvirt is None:
            return {}
        return {lab.name: lab.network.subnet, MANAGEMENT: lab.libvirt.management}

    def owns_device(self, lab: Lab, host: HostFacts, device: str) -> bool | None:
        """True for the bridge of one of those networks; None, unknown, for other devices."""
        found = host.libvirt_networks
        if isinstance(found, Unknown):
            return None
        own = [name for name, subnet in self.own_networks(lab).items() if found.get(name) == subnet]
        return True if device in [self.bridges[name] for name in own if name in self.bridges] else None


def look(lab: Lab, workspace: Path, root: Path) -> LibvirtHost:
    """Gather everything that the doctor needs to know about libvirt. Changes nothing and never raises.

    `workspace` and `root` are not used: domains have their owner, and libvirt may be on another host.
    """
    settings = lab.libvirt or Libvirt()
    plugin = hypervisor.plugin()
    kvm = Unknown("it is on the other host") if settings.remote else hypervisor.kvm()
    # Not `capabilities`: if KVM hangs, that takes ten seconds each time.
    version = _virsh(settings, "version")
    if isinstance(version, Unknown):
        return LibvirtHost(_state(version.reason), plugin, kvm, version.reason)
    networks = _words(_virsh(settings, "net-list", "--name"))
    return LibvirtHost(
        "answers",
        plugin,
        kvm,
        hypervisor=_after(RUNNING, version.stdout),
        pool=_pool(settings),
        domains=tuple(_domains(settings, {machine_name(lab, node) for node in lab.nodes})),
        bridges=dict(_bridges(settings, networks)),
        leases=dict(_leases(settings, networks)),
        kvm_closed=not settings.remote and hypervisor.closed_to_libvirt(),
    )


def _virsh(settings: Libvirt, *words: str) -> Result | Unknown:
    return ask(virsh.argv(settings, *words), timeout=PATIENCE)


def _state(words: str) -> State:
    """What an error means, by its text, which is the same in all versions of libvirt."""
    if "no such program" in words:
        return "no client"
    if any(each in words for each in DENIED):
        return "denied"
    return "absent" if any(each in words for each in ABSENT) else "mute"


def _after(title: str, text: str) -> str:
    """What follows a title on its line; "" if there is no such line."""
    return next((line.partition(title)[2].strip() for line in text.splitlines() if title in line), "")


def _words(answer: Result | Unknown) -> list[str]:
    return [] if isinstance(answer, Unknown) else answer.stdout.split()


def _rows(answer: Result | Unknown) -> list[list[str]]:
    """A table's rows, split into words; empty if there was no answer."""
    lines = [] if isinstance(answer, Unknown) else answer.stdout.splitlines()[TABLE_HEAD:]
    return [line.split() for line in lines if line.strip()]


def _pool(settings: Libvirt) -> Pool | None:
    info = _virsh(settings, "pool-info", "--bytes", settings.pool)
    if isinstance(info, Unknown):
        return None
    said = dict(line.split(":", 1) for line in info.stdout.splitlines() if ":" in line)
    running = said.get("State", "").strip() == "running"
    volumes = _rows(_virsh(settings, "vol-list", settings.pool)) if running else []
    free = int(said.get("Available", "0").strip() or 0) // 2**20
    names = frozenset(row[0] for row in volumes)
    return Pool(settings.pool, running, free, names, tuple(sorted(_torn(settings, names))))


def _torn(settings: Libvirt, names: frozenset[str]) -> Iterator[str]:
    """Copies of golden disks that are shorter than the originals: a run was killed while it copied them."""
    for name in names:
        box, mark, _ = name.partition(COPY)
        whole = [path.stat().st_size for path in boxes_folder().glob(f"{box}/*/libvirt/box.img")]
        if mark and whole and box.startswith(as_folder(GOLDEN_BOX)):
            said = _virsh(settings, "vol-dumpxml", "--pool", settings.pool, name)
            found = None if isinstance(said, Unknown) else PHYSICAL.search(said.stdout)
            if found and int(found.group(1)) < min(whole):
                yield name


def _domains(settings: Libvirt, names: set[str]) -> Iterator[Domain]:
    """The domains of these names; others are ignored."""
    running = set(_words(_virsh(settings, "list", "--name")))
    for name in _words(_virsh(settings, "list", "--all", "--name")):
        if name in names:
            said = _virsh(settings, "desc", name)
            domain = Domain(name, name in running, "" if isinstance(said, Unknown) else said.stdout.strip())
            unknown = settings.remote or not domain.folder
            yield replace(domain, folder_exists=unknown or may_exist(domain.folder))


def _bridges(settings: Libvirt, networks: list[str]) -> Iterator[tuple[str, str]]:
    for network in networks:
        described = _virsh(settings, "net-dumpxml", network)
        found = None if isinstance(described, Unknown) else BRIDGE.search(described.stdout)
        if found:
            yield network, found.group(1)


def _leases(settings: Libvirt, networks: list[str]) -> Iterator[tuple[str, str]]:
    """Address → machine, for all networks. A row is `DATE TIME MAC ipv4 ADDRESS/PREFIX HOSTNAME ID`."""
    for network in networks:
        for row in _rows(_virsh(settings, "net-dhcp-leases", network)):
            if len(row) > 5 and row[3] == "ipv4":
                yield row[4].partition("/")[0], f"{row[5]} ({row[2]}), on {network}"
