"""Fills a stand-in of upstream's hosts with real programs: those that were built from Go modules.

Files and images have the names and the forms of upstream's, and about their sizes. Only this host's
architecture.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lab.golden import debian
from lab.golden.supply import flannel, images, lock, parts
from lab.golden.supply.lock import Hash, Lock, LockedFile
from lab.golden.supply.recipe import architecture
from lab.golden.supply.releases import Release
from lab.model import Mirrors
from lab.system import process
from lab.system.paths import PROVISION
from lab.system.progress import Progress
from tests.supply.standins import CONFIG, DOCKER, LAYER, Site, sha256

SOURCES = ("stand-in", "again")
FAST = 1
"""gzip's level: upstream's are some percent smaller."""


def fill(site: Site, wanted: Release, built: Path, folder: Path, progress: Progress) -> Lock:
    """Serve what the real lock of a version has, made of the programs in `built`; return the lock of that.

    `folder` is for what is served, about 400 MB. Needs root, for the tools in some images.
    """
    real = lock.read(wanted.kubernetes)
    folder.mkdir()
    locked = {
        file.name: LockedFile(
            version=file.version, hashes={architecture(): _pinned(_file(site, file, built, folder))}
        )
        for file in parts.files(wanted)
        if file.name in real.files
    }
    archives = _images(wanted, built, folder, progress)
    digests = {
        name: _pinned(_image(site, name, archives[name], folder)) for name in real.images if name in archives
    }
    plugin = flannel.plugin_image(wanted)
    digests[plugin] = _pinned(_plugin(site, plugin, built / "cni" / "flannel", folder))
    return Lock(
        kubernetes=wanted.kubernetes,
        files=locked,
        images=digests,
        sources=dict.fromkeys(SOURCES, "what the stand-in has"),
    )


def mirrors(site: Site) -> Mirrors:
    """The mirrors that lead to a stand-in."""
    return Mirrors(
        files={host: f"{site.url}/{host}" for host in parts.file_hosts()},
        images={host: f"{site.url}/{host}" for host in ("registry.k8s.io", "ghcr.io")},
    )


def _pinned(hashed: str) -> Hash:
    return Hash(sha256=hashed, sources=SOURCES)


def _file(site: Site, file: parts.File, built: Path, folder: Path) -> str:
    path = file.url(architecture()).removeprefix("https:/")
    inside = {where.format(arch=architecture()): built / program for program, where in file.inside.items()}
    if "" in inside:
        return site.put(path, inside[""])
    archive = folder / Path(path).name
    with tarfile.open(archive, "w:gz", compresslevel=FAST) as out:
        for name, program in inside.items():
            out.add(program, name)
    return site.put(path, archive)


def _images(wanted: Release, built: Path, folder: Path, progress: Progress) -> dict[str, Path]:
    """Every image, as the kit makes it of these programs, by its full name."""
    base = debian.root(debian.packages(), Mirrors(), folder, progress)
    tools = folder / "tools.tar"
    script = PROVISION / "golden" / "tools-layer.sh"
    words = process.as_root(script, base, folder / "tools", tools)
    process.run(words, log=folder / "log", timeout=300)
    archives = images.write_images(built, wanted, tools, folder / "images")
    return dict(zip(images.image_names(built, wanted), archives, strict=True))


def _image(site: Site, name: str, archive: Path, folder: Path) -> str:
    """Serve an image with gzipped layers, as upstream's are; return the digest of its manifest."""
    place = name.rpartition(":")[0]
    with tarfile.open(archive) as content:

        def blob(described: Mapping[str, str]) -> IO[bytes]:
            found = content.extractfile(f"blobs/{described['digest'].replace(':', '/')}")
            assert found is not None
            return found

        index = content.extractfile("index.json")
        assert index is not None
        manifest = json.load(blob(json.load(index)["manifests"][0]))
        config = _put(site, place, CONFIG, blob(manifest["config"]).read())
        layers = [_put(site, place, LAYER, _squeezed(blob(each), folder)) for each in manifest["layers"]]
    return _manifest(site, place, config, layers)


def _plugin(site: Site, name: str, program: Path, folder: Path) -> str:
    place = name.rpartition(":")[0]
    layer = folder / "plugin.tar"
    with tarfile.open(layer, "w") as out:
        out.add(program, "flannel")
    with layer.open("rb") as file:
        described = _put(site, place, LAYER, _squeezed(file, folder))
    return _manifest(site, place, _put(site, place, CONFIG, b"{}"), [described])


def _squeezed(layer: IO[bytes], folder: Path) -> Path:
    beside = folder / "layer.gz"
    with gzip.GzipFile(beside, "wb", compresslevel=FAST, mtime=0) as out:
        shutil.copyfileobj(layer, out)
    return beside.rename(folder / f"{sha256(beside)}.gz")


def _put(site: Site, place: str, kind: str, content: bytes | Path) -> dict[str, object]:
    digest = f"sha256:{sha256(content)}"
    site.put(f"/v2/{place}/blobs/{digest}", content)
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    return {"mediaType": kind, "digest": digest, "size": size}


def _manifest(site: Site, place: str, config: object, layers: list[dict[str, object]]) -> str:
    text = json.dumps({"schemaVersion": 2, "mediaType": DOCKER, "config": config, "layers": layers}).encode()
    return site.put(f"/v2/{place}/manifests/sha256:{sha256(text)}", text, DOCKER)
