"""Builds programs from Go modules, verified by pinned go.sum files: what is shared by all that is built here.

A build goes into a folder of its own, and the next one goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.golden.supply import toolchain
from lab.golden.supply.golang import Go, settings
from lab.golden.supply.recipe import FLAGS, Component
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system.progress import Progress


def key(wanted: Sequence[Component], *others: object) -> str:
    """Return the hash of all that determines some programs: pins, flags, toolchain, and `others`.

    What has C in it depends on this host's compiler and libraries too. They are listed in the bill of
    materials and not in the key: a folder made elsewhere serves here as well.
    """
    digest = hashlib.sha256(json.dumps([*others, FLAGS]).encode())
    digest.update(toolchain.LOCK.read_bytes())
    for component in wanted:
        digest.update(json.dumps([_recipe(component), settings(component)]).encode())
        for name in ("go.mod", "go.sum"):
            digest.update((component.pin / name).read_bytes())
    return digest.hexdigest()[:16]


def prepare(
    what: str,
    wanted: Sequence[Component],
    release: Release,
    mirrors: Mirrors,
    cache: Path,
    progress: Progress,
) -> Go:
    """Return the pinned Go, with all modules of these components at hand. Raises LabError.

    `what` is what they are called together.
    """
    with progress.step("go", f"get Go {release.go}") as step:
        go = Go(toolchain.ensure(cache, step.log), mirrors.go)
    with progress.step("download", f"get the Go modules of {what}") as step:
        for component in wanted:
            step.note = f"{component.name} {component.version}"
            go.download(component, step.log)
        step.note = ""
    return go


def build(go: Go, wanted: Sequence[Component], partial: Path, progress: Progress) -> None:
    """Build what isn't in `partial` yet. Raises LabError."""
    for component in wanted:
        for targets in component.steps:
            _build(go, component, targets, partial, progress)


def beside(output: Path) -> Path:
    """Where a program lies until it is finished: out of the way of a run that was killed, too.

    What a killed run had started goes on for a while and would write there.
    """
    return output.with_name(f".{output.name}.{os.getpid()}")


def link(partial: Path, whole: Path, folder: str) -> None:
    """Give `whole` a folder of finished programs of `partial`, of which it takes no second copy."""
    shutil.copytree(
        partial / folder, whole / folder, copy_function=os.link, ignore=shutil.ignore_patterns(".*")
    )


def _recipe(component: Component) -> dict[str, object]:
    """A component as data, without where its pin is and how its building is reported."""
    return {name: value for name, value in asdict(component).items() if name not in ("pin", "at_once")}


def _build(go: Go, component: Component, targets: Sequence[str], partial: Path, progress: Progress) -> None:
    """Build programs in one step, without those that an earlier run has finished."""
    missing = [target for target in targets if not (partial / target).exists()]
    if not missing:
        return
    name = component.name if component.at_once else Path(targets[0]).name
    with progress.step(f"build-{name}", f"build {name} {component.version}") as step:
        for target in missing:
            step.note = Path(target).name if component.at_once else ""
            output = partial / target
            output.parent.mkdir(exist_ok=True)
            unfinished = beside(output)
            go.build(component, target, unfinished, step.log)
            unfinished.rename(output)
        step.note = ""
