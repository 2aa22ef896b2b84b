"""Decides what lab.yaml leaves to the host: the provider, and whether machines are emulated.

Existing machines decide it. This runs for every verb, so files are checked before a program is started.
"""

from __future__ import annotations

from lab.config import Choice
from lab.config.shape import File
from lab.host import hypervisor
from lab.model import Lab, Libvirt, Provider
from lab.workspace import Workspace, made


def settle(file: File, workspace: Workspace) -> Choice:
    """Resolve the file's `auto` for this lab on this host."""
    record = made.read(workspace) if workspace.has_machines() else None
    lab = record.lab if record else None
    provider = _provider(file, lab)
    return Choice(provider, provider == "libvirt" and _emulated(file, lab))


def _provider(file: File, existing: Lab | None) -> Provider:
    """The provider in the file; else that of existing machines; else the best one on this host."""
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
    """Whether KVM can't be used. If that can't be determined yet, False; checked again after `bake`."""
    if file.libvirt.emulated != "auto":
        return file.libvirt.emulated == "true"
    if existing is not None and existing.libvirt is not None:
        return existing.libvirt.emulated
    if Libvirt(uri=file.libvirt.uri).remote:
        return False  # the other host's KVM can't be tested from here; set it in lab.yaml
    return hypervisor.kvm() is False
