"""Asks for a URL: the one door to upstream's hosts, their mirrors and registries.

curl does it: it knows the user's proxies, authorities and ~/.netrc, continues an unfinished file (HTTP range),
and gives up on a host that falls silent at any point.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab.errors import CommandTimedOut, LabError
from lab.golden.supply import hosts
from lab.system import process
from lab.system.meaning import NO_SPACE

SLOWEST = 1000
"""Bytes per second; a slower host counts as silent."""

TIMEOUT, NO_RANGES, TOO_LARGE = "(28)", "(33)", "(63)"
"""What curl says of a host that is silent, can't continue a file, or sends more than was wanted."""

REST, FIRST_BYTE = ("--continue-at", "-"), ("--range", "0-0")
"""The parts of a file, for curl: what is not there yet, or as little as shows that it is there."""

ENDLESS = -signal.SIGXFSZ
"""How curl ends where a host sends more than was wanted: before curl 8.4 `--max-filesize` only looks at what is
announced, so the kernel limits the file (setrlimit(2), RLIMIT_FSIZE)."""

NOT_WRITTEN = 23
"""curl's exit code where the disk is full, which is no fault of the host."""

URL = re.compile(r"https?://[^\s\"\\]+", re.ASCII)
"""What curl's configuration can have between quotes: a redirect or a registry names some of them."""


@dataclass(frozen=True)
class Limits:
    """How many bytes and seconds an answer may take, and which part of the file is wanted."""

    size: int
    seconds: float
    part: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """One answer: curl's messages ("" for none), where redirects led, the last answer's status and headers."""

    said: str
    url: str
    status: int
    headers: str

    def header(self, name: str) -> str:
        """The value of a header, "" for none."""
        found = re.search(rf"^{name}:[ \t]*(.*?)\r?$", self.headers, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else ""

    @property
    def is_page(self) -> bool:
        """Whether a person is to read it."""
        return self.header("content-type").lower().startswith("text/html")

    @property
    def is_answer(self) -> bool:
        """Whether it is the host's own answer: no redirect that failed, no error of the host or of a proxy."""
        of_host = 200 <= self.status < 300 or 400 <= self.status < 500
        return of_host and self.status != 407 and TIMEOUT not in self.said


def ask(
    url: str, output: Path, what: str, limits: Limits, log: Path, *, accept: str = "", token: str = ""
) -> Reply:
    """Ask for a URL, and write the answer to `output`. `accept`: media types. `token`: of a registry.

    Redirects are only followed to https: a login of ~/.netrc goes to the host that they lead to. Raises
    LabError where the answer can't be written, or the run was interrupted.
    """
    if not URL.fullmatch(url):
        return Reply("curl: (3) malformed", url, 0, "")
    words = [
        "prlimit",
        f"--fsize={limits.size}",
        "--",
        "curl",
        "--disable",
        "--silent",
        "--show-error",
        "--fail",
    ]
    words += ["--netrc-optional", "--globoff", "--location", "--max-redirs", "5"]
    words += ["--proto", "=http,https", "--proto-redir", "=https"]
    words += ["--connect-timeout", f"{hosts.PATIENCE / 2:g}", "--max-time", f"{limits.seconds:g}"]
    words += ["--speed-limit", str(SLOWEST), "--speed-time", str(hosts.PATIENCE)]
    words += ["--max-filesize", str(limits.size), *limits.part]
    words += ["--output", str(output), "--dump-header", "-", "--suppress-connect-headers"]
    words += ["--write-out", "\n%{url_effective}", *(["--header", f"Accept: {accept}"] if accept else [])]
    # In a process's arguments anyone could read them.
    given = f'url = "{url}"\n' + (f'header = "Authorization: Bearer {token}"\n' if token else "")
    try:
        done = process.run(
            [*words, "--config", "-"], stdin=given, accept=None, timeout=limits.seconds + hosts.PATIENCE
        )
        code, said, shown = done.returncode, done.stderr.strip(), done.stdout
    except CommandTimedOut:
        code, said, shown = 0, f"curl: {TIMEOUT}", ""
    process.raise_if_interrupted(f"download {what}")
    if code == NOT_WRITTEN:
        problem = f"{output.parent} can't be written, probably because the disk is full ({said})"
        raise LabError(problem, hint=f"{NO_SPACE[0].hint}; {hosts.KEPT}", log=log)
    if code:
        said = said or f"curl: {TOO_LARGE if code == ENDLESS else f'({code})'}"
    elif shown:
        said = ""  # warnings
    # The headers of each answer, then a line with where the last one came from.
    shown, _, at = shown.rpartition("\n")
    headers = next((each for each in reversed(re.split(r"\r?\n\r?\n", shown)) if each.strip()), "")
    status = re.match(r"HTTP/\S+ (\d+)", headers)
    if not status:  # what a proxy answers to CONNECT is not shown; later versions of curl say it like this
        said = said.replace("The requested URL returned error:", "CONNECT tunnel failed, response")
    _note(log, f"{without_secrets(url)} {status[1] if status else '-'} {said}".rstrip())
    return Reply(said, at.strip() or url, int(status[1]) if status else 0, headers)


def host_of(url: str) -> str:
    """A URL's host, and its port where it has one, without a login; "" where a host has sent on to no URL."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def without_secrets(url: str) -> str:
    """A URL without a login and without a query, which may hold a signature."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{host_of(url)}/{rest.partition('/')[2]}"


def _note(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
