"""This room carries out what `--yes` consented to: each command is announced, and logged, as it runs.

Nothing runs here that its finding did not show; not as root, through sudo.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.doctor.finding import Action, Finding
from lab.doctor.tools import DAEMON_LOG, LOCK_TIMEOUT
from lab.errors import CommandFailed, HostNotFit, WaitTimedOut
from lab.system import process
from lab.system.progress import Progress
from lab.system.wait import wait_until

SILENT = "it failed without a message"
INSTALL_TIMEOUT = 1800.0
"""Seconds for one apt command, on a slow mirror."""

DAEMON_TIMEOUT = 30.0
"""Seconds for the daemon to answer after a start; two are usual."""


def mend(findings: Sequence[Finding], progress: Progress) -> None:
    """Run what the mendable findings say, in order. Raises HostNotFit before anything when it can't."""
    mendable = [finding for finding in findings if finding.verdict == "mendable"]
    if mendable:
        _require_root(mendable)
    for finding in mendable:
        if finding.check == "docker-daemon":
            _start_daemon(finding.actions, progress)
        elif finding.check == "libvirtd":
            _start_libvirt(finding.actions, progress)
        else:
            for action in finding.actions:
                _run(finding.check, action, progress)


def _require_root(mendable: Sequence[Finding]) -> None:
    """Make sure that root can be had; sudo asks for the password once, before anything is done."""
    if os.geteuid() == 0:
        return
    commands = "\n".join(finding.mend for finding in mendable)
    if shutil.which("sudo") is None:
        raise HostNotFit("this needs root, and there is no sudo", hint=f"as root, run:\n{commands}")
    if not process.run(["sudo", "--validate"], accept=None, timeout=120).ok:
        raise HostNotFit("sudo does not let you be root", hint=f"as root, run:\n{commands}")


def _run(name: str, action: Action, progress: Progress) -> None:
    words = process.as_root(*action.argv, online=True)
    with progress.step(name, shlex.join(words)) as step:
        wait_until(
            lambda: _run_unless_locked(words, action.stdin, step.log),
            what="apt's lock",
            timeout=LOCK_TIMEOUT,
            interval=3,
            hint="another apt or dpkg works on this host: let it end, and run this again",
        )


def _run_unless_locked(words: list[str], stdin: str, log: Path) -> str | None:
    """Run the command; the reason to wait where apt's lists are locked, which its own option misses."""
    try:
        process.run(
            words,
            stdin=stdin or None,
            log=log,
            timeout=INSTALL_TIMEOUT,
            hint="the log has it all; run that command by hand, then this again",
        )
    except CommandFailed as error:
        if "Could not get lock /var/lib/apt/lists" not in error.tail:
            raise
        return "another apt holds it"
    return None


def _start_daemon(actions: Sequence[Action], progress: Progress) -> None:
    """Start the daemon in the first way that makes it answer."""
    if not _docker_problem():
        return  # its package has started it
    last = "there is no way to start it"
    for action in actions:
        words = process.as_root(*action.argv)
        with progress.step("docker-daemon", shlex.join(words)) as step:
            if not process.run(words, accept=None, log=step.log, timeout=60).ok:
                step.note = "did not work"
                last = "it failed at once"
                continue
            try:
                wait_until(_docker_problem, what="docker's daemon answers", timeout=DAEMON_TIMEOUT)
                return
            except WaitTimedOut as error:
                step.note, last = "no answer", error.reason
    raise HostNotFit(
        f"docker's daemon does not start: {last}",
        hint=f"its log says why: tail {DAEMON_LOG}",
        log=Path(DAEMON_LOG),
    )


def _start_libvirt(actions: Sequence[Action], progress: Progress) -> None:
    """Start libvirt's daemons, all of them, unless its packages have done so."""
    if not _libvirt_problem():
        return
    for action in actions:
        words = process.as_root(*action.argv)
        with progress.step("libvirtd", shlex.join(words)) as step:
            # One that runs already says so by failing; whether libvirt answers is what counts.
            process.run(words, accept=None, log=step.log, timeout=60)
    wait_until(
        _libvirt_problem,
        what="libvirt's daemon answers",
        timeout=DAEMON_TIMEOUT,
        hint="`journalctl -u libvirtd`, or /var/log/libvirt where no systemd runs, says why not",
    )


def _libvirt_problem() -> str | None:
    """Why libvirt does not answer yet; one that refuses this user runs all the same."""
    try:
        words = ["virsh", "--connect", "qemu:///system", "version"]
        said = process.run(words, accept=None, timeout=10)
    except CommandFailed as error:
        return error.message
    return None if said.ok or "denied" in said.stderr else said.stderr.strip() or SILENT


def _docker_problem() -> str | None:
    """Why the daemon does not answer yet; one that refuses this user runs all the same."""
    try:
        said = process.run(["docker", "version", "--format", "{{.Server.Version}}"], accept=None, timeout=10)
    except CommandFailed as error:
        return error.message
    return None if said.ok or "permission denied" in said.stderr else said.stderr.strip() or SILENT
