"""Compares a lock with what upstream's hosts say now, part by part; changes nothing.

A file's hash is the one that its project publishes beside it (`.sha256`), an image's the digest of its tag.
Both are trusted as they come, so they are only asked for over connections that can't be altered in between.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from lab.errors import LabError
from lab.golden.supply import lock, parts, pinning, registry
from lab.golden.supply.curl import host_of
from lab.golden.supply.hosts import Refused
from lab.golden.supply.lock import Hash, Lock
from lab.golden.supply.mirrors import file_url, is_loopback
from lab.golden.supply.parts import File, Image
from lab.golden.supply.releases import Release
from lab.golden.supply.web import Web
from lab.model import Mirrors
from lab.system.progress import Progress

Verdict = Literal["same", "differs", "not pinned", "not available", "no answer"]

SOURCE = "upstream"
"""The label of the hosts' own answers in a file of records."""


@dataclass(frozen=True)
class Compared:
    """One hash: the part, the architecture ("" for an image's list of all), pinned and found, in hex.

    `pinned` is "" for a part that the lock lacks, `found` where `problem` says why its host has not said it;
    `absent` where that is because the host has no such part.
    """

    part: File | Image
    architecture: str
    pinned: str
    found: str = ""
    problem: str = ""
    absent: bool = False

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.part.title}{f' for {self.architecture}' if self.architecture else ''}"

    @property
    def verdict(self) -> Verdict:
        """What came of it."""
        if self.problem:
            return "not available" if self.absent else "no answer"
        if not self.pinned:
            return "not pinned"
        return "same" if self.pinned == self.found else "differs"


def compare(release: Release, mirrors: Mirrors, progress: Progress) -> tuple[Compared, ...]:
    """Ask the hosts, or their mirrors, for the hash of every part that upstream publishes, pinned or not."""
    pinned = lock.read(release.kubernetes) if lock.exists(release.kubernetes) else None
    questions = list(_questions(release, pinned))
    with (
        progress.step(
            "lock", f"ask upstream's hosts for the hashes of Kubernetes {release.kubernetes}"
        ) as step,
        tempfile.TemporaryDirectory(prefix="ha-lab-lock-") as folder,
        ThreadPoolExecutor(max_workers=8) as pool,
    ):
        web = Web(Path(folder), step.log)
        return tuple(pool.map(lambda each: _asked(each, web, mirrors), questions))


def records(release: Release, found: Iterable[Compared]) -> str:
    """Return what the hosts said as a file of records, for `supply/pin-upstream`."""
    written: dict[str, Any] = {"format": pinning.FORMAT, "kubernetes": {}, "images": {}, "files": {}}
    for each in found:
        if each.found:
            *above, last = (
                pinning.place_of_file(each.part, release, each.architecture)
                if isinstance(each.part, File)
                else pinning.place_of_image(each.part, release)
            )
            into = written
            for name in above:
                into = into.setdefault(name, {})
            into[last] = {"sha256": each.found, "agree": 1, "sources": [SOURCE], "single_source": True}
    day = datetime.now(UTC).date().isoformat()
    written["sources"] = {SOURCE: {"path": f"upstream's hosts, as reported by ./inv lock on {day}"}}
    return yaml.safe_dump(written, sort_keys=False, width=1000)


def _questions(release: Release, pinned: Lock | None) -> Iterable[Compared]:
    digests: Mapping[str, Hash] = pinned.images if pinned else {}
    for file in parts.files(release):
        hashes = pinned.of_file(file.name, file.version) if pinned else {}
        for arch in parts.architectures():
            yield Compared(file, arch, hashes[arch].sha256 if arch in hashes else "")
    for image in parts.all_images(release):
        yield Compared(image, "", digests[image.name].sha256 if image.name in digests else "")


def _asked(question: Compared, web: Web, mirrors: Mirrors) -> Compared:
    try:
        return replace(question, found=_ask(question, web, mirrors))
    except Refused as error:
        return replace(question, problem=error.message, absent=error.absent)


def _ask(question: Compared, web: Web, mirrors: Mirrors) -> str:
    if isinstance(question.part, Image):
        _require_tls(registry.manifest_url(question.part.name, "latest", mirrors), question.title)
        return registry.tagged(web, question.part.name, mirrors)
    url = f"{file_url(mirrors, question.part.url(question.architecture))}.sha256"
    _require_tls(url, question.title)
    said = web.read(url, question.title).decode(errors="replace")
    found = re.match(r"\s*([0-9a-f]{64})\b", said)
    if not found:
        raise Refused(
            question.title,
            host_of(url),
            "its .sha256 file contains no hash",
            hint="open that URL and see what it has",
            log=web.log,
        )
    return found[1]


def _require_tls(url: str, what: str) -> None:
    if not url.startswith("https:") and not is_loopback(host_of(url)):
        raise Refused(
            what,
            host_of(url),
            "it has no TLS, so its answer could be altered on the way",
            hint="use an https mirror or no mirror for `./inv lock`; `bake` can use this mirror",
        )


def require_own_hosts(mirrors: Mirrors) -> None:
    """Raise LabError where a mirror would be asked: a file of records names upstream's own hosts."""
    if mirrors.files or mirrors.images:
        raise LabError(
            "`--records` needs upstream's own hosts, but lab.yaml names mirrors",
            hint="leave out `--records`, or name a lab.yaml without `mirrors.files` and `mirrors.images`: "
            "`--lab FILE`",
        )


def write(path: Path, text: str) -> None:
    """Write a new file of records. Raises LabError; never overwrites one."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise LabError(f"{path} exists already", hint="choose another name, or remove it first") from error
    except OSError as error:
        raise LabError(f"{path} can't be written: {error.strerror}", hint="choose another place") from error
