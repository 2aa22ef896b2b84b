"""Downloads Kubernetes as its project publishes it: release files by their hashes, and images by digest.

CACHE/upstream/KEY/     bin/ cni/ images/ kube-flannel.yml bom.json, laid out as `modules` does; KEY is the
                        hash of the lock, and of the pins of what is built from Go modules
CACHE/upstream/KEY.partial/     an unfinished download; the next run continues it

What the lock lacks, and what can't be had or differs from the lock, is built from Go modules: the versions
are the same but for flannel's CNI plugin, so the folder has the same name. Its bill of materials says what came
from where.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import time
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.golden.supply import bom, flannel, images, licences, lock, modules, oci, parts, registry, shelf
from lab.golden.supply.bom import Material
from lab.golden.supply.curl import host_of
from lab.golden.supply.hosts import MIRROR, Refused
from lab.golden.supply.lock import Lock
from lab.golden.supply.mirrors import file_url
from lab.golden.supply.parts import File, Image, Part
from lab.golden.supply.recipe import architecture
from lab.golden.supply.releases import Release
from lab.golden.supply.web import Web
from lab.model import Mirrors
from lab.system.progress import Progress, Step

LAYOUT = 2
"""Raised when the same lock leads to another folder: what is in it besides, or how it is named."""

AT_ONCE = 4
"""Downloads side by side."""

LOOK_AGAIN = 0.5
"""Seconds between two readings of how much has come."""

MIB = 1 << 20

UNREADABLE = (tarfile.TarError, EOFError, zlib.error, LookupError, TypeError, ValueError, AttributeError)
"""What archives and manifests raise that are none."""


@dataclass(frozen=True)
class _Had:
    """A part that came, and what the bill of materials says of it."""

    part: Part
    material: Material


@dataclass(frozen=True)
class _Run:
    """One run: what is made, what is pinned, where from and where to."""

    release: Release
    pinned: Lock
    mirrors: Mirrors
    web: Web
    whole: Path


def key(release: Release) -> str:
    """Return the hash of all that determines the folder. Raises LabError where there is no lock."""
    pinned = lock.read(release.kubernetes)
    hashes = {
        name: {arch: each.sha256 for arch, each in file.hashes.items()} for name, file in pinned.files.items()
    }
    digests = {name: each.sha256 for name, each in pinned.images.items()}
    determined = [LAYOUT, hashes, digests, architecture(), flannel.manifest(release), modules.key(release)]
    return hashlib.sha256(json.dumps(determined).encode()).hexdigest()[:16]


def build(release: Release, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of this release's programs and images, downloaded or built if it isn't there.

    Raises LabError; complete downloads are kept.
    """
    pinned = lock.read(release.kubernetes)
    final = _folder(release, cache)
    shelf.keep(final, lambda folder: _make(release, pinned, mirrors, cache, folder, progress), progress)
    _say_what_came_from_where(release, bom.read(final / "bom.json"), progress)
    return final


def is_there(release: Release, cache: Path) -> bool:
    """Whether all of it was downloaded and built before."""
    return _folder(release, cache).exists()


def problem(release: Release, mirrors: Mirrors, seconds: float, folder: Path, log: Path) -> Refused | None:
    """Why upstream can't be used at all; None where the hosts of a file and of an image answer in that time."""
    pinned, web = lock.read(release.kubernetes), Web(folder, log)
    asked: dict[type[Part], tuple[str, str]] = {}
    for part in _pinned_parts(release, pinned):
        asked.setdefault(type(part), (_url(part, pinned, mirrors), part.title))
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for answer in [pool.submit(web.require_answer, url, what, seconds) for url, what in asked.values()]:
            try:
                answer.result()
            except Refused as error:
                return error
    return None


def _folder(release: Release, cache: Path) -> Path:
    return cache / "upstream" / key(release)


def _make(
    release: Release, pinned: Lock, mirrors: Mirrors, cache: Path, folder: Path, progress: Progress
) -> Path:
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    for name in ("bin", "cni", images.FETCHED):
        (whole / name).mkdir(parents=True)
    with progress.step("upstream", f"download Kubernetes {release.kubernetes} from upstream") as step:
        run = _Run(release, pinned, mirrors, Web(folder / "blobs", step.log), whole)
        had, missed = _download(run, step)
    _say_refusals(missed, progress)
    rest = parts.without(release, [each.part for each in had])
    bills = [[each.material for each in had]]
    if rest:
        built = modules.build(release, mirrors, cache, progress, rest)
        for name in ("bin", "cni"):
            shutil.copytree(built / name, whole / name, copy_function=os.link, dirs_exist_ok=True)
        bills.append(list(bom.read(built / "bom.json")))
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")
    _require_the_names(release, had, whole)
    bom.write(whole / "bom.json", bom.merge(*bills))
    return whole


def _download(run: _Run, step: Step) -> tuple[list[_Had], list[Refused]]:
    """Download what is pinned, side by side; return what came, and why the rest did not."""
    wanted = _pinned_parts(run.release, run.pinned)
    meter = _Meter(run.web.folder)
    had, missed = [], []
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        running: set[Future[_Had]] = {pool.submit(_take, part, run) for part in wanted}
        try:
            while running:
                done, running = wait(running, timeout=LOOK_AGAIN)
                for each in done:
                    try:
                        had.append(each.result())
                    except Refused as error:
                        missed.append(error)
                step.note = f"{len(had)} of {len(wanted)} parts, {meter.reading()}"
        except BaseException:
            run.web.end()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    step.note = f"{len(had)} of {len(wanted)} parts, {meter.total()}"
    return sorted(had, key=lambda each: each.part.name), missed


def _pinned_parts(release: Release, pinned: Lock) -> list[Part]:
    """The parts that the lock has in this release's versions."""
    files = [file for file in parts.files(release) if architecture() in pinned.of_file(file.name, file.version)]
    return [*files, *(image for image in parts.all_images(release) if image.name in pinned.images)]


def _take(part: Part, run: _Run) -> _Had:
    """Download one part and lay it out. Raises Refused, and leaves nothing of it then."""
    try:
        return _Had(part, _take_file(part, run) if isinstance(part, File) else _take_image(part, run))
    except (Refused, *UNREADABLE) as error:
        for program in part.programs:
            (run.whole / program).unlink(missing_ok=True)
        if isinstance(error, Refused):
            raise
        # What the pinned hash belongs to is not what the lock's records say.
        url = _url(part, run.pinned, run.mirrors)
        why = f"its content can't be read ({type(error).__name__}: {error})"
        raise Refused(part.title, host_of(url), why, hint=MIRROR, log=run.web.log) from error


def _url(part: Part, pinned: Lock, mirrors: Mirrors) -> str:
    """Where a part is: a file, or an image's manifest."""
    if isinstance(part, File):
        return file_url(mirrors, part.url(architecture()))
    return registry.manifest_url(part.name, pinned.images[part.name].digest, mirrors)


def _take_file(file: File, run: _Run) -> Material:
    arch, web = architecture(), run.web
    sha256 = run.pinned.of_file(file.name, file.version)[arch].sha256
    url = _url(file, run.pinned, run.mirrors)
    got = web.download(url, sha256, file.title)
    targets = {inside.format(arch=arch): run.whole / program for program, inside in file.inside.items()}
    if "" in targets:
        os.link(got, targets[""])
    else:
        _require(file, oci.take_members(got, targets), url, web)
    for target in targets.values():
        target.chmod(0o755)
    used_in = tuple(Path(program).name for program in file.inside)
    return Material(
        "upstream-file", file.name, file.version, file.licence, f"sha256:{sha256}", used_in, architecture=arch
    )


def _take_image(image: Image, run: _Run) -> Material:
    web = run.web
    digest = run.pinned.images[image.name].digest
    manifest = registry.fetch(web, image.name, digest, run.mirrors)
    targets = {inside: run.whole / program for program, inside in image.inside.items()}
    url = _url(image, run.pinned, run.mirrors)
    _require(image, oci.take_files(web.folder, manifest, targets), url, web)
    for target in targets.values():
        target.chmod(0o755)
    if image.packed:
        archive = run.whole / images.FETCHED / f"{images.short_name(image.name)}.tar"
        oci.pack_image(web.folder, manifest, image.name, archive)
    place, _, tag = image.name.rpartition(":")
    used_in = tuple(Path(program).name for program in image.inside)
    return Material("upstream-image", place, tag, licences.UNKNOWN, digest, used_in)


def _require(part: Part, missing: set[str], url: str, web: Web) -> None:
    """Raise Refused for a part that is what was pinned, and lacks what the kit takes from it."""
    if missing:
        why = f"its file lacks {', '.join(sorted(missing))}"
        raise Refused(part.title, host_of(url), why, hint=MIRROR, log=web.log)


def _require_the_names(release: Release, had: Sequence[_Had], whole: Path) -> None:
    """Raise LabError where kubeadm asks for another tag of an image than was downloaded."""
    names = images.image_names(whole, release)
    downloaded = [each.part.name for each in had if isinstance(each.part, Image) and each.part.packed]
    unknown = [name for name in downloaded if name not in names]
    if unknown:
        raise LabError(
            f"kubeadm {release.kubernetes} does not ask for {', '.join(unknown)}",
            hint="supply/releases.yaml does not match this kubeadm: please report it, or set "
            "`kubernetes: {source: modules}` in lab.yaml",
        )


def _say_refusals(missed: Sequence[Refused], progress: Progress) -> None:
    """Say once for each host and reason what it did not give."""
    titles: dict[tuple[str, str], list[str]] = {}
    for error in missed:
        titles.setdefault((error.host, error.why), []).append(error.what)
    for (host, why), names in titles.items():
        progress.remark(
            f"not downloaded from {host} because {why}: {', '.join(sorted(names))} (built from Go modules)"
        )


def _say_what_came_from_where(release: Release, bill: Sequence[Material], progress: Progress) -> None:
    """Say at the end what was downloaded, now or by an earlier run, and what was built."""
    downloaded = [each for each in bill if each.kind in ("upstream-file", "upstream-image")]
    others = [each for each in bill if each not in downloaded]
    built = sorted({name for each in others for name in each.used_in})
    said = f"Kubernetes {release.kubernetes}: {len(downloaded)} parts downloaded from upstream and verified"
    progress.remark(f"{said}; built from Go modules: {', '.join(built)}" if built else said)


class _Meter:
    """How much has come into a folder of downloads, and how fast."""

    SECONDS = 5.0

    def __init__(self, folder: Path) -> None:
        """Count from what is there now."""
        self._folder = folder
        self._before = _bytes_in(folder)
        self._began = time.monotonic()
        self._readings: deque[tuple[float, int]] = deque([(self._began, 0)])

    def reading(self) -> str:
        """What came so far, and the rate of the last seconds."""
        now = time.monotonic()
        self._readings.append((now, _bytes_in(self._folder) - self._before))
        while now - self._readings[0][0] > self.SECONDS and len(self._readings) > 2:
            self._readings.popleft()
        (first, was), (last, came) = self._readings[0], self._readings[-1]
        return f"{max(came, 0) / MIB:.0f} MiB, {_rate(came - was, last - first)}"

    def total(self) -> str:
        """What came in all, and the mean rate."""
        came = _bytes_in(self._folder) - self._before
        return f"{max(came, 0) / MIB:.0f} MiB, {_rate(came, time.monotonic() - self._began)}"


def _rate(came: int, seconds: float) -> str:
    return f"{max(came, 0) / MIB / max(seconds, 0.001):.1f} MiB/s"


def _bytes_in(folder: Path) -> int:
    """The bytes of a folder's files; one that gets another name meanwhile counts nothing."""
    total = 0
    for path in folder.iterdir() if folder.exists() else ():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
