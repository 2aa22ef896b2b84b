"""Knows the proxies that the user's environment names, and whom they are not for.

A proxy's URL may hold a password: it travels in environments and in files that root alone reads, and is
never a word of a command or a line of a log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

NAMES = ("http_proxy", "https_proxy", "no_proxy")
"""The usual variables; each is heeded in capitals too, where the small one is not set."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the proxy settings in both spellings: apt reads the small ones only, some read the others.

    Empty where there is no proxy. Loopback is always asked without one.
    """
    found = {name: environ.get(name) or environ.get(name.upper(), "") for name in NAMES}
    if not (found["http_proxy"] or found["https_proxy"]):
        return {}
    found["no_proxy"] = ",".join(dict.fromkeys([*_split(found["no_proxy"]), *LOOPBACK]))
    return {spelling: value for name, value in found.items() if value for spelling in (name, name.upper())}


def for_nodes(own: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what a machine of the lab is given; `own` are the networks and names that need no proxy.

    A proxy on this host's loopback can't be reached from a machine, and is left out.
    """
    found = {name: value for name, value in environment(environ).items() if not _on_loopback(value)}
    if not {"http_proxy", "https_proxy"} & set(found):
        return {}
    exempt = ",".join(dict.fromkeys([*_split(found["no_proxy"]), *own]))
    return found | {"no_proxy": exempt, "NO_PROXY": exempt}


def _on_loopback(value: str) -> bool:
    """Whether a proxy's URL (the scheme may be missing) names this host itself."""
    try:
        host = urlsplit(value if "://" in value else f"http://{value}").hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
