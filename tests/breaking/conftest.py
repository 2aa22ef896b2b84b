"""The lab that is broken: one for all suites here, or, for development, the running one that --lab names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.session import Session
from tests.breaking.green import well
from tests.labs.conftest import TestLab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[TestLab]:
    """Seven machines that are well."""
    with well(
        request.config.getoption("--lab"), "ha-lab-broken", network={"subnet": "192.168.60.0/24"}
    ) as made:
        yield made


@pytest.fixture(scope="session")
def session(lab: TestLab) -> Session:
    """The lab as it was made."""
    return lab.session
