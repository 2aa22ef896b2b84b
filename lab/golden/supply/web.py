"""Downloads files by their hashes: the one door to upstream's hosts, their mirrors and registries.

curl does it: it knows the user's proxies, authorities and ~/.netrc, continues an unfinished file (HTTP
range), and gives up on a host that falls silent at any point. A file gets its name when its hash is right;
beside it, `.NAME.partial` is where the next try goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from lab.errors import LabError
from lab.golden.supply import hosts
from lab.golden.supply.hosts import Refused
from lab.system import process
from lab.system.meaning import NO_SPACE

TRIES = 10
"""How often a download is continued at most, as long as each try brings something."""

SLOWEST = 1000
"""Bytes per second; a slower host counts as silent."""

LARGEST = 2 << 30
"""Bytes; no part of Kubernetes is nearly as large."""

OVERALL = 3600.0
"""Seconds for one try."""

TRANSIENT = ("(18)", "(28)", "(52)", "(55)", "(56)", "(92)", "returned error: 5")
"""curl's messages for what the next try may not meet."""

NO_RANGES, TOO_LARGE = "(33)", "(63)"
"""What curl says of a host that can't continue a file, and of one that sends more than was wanted."""

NOT_WRITTEN = 23
"""curl's exit code where the disk is full, which is no fault of the host."""


@dataclass(frozen=True)
class _Reply:
    """One answer: curl's messages ("" for none), where redirects led, the last answer's status and headers."""

    said: str
    url: str
    status: int
    headers: str

    def header(self, name: str) -> str:
        found = re.search(rf"^{name}:[ \t]*(.*?)\r?$", self.headers, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else ""

    @property
    def is_page(self) -> bool:
        return self.header("content-type").lower().startswith("text/html")


@dataclass
class Web:
    """Downloads of one run. Remembers registries' tokens, and hosts that do not answer. For several threads."""

    folder: Path
    log: Path
    _tokens: dict[str, str] = field(default_factory=dict)
    _silent: dict[str, Refused] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, threading.Lock] = field(default_factory=dict)

    def path(self, sha256: str) -> Path:
        """Where the file of that hash is, or will be."""
        return self.folder / sha256

    def download(self, url: str, sha256: str, what: str, *, accept: str = "") -> Path:
        """Return the file of that hash, downloaded if it isn't there. Raises Refused."""
        with self._lock:
            running = self._running.setdefault(sha256, threading.Lock())
        with running:  # images share layers
            return self._download(url, sha256, what, accept)

    def _download(self, url: str, sha256: str, what: str, accept: str) -> Path:
        final = self.path(sha256)
        if final.exists():
            return final
        host = urlsplit(url).netloc
        with self._lock:
            silent = self._silent.get(host)
        if silent:
            raise Refused(what, host, silent.why, hint=silent.advice, log=self.log)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{sha256}.partial")
        try:
            continued, reply = self._fetch(url, partial, what, accept)
            if continued and sha256_of(partial) != sha256:
                # What was there may be damaged, and a killed run's curl may still write to it.
                partial.unlink()
                _, reply = self._fetch(url, partial, what, accept)
        except Refused as error:
            if error.of_host:
                with self._lock:
                    self._silent[host] = error
            raise
        if sha256_of(partial) != sha256:
            partial.unlink()
            raise hosts.differs(what, host, is_page=reply.is_page, log=self.log)
        partial.rename(final)
        return final

    def read(
        self, url: str, what: str, *, accept: str = "", most: int = 1 << 22, seconds: float = 60.0
    ) -> bytes:
        """Return what a URL has now, which is not verified; at most `most` bytes. Raises Refused."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f".{hashlib.sha256(url.encode()).hexdigest()[:16]}.text"
        target.unlink(missing_ok=True)
        host = urlsplit(url).netloc
        try:
            limits = ["--max-time", f"{seconds:g}", "--max-filesize", str(most)]
            reply = self._ask(url, target, what, accept, limits)
            if reply.said:
                raise hosts.refused(what, host, reply.said, self.log)
            return target.read_bytes() if target.exists() else b""
        finally:
            target.unlink(missing_ok=True)

    def require(self, url: str, what: str, seconds: float) -> None:
        """Ask for the first byte of a file. Raises Refused where its host does not give it in time."""
        limits = ["--max-time", f"{seconds:g}", "--range", "0-0", "--max-filesize", "1000000"]
        reply = self._ask(url, Path(os.devnull), what, "", limits)
        host = urlsplit(url).netloc
        if reply.is_page:
            raise hosts.differs(what, host, is_page=True, log=self.log)
        if reply.said and TOO_LARGE not in reply.said:  # a host without ranges, about to send the whole file
            raise hosts.refused(what, host, reply.said, self.log)

    def _fetch(self, url: str, partial: Path, what: str, accept: str) -> tuple[bool, _Reply]:
        """Download a file, in several tries if need be; whether some of it was there before. Raises Refused."""
        continued = partial.exists()
        failed_empty = False
        for _ in range(TRIES):
            before = _size(partial)
            reply = self._ask(
                url, partial, what, accept, ["--continue-at", "-", "--max-filesize", str(LARGEST)]
            )
            if not reply.said:
                return continued, reply
            if NO_RANGES in reply.said and before:
                partial.unlink()
                continued = False
                continue
            brought = _size(partial) > before
            continued = continued or brought
            transient = any(sign in reply.said for sign in TRANSIENT)
            # A host that sent nothing gets one more try, unless it was waited for already.
            if not transient or (not brought and (failed_empty or "(28)" in reply.said)):
                break
            failed_empty = not brought
        raise hosts.refused(what, _host(url, reply), reply.said, self.log)

    def _ask(self, url: str, output: Path, what: str, accept: str, limits: list[str]) -> _Reply:
        """Ask for a URL; again with a token where a registry demands one."""
        reply = self._curl(url, output, accept, limits, self._token_for(url))
        challenge = reply.header("www-authenticate")
        if reply.status == 401 and challenge.lower().startswith("bearer "):
            token = self._token(challenge, reply.url, what)
            if token:
                with self._lock:
                    self._tokens[_place(url)] = token
                reply = self._curl(reply.url, output, accept, limits, token)
        return reply

    def _token_for(self, url: str) -> str:
        with self._lock:
            return self._tokens.get(_place(url), "")

    def _token(self, challenge: str, url: str, what: str) -> str:
        """Ask for a token as a registry's challenge says (distribution's token specification); "" for none."""
        given = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = given.get("realm", "")
        if urlsplit(realm).scheme != "https" and urlsplit(url).scheme == "https":
            return ""
        words = "&".join(f"{name}={quote(given[name])}" for name in ("service", "scope") if name in given)
        target = self.folder / f".{hashlib.sha256(challenge.encode()).hexdigest()[:16]}.token"
        try:
            reply = self._curl(f"{realm}?{words}", target, "", ["--max-time", str(hosts.PATIENCE)], "")
            found = json.loads(target.read_bytes()) if not reply.said and target.exists() else {}
        except ValueError:
            found = {}
        finally:
            target.unlink(missing_ok=True)
        token = str(found.get("token") or found.get("access_token") or "") if isinstance(found, dict) else ""
        return token if re.fullmatch(r"[\w.~+/=-]+", token, re.ASCII) else ""

    def _curl(self, url: str, output: Path, accept: str, limits: list[str], token: str) -> _Reply:
        redirects = "=https" if url.startswith("https:") else "=http,https"
        words = ["curl", "--disable", "--silent", "--show-error", "--fail", "--netrc-optional"]
        words += ["--location", "--max-redirs", "5", "--proto", "=http,https", "--proto-redir", redirects]
        words += ["--connect-timeout", f"{hosts.PATIENCE / 2:g}"]
        words += ["--speed-limit", str(SLOWEST), "--speed-time", str(hosts.PATIENCE)]
        words += ["--output", str(output), "--dump-header", "-", "--write-out", "%{url_effective}"]
        words += [*(["--header", f"Accept: {accept}"] if accept else []), *limits, "--config", "-", url]
        # In a process's arguments anyone could read it.
        given = f'header = "Authorization: Bearer {token}"\n' if token else ""
        done = process.run(words, stdin=given, accept=None, timeout=OVERALL)
        process.raise_if_interrupted(f"download {url}")
        if done.returncode == NOT_WRITTEN:
            what = f"{output.parent} can't be written to, probably for lack of space ({done.stderr.strip()})"
            raise LabError(what, hint=f"{NO_SPACE[0].hint}; {hosts.KEPT}", log=self.log)
        # The headers of each answer, then where the last one came from.
        *answers, at = re.split(r"\r?\n\r?\n", done.stdout)
        headers = answers[-1] if answers else ""
        status = re.match(r"HTTP/\S+ (\d+)", headers)
        said = "" if done.ok else done.stderr.strip() or f"curl: ({done.returncode})"
        self._note(f"{url} {status[1] if status else '-'} {said}".rstrip())
        return _Reply(said, at.strip() or url, int(status[1]) if status else 0, headers)

    def _note(self, line: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256, in hex; "" for none."""
    if not file.exists():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _place(url: str) -> str:
    """What a token is good for: one repository of one registry, whose path ends before manifests or blobs."""
    parts = urlsplit(url)
    return f"{parts.netloc}{re.split('/(?:manifests|blobs)/', parts.path)[0]}"


def _host(url: str, reply: _Reply) -> str:
    """The host that was asked, and the one that it has sent on to."""
    asked, answered = urlsplit(url).netloc, urlsplit(reply.url).netloc
    return asked if answered in ("", asked) else f"{asked} ({answered})"
