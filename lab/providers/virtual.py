"""This room makes machines that are virtual, through Vagrant's own verbs.

The hypervisor's own client is asked where those are too slow (power) or know nothing (machines that Vagrant
has lost sight of).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.model import LABEL, Lab, Libvirt, Node, machine_name
from lab.providers import vagrant
from lab.providers.vagrant import LoggedVagrant
from lab.system import process
from lab.workspace import Workspace

POWER_TIMEOUT = 120.0
"""Seconds for a hypervisor to start a machine or to cut its power; one is usual."""

TRIPPED = "constant VagrantPlugins::"
"""What Ruby says when one thread of a plugin's took for missing what another one was just loading."""


def boot(workspace: Workspace, log: Path) -> None:
    """Make and start every machine that is not running; side by side where the provider can."""
    settings = _settings(workspace)
    timeout = vagrant.BOOT_TIMEOUT * (settings.patience if settings else 1)
    provider = str(workspace.read_identity()["provider"])
    vagrant.up(workspace, log, provider=provider, timeout=timeout, passing=(TRIPPED,))


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's networks; nothing that this lab did not make."""
    if workspace.vagrantfile.exists() and vagrant.known(workspace):
        # One by one, in two seconds each: all at once its plugin's threads sometimes trip over one another.
        LoggedVagrant(workspace, log).destroy(at_once=False)
    if _settings(workspace):
        for domain in lost_sight_of(workspace):
            process.run(_virsh(workspace, "destroy", domain), accept=None, log=log, timeout=60)
            words = _virsh(workspace, "undefine", domain, "--remove-all-storage")
            process.run(words, log=log, timeout=120)


def lost_sight_of(workspace: Workspace) -> list[str]:
    """The UUIDs of this lab's machines that Vagrant does not know, by the description that they carry.

    VirtualBox is not asked: Vagrant names its machines there before it makes them.
    """
    if not _settings(workspace):
        return []
    listed = process.run(_virsh(workspace, "list", "--all", "--uuid"), accept=None, timeout=30)
    unknown = set(listed.stdout.split()) - vagrant.ids(workspace) if listed.ok else set()
    return sorted(domain for domain in unknown if _description(workspace, domain) == owner(workspace))


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Tell Vagrant again which domains are its machines, by their names."""
    names = {machine_name(lab, node): node.name for node in lab.nodes}
    for domain in lost_sight_of(workspace):
        name = process.run(_virsh(workspace, "domname", domain), timeout=30).stdout.strip()
        if name in names:
            vagrant.remember(workspace, names[name], "libvirt", domain)


def owner(workspace: Workspace) -> str:
    """The description by which a lab knows its own domains."""
    return f"{LABEL}={workspace.root}"


def cut(lab: Lab, node: Node, silent: Callable[[], None]) -> None:
    """Cut the power of a machine that is on; the hypervisor ends it on the spot."""
    process.run(_client(lab, "off", node), timeout=POWER_TIMEOUT)
    silent()


def start(lab: Lab, node: Node) -> None:
    """Give a machine that is off its power."""
    process.run(_client(lab, "on", node), timeout=POWER_TIMEOUT)


def is_on(lab: Lab, node: Node) -> bool:
    """Whether a machine has power. Raises CommandFailed when there is no such machine."""
    said = process.run(_client(lab, "state", node), timeout=60).stdout
    return said.strip() == "running" or 'VMState="running"' in said


def _client(lab: Lab, verb: str, node: Node) -> list[str]:
    """The hypervisor's own words for cutting a machine's power, giving it, or asking for it."""
    name = machine_name(lab, node)
    if lab.provider == "virtualbox":
        words = {
            "off": ["controlvm", name, "poweroff"],
            "on": ["startvm", name, "--type", "headless"],
            "state": ["showvminfo", name, "--machinereadable"],
        }
        return ["VBoxManage", *words[verb]]
    uri = lab.libvirt.uri if lab.libvirt else Libvirt().uri
    words = {"off": ["destroy", name], "on": ["start", name], "state": ["domstate", name]}
    return ["virsh", "--connect", uri, *words[verb]]


def _settings(workspace: Workspace) -> Libvirt | None:
    """How the machines of this workspace reach libvirt; None where they are not libvirt's."""
    found = workspace.read_identity().get("libvirt")
    return Libvirt.model_validate(found) if found else None


def _virsh(workspace: Workspace, *words: str) -> list[str]:
    settings = _settings(workspace) or Libvirt()
    return ["virsh", "--connect", settings.uri, *words]


def _description(workspace: Workspace, domain: str) -> str:
    return process.run(_virsh(workspace, "desc", domain), accept=None, timeout=30).stdout.strip()
