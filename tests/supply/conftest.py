"""A small upstream on loopback: real tools, small programs, a key of the tests' own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.golden.supply import flannel, images, lock, pinning, upstream
from lab.golden.supply.lock import Lock
from lab.golden.supply.releases import Release, release
from lab.model import Mirrors
from lab.model.addons import ADDONS
from lab.system.progress import Progress
from tests.supply.standins import Faults, Registry, Repository, SigningKey, registry, signing_key, web_server
from tests.unit.fakes import program, progress

VERSION = "1.36.3"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


@dataclass(frozen=True)
class Upstream:
    """The stand-ins, and the lock as `./inv lock` makes it of them."""

    release: Release
    key: SigningKey
    repository: Repository
    registry: Registry
    web: str
    faults: Faults
    mirrors: Mirrors
    lock: Lock
    progress: Progress
    cache: Path

    def build(self, mirrors: Mirrors | None = None) -> Path:
        return upstream.build(self.release, mirrors or self.mirrors, self.cache, self.progress)

    def pin(self, mirrors: Mirrors | None = None) -> Lock:
        return pinning.make(self.release, mirrors or self.mirrors, self.key.fingerprint, self.progress)

    def change_lock(self, **different: object) -> None:
        lock.write(self.lock.model_copy(update=different))

    def nothing_under_its_name(self) -> bool:
        return not (self.cache / "upstream" / upstream.key(self.release)).exists()

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.progress.logs.glob("*")))


@pytest.fixture(scope="session")
def key() -> Iterator[SigningKey]:
    with signing_key("stand-in") as made:
        yield made


@pytest.fixture(scope="session")
def foreign_key() -> Iterator[SigningKey]:
    with signing_key("foreign") as made:
        yield made


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small programs that say their names; kubeadm knows the images that it needs, as the real one does."""
    folder = tmp_path_factory.mktemp("programs")
    wanted = release(VERSION)
    listed = [f"registry.k8s.io/{name}:v{VERSION}" for name in KUBERNETES]
    listed += [
        f"registry.k8s.io/coredns/coredns:v{wanted.coredns}",
        f"registry.k8s.io/pause:{wanted.pause}",
        f"registry.k8s.io/etcd:{wanted.etcd_tag}",
    ]
    for parts in upstream.PROGRAMS.values():
        for place in parts.values():
            program(folder, Path(place).name, f"echo {Path(place).name}")
    others = ("coredns", "pause", "etcd", "etcdctl", "etcdutl", "flanneld", "flannel", "kube-router")
    for name in (*KUBERNETES, *others, *ADDONS):
        program(folder, name, f"echo {name}")
    lines = "\n".join(listed)
    program(folder, "kubeadm", f'[ "$1 $2 $3" = "config images list" ] || exit 3\ncat <<END\n{lines}\nEND')
    return folder


def fill_repository(repository: Repository, programs: Path) -> None:
    versions = {"kubernetes-cni": "1.8.0-1.1", "cri-tools": "1.36.0-1.1"}
    for name, parts in upstream.PROGRAMS.items():
        files = {f"/{place}": programs / Path(place).name for place in parts.values()}
        repository.add(name, versions.get(name, f"{VERSION}-1.1"), files)
    # Older and newer ones, as upstream keeps them.
    repository.add("kubeadm", "1.36.10-1.1", {"/usr/bin/kubeadm": programs / "kubelet"})
    repository.add("cri-tools", "1.35.9-1.1", {"/usr/bin/crictl": programs / "kubelet"})


def fill_registry(registry: Registry, programs: Path) -> None:
    wanted = release(VERSION)
    for name in KUBERNETES:
        registry.push_files(f"{name}:v{VERSION}", {f"/usr/local/bin/{name}": programs / name})
    registry.push_files(f"coredns/coredns:v{wanted.coredns}", {"/coredns": programs / "coredns"})
    registry.push_files(f"pause:{wanted.pause}", {"/pause": programs / "pause"})
    tools = ("etcd", "etcdctl", "etcdutl")
    registry.push_files(
        f"etcd:{wanted.etcd_tag}", {f"/usr/local/bin/{tool}": programs / tool for tool in tools}
    )
    agent = flannel.agent_image(flannel.manifest(wanted)).partition("/")[2]
    registry.push_files(f"mirrored/{agent}", {"/opt/bin/flanneld": programs / "flanneld"})
    policy = wanted.kube_router_image.partition("/")[2]
    registry.push_files(f"mirrored/{policy}", {"/usr/local/bin/kube-router": programs / "kube-router"})
    for name, image in zip(ADDONS, images.addon_images(wanted), strict=True):
        host, _, place = image.partition("/")
        place = place if host == "registry.k8s.io" else f"mirrored/{place}"
        registry.push_files(place, {f"/{name}": programs / name})
    plugin = flannel.plugin_image(wanted).partition("/")[2]
    registry.push_files(f"mirrored/{plugin}", {"/flannel": programs / "flannel"})


@dataclass(frozen=True)
class Made:
    """The folders of a registry and of a packages' host, and their lock: made once, copied for each test."""

    registry: Path
    host: Path
    lock: Lock


@pytest.fixture(scope="session")
def made(key: SigningKey, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("upstream")
    repository = Repository(folder / "host", "1.36")
    fill_repository(repository, programs)
    repository.publish(key)
    with registry(folder / "registry") as registered, web_server(folder / "host", Faults()) as web:
        fill_registry(registered, programs)
        steps = progress(folder / "logs")
        pinned = pinning.make(release(VERSION), mirrors(web, registered), key.fingerprint, steps)
    return Made(folder / "registry", folder / "host", pinned)


def mirrors(web: str, registered: Registry) -> Mirrors:
    host = f"http://{registered.host}"
    places = {"registry.k8s.io": host, **dict.fromkeys(("ghcr.io", "docker.io"), f"{host}/mirrored")}
    return Mirrors(kubernetes_packages=web, images=places)


@contextmanager
def running(key: SigningKey, made: Made, folder: Path) -> Iterator[Upstream]:
    """Upstream as it should be, pinned, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "FOLDER", folder / "locks")
        lock.write(made.lock)
        shutil.copytree(made.host, folder / "host")
        shutil.copytree(made.registry, folder / "registry")
        faults = Faults()
        with registry(folder / "registry") as registered, web_server(folder / "host", faults) as web:
            yield Upstream(
                release=release(VERSION),
                key=key,
                repository=Repository(folder / "host", "1.36"),
                registry=registered,
                web=web,
                faults=faults,
                mirrors=mirrors(web, registered),
                lock=made.lock,
                progress=progress(folder / "logs"),
                cache=folder / "cache",
            )


@pytest.fixture
def stand_in(key: SigningKey, made: Made, tmp_path: Path) -> Iterator[Upstream]:
    """Upstream as it should be, pinned, for one test to spoil."""
    with running(key, made, tmp_path) as stood_in:
        yield stood_in


@dataclass(frozen=True)
class Built:
    """What was built of upstream as it should be."""

    folder: Path
    release: Release
    lock: Lock


@pytest.fixture(scope="session")
def built(key: SigningKey, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build once, for all tests that only look at what comes of it."""
    with running(key, made, tmp_path_factory.mktemp("built")) as stood_in:
        return Built(stood_in.build(), stood_in.release, stood_in.lock)
