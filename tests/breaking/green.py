"""A lab that is well, and which checks of one do not hold, warnings included, and what they found."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.health import verify
from lab.health.verify import Outcome
from lab.session import Session
from lab.system.wait import wait_until
from tests.labs.conftest import TestLab, only_lab


@contextmanager
def well(given: str, name: str, **data: Any) -> Iterator[TestLab]:
    """The running lab whose file is given, or one made for the tests, once all its checks hold."""
    if given:
        yield TestLab(Path(given).parent)
        return
    with only_lab(name, **data) as made:
        made.succeed("up")
        session = made.session
        wait_until(lambda: why_not_green(session), what="the new lab is well", timeout=120, interval=1.0)
        yield made


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
