"""Runs the repairs of `--yes`: each command is shown and logged as it runs.

Runs only commands that a finding has shown; uses sudo unless root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandFailed, HostNotFit
from lab.host.doctor.finding import Action, Finding
from lab.host.doctor.tools import LOCK_TIMEOUT
from lab.system import process, quoting
from lab.system.progress import Progress
from lab.system.wait import wait_until

SILENT = "it failed without a message"
"""The reason if a command gives none."""

INSTALL_TIMEOUT = 1800.0
"""Seconds for one apt command with a slow mirror."""

DAEMON_TIMEOUT = 30.0
"""Seconds until a started daemon responds; two are usual."""


def repair(findings: Sequence[Finding], progress: Progress) -> None:
    """Run the actions of the repairable findings, in order. Raises HostNotFit first if it can't become root."""
    repairable = [finding for finding in findings if finding.verdict == "repairable"]
    if repairable:
        _require_root(repairable)
    for finding in repairable:
        if finding.runs:
            finding.runs(finding.actions, progress)
        else:
            for action in finding.actions:
                _run(finding.check, action, progress)


def _require_root(repairable: Sequence[Finding]) -> None:
    """Make sure that this user can become root; sudo asks for the password once, before the first action."""
    if os.geteuid() == 0:
        return
    commands = "\n".join(finding.repair for finding in repairable)
    if shutil.which("sudo") is None:
        raise HostNotFit("this needs root, and there is no sudo", hint=f"as root, run:\n{commands}")
    if not process.run(["sudo", "--validate"], accept=None, timeout=120).ok:
        raise HostNotFit("sudo does not let you become root", hint=f"as root, run:\n{commands}")


def _run(name: str, action: Action, progress: Progress) -> None:
    words = process.as_root(*action.argv, online=True)
    with progress.step(name, quoting.line(words)) as step:
        wait_until(
            lambda: _run_unless_locked(words, action.stdin, step.log),
            what="apt's lock",
            timeout=LOCK_TIMEOUT,
            interval=3,
            log=step.log,
            hint="another apt or dpkg is running: wait until it ends, then repeat this command",
        )


def _run_unless_locked(words: list[str], stdin: str, log: Path) -> str | None:
    """Run the command; return why to wait if apt's lists are locked, which its own option does not cover."""
    try:
        process.run(
            words,
            stdin=stdin or None,
            log=log,
            timeout=INSTALL_TIMEOUT,
            hint="read the log; run that command yourself, then repeat this one",
        )
    except CommandFailed as error:
        if "Could not get lock /var/lib/apt/lists" not in error.tail:
            raise
        return "another apt has locked it"
    return None
