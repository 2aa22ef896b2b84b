"""Containers with frozen processes, on hosts with cgroup v1."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.providers.docker import freezer

CONTAINER = "7ac733944ffa459683d796e12229d481b72d6d0b9d6f6175a65121bb3ebb4652"
POD = "kubepods.slice/cri-containerd-b7373d45.scope"


@pytest.fixture(params=[f"docker/{CONTAINER}", f"system.slice/docker-{CONTAINER}.scope"])
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A container's folder, as docker's cgroup drivers name it, beside another container's."""
    monkeypatch.setattr(freezer, "ROOT", tmp_path)
    state(tmp_path / "docker/another", "FROZEN")
    made: Path = tmp_path / request.param
    state(made, "THAWED")
    return made


def state(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "freezer.state").write_text(f"{text}\n", encoding="ascii")
    return folder / "freezer.state"


@pytest.mark.parametrize("frozen", ["FROZEN", "FREEZING"])
def test_what_is_frozen_in_a_container_is_thawed_and_nothing_of_another(folder: Path, frozen: str) -> None:
    pod = state(folder / POD, frozen)
    assert freezer.thaw(CONTAINER)
    assert pod.read_text(encoding="ascii") == "THAWED"
    assert (freezer.ROOT / "docker/another/freezer.state").read_text(encoding="ascii") == "FROZEN\n"


def test_a_container_in_which_nothing_is_frozen_is_left_alone(folder: Path) -> None:
    state(folder / POD, "THAWED")
    assert not freezer.thaw(CONTAINER)


def test_a_host_with_cgroup_v2_has_no_freezer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(freezer, "ROOT", tmp_path / "freezer")
    assert not freezer.thaw(CONTAINER)


def test_who_is_not_root_gets_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = state(folder / POD, "FROZEN")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(LabError, match="7ac733944ffa is frozen") as caught:
        freezer.thaw(CONTAINER)
    assert caught.value.hint.startswith(f"echo THAWED | sudo tee {pod}; ")


def test_what_ended_meanwhile_is_no_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state(folder / POD, "FROZEN")

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "write_text", gone)
    assert freezer.thaw(CONTAINER)
