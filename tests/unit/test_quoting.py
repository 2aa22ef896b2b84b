"""Commands as they are shown: whatever is in their words, they can be pasted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.system import quoting
from lab.system.paths import REPOSITORY
from lab.workspace import Workspace, kubeconfig

FOLDERS = ["my labs", "it's", "a$HOME", "`id`", "a;b", "[red]", "가나다", "#1", "~ada", "a&b", "(x)", "*"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_shown_can_be_pasted(tmp_path: Path, name: str, shell: str) -> None:
    workspace = Workspace(tmp_path / name / ".lab")
    line = f'{kubeconfig.export(workspace)}; printf %s "$KUBECONFIG"'
    said = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == (str(workspace.kubeconfig), "")


def test_a_line_is_its_words_again() -> None:
    words = ["cp", Path("/a b/c"), "", "d"]
    said = subprocess.run(
        ["sh", "-c", f"printf '%s|' {quoting.line(words)}"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "cp|/a b/c||d|"
    assert quoting.word("plain") == "plain"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_lab_can_be_in_any_such_folder(name: str) -> None:
    assert quoting.folder_problem(Path("/home/ada") / name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a:b", "has a colon in its path, which separates the files in KUBECONFIG"),
        ("a\nb", "'/home/ada/a\\nb' has a line break"),
        ("a\x1b[0m", "has a line break or another unprintable character"),
        ("a\udcff", "has a line break or another unprintable character"),
    ],
)
def test_a_folder_that_quoting_can_t_help_has_a_reason(name: str, why: str) -> None:
    assert why in (quoting.folder_problem(Path("/home/ada") / name) or "")


def test_nothing_else_quotes() -> None:
    users = [path for path in (REPOSITORY / "lab").rglob("*.py") if "shlex" in path.read_text(encoding="utf-8")]
    assert [path.name for path in users] == ["quoting.py"]
