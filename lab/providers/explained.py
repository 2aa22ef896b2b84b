"""What it means for the lab when docker or a hypervisor refuses to make its machines, or to remove them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandFailed, LabError, LabStateError
from lab.system.meaning import NO_SPACE, Meaning, meaning_of

KVM_HOLDS = (
    "KVM holds the processor's virtualization, which VirtualBox wants for itself",
    "end what runs on KVM and unload its modules: `./inv doctor` has the command",
)

# The first that fits is reported.
MEANINGS = (
    Meaning(
        "is already in use by container",
        "docker has containers with this lab's names that the lab did not make, or has lost",
        "`docker ps -a` shows them: `docker rename` those of others, or give this lab another `name:` in "
        "lab.yaml; `./inv up` takes back the lab's own",
    ),
    Meaning(
        "Pool overlaps with other one",
        "another docker network already uses the lab's subnet",
        "`docker network ls` shows it; choose another network.subnet in lab.yaml",
    ),
    Meaning(
        "about to create is already taken",
        "libvirt has machines with this lab's names that the lab did not make, or has lost",
        "`virsh list --all` shows them; give this lab another `name:` in lab.yaml, or remove them",
    ),
    Meaning(
        "Volume for domain is already created",
        "the storage pool has a disk of one of this lab's machines, without the machine",
        "`virsh vol-list default` shows it; `./inv doctor` says what to do",
    ),
    *NO_SPACE,
    Meaning(
        "Network is already in use",
        "another network of libvirt's already uses the lab's subnet",
        "`virsh net-list --all` shows it; choose another network.subnet in lab.yaml",
    ),
    Meaning(
        "another VM with that name already exists",
        "VirtualBox has machines with this lab's names that the lab did not make, or has lost",
        "`VBoxManage list vms` shows them; give this lab another `name:` in lab.yaml, or remove them",
    ),
    Meaning(
        "host-only network is not within the",
        "VirtualBox does not allow the lab's subnet",
        "`./inv doctor` has the lines for /etc/vbox/networks.conf; or choose a subnet in 192.168.56.0/21",
    ),
    Meaning("VERR_VMX_IN_VMX_ROOT_MODE", *KVM_HOLDS),
    Meaning("VERR_SVM_IN_USE", *KVM_HOLDS),
    Meaning(
        "Failed to apply firewall rules",
        "libvirt could not set the firewall rules that its networks need",
        "is iptables installed, and does the kernel have it? `iptables -S` says; then restart libvirtd",
    ),
    Meaning(
        "wait_for timeout",
        "a machine got no address on the management network",
        "a firewall of this host may drop DHCP (UDP port 67) on libvirt's bridges, virbr*: let it pass",
    ),
)


def raise_refused(who: str, refused: Sequence[LabError], hint: str, log: Path) -> None:
    """Raise LabStateError with all that was refused while a lab was removed; nothing where nothing was."""
    if refused:
        said = "\n".join(dict.fromkeys(error.message for error in refused))
        raise LabStateError(
            f"{who} did not remove everything of this lab:\n{said}",
            hint=f"`./inv destroy` again removes the rest; {hint}",
            log=log,
        ) from refused[0]


def raise_explained(error: CommandFailed, said: str, log: Path) -> None:
    """Raise LabStateError with a sentence about the lab, where what was said has one; else nothing."""
    found = meaning_of(said, MEANINGS)
    if found:
        raise LabStateError(found.sentence, hint=f"{found.hint} ({log})", log=log) from error
