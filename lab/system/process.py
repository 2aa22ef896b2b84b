"""Runs every command on the host: each one is started, logged and ended here.

A command is a list of arguments, never a shell line. Standard input is never logged, so secrets are passed only
that way. A command gets the environment that `lab.system.environment` builds, and what its caller adds. When it
is interrupted or times out, its process group is killed, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import CommandFailed, CommandTimedOut, LabError
from lab.system import environment, proxies, quoting
from lab.system.redact import redacted

TAIL_LINES = 12
"""How many of a failed command's last lines its error shows; the log has them all."""

TAIL_SEARCHED = 2**16
"""How many of the last characters are searched for secrets: a long key may begin before the tail."""

LOOK_AGAIN = 0.3
"""Seconds after which a command that is followed is looked at again, even if it says nothing."""

ERRORS_KEPT = 2**12
"""How many of the last bytes of standard error are kept of a command that is followed."""

GRACE = 5.0
"""Seconds that a command has to end after SIGTERM."""

_running: set[subprocess.Popen[bytes]] = set()
_stopped = threading.Event()
_running_lock = threading.Lock()
_ending: threading.Thread | None = None
_INTERRUPTED = "was not started: this run was interrupted"


@dataclass(frozen=True)
class Result:
    """A finished command: its arguments, exit code, output, and how long it took."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the exit code was zero."""
        return self.returncode == 0


LOWEST_PRIORITY = 19
"""Of nice values."""

GROUP_TRIES = 30
"""How often a session's priority is written: the kernel accepts one each 0.1 s, and all of root's."""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    timeout: float | None = None,
    accept: Collection[int] | None = (0,),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    output: Path | None = None,
    source: Path | None = None,
    idle_timeout_folder: Path | None = None,
    terminal: bool = False,
    gently: bool = False,
    hint: str = "",
) -> Result:
    """Run a command to its end and return its result.

    `accept` lists the exit codes that count as answers (None: any). `env` adds to the kit's environment
    (`lab.system.environment.base`); nothing else of the user's environment is passed on.
    With `log`, standard output and error go to that file, together, as they come, and the result's
    texts are empty; with `output`, standard output goes to that file, byte for byte. With `source`, standard
    input is that file, which may be larger than memory. With
    `idle_timeout_folder`, a folder that the command fills, `timeout` counts only the seconds in which that
    folder does not grow. With `terminal`, the command shares standard input, output and error with this
    process, and the result's texts are empty. With `gently`, it has the lowest CPU
    priority. Raises CommandFailed on any other exit code or a missing program, CommandTimedOut on a timeout.
    """
    words = [str(word) for word in argv]
    started = time.monotonic()
    given = stdin.encode() if isinstance(stdin, str) else stdin
    process = _start(words, given is not None, cwd, env, log, output, source, terminal, hint)
    try:
        if gently:
            _lower_priority(process.pid)
        stdout, stderr = _communicate(process, given, timeout, idle_timeout_folder)
    except subprocess.TimeoutExpired as error:
        _end(process)
        waited = f"{timeout:.0f} s"
        what = f"received nothing for {waited}" if idle_timeout_folder else f"did not end within {waited}"
        raise CommandTimedOut(words, what, tail=_tail(log, ""), hint=hint, log=log) from error
    except BaseException:
        _end(process)
        raise
    finally:
        _forget(process)
    result = Result(
        tuple(words),
        process.returncode,
        (stdout or b"").decode(errors="replace"),
        (stderr or b"").decode(errors="replace"),
        time.monotonic() - started,
    )
    if accept is not None and result.returncode not in accept:
        raise CommandFailed(
            words,
            _how_it_ended(result.returncode),
            tail=_tail(log, result.stderr or result.stdout),
            hint=hint,
            log=log,
            returncode=result.returncode,
        )
    return result


def follow(
    argv: Sequence[str | Path],
    heard: Callable[[str], None],
    *,
    silence: float,
    over: Callable[[], bool],
    hint: str = "",
) -> Result:
    """Run a command to its end, or until `over()`, and give each line of its standard output to `heard`.

    Returns the result, whatever the exit code, with the end of its standard error and no standard output.
    Raises CommandTimedOut, and kills the command, after `silence` seconds without a line; CommandFailed if it
    can't start. What `heard` raises kills it, too.
    """
    words = [str(word) for word in argv]
    started = time.monotonic()
    process = _start(words, False, None, None, None, None, None, False, hint)
    try:
        errors = _give_lines(process, heard, silence, over)
        if over():
            _end(process)
        process.wait()
    except TimeoutError as error:
        _end(process)
        raise CommandTimedOut(words, f"said nothing for {silence:.0f} s", hint=hint) from error
    except BaseException:
        _end(process)
        raise
    finally:
        _forget(process)
    return Result(tuple(words), process.returncode, "", errors, time.monotonic() - started)


def replace(argv: Sequence[str | Path]) -> None:
    """Replace this process with a command on a machine; terminal and exit code become that command's.

    TERM is set to a type that machines know. Raises CommandFailed for a missing program.
    """
    words = [str(word) for word in argv]
    made = environment.base()
    made["TERM"] = environment.terminal_of_machines(made.get("TERM", ""))
    try:
        os.execvpe(words[0], words, made)
    except FileNotFoundError as error:
        raise CommandFailed(words, "could not start: no such program") from error


def as_root(*words: str | Path, online: bool = False) -> list[str]:
    """The command, with sudo unless this process is root; `run` leaves sudo its terminal.

    sudo drops the environment; with `online`, the proxy variables are kept by name.
    """
    plain = [str(word) for word in words]
    if os.geteuid() == 0:
        return plain
    kept = ",".join(proxies.environment()) if online else ""
    return ["sudo", *([f"--preserve-env={kept}"] if kept else []), "--", *plain]


def raise_if_interrupted(what: str) -> None:
    """Raise LabError once `end_all` was called: a thread can't be interrupted in another way."""
    if _stopped.is_set():
        raise LabError(f"{what}: this run was interrupted")


def end_all() -> None:
    """Kill every running command and start no more; for the code that handles Ctrl-C."""
    with _running_lock:
        _stopped.set()
        processes = list(_running)
    for process in processes:
        _end(process)


def interrupt() -> None:
    """Start no more commands and kill the running ones in the background; for a signal handler."""
    global _ending
    _stopped.set()
    _ending = threading.Thread(target=end_all)
    _ending.start()


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Run the block to its end despite interrupts: for reverting a fault, or removing what was created.

    Commands can start inside it even after an interrupt. A further interrupt or SIGTERM is deferred to the end
    and raised there as KeyboardInterrupt. For the main thread only, like signal handlers.
    """
    deferred: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _: deferred.append(number)) for each in signals]
    if _ending is not None:
        _ending.join()  # it would kill what is started from here on
    stopped = _stopped.is_set()
    _stopped.clear()
    try:
        yield
    finally:
        if stopped:
            _stopped.set()
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
    if deferred:
        raise KeyboardInterrupt


def _start(
    words: list[str],
    takes_input: bool,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    log: Path | None,
    output: Path | None,
    source: Path | None,
    terminal: bool,
    hint: str,
) -> subprocess.Popen[bytes]:
    if _stopped.is_set():
        raise CommandFailed(words, _INTERRUPTED)
    stdin: int | IO[bytes] | None = None if terminal else subprocess.DEVNULL
    if takes_input:
        stdin = subprocess.PIPE
    elif source is not None:
        stdin = source.open("rb")
    stdout: int | IO[bytes] | None = None if terminal else subprocess.PIPE
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        stdout = log.open("ab")
        stdout.write(f"$ {quoting.line(words)}\n".encode())
        stdout.flush()
    elif output is not None:
        stdout = output.open("wb")
    try:
        process = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT if log is not None else None if terminal else subprocess.PIPE,
            cwd=cwd,
            env=environment.base() | dict(env or {}),
            # sudo asks for a password on its terminal, which a new session would not have.
            start_new_session=words[0] != "sudo" and not terminal,
        )
    except FileNotFoundError as error:
        raise CommandFailed(
            words, "could not start: no such program", hint=hint or f"install `{words[0]}`"
        ) from error
    except OSError as error:
        raise CommandFailed(words, f"could not start: {error.strerror}", hint=hint) from error
    finally:
        for file in (stdin, stdout):
            if file is not None and not isinstance(file, int):
                file.close()
    with _running_lock:
        _running.add(process)
        stopped = _stopped.is_set()
    if stopped:
        _end(process)
        raise CommandFailed(words, _INTERRUPTED)
    return process


def _forget(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a command that has ended, and no longer count it as running."""
    with _running_lock:
        _running.discard(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _give_lines(
    process: subprocess.Popen[bytes], heard: Callable[[str], None], silence: float, over: Callable[[], bool]
) -> str:
    """Read a command's output until it closes that, or until `over()`; return the end of its standard error.

    Raises TimeoutError after `silence` seconds without a line.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    begun, errors = b"", b""
    deadline = time.monotonic() + silence
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and not over():
            if time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in selector.select(min(LOOK_AGAIN, deadline - time.monotonic())):
                some = os.read(key.fd, 2**16)
                if not some:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + some)[-ERRORS_KEPT:]
                else:
                    *lines, begun = (begun + some).split(b"\n")
                    for line in lines:
                        heard(line.decode(errors="replace"))
                        deadline = time.monotonic() + silence
    return errors.decode(errors="replace")


def _lower_priority(pid: int) -> None:
    """Give a process that leads its session the lowest CPU priority.

    Where the kernel groups processes by session, nice counts only within one: the group has a value of its own
    (sched(7), "The autogroup feature").
    """
    with contextlib.suppress(OSError):  # it may have ended
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
    for _ in range(GROUP_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(f"{LOWEST_PRIORITY}\n", encoding="utf-8")
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # this kernel has no such groups
            return
        else:
            return


def _communicate(
    process: subprocess.Popen[bytes],
    given: bytes | None,
    timeout: float | None,
    idle_timeout_folder: Path | None,
) -> tuple[bytes | None, bytes | None]:
    while True:
        before = _bytes_in(idle_timeout_folder)
        try:
            return process.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired:
            if _bytes_in(idle_timeout_folder) == before:
                raise
            given = None  # it was written already


def _bytes_in(folder: Path | None) -> int:
    """How many bytes a folder holds; files that disappear meanwhile are left out."""
    total = 0
    for path in folder.rglob("*") if folder is not None and folder.exists() else ():
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        leads = os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign) if leads else process.send_signal(sign)
        except (ProcessLookupError, PermissionError):
            return
        if _ended(process, leads, GRACE):
            return


def _ended(process: subprocess.Popen[bytes], leads: bool, seconds: float) -> bool:
    """Whether a command, with its process group if it leads one, ends within that time."""
    end = time.monotonic() + seconds
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    while leads and _has_members(process.pid):
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def _has_members(group: int) -> bool:
    """Whether a process of the group runs. A zombie does not count.

    In a container, the first process may never reap the orphans that it inherits.
    """
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not Path("/proc/self/stat").exists():  # macOS, where launchd reaps them at once
        return True
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def _tail(log: Path | None, text: str) -> str:
    if log is not None:
        text = log.read_text(encoding="utf-8", errors="replace")
    # A command may print secrets: a kubeconfig, or a password in a proxy's URL.
    lines = [line.rstrip() for line in redacted(text[-TAIL_SEARCHED:]).splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])
