"""A line as you type it after `./inv`, run in this process: an interpreter for each would take a second."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from invoke.main import program

from lab.system import process
from lab.system.paths import REPOSITORY

Ran = subprocess.CompletedProcess[str]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def typed(folder: Path, *words: str, **environment: str) -> Ran:
    """Type a line in that folder, which is the home folder's parent and whose `bin` is first on PATH."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    argv = ["invoke", "--search-root", str(REPOSITORY), *words]
    known = {"PATH": path, "HOME": str(folder / "home"), **environment}
    return run_as_main(lambda: program.run(argv), argv, cwd=folder, environment=known)


def run_as_main(
    main: Callable[[], None], argv: list[str], *, cwd: Path, environment: Mapping[str, str], user: bool = True
) -> Ran:
    """Run `main` as if it were this process's program; return its exit code and what it printed.

    Standard input is empty, and nothing is a terminal. With `user=False`, the system does not know the user.
    What a program may change of its process is as it was afterwards.
    """
    output, errors = _Printed(), _Printed()
    with (
        pytest.MonkeyPatch.context() as patch,
        _kept_signals(),
        _kept_environment(),
        Path(os.devnull).open() as nothing,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.chdir(cwd)
        os.environ.update({"COLUMNS": "80", "LINES": "25", **environment})
        patch.setattr(sys, "argv", argv)
        patch.setattr(sys, "stdin", nothing)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.delitem(sys.modules, "tasks", raising=False)
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(process, "_stopped", threading.Event())
        if not user:
            patch.setattr(pwd, "getpwuid", _no_user)
        code = _exit_code(main)
    return Ran(argv, code, output.text(), errors.text())


class _Printed(io.TextIOWrapper):
    """A stream that is no terminal, and what was printed to it."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()


def _exit_code(main: Callable[[], None]) -> int:
    """The code that a process which does this would end with."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _kept_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _no_user(uid: int) -> pwd.struct_passwd:
    raise KeyError(uid)
