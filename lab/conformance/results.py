"""What came of a run: read from the suite's JUnit file, counted by area, and put into words."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.conformance.tests import E2eTest, Selection
from lab.errors import LabError

IT = "[It] "
"""How the names of tests begin in the suite's JUnit file; those of its own preparations do not."""

FAILED = ("failed", "timedout", "panicked", "interrupted", "aborted")
SUITE = "suite"
"""The area of what the suite itself does before and after its tests."""

ECHO = "failed on Ginkgo parallel process"
"""What every other process of a run says when a preparation has failed in the first one, which says why."""

COLOUR = re.compile(r"[\x1b\ufffd]\[[0-9;]*m")
"""Colours that ginkgo leaves in its report; XML has no character for how they begin, and so it is replaced."""

LINES = 12
"""How many lines of what the suite says of a failure are shown; the log has all."""


@dataclass(frozen=True)
class Failure:
    """A test that failed: the suite's own words, all that it printed, and the file that has both."""

    test: str
    area: str
    words: str
    printed: str
    log: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a run. `not_run` has the reason of every conformance test that was not run."""

    lab: str
    kubernetes: str
    title: str
    passed: tuple[E2eTest, ...]
    failures: tuple[Failure, ...]
    not_run: Mapping[E2eTest, str]
    seconds: float
    junit: Path
    log: Path
    left: tuple[str, ...] = ()
    """What the suite left in the lab that could not be removed."""

    @property
    def total(self) -> int:
        """How many conformance tests this Kubernetes version has."""
        return len(self.passed) + len(self._failed) + len(self.not_run)

    @property
    def _failed(self) -> list[Failure]:
        """The tests that failed, without the suite's own preparations."""
        return [failure for failure in self.failures if failure.area != SUITE]

    @property
    def green(self) -> bool:
        """Whether tests ran, all that ran passed, and nothing was left in the lab."""
        return bool(self.passed) and not self.failures and not self.left

    @property
    def sentence(self) -> str:
        """What can be said of it in one sentence."""
        said = f"{len(self.passed)} of {self.total} conformance tests passed"
        if self._failed:
            said += f", {len(self._failed)} failed"
        if len(self.failures) > len(self._failed):
            said += ", the suite's own preparations or checks failed"
        reasons = Counter(self.not_run.values())
        return said + "".join(f", {count} not run because {why}" for why, count in reasons.most_common())


@dataclass(frozen=True)
class Case:
    """One test in the JUnit file: how it ended; the suite's words and all it printed where it did not pass."""

    name: str
    status: str
    words: str
    printed: str = ""


def read(junit: Path) -> tuple[Case, ...]:
    """Read the suite's JUnit file. Raises LabError where it is none."""
    try:
        root = ET.parse(junit).getroot()  # noqa: S314  our own suite has written it
    except (OSError, ET.ParseError) as error:
        raise LabError(
            f"the suite has written no JUnit file that can be read: {junit}", hint="its log says more"
        ) from error
    return tuple(
        Case(each.get("name", ""), each.get("status", ""), _words(each), _plain(each.findtext("system-err")))
        for each in root.iter("testcase")
        if each.get("status") != "skipped" or _words(each) not in ("", "skipped")
    )


def judge(
    selection: Selection, cases: tuple[Case, ...], ended_before: str, logs: Path
) -> tuple[tuple[E2eTest, ...], tuple[Failure, ...], dict[E2eTest, str]]:
    """Split the conformance tests into passed ones, failures, and those that were not run with the reason.

    What the suite itself skipped was not run. A preparation of the suite that failed is a failure, too.
    `ended_before` is why a selected test has no result; `logs` is the folder of the failures' files.
    """
    known = {case.name.removeprefix(IT).strip(): case for case in cases if case.name.startswith(IT)}
    passed: list[E2eTest] = []
    failures: list[tuple[str, Case]] = []
    not_run = dict(selection.not_run)
    for test in selection.run:
        case = known.get(test.name)
        if case is None:
            not_run[test] = ended_before
        elif case.status == "passed":
            passed.append(test)
        elif case.status in FAILED:
            failures.append((test.area, case))
        else:
            not_run[test] = f"the suite skipped them: {_first_line(case.words)}"
    others = [case for case in cases if not case.name.startswith(IT) and case.status in FAILED]
    failures += [(SUITE, case) for case in others if ECHO not in case.words]
    found = [
        Failure(
            case.name.removeprefix(IT).strip(),
            area,
            case.words,
            case.printed,
            logs / f"{number:02d}-{area}.log",
        )
        for number, (area, case) in enumerate(failures, 1)
    ]
    return tuple(passed), tuple(found), not_run


def keep_logs(failures: tuple[Failure, ...]) -> None:
    """Write the file of each failure: its name, the suite's words, and what the test printed."""
    for failure in failures:
        failure.log.parent.mkdir(parents=True, exist_ok=True)
        failure.log.write_text(f"{failure.test}\n\n{failure.words}\n\n{failure.printed}\n", encoding="utf-8")


def to_json(outcome: Outcome) -> str:
    """Return the outcome as JSON text."""
    return json.dumps(
        {
            "lab": outcome.lab,
            "kubernetes": outcome.kubernetes,
            "run": outcome.title,
            "green": outcome.green,
            "summary": outcome.sentence,
            "tests": outcome.total,
            "passed": [test.name for test in outcome.passed],
            "failed": [
                {"test": each.test, "area": each.area, "words": each.words, "log": str(each.log)}
                for each in outcome.failures
            ],
            "not_run": [{"test": test.name, "why": why} for test, why in outcome.not_run.items()],
            "left": list(outcome.left),
            "seconds": round(outcome.seconds, 1),
            "junit": str(outcome.junit),
            "log": str(outcome.log),
        },
        indent=2,
    )


def shown(outcome: Outcome) -> RenderableType:
    """Return the outcome for people: a table by area, each failure in the suite's words, one sentence."""
    table = Table("area", "passed", "failed", "not run", box=None, pad_edge=False)
    passed = Counter(test.area for test in outcome.passed)
    failed = Counter(failure.area for failure in outcome.failures)
    not_run = Counter(test.area for test in outcome.not_run)
    for area in sorted({*passed, *failed, *not_run}):
        bad = Text(str(failed[area]), "red" if failed[area] else "dim")
        table.add_row(area, str(passed[area]), bad, Text(str(not_run[area]), "dim"))
    said = Text(f"{outcome.sentence} ({outcome.seconds:.0f} s)", "bold green" if outcome.green else "bold red")
    left = [Text(f"left in the lab: {what}", "red") for what in outcome.left]
    files = f"junit  {outcome.junit}\nlog    {outcome.log}"
    return Group(table, "", *map(_failure, outcome.failures), *left, said, files)


def _failure(failure: Failure) -> RenderableType:
    lines = [line.rstrip() for line in failure.words.splitlines() if line.strip()]
    more = [f"… {len(lines) - LINES} more lines in the log"] if len(lines) > LINES else []
    body = Text("\n".join(f"    {line}" for line in [*lines[:LINES], *more]))
    return Group(Text(failure.test, "red"), body, Text(f"    log: {failure.log}", "dim"), "")


def _words(case: ET.Element) -> str:
    """What the suite says of a test that did not pass: the text of its failure, or its message."""
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return _plain(found.text) or _plain(found.get("message")).removeprefix("skipped - ")
    return ""


def _plain(text: str | None) -> str:
    return COLOUR.sub("", text or "").strip()


def _first_line(words: str) -> str:
    return (words.strip().splitlines() or ["no reason given"])[0]
