"""What could not be asked, as distinct from what was answered: never taken for a yes, nor for a no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be asked for; `reason` is a phrase such as "cp2: no answer within 15 s".

    `answered` is whether there was an answer all the same, only none that can be used.
    """

    reason: str
    answered: bool = False


class CouldNotAsk(LabError):
    """A fact is needed that is `Unknown`, or that can't be read; the message is the reason."""


def known(fact: T | Unknown) -> T:
    """Return the fact itself. Raises CouldNotAsk when it is not known."""
    if isinstance(fact, Unknown):
        raise CouldNotAsk(fact.reason)
    return fact


def asked(question: Callable[[], T]) -> T | Unknown:
    """Return what a question answers, or why it could not be asked: the message of its LabError."""
    try:
        return question()
    except LabError as error:
        return Unknown(error.message)
