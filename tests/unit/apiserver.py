"""An API server and a Service for tests: over TLS, on 127.0.0.1, as broken as a test wants it.

It knows the one ConfigMap that drills write to, its watch, their namespace, /readyz and the Service's page, and
nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.drill.workload import COUNTER, NAMESPACE_PATH, PAGE

HOST = "127.0.0.1"

Fault = Literal["hang", "drop", "refuse", "close", ""]
"""Hold the connection and say nothing; close it at once; answer 500; answer, then close it; do as asked."""

KINDS = {"/readyz": "readyz", NAMESPACE_PATH: "object", PAGE: "page"}


class ApiServer:
    """What the cluster has, what was asked of it, and what is wrong with it (`faults`: kind → fault).

    Kinds are "readyz", "object", "page", "write", "read", "watch"; `asked` counts requests by kind.
    """

    def __init__(self, folder: Path, named: str = HOST) -> None:
        """Make a certificate in that address's name, and listen to nobody yet."""
        self.folder = folder
        self.faults: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self.data = {"counter": "0", "n0": ""}
        self.version = 100
        self.changed = threading.Condition()
        self.ended = False
        self._pem = _certificate(folder, named)
        self._events: list[tuple[int, bytes]] = []
        self._forgotten = 0
        self._streams = 0
        self._cut = 0
        self._mute = 0

    @contextmanager
    def running(self) -> Iterator[ApiServer]:
        """Serve while inside; afterwards whoever still waits for an answer is let go."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        api, page = _Server(self, context), _Server(self, None)
        self.port, self.node_port = api.server_address[1], page.server_address[1]
        threads = [
            threading.Thread(target=partial(server.serve_forever, poll_interval=0.02)) for server in (api, page)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.change(ended=True)
            for server, thread in zip((api, page), threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of it, written now."""
        data = base64.b64encode(self._pem.read_bytes()).decode()
        cluster = {"server": f"https://{HOST}:{self.port}", "certificate-authority-data": data}
        user = {"client-certificate-data": data, "client-key-data": data}
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": user}]}))
        return path

    def break_(self, kind: str, fault: Fault) -> None:
        """Be broken that way from now on, or no more (""); who was held is let go."""
        with self.changed:
            self.faults[kind] = fault
            self.changed.notify_all()

    def cut_streams(self) -> None:
        """End every watch that is open."""
        self.change(_cut=self._streams)

    def mute_streams(self) -> None:
        """Say nothing more on the watches that are open, and keep them."""
        self.change(_mute=self._streams)

    def forget(self) -> None:
        """Know of no event until now, as an API server that has just started; and cut every watch."""
        with self.changed:
            self.change(_forgotten=self.version, _cut=self._streams)

    def change(self, **values: Any) -> None:
        """Set attributes, and wake up whoever waits for them."""
        with self.changed:
            vars(self).update(values)
            self.changed.notify_all()

    def wait(self, seconds: float = 0.5) -> None:
        """Wait for a change, with the lock held."""
        self.changed.wait(seconds)

    def object(self) -> dict[str, Any]:
        """The ConfigMap as it is."""
        return {"metadata": {"resourceVersion": str(self.version)}, "data": dict(self.data)}

    def store(self, data: dict[str, str]) -> None:
        """Let the ConfigMap have that data, and tell the watches."""
        with self.changed:
            self.version += 1
            self.data = data
            line = json.dumps({"type": "MODIFIED", "object": self.object()}).encode() + b"\n"
            self._events.append((self.version, line))
            self.changed.notify_all()

    def stream(self, since: int) -> Iterator[bytes]:
        """The lines of one watch, until it is cut; b"" now and then."""
        with self.changed:
            self._streams += 1
            number = self._streams
            if since < self._forgotten:
                gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
                yield json.dumps(gone).encode() + b"\n"
                return
        while True:
            with self.changed:
                if self.ended or number <= self._cut:
                    return
                news = [] if number <= self._mute else [each for each in self._events if each[0] > since]
                if not news:
                    self.wait()
            for version, line in news:
                since = version
                yield line

    def held(self, kind: str) -> None:
        """Wait as long as that kind hangs."""
        with self.changed:
            while self.faults.get(kind) == "hang" and not self.ended:
                self.wait()


class _Server(ThreadingHTTPServer):
    """One port. The handshake is its thread's own work, so nobody waits for another's."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, world: ApiServer, context: ssl.SSLContext | None) -> None:
        super().__init__((HOST, 0), _Handler)
        self.world = world
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection. Who hangs up, in whatever moment, is no error here."""
        with contextlib.suppress(OSError):
            if self.context is None:
                _Handler(request, client_address, self)
                return
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                _Handler(wrapped, client_address, self)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if "watch" in query:
            assert query["fieldSelector"] == ["metadata.name=counter"], self.path
            assert parts.path == COUNTER.rpartition("/")[0], self.path
            if self._meet("watch"):
                self._watch(int(query["resourceVersion"][0]))
        elif self.path == COUNTER:
            if self._meet("read"):
                self._answer(self.server.world.object())
        elif self._meet(KINDS[self.path]):
            self._answer({})

    def do_PUT(self) -> None:
        assert self.path == COUNTER, self.path
        self.server.world.store(self._body()["data"])
        self._answer(self.server.world.object())

    def do_PATCH(self) -> None:
        assert self.path == COUNTER, self.path
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        world, body = self.server.world, self._body()
        fine = self._meet("write")
        if fine or world.faults.get("write") != "refuse":  # what hung happens late
            world.store({**world.data, **body["data"]})
        if fine:
            self._answer(world.object())

    def _meet(self, kind: str) -> bool:
        """Count the request and let its kind's fault happen; return whether it is to be answered."""
        world = self.server.world
        with world.changed:
            world.asked[kind] += 1
            fault = world.faults.get(kind, "")
            world.changed.notify_all()
        if fault == "refuse":
            self.send_error(500)
            return False
        if fault == "hang":
            world.held(kind)
        self.close_connection = self.close_connection or bool(fault)
        return fault in ("close", "")

    def _body(self) -> dict[str, Any]:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(found, dict)
        return found

    def _answer(self, content: object) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _watch(self, since: int) -> None:
        assert self.request_version == "HTTP/1.0"
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        for line in self.server.world.stream(since):
            half = len(line) // 2  # a line comes in pieces, as from a network
            self.wfile.write(line[:half])
            self.wfile.flush()
            self.wfile.write(line[half:])


def _certificate(folder: Path, address: str) -> Path:
    """A certificate of an address that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an API server for tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


def _usage() -> x509.KeyUsage:
    """Signing, certificates too: Python 3.13 trusts no CA that does not say so."""
    signs = ("digital_signature", "key_cert_sign")
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    only = ("encipher_only", "decipher_only")
    return x509.KeyUsage(**dict.fromkeys(signs, True), **dict.fromkeys((*others, *only), False))
