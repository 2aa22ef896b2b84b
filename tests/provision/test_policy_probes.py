"""The probe pods' two perl programs, on this host's loopback: what serves ports, and what asks others."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from lab.system.paths import PROVISION

HOST = "127.0.0.1"
Serve = Callable[..., subprocess.Popen[str]]


def perl(script: str, *words: str, patience: str = "1") -> list[str]:
    """As a pod runs it: the text is a word of its command, and no module is looked for anywhere."""
    text = (PROVISION / "pod" / script).read_text(encoding="utf-8")
    modules = ["-e", "BEGIN { @INC = () }\n" + text]
    return [
        "env",
        "-i",
        f"PATH={os.environ['PATH']}",
        "NODE=w1",
        f"LAB_PATIENCE={patience}",
        "perl",
        "-w",
        *modules,
        *words,
    ]


def end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve ports until the test ends; returns once they are bound."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            perl("serve.pl", *words), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        process.wait(timeout=10)
        return process

    yield start
    for process in started:
        end(process.pid)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def ports() -> tuple[int, int, int]:
    """Three ports that nobody has, neither by TCP nor by UDP.

    They are below those that the kernel takes for clients: a client that got the port that it asks would hear
    itself.
    """
    free: list[int] = []
    while len(free) < 3:
        port = random.randrange(20_000, 32_000)  # noqa: S311  nothing is to be kept secret
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind((HOST, port))
            udp.bind((HOST, port))
            free += [port] if port not in free else []
    return free[0], free[1], free[2]


def ask(seconds: float, ports: tuple[int, int, int], *targets: str, patience: str = "1") -> dict[str, str]:
    """What policy.pl prints of these ports: the allowed one, then two that are denied."""
    allowed, *denied = map(str, ports)
    words = [str(seconds), allowed, ",".join(denied), *targets]
    ran = subprocess.run(
        perl("policy.pl", *words, patience=patience), check=True, capture_output=True, text=True, timeout=30
    )
    assert ran.stderr == ""
    return dict(line.split("=", 1) for line in ran.stdout.splitlines())


def test_ports_that_are_served_answer_with_the_node_and_others_are_silent(
    serve: Serve, ports: tuple[int, int, int]
) -> None:
    allowed, served, closed = ports
    serve(*(f"{protocol}:{port}" for protocol in ("tcp", "udp") for port in (allowed, served)))
    assert ask(0, ports, f"w1={HOST}", f"second={HOST}") == {
        f"policy:{name}:{protocol}:{port}": answer
        for name in ("w1", "second")
        for protocol in ("tcp", "udp")
        for port, answer in ((allowed, "w1"), (served, "w1"), (closed, "Connection refused"))
    }


def test_an_answer_with_a_header_is_its_last_line(ports: tuple[int, int, int]) -> None:
    """The allowed port is served by busybox' httpd, where it is TCP."""
    with socket.create_server((HOST, ports[0])) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100).startswith(b"GET /node HTTP/1.0\r\n")
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                connection.sendall(b"Content-length: 2\r\n\r\nw7")

        thread = threading.Thread(target=answer)
        thread.start()
        found = ask(0, ports, f"w7={HOST}", patience="0.2")
        thread.join()
    assert found[f"policy:w7:tcp:{ports[0]}"] == "w7"


def test_without_an_answer_at_the_allowed_port_the_others_are_not_asked(
    serve: Serve, ports: tuple[int, int, int]
) -> None:
    serve(f"tcp:{ports[0]}")
    found = ask(0, ports, f"w1={HOST}", patience="0.2")
    assert found[f"policy:w1:udp:{ports[0]}"] == "Connection refused"
    assert {question for question in found if ":udp:" in question} == {f"policy:w1:udp:{ports[0]}"}
    assert {question for question in found if ":tcp:" in question} == {
        f"policy:w1:tcp:{port}" for port in ports
    }


def test_a_denial_that_comes_late_is_waited_for(serve: Serve, ports: tuple[int, int, int]) -> None:
    serve(f"tcp:{ports[0]}", f"udp:{ports[0]}")
    later = serve(f"tcp:{ports[1]}", f"udp:{ports[1]}")
    timer = threading.Timer(0.7, end, [later.pid])
    timer.start()
    found = ask(10, ports, f"w1={HOST}")
    timer.join()
    assert found[f"policy:w1:udp:{ports[1]}"] == "Connection refused"
    # Reset, if the server ended while a connection was open.
    assert found[f"policy:w1:tcp:{ports[1]}"] in ("Connection refused", "Connection reset by peer")


def test_a_port_that_takes_what_is_sent_and_says_nothing_gave_no_answer(
    serve: Serve, ports: tuple[int, int, int]
) -> None:
    serve(f"tcp:{ports[0]}", f"udp:{ports[0]}")
    with socket.create_server((HOST, ports[1])), socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, ports[1]))
        silent.setblocking(False)
        # A third of that is between two datagrams, which a busy host needs.
        found = ask(0, ports, f"w1={HOST}", patience="1.5")
        datagrams = 0
        with contextlib.suppress(BlockingIOError):
            while silent.recv(100):
                datagrams += 1
    assert found[f"policy:w1:udp:{ports[1]}"] == found[f"policy:w1:tcp:{ports[1]}"] == "no answer"
    assert datagrams == 3, "one may be lost"


def test_a_port_that_is_taken_is_an_error_before_anything_is_served(
    serve: Serve, ports: tuple[int, int, int]
) -> None:
    with socket.create_server((HOST, ports[0])):
        process = serve(f"udp:{ports[0]}", f"tcp:{ports[0]}")
        assert process.returncode != 0
        assert process.stderr is not None
        assert process.stderr.read() == f"tcp:{ports[0]}: Address already in use\n"
