"""Explains why a server did not respond over TLS, instead of quoting the kernel's or OpenSSL's message."""

from __future__ import annotations

import errno
import http.client
import ssl

CUT = "the connection was cut before an answer"
NO_SERVER_UP = f"{CUT}: HAProxy has no API server that is up"
"""With `mode tcp`, HAProxy accepts a connection and ends it at once where no server of the backend is up.

A client's TLS sees an end of file then or, where HAProxy had not read its first message yet, a reset.
"""

NO_WAY = {
    errno.EHOSTUNREACH: "no machine answers at that address",
    errno.ENETUNREACH: "this host has no route to that address",
    errno.EADDRNOTAVAIL: "this host has no address in the lab's network",
}


def connection_problem(
    error: OSError | http.client.HTTPException, timeout: float, *, balanced: bool = False
) -> str:
    """What an error of a connection means, in a phrase; `timeout` is how many seconds it was given.

    `balanced`: the connection went to the load balancer, which accepts it before it looks for an API server.
    """
    match error:
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case ConnectionRefusedError():
            return "nothing listens there"
        # http.client's RemoteDisconnected is a ConnectionResetError.
        case ConnectionError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError() | http.client.HTTPException():
            return NO_SERVER_UP if balanced else CUT
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            return f"what answers there does not complete a TLS handshake ({error.reason or error})"
        case OSError() if error.errno in NO_WAY:
            return NO_WAY[error.errno]
    return str(error)
