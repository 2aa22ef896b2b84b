"""What stands in for the world in unit tests: a clock, a way to machines, programs on PATH.

Each answers what it was told to and refuses the rest.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from lab.errors import LabError
from lab.health.facts.machine import own_scripts
from lab.model import Lab, Node
from lab.remote import Remote
from lab.system import process
from lab.system.progress import Progress
from lab.workspace import Workspace, made
from lab.workspace.made import Made, MadeMachine
from lab.workspace.render import Site

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
RECORDED = HERE / "recorded"

CA = (GOLDEN / "ca.crt").read_text(encoding="utf-8")
"""The certificate of a CA whose key nobody has."""

SITE = Site(
    workspace=Path("/home/ada/lab/.lab"),
    owner="/home/ada/lab/.lab",
    control=Path("/tmp/ha-lab-1000-0123456789ab"),  # noqa: S108  a name in a text
    image="ha-lab/golden:0123456789abcdef",
    capabilities=("NET_ADMIN", "SYS_ADMIN"),
    ca_certificate=CA,
    authorized_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample ha-lab",
)


MANIFEST = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent, namespace: kube-system}\n"
"""As little as can be the manifest of a pod network."""


def with_a_second_balancer(lab: Lab) -> Lab:
    """Return the lab with lb2 beside its one load balancer: what no lab.yaml can say yet."""
    first = lab.balancers[0]
    second = first.model_copy(update={"name": "lb2", "address": first.address - 1})
    return lab.model_copy(update={"nodes": (first, second, *lab.nodes[1:])})


def keep_made(workspace: Workspace, lab: Lab, golden: str = "ha-lab/golden:0123456789abcdef") -> Made:
    """Let `.lab/` say that this lab was made there, as versions did whose label was the folder's path."""
    machine = MadeMachine(golden=golden, kubernetes=lab.kubernetes.version)
    record = Made(
        lab=lab,
        owner=str(workspace.root),
        root=str(workspace.root),
        machines={node.name: machine for node in lab.nodes},
    )
    made.write(workspace, record)
    return record


class FakeClock:
    """Time that passes only while somebody sleeps."""

    START = 1000.0

    def __init__(self) -> None:
        """Start at a time that isn't zero."""
        self.now = self.START
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return what this clock shows."""
        return self.now

    def sleep(self, seconds: float, /) -> None:
        """Let that much pass, at once."""
        self.slept.append(seconds)
        self.now += seconds


def asked_of_machine(name: str, text: str) -> str:
    """What facts.sh of this checkout prints when it is asked for that only."""
    return f"== script 0\n{own_scripts()}  -\n\n== {name} 0\n{text}\n\n== clock 0\n1000.0\n"


class FakeRemote(Remote):
    """Machines that keep the order of what they were asked; a script does what `doing` says."""

    def __init__(self, lab: Lab, workspace: Workspace) -> None:
        """Let every machine be up and have nothing."""
        super().__init__(lab, workspace)
        self.down: set[str] = set()
        self.states = {node.name: "fresh" for node in lab.kubernetes_nodes}
        self.renewals: dict[str, str] = {}
        self.events: list[str] = []
        self.delivered: list[str] = []
        self.given: dict[str, dict[str, str]] = {}
        self.words: dict[str, tuple[str, ...]] = {}
        self.doing: Callable[[str, str], bool] = lambda machine, script: True
        self.holding: set[str] = set()

    def route_problem(self) -> str | None:
        """Say that the lab's network is up."""
        return None

    def why_not_reachable(self, node: Node) -> str | None:
        """Say whether that machine is down."""
        return "No route to host" if node.name in self.down else None

    def deliver(self, node: Node) -> None:
        """Keep that a machine was given its folder."""
        self.delivered.append(node.name)

    def run(
        self,
        node: Node,
        command: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        timeout: float | None = None,
        accept: Sequence[int] | None = (0,),
        log: Path | None = None,
        output: Path | None = None,
        source: Path | None = None,
        gently: bool = False,
    ) -> process.Result:
        """Answer the probe, what has to be renewed, and where the shared address is; nothing else."""
        if tuple(command) == ("sudo", "/opt/ha-lab/facts.sh", "virtual-address"):
            word = "holds" if node.name in self.holding else "sees"
            answer = (
                ""
                if node.name in self.down
                else asked_of_machine("virtual-address", f"{word} 02:00:00:00:00:01")
            )
            return process.Result(tuple(command), 0, answer, "", 0.0)
        if tuple(command) == ("sudo", "/opt/ha-lab/renew-certificates.sh", "--list", "30"):
            return process.Result(tuple(command), 0, self.renewals.get(node.name, ""), "", 0.0)
        assert tuple(command) == ("sudo", "/opt/ha-lab/probe.sh"), f"not told of {command}"
        return process.Result(tuple(command), 0, f"{self.states[node.name]}\n", "", 0.0)

    def script(
        self,
        node: Node,
        name: str,
        words: Sequence[str] = (),
        *,
        secrets: Mapping[str, str] | None = None,
        log: Path,
        timeout: float = 1800,
    ) -> bool:
        """Keep when a script started and ended on a machine, and do what this test says."""
        job = f"{name} {node.name}"
        self.words[job] = tuple(words)
        self.given[job] = dict(secrets or {})
        self.events.append(f"start {job}")
        try:
            changed = self.doing(node.name, name)
        except LabError:
            self.events.append(f"fail {job}")
            raise
        self.events.append(f"end {job}")
        return changed


@functools.cache
def recorded(name: str) -> str:
    """What a real program said."""
    return (RECORDED / name).read_text(encoding="utf-8")


def printed(*, width: int = 200) -> tuple[Console, io.StringIO]:
    """A console that is no terminal, and what it prints."""
    text = io.StringIO()
    return Console(file=text, width=width, highlight=False), text


def progress(logs: Path) -> Progress:
    """A run whose words nobody reads."""
    return Progress(printed()[0], logs)


def program(folder: Path, name: str, body: str) -> Path:
    """Put a small program into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def first_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs of a folder be found before others."""
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
