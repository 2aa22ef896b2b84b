from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.session import Session
from lab.system import environment, process
from lab.system.paths import REPOSITORY
from lab.verbs import bake, selftest
from tests.unit.typed import typed
from tests.whole import rows


@pytest.fixture
def pytests(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of each pytest that was started; every one fails."""
    started: list[list[str]] = []

    def run(argv: Sequence[str], **how: Any) -> process.Result:
        assert list(argv[:3]) == [sys.executable, "-m", "pytest"]
        known = environment.chosen(environment.TESTS)
        if "--numprocesses" in argv:
            known["PYTEST_DEBUG_TEMPROOT"] = str(selftest.IN_MEMORY)
        assert how == {"cwd": REPOSITORY, "env": known, "accept": None, "terminal": True}
        started.append(list(argv[3:]))
        return process.Result(tuple(argv), 1, "", "", 0.0)

    monkeypatch.setattr(process, "run", run)
    return started


def test_quick_runs_unit_tests_on_all_cores_twice_and_asks_nothing_of_the_host(
    tmp_path: Path, pytests: list[list[str]]
) -> None:
    ran = typed(tmp_path, "test", "--quick", "-k", "oci")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")
    workers = str(2 * (os.cpu_count() or 1))
    shared_out = ["--numprocesses", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    assert pytests == [["tests/unit", "-m", "not slow", *shared_out, "-k", "oci"]]


@pytest.mark.parametrize("flag", ["--sabotage", "--drills", "--lifecycle", "--vm", "--whole"])
def test_quick_is_refused_beside_what_takes_long(tmp_path: Path, pytests: list[list[str]], flag: str) -> None:
    ran = typed(tmp_path, "test", "--quick", flag)
    assert (ran.returncode, pytests) == (2, [])
    assert "--quick runs only the unit tests\n  next: remove --quick" in ran.stderr


def test_suites_of_one_folder_share_a_process_and_so_their_lab(
    monkeypatch: pytest.MonkeyPatch, pytests: list[list[str]]
) -> None:
    for name in ("make_fit", "bake"):
        monkeypatch.setattr(bake, name, lambda *_, **__: None)
    session: Any = None
    asked: dict[str, Any] = {"consent": True, "live": True, "whole": True, "select": ""}
    assert selftest.run(session, breaking=["sabotage", "drills", "lifecycle"], **asked) == 1
    assert [[word for word in words if word.startswith("tests/")] for words in pytests] == [
        ["tests/breaking/test_sabotage.py", "tests/breaking/test_drills.py"],
        ["tests/lifecycle"],
        ["tests/pair"],
        ["tests/external"],
    ]
    assert all("--whole" in words for words in pytests)


@pytest.mark.parametrize(
    ("suite", "whole", "also"), [("sabotage", False, 0), ("drills", True, 2), ("lifecycle", True, 0)]
)
def test_labs_of_other_shapes_are_made_with_whole_only(
    monkeypatch: pytest.MonkeyPatch, pytests: list[list[str]], suite: str, whole: bool, also: int
) -> None:
    for name in ("make_fit", "bake"):
        monkeypatch.setattr(bake, name, lambda *_, **__: None)
    session: Any = None
    selftest.run(session, consent=True, live=True, breaking=[suite], whole=whole, select="")
    assert len(pytests) == 1 + also


def test_whole_adds_rows_of_tables_to_the_tests_that_need_no_lab(
    monkeypatch: pytest.MonkeyPatch, pytests: list[list[str]]
) -> None:
    monkeypatch.setattr(bake, "make_fit", lambda *_, **__: None)
    session: Any = None
    for whole in (False, True):
        assert selftest.run(session, consent=True, live=False, breaking=[], whole=whole, select="") == 1
    assert ["--whole" in words for words in pytests] == [False, True]


def test_a_table_s_rows_run_each_time_or_with_whole() -> None:
    usual, other = rows([("a", 1), ("b", 2)], usual=[("a", 1)])
    assert usual == ("a", 1)
    assert (other.values, [mark.name for mark in other.marks]) == (("b", 2), ["whole"])
    with pytest.raises(AssertionError, match=r"rows that are not in the table: \['z'\]"):
        rows(["a"], usual=["z"])


def test_every_suite_that_selftest_names_is_there() -> None:
    named = {selftest.QUICK[0], *selftest.NEEDS_NO_LAB, *selftest.NEEDS_LABS, *selftest.LONGEST}
    named |= {*selftest.BREAKING.values(), *selftest.OTHER_SHAPES}
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    assert selftest.QUICK[0] in selftest.NEEDS_NO_LAB


@pytest.mark.parametrize(("flags", "baked"), [((), ["ha-lab-vm"]), (("--whole",), ["small-lab", "ha-lab-vm"])])
def test_whole_bakes_for_docker_too_beside_virtual_machines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytests: list[list[str]],
    flags: tuple[str, ...],
    baked: list[str],
) -> None:
    bakes: list[str] = []

    def record(session: Session, *, consent: bool) -> None:
        assert consent
        bakes.append(session.lab.name)

    monkeypatch.setattr(bake, "bake", record)
    monkeypatch.setattr(bake, "golden_disk", lambda _: tmp_path / "disk")
    assert typed(tmp_path, "test", "--yes", "--vm", *flags).returncode == 1
    assert bakes == baked
    assert [words[:3] for words in pytests] == [["tests/vm", "--disk", f"{tmp_path}/disk"]]
