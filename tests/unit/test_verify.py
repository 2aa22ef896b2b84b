from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import verify
from lab.config import default
from lab.errors import LabStateError
from lab.progress import Progress
from lab.remote import Remote
from lab.session import Session
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, printed

RESULTS = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


def opened(tmp_path: Path, console: Console, remote: type[Remote] = FakeRemote) -> Session:
    workspace, lab = Workspace(tmp_path / ".lab"), default()
    return Session(
        tmp_path / "lab.yaml", lab, workspace, remote(lab, workspace), Progress(console, workspace.logs)
    )


def verified(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    results: str = "",
    before: str = "",
    **words: Any,
) -> tuple[int, str, list[str]]:
    console, text = printed()
    session = opened(tmp_path, console)
    session.workspace.write_secret(session.workspace.kubeconfig, "x")
    junit = session.workspace.root / "verify.xml"
    if before:
        junit.write_text(before)
    asked: list[str] = []

    def pytest_ran(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.extend(argv)
        if results:
            junit.write_text(results)
        return subprocess.CompletedProcess(argv, code)

    monkeypatch.setattr(subprocess, "run", pytest_ran)
    return verify.verify(session, **words), text.getvalue(), asked


def test_checks_that_hold_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, asked = verified(tmp_path, monkeypatch, 0, RESULTS.format(40, 0, 0, 0))
    assert code == 0
    assert "verify: 40 checks, all hold" in said
    assert asked[:4] == [sys.executable, "-m", "pytest", "tests/live"]
    assert asked[asked.index("--lab") + 1] == str(tmp_path / "lab.yaml")


def test_checks_that_do_not_hold_are_counted_with_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = verified(tmp_path, monkeypatch, 1, RESULTS.format(40, 2, 1, 4))
    assert code == 1
    assert "40 checks, 3 do not hold, 4 not asked" in said


def test_no_check_of_that_name_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, asked = verified(tmp_path, monkeypatch, 5, RESULTS.format(0, 0, 0, 0), select="nothing")
    assert code == 5
    assert "no check has that name" in said
    assert asked[-2:] == ["-k", "nothing"]


def test_results_of_an_earlier_run_are_never_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = verified(tmp_path, monkeypatch, 4, before=RESULTS.format(40, 0, 0, 0))
    assert code == 4
    assert "pytest ended with 4 and wrote no results" in said


def test_results_that_can_t_be_read_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, _ = verified(tmp_path, monkeypatch, 3, "<testsu")
    assert code == 3
    assert "wrote no results" in said


def test_a_lab_that_was_never_up_is_not_verified(tmp_path: Path) -> None:
    with pytest.raises(LabStateError, match="has not been brought up"):
        verify.verify(opened(tmp_path, printed()[0]))
