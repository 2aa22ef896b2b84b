"""Lists the host's routes and libvirt's networks, without sending a packet."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from lab.host.ask import ask
from lab.host.facts import Route, Way
from lab.unknown import Unknown

NO_DESTINATION = ("broadcast", "multicast", "anycast")
"""Types of table entries that are not routes; the kernel adds them for each address (ip-route(8))."""

VIRSH = ("virsh", "--readonly", "--connect", "qemu:///system")
ADDRESS = re.compile(r"<ip\s([^>]*)>")
KEY = re.compile(r"(\w+)=['\"]([^'\"]+)['\"]")


def routes() -> tuple[Route, ...] | Unknown:
    """List the IPv4 routes of all tables, default routes included, as 0.0.0.0/0."""
    answer = ask(["ip", "-4", "-json", "route", "show", "table", "all"])
    if isinstance(answer, Unknown):
        return answer
    entries = json.loads(answer.stdout or "[]")
    return tuple(
        route for entry in entries if entry.get("type") not in NO_DESTINATION for route in _routes(entry)
    )


def way(address: IPv4Address) -> Way | Unknown:
    """Ask the kernel for the route to `address`."""
    # 2: no route at all, which is expected for a lab that is not up.
    answer = ask(["ip", "-4", "-json", "route", "get", str(address)], accept=(0, 2))
    if isinstance(answer, Unknown):
        return answer
    if not answer.ok:
        unreachable = "unreachable" in answer.stderr or "No route" in answer.stderr
        return Way("") if unreachable else Unknown(answer.stderr.strip())
    entry = json.loads(answer.stdout)[0]
    return Way(entry.get("dev", ""), _gateway(entry))


def neighbour(address: IPv4Address) -> str | Unknown:
    """The MAC that the kernel sends packets for `address` to; "" if it knows none."""
    answer = ask(["ip", "-4", "-json", "neighbour", "show", "to", str(address)])
    if isinstance(answer, Unknown):
        return answer
    entries = json.loads(answer.stdout or "[]")
    return next((entry["lladdr"] for entry in entries if "lladdr" in entry), "")


def libvirt() -> Mapping[str, IPv4Network] | Unknown:
    """List libvirt's networks by name, active or not; empty if there is no libvirt."""
    if shutil.which("virsh") is None:
        return {}
    listed = ask([*VIRSH, "net-list", "--all", "--name"])
    if isinstance(listed, Unknown):
        return listed
    found: dict[str, IPv4Network] = {}
    for name in listed.stdout.split():
        described = ask([*VIRSH, "net-dumpxml", name])
        if isinstance(described, Unknown):
            return described
        for words in ADDRESS.findall(described.stdout):
            keys = dict(KEY.findall(words))
            length = keys.get("prefix") or keys.get("netmask")
            if length and ":" not in keys.get("address", ":"):
                found[name] = IPv4Network(f"{keys['address']}/{length}", strict=False)
    return found


def _routes(entry: dict[str, Any]) -> Iterator[Route]:
    """One route for each next hop of an entry; usually one, in the entry itself."""
    text = "0.0.0.0/0" if entry["dst"] == "default" else entry["dst"]
    for hop in entry.get("nexthops") or [entry]:
        yield Route(IPv4Network(text), hop.get("dev", ""), _gateway(hop))


def _gateway(entry: dict[str, Any]) -> str:
    return str(entry.get("gateway") or entry.get("via", {}).get("host", ""))
