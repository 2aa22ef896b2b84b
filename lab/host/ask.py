"""Runs one command that asks the host a question; a failure is Unknown, never an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lab.errors import CommandFailed
from lab.system import process
from lab.unknown import Unknown

PATIENCE = 5.0
"""Seconds for one command; the slowest, `vagrant --version`, takes about one on a slow disk."""

ENVIRONMENT = {
    "VAGRANT_CHECKPOINT_DISABLE": "1",  # no request to Vagrant's servers
}


def ask(
    argv: Sequence[str], accept: Collection[int] | None = (0,), timeout: float = PATIENCE
) -> process.Result | Unknown:
    """Run a command that changes nothing; Unknown if it is missing, times out or ends with another code."""
    try:
        return process.run(argv, accept=accept, timeout=timeout, env=ENVIRONMENT)
    except CommandFailed as error:
        return Unknown(" ".join(error.message.split()))
