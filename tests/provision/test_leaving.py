"""drain.sh and remove-member.sh, run for real on a control plane of scratch folders (world.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.provision.world import World

MEMBERS = {
    "cp1": "11e1, started, cp1, https://192.168.56.11:2380, https://192.168.56.11:2379, false",
    "cp2": "22e2, started, cp2, https://192.168.56.12:2380, https://192.168.56.12:2379, false",
    "cp3": "33e3, started, cp3, https://192.168.56.13:2380, https://192.168.56.13:2379, false",
}
STATIC = "kube-system/kube-proxy-1 Running DaemonSet\nkube-system/etcd-w1 Running Node\n"
PODS = f"{STATIC}shop/web-1 Running ReplicaSet\nshop/db-0 Running StatefulSet\ndefault/done Succeeded\n"


def client(*names: str) -> str:
    """The client URLs of these members, a line each."""
    return "".join(f"https://192.168.56.1{name[-1]}:2379\n" for name in names)


@pytest.fixture
def cp1(tmp_path: Path) -> World:
    """The first of three healthy control planes; cp2's member leads etcd, and w1 has pods."""
    world = World(tmp_path / "cp1", "cp1")
    world.let(
        members="".join(f"{line}\n" for line in MEMBERS.values()),
        healthy=client("cp1", "cp2", "cp3"),
        leader=client("cp2"),
        node_pods=PODS,
        selected="",
        budgets_shop="",
        budgets_default="",
    )
    return world


def state(world: World, name: str) -> str:
    path = world.root / "state" / name
    return path.read_text() if path.exists() else ""


# Draining.


def test_a_node_is_drained_with_its_daemonsets_left_alone_and_once(cp1: World) -> None:
    ran = cp1.run("drain", "w1")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.partition("10s ")[2] for call in ran.changes] == [
        "annotate node w1 ha-lab/drained-by=up --overwrite",
        "drain w1 --ignore-daemonsets --delete-emptydir-data --timeout 60s",
    ]
    assert (cp1.root / "state/cordoned").exists()
    again = cp1.run("drain", "w1")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_a_drain_is_undone_unless_a_user_has_cordoned_the_node(cp1: World) -> None:
    cp1.run("drain", "w1")
    ran = cp1.run("drain", "w1", "--undo")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert not (cp1.root / "state/cordoned").exists()
    assert state(cp1, "drained-by") == ""
    again = cp1.run("drain", "w1", "--undo")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said
    cp1.let(cordoned="")  # by a user
    ran = cp1.run("drain", "w1", "--undo")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said


def test_a_node_that_the_cluster_does_not_have_is_unchanged(cp1: World) -> None:
    ran = cp1.run("drain", "w9")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said


def test_an_api_that_does_not_answer_is_not_taken_for_a_node_that_is_gone(cp1: World) -> None:
    cp1.let(api_gone="")
    for script in ("drain", "remove-member"):
        ran = cp1.run(script, "w9")
        assert (ran.code, ran.changes) == (1, []), ran.said


def test_pods_without_a_controller_are_lost_only_with_force(cp1: World) -> None:
    cp1.let(node_pods=f"{PODS}default/bare Running\nshop/other Pending\n")
    refused = cp1.run("drain", "w1")
    assert (refused.code, refused.changes) == (1, []), refused.said
    assert (
        "pods without a controller, which no controller would start again: default/bare, shop/other."
        in refused.said
    )
    ran = cp1.run("drain", "w1", "--timeout", "30", "--force")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert ran.changes[-1].endswith("--delete-emptydir-data --force --timeout 30s")


def test_a_drain_goes_on_after_a_transient_error(cp1: World) -> None:
    cp1.let(failing_drain="2")
    ran = cp1.run("drain", "w1", "--timeout", "70")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    left = [int(call.rpartition(" ")[2].removesuffix("s")) for call in ran.changes[1:]]
    # time.sh lets 20 s pass with each pause; on a busy machine real ones pass as well.
    assert len(left) == 3
    assert left[0] == 60, "a look at the node comes after that at the latest"
    assert 50 >= left[1] >= left[2] + 20


def test_a_node_whose_kubelet_is_silent_need_not_confirm_that_its_pods_have_ended(cp1: World) -> None:
    cp1.let(silent_node="")
    ran = cp1.run("drain", "w1")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call for call in ran.calls if " drain w1 " in call and "--skip-wait-for-delete-timeout 1" in call]


def test_a_drain_past_its_deadline_names_pods_and_budgets_and_is_reverted(cp1: World) -> None:
    cp1.let(
        drain_blocked="",
        budgets_shop="web 2 2 app=web,tier in (a,b),\nidle 0 1 app=idle,\n",
        selected="shop app=web,tier in (a,b)\n",
    )
    ran = cp1.run("drain", "w1", "--timeout", "50")
    assert ran.code == 1
    assert (
        "ERROR: w1: not drained after 50 s. Pods still on it: shop/web-1, shop/db-0, default/done; blocked by "
        "PodDisruptionBudget shop/web (2 healthy pods, 2 needed): add replicas to what it protects, or change "
        "it. Then repeat the command"
    ) in ran.said
    assert "Cannot evict pod" in ran.said
    assert ran.changes[-2].endswith("uncordon w1")
    assert not (cp1.root / "state/cordoned").exists()
    assert not (cp1.root / "state/drained-by").exists()


def test_a_node_that_was_cordoned_before_stays_cordoned(cp1: World) -> None:
    cp1.let(drain_blocked="", cordoned="")
    ran = cp1.run("drain", "w1", "--timeout", "10")
    assert ran.code == 1
    assert "no PodDisruptionBudget blocks them, see kubectl's messages above" in ran.said
    assert (cp1.root / "state/cordoned").exists()
    assert not (cp1.root / "state/drained-by").exists()


def test_a_cordon_that_a_killed_run_left_is_the_kit_s_own(cp1: World) -> None:
    cp1.let(drain_blocked="", cordoned="", drained_by="up\n")
    ran = cp1.run("drain", "w1", "--timeout", "10")
    assert ran.code == 1
    assert [call.partition("10s ")[2] for call in ran.changes[-2:]] == [
        "uncordon w1",
        "annotate node w1 ha-lab/drained-by-",
    ]
    assert not (cp1.root / "state/cordoned").exists()


def test_a_node_is_annotated_before_it_is_cordoned(cp1: World) -> None:
    cp1.let(failing_annotate="1")
    ran = cp1.run("drain", "w1")
    assert ran.code == 1
    assert not any(" drain w1 " in call for call in ran.calls)


# A machine that stays after all.


def test_the_next_run_ends_a_drain_that_was_abandoned_and_no_cordon_of_a_user_s(cp1: World) -> None:
    assert cp1.run("node").code == cp1.run("control-plane-init", secrets=True).code == 0
    cp1.let(cordoned="", drained_by="up\n")
    ran = cp1.run("control-plane-init", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.partition("10s ")[2] for call in ran.changes] == [
        "uncordon w1",
        "annotate node w1 ha-lab/drained-by-",
    ]
    cp1.let(cordoned="")
    again = cp1.run("control-plane-init", secrets=True)
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_coredns_is_spread_as_the_number_of_nodes_allows(cp1: World) -> None:
    """A lab that had one Kubernetes node has more now, then one again, then more."""
    assert cp1.run("node").code == cp1.run("control-plane-init", secrets=True).code == 0
    apart, replicas = cp1.root / "state/coredns-apart", cp1.root / "state/coredns-replicas"
    patch = cp1.root / "opt/patches/corednsdeployment+strategic.yaml"

    def found() -> tuple[str, bool, str]:
        ran = cp1.run("control-plane-init", secrets=True)
        assert ran.code == 0, ran.said
        return ran.last, apart.exists(), replicas.read_text().strip()

    apart.unlink()
    assert found() == ("ha-lab: changed", True, "2")
    assert found() == ("ha-lab: unchanged", True, "2")
    text = patch.read_text()
    patch.unlink()
    assert found() == ("ha-lab: changed", True, "1")
    assert found() == ("ha-lab: unchanged", True, "1")
    patch.write_text(text)
    assert found() == ("ha-lab: changed", True, "2")


def test_an_api_server_that_was_ended_is_put_back_where_its_machine_stays(cp1: World) -> None:
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    aside = "/etc/kubernetes/kube-apiserver.yaml.left"
    assert cp1.run("node").code == cp1.run("control-plane-init", secrets=True).code == 0
    ended = cp1.run("leave")
    assert (ended.code, ended.last) == (0, "ha-lab: changed"), ended.said
    assert (cp1.has(manifest), cp1.has(aside)) == (False, True)
    assert cp1.run("leave").last == "ha-lab: unchanged"
    ran = cp1.run("node")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert (cp1.has(manifest), cp1.has(aside)) == (True, False)
    assert cp1.run("node").last == "ha-lab: unchanged"


def test_a_reset_leaves_no_api_server_to_put_back(cp1: World) -> None:
    cp1.let(failing_init="1")
    assert cp1.run("node").code == 0
    assert cp1.run("control-plane-init", "--alone", secrets=True).code == 1
    aside = cp1.path("/etc/kubernetes/kube-apiserver.yaml.left")
    aside.touch()
    ran = cp1.run("control-plane-init", "--alone", secrets=True)
    assert ran.code == 0, ran.said
    assert not aside.exists()


def test_budgets_that_can_t_be_listed_are_not_taken_for_none(cp1: World) -> None:
    cp1.let(drain_blocked="")
    (cp1.root / "state/budgets-shop").unlink()
    ran = cp1.run("drain", "w1", "--timeout", "10")
    assert ran.code == 1
    assert "the API can't be asked for their PodDisruptionBudgets" in ran.said


@pytest.mark.parametrize(
    ("script", "words", "why"),
    [
        ("drain", (), "usage: drain.sh NAME"),
        ("drain", ("--force",), "usage: drain.sh NAME"),
        ("drain", ("w1", "--timeout", "0"), "--timeout needs a number of seconds"),
        ("drain", ("w1", "--grace"), "does not know the option --grace"),
        ("remove-member", (), "usage: remove-member.sh NAME"),
        ("remove-member", ("cp2", "--force"), "does not know the option --force"),
        ("remove-member", ("cp1",), "cp1 can't remove itself"),
    ],
)
def test_words_that_make_no_sense_change_nothing(
    cp1: World, script: str, words: tuple[str, ...], why: str
) -> None:
    ran = cp1.run(script, *words)
    assert (ran.code, ran.calls) == (1, [])
    assert why in ran.said


# Removing.


def test_a_control_plane_s_member_is_removed_before_its_node_and_once(cp1: World) -> None:
    ran = cp1.run("remove-member", "cp3")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.rpartition("https://192.168.56.13:2379 ")[2] for call in ran.changes[:1]] == [
        "member remove 33e3"
    ]
    assert ran.changes[1].endswith("delete node cp3 --wait=false --ignore-not-found")
    assert "cp3" not in state(cp1, "names") + state(cp1, "members")
    again = cp1.run("remove-member", "cp3")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_the_leader_hands_its_leadership_over_first(cp1: World) -> None:
    ran = cp1.run("remove-member", "cp2")
    assert ran.code == 0, ran.said
    assert [call.split()[-2:] for call in ran.changes[:2]] == [["move-leader", "11e1"], ["remove", "22e2"]]
    assert "--endpoints https://192.168.56.12:2379,https://192.168.56.11:2379 move-leader" in ran.changes[0]


def test_a_leadership_that_can_t_be_moved_does_not_keep_the_member(cp1: World) -> None:
    cp1.let(failing_move_leader="1")
    ran = cp1.run("remove-member", "cp2")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "etcd's leadership was not moved away from cp2" in ran.said


def test_a_lost_machine_s_member_is_removed_while_the_others_are_healthy(cp1: World) -> None:
    cp1.let(healthy=client("cp1", "cp3"), leader=client("cp1"))
    ran = cp1.run("remove-member", "cp2")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "22e2" not in state(cp1, "members")


def test_a_member_stays_when_the_others_would_have_no_quorum(cp1: World) -> None:
    cp1.let(healthy=client("cp1", "cp2"))
    ran = cp1.run("remove-member", "cp2")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert (
        "waiting for a quorum of etcd without cp2: only 1 of the 2 members that stay are healthy, and 2 are "
        "needed. Not healthy: cp3 (https://192.168.56.13:2379); start those first"
    ) in ran.said
    assert "cp2" in state(cp1, "names")


def test_two_members_become_one(cp1: World) -> None:
    cp1.let(members=f"{MEMBERS['cp1']}\n{MEMBERS['cp2']}\n")
    assert cp1.run("remove-member", "cp2").code == 0
    assert state(cp1, "members") == f"{MEMBERS['cp1']}\n"


def test_the_only_voting_member_stays(cp1: World) -> None:
    learner = MEMBERS["cp1"].replace("false", "true")
    cp1.let(members=f"{learner}\n{MEMBERS['cp2']}\n")
    ran = cp1.run("remove-member", "cp2")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "cp2 has the only voting member of etcd" in ran.said


def test_an_etcd_without_quorum_is_reported_and_nothing_removed(cp1: World) -> None:
    cp1.let(no_quorum="")
    ran = cp1.run("remove-member", "cp2")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert (
        "waiting for etcd (it responds only while a majority of its members is running): Error: context"
        in ran.said
    )


def test_a_member_that_never_started_is_found_by_its_address_alone(cp1: World) -> None:
    unstarted = "44e4, unstarted, , https://192.168.56.14:2380, , true"
    cp1.let(members="".join(f"{line}\n" for line in (*MEMBERS.values(), unstarted)))
    assert cp1.run("remove-member", "cp4").last == "ha-lab: unchanged"
    # A started member of that address is another node's.
    assert cp1.run("remove-member", "cp4", "192.168.56.13").last == "ha-lab: unchanged"
    ran = cp1.run("remove-member", "cp4", "192.168.56.14")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "44e4" not in state(cp1, "members")


def test_a_learner_is_removed_whoever_is_healthy(cp1: World) -> None:
    cp1.let(members=f"{MEMBERS['cp1']}\n{MEMBERS['cp3'].replace('false', 'true')}\n", healthy="")
    assert cp1.run("remove-member", "cp3").code == 0


def test_etcd_s_refusal_right_after_another_change_is_waited_out(cp1: World) -> None:
    cp1.let(failing_remove="2")
    ran = cp1.run("remove-member", "cp3")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert sum("member remove 33e3" in call for call in ran.calls) == 3


def test_etcd_is_not_asked_about_a_worker(cp1: World) -> None:
    ran = cp1.run("remove-member", "w2", "--node-only")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert not any(call.startswith("etcdctl") for call in ran.calls)
    assert cp1.run("remove-member", "w2", "--node-only").last == "ha-lab: unchanged"


def test_a_node_that_the_api_keeps_is_reported(cp1: World) -> None:
    cp1.let(finalizer="")
    ran = cp1.run("remove-member", "w2", "--node-only")
    assert ran.code == 1
    assert "waiting for the API to delete the Node w2: the API still has the Node" in ran.said
