"""Two golden machines, from Go modules and from stand-ins of upstream's hosts: nothing tells them apart.

The stand-ins are filled with the programs that were built from modules, so that the second machine is whole,
and a lab comes up from it. What is made here is removed again: the first machine is `bake`'s own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lab.config import load
from lab.golden import image
from lab.golden.supply import bom, images, lock, source, upstream
from lab.golden.supply.releases import release
from lab.health import verify
from lab.host import cache_folder
from lab.model import Lab
from lab.session import open_wanted
from lab.system import process
from lab.system.paths import REPOSITORY
from lab.system.progress import Progress
from lab.verbs import destroy, up
from lab.workspace import made
from tests.supply import real
from tests.supply.standins import Site, served

NAMED_BY_CONTENT = "/usr/lib/ha-lab/containerd/"
"""containerd's store, whose files are named by their own hashes: other programs, other names."""


@dataclass(frozen=True)
class Pair:
    """The golden machines' names, a lab file that leads to the second, and the images' names."""

    modules: str
    upstream: str
    lab_file: Path
    images: tuple[str, ...]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for 2 GiB."""
    made = Path(tempfile.mkdtemp(prefix="sources-", dir=cache_folder()))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[Pair]:
    progress = Progress(Console(), folder / "logs")
    example = yaml.safe_load((REPOSITORY / "examples" / "smallest.yaml").read_text(encoding="utf-8"))
    example |= {"name": "ha-lab-upstream-test", "provider": "docker", "network": {"subnet": "192.168.60.0/24"}}
    from_modules = lab_of(folder, example, {"source": "modules"}, {})
    wanted = release(from_modules.kubernetes.version)
    built = source.build(wanted, "modules", from_modules.mirrors, cache_folder(), progress)
    site = Site()
    pinned = real.fill(site, wanted, built, folder / "served", progress)
    with pytest.MonkeyPatch.context() as patch, served(site):
        patch.setattr(lock, "FOLDER", folder / "locks")
        lock.write(pinned)
        mirrors = real.mirrors(site).model_dump(exclude_defaults=True)
        from_upstream = lab_of(folder, example, {"source": "upstream"}, mirrors)
        downloaded = cache_folder() / "upstream" / upstream.key(wanted)
        golden = image.name(from_upstream)
        try:
            image.bake(from_upstream, progress)
            names = images.image_names(built, wanted)
            yield Pair(image.bake(from_modules, progress), golden, folder / "lab.yaml", names)
        finally:
            process.run(["docker", "image", "rm", golden], accept=None)
            for made in (downloaded, downloaded.with_name(f"{downloaded.name}.partial")):
                shutil.rmtree(made, ignore_errors=True)


def lab_of(folder: Path, example: dict[str, object], kubernetes: object, mirrors: object) -> Lab:
    data = example | {"kubernetes": kubernetes, "mirrors": mirrors}
    (folder / "lab.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load(folder / "lab.yaml")


def files(golden: str) -> dict[str, str]:
    """Every file of a golden machine: kind, mode, owner, and where a link leads."""
    words = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "find", golden, "/", "-xdev"]
    listed = process.run([*words, "-printf", r"%p\t%y %m %U:%G %l\n"], timeout=120).stdout
    found = dict(line.split("\t") for line in listed.splitlines())
    return {path: about for path, about in found.items() if not path.startswith(NAMED_BY_CONTENT)}


def test_both_machines_have_the_same_files(pair: Pair) -> None:
    from_modules, from_upstream = files(pair.modules), files(pair.upstream)
    assert {"/usr/bin/kubelet", "/usr/bin/etcdctl", "/opt/cni/bin/flannel"} < set(from_modules)
    assert {"/usr/bin/containerd", "/usr/bin/runc"} < set(from_modules)
    assert "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf" in from_modules
    different = {
        path: (from_modules.get(path), from_upstream.get(path))
        for path in {*from_modules, *from_upstream}
        if from_modules.get(path) != from_upstream.get(path)
    }
    assert different == {}


def test_each_machines_bill_says_where_its_kubernetes_came_from(pair: Pair, folder: Path) -> None:
    kinds = {}
    for golden in (pair.modules, pair.upstream):
        bill = bom.parse(image.bill_of_materials(load(pair.lab_file), golden))
        kinds[golden] = {each.kind for each in bill} - {"debian-package", "operating-system"}
    assert kinds[pair.modules] == {"go-module", "c-source", "c-library", "toolchain"}
    # The container runtime is built from modules for both, and so is what no record has the hash of.
    assert kinds[pair.upstream] == {
        *("upstream-file", "upstream-image"),
        *("go-module", "c-library", "toolchain"),
    }


def test_a_lab_comes_up_from_upstream_with_every_check_green_and_the_same_images(pair: Pair) -> None:
    session = open_wanted(pair.lab_file, Console())
    try:
        up.up(session, up.Request(), lambda question: False)
        record = made.read(session.workspace)
        assert record is not None
        assert record.golden == pair.upstream
        outcome = verify.run(session, select="", junit=None)
        assert outcome.green, verify.to_json(outcome)
        words = ["sudo", "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet"]
        has = session.remote.run(session.lab.first, words, timeout=60).stdout.split()
        assert set(pair.images) <= set(has)
    finally:
        destroy.destroy(session)
