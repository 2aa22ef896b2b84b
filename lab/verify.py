"""This room runs the checks of tests/live against a running lab and says in one line what came of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lab.render import REPOSITORY

if TYPE_CHECKING:
    from lab.session import Session

NOTHING_RAN = 5
"""pytest's exit code when no test was selected, which is never a pass."""


def verify(session: Session, *, select: str = "", junit: Path | None = None) -> int:
    """Run pytest over tests/live, its output being the user's; return 0 only when checks ran and held."""
    session.require_up()
    junit = junit or session.workspace.root / "verify.xml"
    junit.unlink(missing_ok=True)  # what an earlier run found is no answer now
    words = [sys.executable, "-m", "pytest", "tests/live", "--junitxml", str(junit.absolute())]
    words += ["--lab", str(session.path)]
    words += ["-k", select] if select else []
    started = time.monotonic()
    # The one command that isn't started by lab.process: its output is the terminal's, colours and all.
    code = subprocess.run(words, cwd=REPOSITORY, check=False).returncode
    session.progress.say(_summary(junit, time.monotonic() - started, code))
    return code


def _summary(junit: Path, seconds: float, code: int) -> str:
    if code == NOTHING_RAN:
        return "verify: no check has that name"
    try:
        suite = ElementTree.parse(junit).getroot().find("testsuite")  # noqa: S314  our own pytest's file
    except (OSError, ElementTree.ParseError):
        suite = None
    if suite is None:
        return f"verify: pytest ended with {code} and wrote no results"
    total = int(suite.get("tests", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    verdict = "all hold" if not bad and not skipped else f"{bad} do not hold, {skipped} not asked"
    return f"verify: {total} checks, {verdict}, {seconds:.1f} s ({junit})"
