"""Checks VirtualBox: its version, driver and networks, and other machines with our names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lab.host import Unknown
from lab.host.doctor import addresses, resources, tools
from lab.host.doctor.case import Case, Check
from lab.host.doctor.finding import Finding, fit, note, unfit
from lab.host.doctor.tools import Tool
from lab.model import machine_name
from lab.providers.virtualbox.host import ALLOWED, VirtualBoxHost
from lab.system import quoting

NEWEST = {(2, 3, 2): (7, 0), (2, 4, 2): (7, 1), (2, 4, 9): (7, 2)}
"""The newest VirtualBox that a Vagrant version supports, from its changelog; earlier ones support 6.1."""
OLDEST = (6, 1)
RANGES = (6, 1, 28)
"""The first VirtualBox that restricts the addresses of host-only networks."""

MACHINE_MIB = 1536
"""How much a clone's disk grows, in MiB; the same as libvirt's."""
GOLDEN_MIB = 2560
"""The size of the machine that others are cloned from, in MiB: its disk is not compressed."""

NETWORKS_FILE = "/etc/vbox/networks.conf"
_CLIENT = "It creates the machines."

TOOLS = (Tool("qemu-img", "bake", ("qemu-utils",), "QEMU", "it converts the disk for VirtualBox"),)


def program(case: Case) -> Iterator[Finding]:
    """Is VirtualBox installed, and does this Vagrant support it?"""
    check, title, found = "virtualbox", "VirtualBox", _host(case).version
    if isinstance(found, Unknown):
        missing = "no such program" in found.reason
        what = "is not installed" if missing else f"gives no clear answer: {found.reason}"
        repair = (
            "# install VirtualBox from Oracle; Debian has no package"
            if missing
            else ("VBoxManage --version   # what does it print?")
        )
        yield unfit(check, title, what, _CLIENT, repair)
        return
    version, vagrant = ".".join(map(str, found)), case.host.vagrant
    if found < OLDEST:
        why = "The kit supports VirtualBox 6.1 and later."
        yield unfit(check, title, f"{version} is too old", why, "# install VirtualBox 6.1 or later")
    elif isinstance(vagrant, Unknown):
        yield note(check, title, version, "Whether Vagrant supports it could not be determined.")
    elif found[:2] > _newest(vagrant):
        known = ".".join(map(str, _newest(vagrant)))
        needed = min((first for first, newest in NEWEST.items() if newest >= found[:2]), default=None)
        other = f"Vagrant {'.'.join(map(str, needed))} or later, or " if needed else "a newer Vagrant, or "
        what = f"{version} is newer than Vagrant {'.'.join(map(str, vagrant))} supports, which is up to {known}"
        yield unfit(check, title, what, "Vagrant would refuse it.", f"# install {other}VirtualBox {known}")
    else:
        yield fit(check, title, version)


def driver(case: Case) -> Iterator[Finding]:
    """Is its driver loaded, and is the processor's virtualization available?"""
    found = _host(case)
    if isinstance(found.version, Unknown):
        return
    if not found.driver:
        repair = "sudo modprobe vboxdrv || sudo /sbin/vboxconfig   # rebuilds the driver"
        yield unfit("vboxdrv", "VirtualBox's driver", "is not loaded", "No machine starts without it.", repair)
    if found.kvm:
        why = (
            "Only one hypervisor can use the processor's virtualization; VirtualBox's machines would not start."
        )
        repair = "sudo modprobe -r kvm_intel kvm_amd kvm   # first end what runs on KVM; or: provider: libvirt"
        yield unfit("kvm", "KVM", "uses the processor's virtualization", why, repair)


def subnet(case: Case) -> Iterator[Finding]:
    """Is the lab's subnet allowed? Vagrant and VirtualBox both refuse others."""
    found, wanted = _host(case), case.lab.network.subnet
    check, title = "network-host-only", "Host-only network"
    if isinstance(found.version, Unknown) or found.version < RANGES or _free_to_choose(case):
        return
    if isinstance(found.allowed, Unknown):
        yield note(check, title, found.allowed.reason, "VirtualBox may refuse the lab's network.")
    elif any(each.supernet_of(wanted) for each in found.allowed):
        yield fit(check, title, f"{wanted} is allowed")
    else:
        listed = ", ".join(map(str, found.allowed)) or "nowhere"
        # The file replaces the default, so what is already allowed is repeated.
        lines = "".join(f"* {each}\\n" for each in (*found.allowed, wanted))
        repair = (
            f"sudo mkdir -p /etc/vbox && printf '{lines}' | sudo tee {NETWORKS_FILE}\n"
            f"# or choose a network.subnet within {ALLOWED[0]} in lab.yaml"
        )
        why = f"VirtualBox allows host-only networks in {listed} ({NETWORKS_FILE})."
        yield unfit(check, title, f"{wanted} is not allowed", why, repair)


def disk(case: Case) -> Iterator[Finding]:
    """Is there space for the machines that don't exist yet, and for the one that they are cloned from?"""
    found, check, title = _host(case), "machines-folder", "VirtualBox's machines"
    if isinstance(found.version, Unknown):
        return
    if isinstance(found.folder, Unknown):
        yield note(check, title, found.folder.reason, "It may fill up during the run.")
        return
    missing = 0 if isinstance(found.machines, Unknown) else len(case.lab.nodes) - len(found.own)
    needed = missing * MACHINE_MIB + (GOLDEN_MIB if missing else 0)
    what = f"{found.folder.free} MiB free in {found.folder.path}, {needed} MiB needed"
    if found.folder.free < needed:
        repair = "VBoxManage list vms   # what could be deleted\n./inv bake --prune  # old boxes"
        yield unfit(check, title, what, "A machine is paused when its disk is full.", repair)
    else:
        yield fit(check, title, what)


def names(case: Case) -> Iterator[Finding]:
    """Is there a machine with our names that this lab did not create?"""
    found = _host(case)
    if isinstance(found.version, Unknown):
        return
    if isinstance(found.machines, Unknown):
        yield note("names", "Names", f"could not be asked: {found.machines.reason}", "Some may be in use.")
        return
    taken = [machine_name(case.lab, node) for node in case.lab.nodes]
    foreign = [name for name in taken if name in found.machines and found.machines[name] not in found.own]
    if foreign:
        why = "VirtualBox's names are unique, so the machines could not be created. Others are not removed."
        machine = quoting.word(foreign[0])
        repair = f"VBoxManage showvminfo {machine}   # what is it?\n# or give this lab another `name:`"
        what = f"machines exist that this lab did not create: {', '.join(foreign)}"
        yield unfit("names", "Names", what, why, repair)
    else:
        yield fit("names", "Names", "free, or this lab's own")


def _newest(vagrant: tuple[int, ...]) -> tuple[int, int]:
    return max((newest for first, newest in NEWEST.items() if vagrant >= first), default=OLDEST)


def _free_to_choose(case: Case) -> bool:
    """Whether any subnet is allowed: on Windows, and on macOS since VirtualBox 7."""
    version = _host(case).version
    return case.host.system == "wsl" or (
        case.host.system == "macos" and not isinstance(version, Unknown) and version >= (7, 0)
    )


def _host(case: Case) -> VirtualBoxHost:
    found, unasked = case.host.provider, Unknown("VirtualBox was not asked")
    return found if isinstance(found, VirtualBoxHost) else VirtualBoxHost(unasked, driver=False)


def networks(case: Case) -> Iterable[Finding]:
    """Does any of the lab's networks overlap another?"""
    return addresses.networks(case, "VirtualBox", has_nat=True)


# In the order of repairs: what the next check depends on comes first.
CHECKS: tuple[Check, ...] = (
    program,
    tools.vagrant,
    driver,
    resources.memory,
    resources.disk,
    resources.folders,
    networks,
    disk,
    subnet,
    names,
)
