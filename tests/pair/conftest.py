"""A small lab with two load balancers, or, for development, the running one that --pair-lab names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.breaking.green import well
from tests.labs.conftest import TestLab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

NODES = {"load_balancers": {"count": 2}, "control_planes": {"count": 1}, "workers": {"count": 2}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pair-lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[TestLab]:
    """Two load balancers, a control plane and two workers that are well."""
    with well(
        request.config.getoption("--pair-lab"),
        "ha-lab-pair",
        network={"subnet": "192.168.62.0/24"},
        nodes=NODES,
    ) as made:
        yield made
