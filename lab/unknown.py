"""Facts that could not be determined. "Unknown" never counts as a yes or a no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be determined; `reason` is a phrase such as "cp2: no answer within 15 s".

    `answered`: there was an answer, but it can't be used.
    """

    reason: str
    answered: bool = False


class CouldNotAsk(LabError):
    """A needed fact is `Unknown` or can't be parsed; the message is the reason."""


def known(fact: T | Unknown) -> T:
    """Return the fact. Raises CouldNotAsk when it is Unknown."""
    if isinstance(fact, Unknown):
        raise CouldNotAsk(fact.reason)
    return fact


def asked(question: Callable[[], T]) -> T | Unknown:
    """Call `question`; return its result, or Unknown with the message of the LabError that it raised."""
    try:
        return question()
    except LabError as error:
        return Unknown(error.message)
