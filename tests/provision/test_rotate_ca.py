"""rotate-ca.sh by the real script (world.py): what a machine trusts, and who signs, in each stage."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from lab.health.facts.certificates import is_signed_by
from lab.workspace.render.credentials import kubelet_client, new_ca
from tests.provision.test_repair import KUBERNETES, PEM, made, phases
from tests.provision.world import Ran, World

SERVING = "/var/lib/kubelet/pki/kubelet-server-current.pem"
MANIFEST = f"{KUBERNETES}/manifests/kube-controller-manager.yaml"
FLAG = "--cluster-signing-cert-file="


NEW = new_ca()


def ready(tmp_path: Path, name: str = "cp2") -> tuple[World, str]:
    """A complete node, and its CA, which its certificates were signed by."""
    world = made(tmp_path, name)
    assert world.run("node").code == 0  # the fake kubeadm leaves the CA's certificate to it
    if name.startswith("cp"):
        manifest = world.path(MANIFEST)
        manifest.write_text(
            manifest.read_text().replace("command:\n", f"command:\n    - {FLAG}{KUBERNETES}/pki/ca.crt\n")
        )
    kubelet = world.path(f"{KUBERNETES}/kubelet.conf")
    kubelet.write_text(kubelet.read_text() + "    certificate-authority-data: b2xk\n")
    return world, (world.root / "opt/ca.crt").read_text()


def stage(world: World, *trusted: str) -> Ran:
    """Give a machine the CAs of a stage, and let it become so."""
    (world.root / "opt/ca.crt").write_text("".join(trusted))
    client = kubelet_client(world.name, NEW)
    world.given = {"kubelet.pem": client.certificate + client.key, "ca.key": NEW.key}
    ran = world.run("rotate-ca", secrets=True)
    assert (ran.code, NEW.key.splitlines()[1] in ran.said) == (0, False), ran.said
    assert not world.has("/run/ha-lab/kubelet.pem")
    assert not world.has("/run/ha-lab/ca.key")
    return ran


def restarted(world: World) -> list[str]:
    """Let a control plane's kubelet restart if it has to; return the commands that changed anything."""
    ran = world.run("rotate-ca", "--restart")
    assert (ran.code, ran.last) == (0, f"ha-lab: {'changed' if ran.changes else 'unchanged'}")
    return ran.changes


def trusted_by(world: World, name: str) -> str:
    """The CAs in a kubeconfig."""
    text = world.path(f"{KUBERNETES}/{name}").read_text()
    [line] = (each for each in text.splitlines() if "certificate-authority-data" in each)
    return base64.b64decode(line.split()[1]).decode()


def signing_file(world: World) -> str:
    text = world.path(MANIFEST).read_text()
    [line] = (each for each in text.splitlines() if FLAG in each)
    return line.partition(FLAG)[2]


def kubelet_file(world: World) -> Path:
    """The file that the kubelet's link leads to, as the kubelet makes it: with the whole path."""
    return world.path(str(world.path(PEM).readlink()))


def test_first_both_are_trusted_and_the_old_one_signs(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    ran = stage(world, old, NEW.certificate)
    assert ran.last == "ha-lab: changed"
    assert ran.changes == [], "nothing is signed again"
    assert world.path(f"{KUBERNETES}/pki/ca.crt").read_text() == old + NEW.certificate
    for name in ("admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf"):
        assert trusted_by(world, name) == old + NEW.certificate, name
    assert signing_file(world) == f"{KUBERNETES}/pki/ca-signing.crt"
    assert world.path(f"{KUBERNETES}/pki/ca-signing.crt").read_text() == old
    assert not list(world.path(MANIFEST).parent.glob("*.new*")), "the kubelet would take it for a pod"
    assert world.run("probe").last == "joined"
    again = stage(world, old, NEW.certificate)
    assert (again.last, again.changes) == ("ha-lab: unchanged", [])
    assert restarted(world) == ["systemctl restart kubelet"], "an interruption before it must not prevent it"
    assert restarted(world) == []


def test_then_the_new_one_signs_the_control_plane_s_and_the_kubelet_s_certificates(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    stage(world, old, NEW.certificate)
    before = world.path(PEM).read_text()
    ran = stage(world, NEW.certificate, old)
    assert ran.changes == ["kubeadm certs renew all"]
    assert restarted(world) == ["systemctl restart kubelet"]
    assert world.path(f"{KUBERNETES}/pki/ca-signing.crt").read_text() == NEW.certificate
    assert world.path(f"{KUBERNETES}/pki/ca.key").read_text() == NEW.key
    assert trusted_by(world, "admin.conf") == NEW.certificate + old
    client = kubelet_file(world)
    assert client.read_text() == world.given["kubelet.pem"] != before
    assert client.stat().st_mode & 0o777 == 0o600
    assert world.run("probe").last == "joined"
    again = stage(world, NEW.certificate, old)
    assert (again.last, again.changes) == ("ha-lab: unchanged", [])


def test_at_last_only_the_new_one_is_trusted_and_the_manifest_is_kubeadm_s_again(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    manifest = world.path(MANIFEST).read_text()
    stage(world, old, NEW.certificate)
    stage(world, NEW.certificate, old)
    assert stage(world, NEW.certificate).changes == []
    assert restarted(world) == ["systemctl restart kubelet"]
    assert world.path(MANIFEST).read_text() == manifest
    assert not world.has(f"{KUBERNETES}/pki/ca-signing.crt")
    assert trusted_by(world, "kubelet.conf") == NEW.certificate
    again = stage(world, NEW.certificate)
    assert (again.last, again.changes) == ("ha-lab: unchanged", [])


def test_certificates_that_kubeadm_did_not_sign_again_end_it_before_the_old_ca_is_gone(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    stage(world, old, NEW.certificate)
    (world.root / "opt/ca.crt").write_text(NEW.certificate + old)
    world.given = {"kubelet.pem": "", "ca.key": NEW.key}
    world.let(renews_nothing="")
    ran = world.run("rotate-ca", secrets=True)
    assert ran.code == 1
    assert "but the first CA has not signed apiserver, apiserver-kubelet-client, admin.conf" in ran.said


def test_a_worker_gets_what_its_kubelet_needs_and_nothing_else(tmp_path: Path) -> None:
    world, old = ready(tmp_path, "w1")
    for trusted in ((old, NEW.certificate), (NEW.certificate, old), (NEW.certificate,)):
        ran = stage(world, *trusted)
        assert ran.changes == ["systemctl restart kubelet"]
        assert world.path(f"{KUBERNETES}/pki/ca.crt").read_text() == "".join(trusted)
        assert trusted_by(world, "kubelet.conf") == "".join(trusted)
    assert not world.has(f"{KUBERNETES}/pki/ca.key")
    assert is_signed_by(kubelet_file(world).read_text(), NEW.certificate)


@pytest.mark.parametrize("name", ["cp2", "w1"])
def test_a_serving_certificate_of_the_old_ca_is_asked_for_again_and_one_of_the_new_stays(
    tmp_path: Path, name: str
) -> None:
    world, old = ready(tmp_path, name)
    stage(world, NEW.certificate, old)
    serving = world.path(SERVING)
    serving.write_text(old)
    ran = world.run("rotate-ca", "--kubelet")
    assert (ran.last, ran.changes, serving.exists()) == (
        "ha-lab: changed",
        ["systemctl restart kubelet"],
        False,
    )
    serving.write_text(NEW.certificate)
    ran = world.run("rotate-ca", "--kubelet")
    assert (ran.last, ran.changes, serving.exists()) == ("ha-lab: unchanged", [], True)


def test_the_cluster_s_pods_and_machines_that_join_get_the_ca_and_the_kit_s_pods_restart(
    tmp_path: Path,
) -> None:
    world, old = ready(tmp_path)
    stage(world, old, NEW.certificate)
    world.let(published=old + NEW.certificate, failing_rollout="2")
    ran = world.run("rotate-ca", "--objects", "--restart")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.split()[-1] for call in ran.changes if "restart" in call] == [
        "daemonset.apps/kube-proxy",
        "deployment.apps/coredns",
        "daemonset.apps/kube-flannel-ds",
    ]
    assert "waiting for the restarted pods to be available" in ran.said
    info = yaml.safe_load((world.root / "state/replaced").read_text())["data"]["kubeconfig"]
    assert (
        base64.b64decode(yaml.safe_load(info)["certificate-authority-data"]).decode() == old + NEW.certificate
    )


def test_no_pod_is_restarted_before_the_cluster_has_the_ca_for_it(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    stage(world, old, NEW.certificate)
    world.let(published=old)
    ran = world.run("rotate-ca", "--objects", "--restart")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "the controller manager has not published the CA yet" in ran.said


def test_without_a_restart_only_cluster_info_is_changed(tmp_path: Path) -> None:
    world, old = ready(tmp_path)
    stage(world, NEW.certificate, old)
    world.let(published=NEW.certificate + old)
    ran = world.run("rotate-ca", "--objects")
    assert [call.split()[-3:] for call in ran.changes] == [["replace", "--filename", "-"]]
    assert phases(ran) == []
