"""An etcd on machines of its own is broken, drilled, replaced and restored, on a small lab that has one."""

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

PAIR, EXTERNAL = False, True
"""Which sabotages are this lab's (tests/breaking/test_sabotage.py)."""

pytestmark = pytest.mark.whole

OF_ETCD = [drill.name for drill in DRILLS if drill.of_etcd and drill.in_all]


def test_exactly_the_checks_fail_that_should_and_up_does_what_it_should(
    lab: TestLab, together: tuple[Sabotage, ...]
) -> None:
    test_sabotage.test_exactly_the_checks_fail_that_should_and_up_does_what_it_should(lab, together)


@pytest.mark.parametrize("name", OF_ETCD)
def test_a_drill_of_etcd_is_carried_through_and_loses_nothing(lab: TestLab, name: str) -> None:
    code, report = drilled(lab, name)
    (result,) = report["results"]
    assert not result["problem"]
    found = figures(result)
    assert {figure: found[figure] for figure in HARMLESS} == dict.fromkeys(HARMLESS, 0)
    judged = [figure for figure in result["figures"] if figure["limit"] is not None]
    missed = [f for f in judged if f["value"] is None or f["value"] > f["limit"]]
    assert code == (BEYOND_LIMIT if missed else 0)
    print(f"{name}: {missed or 'within all limits'}")


def test_a_machine_of_etcd_is_replaced_and_a_backup_restored(lab: TestLab) -> None:
    lab.succeed("replace", "etcd2", "--yes")
    lab.succeed("verify")
    lab.succeed("backup")
    newest = max((lab.folder / ".lab" / "backups").glob("*.tar"))
    lab.succeed("recover", str(newest), "--yes")
    lab.succeed("verify")
