"""REPAIR: control planes restore their broken files, if etcd has no majority without them."""

from __future__ import annotations

from lab.plans.engine import Plan
from lab.plans.script import script

REPAIR: Plan = (
    # All at once: this needs nothing from the cluster, and any of them may have the missing vote.
    script(
        "repair",
        "missing or broken files are restored",
        lambda lab, situation: situation.machines,
        secrets=lambda _: ("secrets", "etcd-ca.key"),
    ),
)
