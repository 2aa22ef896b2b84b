"""Reads what this host keeps about a lab: whether anything is left, and the results of verify and drills."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from lab import providers as machines
from lab.drill import undo
from lab.errors import LabError
from lab.session import Session
from lab.workspace import Workspace

SETTLING = 120.0
"""Seconds after a fault during which a lab need not have recovered; 30 are usual."""


@dataclass(frozen=True)
class Verified:
    """The result of the last `verify`: how many checks it judged, and how many of them did not hold."""

    checks: int
    bad: int


@dataclass(frozen=True)
class Kept:
    """What this host keeps about a lab.

    `strays` are machines that its `.lab/` does not know. `reports` are the drills that have a report. `fault`
    is the fault that a drill has left, "" if none; `was_broken` whether a drill ever injected one, and
    `settling` whether one was removed so recently that the lab need not have recovered.
    """

    folder: Path | None = None
    strays: tuple[str, ...] = ()
    verified: Verified | None = None
    reports: tuple[str, ...] = ()
    fault: str = ""
    was_broken: bool = False
    settling: bool = False


def look(session: Session) -> Kept:
    """Read it. Never raises LabError: if docker can't be asked, it counts as having no machines."""
    workspace = session.workspace
    reports = sorted((workspace.root / "drills").glob("*/report.json"))
    try:
        strays = tuple(machines.unknown_to_vagrant(workspace))
    except LabError:
        strays = ()
    return Kept(
        folder=workspace.root if workspace.exists() or workspace.has_machines() else None,
        strays=strays,
        verified=_verified(workspace),
        reports=tuple(each.parent.name for each in reports),
        fault=undo.pending(session),
        was_broken=workspace.drill.exists(),
        settling=_changed_within(workspace.drill, SETTLING * session.lab.patience),
    )


def _changed_within(folder: Path, seconds: float) -> bool:
    """Whether a file was added to a folder, or removed from it, within the last `seconds`."""
    try:
        return time.time() - folder.stat().st_mtime < seconds
    except FileNotFoundError:
        return False


def _verified(workspace: Workspace) -> Verified | None:
    """Read what verify wrote for programs; None if there is nothing readable."""
    try:
        text = (workspace.root / "verify.xml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    suite = re.search(r"<testsuite\b[^>]*>", text)
    said = {} if suite is None else dict(re.findall(r'\b(tests|errors|failures)="(\d+)"', suite[0]))
    if len(said) < 3:
        return None
    return Verified(int(said["tests"]), int(said["errors"]) + int(said["failures"]))
