"""Waits for a condition: checks until it holds; at the deadline, reports why it does not.

A check returns the reason why the condition does not hold yet, or None when it does. It raises an error where
waiting can't help.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lab.errors import WaitTimedOut
from lab.system import process

FIRST_NOTICE, NEXT_NOTICE = 4.5, 15.0
"""Seconds of waiting until the reason is logged, and between two such lines."""


class Clock(Protocol):
    """The clock that waiting needs; tests pass one that they control."""

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
    """Call `check` every `interval` seconds until it returns None, and return the seconds that took.

    Raises WaitTimedOut with the last reason after `timeout` seconds. `check` is called at least once, and once
    more at the deadline, so that a slow answer does not count as a failure. `log` gets a line before the first
    call, which may take long, one with the reason after FIRST_NOTICE seconds, and one every NEXT_NOTICE seconds
    after that, in the format of provision/lib.sh.
    """
    start = clock.monotonic()
    next_notice = FIRST_NOTICE
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
        if log is not None and waited >= next_notice:
            next_notice = waited + NEXT_NOTICE
            _note(log, f"waiting for {what} ({waited:.0f} s): {reason}")
        if asked - start >= timeout:
            raise WaitTimedOut(what, timeout, reason, hint=hint)
        clock.sleep(max(0.0, min(interval, start + timeout - clock.monotonic())))


def _note(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"[{time.strftime('%H:%M:%S')}] {' '.join(line.split())}\n")
