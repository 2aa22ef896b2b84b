"""Providers: what makes, starts, stops and removes machines.

    protocol.py      what a provider is: one row, with the two Protocols that its folder implements
    docker/  libvirt/  virtualbox/       a provider each: machines.py; golden.py, its image or box; doctor.py,
                     its checks; host.py, facts about this host
    vagrant.py       the only import of python-vagrant; explained.py    what it means when it refuses
    shutdown.py      how virtual machines are shut down; boxes.py       Vagrant's boxes

One more provider is one more folder, its templates (`_all.NAME.rb.j2`, `_one.NAME.rb.j2`), its name in
`lab.model.Provider` and its row in PROVIDERS.

What other modules ask is here, and answered by the lab's provider: where machines exist, the one that made
them, whatever lab.yaml says by now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import model
from lab.errors import LabStateError
from lab.model import Lab, Node
from lab.providers import docker, libvirt, vagrant, virtualbox
from lab.providers.protocol import Machines, MachineState, Provider
from lab.providers.vagrant import known as known_to_vagrant
from lab.workspace import Workspace, made

__all__ = [
    "PROVIDERS",
    "MachineState",
    "Provider",
    "adopt",
    "boot",
    "known_to_vagrant",
    "lost_sight_of",
    "power_off",
    "power_on",
    "provider_of",
    "remove",
    "remove_machines",
    "resize",
    "resume",
    "state",
    "states",
    "stop",
]

PROVIDERS: Mapping[model.Provider, Provider] = {
    "docker": docker.PROVIDER,
    "libvirt": libvirt.PROVIDER,
    "virtualbox": virtualbox.PROVIDER,
}
"""A row each. What differs between providers is asked of a row; no other module compares a provider's name.

`lab.config` does, which picks the provider from lab.yaml and this host; `tests/unit/test_layers.py` holds it.
"""


def provider_of(lab: Lab) -> Provider:
    """The row of a lab's provider."""
    return PROVIDERS[lab.provider]


def boot(workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
    """Make and start machines that don't run, all at once, without provisioning: those named, or all."""
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).boot(workspace, log, names)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's network, also those that Vagrant has lost sight of."""
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).remove(workspace, log)


def remove_machines(lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
    """Remove the machines of these names with their disks, and Vagrant's memory of them; nothing else.

    `lab` says what machines are called; it need not name these any longer. Fine where some don't exist.
    """
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).remove_machines(lab, workspace, names, log)


def lost_sight_of(workspace: Workspace) -> list[str]:
    """Machines of this lab that Vagrant does not know: it, or its .vagrant folder, was killed."""
    return _made_by(workspace).lost_sight_of(workspace)


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Tell Vagrant again which machines are its own, by their names."""
    _made_by(workspace).adopt(lab, workspace)


def state(lab: Lab, node: Node) -> MachineState:
    """The state of one machine. Raises CommandFailed where the provider can't be asked."""
    return provider_of(lab).machines.state(lab, node)


def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
    """The state of every machine in `lab`, by its name there. Raises CommandFailed where it can't be asked."""
    return _made_by(workspace).states(lab, workspace)


def power_off(lab: Lab, nodes: Iterable[Node], silent: Callable[[], None]) -> None:
    """Cut the power of machines, all at once: nothing on them gets a chance to say goodbye.

    `silent` is called as each falls silent.
    """
    machines = provider_of(lab).machines
    _at_once(nodes, lambda node: machines.cut(lab, node, silent) if _has_power(lab, node) else None)


def power_on(lab: Lab, nodes: Iterable[Node]) -> None:
    """Start machines that are off, all at once; they come up by themselves, without provisioning."""
    machines = provider_of(lab).machines
    _at_once(nodes, lambda node: None if _has_power(lab, node) else machines.start(lab, node))


def stop(lab: Lab, node: Node, timeout: float) -> bool:
    """Shut a machine down, and cut its power after `timeout` seconds; whether it was orderly.

    One that is paused goes on first, since it could not shut down. Fine where it is stopped, or absent.
    """
    machines = provider_of(lab).machines
    found = machines.state(lab, node)
    if found == "paused":
        machines.resume(lab, node)
    return found in ("stopped", "absent") or machines.stop(lab, node, timeout)


def resume(lab: Lab, node: Node) -> None:
    """Let a machine go on that is paused; nothing for any other."""
    if state(lab, node) == "paused":
        provider_of(lab).machines.resume(lab, node)


def resize(lab: Lab, node: Node) -> None:
    """Give a stopped machine the CPUs and the memory that `node` has, where the provider enforces them."""
    provider_of(lab).machines.resize(lab, node)


def _has_power(lab: Lab, node: Node) -> bool:
    """Whether a machine runs or is paused. Raises LabStateError when there is no such machine."""
    found = state(lab, node)
    if found == "absent":
        raise LabStateError(f"the machine {node.name} does not exist", hint="`./inv up` makes it")
    return found in ("running", "paused")


def _at_once(nodes: Iterable[Node], work: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(work, nodes))


def _made_by(workspace: Workspace) -> Machines:
    """The provider that made this workspace's machines; docker where nothing was made."""
    record = made.read(workspace)
    return PROVIDERS[record.lab.provider if record else "docker"].machines
