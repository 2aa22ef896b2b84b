"""Keeps finished files under their final names, and unfinished ones where no other process uses them.

A file or folder gets its name by one rename, when all of it is on disk. An unfinished one is beside it as
`NAME.partial`, for the next try.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lab.errors import LabError
from lab.system import quoting
from lab.system.progress import Progress
from lab.system.wait import wait_until

LONGEST_BUILD = 3600.0
"""Seconds to wait for another run that makes something on the same shelf."""


def keep(final: Path, make: Callable[[Path], Path], progress: Progress | None = None) -> Path:
    """Return the folder `final`; what is missing, `make` makes below the `.partial` folder it is given.

    `make` returns the folder that is to be renamed. One maker at a time: another run waits for it, and says so
    in its `progress`.
    Raises LabError, also when the disk is full or the place can't be written.
    """
    if final.exists():
        return final
    partial = final.with_name(f"{final.name}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with alone(final.parent, progress):
            if not final.exists():
                partial.mkdir(exist_ok=True)
                whole = make(partial)
                # A rename can reach the disk before the bytes do; a power cut between would show.
                os.sync()
                whole.rename(final)
                shutil.rmtree(partial, ignore_errors=True)
    except BrokenPipeError:
        raise  # the reader of our own output went away: not the shelf's trouble
    except OSError as error:
        raise LabError(
            f"{final} could not be made: {error.strerror} ({error.filename})", hint=_hint(error, final)
        ) from error
    return final


@contextmanager
def alone(folder: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold the shelf, after another run that does. The kernel lets go when the process dies, in any way."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with progress.asking(f"another run that makes something in {folder}") if progress else nullcontext():
            wait_until(
                lambda: _why_not_locked(handle), what=f"make something in {folder}", timeout=LONGEST_BUILD
            )
        yield
    finally:
        os.close(handle)


def _why_not_locked(handle: int) -> str | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another run is making something there"
    return None


def _hint(error: OSError, final: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space where {final.parent} is; finished parts are kept"
    return f"make {final.parent} writable for you (`ls -ld {quoting.word(final.parent)}`)"
