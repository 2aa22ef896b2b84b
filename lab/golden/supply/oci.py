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


def pack_image(layout: Path, name: str, archive: Path) -> None:
    """Write an image that lies unpacked in an OCI layout as an archive, under its full name.

    The archive appears when it is whole. Raises OSError.
    """
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    for entry in index["manifests"]:
        entry["annotations"] = _names(name)
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as out:
        _add(out, "oci-layout", (layout / "oci-layout").read_bytes())
        _add(out, "index.json", _json(index))
        for blob in sorted((layout / "blobs").glob("*/*")):
            _add_file(out, str(blob.relative_to(layout)), blob, 0o644)
    os.replace(unfinished, archive)


def take_file(layout: Path, path: str, target: Path) -> bool:
    """Copy one file of an image that lies in an OCI layout; False when no layer has it.

    `path` is absolute, and of a plain file: what the topmost layer has under that name counts.
    """
    (entry,) = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"]
    manifest = json.loads((layout / _blob(entry["digest"])).read_text(encoding="utf-8"))
    for layer in reversed(manifest["layers"]):
        with tarfile.open(layout / _blob(layer["digest"])) as content:
            for member in content:
                if member.isfile() and member.name.removeprefix("./").strip("/") == path.strip("/"):
                    source = content.extractfile(member)
                    if source is not None:
                        with source, target.open("wb") as file:
                            shutil.copyfileobj(source, file)
                        target.chmod(0o755 if member.mode & 0o100 else 0o644)
                        return True
    return False


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
