"""The lab that is drilled: one of its own, or, for development, the running one that --lab names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.conftest import TestLab, make_lab
from tests.whole import add_option, pytest_collection_modifyitems, pytest_configure

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="", help="a running lab to drill instead of one made for it")
    add_option(parser)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    given = request.config.getoption("--lab")
    if given:
        yield TestLab(Path(given).parent)
        return
    folder = tmp_path_factory.mktemp("drills")
    made = make_lab(folder, name="ha-lab-drills", network={"subnet": "192.168.62.0/24"})
    try:
        made.succeed("up")
        yield made
    finally:
        made.inv("destroy", "--yes")
