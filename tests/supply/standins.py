"""Stand-ins for the upstream hosts, on loopback, made with real tools.

A Debian repository in the same flat layout (dpkg-deb, apt-ftparchive, gpg), served over http; a registry
(Debian's docker-registry), filled by skopeo. Their faults are the real ones: a foreign signature, bytes
that were changed, a server that takes the connection and says nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.golden.supply.oci import write_image
from lab.golden.supply.recipe import architecture

SERIES = "core:/stable:/v{minor}/deb"
"""Where the repository of a minor version lies on its host."""


def run(words: Sequence[str | Path], **options: object) -> str:
    """Run a tool of the stand-ins; its failure is the test's."""
    argv = [str(word) for word in words]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass(frozen=True)
class SigningKey:
    """A key made for this run of the tests, and thrown away with it."""

    home: Path
    fingerprint: str

    @property
    def armoured(self) -> str:
        return run(["gpg", "--homedir", self.home, "--armor", "--export", self.fingerprint])

    def sign(self, release: Path) -> None:
        """Write InRelease and Release.gpg beside a Release file."""
        words: list[str | Path] = ["gpg", "--homedir", self.home, "--batch", "--yes"]
        words += ["--local-user", self.fingerprint]
        run([*words, "--output", release.with_name("InRelease"), "--clearsign", release])
        run([*words, "--output", release.with_name("Release.gpg"), "--armor", "--detach-sign", release])


@contextmanager
def signing_key(name: str) -> Iterator[SigningKey]:
    """A new key without a passphrase, and the agent that gpg starts for it ended at the end."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # a short path: it holds the agent's socket
    try:
        words: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--passphrase", ""]
        run([*words, "--quick-generate-key", f"{name} <{name}@localhost>", "ed25519", "sign", "never"])
        listed = run(["gpg", "--homedir", home, "--with-colons", "--fingerprint"])
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        yield SigningKey(home, fingerprint)
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"])
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Faults:
    """What goes wrong on a server: `hangs` says nothing, `refuses` answers 403, to paths that hold the word.

    `asked` and `logins` keep what it was asked for and by whom; a proxy is asked for whole URLs.
    """

    hangs: str = ""
    refuses: str = ""
    asked: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with the faults of its server."""

    def __init__(self, *words: object, faults: Faults, ended: threading.Event, **named: object) -> None:
        self.faults, self.ended = faults, ended
        super().__init__(*words, **named)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.faults.asked.append(self.path)
        scheme, _, login = self.headers.get("Proxy-Authorization", "").partition(" ")
        self.faults.logins += [base64.b64decode(login).decode()] if scheme == "Basic" else []
        if "://" in self.path:
            self.path = "/" + self.path.partition("://")[2].partition("/")[2]
        if self.faults.hangs and self.faults.hangs in self.path:
            self.ended.wait(120)
        elif self.faults.refuses and self.faults.refuses in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    def guess_type(self, path: object) -> str:
        """A manifest is one, to whoever asks a registry."""
        if "/manifests/" in str(path):
            return "application/vnd.oci.image.manifest.v1+json"
        return super().guess_type(str(path))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


@contextmanager
def web_server(folder: Path, faults: Faults) -> Iterator[str]:
    """Serve a folder on loopback; gives its URL."""
    ended = threading.Event()
    handler = functools.partial(_Handler, directory=str(folder), faults=faults, ended=ended)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Repository:
    """A flat Debian repository in a folder, as it lies below the host's root."""

    host: Path
    minor: str

    @property
    def folder(self) -> Path:
        return self.host / SERIES.format(minor=self.minor)

    def add(self, name: str, version: str, files: Mapping[str, Path]) -> Path:
        """Make a package of files (path inside → file) for this architecture, and put it in."""
        with tempfile.TemporaryDirectory() as work:
            root = Path(work) / "root"
            (root / "DEBIAN").mkdir(parents=True)
            (root / "DEBIAN" / "control").write_text(
                f"Package: {name}\nVersion: {version}\nArchitecture: {architecture()}\n"
                "Maintainer: the tests <tests@localhost>\nDescription: a stand-in\n"
            )
            for inside, file in files.items():
                target = root / inside.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
            package = self.folder / architecture() / f"{name}_{version}_{architecture()}.deb"
            package.parent.mkdir(parents=True, exist_ok=True)
            # Nothing is squeezed: programs of 100 MB would take minutes.
            run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, package])
        return package

    def publish(self, key: SigningKey) -> None:
        """Write the index, sign it, and give the key away as upstream does."""
        (self.folder / "Packages").write_text(run(["apt-ftparchive", "packages", "."], cwd=self.folder))
        for stale in ("Release", "InRelease", "Release.gpg"):
            (self.folder / stale).unlink(missing_ok=True)
        release = run(["apt-ftparchive", "release", "."], cwd=self.folder)
        (self.folder / "Release").write_text(f"Origin: stand-in\n{release}")
        key.sign(self.folder / "Release")
        (self.folder / "Release.key").write_text(key.armoured)


@dataclass(frozen=True)
class Registry:
    """A running registry; `blobs` is where it keeps what it was given."""

    host: str
    folder: Path

    @property
    def blobs(self) -> Path:
        return self.folder / "docker" / "registry" / "v2" / "blobs" / "sha256"

    def push(self, archive: Path, name: str) -> None:
        """Take an OCI archive in, as `PATH:TAG`."""
        words = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        run([*words, "--preserve-digests", f"oci-archive:{archive}", f"docker://{self.host}/{name}"])

    def push_files(self, name: str, files: Mapping[str, Path]) -> None:
        """Make an image of files (path inside → file), and take it in."""
        with tempfile.TemporaryDirectory() as work:
            archive = Path(work) / "image.tar"
            write_image(archive, "stand-in", files, entrypoint=[next(iter(files))])
            self.push(archive, name)

    def push_list(self, name: str, files: Mapping[str, Mapping[str, Path]]) -> None:
        """Take in a list of images, one for each architecture, with gzipped layers, as upstream's are."""
        with tempfile.TemporaryDirectory() as work:
            layout, entries = Path(work) / "layout", []
            for arch, own in files.items():
                archive = Path(work) / f"{arch}.tar"
                write_image(archive, "stand-in", own, entrypoint=[next(iter(own))])
                with tarfile.open(archive) as content:
                    content.extractall(layout, filter="data")
                (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
                entries.append(entry | {"platform": {"os": "linux", "architecture": arch}, "annotations": {}})
            media_type = "application/vnd.oci.image.index.v1+json"
            text = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
            digest = hashlib.sha256(text).hexdigest()
            (layout / "blobs" / "sha256" / digest).write_bytes(text)
            whole = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(text)}
            named = whole | {"annotations": {"org.opencontainers.image.ref.name": "list"}}
            (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
            words = ["skopeo", "--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]
            run([*words, f"oci:{layout}:list", f"docker://{self.host}/{name}"])

    def digest(self, name: str) -> str:
        words = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
        return run([*words, f"docker://{self.host}/{name}"]).strip()

    def spoil(self, digest: str) -> None:
        """Change what is kept under a digest, its length being the same."""
        data = self.blobs / digest.removeprefix("sha256:")[:2] / digest.removeprefix("sha256:") / "data"
        content = bytearray(data.read_bytes())
        content[-3] ^= 1
        data.write_bytes(content)


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Debian's docker-registry on loopback, keeping its things in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry did not listen within 20 s"
            time.sleep(0.05)
        yield Registry(f"127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex(("127.0.0.1", port)) == 0
