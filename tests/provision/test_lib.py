from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from lab.system.paths import PROVISION

FIRST = "FIRST_NOTICE=5"
# A second passes with each sleep, which takes no time: SECONDS, once unset, is no clock any more (bash(1)).
QUICK = "unset SECONDS; SECONDS=0; sleep() { ((SECONDS += 1)); }; date() { echo 12:00:00; }; "


def waited(folder: Path, line: str, *, env: str = "", first: int = 5) -> subprocess.CompletedProcess[str]:
    """Run a line of bash with lib.sh, which shows its first notice after `first` seconds."""
    text = (PROVISION / "lib.sh").read_text()
    assert FIRST in text
    (folder / "lib.sh").write_text(text.replace(FIRST, f"FIRST_NOTICE={first}"))
    (folder / "node.env").write_text(env)
    script = f"source {folder}/lib.sh; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("known", "seconds", "pause"), [("", 2, "0.3"), ("LAB_PATIENCE=10\n", 20, "5")])
def test_waiting_lasts_longer_and_asks_less_often_where_machines_are_emulated(
    tmp_path: Path, known: str, seconds: int, pause: str
) -> None:
    line = 'sleep() { echo "pause $1"; ((SECONDS += 1)); }; wait_for 2 "rain" false'
    said = waited(tmp_path, line, env=known)
    assert said.returncode != 0
    assert f"after {seconds} s waiting for rain: no reason given" in said.stderr
    assert {text for text in said.stdout.splitlines() if "waiting" not in text} == {f"pause {pause}"}


def test_a_wait_says_after_5_s_and_then_every_15_s_what_it_waits_for(tmp_path: Path) -> None:
    line = QUICK + "dry() { echo 'a warning'; echo 'no cloud'; return 1; }; wait_for 40 'rain' dry"
    said = waited(tmp_path, line)
    assert said.returncode != 0
    assert said.stdout.splitlines() == [
        f"[12:00:00] waiting for rain ({seconds} s): no cloud" for seconds in (5, 20, 35)
    ]
    assert "after 40 s waiting for rain: a warning\nno cloud" in said.stderr


def test_a_wait_that_ends_soon_says_nothing(tmp_path: Path) -> None:
    said = waited(tmp_path, QUICK + "wet() { ((SECONDS > 3)); }; wait_for 40 'rain' wet; finish")
    assert (said.returncode, said.stdout, said.stderr) == (0, "ha-lab: unchanged\n", "")


def test_a_wait_says_what_it_waits_for_while_its_question_has_no_answer(tmp_path: Path) -> None:
    began = time.monotonic()
    line = "slow() { command sleep 1.5; echo 'no cloud'; }; wait_for 40 'rain' slow; finish"
    said = waited(tmp_path, line, first=1)
    assert time.monotonic() - began < 10
    first, last = said.stdout.splitlines()
    assert re.search(r"\] waiting for rain \(\d+ s\): no answer yet$", first)
    assert last == "ha-lab: unchanged"


def test_a_wait_s_question_may_fail_in_the_middle_and_prints_no_stack(tmp_path: Path) -> None:
    line = QUICK + "asked() { false; echo 'wet'; }; wait_for 2 'rain' asked; finish"
    said = waited(tmp_path, line)
    assert (said.returncode, said.stdout, said.stderr) == (0, "ha-lab: unchanged\n", "")


def test_a_wait_s_question_may_leave_with_exit_and_is_asked_again(tmp_path: Path) -> None:
    line = QUICK + "gone() { echo 'no cloud'; exit 3; }; wait_for 2 'rain' gone"
    said = waited(tmp_path, line)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("ERROR: gave up after 2 s waiting for rain: no cloud\n")


def test_a_command_that_is_silent_is_named_with_its_last_line_and_keeps_its_exit_code(tmp_path: Path) -> None:
    says = "printf 'a \\e[0;32mcloud\\e[0m\\n' >&2; "
    says += "echo '    [WARNING Sun]: it shines' >&2; sleep 1.5; printf wet; exit 3"
    line = f"with_notices 'rain' bash -c \"{says}\" || echo code $?"
    said = waited(tmp_path, line, first=1)
    first, warning, notice, *rest = said.stdout.splitlines()
    assert (first, warning, rest) == (
        "a \x1b[0;32mcloud\x1b[0m",
        "    [WARNING Sun]: it shines",
        ["wet", "code 3"],
    )
    assert re.search(r"\] waiting for rain \(\d+ s\): a cloud$", notice)


def test_a_command_that_talks_needs_no_notice_and_a_failure_ends_the_script(tmp_path: Path) -> None:
    said = waited(tmp_path, "with_notices 'rain' echo wet; with_notices 'rain' false; echo on")
    assert (said.returncode, said.stdout) == (1, "wet\n")


def test_a_command_is_not_run_where_its_output_can_t_be_read(tmp_path: Path) -> None:
    line = f"export TMPDIR={tmp_path}/none; with_notices 'rain' touch {tmp_path}/ran || true; echo on"
    said = waited(tmp_path, line)
    assert (said.returncode, said.stdout, (tmp_path / "ran").exists()) == (1, "", False)
    assert re.search(r"ERROR: \S+ can't be created\n$", said.stderr)


def test_a_file_that_can_t_be_written_completely_stays_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "config.yaml"
    kept.write_text("all of it\n")
    full = "cat() { echo half; echo 'cat: write error: No space left on device' >&2; return 1; }; "
    said = waited(tmp_path, f"{full} place 644 {kept} < <(echo more) || true; echo went on")
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == f"ERROR: {kept} can't be written"
    assert "went on" not in said.stdout
    assert kept.read_text() == "all of it\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "lib.sh", "node.env"]
