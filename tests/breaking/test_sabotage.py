"""A lab that is well is broken in one way after another: exactly the checks that should no longer hold don't.

Each break is undone whatever happens, and the lab must be green again before the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import pytest

from lab.errors import CommandFailed, WaitTimedOut
from lab.health import verify
from lab.health.checks import cases
from lab.health.cluster import Api
from lab.health.facts.api import read_leases
from lab.health.verify import Outcome
from lab.model import Lab
from lab.session import Session, machine
from lab.system import process
from lab.system.wait import wait_until
from tests.breaking.sabotages import CONTROL_PLANE, HOST, SABOTAGES, WORKER, Sabotage

LONGEST = 60.0
"""Seconds that verify may take, whatever is broken."""

EFFECT, SETTLED, HEALED = 60.0, 45.0, 240.0
"""Seconds for a break to show, for all that it does not break to be well, and for the lab to be well again.

Where an API server stands still, the kubelets that were attached to it see nothing new until they have found
another one, which takes client-go some seconds.
"""

AT_HAND = """
source /opt/ha-lab/lib.sh; source /opt/ha-lab/kubernetes.sh
trap - ERR; set -eu -o pipefail
"""


def rounds(sabotages: Sequence[Sabotage], *, each_alone: bool) -> list[tuple[Sabotage, ...]]:
    """What is broken at once: contained breaks together, as long as no check is about two of them.

    With `each_alone`, one break in each round.
    """
    found: list[list[Sabotage]] = []
    for sabotage in sabotages:
        fitting = (each for each in found if _fits(sabotage, each) and not each_alone)
        there = next(fitting, None)
        if there is None:
            found.append([sabotage])
        else:
            there.append(sabotage)
    return [tuple(each) for each in found]


def _fits(sabotage: Sabotage, others: list[Sabotage]) -> bool:
    taken = {check for other in others for check in _checks(other)}
    return all(each.contained for each in (sabotage, *others)) and not taken & _checks(sabotage)


def _checks(sabotage: Sabotage) -> set[str]:
    return {title.partition("[")[0] for title in sabotage.expected}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "together" in metafunc.fixturenames:
        chosen = rounds(SABOTAGES, each_alone=metafunc.config.getoption("--whole"))
        metafunc.parametrize("together", chosen, ids=_names)


def _names(together: tuple[Sabotage, ...]) -> str:
    more = f" and {len(together) - 1} more" if together[1:] else ""
    return f"{together[0].name}{more}".replace(" ", "-")


def test_exactly_the_checks_fail_that_should_and_healing_turns_it_green(
    session: Session, together: tuple[Sabotage, ...]
) -> None:
    chosen = {sabotage: _chosen(session, sabotage) for sabotage in together}
    outcome = _broken_and_healed(session, chosen)
    differs = _differs(session, chosen, outcome)
    assert not differs, _told(outcome, differs)
    assert outcome.seconds < LONGEST
    expected = {title for each, it in chosen.items() for title in _expanded(session.lab, each.expected, it)}
    assert not outcome.green or all(v.outcome == "warns" for v in outcome.verdicts if v.title in expected)


def test_every_sabotage_is_in_one_round() -> None:
    for each_alone in (False, True):
        made = [sabotage for each in rounds(SABOTAGES, each_alone=each_alone) for sabotage in each]
        assert sorted(made, key=SABOTAGES.index) == list(SABOTAGES)


def _broken_and_healed(session: Session, chosen: dict[Sabotage, str]) -> Outcome:
    """Break it, look, heal it, and wait until all is well again; return the last look while it was broken."""
    with contextlib.ExitStack() as healing:
        for sabotage, it in chosen.items():
            healing.callback(_run, session, sabotage.on, sabotage.heals, it)
            _run(session, sabotage.on, sabotage.breaks, it)
            if sabotage.until:
                shown = partial(_why_not_shown, session, *sabotage.until, it)
                wait_until(shown, what="the break shows", timeout=EFFECT, interval=0.3)
        outcome = _settled(session, chosen)
    wait_until(lambda: _why_not_green(session), what="the lab is well again", timeout=HEALED, interval=1.0)
    return outcome


def _settled(session: Session, chosen: dict[Sabotage, str]) -> Outcome:
    """Look until exactly what is expected does not hold, or for SETTLED seconds; return the last look."""
    looks: list[Outcome] = []

    def why_differs() -> str | None:
        looks.append(verify.run(session))
        differs = _differs(session, chosen, looks[-1])
        return _told(looks[-1], differs) if differs else None

    with contextlib.suppress(WaitTimedOut):
        wait_until(why_differs, what="just that does not hold", timeout=SETTLED, interval=1.0)
    return looks[-1]


def _differs(session: Session, chosen: dict[Sabotage, str], outcome: Outcome) -> set[str]:
    """What should not hold and does, and what does not hold and should; what may follow is either."""
    expected, follows = set(), set()
    for sabotage, it in chosen.items():
        expected |= _expanded(session.lab, sabotage.expected, it)
        follows |= _expanded(session.lab, sabotage.follows, it)
    return (_not_holding(outcome) ^ expected) - (follows - expected)


def _chosen(session: Session, sabotage: Sabotage) -> str:
    """The machine that {it} stands for."""
    api = Api(session.workspace.kubeconfig)
    if sabotage.on == CONTROL_PLANE:
        leases = read_leases(api.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"))
        leaders = {lease.holder.partition("_")[0] for lease in leases if not lease.server}
        return next(node.name for node in reversed(session.lab.control_planes) if node.name not in leaders)
    if sabotage.on in (WORKER, HOST):
        naming = {pod.node for pod in api.pods("kube-system") if pod.name.startswith("coredns-")}
        return next(node.name for node in session.lab.workers if node.name not in naming)
    return sabotage.on


def _expanded(lab: Lab, expected: tuple[str, ...], it: str) -> set[str]:
    """The titles of checks, {it} and [*] being replaced."""
    machines: dict[str, list[str]] = {}
    for case in cases(lab):
        machines.setdefault(case.check.name, []).extend([case.node.name] if case.node else [])
    titles = set()
    for title in expected:
        name, _, rest = title.partition("[")
        titles |= {f"{name}[{m}]" for m in machines[name]} if rest == "*]" else {title.replace("{it}", it)}
    return titles


def _run(session: Session, on: str, line: str, it: str) -> None:
    line = line.replace("{it}", it).replace("{address}", str(session.lab.first.address))
    if on == HOST:
        known = {"LAB": str(session.workspace.root), "NAME": session.lab.name}
        process.run(["bash", "-euc", line], env=known, timeout=60)
        return
    node = machine(session, it if on in (WORKER, CONTROL_PLANE) else on)
    session.remote.run(node, ["sudo", "bash", "-s"], stdin=AT_HAND + line + "\n", timeout=60)


def _why_not_shown(session: Session, on: str, line: str, it: str) -> str | None:
    try:
        _run(session, on, line, it)
    except CommandFailed as error:
        return error.message
    return None


def _not_holding(outcome: Outcome) -> set[str]:
    return {verdict.title for verdict in outcome.verdicts if verdict.outcome != "holds"}


def _why_not_green(session: Session) -> str | None:
    outcome = verify.run(session)
    bad = _not_holding(outcome)
    return _told(outcome, bad) if bad else None


def _told(outcome: Outcome, titles: set[str]) -> str:
    """Each of these checks with what it found."""
    said = [f"{v.title}: {v.outcome}: {v.found}" for v in outcome.verdicts if v.title in titles]
    return "\n".join([*said, *sorted(titles - {verdict.title for verdict in outcome.verdicts})])
