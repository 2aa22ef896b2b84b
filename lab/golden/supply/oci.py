"""Writes container images from files, as OCI archives, without a registry or a daemon.

The same files give the same bytes: no times, no owners, a fixed order, layers as they are. What lies
where in an archive is the OCI image-layout specification's; containerd imports it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.golden.supply.recipe import architecture

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Descriptor = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """One image of an archive: containerd's full name for it, its layers from the bottom, how it starts.

    `user` is numeric (`uid:gid`; empty: root). Images that differ in nothing but their name are one image to
    containerd; labels make them two.
    """

    name: str
    layers: Sequence[Path]
    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def write_image(
    archive: Path,
    name: str,
    files: Mapping[str, Path],
    *,
    entrypoint: Sequence[str],
    user: str = "",
    base_layers: Sequence[Path] = (),
) -> None:
    """Write one image: `files` maps an absolute path inside it to a file here.

    `name` is the full name that containerd will know it by, `base_layers` are tars that lie below,
    `user` is numeric (`uid:gid`; empty: root). The archive appears when it is whole. Raises OSError.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".image.") as temporary:
        layers = list(base_layers)
        if files:
            layers.append(_own_layer(files, Path(temporary) / "layer.tar"))
        unfinished = Path(temporary) / archive.name
        write_images(unfinished, [Image(name, layers, entrypoint, user=user)])
        os.replace(unfinished, archive)


def write_images(archive: Path, images: Sequence[Image]) -> None:
    """Write several images into one archive; a layer that several have is in it once. Raises OSError."""
    layers = {layer: _describe_file(layer) for image in images for layer in image.layers}
    entries: list[Descriptor] = []
    blobs: dict[str, bytes] = {}
    for image in images:
        config = _config(image, [layers[layer] for layer in image.layers])
        manifest = _manifest(config, [layers[layer] for layer in image.layers])
        blobs |= {_blob(_digest(blob)): blob for blob in (config, manifest)}
        entries.append(_describe(MANIFEST, manifest) | {"annotations": _names(image.name)})
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as out:
        _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
        for name, blob in blobs.items():
            _add(out, name, blob)
        for digest, layer in {each["digest"]: layer for layer, each in layers.items()}.items():
            _add_file(out, _blob(digest), layer, 0o644)


def pack_image(blobs: Path, manifest: str, name: str, archive: Path) -> None:
    """Write an image whose files are in the folder `blobs`, named by their SHA-256, as an archive.

    `manifest` is that of its manifest, `name` its full name. The archive appears when it is complete. Raises
    OSError.
    """
    text = (blobs / manifest).read_bytes()
    content = json.loads(text)
    entry = _describe(content.get("mediaType", MANIFEST), text) | {"annotations": _names(name)}
    parts = [manifest, *(_sha256(each) for each in (content["config"], *content["layers"]))]
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as out:
        _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
        for part in dict.fromkeys(parts):
            _add_file(out, f"blobs/sha256/{part}", blobs / part, 0o644)
    os.replace(unfinished, archive)


def take_files(blobs: Path, manifest: str, wanted: Mapping[str, Path]) -> set[str]:
    """Copy files of an image, given as for `pack_image`, from the paths of `wanted` to its targets.

    Return the paths that the image lacks. Paths are absolute, and of plain files: what the topmost layer has
    under that name counts.
    """
    missing = dict(wanted)
    for layer in reversed(json.loads((blobs / manifest).read_bytes())["layers"]):
        if missing:
            missing = {path: missing[path] for path in take_members(blobs / _sha256(layer), missing)}
    return set(missing)


def take_members(archive: Path, wanted: Mapping[str, Path]) -> set[str]:
    """Copy files of a tar, which may be compressed, as `take_files` does; return the paths that it lacks."""
    missing = {path.removeprefix("./").strip("/"): path for path in wanted}
    with tarfile.open(archive) as content:
        for member in content:
            path = missing.get(member.name.removeprefix("./").strip("/"))
            source = content.extractfile(member) if path and member.isfile() else None
            if path and source:
                with source, wanted[path].open("wb") as file:
                    shutil.copyfileobj(source, file)
                wanted[path].chmod(0o755 if member.mode & 0o100 else 0o644)
                del missing[path.removeprefix("./").strip("/")]
    return set(missing.values())


def _sha256(described: Descriptor) -> str:
    return str(described["digest"]).removeprefix("sha256:")


def _names(name: str) -> dict[str, str]:
    """The annotations that say what an image is called."""
    # containerd takes the first name as it is; the second is the specification's own.
    return {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}


def _config(image: Image, layers: Sequence[Descriptor]) -> bytes:
    """What an image's configuration says: how it starts, and its layers by their hashes."""
    run: dict[str, Any] = {"Env": [PATH], "Entrypoint": list(image.entrypoint), "User": image.user}
    run |= {"Cmd": list(image.command)} if image.command else {}
    run |= {"Labels": dict(image.labels)} if image.labels else {}
    return _json(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
    )


def _manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _describe(CONFIG, config),
            "layers": list(layers),
        }
    )


def _own_layer(files: Mapping[str, Path], layer: Path) -> Path:
    """Write a tar of the files with the folders they are in."""
    folders = {parent for path in files for parent in Path(path).parents if parent != Path("/")}
    with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as out:
        for parent in sorted(folders):
            member = _member(str(parent), 0o755)
            member.type = tarfile.DIRTYPE
            out.addfile(member)
        for path, source in sorted(files.items()):
            executable = source.stat().st_mode & 0o100
            _add_file(out, path, source, 0o755 if executable else 0o644)
    return layer


def _describe(media_type: str, content: bytes) -> Descriptor:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _describe_file(layer: Path) -> Descriptor:
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": layer.stat().st_size}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _member(name: str, mode: int) -> tarfile.TarInfo:
    """A tar entry that belongs to root and has no time."""
    member = tarfile.TarInfo(name.strip("/"))
    member.mode, member.mtime = mode, 0
    return member


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    member = _member(name, 0o644)
    member.size = len(content)
    out.addfile(member, io.BytesIO(content))


def _add_file(out: tarfile.TarFile, name: str, source: Path, mode: int) -> None:
    with source.open("rb") as file:
        member = _member(name, mode)
        member.size = os.fstat(file.fileno()).st_size
        out.addfile(member, file)
