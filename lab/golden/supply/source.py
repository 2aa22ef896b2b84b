"""Chooses where Kubernetes comes from: built here from Go modules, or downloaded from upstream.

Both lead to the same folder: bin/ cni/ kube-flannel.yml bom.json, and for upstream images/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from lab.errors import LabError
from lab.golden.supply import hosts, lock, modules, upstream
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system.progress import Progress

Source = Literal["upstream", "modules"]
Wanted = Literal["auto", "modules", "upstream"]

SECONDS = 3.0
"""How long upstream has for an answer before `auto` builds from modules instead."""


def possible(release: Release, wanted: Wanted) -> tuple[Source, ...]:
    """Return the sources that may be used, the preferred one first: two only where `auto` has a lock."""
    if wanted != "auto":
        return (wanted,)
    return get_args(Source) if lock.exists(release.kubernetes) else ("modules",)


def choose(release: Release, wanted: Wanted, mirrors: Mirrors, cache: Path, progress: Progress) -> Source:
    """Return the source to make a new golden machine from; asks upstream wherever it may be used.

    Raises LabError where lab.yaml demands upstream, and that can't be used.
    """
    if "upstream" not in possible(release, wanted):
        return "modules"
    if upstream.is_there(release, cache):
        return "upstream"
    seconds = SECONDS if wanted == "auto" else hosts.PATIENCE
    with progress.step("source", "ask whether upstream can be reached") as step:
        why_not = upstream.problem(release, mirrors, seconds, cache / "upstream", step.log)
        if why_not and wanted == "upstream":
            raise LabError(
                f"Kubernetes {release.kubernetes} can't be taken from upstream: {why_not.message}",
                hint=f"{why_not.advice}; or set `kubernetes: {{source: auto}}` in lab.yaml, which then builds "
                "from Go modules",
                log=step.log,
            )
        step.note = f"no ({why_not.message})" if why_not else "yes"
    if why_not:
        progress.remark(f"Kubernetes {release.kubernetes} is built from Go modules: {why_not.message}")
    return "modules" if why_not else "upstream"


def key(release: Release, source: Source) -> str:
    """Return the hash of all that determines what that source gives. Raises LabError where it can't."""
    return modules.key(release) if source == "modules" else upstream.key(release)


def build(release: Release, source: Source, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of this release's programs, made if it isn't there. Raises LabError."""
    make = modules.build if source == "modules" else upstream.build
    return make(release, mirrors, cache, progress)
