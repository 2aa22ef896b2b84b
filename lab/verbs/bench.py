"""Measures `up` against the bare floor, in pairs, and writes `.lab/bench.json`.

The floor is the time that the same golden machine takes without the kit: plain container starts and kubeadm
commands, in the best possible order (tests/bench/floor.sh). Both end when all nodes are Ready.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table

from lab.config.shape import whole
from lab.errors import CommandFailed, ConfigError, LabStateError
from lab.golden.image import name as image_name
from lab.golden.supply.releases import release
from lab.host import node_capabilities
from lab.providers import provider_of
from lab.providers.docker import machines
from lab.session import Session, open_wanted
from lab.system import process
from lab.system.paths import REPOSITORY
from lab.verbs import bake, destroy, up

FLOOR = REPOSITORY / "tests" / "bench" / "floor.sh"
MAX_REPEATS = 50
"""The maximum of --pairs, which takes an afternoon; more counts as a typo."""


@dataclass(frozen=True)
class Run:
    """One run: seconds until all nodes were Ready, its containers' peak memory, its steps."""

    seconds: float
    peak_memory_mib: float
    steps: dict[str, float]


def bench(session: Session, *, consent: bool, pairs: str) -> RenderableType:
    """Run `pairs` pairs of (up, floor) on a separate lab; return the table.

    Raises ConfigError, before anything is created, if `pairs` is not a valid number.
    """
    try:
        count = whole(pairs, range(1, MAX_REPEATS + 1), f"from 1 to {MAX_REPEATS}")
    except ValueError as error:
        raise ConfigError([f"--pairs: {error}"], hint="`./inv --help bench` explains it") from error
    if not provider_of(session.lab).shares_kernel:
        raise LabStateError(
            "the bare floor uses containers, so only the provider docker can be measured against it",
            hint="set `provider: docker` in lab.yaml, or use such a file with --lab",
        )
    bake.bake(session, consent=consent)
    ups, floors = [], []
    for number in range(1, count + 1):
        with session.progress.step("up", f"pair {number} of {count}: up"):
            ups.append(_up(session))
        with session.progress.step("floor", f"pair {number} of {count}: floor"):
            floors.append(_floor(session))
    result = _result(ups, floors)
    session.workspace.root.mkdir(parents=True, exist_ok=True)
    path = session.workspace.root / "bench.json"
    session.workspace.write(path, json.dumps(result, indent=2) + "\n")
    return _table(result, path)


def _up(session: Session) -> Run:
    with tempfile.TemporaryDirectory(prefix="ha-lab-bench-") as folder:
        path = Path(folder) / "lab.yaml"
        path.write_text(yaml.safe_dump(_lab_file(session)), encoding="utf-8")
        with (Path(folder) / "out.txt").open("w", encoding="utf-8") as out:
            own = open_wanted(path, Console(file=out))
            try:
                with _Memory(f"^{own.lab.name}-") as memory:
                    started = time.monotonic()
                    up.up(own, up.Request(), _refuse)
                    ended = time.monotonic()
                return Run(_ready(own, started, ended), memory.peak_mib, _steps(own))
            finally:
                destroy.destroy(own)


def _ready(own: Session, started: float, ended: float) -> float:
    """Seconds from the command's start; `up` itself continues for a while after the nodes are Ready."""
    report = json.loads(own.workspace.report.read_text(encoding="utf-8"))
    ready = next(step for step in report["steps"] if step["name"] == "nodes-ready")
    return min(ended - started, float(ready["started"]) + float(ready["seconds"]))


def _refuse(question: str) -> bool:
    raise LabStateError(f"the benchmark's lab asks for confirmation: {question}")


def _steps(own: Session) -> dict[str, float]:
    return {f"{step.machine} {step.name}".strip(): round(step.seconds, 1) for step in own.progress.finished}


def _floor(session: Session) -> Run:
    with tempfile.TemporaryDirectory(prefix="ha-lab-floor-") as folder, _Memory("^floor-") as memory:
        capabilities = " ".join(node_capabilities())
        environment = {"IMAGE": image_name(session.lab), "CAPABILITIES": capabilities, "WORK": folder}
        environment["VERSION"] = session.lab.kubernetes.version
        environment["ETCD_TAG"] = release(session.lab.kubernetes.version).etcd_tag
        try:
            with session.progress.asking("the bare floor to come up"):
                answer = process.run([str(FLOOR), "up"], env=environment, timeout=900)
        finally:
            with session.progress.asking("the bare floor to be removed"):
                process.run([str(FLOOR), "down"], env=environment, timeout=120, accept=None)
    steps = {
        name: float(seconds) for name, seconds in re.findall(r"^(\S+) ([0-9.]+)$", answer.stdout, re.MULTILINE)
    }
    return Run(steps["ready"], memory.peak_mib, steps)


class _Memory:
    """The peak memory of all containers whose name matches, sampled every two seconds."""

    def __init__(self, pattern: str) -> None:
        self.peak_mib = 0.0
        self._pattern = pattern
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(2):
            try:
                ids = machines.containers_named(self._pattern)
            except CommandFailed:
                continue  # a busy daemon; the next sample is soon
            self.peak_mib = max(self.peak_mib, sum(_memory_of(container) for container in ids))


def _memory_of(container: str) -> float:
    """MiB that a container uses without page cache, as `docker stats` counts."""
    for pattern, inactive in (
        ("/sys/fs/cgroup/memory/docker/{}/memory", "total_inactive_file"),
        ("/sys/fs/cgroup/system.slice/docker-{}.scope/memory", "inactive_file"),
        ("/sys/fs/cgroup/docker/{}/memory", "inactive_file"),
    ):
        base = pattern.format(container)
        for usage in (f"{base}.usage_in_bytes", f"{base}.current"):
            if os.path.exists(usage):
                stat = Path(f"{base}.stat").read_text(encoding="ascii")
                cache = dict(line.split() for line in stat.splitlines()).get(inactive, "0")
                return (int(Path(usage).read_text(encoding="ascii")) - int(cache)) / 2**20
    return 0.0


def _lab_file(session: Session) -> dict[str, object]:
    """The lab to measure, with a name and subnet of its own, so that it can run beside other labs."""
    return {
        "name": "ha-lab-bench",
        "kubernetes": {"version": session.lab.kubernetes.version},
        "network": {"subnet": "192.168.60.0/24"},
    }


def _result(ups: list[Run], floors: list[Run]) -> dict[str, object]:
    up, floor = (statistics.median(run.seconds for run in runs) for runs in (ups, floors))
    names = sorted({name for run in ups for name in run.steps})
    return {
        "pairs": len(ups),
        "up_s": round(up, 1),
        "floor_s": round(floor, 1),
        "ratio": round(up / floor, 3),
        "peak_memory_mib": round(statistics.median(run.peak_memory_mib for run in ups)),
        "up_runs_s": [round(run.seconds, 1) for run in ups],
        "floor_runs_s": [round(run.seconds, 1) for run in floors],
        "steps_s": {
            name: round(statistics.median(run.steps[name] for run in ups if name in run.steps), 1)
            for name in names
        },
        "floor_steps_s": {
            name: round(statistics.median(run.steps[name] for run in floors), 1) for name in floors[0].steps
        },
    }


def _table(result: dict[str, object], path: Path) -> RenderableType:
    table = Table("figure", "median", "runs", box=None, pad_edge=False)
    table.add_row("up, to all nodes Ready", f"{result['up_s']} s", str(result["up_runs_s"]))
    table.add_row("bare floor", f"{result['floor_s']} s", str(result["floor_runs_s"]))
    table.add_row("ratio", str(result["ratio"]), "")
    table.add_row("memory of the lab, at most", f"{result['peak_memory_mib']} MiB", "")
    return Group(table, f"written to {path}")
