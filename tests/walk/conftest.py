"""A lab of its own to walk through the handout with. Run by `./inv test`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.conftest import TestLab, make_lab, pytest_runtest_makereport
from tests.whole import add_option, pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    add_option(parser)


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    """A lab that the chapters bring up and destroy themselves, once for each way."""
    folder: Path = tmp_path_factory.mktemp("labs") / "walk"
    made = make_lab(folder, name="ha-lab-walk", network={"subnet": "192.168.62.0/24"})
    yield made
    made.inv("destroy", "--yes")
