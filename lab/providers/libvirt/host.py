"""Facts about libvirt: its client, asked in few calls about machines, the storage pool and networks."""

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
    "Unable to get system bus connection",  # where no bus runs, nothing can let a plain user in
)
ABSENT = ("No such file or directory", "Connection refused")
RUNNING = "Running hypervisor:"
BRIDGE = re.compile(r"<bridge name='([^']+)'")
PATIENCE = 20.0
"""Seconds for one question: a daemon that has just started tries its emulators first, which takes four."""

State = Literal["no client", "absent", "denied", "mute"]
PHYSICAL = re.compile(r"<physical unit='bytes'>([0-9]+)<")
COPY = "_vagrant_box_image_"
"""What Vagrant's plugin calls a box's disk in the pool: the box, this mark, and when the box was added."""

TABLE_HEAD = 2
"""Lines that virsh's tables begin with: the titles, and a rule."""


MANAGEMENT = "vagrant-libvirt"
"""What Vagrant's plugin calls its management network."""


@dataclass(frozen=True)
class Pool:
    """A storage pool of libvirt's: whether it runs, and its free MiB. `volumes` are the names of its files.

    `torn` are those that are copies of a box's disk, and shorter than it is.
    """

    name: str
    running: bool
    free: int
    volumes: frozenset[str] = frozenset()
    torn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Domain:
    """A machine of libvirt's; `owner` is the description it carries, which is `LABEL=…/.lab` for a lab's.

    `folder_exists` is whether that lab's folder is still where it was made; nothing says so of another host's.
    """

    name: str
    running: bool
    owner: str
    folder_exists: bool = True

    @property
    def folder(self) -> str:
        """The `.lab/` where its lab was made; "" where its description names none."""
        return self.owner.partition(f"{LABEL}=")[2].partition("#")[0]


@dataclass(frozen=True)
class LibvirtHost:
    """libvirt as its client finds it, and `words`, what was said where it did not answer.

    `absent`: nothing listens. `denied`: it does not let this user in. `mute`: something else is wrong.
    `hypervisor` is what it runs machines with, "" where it has none, `pool` is None where there is none of
    lab.yaml's name, `bridges` the networks' devices, `leases` the addresses that its DHCP servers have given
    out, and to whom. `kvm_closed`: /dev/kvm is there, and libvirt's own user may not open it.
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
        """The names of the machines that run and carry that description."""
        return frozenset(each.name for each in self.domains if each.running and each.owner == owner)

    def own_networks(self, lab: Lab) -> Mapping[str, IPv4Network]:
        """The networks that Vagrant's plugin makes for a lab, by their names."""
        if lab.libvirt is None:
            return {}
        return {lab.name: lab.network.subnet, MANAGEMENT: lab.libvirt.management}

    def owns_device(self, lab: Lab, host: HostFacts, device: str) -> bool | None:
        """True for the bridge of one of those networks; of any other device nothing is known here."""
        found = host.libvirt_networks
        if isinstance(found, Unknown):
            return None
        own = [name for name, subnet in self.own_networks(lab).items() if found.get(name) == subnet]
        return True if device in [self.bridges[name] for name in own if name in self.bridges] else None


def look(lab: Lab, workspace: Path, root: Path) -> LibvirtHost:
    """Ask all that the doctor wants to know of libvirt; nothing is changed, nothing raises.

    Neither `workspace` nor `root` matters: domains carry their owner, and libvirt may be on another host.
    """
    settings = lab.libvirt or Libvirt()
    plugin = hypervisor.plugin()
    kvm = Unknown("it is that host's") if settings.remote else hypervisor.kvm()
    # Not `capabilities`: where KVM hangs, that takes ten seconds each time.
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
    """What a refusal means, by its own words: libvirt's are the same in every version."""
    if "no such program" in words:
        return "no client"
    if any(each in words for each in DENIED):
        return "denied"
    return "absent" if any(each in words for each in ABSENT) else "mute"


def _after(title: str, text: str) -> str:
    """What follows a title on its line; "" where there is no such line."""
    return next((line.partition(title)[2].strip() for line in text.splitlines() if title in line), "")


def _words(answer: Result | Unknown) -> list[str]:
    return [] if isinstance(answer, Unknown) else answer.stdout.split()


def _rows(answer: Result | Unknown) -> list[list[str]]:
    """A table's rows, as words; none where there was no answer."""
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
    """The copies of golden disks that are shorter than their boxes': a run was killed while it made them."""
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
    """Address → who has it, of all networks: `DATE TIME MAC ipv4 ADDRESS/PREFIX HOSTNAME ID` a row."""
    for network in networks:
        for row in _rows(_virsh(settings, "net-dhcp-leases", network)):
            if len(row) > 5 and row[3] == "ipv4":
                yield row[4].partition("/")[0], f"{row[5]} ({row[2]}), on {network}"
