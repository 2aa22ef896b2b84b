"""A lab that is well is broken in one way after another: exactly the checks that should no longer hold don't.

Then `up` repairs it, or says within a minute what it does not repair and what to do. What is broken after that
is undone, whatever happens, and the lab must be green again before the next break.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
import yaml
from _pytest.mark import ParameterSet

from lab.drill.scene import holder
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
from tests.breaking.green import in_words, not_holding, why_not_green
from tests.breaking.sabotages import (
    CONTROL_PLANE,
    HOLDER,
    HOST,
    SABOTAGES,
    STANDBY,
    WORKER,
    NoMistake,
    Repairs,
    Sabotage,
    Says,
)
from tests.labs.conftest import TestLab

PAIR, EXTERNAL = False, False
"""Whether the lab has two load balancers, and etcd machines, and so which sabotages are its."""

LONGEST = 60.0
"""Seconds that verify may take, whatever is broken, and `up` to say what it does not repair.

It may take twice as long where it repairs something else before that.
"""

EFFECT, SETTLED, HEALED = 60.0, 45.0, 240.0
"""Seconds for a break to show, for all that it does not break to be well, and for the lab to be well again.

Where an API server stands still, the kubelets that were attached to it see nothing new until they have found
another one, which takes client-go some seconds.
"""

NAMES_ALL = "cluster-objects"
"""A check that names each object that is missing, so several breaks at once may be about it."""

AT_HAND = """
source /opt/ha-lab/lib.sh; source /opt/ha-lab/kubernetes.sh
trap - ERR; set -eu -o pipefail
# none COMMAND…: it lists nothing. Where the API does not answer, that is not known.
none() { local found; found=$("$@") && [[ -z $found ]]; }
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
    contained = all(each.contained for each in (sabotage, *others))
    alike = {
        (each.in_the_way, each.addons, each.whole, each.pair, each.external) for each in (sabotage, *others)
    }
    return contained and len(alike) == 1 and not taken & _checks(sabotage)


def _checks(sabotage: Sabotage) -> set[str]:
    return {title.partition("[")[0] for title in sabotage.expected} - {NAMES_ALL}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "together" in metafunc.fixturenames:
        # This hook is also that of test_pair.py and test_external.py, whose labs differ.
        kind = metafunc.module.PAIR, metafunc.module.EXTERNAL
        ours = [each for each in SABOTAGES if (each.pair, each.external) == kind]
        chosen = rounds(ours, each_alone=metafunc.config.getoption("--whole"))
        metafunc.parametrize("together", [_round(each) for each in chosen])


def _round(together: tuple[Sabotage, ...]) -> ParameterSet:
    marks = [pytest.mark.whole] if any(each.whole for each in together) else []
    return pytest.param(together, id=_names(together), marks=marks)


def _names(together: tuple[Sabotage, ...]) -> str:
    more = f" and {len(together) - 1} more" if together[1:] else ""
    return f"{together[0].name}{more}".replace(" ", "-")


def test_exactly_the_checks_fail_that_should_and_up_does_what_it_should(
    lab: TestLab, together: tuple[Sabotage, ...]
) -> None:
    session = _with_addons(lab, together[0].addons)
    chosen = {sabotage: _chosen(session, sabotage) for sabotage in together}
    with _healed_at_the_end(session) as broken:
        for sabotage, it in chosen.items():
            broken[sabotage] = it
            _break(session, sabotage, it)
        outcome = _settled(session, chosen)
        differs = _differs(session, chosen, outcome)
        assert not differs, in_words(outcome, differs)
        assert outcome.seconds < LONGEST
        expected = {title for each, it in chosen.items() for title in _expanded(session.lab, each.expected, it)}
        assert not outcome.green or all(v.outcome == "warns" for v in outcome.verdicts if v.title in expected)
        _heal(session, broken, [each for each in together if isinstance(each.up, NoMistake)])
        if broken:
            _up(lab, session, broken)
        else:
            _wait_until_well(session)


def _with_addons(lab: TestLab, addons: tuple[str, ...]) -> Session:
    """The lab with these add-ons and no others. `up` adds and removes them while the lab is up."""
    if lab.session.lab.addons != addons:
        path = lab.folder / "lab.yaml"
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(data | {"addons": list(addons)}), encoding="utf-8")
        lab.succeed("up", "--yes")
        _wait_until_well(lab.session)
    return lab.session


def _up(lab: TestLab, session: Session, broken: dict[Sabotage, str]) -> None:
    """Run `up` on what is broken, and assert what it does about each; leave in `broken` what still is."""
    ended = lab.inv("up", "--yes")
    said = ended.said.replace(f" --lab {session.path}", "")  # in the commands that are shown
    left = {each: it for each, it in broken.items() if isinstance(each.up, Says)}
    for sabotage, it in left.items():
        assert isinstance(sabotage.up, Says)
        for words in (sabotage.up.cause, sabotage.up.helps):
            assert words.replace("{it}", it) in said
    assert ended.code == int(any(isinstance(each.up, Says) and not each.up.warns for each in left)), ended.said
    assert not left or ended.seconds < LONGEST * (1 if left == broken else 2)
    outcome = _settled(session, left)
    differs = _differs(session, left, outcome)
    assert not differs, in_words(outcome, differs)
    for sabotage, it in [*broken.items()]:
        if isinstance(sabotage.up, Repairs):
            still = sabotage.until and not _why_not_shown(session, *sabotage.until, it)
            assert not still, f"{sabotage.name}: it still shows"
            if not sabotage.up.traces:
                del broken[sabotage]


def test_the_lab_is_left_without_add_ons(lab: TestLab) -> None:
    """The drills may be next, and would wait for figures of the nodes that they have broken."""
    assert _with_addons(lab, ()).lab.addons == ()


def test_every_sabotage_is_in_one_round() -> None:
    for each_alone in (False, True):
        made = [sabotage for each in rounds(SABOTAGES, each_alone=each_alone) for sabotage in each]
        assert sorted(made, key=SABOTAGES.index) == list(SABOTAGES)


@contextlib.contextmanager
def _healed_at_the_end(session: Session) -> Iterator[dict[Sabotage, str]]:
    """What is broken, each with the machine of {it}. All that is left of it is undone, whatever happens."""
    broken: dict[Sabotage, str] = {}
    try:
        yield broken
    finally:
        if broken:
            _heal(session, broken, [*broken])
            _wait_until_well(session)


def _wait_until_well(session: Session) -> None:
    wait_until(lambda: why_not_green(session), what="the lab is well again", timeout=HEALED, interval=1.0)


def _break(session: Session, sabotage: Sabotage, it: str) -> None:
    _run(session, sabotage.on, sabotage.breaks, it)
    if sabotage.until:
        shown = partial(_why_not_shown, session, *sabotage.until, it)
        wait_until(shown, what="the break shows", timeout=EFFECT, interval=0.3)


def _heal(session: Session, broken: dict[Sabotage, str], healed: Sequence[Sabotage]) -> None:
    """Undo these breaks, the last one first; all of them, even where one can't be undone."""
    with contextlib.ExitStack() as healing:
        for sabotage in healed:
            healing.callback(_run, session, sabotage.on, sabotage.heals, broken.pop(sabotage))


def _settled(session: Session, chosen: dict[Sabotage, str]) -> Outcome:
    """Look until exactly what is expected does not hold, or for SETTLED seconds; return the last look."""
    looks: list[Outcome] = []

    def why_differs() -> str | None:
        looks.append(verify.run(session))
        differs = _differs(session, chosen, looks[-1])
        return in_words(looks[-1], differs) if differs else None

    with contextlib.suppress(WaitTimedOut):
        wait_until(why_differs, what="just that does not hold", timeout=SETTLED, interval=1.0)
    return looks[-1]


def _differs(session: Session, chosen: dict[Sabotage, str], outcome: Outcome) -> set[str]:
    """What should not hold and does, and what does not hold and should; what may follow is either."""
    expected, follows = set(), set()
    for sabotage, it in chosen.items():
        expected |= _expanded(session.lab, sabotage.expected, it)
        follows |= _expanded(session.lab, sabotage.follows, it)
    return (not_holding(outcome) ^ expected) - (follows - expected)


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
    if sabotage.on in (HOLDER, STANDBY):
        first = holder(session)
        return next(n.name for n in session.lab.pair if (n == first) is (sabotage.on == HOLDER))
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
    node = machine(session, it if on in (WORKER, CONTROL_PLANE, HOLDER, STANDBY) else on)
    session.remote.run(node, ["sudo", "bash", "-s"], stdin=AT_HAND + line + "\n", timeout=60)


def _why_not_shown(session: Session, on: str, line: str, it: str) -> str | None:
    try:
        _run(session, on, line, it)
    except CommandFailed as error:
        return error.message
    return None
