"""The form of a task: parts, each of which finds what is missing or wrong, and hints.

A part judges what was seen and asks nothing. The parts of a task are judged in order, up to the first that
finds something: people who work manually do one thing after the other.
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
    """What a task is judged by: the lab as declared, what it answered, and what this host keeps of it."""

    lab: Lab
    facts: Facts
    kept: Kept


@dataclass(frozen=True)
class Found:
    """One thing that keeps a task from being done: missing ("not yet") or wrong ("broken").

    `machine` is "" for the lab as a whole; `hint` says what to try, "" where the task's own hints do.
    """

    state: State
    machine: str
    expected: str
    found: str
    hint: str = ""


Part = Callable[[Sight], Iterable[Found]]


@dataclass(frozen=True)
class Checks:
    """A part: verify's checks of these names, of those machines (None: of all); `failed` where one fails."""

    names: tuple[str, ...]
    on: Selector | None = None
    failed: State = "broken"
    hint: str = ""

    def __call__(self, sight: Sight) -> Iterator[Found]:
        """Judge them."""
        for case in cases(sight.lab):
            meant = self.on is None or case.node is None or case.node in self.on(sight.lab)
            if case.check.name in self.names and meant:
                verdict = case.judge(sight.facts)
                if not verdict.good:
                    hint = self.hint or verdict.hint
                    yield Found(self.failed, verdict.machine, verdict.expected, verdict.found, hint)


@dataclass(frozen=True)
class Asks:
    """What has to be asked for a task: these answers (none named: all) of those machines, and the API."""

    machines: Selector = lambda lab: ()
    answers: tuple[str, ...] = ()
    api: bool = False


@dataclass(frozen=True)
class Task:
    """What a chapter leaves behind. `hints` come one more each time; {first} and the like are filled in.

    `asks` is None where this host's own files say it all; `before` are parts that need nothing else, so that
    no one waits for a machine that a drill has stopped.
    """

    number: int
    name: str
    title: str
    parts: tuple[Part, ...]
    hints: tuple[str, ...]
    asks: Asks | None = None
    before: tuple[Part, ...] = ()

    def barred(self, sight: Sight) -> tuple[Found, ...]:
        """What keeps it from being done before anybody is asked."""
        return _first(self.before, sight)

    def judge(self, sight: Sight) -> tuple[Found, ...]:
        """What keeps it from being done, of the first part that finds something; nothing when it is done."""
        try:
            return _first((*self.before, *self.parts), sight)
        except CouldNotAsk as error:
            hint = error.hint or "`./inv status` says which machines answer, and whether the API does"
            return (Found("broken", "", "an answer", error.message, hint),)


def _first(parts: Iterable[Part], sight: Sight) -> tuple[Found, ...]:
    return next(filter(None, (tuple(part(sight)) for part in parts)), ())


def state(found: Iterable[Found]) -> State:
    """What it amounts to: broken when anything is."""
    states = {each.state for each in found}
    return "broken" if "broken" in states else "not yet" if states else "done"
