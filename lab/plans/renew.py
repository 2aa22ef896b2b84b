"""Renews certificates of control planes and of etcd's machines before they end: a step of UP, one at a time.

The order is that of kubernetes.io ("Certificate Management with kubeadm"): renew, then restart the static pods,
which read their certificates when they start (`provision/node/renew-certificates.sh`). HAProxy gives the API
server no new connections meanwhile, and etcd has a majority without this machine's member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lab.errors import LabStateError
from lab.health.checks.security import SOON
from lab.model import Lab, Node
from lab.plans import ready, spare
from lab.plans import script as scripts
from lab.plans.engine import Job, Step
from lab.plans.situation import Situation
from lab.remote import Remote
from lab.workspace import Workspace, kubeconfig

SCRIPT = "/opt/ha-lab/renew-certificates.sh"

DAYS = str(SOON.days)
"""Certificates that end within this many days are renewed: those of which `verify` warns."""

ONLY_RESTART = "0"
"""Days for which a valid certificate never has to be renewed."""

LOOK_TIMEOUT = 30.0
"""Seconds for a machine to list its certificates; it only reads files."""

BACK_TIMEOUT = 180.0
"""Seconds until all checks about a machine pass again."""


def left(node: Node, remote: Remote, days: str = DAYS) -> tuple[str, ...]:
    """Ask a control plane, or an etcd machine, what has to be renewed or restarted there.

    Returns a phrase for each reason. Raises LabError if it can't be asked.
    """
    said = remote.run(node, ["sudo", SCRIPT, "--list", days], timeout=LOOK_TIMEOUT).stdout
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        why, _, what = line.partition(": ")
        found.setdefault(why, []).append(what)
    return tuple(f"{', '.join(names)} ({why})" for why, names in found.items())


def step(
    on: Callable[[Lab, Situation], Sequence[Node]], *, days: str = DAYS, after: tuple[str, ...] = ()
) -> Step:
    """The step that renews what ends within `days` days, on one machine after the other."""
    title = "certificates are renewed before they end"
    return Step("renew-certificates", title, lambda job: _renew(job, days), on, after=after, one_at_a_time=True)


def _renew(job: Job, days: str) -> bool:
    """Renew one machine's certificates, and restart its static pods, if anything of that is due."""
    context, node = job.context, job.node
    reasons = left(node, context.remote, days)
    if not reasons:
        return False

    def work() -> None:
        scripts.run(job, "renew-certificates", node, words=(days,), secrets=("etcd-ca.key",))

    while_drained(job, work)
    job.shown.note = "; ".join(reasons)
    return True


def restart_outdated(job: Job) -> None:
    """Restart the static pods on this machine that are older than their certificates; renew none."""
    scripts.run(job, "renew-certificates", job.node, words=(ONLY_RESTART,))


def while_drained(job: Job, work: Callable[[], None]) -> None:
    """Do some work while etcd and HAProxy do without a machine; wait until all its checks pass again."""
    context, node = job.context, job.node
    spare.wait_for_majority(job)
    with spare.drained(job):
        work()
    if node.spec.serves_api and _kubeconfig_ends_soon(context.workspace):  # later checks ask with it
        kubeconfig.fetch(context.lab, context.workspace, context.remote, node)
    job.wait_until(
        lambda: ready.why_not_well(context, node, drained=False),
        what=f"all checks about {node.name} to pass with its new certificates",
        timeout=BACK_TIMEOUT,
        hint=f"`./inv up` continues; `./inv verify -k {node.name}` shows what is wrong there",
    )


def _kubeconfig_ends_soon(workspace: Workspace) -> bool:
    """Whether the host's kubeconfig has to be fetched again: it ends soon, too, or is broken."""
    try:
        found = kubeconfig.client_validity(workspace)
    except LabStateError:
        return True
    now = datetime.now(UTC)
    return found is not None and bool(found.problem(now) or found.until - now < SOON)
