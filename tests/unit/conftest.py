"""Unit tests are the same on every host, whatever its hypervisor, and leave nothing on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import remote
from lab.host import hypervisor


@pytest.fixture(autouse=True)
def _no_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `auto` comes to does not hang on the host."""
    monkeypatch.setattr(hypervisor, "KVM", tmp_path / "no-kvm")


@pytest.fixture(autouse=True)
def _own_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "SOCKETS", tmp_path)
