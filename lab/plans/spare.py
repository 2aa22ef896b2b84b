"""Takes load off a control plane before it restarts: HAProxy sends it nothing new, and etcd can spare it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab.errors import LabError, LabStateError, WaitTimedOut
from lab.plans import quorum
from lab.plans import script as scripts
from lab.plans.engine import Job

MAJORITY_TIMEOUT = 120.0
"""Seconds until etcd has a majority without a member, which another one's restart delays; 5 are usual."""


def wait_for_majority(job: Job) -> None:
    """Wait until etcd can do without this machine's member. Raises LabStateError with what is missing."""
    context, node = job.context, job.node
    problem: quorum.Problem | None = None

    def why_not() -> str | None:
        nonlocal problem
        listed = quorum.membership(context.lab, context.remote)
        problem = quorum.restart_problem(listed.members, listed.healthy, node.name)
        return problem.what if problem else None

    try:
        job.wait_until(why_not, what=f"etcd to have a majority without {node.name}", timeout=MAJORITY_TIMEOUT)
    except WaitTimedOut as error:
        assert problem is not None
        raise LabStateError(problem.what, hint=problem.next) from error


@contextlib.contextmanager
def drained(job: Job, settle: int = 0) -> Iterator[None]:
    """Let HAProxy give this machine's API server no new connections while inside.

    A machine without an API server has nothing to drain. `settle`: seconds for its sessions to end by
    themselves. After an error HAProxy uses the server again, too: it checks by itself whether that is healthy.
    """
    if not job.node.spec.serves_api:
        yield
        return
    words = ("--settle", str(settle)) if settle else ()
    try:
        for balancer in job.context.lab.balancers:
            scripts.run(job, "load-balancer", balancer, words=(*words, "--drain", job.node.name))
        yield
    except LabError:
        with contextlib.suppress(LabError):  # the first error is the one to show
            _undrain(job)
        raise
    _undrain(job)


def _undrain(job: Job) -> None:
    """Tell every load balancer, whether or not another one fails; then raise the first failure."""
    failed: LabError | None = None
    for balancer in job.context.lab.balancers:
        try:
            scripts.run(job, "load-balancer", balancer)
        except LabError as error:
            failed = failed or error
    if failed:
        raise failed
