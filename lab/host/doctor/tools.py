"""Checks programs: what is installed, Vagrant, the toolchains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.golden.supply import lock
from lab.golden.supply.releases import release
from lab.host import Unknown
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Action, Finding, fit, note, unfit
from lab.system import quoting

VAGRANT = (2, 3)
BAKING = ("bake", "upstream")
"""Purposes that need tools only on hosts that bake."""

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
LOCK_TIMEOUT = 120
"""Seconds to wait for another apt to release its lock."""
INSTALL = ("-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT}", "install", "-y", "--no-install-recommends")


@dataclass(frozen=True)
class Tool:
    """A needed program or file: its Debian packages, its name elsewhere, and what it is for."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    upstream: str
    why: str
    is_there: Callable[[Case], bool] | None = None
    """Whether the host has it; None: `_has` checks by its name."""


TOOLS = (
    Tool("vagrant", "up", ("vagrant",), "Vagrant 2.3 or later", "it creates the machines"),
    Tool("ssh", "up", ("openssh-client",), "the OpenSSH client", "machines are set up over it"),
    Tool("ip", "up", ("iproute2",), "iproute2", "it shows where packets for the lab would go"),
    Tool("mmdebstrap", "bake", ("mmdebstrap",), "mmdebstrap", "it creates the golden machine's Debian root"),
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
    Tool("gcc", "bake", ("gcc", "libc6-dev"), "gcc", "runc, flannel and pause are built with it"),
    Tool("libc.a", "bake", ("libc6-dev",), "a static C library", "runc, flannel and pause are linked with it"),
    Tool("libseccomp.a", "bake", ("libseccomp-dev",), "a static libseccomp", "runc is linked with it"),
    Tool("pkg-config", "bake", ("pkgconf",), "pkg-config", "it shows runc's build where libseccomp is"),
    Tool("curl", "upstream", ("curl",), "curl", "it downloads upstream's files and images"),
    Tool("shellcheck", "lint", ("shellcheck",), "ShellCheck", "it lints the provisioning scripts"),
    Tool("shfmt", "lint", ("shfmt",), "shfmt", "it formats the provisioning scripts"),
    Tool("pdftoppm", "test", ("poppler-utils",), "poppler", "it converts a handout's pages to images"),
    Tool("chromium", "pdf", ("chromium",), "Chromium", "it prints handouts as PDF, and tests use it"),
    Tool("Korean fonts", "korean", ("fonts-noto-cjk",), "a Korean font", "pages in Korean need it"),
)
"""The tools for every provider; each provider adds its own."""


def system(case: Case) -> Iterator[Finding]:
    """Can this kind of host build a golden machine?"""
    kinds = {"macos": "macOS, which can't bake", "wsl": "WSL, where baking is not supported"}
    if case.host.system in kinds:
        why = "The kit is built and tested on Debian. Please report whether it works."
        yield note("untried", "This system", "the kit has not been tested on it", why)
    if case.host.system in kinds and case.wants("bake") and not case.baked:
        why = "A golden machine is built with Debian's tools on a Linux host and imported here as one file."
        repair = "./inv bake --import FILE   # exported there, with this lab.yaml: `./inv bake --export FILE`"
        yield unfit("system", "Golden machine", f"this is {kinds[case.host.system]}", why, repair)


def packages(case: Case, own: Sequence[Tool] = ()) -> Iterator[Finding]:
    """Is everything installed that the purposes need? One finding with one command for all of it.

    `own` are the tools of the lab's provider.
    """
    wanted_tools = [tool for tool in (*own, *TOOLS) if case.wants(tool.purpose)]
    if case.host.system != "linux":
        wanted_tools = [tool for tool in wanted_tools if tool.purpose not in BAKING]  # baking is not done here
    missing = [tool for tool in wanted_tools if not _has(case, tool)]
    title = "Programs"
    if not missing:
        yield fit("packages", title, "all are installed")
        return
    what = f"missing: {', '.join(tool.name for tool in missing)}"
    why = "; ".join(f"{tool.name}: {tool.why}" for tool in missing) + "."
    if "apt-get" not in case.host.programs:
        upstream = ", ".join(dict.fromkeys(tool.upstream for tool in missing))
        repair = f"# there is no apt here: install {upstream} with this system's package manager"
        yield unfit("packages", title, what, why, repair)
        return
    wanted = sorted({package for tool in missing for package in tool.packages})
    actions = (
        Action((*APT, "update")),
        Action((*APT, *INSTALL, *wanted)),
    )
    sudo = "" if case.host.uid == 0 else "sudo "
    repair = f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {quoting.line(wanted)}"
    yield Finding("packages", title, "repairable", what, why, repair, actions)


def vagrant(case: Case, why: str = "The kit supports 2.3 and later.") -> Iterator[Finding]:
    """Does Vagrant start, and is it new enough (`why`)? If it is missing, `packages` reports that."""
    if "vagrant" not in case.host.programs or not case.wants("up"):
        return
    found, repair = case.host.vagrant, "vagrant --version   # what does it print?"
    if isinstance(found, Unknown):
        yield unfit("vagrant", "Vagrant", f"does not start: {found.reason}", "It creates the machines.", repair)
        return
    version = ".".join(map(str, found))
    if found < VAGRANT:
        yield unfit("vagrant", "Vagrant", f"is {version}", why, "# install Vagrant 2.3 or later")
    else:
        yield fit("vagrant", "Vagrant", version)


def toolchains(case: Case) -> Iterator[Finding]:
    """Which Python runs this, which Go builds programs, and is the upstream version pinned?"""
    yield fit("python", "Python", ".".join(map(str, case.host.python)))
    if case.wants("bake"):
        go = release(case.lab.kubernetes.version).go
        yield fit("go", "Go", f"{go}, downloaded by `bake`; the host's own is not used")
    if case.wants("bake") and case.lab.kubernetes.source == "upstream":
        version = case.lab.kubernetes.version
        if lock.exists(version):
            yield fit("upstream", "Kubernetes from upstream", f"{version} is pinned")
        else:
            why = "A golden machine contains only pinned versions."
            repair = "supply/pin-upstream RECORDS   # or set `source: modules`"
            yield unfit("upstream", "Kubernetes from upstream", f"{version} is not pinned", why, repair)


def _has(case: Case, tool: Tool) -> bool:
    host = case.host
    if tool.is_there:
        return tool.is_there(case)
    if tool.name == "trixie's key":
        return host.trixie_key
    if tool.name == "authorities":
        return host.authorities
    if tool.name == "Korean fonts":
        return host.korean_font
    if tool.name == "libc.a":
        return host.static_libc
    if tool.name == "libseccomp.a":
        return host.static_libseccomp
    return tool.name in host.programs
