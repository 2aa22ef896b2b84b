"""SAVE and RESTORE: all machines of a lab as they are at one instant, saved under a name and restored.

Both end with all machines off. What starts them again is the rest of `up`, or only its beginning, START.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab import providers
from lab.model import Lab, Node
from lab.plans.engine import Job, Plan, Step
from lab.plans.situation import Situation
from lab.plans.stop import STOP
from lab.workspace import checkpoints

NO_PATIENCE = 0.0
"""Seconds for a machine to shut down before a restore cuts its power: what it would still write is replaced."""


def _machines(lab: Lab, situation: Situation) -> Sequence[Node]:
    return situation.machines


def _save(job: Job) -> bool:
    context, name = job.context, job.context.situation.checkpoint
    saving = providers.checkpoints_of(context.lab)
    saved = saving.save(context.lab, context.workspace, job.node, name, job.log)
    checkpoints.add(context.workspace, name, job.node.name, saved)
    job.shown.note = f"{saved.mib} MiB"
    return True


def _create(job: Job) -> bool:
    absent = job.context.situation.absent
    providers.boot(job.context.workspace, job.log, [node.name for node in absent])
    return True


def _cut(job: Job) -> bool:
    lab, node = job.context.lab, job.node
    if providers.state(lab, node) == "stopped":
        return False
    providers.stop(lab, node, NO_PATIENCE)  # not `power_off`, which asks a docker machine for something first
    return True


def _load(job: Job) -> bool:
    context, name = job.context, job.context.situation.checkpoint
    found = checkpoints.find(context.workspace, name)
    assert found is not None
    saving, saved = providers.checkpoints_of(context.lab), found.machines[job.node.name]
    saving.load(context.lab, context.workspace, job.node, name, saved, job.log)
    return True


SAVE: Plan = (
    *STOP,
    # Only once all are off, so that all states are of one instant.
    Step("save", "its state is saved", _save, _machines, after=tuple(step.name for step in STOP)),
)

RESTORE: Plan = (
    # Only if machines are missing: they get their saved states, too, if the provider keeps these elsewhere.
    Step("create", "create missing machines", _create),
    # Works for a machine that hangs, too.
    Step("cut", "its power is cut", _cut, _machines, after=("create",)),
    Step("load", "its state is restored", _load, _machines, after=("cut",)),
)
