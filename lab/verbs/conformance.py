"""The suite for a lab: built where it isn't there, then run on the lab; and the host made fit for that."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.text import Text

from lab.conformance import run, suite, tests
from lab.conformance.results import Outcome
from lab.conformance.suite import Suite
from lab.conformance.tests import Request
from lab.errors import ConfigError, HostNotFit
from lab.host.places import cache_folder
from lab.session import Session
from lab.verbs import bake

ROOM_MIB = 500
"""Room beside the lab for a run's logs and JUnit file."""


def conformance(session: Session, wish: Request, *, junit: Path | None, consent: bool) -> Outcome:
    """Judge the lab by Kubernetes' own conformance tests, those that were wished for.

    What can be refused is refused before the suite is built. Raises ConfigError for words that select nothing,
    LabStateError for a lab that is not up and healthy or has too few workers, HostNotFit for a full disk.
    """
    tests.require_one_way(wish)
    if junit is not None and not junit.absolute().parent.is_dir():
        raise ConfigError(
            [f"--junit {junit}: there is no folder {junit.absolute().parent}"], hint="make it first"
        )
    if junit is not None and junit.is_dir():
        raise ConfigError([f"--junit {junit} is a folder"], hint="name a file in it")
    nodes = run.require_fit(session)
    built = build(session, consent=consent)
    selection = tests.select(built.tests, wish, tests.quick(), tests.unable())
    absent = tests.quick() - {test.plain for test in built.tests} if wish.quick else ()
    if absent:
        version = session.lab.kubernetes.version
        what = f"tests of --quick that the suite of Kubernetes {version} does not have, and that are not run"
        session.progress.say(Text(f"{what}: {'; '.join(sorted(absent))}"))
    _require_room(session.workspace.root, ROOM_MIB, "the logs of the suite")
    with session.workspace.lock(), session.progress.live():
        session.workspace.rotate_logs()
        return run.carry_out(session, built, nodes, selection, wish, junit)


def build(session: Session, *, consent: bool) -> Suite:
    """Return the suite of the lab's Kubernetes version, built where it isn't there."""
    if not suite.is_built(session.lab):
        _require_room(cache_folder(), suite.NEEDED_MIB, "the build of the suite")
        bake.make_fit(session, {"bake"}, consent=consent)
    return suite.build(session.lab, session.progress)


def _require_room(folder: Path, needed_mib: int, what: str) -> None:
    """Raise HostNotFit where the disk has too little room."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free // 2**20
    if free < needed_mib:
        raise HostNotFit(
            f"{what} needs {needed_mib} MiB of disk space at {folder}, and {free} MiB are free",
            hint="free some: `./inv bake --prune`, `docker system df`",
        )
