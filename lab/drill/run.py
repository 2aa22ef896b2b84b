"""Runs drills: verify, start the probes, inject the fault, revert it, wait for recovery, verify again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.drill import address, balancer_log, undo
from lab.drill.catalogue import ALWAYS, Drill
from lab.drill.figures import figures
from lab.drill.observe import AFTER, BEFORE, Observation, service_nodes, workload_runs
from lab.drill.recording import Result
from lab.drill.recovery import wait_for_recovery
from lab.drill.scene import Scene, etcd
from lab.errors import ConfigError, LabError, LabStateError, WaitTimedOut
from lab.health import verify
from lab.model import Node
from lab.plans import pair
from lab.session import Session
from lab.system.wait import wait_until

RECOVERY = 240.0
"""Seconds until everything has recovered. A machine is back after 10, its control plane after 30."""

SETTLED = 40.0
"""Seconds until all checks pass before a drill: a lab that was just brought up or recovered may need them."""

GREEN = 180.0
"""Seconds until all checks pass again once everything has recovered."""

NAMED = 6
"""How many failing checks are named; `verify` shows all."""


def carry_out(
    session: Session, drills: Sequence[Drill], *, repeat: int, profiles: Sequence[str]
) -> tuple[Result, ...]:
    """Run every drill `repeat` times with each profile of the load balancer; return the results.

    A run that could not be completed is the last, since the lab may have changed. Raises ConfigError if the lab
    is too small for a drill, LabStateError if checks fail before the first run.
    """
    require_fit(session, drills)
    # Only once: from here on, changes are this drill's own.
    patience = without_leftovers(session)
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
    """Inject a drill's fault and leave it in; return the machines with it."""
    require_fit(session, [drill])
    require_green(session)
    scene = Scene(session, drill.victims(session), lambda kind, what: None)
    undo.remember(scene, drill)
    with session.progress.asking("the fault to be injected"):
        drill.inject(scene)
    return scene.victims


def require_fit(session: Session, drills: Sequence[Drill]) -> None:
    """Raise ConfigError with every reason why this lab does not fit the drills."""
    reasons = [reason for drill in drills if (reason := drill.lab_problem(session.lab))]
    if reasons:
        raise ConfigError(reasons, hint="`./inv drill --list` lists the drills; lab.yaml has the counts")


def require_green(session: Session) -> None:
    """Revert what an earlier drill left in. Raises LabStateError unless all checks pass afterwards."""
    settle(session, without_leftovers(session))


def without_leftovers(session: Session) -> float:
    """Revert what an earlier drill left in; return how many seconds the lab may need until all checks pass."""
    undone = undo.leftovers(session)
    for left in undone:
        session.progress.say(f"an earlier drill had left its fault in; it was reverted: {left}")
    return GREEN if undone else SETTLED


def settle(session: Session, patience: float) -> None:
    """Raise LabStateError unless all checks pass within that many seconds."""
    with session.progress.step("verify", "all checks pass before the drill") as step:
        try:
            wait_until(
                lambda: _why_not_green(session), what="all checks to pass", timeout=patience, log=step.log
            )
        except WaitTimedOut as error:
            raise LabStateError(
                f"checks fail before the drill, and would affect its figures: {error.reason}",
                hint="`./inv verify` shows more; wait a minute after a start, else run `./inv up`",
            ) from error


def _run(session: Session, drill: Drill, number: int, node_port: int) -> Result:
    """One run: all checks pass before and after it."""
    victims = drill.victims(session)
    term = etcd(session).term
    observed = Observation(session)
    _break(observed, drill, victims, node_port)

    def recover() -> None:
        observed.read_writes_back()
        wait_until(lambda: _why_not_green(session), what="all checks to pass again", timeout=GREEN)
        observed.mark("whole", "verify")
        observed.require_workload(session.lab, f"after-{drill.name}-{number}")
        # A recovery makes a new cluster, whose terms begin again.
        observed.leader_changes = max(0, etcd(session).term - term)

    observed.attempt(recover)
    recording = observed.recording(drill.name, run=number, victims=victims)
    limits = ALWAYS | (dict(drill.limits_in(session.lab)) if recording.profile == "tuned" else {})
    return Result(recording=recording, figures=figures(recording, limits), problem=observed.problem)


def _break(observed: Observation, drill: Drill, victims: tuple[Node, ...], node_port: int) -> None:
    """Inject the fault and revert it while the probes run. After an interrupt the fault is reverted, too."""
    session = observed.session
    first = pair.holding(session.lab, session.remote)
    via = service_nodes(session.lab, [node for node in session.lab.nodes if node not in victims])
    scene = Scene(session, victims, observed.mark, observed.api.read_again)
    limit = BEFORE + drill.prepares + drill.seconds + RECOVERY + 120
    with observed.probing(via=via, node_port=node_port, limit=limit):
        with undo.fault(scene, drill):
            observed.attempt(lambda: _let_happen(observed, scene, drill))
        observed.attempt(lambda: wait_for_recovery(scene, RECOVERY))
        observed.let_pass(AFTER)
        observed.finish()
    times = observed.wall, observed.first("inject"), observed.first("heal")
    observed.attempt(lambda: observed.marks.extend(balancer_log.marks(session, *times)))
    observed.attempt(lambda: _where_the_address_was(observed, first))


def _where_the_address_was(observed: Observation, first: frozenset[str]) -> None:
    """Keep when each of two load balancers had the API's address; `first` are those that had it at first."""
    session, injected, healed = observed.session, observed.first("inject"), observed.first("heal")
    logs = {node.name: address.ask(session, node, observed.wall) for node in session.lab.pair}
    observed.holders = address.holdings(logs, first, injected, observed.seconds)
    observed.ended_at = address.ended(logs, injected, healed)
    observed.marks += address.marks(observed.holders, injected, healed)


def _let_happen(observed: Observation, scene: Scene, drill: Drill) -> None:
    """Inject the fault and wait for its time, or until the drill's condition holds."""
    drill.inject(scene)
    scene.injected()
    end = observed.now() + drill.seconds

    def why_not_over() -> str | None:
        if drill.until is None:
            return None if observed.now() >= end else "the drill's time is not over"
        try:
            return drill.until(scene)
        except LabError as error:
            return error.message

    wait_until(why_not_over, what=f"what {drill.name} waits for", timeout=drill.seconds + 5, interval=0.2)


@contextmanager
def _ready(session: Session, patience: float) -> Iterator[int]:
    """A verified lab with the drills' workload while inside; yields its Service's node port."""
    settle(session, patience)
    with workload_runs(session, session.lab) as node_port:
        yield node_port


def _why_not_green(session: Session) -> str | None:
    """The failing checks of verify, the first few by name; None if all pass."""
    outcome = verify.run(session)
    if outcome.green:
        return None
    bad = sorted({verdict.name for verdict in outcome.verdicts if not verdict.good})
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return ", ".join(bad[:NAMED]) + more or "no check ran"
