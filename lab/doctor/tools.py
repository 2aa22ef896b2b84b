"""This room judges programs: what is installed, docker's daemon, Vagrant, the toolchains."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from lab.doctor.case import Case
from lab.doctor.finding import Action, Finding, fit, note, unfit
from lab.golden.supply import lock
from lab.golden.supply.releases import release
from lab.host import Daemon, Unknown

VAGRANT = (2, 3)
DOCKER = (20, 10)
"""The first docker with a cgroup namespace for each container, which machines need."""

DOCKER_CLIENT = "?exact-name(docker-cli)"
"""From Debian 13 on the client is a package of its own; before, apt's pattern matches nothing."""

LIBVIRT = ("libvirt-daemon-system", "dnsmasq-base")
"""libvirt's daemon, and what gives addresses on its networks."""

BAKING = ("bake", "modules", "upstream")
"""What only hosts that bake need."""

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
LOCK_TIMEOUT = 120
"""Seconds that another apt has to let go of its lock."""
INSTALL = ("-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT}", "install", "-y", "--no-install-recommends")

SYSTEM_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
USE_SYSTEM = "unset DOCKER_HOST DOCKER_CONTEXT; docker context use default   # the system's own daemon"

DAEMON_LOG = "/var/log/dockerd.log"
START_DOCKERD = (
    *("start-stop-daemon", "--start", "--background", "--oknodo", "--output", DAEMON_LOG),
    *("--exec", "/usr/sbin/dockerd"),
)


@dataclass(frozen=True)
class Tool:
    """A thing that is needed: its Debian packages, what it is called upstream, and what for."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    upstream: str
    why: str
    provider: str = ""
    """The only provider that needs it; "" for all."""


TOOLS = (
    Tool("docker", "up", ("docker.io", DOCKER_CLIENT), "Docker Engine", "it is what machines run in", "docker"),
    Tool("dockerd", "up", ("docker.io",), "Docker Engine", "it is what machines run in", "docker"),
    Tool("virsh", "up", ("libvirt-clients",), "libvirt", "it speaks to libvirt", "libvirt"),
    Tool("libvirtd", "up", LIBVIRT, "libvirt", "it makes the machines", "libvirt"),
    Tool("qemu-system-x86_64", "up", ("qemu-system-x86",), "QEMU", "it is what machines run in", "libvirt"),
    Tool("qemu-img", "up", ("qemu-utils",), "QEMU", "the machines' disks are its files", "libvirt"),
    Tool("iptables", "up", ("iptables",), "iptables", "libvirt's networks need its rules", "libvirt"),
    Tool(
        "vagrant-libvirt", "up", ("vagrant-libvirt",), "vagrant-libvirt", "it is Vagrant's way there", "libvirt"
    ),
    Tool(
        "qemu-img",
        "bake",
        ("qemu-utils",),
        "QEMU",
        "VirtualBox's form of the disk is made with it",
        "virtualbox",
    ),
    Tool("vagrant", "up", ("vagrant",), "Vagrant 2.3 or later", "it makes the machines"),
    Tool("ssh", "up", ("openssh-client",), "the OpenSSH client", "machines are set up over it"),
    Tool("ip", "up", ("iproute2",), "iproute2", "it tells where packets for the lab would go"),
    Tool("sysctl", "up", ("procps",), "procps", "it raises the kernel's limits", "docker"),
    Tool("mmdebstrap", "bake", ("mmdebstrap",), "mmdebstrap", "it makes the golden machine's Debian root"),
    Tool(
        "trixie's key",
        "bake",
        ("debian-archive-keyring",),
        "Debian's archive keys",
        "Debian 13 is signed",
    ),
    Tool(
        "authorities",
        "bake",
        ("ca-certificates",),
        "CA certificates",
        "modules, packages and images come over HTTPS",
    ),
    Tool("gcc", "modules", ("gcc", "libc6-dev"), "gcc", "flannel and pause are built with it"),
    Tool("libc.a", "modules", ("libc6-dev",), "a static C library", "flannel and pause are linked with it"),
    Tool("skopeo", "upstream", ("skopeo",), "skopeo", "it fetches images by their digests"),
    Tool("apt-get", "upstream", ("apt",), "apt and dpkg", "they fetch and verify Kubernetes' packages"),
    Tool("shellcheck", "lint", ("shellcheck",), "ShellCheck", "it lints the provisioning scripts"),
    Tool("shfmt", "lint", ("shfmt",), "shfmt", "it formats the provisioning scripts"),
    Tool(
        "docker-registry",
        "test",
        ("docker-registry",),
        "Docker's registry",
        "it stands for upstream's (its service, which a package starts, is not used)",
    ),
    Tool(
        "apt-ftparchive",
        "test",
        ("apt-utils",),
        "apt-utils",
        "it makes the repository that stands for upstream's",
    ),
    Tool("gpg", "test", ("gnupg",), "GnuPG", "it signs the repository that stands for upstream's"),
    Tool("pdftoppm", "test", ("poppler-utils",), "poppler", "it makes pictures of a handout's pages"),
    Tool("chromium", "pdf", ("chromium",), "Chromium", "it makes a handout's pages, and tests look in it"),
    Tool("Korean letters", "korean", ("fonts-noto-cjk",), "a Korean font", "a page in Korean needs them"),
)


def system(case: Case) -> Iterator[Finding]:
    """Can this kind of host make a golden machine?"""
    kinds = {"macos": "macOS, which can't bake", "wsl": "WSL, where baking is not supported"}
    if case.host.system in kinds:
        why = "The kit is built and tested on Debian. Tell its makers how it goes."
        yield note("untried", "This system", "nobody has tried the kit on it", why)
    if case.host.system in kinds and case.wants("bake") and not case.baked:
        why = "A golden machine is made with Debian's tools on a Linux host, and is brought here as one file."
        mend = "./inv bake --import FILE   # made there, with this lab.yaml: `./inv bake --export FILE`"
        yield unfit("system", "Golden machine", f"this is {kinds[case.host.system]}", why, mend)


def packages(case: Case) -> Iterator[Finding]:
    """Is everything installed that the purposes need? One finding, and one command, for all of it."""
    provider = case.lab.provider
    wanted_tools = [tool for tool in TOOLS if case.wants(tool.purpose) and tool.provider in ("", provider)]
    if case.host.system != "linux":
        wanted_tools = [tool for tool in wanted_tools if tool.purpose not in BAKING]  # it is not done here
    missing = [tool for tool in wanted_tools if not _has(case, tool)]
    title = "Programs"
    if not missing:
        yield fit("packages", title, "all are installed")
        return
    what = f"missing: {', '.join(tool.name for tool in missing)}"
    why = "; ".join(f"{tool.name}: {tool.why}" for tool in missing) + "."
    if "apt-get" not in case.host.programs:
        upstream = ", ".join(dict.fromkeys(tool.upstream for tool in missing))
        mend = f"# there is no apt here: install {upstream} in this system's own way"
        yield unfit("packages", title, what, why, mend)
        return
    wanted = sorted({package for tool in missing for package in tool.packages})
    actions = (
        Action((*APT, "update")),
        Action((*APT, *INSTALL, *wanted)),
    )
    sudo = "" if case.host.uid == 0 else "sudo "
    mend = f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {shlex.join(wanted)}"
    yield Finding("packages", title, "mendable", what, why, mend, actions)


def daemon(case: Case) -> Iterator[Finding]:
    """Does a docker daemon of this host answer, and is it one that can hold the lab?"""
    found, check, title = case.host.daemon, "docker-daemon", "docker's daemon"
    if found.state == "answers":
        yield from _answering(found, case.host.kernel)
    elif found.state in ("absent", "no client"):
        # Without a client nobody could ask; once it is installed, the same command starts the daemon.
        what = "does not run" if found.state == "absent" else "can't be asked: docker is not installed"
        actions = _start(case)
        mend = " || ".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
        if found.state == "absent" and found.endpoint not in SYSTEM_SOCKETS:
            why = "The system's daemon listens elsewhere: starting it would not help."
            yield unfit(check, title, f"does not listen at {found.endpoint}", why, USE_SYSTEM)
        elif found.state == "no client" and "apt-get" not in case.host.programs:
            yield unfit(check, title, what, "Machines are containers.", f"# install docker, then: {mend}")
        else:
            yield Finding(check, title, "mendable", what, "Machines are containers.", mend, actions)
    elif found.state == "denied":
        why = f"{found.endpoint} belongs to another user, and to the group docker ({found.words})."
        mend = "sudo usermod -aG docker $USER   # then log in again; members can become root"
        yield unfit(check, title, "does not let this user in", why, mend)
    elif found.state == "elsewhere":
        why = "The lab's addresses would be on that host, and not be reached from this one."
        yield unfit(check, title, f"is elsewhere: {found.endpoint}", why, USE_SYSTEM)
    else:
        mend = "docker version   # says what is wrong"
        yield unfit(check, title, f"gives no clear answer: {found.words}", "Machines are containers.", mend)


def _answering(found: Daemon, kernel: str) -> Iterator[Finding]:
    check, title = "docker-daemon", "docker's daemon"
    version = _version(found.version)
    if "name=rootless" in found.security:
        why = "Its networks are in a namespace of its own: the lab's addresses are not on this host."
        yield unfit(check, title, "runs rootless", why, USE_SYSTEM)
    elif "name=userns" in found.security:
        why = "Machines mount file systems, which root in a user namespace of docker's may not."
        mend = "remove userns-remap from /etc/docker/daemon.json, and restart docker"
        yield unfit(check, title, "maps containers' root to another user", why, mend)
    elif found.kernel not in ("", kernel):
        what = f"runs in a virtual machine (its kernel is {found.kernel}, this host's {kernel})"
        why = "The lab's addresses would be in there, and not be reached from this host."
        yield unfit(check, title, what, why, USE_SYSTEM)
    elif version and version < DOCKER:
        why = "Machines need control groups of their own (--cgroupns=private)."
        yield unfit(check, title, f"is {found.version}", why, "# install docker 20.10 or later")
    else:
        yield fit(check, title, f"{found.version} answers")


def vagrant(case: Case) -> Iterator[Finding]:
    """Does Vagrant start, and is it new enough? Where it is missing, the programs' finding says so."""
    if "vagrant" not in case.host.programs or not case.wants("up"):
        return
    found, mend = case.host.vagrant, "vagrant --version   # what does it say?"
    if isinstance(found, Unknown):
        yield unfit("vagrant", "Vagrant", f"does not start: {found.reason}", "It makes the machines.", mend)
        return
    version = ".".join(map(str, found))
    if found < VAGRANT:
        why = "The kit is made for 2.3 and later."
        if case.lab.provider == "docker":
            why = "Its docker provider can't give machines fixed addresses as the lab needs them."
        yield unfit("vagrant", "Vagrant", f"is {version}", why, "# install Vagrant 2.3 or later")
    else:
        yield fit("vagrant", "Vagrant", version)


def toolchains(case: Case) -> Iterator[Finding]:
    """Which Python runs this, and which Go builds Kubernetes?"""
    yield fit("python", "Python", ".".join(map(str, case.host.python)))
    if case.wants("modules"):
        go = release(case.lab.kubernetes.version).go
        yield fit("go", "Go", f"{go}, fetched by `bake`; the host's own is not used")
    if case.wants("bake") and case.lab.kubernetes.source == "upstream":
        version = case.lab.kubernetes.version
        if lock.exists(version):
            yield fit("upstream", "Kubernetes from upstream", f"{version} is pinned")
        else:
            why = "Nothing goes into a golden machine that is not pinned."
            mend = "./inv lock   # where upstream or a mirror is reached; else `source: modules`"
            yield unfit("upstream", "Kubernetes from upstream", f"{version} is not pinned", why, mend)


def _has(case: Case, tool: Tool) -> bool:
    host = case.host
    if tool.name == "dockerd":
        # One that answers, or is someone else's, need not be on PATH.
        return tool.name in host.programs or host.daemon.state not in ("absent", "no client")
    if case.lab.remote_host and tool.name in ("libvirtd", "qemu-system-x86_64", "iptables"):
        return True  # that host's to have
    if tool.name == "vagrant-libvirt":
        return case.host.libvirt is not None and case.host.libvirt.plugin
    if tool.name == "trixie's key":
        return host.trixie_key
    if tool.name == "authorities":
        return host.authorities
    if tool.name == "Korean letters":
        return host.korean_font
    if tool.name == "libc.a":
        return host.static_libc
    return tool.name in host.programs


def _start(case: Case) -> tuple[Action, ...]:
    """Ways to start the daemon, the best first; the next is for where the one before does not work."""
    if case.host.systemd:
        return (Action(("systemctl", "start", "docker")),)
    # The init script sets limits that some machines may not set, and ends there; dockerd by itself
    # works on those too.
    return (
        Action(("/etc/init.d/docker", "start")),
        Action(START_DOCKERD),
    )


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version; empty when it has none."""
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
