"""This room makes machines that are containers: what docker does better itself than through Vagrant."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.model import LABEL, Lab, Node, machine_name
from lab.providers import vagrant
from lab.providers.vagrant import LoggedVagrant
from lab.system import process
from lab.workspace import Workspace

PASSING = ("No such object", "No such network")
"""Vagrant looks at every container and network of the host, and fails where one goes away meanwhile."""


def boot(workspace: Workspace, log: Path) -> None:
    """Make and start every machine that is not running, all at once, without provisioning."""
    _stop_unconnected(workspace, log)
    vagrant.up(workspace, log, provider="docker", passing=PASSING)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine and the lab's network, also those that Vagrant has lost sight of."""
    if shutil.which("docker") is None and not vagrant.known(workspace):
        return  # rendered only: there is nothing to remove, and nobody to ask
    # All at once and first: Vagrant would stop them politely, one docker command after another.
    with ThreadPoolExecutor(max_workers=16) as pool:
        removals = [
            pool.submit(process.run, ["docker", "rm", "--force", "--volumes", container], log=log, timeout=120)
            for container in own_containers(workspace)
        ]
    for removal in removals:
        removal.result()
    if workspace.vagrantfile.exists() and vagrant.known(workspace):
        LoggedVagrant(workspace, log).destroy()
    # Known by its label, so that another project's network of the same subnet is never ours.
    own = ["docker", "network", "ls", "--quiet", "--filter", f"label={LABEL}={workspace.root}"]
    for network in process.run(own).stdout.split():
        process.run(["docker", "network", "rm", network], log=log, timeout=60)


def cut(lab: Lab, node: Node, silent: Callable[[], None]) -> None:
    """Cut the power of a machine that is on; `silent` is called before docker has taken it down."""
    # A container takes a second to die, and its kernel goes on taking connections, to reset them at the end.
    # A machine without power is silent at once, so its network goes first.
    name = machine_name(lab, node)
    process.run(["docker", "exec", name, "ip", "link", "set", "group", "default", "down"], timeout=60)
    silent()
    process.run(["docker", "kill", name], timeout=60)


def start(lab: Lab, node: Node) -> None:
    """Give a machine that is off its power."""
    process.run(["docker", "start", machine_name(lab, node)], timeout=120)


def is_on(lab: Lab, node: Node) -> bool:
    """Whether a machine has power. Raises CommandFailed when there is no such machine."""
    words = ["docker", "inspect", "--format", "{{.State.Running}}", machine_name(lab, node)]
    return process.run(words, timeout=60).stdout.strip() == "true"


def own_containers(workspace: Workspace) -> list[str]:
    """The ids of all containers that carry this workspace's label, running or not."""
    return process.run(
        ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={workspace.root}"]
    ).stdout.split()


def lost_sight_of(workspace: Workspace) -> list[str]:
    """Containers of this lab that Vagrant does not know: it, or its .vagrant folder, was killed."""
    known = vagrant.ids(workspace)
    return [container for container in own_containers(workspace) if container not in known]


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Tell Vagrant again which containers are its machines, by their names."""
    for container in lost_sight_of(workspace):
        words = ["docker", "inspect", "--format", "{{.Name}}", container]
        name = process.run(words).stdout.strip().removeprefix("/")
        for node in lab.nodes:
            if name == machine_name(lab, node):
                vagrant.remember(workspace, node.name, "docker", container)


def _stop_unconnected(workspace: Workspace, log: Path) -> None:
    """Stop machines without the lab's network: Vagrant attaches it to those only that it starts.

    A Vagrant that was killed between creating a machine and connecting it leaves such a one.
    """
    template = "{{.State.Running}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    for container in own_containers(workspace):
        words = process.run(["docker", "inspect", "--format", template, container]).stdout.split()
        if words[0] == "true" and not set(words[1:]) - {"bridge"}:
            process.run(["docker", "stop", "--time", "5", container], log=log, timeout=60)


def network_name(lab: Lab) -> str:
    """What Vagrant's docker provider calls the network of a lab (its action/prepare_networks.rb)."""
    return f"vagrant_network_{lab.network.subnet}"
