"""Downloads Kubernetes as its project publishes it: signed Debian packages, and images by digest.

CACHE/upstream/KEY/     bin/ cni/ images/ kube-flannel.yml bom.json, laid out as `modules` does; KEY is the
                        hash of the lock
CACHE/upstream/KEY.partial/     a fetch that runs, or was stopped; the next one goes on there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lab.errors import LabError
from lab.golden.supply import bom, flannel, images, licences, lock, oci, registry, shelf
from lab.golden.supply.apt import Repository
from lab.golden.supply.bom import Material
from lab.golden.supply.lock import Lock
from lab.golden.supply.mirrors import packages_url
from lab.golden.supply.recipe import CNI_PLUGINS, architecture
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system.progress import Progress

LAYOUT = 1
"""Raised when the same lock leads to another folder: what is in it besides, or how it is named."""

PROGRAMS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        **{name: {f"bin/{name}": f"usr/bin/{name}"} for name in ("kubeadm", "kubelet", "kubectl")},
        "cri-tools": {"bin/crictl": "usr/bin/crictl"},
        "kubernetes-cni": {
            f"cni/{plugin}": f"opt/cni/bin/{plugin}" for plugin in (path.split("/")[1] for path in CNI_PLUGINS)
        },
    }
)
"""Each package, and what of it is used: the place in the folder → the place in the package.

Unit files are the kit's own, for both sources. The CNI plugins are those that `modules` builds.
"""

ETCD_TOOLS = {f"bin/{name}": f"/usr/local/bin/{name}" for name in ("etcdctl", "etcdutl")}
"""The files that are extracted from etcd's image."""

SPARED = "bin/etcdutl"
"""Upstream has etcd images without it, and nothing of the kit calls it."""

PLUGIN = {"cni/flannel": "/flannel"}
"""The files that are extracted from the image of flannel's plugin, which no cluster runs."""


def key(release: Release) -> str:
    """Return the hash of all that determines the folder. Raises LabError where there is no lock."""
    pinned = lock.read(release.kubernetes)
    determined = [LAYOUT, pinned.model_dump(exclude={"key"}), architecture(), flannel.manifest(release)]
    return hashlib.sha256(json.dumps(determined).encode()).hexdigest()[:16]


def build(release: Release, mirrors: Mirrors, cache: Path, progress: Progress) -> Path:
    """Return the folder of this release's programs and images, fetched if it isn't there.

    Raises LabError; complete downloads are kept.
    """
    pinned = lock.read(release.kubernetes)
    folder = cache / "upstream" / key(release)
    return shelf.keep(folder, lambda partial: _make(release, pinned, mirrors, partial, progress), progress)


def _make(release: Release, pinned: Lock, mirrors: Mirrors, partial: Path, progress: Progress) -> Path:
    whole = partial / f"whole-{os.getpid()}"
    shutil.rmtree(whole, ignore_errors=True)
    for name in ("bin", "cni"):
        (whole / name).mkdir(parents=True)
    materials = _packages(release, pinned, mirrors, partial, whole, progress)
    materials += _images(pinned, mirrors, partial / "layouts", whole, progress)
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")
    _require_all_images(release, whole)
    bom.write(whole / "bom.json", materials)
    return whole


def _packages(
    release: Release, pinned: Lock, mirrors: Mirrors, partial: Path, whole: Path, progress: Progress
) -> list[Material]:
    """Fetch and verify the packages, and take what is used of them."""
    materials = []
    with progress.step("packages", f"get the packages of Kubernetes {release.kubernetes}") as step:
        url = packages_url(mirrors, release.kubernetes)
        repository = Repository(url, pinned.signed_by, partial / "apt", step.log)
        repository.update(pinned.key)
        for name, wanted in PROGRAMS.items():
            version = pinned.packages[name].version
            step.note = f"{name} {version}"
            expected = pinned.packages[name].sha256.get(architecture(), "")
            file = repository.download(name, version, expected)
            unpacked = repository.unpack(file)
            for target, inside in wanted.items():
                _take(unpacked / inside, whole / target, f"the package {name} {version}")
            materials.append(
                Material(
                    "upstream-package",
                    name,
                    version,
                    _licence(unpacked / "usr" / "share" / "doc" / name),
                    f"sha256:{expected}",
                    tuple(Path(target).name for target in wanted),
                    architecture=architecture(),
                )
            )
            shutil.rmtree(unpacked)
        step.note = ""
    return materials


def _images(pinned: Lock, mirrors: Mirrors, layouts: Path, whole: Path, progress: Progress) -> list[Material]:
    """Fetch the images by their digests, pack them, and take the programs that are used outside of them."""
    fetched = whole / images.FETCHED
    fetched.mkdir()
    layouts.mkdir(exist_ok=True)
    materials = []
    with progress.step("fetch-images", "get the container images") as step:
        for name, digest in pinned.images.items():
            short = images.short_name(name)
            step.note = name
            layout = _layout(name, digest, mirrors, layouts, step.log)
            inside = {"etcd": ETCD_TOOLS, "flannel-cni-plugin": PLUGIN}.get(short, {})
            for target, path in inside.items():
                if not oci.take_file(layout, path, whole / target) and target != SPARED:
                    raise LabError(f"the image {name} has no {path}", hint=_NOT_THIS_RELEASE, log=step.log)
            if short != "flannel-cni-plugin":
                oci.pack_image(layout, name, fetched / f"{short}.tar")
            place, _, tag = name.rpartition(":")
            used_in = tuple(Path(target).name for target in inside if (whole / target).exists())
            materials.append(Material("upstream-image", place, tag, licences.UNKNOWN, digest, used_in))
        step.note = ""
    return materials


def _layout(name: str, digest: str, mirrors: Mirrors, layouts: Path, log: Path) -> Path:
    """Fetch one image, unless an earlier try has fetched it completely."""
    layout = layouts / digest.replace(":", "-")
    if not layout.exists():
        unfinished = layouts / f".{layout.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        registry.fetch(name, digest, mirrors, unfinished, log)
        unfinished.rename(layout)
    return layout


def _take(source: Path, target: Path, what: str) -> None:
    """Move one program to where it belongs."""
    if not source.is_file() or source.is_symlink():
        raise LabError(f"{what} has no {source.name}", hint=_NOT_THIS_RELEASE)
    source.chmod(0o755)
    os.rename(source, target)


def _require_all_images(release: Release, whole: Path) -> None:
    """Raise LabError where kubeadm or flannel asks for an image that the lock has not pinned."""
    names = [name for name in images.image_names(whole, release) if name != images.PROBE]
    there = {path.name for path in (whole / images.FETCHED).iterdir()}
    missing = [name for name in names if f"{images.short_name(name)}.tar" not in there]
    if missing:
        raise LabError(
            f"{lock.path(release.kubernetes)} does not pin {', '.join(missing)}",
            hint="make it again: `./inv lock`",
        )


def _licence(documents: Path) -> str:
    """Return a package's licence, read from the files that it brings."""
    found = [path for path in sorted(documents.glob("*")) if licences.LICENCE_FILE.match(path.name)]
    texts = "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in found if path.is_file())
    return licences.of_text(texts)


_NOT_THIS_RELEASE = (
    "it is not what this version of the kit knows: report it, or set kubernetes.source to modules"
)
