"""Measures what users notice of a change: the drills' probes run during any work, with the same report."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from lab.drill import balancer_log, report, undo
from lab.drill.catalogue import ALWAYS
from lab.drill.figures import figures
from lab.drill.observe import AFTER, Observation, service_nodes, workload_runs
from lab.drill.probes import LONGEST
from lab.drill.recording import Exemption, Mark, Recording, Report, Result, Title
from lab.drill.recovery import wait_for_recovery
from lab.drill.scene import Scene, raft_term
from lab.errors import LabError, LabStateError
from lab.health.cluster import Api, ask_health
from lab.model import Lab, Node
from lab.session import Session, require_up
from lab.system import process

LIMITS = {"connections.failed": 0.0}
"""Limits of a change in the profile `tuned`, besides ALWAYS (docs/DESIGN.md: users notice nothing)."""

RECOVERY = 240.0
"""Seconds until everything serves after the work."""

READ_BACK, READ_BACK_AFTER_A_FAILURE = 60.0, 10.0
"""Seconds until the cluster returns the writes that it has."""

SERVE = "`./inv up` without --measure repairs the lab, and `./inv status` shows which machines run"


def measured(
    session: Session,
    title: Title,
    work: Callable[[], None],
    *,
    keep: tuple[Node, ...],
    off: Collection[str] = (),
    exemptions: tuple[Exemption, ...] = (),
    drill: str = "",
    number: int = 1,
    limits: Mapping[str, float] = LIMITS,
    profile: str = "",
) -> tuple[Report, Path]:
    """Do some work on a lab while probes run; return the report and its folder.

    `keep`: the machines that run before and after; probes of the Service go to these. `off`: the names of
    machines that do not run at the beginning. `limits`: figure → its maximum in the profile `tuned`, besides
    ALWAYS; `exemptions`: those of them that this change can't keep. `drill` is the drill that the work is part
    of, "" for `up`; `number` is that of its run. `profile` is what the report has in place of the load
    balancer's profile. `session` has the lab as it will be afterwards. The caller holds the workspace's lock.
    However the work ends, the probes are stopped, the report is written with the problem, the workload is
    removed, and the work's error or interrupt is raised. Raises LabError before the work starts if nothing
    could be measured.
    """
    require_serving(session, drill)
    name = drill or "up"
    steady = session.lab.model_copy(update={"nodes": keep})
    if not steady.etcd_members:
        raise LabStateError(
            "nothing can be measured: no control plane runs both before and after this change",
            hint="`./inv up` without --measure makes the change",
        )
    found = report.begin(session)
    with workload_runs(session, steady, replicas=_workers(session), avoided=off) as node_port:
        observed = Observation(session)
        failure = _watched(observed, title, work, steady, node_port)
        if failure is not None:
            observed.problem = observed.problem or _why(title, failure)
        recording = observed.recording(name, run=number, title=title)
        if profile:
            recording = recording.model_copy(update={"profile": profile})
        result = _judged(recording, limits, exemptions, observed.problem)
        found = found.model_copy(update={"results": (result,)})
        folder = report.keep(found, session.workspace, name)
        if failure is not None:
            session.progress.say(f"what users noticed until it failed: {folder}/report.html")
            raise failure
    return found, folder


def require_serving(session: Session, drill: str = "") -> None:
    """Raise LabStateError if measuring makes no sense: the API does not serve, or a fault is in the lab.

    That of the drill of this name is what is measured.
    """
    lab, workspace = session.lab, session.workspace
    require_up(session)
    left = undo.pending(session, besides=drill)
    if left:
        raise LabStateError(
            f"a drill's fault is in the lab ({left}), and would be measured",
            hint="`./inv drill --heal` reverts it",
        )
    ca, timeout = Api(workspace.kubeconfig).ca, 5.0 * lab.patience
    try:
        with session.progress.asking("the API's readiness"):
            status, text = ask_health(lab.api.address, lab.api.port, "/readyz", ca, timeout)
    except LabError as error:
        raise LabStateError(f"nothing can be measured: {error.message}", hint=SERVE) from error
    if status != http.client.OK:
        answer = f"{lab.api.url}/readyz answers {status}: {text[:200]}"
        raise LabStateError(f"nothing can be measured: {answer}", hint=SERVE)


def shown(found: Report, folder: Path) -> RenderableType:
    """Return a measured change for the terminal: the drills' table, and the path of the page."""
    return Group(report.shown(found), Text(f"\nreport: {folder}/report.html"))


def _workers(session: Session) -> int:
    """How many workers the cluster has now, including those that the change removes, whose pods move."""
    with session.progress.asking("the API to list its nodes"):
        return sum(not node.control_plane for node in Api(session.workspace.kubeconfig).nodes())


def _raft_term(session: Session, member: Node) -> int:
    with session.progress.asking(f"etcd's raft term on {member.name}"):
        return raft_term(session, member)


def _watched(
    observed: Observation, title: Title, work: Callable[[], None], steady: Lab, node_port: int
) -> BaseException | None:
    """Do the work and wait for the recovery while the probes run; return the error that ended it early."""
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
            with session.progress.asking("HAProxy's log"):
                observed.marks += balancer_log.steps(session, observed.wall, observed.first("begin"))

    return _also(failure, lambda: observed.attempt(conclude))


def _worked(observed: Observation, title: Title, work: Callable[[], None]) -> BaseException | None:
    """Do the work, and mark its beginning, its steps and its end; return its error."""
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
    """Wait until every machine of the lab serves, and mark that time."""
    session = observed.session
    scene = Scene(session, session.lab.nodes, lambda kind, what: None)

    def wait() -> None:
        with session.progress.step("recovery", "every machine serves again") as shown:
            wait_for_recovery(scene, RECOVERY * session.lab.patience, shown.log)
        observed.mark("whole", "the lab")

    observed.attempt(wait)
    observed.let_pass(AFTER)


def _judged(
    recording: Recording, limits: Mapping[str, float], exemptions: tuple[Exemption, ...], problem: str
) -> Result:
    left = dict(limits) if recording.profile == "tuned" else {}
    exempt = tuple(each for each in exemptions if left.pop(each.figure, None) is not None)
    found = figures(recording, ALWAYS | left)
    return Result(recording=recording, figures=found, problem=problem, exemptions=exempt)


def _also(failure: BaseException | None, work: Callable[[], None]) -> BaseException | None:
    """Do work that is needed even after a failure, with interrupts deferred then; return the first failure."""

    def deferring() -> None:
        with contextlib.nullcontext() if failure is None else process.defer_interrupts():
            work()

    later = _ended_by(deferring)
    return later if failure is None else failure


def _ended_by(work: Callable[[], None]) -> BaseException | None:
    """Do some work; return the error or the interrupt that it ended with."""
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
