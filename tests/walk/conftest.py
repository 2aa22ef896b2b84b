"""A lab of its own to walk through the handout with. Run by `./inv test`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.conftest import TestLab, only_lab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def walked() -> Iterator[TestLab]:
    """A lab that the chapters bring up and destroy themselves, once for each way."""
    with only_lab("ha-lab-walk", network={"subnet": "192.168.62.0/24"}) as made:
        yield made
