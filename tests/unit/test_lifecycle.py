"""`up` and `replace` on a lab that lives in memory: each change, and each broken off at each of its steps."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from invoke.exceptions import Exit

import tasks
from lab import providers
from lab.errors import ConfigError, LabError, LabStateError, NodeFailed
from lab.model import Node
from lab.plans import up as up_plan
from lab.verbs import plan, render
from lab.verbs import up as bring_up
from tests.unit.world import KilledError, When, World, WorldRemote, lab_of, live
from tests.whole import rows


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return live(World(tmp_path), monkeypatch)


def nothing(world: World) -> None:
    """Nothing happened."""


@dataclass(frozen=True)
class Case:
    """A change: what lab.yaml said, what it says now, what is replaced, and what happened in between."""

    before: dict[str, Any] | None
    after: dict[str, Any]
    replacing: tuple[str, ...] = ()
    happened: Callable[[World], None] = nothing
    sizes: bool = False


def stopped(*names: str) -> Callable[[World], None]:
    def stop(world: World) -> None:
        for name in names or tuple(world.machines):
            world.machine(name).state = "stopped"

    return stop


def lost(name: str) -> Callable[[World], None]:
    return lambda world: world.lose(name)


def hanging(name: str) -> Callable[[World], None]:
    return lambda world: setattr(world.machine(name), "hangs", True)


SMALL = {"control_planes": 3, "workers": 1}
TWO = {**SMALL, "load_balancers": 2}
EXTERNAL = {"etcd": 3, "control_planes": 3, "workers": 1}
CASES = {
    "from nothing": Case(None, {}),
    "one worker more": Case({"workers": 1}, {"workers": 2}),
    "one worker less": Case({"workers": 2}, {"workers": 1}),
    "three control planes instead of one": Case({"control_planes": 1, "workers": 1}, SMALL),
    "one control plane instead of three": Case(SMALL, {"control_planes": 1, "workers": 1}),
    "five control planes instead of three": Case(SMALL, {"control_planes": 5, "workers": 1}),
    "one control plane instead of five": Case(
        {"control_planes": 5, "workers": 1}, {"control_planes": 1, "workers": 1}
    ),
    "fewer control planes and more workers": Case(SMALL, {"control_planes": 1, "workers": 2}),
    "less of a lab that is stopped": Case({}, {"control_planes": 1, "workers": 1}, happened=stopped()),
    "less of a lab that lost what goes": Case({}, {"control_planes": 3, "workers": 1}, happened=lost("w2")),
    "the load balancer again": Case(SMALL, SMALL, ("lb1",)),
    "one of two load balancers again": Case(TWO, TWO, ("lb1",)),
    "one of two load balancers that is gone": Case(TWO, TWO, ("lb2",), lost("lb2")),
    "the first control plane again": Case(SMALL, SMALL, ("cp1",)),
    "the last control plane again": Case(SMALL, SMALL, ("cp3",)),
    "the first worker again": Case({}, {}, ("w1",)),
    "a control plane that is gone again": Case(SMALL, SMALL, ("cp1",), lost("cp1")),
    "a control plane that hangs again": Case(SMALL, SMALL, ("cp2",), hanging("cp2")),
    "a worker that is stopped again": Case({}, {}, ("w1",), stopped("w1")),
    "from nothing, with etcd machines": Case(None, EXTERNAL),
    "an etcd machine again": Case(EXTERNAL, EXTERNAL, ("etcd2",)),
    "an etcd machine that is gone": Case(EXTERNAL, EXTERNAL, (), lost("etcd1")),
    "an etcd machine that hangs again": Case(EXTERNAL, EXTERNAL, ("etcd3",), hanging("etcd3")),
    "a control plane without etcd again": Case(EXTERNAL, EXTERNAL, ("cp1",)),
    "fewer control planes without etcd": Case(EXTERNAL, {**EXTERNAL, "control_planes": 1}),
    "more control planes without etcd": Case({**EXTERNAL, "control_planes": 1}, EXTERNAL),
    "a lab with etcd machines that is stopped": Case(EXTERNAL, EXTERNAL, happened=stopped()),
    "another size": Case({**SMALL, "cpus": 2}, {**SMALL, "cpus": 3}, sizes=True),
    "another size and again": Case({"cpus": 2}, {"cpus": 3}, ("w2",), sizes=True),
}


def begun(world: World, case: Case) -> None:
    """Let the lab be as it is before the change."""
    world.enforces_sizes = case.sizes
    if case.before is not None:
        world.up(lab_of(world.folder, **case.before))
        case.happened(world)
    world.touches.clear()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_change_ends_with_what_lab_yaml_says(world: World, case: Case) -> None:
    begun(world, case)
    wanted = lab_of(world.folder, **case.after)
    world.up(wanted, replacing=case.replacing)
    world.require_applied(wanted)
    for name in case.replacing:
        assert f"boot {name}" in world.touches


def test_machines_that_are_paused_go_on_and_are_not_asked_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    asked: list[str] = []
    reachable = WorldRemote.why_not_reachable

    def ask(remote: WorldRemote, node: Node) -> str | None:
        state = world.machine(node.name).state
        assert state == "running", f"ssh to {node.name}, which is {state}, takes 20 s"
        asked.append(node.name)
        return reachable(remote, node)

    monkeypatch.setattr(WorldRemote, "why_not_reachable", ask)
    for name in ("cp2", "w1"):
        world.machine(name).state = "paused"
    monkeypatch.setattr(up_plan, "ANSWER_TIMEOUT", 1.0)
    world.touches.clear()
    world.up(lab)
    assert {touch for touch in world.touches if touch.startswith(("resume", "start", "boot"))} == {
        "resume cp2",
        "resume w1",
    }
    assert "cp1" in asked


FAULTS: tuple[tuple[When, BaseException], ...] = (("after", KilledError()), ("before", LabError("it failed")))
SAMPLE = 5
"""How many of a case's faults are tried without --whole: all of them take some minutes."""


def faults(world: World, case: Case, *, whole: bool) -> list[tuple[str, int, When, BaseException, bool]]:
    """Every change of a run that can be broken off: its name, which of that name, how, and what comes then.

    The last says whether lab.yaml is changed back before the next `up`.
    """
    seen: Counter[str] = Counter()
    found = []
    for touch in world.touches:
        seen[touch] += 1
        for when, error in FAULTS:
            found += [
                (touch, seen[touch], when, error, back) for back in ((False, True) if case.before else (False,))
            ]
    if whole:
        return found
    lasting = [fault for fault in found if not fault[0].startswith(HARMLESS)]
    return lasting[:: len(lasting) // SAMPLE | 1]


@pytest.mark.parametrize("name", ["cp2", "w1"])
def test_a_stopped_machine_is_replaced_without_being_started_and_its_node_is_deleted(
    world: World, name: str
) -> None:
    """Its pods go with its Node (Kubernetes' PodGC), or start on the new machine; there is nothing to drain."""
    lab = lab_of(world.folder)
    world.up(lab)
    world.machine(name).state = "stopped"
    world.touches.clear()
    world.up(lab, replacing=(name,))
    world.require_applied(lab)
    assert f"start {name}" not in world.touches
    assert f"drain {name}" not in world.touches
    forget = f"remove-member {name}" + ("" if name == "cp2" else " --node-only")
    assert (
        world.touches.index(forget)
        < world.touches.index(f"remove {name}")
        < world.touches.index(f"boot {name}")
    )


HARMLESS = ("deliver", "node ", "pod-network", "addons", "kubelet-certificates", "revoke", "kubeconfig")
"""Steps that leave nothing that a later run has to know of."""


USUAL = (
    "from nothing",
    "one worker less",
    "three control planes instead of one",
    "one control plane instead of three",
    "the first control plane again",
    "from nothing, with etcd machines",
    "an etcd machine again",
    "another size",
)
"""Cases that are broken off each time; the others with --whole."""


@pytest.mark.slow
@pytest.mark.parametrize("name", rows(CASES, usual=USUAL))
def test_a_change_that_is_broken_off_anywhere_is_ended_or_taken_back_by_the_next_up(
    world: World, name: str, pytestconfig: pytest.Config
) -> None:
    case = CASES[name]
    begun(world, case)
    restore = world.remember()
    wanted = lab_of(world.folder, **case.after)
    former = lab_of(world.folder, **(case.before or case.after))
    world.up(wanted, replacing=case.replacing)
    for touch, nth, when, error, back in faults(world, case, whole=pytestconfig.getoption("--whole")):
        restore()
        world.break_at(touch, when, error, nth=nth)
        with pytest.raises(type(error)):
            world.up(wanted, replacing=case.replacing)
        again = case.replacing if any(machine.hangs for machine in world.machines.values()) else ()
        lab = former if back else wanted
        world.up(lab, replacing=again)
        try:
            world.require_applied(lab)
        except AssertionError as problem:
            where = (
                f"{type(error).__name__} {when} {touch} ({nth}){', then the former lab.yaml' if back else ''}"
            )
            raise AssertionError(f"{where}: {problem}") from problem


# Fewer machines.


def order(world: World, *touches: str) -> bool:
    """Whether all of these happened, in this order."""
    indices = [world.touches.index(touch) for touch in touches]
    return indices == sorted(indices)


def brought_up(world: World, **numbers: Any) -> None:
    world.up(lab_of(world.folder, **numbers))
    world.touches.clear()


def test_a_worker_that_leaves_is_drained_then_deleted_then_removed(world: World) -> None:
    brought_up(world, workers=2)
    world.up(lab_of(world.folder, workers=1))
    assert order(world, "drain w2", "remove-member w2 --node-only", "remove w2")
    assert world.words["drain w2"] == ("w2",)
    assert not any(touch.startswith(("leave", "drain w1", "drain cp")) for touch in world.touches)
    assert world.touches.count("remove-member w2 --node-only") == 2, "once more when the machine is gone"
    assert order(world, "remove w2", "node w1")


def test_control_planes_leave_one_after_the_other_with_haproxy_first(world: World) -> None:
    brought_up(world, control_planes=3, workers=1)
    drained = []
    script = world.script

    def watched(node: Node, name: str, words: tuple[str, ...]) -> bool:
        if name == "load-balancer":
            drained.append(words)
        return script(node, name, words)

    world.script = watched  # type: ignore[method-assign]
    world.up(lab_of(world.folder, control_planes=1, workers=1))
    assert drained == [("--drain", "cp2", "cp3"), ()]
    assert order(
        world,
        *(
            "load-balancer lb1",
            "drain cp2",
            "drain cp3",
            "remove-member cp2",
            "remove-member cp3",
            "remove cp3",
        ),
    )
    assert order(world, "drain cp2", "leave cp2", "remove-member cp2", "remove cp2")
    assert world.words["remove-member cp2"] == ("cp2", "192.168.56.12")


def test_the_control_plane_that_ran_init_may_leave_like_any_other(world: World) -> None:
    brought_up(world)
    world.up(lab_of(world.folder), replacing=("cp1",))
    assert order(world, "drain cp1", "leave cp1", "remove-member cp1", "remove cp1", "boot cp1")
    assert order(world, "boot cp1", "control-plane-init cp2", "control-plane-join cp1")
    assert world.words["control-plane-init cp2"] == ("cp1",)


def test_a_dead_machine_is_forgotten_first_and_neither_drained_nor_asked(world: World) -> None:
    brought_up(world, control_planes=3, workers=1)
    world.lose("cp3")
    world.up(lab_of(world.folder, control_planes=1, workers=1))
    assert order(world, "remove-member cp3", "remove-member cp2")
    assert not {"drain cp3", "leave cp3", "deliver cp3"} & set(world.touches)
    assert {"drain cp2", "leave cp2", "deliver cp2"} <= set(world.touches)


def test_a_machine_that_is_stopped_is_started_for_its_farewell(world: World) -> None:
    brought_up(world, workers=2)
    stopped("w2")(world)
    world.up(lab_of(world.folder, workers=1))
    assert order(world, "start w2", "drain w2", "remove-member w2 --node-only", "remove w2")


def test_machines_that_are_started_for_their_farewell_are_named_while_they_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought_up(world, workers=3)
    stopped("w3")(world)
    world.machine("w2").state = "paused"
    world.wanted = lab_of(world.folder, workers=1)
    session, shown = world.session(world.wanted), []

    def watched(name: str) -> Callable[..., None]:
        does = getattr(world, name)

        def do(*words: Any) -> None:
            shown.append((name, [step.title for step in session.progress._running]))
            does(*words)

        return do

    for name in ("resume", "power_on"):
        monkeypatch.setattr(providers, name, watched(name))
    bring_up.up(session, bring_up.Request(consent=True), lambda question: False)
    waits = ["waiting for w2, w3 to be started"]
    assert [each for each in shown if each[1] == waits] == [
        ("resume", waits),
        ("resume", waits),
        ("power_on", waits),
    ]
    world.require_applied(world.wanted)


def test_a_stopped_machine_that_is_replaced_is_taken_for_dead(world: World) -> None:
    brought_up(world)
    stopped("w2")(world)
    world.up(lab_of(world.folder), replacing=("w2",))
    assert "start w2" not in world.touches
    assert "drain w2" not in world.touches
    world.require_applied(lab_of(world.folder))


@pytest.mark.parametrize("blocked", ["w2", "cp3"])
def test_a_budget_in_the_way_leaves_the_lab_as_it_was(world: World, blocked: str) -> None:
    former: dict[str, Any] = {"control_planes": 3, "workers": 2}
    fewer: dict[str, Any] = {"control_planes": 1, "workers": 1}
    brought_up(world, **former)
    world.blocked = {blocked, "w2"}
    with pytest.raises(NodeFailed, match=r"drain failed on .*: not drained.*PodDisruptionBudget shop/web"):
        world.up(lab_of(world.folder, **({**former, "workers": 1} if blocked == "w2" else fewer)))
    assert world.record.leaving == ()
    assert "w2" in world.record.machines
    assert not any(touch.startswith(("remove", "leave")) for touch in world.touches if blocked in touch)
    assert world.haproxy_drained == set()
    world.up(lab_of(world.folder, **former))
    world.require_applied(lab_of(world.folder, **former))
    world.blocked = set()
    world.up(lab_of(world.folder, **fewer))
    world.require_applied(lab_of(world.folder, **fewer))


def test_a_node_that_a_killed_run_cordoned_accepts_pods_again_when_it_stays_and_a_user_s_does_not(
    world: World,
) -> None:
    brought_up(world, workers=2)
    world.nodes["w1"] = "user"
    world.break_at("drain w2", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(lab_of(world.folder, workers=1))
    assert world.nodes["w2"] == "up"
    world.up(lab_of(world.folder, workers=2))
    assert world.nodes == {"cp1": "", "cp2": "", "cp3": "", "w1": "user", "w2": ""}
    assert "remove w2" not in world.touches


def test_what_the_cluster_has_begun_to_forget_is_removed_though_lab_yaml_wants_it_again(world: World) -> None:
    brought_up(world, workers=2)
    world.break_at("remove-member w2 --node-only", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(lab_of(world.folder, workers=1))
    assert world.record.leaving == ("w2",)
    world.touches.clear()
    world.up(lab_of(world.folder, workers=2), consent=False)
    assert world.asked == [], "that was consented to before"
    assert order(world, "remove w2", "boot w2")


def test_a_lab_that_never_had_a_cluster_may_become_smaller(world: World) -> None:
    world.break_at("boot cp2", "before", LabStateError("not enough memory", hint="raise it"))
    with pytest.raises(LabStateError):
        world.up(lab_of(world.folder, control_planes=3, workers=2))
    small = lab_of(world.folder, control_planes=1, workers=1)
    world.up(small)
    world.require_applied(small)


def test_a_lab_whose_second_control_plane_never_joined_may_become_smaller(world: World) -> None:
    world.break_at("control-plane-join cp2", "before", LabError("kubeadm join failed"))
    with pytest.raises(LabError):
        world.up(lab_of(world.folder, control_planes=3, workers=1))
    assert world.members == {"cp1"}
    small = lab_of(world.folder, control_planes=1, workers=1)
    world.up(small)
    world.require_applied(small)


# etcd's quorum.


@pytest.mark.parametrize("how", [lost("cp1"), hanging("cp1"), stopped("cp1")])
def test_the_second_control_plane_is_not_replaced_while_the_first_is_down(
    world: World, how: Callable[[World], None]
) -> None:
    brought_up(world)
    how(world)
    before = world.record
    with pytest.raises(
        LabStateError, match=r"^cp2 can't leave now: of etcd's 3 members cp1 does not"
    ) as caught:
        world.up(lab_of(world.folder), replacing=("cp2",), consent=False, answer=True)
    assert caught.value.hint == "bring cp1 back first: `./inv up`, or `./inv replace cp1`"
    assert world.touches == []
    assert world.asked == []
    assert world.record == before


def test_a_smaller_lab_without_a_quorum_is_refused_with_the_way_back(world: World) -> None:
    brought_up(world)
    world.lose("cp1")
    with pytest.raises(LabStateError, match=r"^cp2 can't leave now") as caught:
        world.up(lab_of(world.folder, control_planes=1))
    assert caught.value.hint == (
        "set nodes.control_planes.count back to 3 in lab.yaml for now; bring cp1 back first: `./inv up`, or "
        "`./inv replace cp1`"
    )
    assert world.touches == []
    world.up(lab_of(world.folder))
    world.up(lab_of(world.folder, control_planes=1))
    world.require_applied(lab_of(world.folder, control_planes=1))


def test_what_is_off_is_started_before_etcd_is_judged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_up, "QUORUM_TIMEOUT", 0.0)
    brought_up(world, control_planes=5)
    stopped()(world)
    for name in ("cp1", "cp2"):
        world.machine(name).has = "fresh"  # their disks were lost, and a start does not bring them back
    with pytest.raises(
        LabStateError, match=r"^cp4 can't leave now: of etcd's 5 members cp1, cp2 do not"
    ) as caught:
        world.up(lab_of(world.folder, control_planes=3))
    assert "set nodes.control_planes.count back to 5" in caught.value.hint
    assert {"start cp1", "start cp4", "start cp5", "start lb1"} <= set(world.touches)
    assert not any(touch.startswith(("drain", "leave", "remove")) for touch in world.touches)


def test_a_cluster_is_not_thrown_away_with_the_last_machine_that_has_it(world: World) -> None:
    brought_up(world)
    world.lose("cp1")
    world.workspace.kubeconfig.unlink()
    with pytest.raises(
        LabStateError, match="none of the remaining control planes belongs to the cluster"
    ) as caught:
        world.up(lab_of(world.folder, control_planes=1))
    assert "`./inv up` with the previous lab.yaml" in caught.value.hint
    assert not any(touch.startswith(("drain", "leave", "remove")) for touch in world.touches)
    assert {"cp2", "cp3"} <= {name for name, machine in world.machines.items() if machine.has == "joined"}


def test_the_last_machine_that_has_the_cluster_is_not_replaced(world: World) -> None:
    brought_up(world)
    for name in ("cp1", "cp3"):
        world.lose(name)
    world.workspace.kubeconfig.unlink()
    with pytest.raises(
        LabStateError, match="none of the remaining control planes belongs to the cluster"
    ) as caught:
        world.up(lab_of(world.folder), replacing=("cp2",))
    assert "former lab.yaml" not in caught.value.hint
    assert world.machine("cp2").has == "joined"


# Consent.


def test_a_smaller_lab_is_asked_for_with_what_is_lost(world: World) -> None:
    brought_up(world)
    with pytest.raises(LabStateError, match=r"^nothing was changed$"):
        world.up(lab_of(world.folder, control_planes=1, workers=1), consent=False)
    assert world.asked == [
        "cp2, cp3, w2 will be removed, with all data that is only there. With 1 control plane, "
        "none may fail any more; with the present 3, 1 may. Continue? [y/N] "
    ]
    assert world.touches == []
    world.up(lab_of(world.folder, control_planes=1, workers=1), consent=False, answer=True)
    world.require_applied(lab_of(world.folder, control_planes=1, workers=1))


def test_replacing_is_asked_for_and_a_larger_lab_is_not(world: World) -> None:
    brought_up(world, workers=1)
    with pytest.raises(LabStateError, match=r"^nothing was changed$"):
        world.up(lab_of(world.folder, workers=1), replacing=("w1",), consent=False)
    assert world.asked == ["w1 will be removed and created again. Continue? [y/N] "]
    world.asked.clear()
    world.up(lab_of(world.folder, workers=2), consent=False)
    assert world.asked == []


def test_consent_given_before_is_not_asked_for(world: World) -> None:
    brought_up(world)
    world.up(lab_of(world.folder, workers=1))
    assert world.asked == []


# Replacing.


def test_only_a_machine_of_the_lab_can_be_replaced(world: World) -> None:
    brought_up(world)
    with pytest.raises(ConfigError, match="no machine 'w9'") as caught:
        bring_up.require_replaceable(world.session(lab_of(world.folder)), "w9")
    assert caught.value.hint == "its machines: lb1, cp1, cp2, cp3, w1, w2"


def test_nothing_is_replaced_in_a_lab_without_machines(world: World) -> None:
    for rendered in (False, True):
        if rendered:
            render.record_and_write(world.session(lab_of(world.folder)), "golden")
        with pytest.raises(LabStateError, match="the lab has no machines yet") as caught:
            bring_up.require_replaceable(world.session(lab_of(world.folder)), "w1")
        assert caught.value.hint == "`./inv up` creates them"


def test_the_only_control_plane_is_not_replaced(world: World) -> None:
    brought_up(world, control_planes=1)
    with pytest.raises(LabStateError, match="cp1 is the only control plane") as caught:
        bring_up.require_replaceable(world.session(lab_of(world.folder, control_planes=1)), "cp1")
    assert "raise nodes.control_planes.count to 3" in caught.value.hint
    for name in ("lb1", "w1"):
        bring_up.require_replaceable(world.session(lab_of(world.folder, control_planes=1)), name)


def test_the_only_control_plane_that_etcd_has_is_not_replaced_though_more_are_wanted(world: World) -> None:
    brought_up(world, control_planes=1)
    with pytest.raises(LabStateError, match="cp1 can't leave: it has the only etcd member") as caught:
        world.up(lab_of(world.folder, control_planes=3), replacing=("cp1",))
    assert caught.value.hint.startswith("let others join first: `./inv up`, with nodes.control_planes.count")
    assert world.touches == []


def test_a_load_balancer_is_replaced_where_no_cluster_was_made_yet(world: World) -> None:
    world.break_at("control-plane-init cp1", "before", LabError("kubeadm init failed"))
    with pytest.raises(LabError):
        world.up(lab_of(world.folder))
    world.up(lab_of(world.folder), replacing=("lb1",))
    world.require_applied(lab_of(world.folder))


@pytest.mark.parametrize(("name", "other"), [("lb1", "lb2"), ("lb2", "lb1")])
def test_a_load_balancer_that_is_replaced_gives_the_api_s_address_to_the_other_one(
    world: World, name: str, other: str
) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    world.holder = name
    world.touches.clear()
    world.up(lab, replacing=(name,))
    world.require_applied(lab)
    assert world.holder == other
    assert order(world, f"give-up-address {name}", f"remove {name}", f"boot {name}", f"load-balancer {name}")
    # The other one can take the address by then.
    assert order(world, f"load-balancer {other}", f"give-up-address {name}")
    # Also the new machine is configured before the one that has the address.
    since = world.touches[world.touches.index(f"boot {name}") :]
    assert since.index(f"load-balancer {name}") < since.index(f"load-balancer {other}")


def test_a_removal_that_fails_leaves_no_load_balancer_without_keepalived(world: World) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    world.holder = "lb1"
    world.touches.clear()
    world.break_at("remove lb1", "before", LabError("docker refuses"))
    with pytest.raises(LabError, match="docker refuses"):
        world.up(lab, replacing=("lb1",))
    assert "load-balancer lb2" in world.touches[world.touches.index("give-up-address lb1") :]


def test_a_load_balancer_that_can_t_be_told_leaves_no_server_drained(world: World) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    world.touches.clear()
    world.ends_soon = {"cp2"}
    world.break_at("load-balancer lb2", "before", LabError("HAProxy says nothing"), nth=2)
    with pytest.raises(LabError, match="HAProxy says nothing"):
        world.up(lab)
    assert world.haproxy_drained == set()


def test_the_only_load_balancer_has_no_address_to_give_up(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.up(lab, replacing=("lb1",))
    assert not any(touch.startswith("give-up-address") for touch in world.touches)


def test_a_dead_load_balancer_of_two_is_not_asked_for_its_address(world: World) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    world.lose("lb1")
    world.touches.clear()
    world.up(lab, replacing=("lb1",))
    world.require_applied(lab)
    assert "give-up-address lb1" not in world.touches


# Sizes.


def test_a_machine_gets_its_new_size_once_and_one_after_the_other(world: World) -> None:
    world.enforces_sizes = True
    brought_up(world, cpus=2, workers=2)
    world.up(lab_of(world.folder, cpus=3, workers=2))
    assert order(world, "stop w1", "resize w1", "start w1", "stop w2", "resize w2", "start w2")
    assert not any(touch.endswith(" cp1") and touch.startswith("stop") for touch in world.touches)
    world.touches.clear()
    world.up(lab_of(world.folder, cpus=3, workers=2))
    assert not any(touch.startswith("stop") for touch in world.touches)


def test_a_machine_that_is_made_with_its_new_size_is_not_resized(world: World) -> None:
    world.enforces_sizes = True
    brought_up(world, cpus=2, workers=2)
    world.lose("w1")
    world.up(lab_of(world.folder, cpus=3, workers=2))
    assert "stop w1" not in world.touches
    assert "resize w2" in world.touches
    world.require_applied(lab_of(world.folder, cpus=3, workers=2))


def test_a_machine_that_could_not_join_may_get_more_memory_for_it(world: World) -> None:
    world.enforces_sizes = True
    world.break_at("worker-join w1", "before", LabError("killed: out of memory"))
    with pytest.raises(LabError):
        world.up(lab_of(world.folder, cpus=2))
    world.touches.clear()
    world.up(lab_of(world.folder, cpus=3))
    assert order(world, "resize w1", "worker-join w1")
    world.require_applied(lab_of(world.folder, cpus=3))


# What comes in between.


def test_up_does_what_lab_yaml_says_now_and_not_what_plan_showed(world: World) -> None:
    brought_up(world, workers=2)
    shown = plan.look(world.session(lab_of(world.folder, workers=3)))
    assert shown.removed == ()
    with pytest.raises(LabStateError, match=r"^nothing was changed$"):
        world.up(lab_of(world.folder, workers=1), consent=False)
    assert world.asked[0].startswith("w2 will be removed")


def test_the_record_is_read_again_once_the_lock_is_held(world: World) -> None:
    wanted = lab_of(world.folder, workers=1)
    opened = world.session(wanted)
    brought_up(world, workers=2)
    world.wanted = wanted
    bring_up.up(opened, bring_up.Request(consent=True), lambda question: False)
    world.require_applied(wanted)


def test_two_runs_at_once_are_refused(world: World) -> None:
    with (
        world.workspace.lock(),
        pytest.raises(LabStateError, match=r"this lab is in use by process \d+") as caught,
    ):
        world.up(lab_of(world.folder))
    assert "wait until it ends" in caught.value.hint
    assert world.touches == []


def test_a_full_disk_while_a_machine_is_made_is_reported_and_the_next_up_goes_on(world: World) -> None:
    brought_up(world, workers=1)
    full = LabStateError("no space left on device", hint="free some space, then `./inv up`")
    world.break_at("boot w2", "before", full)
    with pytest.raises(LabStateError, match="no space left on device") as caught:
        world.up(lab_of(world.folder, workers=2))
    assert caught.value.hint == "free some space, then `./inv up`"
    assert "w2" in world.record.machines
    assert len(world.record.lab.workers) == 2
    world.up(lab_of(world.folder, workers=2))
    world.require_applied(lab_of(world.folder, workers=2))


def test_nobody_to_ask_is_told_which_flag_consents(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    brought_up(world)
    with pytest.raises(Exit) as caught:
        bring_up.up(
            world.session(lab_of(world.folder, control_planes=1)), bring_up.Request(), tasks._confirmed("up")
        )
    assert caught.value.code == 2
    assert world.touches == []
    assert "needs confirmation, and standard input is not a terminal: cp2, cp3 will be removed" in (
        said := " ".join(capsys.readouterr().err.split())
    )
    assert "none may fail any more" in said
    assert "next: ./inv plan shows all that changes; ./inv up --yes" in said


# Members that are gone for good.


@pytest.mark.parametrize("off", [False, True])
def test_no_machine_is_made_where_etcd_has_lost_its_majority_for_good(world: World, off: bool) -> None:
    brought_up(world)
    for name in ("cp1", "cp3"):
        world.lose(name)
    if off:
        stopped("cp2")(world)
    with pytest.raises(LabStateError) as caught:
        world.up(lab_of(world.folder))
    assert "1 of its 3 members is left (cp2), and 2 are needed" in caught.value.message
    assert "The machines of cp1, cp3 do not exist any more" in caught.value.message
    assert "`./inv ssh cp2 -- sudo /opt/ha-lab/sole-member.sh`" in caught.value.hint
    assert not any(touch.startswith("boot") for touch in world.touches)
    assert ("start cp2" in world.touches) is off


def test_a_sole_member_has_the_lost_ones_join_again(world: World) -> None:
    brought_up(world)
    for name in ("cp1", "cp3"):
        world.lose(name)
    world.members = {"cp2"}  # as sole-member.sh leaves it
    world.up(lab_of(world.folder))
    world.require_applied(lab_of(world.folder))


def test_a_minority_that_is_gone_is_made_again_without_being_asked_for(world: World) -> None:
    brought_up(world)
    world.lose("cp3")
    world.up(lab_of(world.folder))
    world.require_applied(lab_of(world.folder))


def test_no_machine_is_made_where_no_member_can_say_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought_up(world)
    monkeypatch.setattr(bring_up, "STORED_TIMEOUT", 0.01)
    for name in ("cp1", "cp3"):
        world.lose(name)
    world.members = set()
    with pytest.raises(LabStateError) as caught:
        world.up(lab_of(world.folder))
    assert (
        "of its 3 members the machines of cp1, cp3 do not exist any more, 2 are needed, and what is left "
        "can't be asked: no member answers on cp2. No machine was made"
    ) in caught.value.message
    assert "once it runs on cp2, `./inv up` shows what can be recovered" in caught.value.hint
    assert not any(touch.startswith("boot") for touch in world.touches)


def test_a_member_that_is_damaged_is_repaired_before_it_can_say_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought_up(world)
    monkeypatch.setattr(bring_up, "STORED_TIMEOUT", 0.01)
    for name in ("cp1", "cp3"):
        world.lose(name)
    world.members = set()
    world.machine("cp2").has = "damaged"
    with pytest.raises(LabError):
        world.up(lab_of(world.folder))
    assert "control-plane-init cp2" in world.touches


# Members that have to join again.


def have(world: World, **has: str) -> None:
    """Bring a lab up, and let its control planes have these of their files left."""
    brought_up(world)
    for name, word in has.items():
        world.machine(name).has = word


def repairs(world: World) -> list[str]:
    """The steps that repair, join or init, in order."""
    return [touch for touch in world.touches if touch.startswith(("repair", "control-plane"))]


@pytest.mark.parametrize(
    "has",
    [
        {"cp2": "damaged", "cp3": "partial"},
        {"cp1": "partial", "cp2": "damaged"},
        {"cp1": "damaged", "cp2": "damaged"},
    ],
)
def test_damaged_control_planes_are_repaired_first_where_etcd_needs_them(
    world: World, has: dict[str, str]
) -> None:
    have(world, **has)
    world.up(lab_of(world.folder))
    world.require_applied(lab_of(world.folder))
    damaged = [f"repair {name}" for name, word in has.items() if word == "damaged"]
    assert sorted(repairs(world)[: len(damaged)]) == damaged


def test_a_damaged_control_plane_is_repaired_in_its_turn_where_others_are_a_majority(world: World) -> None:
    have(world, cp2="damaged")
    world.up(lab_of(world.folder))
    world.require_applied(lab_of(world.folder))
    assert not any(touch.startswith("repair") for touch in world.touches)


def test_after_the_repair_it_is_known_whether_the_others_may_join_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(world, cp1="partial", cp2="damaged", cp3="partial")
    monkeypatch.setattr(bring_up, "REJOIN_TIMEOUT", 0.01)
    with pytest.raises(
        LabStateError, match="cp1, cp3 have to join again, which removes their etcd data"
    ) as caught:
        world.up(lab_of(world.folder))
    assert "`./inv ssh cp2 -- sudo /opt/ha-lab/sole-member.sh`" in caught.value.hint
    assert repairs(world) == ["repair cp2"]


def test_nothing_is_repaired_where_up_ends_before_kubeadm(world: World) -> None:
    have(world, cp1="damaged", cp2="damaged")
    session, wish = world.session(lab_of(world.folder)), bring_up.Request(consent=True, until="load-balancer")
    bring_up.up(session, wish, lambda question: True)
    assert repairs(world) == []


def test_a_member_that_lost_its_data_joins_again_while_others_have_a_majority(world: World) -> None:
    brought_up(world)
    world.machine("cp1").has = "partial"
    world.up(lab_of(world.folder))
    world.require_applied(lab_of(world.folder))


@pytest.mark.parametrize(
    ("partial", "silent", "what", "hint"),
    [
        (
            ("cp1",),
            "cp2",
            "cp1 has to join again, which removes its etcd data, so the others need a majority: 0 of etcd's 3 "
            "members respond (none), and 2 are needed. No machine was reset",
            "bring cp2, cp3 back: `./inv status`",
        ),
        (
            ("cp1", "cp2"),
            "",
            "cp1, cp2 have to join again, which removes their etcd data, so the others need a majority: 0 of "
            "etcd's 3 members respond (none), and 2 are needed. No machine was reset",
            "the cluster's data is still on cp3, except for writes that it had not received. `./inv ssh cp3 -- "
            "sudo /opt/ha-lab/sole-member.sh`",
        ),
    ],
)
def test_no_control_plane_is_reset_where_etcd_has_no_majority_without_it(
    world: World, partial: tuple[str, ...], silent: str, what: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought_up(world)
    monkeypatch.setattr(bring_up, "REJOIN_TIMEOUT", 0.01)
    healthy = world.healthy_members
    monkeypatch.setattr(world, "healthy_members", lambda: set() if silent else healthy())
    for name in partial:
        world.machine(name).has = "partial"
    with pytest.raises(LabStateError) as caught:
        world.up(lab_of(world.folder))
    assert caught.value.message == what
    assert caught.value.hint.startswith(hint)
    assert not any("join" in touch or "init" in touch for touch in world.touches)
