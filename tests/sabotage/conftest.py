"""The lab that is broken: one of its own, or, for development, the running one that --lab names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lab.health import verify
from lab.session import Session, open_made
from lab.system.wait import wait_until
from tests.labs.conftest import make_lab
from tests.whole import add_option


def pytest_addoption(parser: pytest.Parser) -> None:
    add_option(parser)
    parser.addoption("--lab", default="", help="a running lab to break instead of one made for it")


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    given = request.config.getoption("--lab")
    if given:
        yield open_made(Path(given), Console())
        return
    folder = tmp_path_factory.mktemp("sabotage")
    made = make_lab(folder, name="ha-lab-sabotage", network={"subnet": "192.168.60.0/24"})
    try:
        made.succeed("up")
        wait_until(lambda: _why_not_green(made.session), what="the new lab is well", timeout=120, interval=1.0)
        yield made.session
    finally:
        made.inv("destroy", "--yes")


def _why_not_green(session: Session) -> str | None:
    outcome = verify.run(session)
    return None if outcome.green else outcome.summary
