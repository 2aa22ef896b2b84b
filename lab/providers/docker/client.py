"""The one way to docker's client for what is done with images and machines: every command has a deadline.

A daemon that hangs, as on a full disk or a stuck storage driver, takes connections and answers nothing, so that
docker's client waits forever. What the doctor asks has deadlines of its own (`lab.host.docker`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lab.errors import CommandTimedOut
from lab.system import process

ASK_TIMEOUT = 20.0
"""Seconds for the answer to a question, such as whether an image is there; less than one is usual."""

CHANGE_TIMEOUT = 120.0
"""Seconds to start, remove or disconnect one thing; a few are usual, more when all machines go at once."""

NO_ANSWER = "`./inv doctor` shows whether docker's daemon answers, and how to start it again; then repeat this"


def run(
    *words: str | Path,
    timeout: float,
    accept: Collection[int] | None = (0,),
    log: Path | None = None,
    hint: str = "",
) -> process.Result:
    """Run docker's client. Raises CommandFailed, for a daemon that does not answer in time with what to do."""
    try:
        return process.run(["docker", *words], accept=accept, timeout=timeout, log=log, hint=hint)
    except CommandTimedOut as error:
        what = f"did not end within {timeout:.0f} s: docker's daemon does not answer, or is very slow"
        raise CommandTimedOut(error.argv, what, tail=error.tail, hint=NO_ANSWER, log=log) from error
