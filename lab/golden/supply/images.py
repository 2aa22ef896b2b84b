"""The images that a cluster needs, under the names that it asks for: fetched or made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.golden.supply import flannel
from lab.golden.supply.oci import write_image
from lab.golden.supply.releases import Release
from lab.model.addons import ADDONS
from lab.system import process

PROBE = "localhost/ha-lab/probe:1"
"""The image of verify's own pods: the tools layer and nothing else."""

NAMES = "names.txt"
"""The file beside the archives that holds the images' full names, one a line."""


FETCHED = "images"
"""The folder of images that were fetched, `SHORT-NAME.tar` each, beside the programs."""


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
    "kube-router": _on_path("kube-router", tools=True),
    "metrics-server": Recipe({"/metrics-server": "metrics-server"}, ["/metrics-server"], user="65534:65534"),
    "local-path-provisioner": Recipe(
        {"/usr/bin/local-path-provisioner": "local-path-provisioner"}, ["local-path-provisioner"]
    ),
    "probe": Recipe({}, ["sh"], tools=True),
}


def write_images(built: Path, release: Release, tools_layer: Path, folder: Path) -> tuple[Path, ...]:
    """Write `FOLDER/IMAGE.tar` for every image a cluster needs, and `FOLDER/names.txt`; return the tars.

    `built` is what `source.build` returned: an image that was fetched is taken as it is, the others are
    made. `tools_layer` is a tar with a shell and what programs the kernel (iptables, nft, conntrack,
    ipset). Raises LabError for an image that nothing here makes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = image_names(built, release)
    archives = []
    for name in names:
        short = short_name(name)
        archive = folder / f"{short}.tar"
        archives.append(archive)
        fetched = built / FETCHED / archive.name
        if fetched.exists():
            os.link(fetched, archive)
            continue
        recipe = RECIPES.get(short)
        if recipe is None:
            raise LabError(
                f"Kubernetes {release.kubernetes} asks for an image that the kit doesn't make: {name}",
                hint="add it to RECIPES in lab/golden/supply/images.py",
            )
        write_image(
            archive,
            name,
            {inside: built / "bin" / program for inside, program in recipe.files.items()},
            entrypoint=recipe.entrypoint,
            user=recipe.user,
            base_layers=[tools_layer] if recipe.tools else [],
        )
    (folder / NAMES).write_text("\n".join(names) + "\n", encoding="utf-8")
    return tuple(archives)


def short_name(name: str) -> str:
    """Return the last part of an image's full name, without its tag."""
    return name.rpartition("/")[2].partition(":")[0]


def image_names(built: Path, release: Release) -> tuple[str, ...]:
    """Return the names that kubeadm and flannel's manifest ask for, kube-router's, add-ons' and the probe's."""
    words = ["config", "images", "list", "--kubernetes-version", f"v{release.kubernetes}"]
    listed = process.run([built / "bin" / "kubeadm", *words], timeout=60).stdout.split()
    # kubeadm's configuration (etcd.local.imageTag) and the image must agree on etcd's tag.
    tagged = [f"{name.rpartition(':')[0]}:{release.etcd_tag}" if "/etcd:" in name else name for name in listed]
    manifest = (built / "kube-flannel.yml").read_text(encoding="utf-8")
    return (
        *tagged,
        flannel.agent_image(manifest),
        release.kube_router_image,
        *addon_images(release),
        PROBE,
    )


def addon_images(release: Release) -> tuple[str, ...]:
    """Return the full names of all add-ons' images: one each, whether lab.yaml asks for it or not."""
    return tuple(addon.image.format(release=release) for addon in ADDONS.values())
