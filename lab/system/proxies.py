"""Proxy settings from the user's environment, and the addresses that bypass a proxy.

A proxy's URL may contain a password: it is passed in environments and in files that only root can read, never
in a command's arguments or in a log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

NAMES = ("http_proxy", "https_proxy", "no_proxy")
"""The usual variables; the upper-case form counts where the lower-case one is not set."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the proxy settings in both spellings: apt reads only lower case, other programs upper case.

    Empty where there is no proxy. Loopback addresses always bypass it.
    """
    found = {name: environ.get(name) or environ.get(name.upper(), "") for name in NAMES}
    if not (found["http_proxy"] or found["https_proxy"]):
        return {}
    found["no_proxy"] = ",".join(dict.fromkeys([*_split(found["no_proxy"]), *LOOPBACK]))
    return {spelling: value for name, value in found.items() if value for spelling in (name, name.upper())}


def for_nodes(own: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings for a machine of the lab; `own` are the networks and names that bypass the proxy.

    A proxy on this host's loopback address is left out, since machines can't reach it.
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
