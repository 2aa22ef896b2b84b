"""`up --measure` and `replace --measure`: measure what users notice while the lab is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lab import providers
from lab.drill import measure, words
from lab.drill.recording import Exemption, Report, Title
from lab.model import Lab, Node
from lab.model.change import Change
from lab.session import Session

UPGRADE_LIMITS = {"writes.longest_gap_s": 3.0}
"""Limits of an upgrade, besides those of every change: one machine at a time is away."""

PLAIN = "plain"
"""In a report, what stands in the place of the load balancer's profile for an upgrade with `--plain`."""


class Measured:
    """Runs the probes during one `up`. `report` and `folder` are set once it has ended."""

    def __init__(self, *, plain: bool = False, drill: str = "", number: int = 1) -> None:
        """Measure nothing yet.

        An upgrade is `plain` (`lab.plans.upgrade`): it is there to be compared, and so has no limits but those
        of every drill. `drill` is the drill that this `up` is part of, and `number` that of its run.
        """
        self.plain, self.drill, self.number = plain, drill, number
        self.report: Report | None = None
        self.folder: Path | None = None

    def __call__(
        self, session: Session, change: Change, leaving: Sequence[Node], work: Callable[[], None]
    ) -> None:
        """Do the work while probes run. Raises LabError if it fails or can't be measured."""
        off = _off(session)
        away = off | {node.name for node in (*leaving, *change.added)}
        keep = tuple(node for node in session.lab.nodes if node.spec.balances or node.name not in away)
        self.report, self.folder = measure.measured(
            session,
            _title(change, leaving, self.plain),
            work,
            keep=keep,
            off=off,
            exemptions=(
                *_exemptions(session.lab, (*leaving, *change.resized)),
                *_exemptions_of_upgrade(session.lab, change),
            ),
            drill=self.drill,
            number=self.number,
            limits=measure.LIMITS | (UPGRADE_LIMITS if change.upgraded else {}),
            profile=PLAIN if self.plain else "",
        )


def _off(session: Session) -> set[str]:
    """The names of the lab's machines, wanted or existing, that do not run now."""
    labs = (session.lab, session.made.lab) if session.made else (session.lab,)
    states = [item for lab in labs for item in providers.states(lab, session.workspace).items()]
    return {name for name, state in states if state != "running"}


def _title(change: Change, leaving: Sequence[Node], plain: bool) -> Title:
    """A short title of the change."""
    how = " (--plain)" if plain else ""
    removed = {node.name for node in change.removed}
    parts = {
        "added": [node.name for node in change.added],
        "removed": [node.name for node in change.removed],
        "replaced": [node.name for node in leaving if node.name not in removed],
        "resized": [node.name for node in change.resized],
        "upgraded": [f"{change.upgraded.after}{how}"] if change.upgraded else [],
        "changed": [setting.key for setting in change.reconfigured],
    }
    return Title(**words.change_title(parts)._asdict())


def _exemptions(lab: Lab, off: Sequence[Node]) -> tuple[Exemption, ...]:
    """The limits that can't hold while these machines are off: without a load balancer no connection works.

    Writes keep their limits: acknowledged ones are in etcd.
    """
    if len(lab.balancers) > 1:
        return ()
    names = {node.name for node in off}
    return tuple(
        Exemption(figure="connections.failed", **words.only_balancer(node.name)._asdict())
        for node in lab.balancers
        if node.name in names
    )


def _exemptions_of_upgrade(lab: Lab, change: Change) -> tuple[Exemption, ...]:
    """The limits that can't hold while the only API server restarts."""
    if not change.upgraded or len(lab.control_planes) > 1:
        return ()
    words_of_it = words.only_control_plane(lab.first.name)._asdict()
    return tuple(Exemption(figure=each, **words_of_it) for each in measure.LIMITS | UPGRADE_LIMITS)
