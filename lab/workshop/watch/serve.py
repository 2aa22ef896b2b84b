"""Serves the page and its stream to browsers on this host, and to nobody else.

It listens on the loopback address only. A page of another site that has its name lead here (DNS rebinding)
sends that name as Host, so only loopback's own names are answered. Nothing but GET is, and nothing is read of a
request but its head. Responses let no other site embed or read them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from lab.errors import LabError

ADDRESS = "127.0.0.1"

NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Host headers that are answered, with any port: that of an ssh tunnel differs from the server's own."""

STREAMS = 16
"""How many browsers may have the page open at once; each has a thread."""

REQUEST_TIMEOUT = 10.0
"""Seconds for a request's head, and for a browser to take what is sent."""

HEADERS = {
    "Allow": "GET",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Stream = Callable[[], Iterator[str]]
"""Begins a stream for one browser: JSON texts, each when there is something new."""


class Server(ThreadingTCPServer):
    """The server. `problem` is the first error that is a bug, raised from `serve_forever`.

    It is no HTTPServer, which looks up the address's name when it begins.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, page: str, stream: Stream) -> None:
        """Bind the port, or any free one for 0. Raises LabError if that can't be."""
        self.page, self.stream = page.encode(), stream
        self.free = threading.BoundedSemaphore(STREAMS)
        self.problem: BaseException | None = None
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise LabError(
                f"port {port} of {ADDRESS} can't be used: {error.strerror}",
                hint="choose another one with --port, or leave that out for any free one",
            ) from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def broken(self, error: BaseException) -> None:
        """Have `serve_forever` raise this error."""
        self.problem = self.problem or error

    def service_actions(self) -> None:
        """Raise what has broken; called twice a second."""
        if self.problem:
            raise self.problem

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep what went wrong, unless a browser has only gone."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.broken(error)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = REQUEST_TIMEOUT
    server_version, sys_version = "ha-lab", ""
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain; charset=utf-8"

    def parse_request(self) -> bool:
        """Read the head; answer here, and return False, if the request is refused."""
        if not super().parse_request():
            return False
        if not is_own(self.headers.get_all("Host", [])):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
            return False
        if self.command != "GET":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered")
            return False
        return True

    def do_GET(self) -> None:
        """Answer with the page, or with its stream."""
        if self.path == "/":
            self._head("text/html; charset=utf-8", len(self.server.page))
            self.wfile.write(self.server.page)
        elif self.path == "/events":
            self._stream()
        elif self.path == "/favicon.ico":  # browsers ask for one by themselves
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there is nothing else here")

    def end_headers(self) -> None:
        """End the head, of errors too, with what every response has."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002  http.server's name
        """Print nothing: the terminal shows the page's address."""

    def _head(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _stream(self) -> None:
        """Send each new view as an event (HTML, "Server-sent events"), until the browser leaves."""
        if not self.server.free.acquire(blocking=False):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS} pages are open already")
            return
        try:
            self._head("text/event-stream; charset=utf-8")
            with contextlib.suppress(ConnectionError, TimeoutError):
                for text in self.server.stream():
                    self.wfile.write(f"data: {text}\n\n".encode())
        finally:
            self.server.free.release()


def is_own(hosts: list[str]) -> bool:
    """Whether a request's Host headers are one, and name the loopback interface."""
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].lower().rpartition(":")
    with_port = colon and port.isascii() and port.isdigit()
    return (name if with_port else hosts[0].lower()) in NAMES
