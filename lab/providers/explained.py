"""Explains errors of docker and hypervisors that prevent creating or removing a lab's machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandFailed, LabError, LabStateError
from lab.system.meaning import NO_SPACE, Meaning, meaning_of

KVM_HOLDS = (
    "KVM uses the processor's virtualization, which VirtualBox needs exclusively",
    "end what runs on KVM and unload its modules: `./inv doctor` shows the command",
)

# The first match is reported.
MEANINGS = (
    Meaning(
        "is already in use by container",
        "docker has containers with this lab's names that the lab did not create, or has lost track of",
        "`docker ps -a` shows them: `docker rename` those of others, or give this lab another `name:` in "
        "lab.yaml; `./inv up` uses the lab's own again",
    ),
    Meaning(
        "Pool overlaps with other one",
        "another docker network already uses the lab's subnet",
        "`docker network ls` shows it; choose another network.subnet in lab.yaml",
    ),
    Meaning(
        "about to create is already taken",
        "libvirt has machines with this lab's names that the lab did not create, or has lost track of",
        "`virsh list --all` shows them; give this lab another `name:` in lab.yaml, or remove them",
    ),
    Meaning(
        "Volume for domain is already created",
        "the storage pool has a disk of one of this lab's machines, without the machine",
        "`virsh vol-list default` shows it; `./inv doctor` shows what to do",
    ),
    *NO_SPACE,
    Meaning(
        "Network is already in use",
        "another libvirt network already uses the lab's subnet",
        "`virsh net-list --all` shows it; choose another network.subnet in lab.yaml",
    ),
    Meaning(
        "another VM with that name already exists",
        "VirtualBox has machines with this lab's names that the lab did not create, or has lost track of",
        "`VBoxManage list vms` shows them; give this lab another `name:` in lab.yaml, or remove them",
    ),
    Meaning(
        "host-only network is not within the",
        "VirtualBox does not allow the lab's subnet",
        "`./inv doctor` shows the lines for /etc/vbox/networks.conf; or choose a subnet in 192.168.56.0/21",
    ),
    Meaning("VERR_VMX_IN_VMX_ROOT_MODE", *KVM_HOLDS),
    Meaning("VERR_SVM_IN_USE", *KVM_HOLDS),
    Meaning(
        "Failed to apply firewall rules",
        "libvirt could not set the firewall rules that its networks need",
        "run `iptables -S` to see whether it is installed and the kernel supports it; then restart libvirtd",
    ),
    Meaning(
        "wait_for timeout",
        "a machine got no address on the management network",
        "a firewall of this host may drop DHCP (UDP port 67) on libvirt's bridges, virbr*: let it pass",
    ),
)


def raise_refused(who: str, refused: Sequence[LabError], hint: str, log: Path) -> None:
    """Raise LabStateError with everything that could not be removed, if anything."""
    if refused:
        said = "\n".join(dict.fromkeys(error.message for error in refused))
        raise LabStateError(
            f"{who} did not remove everything of this lab:\n{said}",
            hint=f"`./inv destroy` again removes the rest; {hint}",
            log=log,
        ) from refused[0]


def raise_explained(error: CommandFailed, said: str, log: Path) -> None:
    """Raise LabStateError with an explanation if MEANINGS has one for the output; otherwise return."""
    found = meaning_of(said, MEANINGS)
    if found:
        raise LabStateError(found.sentence, hint=f"{found.hint} ({log})", log=log) from error
