"""Wait for a condition: ask until it holds, and say why it does not when time is up.

A check returns the reason why the condition does not hold yet, or None when it does. It raises to give up
at once on a state from which nothing good can come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lab.errors import WaitTimedOut
from lab.system import process

FIRST_WORD, NEXT_WORD = 4.5, 15.0
"""Seconds of waiting after which its reason is written down, and between two such lines."""


class Clock(Protocol):
    """What a waiter needs of time; tests give one that does not pass by itself."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let that many seconds pass."""
        ...


def wait_until(
    check: Callable[[], str | None],
    *,
    what: str,
    timeout: float,
    interval: float = 0.5,
    hint: str = "",
    log: Path | None = None,
    clock: Clock = time,
) -> float:
    """Ask `check` every `interval` seconds until it returns None, and return the seconds that took.

    Raises WaitTimedOut with the last reason after `timeout` seconds. `check` is asked at least once,
    and once more at the deadline, so that a slow answer is not taken for a no. What it waits for is written to
    `log` before the first question, which may take long, with the reason after FIRST_WORD seconds, and every
    NEXT_WORD after that, in the words of provision/lib.sh.
    """
    start = clock.monotonic()
    next_word = FIRST_WORD
    if log is not None:
        _note(log, f"waiting for {what}")
    while True:
        process.raise_if_interrupted(what)
        asked = clock.monotonic()
        reason = check()
        if reason is None:
            return clock.monotonic() - start
        assert reason, f"{what}: an empty reason says neither that it holds nor why it does not"
        waited = clock.monotonic() - start
        if log is not None and waited >= next_word:
            next_word = waited + NEXT_WORD
            _note(log, f"waiting for {what} ({waited:.0f} s): {reason}")
        if asked - start >= timeout:
            raise WaitTimedOut(what, timeout, reason, hint=hint)
        clock.sleep(max(0.0, min(interval, start + timeout - clock.monotonic())))


def _note(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"[{time.strftime('%H:%M:%S')}] {' '.join(line.split())}\n")
