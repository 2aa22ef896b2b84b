"""Reads what ginkgo prints while the suite runs: which tests have ended and how, and which take long."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Ending = Literal["passed", "failed", "skipped"]

LONG = 5
"""Seconds after which ginkgo reports that a test runs; those that are over sooner are shown when they end."""

ENDED = re.compile(r"^S*(•|S)(?: \[([A-Z!]+)\])?(?: [A-Z #0-9]+)? \[([0-9.]+) seconds\]$")
"""The headline of a test that has ended; its name is on the next line. `S` is a test not chosen."""

RUNNING = re.compile(r"^\s+(\[sig-.*) \(Spec Runtime: ([0-9a-z.]+)\)$")
"""A line of a progress report: a test, and for how long it has run."""

DELIMITER = "-" * 30
LABELS = re.compile(r" \[[^][]*, [^][]*\]$")
"""The labels of a test, which ginkgo prints behind its name, and which are in the name as well."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ended:
    """One test that has ended."""

    name: str
    ending: Ending
    seconds: float


@dataclass
class Output:
    """What has been read so far. `running` are tests that are known to run, each with how long it has."""

    ended: list[Ended] = field(default_factory=list)
    running: dict[str, str] = field(default_factory=dict)
    _rest: str = ""
    _before: str = ""
    _headline: re.Match[str] | None = None
    _begun: str = ""
    _over: set[str] = field(default_factory=set)

    def read(self, text: str) -> list[Ended]:
        """Read what has been printed since; return the tests that have ended in it."""
        *lines, self._rest = (self._rest + text).split("\n")
        found = [ended for line in lines if (ended := self._line(COLOUR.sub("", line).rstrip()))]
        self.ended += found
        return found

    def count(self, ending: Ending) -> int:
        """How many tests have ended in that way."""
        return sum(each.ending == ending for each in self.ended)

    def _line(self, line: str) -> Ended | None:
        """Read one line. Several processes print a test's name after its headline, one process before."""
        before, self._before = self._before, line
        headline, self._headline = self._headline, None
        running = RUNNING.match(line)
        if running:
            # What is printed of a test that has ended repeats its reports.
            if running[1] not in self._over:
                self.running[running[1]] = running[2]
        elif line.startswith("[sig-"):
            name = LABELS.sub("", line)
            if headline is not None:
                return self._end(name, headline)
            if before == DELIMITER:
                self._begun, self.running[name] = name, "0s"
        elif (now := ENDED.match(line)) is not None:
            if self._begun:
                name, self._begun = self._begun, ""
                return self._end(name, now)
            self._headline = now
        return None

    def _end(self, name: str, headline: re.Match[str]) -> Ended:
        self.running.pop(name, None)
        self._over.add(name)
        return Ended(name, _ending(headline), float(headline[3]))


def _ending(headline: re.Match[str]) -> Ending:
    if headline[1] == "S":
        return "skipped"
    return "failed" if headline[2] else "passed"
