"""Checks of a running lab: hosts by role from the model, over ssh, and the API through the load balancer.

A check is collected only for the machines it is about (`control_plane`, `worker`, `kubernetes_node`,
`machine`), so nothing is skipped. None of them repairs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from rich.console import Console

from lab.cluster import Api
from lab.model import Lab, Node
from lab.session import Session, open_session
from tests.live.probe import Probes, deployed_probes

Hosts = Callable[[Node], Any]

ROLES: dict[str, Callable[[Lab], tuple[Node, ...]]] = {
    "control_plane": lambda lab: lab.control_planes,
    "worker": lambda lab: lab.workers,
    "kubernetes_node": lambda lab: lab.kubernetes_nodes,
    "machine": lambda lab: lab.nodes,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="lab.yaml", help="the lab file of the running lab")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, nodes in ROLES.items():
        if fixture in metafunc.fixturenames:
            lab = open_session(Path(metafunc.config.getoption("--lab")), Console()).lab
            metafunc.parametrize(fixture, nodes(lab), ids=lambda node: str(node.name))


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Session:
    opened = open_session(Path(request.config.getoption("--lab")), Console())
    opened.require_up()
    return opened


@pytest.fixture(scope="session")
def lab(session: Session) -> Lab:
    return session.lab


@pytest.fixture(scope="session")
def api(session: Session) -> Api:
    return Api(session.workspace.kubeconfig)


@pytest.fixture(scope="session")
def host(session: Session) -> Hosts:
    """A machine as testinfra has it: as root, over one kept ssh connection each."""

    def connect(node: Node) -> Any:
        return testinfra.get_host(f"ssh://{node.name}", ssh_config=str(session.workspace.ssh_config), sudo=True)

    return connect


@pytest.fixture(scope="session")
def probes(session: Session, api: Api) -> Iterator[Probes]:
    """A pod on every node that answers by name, for as long as the checks need it."""
    with deployed_probes(session, api) as running:
        yield running
