"""Machines that are containers; uses docker itself where Vagrant is slower or can't do it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import CommandFailed, LabError
from lab.model import Lab, Node, machine_called, machine_name, owner_label
from lab.providers import vagrant
from lab.providers.docker import checkpoints, client, freezer
from lab.providers.explained import raise_refused
from lab.providers.protocol import MachineState
from lab.providers.vagrant import LoggedVagrant
from lab.system import quoting
from lab.workspace import Workspace, made

TRANSIENT_ERRORS = ("No such object", "No such network")
"""Vagrant inspects every container and network of the host, and fails if one is removed meanwhile."""

STATES: dict[str, MachineState] = {
    "created": "stopped",
    "running": "running",
    "restarting": "running",
    "paused": "paused",
    "removing": "absent",
    "exited": "stopped",
    "dead": "stopped",
}
"""docker's container states (`docker ps --help`, the filter `status`) → MachineState."""

KILLED = 137
"""The exit code of a container that was killed by SIGKILL: 128 plus the signal's number."""


def boot(workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
    """Create and start machines that don't run, without provisioning: those named, or all."""
    _stop_unconnected(workspace, log, names)
    vagrant.up(workspace, log, provider="docker", names=names, transient=TRANSIENT_ERRORS)


def remove(workspace: Workspace, log: Path) -> None:
    """Remove every machine, the network and the checkpoints, also machines that Vagrant has lost track of.

    Continues after a refused removal. Raises LabStateError with all refusals at the end.
    """
    if _was_never_used(workspace):
        return
    # First, and in parallel: Vagrant would stop them one after another.
    refused: list[LabError] = [*_removal_failures(own_containers(workspace), log)]
    kept = ""
    if workspace.vagrantfile.exists() and vagrant.known(workspace):
        try:
            LoggedVagrant(workspace, log).destroy()
        except CommandFailed as error:
            # This failure does not matter: Vagrant's records are removed with the folder.
            refused += [] if refused or not own_containers(workspace) else [error]
    # Found by its label, so that another project's network with the same subnet is never removed.
    own = ("network", "ls", "--quiet", "--filter", f"label={owner_label(made.owner(workspace))}")
    try:
        networks = client.run(*own, timeout=client.ASK_TIMEOUT).stdout.split()
    except CommandFailed as error:
        networks = []
        refused.append(error)
    for network in networks:
        try:
            client.run("network", "rm", network, log=log, timeout=client.CHANGE_TIMEOUT)
        except CommandFailed as error:
            refused.append(error)
            kept = f"; `docker network inspect {network}` names the containers on it; disconnect yours"
    refused += checkpoints.removal_failures(workspace, log)
    label = quoting.word(f"label={owner_label(made.owner(workspace))}")
    raise_refused("docker", refused, f"`docker ps --all --filter {label}` shows it{kept}", log)


def remove_machines(lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
    """Remove these machines, their volumes, and Vagrant's records of them; the network stays."""
    if not _was_never_used(workspace):
        own, known = _own_by_name(workspace), vagrant.ids_by_name(workspace)
        ids = set(own.values())
        found = [own.get(machine_called(lab, name), known.get(name, "")) for name in names]
        _remove_containers([container for container in found if container in ids], log)
    for name in names:
        vagrant.forget(workspace, name)


def unknown_to_vagrant(workspace: Workspace) -> list[str]:
    """The ids of this lab's containers that Vagrant does not know."""
    known = vagrant.ids(workspace)
    return [container for container in own_containers(workspace) if container not in known]


def adopt(lab: Lab, workspace: Workspace) -> None:
    """Register containers with Vagrant again, by their names."""
    for container in unknown_to_vagrant(workspace):
        words = ("inspect", "--format", "{{.Name}}", container)
        name = client.run(*words, timeout=client.ASK_TIMEOUT).stdout.strip().removeprefix("/")
        for node in lab.nodes:
            if name == machine_name(lab, node):
                vagrant.remember(workspace, node.name, "docker", container)


def state(lab: Lab, node: Node) -> MachineState:
    """The state of one machine."""
    said = _inspect(lab, node, "{{.State.Status}}")
    return "absent" if said is None else STATES[said]


def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
    """The state of every machine in `lab`, by its name there, in one command."""
    found = {name: said for name, _, said in _own_rows(workspace)}
    return {node.name: found.get(machine_name(lab, node), "absent") for node in lab.nodes}


def start(lab: Lab, node: Node) -> None:
    """Start a machine that is stopped."""
    client.run("start", machine_name(lab, node), timeout=client.CHANGE_TIMEOUT)


def stop(lab: Lab, node: Node, timeout: float) -> bool:
    """Shut a running machine down: its init gets the container's stop signal, SIGRTMIN+3."""
    name = machine_name(lab, node)
    client.run("stop", "--time", f"{timeout:.0f}", name, timeout=timeout + 60)
    return _inspect(lab, node, "{{.State.ExitCode}}") != str(KILLED)


def resume(lab: Lab, node: Node) -> None:
    """Resume a paused machine."""
    client.run("unpause", machine_name(lab, node), timeout=60)


def cut(lab: Lab, node: Node, silent: Callable[[], None]) -> None:
    """Cut the power of a running machine; `silent` is called before docker has stopped it."""
    # A container takes a second to stop, and the kernel accepts connections until then. A machine without power
    # does not respond at all, so its network is disconnected first.
    name = machine_name(lab, node)
    client.run("exec", name, "ip", "link", "set", "group", "default", "down", timeout=60)
    silent()
    client.run("kill", name, timeout=60)


def resize(lab: Lab, node: Node) -> None:
    """Nothing to do: containers have no limits and take what they use (docs/DESIGN.md)."""


def own_containers(workspace: Workspace) -> list[str]:
    """The ids of all containers with this workspace's label, running or not."""
    words = ("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={owner_label(made.owner(workspace))}")
    return client.run(*words, timeout=client.ASK_TIMEOUT).stdout.split()


def containers_named(pattern: str) -> list[str]:
    """The ids of all running containers with a matching name, of any lab."""
    words = ("ps", "--quiet", "--no-trunc", "--filter", f"name={pattern}")
    return client.run(*words, timeout=client.ASK_TIMEOUT).stdout.split()


def _own_rows(workspace: Workspace) -> list[tuple[str, str, MachineState]]:
    """Name, id and state of each container with this lab's label."""
    words = ("ps", "--all", "--no-trunc", "--filter", f"label={owner_label(made.owner(workspace))}")
    columns = "{{.ID}} {{.State}} {{.Names}} {{.Networks}}"
    lines = client.run(*words, "--format", columns, timeout=client.ASK_TIMEOUT).stdout.splitlines()
    rows = []
    for line in lines:
        container, said, names, *networks = line.split()
        connected = set(",".join(networks).split(",")) - {"", "bridge"}
        # It is also listed with other containers' names for it, as `other/alias`.
        name = next((each for each in names.split(",") if "/" not in each), names)
        rows.append((name, container, STATES[said] if connected else "incomplete"))
    return rows


def _own_by_name(workspace: Workspace) -> dict[str, str]:
    return {name: container for name, container, _ in _own_rows(workspace)}


def _inspect(lab: Lab, node: Node, template: str) -> str | None:
    """One property of a machine's container; None if there is no such container."""
    words = ("inspect", "--type", "container", "--format", template, machine_name(lab, node))
    try:
        return client.run(*words, timeout=client.ASK_TIMEOUT).stdout.strip()
    except CommandFailed as error:
        if client.NO_SUCH in error.tail.lower():
            return None
        raise


def _was_never_used(workspace: Workspace) -> bool:
    """Whether the lab was at most rendered, so that there is nothing to remove and docker need not be asked."""
    return shutil.which("docker") is None and not vagrant.known(workspace)


def _remove_containers(containers: Sequence[str], log: Path) -> None:
    for failure in _removal_failures(containers, log):
        raise failure


def _removal_failures(containers: Sequence[str], log: Path) -> list[LabError]:
    """Remove containers with their volumes, in parallel; return the failures. Some may not exist."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        removals = [pool.submit(_remove_container, container, log) for container in containers]
    failures: list[LabError] = []
    for removal in removals:
        try:
            removal.result()
        except CommandFailed as error:
            if client.NO_SUCH not in error.tail.lower():
                failures.append(error)
        except LabError as error:
            failures.append(error)
    return failures


def _remove_container(container: str, log: Path) -> None:
    words = ("rm", "--force", "--volumes", container)
    try:
        client.run(*words, log=log, timeout=client.CHANGE_TIMEOUT)
    except CommandFailed as error:
        if freezer.DID_NOT_END not in error.tail or not freezer.thaw(container):
            raise
        client.run(*words, log=log, timeout=client.CHANGE_TIMEOUT)


def _stop_unconnected(workspace: Workspace, log: Path, names: Sequence[str] | None) -> None:
    """Stop machines that are not on the lab's network: Vagrant only connects machines that it starts.

    A Vagrant that was killed between creating and connecting a machine leaves such a one. Only machines that
    are about to be started: all, or those named.
    """
    template = "{{.State.Running}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    known = vagrant.ids_by_name(workspace)
    wanted = None if names is None else {known.get(name) for name in names}
    for container in own_containers(workspace):
        if wanted is not None and container not in wanted:
            continue
        asked = ("inspect", "--format", template, container)
        words = client.run(*asked, timeout=client.ASK_TIMEOUT).stdout.split()
        if words[0] == "true" and not set(words[1:]) - {"bridge"}:
            client.run("stop", "--time", "5", container, log=log, timeout=60)
