"""Verbs about checkpoints as a person types them, and the commands of docs/checkpoints.md."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import config
from lab.exit_codes import FAILED, USAGE
from lab.system.paths import REPOSITORY
from lab.workspace import Workspace, checkpoints
from lab.workspace.checkpoints import Checkpoint, Saved
from tests.unit.fakes import keep_made, program
from tests.unit.sessions import let_exist
from tests.unit.typed import typed

PAGE = (REPOSITORY / "docs" / "checkpoints.md").read_text(encoding="utf-8")
FAULT = {"drill": "kill-control-plane", "victims": ["cp1"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lab that was made, with a checkpoint; no program may be asked anything."""
    (tmp_path / "lab.yaml").write_text("")
    for name in ("docker", "vagrant", "ssh"):
        program(tmp_path / "bin", name, f'echo "{name} $*" >>{tmp_path}/asked; exit 97')
    program(tmp_path / "bin", "ip", 'echo \'[{"gateway": "192.0.2.1", "prefsrc": "192.0.2.2"}]\'')
    workspace, lab = Workspace(tmp_path / ".lab"), config.default()
    record = keep_made(workspace, lab)
    let_exist(workspace, *(node.name for node in lab.nodes))
    found = Checkpoint(
        name="start", taken=datetime.now(UTC), made=record, healthy=True, machines={"cp1": Saved(mib=812)}
    )
    checkpoints.begin(workspace, found)
    checkpoints.complete(workspace, "start")
    return tmp_path


def asked(folder: Path) -> str:
    return (folder / "asked").read_text() if (folder / "asked").exists() else ""


def test_checkpoints_are_listed_without_asking_anything(folder: Path) -> None:
    ran = typed(folder, "checkpoints", "--lab", "lab.yaml")
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^start +20\S+ \S+ +1 +812", ran.stdout, re.MULTILINE)
    found = json.loads(typed(folder, "checkpoints", "--lab", "lab.yaml", "--json").stdout)
    assert [each["name"] for each in found["checkpoints"]] == ["start"]
    assert asked(folder) == ""


@pytest.mark.parametrize(
    "words",
    [("checkpoint", "other"), ("restore", "start", "--yes"), ("checkpoints", "--remove", "start", "--yes")],
    ids=lambda words: words[0],
)
def test_nothing_is_saved_restored_or_removed_while_a_drill_s_fault_is_in_the_lab(
    folder: Path, words: tuple[str, ...]
) -> None:
    drill = folder / ".lab" / "drill"
    drill.mkdir()
    (drill / "fault.json").write_text(json.dumps(FAULT))
    ran = typed(folder, *words, "--lab", "lab.yaml")
    assert ran.returncode == FAILED
    assert "error: a drill's fault is in the lab: kill-control-plane on cp1\n" in ran.stderr
    assert "next: `./inv drill --lab lab.yaml --heal` reverts it" in ran.stderr
    assert asked(folder) == ""


@pytest.mark.parametrize(
    ("words", "question", "again"),
    [
        (
            ("checkpoints", "--remove", "start"),
            "The checkpoint start (812 MiB) will be removed.",
            "./inv checkpoints --lab lab.yaml --remove start --yes",
        ),
        (
            ("destroy",),
            "Remove all machines of ha-lab and its checkpoint start (812 MiB)?",
            "./inv destroy --lab lab.yaml --yes",
        ),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_what_removes_a_checkpoint_needs_a_person_or_yes(
    folder: Path, words: tuple[str, ...], question: str, again: str
) -> None:
    ran = typed(folder, *words, "--lab", "lab.yaml")
    assert ran.returncode == USAGE
    assert question in ran.stderr
    assert f"next: {again}\n" in ran.stderr
    assert asked(folder) == ""
    assert checkpoints.names(Workspace(folder / ".lab")) == ("start",)


def test_a_restore_of_another_lab_yaml_shows_what_differs_and_asks_nothing(folder: Path) -> None:
    (folder / "lab.yaml").write_text("nodes: {workers: {count: 1}}")
    ran = typed(folder, "restore", "start", "--lab", "lab.yaml")
    assert ran.returncode == USAGE
    assert "the checkpoint start is of another lab: nodes.workers.count: 3 → 1" in ran.stderr
    assert asked(folder) == ""


@pytest.mark.parametrize("name", ["strat", "../.."])
def test_an_unknown_checkpoint_is_answered_with_those_there_are(folder: Path, name: str) -> None:
    for words in (("restore", name), ("checkpoints", "--yes", "--remove", name)):
        ran = typed(folder, *words, "--lab", "lab.yaml")
        assert ran.returncode == USAGE
        assert f"this lab has no checkpoint {name!r}" in ran.stderr
        assert "its checkpoints: start" in ran.stderr
    assert asked(folder) == ""


def test_the_page_s_command_for_a_class_restores_every_seat(folder: Path) -> None:
    [line] = re.findall(r"^    (for lab in .*)$", PAGE, re.MULTILINE)
    for seat in ("a1", "a2"):
        (folder / "handouts" / "class" / seat).mkdir(parents=True)
        (folder / "handouts" / "class" / seat / "lab.yaml").touch()
    program(folder, "inv", 'echo "$*" >>lines; exit 1')
    subprocess.run(["bash", "-c", line], cwd=folder, check=False)
    lines = (folder / "lines").read_text().splitlines()
    assert lines == [f"restore start --yes --lab handouts/class/{seat}/lab.yaml" for seat in ("a1", "a2")]
    (folder / "handouts/class/a1/lab.yaml").write_text("nodes: {workers: {count: 1}}")
    ran = typed(folder, *lines[0].split())
    assert "this lab has no checkpoint 'start'" in ran.stderr
