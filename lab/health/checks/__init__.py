"""All checks of `verify`, in groups: plain functions that judge facts."""

from __future__ import annotations

from lab.health.checks import (
    addons,
    control_planes,
    etcd,
    load_balancer,
    machines,
    security,
    virtual_address,
    workers_and_network,
)
from lab.health.checks.check import Case, LabCheck, MachineCheck
from lab.model import Lab

GROUPS: tuple[tuple[str, tuple[LabCheck | MachineCheck, ...]], ...] = (
    ("load balancer", (*load_balancer.CHECKS, *virtual_address.CHECKS)),
    ("control planes", control_planes.CHECKS),
    ("etcd", etcd.CHECKS),
    ("workers and network", workers_and_network.CHECKS),
    ("add-ons", addons.CHECKS),
    ("security", security.CHECKS),
    ("host facts", machines.CHECKS),
)


def cases(lab: Lab) -> tuple[Case, ...]:
    """Every check for each of its machines, in display order."""
    return tuple(case for group, checks in GROUPS for check in checks for case in _cases(lab, group, check))


def _cases(lab: Lab, group: str, check: LabCheck | MachineCheck) -> tuple[Case, ...]:
    if isinstance(check, LabCheck):
        fits = check.addon in ("", *lab.addons) and (not check.pair or bool(lab.pair))
        fits = fits and (not check.external or lab.external_etcd)
        return (Case(group, check, lab),) if fits else ()
    return tuple(Case(group, check, lab, node) for node in check.on(lab))
