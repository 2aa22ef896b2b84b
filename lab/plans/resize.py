"""RESIZE: changes the CPUs and the memory of machines one at a time, while the lab keeps running."""

from __future__ import annotations

from lab import providers
from lab.model import Lab, Node
from lab.plans import ready
from lab.plans import script as scripts
from lab.plans.engine import Job, Plan, Step
from lab.plans.situation import Situation
from lab.workspace import made

STOP_TIMEOUT = 60.0
"""Seconds for a machine to shut down before its power is cut."""

BACK_TIMEOUT = 300.0
"""Seconds until a machine responds again and all checks about it pass."""


def _resize(job: Job) -> bool:
    context, node = job.context, job.node
    made.update(context.workspace, lambda record: record.with_resizing(node.name))
    if node.spec.serves_api:
        for balancer in context.lab.balancers:
            scripts.run(job, "load-balancer", balancer, words=("--drain", node.name))
    providers.stop(context.lab, node, STOP_TIMEOUT * context.lab.patience)
    providers.resize(context.lab, node)
    providers.power_on(context.lab, [node])
    job.wait_until(
        lambda: context.remote.why_not_reachable(node) or _why_not_well(job),
        what=f"{node.name} to be back with its new size",
        timeout=BACK_TIMEOUT,
        hint=f"`./inv up` continues; `./inv replace {node.name}` creates this machine again",
    )
    if node.spec.serves_api:
        for balancer in context.lab.balancers:
            scripts.run(job, "load-balancer", balancer)
    made.update(context.workspace, lambda record: record.resized(node))
    return True


def _why_not_well(job: Job) -> str | None:
    return ready.why_not_well(job.context, job.node, drained=True) if _had_joined(job) else None


def _had_joined(job: Job) -> bool:
    """Whether the machine had joined. One that has yet to join may need the new size to do so."""
    joined, node = job.context.situation.joined, job.node
    return bool(joined) if node.spec.balances else node.name in joined


def _resized(lab: Lab, situation: Situation) -> tuple[Node, ...]:
    return situation.resized


RESIZE: Plan = (
    # One at a time: each is back, with its etcd member, before the next, so that etcd keeps its majority.
    Step("resize", "stopped, resized and started", _resize, _resized, one_at_a_time=True),
)
