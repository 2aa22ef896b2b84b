"""Observes a lab during a drill or a change: probes, marks, and the writes that are read back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from lab.drill import workload
from lab.drill.probes import Probes, Seen, probing
from lab.drill.recording import Holding, Kind, Mark, Recording, Title
from lab.errors import LabError
from lab.health.cluster import Api
from lab.model import Lab, Node
from lab.session import Session
from lab.system import process
from lab.system.wait import wait_until

BEFORE, AFTER = 3.0, 3.0
"""Seconds that are recorded before anything happens, and after everything has recovered."""

REMOVAL = f"namespace {workload.NAMESPACE} to be removed"

RUNS = 60.0
"""Seconds until all pods of the workload are Ready again."""


class Observation:
    """The observation of one run: the probes' results, the marks, and the first problem."""

    def __init__(self, session: Session) -> None:
        """Observe nothing yet. Raises LabStateError if the kubeconfig can't be used."""
        self.session = session
        self.api = Api(session.workspace.kubeconfig)
        self.problem = ""
        self.marks: list[Mark] = []
        self.read_back: tuple[int, ...] = ()
        self.leader_changes = 0
        self.holders: tuple[Holding, ...] = ()
        self.ended_at: dict[str, int] = {}
        self._began = datetime.now(UTC)
        self._marking = threading.Lock()
        self._probes: Probes | None = None
        self._seen: Seen | None = None

    @contextmanager
    def probing(self, *, via: tuple[Node, ...], node_port: int, limit: float) -> Iterator[None]:
        """Probe the lab while inside, as lab.drill.probes does. Recorded only once `finish` is called."""
        with contextlib.ExitStack() as probes:
            with self.session.progress.asking("a successful response to every probe"):
                begun = probing(self.session.remote, self.api, via=via, node_port=node_port, limit=limit)
                self._probes = probes.enter_context(begun)
            self.wall = time.time() - self._probes.now()
            self.let_pass(BEFORE)
            yield

    def now(self) -> float:
        """Seconds on the recording's clock."""
        assert self._probes is not None
        return self._probes.now()

    @property
    def seconds(self) -> float:
        """How long the probes ran, or have run so far."""
        return self.now() if self._seen is None else self._seen.seconds

    def let_pass(self, seconds: float) -> None:
        """Let the probes run for a while."""
        end = self.now() + seconds
        wait_until(
            lambda: None if self.now() >= end else "not yet",
            what="the probes to have run for a while",
            timeout=seconds + 5,
            interval=0.1,
        )

    def finish(self) -> None:
        """Stop the probes, and keep what they observed."""
        assert self._probes is not None
        with self.session.progress.asking("the probes' last responses"):
            self._seen = self._probes.finish()

    def mark(self, kind: Kind, what: str) -> None:
        """Set a mark, once."""
        with self._marking:
            if not any((kind, what) == (each.kind, each.what) for each in self.marks):
                self.marks.append(Mark(at=self.now(), kind=kind, what=what))

    def first(self, kind: Kind) -> float:
        """The time of the first mark of a kind; 0 if there is none."""
        return min((mark.at for mark in self.marks if mark.kind == kind), default=0.0)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do some work; keep the reason if it fails, since the observations so far are worth reporting."""
        try:
            work()
        except LabError as error:
            self.problem = self.problem or error.message

    def read_writes_back(self, timeout: float = 60.0) -> None:
        """Read back the cluster's writes. Raises WaitTimedOut if it does not respond."""
        with self.session.progress.asking("the writes that the cluster has"):
            self.read_back = workload.read_back(self.api, timeout)

    def require_workload(self, lab: Lab, name: str) -> None:
        """Raise LabError unless the workload runs as before, and a new one of that name can be scheduled."""
        with self.session.progress.asking("every older workload to run, and then a new one"):
            wait_until(
                lambda: workload.why_not_running(self.api), what="every older workload to run", timeout=RUNS
            )
            workload.schedules(self.api, lab, name)

    def recording(
        self, name: str, *, run: int = 1, victims: tuple[Node, ...] = (), title: Title | None = None
    ) -> Recording:
        """The recording of everything, as one run of the drill or change of that name."""
        seen = {} if self._seen is None else dict(self._seen)
        return Recording(
            drill=name,
            title=title,
            lab=self.session.lab.name,
            profile=self.session.lab.load_balancer.profile,
            run=run,
            began=self._began.isoformat(timespec="milliseconds"),
            victims=tuple(node.name for node in victims),
            marks=tuple(sorted(self.marks, key=lambda each: each.at)),
            read_back=self.read_back,
            leader_changes=self.leader_changes,
            holders=self.holders,
            ended_at=self.ended_at,
            **({"seconds": self.seconds} | seen),
        )


def service_nodes(lab: Lab, steady: Collection[Node]) -> tuple[Node, ...]:
    """The nodes for probes of the Service: steady workers, else any steady nodes, else all."""
    for nodes in (lab.workers, lab.kubernetes_nodes):
        found = tuple(node for node in nodes if node in steady)
        if found:
            return found
    return lab.workers or lab.kubernetes_nodes


@contextmanager
def workload_runs(
    session: Session, lab: Lab, *, replicas: int = 0, avoided: Collection[str] = ()
) -> Iterator[int]:
    """Run the workload on `lab` while inside, but not on the nodes `avoided`; yield its Service's node port.

    It is removed afterwards, even after an interrupt. If that fails after another failure, the first failure is
    raised, and the next `deploy` removes the rest.
    """
    api = Api(session.workspace.kubeconfig)
    try:
        with session.progress.step("workload", "the drills' workload runs") as shown:
            node_port = workload.deploy(api, lab, replicas=replicas, avoided=avoided, log=shown.log)
        yield node_port
    except BaseException:
        with process.defer_interrupts(), contextlib.suppress(LabError), session.progress.asking(REMOVAL):
            workload.remove(Api(session.workspace.kubeconfig))
        raise
    with process.defer_interrupts(), session.progress.asking(REMOVAL):
        # With the kubeconfig as it is now: a drill may have rotated the CA.
        workload.remove(Api(session.workspace.kubeconfig))
