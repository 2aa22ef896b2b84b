"""What `verify` runs: the acceptance list, and the checks of lab.health.checks on facts that are gathered once.

Hosts are testinfra's, by role from the model, so that a test of your own can be put beside test_acceptance.py:
`def test_swap_is_off(host, worker): assert host(worker).check_output("swapon --show") == ""`. None of them
repairs anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import testinfra
from rich.console import Console

from lab.errors import LabStateError
from lab.health import plain_tests
from lab.health.checks import cases
from lab.health.checks.check import Case
from lab.health.cluster import Api
from lab.health.facts import gather as gathering
from lab.health.facts.gather import COMMAND, MACHINE_TIMEOUT, Asker, Facts
from lab.health.facts.machine import TIMED_OUT
from lab.health.verify import FACTS
from lab.model import Lab, Node
from lab.model.selectors import SINGULAR
from lab.session import Session, open_made, require_up, with_profile

Hosts = Callable[[Node], Any]
OPENED = pytest.StashKey[Session]()

# A connection of its own, which gives up on a machine that answers nothing: the kept one may hang with it.
BOUNDED = "-o ControlPath=none -o ConnectTimeout={} -o ServerAliveInterval={} -o ServerAliveCountMax=3"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let -k find a test by the name that `verify` shows."""
    item.extra_keyword_matches.add(plain_tests.title(getattr(item, "originalname", item.name)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default="lab.yaml", help="the lab file of the running lab")
    parser.addoption("--profile", default="", help="the load balancer's profile, where it isn't lab.yaml's")


def _opened(config: pytest.Config) -> Session:
    """The lab that is verified; its file is read once."""
    if OPENED not in config.stash:
        session = open_made(Path(config.getoption("--lab")), Console())
        profile = config.getoption("--profile") or session.lab.load_balancer.profile
        config.stash[OPENED] = with_profile(session, profile)
    return config.stash[OPENED]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    lab = _opened(metafunc.config).lab
    for fixture, nodes in SINGULAR.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, nodes(lab), ids=lambda node: str(node.name))
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(lab), ids=_id)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Leave out what is asked of each machine of a role where the lab has none; pytest would skip it."""
    found = yield
    return [each for each in found if not _of_no_machine(each)] if isinstance(found, list) else found


def _of_no_machine(item: pytest.Item | pytest.Collector) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return any(name in SINGULAR and not isinstance(value, Node) for name, value in params.items())


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
    return Api(session.workspace.kubeconfig, timeout=10.0 * session.lab.patience)


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest, session: Session) -> Hosts:
    """A machine as testinfra has it: as root, over the lab's kept ssh connection.

    The machines of the selected tests are connected to side by side. Raises LabStateError for one that does not
    answer: its tests could not ask, at once.
    """

    def connected(node: Node) -> Any:
        reason = session.remote.why_not_reachable(node)
        if reason:
            return LabStateError(f"{node.name} can't be asked: {reason}")
        machine = testinfra.get_host(
            f"ssh://{node.name}", ssh_config=str(session.workspace.ssh_config), sudo=True
        )
        # What testinfra asks a machine first is asked now; where that fails, so it does again in the tests.
        with contextlib.suppress(RuntimeError, AssertionError):
            machine.has_command_v, machine.service  # noqa: B018  properties that ask
        return machine

    nodes = _machines_of(request.session.items)
    with ThreadPoolExecutor(max_workers=session.lab.at_once(len(nodes) or 1)) as pool:
        machines = dict(zip(nodes, pool.map(connected, nodes), strict=True))

    def connect(node: Node) -> Any:
        if node not in machines:
            machines[node] = connected(node)
        if isinstance(machines[node], LabStateError):
            raise machines[node]
        return machines[node]

    return connect


def _machines_of(items: list[pytest.Item]) -> list[Node]:
    """The machines that tests are run for, each once."""
    parametrized = [item.callspec.params.values() for item in items if hasattr(item, "callspec")]
    return list(dict.fromkeys(v for values in parametrized for v in values if isinstance(v, Node)))


@pytest.fixture(scope="session")
def facts(request: pytest.FixtureRequest, session: Session) -> Facts:
    """Everything that the selected checks need to know, asked once."""
    selected = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    probes = any(case.check.probes for case in selected if case is not None)
    asker = by_testinfra(session)
    found = gathering.gather(
        session.lab, session.workspace, session.remote, asker, probes=probes, admission=True
    )
    request.config.stash[FACTS] = found
    return found


def by_testinfra(session: Session) -> Asker:
    """Run facts.sh through testinfra's ssh host: one command, one round trip, bounded on both sides."""
    patience = MACHINE_TIMEOUT * session.lab.patience

    def ask(node: Node, *answers: str) -> str:
        machine = testinfra.get_host(
            f"ssh://{node.name}",
            ssh_config=str(session.workspace.ssh_config),
            ssh_extra_args=BOUNDED.format(5 * session.lab.patience, 4 * session.lab.patience),
            sudo=True,
        )
        try:
            answer = machine.run(f"timeout --kill-after 1 {patience:.0f} {' '.join((COMMAND, *answers))}")
        except RuntimeError as error:  # ssh's own failure: testinfra wraps the whole result
            raise LabStateError(_last_line(str(error.args[0].stderr))) from error
        if answer.rc in TIMED_OUT:
            raise LabStateError(f"no answer within {patience:.0f} s")
        return str(answer.stdout)

    return ask


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1][:300]
