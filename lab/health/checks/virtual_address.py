"""The address that two load balancers share: one of them has it, all others know which, and it can move."""

from __future__ import annotations

from collections.abc import Mapping

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect_none,
    holds,
    only_if_all_answered,
    shown,
)
from lab.health.checks.load_balancer import service_runs
from lab.health.facts.gather import Facts
from lab.model import Lab, Node
from lab.model.selectors import pair
from lab.unknown import CouldNotAsk, Unknown


def holders(lab: Lab, facts: Facts) -> tuple[dict[str, str], tuple[str, ...]]:
    """The load balancers that hold the virtual address, each with its MAC, and why others gave no answer."""
    found, silent = answers(facts, lab.pair, lambda machine: machine.virtual_address)
    return {name: each.mac for name, each in found.items() if each.here}, silent


def one_holder(lab: Lab, facts: Facts) -> Finding:
    found, silent = holders(lab, facts)
    if not found and silent:
        raise CouldNotAsk("; ".join(silent))  # one of those may have it
    who = " and ".join(found) or "none"
    verb = "have" if len(found) > 1 else "has"
    return Finding(f"one load balancer has {lab.api.address}", f"{who} {verb} it", holds(len(found) == 1))


def address_agreed(lab: Lab, facts: Facts) -> Finding:
    """The host's neighbour table and every machine's have the address where it is."""
    holding, _ = holders(lab, facts)
    if not holding:
        raise CouldNotAsk(f"no load balancer that answers has {lab.api.address}")
    seen, silent = answers(facts, lab.nodes, lambda machine: machine.virtual_address)
    places = {name: each.mac for name, each in seen.items() if not each.here}
    if isinstance(facts.neighbour, Unknown):
        silent = (*silent, f"this host's neighbour table: {facts.neighbour.reason}")
    elif facts.neighbour is not None:
        places = {"this host": facts.neighbour} | places
    wrong = [
        f"{name} sends to {_place(mac, lab, facts)}"
        for name, mac in places.items()
        if mac not in holding.values()
    ]
    finding = expect_none(f"this host and every machine send to {' or '.join(holding)}", wrong)
    return only_if_all_answered(finding, silent)


def _place(mac: str, lab: Lab, facts: Facts) -> str:
    """The machine with that MAC on the lab's network, or else the MAC itself."""
    known, _ = answers(facts, lab.nodes, lambda machine: machine.identity.mac)
    return next((name for name, each in known.items() if each == mac), mac or "no machine")


def same_backends(lab: Lab, facts: Facts) -> Finding:
    """Both HAProxys have the same servers, each in the same state."""
    found, silent = answers(facts, lab.pair, lambda machine: machine.backends)
    views = {
        balancer: {name: backend.status.split(" ")[0] for name, backend in sorted(backends.items())}
        for balancer, backends in found.items()
    }
    same = len({tuple(view.items()) for view in views.values()}) <= 1
    finding = Finding("the same servers in the same states", _differences(views), holds(same))
    return only_if_all_answered(finding, silent)


def _differences(views: Mapping[str, Mapping[str, str]]) -> str:
    """What each HAProxy has of the servers that they do not agree on; what both have if they do."""
    names = sorted({name for view in views.values() for name in view})
    different = [name for name in names if len({view.get(name) for view in views.values()}) > 1]
    return "; ".join(
        f"{balancer}: {shown({name: view.get(name, 'no such server') for name in different or names})}"
        for balancer, view in views.items()
    )


def keepalived_runs(lab: Lab, facts: Facts, node: Node) -> Finding:
    return service_runs(facts, node, "keepalived")


def keepalived_configuration(lab: Lab, facts: Facts, node: Node) -> Finding:
    machine = facts.machine(node)
    said = machine.section("keepalived-configuration")
    bad = [f"{file} is not the lab's" for file in machine.keepalived_files]
    if said.code:
        bad.append("; ".join(said.text.split("\n"))[:300].strip() or f"exit code {said.code}")
    return expect_none("keepalived accepts it, and it is the lab's", bad)


CHECKS = (
    LabCheck(
        "one-holder",
        one_holder,
        means="with none the API can't be reached; with two, connections reach either machine, and are "
        "cut when that changes",
        hint="`./inv up` repairs keepalived; on each load balancer `journalctl -u keepalived` shows why it "
        "took or released the address; with two holders, VRRP (IP protocol 112) does not pass between them",
        pair=True,
    ),
    LabCheck(
        "address-agreed",
        address_agreed,
        means="packets go to a machine that no longer has the API's address, and no answer comes",
        hint="the holder announces the address every five seconds; a machine that still has another entry does "
        "not get that: `./inv ssh NAME -- sudo ip neighbour flush to ADDRESS` makes it ask again, on this host "
        "`sudo ip neighbour flush to ADDRESS` (ADDRESS: the API's, `network.virtual_address`)",
        pair=True,
    ),
    LabCheck(
        "same-backends",
        same_backends,
        means="when the address moves, users find other API servers, or none",
        hint="backend-up and backend-belief show what is wrong with each server; `./inv up` writes both "
        "configurations again",
        pair=True,
    ),
    MachineCheck(
        "keepalived-runs",
        pair,
        keepalived_runs,
        means="the API's address can't move to this machine, or stays with a machine whose HAProxy has failed",
        hint="`./inv up` starts it; on the machine: `systemctl enable --now keepalived`",
    ),
    MachineCheck(
        "keepalived-configuration",
        pair,
        keepalived_configuration,
        means="keepalived would not start again, or does not do its part: without the other as its peer, both "
        "take the address",
        hint="`./inv up` writes the lab's configuration again",
    ),
)
