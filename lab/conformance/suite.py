"""The end-to-end suite of one Kubernetes version: built from the module that the lab's own programs are from.

CACHE/conformance/KEY/     e2e.test ginkgo kubectl images.tar images.txt tests.txt; KEY is the hash of all that
                           determines them
CACHE/conformance/KEY.partial/     a build that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.conformance import images, tests
from lab.golden import bundle, debian
from lab.golden.supply import oci, shelf, toolchain
from lab.golden.supply.golang import Go, settings
from lab.golden.supply.recipe import FLAGS, Component, version_stamp
from lab.golden.supply.releases import Release, release
from lab.host.places import cache_folder
from lab.model import Lab
from lab.system import process
from lab.system.progress import Progress

LAYOUT = 1
"""Raised when the same programs lead to another folder: what is in it besides, or how it is named."""

MODULE = "k8s.io/kubernetes"
TESTS = f"{MODULE}/test/e2e"
PROGRAMS = {
    "ginkgo": "github.com/onsi/ginkgo/v2/ginkgo",
    "kubectl": f"{MODULE}/cmd/kubectl",
    "agnhost": f"{MODULE}/test/images/agnhost",
    "nonewprivs": f"{MODULE}/test/images/nonewprivs",
    "sample-apiserver": "k8s.io/sample-apiserver",
}
"""What is built beside the suite: what runs it, what it runs, and what is in its images."""

SUITE, ARCHIVE, NAMES, LIST = "e2e.test", "images.tar", "images.txt", "tests.txt"
KEPT = (SUITE, "ginkgo", "kubectl", ARCHIVE, NAMES, LIST)
"""The files of a finished folder."""

EXECUTABLE = (SUITE, "ginkgo", "kubectl")

NEEDED_MIB = 6000
"""Room for a build: Go's cache of it takes most, and stays."""


@dataclass(frozen=True)
class Suite:
    """A suite that was built: the folder of its files."""

    folder: Path

    @property
    def program(self) -> Path:
        """The suite itself."""
        return self.folder / SUITE

    @property
    def tests(self) -> tuple[tests.E2eTest, ...]:
        """Its conformance tests."""
        return tests.read(self.folder / LIST)

    @property
    def images(self) -> tuple[str, ...]:
        """The full names of the images that were made for it, and are in its archive."""
        return images.made(self._names())

    @property
    def images_of_machines(self) -> tuple[str, ...]:
        """The names under which it asks for images that machines have, maybe with another tag."""
        return images.on_machines(self._names())

    def _names(self) -> list[str]:
        return (self.folder / NAMES).read_text(encoding="utf-8").splitlines()


def key(wanted: Release) -> str:
    """Return the hash of all that determines the suite's folder. Builds nothing."""
    component = _component(wanted)
    packages = debian.packages(images.PACKAGES)
    digest = hashlib.sha256(json.dumps([LAYOUT, asdict(wanted), FLAGS, settings(component), PROGRAMS]).encode())
    digest.update(json.dumps([debian.SUITE, packages, component.ldflags]).encode())
    pins = (component.pin / "go.mod", component.pin / "go.sum")
    for path in (*pins, toolchain.LOCK, Path(images.__file__), Path(oci.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def folder(lab: Lab) -> Path:
    """Where the suite of the lab's Kubernetes version is, once it is built."""
    return bundle.suites_folder() / key(release(lab.kubernetes.version))


def is_built(lab: Lab) -> bool:
    """Whether the suite of the lab's Kubernetes version is there."""
    return folder(lab).exists()


def build(lab: Lab, progress: Progress) -> Suite:
    """Return the suite of the lab's Kubernetes version, built if it isn't there: 10 min on two cores.

    Raises LabError; what was built till then is kept.
    """
    wanted = release(lab.kubernetes.version)
    return Suite(shelf.keep(folder(lab), lambda partial: _make(wanted, lab, partial, progress), progress))


def _component(wanted: Release) -> Component:
    return Component(
        "conformance",
        wanted.kubernetes,
        wanted.pins()["conformance"],
        {**PROGRAMS, SUITE: TESTS},
        version_stamp(wanted.kubernetes),
    )


def _make(wanted: Release, lab: Lab, partial: Path, progress: Progress) -> Path:
    component = _component(wanted)
    with progress.step("go", f"get Go {wanted.go}") as step:
        go = Go(toolchain.ensure(cache_folder(), step.log), lab.mirrors.go)
    with progress.step("download", "get the suite's Go modules") as step:
        go.download(component, step.log)
    for target in (*PROGRAMS, SUITE):
        _build(go, component, target, partial / target, progress)
    whole = partial / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    for name in EXECUTABLE:
        os.link(partial / name, whole / name)
    _list(partial / SUITE, whole)
    root = debian.root(debian.packages(images.PACKAGES), lab.mirrors, partial, progress)
    with progress.step("images", "write the images of its tests"):
        sources = go.source(component, MODULE) / "test" / "images"
        layers = partial / "layers"
        shutil.rmtree(layers, ignore_errors=True)
        layers.mkdir()
        names = (whole / NAMES).read_text(encoding="utf-8").splitlines()
        images.write(whole / ARCHIVE, names, partial, sources, root, layers)
    return whole


def _build(go: Go, component: Component, target: str, output: Path, progress: Progress) -> None:
    """Build one program, unless an earlier run has finished it."""
    if output.exists():
        return
    with progress.step(f"build-{target}", f"build {target} {component.version}") as step:
        # What a killed run had started goes on for a while and would write there.
        unfinished = output.with_name(f".{target}.{os.getpid()}")
        make = go.build_tests if target == SUITE else go.build
        make(component, target, unfinished, step.log)
        unfinished.rename(output)


def _list(program: Path, whole: Path) -> None:
    """Ask the suite for its conformance tests and its images."""
    listed = process.run([program, "--list-conformance-tests"], cwd=whole, timeout=300).stdout
    (whole / LIST).write_text("\n".join(tests.names_of(listed)) + "\n", encoding="utf-8")
    asked = process.run([program, "--list-images"], cwd=whole, timeout=300).stdout
    (whole / NAMES).write_text("\n".join(sorted(set(asked.split()))) + "\n", encoding="utf-8")
