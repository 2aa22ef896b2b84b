"""Builds Kubernetes and what goes with it from Go modules, verified by pinned go.sum files.

CACHE/modules/KEY/     bin/ cni/ kube-flannel.yml bom.json; KEY is the hash of all that determines them
CACHE/modules/KEY.partial/     a build that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
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

PAUSE = "bin/pause"
"""The one program that is C alone, so no component has it."""

WITH_C = ("flanneld", "pause")
"""The programs that have the build host's C library linked into them."""


def key(release: Release, only: Collection[str] | None = None) -> str:
    """Return the hash of all that determines the folder: pins, flags, toolchain. Builds nothing."""
    others = [release.pause, release.etcd_tag, PAUSE_FLAGS, *([] if only is None else [sorted(only)])]
    return programs.key(_wanted(release, only), LAYOUT, *others)


def build(
    release: Release,
    mirrors: Mirrors,
    cache: Path,
    progress: Progress,
    only: Collection[str] | None = None,
) -> Path:
    """Return the folder of this release's programs, built if it isn't there.

    `only` are the programs that are wanted (`bin/etcd`), by default all: 12 to 20 min on two cores. Each is a
    step of `progress`. Raises LabError; what was built till then is kept.
    """
    folder = cache / "modules" / key(release, only)
    return shelf.keep(folder, lambda partial: _make(release, only, mirrors, cache, partial, progress), progress)


def programs_of(release: Release) -> tuple[str, ...]:
    """Return every program that can be built, as its path in the folder."""
    return (*(program for each in components(release) for program in each.programs), PAUSE)


def _wanted(release: Release, only: Collection[str] | None) -> tuple[Component, ...]:
    """The components of which some program is wanted, each with those programs."""
    if only is None:
        return components(release)
    return tuple(
        replace(each, programs=programs)
        for each in components(release)
        if (programs := {name: package for name, package in each.programs.items() if name in only})
    )


def _make(
    release: Release,
    only: Collection[str] | None,
    mirrors: Mirrors,
    cache: Path,
    partial: Path,
    progress: Progress,
) -> Path:
    """Build what isn't in `partial` yet, then lay out the folder to be kept."""
    wanted, with_pause = _wanted(release, only), only is None or PAUSE in only
    # pause's source is in Kubernetes' module.
    named = {each.name for each in wanted} | ({"kubernetes"} if with_pause else set())
    fetched = [each for each in components(release) if each.name in named]
    go = programs.prepare("Kubernetes", fetched, release, mirrors, cache, progress)
    if with_pause:
        _build_pause(go, release, partial / PAUSE, progress)
    programs.build(go, wanted, partial, progress)
    with progress.step("licences", "list modules and licences"):
        return _lay_out(go, release, partial)


def _build_pause(go: Go, release: Release, output: Path, progress: Progress) -> None:
    """Compile the one program that is C alone, from the source in the Kubernetes module."""
    if output.exists():
        return
    with progress.step("build-pause", f"build pause {release.pause}") as step:
        kubernetes = go.source(_kubernetes(release), "k8s.io/kubernetes")
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
        (partial / folder).mkdir(exist_ok=True)  # of a few programs, none may be there
        programs.link(partial, whole, folder)
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")
    pause = bom.Material("c-source", "pause", release.pause, "Apache-2.0", used_in=("pause",))
    with_c = tuple(name for name in WITH_C if (whole / "bin" / name).exists())
    of_c = [*([pause] if "pause" in with_c else []), *(bom.c_parts(with_c) if with_c else ())]
    bom.write(whole / "bom.json", bom.merge(bom.built(go, whole, release), of_c))
    return whole


def _kubernetes(release: Release) -> Component:
    return next(component for component in components(release) if component.name == "kubernetes")
