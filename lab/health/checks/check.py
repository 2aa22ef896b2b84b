"""The form of a check: a question to the facts, and what its answer means for a user.

A check judges facts and asks nothing. It finds that something holds, fails or should be warned of; where the
facts it needs are not known it could not ask, which is neither a yes nor a no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from lab.health.facts.gather import Facts
from lab.health.facts.machine import Machine
from lab.model import Lab, Node
from lab.model.selectors import Selector
from lab.unknown import CouldNotAsk

T = TypeVar("T")
Outcome = Literal["holds", "warns", "fails", "could-not-ask"]


@dataclass(frozen=True)
class Finding:
    """What was expected, what was found, and what that amounts to."""

    expected: str
    found: str
    outcome: Outcome


@dataclass(frozen=True)
class LabCheck:
    """A check of the complete lab. `means` ends "When this fails, …"; `hint` says what to try.

    `probes` is whether it needs what pods see, which takes most of the time to ask.
    """

    name: str
    judge: Callable[[Lab, Facts], Finding]
    means: str
    hint: str
    probes: bool = False


@dataclass(frozen=True)
class MachineCheck:
    """A check of each machine that `on` names; the rest is as in LabCheck."""

    name: str
    on: Selector
    judge: Callable[[Lab, Facts, Node], Finding]
    means: str
    hint: str
    probes: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a check found. `machine` is "" for the lab as a whole."""

    name: str
    group: str
    machine: str
    outcome: Outcome
    expected: str
    found: str
    means: str
    hint: str

    @property
    def title(self) -> str:
        """The check and its machine, such as `node-ready[w1]`."""
        return f"{self.name}[{self.machine}]" if self.machine else self.name

    @property
    def good(self) -> bool:
        """Whether a user need not act now."""
        return self.outcome in ("holds", "warns")


@dataclass(frozen=True)
class Case:
    """One check of one machine, or of the lab, ready to be judged."""

    group: str
    check: LabCheck | MachineCheck
    lab: Lab
    node: Node | None = None

    def judge(self, facts: Facts) -> Verdict:
        """Judge the facts. What can't be read of them is CouldNotAsk; any other error is a fault of the kit."""
        try:
            finding = self._find(facts)
        except CouldNotAsk as error:
            finding = Finding("an answer", error.message, "could-not-ask")
        return Verdict(
            self.check.name,
            self.group,
            self.node.name if self.node else "",
            finding.outcome,
            finding.expected,
            finding.found,
            self.check.means,
            self.check.hint,
        )

    def _find(self, facts: Facts) -> Finding:
        if isinstance(self.check, LabCheck):
            return self.check.judge(self.lab, facts)
        assert self.node is not None
        return self.check.judge(self.lab, facts, self.node)


def holds(yes: bool) -> Outcome:
    """A yes holds, a no fails."""
    return "holds" if yes else "fails"


def expect(expected: object, found: object) -> Finding:
    """It holds when both are equal."""
    return Finding(shown(expected), shown(found), holds(expected == found))


def expect_none(expected: str, bad: Iterable[str]) -> Finding:
    """It holds when there is nothing bad; `expected` says so in words."""
    found = "; ".join(bad)
    return Finding(expected, found or expected, holds(not found))


def answers(
    facts: Facts, nodes: Iterable[Node], read: Callable[[Machine], T]
) -> tuple[dict[str, T], tuple[str, ...]]:
    """What each machine answers, by name, and why the others do not."""
    found: dict[str, T] = {}
    silent = []
    for node in nodes:
        try:
            found[node.name] = read(facts.machine(node))
        except CouldNotAsk as error:
            silent.append(error.message)
    return found, tuple(silent)


def only_if_all_answered(finding: Finding, silent: tuple[str, ...]) -> Finding:
    """A finding stands when it is bad already; it can't be good while a machine has not answered."""
    if finding.outcome == "holds" and silent:
        raise CouldNotAsk("; ".join(silent))
    return finding


def shown(value: object) -> str:
    """A value in a person's words: lists with commas, names with what they have."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(each)}" for name, each in value.items()) or "none"
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(shown(each) for each in value)) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value) or "none"
    return str(value) if value != "" else "nothing"
