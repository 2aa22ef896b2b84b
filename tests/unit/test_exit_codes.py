"""Each exit code of the table is one that a verb ends with, and no verb ends with another."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from invoke.collection import Collection

import tasks
from lab import exit_codes
from lab.exit_codes import EXIT_CODES
from lab.golden.supply.comparison import Compared
from lab.golden.supply.parts import File
from lab.health.status import Status
from lab.health.verify import Outcome
from lab.host.doctor.finding import Finding
from lab.system.paths import REPOSITORY
from lab.verbs.plan import Forecast, Impossible, Planned
from lab.workshop.task.look import Result
from tests.unit.fakes import program
from tests.unit.typed import typed


class Case(NamedTuple):
    """A line, and the function that answers `answer` in it, or raises it, or is replaced by it."""

    line: str
    code: int
    function: str = ""
    answer: Any = None
    lab_yaml: str = ""


def forecast(**differs: Any) -> Forecast:
    nothing: dict[str, Any] = dict.fromkeys(("steps", "notice", "impossible", "differs", "removed"), ())
    return Forecast(**{"lab": "ha-lab", "problem": None, "seconds": 0.0, **nothing, **differs})


def status(health: Any) -> Status:
    return Status("ha-lab", "https://192.168.56.10:6443", health, (), "")


def finding(verdict: Any) -> list[Finding]:
    return [Finding("disk", "disk", verdict, "full", "why", "repair")]


def measured(_session: object, _wish: object, _confirmed: object, around: Any) -> None:
    around.report, around.folder = SimpleNamespace(passed=False), Path("drills")


STEP = Planned("drain", "drain", ("w3",), 5.0)
KEY = Impossible("name", "ha-lab", "yours", 1, "why", "lab.yaml:1: name", "change it back")

CASES = (
    Case("destroy", exit_codes.DONE),
    Case("kubeconfig", exit_codes.FAILED),
    Case("plan", exit_codes.USAGE, lab_yaml="bogus: 1\n"),
    Case("upp", exit_codes.USAGE),
    Case("doctor", exit_codes.NOT_FIT, "lab.host.doctor.examination.look", finding("unfit")),
    Case("doctor", exit_codes.FIT_AFTER_REPAIRS, "lab.host.doctor.examination.look", finding("repairable")),
    Case("doctor", exit_codes.DONE, "lab.host.doctor.examination.look", finding("fit")),
    Case("plan", exit_codes.DONE, "lab.verbs.plan.look", forecast()),
    Case("plan", exit_codes.CHANGES, "lab.verbs.plan.look", forecast(steps=(STEP,), seconds=5.0)),
    Case("plan", exit_codes.IMPOSSIBLE, "lab.verbs.plan.look", forecast(impossible=(KEY,))),
    Case("status", exit_codes.DONE, "lab.health.status.look", status("healthy")),
    Case("status", exit_codes.DEGRADED, "lab.health.status.look", status("degraded")),
    Case("status", exit_codes.DOWN, "lab.health.status.look", status("down")),
    Case("task 1", exit_codes.DONE, "lab.workshop.task.look.ask", Result(1, "n", "t", "done")),
    Case("task 1", exit_codes.TASK_NOT_YET, "lab.workshop.task.look.ask", Result(1, "n", "t", "not yet")),
    Case("task 1", exit_codes.TASK_BROKEN, "lab.workshop.task.look.ask", Result(1, "n", "t", "broken")),
    Case(
        "verify",
        exit_codes.CHECKS_FAIL,
        "lab.health.verify.run",
        Outcome("ha-lab", (), 1.0, Path("verify.xml")),
    ),
    Case(
        "drill all",
        exit_codes.BEYOND_LIMIT,
        "lab.drill.command.drill",
        (SimpleNamespace(passed=False), Path("drills")),
    ),
    Case("up --measure", exit_codes.BEYOND_LIMIT, "lab.verbs.up.up", measured),
    Case("replace w1 --measure", exit_codes.BEYOND_LIMIT, "lab.verbs.up.up", measured),
    Case(
        "conformance",
        exit_codes.TESTS_FAIL,
        "lab.verbs.conformance.conformance",
        SimpleNamespace(green=False),
    ),
    Case("watch", exit_codes.DOWN, "lab.workshop.watch.command.watch", "no machine answers"),
    Case("watch", exit_codes.INTERRUPTED, "lab.workshop.watch.command.watch", KeyboardInterrupt()),
    Case(
        "lock",
        exit_codes.LOCK_DIFFERS,
        "lab.verbs.bake.compare",
        (Compared(File("kubelet", "1.36.3", "https://dl.k8s.io/kubelet", {}), "amd64", "0" * 64, "1" * 64),),
    ),
    Case("status", exit_codes.INTERRUPTED, "lab.health.status.look", KeyboardInterrupt()),
    Case("status", exit_codes.READER_LEFT, "lab.health.status.look", BrokenPipeError()),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a lab, with programs that may not be asked anything."""
    for name in ("docker", "vagrant", "ssh", "sudo"):
        program(tmp_path / "bin", name, "exit 97")
    program(tmp_path / "bin", "ip", 'echo \'[{"gateway": "192.0.2.1", "prefsrc": "192.0.2.2"}]\'')
    for name in ("lab.drill.report.shown", "lab.drill.measure.shown", "lab.conformance.results.shown"):
        monkeypatch.setattr(name, lambda *_: "figures")
    monkeypatch.setattr("lab.verbs.up.require_replaceable", lambda *_: None)
    return tmp_path


def answering(answer: Any) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return answer if callable(answer) else function


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.line}-{case.code}")
def test_a_verb_ends_with_the_code_of_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    if case.function:
        monkeypatch.setattr(case.function, answering(case.answer))
    (folder / "lab.yaml").write_text(case.lab_yaml)
    ran = typed(folder, *case.line.split(), *([] if case.line == "upp" else ["--lab", "lab.yaml"]))
    assert ran.returncode == case.code, ran.stdout + ran.stderr


def typed_verb(line: str) -> str:
    """A line as the table has its verb."""
    return re.sub(r" (\d|all|w1)\b", lambda found: " N" if found[1].isdigit() else "", line)


def test_every_code_of_the_table_was_seen_and_no_other() -> None:
    seen = {(typed_verb(case.line), case.code) for case in CASES}
    own = {(verb, each.code) for each in EXIT_CODES for verb in each.verbs}
    anyones = {each.code for each in EXIT_CODES if not each.verbs}
    assert {pair for pair in seen if pair[1] not in anyones} == own
    assert {code for _, code in seen} == anyones | {code for _, code in own}


def test_no_two_rows_have_one_code_and_answers_are_from_10_on() -> None:
    codes = [each.code for each in EXIT_CODES]
    assert sorted(set(codes)) == codes
    assert all(10 <= each.code < 100 for each in EXIT_CODES if each.verbs)
    assert [each.code for each in EXIT_CODES if not each.verbs] == [0, 1, 2, 3, 130, 141]


def test_a_tens_digit_belongs_to_one_verb_and_to_those_that_answer_as_it_does() -> None:
    owners: dict[int, set[str]] = {}
    for each in EXIT_CODES:
        if each.verbs:
            owners.setdefault(each.code // 10, set()).add(each.verbs[0])
    assert all(len(verbs) == 1 for verbs in owners.values())


def numbers(text: str) -> list[int]:
    """The exit codes that a verb's help names."""
    said = re.search(r"\b[Ee]xit (\d[^.]*)", " ".join(text.split()))
    return [int(number) for number in re.findall(r"\b\d+\b", said[1])] if said else []


def test_the_help_of_a_verb_names_its_codes_and_no_other() -> None:
    for name, verb in Collection.from_module(tasks).tasks.items():
        said = numbers(verb.__doc__ or "") + numbers(verb.explained.get("measure", ""))
        own = [each.code for each in EXIT_CODES if name in {typed.split()[0] for typed in each.verbs}]
        assert [code for code in said if code >= 10] == own, name
        assert {code for code in said if code < 10} <= {0, 1, 2, 3}, name


def test_no_code_is_a_number_in_tasks_py() -> None:
    tree = ast.parse((REPOSITORY / "tasks.py").read_text(encoding="utf-8"))
    raised = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code"
    ]
    assert len(raised) > 10
    assert not [value for value in raised if isinstance(value, ast.Constant)]
