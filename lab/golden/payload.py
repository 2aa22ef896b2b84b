"""What a running machine lacks of another Kubernetes version, as a tar from that version's golden machine.

Programs, and the layers of images where they lie unpacked in the golden machine's containerd store.
provision/golden/images.sh lists them, and provision/node/payload.sh takes them.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabStateError
from lab.golden import image
from lab.golden.supply.images import short_name
from lab.model import Lab, Node

LIST = "usr/share/ha-lab/images.txt"
BILL = "usr/share/ha-lab/bom.json"
CONTENT = "usr/lib/ha-lab/containerd/io.containerd.content.v1.content/blobs"
"""Manifests and configurations of all images; small, as layers are elsewhere."""

PROGRAMS = tuple(f"usr/bin/{name}" for name in ("kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl"))
"""Programs that have another version; the others are the same with every Kubernetes (supply/releases.yaml)."""

OF_CONTROL_PLANES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
"""Short names of images that only control planes start."""

OF_ETCD_MACHINES = ("etcd", "pause")
"""Those that an etcd machine starts."""


@dataclass(frozen=True)
class GoldenImage:
    """One image of a golden machine: its full name, and the folders of its layers, without a slash in front."""

    name: str
    folders: tuple[str, ...]


def images(lab: Lab, golden: str) -> tuple[GoldenImage, ...]:
    """List the images of the golden machine of that name. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="ha-lab-payload-") as folder:
        archive = Path(folder) / "list.tar"
        image.files(lab, golden, [LIST], archive)
        with tarfile.open(archive) as read:
            listed = read.extractfile(LIST) if LIST in read.getnames() else None
            if listed is None:
                raise LabStateError(
                    f"{golden} does not list its images, so no machine can be upgraded from it",
                    hint="`./inv bake --prune`, then `./inv bake` builds it again",
                )
            return parse(listed.read().decode())


def parse(text: str) -> tuple[GoldenImage, ...]:
    """Read the list: `image NAME DIGEST TYPE`, then `layer CHAIN-ID FOLDER` for each layer."""
    found: list[GoldenImage] = []
    for line in text.splitlines():
        word, first, second, *_ = line.split()
        if word == "image":
            found.append(GoldenImage(first, ()))
        else:
            last = found.pop()
            found.append(GoldenImage(last.name, (*last.folders, second.removeprefix("/"))))
    return tuple(found)


def missing(node: Node, known: Iterable[GoldenImage], there: Iterable[str]) -> tuple[GoldenImage, ...]:
    """The images that a machine needs and does not have; `there` are the names of those it has."""
    has = set(there)
    return tuple(each for each in known if each.name not in has and _needs(node, short_name(each.name)))


def _needs(node: Node, name: str) -> bool:
    if not node.spec.runs_kubelet:
        return name in OF_ETCD_MACHINES
    return node.spec.serves_api or name not in OF_CONTROL_PLANES


def write(lab: Lab, golden: str, wanted: Sequence[GoldenImage], target: Path) -> None:
    """Write the payload with these images to the file `target`, whole or not at all. Raises LabError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folders = dict.fromkeys(folder for each in wanted for folder in each.folders)
    part = target.with_name(f".{target.name}.part")
    image.files(lab, golden, [*PROGRAMS, LIST, BILL, CONTENT, *folders], part)
    part.rename(target)
