"""Downloads files by their hashes, each once; gives registries the tokens that they ask for.

A file gets its name when its hash is right; beside it, `.NAME.partial` is where the next try goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from lab.golden.supply import curl, hosts
from lab.golden.supply.curl import FIRST_BYTE, NO_RANGES, REST, TIMEOUT, TOO_LARGE, Limits, Reply, host_of
from lab.golden.supply.hosts import Refused

PAUSES = (0.2, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds between the tries of a download, which are one more, as long as each brings something."""

LARGEST = 2 << 30
"""Bytes; no part of Kubernetes is nearly as large."""

SMALL = 1 << 22
"""Bytes; no manifest, hash or token is nearly as large."""

LONGEST = 3600.0
"""Seconds for a file, all tries together."""

QUICK = 60.0
"""Seconds for what is small."""

TRANSIENT = ("(18)", TIMEOUT, "(52)", "(55)", "(56)", "(92)", "returned error: 5")
"""curl's messages for what the next try may not meet."""


@dataclass
class Web:
    """Downloads of one run, for several threads.

    Remembers registries' tokens, hosts that do not answer, and the hashes of files that were proven right: a
    file of an earlier run is read again, since a power cut may have spoilt it.
    """

    folder: Path
    log: Path
    _tokens: dict[str, str] = field(default_factory=dict)
    _proven: set[str] = field(default_factory=set)
    _silent: dict[str, Refused] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, threading.Lock] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def path(self, sha256: str) -> Path:
        """Where the file of that hash is, or will be."""
        return self.folder / sha256

    def end(self) -> None:
        """Begin no more tries, since what was downloaded is of no use any more."""
        self._ended.set()

    def download(self, url: str, sha256: str, what: str, *, accept: str = "") -> Path:
        """Return the file of that hash, downloaded if it isn't there. Raises Refused."""
        with self._lock:
            running = self._running.setdefault(sha256, threading.Lock())
        with running:  # images share layers
            if sha256 not in self._proven and sha256_of(self.path(sha256)) != sha256:
                self._download(url, sha256, what, accept)
            self._proven.add(sha256)
        return self.path(sha256)

    def _download(self, url: str, sha256: str, what: str, accept: str) -> None:
        with self._lock:
            silent = self._silent.get(host_of(url))
        if silent:
            raise Refused(what, host_of(url), silent.why, hint=silent.advice, log=self.log)
        final = self.path(sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{sha256}.partial")
        continued, reply = self._fetch(url, partial, what, accept)
        if continued and sha256_of(partial) != sha256:  # what was there may be damaged
            partial.unlink(missing_ok=True)
            _, reply = self._fetch(url, partial, what, accept)
        if sha256_of(partial) != sha256:
            partial.unlink(missing_ok=True)
            raise hosts.differs(what, _hosts(url, reply), is_page=reply.is_page, log=self.log)
        partial.replace(final)

    def read(self, url: str, what: str, *, accept: str = "") -> bytes:
        """Return something small that a URL has now, which is not verified. Raises Refused."""
        with self._scratch() as target:
            reply = self._ask(url, target, what, Limits(SMALL, QUICK), accept)
            if reply.said:
                raise self._refused(what, url, reply)
            if reply.is_page:
                raise hosts.differs(what, _hosts(url, reply), is_page=True, log=self.log)
            return target.read_bytes()

    def require_answer(self, url: str, what: str, seconds: float) -> None:
        """Raise Refused where the host of a URL gives no HTTP answer of its own in that time.

        Whether it has what the URL names is not asked: a demand for a login or a token is an answer, too. A web
        page is none.
        """
        with self._scratch() as target:
            reply = curl.ask(url, target, what, Limits(SMALL, seconds, FIRST_BYTE), self.log)
        if reply.is_page and not reply.said:
            raise hosts.differs(what, _hosts(url, reply), is_page=True, log=self.log)
        # A host without ranges is about to send the whole file.
        if reply.said and not reply.is_answer and TOO_LARGE not in reply.said:
            raise self._refused(what, url, reply)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """An empty file for one answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".answer-", dir=self.folder)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _fetch(self, url: str, partial: Path, what: str, accept: str) -> tuple[bool, Reply]:
        """Download a file, in several tries if need be; whether some of it was there before. Raises Refused."""
        deadline = time.monotonic() + LONGEST
        continued = _adopt(partial)
        failed: Reply | None = None
        failed_empty = restarted = False
        for pause in (*PAUSES, 0.0):
            before = _size(partial)
            limits = Limits(LARGEST, max(deadline - time.monotonic(), 1.0), REST)
            reply = self._ask(url, partial, what, limits, accept)
            if not reply.said:
                return continued, reply
            if NO_RANGES in reply.said and before and not restarted:
                partial.unlink(missing_ok=True)
                continued, restarted = False, True
                continue
            if NO_RANGES in reply.said:  # it broke off again, for the reason that counts
                break
            failed = reply
            brought = _size(partial) > before
            continued = continued or brought
            transient = any(sign in reply.said for sign in TRANSIENT)
            # A host that sent nothing gets one more try, unless it was waited for already.
            if not transient or (not brought and (failed_empty or TIMEOUT in reply.said)):
                break
            failed_empty = not brought
            if time.monotonic() > deadline or self._ended.wait(pause):
                break
        raise self._refused(what, url, failed or reply)

    def _refused(self, what: str, url: str, reply: Reply) -> Refused:
        """The error for an answer that is none; remembers the host if it gives nothing else either."""
        error = hosts.refused(what, _hosts(url, reply), reply.said, self.log)
        if error.of_host:
            with self._lock:
                self._silent[host_of(reply.url)] = error
        return error

    def _ask(self, url: str, output: Path, what: str, limits: Limits, accept: str) -> Reply:
        """Ask for a URL; again with a token where a registry demands one."""
        with self._lock:
            token = self._tokens.get(_place(url), "")
        reply = curl.ask(url, output, what, limits, self.log, accept=accept, token=token)
        challenge = reply.header("www-authenticate")
        if reply.status == 401 and challenge.lower().startswith("bearer "):
            token = self._token(challenge, reply.url, what)
            if token:
                with self._lock:
                    self._tokens[_place(reply.url)] = token
                reply = curl.ask(reply.url, output, what, limits, self.log, accept=accept, token=token)
        return reply

    def _token(self, challenge: str, url: str, what: str) -> str:
        """Ask for a token as a registry's challenge says (distribution's token specification); "" for none."""
        given = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = given.get("realm", "")
        # It may be asked with a login of ~/.netrc.
        if not curl.URL.fullmatch(realm) or not (realm.startswith("https:") or _same_host(realm, url)):
            return ""
        words = "&".join(f"{name}={quote(given[name])}" for name in ("service", "scope") if name in given)
        asked = f"{realm}{'&' if '?' in realm else '?'}{words}"
        with self._scratch() as target:
            reply = curl.ask(asked, target, what, Limits(SMALL, hosts.PATIENCE), self.log)
            try:
                found = {} if reply.said else json.loads(target.read_bytes())
            except (ValueError, RecursionError):
                found = {}
        token = str(found.get("token") or found.get("access_token") or "") if isinstance(found, dict) else ""
        return token if re.fullmatch(r"[\w.~+/=-]+", token, re.ASCII) else ""


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256, in hex; "" for none."""
    if not file.exists():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _adopt(partial: Path) -> bool:
    """Whether an earlier try left something. A copy of it, since a killed run's curl may still write to it."""
    if not partial.exists():
        return False
    copy = partial.with_name(f"{partial.name}.copy")
    shutil.copyfile(partial, copy)
    copy.replace(partial)
    return True


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _place(url: str) -> str:
    """What a token is good for: one repository of one registry, whose path ends before manifests or blobs."""
    return f"{host_of(url)}{re.split('/(?:manifests|blobs)/', urlsplit(url).path)[0]}"


def _same_host(realm: str, url: str) -> bool:
    try:
        return urlsplit(realm)[:2] == urlsplit(url)[:2]
    except ValueError:
        return False


def _hosts(url: str, reply: Reply) -> str:
    """The host that was asked, and the one that it has sent on to."""
    asked, answered = host_of(url), host_of(reply.url)
    return asked if answered in ("", asked) else f"{asked} ({answered})"
