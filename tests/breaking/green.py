"""Which checks of a lab do not hold, warnings included, and what they found."""

from __future__ import annotations

from collections.abc import Collection

from lab.health import verify
from lab.health.verify import Outcome
from lab.session import Session


def why_not_green(session: Session) -> str | None:
    """Run verify; return each check that does not hold, or warns, with what it found. None if all hold."""
    outcome = verify.run(session)
    bad = not_holding(outcome)
    return in_words(outcome, bad) if bad else None


def not_holding(outcome: Outcome) -> set[str]:
    """The titles of the checks that do not hold, or warn."""
    return {verdict.title for verdict in outcome.verdicts if verdict.outcome != "holds"}


def in_words(outcome: Outcome, titles: Collection[str]) -> str:
    """Each of these checks with what it found."""
    said = [f"{v.title}: {v.outcome}: {v.found}" for v in outcome.verdicts if v.title in titles]
    return "\n".join([*said, *sorted({*titles} - {verdict.title for verdict in outcome.verdicts})])
