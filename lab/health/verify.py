"""This room runs every check against a running lab, through pytest, and returns what came of each.

`run` prints nothing: the verbs, failure drills and `--watch` show its outcome in their own ways.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pytest
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.errors import ConfigError, LabError, LabStateError
from lab.health import plain_tests
from lab.health.checks.check import Verdict
from lab.session import Session, require_up
from lab.system.paths import REPOSITORY

CHECKS = REPOSITORY / "tests" / "live"
VERDICT = pytest.StashKey[Verdict]()
"""Where tests/live leaves what a check found, on pytest's own record of the test."""

WATCH_INTERVAL = 5.0
"""Seconds between the end of one look and the begin of the next."""

COLOURS = {"holds": "green", "warns": "yellow", "fails": "red", "could-not-ask": "magenta"}


@dataclass(frozen=True)
class Outcome:
    """What came of a run: every check's verdict in the order of their groups, and how long all took."""

    lab: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    junit: Path

    @property
    def green(self) -> bool:
        """Whether checks ran and all of them hold, or at most warn. What could not be asked is not green."""
        return bool(self.verdicts) and all(verdict.good for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """One line about it all."""
        counts = {outcome: 0 for outcome in COLOURS}
        for verdict in self.verdicts:
            counts[verdict.outcome] += 1
        words = [
            f"{counts['fails']} fail" if counts["fails"] else "",
            f"{counts['could-not-ask']} could not be asked" if counts["could-not-ask"] else "",
            f"{counts['warns']} warn" if counts["warns"] else "",
        ]
        said = ", ".join(word for word in words if word) or "all hold"
        return f"verify: {len(self.verdicts)} checks, {said}, {self.seconds:.1f} s ({self.junit})"


def run(session: Session, *, select: str = "", junit: Path | None = None) -> Outcome:
    """Run the checks whose names match `select` (as pytest's -k) and return their verdicts.

    Raises LabStateError when the lab was never brought up or its network is down, ConfigError when no
    check is selected.
    """
    require_up(session)
    junit = (junit or session.workspace.root / "verify.xml").absolute()
    junit.unlink(missing_ok=True)  # what an earlier run found is no answer now
    words = [str(CHECKS), "--rootdir", str(REPOSITORY), "-c", str(REPOSITORY / "pyproject.toml")]
    # Nobody's terminal, and nobody's standard output: what was found comes back as verdicts.
    words += ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    words += ["--capture", "no", "--junitxml", str(junit), "--lab", str(session.path)]
    words += ["--profile", session.lab.load_balancer.profile]
    words += ["-k", select] if select else []
    collected = _Collector()
    started = time.monotonic()
    code = pytest.main(words, plugins=[collected])
    seconds = time.monotonic() - started
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise ConfigError(
            [f"no check has a name that matches {select!r}"], hint="`./inv verify --json` lists them all"
        )
    if code == pytest.ExitCode.INTERRUPTED and not collected.trouble:
        raise KeyboardInterrupt  # pytest keeps it to itself
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise LabError(
            f"the checks could not be run: pytest ended with {int(code)}\n{collected.trouble}".rstrip(),
            hint=f"`.venv/bin/python -m pytest {CHECKS} --lab {session.path}` says more",
        )
    return Outcome(session.lab.name, tuple(collected.verdicts), seconds, junit)


class _Collector:
    """A pytest plugin that keeps each check's verdict, and makes one for every other test."""

    def __init__(self) -> None:
        """Begin with none."""
        self.verdicts: list[Verdict] = []
        self.trouble = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what a test says when it has run, or why it could not."""
        report = yield
        own = item.stash.get(VERDICT, None)
        if call.when == "call" and own is not None:
            self.verdicts.append(own)
        elif report.failed or (call.when == "call"):
            self.verdicts.append(plain_tests.verdict(item, call, report))
        return report

    def pytest_internalerror(self, excrepr: object) -> None:
        """Keep what went wrong in pytest itself."""
        self.trouble = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why tests could not be read."""
        if report.failed:
            self.trouble += report.longreprtext


def to_json(outcome: Outcome) -> str:
    """Return the outcome as JSON text."""
    verdicts = [asdict(verdict) for verdict in outcome.verdicts]
    found = {"lab": outcome.lab, "green": outcome.green, "seconds": round(outcome.seconds, 1)}
    return json.dumps(found | {"verdicts": verdicts}, indent=2)


def shown(outcome: Outcome) -> RenderableType:
    """Return the outcome for people: a line for each check, and those that don't hold in full."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for group, verdicts in groupby(outcome.verdicts, key=lambda verdict: verdict.group):
        table.add_row(Text(group, "bold"), "", "")
        for name, each in groupby(verdicts, key=lambda verdict: verdict.name):
            table.add_row(f"  {name}", *_line(tuple(each)))
    bad = [_in_full(verdict) for verdict in outcome.verdicts if verdict.outcome != "holds"]
    return Group(table, "", *bad, Text(outcome.summary, "bold green" if outcome.green else "bold red"))


def _line(verdicts: tuple[Verdict, ...]) -> tuple[Text, str]:
    """One check of all its machines: the worst that was found, and where."""
    worst = max(verdicts, key=lambda verdict: tuple(COLOURS).index(verdict.outcome)).outcome
    good = [verdict.machine for verdict in verdicts if verdict.outcome == "holds"]
    where = " ".join(good) if worst == "holds" else ""
    if worst != "holds":
        where = " ".join(verdict.machine for verdict in verdicts if verdict.outcome != "holds")
    return Text(worst.replace("-", " "), COLOURS[worst]), where


def _in_full(verdict: Verdict) -> RenderableType:
    lines = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 2))
    where = f" on {verdict.machine}" if verdict.machine else ""
    says = verdict.outcome.replace("-", " ")
    for label, text in (
        ("expected", verdict.expected),
        ("found", verdict.found),
        ("means", verdict.means),
        ("try", verdict.hint),
    ):
        lines.add_row(Text(label, "dim"), Text(text))
    return Group(Text(f"{verdict.name}{where}: {says}", COLOURS[verdict.outcome]), lines, "")


def watch(session: Session, *, select: str, say: Callable[[RenderableType], None]) -> None:
    """Look again and again, and say only what has changed since the look before. Ends with Ctrl-C."""
    before: dict[str, str] = {}
    while True:
        try:
            now = {verdict.title: verdict for verdict in run(session, select=select).verdicts}
        except LabStateError as error:
            now = {"lab": Verdict("lab", "", "", "could-not-ask", "an answer", error.message, "", "")}
        stamp = time.strftime("%H:%M:%S")
        for title, verdict in now.items():
            if before.get(title, "holds") != verdict.outcome:
                line = Text(f"{stamp}  ").append(verdict.outcome, COLOURS[verdict.outcome])
                say(line.append(f"  {title}: {verdict.found}"))
        if not before:
            bad = sum(verdict.outcome != "holds" for verdict in now.values())
            say(f"{stamp}  {len(now)} checks watched, {bad} do not hold; changes follow, Ctrl-C ends")
        before = {title: verdict.outcome for title, verdict in now.items()}
        time.sleep(WATCH_INTERVAL)
