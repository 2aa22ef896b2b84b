"""The command with which kube-router starts beside kube-proxy, run with programs of this test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from lab import config
from lab.model.roles import NETWORK_POLICY
from tests.unit.fakes import program
from tests.unit.test_render import texts


class Started(NamedTuple):
    """What became of the container's command: how often iptables was asked, and what ran in the end."""

    asked: int
    ran: str


def start(tmp_path: Path, *, succeeds_at: int) -> Started:
    """Run the DaemonSet's command where iptables finds kube-proxy's chain only when asked for so many times."""
    documents = yaml.safe_load_all(texts(config.default())[f"nodes/cp1/{NETWORK_POLICY}"])
    pod = next(each for each in documents if each["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    programs = {
        "iptables": f'echo "$*" >>asked; [ "$*" = "--table nat --list-rules KUBE-MARK-MASQ" ] || exit 2\n'
        f'[ "$(wc -l <asked)" -ge {succeeds_at} ]',
        "sleep": '[ "$1" = 0.2 ]',
        "kube-router": 'echo "$*" >ran',
    }
    for name, body in programs.items():
        program(tmp_path, name, body)
    words = [*container["command"], *container["args"]]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(words, cwd=tmp_path, env=env, check=True, timeout=60)
    return Started(len((tmp_path / "asked").read_text().splitlines()), (tmp_path / "ran").read_text().strip())


@pytest.mark.parametrize("succeeds_at", [1, 3])
def test_kube_router_starts_once_kube_proxy_has_written_its_rules(tmp_path: Path, succeeds_at: int) -> None:
    started = start(tmp_path, succeeds_at=succeeds_at)
    assert started.asked == succeeds_at
    assert started.ran.split()[0] == "--run-firewall=true"


def test_kube_router_starts_without_kube_proxy_after_20_s(tmp_path: Path) -> None:
    assert start(tmp_path, succeeds_at=1000).asked == 100
