"""What `verify` runs: the checks of lab.health.checks, judged on facts that are gathered once for all of them.

Hosts are testinfra's, by role from the model, so that a test of your own can be put beside test_checks.py:
`def test_swap_is_off(host, worker): assert host(worker).check_output("swapon --show") == ""`. None of them
repairs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from rich.console import Console

from lab.errors import LabStateError
from lab.health.checks import cases
from lab.health.checks.check import Case
from lab.health.cluster import Api
from lab.health.facts import gather as gathering
from lab.health.facts.gather import COMMAND, MACHINE_TIMEOUT, Asker, Facts
from lab.health.facts.machine import TIMED_OUT
from lab.model import Lab, Node
from lab.selectors import SINGULAR
from lab.session import Session, open_made, require_up, with_profile

Hosts = Callable[[Node], Any]

# A connection of its own, which gives up on a machine that answers nothing: the kept one may hang with it.
BOUNDED = "-o ControlPath=none -o ConnectTimeout={} -o ServerAliveInterval={} -o ServerAliveCountMax=3"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="lab.yaml", help="the lab file of the running lab")
    parser.addoption("--profile", default="", help="the load balancer's profile, where it isn't lab.yaml's")


def _opened(config: pytest.Config) -> Session:
    session = open_made(Path(config.getoption("--lab")), Console())
    return with_profile(session, config.getoption("--profile") or session.lab.load_balancer.profile)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    lab = _opened(metafunc.config).lab
    for fixture, nodes in SINGULAR.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, nodes(lab), ids=lambda node: str(node.name))
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(lab), ids=_id)


def _id(case: Case) -> str:
    """What -k finds a check by: its group, its name, its machine."""
    words = [case.group.replace(" ", "_"), case.check.name, *([case.node.name] if case.node else [])]
    return ":".join(words)


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Session:
    opened = _opened(request.config)
    require_up(opened)
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
def facts(request: pytest.FixtureRequest, session: Session) -> Facts:
    """Everything that the selected checks need to know, asked once."""
    selected = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    probes = any(case.check.probes for case in selected if case is not None)
    return gathering.gather(
        session.lab, session.workspace, session.remote, by_testinfra(session), probes=probes
    )


def by_testinfra(session: Session) -> Asker:
    """Run facts.sh through testinfra's ssh host: one command, one round trip, bounded on both sides."""
    patience = MACHINE_TIMEOUT * session.lab.patience

    def ask(node: Node) -> str:
        machine = testinfra.get_host(
            f"ssh://{node.name}",
            ssh_config=str(session.workspace.ssh_config),
            ssh_extra_args=BOUNDED.format(5 * session.lab.patience, 4 * session.lab.patience),
            sudo=True,
        )
        try:
            answer = machine.run(f"timeout --kill-after 1 {patience:.0f} {COMMAND}")
        except RuntimeError as error:  # ssh's own failure: testinfra wraps the whole result
            raise LabStateError(_last_line(str(error.args[0].stderr))) from None
        if answer.rc in TIMED_OUT:
            raise LabStateError(f"no answer within {patience:.0f} s")
        return str(answer.stdout)

    return ask


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1][:300]
