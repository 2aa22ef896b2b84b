"""The verb `drill`: chooses drills, repeats and profiles, and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from lab.config.shape import whole
from lab.drill import catalogue, measured_upgrade, rehearsal, report, run, undo
from lab.drill.measured_up import PLAIN
from lab.drill.recording import Report
from lab.drill.stories import STORIES
from lab.errors import ConfigError, LabStateError
from lab.model import Lab
from lab.session import Session, of_lab, require_up
from lab.verbs.up import Confirm
from lab.workspace import made

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


def drill(
    session: Session, name: str, *, repeat: str, compare: str, consent: bool, confirm: Confirm
) -> tuple[Report, Path]:
    """Run drills and write their report; return it and its folder.

    Raises ConfigError for an unknown drill or profile or an invalid repeat, LabStateError if the user does not
    agree to what is lost, before anything is changed.
    """
    drills = chosen(name, session.lab)
    times, profiles = _checked(session, name, repeat, compare)
    require_up(session)
    session = _without_rehearsal(session)
    run.require_fit(session, drills)
    _require_consent(session, drills, consent, confirm)
    found = report.begin(session)
    with session.workspace.lock(), session.progress.live():
        if name == rehearsal.NAME:
            found = measured_upgrade.carry_out(session, repeat=times, compare=compare, consent=consent)
        else:
            results = run.carry_out(session, drills, repeat=times, profiles=profiles)
            found = found.model_copy(update={"results": results})
    folder = report.keep(found, session.workspace, name)
    return found, folder


def keep(session: Session, name: str, *, consent: bool, confirm: Confirm) -> str:
    """Inject one drill's fault and leave it in; return the message."""
    drills = chosen(name, session.lab)
    if len(drills) > 1:
        raise ConfigError(["--keep leaves one fault in, but `all` means several"], hint="name one drill")
    require_up(session)
    session = _without_rehearsal(session)
    run.require_fit(session, drills)
    _require_consent(session, drills, consent, confirm)
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


def chosen(name: str, lab: Lab) -> tuple[catalogue.Drill, ...]:
    """The drill of that name, or those of `all` that this lab has the load balancers and etcd machines for.

    Raises ConfigError with the existing names.
    """
    has = {
        each.name
        for each in catalogue.DRILLS
        if each.load_balancers <= len(lab.balancers) and (lab.external_etcd or not each.external)
    }
    found = tuple(
        each
        for each in catalogue.DRILLS
        if name == each.name or (name == "all" and each.in_all and each.name in has)
    )
    if not found:
        names = ", ".join(each.name for each in catalogue.DRILLS)
        what = f"there is no drill {name!r}" if name else "which drill?"
        raise ConfigError([what], hint=f"one of: all, {names}")
    return found


def to_json(found: Report) -> str:
    """The report as JSON without the single requests, which the file in its folder has."""
    return found.model_dump_json(indent=2, exclude={"results": {"__all__": {"recording": SAMPLES}}})


def _without_rehearsal(session: Session) -> Session:
    """The lab as it is once a rehearsed upgrade that was left in is reverted: its version changes with that."""
    if not undo.is_pending(session, rehearsal.NAME):
        return session
    session.progress.say(heal(session))
    record = made.read(session.workspace)
    assert record is not None
    return replace(of_lab(session, record.lab), made=record)


def _require_consent(
    session: Session, drills: Sequence[catalogue.Drill], consent: bool, confirm: Confirm
) -> None:
    """Raise LabStateError unless the user agrees to what the drills lose."""
    losses = [each.loss(session) for each in drills if each.loss]
    if losses and not consent and not confirm(f"{' '.join(losses)} Continue? [y/N] "):
        raise LabStateError("nothing was changed", hint="`./inv drill --list` lists the drills")


def _checked(session: Session, name: str, repeat: str, compare: str) -> tuple[int, Sequence[str]]:
    problems = []
    times = 0
    try:
        times = whole(repeat, range(1, MAX_REPEATS + 1), f"from 1 to {MAX_REPEATS}")
    except ValueError as error:
        problems.append(f"--repeat: {error}")
    if name == rehearsal.NAME and compare not in ("", PLAIN):
        problems.append(f"--compare {compare}: an upgrade is compared with {PLAIN}, kubeadm's order by itself")
    if name != rehearsal.NAME and compare and compare not in PROFILES:
        problems.append(f"--compare {compare}: the load balancer's profiles are {' and '.join(PROFILES)}")
    if problems:
        raise ConfigError(problems, hint="`./inv --help drill` explains them")
    profiles = dict.fromkeys([session.lab.load_balancer.profile, *([compare] if compare else [])])
    return times, tuple(profiles)
