"""Unit tests are the same on every host: what `auto` comes to in them does not hang on its hypervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import hypervisor


@pytest.fixture(autouse=True)
def _no_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hypervisor, "KVM", tmp_path / "no-kvm")
