"""The list of what is built: which programs, from which pinned module, with which flags."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostNotFit
from lab.golden.supply.releases import Release

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

KUBERNETES = (
    *("kubeadm", "kubelet", "kubectl"),
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"),
)
CNI_PLUGINS = (
    *("main/bridge", "main/host-device", "main/ipvlan", "main/loopback"),
    *("main/macvlan", "main/ptp", "main/vlan"),
    *("ipam/dhcp", "ipam/host-local", "ipam/static"),
    *("meta/bandwidth", "meta/firewall", "meta/portmap", "meta/sbr", "meta/tuning", "meta/vrf"),
)

FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
"""No host paths, no git metadata and no DWARF debug information in programs."""

STATIC_C = "-linkmode external -extldflags -static"
"""For programs with C in them: they run where there is no C library, or another one than the host's."""

PAUSE_FLAGS = ("-Os", "-Wall", "-static", "-s")
"""As pause's own Makefile has them, without the symbols."""


@dataclass(frozen=True)
class Component:
    """One pinned module's programs: `programs` maps the file that is wanted to its Go package.

    `pin` is the folder of its go.mod and go.sum. `at_once`: small ones, which are one step together.
    """

    name: str
    version: str
    pin: Path
    programs: Mapping[str, str]
    ldflags: str = ""
    tags: str = ""
    cgo: bool = False
    at_once: bool = False

    @property
    def steps(self) -> tuple[tuple[str, ...], ...]:
        """The programs in the groups in which their building is reported: one by one, or all at once."""
        return (tuple(self.programs),) if self.at_once else tuple((each,) for each in self.programs)


def components(release: Release) -> tuple[Component, ...]:
    """Return what is built with Go, small ones first, so that a host's faults show early."""
    pins = release.pins()
    plugins = "github.com/containernetworking/plugins"
    kube_router = "github.com/cloudnativelabs/kube-router/v2"
    plugin_version = f"-X {plugins}/pkg/utils/buildversion.BuildVersion"
    return (
        Component(
            "flannel",
            release.flannel,
            pins["flannel"],
            {"bin/flanneld": "github.com/flannel-io/flannel"},
            f"-X github.com/flannel-io/flannel/pkg/version.Version=v{release.flannel} {STATIC_C}",
            tags="netgo,osusergo",
            cgo=True,  # its udp backend
        ),
        Component(
            "kube-router",
            release.kube_router,
            pins["kube-router"],
            {"bin/kube-router": f"{kube_router}/cmd/kube-router"},
            f"-X {kube_router}/pkg/version.Version=v{release.kube_router}",
        ),
        Component(
            "cni-flannel",
            release.cni_flannel,
            pins["cni-flannel"],
            {"cni/flannel": f"{plugins}/plugins/meta/flannel"},
            f"{plugin_version}=v{release.cni_flannel}",
            at_once=True,
        ),
        Component(
            "cni-plugins",
            release.cni_plugins,
            pins["cni-plugins"],
            {f"cni/{path.split('/')[1]}": f"{plugins}/plugins/{path}" for path in CNI_PLUGINS},
            f"{plugin_version}=v{release.cni_plugins}",
            at_once=True,
        ),
        Component(
            "local-path",
            release.local_path,
            pins["local-path"],
            {"bin/local-path-provisioner": "github.com/rancher/local-path-provisioner"},
            f"-X main.VERSION=v{release.local_path}",
        ),
        Component(
            "crictl",
            release.crictl,
            pins["crictl"],
            {"bin/crictl": "sigs.k8s.io/cri-tools/cmd/crictl"},
            f"-X sigs.k8s.io/cri-tools/pkg/version.Version={release.crictl}",
        ),
        Component(
            "metrics-server",
            release.metrics_server,
            pins["metrics-server"],
            {"bin/metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
            f"-X k8s.io/client-go/pkg/version.gitVersion=v{release.metrics_server}",
        ),
        Component(
            "helm",
            release.helm,
            pins["helm"],
            {"bin/helm": "helm.sh/helm/v4/cmd/helm"},
            f"-X helm.sh/helm/v4/internal/version.version=v{release.helm} "
            "-X helm.sh/helm/v4/internal/version.gitTreeState=clean",
        ),
        Component(
            "kubernetes",
            release.kubernetes,
            pins["kubernetes"],
            {f"bin/{program}": f"k8s.io/kubernetes/cmd/{program}" for program in KUBERNETES},
            version_stamp(release.kubernetes),
        ),
        Component(
            "etcd",
            release.etcd,
            pins["etcd"],
            {
                "bin/etcd": "go.etcd.io/etcd/server/v3",
                "bin/etcdctl": "go.etcd.io/etcd/etcdctl/v3",
                "bin/etcdutl": "go.etcd.io/etcd/etcdutl/v3",
            },
            at_once=True,
        ),
        Component("coredns", release.coredns, pins["coredns"], {"bin/coredns": "github.com/coredns/coredns"}),
    )


def runtime(release: Release) -> tuple[Component, ...]:
    """Return what runs containers, which every machine has: runc first, since it needs most of the host."""
    pins = release.pins()
    containerd = "github.com/containerd/containerd/v2"
    version = f"-X {containerd}/version.Version=v{release.containerd}"
    return (
        Component(
            "runc",
            release.runc,
            pins["runc"],
            {"bin/runc": "github.com/opencontainers/runc"},
            STATIC_C,
            tags="netgo,osusergo,seccomp,urfave_cli_no_docs",
            cgo=True,  # it enters namespaces in C, and pods' seccomp profiles are libseccomp's work
        ),
        # One runs beside each pod, so it is built without what it does not use, as upstream's is.
        Component(
            "containerd-shim",
            release.containerd,
            pins["containerd"],
            {"bin/containerd-shim-runc-v2": f"{containerd}/cmd/containerd-shim-runc-v2"},
            version,
            tags="urfave_cli_no_docs,no_grpc",
        ),
        Component(
            "containerd",
            release.containerd,
            pins["containerd"],
            {f"bin/{name}": f"{containerd}/cmd/{name}" for name in ("containerd", "ctr")},
            version,
            tags="urfave_cli_no_docs,no_tracing,no_devmapper,no_zfs",  # pods' files are overlayfs here
            at_once=True,
        ),
    )


def architecture() -> str:
    """Return this host's architecture in Go's words. Raises HostNotFit for one that nothing is built for."""
    found = machine_architecture()
    if found not in ARCHITECTURES.values():
        raise HostNotFit(
            f"Kubernetes can't be built for {found} here",
            hint=f"use a host with one of {', '.join(ARCHITECTURES)}",
        )
    return found


def machine_architecture() -> str:
    """Return this host's architecture in Go's words, or in the kernel's for one that nothing is built for."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def version_stamp(version: str) -> str:
    """What `kubeadm version` and every user agent say; upstream's build stamps the same two packages."""
    major, minor, _ = version.split(".")
    facts = f"gitVersion=v{version} gitMajor={major} gitMinor={minor} gitTreeState=clean"
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{fact}" for package in packages for fact in facts.split())
