"""Where files are downloaded from: the upstream hosts, or the mirrors in lab.yaml."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from lab.model import Mirrors


class Place(NamedTuple):
    """An image's place in a registry, without tag or digest, and whether it is asked over TLS."""

    repository: str
    tls: bool

    @property
    def host(self) -> str:
        """The registry's host, and its port where it has one."""
        return self.repository.partition("/")[0]


def file_url(mirrors: Mirrors, url: str) -> str:
    """Return where the file of that URL at its own host is: a mirror has it at the same path."""
    parts = urlsplit(url)
    return f"{mirrors.files.get(parts.netloc, f'{parts.scheme}://{parts.netloc}')}{parts.path}"


def image_place(mirrors: Mirrors, name: str) -> Place:
    """Return where the image of that full name (`HOST/PATH:TAG`) is."""
    registry, _, path = name.rpartition(":")[0].partition("/")
    instead = mirrors.images.get(registry, registry)
    return Place(f"{instead.rpartition('://')[2].rstrip('/')}/{path}", not instead.startswith("http://"))


def is_loopback(host: str) -> bool:
    """Whether `HOST` or `HOST:PORT` is this machine itself, so that nothing is in between."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
