"""libvirt's machines, created by Vagrant.

virsh does what Vagrant does too slowly (power) or can't do (machines that it has lost track of, or that are no
longer in its Vagrantfile).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import CommandFailed
from lab.host.ask import ENVIRONMENT
from lab.model import Lab, Libvirt, Node, machine_called, machine_name, owner_label
from lab.providers import vagrant
from lab.providers.explained import raise_refused
from lab.providers.libvirt import virsh
from lab.providers.libvirt.host import TABLE_HEAD
from lab.providers.protocol import MachineState
from lab.providers.shutdown import shut_down
from lab.system import process, quoting
from lab.workspace import Workspace, made

POWER_TIMEOUT = 120.0
"""Seconds for libvirt to start a machine or to cut its power; one is usual."""

TRANSIENT_ERRORS = ("constant VagrantPlugins::",)
"""Ruby's error in a race while Vagrant loads its plugin: one thread misses what another is loading."""

STOPPED = ("shut off", "crashed")
"""libvirt's states of a machine without power (virsh(1), domstate)."""


def boot(workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
    """Create and start machines that don't run, without provisioning: those named, or all."""
    timeout = vagrant.BOOT_TIMEOUT * virsh.settings_in(workspace).patience
    vagrant.up(workspace, log, provider="libvirt", names=names, timeout=timeout, transient=TRANSIENT_ERRORS)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's networks; nothing that this lab did not create.

    Continues after a refused removal. Raises LabStateError with all refusals at the end.
    """
    if shutil.which("virsh") is None and not vagrant.known(workspace):
        return  # the lab was at most rendered
    settings = virsh.settings_in(workspace)
    refused = vagrant.destroy(workspace, log)
    try:
        # Not with `unknown_to_vagrant`, which returns nothing if libvirt does not respond.
        lost = _lost(workspace, virsh.ask(settings, "list", "--all", "--uuid"))
    except CommandFailed as error:
        lost = []
        refused.append(error)
    for domain in lost:
        try:
            _remove_domain(settings, domain, log)
        except CommandFailed as error:
            refused.append(error)
    raise_refused("libvirt", refused, f"`{quoting.line(virsh.argv(settings, 'list', '--all'))}` shows it", log)


def remove_machines(lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
    """Remove these machines, their disks, and Vagrant's records of them; the networks stay."""
    settings = virsh.settings_in(workspace)
    for name in names:
        domain = machine_called(lab, name)
        if virsh.ask_domain(settings, "desc", domain) == owner_label(made.owner(workspace)):
            _remove_domain(settings, domain, log)
        vagrant.forget(workspace, name)


def unknown_to_vagrant(workspace: Workspace) -> list[str]:
    """The UUIDs of this lab's machines, found by their description, that Vagrant does not know."""
    words = virsh.argv(virsh.settings_in(workspace), "list", "--all", "--uuid")
    listed = process.run(words, accept=None, timeout=30, env=ENVIRONMENT)
    return _lost(workspace, listed.stdout) if listed.ok else []


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Register domains with Vagrant again, by their names."""
    names = {machine_name(lab, node): node.name for node in lab.nodes}
    for domain in unknown_to_vagrant(workspace):
        name = virsh.ask(virsh.settings_in(workspace), "domname", domain)
        if name in names:
            vagrant.remember(workspace, names[name], "libvirt", domain)


def state(lab: Lab, node: Node) -> MachineState:
    """The state of one machine."""
    said = virsh.ask_domain(virsh.settings_of(lab), "domstate", machine_name(lab, node))
    return "absent" if said is None else _state(said)


def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
    """The state of every machine in `lab`, by its name there; one command, plus one per existing machine."""
    settings, owner = virsh.settings_in(workspace), owner_label(made.owner(workspace))
    rows = [line.split(maxsplit=2) for line in virsh.ask(settings, "list", "--all").splitlines()[TABLE_HEAD:]]
    found = {name: _state(said) for _, name, said in rows}

    def own(name: str) -> MachineState:
        is_own = name in found and virsh.ask_domain(settings, "desc", name) == owner
        return found[name] if is_own else "absent"

    return {node.name: own(machine_name(lab, node)) for node in lab.nodes}


def start(lab: Lab, node: Node) -> None:
    """Start a machine that is stopped."""
    virsh.ask(virsh.settings_of(lab), "start", machine_name(lab, node), timeout=POWER_TIMEOUT)


def stop(lab: Lab, node: Node, timeout: float) -> bool:
    """Press a running machine's power button, and wait; cut its power after `timeout` seconds."""
    return shut_down(
        node.name,
        timeout,
        press=lambda: virsh.ask(virsh.settings_of(lab), "shutdown", machine_name(lab, node)),
        state=lambda: state(lab, node),
        cut=lambda: cut(lab, node, lambda: None),
    )


def resume(lab: Lab, node: Node) -> None:
    """Resume a paused machine."""
    virsh.ask(virsh.settings_of(lab), "resume", machine_name(lab, node))


def cut(lab: Lab, node: Node, silent: Callable[[], None]) -> None:
    """Cut the power of a running machine; the hypervisor stops it at once."""
    virsh.ask(virsh.settings_of(lab), "destroy", machine_name(lab, node), timeout=POWER_TIMEOUT)
    silent()


def resize(lab: Lab, node: Node) -> None:
    """Give a stopped machine the CPUs and the memory of `node`.

    The maximum first: libvirt lowers the current value with it, and refuses one above it.
    """
    domain, cpus, memory = machine_name(lab, node), str(node.cpus), f"{node.memory_mib}MiB"
    for words in (
        ("setvcpus", domain, cpus, "--config", "--maximum"),
        ("setvcpus", domain, cpus, "--config"),
        ("setmaxmem", domain, memory, "--config"),
        ("setmem", domain, memory, "--config"),
    ):
        virsh.ask(virsh.settings_of(lab), *words)


def _state(said: str) -> MachineState:
    """Convert virsh's state; a machine in any other state, such as `in shutdown`, has power."""
    if said == "paused":
        return "paused"
    return "stopped" if said in STOPPED else "running"


def _lost(workspace: Workspace, listed: str) -> list[str]:
    """Of the UUIDs in virsh's list, those of this lab's machines that Vagrant does not know."""
    settings, owner = virsh.settings_in(workspace), owner_label(made.owner(workspace))
    unknown = set(listed.split()) - vagrant.ids(workspace)
    return sorted(domain for domain in unknown if virsh.ask_domain(settings, "desc", domain) == owner)


def _remove_domain(settings: Libvirt, domain: str, log: Path) -> None:
    # Refused if it does not run, which is fine.
    process.run(virsh.argv(settings, "destroy", domain), accept=None, log=log, timeout=60)
    # Without the first two options, libvirt refuses to remove a machine that was saved or has snapshots.
    words = ("undefine", domain, "--managed-save", "--snapshots-metadata", "--remove-all-storage")
    process.run(virsh.argv(settings, *words), log=log, timeout=120)
