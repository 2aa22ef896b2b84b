"""This room is the only one that imports python-vagrant, and the only way to Vagrant's own verbs.

python-vagrant discards what Vagrant prints and dies on its error lines (docs/decisions). Its two places
that start a process are replaced by our own door, so that exit codes count and every word is logged.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import vagrant

from lab.errors import CommandFailed
from lab.providers.explained import raise_explained
from lab.system import process
from lab.system.wait import wait_until
from lab.workspace import Workspace

BOOT_TIMEOUT = 900.0
"""Seconds for `vagrant up` of all machines where nothing is emulated; 24 s were measured for seven."""

ATTEMPTS = 3
"""How often `vagrant up` is tried where it fails for what passes."""

ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",  # python-vagrant and we read Vagrant's words
    "VAGRANT_CHECKPOINT_DISABLE": "1",  # no call home
    "VAGRANT_NO_COLOR": "1",
}

_HINT = "read the log; `./inv doctor` looks at the host, `./inv up` goes on from where it stopped"


class LoggedVagrant(vagrant.Vagrant):  # type: ignore[misc]  # it has no types
    """python-vagrant's verbs over `lab.system.process`."""

    def __init__(self, workspace: Workspace, log: Path, *, timeout: float = BOOT_TIMEOUT, **extra: str) -> None:
        """Work in the workspace; write all that Vagrant says to `log`."""
        super().__init__(root=str(workspace.root))
        self._log = log
        self._timeout = timeout
        self._extra = ENVIRONMENT | extra

    def destroy(self, vm_name: str | None = None, *, at_once: bool = True) -> None:
        """Remove machines; all at once, which python-vagrant has no word for, or one by one."""
        self._call_vagrant_command(
            ["destroy", vm_name, "--force", "--parallel" if at_once else "--no-parallel"]
        )

    def _call_vagrant_command(self, args: list[Any]) -> None:
        self._start(args, log=self._log)

    def _run_vagrant_command(self, args: list[Any]) -> str:
        return self._start(args, log=None).stdout

    def _start(self, args: list[Any], log: Path | None) -> process.Result:
        words = ["vagrant", *(str(arg) for arg in args if arg is not None)]
        return process.run(
            words, cwd=Path(self.root), env=self._extra, log=log, timeout=self._timeout, hint=_HINT
        )


def up(
    workspace: Workspace, log: Path, *, provider: str, timeout: float = BOOT_TIMEOUT, passing: Collection[str]
) -> None:
    """Make and start every machine that is not running, without provisioning.

    `passing` are words of failures that pass: after one of them it is tried again. Raises LabStateError where
    what was said has a meaning for the lab, else CommandFailed.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            machines = LoggedVagrant(workspace, log, timeout=timeout, HA_LAB_BOOT_ONLY="1")
            machines.up(provision=False, provider=provider)
            return
        except CommandFailed as error:
            said = log.read_text(encoding="utf-8", errors="replace")
            if attempt == ATTEMPTS or not any(words in said for words in passing):
                raise_explained(error, said, log)
                raise


def known(workspace: Workspace) -> bool:
    """Whether this workspace ever made a machine that it has not removed."""
    return workspace.has_machines()


def ids(workspace: Workspace) -> set[str]:
    """What the provider calls the machines that Vagrant knows here."""
    return {p.read_text().strip() for p in (workspace.root / ".vagrant" / "machines").glob("*/*/id")}


def remember(workspace: Workspace, name: str, provider: str, mark: str) -> None:
    """Tell Vagrant again what the provider calls a machine."""
    workspace.write(workspace.root / ".vagrant" / "machines" / name / provider / "id", mark)


def states(workspace: Workspace, log: Path) -> dict[str, str]:
    """Ask Vagrant for every machine's state: name → `running`, `stopped`, `not_created`… Takes seconds."""
    found = LoggedVagrant(workspace, log).status()
    return {status.name: status.state for status in found}


def wait_for_earlier(workspace: Workspace) -> None:
    """A run that was killed leaves its Vagrant running, and a machine can have one Vagrant only."""
    wait_until(
        lambda: _other_vagrant(workspace),
        what="an earlier run's Vagrant ends",
        timeout=BOOT_TIMEOUT,
        hint="end that process and try again",
    )


def _other_vagrant(workspace: Workspace) -> str | None:
    """Which Vagrant runs in this folder now; None when none does."""
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            if (process_folder / "cwd").resolve() != workspace.root:
                continue
            if b"vagrant" in (process_folder / "cmdline").read_bytes():
                return f"process {process_folder.name} is running on these machines"
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return None
