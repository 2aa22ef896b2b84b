"""Builds containerd and runc from Go modules: every machine has them, wherever its Kubernetes is from.

CACHE/runtime/KEY/     bin/ bom.json; KEY is the hash of all that determines them
CACHE/runtime/KEY.partial/     a build that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.golden.supply import bom, complaints, programs, recipe, shelf
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system import process
from lab.system.progress import Progress

LAYOUT = 1
"""Raised when the same programs lead to another folder: what is in it besides, or how it is named."""

WITH_C = ("runc",)
"""The programs that have the build host's C library and libseccomp linked into them."""


def key(release: Release) -> str:
    """Return the hash of all that determines the folder. Builds nothing."""
    return programs.key(recipe.runtime(release), LAYOUT)


def build(release: Release, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of the container runtime's programs, built if it isn't there: 2 min on two cores.

    Raises LabError; what was built till then is kept.
    """
    folder = cache / "runtime" / key(release)
    return shelf.keep(folder, lambda partial: _make(release, mirrors, cache, partial, progress), progress)


def _make(release: Release, mirrors: Mirrors, cache: Path, partial: Path, progress: Progress) -> Path:
    wanted = recipe.runtime(release)
    go = programs.prepare("the container runtime", wanted, release, mirrors, cache, progress)
    programs.build(go, wanted, partial, progress)
    whole = partial / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    programs.link(partial, whole, "bin")
    parts = bom.merge(bom.built(go, whole, release), bom.c_parts(WITH_C), [_libseccomp()])
    bom.write(whole / "bom.json", parts)
    return whole


def _libseccomp() -> bom.Material:
    """The host's libseccomp, as runc's build finds it."""
    with complaints.explained():
        said = process.run(["pkg-config", "--modversion", "libseccomp"], timeout=60, hint=complaints.SECCOMP)
    return bom.Material("c-library", "libseccomp", said.stdout.strip(), "LGPL-2.1-only", used_in=WITH_C)
