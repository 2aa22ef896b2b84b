"""Virtual machines from the golden disk, emulated where there is no KVM. Run by `./inv test --vm`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.labs.conftest import TestLab, make_lab, pytest_runtest_makereport
from tests.whole import add_option, pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_makereport"]

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--disk", type=Path, help="the golden disk, as `./inv bake` has made it")
    add_option(parser)


@pytest.fixture(scope="session")
def disk(request: pytest.FixtureRequest) -> Path:
    path = request.config.getoption("--disk")
    assert isinstance(path, Path), "`./inv test --vm` bakes the golden disk and says where it is"
    assert path.exists()
    return path


def _lab(folder: Path, **different: object) -> Iterator[TestLab]:
    data = yaml.safe_load((HERE / "lab.yaml").read_text(encoding="utf-8"))
    made = make_lab(folder, **(data | different))
    yield made
    made.inv("destroy", "--yes")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    """A load balancer and one control plane."""
    yield from _lab(tmp_path_factory.mktemp("labs") / "pair")


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    """A load balancer, a control plane and three workers: as many as two cores can emulate."""
    nodes = {"control_planes": {"count": 1}, "workers": {"count": 3}}
    yield from _lab(tmp_path_factory.mktemp("labs") / "five", name="ha-lab-vm-five", nodes=nodes)
