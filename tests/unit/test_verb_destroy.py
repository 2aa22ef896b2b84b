"""Removing a lab: all that is its own, once, and the folder only after all else."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab.remote
from lab import providers
from lab.errors import LabError, LabStateError, NodeFailed
from lab.remote import Remote, control_folder
from lab.session import Session
from lab.system.progress import Progress
from lab.verbs import destroy, render
from lab.workspace import Workspace, kubeconfig, made
from tests.unit.fakes import keep_made, printed
from tests.unit.sessions import GOLDEN, as_made, let_exist, on_any_host, wanted


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was removed, in order."""
    on_any_host(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    found: list[str] = []

    def remove(workspace: Workspace, log: Path) -> None:
        assert workspace.identity.exists(), "the label by which machines are known is in it"
        found.append("machines")

    monkeypatch.setattr(providers, "remove", remove)
    monkeypatch.setattr(Remote, "close_connections", lambda self, nodes=None: found.append("connections"))
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


def test_a_connection_that_does_not_end_is_reported_and_keeps_no_machine(
    lived: Session, removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def close_connections(self: Remote, nodes: object) -> None:
        raise NodeFailed("to end the connection", {"cp1": LabError("`ssh` did not end within 10 s")})

    monkeypatch.setattr(Remote, "close_connections", close_connections)
    console, text = printed()
    assert destroy.destroy(replace(lived, progress=Progress(console, lived.workspace.logs)))
    assert removed == ["machines"]
    assert (
        "to end the connection failed on cp1: `ssh` did not end within 10 s: it closes with" in text.getvalue()
    )


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


@pytest.mark.parametrize("ssh_config", [True, False])
def test_the_folder_of_ssh_s_sockets_goes_whatever_is_left_of_the_lab(
    lived: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh_config: bool
) -> None:
    monkeypatch.setattr(lab.remote, "SOCKETS", tmp_path)
    folder = control_folder(lived.workspace)
    folder.mkdir()
    if not ssh_config:
        lived.workspace.ssh_config.unlink()
    destroy.destroy(lived)
    assert not folder.exists()


def test_a_lab_that_was_moved_leaves_nothing_when_it_is_destroyed(
    lived: Session, removed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.remote, "SOCKETS", tmp_path)
    folder = control_folder(lived.workspace)
    folder.mkdir()
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "lab.yaml").rename(there / "lab.yaml")
    lived.workspace.root.rename(there / ".lab")
    assert destroy.destroy(as_made(there))
    assert removed == ["connections", "machines"]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert [path.name for path in there.iterdir()] == ["lab.yaml"]


def merged(session: Session, file: Path) -> None:
    """Let the lab be merged into a kubeconfig of the user's."""
    ca = base64.b64encode((session.workspace.secrets / "ca.crt").read_bytes()).decode()
    kubeconfig_text = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mine", "cluster": {"server": "s", "certificate-authority-data": ca}}],
            "users": [{"name": "mine", "user": {}}],
            "contexts": [{"name": "mine", "context": {"cluster": "mine", "user": "mine"}}],
        }
    )
    session.workspace.write_secret(session.workspace.kubeconfig, kubeconfig_text)
    kubeconfig.merge(session.lab, session.workspace, file)


def test_the_context_goes_even_where_machines_stay(
    lived: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise LabStateError("docker refused")

    file = tmp_path / "config"
    merged(lived, file)
    assert "mine" in file.read_text()
    monkeypatch.setattr(providers, "remove", fails)
    with pytest.raises(LabStateError, match="docker refused"):
        destroy.destroy(lived)
    assert yaml.safe_load(file.read_text())["contexts"] == []
    assert lived.workspace.identity.exists()


def test_a_context_that_can_t_be_removed_keeps_nothing_and_is_named(
    lived: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: list[str]
) -> None:
    file = tmp_path / "kube" / "config"
    merged(lived, file)
    write = Workspace.write

    def denied(self: Workspace, path: Path, text: str | bytes, *, mode: int = 0o644) -> bool:
        if path.parent == file.parent:
            raise LabStateError(f"{path} can't be written: Permission denied")
        return write(self, path, text, mode=mode)

    monkeypatch.setattr(Workspace, "write", denied)
    console, text = printed()
    progress = Progress(console, lived.workspace.logs)
    assert destroy.destroy(replace(lived, progress=progress))
    assert removed == ["connections", "machines"]
    said = " ".join(text.getvalue().split())
    assert f"the context mine could not be removed from {file}: `kubectl --kubeconfig {file} config" in said


def test_a_removal_of_the_folder_that_was_interrupted_is_repeated(
    lived: Session, removed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def interrupted(path: Path, **words: Any) -> None:
        if path == lived.workspace.root:
            assert [each.name for each in path.iterdir()] == ["lab.json"]
            raise KeyboardInterrupt
        rmtree(path, **words)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            destroy.destroy(lived)
    assert made.read(lived.workspace) == lived.made, "the label of the machines is the last to go"
    assert destroy.destroy(as_made(tmp_path, "{"))
    assert not lived.workspace.root.exists()


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
    monkeypatch.setattr(
        Remote, "close_connections", lambda self, nodes=None: ended.extend(node.name for node in self.lab.nodes)
    )
    fewer = wanted(tmp_path, "name: mine\nprovider: docker\nnodes: {workers: {count: 1}}\n")
    render.record_and_write(fewer, GOLDEN)
    destroy.destroy(as_made(tmp_path))
    assert sorted(ended) == ["cp1", "cp2", "cp3", "lb1", "w1", "w2", "w3"]
