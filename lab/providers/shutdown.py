"""Shutting a virtual machine down: its power button first, and its power where that was not enough."""

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
    """Shut a running machine down; after `timeout` seconds, cut its power. Returns whether it was orderly.

    `press` presses its power button and `cut` takes its power away, by the hypervisor. They, and `state`, raise
    CommandFailed.
    """
    press()
    try:
        wait_until(
            lambda: None if state() in ("stopped", "absent") else "it still runs",
            what=f"{name} to shut down",
            timeout=timeout,
        )
    except WaitTimedOut:
        cut()
        return False
    return True
