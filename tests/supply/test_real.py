"""What fills the stand-in for whole golden machines, tried with small programs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lab.golden.supply import flannel, images, lock, modules, upstream
from lab.golden.supply.releases import Release, release
from lab.system.progress import Progress
from tests.supply import real
from tests.supply.conftest import VERSION, Modules, kubeadm, names_in
from tests.supply.standins import Site, served
from tests.unit.fakes import program, progress


def test_a_stand_in_with_real_programs_serves_all_that_the_lock_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Path
) -> None:
    wanted, steps = release(VERSION), progress(tmp_path / "logs")
    built = built_from(programs, tmp_path / "built", wanted)

    def small(wanted: Release, built: Path, folder: Path, progress: Progress) -> dict[str, Path]:
        tools = folder / "tools.tar"
        tarfile.open(tools, "w").close()
        archives = images.write_images(built, wanted, tools, folder / "images")
        return dict(zip(images.image_names(built, wanted), archives, strict=True))

    monkeypatch.setattr(real, "_images", small)
    site, pinned = Site(rate=50e6), lock.read(VERSION)
    made = real.fill(site, wanted, built, tmp_path / "served", steps)
    assert set(made.files) == set(pinned.files)
    assert set(made.images) == set(pinned.images)
    monkeypatch.setattr(lock, "FOLDER", tmp_path / "locks")
    lock.write(made)
    fake = Modules(tmp_path / "modules")
    monkeypatch.setattr(modules, "build", fake.build)
    with served(site):
        folder = upstream.build(wanted, real.mirrors(site), tmp_path / "cache", steps)
    assert [each for each in steps.remarks if "refused" in each] == []
    assert {Path(each).name for each in fake.asked} == {
        *("etcd", "etcdctl", "etcdutl", "kube-router", "local-path-provisioner")
    }
    assert "flannel" in names_in(folder)
    assert (folder / "cni" / "flannel").read_text().strip().endswith("echo flannel from upstream")


def built_from(programs: Path, folder: Path, wanted: Release) -> Path:
    """A folder as `modules` lays it out, of small programs."""
    for each in modules.programs_of(wanted):
        source = programs / Path(each).name
        body = source.read_text().partition("\n")[2] if source.exists() else f"echo {source.name}"
        program(folder / Path(each).parent, source.name, body)
    program(folder / "bin", "kubeadm", kubeadm(wanted))
    (folder / "kube-flannel.yml").write_text(flannel.manifest(wanted))
    return folder
