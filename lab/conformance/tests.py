"""The tests that make up conformance, as the suite itself lists them; and those that a run carries out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.errors import ConfigError, LabError

HERE = Path(__file__).resolve().parent
QUICK, UNABLE = HERE / "quick.yaml", HERE / "unable.yaml"

SERIAL_OR_SLOW = "they are serial or slow: `--serial` runs them"
NOT_QUICK = "they are not among those of `--quick`"
NOT_SERIAL = "they are neither serial nor slow: a run without `--serial` has them"
NO_MATCH = "their names do not match --focus"
ENDED_BEFORE = "the suite ended before"


@dataclass(frozen=True)
class E2eTest:
    """One test by the name that the suite gives it: `[sig-network] DNS should … [Conformance]`."""

    name: str

    @property
    def area(self) -> str:
        """The group of Kubernetes that owns it, such as `sig-network`."""
        found = re.match(r"\[(sig-[a-z-]+)\]", self.name)
        return found[1] if found else "other"

    @property
    def plain(self) -> str:
        """Its name without tags, such as [NodeConformance]: these change from version to version."""
        return re.sub(r" \[[A-Z][^]]*\]", "", self.name)

    @property
    def is_extra(self) -> bool:
        """Whether it must run alone, or takes minutes: only `--serial` runs such tests."""
        return "[Serial]" in self.name or "[Slow]" in self.name


@dataclass(frozen=True)
class Request:
    """What was typed. At most one of them is set; with none, every test that is not serial or slow."""

    quick: bool = False
    serial: bool = False
    focus: str = ""

    @property
    def title(self) -> str:
        """The run in a few words."""
        if self.quick:
            return "--quick"
        if self.serial:
            return "--serial"
        return f"--focus {self.focus}" if self.focus else "all that are not serial or slow"


@dataclass(frozen=True)
class Selection:
    """The tests to run, and every other one of the conformance tests with the reason why it is not run."""

    run: tuple[E2eTest, ...]
    not_run: Mapping[E2eTest, str]

    @property
    def total(self) -> int:
        """How many tests conformance has."""
        return len(self.run) + len(self.not_run)

    @property
    def focus(self) -> str:
        """The regular expression that selects exactly these tests, for ginkgo."""
        return rf"^Kubernetes e2e suite (?:{'|'.join(_go_quoted(test.name) for test in self.run)})$"


def names_of(listed: str) -> tuple[str, ...]:
    """The names in what `e2e.test --list-conformance-tests` prints. Raises LabError for anything else."""
    try:
        names = {str(each["codename"]) for each in yaml.safe_load(listed)}
    except (yaml.YAMLError, LookupError, TypeError) as error:
        raise LabError("the suite's list of conformance tests can't be read", hint=_REPORT) from error
    if not names:
        raise LabError("the suite lists no conformance tests", hint=_REPORT)
    return tuple(sorted(names))


def read(file: Path) -> tuple[E2eTest, ...]:
    """Read a file of names, one a line."""
    return tuple(E2eTest(line) for line in file.read_text(encoding="utf-8").splitlines() if line)


def quick(file: Path = QUICK) -> frozenset[str]:
    """The plain names of the tests of `--quick`."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))
    return frozenset(name for group in groups for name in group["tests"])


def unable(file: Path = UNABLE) -> dict[str, str]:
    """The plain names of the tests that can't pass in a lab, each with the reason."""
    return {each["test"]: each["why"] for each in yaml.safe_load(file.read_text(encoding="utf-8"))}


def require_one_way(wish: Request) -> None:
    """Raise ConfigError, with every problem, where what was typed can't be carried out for any lab."""
    problems = []
    given = [
        name
        for name, value in (("--quick", wish.quick), ("--serial", wish.serial), ("--focus", wish.focus))
        if value
    ]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} select different tests: choose one")
    try:
        re.compile(wish.focus)
    except re.error as error:
        problems.append(f"--focus {wish.focus}: {error}")
    if problems:
        raise ConfigError(
            problems, hint="`./inv --help conformance` explains each; --focus takes a regular expression"
        )


def select(
    tests: Sequence[E2eTest], wish: Request, of_quick: frozenset[str], cant: Mapping[str, str]
) -> Selection:
    """Choose the tests of a run. Raises ConfigError where none is left."""
    run, not_run = [], {}
    for test in tests:
        reason = _why_not_selected(test, wish, of_quick) or cant.get(test.plain)
        if reason:
            not_run[test] = reason
        else:
            run.append(test)
    if not run:
        selected = [test for test in tests if not _why_not_selected(test, wish, of_quick)]
        if selected:
            why = "; ".join(sorted({not_run[test] for test in selected}))
            raise ConfigError(
                [f"{wish.title} matches only tests that can't be run in a lab: {why}"], hint="choose others"
            )
        raise ConfigError(
            [f"{wish.title} matches none of the {len(tests)} conformance tests"],
            hint="names begin with their area, and case matters: `[sig-network] DNS should provide DNS for …`",
        )
    return Selection(tuple(run), not_run)


def _why_not_selected(test: E2eTest, wish: Request, of_quick: frozenset[str]) -> str | None:
    if wish.focus:
        return None if re.search(wish.focus, test.name) else NO_MATCH
    if wish.serial:
        return None if test.is_extra else NOT_SERIAL
    if test.is_extra:
        return SERIAL_OR_SLOW
    return NOT_QUICK if wish.quick and test.plain not in of_quick else None


def _go_quoted(name: str) -> str:
    """A name as a regular expression of Go's: every letter that means something there is escaped."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", name)


_REPORT = "it is not what this version of the kit knows: report it"
