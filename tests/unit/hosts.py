"""Hosts for tests: recorded answers, a door that refuses other questions, facts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from lab.errors import CommandFailed
from lab.host import Cgroups, Daemon, DockerNetwork, Folder, HostFacts, Inotify, Memory, Route, Way
from lab.host.kernel import CAPABILITIES, FEATURES
from lab.system.process import Result

RECORDED = Path(__file__).parent / "recorded" / "host"
WORKSPACE = Path("/home/ada/lab/.lab")


def recorded(name: str) -> str:
    """What a real host said, on a build machine with a lab of seven machines up."""
    return (RECORDED / name).read_text(encoding="utf-8")


def recorded_tree(root: Path) -> Path:
    """Lay out the recorded parts of /proc below `root`, as a file system."""
    proc = root / "proc"
    limits = proc / "sys/fs/inotify"
    limits.mkdir(parents=True)
    (proc / "meminfo").write_text(recorded("meminfo.txt"))
    (proc / "cgroups").write_text(recorded("cgroups.txt"))
    (limits / "max_user_instances").write_text("128\n")
    (limits / "max_user_watches").write_text("192493\n")
    (proc / "3827").mkdir()
    (proc / "3827/comm").write_text("dockerd\n")
    (proc / "3827/status").write_text(recorded("dockerd-status.txt"))
    (proc / "3827/cmdline").write_text("/usr/sbin/dockerd\0")
    (proc / "self").mkdir()
    (proc / "self/mountinfo").write_text(recorded("mountinfo.txt"))
    return root


@dataclass
class FakeRun:
    """Stands for `lab.system.process.run`: answers by a command's first words, refuses what it was not told."""

    answers: dict[str, tuple[int, str, str] | CommandFailed] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    environments: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def tell(self, words: str, stdout: str = "", *, code: int = 0, stderr: str = "") -> None:
        """Answer commands that start with these words; the longest such answer counts."""
        self.answers[words] = (code, stdout, stderr)

    def fail(self, words: str, what: str) -> None:
        """Let commands that start with these words not start, or not end."""
        self.answers[words] = CommandFailed(words.split(), what)

    def __call__(
        self, argv: Sequence[str | Path], *, accept: Collection[int] | None = (0,), **options: Any
    ) -> Result:
        """Answer as the real door would."""
        words = tuple(str(word) for word in argv)
        line = " ".join(words)
        known = [start for start in self.answers if line == start or line.startswith(f"{start} ")]
        assert known, f"a command that this test was not told of: {line}"
        self.asked.append(words)
        self.environments[line] = options.get("env") or {}
        answer = self.answers[max(known, key=len)]
        if isinstance(answer, CommandFailed):
            raise answer
        code, stdout, stderr = answer
        if options.get("log"):
            options["log"].parent.mkdir(parents=True, exist_ok=True)
            options["log"].write_text(stdout + stderr, encoding="utf-8")
        if accept is not None and code not in accept:
            raise CommandFailed(words, f"ended with exit code {code}", tail=stderr or stdout, returncode=code)
        return Result(words, code, stdout, stderr, 0.0)


def folder(path: str, free: int = 60_000, *, device: int = 1, writable: bool = True) -> Folder:
    """A folder on a disk with room."""
    return Folder(Path(path), free, device, writable)


DEFAULT_ROUTE = Route(IPv4Network("0.0.0.0/0"), "eth0", "192.0.2.1")

FIT_HOST = HostFacts(
    uid=0,
    python=(3, 11, 2),
    kernel="6.1.0-40-amd64",
    systemd=True,
    cpus=4,
    memory=Memory(total=16_000, available=14_000, swap=0),
    tmp=folder("/tmp"),  # noqa: S108
    cache=folder("/home/ada/.cache/ha-lab"),
    workspace=folder(str(WORKSPACE)),
    docker_data=folder("/var/lib/docker"),
    programs=frozenset(
        (
            *(
                "apt-get",
                "docker",
                "curl",
                "dockerd",
                "gcc",
                "ip",
                "mmdebstrap",
                "pkg-config",
                "ruby",
                "service",
                "shellcheck",
            ),
            *("shfmt", "ssh", "ssh-keygen", "sudo", "sysctl", "vagrant"),
        )
    ),
    static_libc=True,
    static_libseccomp=True,
    korean_font=True,
    trixie_key=True,
    authorities=True,
    vagrant=(2, 3, 4),
    daemon=Daemon("answers", "unix:///var/run/docker.sock", version="20.10.24", kernel="6.1.0-40-amd64"),
    containers=(),
    docker_networks=(DockerNetwork("bridge", "docker0", (IPv4Network("172.17.0.0/16"),)),),
    libvirt_networks={},
    routes=(
        DEFAULT_ROUTE,
        Route(IPv4Network("192.0.2.0/24"), "eth0"),
        Route(IPv4Network("172.17.0.0/16"), "docker0"),
    ),
    way=Way("eth0", "192.0.2.1"),
    cgroups=Cgroups(2, frozenset({"cpu", "cpuset", "memory", "pids"})),
    inotify=Inotify(instances=1024, watches=192_493, used=10),
    capabilities=frozenset(CAPABILITIES),
    features=dict.fromkeys(FEATURES, "there"),
)
"""A host on which everything is fit, as data."""


def host(**different: Any) -> HostFacts:
    """The fit host, but for what is given."""
    return replace(FIT_HOST, **different)
