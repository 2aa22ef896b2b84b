"""Parses the answers of a running lab. An answer that can't be parsed is CouldNotAsk: neither a yes nor a no.

A reader takes one answer apart with the functions below, which check types, so that a fact has the types that
its record names. Errors of such a reader are caught here and nowhere else: a KeyError or a TypeError in a check
is a fault of the kit, and is shown as one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from lab.system.redact import redacted
from lab.unknown import CouldNotAsk

Answer = TypeVar("Answer")
Fact = TypeVar("Fact")

EXCERPT = 80
"""How many characters of an answer an error quotes."""

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error)
"""What Python, json, csv and cryptography raise of an answer that has another form than was expected."""


def read(what: str, answer: Answer, reader: Callable[[Answer], Fact], *, quoted: bool = True) -> Fact:
    """Return what `reader` makes of an answer.

    Raises CouldNotAsk, with `what` ("cp1's answer to etcd-status") and how the answer begins, unless it may
    hold secrets and is not to be `quoted`.
    """
    try:
        return reader(answer)
    except UNREADABLE as error:
        begins = f": {_excerpt(answer)}" if quoted else ""
        raise CouldNotAsk(
            f"{what} can't be read ({type(error).__name__}){begins}",
            hint="`./inv logs` collects what a report of it needs",
        ) from (error if quoted else None)


def _excerpt(answer: object) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer, default=str)
    words = " ".join(redacted(text[: 2**16]).split())
    return f"{words[:EXCERPT]}…" if len(words) > EXCERPT else words or "it is empty"


def text(value: object) -> str:
    """The value, which is to be a string. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"no string but {type(value).__name__}")
    return value


def server_in(kubeconfig: str) -> str:
    """The API server that a kubeconfig's text names first, whether it is quoted there or not; else ""."""
    lines = (line.strip() for line in kubeconfig.splitlines())
    return next((line.split()[1].strip("\"'") for line in lines if line.startswith("server: ")), "")


def number(value: object) -> int:
    """The value, which is to be a whole number. Raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"no whole number but {type(value).__name__}")
    return value


def mapping(value: object) -> dict[str, Any]:
    """The value, which is to be a JSON object. Raises TypeError."""
    if not isinstance(value, dict):
        raise TypeError(f"no object but {type(value).__name__}")
    return value


def listed(value: object) -> list[Any]:
    """The value, which is to be a JSON array. Raises TypeError."""
    if not isinstance(value, list):
        raise TypeError(f"no array but {type(value).__name__}")
    return value


def moment(value: object) -> datetime:
    """The value, which is to be a time in RFC 3339 with its offset. Raises TypeError or ValueError."""
    found = datetime.fromisoformat(text(value))
    if found.tzinfo is None:
        raise ValueError("a time without an offset")
    return found
