"""Settles what lab.yaml leaves to the host: which provider, and whether its machines are emulated.

Machines that exist have settled it. It is asked for every verb, so files are looked at before anything is
started.
"""

from __future__ import annotations

from lab.config import Choice
from lab.config.shape import File
from lab.host import hypervisor
from lab.model import Lab, Libvirt, Provider
from lab.workspace import Workspace, made


def settle(file: File, workspace: Workspace) -> Choice:
    """Return what the file's `auto` comes to here, for this lab."""
    record = made.read(workspace) if workspace.has_machines() else None
    lab = record.lab if record else None
    provider = _provider(file, lab)
    return Choice(provider, provider == "libvirt" and _emulated(file, lab))


def _provider(file: File, existing: Lab | None) -> Provider:
    """The file's own word; else the provider of the machines there are; else what this host does best."""
    if file.provider != "auto":
        return file.provider
    if existing is not None:
        return existing.provider
    if (
        hypervisor.KVM.exists()
        and hypervisor.plugin()
        and hypervisor.libvirtd_answers()
        and hypervisor.kvm() is True
    ):
        return "libvirt"
    return "virtualbox" if hypervisor.virtualbox() else "docker"


def _emulated(file: File, existing: Lab | None) -> bool:
    """Whether KVM can't be used. What can't be found out yet is a no, and asked again after `bake`."""
    if file.libvirt.emulated != "auto":
        return file.libvirt.emulated == "true"
    if existing is not None and existing.libvirt is not None:
        return existing.libvirt.emulated
    if Libvirt(uri=file.libvirt.uri).remote:
        return False  # that host's KVM can't be tried from here; lab.yaml can say
    return hypervisor.kvm() is False
