from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from threading import Condition
from typing import Any

import pytest

from lab import providers
from lab.errors import LabError, LabStateError
from lab.exit_codes import CHANGES, IMPOSSIBLE
from lab.golden import image
from lab.model import Lab, Libvirt, Node
from lab.model.addons import ADDONS
from lab.plans import already, engine
from lab.plans.engine import Job, Plan, Step
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.up import UP
from lab.remote import Remote
from lab.session import change_of
from lab.system.progress import StepTime
from lab.unknown import Unknown
from lab.verbs import bake, durations, plan
from lab.verbs import up as bring_up
from lab.verbs.plan import Forecast
from lab.workspace import made
from tests.unit.fakes import printed
from tests.unit.world import KilledError, World, WorldRemote, lab_of, live


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return live(World(tmp_path), monkeypatch)


def look(world: World, lab: Lab) -> Forecast:
    """What `plan` says; it changes nothing."""
    world.wanted, world.dead = lab, False
    before = len(world.touches)
    found = plan.look(world.session(lab))
    assert len(world.touches) == before
    return found


def steps(found: Forecast) -> dict[str, tuple[str, ...]]:
    return {step.name: step.machines for step in found.steps}


def boot_titles(found: Forecast) -> list[str]:
    return [step.title for step in found.steps if step.name in ("boot", "machine")]


def text(found: Forecast) -> str:
    console, out = printed()
    console.print(plan.shown(found), soft_wrap=True)
    return out.getvalue()


AFTER = {"nodes-ready": (), "pods-ready": (), "healthy": ()}
"""What ends whatever `up` changes; once for the lab."""


def test_from_nothing_everything_is_made(world: World) -> None:
    found = look(world, lab_of(world.folder, workers=2))
    kubernetes = ("cp1", "cp2", "cp3", "w1", "w2")
    assert steps(found) == {
        "boot": (),
        "machine": ("lb1", *kubernetes),
        "node": kubernetes,
        "load-balancer": ("lb1",),
        "control-plane-init": ("cp1",),
        "pod-network": ("cp1",),
        "kubeconfig": ("cp1",),
        "worker-join": ("w1", "w2"),
        "control-plane-join": ("cp2", "cp3"),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }
    assert (found.exit_code, found.problem, found.notice, found.removed) == (CHANGES, None, (), ())
    assert {step.name: step.title for step in found.steps}["control-plane-init"] == "kubeadm init"


def test_an_add_on_that_is_added_is_applied_and_one_that_is_removed_says_what_is_gone(world: World) -> None:
    world.up(lab_of(world.folder, addons=["metrics-server"]))
    added = look(world, lab_of(world.folder, addons=["metrics-server", "local-path"]))
    assert steps(added) == {"addons": ("cp1",), **AFTER}
    assert added.notice == ("nothing while local-path starts",)
    gone = look(world, lab_of(world.folder))
    assert (gone.exit_code, steps(gone)) == (10, {"addons": ("cp1",), **AFTER})
    assert gone.notice == (f"metrics-server is removed: {ADDONS['metrics-server'].gone}",)
    world.up(lab_of(world.folder, addons=["local-path"]))
    assert world.addons == ("local-path",)
    assert steps(look(world, lab_of(world.folder, addons=["local-path"]))) == {}


def test_add_ons_of_a_new_lab_are_planned(world: World) -> None:
    assert steps(look(world, lab_of(world.folder, addons=["local-path"])))["addons"] == ("cp1",)


def test_the_golden_machine_is_made_first_where_there_is_none(world: World) -> None:
    lab = lab_of(world.folder, workers=2)
    baked = look(world, lab)
    world.baked = False
    found = look(world, lab)
    assert found.steps[0] == plan.Planned("bake", "build the golden machine", (), durations.MEASURED["bake"])
    assert found.steps[1:] == baked.steps
    assert found.seconds == baked.seconds + durations.MEASURED["bake"]


def test_machines_that_exist_keep_the_golden_machine_that_they_are_clones_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up(lab_of(world.folder, workers=1))
    monkeypatch.setattr(bake, "is_baked", lambda session: False)  # another checkout's would have to be made
    more = lab_of(world.folder, workers=2)
    assert "bake" not in steps(look(world, more))
    world.baked = False
    assert next(iter(steps(look(world, more)))) == "bake", "theirs is gone"
    assert look(world, lab_of(world.folder, workers=1)).exit_code == 0, "nothing is to be made"

    def no_docker(*_: object) -> None:
        raise LabStateError("docker does not answer")

    monkeypatch.setattr(image, "exists", no_docker)
    assert "bake" not in steps(look(world, more))


def test_a_lab_that_is_up_has_nothing_to_do(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    found = look(world, lab)
    assert (found.exit_code, found.steps, found.seconds, found.problem) == (0, (), 0.0, None)
    assert found.not_asked == ()
    assert "nothing to change; the machines match lab.yaml" in text(found)


def test_what_up_would_repair_is_a_change(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.failing = ("the kubelet on w3 does not run",)
    found = look(world, lab)
    assert (found.exit_code, found.steps, found.problems) == (CHANGES, (), world.failing)
    assert json.loads(plan.to_json(found))["changes"] is True
    said = text(found)
    assert "problem: the kubelet on w3 does not run\n" in said
    assert "lab.yaml has no change, but there are problems; `./inv up` repairs what it can." in said


def test_what_is_well_at_a_second_look_is_no_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    looks = iter(
        [("a pod starts again", "the kubelet on w3 does not run"), ("the kubelet on w3 does not run",)]
    )
    monkeypatch.setattr(already, "problems", lambda *_: next(looks))
    assert look(world, lab).problems == ("the kubelet on w3 does not run",)


def test_what_is_wrong_is_not_asked_where_steps_are_known_or_machines_do_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up(lab_of(world.folder, workers=1))
    monkeypatch.setattr(already, "problems", lambda *_: pytest.fail("asked"))
    assert look(world, lab_of(world.folder, workers=2)).exit_code == CHANGES
    world.machine("w1").state = "stopped"
    assert look(world, lab_of(world.folder, workers=1)).problems == ()


class Counted:
    """What machines are asked, in order. `before` waits for one question before another is answered."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[tuple[str, str]] = []
        self.before: dict[tuple[str, str], tuple[str, str]] = {}
        self.too_late: list[tuple[str, str]] = []
        self.ask, self.seen = world.ask, Condition()
        monkeypatch.setattr(world, "ask", self.count)

    def count(self, node: Node, command: tuple[str, ...]) -> str:
        question = (node.name, Path(command[1]).stem)
        with self.seen:
            self.questions.append(question)
            self.seen.notify_all()
            first = self.before.get(question)
            if first and not self.seen.wait_for(lambda: first in self.questions, timeout=5):
                self.too_late.append(first)
        return self.ask(node, command)


PROBES = [
    *((name, "probe") for name in ("cp1", "cp2", "cp3", "lb1", "w1", "w2")),
    *((name, "renew-certificates") for name in ("cp1", "cp2", "cp3")),
]


def test_a_lab_that_is_up_is_asked_each_thing_once_and_in_one_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    counted = Counted(world, monkeypatch)
    counted.before = {("w2", "probe"): ("cp1", "unfinished"), ("w1", "probe"): ("lb1", "unfinished")}
    assert look(world, lab).exit_code == 0
    assert sorted(counted.questions) == sorted([*PROBES, ("cp1", "unfinished"), ("lb1", "unfinished")])
    assert counted.too_late == [], "what is left to do waits for no other machine"


def test_where_the_first_control_plane_can_t_say_what_is_left_another_one_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.token = True
    world.machine("cp1").has = "partial"
    counted = Counted(world, monkeypatch)
    assert steps(look(world, lab))["revoke"] == ("cp2",)
    asked = {*PROBES, ("cp2", "unfinished"), ("lb1", "unfinished")} - {("cp1", "renew-certificates")}
    assert sorted(counted.questions) == sorted(asked)
    world.machine("cp1").has = "joined"
    world.machine("cp1").hangs = True
    assert steps(look(world, lab)) == {"kubelet-certificates": ("cp1",), "revoke": ("cp1",), **AFTER}, (
        "cp2 says so"
    )


def test_certificates_that_end_soon_are_a_change_with_their_names_and_machine(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.ends_soon = {"cp3", "cp1"}
    found = look(world, lab)
    assert (found.exit_code, steps(found)) == (CHANGES, {"renew-certificates": ("cp1", "cp3"), **AFTER})
    assert found.renewals == tuple(
        f"{name}: apiserver, admin.conf (valid until 2026-12-01); "
        "etcd (started before its certificates were written)"
        for name in ("cp1", "cp3")
    )
    assert found.notice == (
        "cp1, cp3: the API server restarts with renewed certificates, one machine at a time; new connections "
        "go to the others",
    )
    assert f"up renews: {found.renewals[0]}\n" in text(found)
    assert json.loads(plan.to_json(found))["renewals"] == [*found.renewals]
    world.up(lab)
    assert look(world, lab).exit_code == 0


def test_the_only_control_plane_s_renewal_is_noticed(world: World) -> None:
    lab = lab_of(world.folder, control_planes=1)
    world.up(lab)
    world.ends_soon = {"cp1"}
    [notice] = look(world, lab).notice
    assert notice == "the API can't be reached while cp1 restarts it with renewed certificates"


def test_the_renewal_of_the_only_etcd_machine_is_noticed(world: World) -> None:
    lab = lab_of(world.folder, etcd=1)
    world.up(lab)
    world.ends_soon = {"etcd1"}
    [notice] = look(world, lab).notice
    assert notice == (
        "the API answers no request while etcd1, the only etcd member, restarts with renewed certificates"
    )


def test_a_control_plane_with_an_earlier_version_s_scripts_has_nothing_to_renew(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.ends_soon = {"cp2"}
    ask = world.ask

    def refuse(node: Node, command: tuple[str, ...]) -> str:
        if "--list" in command:
            raise LabError("sudo: /opt/ha-lab/renew-certificates.sh: command not found")
        return ask(node, command)

    world.ask = refuse  # type: ignore[method-assign]
    assert look(world, lab).exit_code == 0


def test_a_larger_lab(world: World) -> None:
    world.up(lab_of(world.folder, control_planes=1, workers=1))
    found = look(world, lab_of(world.folder, control_planes=3, workers=2))
    assert found.exit_code == CHANGES
    assert steps(found) == {
        "boot": (),
        "machine": ("cp2", "cp3", "w2"),
        "node": ("cp1", "cp2", "cp3", "w1", "w2"),
        "load-balancer": ("lb1",),
        "control-plane-init": ("cp1",),
        "worker-join": ("w2",),
        "control-plane-join": ("cp2", "cp3"),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }
    assert found.notice == ("nothing while machines are added",)
    titles = {step.name: step.title for step in found.steps}
    assert titles["control-plane-init"] == "join token and certificate key"


def test_a_smaller_lab_says_what_goes_what_is_noticed_and_what_is_lost(world: World) -> None:
    world.up(lab_of(world.folder, control_planes=3, workers=2))
    found = look(world, lab_of(world.folder, control_planes=1, workers=1))
    gone = ("cp2", "cp3", "w2")
    assert found.removed == gone
    assert steps(found) == {
        "drain-haproxy": ("lb1",),
        "drain": gone,
        "leave": ("cp2", "cp3"),
        "forget": gone,
        "remove": gone,
        "node": ("cp1", "w1"),
        "load-balancer": ("lb1",),
        **AFTER,
    }
    assert "with 1 control plane, none may fail any more; with the present 3, 1 may" in found.notice
    assert "pods on the workers that leave are evicted and start on others" in found.notice
    assert "it asks before it removes cp2, cp3, w2" in text(found)


def test_pods_have_nowhere_to_go_where_no_worker_is_left(world: World) -> None:
    world.up(lab_of(world.folder, workers=2))
    found = look(world, lab_of(world.folder, workers=0))
    assert (
        "pods on the workers that leave are evicted and stay Pending, since no worker is left" in found.notice
    )


def test_an_etcd_member_without_an_api_server_leaves_without_a_word_to_haproxy(world: World) -> None:
    """The removal of etcd2, which is replaced, was interrupted once it could not be undone."""
    lab = lab_of(world.folder, etcd=3, control_planes=1, workers=1)
    world.up(lab)
    world.break_at("remove etcd2", "before", KilledError())
    with pytest.raises(KilledError):
        world.up(lab, replacing=("etcd2",))
    world.dead = False
    found = look(world, lab)
    assert not {"drain-haproxy", "leave", "drain"} & set(steps(found))
    assert steps(found)["forget"] == steps(found)["remove"] == steps(found)["etcd"] == ("etcd2",)
    assert not any("leaving API servers" in line for line in found.notice)


def test_a_dead_machine_is_not_planned_to_be_drained(world: World) -> None:
    world.up(lab_of(world.folder, workers=3))
    world.lose("w2")
    world.machine("w3").hangs = True
    found = look(world, lab_of(world.folder, workers=1))
    assert "drain" not in steps(found)
    assert steps(found)["remove"] == ("w2", "w3")
    assert found.problem == "w3: No route to host"


def test_what_is_off_is_started_and_what_is_gone_is_made_again(world: World) -> None:
    lab = lab_of(world.folder, workers=2)
    world.up(lab)
    world.machine("w1").state = "stopped"
    world.machine("cp2").state = "paused"
    world.lose("w2")
    found = look(world, lab)
    assert steps(found) == {
        "boot": (),
        "machine": ("cp2", "w1", "w2"),
        "node": ("w2",),
        "control-plane-init": ("cp1",),
        "worker-join": ("w2",),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }
    assert found.notice == ("cp2, w1, w2 available again",)
    assert found.not_asked == ("cp2 is paused: not asked", "w1 is stopped: not asked")
    assert found.problem is None
    said = "cp2 is paused: not asked; w1 is stopped: not asked. `up` starts them, then checks them\n"
    assert said in text(found)
    assert json.loads(plan.to_json(found))["not_asked"] == [*found.not_asked]


def test_a_load_balancer_that_is_gone_touches_no_cluster(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.lose("lb1")
    found = look(world, lab)
    assert steps(found) == {"boot": (), "machine": ("lb1",), "load-balancer": ("lb1",), **AFTER}
    assert found.notice[0] == "the API answers again once the load balancer is back"


def test_one_of_two_load_balancers_that_is_gone_is_noticed_by_nobody(world: World) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    world.lose("lb1")
    found = look(world, lab)
    assert steps(found) == {"boot": (), "machine": ("lb1",), "load-balancer": ("lb1", "lb2"), **AFTER}
    assert found.notice == ("lb1 available again",)
    world.lose("lb2")
    assert look(world, lab).notice[0] == "the API answers again once the load balancer is back"


def test_of_two_load_balancers_the_order_of_a_new_configuration_is_shown(world: World) -> None:
    world.up(lab_of(world.folder, load_balancers=2))
    found = look(world, lab_of(world.folder, load_balancers=2, profile="reference"))
    assert found.notice == (
        "nothing while HAProxy loads its new configuration: a reload cuts no connection; the load balancer "
        "without the API's address is first",
    )


def test_a_new_size_of_two_load_balancers_moves_the_address(world: World) -> None:
    world.enforces_sizes = True
    world.up(lab_of(world.folder, load_balancers=2))
    wanted = lab_of(world.folder, load_balancers=2)
    larger = wanted.model_copy(
        update={
            "nodes": tuple(n.model_copy(update={"cpus": 2}) if n in wanted.pair else n for n in wanted.nodes)
        }
    )
    said = [line for line in look(world, larger).notice if "API's address" in line]
    assert said == [
        f"if {name} has the API's address, that moves while {name} restarts with its new size: open "
        "connections end, and new ones may take a second longer"
        for name in ("lb1", "lb2")
    ]


def test_a_replaced_load_balancer_of_two_is_no_change_of_the_other_s_files(world: World) -> None:
    lab = lab_of(world.folder, load_balancers=2)
    world.up(lab)
    assert look(world, lab).steps == ()


def test_a_worker_that_never_joined_needs_no_drain(world: World) -> None:
    world.up(lab_of(world.folder, workers=2))
    world.machine("w2").has = "fresh"
    found = look(world, lab_of(world.folder, workers=1))
    assert not {"drain", "forget"} & set(steps(found))
    assert steps(found)["remove"] == ("w2",)
    assert not any("evicted" in line for line in found.notice)


def test_a_machine_whose_making_was_interrupted_is_made(world: World) -> None:
    lab = lab_of(world.folder, workers=2)
    world.up(lab)
    world.lose("w2")
    world.machine("w2").state = "incomplete"
    assert steps(look(world, lab))["machine"] == ("w2",)


def test_machines_are_asked_what_they_have_and_not_only_whether_they_run(world: World) -> None:
    lab = lab_of(world.folder, workers=2)
    world.break_at("control-plane-join cp3", "before", LabError("kubeadm join failed"))
    with pytest.raises(LabError):
        world.up(lab)
    world.machine("w2").has = "partial"
    found = look(world, lab)
    assert found.exit_code == CHANGES
    assert steps(found) == {
        "node": ("cp3", "w2"),
        "control-plane-init": ("cp1",),
        "worker-join": ("w2",),
        "control-plane-join": ("cp3",),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }
    assert found.notice == (
        "w2: reset, then joins again; pods that run there end",
        "nothing while machines join that have not joined yet: cp3",
    )


@pytest.mark.parametrize(
    ("half", "noticed"),
    [
        (("cp3",), "cp3: reset, then joins again; requests go to the other API servers"),
        (("cp2", "cp3"), "cp2, cp3: reset, then joins again; requests go to the other API servers"),
        (("cp1", "cp2", "cp3"), "the API can be reached once `kubeadm init` is done"),
    ],
)
def test_users_notice_control_planes_that_have_joined_by_half(
    world: World, half: tuple[str, ...], noticed: str
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    for name in half:
        world.machine(name).has = "partial"
    assert look(world, lab).notice == (noticed,)


def test_a_first_control_plane_that_is_gone_joins_the_others(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.lose("cp1")
    found = steps(look(world, lab))
    assert found["control-plane-init"] == ("cp2",)
    assert found["control-plane-join"] == ("cp1",)


def test_a_removal_that_was_interrupted_is_planned_to_its_end(world: World) -> None:
    world.up(lab_of(world.folder, workers=2))
    world.break_at("remove-member w2 --node-only", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(lab_of(world.folder, workers=1))
    found = steps(look(world, lab_of(world.folder, workers=2)))
    assert (found["remove"], found["worker-join"]) == (("w2",), ("w2",))
    assert found["machine"] == ("w2",)


WAITS = {"deliver", "kubeconfig", *AFTER}
"""Steps of which `up` never says that they changed something."""


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_after_an_up_that_was_killed_the_plan_is_what_the_next_up_does(
    world: World, first: bool, pytestconfig: pytest.Config
) -> None:
    if not first:
        world.up(lab_of(world.folder, control_planes=1, workers=1))
    lab = lab_of(world.folder, workers=1)
    restore = world.remember()
    world.touches.clear()
    world.up(lab)  # for the list of what it does
    touches, differing = [each for each in world.touches if each != "record"], []
    assert len(touches) > 15
    for touch in touches if pytestconfig.getoption("--whole") else touches[::5]:
        restore()
        world.break_at(touch, "after", KilledError())
        with pytest.raises(KilledError):
            world.up(lab)
        planned = {step.name for step in look(world, lab).steps}
        session = world.session(lab)
        bring_up.up(session, bring_up.Request(consent=True), lambda question: True)
        done = {step.name for step in session.progress.finished if step.outcome == "done"}
        # A machine that has yet to join may know its names, HAProxy its servers, kubelets have certificates.
        known = {"node", "load-balancer", "kubelet-certificates"}
        if done - WAITS - planned or planned - WAITS - done - known:
            differing.append((touch, "planned", planned - WAITS, "done", done - WAITS))
        world.require_applied(lab)
    assert differing == []


def test_credentials_stay_until_kubelets_have_certificates_so_that_both_are_planned(world: World) -> None:
    lab = lab_of(world.folder)
    world.break_at("kubelet-certificates cp1", "before", LabError("kubectl certificate approve failed"))
    with pytest.raises(LabError):
        world.up(lab)
    assert not any(touch.startswith("revoke") for touch in world.touches)
    assert {"kubelet-certificates", "revoke"} <= steps(look(world, lab)).keys()


def test_the_pod_network_of_an_interrupted_first_up_is_planned(world: World) -> None:
    lab = lab_of(world.folder)
    world.break_at("pod-network cp1", "before", LabError("kubectl apply failed"))
    with pytest.raises(LabError):
        world.up(lab)
    assert steps(look(world, lab)) == {
        "pod-network": ("cp1",),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }
    world.up(lab)
    assert steps(look(world, lab)) == {}


def test_a_machine_with_an_earlier_version_s_scripts_has_nothing_unfinished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    monkeypatch.setattr(plan, "unfinished", lambda node, remote: Unknown("command not found"))
    assert look(world, lab).steps == ()
    world.workspace.kubeconfig.unlink()
    assert steps(look(world, lab)) == {
        "pod-network": ("cp1",),
        "kubeconfig": ("cp1",),
        "kubelet-certificates": ("cp1",),
        "revoke": ("cp1",),
        **AFTER,
    }, "no run has come to what follows `kubeadm init`"


@pytest.mark.parametrize(
    ("name", "has", "step", "problem"),
    [
        ("cp1", "damaged", "control-plane-join", "/etc/kubernetes/admin.conf is empty"),
        ("cp2", "damaged", "control-plane-join", "/etc/kubernetes/manifests/etcd.yaml is missing"),
        ("cp3", "partial", "control-plane-join", "/var/lib/etcd/member is missing"),
        ("w1", "partial", "worker-join", "/var/lib/kubelet/config.yaml is empty"),
    ],
)
def test_a_machine_s_broken_files_are_shown_with_the_step_that_repairs_them(
    world: World, name: str, has: str, step: str, problem: str
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.machine(name).has, world.broken[name] = has, f"{problem}\n"
    found = look(world, lab)
    assert (found.exit_code, found.repairs) == (CHANGES, (f"{name}: {problem}",))
    assert steps(found)[step] == (name,)
    assert f"up repairs: {name}: {problem}\n" in text(found)
    assert json.loads(plan.to_json(found))["repairs"] == [f"{name}: {problem}"]
    world.up(lab)
    world.broken.clear()
    assert look(world, lab).exit_code == 0


def test_the_only_control_plane_is_repaired_by_the_step_of_the_first(world: World) -> None:
    lab = lab_of(world.folder, control_planes=1)
    world.up(lab)
    world.machine("cp1").has = "damaged"
    found = steps(look(world, lab))
    assert found == {"control-plane-init": ("cp1",), **AFTER}


def test_objects_that_the_cluster_lacks_are_shown_with_the_step_that_creates_them(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    world.lacks = ("DaemonSet kube-proxy",)
    found = look(world, lab)
    assert (found.exit_code, steps(found)) == (CHANGES, {"control-plane-init": ("cp1",), **AFTER})
    assert "up repairs: cp1: the cluster lacks its DaemonSet kube-proxy\n" in text(found)
    world.up(lab)
    assert look(world, lab).exit_code == 0


@pytest.mark.parametrize("everything", [True, False])
def test_machines_that_can_t_be_asked_are_named_and_not_taken_for_missing(
    world: World, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    if everything:

        def no_docker(*_: object) -> None:
            raise LabStateError("docker does not answer")

        monkeypatch.setattr(providers, "states", no_docker)
    else:
        world.machine("w1").hangs = True
    found = look(world, lab)
    assert found.problem == ("docker does not answer" if everything else "w1: No route to host")
    assert (found.exit_code, found.steps) == (0, ())
    assert "nothing to change" not in text(found)
    assert "lab.yaml has no change; `./inv up` checks the machines" in text(found)
    more = look(world, lab_of(world.folder, workers=3))
    assert (more.exit_code, steps(more)["worker-join"]) == (CHANGES, ("w3",))


def test_without_a_route_no_machine_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    monkeypatch.setattr(WorldRemote, "route_problem", lambda self: "the lab's network is not up on this host")
    monkeypatch.setattr(WorldRemote, "run", lambda *_, **__: pytest.fail("a packet to the lab"))
    assert look(world, lab).problem == "the lab's network is not up on this host"
    assert Remote.route_problem is not WorldRemote.route_problem


def test_what_is_impossible_names_the_key_the_line_the_reason_and_the_way_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up(lab_of(world.folder))
    # The wanted lab's network: it is not up, and says nothing of the machines that exist.
    monkeypatch.setattr(WorldRemote, "route_problem", lambda self: "192.168.77.0/24 is not up on this host")
    monkeypatch.setattr(WorldRemote, "run", lambda *_, **__: pytest.fail("a packet to another lab"))
    wanted = lab_of(world.folder)
    network = wanted.network.model_copy(update={"subnet": IPv4Network("192.168.77.0/24")})
    other = wanted.model_copy(update={"name": "other", "network": network})
    path = world.folder / "lab.yaml"
    path.write_text(f"{path.read_text()}network:\n  subnet: 192.168.77.0/24\n")
    found = look(world, other)
    assert (found.exit_code, found.steps, found.notice, found.problem) == (IMPOSSIBLE, (), (), None)
    said = {each["key"]: each for each in json.loads(plan.to_json(found))["impossible"]}
    assert set(said) == {"name", "network.subnet"}
    subnet = said["network.subnet"]
    assert (subnet["before"], subnet["after"], subnet["line"]) == ("192.168.56.0/24", "192.168.77.0/24", 7)
    assert subnet["why"] == "every machine, certificate and etcd member has an address in it"
    assert subnet["next"].startswith("change it back; or remove this lab")
    assert subnet["message"].startswith(
        "lab.yaml:7: network.subnet: 192.168.56.0/24 → 192.168.77.0/24 can't be done to machines that exist"
    )
    assert said["name"]["line"] is None
    assert "lab.yaml (not in the file, so its default): name: " in said["name"]["message"]
    assert "`up` would refuse this lab.yaml and change nothing" in text(found)


def test_another_number_of_load_balancers_is_refused_with_the_line_of_the_count(world: World) -> None:
    world.up(lab_of(world.folder))
    found = look(world, lab_of(world.folder, load_balancers=2))
    said = {each.key: each for each in found.impossible}
    assert set(said) == {"nodes.load_balancers.count", "nodes.load_balancers.first_address"}
    assert said["nodes.load_balancers.count"].message == (
        "lab.yaml:6: nodes.load_balancers.count: 1 → 2 can't be done to machines that exist: it changes the "
        "API's address, which certificates, kubeconfigs and nodes have"
    )
    assert text(found).count("next: ") == 1, "one way out of both"


def test_what_touches_no_machine_is_said_and_is_no_change(world: World) -> None:
    lab = lab_of(world.folder)
    world.up(lab)
    found = look(world, lab_of(world.folder, cpus=4))
    assert (found.exit_code, found.steps) == (0, ())
    assert found.differs == ("nodes.workers.cpus: 2 → 4 (this provider's machines share what the host has)",)


def test_sizes_are_applied_where_the_provider_enforces_them(world: World) -> None:
    world.enforces_sizes = True
    world.up(lab_of(world.folder, cpus=2, workers=2))
    world.lose("w2")
    found = look(world, lab_of(world.folder, cpus=4, workers=2))
    assert steps(found)["resize"] == ("w1",), "w2 will be made with it"
    assert found.notice == (
        "w2 available again",
        "w1: unavailable while it restarts",
    )
    world.up(lab_of(world.folder, cpus=2, workers=2))
    assert look(world, lab_of(world.folder, cpus=4, workers=2)).notice == (
        "w1, w2: unavailable one after the other, while they restart",
    )


def test_users_notice_that_the_api_is_out_of_reach_while_its_load_balancer_is_resized(world: World) -> None:
    world.enforces_sizes = True
    lab = lab_of(world.folder)
    world.up(lab)
    nodes = tuple(node if node.spec.runs_kubelet else node.model_copy(update={"cpus": 2}) for node in lab.nodes)
    assert nodes != lab.nodes
    world.workspace.durations.unlink(missing_ok=True)
    found = look(world, lab.model_copy(update={"nodes": nodes}))
    assert steps(found)["resize"] == ("lb1",)
    assert found.notice == (
        "the API can't be reached while lb1 restarts with its new size, about 60 s; pods keep running",
    )
    durations.keep(world.workspace, [StepTime("resize", RESIZE[0].title, "lb1", 0.0, 24.0, "done")])
    assert "about 24 s" in look(world, lab.model_copy(update={"nodes": nodes})).notice[0]


def test_an_edited_manifest_is_applied_again(world: World) -> None:
    path = world.folder / "mine.yaml"
    path.write_text("kind: Namespace\napiVersion: v1\nmetadata: {name: mine}\n")
    lab = lab_of(world.folder)
    flannel = lab
    lab = lab.model_copy(update={"network": lab.network.model_copy(update={"pod_network": str(path)})})
    world.up(lab)
    assert look(world, lab).exit_code == 0
    path.write_text(path.read_text() + "# edited\n")
    found = look(world, lab)
    assert steps(found) == {"pod-network": ("cp1",), **AFTER}
    assert found.notice == (
        "where the pod network's manifest makes its pods restart, traffic between pods of different nodes and "
        "the start of new pods may have to wait for them",
    )
    [setting] = change_of(world.session(lab), lab).settings
    assert setting.key == "network.pod_network"
    assert setting.before.startswith(f"{path} (sha256 ")
    assert setting.before != setting.after
    world.touches.clear()
    world.break_at("pod-network cp1", "before", LabError("the API does not answer"))
    with pytest.raises(LabError):
        world.up(lab)
    assert steps(look(world, lab)) == {"pod-network": ("cp1",), **AFTER}, "it was not applied"
    world.up(lab)
    assert look(world, lab).exit_code == 0
    made.write(world.workspace, world.record.model_copy(update={"manifest": ""}))
    path.write_text("kind: Namespace\n")
    assert look(world, lab).exit_code == 0, "an earlier version's record has no hash"
    world.up(flannel)
    assert world.record.manifest == ""


def test_who_enforces_network_policies_is_changed_with_the_pod_network(world: World) -> None:
    lab = lab_of(world.folder, workers=1)
    without = lab.model_copy(update={"network": lab.network.model_copy(update={"policy": "none"})})
    world.up(lab)
    found = look(world, without)
    every = ("cp1", "cp2", "cp3", "w1")
    assert steps(found) == {"pod-network": ("cp1",), "policy-rules": every, **AFTER}
    assert found.notice == ("NetworkPolicies deny nothing from then on",)
    world.up(without)
    assert look(world, without).exit_code == 0
    found = look(world, lab)
    assert steps(found) == {"pod-network": ("cp1",), **AFTER}
    assert found.notice == ("NetworkPolicies deny from then on",)


def test_another_profile_reloads_haproxy_alone(world: World) -> None:
    world.up(lab_of(world.folder))
    found = look(world, lab_of(world.folder, profile="reference"))
    assert steps(found) == {"load-balancer": ("lb1",), **AFTER}
    assert found.notice == ("nothing while HAProxy loads its new configuration: a reload cuts no connection",)


def test_the_json_has_everything_that_people_are_shown(world: World) -> None:
    world.up(lab_of(world.folder, workers=1))
    said = json.loads(plan.to_json(look(world, lab_of(world.folder, workers=2))))
    assert set(said) == {
        *(
            "lab",
            "problem",
            "steps",
            "seconds",
            "notice",
            "impossible",
            "differs",
            "removed",
            "refused",
            "repairs",
            "not_asked",
            "problems",
            "renewals",
            "upgraded",
            "changes",
        ),
    }
    assert said["changes"] is True
    assert {"name", "title", "machines", "seconds"} == set(said["steps"][0])


# How long it takes.


def test_every_step_has_a_duration_that_was_measured() -> None:
    assert {step.name for steps in (UP, REMOVE, RESIZE) for step in steps} | {"bake"} <= set(durations.MEASURED)


def test_what_was_measured_here_counts_more_than_what_the_makers_measured(world: World) -> None:
    lab = lab_of(world.folder, workers=1)
    world.up(lab)
    world.workspace.durations.unlink(missing_ok=True)
    wanted = lab_of(world.folder, workers=2)
    usual = {step.name: step.seconds for step in look(world, wanted).steps}
    assert usual["worker-join"] == durations.MEASURED["worker-join"]
    slow = StepTime("worker-join", "kubeadm join", "w1", 0.0, 100.0, "done")
    durations.keep(world.workspace, [slow, replace(slow, machine="w2", seconds=60.0)])
    found = look(world, wanted)
    assert {step.name: step.seconds for step in found.steps} == usual | {"worker-join": 100.0}
    assert found.seconds > 100


def test_the_first_plan_of_emulated_machines_is_near_what_they_took(world: World) -> None:
    lab = lab_of(world.folder, control_planes=1, workers=1)
    emulated = lab.model_copy(update={"provider": "libvirt", "libvirt": Libvirt(emulated=True)})
    assert look(world, emulated).seconds == pytest.approx(447, rel=0.1), "as docs/measurements.md says"


def test_starting_machines_and_naming_new_ones_do_not_pass_for_making_and_initialising(world: World) -> None:
    lab = lab_of(world.folder, control_planes=1, workers=1)
    world.up(lab)
    world.machine("w1").state = "stopped"
    assert boot_titles(look(world, lab)) == ["start machines", "starts again and answers"]
    slow = {"boot": 90.0, "machine": 80.0, "control-plane-init": 70.0}
    world.workspace.write(world.workspace.durations, json.dumps(slow))
    world.up(lab)
    world.up(lab_of(world.folder, control_planes=1, workers=2))
    found = durations.read(world.workspace)
    assert set(found) >= {
        "boot: start machines",
        "machine: starts again and answers",
        "control-plane-init: join token and certificate key",
    }
    assert found["control-plane-init"] == 70.0
    assert found["boot"] < 90.0, "w2 was made"
    world.lose("w1")
    found_missing = look(world, lab_of(world.folder, control_planes=1, workers=2))
    assert boot_titles(found_missing) == ["create and start machines", "starts and answers"]


def nothing(job: Job) -> bool:
    return False


def on(*names: str) -> Any:
    return lambda lab, situation: [node for node in lab.nodes if node.name in names]


def a(name: str, *after: str, one_at_a_time: bool = False) -> Step:
    return Step(name, name, nothing, on(), after=after, one_at_a_time=one_at_a_time)


SIDE_BY_SIDE: Plan = (a("make"), a("join", "make"), a("ready", "join"))
IN_TURN: Plan = (a("make"), a("join", "make", one_at_a_time=True), a("ready", "join"))


@pytest.mark.parametrize(
    ("steps", "targets", "seconds"),
    [
        (SIDE_BY_SIDE, {}, 0),
        (SIDE_BY_SIDE, {"make": ["a", "b", "c"]}, 1),
        (SIDE_BY_SIDE, {"make": ["a", "b"], "join": ["a", "b"], "ready": [""]}, 111),
        (IN_TURN, {"make": ["a", "b"], "join": ["a", "b", "c"], "ready": [""]}, 131),
        # A step that changes nothing takes no time, and what comes after it waits for what came before it.
        (SIDE_BY_SIDE, {"ready": [""]}, 100),
        (SIDE_BY_SIDE, {"make": ["a"], "ready": [""]}, 101),
        # On another machine than those before, all of them are waited for.
        (SIDE_BY_SIDE, {"make": ["a"], "join": ["b"]}, 11),
    ],
)
def test_steps_side_by_side_count_once_and_those_in_turn_each(
    tmp_path: Path, steps: Plan, targets: dict[str, Sequence[str]], seconds: float
) -> None:
    each = {"make": 1.0, "join": 10.0, "ready": 100.0}
    assert engine.forecast(steps, lab_of(tmp_path), targets, lambda step: each[step.name]) == seconds


def test_plans_one_after_the_other_add_up(world: World) -> None:
    world.up(lab_of(world.folder, workers=2))
    world.workspace.durations.unlink(missing_ok=True)
    found = look(world, lab_of(world.folder, workers=1))
    each = durations.MEASURED
    removal = each["drain"] + each["forget"] + each["remove"]
    rest = each["node"] + each["nodes-ready"] + each["pods-ready"] + each["healthy"]
    assert found.seconds == removal + rest


def test_a_removal_that_costs_etcd_its_majority_is_refused_as_up_refuses_it(world: World) -> None:
    world.up(lab_of(world.folder))
    world.lose("cp1")
    found = look(world, lab_of(world.folder, control_planes=1))
    assert (found.exit_code, found.steps) == (IMPOSSIBLE, ())
    assert found.refused is not None
    assert found.refused.what.startswith("cp2 can't leave now: of etcd's 3 members cp1 does not answer")
    assert f"impossible now: {found.refused.what}\n  next: {found.refused.next}" in text(found)


# Another version of Kubernetes.


def test_an_upgrade_is_planned_machine_by_machine_and_what_users_notice_is_said(world: World) -> None:
    world.up(lab_of(world.folder, version="1.35.4"))
    found = look(world, lab_of(world.folder, version="1.36.3"))
    kubernetes = ("cp1", "cp2", "cp3", "w1", "w2")
    assert steps(found) == {
        "payload": kubernetes,
        "upgrade-control-plane": ("cp1", "cp2", "cp3"),
        "upgrade-worker": ("w1", "w2"),
    }
    assert (found.exit_code, found.upgraded) == (CHANGES, ("1.35.4", "1.36.3"))
    # One machine after the other, behind the payload of all.
    assert found.seconds == 40 + 3 * 250 + 2 * 10
    assert "none fails" in found.notice[0]
    assert "it asks before it upgrades Kubernetes 1.35.4 → 1.36.3" in text(found)
    assert json.loads(plan.to_json(found))["upgraded"] == ["1.35.4", "1.36.3"]


def test_an_upgrade_whose_golden_machine_is_missing_bakes_it_first(world: World) -> None:
    world.up(lab_of(world.folder, version="1.35.4"))
    world.baked = False
    assert "bake" in steps(look(world, lab_of(world.folder, version="1.36.3")))


def test_what_is_left_of_an_upgrade_is_planned(world: World) -> None:
    world.up(lab_of(world.folder, version="1.35.4"))
    world.break_at("upgrade w1", "before", KilledError())
    with pytest.raises(KilledError):
        world.up(lab_of(world.folder, version="1.36.3"))
    found = look(world, lab_of(world.folder, version="1.36.3"))
    assert steps(found)["upgrade-worker"] == ("w1", "w2")
    assert "upgrade-control-plane" not in steps(found)


def test_an_upgrade_of_a_lab_that_is_not_healthy_is_refused_in_the_plan(world: World) -> None:
    world.up(lab_of(world.folder, version="1.35.4"))
    world.failing = ("etcd-health[cp2]: unhealthy",)
    found = look(world, lab_of(world.folder, version="1.36.3"))
    assert (found.exit_code, found.steps) == (IMPOSSIBLE, ())
    assert "impossible now: an upgrade begins on a healthy lab: etcd-health[cp2]: unhealthy" in text(found)


def test_the_only_api_server_is_said_to_be_away_during_an_upgrade(world: World) -> None:
    world.up(lab_of(world.folder, version="1.35.4", control_planes=1))
    found = look(world, lab_of(world.folder, version="1.36.3", control_planes=1))
    assert "requests fail" in found.notice[0]
