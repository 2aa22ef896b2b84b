from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabStateError
from lab.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from lab.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def denied(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_naming_a_workspace_makes_nothing(workspace: Workspace) -> None:
    assert not workspace.exists()
    assert not workspace.root.exists()


def test_a_file_is_written_once(workspace: Workspace) -> None:
    assert workspace.write(workspace.vagrantfile, "text")
    before = workspace.vagrantfile.stat()
    assert not workspace.write(workspace.vagrantfile, "text")
    assert workspace.vagrantfile.stat().st_ino == before.st_ino
    assert workspace.write(workspace.vagrantfile, "other")
    assert workspace.vagrantfile.read_text() == "other"


def test_a_file_that_is_no_text_is_written_over(workspace: Workspace) -> None:
    workspace.write(workspace.vagrantfile, "text")
    workspace.vagrantfile.write_bytes(b"\xff\x00")
    assert workspace.write(workspace.vagrantfile, "text")
    assert workspace.vagrantfile.read_text() == "text"


def test_a_write_that_fails_half_way_leaves_what_was_there(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write(workspace.vagrantfile, "before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabStateError, match="Vagrantfile can't be written: No space left on device") as caught:
        workspace.write(workspace.vagrantfile, "after")
    assert "free some space" in caught.value.hint
    assert workspace.vagrantfile.read_text() == "before"
    assert [path.name for path in workspace.root.iterdir()] == ["Vagrantfile"]


def test_a_secret_is_private_from_its_first_byte(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    replace = os.replace

    def look(source: str, target: Path) -> None:
        seen.append(mode(Path(source)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)  # so what is seen is how the file was born
    old = os.umask(0)
    try:
        workspace.write_secret(workspace.secrets / "ca.key", "key")
        workspace.write_secret(workspace.secrets / "cp1" / "secrets", "token")
    finally:
        os.umask(old)
    assert seen == [0o600, 0o600]
    assert mode(workspace.secrets) == 0o700
    assert mode(workspace.secrets / "cp1") == 0o700


def test_modes_are_what_was_asked_for(workspace: Workspace) -> None:
    workspace.write(workspace.vagrantfile, "text")
    assert mode(workspace.vagrantfile) == 0o644
    workspace.write_secret(workspace.kubeconfig, "text")
    assert mode(workspace.kubeconfig) == 0o600


def test_a_mode_that_was_widened_is_narrowed_again(workspace: Workspace) -> None:
    workspace.write_secret(workspace.kubeconfig, "text")
    workspace.kubeconfig.chmod(0o644)
    assert not workspace.write_secret(workspace.kubeconfig, "text")
    assert mode(workspace.kubeconfig) == 0o600


def test_secrets_that_were_opened_are_shut_again(workspace: Workspace) -> None:
    key = workspace.secrets / "cp1" / "ca.key"
    workspace.write_secret(key, "nobody's")
    for path, wide in ((key, 0o644), (key.parent, 0o755), (workspace.secrets, 0o755)):
        path.chmod(wide)
    workspace.restrict_secrets()
    assert [mode(path) for path in (key, key.parent, workspace.secrets)] == [0o600, 0o700, 0o700]


def test_a_folder_that_can_t_be_written_is_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.workspace.tempfile.mkstemp", denied)
    with pytest.raises(LabStateError, match="can't be written: Permission denied") as caught:
        workspace.write(workspace.vagrantfile, "text")
    assert f"ls -ld {workspace.root}" in caught.value.hint


def test_what_lies_elsewhere_and_can_t_be_written_is_told_of_its_own_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.workspace.tempfile.mkstemp", denied)
    elsewhere = workspace.root.parent / "handouts"
    with pytest.raises(LabStateError, match="can't be written: Permission denied") as caught:
        workspace.write(elsewhere / "student-en.html", "text")
    assert f"ls -ld {elsewhere}`" in caught.value.hint


def test_a_folder_that_can_t_be_used_can_t_be_locked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(LabStateError, match="can't be used: Permission denied"), workspace.lock():
        pass


def test_a_file_in_the_folder_s_place_is_an_error(workspace: Workspace) -> None:
    workspace.root.write_text("a file")
    with pytest.raises(LabStateError, match="can't be used: File exists"), workspace.lock():
        pass
    with pytest.raises(LabStateError, match="can't be written"):
        workspace.write(workspace.vagrantfile, "text")


def test_what_machines_that_are_gone_were_given_goes_too(workspace: Workspace) -> None:
    for name in ("cp1", "w4"):
        workspace.write(workspace.node(name) / "node.env", "")
        workspace.write_secret(workspace.secrets / name / "secrets", "")
    workspace.write_secret(workspace.secrets / "ca.key", "")
    workspace.remove_other_nodes({"cp1"})
    left = {str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*") if path.is_file()}
    assert left == {"nodes/cp1/node.env", "secrets/cp1/secrets", "secrets/ca.key"}


def hold(workspace: Workspace) -> subprocess.Popen[str]:
    """A second process that has the lab's lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workspace.root)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_kept_out_and_told_by_whom(workspace: Workspace) -> None:
    with hold(workspace) as holder:
        try:
            with (
                pytest.raises(LabStateError, match=f"this lab is in use by process {holder.pid}$"),
                workspace.lock(),
            ):
                pass
        finally:
            holder.kill()


def test_which_process_has_the_lab_can_be_asked_without_disturbing_it(workspace: Workspace) -> None:
    assert workspace.in_use_by() is None
    with hold(workspace) as holder:
        try:
            assert workspace.in_use_by() == f"process {holder.pid}"
        finally:
            holder.kill()
            holder.wait(10)
    assert workspace.in_use_by() is None
    with workspace.lock():
        pass


def test_who_only_asks_who_has_the_lab_keeps_nobody_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workspace.lock():
        pass
    asking = os.open(workspace.root / "lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("lab.workspace.time.sleep", lambda seconds: os.close(asking))
    with workspace.lock():
        pass


def test_a_killed_process_holds_nothing(workspace: Workspace) -> None:
    with hold(workspace) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with workspace.lock():
            pass


def test_a_lock_is_free_after_use_and_after_an_error(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), workspace.lock():
        raise RuntimeError
    with workspace.lock(), pytest.raises(LabStateError), workspace.lock():
        pass
    with workspace.lock():
        pass


def test_one_generation_of_logs_is_kept(workspace: Workspace) -> None:
    workspace.rotate_logs()
    for text in ("first", "second", "third"):
        workspace.write(workspace.logs / "01-boot.log", text)
        workspace.rotate_logs()
    assert not workspace.logs.exists()
    assert (workspace.root / "logs.previous" / "01-boot.log").read_text() == "third"
    assert [path.name for path in workspace.root.iterdir()] == ["logs.previous"]


def test_removing_leaves_nothing(workspace: Workspace) -> None:
    workspace.write_secret(workspace.secrets / "cp1" / "secrets", "x")
    workspace.remove()
    assert not workspace.root.exists()
