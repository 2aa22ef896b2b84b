"""A stand-in for upstream's hosts, on loopback: release files and a registry, behind one server with faults.

What it serves is made here: small programs, archives, images of two architectures. Its faults are those of real
hosts: silence at any point, a cut file, other bytes, a web page, a redirect to http, a certificate of nobody's.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import re
import ssl
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab.golden.supply.recipe import ARCHITECTURES

Kind = Literal[
    "silent",
    "silent in headers",
    "silent in body",
    "cut",
    "other",
    "page",
    "redirect",
    "status",
    "no ranges",
    "closed",
    "endless",
    "slow",
    "cut without ranges",
]

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"


@dataclass
class Fault:
    """What goes wrong, for paths that have `at` in them, and for how many requests (None: all)."""

    kind: Kind
    at: str = ""
    times: int | None = None
    status: int = 403
    to: str = ""


@dataclass(frozen=True)
class Asked:
    """One request: its path, the range it wanted, and who asked (a login, or a token)."""

    path: str
    range: str = ""
    authorization: str = ""


@dataclass
class Site:
    """What a server has: contents by path, faults, and what it was asked for.

    `token`: a registry that wants this token for all below /v2/, and gives it at /token to whoever asks with
    `login` ("" for anyone); `challenge`: how it says that, in place of its own words. `rate`: bytes per second,
    for all connections together. `delay`: seconds before each answer. `most_at_once`: how many requests it
    answered at the same time, at most.
    """

    contents: dict[str, bytes | Path] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    token: str = ""
    login: str = ""
    challenge: str = ""
    rate: float = 0
    delay: float = 0
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    @property
    def host(self) -> str:
        """Its host and port."""
        return self.url.rpartition("/")[2]

    def put(self, path: str, content: bytes | Path, kind: str = "application/octet-stream") -> str:
        """Serve something; return its SHA-256 in hex."""
        self.contents[path] = content
        self.kinds[path] = kind
        return sha256(content)

    def paths(self, word: str = "") -> list[str]:
        """The paths it was asked for that have this word in them."""
        return [each.path for each in self.asked if word in each.path]

    def put_image(self, name: str, files: Mapping[str, Path | bytes], *, base: bytes = b"base") -> str:
        """Serve an image as `PATH:TAG` for both architectures, each with two layers; return its digest."""
        place, _, tag = name.rpartition(":")
        entries = []
        for arch in ARCHITECTURES.values():
            layers = [_layer({"/etc/base": base}), _layer({**files, "/etc/arch": arch.encode()})]
            config = {
                "architecture": arch,
                "os": "linux",
                "config": {"Entrypoint": [next(iter(files))]},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [f"sha256:{sha256(gzip.decompress(each))}" for each in layers],
                },
            }
            blobs = [(CONFIG, json.dumps(config).encode()), *((LAYER, each) for each in layers)]
            described = [self._put_blob(place, kind, content) for kind, content in blobs]
            manifest = {
                "schemaVersion": 2,
                "mediaType": DOCKER,
                "config": described[0],
                "layers": described[1:],
            }
            text = json.dumps(manifest).encode()
            self.put(f"/v2/{place}/manifests/sha256:{sha256(text)}", text, DOCKER)
            entries.append(
                {
                    "mediaType": DOCKER,
                    "digest": f"sha256:{sha256(text)}",
                    "size": len(text),
                    "platform": {"os": "linux", "architecture": arch},
                }
            )
        text = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}).encode()
        for reference in (tag, f"sha256:{sha256(text)}"):
            self.put(f"/v2/{place}/manifests/{reference}", text, DOCKER_LIST)
        return sha256(text)

    def _put_blob(self, place: str, kind: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{self.put(f'/v2/{place}/blobs/sha256:{sha256(content)}', content)}"
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def fault(self, path: str) -> Fault | None:
        """The fault that this request meets."""
        for each in self.faults:
            if each.at in path and each.times != 0:
                if each.times is not None:
                    each.times -= 1
                return each
        return None


def sha256(content: bytes | Path) -> str:
    """In hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tar_gz(files: Mapping[str, Path | bytes]) -> bytes:
    """A release archive, as its project packs it: names begin with `./`, or with a folder."""
    return gzip.compress(_tar(files), mtime=0)


def _layer(files: Mapping[str, Path | bytes]) -> bytes:
    return gzip.compress(_tar({path.lstrip("/"): content for path, content in files.items()}), mtime=0)


def _tar(files: Mapping[str, Path | bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as out:
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), 0o755
            out.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers for a site."""

    protocol_version = "HTTP/1.1"
    site: Site
    ended: threading.Event
    throttle: _Throttle

    def do_GET(self) -> None:
        self.site.at_once += 1
        self.site.most_at_once = max(self.site.most_at_once, self.site.at_once)
        try:
            time.sleep(self.site.delay)
            self._answer()
        finally:
            self.site.at_once -= 1

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if "://" in path:  # as a proxy is asked
            path = "/" + path.partition("://")[2].partition("/")[2]
        login = self.headers.get("Authorization", "") or self.headers.get("Proxy-Authorization", "")
        self.site.asked.append(Asked(self.path, self.headers.get("Range", ""), _plain(login)))
        fault = self.site.fault(path)
        if fault and self._fails(fault, path):
            return
        if self.site.token and path == "/token":
            self._give_token()
        elif self.site.token and path.startswith("/v2/") and self._token_is_missing():
            return
        elif path not in self.site.contents:
            self._send(404, b"not here")
        else:
            self._serve(self.site.contents[path], self.site.kinds[path], fault)

    def _fails(self, fault: Fault, path: str) -> bool:
        """Whether the fault is all of the answer."""
        match fault.kind:
            case "silent":
                self.ended.wait(60)
            case "silent in headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: appl")
                self.ended.wait(60)
            case "closed":
                pass
            case "slow":
                self._send_slowly()
            case "endless":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                while not self.ended.is_set():  # until the client hangs up
                    self.wfile.write(bytes(1 << 16))
            case "page":
                self._send(200, b"<html>Please log in</html>", "text/html; charset=utf-8")
            case "status":
                self._send(fault.status, b"no")
            case "redirect":
                self.send_response(302)
                self.send_header("Location", fault.to)
                self.send_header("Content-Length", "0")
                self.end_headers()
            case _:
                return False
        self.close_connection = fault.kind in ("silent", "silent in headers", "closed", "endless", "slow")
        return True

    def _send_slowly(self) -> None:
        """More than what counts as silent, for longer than anybody waits."""
        self.send_response(200)
        self.send_header("Content-Length", "10000000")
        self.end_headers()
        while not self.ended.wait(0.05):
            self.wfile.write(bytes(200))

    def do_CONNECT(self) -> None:
        """As a proxy for https: with the fault's status, or a tunnel to itself, where nobody speaks TLS."""
        self.site.asked.append(Asked(self.path, "", _plain(self.headers.get("Proxy-Authorization", ""))))
        fault = self.site.fault("CONNECT")
        if fault and fault.kind == "status":
            self.send_response(fault.status)
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.site.url}/token"')
            self.send_header("Content-Length", "0")
        else:
            self.send_response(200)
        self.end_headers()

    def _serve(self, content: bytes | Path, kind: str, fault: Fault | None) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if fault and fault.kind in ("no ranges", "cut without ranges"):
            wanted = None
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, size) if wanted and wanted[2] else size
        if start >= size > 0:
            self._send(416, b"")
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        broken = fault is not None and fault.kind in ("cut", "silent in body", "cut without ranges")
        for piece in _pieces(content, start, start + (end - start) // 2 if broken else end):
            self.throttle.wait_for(len(piece))
            self.wfile.write(bytes(each ^ 1 for each in piece) if fault and fault.kind == "other" else piece)
        if broken:
            self.close_connection = True
            self.wfile.flush()
        if fault and fault.kind == "silent in body":
            self.ended.wait(60)

    def _token_is_missing(self) -> bool:
        """Refuse a request without the token, and say where there is one."""
        if self.headers.get("Authorization") == f"Bearer {self.site.token}":
            return False
        self.send_response(401)
        challenge = self.site.challenge or (
            f'Bearer realm="{self.site.url}/token",service="stand-in",scope="repository:a:pull"'
        )
        self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def _give_token(self) -> None:
        if self.site.login and _plain(self.headers.get("Authorization", "")) != self.site.login:
            self._send(401, b"")
        else:
            self._send(200, json.dumps({"token": self.site.token}).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


def _pieces(content: bytes | Path, start: int, end: int) -> Iterator[bytes]:
    """A part of something that is served; of a file, no more is in memory than one piece."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = file.read(min(_Throttle.PIECE, end - start))
            start += len(piece)
            yield piece


def _plain(authorization: str) -> str:
    """A login as `user:password`; a token as it is."""
    scheme, _, given = authorization.partition(" ")
    return base64.b64decode(given).decode() if scheme == "Basic" else authorization


class _Throttle:
    """Lets so many bytes pass each second, for all connections together."""

    PIECE = 1 << 15

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait_for(self, count: int) -> None:
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.05) + count / self._rate
            pause = self._free_at - now
        if pause > 0:
            time.sleep(pause)


@contextmanager
def served(site: Site, certificate: tuple[Path, Path] | None = None) -> Iterator[Site]:
    """Serve a site on loopback; with a certificate and its key, in TLS as `localhost`."""
    ended = threading.Event()
    bound = {"site": site, "ended": ended, "throttle": _Throttle(site.rate)}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), bound))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    port = server.server_address[1]
    site.url = f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}"
    try:
        yield site
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
