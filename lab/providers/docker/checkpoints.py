"""The states of machines that are containers, as copies in a docker volume for each checkpoint.

A machine's state is its container's own layer (the upper directory of docker's overlay) and its volumes. The
container itself stays, with its id, its address and its settings. A helper container of the same image, started
for each copy, has these folders mounted, so that the user who runs this needs no access to docker's folders,
and the copies stay as private as docker's data. docs/decisions/0030 has the reasons.

The layer may be changed while its overlay is not mounted (the kernel's overlayfs.rst, "Changes to underlying
filesystems"), which docker mounts only while the container runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import CommandFailed, LabError, LabStateError
from lab.model import LABEL, Lab, Node, machine_name
from lab.providers.docker import client
from lab.providers.protocol import Room
from lab.workspace import Workspace, made
from lab.workspace.checkpoints import Saved

COPY_TIMEOUT = 900.0
"""Seconds for one machine's state; 5 are usual for all of seven machines."""

FULL = "docker's disk may be full: `./inv checkpoints` shows what its checkpoints take"

OTHER_IMAGE = "the machine was created again since, from another golden machine"

LAYER = "layer"
"""The folder with a container's own layer; the other folders are named after their volumes' places."""

# `trusted.` attributes, such as those that mark a folder of the overlay as opaque, are only visible with
# CAP_SYS_ADMIN (xattr(7)). SELinux would refuse one container the files of another.
HELPER = (
    *("run", "--rm", "--interactive", "--network", "none", "--entrypoint", "/bin/sh"),
    *("--cap-add", "SYS_ADMIN", "--security-opt", "label=disable"),
)

COPY = "cp --archive --preserve=xattr --reflink=auto --sparse=auto"

# The scripts go to the helper's standard input, so that an error does not show them. $1 is the machine's name;
# below /machine are the folders of its state, below /checkpoint those of all machines. A checkpoint counts as
# complete only once it is on disk (syncfs).
SAVE = f"""set -eu
rm -rf "/checkpoint/$1"
{COPY} /machine "/checkpoint/$1"
sync --file-system /checkpoint
du --summarize --block-size=1M "/checkpoint/$1"
"""

# The folders themselves are mounts, so they are emptied and filled, once all copies are known to exist.
LOAD = f"""set -eu
for folder in /machine/*; do
	[ -d "/checkpoint/$1/${{folder##*/}}" ] || {{
		echo "the checkpoint has no copy of ${{folder##*/}}" >&2
		exit 1
	}}
done
for folder in /machine/*; do
	find "$folder" -mindepth 1 -delete
	{COPY} "/checkpoint/$1/${{folder##*/}}/." "$folder/"
done
sync --file-system /machine/*
"""

# Running machines remove files meanwhile, which du reports as errors.
ROOM = """for folder in /machines/*/*; do break; done
df --block-size=1M --output=avail "$folder" | tail --lines=1
du --summarize --block-size=1M /machines 2>/dev/null || true
"""


@dataclass(frozen=True)
class _Container:
    """A machine's container. `folders` are those of its state: name → path on docker's host, or volume."""

    image: str
    folders: Mapping[str, str]
    running: bool


def room(lab: Lab, workspace: Workspace) -> Room:
    """The MiB of all machines' layers and volumes, and what is free where docker keeps its data."""
    found = {node.name: container for node in lab.nodes if (container := _container(lab, node))}
    if not found:
        return Room(0, 0)
    mounts = [
        word
        for name, container in found.items()
        for word in _mounts(container, f"/machines/{name}", readonly=True)
    ]
    image = next(iter(found.values())).image
    said = client.run(*HELPER, *mounts, image, "-s", stdin=ROOM, timeout=client.CHANGE_TIMEOUT).stdout.split()
    return Room(taken=int(said[1]), free=int(said[0]))


def save(lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> Saved:
    """Copy a stopped machine's layer and volumes to the checkpoint's volume. They are based on its image."""
    container = _stopped(lab, node)
    words = ("volume", "create", "--label", _label(workspace), _volume(lab, workspace, name))
    client.run(*words, timeout=client.CHANGE_TIMEOUT)
    said = _help(lab, workspace, node, container, name, SAVE)
    return Saved(mib=int(said.split()[0]), base=container.image)


def load(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved, log: Path) -> None:
    """Replace a stopped machine's layer and the contents of its volumes by their copies."""
    container = _stopped(lab, node)
    if container.image != saved.base:
        raise LabStateError(f"{node.name}: {OTHER_IMAGE}", hint="`./inv checkpoints` lists the others")
    _help(lab, workspace, node, container, name, LOAD)


def problem(lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved) -> str | None:
    """Whether the machine has another image, or the volume is gone, which has all machines in it."""
    container, volume = _container(lab, node), _volume(lab, workspace, name)
    if container and container.image != saved.base:
        return OTHER_IMAGE
    words = ("volume", "inspect", "--format", "{{.Name}}", volume)
    try:
        client.run(*words, timeout=client.ASK_TIMEOUT)
    except CommandFailed as error:
        if client.NO_SUCH in error.tail.lower():
            return f"docker's volume {volume} is gone"
        raise
    return None


def discard(lab: Lab, workspace: Workspace, name: str, log: Path) -> None:
    """Remove the checkpoint's volume, and helpers of a killed run that still use it."""
    _end_helpers(workspace, log)
    words = ("volume", "rm", "--force", _volume(lab, workspace, name))
    client.run(*words, log=log, timeout=client.CHANGE_TIMEOUT)


def removal_failures(workspace: Workspace, log: Path) -> list[LabError]:
    """Remove everything of all checkpoints; return the failures."""
    failures: list[LabError] = []
    words = ("volume", "ls", "--quiet", "--filter", f"label={_label(workspace)}")
    try:
        _end_helpers(workspace, log)
        volumes = client.run(*words, timeout=client.ASK_TIMEOUT).stdout.split()
    except CommandFailed as error:
        return [error]
    for volume in volumes:
        try:
            client.run("volume", "rm", volume, log=log, timeout=client.CHANGE_TIMEOUT)
        except CommandFailed as error:
            failures.append(error)
    return failures


def _help(lab: Lab, workspace: Workspace, node: Node, container: _Container, name: str, script: str) -> str:
    """Run a script in a helper container beside a stopped machine; return what it prints."""
    helper = f"{machine_name(lab, node)}-checkpoint"
    # That of a killed run may still be copying: ending docker's client does not end the container.
    client.run("rm", "--force", helper, accept=None, timeout=client.CHANGE_TIMEOUT)
    volume = f"type=volume,source={_volume(lab, workspace, name)},target=/checkpoint"
    words = (*HELPER, "--name", helper, "--label", _label(workspace), *_mounts(container, "/machine"))
    command = ("--mount", volume, container.image, "-s", node.name)
    return client.run(*words, *command, stdin=script, timeout=COPY_TIMEOUT, hint=FULL).stdout.strip()


def _stopped(lab: Lab, node: Node) -> _Container:
    """A stopped machine's container. Raises LabStateError if it runs or does not exist."""
    container = _container(lab, node)
    if container is None or container.running:
        state = "does not exist" if container is None else "runs again"
        raise LabStateError(
            f"{node.name} {state}, so its files can't be copied",
            hint="`docker ps --all` shows it; then try again",
        )
    return container


def _container(lab: Lab, node: Node) -> _Container | None:
    """A machine's container; None if there is none.

    Raises LabStateError if docker does not say where its layer is.
    """
    try:
        words = ("inspect", "--type", "container", machine_name(lab, node))
        about: dict[str, Any] = json.loads(client.run(*words, timeout=client.ASK_TIMEOUT).stdout)[0]
    except CommandFailed as error:
        if client.NO_SUCH in error.tail.lower():
            return None
        raise
    driver = about.get("GraphDriver") or {}
    layer = (driver.get("Data") or {}).get("UpperDir")
    if not layer:
        kind = driver.get("Name") or about.get("Driver") or "its image store"
        raise LabStateError(
            f"docker keeps machines with {kind}, and checkpoints need its storage driver overlay2",
            hint="`docker info` shows the driver; docs/checkpoints.md has what checkpoints need",
        )
    volumes = {each["Destination"]: each["Name"] for each in about["Mounts"] if each["Type"] == "volume"}
    names = {place.strip("/").replace("/", "-"): name for place, name in sorted(volumes.items())}
    return _Container(about["Image"], {LAYER: layer} | names, about["State"]["Running"])


def _mounts(container: _Container, below: str, *, readonly: bool = False) -> Sequence[str]:
    """The options that mount the folders of a machine's state below that folder."""
    words: list[str] = []
    for name, source in container.folders.items():
        kind = "bind" if source.startswith("/") else "volume"
        end = ",readonly" if readonly else ""
        words += ["--mount", f"type={kind},source={source},target={below}/{name}{end}"]
    return words


def _volume(lab: Lab, workspace: Workspace, name: str) -> str:
    """The name of a checkpoint's volume: another lab of that name, on this host or before, has another one."""
    mark = hashlib.sha256(made.owner(workspace).encode()).hexdigest()[:8]
    return f"{lab.name}-{mark}-checkpoint-{name}"


def _label(workspace: Workspace) -> str:
    """The label on volumes and helpers. Not that of machines, since the helpers are none."""
    return f"{LABEL}.checkpoint={made.owner(workspace)}"


def _end_helpers(workspace: Workspace, log: Path) -> None:
    words = ("ps", "--all", "--quiet", "--filter", f"label={_label(workspace)}")
    for helper in client.run(*words, timeout=client.ASK_TIMEOUT).stdout.split():
        client.run("rm", "--force", helper, accept=None, log=log, timeout=client.CHANGE_TIMEOUT)
