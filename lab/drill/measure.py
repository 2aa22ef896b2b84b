"""What users notice of a change: the drills' probes run around any work on a lab, and make the same report."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Collection
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from lab.drill import balancer_log, report, undo
from lab.drill.catalogue import ALWAYS
from lab.drill.figures import figures
from lab.drill.observe import AFTER, Observation, service_nodes, workload_runs
from lab.drill.probes import LONGEST
from lab.drill.recording import Exemption, Mark, Report, Result, Title
from lab.drill.scene import Scene, raft_term
from lab.drill.whole import wait_whole
from lab.errors import LabError, LabStateError
from lab.health.cluster import Api, ask_health
from lab.model import Lab, Node
from lab.session import Session
from lab.system import process

LIMITS = {"connections.failed": 0.0}
"""What a change may cost in the profile `tuned`, besides ALWAYS (docs/DESIGN.md: users notice nothing)."""

WHOLE = 240.0
"""Seconds for everything to serve when the work is done."""

READ_BACK, READ_BACK_AFTER_A_FAILURE = 60.0, 10.0
"""Seconds for the cluster to say which writes it has."""

SERVE = "`./inv up` without --measure repairs the lab, and `./inv status` shows which machines run"


def measured(
    session: Session,
    title: Title,
    work: Callable[[], None],
    *,
    keep: tuple[Node, ...],
    off: Collection[str] = (),
    exemptions: tuple[Exemption, ...] = (),
    name: str = "up",
) -> tuple[Report, Path]:
    """Do some work on a lab under the eyes of its users; return the report, and the folder that it is in.

    `keep`: the machines that run before and after; the Service is asked at these. `off`: the names of those
    that do not run when it begins. `exemptions`: those of LIMITS that this change can't keep. `session` is the
    lab as it will be afterwards. The caller holds the workspace's lock. Whatever ends the work, the probes end,
    the report is written with the problem, the workload is removed, and the work's own error or interrupt is
    raised. Raises LabError before the work begins where nothing could be measured.
    """
    require_serving(session)
    steady = session.lab.model_copy(update={"nodes": keep})
    if not steady.etcd_members:
        raise LabStateError(
            "nothing can be measured: no control plane runs before this change and is still there after it",
            hint="`./inv up` without --measure makes the change",
        )
    found = report.begin(session)
    with workload_runs(session, steady, replicas=_workers(session), avoided=off) as node_port:
        observed = Observation(session)
        failure = _watched(observed, title, work, steady, node_port)
        if failure is not None:
            observed.problem = observed.problem or _why(title, failure)
        result = _judged(observed, title, name, exemptions)
        found = found.model_copy(update={"results": (result,)})
        folder = report.keep(found, session.workspace, name)
        if failure is not None:
            session.progress.say(f"what users noticed until it failed: {folder}/report.html")
            raise failure
    return found, folder


def require_serving(session: Session) -> None:
    """Raise LabStateError where no user could notice anything: the API does not serve, or a fault is in."""
    lab, workspace = session.lab, session.workspace
    if not workspace.kubeconfig.exists():
        raise LabStateError(
            f"the lab {lab.name} has not been brought up, so a change of it has no users to measure",
            hint="bring it up with `./inv up`, then measure the next change",
        )
    session.remote.require_route()
    left = undo.pending(session)
    if left:
        raise LabStateError(
            f"the fault of a drill is in the lab ({left}), and would be measured",
            hint="`./inv drill --heal` reverts it",
        )
    ca, timeout = Api(workspace.kubeconfig).ca, 5.0 * lab.patience
    try:
        with session.progress.asking("the API to say whether it is ready"):
            status, text = ask_health(lab.api.address, lab.api.port, "/readyz", ca, timeout)
    except LabError as error:
        raise LabStateError(f"nothing can be measured: {error.message}", hint=SERVE) from error
    if status != http.client.OK:
        answer = f"{lab.api.url}/readyz answers {status}: {text[:200]}"
        raise LabStateError(f"nothing can be measured: {answer}", hint=SERVE)


def shown(found: Report, folder: Path) -> RenderableType:
    """Return a measured change for people: the drills' table, and where the page is."""
    return Group(report.shown(found), Text(f"\nreport: {folder}/report.html"))


def _workers(session: Session) -> int:
    """How many workers the cluster has now, those included that the change removes: their pods move."""
    with session.progress.asking("the API to list its nodes"):
        return sum(not node.control_plane for node in Api(session.workspace.kubeconfig).nodes())


def _raft_term(session: Session, member: Node) -> int:
    with session.progress.asking(f"{member.name} to name etcd's raft term"):
        return raft_term(session, member)


def _watched(
    observed: Observation, title: Title, work: Callable[[], None], steady: Lab, node_port: int
) -> BaseException | None:
    """Do the work and wait until the lab has recovered while the probes run; return what ended that early."""
    session = observed.session
    term = _raft_term(session, steady.etcd_members[0])
    with observed.probing(via=service_nodes(steady, steady.nodes), node_port=node_port, limit=LONGEST):
        failure = _worked(observed, title, work)
        if failure is None:
            failure = _ended_by(lambda: _recover(observed))
        failure = _also(failure, observed.finish)
    patience = READ_BACK if failure is None else READ_BACK_AFTER_A_FAILURE

    def conclude() -> None:
        observed.attempt(lambda: observed.read_writes_back(patience))
        if failure is None:
            observed.leader_changes = _raft_term(session, steady.etcd_members[0]) - term
            observed.require_workload(steady, "after-the-change")
            times = observed.wall, observed.first("begin"), observed.first("end")
            with session.progress.asking("HAProxy's log"):
                noticed = balancer_log.marks(session, *times)
            observed.marks += [Mark(at=mark.at, kind="step", what=mark.what) for mark in noticed]

    return _also(failure, lambda: observed.attempt(conclude))


def _worked(observed: Observation, title: Title, work: Callable[[], None]) -> BaseException | None:
    """Do the work, marking its begin, its end and the steps that it reports; return what it failed with."""
    progress = observed.session.progress
    offset, before = observed.now() - progress.seconds, len(progress.finished)
    observed.mark("begin", title.en)
    failure = _ended_by(work)
    observed.mark("end", title.en)
    for step in progress.finished[before:]:
        what = f"{step.machine} {step.title}".strip()
        observed.marks.append(Mark(at=offset + step.started, kind="step", what=what))
    if failure is not None:
        observed.problem = _why(title, failure)
    elif observed.now() > LONGEST:
        observed.problem = f"the work took longer than the {LONGEST:g} s that probes may run"
    return failure


def _recover(observed: Observation) -> None:
    """Wait until every machine of the lab serves, and mark when."""
    session = observed.session
    scene = Scene(session, session.lab.nodes, lambda kind, what: None)

    def wait() -> None:
        with session.progress.step("recovery", "every machine serves again") as shown:
            wait_whole(scene, WHOLE * session.lab.patience, shown.log)
        observed.mark("whole", "the lab")

    observed.attempt(wait)
    observed.let_pass(AFTER)


def _judged(observed: Observation, title: Title, name: str, exemptions: tuple[Exemption, ...]) -> Result:
    recording = observed.recording(name, title=title)
    limits = dict(LIMITS) if recording.profile == "tuned" else {}
    exempt = tuple(each for each in exemptions if limits.pop(each.figure, None) is not None)
    found = figures(recording, ALWAYS | limits)
    return Result(recording=recording, figures=found, problem=observed.problem, exemptions=exempt)


def _also(failure: BaseException | None, work: Callable[[], None]) -> BaseException | None:
    """Do what must be done after a failure, too, and then without interrupts; return the first failure."""

    def deferring() -> None:
        with contextlib.nullcontext() if failure is None else process.defer_interrupts():
            work()

    later = _ended_by(deferring)
    return later if failure is None else failure


def _ended_by(work: Callable[[], None]) -> BaseException | None:
    """Do some work, and return the error or the interrupt that it ended with."""
    try:
        work()
    except BaseException as error:
        return error
    return None


def _why(title: Title, failure: BaseException) -> str:
    if isinstance(failure, KeyboardInterrupt):
        return f"{title.en}: interrupted"
    text = failure.message if isinstance(failure, LabError) else f"{type(failure).__name__}: {failure}"
    return f"{title.en} failed: {text}"
