"""This room tells what was answered from what could not be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be asked for; `why` is a phrase such as "cp2: no answer within 15 s".

    `answered` is whether something was said all the same, only nothing that can be used.
    """

    why: str
    answered: bool = False


class CouldNotAsk(LabError):
    """Somebody needs a fact that is `Unknown`; the message is why."""


def known(fact: T | Unknown) -> T:
    """Return the fact itself. Raises CouldNotAsk when it is not known."""
    if isinstance(fact, Unknown):
        raise CouldNotAsk(fact.why)
    return fact
