"""Waits until every part that a drill broke has recovered, and marks the time of each."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.health.cluster import ask_health
from lab.health.facts.gather import ask_machine
from lab.model import Node
from lab.system.wait import wait_until

if TYPE_CHECKING:
    from lab.drill.scene import Scene

API = "the API"


def wait_for_recovery(scene: Scene, timeout: float, log: Path | None = None) -> None:
    """Wait for the API through the load balancer and for every part of the victims; mark each recovery.

    Logs the missing parts to `log` from time to time. Raises WaitTimedOut with the missing parts.
    """
    parts = _parts(scene)
    missing = dict.fromkeys(parts, "not checked yet")

    def why_not_recovered() -> str | None:
        reasons = _ask({part: parts[part] for part in missing})
        for part, reason in reasons.items():
            if reason is not None:
                missing[part] = reason
            else:
                scene.mark("whole", part)
                del missing[part]
        return "; ".join(f"{part}: {reason}" for part, reason in missing.items()) or None

    wait_until(why_not_recovered, what="every part to serve again", timeout=timeout, interval=0.25, log=log)


def _parts(scene: Scene) -> dict[str, Callable[[], str | None]]:
    lab, ca = scene.session.lab, scene.api.ca
    parts: dict[str, Callable[[], str | None]] = {}
    parts[API] = partial(_why_not_ready, lab.api.address, lab.api.port, ca)
    for node in scene.victims:
        if node in lab.control_planes:
            parts[f"{node.name} API server"] = partial(_why_not_ready, node.address, 6443, ca)
        if node in lab.etcd_members and lab.external_etcd:
            parts[f"{node.name} etcd"] = partial(_etcd_problem, scene, node)
        if node in lab.pair:
            parts[f"{node.name} HAProxy"] = partial(_why_not_ready, node.address, lab.api.port, ca)
        if node in lab.kubernetes_nodes:
            parts[f"{node.name} kubelet"] = partial(_kubelet_problem, scene, node)
    return parts


def _ask(parts: dict[str, Callable[[], str | None]]) -> dict[str, str | None]:
    """Check all parts in parallel, since one that is off takes as long as its timeout."""
    with ThreadPoolExecutor(max_workers=len(parts) or 1) as pool:
        return dict(zip(parts, pool.map(lambda ask: ask(), parts.values()), strict=True))


def _why_not_ready(address: IPv4Address, port: int, ca: str) -> str | None:
    """Why an API server, or the API through the load balancer, is not ready; /readyz includes etcd."""
    try:
        status, text = ask_health(address, port, "/readyz", ca, timeout=2)
    except LabError as error:
        return error.message
    return None if status == http.client.OK else f"answered {status}: {text[:80]}"


def _etcd_problem(scene: Scene, node: Node) -> str | None:
    """Why a machine's member of etcd does not answer with a majority; an API server beside it says so, too."""
    try:
        health = ask_machine(scene.session.remote, node, "etcd-health").etcd_health
    except LabError as error:
        return error.message
    return None if health == "healthy" else health


def _kubelet_problem(scene: Scene, node: Node) -> str | None:
    """Why a kubelet does not respond to a request through the API server."""
    try:
        status, text = scene.api.request("GET", f"/api/v1/nodes/{node.name}/proxy/healthz")
    except LabError as error:
        return error.message
    return None if status == http.client.OK else f"answered {status}: {text[:80]}"
