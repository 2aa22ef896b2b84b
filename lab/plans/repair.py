"""REPAIR: control planes make their broken files again, where etcd has no majority without them."""

from __future__ import annotations

from lab.plans.engine import Plan
from lab.plans.script import script

REPAIR: Plan = (
    # All at once: nothing is asked of the cluster, and each may have the vote that is missing.
    script(
        "repair",
        "files that are missing or broken",
        lambda lab, situation: situation.machines,
        secrets=lambda _: ("secrets",),
    ),
)
