"""Virtual machines from the golden disk, emulated where there is no KVM. Run by `./inv test --vm`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.conftest import TestLab, only_lab, pytest_runtest_makereport
from tests.lifecycle.conftest import LivingLab

__all__ = ["pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--disk", type=Path, help="the golden disk, as `./inv bake` has made it")


@pytest.fixture(scope="session")
def disk(request: pytest.FixtureRequest) -> Path:
    path = request.config.getoption("--disk")
    assert isinstance(path, Path), "`./inv test --vm` bakes the golden disk and says where it is"
    assert path.exists()
    return path


def _lab(name: str, control_planes: int, workers: int, load_balancers: int = 1) -> Iterator[TestLab]:
    nodes = {
        "load_balancers": {"count": load_balancers},
        "control_planes": {"count": control_planes},
        "workers": {"count": workers},
    }
    # Without kube-router, which takes more CPU than two cores emulate beside a control plane.
    network = {"subnet": "192.168.61.0/24", "policy": "none"}
    with only_lab(name, provider="libvirt", network=network, nodes=nodes) as made:
        yield made


@pytest.fixture(scope="module")
def pair() -> Iterator[TestLab]:
    """A load balancer and one control plane."""
    yield from _lab("ha-lab-vm-test", 1, 0)


@pytest.fixture(scope="module")
def sharing() -> Iterator[TestLab]:
    """Two load balancers that share an address, and a control plane that is never made."""
    yield from _lab("ha-lab-vm-pair", 1, 0, load_balancers=2)


@pytest.fixture(scope="module")
def whole() -> Iterator[TestLab]:
    """A load balancer, a control plane and a worker, or three workers where they are not emulated.

    With three emulated workers on two cores, the API server sometimes answers too late (docs/measurements.md,
    "Virtual machines, emulated").
    """
    for lab in _lab("ha-lab-vm-whole", 1, 1):
        lab.succeed("render")  # which finds out whether KVM works
        if not lab.session.lab.emulated:
            LivingLab(lab).edit(workers=3)
        yield lab
