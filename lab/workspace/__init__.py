"""Where everything is in `.lab/`, its lock, and writing files completely or not at all.

.lab/
  Vagrantfile  ssh_config  nodes/NAME/      rendered from the model; `vagrant up` works here
  secrets/                                  0700: keys, token, certificate key; never in `logs`
  kubeconfig                                0600: its server is the load balancer
  lab.json                                  what was made: the lab as last applied, its machines, its label
  merged.json                               the user's kubeconfigs that this lab was merged into
  drill/  drills/DATE-NAME/                 what a failure drill still has to undo; reports of drills
  conformance/DATE/                         log, JUnit file and failures of each run of the conformance suite
  tasks.json                                how often each of the handouts' tasks was asked
  logs/NN-step.log  report.json  bom.json   what happened, what went in
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
"""Seconds within which a process that only asks who has the lab has let go of it."""


class Workspace:
    """The `.lab/` folder beside one lab.yaml."""

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is made until something is written."""
        self.root = root.absolute()

    @property
    def vagrantfile(self) -> Path:
        """The rendered Vagrantfile."""
        return self.root / "Vagrantfile"

    @property
    def ssh_config(self) -> Path:
        """OpenSSH's way to every machine."""
        return self.root / "ssh_config"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def merged(self) -> Path:
        """The user's kubeconfigs that this lab was merged into, as JSON; missing where there are none."""
        return self.root / "merged.json"

    @property
    def secrets(self) -> Path:
        """The folder of everything that no other user may read."""
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
        """How long steps took when they last had something to do, as JSON."""
        return self.root / "durations.json"

    @property
    def drill(self) -> Path:
        """What a failure drill has changed and has not changed back yet; empty or missing when nothing."""
        return self.root / "drill"

    @property
    def tasks(self) -> Path:
        """How often each task was asked since it was last done, as JSON; missing while none was."""
        return self.root / "tasks.json"

    @property
    def identity(self) -> Path:
        """What was made here (`lab.workspace.made` reads and writes it)."""
        return self.root / "lab.json"

    def node(self, name: str) -> Path:
        """The folder of what one machine is given."""
        return self.root / "nodes" / name

    def exists(self) -> bool:
        """Whether anything was ever rendered here."""
        return self.identity.exists()

    def write(self, path: Path, text: str | bytes, *, mode: int = 0o644) -> bool:
        """Write `text` to `path` completely or not at all; False when the file had it already.

        The mode holds from the first byte on. Raises LabStateError when the folder can't be written.
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
                hint=_way_out(error, folder),
            ) from error
        return True

    def write_secret(self, path: Path, text: str) -> bool:
        """Put a secret where only its owner can read it."""
        return self.write(path, text, mode=PRIVATE_FILE)

    def shut_secrets(self) -> None:
        """Give what is in the folder of secrets back to its owner alone, as after a copy that let others in."""
        for path in [self.secrets, *self.secrets.rglob("*")]:
            if path.exists() and not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else PRIVATE_FILE)

    def has_machines(self) -> bool:
        """Whether a machine was ever made here that was not removed. Asks Vagrant's files, in no time."""
        return any((self.root / ".vagrant" / "machines").glob("*/*/id"))

    def forget_nodes_but(self, names: Collection[str]) -> None:
        """Remove what was rendered for machines that the lab has no longer."""
        for folder in (self.root / "nodes", self.secrets):
            for path in folder.iterdir() if folder.exists() else ():
                if path.is_dir() and path.name not in names:
                    shutil.rmtree(path)

    def rotate_logs(self) -> None:
        """Set the last run's logs aside (one generation is kept), so that numbers start again."""
        if not self.logs.exists():
            return
        previous = self.root / "logs.previous"
        shutil.rmtree(previous, ignore_errors=True)
        self.logs.rename(previous)

    def remove(self) -> None:
        """Remove the folder with all that is in it; for the end of `destroy`.

        The record is last, so that a removal that was interrupted can be repeated.
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
        """Which process holds the lab now, in words; None for none, or where that can't be known."""
        try:
            handle = os.open(self.root / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if _taken(handle, fcntl.LOCK_SH) else _owner(handle)
        except OSError:
            return None
        finally:
            os.close(handle)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lab for one run. The kernel lets go when the process dies, however it dies."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LabStateError(
                f"{self.root} can't be used: {error.strerror}",
                hint=_way_out(error, self.root),
            ) from error
        try:
            # `in_use_by` of another process holds it for an instant.
            if not _taken(handle, fcntl.LOCK_EX):
                time.sleep(INSTANT)
                if not _taken(handle, fcntl.LOCK_EX):
                    raise LabStateError(
                        f"this lab is in use by {_owner(handle)}",
                        hint="wait for it to end, or end that process, and try again",
                    )
            with contextlib.suppress(OSError):  # for another run's message; a full disk may refuse
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()}".encode(), 0)
            yield
        finally:
            os.close(handle)


def _taken(handle: int, kind: int) -> bool:
    """Take a lock of that kind, unless another process has one that excludes it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(handle: int) -> str:
    """What the process that holds a lock wrote into it."""
    return os.pread(handle, 64, 0).decode().strip() or "another process"


def _way_out(error: OSError, folder: Path) -> str:
    """What to do where a file in this folder can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space where {folder} is (`./inv bake --prune`), then repeat the command"
    return f"make {folder} yours and writable (`ls -ld {quoting.word(folder)}`)"
