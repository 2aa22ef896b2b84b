"""Every command that is shown is quoted here, so that it can be pasted whatever is in its words.

What quoting can't help with is refused early: `folder_problem` says which folders can't hold a lab.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path


def word(value: object) -> str:
    """Return one word of a command line as a POSIX shell reads it."""
    return shlex.quote(str(value))


def line(words: Iterable[object]) -> str:
    """Return a command of several words as one line."""
    return shlex.join(str(each) for each in words)


def folder_problem(folder: Path) -> str | None:
    """Why a lab can't be in that folder; None where it can.

    KUBECONFIG is a list whose parts a colon divides (kubernetes.io, "Organizing Cluster Access Using kubeconfig
    Files"), as are the words of docker's --volume. ssh_config(5) has no way to write a line's end.
    """
    name = str(folder)
    if not name.isprintable():
        return f"the lab's folder {name!r} has a line break or another unprintable character in its path"
    if ":" in name:
        return f"the lab's folder {name} has a colon in its path, which separates the files in KUBECONFIG"
    return None
