"""This room carries drills out: verify green, watch, break, heal, whole again, verify green. In that order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

from lab.drill import balancer_log, undo, workload
from lab.drill.catalogue import ALWAYS, Drill
from lab.drill.figures import figures
from lab.drill.probes import Probes, probing
from lab.drill.recording import Kind, Mark, Recording, Result
from lab.drill.scene import Scene, etcd
from lab.drill.whole import wait_whole
from lab.errors import ConfigError, LabError, LabStateError, WaitTimedOut
from lab.health import verify
from lab.health.cluster import Api
from lab.model import Node
from lab.session import Session
from lab.system import process
from lab.system.wait import wait_until

BEFORE, AFTER = 3.0, 3.0
"""Seconds of quiet that are recorded before the fault, and after all is whole again."""

WHOLE = 240.0
"""Seconds for everything to be whole again. A machine is back after 10, its control plane after 30."""

SETTLED = 40.0
"""Seconds for a lab to be green before: what was just brought up, or healed, may still be settling."""

GREEN = 180.0
"""Seconds for verify to be green again when everything is whole."""

NAMED = 6
"""How many checks that don't hold are named; `verify` tells all."""


def carry_out(
    session: Session, drills: Sequence[Drill], *, repeat: int, profiles: Sequence[str]
) -> tuple[Result, ...]:
    """Run every drill `repeat` times in each profile of the load balancer; return what came of each run.

    The first run that could not be carried through is the last: the lab is no longer what it was. Raises
    ConfigError when the lab is too small for a drill, LabStateError when it is not green before the first.
    """
    require_fit(session, drills)
    # Once: what is changed from here on is this drill's own, and no leftover.
    patience = _without_leftovers(session)
    results: list[Result] = []
    for profile in profiles:
        with undo.profile(session, profile) as changed, _ready(changed, patience) as node_port:
            for drill in drills:
                for number in range(1, repeat + 1):
                    title = f"{drill.name} ({profile}, {number} of {repeat})"
                    with session.progress.step("drill", title):
                        results.append(_run(changed, drill, number, node_port))
                    if results[-1].problem:
                        return tuple(results)
    return tuple(results)


def keep(session: Session, drill: Drill) -> tuple[Node, ...]:
    """Put a drill's fault in and leave it there; return the machines that it is in."""
    require_fit(session, [drill])
    require_green(session)
    scene = Scene(session, drill.victims(session), lambda kind, what: None)
    undo.remember(scene, drill)
    drill.inject(scene)
    return scene.victims


def require_fit(session: Session, drills: Sequence[Drill]) -> None:
    """Raise ConfigError with every reason why this lab is too small for the drills."""
    reasons = [reason for drill in drills if (reason := drill.lab_problem(session.lab))]
    if reasons:
        raise ConfigError(reasons, hint="`./inv drill --list` names the drills; lab.yaml sets the counts")


def require_green(session: Session) -> None:
    """Take out what an earlier drill left in. Raises LabStateError unless verify is green then."""
    _settled(session, _without_leftovers(session))


def _without_leftovers(session: Session) -> float:
    """Take out what an earlier drill left in; return the seconds that the lab may need to be green then."""
    undone = undo.leftovers(session)
    for left in undone:
        session.progress.say(f"an earlier drill had left its fault in; it is out now: {left}")
    return GREEN if undone else SETTLED


def _settled(session: Session, patience: float) -> None:
    """Raise LabStateError unless verify is green within that many seconds."""
    with session.progress.step("verify", "verify is green before anything is broken"):
        try:
            wait_until(lambda: _why_not_green(session), what="verify is green", timeout=patience)
        except WaitTimedOut as error:
            raise LabStateError(
                f"the lab is not green, and a drill would measure that: {error.reason}",
                hint="`./inv verify` says more; what has just been started needs a minute, else `./inv up`",
            ) from None


def _run(session: Session, drill: Drill, number: int, node_port: int) -> Result:
    """One run, from a green lab to a green lab."""
    victims = drill.victims(session)
    term = etcd(session).term
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    watched = _Watched(session, drill, victims, node_port)
    read_back: tuple[int, ...] = ()
    try:
        api = Api(session.workspace.kubeconfig)
        read_back = workload.read_back(api)
        watched.wait_green()
        wait_until(lambda: workload.why_not_running(api), what="every older workload still runs", timeout=60)
        workload.schedules(api, session.lab, f"after-{drill.name}-{number}")
        term = etcd(session).term - term
    except LabError as error:
        watched.problem = watched.problem or error.message
    recording = Recording(
        drill=drill.name,
        lab=session.lab.name,
        profile=session.lab.load_balancer.profile,
        run=number,
        began=began,
        victims=tuple(node.name for node in victims),
        marks=tuple(sorted(watched.marks, key=lambda each: each.at)),
        read_back=read_back,
        leader_changes=term,
        **dict(watched.seen),
    )
    limits = ALWAYS | (dict(drill.limits) if recording.profile == "tuned" else {})
    return Result(recording=recording, figures=figures(recording, limits), problem=watched.problem)


class _Watched:
    """A fault put in and taken out under the eyes of the probes: what they saw, and the marks."""

    def __init__(self, session: Session, drill: Drill, victims: tuple[Node, ...], node_port: int) -> None:
        """Do all of it. An interrupt ends it, with the fault out."""
        self.session, self.problem = session, ""
        self.marks: list[Mark] = []
        self._marking = threading.Lock()
        limit = BEFORE + drill.seconds + WHOLE + 120
        api, via = Api(session.workspace.kubeconfig), _via(session, victims)
        with probing(session.remote, api, via=via, node_port=node_port, limit=limit) as self.probes:
            wall = time.time() - self.probes.now()
            scene = Scene(session, victims, self.mark)
            _let_pass(self.probes, BEFORE)
            with undo.fault(scene, drill):
                self._try(lambda: self._let_happen(scene, drill))
            self._try(lambda: wait_whole(scene, WHOLE))
            _let_pass(self.probes, AFTER)
            self.seen = self.probes.finish()
        injected, healed = (self._when(kind) for kind in ("inject", "heal"))
        self._try(lambda: self.marks.extend(balancer_log.marks(session, wall, injected, healed)))

    def mark(self, kind: str, what: str) -> None:
        """Set a mark, once."""
        with self._marking:
            if not any((kind, what) == (each.kind, each.what) for each in self.marks):
                self.marks.append(Mark(at=self.probes.now(), kind=cast(Kind, kind), what=what))

    def wait_green(self) -> None:
        """Wait until verify is green, and mark when it was. Raises WaitTimedOut with what is not."""
        wait_until(lambda: _why_not_green(self.session), what="verify is green again", timeout=GREEN)
        self.mark("whole", "verify")

    def _let_happen(self, scene: Scene, drill: Drill) -> None:
        """Put the fault in and let it work for its time, or until what the drill waits for has come."""
        drill.inject(scene)
        scene.injected()
        end = self.probes.now() + drill.seconds

        def why_not_over() -> str | None:
            if drill.until is None:
                return None if self.probes.now() >= end else "its time is not over"
            try:
                return drill.until(scene)
            except LabError as error:
                return error.message

        wait_until(why_not_over, what=f"what {drill.name} waits for", timeout=drill.seconds + 5, interval=0.2)

    def _try(self, work: Callable[[], None]) -> None:
        """Do it, and keep why it failed: what was seen so far is worth telling, and healing comes first."""
        try:
            work()
        except LabError as error:
            self.problem = self.problem or error.message

    def _when(self, kind: str) -> float:
        return next((mark.at for mark in self.marks if mark.kind == kind), 0.0)


def _let_pass(probes: Probes, seconds: float) -> None:
    """Let the probes run for a while."""
    end = probes.now() + seconds
    wait_until(
        lambda: None if probes.now() >= end else "not yet",
        what="the probes have run for a while",
        timeout=seconds + 5,
        interval=0.1,
    )


def _via(session: Session, victims: tuple[Node, ...]) -> tuple[Node, ...]:
    """Where the Service is asked: at workers that are not broken, else at any node that isn't, else at all."""
    lab = session.lab
    for nodes in (lab.workers, lab.kubernetes_nodes):
        whole = tuple(node for node in nodes if node not in victims)
        if whole:
            return whole
    return lab.workers or lab.kubernetes_nodes


@contextmanager
def _ready(session: Session, patience: float) -> Iterator[int]:
    """A green lab with the drills' workload while inside: the port of its Service on every node."""
    _settled(session, patience)
    api = Api(session.workspace.kubeconfig)
    with session.progress.step("workload", "the drills' workload runs"):
        node_port = workload.deploy(api, session.lab)
    try:
        yield node_port
    finally:
        with process.defer_interrupts():
            workload.remove(api)


def _why_not_green(session: Session) -> str | None:
    """Which checks of verify do not hold, the first few by name; None when all do."""
    outcome = verify.run(session)
    if outcome.green:
        return None
    bad = sorted({verdict.name for verdict in outcome.verdicts if not verdict.good})
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return ", ".join(bad[:NAMED]) + more or "no check ran"
