"""Builds Kubernetes and what goes with it from Go modules, verified by pinned go.sum files.

CACHE/modules/KEY/     bin/ cni/ kube-flannel.yml bom.json; KEY is the hash of all that determines them
CACHE/modules/KEY.partial/     a build that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.golden.supply import bom, complaints, flannel, programs, shelf
from lab.golden.supply.golang import Go
from lab.golden.supply.recipe import PAUSE_FLAGS, Component, components
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system import process
from lab.system.progress import Progress

LAYOUT = 1
"""Raised when the same programs lead to another folder: what is in it besides, or how it is named."""

WITH_C = ("flanneld", "pause")
"""The programs that have the build host's C library linked into them."""


def key(release: Release) -> str:
    """Return the hash of all that determines the folder: pins, flags, toolchain. Builds nothing."""
    return programs.key(components(release), LAYOUT, release.pause, release.etcd_tag, PAUSE_FLAGS)


def build(release: Release, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of this release's programs, built if it isn't there: 12 min on two cores.

    Each program is a step of `progress`. Raises LabError; what was built till then is kept.
    """
    folder = cache / "modules" / key(release)
    return shelf.keep(folder, lambda partial: _make(release, mirrors, cache, partial, progress), progress)


def _make(release: Release, mirrors: Mirrors, cache: Path, partial: Path, progress: Progress) -> Path:
    """Build what isn't in `partial` yet, then lay out the folder to be kept."""
    wanted = components(release)
    go = programs.prepare("Kubernetes", wanted, release, mirrors, cache, progress)
    _build_pause(go, release, wanted, partial / "bin" / "pause", progress)
    programs.build(go, wanted, partial, progress)
    with progress.step("licences", "list modules and licences"):
        return _lay_out(go, release, partial)


def _build_pause(
    go: Go, release: Release, wanted: Sequence[Component], output: Path, progress: Progress
) -> None:
    """Compile the one program that is C alone, from the source in the Kubernetes module."""
    if output.exists():
        return
    with progress.step("build-pause", f"build pause {release.pause}") as step:
        kubernetes = go.source(_named("kubernetes", wanted), "k8s.io/kubernetes")
        output.parent.mkdir(exist_ok=True)
        unfinished = programs.beside(output)
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
        programs.link(partial, whole, folder)
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")
    pause = bom.Material("c-source", "pause", release.pause, "Apache-2.0", used_in=("pause",))
    parts = bom.merge(bom.built(go, whole, release), [pause], bom.c_parts(WITH_C))
    bom.write(whole / "bom.json", parts)
    return whole


def _named(name: str, wanted: Sequence[Component]) -> Component:
    return next(component for component in wanted if component.name == name)
