"""Nothing that could add a machine is left, and what must be private is."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

from lab.cluster import Api
from lab.model import Lab, Node
from lab.session import Session


def test_no_bootstrap_token_is_left(api: Api) -> None:
    found = [name for name, kind in api.secrets("kube-system") if kind == "bootstrap.kubernetes.io/token"]
    assert not found, f"{len(found)} bootstrap tokens could still add machines"


def test_the_uploaded_certificates_are_gone(api: Api) -> None:
    assert "kubeadm-certs" not in {name for name, _ in api.secrets("kube-system")}


def test_no_run_secret_is_left_on_the_machine(host: Callable[[Node], Any], machine: Node) -> None:
    found = host(machine).check_output(
        "find /run/ha-lab /tmp -maxdepth 2 -name secrets -o -maxdepth 2 -name kubeadm.yaml"
        " -o -maxdepth 2 -name ca.key -o -maxdepth 2 -name token.conf 2>/dev/null || true"
    )
    assert found == "", f"left on {machine.name}: {found}"


def test_the_kubeconfig_is_the_owners_alone_and_points_at_the_load_balancer(lab: Lab, session: Session) -> None:
    path = session.workspace.kubeconfig
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"server: {lab.api_url}\n" in path.read_text(encoding="utf-8")


def test_the_labs_secrets_are_the_owners_alone(session: Session) -> None:
    assert stat.S_IMODE(session.workspace.secrets.stat().st_mode) == 0o700
    open_to_others = [p for p in session.workspace.secrets.rglob("*") if p.stat().st_mode & 0o077]
    assert not open_to_others


def test_vagrants_well_known_key_opens_nothing(host: Callable[[Node], Any], machine: Node) -> None:
    keys = host(machine).check_output("cat /home/vagrant/.ssh/authorized_keys")
    assert "vagrant insecure" not in keys
    assert len(keys.splitlines()) == 1
