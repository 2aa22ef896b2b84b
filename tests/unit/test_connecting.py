from __future__ import annotations

import errno
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabStateError
from lab.health import cluster
from lab.health.cluster import Api, ask_health
from lab.health.connecting import CUT, NO_SERVER_UP, connection_problem
from lab.health.facts import api as facts_api
from lab.health.facts.api import ask_api, health_paths
from lab.unknown import Unknown
from tests.unit.fakes import CA
from tests.unit.recorded_facts import lab

HERE = IPv4Address("127.0.0.1")
ENDS = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close(2) sends a reset (socket(7))."""


def closes(client: socket.socket) -> None:
    """What HAProxy does with a connection for which it has no server up: reads what came, and ends it."""
    client.recv(4096)


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ENDS)


def is_silent(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def speaks_plainly(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that answers each connection so, on a port of 127.0.0.1."""
    with socket.create_server((str(HERE), 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    answer(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def health_of(port: int, *, balanced: bool = False) -> str:
    with pytest.raises(LabStateError) as caught:
        ask_health(HERE, port, "/readyz", CA, 0.2, balanced=balanced)
    start = f"https://127.0.0.1:{port}/readyz can't be asked: "
    assert caught.value.message.startswith(start)
    return caught.value.message.removeprefix(start)


@pytest.mark.parametrize("answer", [closes, resets])
def test_a_connection_that_is_cut_has_no_words_of_the_kernel_s_or_openssl_s(
    answer: Callable[[socket.socket], None],
) -> None:
    with listening(answer) as port:
        assert health_of(port) == CUT
        assert health_of(port, balanced=True) == NO_SERVER_UP


def test_silence_and_plain_text_are_said_as_such() -> None:
    with listening(is_silent) as port:
        assert health_of(port) == "no answer within 0.2 s"
    with listening(speaks_plainly) as port:
        assert health_of(port).startswith("what answers there does not complete a TLS handshake (")


def test_a_port_at_which_nothing_listens_is_said_as_such() -> None:
    with socket.create_server((str(HERE), 0)) as server:
        port = server.getsockname()[1]
    assert health_of(port, balanced=True) == "nothing listens there"


def test_the_api_is_asked_through_the_load_balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_trusting", lambda ca: ssl.create_default_context())
    monkeypatch.setattr(cluster, "_become", lambda context, user: None)
    kubeconfig = tmp_path / "kubeconfig"
    with listening(closes) as port:
        kubeconfig.write_text(
            f"clusters: [{{cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: ''}}}}]\n"
            "users: [{user: {}}]\n"
        )
        with pytest.raises(
            LabStateError, match=f"^the API at https://127.0.0.1:{port} can't be asked: {CUT}: "
        ):
            Api(kubeconfig, 2.0).nodes()


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("POST", 1), ("DELETE", 1)])
def test_what_changes_nothing_is_asked_once_more_where_the_connection_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, times: int
) -> None:
    monkeypatch.setattr(cluster, "_trusting", lambda ca: ssl.create_default_context())
    monkeypatch.setattr(cluster, "_become", lambda context, user: None)
    came: list[int] = []

    def closes_once(client: socket.socket) -> None:
        came.append(1)
        closes(client) if len(came) == 1 else is_silent(client)

    kubeconfig = tmp_path / "kubeconfig"
    with listening(closes_once) as port:
        kubeconfig.write_text(
            f"clusters: [{{cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: ''}}}}]\n"
            "users: [{user: {}}]\n"
        )
        with pytest.raises(LabStateError, match="no answer within 0.2 s" if times == 2 else CUT):
            Api(kubeconfig, 0.2).request(method, "/api/v1/nodes")
    assert len(came) == times


def test_only_the_load_balancer_s_answers_are_taken_for_haproxy_s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[tuple[str, str], bool] = {}

    def ask(address: IPv4Address, port: int, path: str, *_: object, balanced: bool) -> tuple[int, str]:
        asked[str(address), path] = balanced
        return (200, "ok")

    monkeypatch.setattr(facts_api, "ask_health", ask)
    ask_api(lab(), Unknown("it is not asked here"), CA)
    balancer = str(lab().api.address)
    assert {path for address, path in asked if address == balancer} == set(health_paths(lab()))
    assert {address for (address, _), balanced in asked.items() if balanced} == {balancer}


def with_errno(number: int) -> OSError:
    return OSError(number, "the kernel's words")


def not_valid() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (with_errno(errno.EHOSTUNREACH), "no machine answers at that address"),
        (with_errno(errno.ENETUNREACH), "this host has no route to that address"),
        (with_errno(errno.EADDRNOTAVAIL), "this host has no address in the lab's network"),
        (http.client.RemoteDisconnected("Remote end closed connection without response"), CUT),
        (http.client.IncompleteRead(b""), CUT),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), CUT),
        (not_valid(), "its certificate is not accepted (certificate has expired)"),
        (OSError("something else"), "something else"),
    ],
)
def test_other_errors_are_put_into_words(error: Any, words: str) -> None:
    assert connection_problem(error, 4.0) == words
