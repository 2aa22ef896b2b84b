"""The errors that the kit raises on purpose. The message says what happened, `hint` says what to do next.

    LabError                 exit 1
    ├── ConfigError          exit 2   lab.yaml or a command's arguments are wrong
    ├── HostNotFit           exit 3   this host lacks something; nothing was touched
    ├── CommandFailed        exit 1   a command failed or could not start
    │   └── CommandTimedOut           it did not end before its deadline
    ├── WaitTimedOut         exit 1   a condition did not come true before its deadline
    ├── NodeFailed           exit 1   a step failed on one or more machines
    └── LabStateError        exit 1   the lab is not in a state where this can be done

Only `tasks.py` turns one into a message and an exit code. `lab.exit_codes` has all of them, including those of
verbs that answer a question by their exit code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import exit_codes
from lab.system import quoting


class LabError(Exception):
    """Something went wrong that the user can act on."""

    exit_code = exit_codes.FAILED

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        """Keep `message` (one sentence or a short list), `hint` (what to do) and the full log's path."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log


class ConfigError(LabError):
    """lab.yaml or a command line is invalid; `problems` has every reason, not only the first."""

    exit_code = exit_codes.USAGE

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        """Keep all `problems`, each already naming its file, line and key."""
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class HostNotFit(LabError):
    """This host can't run the lab in its present state; the message lists everything that is missing."""

    exit_code = exit_codes.NOT_FIT


class CommandFailed(LabError):
    """A command was not found, timed out, or ended with an exit code that was not accepted."""

    def __init__(
        self,
        argv: Sequence[str],
        what: str,
        *,
        tail: str = "",
        hint: str = "",
        log: Path | None = None,
        returncode: int | None = None,
    ) -> None:
        """`what` is the sentence ("ended with exit code 1"), `tail` the last lines it printed."""
        message = f"`{quoting.line(argv)}` {what}"
        if tail:
            message += "\n" + "\n".join(f"    {line}" for line in tail.splitlines())
        super().__init__(message, hint=hint, log=log)
        self.argv = tuple(argv)
        self.tail = tail
        self.returncode = returncode


class CommandTimedOut(CommandFailed):
    """A command did not end before its deadline and was killed."""


class WaitTimedOut(LabError):
    """A condition did not hold before its deadline; `reason` is why it did not at the last check."""

    def __init__(self, what: str, seconds: float, reason: str, *, hint: str = "") -> None:
        """Name what was waited for, for how long, and why it did not happen."""
        super().__init__(f"{what}: not after {seconds:.0f} s: {reason}", hint=hint)
        self.reason = reason


class NodeFailed(LabError):
    """A step failed on some machines; `failures` keeps each machine's own error."""

    def __init__(self, step: str, failures: Mapping[str, LabError]) -> None:
        """Join the machines' messages; the first failure gives the hint and the log. All are its causes."""
        lines = [f"{step} failed on {node}: {error.message}" for node, error in failures.items()]
        first = next(iter(failures.values()))
        super().__init__("\n".join(lines), hint=first.hint, log=first.log)
        self.failures = dict(failures)
        self.__cause__ = ExceptionGroup(step, list(failures.values()))


class LabStateError(LabError):
    """The lab, or something on the host that carries its name, is not in the state this needs."""
