"""What upstream publishes of a Kubernetes version: files and images, and the programs that each replaces.

A program is named as in the folder that `source.build` returns (`bin/kubelet`, `cni/bridge`). What no part
has, or what could not be had, is built from Go modules: `without` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lab.golden.supply import flannel, images, modules, releases
from lab.golden.supply.recipe import ARCHITECTURES, CNI_PLUGINS
from lab.golden.supply.releases import Release, supported

OF_KUBERNETES = ("kubeadm", "kubelet", "kubectl", "kube-proxy")
"""The release binaries that are used; of kube-proxy only where no record has the digest of its image."""

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
"""The images that have Kubernetes' own version as their tag."""

ETCD_TOOLS = {f"bin/{name}": f"/usr/local/bin/{name}" for name in ("etcdctl", "etcdutl")}
PLUGIN = {"cni/flannel": "/flannel"}


@dataclass(frozen=True)
class File:
    """A release file: its project's URL with `{arch}` in it, its SPDX licence, the programs taken from it.

    `inside` maps each program to its path in the archive, which may have `{arch}` in it; to "" where the file
    is the program.
    """

    name: str
    version: str
    template: str
    inside: Mapping[str, str]
    licence: str = "Apache-2.0"

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that need not be built."""
        return tuple(self.inside)

    @property
    def title(self) -> str:
        """Its name and version, for messages."""
        return f"{self.name} {self.version}"

    def url(self, architecture: str) -> str:
        """Its URL at its own host."""
        return self.template.format(arch=architecture)


@dataclass(frozen=True)
class Image:
    """An image under its full name, the programs that it replaces, and those that are copied out of it.

    `inside` maps a program to its path in the image. Without `packed`, only those are used of it.
    """

    name: str
    runs: tuple[str, ...] = ()
    inside: Mapping[str, str] = field(default_factory=dict)
    packed: bool = True

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that need not be built."""
        return tuple(dict.fromkeys((*self.runs, *self.inside)))

    @property
    def title(self) -> str:
        """What it is and its name, for messages."""
        return f"the image {self.name}"


Part = File | Image


def files(release: Release) -> tuple[File, ...]:
    """Return the release files of a version, the largest of Kubernetes first."""
    of_kubernetes = f"https://dl.k8s.io/release/v{release.kubernetes}/bin/linux/{{arch}}"
    github = "https://github.com"
    plugins = {f"cni/{name}": f"./{name}" for name in (path.split("/")[1] for path in CNI_PLUGINS)}
    return (
        *(
            File(name, release.kubernetes, f"{of_kubernetes}/{name}", {f"bin/{name}": ""})
            for name in OF_KUBERNETES
        ),
        File(
            "cni-plugins",
            release.cni_plugins,
            f"{github}/containernetworking/plugins/releases/download/v{release.cni_plugins}"
            f"/cni-plugins-linux-{{arch}}-v{release.cni_plugins}.tgz",
            plugins,
        ),
        File(
            "crictl",
            release.crictl,
            f"{github}/kubernetes-sigs/cri-tools/releases/download/v{release.crictl}"
            f"/crictl-v{release.crictl}-linux-{{arch}}.tar.gz",
            {"bin/crictl": "crictl"},
        ),
        File(
            "helm",
            release.helm,
            f"https://get.helm.sh/helm-v{release.helm}-linux-{{arch}}.tar.gz",
            {"bin/helm": "linux-{arch}/helm"},
        ),
    )


def file_hosts() -> tuple[str, ...]:
    """Return the hosts of all release files."""
    return tuple(sorted({urlsplit(file.template).netloc for file in files(releases.release(supported()[0]))}))


def image_names(release: Release) -> tuple[str, ...]:
    """Return the full names of the images that kubeadm of this version asks for (`kubeadm config images list`).

    etcd's has the tag that the kit sets. `images.image_names` asks kubeadm itself, and `upstream` compares.
    """
    return (
        *(f"registry.k8s.io/{name}:v{release.kubernetes}" for name in CONTROL_PLANE),
        f"registry.k8s.io/coredns/coredns:v{release.coredns}",
        f"registry.k8s.io/pause:{release.pause}",
        f"registry.k8s.io/etcd:{release.etcd_tag}",
    )


def all_images(release: Release) -> tuple[Image, ...]:
    """Return every image that upstream publishes of what a lab runs, and that of flannel's CNI plugin."""
    run = (
        *image_names(release),
        flannel.agent_image(flannel.manifest(release)),
        release.kube_router_image,
        *images.addon_images(release),
    )
    return (
        *(Image(name, _run_by(name), ETCD_TOOLS if images.short_name(name) == "etcd" else {}) for name in run),
        # No cluster runs it.
        Image(flannel.plugin_image(release), inside=PLUGIN, packed=False),
    )


def without(release: Release, had: Iterable[Part]) -> tuple[str, ...]:
    """Return the programs of a version that none of these parts has: they are built from Go modules."""
    replaced = {program for part in had for program in part.programs}
    return tuple(program for program in modules.programs_of(release) if program not in replaced)


def architectures() -> tuple[str, ...]:
    """The architectures that a file is pinned for, in Go's words."""
    return tuple(ARCHITECTURES.values())


def _run_by(name: str) -> tuple[str, ...]:
    return tuple(f"bin/{program}" for program in images.RECIPES[images.short_name(name)].files.values())
