"""Gathers the facts about this host that the doctor needs into `HostFacts`, its only source.

It changes nothing and sends no packet to a lab address. Slow questions are asked in parallel.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lab.host import docker, dockerd, firewall, kernel, network
from lab.host.ask import ask
from lab.host.facts import (
    Cgroups,
    Configured,
    Container,
    Daemon,
    DockerNetwork,
    FileSystem,
    Folder,
    ForwardChain,
    Forwarding,
    HostFacts,
    Inotify,
    Memory,
    Presence,
    ProviderFacts,
    Route,
    System,
    Way,
)
from lab.host.places import cache_folder, folder
from lab.model import Lab
from lab.unknown import Unknown
from lab.workspace import Workspace

__all__ = [
    "Cgroups",
    "Configured",
    "Container",
    "Daemon",
    "DockerNetwork",
    "FileSystem",
    "Folder",
    "ForwardChain",
    "Forwarding",
    "HostFacts",
    "Inotify",
    "Memory",
    "Presence",
    "ProviderFacts",
    "Route",
    "System",
    "Unknown",
    "Way",
    "cache_folder",
    "gather",
    "node_capabilities",
]

Answer = TypeVar("Answer")
ROOT = Path("/")

PROGRAMS = (
    *("apt-get", "chromium", "curl", "gcc", "go", "ip", "mmdebstrap"),
    *(
        "pdftoppm",
        "pkg-config",
        "ruby",
        "service",
        "shellcheck",
        "shfmt",
        "ssh",
        "ssh-keygen",
        "sudo",
        "vagrant",
    ),
)
"""Programs to look for with every provider; each provider adds its own."""

AUTHORITIES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/cert.pem")
"""Where Go looks for them on distributions like Debian, Fedora and Alpine."""

KOREAN_FONTS = ("usr/share/fonts/**/NotoSansCJK*", "usr/share/fonts/**/Nanum*")
"""One of them is enough."""

SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where dockerd and sysctl are: on root's PATH, but not on every user's."""

UNKNOWN_TO_DOCKERD = frozenset({"PERFMON", "BPF", "CHECKPOINT_RESTORE"})
"""Capabilities that dockerd 20.10, the oldest supported version, does not know."""


AskProvider = Callable[[Lab, Path, Path], ProviderFacts]
"""Asks a provider's client about this host; gets the lab, its `.lab/` and the root of /proc and /sys."""


def gather(
    lab: Lab,
    workspace: Workspace,
    *,
    programs: Iterable[str] = (),
    ask_provider: AskProvider | None = None,
    root: Path = ROOT,
) -> HostFacts:
    """Gather everything that the doctor needs to know about this host; takes about half a second.

    `programs` are looked for besides PROGRAMS. `root` is the root for /proc, /sys and so on. Never raises for
    facts that can't be determined.
    """
    uid, release = os.geteuid(), os.uname().release
    systemd = (root / "run/systemd/system").exists()
    with ThreadPoolExecutor() as pool:
        vagrant, networks_of_libvirt = pool.submit(_vagrant), pool.submit(network.libvirt)
        provider = pool.submit(ask_provider, lab, workspace.root, root) if ask_provider else None
        routes, way = pool.submit(network.routes), pool.submit(network.way, lab.route_target)
        rules = pool.submit(firewall.forwarding, root, uid=uid, systemd=systemd)
        daemon = _daemon()
        if daemon.state == "answers":
            own = daemon.endpoint in docker.SYSTEM_SOCKETS
            settings = dockerd.configured(root) if own else Unknown("this is not the system's own daemon")
            daemon = replace(daemon, settings=settings)
        silence = Unknown("docker's daemon does not respond")
        answers = daemon.state == "answers"
        containers = pool.submit(docker.containers if answers else lambda: silence)
        networks = pool.submit(docker.networks if answers else lambda: silence)
        return HostFacts(
            uid=uid,
            python=sys.version_info[:3],
            kernel=release,
            systemd=systemd,
            cpus=_cpus(),
            memory=kernel.memory(root),
            tmp=folder(Path(tempfile.gettempdir())),
            cache=folder(cache_folder()),
            workspace=folder(workspace.root),
            docker_data=folder(daemon.data),
            programs=frozenset(name for name in (*PROGRAMS, *programs) if _found(name)),
            static_libc=_any(root, "usr/lib/*/libc.a", "usr/lib*/libc.a"),
            static_libseccomp=_any(root, "usr/lib/*/libseccomp.a", "usr/lib*/libseccomp.a"),
            trixie_key=_any(root, "usr/share/keyrings/debian-archive-trixie-stable.*"),
            authorities=_any(root, *AUTHORITIES),
            korean_font=_any(root, *KOREAN_FONTS),
            vagrant=_answer(vagrant),
            daemon=daemon,
            containers=_answer(containers),
            docker_networks=_answer(networks),
            libvirt_networks=_answer(networks_of_libvirt),
            routes=_answer(routes),
            way=_answer(way),
            cgroups=kernel.cgroups(root),
            inotify=kernel.inotify(root, uid=uid),
            capabilities=kernel.capabilities(root),
            features=kernel.features(root, release),
            docker_file_system=kernel.file_system(root, daemon.data),
            forwarding=rules.result(),
            provider=provider.result() if provider else None,
            system=system(),
        )


def system() -> System:
    """What kind of host this is."""
    about = os.uname()
    if about.sysname == "Darwin":
        return "macos"
    return "wsl" if "microsoft" in about.release.lower() else "linux"


def node_capabilities(host: HostFacts | None = None) -> tuple[str, ...]:
    """The capabilities to `--cap-add` to a container machine, sorted: those that docker has and knows.

    Without `host`, /proc is read. If the bounding set can't be read, all that dockerd knows.
    """
    found = host.capabilities if host else kernel.capabilities(ROOT)
    has = frozenset(kernel.CAPABILITIES) if isinstance(found, Unknown) else found
    return tuple(sorted(has - UNKNOWN_TO_DOCKERD))


def _cpus() -> int:
    """How many CPUs this process may use; on macOS, all."""
    may_use = getattr(os, "sched_getaffinity", None)
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def _answer(asked: Future[Answer]) -> Answer | Unknown:
    """The answer; Unknown if it can't be parsed."""
    try:
        return asked.result()
    except (ValueError, LookupError, TypeError) as error:
        return Unknown(f"the answer can't be parsed: {error!r}")


def _daemon() -> Daemon:
    try:
        return docker.daemon()
    except (ValueError, LookupError, TypeError) as error:
        return Daemon("mute", "", f"its answer can't be parsed: {error!r}")


def _found(program: str) -> bool:
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATH))) is not None


def _any(root: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in root.glob(pattern))


def _vagrant() -> tuple[int, ...] | Unknown:
    # Ruby is slow to start on a slow disk or in an emulated machine.
    answer = ask(["vagrant", "--version"], timeout=60)
    if isinstance(answer, Unknown):
        return answer
    version = re.search(r"Vagrant (\d+)\.(\d+)\.(\d+)", answer.stdout)
    if version is None:
        return Unknown(f"`vagrant --version` prints {answer.stdout.strip()[:80]!r}")
    return tuple(int(part) for part in version.groups())
