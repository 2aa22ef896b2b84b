"""Unit tests are the same on every host, whatever its hypervisor, and leave nothing on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import remote
from lab.host import hypervisor


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
