"""Carries drills out: verify green, watch, break, heal, wait for recovery, verify green. In that order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.drill import balancer_log, undo
from lab.drill.catalogue import ALWAYS, Drill
from lab.drill.figures import figures
from lab.drill.observe import AFTER, BEFORE, Observation, service_nodes, workload_runs
from lab.drill.recording import Result
from lab.drill.scene import Scene, etcd
from lab.drill.whole import wait_whole
from lab.errors import ConfigError, LabError, LabStateError, WaitTimedOut
from lab.health import verify
from lab.model import Node
from lab.session import Session
from lab.system.wait import wait_until

WHOLE = 240.0
"""Seconds for everything to be whole again. A machine is back after 10, its control plane after 30."""

SETTLED = 40.0
"""Seconds for a lab to be green before: what was just brought up, or healed, may still be settling."""

GREEN = 180.0
"""Seconds for verify to be green again when everything is whole."""

NAMED = 6
"""How many checks that don't hold are named; `verify` shows all."""


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
    with session.progress.asking("the fault to be in"):
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
    with session.progress.step("verify", "verify is green before anything is broken") as step:
        try:
            wait_until(
                lambda: _why_not_green(session), what="verify to be green", timeout=patience, log=step.log
            )
        except WaitTimedOut as error:
            raise LabStateError(
                f"the lab is not green, and a drill would measure that: {error.reason}",
                hint="`./inv verify` says more; what has just been started needs a minute, else `./inv up`",
            ) from error


def _run(session: Session, drill: Drill, number: int, node_port: int) -> Result:
    """One run, from a green lab to a green lab."""
    victims = drill.victims(session)
    term = etcd(session).term
    observed = Observation(session)
    _break(observed, drill, victims, node_port)

    def recover() -> None:
        observed.read_writes_back()
        wait_until(lambda: _why_not_green(session), what="verify is green again", timeout=GREEN)
        observed.mark("whole", "verify")
        observed.require_workload(session.lab, f"after-{drill.name}-{number}")
        observed.leader_changes = etcd(session).term - term

    observed.attempt(recover)
    recording = observed.recording(drill.name, run=number, victims=victims)
    limits = ALWAYS | (dict(drill.limits) if recording.profile == "tuned" else {})
    return Result(recording=recording, figures=figures(recording, limits), problem=observed.problem)


def _break(observed: Observation, drill: Drill, victims: tuple[Node, ...], node_port: int) -> None:
    """Put the fault in and take it out while the probes run. An interrupt ends it, with the fault out."""
    session = observed.session
    via = service_nodes(session.lab, [node for node in session.lab.nodes if node not in victims])
    scene = Scene(session, victims, observed.mark)
    limit = BEFORE + drill.seconds + WHOLE + 120
    with observed.probing(via=via, node_port=node_port, limit=limit):
        with undo.fault(scene, drill):
            observed.attempt(lambda: _let_happen(observed, scene, drill))
        observed.attempt(lambda: wait_whole(scene, WHOLE))
        observed.let_pass(AFTER)
        observed.finish()
    times = observed.wall, observed.first("inject"), observed.first("heal")
    observed.attempt(lambda: observed.marks.extend(balancer_log.marks(session, *times)))


def _let_happen(observed: Observation, scene: Scene, drill: Drill) -> None:
    """Put the fault in and let it work for its time, or until what the drill waits for has come."""
    drill.inject(scene)
    scene.injected()
    end = observed.now() + drill.seconds

    def why_not_over() -> str | None:
        if drill.until is None:
            return None if observed.now() >= end else "its time is not over"
        try:
            return drill.until(scene)
        except LabError as error:
            return error.message

    wait_until(why_not_over, what=f"what {drill.name} waits for", timeout=drill.seconds + 5, interval=0.2)


@contextmanager
def _ready(session: Session, patience: float) -> Iterator[int]:
    """A green lab with the drills' workload while inside: the port of its Service on every node."""
    _settled(session, patience)
    with workload_runs(session, session.lab) as node_port:
        yield node_port


def _why_not_green(session: Session) -> str | None:
    """Which checks of verify do not hold, the first few by name; None when all do."""
    outcome = verify.run(session)
    if outcome.green:
        return None
    bad = sorted({verdict.name for verdict in outcome.verdicts if not verdict.good})
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return ", ".join(bad[:NAMED]) + more or "no check ran"
