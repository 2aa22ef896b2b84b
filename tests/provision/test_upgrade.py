"""upgrade.sh, run for real on machines of scratch folders (world.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.provision.world import METRICS, World

OLD, NEW = "1.35.4", "1.36.3"
TAG = "3.6.16-0"
OWN_API, BALANCED_API = "https://192.168.56.11:6443", "https://192.168.56.10:6443"
MEMBERS = (
    "11e1, started, cp1, https://192.168.56.11:2380, https://192.168.56.11:2379, false\n"
    "22e2, started, cp2, https://192.168.56.12:2380, https://192.168.56.12:2379, false\n"
)
CONFIGURATION = """apiVersion: v1
data:
  ClusterConfiguration: |
    clusterName: ha-lab
    dns:
      imageTag: v1.13.1
    etcd:
      local:
        dataDir: /var/lib/etcd
        imageTag: 3.6.6-0
    kubernetesVersion: v1.35.4
kind: ConfigMap
"""


def manifest(name: str, tag: str) -> str:
    container = f"  - command:\n    - {name}\n    image: registry.k8s.io/{name}:{tag}\n    name: {name}\n"
    volumes = "".join(f"  - hostPath:\n      path: /{number}\n" for number in range(4))
    return f"kind: Pod\nspec:\n  containers:\n{container}  volumes:\n{volumes}status: {{}}\n"


def machine(folder: Path, name: str) -> World:
    """A machine with the old version, and the payload of the new one."""
    world = World(folder / name, name)
    world.let(
        kubeadm_version=OLD,
        kubelet_version=OLD,
        running_kubelet=OLD,
        kubelets=f"cp1 v{OLD}\ncp2 v{OLD}\n",
        own_api="",
        api="",
    )
    programs = world.path(f"/var/lib/containerd/ha-lab-upgrade/{NEW}/bin")
    programs.mkdir(parents=True)
    for program in ("kubeadm", "kubelet", "kubectl", "etcdctl"):
        (programs / program).write_text("")
        (programs / program).chmod(0o755)
    (programs.parent / "bom.json").write_text("{}")
    return world


@pytest.fixture
def cp1(tmp_path: Path) -> World:
    """The first of two control planes, whose member leads etcd."""
    world = machine(tmp_path, "cp1")
    world.let(
        members=MEMBERS,
        healthy="https://192.168.56.11:2379\nhttps://192.168.56.12:2379\n",
        leader="https://192.168.56.11:2379\n",
        kubeadm_config=CONFIGURATION,
        metrics=METRICS,
    )
    manifests = world.path("/etc/kubernetes/manifests")
    manifests.mkdir(parents=True)
    (manifests / "etcd.yaml").write_text(manifest("etcd", "3.6.6-0"))
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        (manifests / f"{name}.yaml").write_text(manifest(name, f"v{OLD}"))
    (manifests.parent / "kubelet.conf").write_text(f"    server: {OWN_API}\n")
    return world


def asked_by_kubelet(world: World) -> str:
    return world.path("/etc/kubernetes/kubelet.conf").read_text().split()[-1]


def state(world: World, name: str) -> str:
    return (world.root / "state" / name).read_text()


def order(calls: list[str], *words: str) -> bool:
    """Whether calls with these words happened, in this order."""
    indices = [next(i for i, call in enumerate(calls) if word in call) for word in words]
    return indices == sorted(indices)


def test_a_control_plane_hands_over_its_leadership_and_is_upgraded(cp1: World) -> None:
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert order(
        ran.calls,
        "mv /usr/bin/.kubeadm.new",
        "replace --filename -",
        "move-leader 22e2",
        f"kubeadm upgrade apply v{NEW} --yes",
        "mv /usr/bin/.kubelet.new",
    )
    assert not cp1.has("/var/lib/containerd/ha-lab-upgrade")
    again = cp1.run("upgrade", NEW, TAG)
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_while_its_etcd_is_replaced_the_kubelet_asks_other_api_servers(cp1: World) -> None:
    cp1.let(killed_at="kubeadm upgrade")
    killed = cp1.run("upgrade", NEW, TAG)
    assert killed.calls[-1].startswith("kubeadm upgrade"), killed.said
    assert order(killed.calls, "systemctl restart kubelet", "kubeadm upgrade")
    assert asked_by_kubelet(cp1) == BALANCED_API
    (cp1.root / "state/killed-at").unlink()
    assert cp1.run("upgrade", NEW, TAG).code == 0
    assert asked_by_kubelet(cp1) == OWN_API, "a new kubelet must not ask an older API server"


@pytest.mark.parametrize(
    "first",
    [
        METRICS.replace(
            'host-path",state="actual_state_of_world"} 21', 'host-path",state="actual_state_of_world"} 19'
        ),
        METRICS.replace("} 21", "} 5"),  # those of static pods are not wanted yet
        "",
    ],
)
def test_a_manifest_is_replaced_once_a_kubelet_that_has_started_has_mounted_volumes(
    cp1: World, first: str
) -> None:
    cp1.let(first_metrics=first)
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert order(ran.calls, "systemctl restart kubelet", "proxy/metrics", "kubeadm upgrade")
    before_kubeadm = ran.calls[: next(i for i, call in enumerate(ran.calls) if "kubeadm upgrade" in call)]
    assert sum("proxy/metrics" in call for call in before_kubeadm) == 2


def test_a_kubelet_without_those_metrics_costs_half_a_minute_and_no_upgrade(cp1: World) -> None:
    cp1.let(metrics="")
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "it has mounted 0 of 16 directories" in ran.said
    assert "going on without that" in ran.said


def test_kubeadm_s_target_for_etcd_is_changed_and_nothing_else_of_its_configuration(cp1: World) -> None:
    assert cp1.run("upgrade", NEW, TAG).code == 0
    assert state(cp1, "kubeadm-config") == CONFIGURATION.replace("3.6.6-0", TAG).replace(OLD, NEW)


def test_a_configuration_without_a_tag_gets_one(cp1: World) -> None:
    cp1.let(kubeadm_config=CONFIGURATION.replace("        imageTag: 3.6.6-0\n", ""))
    assert cp1.run("upgrade", NEW, TAG).code == 0
    assert state(cp1, "kubeadm-config") == CONFIGURATION.replace("3.6.6-0", TAG).replace(OLD, NEW)


def test_the_first_machine_takes_the_cluster_along_and_the_others_follow(cp1: World) -> None:
    cp1.let(kubelets=f"cp1 v{OLD}\ncp2 v{NEW}\n", kubeadm_config=CONFIGURATION.replace(OLD, NEW))
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 0, ran.said
    assert any(call.startswith("kubeadm upgrade node ") for call in ran.calls)
    assert not any(call.startswith("kubeadm upgrade apply") for call in ran.calls)


def test_after_a_recovery_in_between_the_next_machine_takes_the_cluster_along(cp1: World) -> None:
    """cp2 has the new version; what etcd has of kubeadm's configuration is from before the upgrade."""
    cp1.let(kubelets=f"cp1 v{OLD}\ncp2 v{NEW}\n")
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 0, ran.said
    assert any(call.startswith(f"kubeadm upgrade apply v{NEW}") for call in ran.calls)
    assert f"kubernetesVersion: v{NEW}" in state(cp1, "kubeadm-config")


def test_without_an_answer_about_the_cluster_kubeadm_is_not_started(cp1: World) -> None:
    cp1.let(kubelets=f"cp1 v{OLD}\ncp2 v{NEW}\n", failing_configuration="9")
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 1
    assert not any(call.startswith("kubeadm upgrade") for call in ran.calls), ran.said


def test_static_pods_that_stayed_what_they_were_are_no_success(cp1: World) -> None:
    cp1.let(keeping_static_pods="")
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 1
    assert "not all static pods of cp1 have the images of Kubernetes 1.36.3" in ran.said


def test_an_api_server_that_starts_again_after_the_kubelet_is_no_failure(cp1: World) -> None:
    cp1.let(answering_once="")
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said


def test_a_first_machine_that_was_interrupted_takes_the_cluster_along_again(cp1: World) -> None:
    """Its own kubelet may be new already: the cluster is complete once another machine's is."""
    cp1.let(kubelets=f"cp1 v{NEW}\ncp2 v{OLD}\n")
    ran = cp1.run("upgrade", NEW, TAG)
    assert any(call.startswith("kubeadm upgrade apply") for call in ran.calls), ran.said


def test_a_plain_upgrade_is_kubeadm_s_alone(cp1: World) -> None:
    ran = cp1.run("upgrade", NEW, TAG, "--plain")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert not any("move-leader" in call for call in ran.calls)
    assert any(call.startswith("kubeadm upgrade apply") for call in ran.calls)
    assert [call for call in ran.calls if "restart" in call] == ["systemctl restart kubelet"]
    assert asked_by_kubelet(cp1) == OWN_API


def test_the_only_control_plane_keeps_its_api_server_for_kubeadm(cp1: World) -> None:
    env = cp1.root / "opt/node.env"
    text = "".join(
        "ETCD_ENDPOINTS=https://192.168.56.11:2379\n" if line.startswith("ETCD_ENDPOINTS=") else line
        for line in env.read_text().splitlines(keepends=True)
    )
    env.write_text(text)
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 0, ran.said
    assert not any("move-leader" in call for call in ran.calls)
    assert [call for call in ran.calls if "restart" in call] == ["systemctl restart kubelet"]


def test_a_failed_upgrade_leaves_the_kubelet_and_the_payload_and_is_repeated(cp1: World) -> None:
    cp1.let(failing_upgrade="1")
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 1
    assert state(cp1, "kubelet-version").strip() == OLD
    assert cp1.has(f"/var/lib/containerd/ha-lab-upgrade/{NEW}/bin/kubelet")
    assert cp1.run("upgrade", NEW, TAG).code == 0


@pytest.mark.parametrize(
    "at",
    ["kubeadm upgrade", "mv /usr/bin/.kubelet.new", "mv /usr/bin/.etcdctl.new", "systemctl restart kubelet"],
)
def test_an_upgrade_that_was_killed_is_completed_by_the_next_run(cp1: World, at: str) -> None:
    cp1.let(killed_at=at)
    assert cp1.run("upgrade", NEW, TAG).code != 0
    assert at != "mv /usr/bin/.etcdctl.new" or asked_by_kubelet(cp1) == OWN_API, "its kubelet is new"
    (cp1.root / "state/killed-at").unlink()
    asked = cp1.run("upgrade", "--asked", NEW, TAG)
    assert "upgraded" not in asked.said.split(), asked.said
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert cp1.run("upgrade", "--asked", NEW, TAG).said == "upgraded\n"


def test_a_manifest_that_kubeadm_had_moved_away_when_it_was_killed_comes_back(cp1: World) -> None:
    kept = cp1.path("/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-01-01")
    kept.mkdir(parents=True)
    manifests = cp1.path("/etc/kubernetes/manifests")
    (manifests / "kube-apiserver.yaml").rename(kept / "kube-apiserver.yaml")
    ran = cp1.run("upgrade", NEW, TAG)
    assert ran.code == 0, ran.said
    assert "repairs: an interrupted upgrade had left no manifest of kube-apiserver" in ran.said
    assert not cp1.has("/etc/kubernetes/tmp"), "a copy of etcd's data is there"


def test_without_its_payload_nothing_is_touched(cp1: World) -> None:
    for file in cp1.path(f"/var/lib/containerd/ha-lab-upgrade/{NEW}/bin").iterdir():
        file.unlink()
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "does not have the programs of Kubernetes 1.36.3" in ran.said


def test_nothing_is_touched_without_a_way_to_the_load_balancer(cp1: World) -> None:
    cp1.let(apart="")
    ran = cp1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.changes) == (1, []), ran.said


def test_etcd_alone_gets_its_image_and_kubeadm_s_target(cp1: World) -> None:
    ran = cp1.run("upgrade", "--etcd", TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert order(ran.calls, "move-leader 22e2", "systemctl restart kubelet", "replace --filename -")
    assert asked_by_kubelet(cp1) == OWN_API
    assert cp1.path("/etc/kubernetes/manifests/etcd.yaml").read_text() == manifest("etcd", TAG)
    assert state(cp1, "kubelet-version").strip() == OLD
    assert not any("kubeadm upgrade" in call for call in ran.calls)
    again = cp1.run("upgrade", "--etcd", TAG)
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_a_worker_is_upgraded_by_kubeadm_and_gets_its_kubelet(tmp_path: Path) -> None:
    w1 = machine(tmp_path, "w1")
    ran = w1.run("upgrade", NEW, TAG)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert order(ran.calls, "mv /usr/bin/.kubeadm.new", "kubeadm upgrade node", "systemctl restart kubelet")
    assert not any(call.startswith("etcdctl") or "admin.conf" in call for call in ran.calls)
    again = w1.run("upgrade", NEW, TAG)
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def test_a_kubelet_that_is_not_ready_is_not_upgraded_yet(tmp_path: Path) -> None:
    w1 = machine(tmp_path, "w1")
    w1.let(not_ready="")
    ran = w1.run("upgrade", NEW, TAG)
    assert ran.code == 1
    assert f"the API shows w1 with the kubelet v{NEW}, and as ready: False" in ran.said
    assert w1.run("upgrade", "--asked", NEW, TAG).said == ""
