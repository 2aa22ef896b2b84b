"""Sessions for tests of what the verbs do: a lab file in a folder, whatever host the tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import host
from lab.golden import image
from lab.session import Session, open_made, open_wanted
from lab.workspace import Workspace
from tests.unit.fakes import printed

LAB_YAML = "name: mine\nprovider: docker\n"
GOLDEN = "ha-lab/golden:0123456789abcdef"


def on_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let neither the host's capabilities nor what is baked there change what is rendered."""
    monkeypatch.setattr(host, "node_capabilities", lambda: ("NET_ADMIN",))
    monkeypatch.setattr(image, "name", lambda lab: GOLDEN)


def wanted(folder: Path, text: str = LAB_YAML) -> Session:
    """The lab of a lab file with that text."""
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(text)
    return open_wanted(folder / "lab.yaml", printed()[0])


def as_made(folder: Path, text: str | None = None) -> Session:
    """The lab as it was made, its lab file having that text by now."""
    if text is not None:
        (folder / "lab.yaml").write_text(text)
    return open_made(folder / "lab.yaml", printed()[0])


def let_exist(workspace: Workspace, *names: str) -> None:
    """Let Vagrant know machines of these names."""
    for name in names or ("cp1",):
        workspace.write(workspace.root / ".vagrant/machines" / name / "docker/id", f"id of {name}")
