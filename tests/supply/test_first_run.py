"""What measures a first run: its report is read right, and its caches are its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.golden import image
from lab.host import cache_folder
from lab.model import Lab
from tests.bench import first_run
from tests.bench.first_run import Run
from tests.unit.fakes import printed


def step(name: str, machine: str, started: float, seconds: float) -> dict[str, object]:
    return {"name": name, "machine": machine, "started": started, "seconds": seconds}


REPORT = {
    "remarks": ["Kubernetes 1.36.3: 15 parts downloaded from upstream and verified"],
    "steps": [
        step("upstream", "", 5, 35.04),
        step("golden", "", 200, 40),
        step("nodes-ready", "cp1", 300, 20),
        step("healthy", "", 320, 9),
    ],
}


def test_a_run_ends_when_all_nodes_are_ready() -> None:
    found = first_run.result("upstream", REPORT, 330)
    assert found == Run(
        "upstream",
        320,
        80,
        ("Kubernetes 1.36.3: 15 parts downloaded from upstream and verified",),
        {"upstream": 35.0, "golden": 40, "cp1 nodes-ready": 20, "healthy": 9},
    )


def test_both_runs_are_shown_side_by_side() -> None:
    runs = [Run("upstream", 320, 80, (), {"upstream": 35}), Run("modules", 900, 81, (), {"build-etcd": 60})]
    console, text = printed()
    console.print(first_run.table(runs, 100))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[0] == "first run, 100 Mbit/s upstream modules"
    assert {
        "empty caches to all nodes Ready 320 s 900 s",
        "step upstream 35 s -",
        "step build-etcd - 60 s",
    } <= set(lines)


def test_caches_are_empty_meanwhile_and_the_user_s_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOCACHE", "/of/the/user")
    monkeypatch.delenv("GOMODCACHE", raising=False)
    before = cache_folder()
    with first_run.empty_caches(tmp_path / "cache"):
        assert cache_folder() == tmp_path / "cache" / "ha-lab"
        assert os.environ["GOMODCACHE"] == str(tmp_path / "cache" / "modules")
        read_only = tmp_path / "cache" / "modules"
        read_only.mkdir()
        read_only.chmod(0o555)
    assert cache_folder() == before
    assert (os.environ["GOCACHE"], os.environ.get("GOMODCACHE")) == ("/of/the/user", None)
    assert not (tmp_path / "cache").exists()


def test_it_is_started_by_a_module_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["first_run", "--help"])
    with pytest.raises(SystemExit) as caught:
        first_run.main()
    assert caught.value.code == 0
    assert "--rate" in capsys.readouterr().out


def test_nothing_is_measured_where_the_golden_machine_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def exists(lab: Lab, name: str) -> bool:
        asked.append(lab.kubernetes.source)
        return True

    monkeypatch.setattr(image, "exists", exists)
    monkeypatch.setattr("sys.argv", ["first_run"])
    with pytest.raises(SystemExit, match=r"exists: `docker image rm \S+` removes it"):
        first_run.main()
    assert asked == ["modules"]
