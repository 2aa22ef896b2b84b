"""Measures a first run from upstream against one from Go modules: empty caches to all nodes Ready, in one go.

    .venv/bin/python -m tests.bench.first_run --rate 100

Upstream's hosts are a stand-in on loopback, throttled to `--rate` Mbit/s, with files and images of about
upstream's sizes, made of programs built from Go modules (from this user's cache, else built first). What both
runs need besides comes as it always does: Debian's packages, the Go toolchain and Go modules, unthrottled.
Each run has caches of its own, which are removed with its lab and golden machine. Nothing else may run on the
host meanwhile. Writes `.lab/first-run.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from lab.config import default, load
from lab.golden import image
from lab.golden.supply import lock, source
from lab.golden.supply.releases import release
from lab.host import cache_folder
from lab.session import open_wanted
from lab.system import process
from lab.system.paths import REPOSITORY
from lab.system.progress import Progress
from lab.verbs import destroy, up
from tests.supply import real
from tests.supply.standins import Site, served

MBIT = 1_000_000 / 8
"""Bytes."""

RESULT = REPOSITORY / ".lab" / "first-run.json"


@dataclass(frozen=True)
class Run:
    """One run: seconds until all nodes were Ready, those of them after the bake, and those of each step."""

    source: source.Source
    seconds: float
    bring_up: float
    remarks: tuple[str, ...]
    steps: dict[str, float]


def main() -> None:
    """Measure both, one after the other; print a table and write the result."""
    parser = argparse.ArgumentParser(prog="first_run", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=100, help="of the stand-in, in Mbit/s")
    parser.add_argument("--subnet", default="192.168.62.0/24", help="of the two labs")
    given = parser.parse_args()
    console = Console()
    _require_none()
    folder = Path(tempfile.mkdtemp(prefix="first-run-", dir=cache_folder()))
    site = Site(rate=given.rate * MBIT)
    try:
        pinned = _fill(site, folder, Progress(console, folder / "logs"))
        with served(site), _locks(pinned, folder / "locks"):
            mirrors = real.mirrors(site).model_dump(exclude_defaults=True)
            runs = [_run("upstream", mirrors, given.subnet, folder / "upstream", console)]
            runs.append(_run("modules", {}, given.subnet, folder / "modules", console))
    finally:
        process.run(process.as_root("rm", "-rf", "--one-file-system", str(folder)), timeout=300)
    console.print(table(runs, given.rate))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"rate": given.rate, "runs": [asdict(each) for each in runs]}, indent=2) + "\n"
    )
    console.print(f"wrote {RESULT}")


def _require_none() -> None:
    """Refuse to measure where the golden machine of a build from modules exists: that run would take it."""
    lab = default()
    lab = lab.model_copy(update={"kubernetes": lab.kubernetes.model_copy(update={"source": "modules"})})
    golden = image.name(lab)
    if image.exists(lab, golden):
        raise SystemExit(f"{golden} exists: `docker image rm {golden}` removes it")


def _fill(site: Site, folder: Path, progress: Progress) -> lock.Lock:
    lab = default()
    wanted = release(lab.kubernetes.version)
    built = source.build(wanted, "modules", lab.mirrors, cache_folder(), progress)
    return real.fill(site, wanted, built, folder / "served", progress)


@contextlib.contextmanager
def _locks(pinned: lock.Lock, folder: Path) -> Iterator[None]:
    """The stand-in's lock in place of the repository's, in this process only."""
    before, lock.FOLDER = lock.FOLDER, folder
    try:
        lock.write(pinned)
        yield
    finally:
        lock.FOLDER = before


def _run(wanted: source.Source, mirrors: object, subnet: str, folder: Path, console: Console) -> Run:
    """Bring a lab up from nothing, and remove all of it."""
    folder.mkdir()
    data = {
        "name": f"first-run-{wanted}",
        "provider": "docker",
        "kubernetes": {"source": wanted},
        "network": {"subnet": subnet},
        "mirrors": mirrors,
    }
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    console.print(f"{wanted}: a first run, with empty caches")
    with empty_caches(folder / "cache"), (folder / "out.txt").open("w", encoding="utf-8") as out:
        session = open_wanted(path, Console(file=out))
        try:
            began = time.monotonic()
            up.up(session, up.Request(), _refuse)
            ended = time.monotonic()
            report = json.loads(session.workspace.report.read_text(encoding="utf-8"))
        finally:
            golden = image.name(load(path))
            destroy.destroy(session)
            process.run(["docker", "image", "rm", golden], accept=None)
    return result(wanted, report, ended - began)


def result(wanted: source.Source, report: dict[str, Any], seconds: float) -> Run:
    """Read a run's report; the lab is ready before the command ends, after `seconds`."""
    steps = report["steps"]
    ended = {each["name"]: each["started"] + each["seconds"] for each in steps}
    names = [f"{each['machine']} {each['name']}".strip() for each in steps]
    return Run(
        wanted,
        round(min(seconds, ended["nodes-ready"]), 1),
        round(ended["nodes-ready"] - ended["golden"], 1),
        tuple(report["remarks"]),
        {name: round(each["seconds"], 1) for name, each in zip(names, steps, strict=True)},
    )


def _refuse(question: str) -> bool:
    raise SystemExit(f"the lab asks for confirmation: {question}")


@contextlib.contextmanager
def empty_caches(folder: Path) -> Iterator[None]:
    """No build, module, package or golden machine of an earlier run: everything that a first run fetches."""
    changed = {
        "XDG_CACHE_HOME": str(folder),
        "GOMODCACHE": str(folder / "modules"),
        "GOCACHE": str(folder / "go"),
    }
    before = {name: os.environ.get(name) for name in changed}
    folder.mkdir()
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        # Go's module cache is read-only.
        process.run(["chmod", "-R", "u+w", folder], accept=None, timeout=300)
        shutil.rmtree(folder, ignore_errors=True)


def table(runs: list[Run], rate: float) -> Table:
    """Return both runs side by side: the whole, the lab alone, and the steps that took longest."""
    shown = Table(f"first run, {rate:g} Mbit/s", *(each.source for each in runs), box=None, pad_edge=False)
    shown.add_row("empty caches to all nodes Ready", *(f"{each.seconds:.0f} s" for each in runs))
    shown.add_row("of that, after the golden machine", *(f"{each.bring_up:.0f} s" for each in runs))
    names = sorted({name for each in runs for name in each.steps if " " not in name})
    longest = sorted(names, key=lambda name: -max(each.steps.get(name, 0.0) for each in runs))[:12]
    for name in longest:
        shown.add_row(
            f"step {name}", *(f"{each.steps[name]:.0f} s" if name in each.steps else "-" for each in runs)
        )
    return shown


if __name__ == "__main__":
    main()
