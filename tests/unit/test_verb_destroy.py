"""Removing a lab: all that is its own, once, and the folder only after all else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import providers
from lab.errors import LabStateError
from lab.remote import Remote
from lab.session import Session
from lab.verbs import destroy, render
from lab.workspace import Workspace, made
from tests.unit.fakes import keep_made
from tests.unit.sessions import GOLDEN, as_made, let_exist, on_any_host, wanted


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was removed, in order."""
    on_any_host(monkeypatch)
    found: list[str] = []

    def remove(workspace: Workspace, log: Path) -> None:
        assert workspace.identity.exists(), "the label by which machines are known is in it"
        found.append("machines")

    monkeypatch.setattr(providers, "remove", remove)
    monkeypatch.setattr(Remote, "hang_up", lambda self: found.append("connections"))
    return found


@pytest.fixture
def lived(removed: list[str], tmp_path: Path) -> Session:
    opened = wanted(tmp_path)
    render.record_and_write(opened, GOLDEN)
    let_exist(opened.workspace)
    return as_made(tmp_path)


def test_destroying_removes_all_and_only_once(lived: Session, removed: list[str], tmp_path: Path) -> None:
    assert destroy.destroy(lived)
    assert removed == ["connections", "machines"]
    assert not lived.workspace.root.exists()
    assert not destroy.destroy(lived)
    assert removed == ["connections", "machines"]
    assert [path.name for path in tmp_path.iterdir()] == ["lab.yaml"]


def test_destroying_no_lab_makes_no_folder(removed: list[str], tmp_path: Path) -> None:
    assert not destroy.destroy(wanted(tmp_path))
    assert removed == []
    assert not (tmp_path / ".lab").exists()


def test_a_destroy_that_fails_keeps_the_folder(lived: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise LabStateError("docker refused")

    monkeypatch.setattr(providers, "remove", fails)
    with pytest.raises(LabStateError, match="docker refused"):
        destroy.destroy(lived)
    assert made.read(lived.workspace) == lived.made


def test_a_lab_without_an_ssh_config_has_no_connections_to_end(removed: list[str], tmp_path: Path) -> None:
    opened = wanted(tmp_path)
    keep_made(opened.workspace, opened.lab)
    assert destroy.destroy(opened)
    assert removed == ["machines"]


def test_a_lab_in_use_is_not_destroyed(lived: Session, removed: list[str]) -> None:
    with lived.workspace.lock(), pytest.raises(LabStateError, match="this lab is in use"):
        destroy.destroy(lived)
    assert removed == []
    assert lived.workspace.root.exists()


@pytest.mark.parametrize("text", ["name: yours\nprovider: docker\n", "bogus: 1\n", "{"])
def test_a_lab_is_destroyed_as_it_was_made_whatever_lab_yaml_says(
    lived: Session, removed: list[str], tmp_path: Path, text: str
) -> None:
    session = as_made(tmp_path, text)
    assert session.lab.name == "mine"
    assert destroy.destroy(session)
    assert removed == ["connections", "machines"]


def test_connections_to_machines_that_leave_are_ended_too(
    lived: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are of the lab as it was made."""
    ended: list[str] = []
    monkeypatch.setattr(Remote, "hang_up", lambda self: ended.extend(node.name for node in self.lab.nodes))
    fewer = wanted(tmp_path, "name: mine\nprovider: docker\nnodes: {workers: {count: 1}}\n")
    render.record_and_write(fewer, GOLDEN)
    destroy.destroy(as_made(tmp_path))
    assert sorted(ended) == ["cp1", "cp2", "cp3", "lb1", "w1", "w2", "w3"]
