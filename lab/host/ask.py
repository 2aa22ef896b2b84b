"""Asks the host one question by a command, and takes no failure for an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lab.errors import CommandFailed
from lab.system import process
from lab.unknown import Unknown

PATIENCE = 5.0
"""Seconds for one question; the slowest, `vagrant --version`, takes about one on a slow disk."""

ENVIRONMENT = {
    "VAGRANT_CHECKPOINT_DISABLE": "1",  # no call home
}


def ask(
    argv: Sequence[str], accept: Collection[int] | None = (0,), timeout: float = PATIENCE
) -> process.Result | Unknown:
    """Run a command that changes nothing; Unknown when it is missing, slow or ends with another code."""
    try:
        return process.run(argv, accept=accept, timeout=timeout, env=ENVIRONMENT)
    except CommandFailed as error:
        return Unknown(" ".join(error.message.split()))
