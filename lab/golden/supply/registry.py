"""Fetches container images from registries with skopeo: by digest, without a daemon, as any user."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from lab.golden.supply import hosts
from lab.golden.supply.mirrors import Place, image_place
from lab.golden.supply.recipe import architecture
from lab.model import Mirrors
from lab.system import environment, process

# The digest is the check; which signers a host trusts besides (policy.json) may not be configured at all.
SKOPEO = ("skopeo", "--insecure-policy")


def fetch(name: str, digest: str, mirrors: Mirrors, layout: Path, log: Path) -> None:
    """Fetch an image of this host's architecture into a new OCI layout. Raises LabError.

    `digest` is its manifest's, or its list's of manifests for several architectures. Every byte is
    verified, from that digest down.
    """
    place = image_place(mirrors, name)
    with hosts.explained(f"the image {name}", place.host):
        process.run(
            [
                *SKOPEO,
                *("--override-os", "linux", "--override-arch", architecture()),
                *("copy", "--quiet", "--dest-oci-accept-uncompressed-layers", *_tls("--src-tls-verify", place)),
                *(f"docker://{place.repository}@{digest}", f"oci:{layout}:image"),
            ],
            env=environment.chosen(environment.SKOPEO),
            log=log,
            timeout=hosts.PATIENCE,
            idle_timeout_folder=layout,
        )


def digest(name: str, mirrors: Mirrors) -> str:
    """Ask the registry for the digest of an image's tag. Raises LabError."""
    place = image_place(mirrors, name)
    tag = name.rpartition(":")[2]
    with tempfile.NamedTemporaryFile() as manifest, hosts.explained(f"the image {name}", place.host):
        words = [
            *SKOPEO,
            "inspect",
            "--raw",
            *_tls("--tls-verify", place),
            f"docker://{place.repository}:{tag}",
        ]
        env = environment.chosen(environment.SKOPEO)
        process.run(words, env=env, output=Path(manifest.name), timeout=hosts.PATIENCE)
        return f"sha256:{hashlib.sha256(Path(manifest.name).read_bytes()).hexdigest()}"


def _tls(option: str, place: Place) -> list[str]:
    return [] if place.tls else [f"{option}=false"]
