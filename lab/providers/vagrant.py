"""Vagrant's commands, and its records of machines. Only this module imports python-vagrant.

python-vagrant discards Vagrant's output and fails on its error lines (docs/decisions). The two methods that
start a process are replaced by `lab.system.process`, so that exit codes count and all output is logged.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import vagrant

from lab.errors import CommandFailed
from lab.providers.explained import raise_explained
from lab.system import process
from lab.system.wait import wait_until
from lab.workspace import Workspace

BOOT_TIMEOUT = 900.0
"""Seconds for `vagrant up` of all machines without emulation; 24 s were measured for seven."""

ATTEMPTS = 3
"""How often `vagrant up` is tried if it fails with a transient error."""

ENVIRONMENT = {
    "VAGRANT_CHECKPOINT_DISABLE": "1",  # no request to Vagrant's servers
    "VAGRANT_NO_COLOR": "1",
}

_HINT = "read the log; `./inv doctor` checks the host, `./inv up` continues where it stopped"


class LoggedVagrant(vagrant.Vagrant):  # type: ignore[misc]  # it has no types
    """python-vagrant's commands, run with `lab.system.process`."""

    def __init__(self, workspace: Workspace, log: Path, *, timeout: float = BOOT_TIMEOUT, **extra: str) -> None:
        """Work in the workspace; write all output of Vagrant to `log`."""
        super().__init__(root=str(workspace.root))
        self._log = log
        self._timeout = timeout
        self._extra = ENVIRONMENT | extra

    def up(self, names: Sequence[str] = (), *, provider: str) -> None:
        """Create and start machines, without provisioning: those named, or all; python-vagrant takes one."""
        self._call_vagrant_command(["up", *names, "--no-provision", f"--provider={provider}"])

    def destroy(self, vm_name: str | None = None, *, at_once: bool = True) -> None:
        """Remove machines, in parallel, which python-vagrant has no option for, or one by one."""
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
    workspace: Workspace,
    log: Path,
    *,
    provider: str,
    names: Sequence[str] | None = None,
    timeout: float = BOOT_TIMEOUT,
    transient: Collection[str],
) -> None:
    """Create and start machines that don't run, without provisioning: those named, or all.

    Retries after an error that contains one of `transient`. Raises LabStateError if `explained` knows what
    Vagrant printed, otherwise CommandFailed.
    """
    if names is not None and not names:
        return  # without names Vagrant would start all machines
    for attempt in range(1, ATTEMPTS + 1):
        try:
            machines = LoggedVagrant(workspace, log, timeout=timeout, HA_LAB_BOOT_ONLY="1")
            machines.up(names=names or (), provider=provider)
            return
        except CommandFailed as error:
            said = log.read_text(encoding="utf-8", errors="replace")
            if attempt == ATTEMPTS or not any(words in said for words in transient):
                raise_explained(error, said, log)
                raise


def destroy(workspace: Workspace, log: Path) -> list[CommandFailed]:
    """Remove the machines that Vagrant knows, and the network after the last; return the failures.

    One by one, since parallel threads of vagrant-libvirt sometimes race. Vagrant stops at the first machine
    that it can't remove; then the others are removed with a command each.
    """
    if not workspace.vagrantfile.exists() or not known(workspace):
        return []
    machines = LoggedVagrant(workspace, log)
    try:
        machines.destroy(at_once=False)
        return []
    except CommandFailed as error:
        left = sorted(ids_by_name(workspace))
        refused = [] if left else [error]
    for name in left:
        try:
            machines.destroy(name, at_once=False)
        except CommandFailed as error:
            refused.append(error)
    return refused


def known(workspace: Workspace) -> bool:
    """Whether this workspace has created a machine and not removed it."""
    return workspace.has_machines()


def ids(workspace: Workspace) -> set[str]:
    """The provider's ids of the machines that Vagrant knows here."""
    return set(ids_by_name(workspace).values())


def ids_by_name(workspace: Workspace) -> dict[str, str]:
    """The machines that Vagrant knows here: name in lab.yaml → the provider's id."""
    found = _memory(workspace).glob("*/*/id")
    return {path.parent.parent.name: path.read_text().strip() for path in found}


def remember(workspace: Workspace, name: str, provider: str, mark: str) -> None:
    """Record a machine's provider id for Vagrant again."""
    workspace.write(_memory(workspace) / name / provider / "id", mark)


def forget(workspace: Workspace, name: str) -> None:
    """Remove Vagrant's record of a machine that no longer exists; there may be none."""
    shutil.rmtree(_memory(workspace) / name, ignore_errors=True)


def _memory(workspace: Workspace) -> Path:
    return workspace.root / ".vagrant" / "machines"


def wait_for_earlier(workspace: Workspace, log: Path) -> None:
    """Wait for the Vagrant of a killed run to end: only one Vagrant can work on a machine."""
    wait_until(
        lambda: _other_vagrant(workspace),
        what="an earlier run's Vagrant to end",
        timeout=BOOT_TIMEOUT,
        log=log,
        hint="end that process, then try again",
    )


def _other_vagrant(workspace: Workspace) -> str | None:
    """The Vagrant process that runs in this folder, or None."""
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            if (process_folder / "cwd").resolve() != workspace.root:
                continue
            if b"vagrant" in (process_folder / "cmdline").read_bytes():
                return f"process {process_folder.name} is working on these machines"
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return None
