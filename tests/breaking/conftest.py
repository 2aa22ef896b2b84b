"""The lab that is broken: one for all suites here, or, for development, the running one that --lab names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.session import Session
from lab.system.wait import wait_until
from tests.breaking.green import why_not_green
from tests.labs.conftest import TestLab, only_lab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[TestLab]:
    """Seven machines that are well."""
    given = request.config.getoption("--lab")
    if given:
        yield TestLab(Path(given).parent)
        return
    with only_lab("ha-lab-broken", network={"subnet": "192.168.60.0/24"}) as made:
        made.succeed("up")
        session = made.session
        wait_until(lambda: why_not_green(session), what="the new lab is well", timeout=120, interval=1.0)
        yield made


@pytest.fixture(scope="session")
def session(lab: TestLab) -> Session:
    """The lab as it was made."""
    return lab.session
