"""What a probe pod asks from inside (provision/pod/ask.sh), with programs of this test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.system.paths import PROVISION
from tests.unit.fakes import program


def asked(tmp_path: Path, *, lost: int) -> dict[str, str]:
    """Run the script where the first connections to the Service get no answer; return what it says."""
    programs = {
        "wget": f'echo >>asked; [ "$(wc -l <asked)" -gt {lost} ] || exec sleep 30; printf w1',
        "nslookup": "echo Address: 10.96.0.1",
        "perl": "exit 0",
    }
    for name, body in programs.items():
        program(tmp_path, name, body)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NODE": "w1", "ASK_UNDER_POLICY": "", "PAYLOAD": "x"}
    words = ["sh", str(PROVISION / "pod" / "ask.sh"), "10.96.0.9", "30000", ""]
    said = subprocess.run(
        words, cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True, text=True
    ).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_connections_from_before_a_service_s_rules_are_given_up_soon(tmp_path: Path, lost: int) -> None:
    assert asked(tmp_path, lost=lost) == {"dns": "10.96.0.1", "service": "w1"}


def test_a_service_without_rules_does_not_answer(tmp_path: Path) -> None:
    assert asked(tmp_path, lost=4)["service"] == "no answer"
