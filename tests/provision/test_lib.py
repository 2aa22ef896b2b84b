from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.paths import PROVISION


@pytest.mark.parametrize(("known", "seconds", "pause"), [("", 2, "0.3"), ("LAB_PATIENCE=10\n", 20, "5")])
def test_waiting_lasts_longer_and_asks_less_often_where_machines_are_emulated(
    tmp_path: Path, known: str, seconds: int, pause: str
) -> None:
    (tmp_path / "lib.sh").write_text((PROVISION / "lib.sh").read_text())
    (tmp_path / "node.env").write_text(known)
    # A second passes with each sleep.
    script = f'source {tmp_path}/lib.sh; sleep() {{ echo "$1"; ((SECONDS += 1)); }}; wait_for 2 "rain" false'
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert f"rain: not after {seconds} s" in said.stderr
    assert set(said.stdout.split()) == {pause}
