"""A small upstream on loopback, a lock of what it has, and modules that are not built."""

from __future__ import annotations

import copy
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.golden.supply import bom, hosts, images, lock, modules, parts, upstream
from lab.golden.supply.lock import Hash, Lock, LockedFile
from lab.golden.supply.recipe import architecture
from lab.golden.supply.releases import Release, release
from lab.model import Mirrors
from lab.system import proxies
from lab.system.progress import Progress
from tests.supply.standins import Site, served, tar_gz
from tests.unit.fakes import program, progress

VERSION = "1.36.3"
SOURCES = ("stand-in", "other")


@dataclass
class Modules:
    """Stands for the build from Go modules: makes what it is asked for, and keeps what that was."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    def build(
        self,
        wanted: Release,
        mirrors: Mirrors,
        cache: Path,
        steps: Progress,
        only: Collection[str] | None = None,
    ) -> Path:
        """Make small programs that say where they are from."""
        assert only, "upstream never asks for everything, or for nothing"
        unknown = set(only) - set(parts.without(wanted, []))
        assert not unknown, unknown
        self.asked = list(only)
        for name in ("bin", "cni"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in only:
            program(self.folder / Path(name).parent, Path(name).name, f"echo {Path(name).name} from modules")
        if "bin/kubeadm" in only:
            program(self.folder / "bin", "kubeadm", kubeadm(wanted))
        made = bom.Material(
            "go-module", "example.org/built", "1.0.0", "MIT", used_in=tuple(Path(name).name for name in only)
        )
        bom.write(self.folder / "bom.json", [made])
        return self.folder


@dataclass(frozen=True)
class Upstream:
    """The stand-in, the lock of what it has, and one build from them."""

    release: Release
    site: Site
    mirrors: Mirrors
    lock: Lock
    modules: Modules
    progress: Progress
    cache: Path

    def build(self, mirrors: Mirrors | None = None) -> Path:
        return upstream.build(self.release, mirrors or self.mirrors, self.cache, self.progress)

    def change_lock(self, **different: object) -> None:
        lock.write(self.lock.model_copy(update=different))

    @property
    def printed(self) -> str:
        """What the user saw."""
        file = self.progress.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.progress.logs.glob("*")))

    @property
    def partial(self) -> Path:
        """Where downloads are until all is there."""
        return self.cache / "upstream" / f"{upstream.key(self.release)}.partial" / "blobs"


def kubeadm(wanted: Release) -> str:
    """A kubeadm that knows the images that it needs, as the real one does, and nothing else."""
    lines = "\n".join(parts.image_names(wanted))
    return f'[ "$1 $2 $3" = "config images list" ] || exit 3\ncat <<END\n{lines}\nEND'


def fill(site: Site, wanted: Release, programs: Path) -> Lock:
    """Serve every part that upstream publishes, and return the lock of those that the real lock has."""
    locked, digests = {}, {}
    for file in parts.files(wanted):
        hashes = {}
        for arch in parts.architectures():
            path = file.url(arch).removeprefix("https:/")
            inside = {
                where.format(arch=arch): programs / Path(name).name for name, where in file.inside.items()
            }
            content = tar_gz(inside) if "" not in inside else inside[""].read_bytes()
            if arch != architecture():
                content += b"\n# another architecture"
            hashes[arch] = Hash(sha256=site.put(path, content), sources=SOURCES)
            site.put(f"{path}.sha256", f"{hashes[arch].sha256}  {file.name}\n".encode(), "text/plain")
        locked[file.name] = LockedFile(version=file.version, hashes=hashes)
    for image in parts.all_images(wanted):
        names = [Path(each).name for each in image.programs]
        inside = {f"/usr/local/bin/{name}": programs / name for name in names} | {
            path: programs / Path(name).name for name, path in image.inside.items()
        }
        digests[image.name] = Hash(sha256=site.put_image(image.name, inside), sources=SOURCES)
    real = lock.Lock.model_validate(_real(wanted))
    return Lock(
        kubernetes=wanted.kubernetes,
        files={name: each for name, each in locked.items() if name in real.files},
        images={name: each for name, each in digests.items() if name in real.images},
        sources=dict.fromkeys(SOURCES, "what the stand-in has"),
    )


def _real(wanted: Release) -> object:
    return lock.read(wanted.kubernetes).model_dump()


def mirrors(site: Site) -> Mirrors:
    registries = ("registry.k8s.io", "ghcr.io", "docker.io")
    return Mirrors(
        files={host: f"{site.url}/{host}" for host in parts.file_hosts()},
        images={host: f"{site.url}/{host}" for host in registries},
    )


@pytest.fixture(autouse=True)
def no_proxy_but_the_tests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this host would be asked for what is on loopback by another name."""
    for name in (*proxies.NAMES, *(name.upper() for name in proxies.NAMES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four seconds, where a user waits twenty."""
    monkeypatch.setattr(hosts, "PATIENCE", 4)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small programs that say their names."""
    folder = tmp_path_factory.mktemp("programs")
    wanted = release(VERSION)
    found: list[parts.Part] = [*parts.files(wanted), *parts.all_images(wanted)]
    for part in found:
        for name in part.programs:
            program(folder, Path(name).name, f"echo {Path(name).name} from upstream")
    program(folder, "kubeadm", kubeadm(wanted))
    return folder


@dataclass(frozen=True)
class Made:
    """What a site has and its lock: made once, copied for each test."""

    site: Site
    lock: Lock


@pytest.fixture(scope="session")
def made(programs: Path) -> Made:
    site = Site()
    return Made(site, fill(site, release(VERSION), programs))


@contextmanager
def running(made: Made, folder: Path) -> Iterator[Upstream]:
    """Upstream as it should be, pinned, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch, served(copy.deepcopy(made.site)) as site:
        patch.setattr(lock, "FOLDER", folder / "locks")
        lock.write(made.lock)
        fake = Modules(folder / "modules")
        patch.setattr(modules, "build", fake.build)
        yield Upstream(
            release=release(VERSION),
            site=site,
            mirrors=mirrors(site),
            lock=made.lock,
            modules=fake,
            progress=progress(folder / "logs"),
            cache=folder / "cache",
        )


@pytest.fixture
def stand_in(made: Made, tmp_path: Path) -> Iterator[Upstream]:
    """Upstream as it should be, pinned, for one test to spoil."""
    with running(made, tmp_path) as stood_in:
        yield stood_in


@dataclass(frozen=True)
class Built:
    """What was built of upstream as it should be."""

    folder: Path
    release: Release
    lock: Lock
    modules: tuple[str, ...]
    remarks: tuple[str, ...]


@pytest.fixture(scope="session")
def built(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build once, for all tests that only look at what comes of it."""
    with running(made, tmp_path_factory.mktemp("built")) as it:
        folder = it.build()
        return Built(folder, it.release, it.lock, tuple(it.modules.asked), tuple(it.progress.remarks))


def names_in(folder: Path) -> set[str]:
    """The files of a folder of images, by their short names."""
    return {path.stem for path in (folder / images.FETCHED).iterdir()}
