"""Wait for a condition: ask until it holds, and say why it does not when time is up.

A check returns the reason why the condition does not hold yet, or None when it does. It raises to give up
at once on a state from which nothing good can come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from lab.errors import WaitTimedOut
from lab.system import process


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
    clock: Clock = time,
) -> float:
    """Ask `check` every `interval` seconds until it returns None, and return the seconds that took.

    Raises WaitTimedOut with the last reason after `timeout` seconds. `check` is asked at least once,
    and once more at the deadline, so that a slow answer is not taken for a no.
    """
    start = clock.monotonic()
    while True:
        process.raise_if_interrupted(what)
        asked = clock.monotonic()
        reason = check()
        if reason is None:
            return clock.monotonic() - start
        assert reason, f"{what}: an empty reason says neither that it holds nor why it does not"
        if asked - start >= timeout:
            raise WaitTimedOut(what, timeout, reason, hint=hint)
        clock.sleep(max(0.0, min(interval, start + timeout - clock.monotonic())))
