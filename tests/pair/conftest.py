"""A small lab with two load balancers, or, for development, the running one that --pair-lab names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.system.wait import wait_until
from tests.breaking.green import why_not_green
from tests.labs.conftest import TestLab, only_lab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

NODES = {"load_balancers": {"count": 2}, "control_planes": {"count": 1}, "workers": {"count": 2}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pair-lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[TestLab]:
    """Two load balancers, a control plane and two workers that are well."""
    given = request.config.getoption("--pair-lab")
    if given:
        yield TestLab(Path(given).parent)
        return
    with only_lab("ha-lab-pair", network={"subnet": "192.168.62.0/24"}, nodes=NODES) as made:
        made.succeed("up")
        session = made.session
        wait_until(lambda: why_not_green(session), what="the new lab is well", timeout=120, interval=1.0)
        yield made
