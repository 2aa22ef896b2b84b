"""This room settles what lab.yaml leaves to the host: which provider, and whether its machines are emulated.

Machines that exist have settled it. It is asked for every verb, so files are looked at before anything is
started.
"""

from __future__ import annotations

from lab.config import Choice
from lab.config.shape import File
from lab.host import hypervisor
from lab.model import Libvirt, Provider
from lab.workspace import Workspace


def settle(file: File, workspace: Workspace) -> Choice:
    """Return what the file's `auto` comes to here, for this lab."""
    made = workspace.read_identity() if workspace.has_machines() else {}
    provider = _provider(file, made)
    return Choice(provider, provider == "libvirt" and _emulated(file, made))


def _provider(file: File, made: dict[str, object]) -> Provider:
    """The file's own word; else the provider of the machines there are; else what this host does best."""
    if file.provider != "auto":
        return file.provider
    for known in ("docker", "libvirt", "virtualbox"):
        if made.get("provider") == known:
            return known
    if (
        hypervisor.KVM.exists()
        and hypervisor.plugin()
        and hypervisor.libvirtd_answers()
        and hypervisor.kvm() is True
    ):
        return "libvirt"
    return "virtualbox" if hypervisor.virtualbox() else "docker"


def _emulated(file: File, made: dict[str, object]) -> bool:
    """Whether KVM can't be used. What can't be found out yet is a no, and asked again after `bake`."""
    if file.libvirt.emulated != "auto":
        return file.libvirt.emulated == "true"
    settings = made.get("libvirt")
    if isinstance(settings, dict) and "emulated" in settings:
        return settings["emulated"] is True
    if Libvirt(uri=file.libvirt.uri).remote:
        return False  # that host's KVM can't be tried from here; lab.yaml can say
    return hypervisor.kvm() is False
