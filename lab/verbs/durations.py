"""How long the steps of plans take: as measured in this lab last, else in the kit's own measurements.

Those were made on 2 cores with docker and a lab of seven, as in docs/measurements.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from lab.system.progress import StepTime
from lab.workspace import Workspace

MEASURED: Mapping[str, float] = {
    "bake": 900,
    "boot": 14,
    "machine": 12,
    "deliver": 0.5,
    "node": 2,
    "load-balancer": 1.5,
    "control-plane-init": 9,
    "pod-network": 1.5,
    "kubeconfig": 0.5,
    "worker-join": 6,
    "control-plane-join": 16,
    "nodes-ready": 6,
    "pods-ready": 6,
    "revoke": 1,
    "healthy": 2,
    "drain-haproxy": 1,
    "drain": 5,
    "leave": 3,
    "forget": 2,
    "remove": 2,
    "resize": 60,
}
"""Seconds of one step on one machine that had something to change."""


def read(workspace: Workspace) -> dict[str, float]:
    """What was measured in this lab: step → seconds, its slowest machine's."""
    try:
        found = json.loads(workspace.durations.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def keep(workspace: Workspace, steps: Iterable[StepTime]) -> None:
    """Add what a run has measured, except steps that had nothing to change: those are quicker."""
    slowest: dict[str, float] = {}
    for step in steps:
        if step.outcome == "done":
            slowest[step.name] = max(slowest.get(step.name, 0.0), round(step.seconds, 1))
    if slowest:
        workspace.write(workspace.durations, json.dumps(read(workspace) | slowest, indent=2) + "\n")


def of(step: str, measured: Mapping[str, float]) -> float:
    """Seconds that a step takes."""
    return measured.get(step, MEASURED.get(step, 1.0))
