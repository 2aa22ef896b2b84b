"""Verdicts of plain tests: those in tests/live that judge nothing of lab.health.checks, such as testinfra's.

A test's docstring may say what `verify` shows of it: its first paragraph is what is expected, a paragraph that
begins with `Means:` what a failure means, and one with `Try:` what to do about it.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.errors import LabError
from lab.health.checks.check import Outcome, Verdict
from lab.model import Lab, Node
from lab.model.selectors import SINGULAR
from lab.remote import SSH_FAILED

ACCEPTANCE, OWN = "acceptance", "your own"
"""The group of tests with pytest's marker `acceptance`, and that of all others."""

PASSES = "it does"
LONGEST = 300
"""Letters of a failure that are shown; junit has all of it."""


class Described(NamedTuple):
    """What a docstring says of its test."""

    expected: str
    means: str
    hint: str


def verdict(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> Verdict:
    """What a plain test found. One whose machine, or fixture, gave no answer could not ask."""
    name, machine = name_and_machine(item)
    described = read(inspect.getdoc(getattr(item, "obj", None)) or "", item.location[0])
    error = None if call.excinfo is None else call.excinfo.value
    found = PASSES if report.passed else _found(error)
    outcome: Outcome = "holds" if report.passed else "fails"
    if report.failed and (report.when == "setup" or _no_answer(error) is not None):
        outcome = "could-not-ask"
    return Verdict(
        name, group(item), machine, outcome, described.expected, found, described.means, described.hint
    )


def group(item: pytest.Item) -> str:
    """The group that a test is shown in."""
    return ACCEPTANCE if item.get_closest_marker(ACCEPTANCE) else OWN


def title(function: str) -> str:
    """The name of a test as it is shown, and as -k finds it."""
    return function.removeprefix("test_").replace("_", "-")


def read(docstring: str, file: str) -> Described:
    """Read what a docstring says; what it does not say is said in general words, naming the test's file."""
    first, *rest = re.split(r"^(Means|Try):", docstring, flags=re.MULTILINE)
    said = dict(zip(rest[::2], rest[1::2], strict=True))
    return Described(
        _line(first.partition("\n\n")[0]) or "the test passes",
        _line(said.get("Means", "")) or "a test of your own in tests/live does not hold",
        _line(said.get("Try", "")) or f"read {file}",
    )


def listed(file: Path, lab: Lab) -> list[tuple[str, str]]:
    """The tests that a file has for a lab, as (name, machine), read from its text: pytest is not asked.

    A test that is about each machine of a kind has a parameter of `lab.model.selectors.SINGULAR`.
    """
    found = []
    for test in ast.parse(file.read_text(encoding="utf-8"), str(file)).body:
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            about = [SINGULAR[each.arg](lab) for each in test.args.args if each.arg in SINGULAR]
            found += [(title(test.name), node.name) for nodes in about for node in nodes]
            found += [] if about else [(title(test.name), "")]
    return found


def name_and_machine(item: pytest.Item) -> tuple[str, str]:
    """A test's name, and the machine that it is about; "" for none, or for more than one."""
    parameters = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    if len(parameters) == 1 and isinstance(parameters[0], Node):
        return title(getattr(item, "originalname", item.name)), parameters[0].name
    return title(item.name), ""


def _found(error: BaseException | None) -> str:
    """Why a test did not pass, in one line."""
    said = _no_answer(error)
    if said is None:
        said = _asserted(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return _line(said)[:LONGEST] or "nothing was said"


def _asserted(error: AssertionError) -> str:
    """What pytest says of an assertion, down to the first value that it explains."""
    lines = str(error).splitlines()
    first = next((place for place, line in enumerate(lines) if line.lstrip().startswith("+")), len(lines))
    return "\n".join(lines[: first + 1])


def _no_answer(error: BaseException | None) -> str | None:
    """Why a machine, or the API, could not be asked, where that is what an error says.

    testinfra raises RuntimeError with the result of a command for which ssh itself failed (its backend/ssh.py).
    """
    if isinstance(error, LabError):
        return error.message
    [result] = error.args if isinstance(error, RuntimeError) and len(error.args) == 1 else [None]
    return str(getattr(result, "stderr", "")) if getattr(result, "rc", None) == SSH_FAILED else None


def _line(text: str) -> str:
    return " ".join(text.split())
