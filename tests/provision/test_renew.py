"""renew-certificates.sh by the real script (world.py): what it lists, renews and restarts, in which order."""

from __future__ import annotations

import base64
import datetime
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.system.paths import PROVISION
from tests.provision.test_certificate import certificate
from tests.provision.test_repair import EXPIRED, KUBERNETES, NOT_YET_VALID, made
from tests.provision.world import METRICS, Ran, World

DAYS = "30"
PODS = {"etcd": 11, "kube-apiserver": 12, "kube-controller-manager": 13, "kube-scheduler": 14}
RENEW = "kubeadm certs renew all"


def day(after: int) -> str:
    return f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=after):%Y-%m-%d}"


SOON = certificate(day(29))


def running(tmp_path: Path, name: str = "cp2", *, age: int = 0) -> World:
    """A complete control plane whose static pods run for `age` seconds, and whose files are an hour old."""
    world = made(tmp_path, name)
    world.let(metrics=METRICS)
    world.let(**{f"process_{pod.replace('-', '_')}": f"{number} {age}\n" for pod, number in PODS.items()})
    for file in world.path(f"{KUBERNETES}/pki").parent.rglob("*"):
        os.utime(file, (time.time() - 3600,) * 2)
    return world


def put(world: World, path: str, text: str) -> None:
    """Put another certificate into a pair, or into a kubeconfig; the file keeps its age."""
    file = world.path(f"{KUBERNETES}/{path}")
    before = file.stat().st_mtime
    if path.endswith(".conf"):
        old = next(line for line in file.read_text().splitlines() if "client-certificate-data" in line)
        new = f"    client-certificate-data: {base64.b64encode(text.encode()).decode()}"
        text = file.read_text().replace(old, new)
    file.write_text(text)
    os.utime(file, (before, before))


def touch(world: World, path: str, ago: float = 60) -> None:
    """Let a file have been written that many seconds ago."""
    os.utime(world.path(f"{KUBERNETES}/{path}"), (time.time() - ago,) * 2)


def listed(world: World) -> list[str]:
    ran = world.run("renew-certificates", "--list", DAYS)
    assert (ran.code, ran.changes) == (0, []), ran.said
    return ran.said.splitlines()


def restarted(ran: Ran) -> list[str]:
    return [call.split()[-1] for call in ran.changes if call.startswith("pkill")]


def test_a_control_plane_whose_certificates_are_valid_for_long_is_left_alone(tmp_path: Path) -> None:
    world = running(tmp_path)
    assert listed(world) == []
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pki/apiserver.crt", "apiserver"),
        ("pki/etcd/healthcheck-client.crt", "etcd/healthcheck-client"),
        ("scheduler.conf", "scheduler.conf"),
    ],
)
def test_one_certificate_that_ends_soon_is_listed_with_its_day_and_all_are_renewed(
    tmp_path: Path, path: str, name: str
) -> None:
    world = running(tmp_path)
    put(world, path, SOON)
    assert listed(world) == [f"valid until {day(29)}: {name}"]
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"valid until {day(29)}: {name}\n" in ran.said
    assert ran.changes[0] == RENEW
    assert listed(world) == []


def test_the_caller_says_for_how_many_days_they_have_to_be_valid(tmp_path: Path) -> None:
    world = running(tmp_path)
    put(world, "pki/apiserver.crt", SOON)
    assert world.run("renew-certificates", "--list", "28").said == ""


def test_what_is_not_valid_yet_and_what_has_expired_are_listed_with_their_days(tmp_path: Path) -> None:
    world = running(tmp_path)
    put(world, "pki/front-proxy-client.crt", NOT_YET_VALID)
    put(world, "admin.conf", EXPIRED)
    early, late = "valid from 2098-01-01 on: front-proxy-client", "valid until 2024-02-29: admin.conf"
    assert listed(world) == [early, late]


def test_the_super_administrator_s_kubeconfig_is_one_of_them_where_there_is_one(tmp_path: Path) -> None:
    world = running(tmp_path, "cp1")
    put(world, "super-admin.conf", SOON)
    assert listed(world) == [f"valid until {day(29)}: super-admin.conf"]


def test_pods_restart_with_the_api_server_ended_first_and_started_last(tmp_path: Path) -> None:
    world = running(tmp_path, age=999)
    put(world, "pki/etcd/peer.crt", SOON)
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert restarted(ran) == ["etcd", "kube-controller", "kube-scheduler"]
    closed = next(index for index, call in enumerate(ran.calls) if call.startswith("ss "))
    first = next(index for index, call in enumerate(ran.calls) if call.startswith("pkill"))
    ready = max(index for index, call in enumerate(ran.calls) if call.startswith("curl "))
    assert closed < first < ready
    assert world.has(f"{KUBERNETES}/manifests/kube-apiserver.yaml")
    assert not world.has(f"{KUBERNETES}/kube-apiserver.yaml.left")
    assert world.run("probe").last == "joined"


def test_pods_that_are_older_than_their_certificates_are_restarted_without_another_renewal(
    tmp_path: Path,
) -> None:
    """So it is where a run was interrupted after `kubeadm certs renew`, or repair.sh has made files again."""
    world = running(tmp_path, age=600)
    touch(world, "controller-manager.conf")
    assert listed(world) == ["started before its certificates were written: kube-controller-manager"]
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, restarted(ran), RENEW in ran.calls) == (0, ["kube-controller"], False), ran.said
    assert not any(call.startswith("ss ") for call in ran.calls), "the API server goes on"
    assert listed(world) == []


@pytest.mark.parametrize(
    ("file", "pods"),
    [
        ("pki/ca.crt", ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]),
        ("pki/etcd/ca.crt", ["etcd", "kube-apiserver"]),
        ("pki/apiserver-etcd-client.crt", ["kube-apiserver"]),
        ("admin.conf", []),
    ],
)
def test_each_pod_is_restarted_for_the_files_that_it_reads(tmp_path: Path, file: str, pods: list[str]) -> None:
    world = running(tmp_path, age=600)
    touch(world, file)
    assert [line.partition(": ")[2] for line in listed(world)] == pods


@pytest.mark.parametrize(
    ("pair", "pod"), [("apiserver", "kube-apiserver"), ("etcd/server", "etcd"), ("etcd/peer", "etcd")]
)
def test_a_server_that_would_come_back_with_a_client_s_certificate_is_not_restarted(
    tmp_path: Path, pair: str, pod: str
) -> None:
    world = running(tmp_path, age=600)
    put(world, f"pki/{pair}.crt", certificate(day(300)))
    touch(world, f"pki/{pair}.crt")
    assert listed(world) == [f"started before its certificates were written: {pod}"]
    put(world, f"pki/{pair}.crt", certificate(day(300), usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    assert listed(world) == []


def test_a_server_whose_certificate_is_another_key_s_is_not_restarted(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    for pair in ("apiserver", "etcd/server"):
        put(world, f"pki/{pair}.crt", certificate(day(300)))
        touch(world, f"pki/{pair}.crt")
    why = "started before its certificates were written"
    assert listed(world) == [f"{why}: etcd", f"{why}: kube-apiserver"]
    another = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
    key = another.private_bytes(*form, serialization.NoEncryption()).decode()
    world.path(f"{KUBERNETES}/pki/apiserver.key").write_text(key)
    assert listed(world) == [], "with etcd the API server is restarted, too"


def test_a_file_of_the_future_restarts_nothing(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    touch(world, "scheduler.conf", ago=-9999)
    assert listed(world) == []


def test_a_pod_that_does_not_run_is_not_restarted(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    (world.root / "state/process-kube-scheduler").unlink()
    touch(world, "scheduler.conf")
    assert listed(world) == []


def test_a_stopped_kubelet_is_started_first_since_it_starts_the_pods(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    touch(world, "scheduler.conf")
    (world.root / "state/active-kubelet").unlink()
    ran = world.run("renew-certificates", DAYS)
    assert ran.changes == [
        "systemctl start kubelet",
        "systemctl restart kubelet",
        "pkill -TERM -o -x kube-scheduler",
    ]


def test_pods_end_once_a_kubelet_that_has_not_counted_their_restarts_has_mounted_volumes(
    tmp_path: Path,
) -> None:
    world = running(tmp_path, age=600)
    touch(world, "pki/etcd/server.crt")
    world.let(first_metrics=METRICS.replace('actual_state_of_world"} 21', 'actual_state_of_world"} 20'))
    ran = world.run("renew-certificates", DAYS)
    assert ran.code == 0, ran.said
    steps = [index for index, call in enumerate(ran.calls) if call == "systemctl restart kubelet"]
    asked = [index for index, call in enumerate(ran.calls) if "proxy/metrics" in call]
    ended = [index for index, call in enumerate(ran.calls) if call.startswith(("ss ", "pkill -TERM"))]
    assert (len(steps), len(asked)) == (1, 2)
    assert steps[0] < asked[0] < asked[1] < ended[0]


def test_the_kubelet_goes_on_where_the_api_does_not_answer(tmp_path: Path) -> None:
    """All certificates have expired, for example: its metrics could not be asked for either."""
    world = running(tmp_path, age=600)
    touch(world, "scheduler.conf")
    (world.root / "state/own-api").unlink()
    assert world.run("renew-certificates", DAYS).changes == ["pkill -TERM -o -x kube-scheduler"]


def test_a_renewal_that_fails_restarts_nothing(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    put(world, "pki/apiserver.crt", SOON)
    world.let(failing_renew="1")
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, ran.changes) == (1, [RENEW]), ran.said
    assert (
        "ERROR: kubeadm can't renew the certificates of this machine: failed to renew certificate "
        "front-proxy-client: must specify at least one ExtKeyUsage. If it names a certificate of "
        "/etc/kubernetes/pki, move its .crt and .key to another directory: `./inv up` makes them again\n"
    ) in ran.said
    assert world.has(f"{KUBERNETES}/manifests/kube-apiserver.yaml")


def test_a_server_s_certificate_that_is_a_client_s_is_not_renewed_as_it_is(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    put(world, "pki/front-proxy-client.crt", SOON)
    put(world, "pki/apiserver.crt", certificate(day(300), usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    ran = world.run("renew-certificates", DAYS)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert (
        "ERROR: in /etc/kubernetes/pki these are not certificates for a server, and kubeadm would renew them "
        "as they are: apiserver. Move each .crt and its .key to another directory: "
        "`./inv up` makes them again\n"
    ) in ran.said


def test_a_pod_that_does_not_come_back_is_named_and_the_api_server_s_manifest_is_kept(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    touch(world, "pki/etcd/server.crt")
    world.let(kubelet_hangs="")
    ran = world.run("renew-certificates", DAYS)
    assert ran.code == 1
    assert "waiting for etcd to start again: the kubelet has not started it" in ran.said
    assert world.run("probe").last == "joined", "node.sh puts it back"
    assert world.run("node").code == 0
    assert world.has(f"{KUBERNETES}/manifests/kube-apiserver.yaml")


def test_a_call_without_days_is_refused(tmp_path: Path) -> None:
    ran = running(tmp_path).run("renew-certificates", "soon")
    assert (ran.code, "usage: renew-certificates.sh" in ran.said) == (1, True)


def test_files_can_be_renewed_apart_where_no_member_could_be_restarted(tmp_path: Path) -> None:
    world = running(tmp_path, age=600)
    put(world, "pki/etcd/server.crt", EXPIRED)
    assert world.run("probe").last == "damaged"
    ran = world.run("renew-certificates", "--files", DAYS)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: changed", [RENEW]), ran.said
    assert world.run("probe").last == "joined"
    assert {line.partition(": ")[0] for line in listed(world)} == {
        "started before its certificates were written"
    }
    assert restarted(world.run("renew-certificates", DAYS)) == ["etcd", "kube-controller", "kube-scheduler"]


def test_an_api_server_that_an_interrupted_run_left_ended_is_started_again(tmp_path: Path) -> None:
    world = running(tmp_path)
    manifest = world.path(f"{KUBERNETES}/manifests/kube-apiserver.yaml")
    manifest.rename(world.path(f"{KUBERNETES}/kube-apiserver.yaml.left"))
    assert world.run("renew-certificates", DAYS).last == "ha-lab: changed"
    assert manifest.exists()


def test_the_drill_s_certificates_are_kubeadm_s_with_another_period_and_its_file_is_gone(
    tmp_path: Path,
) -> None:
    world = running(tmp_path)
    shutil.copy(PROVISION / "drill/fault.sh", world.root / "opt/fault.sh")
    ran = world.run("fault", "certificates_short_lived", "inject", "240")
    assert ran.code == 0, ran.said
    assert yaml.safe_load((world.root / "state/renewed-with").read_text()) == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": "v1.36.3",
        "certificateValidityPeriod": "240s",
    }
    assert not list(world.path("/run/x").parent.glob("kubeadm.*"))
    ran = world.run("fault", "certificates_short_lived", "heal")
    assert (ran.code, ran.calls) == (0, [])
