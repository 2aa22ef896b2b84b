"""Checks docker: its daemon, and space, memory and names for machines that are containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lab.errors import CommandFailed, HostNotFit, WaitTimedOut
from lab.host import Container, Daemon, Unknown
from lab.host.docker import SYSTEM_SOCKETS
from lab.host.doctor import addresses, kernel, repairs, resources, tools
from lab.host.doctor.case import Case, Check
from lab.host.doctor.finding import Action, Finding, fit, unfit
from lab.host.doctor.tools import Tool
from lab.model import machine_name, owner_label
from lab.model.roles import ROLES
from lab.providers.docker import client, settings
from lab.system import process, quoting
from lab.system.progress import Progress
from lab.system.wait import wait_until

DOCKER = (20, 10)
"""The first docker version with a cgroup namespace for each container, which machines need."""

DOCKER_CLIENT = "?exact-name(docker-cli)"
"""Since Debian 13 the client is a separate package; before, apt's pattern matches nothing."""

DISK_LAB_MIB = 2 * 1024
"""Measured MiB of the machines in docker's data folder."""

USE_SYSTEM = "unset DOCKER_HOST DOCKER_CONTEXT; docker context use default   # the system's own daemon"

DAEMON_LOG = "/var/log/dockerd.log"
START_DOCKERD = (
    *("start-stop-daemon", "--start", "--background", "--oknodo", "--output", DAEMON_LOG),
    *("--exec", "/usr/sbin/dockerd"),
)


def _has_dockerd(case: Case) -> bool:
    # A daemon that responds, or is on another host, need not be on PATH.
    return "dockerd" in case.host.programs or case.host.daemon.state not in ("absent", "no client")


TOOLS = (
    Tool("docker", "up", ("docker.io", DOCKER_CLIENT), "Docker Engine", "machines run in it"),
    Tool("dockerd", "up", ("docker.io",), "Docker Engine", "machines run in it", _has_dockerd),
    Tool("sysctl", "up", ("procps",), "procps", "it raises the kernel's limits"),
)


def daemon(case: Case) -> Iterator[Finding]:
    """Does a docker daemon of this host respond, and can it run the lab?"""
    found, check, title = case.host.daemon, "docker-daemon", "docker's daemon"
    if found.state == "answers":
        yield from _answering(found, case.host.kernel)
    elif found.state in ("absent", "no client"):
        # Without a client docker can't be asked; once it is installed, the same command starts the daemon.
        what = "does not run" if found.state == "absent" else "can't be asked: docker is not installed"
        actions = _ways_to_start(case)
        repair = " || ".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
        if found.state == "absent" and found.endpoint not in SYSTEM_SOCKETS:
            why = "The system's daemon listens on another socket: starting it would not help."
            yield unfit(check, title, f"does not listen at {found.place}", why, USE_SYSTEM)
        elif found.state == "no client" and "apt-get" not in case.host.programs:
            yield unfit(check, title, what, "Machines are containers.", f"# install docker, then: {repair}")
        else:
            yield Finding(check, title, "repairable", what, "Machines are containers.", repair, actions, start)
    elif found.state == "denied":
        why = f"{found.endpoint} belongs to another user, and to the group docker ({found.words})."
        repair = "sudo usermod -aG docker $USER   # then log in again; members can become root"
        yield unfit(check, title, f"at {found.place} does not let this user in", why, repair)
    elif found.state == "elsewhere":
        why = "The lab's addresses would be on that host, unreachable from this one."
        yield unfit(check, title, f"is on another host: {found.place}", why, USE_SYSTEM)
    else:
        repair = "docker version   # shows what is wrong; if it hangs, so does the daemon"
        if found.endpoint in SYSTEM_SOCKETS:
            repair += f"\n{settings.RESTART}"
        yield unfit(
            check,
            title,
            f"at {found.place} gives no clear answer: {found.words}",
            "Machines are containers.",
            repair,
        )


def _answering(found: Daemon, kernel: str) -> Iterator[Finding]:
    check, title = "docker-daemon", "docker's daemon"
    version = _version(found.version)
    if "name=rootless" in found.security:
        why = "Its networks are in a separate namespace: the lab's addresses are not on this host."
        yield unfit(check, title, f"at {found.place} runs rootless", why, USE_SYSTEM)
    elif "name=userns" in found.security:
        why = "Machines mount file systems, which root in a user namespace of docker can't do."
        repair = f"# {settings.place(found, 'userns-remap')}: remove userns-remap\n{settings.RESTART}"
        yield unfit(check, title, f"at {found.place} maps containers' root to another user", why, repair)
    elif found.kernel not in ("", kernel):
        what = (
            f"at {found.place} runs in a virtual machine (its kernel is {found.kernel}, this host's {kernel})"
        )
        why = "The lab's addresses would be in that machine, unreachable from this host."
        yield unfit(check, title, what, why, USE_SYSTEM)
    elif version and version < DOCKER:
        why = "Machines need control groups of their own (--cgroupns=private)."
        yield unfit(
            check, title, f"at {found.place} is {found.version}", why, "# install docker 20.10 or later"
        )
    else:
        yield fit(check, title, f"{found.version} answers at {found.place}")


def vagrant(case: Case) -> Iterable[Finding]:
    """Does Vagrant start, and is it new enough for its docker provider?"""
    return tools.vagrant(case, "The docker provider of older versions can't give machines fixed addresses.")


def memory(case: Case) -> Iterable[Finding]:
    """Is there memory for the machines that don't run yet? Containers only take what they use."""
    return resources.memory(case, sum(ROLES[node.role].memory_mib for node in case.waiting))


def disk(case: Case) -> Iterable[Finding]:
    """Is there enough space for docker's data and for builds?"""
    copies = settings.VFS_COPY_MIB * len(case.waiting) if case.host.daemon.driver == "vfs" else 0
    return resources.disk(
        case, [("docker's data", case.host.docker_data, DISK_LAB_MIB + copies)], "docker system df"
    )


def networks(case: Case) -> Iterable[Finding]:
    """Does any of the lab's networks overlap another?"""
    return addresses.networks(case, "docker")


def names(case: Case) -> Iterator[Finding]:
    """Does a container that is not this lab's have the name of one of its machines?"""
    wanted = {machine_name(case.lab, node) for node in case.lab.nodes}
    foreign = [each for each in case.containers if each.name in wanted and not case.is_ours(each)]
    if foreign:
        why = (
            "docker's names are unique, so the machines could not be created. Other containers are not removed."
        )
        repair = dict.fromkeys(map(_out_of_the_way, foreign))
        listed = ", ".join(sorted(each.name for each in foreign))
        what = f"containers exist that this lab did not create: {listed}"
        lines = [*repair, "# or give this lab another `name:` in lab.yaml"]
        yield unfit("names", "Names", what, why, "\n".join(lines))
    elif not isinstance(case.host.containers, Unknown):
        yield fit("names", "Names", "free, or this lab's own")


def _out_of_the_way(container: Container) -> str:
    if container.owner and not container.folder_exists:
        shows = f"docker ps --all --filter {quoting.word(f'label={owner_label(container.owner)}')}"
        return (
            f"{shows}   # another lab's, whose folder {container.folder} is gone; if it was moved: "
            "`./inv stop` or `./inv destroy`, with --lab and its lab.yaml there"
        )
    if container.owner:
        lab_file = quoting.word(Path(container.folder).parent / "lab.yaml")
        return f"./inv destroy --lab {lab_file}   # another lab's: only if you no longer need it"
    name = container.name
    return f"docker inspect {name}; docker rename {name} {name}-old   # once you know what it is"


def start(actions: Sequence[Action], progress: Progress) -> None:
    """Start the daemon in the first way that works."""
    if not _docker_problem():
        return  # installing its package has started it
    last = "there is no way to start it"
    for action in actions:
        words = process.as_root(*action.argv)
        with progress.step("docker-daemon", quoting.line(words)) as step:
            if not process.run(words, accept=None, log=step.log, timeout=60).ok:
                step.note = "failed"
                last = "it failed at once"
                continue
            try:
                wait_until(
                    _docker_problem,
                    what="docker's daemon to respond",
                    timeout=repairs.DAEMON_TIMEOUT,
                    log=step.log,
                )
                return
            except WaitTimedOut as error:
                step.note, last = "no answer", error.reason
    raise HostNotFit(
        f"docker's daemon does not start: {last}",
        hint=f"see its log: tail {DAEMON_LOG}",
        log=Path(DAEMON_LOG),
    )


def _docker_problem() -> str | None:
    """Why the daemon does not respond yet; one that rejects this user is running."""
    try:
        said = client.run("version", "--format", "{{.Server.Version}}", accept=None, timeout=10)
    except CommandFailed as error:
        return error.message
    return None if said.ok or "permission denied" in said.stderr else said.stderr.strip() or repairs.SILENT


def _ways_to_start(case: Case) -> tuple[Action, ...]:
    """Ways to start the daemon, the best first; the others are fallbacks."""
    if case.host.systemd:
        return (Action(("systemctl", "start", "docker")),)
    # The init script sets limits and fails on hosts that may not set them; dockerd itself works there, too.
    return (
        Action(("/etc/init.d/docker", "start")),
        Action(START_DOCKERD),
    )


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version; empty if it has none."""
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


# In the order of repairs: what the next check depends on comes first.
CHECKS: tuple[Check, ...] = (
    daemon,
    settings.settings,
    vagrant,
    memory,
    resources.cpus,
    disk,
    resources.folders,
    resources.cgroups,
    resources.inotify,
    kernel.capabilities,
    kernel.features,
    kernel.swap,
    networks,
    names,
)
