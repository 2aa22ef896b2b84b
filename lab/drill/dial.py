"""Opens connections that cannot leave the lab, and says in a word why one brought no answer."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH)


@dataclass(frozen=True)
class Door:
    """Where a probe knocks: an address of the lab, and the host's own address there (`source`).

    `context` says whom to trust and who we are; None is plain HTTP.
    """

    host: str
    port: int
    source: str
    context: ssl.SSLContext | None = None


def dial(door: Door, deadline: float) -> socket.socket:
    """Open a new connection until `deadline` (on time.monotonic). Raises OSError, ssl.SSLError among them.

    Never a resumed TLS session: a handshake in full is what a client that has just started pays.
    """
    plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        fence(plain, door.source)
        plain.settimeout(left(deadline))
        plain.connect((door.host, door.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door.context is None:
            return plain
        plain.settimeout(left(deadline))
        return door.context.wrap_socket(plain, server_hostname=door.host)
    except BaseException:
        plain.close()
        raise


def fence(unconnected: socket.socket, source: str) -> None:
    """Let the kernel refuse every packet of this socket that would not stay on the lab's own network.

    SO_DONTROUTE (socket(7)): to directly connected hosts only, never through a gateway. The lab's source
    address: without its network the host has no such address. Both are asked per packet, so a network that
    goes away during a drill stops an open connection too; `ip route get` 40 times a second would not.
    """
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    unconnected.bind((source, 0))


def fetch(door: Door, path: str, timeout: float) -> tuple[int, bytes]:
    """GET on a new connection, in `timeout` seconds; return status and body. Raises OSError, HTTPException."""
    deadline = time.monotonic() + timeout
    connection = opened(door, deadline)
    try:
        return exchange(connection, deadline, "GET", path, headers={"Connection": "close"})
    finally:
        connection.close()


def opened(door: Door, deadline: float) -> http.client.HTTPConnection:
    """An HTTP connection over a fenced socket; once closed it stays closed. Raises OSError."""
    connection = http.client.HTTPConnection(door.host, door.port)
    connection.auto_open = 0  # what it would open by itself has neither fence nor TLS
    connection.sock = dial(door, deadline)
    return connection


def exchange(
    connection: http.client.HTTPConnection,
    deadline: float,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Ask and take the answer, until `deadline`. Raises OSError, HTTPException; then close the connection."""
    plain = connection.sock
    plain.settimeout(left(deadline))
    connection.request(method, path, body, headers or {})
    plain.settimeout(left(deadline))
    answer = connection.getresponse()
    return answer.status, answer.read()


def left(deadline: float) -> float:
    """Seconds until a moment on time.monotonic; raises TimeoutError when none is left."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def word(error: OSError | http.client.HTTPException) -> str:
    """Why there was no answer, in a word or two that can be counted."""
    match error:
        case TimeoutError():
            return "timed out"
        case ConnectionRefusedError():
            return "refused"
        # RemoteDisconnected is a ConnectionResetError, but the other side said goodbye.
        case http.client.RemoteDisconnected() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "closed"
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return "reset"
        case ssl.SSLError():
            return f"TLS: {error.reason or error}"
        case OSError() if error.errno in NO_ROUTE:
            return "unreachable"
        case OSError() if error.errno == errno.EADDRNOTAVAIL:
            return "no lab network"
        case http.client.HTTPException():
            return "closed"  # in the middle of an answer
    return error.strerror or type(error).__name__
