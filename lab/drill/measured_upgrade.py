"""`drill upgrade`: measures the lab's next upgrade, also in kubeadm's plain order, and puts the lab back."""

from __future__ import annotations

from lab.drill import rehearsal, run, undo
from lab.drill.catalogue import DRILLS, Drill
from lab.drill.measured_up import PLAIN, Measured
from lab.drill.recording import Report
from lab.drill.scene import Scene
from lab.model import Node
from lab.session import Session
from lab.verbs import bake
from lab.verbs.up import Request


def carry_out(session: Session, *, repeat: int, compare: str, consent: bool) -> Report:
    """Upgrade the lab `repeat` times in each way, restored after each time; return one report of all.

    The caller holds the lab's lock. `consent`: to repairs of the host, if the golden machine of the new version
    has to be made. Raises LabError if checks fail before, or if an upgrade fails; the lab is restored then.
    """
    run.require_fit(session, [drill()])
    patience = run.without_leftovers(session)
    victims = rehearsal.machines(session)
    # Before anything is saved, as only this needs a network.
    bake.bake(rehearsal.wanted(session), consent=consent)
    reports = []
    for plain in (False, True) if compare == PLAIN else (False,):
        for number in range(1, repeat + 1):
            run.settle(session, patience)
            reports.append(_round(session, victims=victims, plain=plain, number=number, consent=consent))
            patience = run.GREEN
    results = tuple(result for each in reports for result in each.results)
    return reports[0].model_copy(update={"results": results})


def drill() -> Drill:
    """The drill's entry in the catalogue, which has its revert."""
    return next(each for each in DRILLS if each.name == rehearsal.NAME)


def _round(session: Session, *, victims: tuple[Node, ...], plain: bool, number: int, consent: bool) -> Report:
    scene = Scene(session, victims, lambda kind, what: None)
    measured = Measured(plain=plain, drill=rehearsal.NAME, number=number)
    with undo.fault(scene, drill()):
        rehearsal.save(session)
        run.settle(session, run.GREEN)
        rehearsal.carry_out(session, Request(consent=consent, plain=plain), measured)
    assert measured.report is not None
    return measured.report
