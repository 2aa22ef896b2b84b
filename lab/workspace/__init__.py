"""The `.lab/` folder: where each file is, the lock, and atomic writes.

.lab/
  Vagrantfile  ssh_config  nodes/NAME/      rendered from the model; `vagrant up` works here
  secrets/                                  0700: keys, token, certificate key; never in `logs`
  kubeconfig                                0600: its server is the load balancer
  lab.json                                  what was created: the lab as last applied, its machines, its label
  checkpoints/NAME/                         0700: the record and secrets of each checkpoint, without machines
  merged.json                               the user's kubeconfigs that this lab was merged into
  drill/  drills/DATE-NAME/                 the fault that a drill has yet to revert; reports of drills
  conformance/DATE/                         log, JUnit file and failures of each run of the conformance suite
  backups/DATE.tar                          backups without a name of their own
  recovery.json                             a recovery that is incomplete
  tasks.json                                how often each task of the handout was checked
  logs/NN-step.log  report.json  bom.json   the last run; the golden machine's contents
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabStateError
from lab.system import quoting

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700

INSTANT = 0.05
"""Seconds within which a process that only checks whether the lab is locked releases the lock."""


class Workspace:
    """The `.lab/` folder beside one lab.yaml."""

    def __init__(self, root: Path) -> None:
        """Remember the folder; it is created when something is first written."""
        self.root = root.absolute()

    @property
    def vagrantfile(self) -> Path:
        """The rendered Vagrantfile."""
        return self.root / "Vagrantfile"

    @property
    def ssh_config(self) -> Path:
        """OpenSSH's configuration for every machine."""
        return self.root / "ssh_config"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def merged(self) -> Path:
        """The user's kubeconfigs that this lab was merged into, as JSON; missing if there are none."""
        return self.root / "merged.json"

    @property
    def secrets(self) -> Path:
        """The folder for everything that no other user may read."""
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        """The numbered logs of the last run."""
        return self.root / "logs"

    @property
    def report(self) -> Path:
        """The last run's report, as JSON."""
        return self.root / "report.json"

    @property
    def durations(self) -> Path:
        """How long steps took when they last changed something, as JSON."""
        return self.root / "durations.json"

    @property
    def drill(self) -> Path:
        """What a failure drill has changed and not reverted yet; empty or missing if nothing."""
        return self.root / "drill"

    @property
    def checkpoints(self) -> Path:
        """What belongs to each checkpoint besides the machines (`lab.workspace.checkpoints`)."""
        return self.root / "checkpoints"

    @property
    def backups(self) -> Path:
        """The folder for backups without a name of their own; missing if there are none."""
        return self.root / "backups"

    @property
    def recovery(self) -> Path:
        """The record of an incomplete recovery (`lab.workspace.recovery`); missing if there is none."""
        return self.root / "recovery.json"

    @property
    def tasks(self) -> Path:
        """How often each task was checked since it was last done, as JSON; missing until one was."""
        return self.root / "tasks.json"

    @property
    def identity(self) -> Path:
        """The record of what was created (`lab.workspace.made` reads and writes it)."""
        return self.root / "lab.json"

    @property
    def payloads(self) -> Path:
        """What machines take of another Kubernetes version, while an upgrade is under way."""
        return self.root / "payloads"

    def node(self, name: str) -> Path:
        """The folder with one machine's files."""
        return self.root / "nodes" / name

    def exists(self) -> bool:
        """Whether the lab was ever rendered here."""
        return self.identity.exists()

    def write(self, path: Path, text: str | bytes, *, mode: int = 0o644) -> bool:
        """Write `text` to `path` atomically; False when the file had that content already.

        The file has `mode` from the beginning. Raises LabStateError when the folder can't be written.
        """
        content = text.encode() if isinstance(text, str) else text
        try:
            private = self.secrets in path.parents
            path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER if private else 0o755)
            if path.exists() and path.read_bytes() == content:
                path.chmod(mode)
                return False
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    os.fchmod(file.fileno(), mode)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            folder = self.root if self.root in path.parents else path.parent
            raise LabStateError(
                f"{path} can't be written: {error.strerror}",
                hint=_write_hint(error, folder),
            ) from error
        return True

    def write_secret(self, path: Path, text: str) -> bool:
        """Write a secret so that only its owner can read it."""
        return self.write(path, text, mode=PRIVATE_FILE)

    def restrict_secrets(self) -> None:
        """Restrict the secrets to their owner, for example after a copy that lost the modes."""
        for path in [self.secrets, *self.secrets.rglob("*")]:
            if path.exists() and not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else PRIVATE_FILE)

    def has_machines(self) -> bool:
        """Whether a machine was created here and not removed. Reads Vagrant's files only, so it is fast."""
        return any((self.root / ".vagrant" / "machines").glob("*/*/id"))

    def remove_other_nodes(self, names: Collection[str]) -> None:
        """Remove the files of machines that are no longer in the lab."""
        for folder in (self.root / "nodes", self.secrets):
            for path in folder.iterdir() if folder.exists() else ():
                if path.is_dir() and path.name not in names:
                    shutil.rmtree(path)

    def rotate_logs(self) -> None:
        """Move the last run's logs to logs.previous (one generation), so that numbers restart."""
        if not self.logs.exists():
            return
        previous = self.root / "logs.previous"
        shutil.rmtree(previous, ignore_errors=True)
        self.logs.rename(previous)

    def remove(self) -> None:
        """Remove the folder with all its contents; the last step of `destroy`.

        The record is removed last, so that an interrupted removal can be repeated.
        """
        for path in self.root.iterdir():
            if path == self.identity:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.rmtree(self.root)

    def in_use_by(self) -> str | None:
        """Which process has locked the lab, as a phrase; None if there is none, or that can't be determined."""
        try:
            handle = os.open(self.root / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if _try_lock(handle, fcntl.LOCK_SH) else _owner(handle)
        except OSError:
            return None
        finally:
            os.close(handle)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the lab for one run. The kernel releases the lock when the process ends in any way."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LabStateError(
                f"{self.root} can't be used: {error.strerror}",
                hint=_write_hint(error, self.root),
            ) from error
        try:
            # `in_use_by` in another process locks it for a moment.
            if not _try_lock(handle, fcntl.LOCK_EX):
                time.sleep(INSTANT)
                if not _try_lock(handle, fcntl.LOCK_EX):
                    raise LabStateError(
                        f"this lab is in use by {_owner(handle)}",
                        hint="wait until it ends, or end that process, then try again",
                    )
            with contextlib.suppress(OSError):  # only for another run's message; a full disk may refuse it
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()}".encode(), 0)
            yield
        finally:
            os.close(handle)


def _try_lock(handle: int, kind: int) -> bool:
    """Try to take a lock of that kind; False if another process has a conflicting one."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(handle: int) -> str:
    """The process that holds a lock, from the lock file."""
    return os.pread(handle, 64, 0).decode().strip() or "another process"


def _write_hint(error: OSError, folder: Path) -> str:
    """What to do when a file in this folder can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space where {folder} is (`./inv bake --prune`), then repeat the command"
    return f"make {folder} writable for you (`ls -ld {quoting.word(folder)}`)"
