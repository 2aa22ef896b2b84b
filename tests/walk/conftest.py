"""A lab of its own to walk through the handout with. Run by `./inv test`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.conftest import TestLab, only_lab, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


NETWORK = {"subnet": "192.168.62.0/24"}
"""Of both labs: chapter 11 of one destroys it before chapter 1 of the other."""


@pytest.fixture(scope="session")
def walked() -> Iterator[TestLab]:
    """A lab that the chapters bring up and destroy themselves, once for each way."""
    with only_lab("ha-lab-walk", network=NETWORK) as made:
        yield made


@pytest.fixture(scope="session")
def walked_external() -> Iterator[TestLab]:
    """A lab with external etcd and two load balancers, which chapters bring up and destroy, too."""
    nodes = {"load_balancers": {"count": 2}, "etcd": {"count": 3}}
    with only_lab("ha-lab-walk-external", network=NETWORK, nodes=nodes) as made:
        made.inv("doctor", "--yes")  # eleven machines need more of the host than the default lab
        yield made
