"""The drills' faults in etcd, by the real provision/drill/fault.sh on a control plane of scratch folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.drill.scene import FAULTS
from tests.provision.test_leaving import MEMBERS, state
from tests.provision.test_repair import made
from tests.provision.world import Ran, World

MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
PARKED = "/etc/kubernetes/parked-by-drill"


@pytest.fixture
def cp2(tmp_path: Path) -> World:
    """A complete control plane of three, whose etcd has some data."""
    world = made(tmp_path, "cp2")
    snap = world.path("/var/lib/etcd/member") / "snap"
    snap.mkdir()
    (snap / "db").write_bytes(b"." * 4096)
    world.let(members="".join(f"{line}\n" for line in MEMBERS.values()))
    # It reads the machine's settings where they are on machines.
    text = FAULTS.read_text().replace("/opt/ha-lab/node.env", f"{world.root}/opt/node.env")
    (world.root / "opt/fault.sh").write_text(text)
    shutil.copymode(world.root / "opt/recover.sh", world.root / "opt/fault.sh")
    return world


def fault(world: World, name: str, action: str, *words: str) -> Ran:
    ran = world.run("fault", name, action, *words)
    assert ran.code == 0, ran.said
    return ran


def test_lost_data_is_gone_and_the_manifest_is_where_a_recovery_takes_it_from(cp2: World) -> None:
    text = cp2.path(MANIFEST).read_text()
    fault(cp2, "etcd_data_lost", "inject")
    assert not cp2.has("/var/lib/etcd/member")
    assert not cp2.has(MANIFEST)
    cp2.let(no_majority="")
    ended = cp2.run("recover", "start", "etcd", secrets=True)
    assert "waiting for etcd to answer" in ended.said
    assert cp2.path(MANIFEST).read_text() == text
    fault(cp2, "etcd_data_lost", "heal")


def test_a_small_quota_goes_as_it_came(cp2: World) -> None:
    text = cp2.path(MANIFEST).read_text()
    fault(cp2, "etcd_quota_small", "inject")
    assert f"    - etcd\n    - --quota-backend-bytes={16 * 2**20 + 4096}\n" in cp2.path(MANIFEST).read_text()
    assert cp2.path(MANIFEST).stat().st_mode & 0o777 == 0o600
    fault(cp2, "etcd_quota_small", "heal")
    assert cp2.path(MANIFEST).read_text() == text
    fault(cp2, "etcd_quota_small", "heal")
    assert cp2.path(MANIFEST).read_text() == text
    assert not cp2.has("/etc/kubernetes/etcd.yaml.drill")


def test_etcd_is_filled_until_it_raises_its_alarm_and_the_manual_s_way_ends_it(cp2: World) -> None:
    fault(cp2, "etcd_space_filled", "inject")
    assert state(cp2, "filled").strip() == "16000000"
    ran = fault(cp2, "etcd_space_filled", "heal")
    commands = ("del", "compact", "defrag", "alarm disarm")
    assert [word for call in ran.changes for word in commands if f" {word}" in call] == [
        *("del", "compact", "defrag", "defrag", "defrag", "alarm disarm")
    ]
    assert state(cp2, "defragmented").splitlines() == [f"https://192.168.56.1{n}:2379" for n in (1, 2, 3)]
    again = fault(cp2, "etcd_space_filled", "heal")
    assert again.changes == []


def test_a_downgrade_is_validated_enabled_and_cancelled(cp2: World) -> None:
    ran = fault(cp2, "etcd_downgrade_enabled", "inject", "3.6")
    assert [call.split("downgrade ")[1] for call in ran.changes] == ["validate 3.6", "enable 3.6"]
    fault(cp2, "etcd_downgrade_enabled", "heal")
    fault(cp2, "etcd_downgrade_enabled", "heal")  # that there is none is no failure


def test_a_downgrade_that_etcd_refuses_is_not_enabled(cp2: World) -> None:
    cp2.let(failing_downgrade="1")
    ran = cp2.run("fault", "etcd_downgrade_enabled", "inject", "3.6")
    assert (ran.code, [call for call in ran.changes if "enable" in call]) == (1, [])


def test_a_downgrade_that_can_t_be_cancelled_is_a_failure(cp2: World) -> None:
    cp2.let(failing_downgrade="1")
    ran = cp2.run("fault", "etcd_downgrade_enabled", "heal")
    assert ran.code == 1
    assert "context deadline exceeded" in ran.said


def test_a_member_is_replaced_by_a_learner_that_is_promoted(cp2: World) -> None:
    fault(cp2, "etcd_member_replaced", "inject")
    assert "cp2" not in state(cp2, "members")
    assert not cp2.has("/var/lib/etcd/member")
    assert sorted(path.name for path in cp2.path(PARKED).iterdir()) == ["etcd.yaml", "kube-apiserver.yaml"]
    cp2.let(failing_promote="2")
    fault(cp2, "etcd_member_replaced", "heal")
    assert "9999, started, cp2, " in state(cp2, "members")
    assert "9999" in state(cp2, "members").splitlines()[-1]
    assert state(cp2, "members").strip().endswith("false")
    assert "- --initial-cluster-state=existing\n" in cp2.path(MANIFEST).read_text()
    assert cp2.has("/etc/kubernetes/manifests/kube-apiserver.yaml")
    assert not list(cp2.path(PARKED).iterdir())
    assert [call for call in fault(cp2, "etcd_member_replaced", "heal").changes if "member" in call] == []


def test_a_new_member_knows_the_others_by_the_names_and_addresses_of_now(cp2: World) -> None:
    text = cp2.path(MANIFEST).read_text()
    flag = "    - --initial-cluster="
    cp2.path(MANIFEST).write_text(
        text.replace("    - etcd\n", f"    - etcd\n{flag}cp2=https://192.168.56.12:2380\n")
    )
    fault(cp2, "etcd_member_replaced", "inject")
    fault(cp2, "etcd_member_replaced", "heal")
    [line] = [line for line in cp2.path(MANIFEST).read_text().splitlines() if line.startswith(flag)]
    assert sorted(line.removeprefix(flag).split(",")) == [
        f"cp{number}=https://192.168.56.1{number}:2380" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("moment", ["member remove", "pgrep -x etcd"])
def test_a_replacement_that_was_killed_is_completed(cp2: World, moment: str) -> None:
    cp2.let(killed_at=moment)
    assert cp2.run("fault", "etcd_member_replaced", "inject").code != 0
    (cp2.root / "state/killed-at").unlink()
    fault(cp2, "etcd_member_replaced", "heal")
    assert cp2.has(MANIFEST)
    assert cp2.has("/etc/kubernetes/manifests/kube-apiserver.yaml")
    assert "cp2" in state(cp2, "members")
