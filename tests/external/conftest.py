"""A small lab with etcd machines, or, for development, the running one that --external-lab names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.breaking.green import well
from tests.labs.conftest import TestLab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

NODES = {"etcd": {"count": 3}, "control_planes": {"count": 1}, "workers": {"count": 1}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--external-lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[TestLab]:
    """Three etcd machines, a control plane and a worker that are well."""
    with well(
        request.config.getoption("--external-lab"),
        "ha-lab-external",
        network={"subnet": "192.168.72.0/24"},
        nodes=NODES,
    ) as made:
        yield made
