"""Providers create, start, stop and remove machines.

    protocol.py      a provider's record, and the three Protocols that its folder implements
    docker/  libvirt/  virtualbox/       one provider each: machines.py; checkpoints.py, their saved states;
                     golden.py, its image or box; doctor.py, its checks; host.py, facts about this host
    vagrant.py       the only import of python-vagrant; explained.py    what its errors mean
    shutdown.py      how virtual machines are shut down; boxes.py       Vagrant's boxes
    snapshots.py     what snapshots of virtual machines are called

Another provider needs a folder, templates (`_all.NAME.rb.j2`, `_one.NAME.rb.j2`), a name in
`lab.model.Provider` and a row in PROVIDERS.

Other modules call the functions here, which call the lab's provider: if machines exist, the one that created
them, even if lab.yaml has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import model
from lab.errors import LabStateError
from lab.model import Lab, Node
from lab.providers import docker, libvirt, vagrant, virtualbox
from lab.providers.protocol import SPARE_MIB, Checkpoints, Machines, MachineState, Provider
from lab.providers.vagrant import known as known_to_vagrant
from lab.workspace import Workspace, made

__all__ = [
    "PROVIDERS",
    "SPARE_MIB",
    "MachineState",
    "Provider",
    "adopt",
    "boot",
    "checkpoints_of",
    "known_to_vagrant",
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
    "unknown_to_vagrant",
]

PROVIDERS: Mapping[model.Provider, Provider] = {
    "docker": docker.PROVIDER,
    "libvirt": libvirt.PROVIDER,
    "virtualbox": virtualbox.PROVIDER,
}
"""One row each, with everything that differs between providers; no other module compares a provider's name.

`lab.config` does, as it chooses the provider from lab.yaml and this host; `tests/unit/test_layers.py` checks
this.
"""


def provider_of(lab: Lab) -> Provider:
    """The row of a lab's provider."""
    return PROVIDERS[lab.provider]


def checkpoints_of(lab: Lab) -> Checkpoints:
    """What saves and loads the states of a lab's machines."""
    return provider_of(lab).checkpoints


def boot(workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
    """Create and start machines that don't run, in parallel, without provisioning: those named, or all."""
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).boot(workspace, log, names)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's network, also machines that Vagrant has lost track of."""
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).remove(workspace, log)


def remove_machines(lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
    """Remove the machines with these names, their disks, and Vagrant's records of them; nothing else.

    `lab` determines the machines' names; it need not contain these. Some may not exist.
    """
    vagrant.wait_for_earlier(workspace, log)
    _made_by(workspace).remove_machines(lab, workspace, names, log)


def unknown_to_vagrant(workspace: Workspace) -> list[str]:
    """Machines of this lab that Vagrant does not know: it was killed, or its .vagrant folder was removed."""
    return _made_by(workspace).unknown_to_vagrant(workspace)


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Register machines with Vagrant again, by their names."""
    _made_by(workspace).adopt(lab, workspace)


def state(lab: Lab, node: Node) -> MachineState:
    """The state of one machine. Raises CommandFailed if the provider can't be asked."""
    return provider_of(lab).machines.state(lab, node)


def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
    """The state of every machine in `lab`, by its name there. Raises CommandFailed if it can't be asked."""
    return _made_by(workspace).states(lab, workspace)


def power_off(lab: Lab, nodes: Iterable[Node], silent: Callable[[], None]) -> None:
    """Cut the power of machines, all at once, without a shutdown.

    `silent` is called when a machine stops responding.
    """
    machines = provider_of(lab).machines
    _at_once(nodes, lambda node: machines.cut(lab, node, silent) if _has_power(lab, node) else None)


def power_on(lab: Lab, nodes: Iterable[Node]) -> None:
    """Start machines that are off, in parallel; they boot without provisioning."""
    machines = provider_of(lab).machines
    _at_once(nodes, lambda node: None if _has_power(lab, node) else machines.start(lab, node))


def stop(lab: Lab, node: Node, timeout: float) -> bool:
    """Shut a machine down; cut its power after `timeout` seconds. Returns whether the shutdown was orderly.

    A paused machine is resumed first, since it could not shut down. It may be stopped already, or absent.
    """
    machines = provider_of(lab).machines
    found = machines.state(lab, node)
    if found == "paused":
        machines.resume(lab, node)
    return found in ("stopped", "absent") or machines.stop(lab, node, timeout)


def resume(lab: Lab, node: Node) -> None:
    """Resume a paused machine; does nothing for others."""
    if state(lab, node) == "paused":
        provider_of(lab).machines.resume(lab, node)


def resize(lab: Lab, node: Node) -> None:
    """Give a stopped machine the CPUs and the memory of `node`, if the provider enforces them."""
    provider_of(lab).machines.resize(lab, node)


def _has_power(lab: Lab, node: Node) -> bool:
    """Whether a machine runs or is paused. Raises LabStateError if it does not exist."""
    found = state(lab, node)
    if found == "absent":
        raise LabStateError(f"the machine {node.name} does not exist", hint="`./inv up` creates it")
    return found in ("running", "paused")


def _at_once(nodes: Iterable[Node], work: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(work, nodes))


def _made_by(workspace: Workspace) -> Machines:
    """The provider that created this workspace's machines; docker if there are none."""
    record = made.read(workspace)
    return PROVIDERS[record.lab.provider if record else "docker"].machines
