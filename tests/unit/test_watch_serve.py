"""The page's server: whom it answers, what, and what it refuses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lab.errors import LabError
from lab.workshop.watch import serve
from lab.workshop.watch.serve import Server, is_own

PAGE = "<!DOCTYPE html><title>페이지</title>"


@pytest.fixture
def more() -> threading.Event:
    """What ends a stream."""
    return threading.Event()


@pytest.fixture
def server(more: threading.Event) -> Iterator[Server]:
    def stream() -> Iterator[str]:
        yield '{"first": 1}'
        more.wait(20)
        yield '{"second": 2}'

    with Server(0, PAGE, stream) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        more.set()
        found.shutdown()
        thread.join()


def opened(server: Server, request: str) -> socket.socket:
    """A connection with a request on it."""
    connection = socket.create_connection((serve.ADDRESS, server.server_address[1]), timeout=20)
    connection.sendall(request.replace("\n", "\r\n").encode())
    return connection


def asked(server: Server, request: str) -> tuple[int, str, str]:
    """Send a request; return the status, the head and the body of the response."""
    with opened(server, request) as connection:
        said = b""
        while some := connection.recv(4096):
            said += some
    head, _, body = said.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, body


def test_the_page_is_served_with_headers_that_keep_others_out(server: Server) -> None:
    code, head, body = asked(server, f"GET / HTTP/1.1\nHost: {server.url[7:-1]}\n\n")
    assert (code, body) == (200, PAGE)
    lines = head.lower().splitlines()
    assert "content-type: text/html; charset=utf-8" in lines
    assert f"content-length: {len(PAGE.encode())}" in lines
    for header in (
        "x-frame-options: deny",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ):
        assert header in lines
    assert not [line for line in lines if line.startswith("access-control")]
    assert "python" not in head.lower()


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", ["/", "/events", "/favicon.ico", "/none"])
@pytest.mark.parametrize(
    "head",
    [
        "Host: evil.example\n",
        "Host: 127.0.0.1.evil.example:8000\n",
        "Host: 192.168.56.1\n",
        "Host: localhost\nHost: evil.example\n",
        "Host:\n",
        "",
    ],
    ids=["another name", "a name that begins as ours", "another address", "two", "an empty one", "none"],
)
def test_another_host_is_refused_whatever_is_asked_for(server: Server, path: str, head: str) -> None:
    code, _, body = asked(server, f"GET {path} HTTP/1.1\n{head}\n")
    assert code == 421
    assert body == "421 this server has another name\n"


@pytest.mark.parametrize(
    ("hosts", "own"),
    [
        (["127.0.0.1:43123"], True),
        (["localhost:9000"], True),  # through an ssh tunnel, whose port differs
        (["LOCALHOST"], True),
        (["127.0.0.1"], True),
        (["[::1]:9000"], True),
        (["[::1]"], True),
        (["127.0.0.1:evil"], False),
        (["localhost:"], False),
        (["localhost.:80"], False),
        (["evil:80:127.0.0.1"], False),
        (["127.0.0.2"], False),
        ([""], False),
        ([], False),
    ],
)
def test_only_loopback_s_own_names_are_own(hosts: list[str], own: bool) -> None:
    assert is_own(hosts) is own


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    code, head, body = asked(server, f"{method} / HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n")
    assert code == 405
    assert "Allow: GET" in head
    assert PAGE not in body


@pytest.mark.parametrize("path", ["/../etc/passwd", "/events/", "/index.html", "/?x=1", "http://evil.example/"])
def test_there_is_nothing_else(server: Server, path: str) -> None:
    code, _, body = asked(server, f"GET {path} HTTP/1.1\nHost: localhost\n\n")
    assert code == 404
    assert path not in body


def test_a_stream_sends_each_view_as_it_comes(server: Server, more: threading.Event) -> None:
    with opened(server, "GET /events HTTP/1.1\nHost: localhost\n\n") as connection:
        said = b""
        while b"first" not in said:
            said += connection.recv(4096)
        assert b"text/event-stream" in said
        assert said.endswith(b'\r\n\r\ndata: {"first": 1}\n\n')
        more.set()
        rest = b""
        while some := connection.recv(4096):
            rest += some
    assert rest == b'data: {"second": 2}\n\n'


def test_so_many_pages_may_be_open_and_one_that_is_closed_makes_room(
    server: Server, more: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.free = threading.BoundedSemaphore(2)
    request = "GET /events HTTP/1.1\nHost: localhost\n\n"
    pages = [opened(server, request) for _ in range(2)]
    for page in pages:
        assert page.recv(12) == b"HTTP/1.0 200"
    assert asked(server, request)[0] == 503
    for page in pages:
        page.close()
    more.set()
    deadline = time.monotonic() + 20
    while asked(server, request)[0] == 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_browser_that_has_gone_is_no_problem(server: Server, more: threading.Event) -> None:
    for request in (
        "GET /events HTTP/1.1\nHost: localhost\n\n",
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "GET /",
    ):
        opened(server, request).close()
    more.set()
    assert asked(server, "GET / HTTP/1.1\nHost: localhost\n\n")[0] == 200
    assert server.problem is None


def test_a_port_that_is_in_use_is_named_with_what_to_do(server: Server) -> None:
    port = server.server_address[1]
    with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 can't be used") as caught:
        Server(port, PAGE, lambda: iter(()))
    assert "--port" in caught.value.hint


def test_what_breaks_elsewhere_ends_the_server() -> None:
    with Server(0, PAGE, lambda: iter(())) as found:
        found.broken(KeyError("first"))
        found.broken(KeyError("second"))
        with pytest.raises(KeyError, match="first"):
            found.serve_forever(0.02)


def test_a_bug_in_a_response_ends_the_server_and_is_not_only_printed() -> None:
    def stream() -> Iterator[str]:
        raise RuntimeError("a bug")
        yield ""

    with Server(0, PAGE, stream) as found:
        ended = threading.Thread(target=lambda: asked(found, "GET /events HTTP/1.1\nHost: localhost\n\n"))
        late = threading.Timer(20, found.broken, (TimeoutError("nothing was raised"),))
        late.start()
        ended.start()
        with pytest.raises(RuntimeError, match="a bug"):
            found.serve_forever(0.02)
        late.cancel()
        ended.join()
