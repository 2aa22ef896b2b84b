"""Checks libvirt: its daemon, its hypervisors, its pool, and conflicts with other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from lab.errors import CommandFailed
from lab.host import Unknown
from lab.host.doctor import addresses, repairs, resources, tools
from lab.host.doctor.addresses import SUBNETS, free_network, used
from lab.host.doctor.case import Case, Check
from lab.host.doctor.finding import Action, Finding, fit, note, unfit
from lab.host.doctor.tools import Tool
from lab.model import EMULATION_PATIENCE, Libvirt, machine_name, owner_label
from lab.providers.libvirt import virsh
from lab.providers.libvirt.host import MANAGEMENT, Domain, LibvirtHost
from lab.system import process, quoting
from lab.system.progress import Progress
from lab.system.wait import wait_until

MACHINE_MIB = 1536
"""How much a machine's disk grows beyond the golden disk, in MiB; measured after a bring-up, with a margin."""

BOX_MIB = 1024
"""The golden disk's size in the pool, in MiB."""

POOL_FOLDER = "/var/lib/libvirt/images"
START = {
    True: (Action(("systemctl", "start", "libvirtd")),),
    False: (Action(("virtlogd", "--daemon")), Action(("libvirtd", "--daemon"))),
}
"""How to start the daemon, by whether systemd runs. virtlogd keeps machines' consoles; it may run already."""

_DAEMON = "It creates the machines and their networks."


def _has_plugin(case: Case) -> bool:
    return _host(case).plugin


def _local(name: str) -> Callable[[Case], bool]:
    """Whether the host has a program; if the machines are on another host, only that host needs it."""
    return lambda case: bool(case.lab.remote_host) or name in case.host.programs


DAEMONS = ("libvirt-daemon-system", "dnsmasq-base")
"""libvirt's daemon, and the DHCP server for its networks."""

TOOLS = (
    Tool("virsh", "up", ("libvirt-clients",), "libvirt", "it is libvirt's client"),
    Tool("libvirtd", "up", DAEMONS, "libvirt", "it creates the machines", _local("libvirtd")),
    Tool(
        "qemu-system-x86_64",
        "up",
        ("qemu-system-x86",),
        "QEMU",
        "machines run in it",
        _local("qemu-system-x86_64"),
    ),
    Tool("qemu-img", "up", ("qemu-utils",), "QEMU", "the machines' disks are its files"),
    Tool("iptables", "up", ("iptables",), "iptables", "libvirt's networks need its rules", _local("iptables")),
    Tool(
        "vagrant-libvirt",
        "up",
        ("vagrant-libvirt",),
        "vagrant-libvirt",
        "Vagrant connects with it",
        _has_plugin,
    ),
)


def daemon(case: Case) -> Iterator[Finding]:
    """Does libvirt respond, and does this user have access?"""
    found, check, title = _host(case), "libvirtd", "libvirt"
    settings = _settings(case)
    if found.state == "answers":
        yield fit(check, title, f"{settings.uri} answers")
    elif settings.remote:
        repair = f"{_asked(settings)}   # shows what is wrong; it needs a key without a passphrase"
        yield unfit(check, title, f"{settings.uri} does not answer: {found.words}", _DAEMON, repair)
    elif found.state in ("absent", "no client"):
        what = "does not run" if found.state == "absent" else "can't be asked: virsh is not installed"
        actions = START[case.host.systemd]
        repair = "\n".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
        if found.state == "no client" and "apt-get" not in case.host.programs:
            yield unfit(check, title, what, _DAEMON, f"# install libvirt, then: {repair}")
        else:
            yield Finding(check, title, "repairable", what, _DAEMON, repair, actions, start)
    elif found.state == "denied":
        repair = "sudo usermod -aG libvirt $USER   # then log in again; members can become root"
        yield unfit(check, title, f"does not let this user in ({found.words})", _DAEMON, repair)
    else:
        repair = f"{_asked(settings)}   # shows what is wrong"
        yield unfit(check, title, f"gives no clear answer: {found.words}", _DAEMON, repair)


def plugin(case: Case) -> Iterator[Finding]:
    """Does Vagrant have its libvirt plugin? `packages` installs Debian's package."""
    if _host(case).plugin:
        yield fit("vagrant-libvirt", "Vagrant's plugin", "vagrant-libvirt is installed")
    elif "apt-get" not in case.host.programs:
        repair = "vagrant plugin install vagrant-libvirt"
        yield unfit("vagrant-libvirt", "Vagrant's plugin", "vagrant-libvirt is missing", _DAEMON, repair)


def hypervisor(case: Case) -> Iterator[Finding]:
    """Can it run machines, and are they emulated?"""
    found, check, title = _host(case), "hypervisor", "Hypervisor"
    if found.state == "answers" and "QEMU" not in found.hypervisor:
        repair = f"# install qemu-system-x86{' there' if case.lab.remote_host else ''}, and restart libvirtd"
        yield unfit(check, title, "libvirt has neither KVM nor QEMU", "No machine could run.", repair)
    elif case.lab.remote_host and not case.lab.emulated:
        what = f"machines will run on the KVM of {case.lab.remote_host}'s host, which can't be tested from here"
        why = "If it fails, no machine starts: then set `libvirt: {emulated: true}` in lab.yaml."
        yield note(check, title, what, why)
    elif case.lab.emulated:
        why = (
            f"Every step takes many times as long, so all timeouts are {EMULATION_PATIENCE} times as long; run "
            "nothing beside it, and set `network: {policy: none}`, which saves kube-router's CPU. A load "
            "balancer and a control plane take 12 minutes on two CPUs; with `provider: docker` they take one."
        )
        yield note(check, title, f"machines are emulated: {_why_emulated(case)}", why)
    elif found.kvm is False:
        why = "lab.yaml has `libvirt: {emulated: false}`, and no machine would start."
        repair = "# load kvm_intel or kvm_amd and join the group kvm, or set `emulated: auto` in lab.yaml"
        yield unfit(check, title, "KVM runs no kernel on this host", why, repair)
    elif isinstance(found.kvm, Unknown):
        yield note(
            check, title, f"KVM has not been tested: {found.kvm.reason}", "`up` tests it once it has baked."
        )
    else:
        yield fit(check, title, "KVM runs a kernel")


def kvm_device(case: Case) -> Iterator[Finding]:
    """May libvirt's own user open /dev/kvm? udev usually sets its mode, but not on hosts without udev."""
    if _host(case).kvm_closed:
        why = "libvirt runs machines as another user; without access it probes emulators for each question."
        actions = (Action(("chgrp", "kvm", "/dev/kvm")), Action(("chmod", "660", "/dev/kvm")))
        yield _repairable(
            case, "kvm-device", "KVM's device", "is not accessible to the group kvm", why, actions
        )


def pool(case: Case) -> Iterator[Finding]:
    """Does the storage pool exist, and is there space for the machines that don't exist yet?"""
    found, settings, check, title = _host(case), _settings(case), "pool", "Storage pool"
    if found.state != "answers":
        return
    why = "The machines' disks are in it."
    virsh = ("virsh", "--connect", settings.uri)
    if found.pool is None and settings.pool == Libvirt().pool:
        actions = (
            Action((*virsh, "pool-define-as", settings.pool, "dir", "--target", POOL_FOLDER)),
            Action((*virsh, "pool-build", settings.pool)),
            Action((*virsh, "pool-start", settings.pool)),
            Action((*virsh, "pool-autostart", settings.pool)),
        )
        yield _repairable(case, check, title, f"{settings.pool} does not exist", why, actions)
    elif found.pool is None:
        repair = "virsh pool-list --all   # lists the pools; then set `libvirt: {pool: …}` in lab.yaml"
        yield unfit(check, title, f"{settings.pool} does not exist", why, repair)
    elif not found.pool.running:
        action = Action((*virsh, "pool-start", settings.pool))
        yield _repairable(case, check, title, f"{settings.pool} is not started", why, (action,))
    elif found.pool.torn:
        what = f"{', '.join(found.pool.torn)} in {settings.pool} is incomplete"
        why = "A run was killed while it copied the golden disk there; machines based on it don't boot."
        volume = quoting.line([settings.pool, found.pool.torn[0]])
        repair = f"virsh vol-delete --pool {volume}   # `up` copies it again"
        yield unfit(check, title, what, why, repair)
    else:
        missing = len(case.lab.nodes) - len(_own_domains(case))
        needed = missing * MACHINE_MIB + (BOX_MIB if missing else 0)
        what = f"{found.pool.free} MiB free in {settings.pool}, {needed} MiB needed"
        if found.pool.free < needed:
            listed = f"virsh vol-list {quoting.word(settings.pool)}"
            repair = f"{listed}   # what could be deleted\n./inv bake --prune  # old boxes"
            yield unfit(check, title, what, "A machine is paused when its disk is full.", repair)
        else:
            yield fit(check, title, what)


def names(case: Case) -> Iterator[Finding]:
    """Is there a machine or a disk with our names that this lab did not create? Neither is ever removed."""
    found = _host(case)
    wanted = {machine_name(case.lab, node) for node in case.lab.nodes}
    foreign = [each for each in found.domains if each.owner != _owner(case)]
    if foreign:
        why = (
            "libvirt's names are unique, so the machines could not be created. Other machines are not removed."
        )
        what = f"domains exist that this lab did not create: {', '.join(sorted(each.name for each in foreign))}"
        lines = dict.fromkeys(_out_of_the_way(_settings(case), domain) for domain in foreign)
        repair = "\n".join([*lines, "# or give this lab another `name:` in lab.yaml"])
        yield unfit("names", "Names", what, why, repair)
        return
    own = {each.name for each in found.domains}
    volumes = found.pool.volumes if found.pool else frozenset()
    stale = sorted(f"{name}.img" for name in wanted - own if f"{name}.img" in volumes)
    if stale:
        why = "Vagrant does not overwrite an existing disk. It may belong to another lab, so it is not removed."
        volume = quoting.line([_settings(case).pool, stale[0]])
        repair = f"virsh vol-delete --pool {volume}   # once you know what it is"
        yield unfit(
            "names", "Names", f"disks without a machine are in the pool: {', '.join(stale)}", why, repair
        )
    elif found.state == "answers":
        yield fit("names", "Names", "free, or this lab's own")


def _out_of_the_way(settings: Libvirt, domain: Domain) -> str:
    """What to do about another machine: inspect it, unless its description names another lab."""
    if not domain.folder_exists:
        undefine = quoting.line(virsh.argv(settings, "undefine", domain.name, "--remove-all-storage"))
        return (
            f"{quoting.line(virsh.argv(settings, 'dominfo', domain.name))}   # another lab's, whose folder "
            f"{domain.folder} is gone; if it was moved: `./inv destroy`, with --lab and its lab.yaml there; if "
            f"it is not needed: `{undefine}`"
        )
    if domain.folder:
        lab_file = quoting.word(Path(domain.folder).parent / "lab.yaml")
        return f"./inv destroy --lab {lab_file}   # another lab's: only if you no longer need it"
    return f"{quoting.line(virsh.argv(settings, 'dominfo', domain.name))}   # what is it?"


def leases(case: Case) -> Iterator[Finding]:
    """Has one of libvirt's DHCP servers given one of our addresses to another machine?"""
    given = _host(case).leases
    taken = [(node, given[str(node.address)]) for node in case.lab.nodes if str(node.address) in given]
    if taken:
        listed = ", ".join(f"{node.name}'s {node.address} by {who}" for node, who in taken)
        why = "Two machines would have the same address."
        repair = "# choose other addresses (first_address) in lab.yaml, or shut that machine down"
        yield unfit("leases", "Addresses", f"taken: {listed}", why, repair)


def management(case: Case) -> Iterator[Finding]:
    """Does the management network, if it exists, have the subnet in lab.yaml?"""
    networks, settings = case.host.libvirt_networks, _settings(case)
    if isinstance(networks, Unknown) or settings.remote:
        return
    found = networks.get(MANAGEMENT)
    clashes = [who for who, other in used(case) if other.overlaps(settings.management)]
    if found is not None and found != settings.management:
        why = "Vagrant's plugin only uses that network with its existing addresses."
        repair = f"# in lab.yaml:\nlibvirt: {{management: {found}}}"
        what = f"{MANAGEMENT} is {found}, not {settings.management}"
        yield unfit("network-management", "Management network", what, why, repair)
    elif clashes:
        taken = [other for _, other in used(case)]
        free = free_network(SUBNETS[1:], 24, [*taken, case.lab.network.subnet])
        why = "Vagrant reaches the machines through it, and they reach other networks."
        what = f"{settings.management} overlaps {', '.join(clashes)}"
        repair = f"# in lab.yaml:\nlibvirt: {{management: {free or '…'}}}"
        yield unfit("network-management", "Management network", what, why, repair)


def remote(case: Case) -> Iterator[Finding]:
    """Can the addresses of machines on another host be reached from here?"""
    settings, ways = _settings(case), case.host.routes
    if not settings.remote:
        return
    subnet = case.lab.network.subnet
    reached = [] if isinstance(ways, Unknown) else [way for way in ways if _leads(way.network, subnet)]
    if reached:
        yield fit("remote", "Route to the lab", f"{reached[0]}")
        return
    why = (
        f"Machines have their addresses on {settings.uri}'s host; a default route would send packets elsewhere."
    )
    repair = f"sudo ip route add {subnet} via ADDRESS-OF-THAT-HOST   # that host has to forward the packets"
    yield unfit("remote", "Route to the lab", f"no route of this host leads to {subnet}", why, repair)


def memory(case: Case) -> Iterable[Finding]:
    """Is there memory for the machines that don't run yet? Another host's is not asked."""
    if not (case.lab.remote_host and case.waiting):
        return resources.memory(case)
    wanted = sum(node.memory_mib for node in case.waiting)
    what = f"{len(case.waiting)} machines to start need {wanted} MiB on the host of {case.lab.remote_host}"
    why = "That host's memory and CPUs are not checked from here."
    return [note("memory", "Memory", what, why)]


def networks(case: Case) -> Iterable[Finding]:
    """Does any of the lab's networks overlap another?"""
    return addresses.networks(case, "libvirt")


def firewall(case: Case) -> Iterator[Finding]:
    """Can libvirt set the rules that its networks need?"""
    if _settings(case).remote:
        return
    if "iptables" not in case.host.programs and "apt-get" not in case.host.programs:
        why = "libvirt's networks need its rules."
        yield unfit("firewall", "Firewall", "there is no iptables", why, "# install iptables")


def _leads(network: IPv4Network, subnet: IPv4Network) -> bool:
    """Whether a route covers the lab and is not a default one (VPNs split that into two halves)."""
    return network.prefixlen > 1 and network.supernet_of(subnet)


def _why_emulated(case: Case) -> str:
    kvm = _host(case).kvm
    if kvm is False:
        return "KVM is missing here, or runs no kernel"
    return "lab.yaml says so" if kvm is True else "the existing machines are emulated, or lab.yaml says so"


def _own_domains(case: Case) -> list[str]:
    return [each.name for each in _host(case).domains if each.owner == _owner(case)]


def _owner(case: Case) -> str:
    return owner_label(case.owner)


def _repairable(
    case: Case, check: str, title: str, what: str, why: str, actions: tuple[Action, ...]
) -> Finding:
    repair = "\n".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
    return Finding(check, title, "repairable", what, why, repair, actions)


def _settings(case: Case) -> Libvirt:
    return virsh.settings_of(case.lab)


def _asked(settings: Libvirt) -> str:
    """The command that asks libvirt for its version, to paste."""
    return quoting.line(virsh.argv(settings, "version"))


def _host(case: Case) -> LibvirtHost:
    unasked = Unknown("libvirt was not asked")
    found = case.host.provider
    return found if isinstance(found, LibvirtHost) else LibvirtHost("mute", False, unasked, unasked.reason)


def start(actions: Sequence[Action], progress: Progress) -> None:
    """Start all of libvirt's daemons, unless installing its packages has done so."""
    if not _libvirt_problem():
        return
    for action in actions:
        words = process.as_root(*action.argv)
        with progress.step("libvirtd", quoting.line(words)) as step:
            # Starting one that runs fails, which does not matter if libvirt responds.
            process.run(words, accept=None, log=step.log, timeout=60)
    with progress.step("libvirtd-answers", "libvirt's daemon responds") as step:
        wait_until(
            _libvirt_problem,
            what="libvirt's daemon to respond",
            timeout=repairs.DAEMON_TIMEOUT,
            log=step.log,
            hint="`journalctl -u libvirtd`, or /var/log/libvirt without systemd, shows why not",
        )


def _libvirt_problem() -> str | None:
    """Why libvirt does not respond yet; one that rejects this user is running."""
    try:
        words = virsh.argv(Libvirt(), "version")
        said = process.run(words, accept=None, timeout=10)
    except CommandFailed as error:
        return error.message
    return None if said.ok or "denied" in said.stderr else said.stderr.strip() or repairs.SILENT


# In the order of repairs: what the next check depends on comes first.
CHECKS: tuple[Check, ...] = (
    daemon,
    tools.vagrant,
    plugin,
    hypervisor,
    kvm_device,
    pool,
    firewall,
    memory,
    resources.disk,
    resources.folders,
    networks,
    management,
    names,
    leases,
    remote,
)
