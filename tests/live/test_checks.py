"""Every check of lab.health.checks, one test each."""

from __future__ import annotations

import pytest

from lab.health.checks.check import Case
from lab.health.facts.gather import Facts
from lab.health.verify import VERDICT


def test_check(case: Case, facts: Facts, request: pytest.FixtureRequest) -> None:
    verdict = case.judge(facts)
    request.node.stash[VERDICT] = verdict
    if not verdict.good:
        pytest.fail(
            f"{verdict.title}: {verdict.outcome}\nexpected  {verdict.expected}\nfound     {verdict.found}\n"
            f"means     {verdict.means}\ntry       {verdict.hint}",
            pytrace=False,
        )
