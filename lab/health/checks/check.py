"""The form of a check: a question to the facts, and what a failure means for a user.

A check judges facts and asks nothing. It holds, warns or fails; if the facts that it needs are unknown it could
not ask, which counts as neither.
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
    """What was expected, what was found, and the outcome.

    `note` is what a user should know of the lab although nothing is wrong.
    """

    expected: str
    found: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class LabCheck:
    """A check of the complete lab. `means` ends "When this fails, …"; `hint` says what to try.

    `probes`: it needs facts from test pods, which take most of the time. A check of an `addon` is
    only for labs that ask for it, one of the `pair` only for labs with two load balancers, one of an `external`
    etcd only where that has machines of its own.
    """

    name: str
    judge: Callable[[Lab, Facts], Finding]
    means: str
    hint: str
    probes: bool = False
    addon: str = ""
    pair: bool = False
    external: bool = False


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
    """The result of a check, as in Finding. `machine` is "" for a check of the lab.

    `topology` is where etcd runs in that lab, in kubeadm's word; "" if the check has no lab.
    """

    name: str
    group: str
    machine: str
    outcome: Outcome
    expected: str
    found: str
    means: str
    hint: str
    note: str = ""
    topology: str = ""

    @property
    def title(self) -> str:
        """The check and its machine, such as `node-ready[w1]`."""
        return f"{self.name}[{self.machine}]" if self.machine else self.name

    @property
    def good(self) -> bool:
        """Whether it needs no action now."""
        return self.outcome in ("holds", "warns")


@dataclass(frozen=True)
class Case:
    """One check of one machine, or of the lab, ready to be judged."""

    group: str
    check: LabCheck | MachineCheck
    lab: Lab
    node: Node | None = None

    def judge(self, facts: Facts) -> Verdict:
        """Judge the facts. Facts that can't be parsed raise CouldNotAsk; any other error is a bug."""
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
            finding.note,
            self.lab.topology,
        )

    def _find(self, facts: Facts) -> Finding:
        if isinstance(self.check, LabCheck):
            return self.check.judge(self.lab, facts)
        assert self.node is not None
        return self.check.judge(self.lab, facts, self.node)


def holds(yes: bool) -> Outcome:
    """True holds, False fails."""
    return "holds" if yes else "fails"


def expect(expected: object, found: object) -> Finding:
    """Holds if both are equal."""
    return Finding(shown(expected), shown(found), holds(expected == found))


def expect_none(expected: str, bad: Iterable[str]) -> Finding:
    """Holds if `bad` is empty; `expected` describes that."""
    found = "; ".join(bad)
    return Finding(expected, found or expected, holds(not found))


def answers(
    facts: Facts, nodes: Iterable[Node], read: Callable[[Machine], T]
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Each machine's answer, by name, and why the others gave none."""
    found: dict[str, T] = {}
    silent = []
    for node in nodes:
        try:
            found[node.name] = read(facts.machine(node))
        except CouldNotAsk as error:
            silent.append(error.message)
    return found, tuple(silent)


def only_if_all_answered(finding: Finding, silent: tuple[str, ...]) -> Finding:
    """The finding if it is bad; a good one needs answers from all machines."""
    if finding.outcome == "holds" and silent:
        raise CouldNotAsk("; ".join(silent))
    return finding


def shown(value: object) -> str:
    """A value formatted for messages: lists with commas, mappings as `name: value`."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(each)}" for name, each in value.items()) or "none"
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(shown(each) for each in value)) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value) or "none"
    return str(value) if value != "" else "nothing"
