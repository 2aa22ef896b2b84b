"""Builds Kubernetes and what goes with it from Go modules, verified by pinned go.sum files.

CACHE/modules/KEY/     bin/ cni/ kube-flannel.yml bom.json; KEY is the hash of all that determines them
CACHE/modules/KEY.partial/     a build that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.golden.supply import bom, complaints, flannel, shelf, toolchain
from lab.golden.supply.golang import Go, settings
from lab.golden.supply.recipe import FLAGS, PAUSE_FLAGS, Component, components
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system import process
from lab.system.progress import Progress

LAYOUT = 1
"""Raised when the same programs lead to another folder: what is in it besides, or how it is named."""


def key(release: Release) -> str:
    """Return the hash of all that determines the folder: pins, flags, toolchain. Builds nothing.

    Two programs have C in them (flanneld, pause) and so depend on this host's compiler too. It is
    listed in the bill of materials and not in the key: a folder made elsewhere serves here as well.
    """
    digest = hashlib.sha256(json.dumps([LAYOUT, asdict(release), FLAGS, PAUSE_FLAGS]).encode())
    digest.update(toolchain.LOCK.read_bytes())
    for component in components(release):
        digest.update(json.dumps([_recipe(component), settings(component)]).encode())
        for name in ("go.mod", "go.sum"):
            digest.update((component.pin / name).read_bytes())
    return digest.hexdigest()[:16]


def build(release: Release, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of this release's programs, built if it isn't there: 12 min on two cores.

    Each program is a step of `progress`. Raises LabError; what was built till then is kept.
    """
    folder = cache / "modules" / key(release)
    return shelf.keep(folder, lambda partial: _make(release, mirrors, cache, partial, progress), progress)


def _recipe(component: Component) -> dict[str, object]:
    """A component as data, without where its pin is and how its building is reported."""
    return {name: value for name, value in asdict(component).items() if name not in ("pin", "at_once")}


def _make(release: Release, mirrors: Mirrors, cache: Path, partial: Path, progress: Progress) -> Path:
    """Build what isn't in `partial` yet, then lay out the folder to be kept."""
    wanted = components(release)
    with progress.step("go", f"get Go {release.go}") as step:
        go = Go(toolchain.ensure(cache, step.log), mirrors.go)
    with progress.step("download", "get the Go modules") as step:
        for component in wanted:
            step.note = f"{component.name} {component.version}"
            go.download(component, step.log)
        step.note = ""
    _build_pause(go, release, wanted, partial / "bin" / "pause", progress)
    for component in wanted:
        for targets in component.steps:
            _build(go, component, targets, partial, progress)
    with progress.step("licences", "list modules and licences"):
        return _lay_out(go, release, partial)


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
            unfinished = _beside(output)
            go.build(component, target, unfinished, step.log)
            unfinished.rename(output)
        step.note = ""


def _build_pause(
    go: Go, release: Release, wanted: Sequence[Component], output: Path, progress: Progress
) -> None:
    """Compile the one program that is C alone, from the source in the Kubernetes module."""
    if output.exists():
        return
    with progress.step("build-pause", f"build pause {release.pause}") as step:
        kubernetes = go.source(_named("kubernetes", wanted), "k8s.io/kubernetes")
        output.parent.mkdir(exist_ok=True)
        unfinished = _beside(output)
        words = ["gcc", *PAUSE_FLAGS, f"-DVERSION=v{release.pause}", "-o", str(unfinished)]
        source = kubernetes / "build" / "pause" / "linux" / "pause.c"
        with complaints.explained():
            process.run([*words, source], log=step.log, timeout=60, hint=complaints.COMPILER)
        unfinished.rename(output)


def _lay_out(go: Go, release: Release, partial: Path) -> Path:
    """Put what is built, flannel's manifest and the bill of materials into one new folder."""
    whole = partial / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    for folder in ("bin", "cni"):
        shutil.copytree(
            partial / folder, whole / folder, copy_function=os.link, ignore=shutil.ignore_patterns(".*")
        )
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")
    bom.write(whole / "bom.json", bom.built(go, whole, release))
    return whole


def _named(name: str, wanted: Sequence[Component]) -> Component:
    return next(component for component in wanted if component.name == name)


def _beside(output: Path) -> Path:
    """Where a program lies until it is finished: out of the way of a run that was killed, too.

    What a killed run had started goes on for a while and would write there.
    """
    return output.with_name(f".{output.name}.{os.getpid()}")
