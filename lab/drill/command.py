"""The verb `drill`: chooses drills, repeats and profiles, and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from lab.config.shape import whole
from lab.drill import catalogue, report, run, undo
from lab.drill.recording import Report
from lab.drill.stories import STORIES
from lab.errors import ConfigError
from lab.session import Session, require_up

SAMPLES = {"connections", "writes", "service", "watch", "streams", "read_back"}
PROFILES = ("tuned", "reference")
MAX_REPEATS = 50
"""The maximum of --repeat; more counts as a typo."""


def listed() -> RenderableType:
    """The table of all drills and what they do."""
    table = Table("drill", "what it does", box=None, pad_edge=False)
    for drill in catalogue.DRILLS:
        table.add_row(drill.name, STORIES[drill.name].title.en)
    return table


def require_one_way(*, keep: bool, heal: bool, repeat: str, compare: str, name: str) -> None:
    """Raise ConfigError for conflicting options, instead of ignoring one of them."""
    measuring = repeat != "1" or bool(compare)
    problems = []
    if keep and heal:
        problems.append("--keep leaves a fault in, and --heal reverts one")
    if (keep or heal) and measuring:
        problems.append("--repeat and --compare measure, and with --keep or --heal nothing is measured")
    if heal and name:
        problems.append(f"--heal reverts any fault; it needs no name ({name})")
    if problems:
        raise ConfigError(problems, hint="`./inv --help drill` explains them")


def drill(session: Session, name: str, *, repeat: str, compare: str) -> tuple[Report, Path]:
    """Run drills and write their report; return it and its folder.

    Raises ConfigError for an unknown drill or profile or an invalid repeat, before anything is changed.
    """
    drills = chosen(name)
    times, profiles = _checked(session, repeat, compare)
    require_up(session)
    run.require_fit(session, drills)
    found = report.begin(session)
    with session.workspace.lock(), session.progress.live():
        results = run.carry_out(session, drills, repeat=times, profiles=profiles)
    found = found.model_copy(update={"results": results})
    folder = report.keep(found, session.workspace, name)
    return found, folder


def keep(session: Session, name: str) -> str:
    """Inject one drill's fault and leave it in; return the message."""
    drills = chosen(name)
    if len(drills) > 1:
        raise ConfigError(["--keep leaves one fault in, but `all` means several"], hint="name one drill")
    require_up(session)
    with session.workspace.lock():
        victims = run.keep(session, drills[0])
    where = ", ".join(node.name for node in victims)
    return f"{name}: the fault is in and stays in ({where})\nnext: ./inv verify; ./inv drill --heal reverts it"


def heal(session: Session) -> str:
    """Revert the fault that a drill left in; return the message."""
    undone = revert(session)
    if not undone:
        return "no drill has left a fault in the lab"
    return f"{undone}\nnext: ./inv status shows when the lab has recovered, within a minute"


def revert(session: Session) -> str:
    """Revert the fault that a drill left in; return what it was, "" if there was none."""
    if not session.workspace.exists():
        return ""
    with session.workspace.lock():
        undone = undo.leftovers(session)
    return f"reverted: {'; '.join(undone)}" if undone else ""


def chosen(name: str) -> tuple[catalogue.Drill, ...]:
    """The drill of that name, or every drill for `all`. Raises ConfigError with the existing names."""
    found = tuple(each for each in catalogue.DRILLS if name in (each.name, "all"))
    if not found:
        names = ", ".join(each.name for each in catalogue.DRILLS)
        what = f"there is no drill {name!r}" if name else "which drill?"
        raise ConfigError([what], hint=f"one of: all, {names}")
    return found


def to_json(found: Report) -> str:
    """The report as JSON without the single requests, which the file in its folder has."""
    return found.model_dump_json(indent=2, exclude={"results": {"__all__": {"recording": SAMPLES}}})


def _checked(session: Session, repeat: str, compare: str) -> tuple[int, Sequence[str]]:
    problems = []
    times = 0
    try:
        times = whole(repeat, range(1, MAX_REPEATS + 1), f"from 1 to {MAX_REPEATS}")
    except ValueError as error:
        problems.append(f"--repeat: {error}")
    if compare and compare not in PROFILES:
        problems.append(f"--compare {compare}: the load balancer's profiles are {' and '.join(PROFILES)}")
    if problems:
        raise ConfigError(problems, hint="`./inv --help drill` explains them")
    profiles = dict.fromkeys([session.lab.load_balancer.profile, *([compare] if compare else [])])
    return times, tuple(profiles)
