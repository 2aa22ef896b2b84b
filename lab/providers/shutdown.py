"""Shuts a virtual machine down: presses its power button, then cuts its power if that was not enough."""

from __future__ import annotations

from collections.abc import Callable

from lab.errors import WaitTimedOut
from lab.providers.protocol import MachineState
from lab.system.wait import wait_until


def shut_down(
    name: str,
    timeout: float,
    *,
    press: Callable[[], object],
    state: Callable[[], MachineState],
    cut: Callable[[], object],
) -> bool:
    """Shut a running machine down; cut its power after `timeout` seconds. Returns whether it was orderly.

    `press` presses its power button and `cut` cuts its power. They and `state` can raise CommandFailed.
    """
    press()
    try:
        wait_until(
            lambda: None if state() in ("stopped", "absent") else "it is still running",
            what=f"{name} to shut down",
            timeout=timeout,
        )
    except WaitTimedOut:
        cut()
        return False
    return True
