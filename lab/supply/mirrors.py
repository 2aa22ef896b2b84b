"""This room knows where things are fetched from: the upstream hosts, or what lab.yaml names instead."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from lab.supply import releases


class Place(NamedTuple):
    """An image's place in a registry, without tag or digest, and whether it is asked over TLS."""

    repository: str
    tls: bool

    @property
    def host(self) -> str:
        """The registry's host, and its port where it has one."""
        return self.repository.partition("/")[0]


class Mirrors(BaseModel):
    """Hosts that stand for the upstream ones; empty means upstream's own.

    What comes from them is verified all the same: Debian's and Kubernetes' packages by their signatures,
    Go modules by go.sum, images by the lock's digests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    debian: str = ""
    debian_security: str = ""
    kubernetes_packages: str = ""
    images: dict[str, str] = {}
    go: str = ""

    def packages(self, version: str) -> str:
        """Return the URL of the flat Debian repository with that Kubernetes version's packages."""
        base = self.kubernetes_packages or releases.upstream().packages
        return f"{base.rstrip('/')}/core:/stable:/v{version.rpartition('.')[0]}/deb/"

    def image(self, name: str) -> Place:
        """Return where the image of that full name (`HOST/PATH:TAG`) is."""
        registry, _, path = name.rpartition(":")[0].partition("/")
        instead = self.images.get(registry, registry)
        return Place(f"{instead.rpartition('://')[2].rstrip('/')}/{path}", not instead.startswith("http://"))


def is_loopback(host: str) -> bool:
    """Whether `HOST` or `HOST:PORT` is this machine itself, so that nobody is in between."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
