"""Judging programs: what is installed, Vagrant, the toolchains."""

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
"""What only hosts that bake need."""

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
LOCK_TIMEOUT = 120
"""Seconds that another apt has to let go of its lock."""
INSTALL = ("-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT}", "install", "-y", "--no-install-recommends")


@dataclass(frozen=True)
class Tool:
    """A thing that is needed: its Debian packages, what it is called upstream, and what for."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    upstream: str
    why: str
    is_there: Callable[[Case], bool] | None = None
    """Whether the host has it; None: `_has` knows, by its name."""


TOOLS = (
    Tool("vagrant", "up", ("vagrant",), "Vagrant 2.3 or later", "it makes the machines"),
    Tool("ssh", "up", ("openssh-client",), "the OpenSSH client", "machines are set up over it"),
    Tool("ip", "up", ("iproute2",), "iproute2", "it shows where packets for the lab would go"),
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
    Tool("gcc", "bake", ("gcc", "libc6-dev"), "gcc", "runc, flannel and pause are built with it"),
    Tool("libc.a", "bake", ("libc6-dev",), "a static C library", "runc, flannel and pause are linked with it"),
    Tool("libseccomp.a", "bake", ("libseccomp-dev",), "a static libseccomp", "runc is linked with it"),
    Tool("pkg-config", "bake", ("pkgconf",), "pkg-config", "it shows runc's build where libseccomp is"),
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
"""What is needed with every provider, which has tools of its own."""


def system(case: Case) -> Iterator[Finding]:
    """Can this kind of host make a golden machine?"""
    kinds = {"macos": "macOS, which can't bake", "wsl": "WSL, where baking is not supported"}
    if case.host.system in kinds:
        why = "The kit is built and tested on Debian. Report how it goes to its makers."
        yield note("untried", "This system", "the kit has not been tried on it", why)
    if case.host.system in kinds and case.wants("bake") and not case.baked:
        why = "A golden machine is made with Debian's tools on a Linux host, and is brought here as one file."
        repair = "./inv bake --import FILE   # made there, with this lab.yaml: `./inv bake --export FILE`"
        yield unfit("system", "Golden machine", f"this is {kinds[case.host.system]}", why, repair)


def packages(case: Case, own: Sequence[Tool] = ()) -> Iterator[Finding]:
    """Is everything installed that the purposes need? One finding, and one command, for all of it.

    `own` are the tools of the lab's provider.
    """
    wanted_tools = [tool for tool in (*own, *TOOLS) if case.wants(tool.purpose)]
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
        repair = f"# there is no apt here: install {upstream} in this system's own way"
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


def vagrant(case: Case, why: str = "The kit is made for 2.3 and later.") -> Iterator[Finding]:
    """Does Vagrant start, and is it new enough (`why`)? A missing one is in the programs' finding."""
    if "vagrant" not in case.host.programs or not case.wants("up"):
        return
    found, repair = case.host.vagrant, "vagrant --version   # what does it say?"
    if isinstance(found, Unknown):
        yield unfit("vagrant", "Vagrant", f"does not start: {found.reason}", "It makes the machines.", repair)
        return
    version = ".".join(map(str, found))
    if found < VAGRANT:
        yield unfit("vagrant", "Vagrant", f"is {version}", why, "# install Vagrant 2.3 or later")
    else:
        yield fit("vagrant", "Vagrant", version)


def toolchains(case: Case) -> Iterator[Finding]:
    """Which Python runs this, and which Go builds programs?"""
    yield fit("python", "Python", ".".join(map(str, case.host.python)))
    if case.wants("bake"):
        go = release(case.lab.kubernetes.version).go
        yield fit("go", "Go", f"{go}, fetched by `bake`; the host's own is not used")
    if case.wants("bake") and case.lab.kubernetes.source == "upstream":
        version = case.lab.kubernetes.version
        if lock.exists(version):
            yield fit("upstream", "Kubernetes from upstream", f"{version} is pinned")
        else:
            why = "Nothing goes into a golden machine that is not pinned."
            repair = "./inv lock   # where upstream or a mirror is reached; else `source: modules`"
            yield unfit("upstream", "Kubernetes from upstream", f"{version} is not pinned", why, repair)


def _has(case: Case, tool: Tool) -> bool:
    host = case.host
    if tool.is_there:
        return tool.is_there(case)
    if tool.name == "trixie's key":
        return host.trixie_key
    if tool.name == "authorities":
        return host.authorities
    if tool.name == "Korean letters":
        return host.korean_font
    if tool.name == "libc.a":
        return host.static_libc
    if tool.name == "libseccomp.a":
        return host.static_libseccomp
    return tool.name in host.programs
