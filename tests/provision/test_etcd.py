"""An etcd machine, which is no Kubernetes node, and the control plane that uses it from elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.provision.test_recovery import BACKUP, FOUND, KEYS, SHA256, SNAPSHOT_FILE
from tests.provision.world import Ran, World

PKI = "/etc/kubernetes/pki"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
DROP_IN = "/etc/systemd/system/kubelet.service.d/20-etcd-service-manager.conf"
ETCD_KEY = "-----BEGIN RSA PRIVATE KEY-----\netcd's CA's\n-----END RSA PRIVATE KEY-----\n"
CERTIFICATES = tuple(
    f"kubeadm init phase certs {name} --config"
    for name in ("etcd-server", "etcd-peer", "etcd-healthcheck-client")
)
PEERS = {number: f"https://192.168.63.3{number}" for number in (1, 2, 3)}
OTHERS = "".join(
    f"{number * 1111}, started, etcd{number}, {PEERS[number]}:2380, {PEERS[number]}:2379, false\n"
    for number in (1, 3)
)
FORMER = f"2222, started, etcd2, {PEERS[2]}:2380, {PEERS[2]}:2379, false\n"


def machine(path: Path, name: str = "etcd2") -> World:
    """A machine of the example that has just booted and was prepared, with etcd's CA's key for this run."""
    world = World(path, name, "external-etcd")
    world.given["etcd-ca.key"] = ETCD_KEY
    world.let(enabled_containerd="", active_containerd="")
    return world


@pytest.fixture
def fresh(tmp_path: Path) -> World:
    return machine(tmp_path)


@pytest.fixture
def member(fresh: World) -> World:
    """A complete member."""
    done(fresh.run("etcd", secrets=True))
    fresh.path("/var/lib/etcd/member").mkdir(parents=True)
    fresh.let(members=OTHERS + FORMER)
    return fresh


def done(ran: Ran, last: str = "ha-lab: changed") -> Ran:
    assert (ran.code, ran.last) == (0, last), ran.said
    return ran


def probe(world: World) -> str:
    return world.run("probe").said.split("\n")[-2]


def log_says(world: World, text: str) -> None:
    folder = world.path("/var/log/pods/kube-system_etcd-etcd2_0/etcd/0.log")
    folder.parent.mkdir(parents=True)
    folder.write_text(f"2026-11-30T15:00:00Z stderr F {text}\n")


def test_a_new_etcd_begins_with_all_members_at_once(fresh: World) -> None:
    assert probe(fresh) == "fresh"
    ran = done(fresh.run("etcd", secrets=True))
    given = (fresh.root / "state/initial-cluster").read_text().splitlines()
    assert given == [
        f"initial-cluster etcd1={PEERS[1]}:2380,etcd2={PEERS[2]}:2380,etcd3={PEERS[3]}:2380",
        "initial-cluster-state new",
    ]
    assert [call.partition(" --config")[0] + " --config" for call in ran.changes if " certs " in call] == [
        *CERTIFICATES
    ]
    assert (
        fresh.path("/var/lib/kubelet/config.yaml").read_text().count("staticPodPath: /etc/kubernetes/manifests")
        == 1
    )
    assert "ExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml" in fresh.path(DROP_IN).read_text()
    assert ran.changes.index("systemctl daemon-reload") < ran.changes.index("systemctl restart kubelet")
    assert not [call for call in ran.changes if call.startswith(("kubectl", "kubeadm join", "kubeadm init --"))]
    assert not [call for call in ran.changes if " member " in call]


def test_a_second_run_changes_nothing_of_etcd(member: World) -> None:
    assert probe(member) == "joined"
    assert done(member.run("etcd", "--existing", secrets=True), "ha-lab: unchanged").changes == []


def test_no_key_of_etcd_s_ca_stays_on_the_machine(fresh: World) -> None:
    done(fresh.run("etcd", secrets=True))
    assert not fresh.path(f"{PKI}/etcd/ca.key").is_symlink()
    assert not fresh.has("/run/ha-lab/etcd-ca.key")
    contents = [path.read_bytes() for path in (fresh.root / "etc").rglob("*") if path.is_file()]
    assert not [content for content in contents if b"etcd's CA's" in content]


def test_without_the_key_nothing_is_signed_and_it_is_said(fresh: World) -> None:
    fresh.given.clear()
    ran = fresh.run("etcd", secrets=True)
    assert ran.code == 1
    assert "etcd2 needs a certificate of etcd's CA, and was not given its key for this run" in ran.said
    assert not [call for call in ran.changes if "kubeadm" in call]


def test_a_machine_that_was_made_again_joins_as_a_learner_and_its_former_member_goes(fresh: World) -> None:
    fresh.let(members=OTHERS + FORMER)
    ran = done(fresh.run("etcd", "--existing", secrets=True))
    changes = [call.split(" --endpoints ")[1].partition(" ")[2] for call in ran.changes if "etcdctl" in call]
    assert changes == [
        "member remove 2222",
        f"member add etcd2 --learner --peer-urls {PEERS[2]}:2380",
        "member promote 9999",
    ]
    given = (fresh.root / "state/initial-cluster").read_text().splitlines()
    assert given == [
        f"initial-cluster etcd1={PEERS[1]}:2380,etcd3={PEERS[3]}:2380,etcd2={PEERS[2]}:2380",
        "initial-cluster-state existing",
    ]


def test_an_addition_that_was_interrupted_is_not_made_twice(fresh: World) -> None:
    fresh.let(members=f"{OTHERS}9999, unstarted, , {PEERS[2]}:2380, , true\n")
    ran = done(fresh.run("etcd", "--existing", secrets=True))
    assert [call for call in ran.changes if "member" in call and "promote" not in call] == []


def test_one_learner_is_waited_for_until_it_votes(fresh: World) -> None:
    fresh.let(members=OTHERS, failing_add="2", failing_promote="2")
    ran = done(fresh.run("etcd", "--existing", secrets=True))
    assert len([call for call in ran.changes if "member add" in call]) == 3
    assert len([call for call in ran.changes if "member promote" in call]) == 3


def test_a_member_with_data_starts_before_the_others_are_asked(member: World) -> None:
    """After a power cut the others may have no majority without it."""
    member.let(no_quorum="")
    (member.root / "state/active-kubelet").unlink()
    ran = done(member.run("etcd", "--existing", secrets=True))
    assert [call for call in ran.changes if call != "systemctl start kubelet"] == []
    assert not [call for call in ran.calls if "member list" in call]


def test_a_member_that_was_removed_starts_over(member: World) -> None:
    log_says(member, "the member has been permanently removed from the cluster")
    member.let(
        members=OTHERS,
        crashing=str(member.path("/var/log/pods/kube-system_etcd-etcd2_0/etcd")),
        failing_health="9",
    )
    assert probe(member) == "partial"
    before = member.path("/var/lib/etcd/member")
    (before / "old").touch()
    ran = member.run("etcd", "--existing", secrets=True)
    assert "this machine's member is of no use any more" in ran.said
    assert "member add etcd2" in "\n".join(ran.changes)
    assert not (before / "old").exists()


def test_a_member_of_another_etcd_starts_over(member: World) -> None:
    """Such as one that was not complete when the others were restored from a backup."""
    member.let(members=OTHERS, failing_health="9", learner="")
    before = member.path("/var/lib/etcd/member")
    (before / "old").touch()
    ran = member.run("etcd", "--existing", secrets=True)
    assert "this machine's member belongs to another etcd than the other members" in ran.said
    assert "member add etcd2" in "\n".join(ran.changes)
    assert not (before / "old").exists()


def test_a_drop_in_that_systemd_has_not_read_is_read(member: World) -> None:
    """The run that wrote it was killed."""
    (member.root / "state/read-drop-ins").write_text("")
    ran = done(member.run("etcd", "--existing", secrets=True), "ha-lab: unchanged")
    assert ran.changes == ["systemctl daemon-reload", "systemctl restart kubelet"]


def test_a_link_that_leads_nowhere_is_removed(member: World) -> None:
    """A signing that was killed leaves it; chmod fails for it."""
    link = member.path(f"{PKI}/etcd/ca.key")
    link.symlink_to("/run/ha-lab/etcd-ca.key")
    assert member.run("facts", "open-keys").said.partition("== open-keys 0\n")[2].startswith("\n")
    assert member.run("node", secrets=True).code == 0
    done(member.run("etcd", "--existing", secrets=True), "ha-lab: unchanged")
    assert not link.is_symlink()


def test_a_machine_that_was_made_again_is_restored_from_a_backup(fresh: World) -> None:
    (fresh.root / "state/snapshot").write_bytes(SNAPSHOT_FILE)
    fresh.let(snapshot_status=FOUND, keys=KEYS)
    for part in (
        ["stop"],
        ["receive"],
        ["restore", "recovery-1", "etcd2=https://192.168.63.32:2380", "1796000000000"],
    ):
        if part == ["receive"]:
            ran, _ = fresh.stream("recover", "receive", SHA256, stdin=BACKUP)
        else:
            ran = fresh.run("recover", *part, secrets=True)
        assert ran.code == 0, ran.said
    done(fresh.run("recover", "start", "etcd", secrets=True))
    assert fresh.has(DROP_IN)
    assert fresh.has(MANIFEST)
    assert probe(fresh) == "partial"
    fresh.run("recover", "finish", secrets=True)
    assert probe(fresh) == "joined"


def test_certificates_are_renewed_with_the_lab_s_configuration(tmp_path: Path) -> None:
    """Without the API kubeadm would look for the files of an etcd that runs here."""
    world = machine(tmp_path, "cp1")
    world.let(members=OTHERS)
    assert world.run("control-plane-init", "--alone", secrets=True).code == 0
    ran = world.run("renew-certificates", "999999", secrets=True)
    assert "kubeadm certs renew all --config /run/ha-lab/kubeadm.yaml" in ran.changes, ran.said
    given = (world.root / "state/renewed-with").read_text()
    assert given.startswith("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n")
    assert "  external:" in given
    assert "@" not in given
    assert not world.has("/run/ha-lab/kubeadm.yaml")


def test_data_is_kept_while_the_others_do_not_answer(fresh: World) -> None:
    fresh.let(no_quorum="")
    ran = fresh.run("etcd", "--existing", secrets=True)
    assert ran.code == 1
    assert "waiting for etcd's other members to take this machine's as a learner" in ran.said
    assert not fresh.has(MANIFEST)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (f"{PKI}/etcd/peer.crt", "peer.crt is empty"),
        (f"{PKI}/etcd/server.key", "server.key is empty"),
        (MANIFEST, "etcd.yaml is empty"),
        (DROP_IN, "20-etcd-service-manager.conf is empty"),
        ("/var/lib/kubelet/config.yaml", "config.yaml is empty"),
        (f"{PKI}/etcd/ca.crt", "ca.crt is empty"),
    ],
)
def test_an_emptied_file_is_found_and_made_again(member: World, file: str, says: str) -> None:
    member.path(file).write_text("")
    ran = member.run("probe")
    assert says in ran.said
    assert ran.said.splitlines()[-1] == "damaged"
    ran = done(member.run("etcd", "--existing", secrets=True))
    assert f"repairs: {file}" in ran.said
    assert member.path(file).stat().st_size > 0
    assert probe(member) == "joined"


def test_a_member_without_its_data_and_without_others_is_not_begun_again(member: World) -> None:
    member.path("/var/lib/etcd/member").rmdir()
    ran = member.run("etcd", secrets=True)
    assert ran.code == 1
    assert "its data in /var/lib/etcd/member is gone. No other machine has a complete member" in ran.said
    assert not [call for call in ran.changes if "etcd local" in call]


def test_half_a_member_is_partial_until_it_was_healthy(fresh: World) -> None:
    fresh.let(failing_health="99")
    assert fresh.run("etcd", secrets=True).code == 1
    assert probe(fresh) == "partial"


def test_a_machine_of_etcd_gets_nothing_that_is_for_pods(fresh: World) -> None:
    fresh.let(kernel="0\n0\n")
    ran = done(fresh.run("node", secrets=True))
    assert not [call for call in ran.calls if call.startswith("sysctl")]
    settings = fresh.path("/etc/kubernetes/kubelet.conf.d/10-node.conf").read_text()
    assert "serverTLSBootstrap" not in settings
    assert "resolvConf" not in settings


@pytest.mark.parametrize("name", ["cp1", "cp2", "etcd1"])
def test_no_key_stays_where_kubeadm_init_is_run_manually(tmp_path: Path, name: str) -> None:
    world = machine(tmp_path, name)
    done(world.run("node", secrets=True))
    assert not world.has("/run/ha-lab/etcd-ca.key")
    assert not world.has("/run/ha-lab/ca.key")
    assert world.has(f"{PKI}/apiserver-etcd-client.crt") == (name == "cp1"), "where kubeadm init will need it"


def test_facts_of_a_machine_of_etcd_are_etcd_s(member: World) -> None:
    ran = member.run("facts", "membership", "metrics", "certificates", "open-keys")
    heads = [line.split()[1] for line in ran.said.splitlines() if line.startswith("== ")]
    assert heads == ["script", "membership", "certificates", "open-keys", "metrics", "clock"]
    assert "etcd anonymous 200" in ran.said
    assert "kube-scheduler" not in ran.said
    assert "kube-proxy" not in ran.said
    assert "# /etc/kubernetes/pki/etcd/peer.crt" in ran.said


def test_certificates_of_etcd_are_signed_again_and_etcd_starts_with_them(member: World) -> None:
    member.let(process_etcd="100 5000\n")
    listed = member.run("renew-certificates", "--list", "999999").said
    assert "etcd/server" in listed
    assert "apiserver" not in listed
    ran = member.run("renew-certificates", "999999", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert len([call for call in ran.changes if " certs " in call]) == 3
    assert "pkill -TERM -o -x etcd" in ran.changes
    assert not [call for call in ran.calls if "6443" in call]


def test_a_member_is_removed_by_another_one_without_the_api(tmp_path: Path) -> None:
    world = machine(tmp_path, "etcd1")
    world.let(members=OTHERS + FORMER, healthy=f"{PEERS[1]}:2379\n{PEERS[3]}:2379\n", leader="")
    ran = done(world.run("remove-member", "etcd2", "192.168.63.32"))
    assert [call.split(" --endpoints ")[1].partition(" ")[2] for call in ran.changes] == ["member remove 2222"]
    assert not [call for call in ran.calls if call.startswith("kubectl")]


def test_a_control_plane_has_a_client_certificate_before_kubeadm_init(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp1")
    world.let(members=OTHERS)
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert ran.code == 0, ran.said
    calls = [call.partition(" --config")[0] for call in ran.calls]
    wanted = ["kubeadm init phase certs apiserver-etcd-client", "kubeadm init"]
    assert [calls.index(call) for call in wanted] == sorted(calls.index(call) for call in wanted)
    assert [call for call in calls if "member list" in call]
    assert not world.has("/run/ha-lab/etcd-ca.key")
    assert not world.path(f"{PKI}/etcd/ca.key").is_symlink()


def test_a_control_plane_s_broken_client_certificate_is_made_again(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp1")
    world.let(members=OTHERS)
    assert world.run("control-plane-init", "--alone", secrets=True).code == 0
    assert probe(world) == "joined"
    world.path(f"{PKI}/apiserver-etcd-client.crt").write_text("")
    assert probe(world) == "damaged"
    ran = world.run("repair", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call for call in ran.changes if "certs apiserver-etcd-client" in call]
    assert probe(world) == "joined"


def test_the_keys_of_a_control_plane_are_a_tar_without_etcd_s_ca(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp1")
    world.let(members=OTHERS)
    assert world.run("control-plane-init", "--alone", secrets=True).code == 0
    _, said = world.stream("backup", "--pki")
    with tarfile.open(fileobj=io.BytesIO(said)) as archive:
        names = sorted(archive.getnames())
    assert names == sorted(
        f"pki/{name}"
        for name in ("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub")
    )
