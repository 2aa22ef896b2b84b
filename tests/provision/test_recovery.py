"""backup.sh and recover.sh, run for real on control planes of scratch folders (world.py)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from lab.workspace.backup import SHARED_PKI, SNAPSHOT, snapshot_problem
from tests.provision.test_repair import again, made
from tests.provision.world import Ran, World
from tests.unit.recoveries import archive

DATA = "/var/lib/etcd"
MANIFESTS = "/etc/kubernetes/manifests"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
CLUSTER = "cp1=https://192.168.56.11:2380,cp2=https://192.168.56.12:2380,cp3=https://192.168.56.13:2380"
DATABASE = b"etcd's pages".ljust(1024, b".")
SNAPSHOT_FILE = DATABASE + hashlib.sha256(DATABASE).digest()
SHA256 = hashlib.sha256(SNAPSHOT_FILE).hexdigest()
FOUND = '{"hash":1173045573,"revision":12,"totalKey":2,"totalSize":1024,"version":"3.6.0"}\n'
KEYS = '{"header":{"revision":12},"kvs":[{"key":"L3JlZ2lzdHJ5L2E=","mod_revision":5}],"count":1}\n'
BUMP = "1796000000000"


@pytest.fixture
def cp2(tmp_path: Path) -> World:
    """A complete control plane of a healthy lab, whose etcd has some data."""
    world = made(tmp_path, "cp2")
    (world.path(DATA) / "member/snap").mkdir()
    (world.path(DATA) / "member/snap/db").write_bytes(DATABASE)
    (world.root / "state/snapshot").write_bytes(SNAPSHOT_FILE)
    world.let(snapshot_status=FOUND, keys=KEYS)
    return world


BACKUP = archive({"status.json": b"{}", SNAPSHOT: SNAPSHOT_FILE, "manifest.json": b"{}" * 9999})


def part(world: World, *words: str) -> Ran:
    """Run one part of a recovery with this run's secrets."""
    return world.run("recover", *words, secrets=True)


def stopped(world: World) -> World:
    assert part(world, "stop").code == 0
    received(world)
    return world


def received(world: World) -> None:
    ran, _ = world.stream("recover", "receive", SHA256, stdin=BACKUP)
    assert ran.code == 0, ran.said


def restored(world: World, token: str = "recovery-1") -> Ran:  # noqa: S107  no secret
    return part(world, "restore", token, CLUSTER, BUMP)


def running(world: World) -> list[str]:
    return [name for name in PARTS if world.has(f"{MANIFESTS}/{name}.yaml")]


# The backup.


def test_a_backup_has_the_verified_snapshot_its_keys_and_the_common_keys(cp2: World) -> None:
    ran, output = cp2.stream("backup")
    assert ran.code == 0, ran.said
    with tarfile.open(fileobj=io.BytesIO(output)) as tar:
        files = {each.name: tar.extractfile(each) for each in tar.getmembers() if each.isfile()}
        assert set(files) == {"status.json", "keys.json", SNAPSHOT, *(f"pki/{name}" for name in SHARED_PKI)}
        assert {each.mode & 0o077 for each in tar.getmembers()} == {0}
        contents = {name: file.read() for name, file in files.items() if file}
    assert contents[SNAPSHOT] == SNAPSHOT_FILE
    assert snapshot_problem(io.BytesIO(contents[SNAPSHOT])) is None
    assert json.loads(contents["status.json"])["revision"] == 12
    assert contents["keys.json"].decode() == KEYS
    assert contents["pki/sa.key"] == cp2.path("/etc/kubernetes/pki/sa.key").read_bytes()
    assert [call for call in ran.changes if "snapshot save" in call] == ran.changes
    assert not cp2.has("/var/lib/ha-lab-backup"), "etcd's secrets stay on the machine"


def test_the_keys_are_those_of_the_snapshot_s_own_revision(cp2: World) -> None:
    ran, _ = cp2.stream("backup")
    [asked] = [call for call in ran.calls if " get /registry/ " in call]
    assert asked.endswith("--rev 12")


def test_a_backup_leaves_nothing_where_etcd_does_not_send_it(cp2: World) -> None:
    cp2.let(no_quorum="")
    ran, output = cp2.stream("backup")
    assert (ran.code, output) == (1, b"")
    assert not cp2.has("/var/lib/ha-lab-backup")


def test_a_backup_without_one_of_the_common_keys_is_none(cp2: World) -> None:
    cp2.path("/etc/kubernetes/pki/sa.key").unlink()
    ran, output = cp2.stream("backup")
    assert (ran.code, output) == (1, b"")
    assert "sa.key" in ran.said


def test_a_full_disk_of_the_control_plane_is_found_before_etcd_sends_anything(cp2: World) -> None:
    df = cp2.root / "bin/df"
    df.write_text(f"#!/bin/sh\necho Avail\necho {len(DATABASE)}\n")
    df.chmod(0o755)
    ran, output = cp2.stream("backup")
    assert (ran.code, output, ran.changes) == (1, b"", [])
    assert "ERROR: the snapshot needs 1 MiB of disk space on cp2, and 0 MiB are free" in ran.said
    assert not cp2.has("/var/lib/ha-lab-backup")


def test_the_keys_alone_need_no_majority(cp2: World) -> None:
    ran, output = cp2.stream("backup", "--keys")
    assert (ran.code, output.decode(), ran.changes) == (0, KEYS, [])
    assert "--consistency s" in ran.calls[-1]


# What a machine has.


def test_a_control_plane_reports_on_its_etcd_and_nothing_is_changed(cp2: World) -> None:
    ran = cp2.run("recover", "check")
    assert (ran.code, ran.changes) == (0, [])
    lines = dict(line.partition(" ")[::2] for line in ran.said.splitlines())
    assert int(lines.pop("free")) > 0
    assert lines == {"member": "yes", "etcd": "3.6.8", "token": "none"}


def test_a_machine_that_never_joined_is_no_member(tmp_path: Path) -> None:
    world = World(tmp_path / "cp3", "cp3")
    assert "member no\n" in world.run("recover", "check").said


def test_a_kubelet_that_can_t_run_is_a_problem_before_anything_is_touched(cp2: World) -> None:
    cp2.path("/var/lib/kubelet/config.yaml").write_text("")
    assert "problem /var/lib/kubelet/config.yaml is empty\n" in cp2.run("recover", "check").said


# The end of everything that uses etcd.


def test_etcd_and_what_uses_it_stop_and_the_kubelet_forgets_how_often_they_failed(cp2: World) -> None:
    ran = part(cp2, "stop")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert running(cp2) == []
    assert ran.changes == ["systemctl restart kubelet"]
    assert cp2.run("recover", "quiet").code == 0
    again = part(cp2, "stop")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_an_api_server_that_goes_on_over_a_dead_etcd_keeps_the_data_from_being_touched(cp2: World) -> None:
    stopped(cp2)
    cp2.let(runs_kube_apiserver="")
    quiet = cp2.run("recover", "quiet")
    assert (quiet.code, quiet.said) == (1, "kube-apiserver still on cp2\n")
    ran = restored(cp2)
    assert ran.code == 1
    assert "etcd, or what uses it, runs on cp2, so its data was not touched" in ran.said
    assert not [call for call in ran.calls if call.startswith("etcdutl")]
    assert (cp2.path(DATA) / "member/snap/db").read_bytes() == DATABASE


def test_an_api_server_that_does_not_end_without_its_etcd_is_killed(cp2: World) -> None:
    cp2.let(runs_kube_apiserver="")
    ran = part(cp2, "stop")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call for call in ran.changes if "pkill" in call] == ["pkill -KILL -x kube-apiserver"]
    assert running(cp2) == []


def test_what_can_t_be_killed_either_is_named_when_the_wait_for_it_ends(cp2: World) -> None:
    cp2.let(etcd_hangs="")
    ran = part(cp2, "stop")
    assert ran.code == 1
    assert "waiting for the kubelet to stop etcd and what uses it: etcd still on cp2" in ran.said


def test_a_kubelet_that_did_not_run_is_started_to_stop_them(cp2: World) -> None:
    (cp2.root / "state/active-kubelet").unlink()
    assert "systemctl start kubelet" in part(cp2, "stop").changes


# The restore.


def test_a_member_is_restored_with_its_own_name_and_address_into_the_one_cluster(cp2: World) -> None:
    stopped(cp2)
    ran = restored(cp2)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call for call in ran.changes if call.startswith("etcdutl")] == [
        f"etcdutl snapshot restore {DATA}/recovery/snapshot.db --name cp2 --initial-cluster {CLUSTER} "
        "--initial-cluster-token recovery-1 --initial-advertise-peer-urls https://192.168.56.12:2380 "
        f"--data-dir {DATA}/recovery/restored --bump-revision {BUMP} --mark-compacted"
    ]
    data = cp2.path(DATA)
    assert (data / "member/snap/db").read_bytes() == SNAPSHOT_FILE
    assert (data / "member").stat().st_mode & 0o777 == 0o700
    assert (data / "before-recovery/member/snap/db").read_bytes() == DATABASE
    assert sorted(path.name for path in data.iterdir()) == ["before-recovery", "member"]
    assert "token recovery-1\n" in cp2.run("recover", "check").said
    assert cp2.secrets_left() == []


def test_a_member_is_restored_once_for_each_recovery(cp2: World) -> None:
    restored(stopped(cp2))
    ran = restored(cp2)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said


def test_data_that_was_lost_is_not_needed(cp2: World) -> None:
    stopped(cp2)
    db = cp2.path(DATA) / "member/snap/db"
    db.unlink()
    for folder in (db.parent, db.parent.parent):
        folder.rmdir()
    assert restored(cp2).code == 0
    assert db.read_bytes() == SNAPSHOT_FILE


def test_the_previous_data_is_kept_however_often_a_recovery_is_interrupted(cp2: World) -> None:
    restored(stopped(cp2))
    received(cp2)
    assert restored(cp2, "recovery-2").code == 0
    assert (cp2.path(DATA) / "before-recovery/member/snap/db").read_bytes() == DATABASE


def test_the_next_recovery_keeps_the_data_that_etcd_has_by_then(cp2: World) -> None:
    restored(stopped(cp2))
    assert part(cp2, "finish").code == 0
    received(cp2)
    assert restored(cp2, "recovery-2").code == 0
    assert (cp2.path(DATA) / "before-recovery/member/snap/db").read_bytes() == SNAPSHOT_FILE


@pytest.mark.parametrize("moment", ["etcdutl snapshot restore", "kubeadm init phase certs all"])
def test_a_restore_that_was_killed_is_repeated(cp2: World, moment: str) -> None:
    stopped(cp2)
    cp2.let(killed_at=moment)
    assert restored(cp2).code != 0
    (cp2.root / "state/killed-at").unlink()
    assert (cp2.path(DATA) / "member/snap/db").read_bytes() == DATABASE
    received(cp2)
    assert restored(cp2).code == 0
    assert (cp2.path(DATA) / "member/snap/db").read_bytes() == SNAPSHOT_FILE


def test_a_snapshot_that_did_not_arrive_whole_is_not_restored(cp2: World) -> None:
    part(cp2, "stop")
    ran, _ = cp2.stream("recover", "receive", "0" * 64, stdin=BACKUP)
    assert ran.code == 1
    assert "did not arrive on cp2 as it was sent" in ran.said
    cut, _ = cp2.stream("recover", "receive", SHA256, stdin=BACKUP[:900])
    assert cut.code != 0


def test_a_snapshot_has_the_cluster_s_secrets_so_only_root_reads_it(cp2: World) -> None:
    stopped(cp2)
    stage = cp2.path(f"{DATA}/recovery")
    assert {path.stat().st_mode & 0o077 for path in (stage, stage / SNAPSHOT)} == {0}


def give(world: World, **changed: str) -> None:
    """Let the backup have these common keys, and the machine's own else."""
    pki = world.path("/etc/kubernetes/pki")
    names = {name: (pki / name).read_text() for name in SHARED_PKI}
    world.given = {f"pki/{name}": text for name, text in (names | changed).items()}


def test_common_keys_that_are_as_in_the_backup_change_nothing(cp2: World) -> None:
    give(cp2)
    before = cp2.path("/etc/kubernetes/pki/etcd/peer.crt").stat().st_ino
    restored(stopped(cp2))
    assert cp2.path("/etc/kubernetes/pki/etcd/peer.crt").stat().st_ino == before
    assert not cp2.has("/run/ha-lab/pki")


def test_a_machine_that_was_made_again_gets_the_backup_s_keys_and_certificates_of_its_cas(cp2: World) -> None:
    own = cp2.path("/etc/kubernetes/pki/ca.crt").read_text()
    give(cp2, **{"etcd/ca.crt": f"# the former CA\n{own}", "sa.key": "its former key\n"})
    pki = cp2.path("/etc/kubernetes/pki")
    before = {
        name: (pki / name).stat().st_ino
        for name in ("etcd/peer.crt", "apiserver-etcd-client.key", "apiserver.crt")
    }
    restored(stopped(cp2))
    assert (pki / "sa.key").read_text() == "its former key\n"
    assert (pki / "sa.key").stat().st_mode & 0o777 == 0o600
    after = {name: (pki / name).stat().st_ino for name in before}
    assert [name for name in before if before[name] != after[name]] == [
        "etcd/peer.crt",
        "apiserver-etcd-client.key",
    ]


# The start.


def test_parts_start_one_by_one_and_the_manifests_are_those_of_before(cp2: World) -> None:
    texts = {name: cp2.path(f"{MANIFESTS}/{name}.yaml").read_text() for name in PARTS}
    restored(stopped(cp2))
    for number, name in enumerate(PARTS, 1):
        ran = part(cp2, "start", name)
        assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
        assert running(cp2) == list(PARTS[:number])
        assert part(cp2, "start", name).last == "ha-lab: unchanged"
    assert {name: cp2.path(f"{MANIFESTS}/{name}.yaml").read_text() for name in PARTS} == texts
    assert part(cp2, "finish").code == 0
    assert not cp2.has("/etc/kubernetes/aside-by-recovery")
    assert "token none\n" in cp2.run("recover", "check").said
    assert cp2.run("probe").last == "joined"
    assert (again(cp2).last) == "ha-lab: unchanged"


def test_a_manifest_that_is_nowhere_is_written_again(cp2: World) -> None:
    cp2.path(f"{MANIFESTS}/etcd.yaml").unlink()
    restored(stopped(cp2))
    assert part(cp2, "start", "etcd").code == 0
    assert running(cp2) == ["etcd"]


def test_a_member_without_a_majority_is_waited_for_and_the_reason_is_etcd_s(cp2: World) -> None:
    restored(stopped(cp2))
    cp2.let(no_majority="")
    ran = part(cp2, "start", "etcd")
    assert ran.code == 1
    assert "waiting for etcd to answer with a majority of the restored members" in ran.said
    assert "failed to commit proposal" in ran.said


def test_nodes_of_machines_that_were_removed_since_are_deleted(cp2: World) -> None:
    names = (cp2.root / "state/names").read_text()
    cp2.let(names=f"{names} w9")
    ran = part(cp2, "nodes")
    assert ran.code == 0, ran.said
    assert [call.partition("10s ")[2] for call in ran.changes] == [
        "--server https://192.168.56.12:6443 delete node w9 --wait=false --ignore-not-found"
    ]


def test_the_subnet_of_a_node_is_asked_of_the_own_api_server(cp2: World) -> None:
    assert cp2.run("recover", "subnet", "w1").said == ""
    cp2.let(subnet="10.244.3.0/24")
    assert cp2.run("recover", "subnet", "w1").said == "10.244.3.0/24"


@pytest.mark.parametrize(
    ("now", "removed"),
    [(["10.244.3.0/24"], False), (["10.244.4.0/24"], True), ([], True)],
    ids=["the same", "another", "no Node"],
)
def test_no_pod_starts_in_a_subnet_that_is_not_of_its_node_any_more(
    cp2: World, now: list[str], *, removed: bool
) -> None:
    flannel = cp2.path("/run/flannel/subnet.env")
    flannel.parent.mkdir()
    flannel.write_text("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n")
    network_of(cp2, "10-flannel.conflist")
    cp2.let(bridge="cni0 UP 10.244.3.1/24\n", pods="a1 10.244.3.4\nb2 \n", agents="b2\n")
    ran = cp2.run("restart-kubelet", *now)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert flannel.exists() is not removed
    # The agent first: it could write the file again.
    former = ["systemctl stop kubelet", "crictl stopp b2", "crictl stopp a1", "ip link delete cni0"]
    assert ran.changes == [*(former if removed else []), "systemctl restart kubelet"]


def network_of(world: World, name: str) -> None:
    """Let this be the first configuration of the pods' network."""
    folder = world.path("/etc/cni/net.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


@pytest.mark.parametrize("flannel", [False, True])
def test_another_pod_network_is_left_alone(cp2: World, *, flannel: bool) -> None:
    network_of(cp2, "10-calico.conflist")
    if flannel:  # it was there before
        network_of(cp2, "10-flannel.conflist")
        cp2.path("/run/flannel").mkdir()
        cp2.path("/run/flannel/subnet.env").write_text("FLANNEL_SUBNET=10.244.7.1/24\n")
    assert cp2.run("restart-kubelet", "10.244.3.0/24").changes == ["systemctl restart kubelet"]
