"""Runs libvirt's client, `virsh`, for changes; in English, since its output is parsed."""

from __future__ import annotations

from lab.errors import CommandFailed
from lab.host.ask import ENVIRONMENT
from lab.model import Lab, Libvirt
from lab.system import process
from lab.workspace import Workspace, made

NO_DOMAIN = "failed to get domain"
"""What virsh prints if there is no machine with a name."""


def settings_of(lab: Lab) -> Libvirt:
    """This lab's libvirt settings."""
    return lab.libvirt or Libvirt()


def settings_in(workspace: Workspace) -> Libvirt:
    """The libvirt settings of this workspace's machines."""
    record = made.read(workspace)
    return settings_of(record.lab) if record else Libvirt()


def argv(settings: Libvirt, *words: str) -> list[str]:
    """The virsh command for that libvirt."""
    return ["virsh", "--connect", settings.uri, *words]


def ask(settings: Libvirt, *words: str, timeout: float = 60) -> str:
    """What virsh prints. Raises CommandFailed."""
    return process.run(argv(settings, *words), timeout=timeout, env=ENVIRONMENT).stdout.strip()


def ask_domain(settings: Libvirt, *words: str) -> str | None:
    """What virsh prints about one machine; None if there is no such machine. Raises CommandFailed."""
    try:
        return ask(settings, *words)
    except CommandFailed as error:
        if NO_DOMAIN in error.tail.lower():
            return None
        raise
