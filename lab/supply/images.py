"""This room makes the images that a cluster needs out of built programs, under the names it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab import process
from lab.errors import LabError
from lab.supply.oci import write_image
from lab.supply.releases import Release

PROBE = "localhost/ha-lab/probe:1"
"""The image of verify's own pods: the tools layer and nothing else."""

NAMES = "names.txt"
"""The file beside the archives that holds the images' full names, one a line."""


@dataclass(frozen=True)
class Recipe:
    """What is in one image: path inside to program, what it starts as, whether it needs the tools."""

    files: Mapping[str, str]
    entrypoint: Sequence[str]
    tools: bool = False
    user: str = ""


def _on_path(*programs: str, tools: bool = False) -> Recipe:
    """An image whose first program is its entry point, all of them found by name."""
    files = {f"/usr/local/bin/{program}": program for program in programs}
    return Recipe(files, [f"/usr/local/bin/{programs[0]}"], tools)


# Paths and entry points as upstream's images have them: kubeadm's manifests call programs by name.
RECIPES = {
    "kube-apiserver": _on_path("kube-apiserver"),
    "kube-controller-manager": _on_path("kube-controller-manager"),
    "kube-scheduler": _on_path("kube-scheduler"),
    "kube-proxy": _on_path("kube-proxy", tools=True),
    "etcd": _on_path("etcd", "etcdctl", "etcdutl"),
    "coredns": Recipe({"/coredns": "coredns"}, ["/coredns"]),
    "pause": Recipe({"/pause": "pause"}, ["/pause"], user="65535:65535"),
    "flannel": Recipe({"/opt/bin/flanneld": "flanneld"}, ["/opt/bin/flanneld"], tools=True),
    "probe": Recipe({}, ["sh"], tools=True),
}


def write_images(modules: Path, release: Release, tools_layer: Path, folder: Path) -> tuple[Path, ...]:
    """Write `FOLDER/IMAGE.tar` for every image a cluster needs, and `FOLDER/names.txt`; return the tars.

    `modules` is what `modules.build` returned; `tools_layer` a tar with a shell and what programs the
    kernel (iptables, nft, conntrack, ipset). Raises LabError for an image that nobody here makes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = image_names(modules, release)
    archives = []
    for name in names:
        short = name.rpartition("/")[2].partition(":")[0]
        recipe = RECIPES.get(short)
        if recipe is None:
            raise LabError(
                f"Kubernetes {release.kubernetes} asks for an image that the kit doesn't make: {name}",
                hint="add it to RECIPES in lab/supply/images.py",
            )
        archive = folder / f"{short}.tar"
        write_image(
            archive,
            name,
            {inside: modules / "bin" / program for inside, program in recipe.files.items()},
            entrypoint=recipe.entrypoint,
            user=recipe.user,
            base_layers=[tools_layer] if recipe.tools else [],
        )
        archives.append(archive)
    (folder / NAMES).write_text("\n".join(names) + "\n", encoding="utf-8")
    return tuple(archives)


def image_names(modules: Path, release: Release) -> tuple[str, ...]:
    """Return the names that kubeadm and flannel's manifest themselves ask for, and the probe's."""
    words = ["config", "images", "list", "--kubernetes-version", f"v{release.kubernetes}"]
    listed = process.run([modules / "bin" / "kubeadm", *words], timeout=60).stdout.split()
    # kubeadm's configuration (etcd.local.imageTag) and the image must agree on etcd's tag.
    tagged = [f"{name.rpartition(':')[0]}:{release.etcd_tag}" if "/etcd:" in name else name for name in listed]
    return (*tagged, flannel_image(modules / "kube-flannel.yml"), PROBE)


def flannel_image(manifest: Path) -> str:
    """Return the image of flannel's agent, as its manifest names it."""
    for document in yaml.safe_load_all(manifest.read_text(encoding="utf-8")):
        if document and document["kind"] == "DaemonSet":
            return str(document["spec"]["template"]["spec"]["containers"][0]["image"])
    raise LabError(f"{manifest} has no DaemonSet", hint="remove that folder; the next run builds it again")
