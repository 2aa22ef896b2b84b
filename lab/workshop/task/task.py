"""The shape of a task: parts, each of which finds what is missing or wrong, and hints.

A part judges facts and asks nothing itself. The parts of a task are judged in order, up to the first that finds
something: people who work manually do one thing after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lab.health.checks import cases
from lab.health.facts.gather import Facts
from lab.model import Lab
from lab.model.selectors import Selector
from lab.unknown import CouldNotAsk
from lab.workshop.task.kept import Kept

State = Literal["done", "not yet", "broken"]


@dataclass(frozen=True)
class Sight:
    """What a task is judged by: the lab as declared, what it answered, and what this host keeps about it."""

    lab: Lab
    facts: Facts
    kept: Kept


@dataclass(frozen=True)
class Found:
    """One reason why a task is not done: something is missing ("not yet") or wrong ("broken").

    `machine` is "" for the lab itself; `hint` says what to try, "" if the task's own hints do.
    """

    state: State
    machine: str
    expected: str
    found: str
    hint: str = ""


Part = Callable[[Sight], Iterable[Found]]


@dataclass(frozen=True)
class Checks:
    """A part: verify's checks `names`, on the machines `on` (None: all); `failed` is the state if one fails."""

    names: tuple[str, ...]
    on: Selector | None = None
    failed: State = "broken"
    hint: str = ""

    def __call__(self, sight: Sight) -> Iterator[Found]:
        """Judge them."""
        for case in cases(sight.lab):
            selected = self.on is None or case.node is None or case.node in self.on(sight.lab)
            if case.check.name in self.names and selected:
                verdict = case.judge(sight.facts)
                if not verdict.good:
                    hint = self.hint or verdict.hint
                    yield Found(self.failed, verdict.machine, verdict.expected, verdict.found, hint)


@dataclass(frozen=True)
class Asks:
    """What has to be asked for a task: these answers (empty: all) from those machines, and the API."""

    machines: Selector = lambda lab: ()
    answers: tuple[str, ...] = ()
    api: bool = False


@dataclass(frozen=True)
class Task:
    """The result of a chapter. Each check shows one more of `hints`; {first} and {balancer} are filled in.

    `asks` is None if this host's own files are enough. `before` are parts that need only these, so that nobody
    waits for a machine that a drill has stopped.
    """

    number: int
    name: str
    title: str
    parts: tuple[Part, ...]
    hints: tuple[str, ...]
    asks: Asks | None = None
    before: tuple[Part, ...] = ()

    def barred(self, sight: Sight) -> tuple[Found, ...]:
        """Why it is not done, as far as this host's own files show."""
        return _first(self.before, sight)

    def judge(self, sight: Sight) -> tuple[Found, ...]:
        """Why it is not done, from the first part that finds something; empty if it is done."""
        try:
            return _first((*self.before, *self.parts), sight)
        except CouldNotAsk as error:
            hint = error.hint or "`./inv status` shows which machines answer, and whether the API does"
            return (Found("broken", "", "an answer", error.message, hint),)


def _first(parts: Iterable[Part], sight: Sight) -> tuple[Found, ...]:
    return next(filter(None, (tuple(part(sight)) for part in parts)), ())


def state(found: Iterable[Found]) -> State:
    """The state that findings add up to: broken if any is."""
    states = {each.state for each in found}
    return "broken" if "broken" in states else "not yet" if states else "done"
