"""What a real lab is broken for, as far as that can be known without one, and the page that is made from it."""

from __future__ import annotations

from typing import Any

import pytest

from lab.health.checks import GROUPS
from lab.plans import ready
from tests.breaking import page
from tests.breaking.sabotages import SABOTAGES, Says

CHECKS = {check.name: check for _, checks in GROUPS for check in checks}


def test_the_page_about_faults_is_made_from_the_sabotages() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "`.venv/bin/python -m tests.breaking.page`"


def test_each_fault_is_a_row_of_the_page() -> None:
    rows = [line.split(" | ") for line in page.page().splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == [sabotage.name for sabotage in SABOTAGES]
    assert {len(row) for row in rows} == {3}


@pytest.mark.parametrize(
    "sabotage",
    [each for each in SABOTAGES if isinstance(each.up, Says) and not each.in_the_way],
    ids=lambda sabotage: sabotage.name,
)
def test_what_up_says_about_a_fault_is_the_hint_of_a_check_that_does_not_wait(sabotage: Any) -> None:
    check = CHECKS[sabotage.up.cause.partition("[")[0]]
    assert sabotage.up.helps in check.hint
    assert sabotage.up.warns or check.name in {*ready.STEADY, ready.TAINTS}
