"""Collects what a bug report needs into one archive without secrets.

Files with secrets are not collected, and in every text, what looks like a secret is replaced.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from datetime import datetime
from pathlib import Path

from lab.errors import LabError
from lab.host.doctor import examination, finding
from lab.model import Node
from lab.remote import side_by_side
from lab.session import Session
from lab.system.redact import redacted


def collect(session: Session) -> Path:
    """Write `.lab/logs-DATE.tar.gz` and return its path. It lists the machines that don't respond."""
    workspace = session.workspace
    target = workspace.root / f"logs-{datetime.now().astimezone():%Y%m%d-%H%M%S}.tar.gz"
    workspace.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, tarfile.open(target, "w:gz") as archive:
        folder = Path(name)
        _host(session, folder)
        _machines(session, folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                path.write_text(redacted(path.read_text(encoding="utf-8", errors="replace")), encoding="utf-8")
                archive.add(path, arcname=f"{session.lab.name}-logs/{path.relative_to(folder)}")
    target.chmod(0o600)
    return target


def _host(session: Session, folder: Path) -> None:
    workspace = session.workspace
    kept = [workspace.vagrantfile, workspace.identity, workspace.report, session.path]
    for logs in (workspace.logs, workspace.root / "logs.previous"):
        kept += sorted(logs.glob("*.log")) if logs.exists() else []
    for path in kept:
        if path.is_file():
            copy = folder / "host" / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text(encoding="utf-8", errors="replace"), encoding="utf-8")
    (folder / "host").mkdir(exist_ok=True)
    findings = examination.look(session.lab, workspace, baked=True)
    (folder / "host" / "doctor.json").write_text(finding.to_json(findings), encoding="utf-8")


def _machines(session: Session, folder: Path) -> None:
    if not session.workspace.ssh_config.exists() or session.remote.route_problem():
        (folder / "machines.txt").write_text("the lab's network is not up: no machine was asked\n")
        return

    def ask(node: Node) -> str:
        try:
            _machine(session, node, folder / node.name)
        except (LabError, tarfile.TarError, OSError) as error:
            return f"could not be asked: {error}"
        return "collected"

    said = side_by_side("collecting logs", session.lab.nodes, ask)
    (folder / "machines.txt").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _machine(session: Session, node: Node, folder: Path) -> None:
    folder.mkdir()
    packed = folder / "collected.tar"
    session.remote.run(node, ["sudo", "/opt/ha-lab/collect.sh"], output=packed, timeout=120)
    _unpack(packed, folder)
    pods = folder / "pods.tar"
    if pods.exists():
        _unpack(pods, folder / "pods")


def _unpack(packed: Path, folder: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()
