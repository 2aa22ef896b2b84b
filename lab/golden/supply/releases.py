"""The Kubernetes versions that the kit builds, and the versions of the other parts of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lab.errors import ConfigError
from lab.system.paths import SUPPLY


@dataclass(frozen=True)
class Release:
    """One Kubernetes version and the versions of what is built with it, all without a leading `v`."""

    kubernetes: str
    etcd: str
    etcd_tag: str
    """The tag of etcd's image, for kubeadm's `etcd.local.imageTag`."""
    coredns: str
    pause: str
    """The tag that kubeadm wants for the pause image."""
    cni_plugins: str
    cni_flannel: str
    flannel: str
    containerd: str
    runc: str
    kube_router: str
    metrics_server: str
    local_path: str
    crictl: str
    helm: str
    etcd_from: str = "0.0.0"
    """The oldest etcd whose members this one's may join, by etcd's upgrade guide."""
    go: str = ""
    """The Go toolchain that builds all of it."""

    def pins(self) -> dict[str, Path]:
        """The folder of each component's go.mod and go.sum."""
        versions = {
            "kubernetes": self.kubernetes,
            "etcd": self.etcd,
            "coredns": self.coredns,
            "cni-plugins": self.cni_plugins,
            "cni-flannel": self.cni_flannel,
            "flannel": self.flannel,
            "containerd": self.containerd,
            "runc": self.runc,
            "kube-router": self.kube_router,
            "metrics-server": self.metrics_server,
            "local-path": self.local_path,
            "crictl": self.crictl,
            "helm": self.helm,
            "conformance": self.kubernetes,
        }
        return {name: SUPPLY / name / version for name, version in versions.items()}

    @property
    def kube_router_image(self) -> str:
        """The name of kube-router's image, as its project publishes it."""
        return f"docker.io/cloudnativelabs/kube-router:v{self.kube_router}"


def supported() -> tuple[str, ...]:
    """The Kubernetes versions that can be built, newest first."""
    return tuple(_data()["releases"])


def release(version: str) -> Release:
    """Return what goes with that Kubernetes version; ConfigError when it is not one of `supported()`."""
    data = _data()
    if version not in data["releases"]:
        known = ", ".join(supported())
        raise ConfigError(
            [f"Kubernetes {version} is not one that this kit can build"],
            hint=f"set kubernetes.version to one of {known}",
        )
    return Release(kubernetes=version, go=data["go"], **data["every"], **data["releases"][version])


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((SUPPLY / "releases.yaml").read_text(encoding="utf-8"))
    return data
