"""Opens connections that can't leave the lab's network, and names the reason if one fails."""

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
class Target:
    """What a probe connects to: an address of the lab, and the host's address in that network (`source`).

    `context` has the trusted CA and our client certificate; None means plain HTTP.
    """

    host: str
    port: int
    source: str
    context: ssl.SSLContext | None = None


def dial(target: Target, deadline: float) -> socket.socket:
    """Open a new connection before `deadline` (time.monotonic). Raises OSError, including ssl.SSLError.

    TLS sessions are never resumed, so that each connection has the full handshake of a new client.
    """
    plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        fence(plain, target.source)
        plain.settimeout(left(deadline))
        plain.connect((target.host, target.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.context is None:
            return plain
        plain.settimeout(left(deadline))
        return target.context.wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def fence(unconnected: socket.socket, source: str) -> None:
    """Make the kernel reject every packet of this socket that would leave the lab's own network.

    SO_DONTROUTE (socket(7)) sends only to directly connected hosts, never through a gateway. The source address
    exists only while the lab's network does. Both are checked for each packet, so if the network disappears
    during a drill, open connections stop, too; `ip route get` 40 times a second would not achieve that.
    """
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    unconnected.bind((source, 0))


def fetch(target: Target, path: str, timeout: float) -> tuple[int, bytes]:
    """GET on a new connection, in `timeout` seconds; return status and body. Raises OSError, HTTPException."""
    deadline = time.monotonic() + timeout
    connection = opened(target, deadline)
    try:
        return exchange(connection, deadline, "GET", path, headers={"Connection": "close"})
    finally:
        connection.close()


def opened(target: Target, deadline: float) -> http.client.HTTPConnection:
    """An HTTP connection over a fenced socket; it does not reopen itself. Raises OSError."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.auto_open = 0  # a connection that it reopens would have neither fence nor TLS
    connection.sock = dial(target, deadline)
    return connection


def exchange(
    connection: http.client.HTTPConnection,
    deadline: float,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send a request and read the response before `deadline`. Close the connection after an exception."""
    plain = connection.sock
    plain.settimeout(left(deadline))
    connection.request(method, path, body, headers or {})
    plain.settimeout(left(deadline))
    answer = connection.getresponse()
    return answer.status, answer.read()


def left(deadline: float) -> float:
    """Seconds until a time.monotonic deadline; raises TimeoutError if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def word(error: OSError | http.client.HTTPException) -> str:
    """Why there was no response, as a short category that can be counted."""
    match error:
        case TimeoutError():
            return "timed out"
        case ConnectionRefusedError():
            return "refused"
        # RemoteDisconnected is a ConnectionResetError, but the peer closed the connection properly.
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
            return "closed"  # in the middle of a response
    return error.strerror or type(error).__name__
