"""STOP: shuts machines down in an order in which no data is lost and the cluster recovers at the next start.

Workers are first, so that the end of their pods still reaches the API. Then all control planes stop together,
so that all etcd members end with the same log entry. etcd machines follow, since API servers write
until they end. Load balancers are last, since the others reach the API through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import providers
from lab.model import Lab, Node
from lab.plans.engine import Job, Plan, Step
from lab.plans.situation import Situation

STOP_TIMEOUT = 30.0
"""Seconds for a machine to shut down before its power is cut. A container takes 2 to 11."""


def _stop(job: Job) -> bool:
    lab, node = job.context.lab, job.node
    if providers.state(lab, node) in ("stopped", "absent"):
        return False
    if not providers.stop(lab, node, STOP_TIMEOUT * lab.patience):
        job.shown.note = f"its power was cut after {STOP_TIMEOUT * lab.patience:.0f} s"
    return True


def _of(belongs: Callable[[Node], bool]) -> Callable[[Lab, Situation], Sequence[Node]]:
    return lambda lab, situation: [node for node in situation.machines if belongs(node)]


STOP: Plan = (
    Step(
        "stop-workers",
        "shut down",
        _stop,
        _of(lambda node: node.spec.runs_kubelet and not node.spec.serves_api),
    ),
    Step("stop-control-planes", "shut down", _stop, _of(lambda node: node.spec.serves_api), ("stop-workers",)),
    Step(
        "stop-etcd",
        "shut down",
        _stop,
        _of(lambda node: node.spec.etcd_member and not node.spec.serves_api),
        ("stop-workers", "stop-control-planes"),
    ),
    Step(
        "stop-load-balancers",
        "shut down",
        _stop,
        _of(lambda node: node.spec.balances),
        ("stop-workers", "stop-control-planes", "stop-etcd"),
    ),
)
