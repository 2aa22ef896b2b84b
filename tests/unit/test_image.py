from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from lab.config import default
from lab.errors import CommandTimedOut, LabError
from lab.golden import build, debian, disk, image
from lab.golden.supply import lock, source
from lab.golden.supply.lock import Hash, Lock, LockedFile
from lab.golden.supply.source import Wanted
from lab.model import Kubernetes, Lab, Mirrors
from lab.providers.docker import golden as docker_image
from lab.system import process
from tests.unit.fakes import progress
from tests.unit.hosts import FakeRun

LAB = default()


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRun:
    run = FakeRun()
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    return run


def test_the_golden_machine_is_named_by_what_goes_in() -> None:
    assert re.fullmatch(r"ha-lab/golden:[0-9a-f]{16}", image.name(LAB))
    assert image.name(LAB) == image.name(LAB)


def test_another_kubernetes_is_another_golden_machine() -> None:
    other = LAB.model_copy(update={"kubernetes": Kubernetes(version="1.35.4")})
    assert image.key(other) != image.key(LAB)


def test_what_a_lab_s_machines_are_called_changes_no_golden_machine() -> None:
    assert image.key(LAB.model_copy(update={"name": "other"})) == image.key(LAB)


def test_packages_are_words_without_their_reasons() -> None:
    assert {"haproxy", "nftables", "openssh-server"} <= set(debian.packages())
    assert not any(" " in word or "#" in word for word in debian.packages())


def test_a_golden_machine_that_is_there_is_not_made_again(docker: FakeRun, tmp_path: Path) -> None:
    docker.tell("docker image inspect", "sha256:1\n")
    assert image.bake(LAB, progress(tmp_path)) == image.name(LAB)
    assert {words[:3] for words in docker.asked} == {("docker", "image", "inspect")}


def test_pruning_keeps_this_lab_s_and_those_in_use(
    docker: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "clear", shutil.rmtree)
    mine = image.name(LAB)
    docker.tell("docker image ls", f"{mine}\nha-lab/golden:old\nha-lab/golden:used\n")
    docker.tell("docker image rm ha-lab/golden:old")
    docker.tell("docker image rm ha-lab/golden:used", code=1, stderr="image is being used")
    partial = tmp_path / "cache" / "golden" / "0123.partial"
    partial.mkdir(parents=True)
    assert image.prune(LAB) == ["ha-lab/golden:old", "0123.partial"]
    assert not partial.exists()


def test_a_golden_disk_is_taken_along_and_nothing_is_built_from_it(
    docker: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = LAB.model_copy(update={"provider": "libvirt"})
    monkeypatch.setattr(disk, "disks_folder", lambda: tmp_path / "disks")
    monkeypatch.setattr(build, "clear", lambda folder: shutil.rmtree(folder, ignore_errors=True))
    monkeypatch.setattr(build, "root", lambda *_: pytest.fail("built"))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    made = disk.folder(disk.key(lab))
    made.mkdir(parents=True)
    for name in (disk.DISK, disk.KERNEL, disk.BILL):
        (made / name).write_text(name)
    (tmp_path / "taken").mkdir()
    image.pack(lab, tmp_path / "taken", progress(tmp_path))
    assert image.size(lab) == 1
    shutil.rmtree(made)
    docker.tell("tar -cf")
    docker.tell("vagrant box add")
    image.unpack(lab, tmp_path / "taken", progress(tmp_path))
    assert {path.name: path.read_text() for path in made.iterdir()} == {
        name: name for name in (disk.DISK, disk.KERNEL, disk.BILL)
    }
    assert docker.asked[-1][:3] == ("vagrant", "box", "add")


def test_what_was_half_made_is_removed_after_an_interrupt_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(process, "as_root", lambda *words: list(words))

    def make_and_be_interrupted() -> None:
        with build.workshop("mark", lambda: True) as folder:
            assert folder is not None
            (folder / "half").touch()
            process.interrupt()
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            make_and_be_interrupted()
        assert not list((tmp_path / "ha-lab" / "golden").glob("*.partial"))
    finally:
        process._stopped.clear()


# Where Kubernetes comes from.


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A lock of upstream's parts."""
    monkeypatch.setattr(lock, "FOLDER", tmp_path / "locks")
    hashes = {
        arch: Hash(sha256=digit * 64, sources=("a", "b")) for arch, digit in (("amd64", "0"), ("arm64", "1"))
    }
    return lock.write(
        Lock(
            kubernetes="1.36.3",
            files={"kubelet": LockedFile(version="1.36.3", hashes=hashes)},
            images={"registry.k8s.io/pause:3.10.2": Hash(sha256="2" * 64, sources=("a", "b"))},
            sources={"a": "one", "b": "another"},
        )
    )


def of_source(source: Wanted) -> Lab:
    return LAB.model_copy(update={"kubernetes": Kubernetes(source=source)})


def test_without_a_lock_upstream_is_nothing_and_auto_is_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    with pytest.raises(
        LabError, match=r"Kubernetes 1\.36\.3 can't be taken from upstream: .* not pinned"
    ) as caught:
        image.name(of_source("upstream"))
    assert "supply/pin-upstream" in caught.value.hint
    assert image.name(of_source("auto")) == image.name(of_source("modules"))


def test_each_source_has_a_golden_machine_of_its_own(locked: Path) -> None:
    before = image.name(of_source("upstream"))
    assert before != image.name(of_source("modules"))
    text = locked.read_text()
    locked.write_text(text.replace("2" * 64, "3" * 64))
    assert image.name(of_source("upstream")) not in (before, image.name(of_source("modules")))


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("there", ["modules", "upstream"])
def test_auto_is_the_source_of_the_golden_machine_that_is_there(docker: FakeRun, there: Wanted) -> None:
    docker.tell("docker image inspect", code=1)
    mine = image.name(of_source(there))
    docker.tell(f"docker image inspect --format {{{{.Id}}}} {mine}", "sha256:1\n")
    assert image.name(of_source("auto")) == mine
    assert image.settled(of_source("auto")).kubernetes.source == there


@pytest.mark.usefixtures("locked")
def test_without_a_provider_to_ask_auto_is_modules_for_now(docker: FakeRun) -> None:
    docker.fail("docker image inspect", "could not start: no such program")
    assert image.name(of_source("auto")) == image.name(of_source("modules"))


@pytest.mark.usefixtures("locked")
def test_a_provider_that_hangs_is_waited_for_once(docker: FakeRun) -> None:
    docker.answers["docker image inspect"] = CommandTimedOut(["docker"], "did not end within 20 s")
    assert image.settled(of_source("auto")).kubernetes.source == "modules"
    assert len(docker.asked) == 1


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("chosen", ["modules", "upstream"])
def test_bake_decides_what_auto_comes_to(
    docker: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: Wanted
) -> None:
    docker.tell("docker image inspect", code=1)
    made: list[Lab] = []
    monkeypatch.setattr(source, "choose", lambda *_: chosen)
    monkeypatch.setattr(docker_image, "make", lambda lab, progress: made.append(lab))
    assert image.bake(of_source("auto"), progress(tmp_path)) == image.name(of_source(chosen))
    assert [lab.kubernetes.source for lab in made] == [chosen]


def test_a_debian_root_is_laid_out_where_the_next_bake_clears(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    asked: list[list[str]] = []

    def run(words: list[str], **_: object) -> None:
        asked.append(words)
        for word in words:
            if word.endswith(".partial.tar"):
                Path(word).touch()

    monkeypatch.setattr(process, "run", run)
    folder = tmp_path / "ha-lab" / "golden" / "0123.partial"
    made = debian.root(["a"], Mirrors(), folder, progress(tmp_path / "logs"))
    assert made.exists()
    words = asked[0]
    assert words[0] == "sudo"
    assert words[words.index("--") + 1 :][:3] == ["env", f"TMPDIR={folder}", "mmdebstrap"]
