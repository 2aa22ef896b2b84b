"""Runs the project's own tests and linters, all of them, and fails if any of them fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.session import Session
from lab.system import environment, process
from lab.system.paths import REPOSITORY
from lab.verbs import bake

QUICK = ("tests/unit", "-m", "not slow")
"""The fast tests: most of the unit tests, in about a third of the time of all."""
NEEDS_NO_LAB = ("tests/supply", "tests/browser", "tests/provision", "tests/unit")
"""The folders with the longest files first, so that those start first."""
SIDE_BY_SIDE = (
    # Twice as many processes as cores, since some tests only wait.
    *("--numprocesses", str(2 * (os.cpu_count() or 1))),
    # Tests that need no lab share nothing between files.
    *("--dist", "loadfile"),
    # Otherwise files with few tests start last, and some of those take longest.
    "--no-loadscope-reorder",
)
"""Options for pytest-xdist."""
IN_MEMORY = Path("/dev/shm")  # noqa: S108  shared memory: pytest creates a folder there that others can't read
"""Temporary files of tests that need no lab, if it exists: on a disk they take a fifth longer."""
NEEDS_LABS = ("tests/labs", "tests/walk")
LONGEST = ("tests/golden",)
"""Suites on labs that only run with --whole."""
BREAKING = {
    "sabotage": "tests/breaking/test_sabotage.py",
    "drills": "tests/breaking/test_drills.py",
    "lifecycle": "tests/lifecycle",
}
"""Suites that break or change a lab, 10 to 15 minutes each. Those in one folder share a lab."""
OTHER_SHAPES = ("tests/pair", "tests/external")
"""With --whole, the sabotages and drills of two load balancers and of external etcd, on labs of their own."""
TIMES = ("--durations", "15")
"""Options that make pytest list the slowest tests."""
VIRTUAL = "tests/vm"
"""Suites on virtual machines, emulated if there is no KVM."""


def run(
    session: Session, *, consent: bool, live: bool, breaking: Sequence[str], whole: bool, select: str
) -> int:
    """Run the tests; return 0 only if all ran and passed. Live ones bake, and bring up labs for themselves.

    With any of BREAKING, only those; with `whole`, also the slowest tests.
    """
    bake.make_fit(session, {"up", "bake", "lint", "test"}, consent=consent)
    also = ["--whole"] if whole else []
    if breaking:
        bake.bake(session, consent=consent)
        words = [*TIMES, *also]
        folders: dict[str, list[str]] = {}
        for suite in breaking:
            folder = "/".join(BREAKING[suite].split("/")[:2])
            folders.setdefault(folder, []).append(BREAKING[suite])
        if whole and {"sabotage", "drills"} & set(breaking):
            folders |= {folder: [folder] for folder in OTHER_SHAPES}
        return max(_pytest(*suites, *words, select=select) for suites in folders.values())
    code = _without_labs(*NEEDS_NO_LAB, *also, select=select)
    if live and not code:
        bake.bake(session, consent=consent)
        # The tests of one lab depend on one another.
        words = [*TIMES, "--exitfirst", *also, *(LONGEST if whole else [])]
        code = _pytest(*NEEDS_LABS, *words, select=select)
    return code


def run_quick(*, select: str) -> int:
    """Run the fast unit tests; return 0 only if all passed. Changes nothing on the host."""
    return _without_labs(*QUICK, select=select)


def run_virtual(session: Session, *, whole: bool, select: str) -> int:
    """Run the tests on virtual machines, whose golden disk exists; return 0 only if all passed.

    With `whole`, also a lab of three emulated machines, or of five with KVM, which takes up to an hour.
    """
    words = ["--disk", str(bake.golden_disk(session)), "--durations", "0", *(["--whole"] if whole else [])]
    return _pytest(VIRTUAL, *words, select=select)


def _without_labs(*words: str, select: str) -> int:
    folders = {"PYTEST_DEBUG_TEMPROOT": str(IN_MEMORY)} if os.access(IN_MEMORY, os.W_OK) else {}
    return _pytest(*words, *SIDE_BY_SIDE, select=select, **folders)


def _pytest(*words: str, select: str, **env: str) -> int:
    return _on_the_terminal(
        [sys.executable, "-m", "pytest", *words, *(["-k", select] if select else [])], **env
    )


def _on_the_terminal(words: Sequence[str], **also: str) -> int:
    env = environment.chosen(environment.TESTS) | also
    return process.run(words, cwd=REPOSITORY, env=env, accept=None, terminal=True).returncode


def lint(session: Session, *, consent: bool) -> int:
    """Run every linter, even after one has failed; return 0 only if all pass."""
    bake.make_fit(session, {"lint"}, consent=consent)
    code = 0
    for words in commands():
        session.progress.say(f"$ {' '.join(words[:6])}{' …' if len(words) > 6 else ''}")
        code = _on_the_terminal(words) or code
    return 1 if code else 0


def commands() -> list[list[str]]:
    """The linters' commands: ruff twice, mypy, and shellcheck and shfmt for every shell script."""
    tools = os.path.dirname(sys.executable)
    scripts = shell_scripts()
    return [
        [f"{tools}/ruff", "check", "."],
        [f"{tools}/ruff", "format", "--check", "."],
        [f"{tools}/mypy"],
        ["shellcheck", "--external-sources", *scripts],
        ["shfmt", "--diff", *scripts],
    ]


def shell_scripts() -> list[str]:
    """Every file in the repository that is a shell script, by its first line."""
    listed = process.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, timeout=60
    ).stdout.splitlines()
    return sorted(name for name in listed if _is_shell(name))


def _is_shell(name: str) -> bool:
    path = REPOSITORY / name
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(80)
    return first.startswith((b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash", b"# shellcheck shell="))
