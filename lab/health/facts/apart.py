"""Which machines reach one another, as they report it, and what on this host prevents it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lab.health.facts.machine import Machine
from lab.host import firewall, network
from lab.host.doctor.forwarding import Obstacle, obstacle_of
from lab.host.reach import Reach, reach
from lab.model import Lab
from lab.providers import provider_of
from lab.unknown import CouldNotAsk, Unknown


def reach_of(machines: Mapping[str, Machine | Unknown]) -> Reach:
    """Which machines reach which others, by name. Nothing is said of those that do not answer this host."""
    said = {}
    for name, machine in machines.items():
        if not isinstance(machine, Unknown):
            try:
                said[name] = machine.reach
            except CouldNotAsk:
                continue
    return reach(said)


def ask_obstacle(lab: Lab, machines: Mapping[str, Machine | Unknown]) -> Obstacle | None:
    """What this host's firewall does to packets between machines; None for nothing that is known.

    It is asked only where some machine does not reach another one.
    """
    if not reach_of(machines).broken:
        return None
    way = network.way(lab.route_target)
    if isinstance(way, Unknown) or not way.device or way.gateway or lab.remote_host:
        return None
    systemd = Path("/run/systemd/system").exists()
    found = firewall.forwarding(Path("/"), uid=os.geteuid(), systemd=systemd)
    return obstacle_of(found, way.device, lab.network.subnet, docker=provider_of(lab).bridges_with_docker)
