"""`backup` and `recover` on a lab in memory: any number of members, any loss, interrupted anywhere."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.drill import survivor
from lab.drill.scene import Scene
from lab.errors import ConfigError, HostNotFit, LabError, LabStateError, WaitTimedOut
from lab.health.facts.machine import Section
from lab.model import Node
from lab.plans import recover as plans
from lab.session import Session
from lab.system.progress import Progress
from lab.verbs import answers, checkpoint, plan
from lab.verbs import backup as backing_up
from lab.verbs import recover as recovering
from lab.verbs import up as bring_up
from lab.verbs.up import Request
from lab.workspace import backup as backups
from lab.workspace import made, recovery
from lab.workspace.backup import SHARED_PKI, Backup
from tests.unit import recorded_facts
from tests.unit.fakes import printed
from tests.unit.recoveries import Recoveries
from tests.unit.world import KilledError, When, lab_of, live
from tests.whole import rows

CP = ("cp1", "cp2", "cp3", "cp4", "cp5")
PARTS = (
    *("stop", "receive", "restore", "start etcd", "start kube-apiserver"),
    *("start kube-controller-manager", "start kube-scheduler", "finish"),
)
"""What is done on each control plane, in order."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recoveries:
    found = Recoveries(tmp_path)
    live(found, monkeypatch)
    monkeypatch.setattr(backing_up, "require_up", lambda session: None)
    monkeypatch.setattr(answers, "TIMEOUT", 0.2)
    monkeypatch.setattr(plans, "CLUSTER_TIMEOUT", 0.2)
    return found


def begun(world: Recoveries, members: int = 3) -> Session:
    lab = lab_of(world.folder, control_planes=members, workers=1)
    world.begin(lab)
    return world.session(lab)


def backed_up(world: Recoveries, members: int = 3) -> tuple[Session, Backup]:
    """A lab with a backup, after which a user has written."""
    session = begun(world, members)
    backup = backing_up.backup(session, None)
    world.write(prices=20, orders=21)
    world.touches.clear()
    return session, backup


def recover(world: Recoveries, path: Path, *, consent: bool = True, answer: bool = False) -> tuple[Node, ...]:
    """Run `recover` as a run of its own; a person answers so."""
    world.dead = False

    def confirm(question: str) -> bool:
        world.asked.append(question)
        return answer

    return recovering.recover(world.session(world.wanted), path, consent=consent, confirm=confirm)


def as_in(world: Recoveries, backup: Backup, *names: str) -> None:
    """Assert that these members have what the backup has, and that the lab is healthy."""
    world.recovered(*names)
    for name in names:
        assert world.keys(name) == dict(backup.inventory)


def test_a_second_recovery_from_the_same_backup_uses_no_revision_again(world: Recoveries) -> None:
    _, backup = backed_up(world, 3)
    recover(world, backup.path)
    seen = world.revision("cp1")
    recover(world, backup.path)
    assert world.revision("cp1") > seen


@pytest.mark.parametrize("members", [1, 3, 5])
def test_a_lab_is_recovered_on_all_its_members(world: Recoveries, members: int) -> None:
    session, backup = backed_up(world, members)
    missing = recover(world, backup.path)
    as_in(world, backup, *CP[:members])
    assert missing == ()
    assert recovering.next_step(missing) == "./inv verify"
    assert sorted(world.restarted) == sorted(node.name for node in session.lab.kubernetes_nodes)
    assert world.problems(session.lab) == []


@pytest.mark.parametrize(("members", "wiped"), [(1, 1), (3, 2), (3, 3), (5, 3), (5, 5)])
def test_a_quorum_that_is_gone_for_good_is_recovered_without_the_lost_data(
    world: Recoveries, members: int, wiped: int
) -> None:
    _, backup = backed_up(world, members)
    world.wipe(*CP[:wiped])
    recover(world, backup.path)
    as_in(world, backup, *CP[:members])


ETCD = ("etcd1", "etcd2", "etcd3")


def external(world: Recoveries) -> Backup:
    """A backup of a lab whose etcd has machines of its own, after which a user has written."""
    world.begin(lab_of(world.folder, etcd=3, control_planes=3, workers=1))
    backup = backing_up.backup(world.session(world.wanted), None)
    world.write(prices=20, orders=21)
    world.touches.clear()
    return backup


def test_the_shared_keys_come_from_a_control_plane_that_has_them(world: Recoveries) -> None:
    world.without_keys = {"cp1"}
    assert "sa.key" in external(world).pki


def test_without_the_shared_keys_there_is_no_backup_and_each_control_plane_says_why(world: Recoveries) -> None:
    world.without_keys = {*CP[:3]}
    with pytest.raises(LabStateError, match="no control plane gave the keys") as caught:
        external(world)
    assert [line.partition(":")[0] for line in caught.value.message.splitlines()[1:]] == [*CP[:3]]


@pytest.mark.parametrize("wiped", [0, 2, 3])
def test_an_etcd_on_machines_of_its_own_is_recovered_for_the_control_planes(
    world: Recoveries, wiped: int
) -> None:
    backup = external(world)
    assert (backup.manifest.member, backup.manifest.external) == ("etcd1", True)
    assert {*backup.pki} == {name for name in SHARED_PKI if not name.startswith("etcd/")}
    world.wipe(*ETCD[:wiped])
    assert recover(world, backup.path) == ()
    as_in(world, backup, *ETCD)
    assert sorted(world.restarted) == [*CP[:3], "w1"], "of etcd machines, the kubelet belongs to no cluster"
    seen = world.revision("etcd1")
    recover(world, backup.path)
    assert world.revision("etcd1") > seen
    assert world.problems(world.wanted) == []
    for name in CP[:3]:
        assert world.planes[name].pki["pki/sa.key"] == "sa.key of then\n"
    assert not [name for name in ETCD if world.planes[name].pki]
    stopped = [world.touches.index(f"stop {name}") for name in (*ETCD, *CP[:3])]
    restored = [world.touches.index(f"restore {name}") for name in ETCD]
    served = [world.touches.index(f"start kube-apiserver {name}") for name in CP[:3]]
    assert max(stopped) < min(restored)
    assert max(restored) < min(served)


def test_machines_of_etcd_that_were_made_again_get_the_backup(world: Recoveries) -> None:
    """There is no other way back: `up` begins no empty etcd for control planes that had another one."""
    backup = external(world)
    world.wipe(*ETCD)
    world.made_again = {*ETCD}
    assert recover(world, backup.path) == ()
    as_in(world, backup, *ETCD)
    for name in ETCD:
        assert world.touches.index(f"node {name}") < world.touches.index(f"stop {name}")
    assert "node cp1" not in world.touches[: world.touches.index("restore etcd1")]


def test_a_machine_of_etcd_that_is_gone_is_left_to_up(world: Recoveries) -> None:
    backup = external(world)
    world.lose("etcd2")
    assert [node.name for node in recover(world, backup.path)] == ["etcd2"]
    as_in(world, backup, "etcd1", "etcd3")


def test_without_a_machine_of_etcd_nothing_is_recovered(world: Recoveries) -> None:
    backup = external(world)
    for name in ETCD:
        world.lose(name)
    with pytest.raises(LabStateError, match="no etcd machine responds"):
        recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith("stop")]


def test_without_a_control_plane_nothing_is_recovered(world: Recoveries) -> None:
    backup = external(world)
    world.made_again = {*CP[:3]}
    with pytest.raises(LabStateError, match="no control plane has joined") as caught:
        recover(world, backup.path)
    assert caught.value.hint == "`./inv up` creates what is missing"


def test_everything_stops_before_the_first_is_restored_and_starts_in_order(world: Recoveries) -> None:
    _, backup = backed_up(world)
    recover(world, backup.path)
    parts = (*PARTS[:-1], "nodes", PARTS[-1])
    of = {
        part: [i for i, touch in enumerate(world.touches) if touch.rpartition(" ")[0] == part] for part in parts
    }
    assert all(len(indices) == (1 if part == "nodes" else 3) for part, indices in of.items()), of
    for earlier, later in (
        ("stop", "receive"),
        ("restore", "start etcd"),
        ("start etcd", "start kube-apiserver"),
    ):
        assert max(of[earlier]) < min(of[later])
    for name in CP[:3]:
        own = [touch.removesuffix(f" {name}") for touch in world.touches if touch.endswith(f" {name}")]
        assert [part for part in own if part in parts and part != "nodes"] == [
            part for part in parts if part != "nodes"
        ]


def test_every_member_is_restored_into_one_new_cluster(world: Recoveries) -> None:
    _, backup = backed_up(world)
    recover(world, backup.path)
    first = {world.planes[name].data.cluster for name in CP[:3]}  # type: ignore[union-attr]
    recover(world, backup.path)
    second = {world.planes[name].data.cluster for name in CP[:3]}  # type: ignore[union-attr]
    assert (len(first), len(second), first == second) == (1, 1, False)


# The pitfalls.


def test_three_clusters_of_one_member_each_would_be_found(
    world: Recoveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backup = backed_up(world)
    monkeypatch.setattr(world, "part", alone(world))
    with pytest.raises(WaitTimedOut, match=r"cp1's etcd lists these members: cp1 at .*; and not cp1=.*,cp3="):
        recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith("start kube-")]


def alone(world: Recoveries) -> object:
    """A restore with an --initial-cluster of only the member itself, as people try it (kubeadm#2641)."""
    part = world.part

    def run(node: object, words: tuple[str, ...], secrets: dict[str, str]) -> bool:
        if words[0] == "restore":
            own = [each for each in words[2].split(",") if each.startswith(f"{node.name}=")]  # type: ignore[attr-defined]
            words = (*words[:2], own[0], *words[3:])
        return part(node, words, secrets)  # type: ignore[arg-type]

    return run


def test_members_at_localhost_would_be_found(world: Recoveries, monkeypatch: pytest.MonkeyPatch) -> None:
    _, backup = backed_up(world)
    part = world.part

    def run(node: object, words: tuple[str, ...], secrets: dict[str, str]) -> bool:
        if words[0] == "restore":
            names = [each.split("=")[0] for each in words[2].split(",")]
            words = (*words[:2], ",".join(f"{name}=http://localhost:2380" for name in names), *words[3:])
        return part(node, words, secrets)  # type: ignore[arg-type]

    monkeypatch.setattr(world, "part", run)
    with pytest.raises(WaitTimedOut, match="cp1 at http://localhost:2380"):
        recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith("start kube-")]


def test_an_api_server_that_goes_on_over_a_dead_etcd_is_found_before_anything_is_restored(
    world: Recoveries,
) -> None:
    _, backup = backed_up(world)
    world.wipe("cp1", "cp2", "cp3")
    world.undying = {"cp2"}
    with pytest.raises(LabError, match="cp2: kube-apiserver still on cp2"):
        recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith(("receive", "restore"))]


def test_a_real_cluster_of_three_is_one_and_what_people_restore_is_none() -> None:
    members = recorded_facts.lab().etcd_members
    well = {node.name: recorded_facts.facts().machine(node) for node in members}
    assert plans.cluster_problem(members, well, 1) is None
    assert "and the backup at 1000000000000" in (plans.cluster_problem(members, well, 10**12) or "")
    listed = json.loads(well["cp2"].text("etcd-members"))

    def altered(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> str:
        section = Section(0, json.dumps(listed | {"members": change(copy.deepcopy(listed["members"]))}))
        other = replace(well["cp2"], sections={**well["cp2"].sections, "etcd-members": section})
        return plans.cluster_problem(members, well | {"cp2": other}, 1) or ""

    def at_localhost(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each | {"peerURLs": ["http://localhost:2380"]} for each in found]

    assert "http://localhost:2380" in altered(at_localhost)
    assert "cp2's etcd lists these members: cp2 at" in altered(
        lambda found: [each for each in found if each["name"] == "cp2"]
    )
    assert "are members of different clusters" in altered(
        lambda found: [each | {"ID": each["ID"] + 1} for each in found]
    )
    silent = replace(well["cp3"], sections={**well["cp3"].sections, "etcd-status": Section(1, "refused")})
    assert "cp3 could not report etcd-status" in (
        plans.cluster_problem(members, well | {"cp3": silent}, 1) or ""
    )


def test_keys_that_are_not_those_of_the_backup_would_be_found(
    world: Recoveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backup = backed_up(world)
    ask = world.ask

    def other(node: object, command: tuple[str, ...]) -> str:
        said = ask(node, command)  # type: ignore[arg-type]
        restored = "restore" in " ".join(world.touches)
        return '{"kvs": []}' if command == plans.KEYS and restored else said

    monkeypatch.setattr(world, "ask", other)
    with pytest.raises(
        LabStateError, match="2 of 2 keys are not as in the backup, such as /registry/configmaps"
    ):
        recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith("start kube-")]


def test_keys_with_a_time_to_live_may_be_gone_and_no_others() -> None:
    lease, event = "/registry/masterleases/192.168.56.11", "/registry/events/shop/web.1"
    backup = {lease: 3, event: 4, "/registry/leases/kube-node-lease/cp1": 5}
    assert plans.difference(backup, dict(backup)) is None
    assert plans.difference(backup, {"/registry/leases/kube-node-lease/cp1": 5}) is None
    for etcd in ({lease: 3, event: 4}, backup | {lease: 9}, backup | {"/registry/pods/a/new": 6}):
        assert plans.difference(backup, etcd)


def test_a_stopped_load_balancer_is_started_as_the_api_is_asked_through_it(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.machine("lb1").state = "stopped"
    recover(world, backup.path)
    assert world.touches.index("start lb1") < world.touches.index("nodes cp1")
    as_in(world, backup, *CP[:3])


def test_a_load_balancer_that_is_lost_too_does_not_keep_the_recovery_from_its_end(world: Recoveries) -> None:
    session, backup = backed_up(world)
    world.lose("lb1")
    recover(world, backup.path)
    world.recovered(*CP[:3])
    assert world.problems(session.lab) == []


# Interrupted.

FAULTS: tuple[tuple[When, BaseException], ...] = (("after", KilledError()), ("before", LabError("it failed")))


def moments() -> list[tuple[str, int]]:
    """Every change of a recovery of three members that can be interrupted."""
    found = [(f"{part} {name}", 1) for part in PARTS for name in CP[:3]]
    return [*found, ("nodes cp1", 1)]


@pytest.mark.parametrize(("touch", "nth"), rows(moments(), usual=moments()[::4]))
@pytest.mark.parametrize(("when", "error"), FAULTS, ids=["killed", "failed"])
def test_a_recovery_that_is_interrupted_anywhere_is_completed_by_the_next(
    world: Recoveries, touch: str, nth: int, when: When, error: BaseException
) -> None:
    _, backup = backed_up(world)
    world.wipe("cp2", "cp3")
    world.break_at(touch, when, error, nth=nth)
    with pytest.raises((KilledError, LabError)):
        recover(world, backup.path)
    world.fault = None
    recover(world, backup.path)
    as_in(world, backup, *CP[:3])


@pytest.mark.parametrize("touch", ["stop cp1", "restore cp2", "start etcd cp3", "start kube-scheduler cp1"])
def test_until_then_others_refuse_and_say_the_way_out(world: Recoveries, touch: str) -> None:
    session, backup = backed_up(world)
    world.break_at(touch, "after", KilledError())
    with pytest.raises(KilledError):
        recover(world, backup.path)
    world.fault, world.dead = None, False
    with pytest.raises(
        LabStateError, match="was interrupted, and etcd's members may have different data"
    ) as caught:
        bring_up.up(world.session(session.lab), Request(consent=True), lambda _: True)
    assert f"./inv recover {backup.path}" in caught.value.hint
    refused = plan.look(world.session(session.lab)).refused
    assert refused is not None
    assert refused.next == caught.value.hint
    for other in (
        lambda: backing_up.backup(world.session(session.lab), None),
        lambda: checkpoint.save(world.session(session.lab), "half"),
    ):
        with pytest.raises(LabStateError, match="was interrupted"):
            other()
    recover(world, backup.path)
    as_in(world, backup, *CP[:3])


def test_members_that_are_all_restored_are_not_restored_again(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.break_at("start kube-apiserver cp2", "before", LabError("it failed"))
    with pytest.raises(LabError):
        recover(world, backup.path)
    world.fault = None
    world.touches.clear()
    recover(world, backup.path)
    assert not [touch for touch in world.touches if touch.startswith(("stop", "receive", "restore"))]
    as_in(world, backup, *CP[:3])


def test_a_member_that_was_restored_starts_again_with_all_others_if_one_was_not(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.break_at("restore cp3", "before", LabError("it failed"))
    with pytest.raises(LabError):
        recover(world, backup.path)
    world.fault = None
    tokens = {name: world.planes[name].token for name in CP[:3]}
    assert tokens["cp3"] == "none"
    recover(world, backup.path)
    as_in(world, backup, *CP[:3])
    restored = Counter(touch for touch in world.touches if touch.startswith("restore"))
    assert restored["restore cp1"] == 2


def test_what_a_recovery_left_that_was_killed_when_complete_is_removed_before_the_next(
    world: Recoveries,
) -> None:
    _, backup = backed_up(world)
    world.break_at("finish cp1", "before", KilledError())
    with pytest.raises(KilledError):
        recover(world, backup.path)
    world.fault = None
    assert recovery.read(world.workspace) is None
    assert world.planes["cp1"].token != plans.NO_TOKEN
    world.touches.clear()
    recover(world, backup.path)
    # recover.sh keeps no data beside its mark: it would be what an interrupted recovery has put there.
    assert world.touches.index("finish cp1") < world.touches.index("stop cp1")
    as_in(world, backup, *CP[:3])


def test_an_interrupted_recovery_may_go_on_with_another_backup(world: Recoveries) -> None:
    session, earlier = backed_up(world)
    later = backing_up.backup(world.session(session.lab), world.folder / "later.tar")
    world.break_at("start kube-apiserver cp2", "before", LabError("it failed"))
    with pytest.raises(LabError):
        recover(world, earlier.path)
    world.fault = None
    recover(world, later.path)
    as_in(world, later, *CP[:3])


def test_what_etcd_had_before_is_remembered_over_an_interruption(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.break_at("restore cp1", "before", KilledError())
    with pytest.raises(KilledError):
        recover(world, backup.path)
    world.fault = None
    with pytest.raises(LabStateError, match="nothing was restored"):
        recover(world, backup.path, consent=False)
    (question,) = world.asked
    assert f"A recovery from {backup.path} was interrupted." in question
    assert "Created since the backup, so lost: 1 configmaps (shop/orders)." in question


# What is asked.


def test_a_recovery_of_a_healthy_lab_asks_with_what_will_be_lost_and_a_no_changes_nothing(
    world: Recoveries,
) -> None:
    session, backup = backed_up(world)
    before = world.remember_planes()
    with pytest.raises(LabStateError, match="nothing was restored"):
        recover(world, backup.path, consent=False)
    (question,) = world.asked
    assert question == (
        "etcd is healthy, so no recovery is needed. Created since the backup, so lost: 1 configmaps "
        "(shop/orders). Changed since, so undone: 1 configmaps (shop/prices). etcd on cp1, cp2, cp3 "
        "goes back to "
        f"{backup.manifest.taken} (revision 12); the API is down meanwhile. Continue? [y/N] "
    )
    assert world.planes == before
    assert recovery.read(session.workspace) is None


def test_a_table_shows_what_is_as_in_the_backup_and_what_is_gone(world: Recoveries) -> None:
    _, backup = backed_up(world)
    rows = [line.split() for line in shown(world, backup)]
    assert ["configmaps", "1", "1", "1", "·"] in rows
    assert ["deployments", "1", "·", "·", "·"] in rows


def test_no_table_claims_that_nothing_is_gone_where_no_member_could_be_asked(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.wipe(*CP[:3])
    said = shown(world, backup)
    assert f"What was written since {backup.manifest.taken} is lost; no member could list it." in said
    assert not any(line.startswith("configmaps") for line in said)


def shown(world: Recoveries, backup: Backup) -> list[str]:
    """What a recovery prints, line by line."""
    console, text = printed()
    session = replace(world.session(world.wanted), progress=Progress(console, world.workspace.logs))
    recovering.recover(session, backup.path, consent=True, confirm=lambda _: False)
    return text.getvalue().splitlines()


def test_after_a_yes_the_lab_is_recovered(world: Recoveries) -> None:
    _, backup = backed_up(world)
    recover(world, backup.path, consent=False, answer=True)
    as_in(world, backup, *CP[:3])


def test_a_majority_that_up_can_use_is_named(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.wipe("cp2")
    with pytest.raises(LabStateError):
        recover(world, backup.path, consent=False)
    assert "etcd has a majority (cp1, cp3), so `./inv up` can repair it without any loss." in world.asked[0]


def test_where_no_member_answers_the_loss_is_unknown(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.wipe(*CP[:3])
    with pytest.raises(LabStateError):
        recover(world, backup.path, consent=False)
    assert "etcd has no majority. No etcd member can list its keys" in world.asked[0]


def test_a_survivor_lists_what_will_be_lost_without_a_majority(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.wipe("cp1", "cp3")
    with pytest.raises(LabStateError):
        recover(world, backup.path, consent=False)
    assert (
        "etcd has no majority. Created since the backup, so lost: 1 configmaps (shop/orders)." in world.asked[0]
    )


# Machines that are gone, stopped or silent.


def test_a_machine_that_is_gone_is_left_to_up(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.lose("cp2")
    missing = recover(world, backup.path)
    as_in(world, backup, "cp1", "cp3")
    assert [node.name for node in missing] == ["cp2"]
    assert recovering.next_step(missing) == "./inv up creates cp2 again"


def test_a_stopped_machine_is_started_since_its_member_must_not_come_back_later(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.machine("cp2").state = "stopped"
    recover(world, backup.path)
    assert "start cp2" in world.touches
    as_in(world, backup, *CP[:3])


def test_a_silent_machine_is_named_and_removed_since_its_member_would_be_another_cluster(
    world: Recoveries,
) -> None:
    _, backup = backed_up(world)
    world.machine("cp3").hangs = True
    with pytest.raises(LabStateError, match="nothing was restored"):
        recover(world, backup.path, consent=False)
    assert "cp3 will be removed, with all data that is only there: it does not respond." in world.asked[0]
    assert world.machine("cp3").state == "running"
    missing = recover(world, backup.path)
    assert world.machine("cp3").state == "absent"
    assert [node.name for node in missing] == ["cp3"]
    as_in(world, backup, "cp1", "cp2")
    assert "cp3" not in world.record.machines


def test_a_lab_whose_control_planes_are_all_silent_is_left_alone(world: Recoveries) -> None:
    _, backup = backed_up(world)
    for name in CP[:3]:
        world.machine(name).hangs = True
    with pytest.raises(LabStateError, match="no control plane responds"):
        recover(world, backup.path)
    assert {world.machine(name).state for name in CP[:3]} == {"running"}


def test_common_keys_go_with_a_backup_of_the_lab_s_own_ca(world: Recoveries) -> None:
    _, backup = backed_up(world)
    recover(world, backup.path)
    assert world.planes["cp2"].pki["pki/sa.key"] == "sa.key of then\n"


def test_common_keys_of_another_ca_are_of_no_use(world: Recoveries, monkeypatch: pytest.MonkeyPatch) -> None:
    _, backup = backed_up(world)
    monkeypatch.setattr(recovering, "_has_the_ca", lambda session, backup: False)
    recover(world, backup.path)
    assert world.planes["cp2"].pki == {}


# What is refused before anything is touched.


def refused(world: Recoveries, path: Path, error: type[LabError], match: str) -> LabError:
    before = world.remember_planes()
    with pytest.raises(error, match=match) as caught:
        recover(world, path)
    assert world.planes == before
    assert not world.workspace.recovery.exists()
    return caught.value


def test_the_backup_of_another_lab_is_refused(world: Recoveries, tmp_path: Path) -> None:
    _, backup = backed_up(world)
    path = world.workspace.identity
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"owner": "/other/.lab#1234"}))
    refused(world, backup.path, LabStateError, "is of another lab with the same name: ha-lab")


def test_the_backup_of_a_newer_etcd_is_refused(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.etcd = "3.5.24"
    refused(
        world,
        backup.path,
        LabStateError,
        r"cp1 has etcd 3.5.24, and the backup is of etcd 3.6.8, which is newer",
    )
    world.etcd = "3.6.0"  # data has the same form within a minor version
    recover(world, backup.path)


def test_every_machine_s_problem_is_named_at_once(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.troubles = {"cp1": "it has no etcdutl", "cp3": "/var/lib/kubelet/config.yaml is empty"}
    error = refused(world, backup.path, LabStateError, "cp1: it has no etcdutl")
    assert "cp3: /var/lib/kubelet/config.yaml is empty" in error.message


def test_a_full_disk_is_found_before_anything_is_touched(world: Recoveries) -> None:
    _, backup = backed_up(world)
    world.free = 10 * 2**20
    refused(world, backup.path, HostNotFit, "cp1's disk has 10 MiB free for etcd, and 128 MiB are needed")


def test_machines_of_different_times_are_not_recovered_before_the_restore_of_a_checkpoint_is_complete(
    world: Recoveries,
) -> None:
    _, backup = backed_up(world)
    made.update(world.workspace, lambda record: record.model_copy(update={"restoring": "start"}))
    error = refused(world, backup.path, LabStateError, "restoring the checkpoint start was interrupted")
    assert "`./inv restore start` completes it" in error.hint


def test_a_lab_without_machines_has_nothing_to_recover(world: Recoveries) -> None:
    _, backup = backed_up(world)
    for path in (world.workspace.root / ".vagrant").rglob("id"):
        path.unlink()
    refused(world, backup.path, LabStateError, "the lab has no machines")


# Backups.


def test_a_backup_is_one_private_file_that_reads_back(world: Recoveries) -> None:
    session = begun(world)
    target = world.folder / "mine.tar"
    written = backing_up.backup(session, target)
    assert written == backups.read(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert (written.manifest.revision, written.manifest.keys, written.manifest.member) == (12, 2, "cp1")
    assert [path.name for path in world.folder.iterdir() if "part" in path.name] == []


def test_a_backup_without_a_name_is_beside_the_others_and_the_newest_is_found(world: Recoveries) -> None:
    session = begun(world)
    assert backups.newest(session.workspace.backups) is None
    written = backing_up.backup(session, None)
    assert written.path.parent == session.workspace.backups
    assert session.workspace.backups.stat().st_mode & 0o777 == 0o700
    assert backups.newest(session.workspace.backups) == written.path


def test_backups_that_destroy_would_remove_are_named(world: Recoveries) -> None:
    session = begun(world)
    backing_up.backup(session, world.folder / "elsewhere.tar")
    assert backing_up.destroyed_with(session) == ""
    backing_up.backup(session, None)
    assert backing_up.destroyed_with(session) == "and its backup in .lab/backups"
    backing_up.backup(session, None)
    assert backing_up.destroyed_with(session) == "and its 2 backups in .lab/backups"


def test_two_backups_in_one_second_are_two_files(world: Recoveries) -> None:
    session = begun(world)
    paths = {backing_up.backup(session, None).path for _ in range(4)}
    assert len(paths) == 4


def test_a_backup_overwrites_nothing(world: Recoveries) -> None:
    session = begun(world)
    (world.folder / "mine.tar").write_text("mine")
    with pytest.raises(ConfigError, match="exists, and a backup overwrites nothing"):
        backing_up.backup(session, world.folder / "mine.tar")
    assert (world.folder / "mine.tar").read_text() == "mine"
    with pytest.raises(ConfigError, match="there is no folder"):
        backing_up.backup(session, world.folder / "no" / "mine.tar")


def test_a_healthy_member_is_asked_and_no_other(world: Recoveries) -> None:
    session = begun(world)
    world.wipe("cp1")
    assert backing_up.backup(session, None).manifest.member == "cp2"
    world.wipe("cp2")
    with pytest.raises(LabStateError, match=r"none of etcd's members is healthy \(cp1, cp2, cp3\)"):
        backing_up.backup(session, None)


def test_a_full_disk_of_this_host_is_found_first(world: Recoveries, monkeypatch: pytest.MonkeyPatch) -> None:
    session = begun(world)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(HostNotFit, match="the backup needs 21 MiB of disk space"):
        backing_up.backup(session, world.folder / "mine.tar")
    assert not (world.folder / "mine.tar").exists()


def test_a_disk_of_this_host_that_fills_up_meanwhile_is_the_reason(
    world: Recoveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begun(world)
    free = [10**10, 2**20]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.pop(0)))
    world.refuses_backup = "write: No space left on device"
    with pytest.raises(HostNotFit, match=r"the backup needs 21 MiB of disk space at .*, and 1 MiB are free"):
        backing_up.backup(session, world.folder / "mine.tar")
    assert [path.name for path in world.folder.iterdir() if "mine" in path.name] == []


def test_a_control_plane_that_can_t_make_a_backup_says_why(world: Recoveries) -> None:
    session = begun(world)
    world.refuses_backup = "ERROR: the snapshot needs 9 MiB of disk space on cp1\nERROR: exit code 1 in main"
    with pytest.raises(LabStateError) as caught:
        backing_up.backup(session, world.folder / "mine.tar")
    assert (
        caught.value.message == "cp1 could not make the backup: the snapshot needs 9 MiB of disk space on cp1"
    )
    assert caught.value.hint
    assert [path.name for path in world.folder.iterdir() if "mine" in path.name] == []


def test_an_incomplete_transfer_becomes_no_backup(world: Recoveries) -> None:
    session = begun(world)
    whole = world.tar(session.lab.first)
    for cut in (0, 512, len(whole) // 2):
        world.sent = whole[:cut]
        with pytest.raises(LabStateError, match="what cp1 sent is not a complete backup"):
            backing_up.backup(session, world.folder / "mine.tar")
        assert [path.name for path in world.folder.iterdir() if "mine" in path.name] == []


# The drill that loses the quorum for good.


def lost(world: Recoveries, *names: str) -> Scene:
    """A drill's scene, whose fault was injected into these machines."""
    world.wipe(*names)
    session = world.session(world.wanted)
    nodes = tuple(node for node in session.lab.etcd_members if node.name in names)
    return Scene(session, nodes, lambda kind, what: None)


def heal(scene: Scene) -> None:
    with scene.session.workspace.lock():
        survivor.recover(scene)


@pytest.mark.parametrize(("members", "wiped"), [(3, ("cp1", "cp3")), (5, ("cp1", "cp2", "cp4"))])
def test_a_lost_quorum_comes_back_with_all_that_the_survivor_has(
    world: Recoveries, members: int, wiped: tuple[str, ...]
) -> None:
    backed_up(world, members)
    now = dict(world.keys("cp2" if members == 3 else "cp5"))
    heal(lost(world, *wiped))
    world.recovered(*CP[:members])
    assert world.keys("cp1") == now
    assert "/registry/configmaps/shop/orders" in now


def test_without_a_survivor_the_newest_backup_is_restored(world: Recoveries) -> None:
    _, backup = backed_up(world)
    heal(lost(world, *CP[:3]))
    as_in(world, backup, *CP[:3])


def test_without_a_survivor_and_a_backup_the_cluster_is_lost_and_the_message_says_so(world: Recoveries) -> None:
    begun(world)
    with pytest.raises(LabStateError, match="no etcd member has its data, and there is no backup") as caught:
        heal(lost(world, *CP[:3]))
    assert "`./inv destroy`, then `./inv up`" in caught.value.hint


def test_a_healthy_etcd_is_left_alone_so_that_a_fault_may_be_reverted_twice(world: Recoveries) -> None:
    begun(world)
    before = world.remember_planes()
    heal(lost(world))
    assert world.planes == before


def test_a_revert_that_was_killed_goes_on_with_the_same_backup(world: Recoveries) -> None:
    begun(world)
    scene = lost(world, "cp1", "cp3")
    world.break_at("restore cp2", "after", KilledError())
    with pytest.raises(KilledError):
        heal(scene)
    world.fault, world.dead = None, False
    heal(lost(world))
    world.recovered(*CP[:3])
    assert len(list(world.workspace.backups.glob("*.tar"))) == 1
