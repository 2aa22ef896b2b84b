"""Asks this host's firewall how it treats packets between machines. Lists rules and changes none.

Only root may list them; for other users they are Unknown.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lab.host import kernel
from lab.host.ask import ask
from lab.host.facts import ForwardChain, Forwarding
from lab.unknown import Unknown

SERVICES = ("firewalld", "ufw", "nftables", "netfilter-persistent", "shorewall")
"""Services that set rules when they start or reload, which may remove docker's."""

OF_OTHERS = {("ip", "filter", "FORWARD"), ("ip", "docker-bridges", "filter-FORWARD")}
"""Chains to ignore: those in which iptables keeps its rules in nftables, and docker's, from 29 on."""

FAMILIES = ("ip", "inet", "bridge")
"""The families of nftables that see machines' packets; `ip6tables -P FORWARD DROP` does not apply to them."""


def forwarding(root: Path, *, uid: int, systemd: bool) -> Forwarding:
    """Ask for everything that affects packets between machines; takes some milliseconds."""
    bridged = kernel.forwards_bridged(root)
    if not bridged:
        return Forwarding()
    only_root = Unknown("only root can list the firewall's rules")
    return Forwarding(
        bridged,
        _rules() if uid == 0 else only_root,
        _chains() if uid == 0 else only_root,
        _services() if systemd else (),
    )


def _rules() -> tuple[str, ...] | Unknown:
    """The rules of iptables' table filter; empty if there is no iptables."""
    if shutil.which("iptables") is None:
        return ()
    answer = ask(["iptables", "--list-rules"])
    return answer if isinstance(answer, Unknown) else tuple(answer.stdout.splitlines())


def _chains() -> tuple[ForwardChain, ...] | Unknown:
    """The base chains of nftables at the hook forward; empty if there is no nft."""
    if shutil.which("nft") is None:
        return ()
    listed = ask(["nft", "--json", "list", "chains"])
    if isinstance(listed, Unknown):
        return listed
    try:
        objects: list[dict[str, Any]] = json.loads(listed.stdout)["nftables"]
        chains = [
            ForwardChain(chain["family"], chain["table"], chain["name"], chain.get("policy", "accept"))
            for chain in (each["chain"] for each in objects if "chain" in each)
            if chain.get("hook") == "forward" and chain.get("type") == "filter"
        ]
    except (ValueError, LookupError, TypeError) as error:
        return Unknown(f"nft's answer can't be parsed: {error!r}")
    return tuple(
        _with_text(chain)
        for chain in chains
        if chain.family in FAMILIES and (chain.family, chain.table, chain.name) not in OF_OTHERS
    )


def _with_text(chain: ForwardChain) -> ForwardChain:
    answer = ask(["nft", "list", "chain", chain.family, chain.table, chain.name])
    text = "" if isinstance(answer, Unknown) else answer.stdout
    return ForwardChain(chain.family, chain.table, chain.name, chain.policy, text)


def _services() -> tuple[str, ...]:
    # 3: some of them do not run (systemctl(1)); the output still has a line for each.
    answer = ask(["systemctl", "is-active", *SERVICES], accept=None)
    if isinstance(answer, Unknown):
        return ()
    said = answer.stdout.split()
    return tuple(name for name, state in zip(SERVICES, said, strict=False) if state == "active")
