from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import providers
from lab.config import default, load
from lab.errors import CommandFailed, ConfigError, LabError, LabStateError, NodeFailed
from lab.health.facts.gather import Facts
from lab.model import Lab, Node
from lab.model.change import Change
from lab.plans import quorum, ready, up
from lab.plans.up import UP
from lab.providers import MachineState
from lab.session import Session
from lab.system.paths import PROVISION, REPOSITORY
from lab.system.progress import Progress
from lab.verbs.up import Run
from lab.workspace import Workspace, kubeconfig
from lab.workspace.render import credentials
from tests.unit.fakes import FakeRemote, printed, progress
from tests.unit.recorded_facts import admission, facts
from tests.unit.test_admission import read_one

LAB = default()


class World:
    """A lab whose machines only keep what they were asked."""

    def __init__(self, folder: Path, lab: Lab = LAB) -> None:
        """Let no machine exist."""
        self.lab = lab
        self.workspace = Workspace(folder / ".lab")
        self.workspace.write_secret(self.workspace.secrets / "ca.key", "the key")
        self.remote = FakeRemote(lab, self.workspace)
        self.progress: Progress = progress(self.workspace.logs)
        self.boots: list[Sequence[str] | None] = []
        self.powered: list[str] = []
        self.boot_error: LabError | None = None

    def made(self, **states: str) -> None:
        """Let the machines exist; those that are named have something of Kubernetes."""
        self.workspace.write(self.workspace.root / ".vagrant/machines/lb1/docker/id", "1")
        self.remote.states |= states

    def states(self, lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
        """Those that are down are stopped, once they were made."""
        off: MachineState = "stopped" if workspace.has_machines() else "absent"
        there = workspace.has_machines()
        return {n.name: off if n.name in self.remote.down or not there else "running" for n in lab.nodes}

    def boot(self, workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
        """Start machines, as Vagrant would."""
        self.boots.append(names)
        if self.boot_error:
            raise self.boot_error
        self.remote.down = set()

    def power_on(self, lab: Lab, nodes: Sequence[Node]) -> None:
        """Start machines that exist."""
        self.powered += [node.name for node in nodes]
        self.remote.down -= {node.name for node in nodes}

    def bring_up(self, until: str = "") -> bool:
        """Run all of UP, or what is before a stop, as `lab.verbs.up` does."""
        return Run(self.session, credentials.new_run_secrets()).up(
            self.workspace.has_machines(), until, Change()
        )

    @property
    def session(self) -> Session:
        """The lab as the verbs have it."""
        return Session(
            self.workspace.root.parent / "lab.yaml", self.lab, self.workspace, self.remote, self.progress
        )

    @property
    def events(self) -> list[str]:
        """What started and ended, in order."""
        return self.remote.events

    def before(self, one: str, other: str) -> bool:
        """Whether one event was before the other."""
        return self.events.index(one) < self.events.index(other)

    def started(self, script: str) -> list[str]:
        """The machines that a script was started on, in order."""
        return [event.split()[2] for event in self.events if event.startswith(f"start {script} ")]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return let(World(tmp_path), monkeypatch)


def let(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Put a world in the place of Vagrant, docker and the API."""
    monkeypatch.setattr(providers, "boot", world.boot)
    monkeypatch.setattr(providers, "states", world.states)
    monkeypatch.setattr(providers, "power_on", world.power_on)
    monkeypatch.setattr(providers, "resume", lambda lab, node: None)
    monkeypatch.setattr(kubeconfig, "fetch", lambda *_: True)
    monkeypatch.setattr(ready, "_why_not", lambda context, names: None)
    monkeypatch.setattr(ready, "why_not_healthy", lambda context: None)
    return world


def test_every_step_comes_after_steps_that_are_before_it() -> None:
    names = [step.name for step in UP]
    assert len(set(names)) == len(names)
    for index, step in enumerate(UP):
        assert set(step.after) <= set(names[:index])


def test_every_step_has_its_script() -> None:
    folder = PROVISION / "node"
    assert {step.name for step in UP if step.script} <= {path.stem for path in folder.glob("*.sh")}


def test_a_fresh_lab_is_brought_up_in_order(world: World) -> None:
    assert world.bring_up()
    assert world.boots == [[node.name for node in LAB.nodes]]
    assert world.started("load-balancer") == ["lb1"]
    assert sorted(world.started("node")) == ["cp1", "cp2", "cp3", "w1", "w2", "w3"]
    assert world.started("control-plane-init") == ["cp1"]
    assert world.before("end load-balancer lb1", "start control-plane-init cp1")
    assert world.before("end node cp1", "start control-plane-init cp1")
    assert world.before("end control-plane-init cp1", "start pod-network cp1")
    for last in ("pod-network cp1", "worker-join w3", "control-plane-join cp3"):
        assert world.before(f"end {last}", "start revoke cp1")
    # Add-ons need only the pod network, so they may be done at any time after it.
    rest = [event for event in world.events if not event.endswith("addons cp1")]
    assert rest[-2:] == ["start revoke cp1", "end revoke cp1"]


PAIR = load(REPOSITORY / "examples" / "two-load-balancers.yaml")


@pytest.fixture
def sharing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A lab with two load balancers."""
    return let(World(tmp_path, PAIR), monkeypatch)


def test_two_load_balancers_are_configured_one_after_the_other(sharing: World) -> None:
    sharing.bring_up()
    assert sharing.started("load-balancer") == ["lb1", "lb2"]
    assert sharing.before("end load-balancer lb1", "start load-balancer lb2")
    assert sharing.before("end load-balancer lb2", "start control-plane-init cp1")


@pytest.mark.parametrize(("holder", "order"), [("lb1", ["lb2", "lb1"]), ("lb2", ["lb1", "lb2"])])
def test_a_load_balancer_that_has_the_api_s_address_is_configured_last(
    sharing: World, holder: str, order: list[str]
) -> None:
    sharing.made()
    sharing.remote.holding = {holder}
    sharing.bring_up()
    assert sharing.started("load-balancer") == order
    assert sharing.before(f"end load-balancer {order[0]}", f"start load-balancer {holder}")


def test_a_configuration_that_fails_on_the_standby_never_gets_to_the_holder(sharing: World) -> None:
    sharing.made()
    sharing.remote.holding = {"lb1"}

    def refuse(machine: str, script: str) -> bool:
        if (machine, script) == ("lb2", "load-balancer"):
            raise CommandFailed(["haproxy", "-c"], "refused")
        return True

    sharing.remote.doing = refuse
    with pytest.raises(NodeFailed, match="lb2"):
        sharing.bring_up()
    assert sharing.started("load-balancer") == ["lb2"]


def test_a_fresh_lab_s_first_control_plane_is_told_that_it_is_alone(world: World) -> None:
    world.bring_up()
    assert world.remote.words["control-plane-init cp1"] == ("--alone", "cp2", "cp3", "w1", "w2", "w3")
    assert world.remote.words["control-plane-join cp2"] == ("--ordered",)


def test_machines_that_were_just_made_are_not_asked_what_they_have(world: World) -> None:
    world.bring_up()
    assert sorted(world.remote.delivered) == sorted(node.name for node in LAB.nodes)


def test_only_scripts_that_join_machines_are_given_secrets_and_each_its_own(world: World) -> None:
    world.bring_up()
    given = {job: files for job, files in world.remote.given.items() if files}
    nodes = [given.pop(job) for job in list(given) if job.startswith("node ")]
    assert {name for files in nodes for name in files} == {"proxy.env"}
    assert {job.split()[0] for job in given} == {"control-plane-init", "control-plane-join", "worker-join"}
    assert set(given["control-plane-init cp1"]) == {"secrets", "ca.key"}
    assert set(given["control-plane-join cp2"]) == {"secrets"}
    assert "CERTIFICATE_KEY" in given["control-plane-join cp2"]["secrets"]
    assert "CERTIFICATE_KEY" not in given["worker-join w1"]["secrets"]
    assert len({files["secrets"].splitlines()[0] for files in given.values()}) == 1


def titles(world: World) -> set[str]:
    """What the first control plane's step is called, as progress and report show it."""
    return {step.title for step in world.progress.finished if step.name == "control-plane-init"}


JOINED = {node.name: "joined" for node in LAB.kubernetes_nodes}


@pytest.mark.parametrize(
    ("states", "title"),
    [
        ({}, "kubeadm init"),
        ({"cp1": "partial"}, "kubeadm init"),
        (JOINED | {"w3": "fresh"}, "join token and certificate key"),
        (JOINED | {"cp1": "fresh"}, "join token and certificate key"),
        (JOINED, "the cluster is initialised"),
    ],
)
def test_kubeadm_init_is_named_only_where_it_runs(world: World, states: dict[str, str], title: str) -> None:
    world.made(**states)
    world.bring_up()
    assert titles(world) == {title}


def test_a_failure_names_what_was_tried_in_that_situation(world: World) -> None:
    def fails(machine: str, script: str) -> bool:
        if script == "control-plane-init":
            raise LabError("no")
        return True

    world.made(**JOINED | {"w3": "fresh"})
    world.remote.doing = fails
    with pytest.raises(NodeFailed, match=r"^join token and certificate key failed on cp1: no$"):
        world.bring_up()


def test_control_planes_never_join_two_at_once(world: World) -> None:
    joining = threading.Lock()

    def slow(machine: str, script: str) -> bool:
        if script == "control-plane-join":
            assert joining.acquire(blocking=False), "two control planes joined at once"
            time.sleep(0.05)
            joining.release()
        return True

    world.remote.doing = slow
    world.bring_up()
    assert world.started("control-plane-join") == ["cp2", "cp3"]


def test_control_planes_join_side_by_side_where_etcd_has_machines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = let(World(tmp_path, load(REPOSITORY / "examples/external-etcd.yaml")), monkeypatch)
    joining = threading.Barrier(2, timeout=5)

    def meets(machine: str, script: str) -> bool:
        if script == "control-plane-join":
            joining.wait()
        return True

    world.remote.doing = meets
    world.bring_up()
    assert sorted(world.started("control-plane-join")) == ["cp2", "cp3"]


def test_workers_join_right_after_init_beside_the_control_planes(world: World) -> None:
    joined = threading.Barrier(4, timeout=5)  # three workers and the first control plane to join

    def together(machine: str, script: str) -> bool:
        if script == "worker-join" or (script, machine) == ("control-plane-join", "cp2"):
            joined.wait()
        return True

    world.remote.doing = together
    world.bring_up()
    for worker in ("w1", "w2", "w3"):
        assert world.before("end control-plane-init cp1", f"start worker-join {worker}")


def test_nothing_is_done_on_a_machine_before_it_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.remote.down = {"w2"}
    world.made()

    def boot(workspace: Workspace, log: Path, names: Sequence[str]) -> None:
        time.sleep(0.1)
        assert not world.events
        world.boot(workspace, log, names)

    monkeypatch.setattr(providers, "boot", boot)
    world.bring_up()
    assert world.events


def test_only_what_failed_itself_is_reported(world: World) -> None:
    def fails(machine: str, script: str) -> bool:
        if (script, machine) == ("node", "cp2"):
            raise LabError("the disk is full", hint="free some")
        return True

    world.remote.doing = fails
    with pytest.raises(NodeFailed) as caught:
        world.bring_up()
    assert caught.value.message == "names, routes, container runtime failed on cp2: the disk is full"
    assert caught.value.hint == "free some"
    assert world.started("control-plane-join") == []
    assert world.started("revoke") == []
    # What doesn't need it goes on, so that the next `up` finds it done.
    assert sorted(world.started("worker-join")) == ["w1", "w2", "w3"]


def test_a_failed_join_keeps_the_next_control_plane_from_trying(world: World) -> None:
    def fails(machine: str, script: str) -> bool:
        if (script, machine) == ("control-plane-join", "cp2"):
            raise LabError("no")
        return True

    world.remote.doing = fails
    with pytest.raises(NodeFailed, match=r"kubeadm join --control-plane failed on cp2: no$"):
        world.bring_up()
    assert world.started("control-plane-join") == ["cp2"]


def test_a_failure_on_several_machines_names_each(world: World) -> None:
    def fails(machine: str, script: str) -> bool:
        if script == "worker-join":
            raise LabError(f"{machine} said no")
        return True

    world.remote.doing = fails
    with pytest.raises(NodeFailed) as caught:
        world.bring_up()
    assert set(caught.value.failures) == {"w1", "w2", "w3"}


def test_a_boot_that_failed_is_the_failure_that_is_told(world: World) -> None:
    world.boot_error = LabStateError("the disk is full")
    world.remote.down = {node.name for node in LAB.nodes}
    with pytest.raises(LabError, match=r"^the disk is full$"):
        world.bring_up()
    assert world.events == []


def test_a_fault_of_the_kit_is_not_taken_for_a_machine_s(world: World) -> None:
    def broken(machine: str, script: str) -> bool:
        raise ZeroDivisionError

    world.remote.doing = broken
    with pytest.raises(ZeroDivisionError):
        world.bring_up()


def test_a_machine_that_still_shuts_down_is_started_once_it_has_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.made(**{node.name: "joined" for node in LAB.kubernetes_nodes})
    world.remote.down = {"w1"}
    looks: list[str] = []

    def states(lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
        looks.append("stopped" if len(looks) > 2 and "w1" in world.remote.down else "running")
        return {**dict.fromkeys((node.name for node in lab.nodes), "running"), "w1": looks[-1]}  # type: ignore[dict-item]

    monkeypatch.setattr(providers, "states", states)
    assert world.bring_up()
    assert (world.powered, world.boots) == (["w1"], [])


def test_a_lab_that_is_up_is_not_booted_and_nothing_changes(world: World) -> None:
    world.made(**dict.fromkeys(("cp1", "cp2", "cp3", "w1", "w2", "w3"), "joined"))
    world.remote.doing = lambda machine, script: False
    assert not world.bring_up()
    assert world.boots == []
    assert world.remote.words["control-plane-init cp1"] == ()
    assert {step.outcome for step in world.progress.finished} == {"unchanged"}


def test_one_changed_machine_is_a_change(world: World) -> None:
    world.made(**dict.fromkeys(("cp1", "cp2", "cp3", "w1", "w2", "w3"), "joined"))
    world.remote.doing = lambda machine, script: (machine, script) == ("w3", "node")
    assert world.bring_up()


def test_a_half_made_first_control_plane_alone_may_be_undone(world: World) -> None:
    world.made(cp1="partial")
    world.bring_up()
    assert world.remote.words["control-plane-init cp1"][0] == "--alone"


@pytest.mark.parametrize("other", ["partial", "joined"])
def test_a_half_made_first_control_plane_with_others_is_never_undone(world: World, other: str) -> None:
    world.made(cp1="partial", w1=other)
    world.bring_up()
    assert "--alone" not in world.remote.words["control-plane-init cp1"]


def test_machines_that_join_a_running_cluster_are_named_to_the_control_plane_that_admits_them(
    world: World,
) -> None:
    world.made(cp1="joined", cp2="joined", w1="joined")
    world.bring_up()
    assert world.remote.words["control-plane-init cp1"] == ("cp3", "w2", "w3")
    for join in ("control-plane-join cp3", "worker-join w2"):
        assert world.before("end control-plane-init cp1", f"start {join}")
    assert world.remote.words["control-plane-join cp3"] == ("--ordered", "--former")


def test_a_lost_first_control_plane_joins_the_cluster_that_the_second_serves(world: World) -> None:
    world.made(cp2="joined", cp3="joined", w1="joined", w2="joined", w3="joined")
    world.bring_up()
    assert world.started("control-plane-init") == ["cp2"]
    assert world.remote.words["control-plane-init cp2"] == ("cp1",)
    assert world.started("control-plane-join") == ["cp1", "cp3"]
    assert world.remote.words["control-plane-join cp1"] == ("--ordered", "--former")
    assert world.started("revoke") == ["cp2"]


def test_machines_that_stand_still_are_started_then_asked(world: World) -> None:
    world.made(**dict.fromkeys(("cp1", "cp2", "cp3", "w1", "w2"), "joined"))
    world.remote.down = {"w3", "cp2"}
    world.bring_up()
    assert world.boots == [], "what exists needs no Vagrant"
    assert sorted(world.powered) == ["cp2", "w3"]
    assert world.remote.words["control-plane-init cp1"] == ("w3",)


def test_a_lab_without_workers_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = LAB.model_copy(update={"nodes": LAB.nodes[:2]})
    world = World(tmp_path, lab)
    let(world, monkeypatch).bring_up()
    assert "end revoke cp1" in world.events


# Stopping on the way, for whoever works by hand.

STEPS = {
    "load-balancer": {"node"},
    "control-plane": {"node", "load-balancer"},
    "pod-network": {"node", "load-balancer", "control-plane-init"},
    "joins": {"node", "load-balancer", "control-plane-init", "pod-network"},
}


@pytest.mark.parametrize("until", STEPS)
def test_a_stop_runs_the_steps_before_it_and_no_other(world: World, until: str) -> None:
    assert world.bring_up(until)
    assert len(world.boots) == 1
    assert sorted(world.remote.delivered) == sorted(node.name for node in LAB.nodes)
    assert {event.split()[1] for event in world.events} == STEPS[until]
    assert sorted(world.started("node")) == ["cp1", "cp2", "cp3", "w1", "w2", "w3"]


def test_a_stop_has_run_whatever_its_steps_come_after() -> None:
    assert list(up.STOPS) == list(STEPS)
    for stop in up.STOPS:
        names = up.names(up.before(stop))
        for step in up.before(stop):
            assert set(step.after) <= set(names)


@pytest.mark.parametrize(
    ("until", "given"), [("load-balancer", True), ("control-plane", True), ("joins", False)]
)
def test_the_first_control_plane_alone_has_the_ca_for_init_by_hand(
    world: World, until: str, given: bool
) -> None:
    world.bring_up(until)
    keys = [job for job, files in world.remote.given.items() if "ca.key" in files and job.startswith("node ")]
    assert keys == (["node cp1"] if given else [])


def test_nobody_is_given_the_ca_s_key_where_there_is_a_cluster(world: World) -> None:
    world.made(cp1="joined", w1="joined")
    world.bring_up("control-plane")
    assert not any("ca.key" in files for files in world.remote.given.values())


@pytest.mark.parametrize("until", ["pod-network", "joins"])
def test_who_joins_machines_by_hand_is_left_the_secrets_for_it(world: World, until: str) -> None:
    world.made(cp1="joined", w1="joined")
    world.bring_up(until)
    assert world.remote.words["control-plane-init cp1"] == ("--by-hand", "cp2", "cp3", "w2", "w3")


def members(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let etcd have these members, all of them healthy."""
    found = quorum.Membership(names, frozenset(names))
    monkeypatch.setattr(quorum, "membership", lambda lab, remote: found)


def test_up_goes_on_where_somebody_s_hands_have_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    members(monkeypatch, "cp1")
    world.made(cp1="joined", w2="joined", cp2="partial")
    world.bring_up()
    assert world.remote.words["control-plane-init cp1"] == ("cp2", "cp3", "w1", "w3")
    assert world.started("control-plane-join") == ["cp2", "cp3"]
    assert "end revoke cp1" in world.events


def test_what_a_script_has_made_good_is_shown_with_its_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = world.remote.script

    def logging(node: Node, name: str, words: Sequence[str] = (), *, log: Path, **more: Any) -> bool:
        said = (
            "[18:00:00] repairs: the kubelet did not run\n"
            if (name, node.name) == ("worker-join", "w2")
            else ""
        )
        log.write_text(f"{said * 2}[18:00:01] this repairs: nothing\nha-lab: changed\n")
        return script(node, name, words, log=log, **more)

    monkeypatch.setattr(world.remote, "script", logging)
    console, out = printed()
    world.progress = Progress(console, world.workspace.logs)
    world.bring_up()
    shown = [line for line in out.getvalue().splitlines() if "repair" in line]
    assert len(shown) == 1
    assert re.search(r"✓ w2 +kubeadm join  [0-9.]+ s  problem repaired: the kubelet did not run$", shown[0])


@pytest.mark.parametrize("wrong", ["loadbalancer", "", "node", "ready"])
def test_a_stop_that_there_is_not_is_refused_with_those_there_are(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        up.require_stop(wrong)
    assert caught.value.hint == (
        "one of: load-balancer, control-plane, pod-network, joins, upgrade-control-planes, upgrade-workers"
    )


@pytest.mark.parametrize("right", [None, *STEPS])
def test_a_stop_that_there_is_is_taken(right: str | None) -> None:
    up.require_stop(right)


def test_the_ca_is_given_again_where_the_first_control_plane_was_reset_and_a_worker_was_not(
    world: World,
) -> None:
    world.made(w1="joined")
    world.bring_up("control-plane")
    assert "ca.key" in world.remote.given["node cp1"]


@pytest.mark.parametrize(
    "said",
    [
        'Error from server (InternalError): failed calling webhook "pods.gate.example.com": x',
        'E1128 error="failed calling webhook \\"pods.gate.example.com\\": no endpoints" in a log',
    ],
)
def test_a_script_that_fails_for_a_webhook_s_sake_names_it_and_what_removes_it(
    world: World, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    asked: list[dict[str, Any]] = []

    def gather(*_: object, **words: Any) -> Facts:
        asked.append(words)
        hook = replace(read_one()[0], problem="its Service default/gate does not exist")
        return admission(webhooks=(hook,))(facts())

    def refused(machine: str, script: str) -> bool:
        if script == "pod-network":
            raise CommandFailed(["ssh", machine], "ended with exit code 1", tail=f"first\n{said}\nlast")
        return True

    monkeypatch.setattr(ready, "gather", gather)
    world.remote.doing = refused
    with pytest.raises(NodeFailed) as caught:
        world.bring_up()
    assert "pod-network on cp1: the webhook pods.gate.example.com in the Validating" in caught.value.message
    assert "ended with exit code 1" not in caught.value.message
    assert "delete validatingwebhookconfiguration gate` removes it; then `./inv up` again" in caught.value.hint
    assert asked == [{"probes": False, "of": (), "admission": True}]


@pytest.mark.parametrize("said", ["failed", 'failed calling webhook "unknown.example.com": x'])
def test_a_script_that_fails_for_another_reason_keeps_its_words(
    world: World, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def fails(machine: str, script: str) -> bool:
        if script == "pod-network":
            raise CommandFailed(["ssh", machine], "ended with exit code 1", tail=said)
        return True

    monkeypatch.setattr(ready, "gather", lambda *_, **__: facts())
    world.remote.doing = fails
    with pytest.raises(NodeFailed, match=f"ended with exit code 1\n    {said}"):
        world.bring_up()


def test_a_damaged_control_plane_stays_in_the_cluster_and_a_complete_one_admits_who_must_join_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    members(monkeypatch, "cp1", "cp2", "cp3")
    world.made(cp1="damaged", cp2="joined", cp3="partial", w1="partial", w2="joined", w3="joined")
    world.bring_up()
    assert world.remote.words["control-plane-init cp2"] == ("cp3", "w1")
    assert world.started("control-plane-join") == ["cp1", "cp3"]


def test_where_every_control_plane_is_damaged_the_first_is_repaired_before_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    members(monkeypatch, "cp1", "cp2", "cp3")
    world.made(cp1="partial", cp2="damaged", cp3="damaged", w1="joined")
    world.bring_up()
    assert world.started("control-plane-init") == ["cp2"]
    assert world.remote.words["control-plane-init cp2"] == ("cp1", "w2", "w3")
    assert world.started("control-plane-join") == ["cp1", "cp3"]


def test_a_single_damaged_control_plane_is_not_begun_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    members(monkeypatch, "cp1")
    world.made(cp1="damaged", w1="joined")
    world.bring_up()
    assert "--alone" not in world.remote.words["control-plane-init cp1"]
