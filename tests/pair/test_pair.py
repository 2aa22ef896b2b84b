"""Two load balancers that share an address are broken, and drilled, on a small lab that has two."""

from __future__ import annotations

import pytest

from lab.drill.catalogue import DRILLS
from lab.exit_codes import BEYOND_LIMIT
from tests.breaking import test_sabotage
from tests.breaking.sabotages import Sabotage
from tests.breaking.test_drills import HARMLESS, drilled, figures
from tests.breaking.test_sabotage import pytest_generate_tests
from tests.labs.conftest import TestLab

__all__ = ["pytest_generate_tests"]

PAIR, EXTERNAL = True, False
"""Which sabotages are this lab's (tests/breaking/test_sabotage.py)."""

pytestmark = pytest.mark.whole

OF_TWO = [drill.name for drill in DRILLS if drill.load_balancers > 1 or drill.pair_limits is not None]


def test_exactly_the_checks_fail_that_should_and_up_does_what_it_should(
    lab: TestLab, together: tuple[Sabotage, ...]
) -> None:
    test_sabotage.test_exactly_the_checks_fail_that_should_and_up_does_what_it_should(lab, together)


@pytest.mark.parametrize("name", OF_TWO)
def test_a_drill_of_two_load_balancers_is_carried_through_and_loses_nothing(lab: TestLab, name: str) -> None:
    code, report = drilled(lab, name)
    (result,) = report["results"]
    assert not result["problem"]
    found = figures(result)
    assert {figure: found[figure] for figure in HARMLESS} == dict.fromkeys(HARMLESS, 0)
    assert found["address.moves"] is not None
    judged = [figure for figure in result["figures"] if figure["limit"] is not None]
    missed = [f for f in judged if f["value"] is None or f["value"] > f["limit"]]
    assert code == (BEYOND_LIMIT if missed else 0)
    print(f"{name}: {missed or 'within all limits'}")


def test_the_write_up_s_keepalived_beside_the_tuned_one(lab: TestLab) -> None:
    _, report = drilled(lab, "stop-haproxy-on-holder", "--compare", "reference")
    found = {result["recording"]["profile"]: figures(result) for result in report["results"]}
    gaps = {profile: found[profile]["connections.longest_gap_s"] for profile in ("tuned", "reference")}
    assert gaps["tuned"] < 5 < gaps["reference"]
