"""How long the steps of plans take: as last measured in this lab, else as in the kit's own measurements.

Those are for 2 cores, docker and a lab of seven machines; docs/measurements.md has the same table and its
source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.model import Lab
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.up import UP
from lab.plans.upgrade import UPGRADE
from lab.system.progress import StepTime
from lab.workspace import Workspace

MEASURED: Mapping[str, float] = {
    "bake": 900,
    "boot": 14,
    "machine": 12,
    "deliver": 0.5,
    "node": 2,
    "etcd": 8,
    "load-balancer": 1.5,
    "control-plane-init": 9,
    "pod-network": 1.5,
    "addons": 3,
    "kubelet-certificates": 3,
    "kubeconfig": 0.5,
    "worker-join": 6,
    "control-plane-join": 16,
    "renew-certificates": 25,
    "nodes-ready": 6,
    "policy-rules": 1,
    "pods-ready": 6,
    "revoke": 1,
    "healthy": 2,
    "give-up-address": 1.5,
    "drain-haproxy": 1,
    "drain": 5,
    "leave": 3,
    "forget": 2,
    "remove": 2,
    "resize": 60,
    "payload": 40,
    "etcd-payload": 10,
    "upgrade-etcd": 40,
    "upgrade-etcd-machine": 40,
    "upgrade-control-plane": 250,
    "upgrade-worker": 10,
}
"""Seconds that a step takes on one machine when it changes something."""

ON_THE_HOST = frozenset({"bake"})
"""Steps that run on the host, so that emulated machines don't slow them down."""

WAITS = frozenset({"nodes-ready", "kubelet-certificates", "pods-ready", "healthy"})
"""Steps that change little or nothing and last until the preceding changes have taken effect."""

_TITLES = {step.name: step.title for step in (*UP, *REMOVE, *RESIZE, *UPGRADE)}


@dataclass(frozen=True)
class Figures:
    """The figures of one lab: those `measured` in it, and for the others a factor, its `patience`."""

    measured: Mapping[str, float]
    patience: int = 1

    def of(self, name: str, title: str = "") -> float:
        """Seconds that a step takes; `title` is what it does, if that is not the usual."""
        slower = 1 if name in ON_THE_HOST else self.patience
        return self.measured.get(_key(name, title), MEASURED.get(name, 1.0) * slower)


def read(workspace: Workspace) -> dict[str, float]:
    """What was measured in this lab: step → seconds on its slowest machine. For `keep` and `of_lab`."""
    try:
        found = json.loads(workspace.durations.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def keep(workspace: Workspace, steps: Iterable[StepTime]) -> None:
    """Add what a run has measured, except for steps that changed nothing, which are faster.

    What a step did instead of the usual, such as only creating a token, is kept separately, since it is faster,
    too.
    """
    slowest: dict[str, float] = {}
    for step in steps:
        if step.outcome == "done" or step.name in WAITS:
            key = _key(step.name, step.title)
            slowest[key] = max(slowest.get(key, 0.0), round(step.seconds, 1))
    if slowest:
        workspace.write(workspace.durations, json.dumps(read(workspace) | slowest, indent=2) + "\n")


def of_lab(lab: Lab, workspace: Workspace) -> Figures:
    """The figures for a lab."""
    return Figures(read(workspace), lab.patience)


def _key(name: str, title: str) -> str:
    """The key for a step's seconds: its name, and its title if it did something else than usual."""
    return name if title in ("", _TITLES.get(name, title)) else f"{name}: {title}"
