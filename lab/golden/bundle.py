"""Packs everything that a host without a network needs into one file, and imports such a file.

The file is a plain tar: `manifest.json` first, then `wheels/` (the kit's own Python packages, for `inv`,
which reads that folder before there is any Python package), `suite/` if the conformance suite was built,
last `machine/`, the golden machine as its provider takes it. The manifest has the checksum of every part and of
itself: they detect damage, and don't prove who made the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from lab.errors import LabError, LabStateError
from lab.golden import image
from lab.golden.supply.recipe import machine_architecture
from lab.host import cache_folder
from lab.model import Frozen, Lab, Provider
from lab.providers import PROVIDERS, provider_of
from lab.system import environment, process
from lab.system.paths import IS_CHECKOUT, REPOSITORY
from lab.system.progress import Progress
from lab.system.version import version

MANIFEST, WHEELS, SUITE, MACHINE = "manifest.json", "wheels", "suite", "machine"
LOCK = REPOSITORY / "requirements.txt"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The Pythons that a classroom's machines may have; the lock has hashes for all of them."""

PLATFORMS: dict[str, tuple[str, ...]] = {
    "amd64": ("manylinux2014_x86_64", "manylinux_2_28_x86_64"),
    "arm64": ("manylinux2014_aarch64", "manylinux_2_28_aarch64"),
}
MACOS: dict[str, tuple[str, ...]] = {"amd64": ("macosx_12_0_x86_64",), "arm64": ("macosx_12_0_arm64",)}
"""pip's platform names; those of macOS are added if the provider runs there."""

UNKNOWN = "unknown"
"""The commit for a folder that is not a Git checkout, such as a copy or an installed package."""

WHEELS_MIB = 150
PIECE = 1 << 20


class Part(Frozen):
    """One file of the bundle: its name in the tar, its size in bytes, its sum."""

    name: str
    bytes: int
    sha256: str


class Manifest(Frozen):
    """What a bundle contains, and for which lab. `unpacked` is the golden machine's size, in MiB.

    `suite` is the name of the conformance suite's folder; "" if it was not built.
    """

    format: Literal[1] = 1
    kit: str
    commit: str
    golden: str
    provider: Provider
    kubernetes: str
    architecture: str
    unpacked: int
    suite: str = ""
    parts: tuple[Part, ...]

    def text(self) -> str:
        """As the bundle has it: JSON with the sum of itself."""
        data = self.model_dump(mode="json")
        return json.dumps(data | {"sha256": _sum_of(data)}, indent=2) + "\n"


def write(lab: Lab, target: Path, progress: Progress, suite: Path | None = None) -> Manifest:
    """Pack this lab's golden machine, which must be there, and the kit's Python packages into `target`.

    `suite` is the folder of the conformance suite, if it was built. Writes `target` atomically, and never
    overwrites a file. Raises LabError.
    """
    target = target.absolute()
    require_new(target)
    unpacked = image.size(lab)
    folder = target.with_name(f".{target.name}.partial")
    with _explained(target):
        # Peak use: the unpacked image and its archive, about 5/3 of the image.
        needed = unpacked * 5 // 3 + WHEELS_MIB + _mib(suite)
        _require_room(target.parent, needed, "to pack the golden machine")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            _fetch_wheels(lab, folder / WHEELS, progress)
            (folder / MACHINE).mkdir()
            image.pack(lab, folder / MACHINE, progress)
            if suite is not None:
                shutil.copytree(suite, folder / SUITE, copy_function=_link_or_copy)
            manifest = _describe(lab, folder, unpacked, suite.name if suite is not None else "")
            with progress.step("bundle", f"write {target.name}"):
                _write_tar(manifest, folder, folder / "bundle.tar")
            os.rename(folder / "bundle.tar", target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return manifest


def require_new(target: Path) -> None:
    """Raise LabStateError where a new file could not be written: its name exists, or its folder does not."""
    if os.path.lexists(target):
        raise LabStateError(f"{target} exists already", hint="choose another name, or remove it first")
    if not os.access(target.absolute().parent, os.W_OK | os.X_OK):
        raise LabStateError(
            f"{target.parent} is not a folder that you can write to", hint="create it, or choose another"
        )


def take(lab: Lab, file: Path, manifest: Manifest, progress: Progress) -> None:
    """Import the contents of a bundle that `check` has verified. Raises LabError.

    An existing golden machine is not changed.
    """
    lab = image.with_key(lab, manifest.golden) or lab  # `auto` comes to the source that the machine has
    with _explained(cache_folder()), tarfile.open(file, "r:") as bundle:
        _place_wheels(bundle, manifest)
        _place_suite(bundle, manifest)
        if not image.exists(lab, image.name(lab)):
            _unpack_machine(lab, bundle, manifest, progress)
    if not image.exists(lab, image.name(lab)):
        raise LabError(
            f"{file} was imported, and {image.name(lab)} is not in it",
            hint="export it again with `./inv bake --export FILE`, where it came from",
        )


def check(lab: Lab, file: Path) -> Manifest:
    """Read and verify a bundle, and return its manifest; changes nothing.

    Raises LabError with every reason why it can't be imported for this lab on this host.
    """
    try:
        with tarfile.open(file, "r:") as bundle:
            manifest = _manifest_of(bundle, file)
            problems = _not_for_us(lab, manifest) + _damage(bundle, manifest)
    except FileNotFoundError as error:
        raise LabError(f"there is no file {file}", hint=f"check its name and folder; {MADE_BY}") from error
    except IsADirectoryError as error:
        raise LabError(f"{file} is a folder", hint=f"name the file itself; {MADE_BY}") from error
    except (tarfile.TarError, EOFError) as error:
        raise _no_bundle(
            file, f"it was not written by `./inv bake --export`, or is incomplete ({error})"
        ) from error
    except OSError as error:
        hint = "make it readable for you, or copy it to this machine again"
        raise LabError(f"{file} can't be read: {error.strerror}", hint=hint) from error
    if problems:
        lines = [f"{file} can't be imported:", *(f"- {what}" for what, _ in problems)]
        hints = dict.fromkeys(hint for _, hint in problems)
        raise LabError("\n".join(lines), hint="; ".join(hints))
    return manifest


# Checking. A problem is what is wrong, and what to do.

Problem = tuple[str, str]
MADE_BY = "`./inv bake --export FILE` writes such a file, on a host with a network"
AGAIN = "copy the file again: it was damaged in transit"


def _manifest_of(bundle: tarfile.TarFile, file: Path) -> Manifest:
    first = bundle.next()
    packed = bundle.extractfile(first) if first is not None and first.name == MANIFEST else None
    if packed is None:
        raise _no_bundle(file, f"it is an archive, but none of `./inv bake --export` ({MANIFEST} is not first)")
    try:
        data = json.loads(packed.read(PIECE))
        if data.get("format") != 1:
            what = f"it has format {data.get('format')!r}, and this checkout knows 1"
            raise LabError(
                f"{file} can't be imported: {what}", hint="use the checkout that made it, or export it again"
            )
        whole = data.pop("sha256", None) == _sum_of(data)
        manifest = Manifest.model_validate(data)
    except (ValueError, ValidationError, AttributeError):
        whole = False
    if not whole:
        raise LabError(f"{file} can't be imported: its {MANIFEST} is damaged", hint=AGAIN)
    return manifest


def _not_for_us(lab: Lab, manifest: Manifest) -> list[Problem]:
    problems = []
    if manifest.architecture != machine_architecture():
        here = machine_architecture()
        what = f"it was made on a machine with an {manifest.architecture} processor, and this one has {here}"
        problems.append((what, f"make one on a machine with {here}: `./inv bake --export FILE`"))
    if PROVIDERS[manifest.provider] is not provider_of(lab):
        what = f"it is for labs with provider {manifest.provider}, and this lab has {lab.provider}"
        hint = f"set `provider: {manifest.provider}` in lab.yaml, or export a file for {lab.provider}"
        problems.append((what, hint))
    elif image.with_key(lab, manifest.golden) is None:
        what = (
            f"it was made by another checkout or lab.yaml: its golden machine is {manifest.golden} (Kubernetes "
            f"{manifest.kubernetes}), and this lab wants {image.key(lab)} (Kubernetes {lab.kubernetes.version})"
        )
        commit = "" if manifest.commit == UNKNOWN else f" (git checkout {manifest.commit})"
        hint = f"use the checkout and the lab.yaml that it was exported with{commit}"
        problems.append((what, f"{hint}, or export a file with these"))
    return problems


def _damage(bundle: tarfile.TarFile, manifest: Manifest) -> list[Problem]:
    """Compare every part with the manifest. Raises TarError if the file ends early."""
    expected = {part.name: part for part in manifest.parts}
    problems = []
    while member := bundle.next():
        part = expected.pop(member.name, None)
        packed = bundle.extractfile(member) if member.isreg() else None
        if part is None or packed is None:
            problems.append((f"{member.name!r} is in it, which its manifest does not name", AGAIN))
        elif member.size != part.bytes or _sum_of_file(packed) != part.sha256:
            problems.append((f"{part.name} is not what it was when it was packed", AGAIN))
    return problems + [(f"{name} is missing", AGAIN) for name in expected]


def _no_bundle(file: Path, why: str) -> LabError:
    hint = f"check whether it is the right file; {MADE_BY}; if it is, {AGAIN}"
    return LabError(f"{file} can't be imported: {why}", hint=hint)


# Packing.


def _fetch_wheels(lab: Lab, folder: Path, progress: Progress) -> None:
    """Get every package of the lock as a wheel for each Python; pip checks the lock's hashes."""
    systems = [PLATFORMS[machine_architecture()]]
    if provider_of(lab).runs_on_macos:
        systems.append(MACOS[machine_architecture()])
    with progress.step("wheels", "get the kit's Python packages for the bundle") as step:
        for python in PYTHONS:
            for names in systems:
                words = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
                words += ["--require-hashes", "--only-binary=:all:", "--no-deps", "--requirement", str(LOCK)]
                words += ["--dest", str(folder), "--implementation", "cp", "--python-version", python]
                words += [word for name in names for word in ("--platform", name)]
                hint = "the package index must be reachable to export; then run it again"
                env = environment.chosen(environment.PIP)
                process.run(words, env=env, log=step.log, timeout=600, hint=hint)
    shutil.copyfile(LOCK, folder / LOCK.name)


def _describe(lab: Lab, folder: Path, unpacked: int, suite: str) -> Manifest:
    wheels = sorted((folder / WHEELS).glob("*.whl"))
    # The copy of the lock is after them: for `inv`, a folder that has it is complete.
    others = [path for name in (SUITE, MACHINE) for path in sorted((folder / name).glob("*"))]
    files = [*wheels, folder / WHEELS / LOCK.name, *others]
    return Manifest(
        kit=version(),
        commit=_commit(),
        golden=image.key(lab),
        provider=lab.provider,
        kubernetes=lab.kubernetes.version,
        architecture=machine_architecture(),
        unpacked=unpacked,
        suite=suite,
        parts=tuple(_part(path, str(path.relative_to(folder))) for path in files),
    )


def _part(path: Path, name: str) -> Part:
    with path.open("rb") as file:
        return Part(name=name, bytes=path.stat().st_size, sha256=_sum_of_file(file))


def _write_tar(manifest: Manifest, folder: Path, target: Path) -> None:
    """Write the tar: the same parts give the same bytes."""
    (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    with target.open("xb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as bundle:
            for name in (MANIFEST, *(part.name for part in manifest.parts)):
                bundle.add(folder / name, name, filter=_anonymous)
        file.flush()
        os.fsync(file.fileno())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    return member.replace(mtime=0, mode=0o644, uid=0, gid=0, uname="", gname="", deep=False)


def _link_or_copy(source: str, target: str) -> None:
    """Link a file, which takes no room; copy it where the target is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _mib(folder: Path | None) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) // 2**20 + 1 if folder is not None else 0


def _commit() -> str:
    if not IS_CHECKOUT:
        return UNKNOWN  # and not that of a repository that the package happens to be in
    words = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    return process.run(words, accept=None, timeout=10).stdout.strip() or UNKNOWN


# Unpacking.


def wheels_folder() -> Path:
    """Where `inv` looks for the Python packages of an imported bundle."""
    return cache_folder() / WHEELS


def _place_wheels(bundle: tarfile.TarFile, manifest: Manifest) -> None:
    parts = [part for part in manifest.parts if part.name.startswith(f"{WHEELS}/")]
    wheels_folder().mkdir(parents=True, exist_ok=True)
    for part in parts:
        _extract(bundle, part, wheels_folder() / Path(part.name).name)
    for old in {path.name for path in wheels_folder().iterdir()} - {Path(part.name).name for part in parts}:
        (wheels_folder() / old).unlink()


def _place_suite(bundle: tarfile.TarFile, manifest: Manifest) -> None:
    """Put the conformance suite where `./inv conformance` looks for it; one that is there stays as it is."""
    parts = [part for part in manifest.parts if part.name.startswith(f"{SUITE}/")]
    final = suites_folder() / manifest.suite
    if not parts or final.exists():
        return
    suites_folder().mkdir(parents=True, exist_ok=True)
    _require_room(suites_folder(), sum(part.bytes for part in parts) // 2**20 + 1, "to unpack the suite")
    folder = Path(tempfile.mkdtemp(dir=suites_folder(), prefix="import-", suffix=".partial"))
    try:
        for part in parts:
            target = folder / Path(part.name).name
            _extract(bundle, part, target)
            target.chmod(0o644 if target.suffix in (".tar", ".txt") else 0o755)
        folder.chmod(0o755)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def suites_folder() -> Path:
    """Where conformance suites are kept, a folder for each."""
    return cache_folder() / "conformance"


def _unpack_machine(lab: Lab, bundle: tarfile.TarFile, manifest: Manifest, progress: Progress) -> None:
    parts = [part for part in manifest.parts if part.name.startswith(f"{MACHINE}/")]
    needed = sum(part.bytes for part in parts) // 2**20 + 1
    shelf = cache_folder() / "golden"
    shelf.mkdir(parents=True, exist_ok=True)
    _require_room(shelf, needed, "to unpack the golden machine")
    # A unique name, so that two imports don't conflict; its end lets `bake --prune` find leftovers of killed
    # ones.
    folder = Path(tempfile.mkdtemp(dir=shelf, prefix=f"import-{manifest.golden}-", suffix=".partial"))
    try:
        with progress.step("unpack", f"unpack {needed} MiB"):
            for part in parts:
                _extract(bundle, part, folder / Path(part.name).name)
        image.unpack(lab, folder, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extract(bundle: tarfile.TarFile, part: Part, target: Path) -> None:
    """Put one part at `target` by one rename, from what was checked just now."""
    packed = bundle.extractfile(part.name)
    assert packed is not None  # the check has read it
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("wb") as file:
        shutil.copyfileobj(packed, file, PIECE)
    partial.rename(target)


# Both ways.


def _sum_of(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _sum_of_file(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        process.raise_if_interrupted("read the bundle")
        digest.update(piece)
    return digest.hexdigest()


def _require_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free // 2**20
    if free < needed:
        raise LabStateError(
            f"{folder} has {free} MiB free, and {needed} are needed {what}",
            hint="free some space there, or choose another disk",
        )


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turn system errors about files into LabErrors."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of our own output has closed the pipe
    except OSError as error:
        raise LabError(
            f"{place}: {error.strerror} ({error.filename})", hint="free some space there, or make it yours"
        ) from error
