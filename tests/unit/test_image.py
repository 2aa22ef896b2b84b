from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lab import image, process
from lab.config import default
from lab.image import golden
from lab.model import Kubernetes
from tests.unit.fakes import progress
from tests.unit.hosts import FakeRun

LAB = default()


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRun:
    run = FakeRun()
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(golden, "cache_folder", lambda: tmp_path / "cache")
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
    assert {"haproxy", "containerd", "openssh-server"} <= set(image.packages())
    assert not any(" " in word or "#" in word for word in image.packages())


def test_a_golden_machine_that_is_there_is_not_made_again(docker: FakeRun, tmp_path: Path) -> None:
    docker.tell("docker image inspect", "sha256:1\n")
    assert image.bake(LAB, progress(tmp_path)) == image.name(LAB)
    assert {words[:3] for words in docker.asked} == {("docker", "image", "inspect")}


def test_pruning_keeps_this_lab_s_and_those_in_use(
    docker: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "clear", shutil.rmtree)
    mine = image.name(LAB)
    docker.tell("docker image ls", f"{mine}\nha-lab/golden:old\nha-lab/golden:used\n")
    docker.tell("docker image rm ha-lab/golden:old")
    docker.tell("docker image rm ha-lab/golden:used", code=1, stderr="image is being used")
    partial = tmp_path / "cache" / "golden" / "0123.partial"
    partial.mkdir(parents=True)
    assert image.prune(LAB) == ["ha-lab/golden:old", "0123.partial"]
    assert not partial.exists()
