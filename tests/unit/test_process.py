from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandFailed, CommandTimedOut
from lab.system import process

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
SECRET = "abcdef.0123456789abcdef"  # noqa: S105  nobody's


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 3) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def written(path: Path, seconds: float = 5) -> int:
    """The process id that a child writes to a file, once it has."""
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < end, f"nobody wrote {path}"
        time.sleep(0.02)
    return int(path.read_text())


def test_words_reach_the_program_as_they_are() -> None:
    words = ["a b", "$(id)", "'", '"', "", "*"]
    result = process.run(["printf", "%s|", *words])
    assert result.stdout == "a b|$(id)|'|\"||*|"
    assert result.argv == ("printf", "%s|", *words)
    assert result.ok


def test_paths_are_words_too(tmp_path: Path) -> None:
    assert process.run(["ls", tmp_path]).ok


def test_an_exit_code_that_is_an_answer_is_returned() -> None:
    result = process.run(["sh", "-c", "exit 3"], accept=(0, 3))
    assert (result.returncode, result.ok) == (3, False)
    assert process.run(["sh", "-c", "exit 9"], accept=None).returncode == 9


def test_any_other_exit_code_is_an_error_with_what_was_said_last() -> None:
    with pytest.raises(CommandFailed, match="ended with exit code 3") as caught:
        process.run(["sh", "-c", "seq 50 >&2; exit 3"], hint="count less")
    assert caught.value.returncode == 3
    assert caught.value.tail.splitlines() == [str(n) for n in range(39, 51)]
    assert caught.value.hint == "count less"
    with pytest.raises(CommandFailed, match="ended with exit code 0"):
        process.run(["true"], accept=(1,))


def test_what_a_failed_command_printed_stands_in_for_silence_on_its_error_output() -> None:
    with pytest.raises(CommandFailed) as caught:
        process.run(["sh", "-c", "echo only here; exit 1"])
    assert caught.value.tail == "only here"


def test_a_key_that_a_failed_command_printed_is_not_in_its_error() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\\n" + "S3CRET\\n" * 20 + "-----END RSA PRIVATE KEY-----\\n"
    with pytest.raises(CommandFailed) as caught:
        process.run(["sh", "-c", f"printf -- '{key}'; exit 1", "x"])
    assert caught.value.tail == "[key]"


def test_a_command_ended_by_a_signal_is_said_to_be() -> None:
    with pytest.raises(CommandFailed, match="was ended by SIGKILL"):
        process.run(["sh", "-c", "kill -KILL $$"])


def test_a_missing_program_is_named_with_what_to_do() -> None:
    with pytest.raises(CommandFailed, match=r"`no-such-program x` could not start") as caught:
        process.run(["no-such-program", "x"])
    assert caught.value.hint == "install `no-such-program`"


def test_a_program_that_may_not_run_is_an_error_and_no_fault(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("x")
    with pytest.raises(CommandFailed, match="could not start: Permission denied"):
        process.run([program])


def test_standard_input_reaches_the_command_as_text_or_bytes() -> None:
    assert process.run(["cat"], stdin="text").stdout == "text"
    assert process.run(["wc", "-c"], stdin=b"\xff\x00").stdout.strip() == "2"


def test_without_standard_input_a_command_reads_nothing() -> None:
    assert process.run(["cat"], timeout=5).stdout == ""


def test_standard_input_is_neither_in_the_error_nor_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    for where in (log, None):
        with pytest.raises(CommandFailed) as caught:
            process.run(["sh", "-c", "cat >/dev/null; exit 1"], stdin=SECRET, log=where)
        assert SECRET not in f"{caught.value} {caught.value.argv} {caught.value.tail}"
    assert SECRET not in log.read_text()


def test_a_log_gets_the_command_line_and_all_output_in_order(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "01-step.log"
    result = process.run(["sh", "-c", "echo one; echo two >&2; echo three"], log=log)
    assert log.read_text() == "$ sh -c 'echo one; echo two >&2; echo three'\none\ntwo\nthree\n"
    assert (result.stdout, result.stderr) == ("", "")
    process.run(["echo", "more"], log=log)
    assert log.read_text().endswith("$ echo more\nmore\n")


def test_a_failure_with_a_log_tells_its_last_lines_and_where_it_is(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    with pytest.raises(CommandFailed) as caught:
        process.run(["sh", "-c", "echo the reason; exit 1"], log=log)
    assert caught.value.log == log
    assert caught.value.tail.endswith("the reason")


def test_output_goes_to_a_file_byte_for_byte(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    process.run(["printf", r"\377\000\n"], output=target)
    assert target.read_bytes() == b"\xff\x00\n"


def test_a_gentle_command_has_the_lowest_priority() -> None:
    # The priority is set once it runs. Not every kernel has groups.
    words = ["sh", "-c", "sleep 0.5; nice; sed 's/.*nice //' /proc/self/autogroup || echo 19"]
    assert process.run(words, gently=True).stdout == "19\n19\n"
    assert process.run(["nice"]).stdout == f"{os.nice(0)}\n"


def test_a_command_on_this_terminal_shares_it_and_its_process_group(capfd: pytest.CaptureFixture[str]) -> None:
    said = "echo out; echo err >&2; cut -d' ' -f5 /proc/$$/stat; exit 3"
    result = process.run(["sh", "-c", said], terminal=True, accept=None)
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")
    assert capfd.readouterr() == (f"out\n{os.getpgrp()}\n", "err\n")


def test_output_that_is_not_text_is_no_fault() -> None:
    assert process.run(["printf", r"\377"]).stdout == "\ufffd"


def test_the_environment_is_added_to_and_the_folder_is_changed(tmp_path: Path) -> None:
    said = process.run(["sh", "-c", 'echo "$HA_LAB_X $HOME"; pwd'], env={"HA_LAB_X": "1"}, cwd=tmp_path)
    assert said.stdout.splitlines() == [f"1 {os.environ.get('HOME', '')}", str(tmp_path.resolve())]


def test_out_of_time_ends_the_command_and_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        process.run(["sh", "-c", f"sleep 60 & echo $! >{child}; wait"], timeout=0.6)
    assert gone(written(child))


def test_out_of_time_ends_also_children_that_outlive_the_shell(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(CommandFailed, match="did not end within"):
        process.run(["sh", "-c", f"sleep 60 & echo $! >{child}"], timeout=0.5)
    assert gone(written(child))


def test_out_of_time_ends_also_children_that_don_t_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    child = tmp_path / "child"
    deaf = f"sh -c 'trap \"\" TERM; echo $$ >{child}; while :; do sleep 0.1; done' & wait"
    with pytest.raises(CommandFailed, match="did not end within"):
        process.run(["sh", "-c", deaf], timeout=0.5)
    assert gone(written(child))


def test_children_that_have_ended_are_not_waited_for_until_another_process_reaps_them(tmp_path: Path) -> None:
    """As in a container whose first process reaps late or never; here this process takes its place."""
    prctl, child = ctypes.CDLL(None, use_errno=True).prctl, tmp_path / "child"
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        began = time.monotonic()
        with pytest.raises(CommandFailed, match="did not end within"):
            process.run(["sh", "-c", f"sleep 60 & echo $! >{child}; wait"], timeout=0.5)
        assert time.monotonic() - began < process.GRACE
        assert os.waitpid(written(child), os.WNOHANG)[0] == written(child), "it was there, as a zombie"
    finally:
        assert prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


def test_a_command_that_is_interrupted_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"

    def interrupted(*_: Any, **__: Any) -> None:
        written(child)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.run(["sh", "-c", f"sleep 60 & echo $! >{child}; wait"])
    assert gone(written(child))


def test_end_all_ends_what_other_threads_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stopped", threading.Event())
    errors = []

    def work(number: int) -> None:
        try:
            process.run(["sh", "-c", f"echo $$ >{tmp_path / str(number)}; exec sleep 60"])
        except CommandFailed as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    pids = [written(tmp_path / str(number)) for number in range(3)]
    process.end_all()
    for thread in threads:
        thread.join(5)
    assert len(errors) == 3
    assert all(gone(pid) for pid in pids)


def test_after_end_all_nothing_is_started_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stopped", threading.Event())
    process.end_all()
    with pytest.raises(CommandFailed, match="was not started: this run was interrupted"):
        process.run(["touch", tmp_path / "made"])
    assert not (tmp_path / "made").exists()


def test_root_needs_no_sudo_and_others_say_where_words_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert process.as_root("rm", Path("/x")) == ["rm", "/x"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert process.as_root("rm", "-f") == ["sudo", "--", "rm", "-f"]


def test_becoming_a_missing_program_is_an_error() -> None:
    with pytest.raises(CommandFailed, match="no such program"):
        process.replace(["no-such-program"])


def test_a_command_that_fills_a_folder_may_take_its_time(tmp_path: Path) -> None:
    script = f"for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo x >>{tmp_path}/file; done"
    assert process.run(["sh", "-c", script], timeout=0.35, idle_timeout_folder=tmp_path).seconds > 0.7


def test_a_command_that_stops_filling_a_folder_is_ended(tmp_path: Path) -> None:
    script = f"echo x >{tmp_path}/file; sleep 60"
    with pytest.raises(CommandFailed, match="received nothing for 0 s"):
        process.run(["sh", "-c", script], timeout=0.4, idle_timeout_folder=tmp_path)


# A command that is followed.


def never() -> bool:
    return False


def test_lines_are_heard_as_they_come_and_the_last_without_an_end_is_not() -> None:
    heard: list[tuple[str, float]] = []
    began = time.monotonic()
    result = process.follow(
        ["sh", "-c", "echo a; echo b; sleep 0.6; echo ' c'; printf d; echo why >&2; exit 3"],
        lambda line: heard.append((line, time.monotonic() - began)),
        silence=20,
        over=never,
    )
    assert [line for line, _ in heard] == ["a", "b", " c"]
    assert heard[2][1] - heard[1][1] > 0.4, "the first two were not kept until the end"
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "why\n")


def test_a_command_that_says_nothing_for_too_long_is_killed(tmp_path: Path) -> None:
    heard: list[str] = []
    child = tmp_path / "child"
    # What goes to standard error is no sign of life.
    words = ["sh", "-c", f"echo $$ >{child}; echo a; while sleep 0.1; do echo . >&2; done"]
    with pytest.raises(CommandTimedOut, match="said nothing for 1 s"):
        process.follow(words, heard.append, silence=1, over=never)
    assert heard == ["a"]
    assert gone(written(child))


def test_a_command_that_says_something_now_and_then_lives_longer_than_its_silence() -> None:
    heard: list[str] = []
    words = ["sh", "-c", "for i in 1 2 3 4 5 6 7; do echo $i; sleep 0.5; done"]
    assert process.follow(words, heard.append, silence=2.5, over=never).ok
    assert len(heard) == 7


def test_a_followed_command_ends_once_it_is_over_even_while_it_is_silent(tmp_path: Path) -> None:
    child, over = tmp_path / "child", threading.Event()
    threading.Timer(0.5, over.set).start()
    began = time.monotonic()
    words = ["sh", "-c", f"echo $$ >{child}; sleep 60; true"]
    process.follow(words, lambda line: None, silence=60, over=over.is_set)
    assert time.monotonic() - began < 20
    assert gone(written(child))


def test_what_hearing_a_line_raises_ends_the_command(tmp_path: Path) -> None:
    child = tmp_path / "child"

    def hear(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="a"):
        process.follow(["sh", "-c", f"echo $$ >{child}; echo a; sleep 60"], hear, silence=60, over=never)
    assert gone(written(child))


def test_of_much_that_is_said_in_error_the_end_is_kept() -> None:
    words = ["sh", "-c", "yes no | head -c 300000 >&2; echo last >&2"]
    result = process.follow(words, lambda line: None, silence=60, over=never)
    assert result.stderr.endswith("no\nlast\n")
    assert len(result.stderr) == process.ERRORS_KEPT


def test_a_missing_program_can_not_be_followed() -> None:
    with pytest.raises(CommandFailed, match="no such program"):
        process.follow(["no-such-program"], lambda line: None, silence=1, over=never)
