"""Runs docker's client for images and machines, always with a deadline.

A daemon that hangs, for example with a full disk or a stuck storage driver, accepts connections and does not
respond, so that docker's client waits forever. The doctor's questions have deadlines of their own
(`lab.host.docker`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lab.errors import CommandTimedOut
from lab.system import process

ASK_TIMEOUT = 20.0
"""Seconds for a question, such as whether an image exists; less than one is usual."""

CHANGE_TIMEOUT = 120.0
"""Seconds to start, remove or disconnect one object; a few are usual, more for all machines at once."""

NO_SUCH = "no such"
"""Part of docker's error for a missing object; lower case, since versions differ."""

NO_ANSWER = (
    "`./inv doctor` shows whether docker's daemon responds, and how to restart it; then repeat this command"
)


def run(
    *words: str | Path,
    timeout: float,
    stdin: str | None = None,
    accept: Collection[int] | None = (0,),
    log: Path | None = None,
    output: Path | None = None,
    gently: bool = False,
    hint: str = "",
) -> process.Result:
    """Run docker's client; `output` and `gently` as for `process.run`.

    Raises CommandFailed; after a timeout, with what to do about the daemon.
    """
    try:
        return process.run(
            ["docker", *words],
            stdin=stdin,
            accept=accept,
            timeout=timeout,
            log=log,
            output=output,
            gently=gently,
            hint=hint,
        )
    except CommandTimedOut as error:
        what = f"did not end within {timeout:.0f} s: docker's daemon does not respond, or is very slow"
        raise CommandTimedOut(error.argv, what, tail=error.tail, hint=NO_ANSWER, log=log) from error
