"""What users notice of a lab while a drill or a change happens to it: probes, marks, and writes read back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from lab.drill import workload
from lab.drill.probes import Probes, Seen, probing
from lab.drill.recording import Kind, Mark, Recording, Title
from lab.errors import LabError
from lab.health.cluster import Api
from lab.model import Lab, Node
from lab.session import Session
from lab.system import process
from lab.system.wait import wait_until

BEFORE, AFTER = 3.0, 3.0
"""Seconds of quiet that are recorded before anything happens, and after all has recovered."""

REMOVAL = f"namespace {workload.NAMESPACE} to be removed"

RUNS = 60.0
"""Seconds for the workload to have all its pods Ready again."""


class Observation:
    """What is observed of one run: the probes' answers, the marks, and the first thing that went wrong."""

    def __init__(self, session: Session) -> None:
        """Observe nothing yet. Raises LabStateError when the kubeconfig can't be used."""
        self.session = session
        self.api = Api(session.workspace.kubeconfig)
        self.problem = ""
        self.marks: list[Mark] = []
        self.read_back: tuple[int, ...] = ()
        self.leader_changes = 0
        self._began = datetime.now(UTC)
        self._marking = threading.Lock()
        self._probes: Probes | None = None
        self._seen: Seen | None = None

    @contextmanager
    def probing(self, *, via: tuple[Node, ...], node_port: int, limit: float) -> Iterator[None]:
        """Probe the lab while inside; words as in lab.drill.probes. What is not `finish`ed is not recorded."""
        with contextlib.ExitStack() as probes:
            with self.session.progress.asking("a good answer to every probe"):
                begun = probing(self.session.remote, self.api, via=via, node_port=node_port, limit=limit)
                self._probes = probes.enter_context(begun)
            self.wall = time.time() - self._probes.now()
            self.let_pass(BEFORE)
            yield

    def now(self) -> float:
        """Seconds on the recording's clock."""
        assert self._probes is not None
        return self._probes.now()

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
        """End the probes, and keep what they saw."""
        assert self._probes is not None
        with self.session.progress.asking("the last answers to the probes"):
            self._seen = self._probes.finish()

    def mark(self, kind: Kind, what: str) -> None:
        """Set a mark, once."""
        with self._marking:
            if not any((kind, what) == (each.kind, each.what) for each in self.marks):
                self.marks.append(Mark(at=self.now(), kind=kind, what=what))

    def first(self, kind: Kind) -> float:
        """When a kind of mark was first set; 0 when it never was."""
        return min((mark.at for mark in self.marks if mark.kind == kind), default=0.0)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do it, and keep why it failed: what was seen so far is worth reporting."""
        try:
            work()
        except LabError as error:
            self.problem = self.problem or error.message

    def read_writes_back(self, timeout: float = 60.0) -> None:
        """Ask the cluster which writes it has. Raises WaitTimedOut when it gives no answer."""
        with self.session.progress.asking("the cluster to say which writes it has"):
            self.read_back = workload.read_back(self.api, timeout)

    def require_workload(self, lab: Lab, name: str) -> None:
        """Raise LabError unless the workload runs as before, and one more, of that name, is scheduled too."""
        with self.session.progress.asking("every older workload to run, and then a new one"):
            wait_until(
                lambda: workload.why_not_running(self.api), what="every older workload to run", timeout=RUNS
            )
            workload.schedules(self.api, lab, name)

    def recording(
        self, name: str, *, run: int = 1, victims: tuple[Node, ...] = (), title: Title | None = None
    ) -> Recording:
        """All of it, as one run of the drill or change of that name."""
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
            **({"seconds": self.now()} | seen),
        )


def service_nodes(lab: Lab, steady: Collection[Node]) -> tuple[Node, ...]:
    """Where the Service is asked: at steady workers, else at any steady node, else at all."""
    for nodes in (lab.workers, lab.kubernetes_nodes):
        found = tuple(node for node in nodes if node in steady)
        if found:
            return found
    return lab.workers or lab.kubernetes_nodes


@contextmanager
def workload_runs(
    session: Session, lab: Lab, *, replicas: int = 0, avoided: Collection[str] = ()
) -> Iterator[int]:
    """The workload runs on `lab` while inside, not on the nodes `avoided`: its Service's port on every node.

    It is removed afterwards, also after an interrupt; where that fails after another failure, the other one
    counts, and the next `deploy` removes what is left.
    """
    api = Api(session.workspace.kubeconfig)
    try:
        with session.progress.step("workload", "the drills' workload runs") as shown:
            node_port = workload.deploy(api, lab, replicas=replicas, avoided=avoided, log=shown.log)
        yield node_port
    except BaseException:
        with process.defer_interrupts(), contextlib.suppress(LabError), session.progress.asking(REMOVAL):
            workload.remove(api)
        raise
    with process.defer_interrupts(), session.progress.asking(REMOVAL):
        workload.remove(api)
