"""This room makes, starts, stops and removes machines.

    vagrant.py       the only import of python-vagrant; explained.py    what it means when it refuses
    containers.py    machines that are containers, where docker itself is quicker
    virtual.py       machines that are virtual, through Vagrant's own verbs

What the other rooms ask is here, and answered by the lab's provider: where machines exist, the one that made
them, whatever lab.yaml says by now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

from lab.model import Lab, Node
from lab.providers import containers, vagrant, virtual
from lab.providers.containers import network_name
from lab.providers.vagrant import known as known_to_vagrant
from lab.providers.vagrant import states
from lab.workspace import Workspace

__all__ = [
    "adopt",
    "boot",
    "is_on",
    "known_to_vagrant",
    "lost_sight_of",
    "network_name",
    "power_off",
    "power_on",
    "remove",
    "states",
]


def boot(workspace: Workspace, log: Path) -> None:
    """Make and start every machine that is not running, all at once, without provisioning."""
    vagrant.wait_for_earlier(workspace)
    _makers(workspace).boot(workspace, log)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's network, also those that Vagrant has lost sight of."""
    vagrant.wait_for_earlier(workspace)
    _makers(workspace).remove(workspace, log)


def lost_sight_of(workspace: Workspace) -> list[str]:
    """Machines of this lab that Vagrant does not know: it, or its .vagrant folder, was killed."""
    found: list[str] = _makers(workspace).lost_sight_of(workspace)
    return found


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Tell Vagrant again which machines are its own, by their names."""
    _makers(workspace).adopt(lab, workspace)


def power_off(lab: Lab, nodes: Iterable[Node], silent: Callable[[], None]) -> None:
    """Cut the power of machines, all at once: nothing on them gets a chance to say goodbye.

    `silent` is called as each falls silent.
    """
    maker = _by_name(lab.provider)
    _at_once(nodes, lambda node: maker.cut(lab, node, silent) if maker.is_on(lab, node) else None)


def power_on(lab: Lab, nodes: Iterable[Node]) -> None:
    """Start machines that are off, all at once; they come up by themselves, without provisioning."""
    maker = _by_name(lab.provider)
    _at_once(nodes, lambda node: None if maker.is_on(lab, node) else maker.start(lab, node))


def is_on(lab: Lab, node: Node) -> bool:
    """Whether a machine has power. Raises CommandFailed when there is no such machine."""
    return bool(_by_name(lab.provider).is_on(lab, node))


def _at_once(nodes: Iterable[Node], work: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(work, nodes))


def _makers(workspace: Workspace) -> ModuleType:
    return _by_name(str(workspace.read_identity().get("provider", "docker")))


def _by_name(provider: str) -> ModuleType:
    return containers if provider == "docker" else virtual
