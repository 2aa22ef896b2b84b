"""Gathers facts about VirtualBox, in few calls of its client: version, machines, networks.

Follows Vagrant's rules for parsing /etc/vbox/networks.conf and for choosing the client under WSL
(plugins/providers/virtualbox in its source).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from lab.host import places, system
from lab.host.ask import ask
from lab.host.facts import Folder, HostFacts, System
from lab.model import Lab
from lab.unknown import Unknown

ALLOWED = (IPv4Network("192.168.56.0/21"),)
"""Where VirtualBox allows host-only networks by default (6.1.28 and later)."""

VM = re.compile(r'^"(?P<name>.*)" \{(?P<uuid>[0-9a-f-]{36})\}$', re.MULTILINE)
VERSION = re.compile(r"^(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


NO_FOLDER = Unknown("VirtualBox did not report where it keeps machines")


@dataclass(frozen=True)
class VirtualBoxHost:
    """VirtualBox as seen by its client. `version` is Unknown if the client is missing or its output unclear.

    `driver`: its kernel module is loaded, if the host has one. `allowed` is where host-only networks may be,
    `networks` are the existing ones, by device; `machines` maps names to UUIDs, `own` are those of this lab.
    `kvm`: KVM uses the processor's virtualization. `folder` is where machines are kept.
    """

    version: tuple[int, ...] | Unknown
    driver: bool
    allowed: tuple[IPv4Network, ...] | Unknown = ()
    networks: Mapping[str, IPv4Network] | Unknown = field(default_factory=dict)
    machines: Mapping[str, str] | Unknown = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    kvm: bool = False
    folder: Folder | Unknown = NO_FOLDER

    def running(self, owner: str) -> frozenset[str]:
        """Empty: VirtualBox is not asked which machines run."""
        return frozenset()

    def own_networks(self, lab: Lab) -> Mapping[str, IPv4Network]:
        """Empty: these are not libvirt's."""
        return {}

    def owns_device(self, lab: Lab, host: HostFacts, device: str) -> bool | None:
        """Vagrant uses any of VirtualBox's networks with the lab's addresses, even if it did not create it."""
        if isinstance(self.networks, Unknown):
            return None
        return self.networks.get(device) == lab.network.subnet


def look(lab: Lab, workspace: Path, root: Path) -> VirtualBoxHost:
    """Gather everything that the doctor needs to know about VirtualBox. Changes nothing and never raises."""
    return look_on(system(), workspace, root)


def look_on(system: System, workspace: Path, root: Path) -> VirtualBoxHost:
    """The same for a given kind of host. `workspace` has Vagrant's records of its machines."""
    client = "VBoxManage.exe" if system == "wsl" else "VBoxManage"
    said = ask([client, "--version"])
    if isinstance(said, Unknown):
        return VirtualBoxHost(said, driver=False)
    # Warnings, for example about a driver that is not loaded, precede it on the same stream.
    version = VERSION.search(said.stdout)
    if version is None:
        words = said.stdout.strip()[:80]
        return VirtualBoxHost(Unknown(f"`{client} --version` prints {words!r}"), driver=False)
    return VirtualBoxHost(
        tuple(int(part) for part in version.groups()),
        driver=system != "linux" or (root / "dev/vboxdrv").exists(),
        allowed=allowed(root),
        networks=_networks(client),
        machines=_machines(client),
        own=frozenset(_ids(workspace)),
        kvm=system == "linux" and kvm_holds_the_cpu(root),
        folder=_folder(client, system),
    )


def allowed(root: Path) -> tuple[IPv4Network, ...] | Unknown:
    """Where host-only networks may be, by the lines of networks.conf that Vagrant uses."""
    path = root / "etc/vbox/networks.conf"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return ALLOWED
    except OSError as error:
        return Unknown(f"/etc/vbox/networks.conf can't be read: {error.strerror}")
    entries = [entry for line in lines if line.startswith("*") for entry in line[1:].split()]
    try:
        return tuple(IPv4Network(entry, strict=False) for entry in entries if ":" not in entry)
    except ValueError as error:
        return Unknown(f"/etc/vbox/networks.conf: {error}")


def kvm_holds_the_cpu(root: Path) -> bool:
    """Whether KVM uses the processor's virtualization, which VirtualBox needs exclusively.

    Linux 6.12 and later enable it as soon as the module is loaded (kvm.enable_virt_at_load), earlier ones when
    the first machine runs, which then counts as a user of the module.
    """
    at_load = _read(root / "sys/module/kvm/parameters/enable_virt_at_load").strip() == "Y"
    vendor = [root / f"sys/module/{name}/refcnt" for name in ("kvm_intel", "kvm_amd")]
    loaded = [_read(path).strip() for path in vendor if path.exists()]
    return bool(loaded) and (at_load or any(count not in ("", "0") for count in loaded))


def _networks(client: str) -> Mapping[str, IPv4Network] | Unknown:
    """Host-only networks by their device on this host."""
    said = ask([client, "list", "hostonlyifs"])
    if isinstance(said, Unknown):
        return said
    found = {}
    for block in said.stdout.replace("\r", "").split("\n\n"):
        keys = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        name, address, mask = (keys.get(key, "").strip() for key in ("Name", "IPAddress", "NetworkMask"))
        if name and address and mask:
            found[name] = IPv4Network(f"{address}/{mask}", strict=False)
    return found


def _machines(client: str) -> Mapping[str, str] | Unknown:
    """Every registered machine: its name, and its UUID."""
    said = ask([client, "list", "vms"])
    if isinstance(said, Unknown):
        return said
    return {row["name"]: row["uuid"] for row in VM.finditer(said.stdout.replace("\r", ""))}


def _folder(client: str, system: System) -> Folder | Unknown:
    """Where machines and their disks are kept."""
    said = ask([client, "list", "systemproperties"])
    if isinstance(said, Unknown):
        return said
    path = re.search(r"^Default machine folder:\s*(\S.*?)\s*$", said.stdout, re.MULTILINE)
    if path is None or system == "wsl":
        return Unknown("VirtualBox's machine folder is not on this system")
    return places.folder(Path(path[1]))


def _ids(workspace: Path) -> Iterator[str]:
    """The UUIDs of the machines that Vagrant created for the lab in that folder."""
    for path in workspace.glob(".vagrant/machines/*/virtualbox/id"):
        yield _read(path).strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
