"""Real labs of their own names and subnets, brought up, broken, healed and removed by the tests.

A failure collects the lab's logs into the test's own folder (their path is printed) before the lab is removed.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lab.host.places import cache_folder
from lab.session import Session, open_made
from lab.system.paths import REPOSITORY


@dataclass(frozen=True)
class Ended:
    """A verb that has ended: its exit code, all it said, the seconds it took, and its standard output alone.

    Where a verb takes long, `said` also has what it waited for, which would be no JSON.
    """

    code: int
    said: str
    seconds: float
    out: str = ""


@dataclass(frozen=True)
class TestLab:
    """A lab in a folder of its own, driven as a user would."""

    __test__ = False
    folder: Path

    @property
    def session(self) -> Session:
        return open_made(self.folder / "lab.yaml", Console())

    def argv(self, verb: str, *words: str) -> list[str]:
        return [str(REPOSITORY / "inv"), verb, "--lab", str(self.folder / "lab.yaml"), *words]

    def inv(self, verb: str, *words: str, timeout: float = 900) -> Ended:
        started = time.monotonic()
        done = subprocess.run(
            self.argv(verb, *words),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        said = done.stdout + done.stderr
        print(f"$ inv {verb} {' '.join(words)}\n{said}")
        return Ended(done.returncode, said, time.monotonic() - started, done.stdout)

    def succeed(self, verb: str, *words: str) -> Ended:
        ended = self.inv(verb, *words)
        assert ended.code == 0, f"inv {verb} ended with {ended.code}:\n{ended.said}"
        return ended

    def containers(self) -> dict[str, str]:
        """Names of the lab's containers, with what tells a new one from an old one."""
        name = yaml.safe_load((self.folder / "lab.yaml").read_text(encoding="utf-8"))["name"]
        words = ["docker", "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}"]
        words += ["--filter", f"name=^{name}-"]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return dict(line.split() for line in listed.splitlines())


def make_lab(folder: Path, **data: object) -> TestLab:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return TestLab(folder)


@contextmanager
def only_lab(name: str, **data: object) -> Iterator[TestLab]:
    """The one lab of that name on this host, removed in the end.

    Its folder is the same in every run, so that a run that was killed leaves a lab which the next one removes.
    """
    place = cache_folder() / "tests" / name
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (place.parent / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(f"another run of these tests has the lab {name}; they can't run side by side")
        _remove_labs(place)
        shutil.rmtree(place)
        made = make_lab(place / "lab", name=name, **data)
        try:
            yield made
        except Exception:
            _keep_logs(made)
            raise
        finally:
            _remove_labs(place)


def _keep_logs(lab: TestLab) -> None:
    """Collect the logs of a lab that stands into its folder, and print where."""
    if (lab.folder / ".lab").exists():
        for archive in lab.inv("logs").said.split():
            if archive.endswith(".tar.gz") and Path(archive).is_absolute():
                print("kept:", shutil.move(archive, lab.folder))


def _remove_labs(place: Path) -> None:
    """Remove the lab in each folder of `place`: tests move theirs."""
    for workspace in place.glob("*/.lab"):
        TestLab(workspace.parent).succeed("destroy", "--yes")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, TestLab):
                _keep_logs(value)


@pytest.fixture(scope="session")
def seven() -> Iterator[TestLab]:
    """Seven machines, brought up by the first test that uses them."""
    with only_lab("ha-lab-test", network={"subnet": "192.168.57.0/24"}) as made:
        yield made


@pytest.fixture(scope="session")
def small() -> Iterator[TestLab]:
    """One control plane and one worker, with two load balancers and external etcd, beside the seven."""
    data = yaml.safe_load((REPOSITORY / "examples" / "external-etcd-small.yaml").read_text(encoding="utf-8"))
    data["name"], data["network"]["subnet"] = "ha-lab-small-test", "192.168.59.0/24"
    for group in data["nodes"].values():
        group.pop("first_address", None)
    data["nodes"]["load_balancers"] = {"count": 2}
    with only_lab(**data) as made:
        yield made
