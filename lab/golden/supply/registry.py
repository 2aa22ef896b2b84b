"""Fetches container images from registries: by digest, without a daemon, as any user.

The requests are those of the distribution specification (opencontainers/distribution-spec); `web` makes them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lab.golden.supply.hosts import MIRROR, Refused
from lab.golden.supply.mirrors import Place, image_place
from lab.golden.supply.recipe import architecture
from lab.golden.supply.web import Web
from lab.model import Mirrors

ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

SHA256 = "sha256:"


def fetch(web: Web, name: str, digest: str, mirrors: Mirrors) -> str:
    """Fetch an image of this host's architecture; return the SHA-256 of its manifest, in hex. Raises Refused.

    `digest` is its manifest's, or its list's of manifests for several architectures. Every byte is verified,
    from that digest down. The files are in the folder of `web`, named by their hashes.
    """
    place = image_place(mirrors, name)
    what = f"the image {name}"
    manifest, content = digest, _manifest(web, place, digest, what)
    if "manifests" in content:
        manifest = _own(content["manifests"], what, place, web.log)
        content = _manifest(web, place, manifest, what)
    for blob in (content["config"], *content["layers"]):
        web.download(f"{_url(place)}/blobs/{blob['digest']}", _hex(blob["digest"], what, place, web.log), what)
    return manifest.removeprefix(SHA256)


def manifest_url(name: str, reference: str, mirrors: Mirrors) -> str:
    """Return where the manifest of an image is, by tag or digest."""
    return f"{_url(image_place(mirrors, name))}/manifests/{reference}"


def tagged(web: Web, name: str, mirrors: Mirrors) -> str:
    """Return the SHA-256, in hex, of the list that an image's tag is now. Raises Refused."""
    tag = name.rpartition(":")[2]
    what = f"the image {name}"
    found = web.read(manifest_url(name, tag, mirrors), what, accept=ACCEPTED)
    try:
        listed = "manifests" in json.loads(found)
    except (ValueError, TypeError, RecursionError):
        listed = False
    if not listed:
        host = image_place(mirrors, name).host
        raise Refused(
            what, host, "its answer is no list of an image for several architectures", hint=MIRROR, log=web.log
        )
    return hashlib.sha256(found).hexdigest()


def _manifest(web: Web, place: Place, digest: str, what: str) -> dict[str, Any]:
    url = f"{_url(place)}/manifests/{digest}"
    file = web.download(url, _hex(digest, what, place, web.log), what, accept=ACCEPTED)
    content: dict[str, Any] = json.loads(file.read_bytes())
    return content


def _own(entries: list[dict[str, Any]], what: str, place: Place, log: Path) -> str:
    """Of a list of manifests, the digest of this host's."""
    for entry in entries:
        platform = entry.get("platform", {})
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture()):
            return str(entry["digest"])
    raise Refused(what, place.host, "it has no image for this host's architecture", hint=MIRROR, log=log)


def _hex(digest: str, what: str, place: Place, log: Path) -> str:
    if not digest.startswith(SHA256):
        raise Refused(what, place.host, f"its digest is not a SHA-256 ({digest})", hint=MIRROR, log=log)
    return digest.removeprefix(SHA256)


def _url(place: Place) -> str:
    """Where a registry serves a repository: docker.io's registry has another name than its images."""
    host, _, path = place.repository.partition("/")
    host = "registry-1.docker.io" if host == "docker.io" else host
    return f"{'https' if place.tls else 'http'}://{host}/v2/{path}"
