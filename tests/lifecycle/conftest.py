"""The lab that lives through this suite.

It begins small, and grows, shrinks, moves, and is killed on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.labs.conftest import TestLab, only_lab


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often a verb is killed at a random moment")
    parser.addoption("--kills-from", type=int, default=2, choices=(2, 7), help="machines of that lab at first")
    parser.addoption("--seed", type=int, default=None, help="repeat the moments of an earlier run")


LONGEST = 2400
"""Seconds for one change: an upgrade takes 8 minutes, and several times as long beside other work."""


class LivingLab:
    """A lab whose lab.yaml is edited, and whose folder may move."""

    def __init__(self, lab: TestLab) -> None:
        """Begin with what was made."""
        self.lab = lab

    @property
    def lab_file(self) -> Path:
        return self.lab.folder / "lab.yaml"

    def edit(self, **counts: int) -> None:
        """Change how many machines of each group lab.yaml names."""
        data = yaml.safe_load(self.lab_file.read_text(encoding="utf-8"))
        for group, count in counts.items():
            data.setdefault("nodes", {}).setdefault(group, {})["count"] = count
        self.lab_file.write_text(yaml.safe_dump(data), encoding="utf-8")

    def change(self, **sections: Any) -> None:
        """Change other keys of lab.yaml."""
        data = yaml.safe_load(self.lab_file.read_text(encoding="utf-8"))
        self.lab_file.write_text(yaml.safe_dump(data | sections), encoding="utf-8")

    def plan(self) -> tuple[int, dict[str, Any]]:
        """What `plan` says: its exit code and its JSON."""
        ended = self.lab.inv("plan", "--json")
        return ended.code, json.loads(ended.out)

    def verified(self) -> None:
        """Every check holds."""
        self.lab.succeed("verify")

    def measured(self, *words: str) -> dict[str, float]:
        """Change the lab with the probes running; what users noticed, figure by figure, all within limits."""
        ended = self.lab.inv(*words, "--yes", "--measure", timeout=LONGEST)
        assert ended.code == 0, ended.said
        reports = sorted((self.lab.folder / ".lab" / "drills").glob("*/report.json"))
        (result,) = json.loads(reports[-1].read_text(encoding="utf-8"))["results"]
        return {figure["name"]: figure["value"] for figure in result["figures"]}

    def move(self, name: str) -> None:
        """Rename the folder that the lab lies in."""
        target = self.lab.folder.with_name(name)
        shutil.move(self.lab.folder, target)
        self.lab = TestLab(target)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a command and everything that it has started, sessions of their own included."""
    for pid in [*_children(process.pid), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _children(pid: int) -> list[int]:
    found = []
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    for child in map(int, listed.stdout.split()):
        found += [*_children(child), child]
    return found


@pytest.fixture(scope="session")
def living() -> Iterator[LivingLab]:
    sections: dict[str, Any] = {
        "kubernetes": {"version": "1.35.4"},  # it is upgraded on the way
        "network": {"subnet": "192.168.58.0/24"},
        "nodes": {"control_planes": {"count": 1}, "workers": {"count": 1}},
    }
    with only_lab("ha-lab-lifecycle", **sections) as made:
        baked = made.inv("bake", "--yes", timeout=3600)
        assert baked.code == 0, baked.said
        yield LivingLab(made)
