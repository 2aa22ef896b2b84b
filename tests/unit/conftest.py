"""Unit tests are the same on every host, whatever its hypervisor, and leave nothing on it."""

from __future__ import annotations

import functools
import gc
import itertools
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lab import remote
from lab.golden.supply import lock
from lab.host import hypervisor
from lab.system import process, wait
from tests.unit.hosts import FakeRun

NEXT = itertools.cycle(range(3))
real_key = rsa.generate_private_key


@functools.cache
def key(number: int) -> rsa.RSAPrivateKey:
    return real_key(public_exponent=65537, key_size=2048)


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: no collection of garbage need look at them.

    Not for all suites: `verify` runs its checks in its own process, again and again with --watch.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def keys_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three RSA keys in turn for all labs' CAs: to make one takes longer than most tests."""

    def generate(public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        assert (public_exponent, key_size) == (65537, 2048)
        return key(next(NEXT))

    monkeypatch.setattr(rsa, "generate_private_key", generate)


@pytest.fixture(autouse=True)
def nothing_is_pinned(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    """As without locks of upstream's parts: with them, a lab asks its provider which golden machine it has."""
    monkeypatch.setattr(lock, "FOLDER", nowhere / "locks")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """The host's programs: each answers what a test has told it to, and none that a test has not."""
    told = FakeRun()
    monkeypatch.setattr(process, "run", told)
    return told


@pytest.fixture(scope="session")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests of a process: most need none, and to make each its own takes time."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture(autouse=True)
def _no_kvm(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    """What `auto` comes to does not hang on the host."""
    monkeypatch.setattr(hypervisor, "KVM", nowhere / "no-kvm")


@pytest.fixture(autouse=True)
def _own_sockets(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    monkeypatch.setattr(remote, "SOCKETS", nowhere)


class ShortPauses:
    """The real time, with pauses of at most 10 ms."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def sleep(seconds: float, /) -> None:
        """Sleep for that long, or 10 ms."""
        time.sleep(min(seconds, 0.01))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a waiter ask again soon: nothing that unit tests wait for takes as long as a machine does."""
    defaults = wait.wait_until.__kwdefaults__
    assert defaults is not None
    assert defaults["clock"] is time
    monkeypatch.setitem(defaults, "clock", ShortPauses())
