"""Quotes every command that is shown, so that it can be pasted whatever its arguments contain.

Some paths can't be quoted everywhere: `folder_problem` says which folders can't hold a lab.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path


def word(value: object) -> str:
    """Return one argument, quoted for a POSIX shell."""
    return shlex.quote(str(value))


def line(words: Iterable[object]) -> str:
    """Return a command as one line, quoted for a POSIX shell."""
    return shlex.join(str(each) for each in words)


def folder_problem(folder: Path) -> str | None:
    """Why a lab can't be in that folder; None where it can.

    A colon separates the files in KUBECONFIG (kubernetes.io, "Organizing Cluster Access Using kubeconfig
    Files") and the parts of docker's --volume. ssh_config(5) has no way to write a line break.
    """
    name = str(folder)
    if not name.isprintable():
        return f"the lab's folder {name!r} has a line break or another unprintable character in its path"
    if ":" in name:
        return f"the lab's folder {name} has a colon in its path, which separates the files in KUBECONFIG"
    return None
