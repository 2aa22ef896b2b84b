"""VirtualBox's machines, created by Vagrant.

VBoxManage does what Vagrant does too slowly (power) or can't do (machines that are no longer in its
Vagrantfile). It can't run on build machines: its options and output are from its manual and source (decision
0020).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import CommandFailed
from lab.host.ask import ENVIRONMENT
from lab.model import Lab, Node, machine_called, machine_name, owner_label
from lab.providers import vagrant
from lab.providers.explained import raise_refused
from lab.providers.protocol import MachineState
from lab.providers.shutdown import shut_down
from lab.providers.virtualbox.host import VM
from lab.system import process
from lab.system.wait import wait_until
from lab.workspace import Workspace, made

POWER_TIMEOUT = 120.0
"""Seconds for VirtualBox to start a machine or to cut its power; one is usual."""

RELEASE_TIMEOUT = 60.0
"""Seconds for VirtualBox to release a machine whose power was cut; one is usual."""

NO_MACHINE = "could not find a registered machine"
"""What VBoxManage prints if there is no machine with a name, in lower case."""

STATE = re.compile(r'^VMState="([^"]*)"', re.MULTILINE)
DESCRIPTION = re.compile(r'^description="(.*)"$', re.MULTILINE)

STOPPED = ("poweroff", "aborted", "saved", "aborted-saved", "teleported")
"""VirtualBox's states of a machine without power (machineStateToName in its VBoxManageInfo.cpp)."""


def boot(workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
    """Create and start machines that don't run, without provisioning: those named, or all."""
    vagrant.up(workspace, log, provider="virtualbox", names=names, transient=())


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's network; nothing that this lab did not create.

    Continues after a refused removal. Raises LabStateError with all refusals at the end.
    """
    raise_refused("VirtualBox", vagrant.destroy(workspace, log), "`VBoxManage list vms` shows it", log)


def remove_machines(lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
    """Remove these machines, their disks, and Vagrant's records of them; the network stays."""
    known = vagrant.ids_by_name(workspace)
    for name in names:
        # By Vagrant's UUID if there is one; a machine that Vagrant has lost track of is found by its
        # description.
        machine = known.get(name) or machine_called(lab, name)
        about = _about(machine)
        if about is not None and (name in known or _description(about) == owner_label(made.owner(workspace))):
            _remove_machine(machine, log)
        vagrant.forget(workspace, name)


def unknown_to_vagrant(workspace: Workspace) -> list[str]:
    """Empty: Vagrant records a machine's UUID before it configures it."""
    return []


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Nothing to do: Vagrant does not lose track of machines."""


def state(lab: Lab, node: Node) -> MachineState:
    """The state of one machine."""
    about = _about(machine_name(lab, node))
    return "absent" if about is None else _state(about)


def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
    """The state of every machine in `lab`, by its name there; one command, plus one per existing machine."""
    rows = VM.finditer(_vboxmanage("list", "vms").replace("\r", ""))
    registered = {row["name"]: row["uuid"] for row in rows}
    known = vagrant.ids(workspace)

    def own(name: str) -> MachineState:
        about = _about(name) if name in registered else None
        if about is None:
            return "absent"
        is_own = registered[name] in known or _description(about) == owner_label(made.owner(workspace))
        return _state(about) if is_own else "absent"

    return {node.name: own(machine_name(lab, node)) for node in lab.nodes}


def start(lab: Lab, node: Node) -> None:
    """Start a machine that is stopped."""
    _vboxmanage("startvm", machine_name(lab, node), "--type", "headless", timeout=POWER_TIMEOUT)


def stop(lab: Lab, node: Node, timeout: float) -> bool:
    """Press a running machine's power button, and wait; cut its power after `timeout` seconds."""
    return shut_down(
        node.name,
        timeout,
        press=lambda: _vboxmanage("controlvm", machine_name(lab, node), "acpipowerbutton"),
        state=lambda: state(lab, node),
        cut=lambda: cut(lab, node, lambda: None),
    )


def resume(lab: Lab, node: Node) -> None:
    """Resume a paused machine."""
    _vboxmanage("controlvm", machine_name(lab, node), "resume")


def cut(lab: Lab, node: Node, silent: Callable[[], None]) -> None:
    """Cut the power of a running machine; the hypervisor stops it at once."""
    _vboxmanage("controlvm", machine_name(lab, node), "poweroff", timeout=POWER_TIMEOUT)
    silent()


def resize(lab: Lab, node: Node) -> None:
    """Give a stopped machine the CPUs and the memory of `node`."""
    sizes = ("--cpus", str(node.cpus), "--memory", str(node.memory_mib))
    _vboxmanage("modifyvm", machine_name(lab, node), *sizes)


def _vboxmanage(*words: str, timeout: float = 60) -> str:
    return process.run(["VBoxManage", *words], timeout=timeout, env=ENVIRONMENT).stdout


def _about(machine: str) -> str | None:
    """VirtualBox's facts about a machine, as lines of KEY="VALUE"; None if there is no such machine."""
    try:
        return _vboxmanage("showvminfo", machine, "--machinereadable").replace("\r", "")
    except CommandFailed as error:
        if NO_MACHINE in error.tail.lower():
            return None
        raise


def _state(about: str) -> MachineState:
    """Convert VBoxManage's state; a machine in any other state, such as `stopping`, has power."""
    found = STATE.search(about)
    said = found[1] if found else "poweroff"
    if said == "paused":
        return "paused"
    return "stopped" if said in STOPPED else "running"


def _description(about: str) -> str:
    found = DESCRIPTION.search(about)
    return found[1] if found else ""


def _remove_machine(machine: str, log: Path) -> None:
    # Refused if it does not run, which is fine.
    process.run(["VBoxManage", "controlvm", machine, "poweroff"], accept=None, log=log, timeout=POWER_TIMEOUT)

    def why_not_removed() -> str | None:
        # The machine's process keeps a lock for a moment after its power was cut.
        words = ["VBoxManage", "unregistervm", machine, "--delete"]
        result = process.run(words, accept=None, timeout=POWER_TIMEOUT, env=ENVIRONMENT)
        if result.ok or NO_MACHINE in result.stderr.lower():
            return None
        return result.stderr.strip() or f"VBoxManage ended with exit code {result.returncode}"

    wait_until(
        why_not_removed,
        what=f"VirtualBox to remove the machine {machine}",
        timeout=RELEASE_TIMEOUT,
        log=log,
        hint="close VirtualBox's windows, then repeat this command",
    )
