"""Runs every check on a running lab, with pytest, and returns each result.

It knows which verdicts are required, and a missing one does not count as a pass. `run` prints nothing: the
verbs, failure drills and `--watch` show its outcome in their own ways.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.errors import ConfigError, LabError, LabStateError
from lab.health import causes, plain_tests
from lab.health.causes import Cause
from lab.health.checks import cases
from lab.health.checks.check import Case, Verdict
from lab.health.facts.gather import Facts
from lab.model import Lab
from lab.session import Session, require_up
from lab.system import environment, quoting
from lab.system.paths import REPOSITORY

CHECKS = REPOSITORY / "tests" / "live"
ACCEPTANCE = CHECKS / "test_acceptance.py"
"""The one file of plain tests that every lab has; others are a user's own."""

VERDICT = pytest.StashKey[Verdict]()
"""Where tests/live leaves what a check found, on pytest's own record of the test."""

FACTS = pytest.StashKey[Facts]()
"""Where it leaves the facts of a run, on pytest's configuration."""

NOT_RUN = "it did not run"
LEFT_OUT = "pytest did not run it although it was selected, so its result is unknown"
LOOK_FOR = "look for what makes pytest skip tests, such as a conftest.py of yours: `git status` shows new files"
FEW = 12
"""How many checks that did not run are shown by name; --json has all."""

ETCD = "etcd"
"""The group of checks that depend most on where etcd runs."""

USUAL = 15.0
"""Seconds for all checks at the most where nothing is wrong and nothing is emulated; ten are usual."""

WATCH_INTERVAL = 5.0
"""Seconds between the end of one look and the begin of the next."""

EXPLAINED = "explained"
"""What `watch` remembers of a check that does not hold for a cause, which it has shown instead."""

COLOURS = {"holds": "green", "warns": "yellow", "fails": "red", "could-not-ask": "magenta"}


@dataclass(frozen=True)
class Outcome:
    """What came of a run: every check's verdict in the order of their groups, and how long all took.

    `causes` are what several checks that do not hold fail for.
    """

    lab: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    junit: Path
    causes: tuple[Cause, ...] = ()

    @property
    def green(self) -> bool:
        """Whether checks ran and all of them hold, or at most warn. What could not be asked is not green."""
        return bool(self.verdicts) and all(verdict.good for verdict in self.verdicts)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The titles of the checks that did not run, though they should have."""
        return tuple(verdict.title for verdict in self.verdicts if verdict.found == NOT_RUN)

    @property
    def summary(self) -> str:
        """One line about it all."""
        counts = {outcome: 0 for outcome in COLOURS}
        for verdict in self.verdicts:
            counts[verdict.outcome] += 1
        counts["could-not-ask"] -= len(self.not_run)
        words = [
            f"{len(self.not_run)} did not run" if self.not_run else "",
            f"{counts['fails']} fail" if counts["fails"] else "",
            f"{counts['could-not-ask']} could not be asked" if counts["could-not-ask"] else "",
            f"{counts['warns']} warn" if counts["warns"] else "",
        ]
        said = ", ".join(word for word in words if word) or "all hold"
        return f"verify: {len(self.verdicts)} checks, {said}, {self.seconds:.1f} s ({self.junit})"


def run(session: Session, *, select: str = "", junit: Path | None = None) -> Outcome:
    """Run the checks whose names match `select` (as pytest's -k) and return their verdicts.

    A check that should have run and did not has a verdict, too: that it could not be asked. Raises
    LabStateError when the lab was never brought up or its network is down, ConfigError when no check is
    selected.
    """
    collected = _Collector(_compiled(select))
    require_up(session)
    junit = (junit or session.workspace.root / "verify.xml").absolute()
    junit.unlink(missing_ok=True)  # what an earlier run found is no answer now
    started = time.monotonic()
    with environment.in_this_process():  # PYTEST_ADDOPTS and its like are for the user's own tests
        code = pytest.main(_words(session, junit), plugins=[collected])
    seconds = time.monotonic() - started
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and collected.found and not collected.wanted:
        raise ConfigError(
            [f"no check has a name that matches {select!r}"], hint="`./inv verify --json` lists them all"
        )
    if code == pytest.ExitCode.INTERRUPTED and not collected.trouble:
        raise KeyboardInterrupt  # pytest keeps it to itself
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise LabError(
            f"the checks could not be run: pytest ended with {int(code)}\n{collected.trouble}".rstrip(),
            hint=f"`{quoting.line([sys.executable, '-m', 'pytest', CHECKS, '--lab', session.path])}` has more",
        )
    found = (*collected.verdicts, *collected.missing(_required(session.lab)))
    known = causes.find(session.lab, collected.facts, collected.verdicts) if collected.facts else ()
    return Outcome(session.lab.name, found, seconds, junit, known)


def _words(session: Session, junit: Path) -> list[str]:
    """What pytest is asked to do. Which checks are wanted is not among it: `_Collector` selects them."""
    words = [str(CHECKS), "--rootdir", str(REPOSITORY), "-c", str(REPOSITORY / "pyproject.toml")]
    # No terminal, and no standard output: what was found comes back as verdicts.
    words += ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    # It would collect garbage ten times over, for exceptions in destructors, which no check is about.
    words += ["-p", "no:unraisableexception"]
    words += ["--capture", "no", "--junitxml", str(junit), "--lab", str(session.path)]
    return [*words, "--profile", session.lab.load_balancer.profile]


def _compiled(select: str) -> Expression | None:
    """The expression, as pytest's -k has it; None for all checks. Raises ConfigError for one that is none."""
    if not select.strip():
        return None
    try:
        return Expression.compile(select)
    except SyntaxError as error:
        raise ConfigError(
            [f"-k {quoting.word(select)}: {error.msg}, at character {error.offset}"],
            hint="combine names with `and`, `or`, `not` and parentheses, as in pytest's -k",
        ) from error


def _required(lab: Lab) -> list[Verdict]:
    """What there must be a verdict on in any case, as one that did not run."""
    found = [_not_run(plain_tests.ACCEPTANCE, *each) for each in plain_tests.listed(ACCEPTANCE, lab)]
    return found + [_not_run_case(case) for case in cases(lab)]


def _not_run(group: str, name: str, machine: str) -> Verdict:
    return Verdict(name, group, machine, "could-not-ask", "a verdict", NOT_RUN, LEFT_OUT, LOOK_FOR)


def _not_run_case(case: Case) -> Verdict:
    return _not_run(case.group, case.check.name, case.node.name if case.node else "")


class _Collector:
    """A pytest plugin that selects checks and keeps each one's verdict, and makes one for every other test.

    `found` is every test that pytest knows, `wanted` those of them that are selected, each by pytest's name for
    it, as one that did not run.
    """

    def __init__(self, select: Expression | None) -> None:
        """Begin with none."""
        self.select = select
        self.found: dict[str, Verdict] = {}
        self.wanted: dict[str, Verdict] = {}
        self.verdicts: list[Verdict] = []
        self.judged: set[str] = set()
        self.facts: Facts | None = None
        self.trouble = ""

    def missing(self, required: Sequence[Verdict]) -> list[Verdict]:
        """What should have run and did not: selected tests, and required ones that pytest did not find."""
        known = {verdict.title for verdict in self.found.values()}
        unknown = [verdict for verdict in required if verdict.title not in known]
        return unknown + [verdict for name, verdict in self.wanted.items() if name not in self.judged]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select tests before any other plugin can, so that what those leave out is missed."""
        for item in items:
            case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
            own = plain_tests.group(item), *plain_tests.name_and_machine(item)
            self.found[item.nodeid] = _not_run_case(case) if isinstance(case, Case) else _not_run(*own)
        if self.select is not None:
            select = self.select
            items[:] = [item for item in items if select.evaluate(KeywordMatcher.from_item(item))]
        self.wanted = {item.nodeid: self.found[item.nodeid] for item in items}

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
        else:
            return report
        self.judged.add(item.nodeid)
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the facts that were judged; none where no test needed them."""
        self.facts = session.config.stash.get(FACTS, None)

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
    known = [each.as_json for each in outcome.causes]
    return json.dumps(found | {"causes": known, "verdicts": verdicts}, indent=2)


def shown(outcome: Outcome) -> RenderableType:
    """Return the outcome for people: a line for each check, causes, and in full what no cause explains."""
    table = Table(box=None, pad_edge=False, show_header=False)
    ran = [verdict for verdict in outcome.verdicts if verdict.found != NOT_RUN]
    for group, verdicts in groupby(ran, key=lambda verdict: verdict.group):
        its = tuple(verdicts)
        table.add_row(Text(_heading(group, its[0].topology), "bold"), "", "")
        for name, each in groupby(its, key=lambda verdict: verdict.name):
            table.add_row(f"  {name}", *_line(tuple(each)))
    explained = causes.explained(outcome.causes)
    rest = [v for v in ran if v.outcome != "holds" and v.title not in explained]
    bad = [*map(_cause, outcome.causes), *map(_in_full, rest)]
    bad += [_missing_in_full(outcome)] if outcome.not_run else []
    notes = [Text(f"note: {note}\n") for note in dict.fromkeys(v.note for v in ran) if note]
    return Group(table, "", *bad, *notes, Text(outcome.summary, "bold green" if outcome.green else "bold red"))


def _heading(group: str, topology: str) -> str:
    """A group's name; of etcd's checks also where etcd runs in this lab."""
    return f"{group} ({topology})" if group == ETCD and topology else group


def _line(verdicts: tuple[Verdict, ...]) -> tuple[Text, str]:
    """One check of all its machines: the worst that was found, and where."""
    worst = max(verdicts, key=lambda verdict: tuple(COLOURS).index(verdict.outcome)).outcome
    good = [verdict.machine for verdict in verdicts if verdict.outcome == "holds"]
    where = " ".join(good) if worst == "holds" else ""
    if worst != "holds":
        where = " ".join(verdict.machine for verdict in verdicts if verdict.outcome != "holds")
    return Text(worst.replace("-", " "), COLOURS[worst]), where


def _missing_in_full(outcome: Outcome) -> RenderableType:
    """All checks that did not run, as one message: they have one cause."""
    titles = outcome.not_run
    more = f" and {len(titles) - FEW} more (--json has all)" if len(titles) > FEW else ""
    rows = (("missing", ", ".join(titles[:FEW]) + more), ("means", LEFT_OUT), ("try", LOOK_FOR))
    says = f"{len(titles)} {'check' if len(titles) == 1 else 'checks'} did not run"
    return Group(Text(says, COLOURS["could-not-ask"]), _rows(rows), "")


def _cause(cause: Cause) -> RenderableType:
    """One cause, above the checks: their own findings would only repeat it."""
    count = len(cause.explains)
    says = f"cause of {count} {'check that does' if count == 1 else 'checks that do'} not hold"
    so = "this check does" if count == 1 else f"these {count} checks do"
    rows = (("found", cause.sentence), ("so", f"{so} not hold: {cause.affected}"), ("try", cause.fix))
    return Group(Text(says, COLOURS["fails"]), _rows(rows), "")


def _in_full(verdict: Verdict) -> RenderableType:
    where = f" on {verdict.machine}" if verdict.machine else ""
    says = verdict.outcome.replace("-", " ")
    rows = (
        ("expected", verdict.expected),
        ("found", verdict.found),
        ("means", verdict.means),
        ("try", verdict.hint),
    )
    return Group(Text(f"{verdict.name}{where}: {says}", COLOURS[verdict.outcome]), _rows(rows), "")


def _rows(rows: Iterable[tuple[str, str]]) -> Table:
    lines = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 2))
    for label, text in rows:
        lines.add_row(Text(label, "dim"), Text(text))
    return lines


def watch(session: Session, *, select: str, say: Callable[[RenderableType], None]) -> None:
    """Repeat the checks, and report only what has changed since the last time. Ends with Ctrl-C."""
    before: dict[str, str] = {}
    known: set[str] = set()
    while True:
        found: tuple[Cause, ...] = ()
        try:
            with session.progress.asking("the facts for all checks", usual=USUAL):
                outcome = run(session, select=select)
            now, found = {verdict.title: verdict for verdict in outcome.verdicts}, outcome.causes
        except LabStateError as error:
            now = {"lab": Verdict("lab", "", "", "could-not-ask", "an answer", error.message, "", "")}
        stamp = time.strftime("%H:%M:%S")
        for cause in found:
            if cause.what not in known:
                say(
                    Text(f"{stamp}  ")
                    .append("cause", COLOURS["fails"])
                    .append(f"  {cause.sentence}; {cause.fix}")
                )
        known = {cause.what for cause in found}
        explained = causes.explained(found)
        for title, verdict in now.items():
            if before.get(title, "holds") != verdict.outcome and title not in explained:
                line = Text(f"{stamp}  ").append(verdict.outcome, COLOURS[verdict.outcome])
                say(line.append(f"  {title}: {verdict.found}"))
        if not before:
            bad = sum(verdict.outcome != "holds" for verdict in now.values())
            say(f"{stamp}  {len(now)} checks watched, {bad} do not hold; changes follow, Ctrl-C ends")
        before = {t: EXPLAINED if t in explained else verdict.outcome for t, verdict in now.items()}
        time.sleep(WATCH_INTERVAL)
