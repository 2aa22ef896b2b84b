"""One lab from small to large and back, with users at work: what they notice is measured, and limits hold.

The tests build on one another, so they run in the order of this file.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lab.exit_codes import CHANGES, DEGRADED, DOWN, IMPOSSIBLE
from lab.golden.supply.images import PROBE
from lab.remote import control_folder
from lab.system.wait import wait_until
from tests.lifecycle.conftest import LONGEST, LivingLab, kill_all

PREFIX = "ha-lab-lifecycle"

PINNED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: pinned}
spec:
  selector: {matchLabels: {app: pinned}}
  template:
    metadata: {labels: {app: pinned}}
    spec:
      nodeSelector: {kubernetes.io/hostname: w2}
      containers:
        - {name: pinned, image: IMAGE, imagePullPolicy: Never, command: [sleep, "3600"]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: all-of-them}
spec: {minAvailable: 100%, selector: {matchLabels: {app: pinned}}}
""".replace("IMAGE", PROBE)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def why_not_paused(name: str) -> str | None:
    """Pause a machine. On a busy host docker's freezer gives up at times ("unable to freeze")."""
    done = subprocess.run(["docker", "pause", f"{PREFIX}-{name}"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr or "docker pause failed"


def test_a_plan_from_nothing_names_everything(living: LivingLab) -> None:
    code, plan = living.plan()
    assert code == CHANGES
    assert (plan["changes"], plan["impossible"]) == (True, [])
    assert [step["machines"] for step in plan["steps"] if step["name"] == "worker-join"] == [["w1"]]


def test_a_small_lab_comes_up(living: LivingLab) -> None:
    living.lab.succeed("up")
    assert living.plan()[0] == 0
    living.verified()


def version_of_each(living: LivingLab) -> dict[str, str]:
    """The kubelet's version of each node, by its name; status may call the lab degraded."""
    status = json.loads(living.lab.inv("status", "--json").out)
    return {machine["name"]: machine["version"] for machine in status["machines"] if machine["version"]}


def versions(living: LivingLab) -> set[str]:
    return set(version_of_each(living).values())


def conforms(living: LivingLab) -> None:
    """The quick part of the conformance suite passes; it is built first if it was not yet."""
    ended = living.lab.inv("conformance", "--quick", "--yes", timeout=3600)
    assert ended.code == 0, ended.said


def test_two_minor_versions_at_once_are_refused(living: LivingLab) -> None:
    living.change(kubernetes={"version": "1.37.2"})
    code, plan = living.plan()
    assert code == IMPOSSIBLE
    assert "one minor version at a time" in plan["impossible"][0]["message"]


def test_it_is_upgraded_one_machine_at_a_time(living: LivingLab) -> None:
    living.change(kubernetes={"version": "1.36.3"})
    code, plan = living.plan()
    assert code == CHANGES
    assert plan["upgraded"] == ["1.35.4", "1.36.3"]
    assert versions(living) == {"v1.35.4"}
    upgraded = living.lab.inv("up", "--yes", timeout=LONGEST)
    assert upgraded.code == 0, upgraded.said
    assert versions(living) == {"v1.36.3"}
    assert living.plan()[0] == 0
    living.verified()
    print(f"upgrade {upgraded.seconds:.0f} s")


def test_it_grows_to_three_control_planes_and_users_notice_nothing(living: LivingLab) -> None:
    living.edit(control_planes=3, workers=2)
    code, plan = living.plan()
    assert code == CHANGES
    joins = [step["machines"] for step in plan["steps"] if step["name"] == "control-plane-join"]
    assert joins == [["cp2", "cp3"]]
    figures = living.measured("up")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    living.verified()


@pytest.mark.whole
def test_it_conforms_after_the_upgrade(living: LivingLab) -> None:
    conforms(living)


@pytest.mark.whole
def test_the_backup_from_before_the_upgrade_brings_back_data_and_no_version(living: LivingLab) -> None:
    (kept,) = (living.lab.folder / ".lab" / "backups").glob("*-before-1.36.3.tar")
    configmaps(living, "create", "configmap", "from-after-the-upgrade")
    living.lab.succeed("recover", str(kept), "--yes")
    assert "from-after-the-upgrade" not in configmaps(living)
    session = living.lab.session
    kubectl = ["sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"]
    get = ["--namespace", "kube-system", "get", "configmap/kubeadm-config", "daemonset/kube-proxy"]
    said = session.remote.run(session.lab.first, [*kubectl, *get, "--output", "yaml"]).stdout
    assert "kubernetesVersion: v1.36.3" in said
    assert "kube-proxy:v1.36.3" in said
    assert versions(living) == {"v1.36.3"}
    assert living.plan()[0] == 0
    living.verified()


@pytest.mark.whole
def test_it_grows_to_five_control_planes_and_shrinks_to_three(living: LivingLab) -> None:
    for count in (5, 3):
        living.edit(control_planes=count)
        figures = living.measured("up")
        assert figures["connections.failed"] == figures["writes.lost"] == 0
        living.verified()


def test_nothing_is_removed_before_somebody_has_agreed(living: LivingLab) -> None:
    living.edit(control_planes=1)
    ended = living.lab.inv("up")
    assert ended.code == 2
    assert "cp2, cp3 will be removed" in ended.said
    assert "none may fail any more" in ended.said
    assert "--yes" in ended.said
    living.edit(control_planes=3)
    assert living.plan()[0] == 0


def test_the_control_plane_that_init_ran_on_is_replaced(living: LivingLab) -> None:
    figures = living.measured("replace", "cp1")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    living.verified()


def test_a_dead_control_plane_is_replaced(living: LivingLab) -> None:
    docker("kill", f"{PREFIX}-cp3")
    figures = living.measured("replace", "cp3")
    assert figures["writes.lost"] == 0
    living.verified()


def test_a_second_control_plane_is_not_replaced_while_the_first_is_down(living: LivingLab) -> None:
    docker("kill", f"{PREFIX}-cp1")
    ended = living.lab.inv("replace", "cp2", "--yes")
    assert ended.code == 1
    assert "cp2 can't leave now" in ended.said
    assert "cp1" in ended.said
    living.lab.succeed("up")
    living.verified()


def kubectl(living: LivingLab, *words: str) -> str:
    session = living.lab.session
    command = ["sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *words]
    return session.remote.run(session.lab.first, command).stdout


def test_a_backup_brings_a_lab_back_whose_quorum_is_gone_for_good(living: LivingLab) -> None:
    kubectl(living, "create", "configmap", "before", "--from-literal=is=kept")
    backup = living.lab.folder / "before.tar"
    backed = living.lab.succeed("backup", str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600
    assert "exists, and a backup overwrites nothing" in living.lab.inv("backup", str(backup)).said
    kubectl(living, "create", "configmap", "after", "--from-literal=is=lost")
    for name in ("cp2", "cp3"):
        docker("exec", f"{PREFIX}-{name}", "sh", "-c", "pkill -9 -x etcd; rm -rf /var/lib/etcd/member")
    asked = living.lab.inv("recover", str(backup))
    assert asked.code == 2, "standard input is no terminal"
    assert "configmaps (default/after)" in asked.said
    recovered = living.lab.succeed("recover", str(backup), "--yes")
    living.verified()
    left = kubectl(living, "get", "configmaps", "--output", "name").split()
    assert "configmap/before" in left
    assert "configmap/after" not in left
    kubectl(living, "delete", "configmap", "before")
    print(f"backup {backed.seconds:.0f} s, recover {recovered.seconds:.0f} s")


@pytest.mark.whole
def test_it_conforms_after_the_recovery(living: LivingLab) -> None:
    conforms(living)


def test_the_load_balancer_is_replaced(living: LivingLab) -> None:
    living.lab.succeed("replace", "lb1", "--yes")
    living.verified()


@pytest.mark.whole
def test_the_load_balancer_is_replaced_and_no_write_is_lost(living: LivingLab) -> None:
    figures = living.measured("replace", "lb1")
    assert figures["writes.lost"] == 0
    assert figures["connections.failed"] > 0, "so the report would not have been good with the usual limits"
    living.verified()


def test_a_budget_in_the_way_of_a_drain_is_named_and_the_lab_stays_as_it_was(living: LivingLab) -> None:
    session = living.lab.session
    kubectl = ["sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"]
    session.remote.run(session.lab.first, [*kubectl, "apply", "-f", "-"], stdin=PINNED)
    waiting = [*kubectl, "rollout", "status", "deployment", "pinned", "--timeout", "60s"]
    session.remote.run(session.lab.first, waiting)
    living.edit(workers=1)
    ended = living.lab.inv("up", "--yes")
    assert ended.code == 1
    assert "blocked by PodDisruptionBudget default/all-of-them" in ended.said
    node = session.remote.run(session.lab.first, [*kubectl, "get", "node", "w2", "-o", "json"]).stdout
    assert not json.loads(node)["spec"].get("unschedulable")
    living.edit(workers=2)
    assert living.plan()[0] == 0
    removing = [*kubectl, "delete", "deployment/pinned", "poddisruptionbudget/all-of-them"]
    session.remote.run(session.lab.first, removing)


def haproxy_has(living: LivingLab, profile: str) -> bool:
    """Whether the load balancer's configuration is that profile's, by its own first line."""
    session = living.lab.session
    [balancer] = session.lab.balancers
    text = session.remote.run(balancer, ["sudo", "cat", "/etc/haproxy/haproxy.cfg"]).stdout
    return f"(load_balancer.profile: {profile})" in text


@pytest.mark.whole
def test_a_stopped_worker_is_started_while_haproxy_gets_the_other_profile(living: LivingLab) -> None:
    living.lab.succeed("stop", "w1")
    assert living.lab.inv("status").code == DEGRADED
    living.change(load_balancer={"profile": "reference"})
    figures = living.measured("up")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    assert haproxy_has(living, "reference")
    living.verified()


@pytest.mark.whole
def test_a_worker_is_replaced_while_haproxy_gets_its_own_profile_back(living: LivingLab) -> None:
    living.change(load_balancer={"profile": "tuned"})
    figures = living.measured("replace", "w1")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    assert haproxy_has(living, "tuned")
    living.verified()


@pytest.mark.whole
def test_a_stopped_control_plane_is_started_and_users_notice_nothing(living: LivingLab) -> None:
    living.lab.succeed("stop", "cp2")
    figures = living.measured("up")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    living.verified()


def test_a_worker_leaves_and_users_notice_nothing(living: LivingLab) -> None:
    living.edit(workers=1)
    figures = living.measured("up")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    living.verified()
    assert f"{PREFIX}-w2" not in living.lab.containers()


def test_what_is_impossible_is_refused_and_the_lab_can_be_looked_at_as_it_is(living: LivingLab) -> None:
    before = living.lab_file.read_text(encoding="utf-8")
    living.change(network={"subnet": "192.168.61.0/24"})
    code, plan = living.plan()
    assert code == IMPOSSIBLE
    assert [each["key"] for each in plan["impossible"] if each["key"] == "network.subnet"]
    refused = living.lab.inv("up")
    assert refused.code == 2
    assert "lab.yaml:" in refused.said
    assert "network.subnet: 192.168.58.0/24 → 192.168.61.0/24" in refused.said
    status = living.lab.succeed("status")
    assert "lab.yaml differs from it in network.subnet" in status.said
    living.verified()
    living.lab_file.write_text("nodes: [")
    living.lab.succeed("status")
    living.lab_file.write_text(before, encoding="utf-8")


def test_one_machine_is_stopped_and_up_starts_it(living: LivingLab) -> None:
    living.lab.succeed("stop", "w1")
    assert living.lab.inv("status").code == DEGRADED
    living.lab.succeed("up")
    living.verified()


def test_all_machines_are_stopped_in_the_evening_and_started_in_the_morning(living: LivingLab) -> None:
    stopped = living.lab.succeed("stop")
    assert "power was cut" not in stopped.said
    assert living.lab.inv("status").code == DOWN
    started = living.lab.succeed("up")
    living.verified()
    print(f"stop {stopped.seconds:.0f} s, up {started.seconds:.0f} s")


def configmaps(living: LivingLab, *change: str) -> str:
    """The names of the ConfigMaps in the default namespace, after a change of them if there is one."""
    session = living.lab.session
    kubectl = ["sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"]
    if change:
        session.remote.run(session.lab.first, [*kubectl, *change])
    return session.remote.run(session.lab.first, [*kubectl, "get", "configmap", "-o", "name"]).stdout


def host_keys(living: LivingLab) -> dict[str, str]:
    session = living.lab.session
    key = ["cat", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/machine-id"]
    return {node.name: session.remote.run(node, key).stdout for node in session.lab.nodes}


def test_a_checkpoint_is_restored_and_what_came_after_it_is_gone(living: LivingLab) -> None:
    containers, keys = living.lab.containers(), host_keys(living)
    configmaps(living, "create", "configmap", "from-before")
    saved = living.lab.succeed("checkpoint", "start")
    living.verified()
    assert "there is a checkpoint start already" in living.lab.inv("checkpoint", "start").said
    configmaps(living, "delete", "configmap", "from-before")
    configmaps(living, "create", "configmap", "from-after")
    living.edit(workers=2)
    other = living.lab.inv("restore", "start", "--yes")
    assert other.code == 2
    assert "nodes.workers.count: 1 → 2" in other.said
    living.edit(workers=1)
    asked = living.lab.inv("restore", "start")
    assert asked.code == 2
    assert "will be lost" in asked.said
    assert "from-after" in configmaps(living), "nothing was restored without consent"
    restored = living.lab.succeed("restore", "start", "--yes")
    living.verified()
    assert "from-before" in configmaps(living)
    assert "from-after" not in configmaps(living)
    assert (living.lab.containers(), host_keys(living)) == (containers, keys)
    assert living.plan()[0] == 0
    listed = json.loads(living.lab.succeed("checkpoints", "--json").out)["checkpoints"]
    assert [(each["name"], each["problem"]) for each in listed] == [("start", None)]
    print(f"checkpoint {saved.seconds:.0f} s, restore {restored.seconds:.0f} s, {listed[0]['mib']} MiB")


@pytest.mark.whole
def test_a_machine_that_was_replaced_since_gets_its_saved_state(living: LivingLab) -> None:
    living.lab.succeed("replace", "w1", "--yes")
    living.lab.succeed("restore", "start", "--yes")
    living.verified()


def test_paused_machines_go_on(living: LivingLab) -> None:
    for name in ("cp2", "w1"):
        wait_until(partial(why_not_paused, name), what=f"{name} to be paused", timeout=60)
    time.sleep(3)
    living.lab.succeed("up")
    living.verified()


def test_the_lab_is_its_own_where_its_folder_was_moved(living: LivingLab) -> None:
    living.move("elsewhere")
    living.lab.succeed("status")
    ended = living.lab.succeed("up")
    assert "nothing was changed" in ended.said
    living.verified()


@pytest.mark.whole
def test_the_next_upgrade_is_rehearsed_and_the_lab_is_what_it_was(living: LivingLab) -> None:
    ended = living.lab.inv("drill", "upgrade", "--yes", timeout=LONGEST)
    assert ended.code == 0, ended.said
    assert versions(living) == {"v1.36.3"}
    assert living.plan()[0] == 0
    living.verified()


@contextlib.contextmanager
def upgrading(living: LivingLab, node: str) -> Iterator[subprocess.Popen[bytes]]:
    """`up`, in the middle of kubeadm's work on that machine when this is entered, and over when it is left."""
    argv, said = living.lab.argv("up", "--yes"), living.lab.folder / f"upgrade-{node}.txt"
    before = kubeadms_on(node)
    with said.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            begun = partial(why_not_in_kubeadm, process, said, node, before)
            wait_until(begun, what=f"kubeadm on {node}", timeout=900)
            time.sleep(10)
            yield process
            process.wait(timeout=LONGEST)
        finally:
            if process.poll() is None:
                kill_all(process)


def kubeadms_on(node: str) -> set[str]:
    """The process ids of `kubeadm upgrade` on a machine."""
    asked = ["docker", "exec", f"{PREFIX}-{node}", "pgrep", "--full", "^kubeadm upgrade "]
    return set(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split())


def why_not_in_kubeadm(process: subprocess.Popen[bytes], said: Path, node: str, before: set[str]) -> str | None:
    """Those `before` belong to a run that was killed."""
    shown = said.read_text(encoding="utf-8", errors="replace")
    assert process.poll() is None, shown
    return None if kubeadms_on(node) - before else shown[-200:] or "`up` has printed nothing yet"


@pytest.mark.whole
def test_an_upgrade_that_is_killed_is_shown_as_under_way(living: LivingLab) -> None:
    living.change(kubernetes={"version": "1.37.2"})
    baked = living.lab.inv("bake", "--yes", timeout=3600)
    assert baked.code == 0, baked.said
    with upgrading(living, "cp2") as process:
        kill_all(process)
    status = living.lab.inv("status").said
    next_step = f"`./inv up --lab {living.lab_file}` continues it"
    assert f"an upgrade to Kubernetes 1.37.2 is under way; {next_step}" in status
    assert living.plan()[1]["upgraded"] == ["1.36.3", "1.37.2"]


@pytest.mark.whole
def test_an_upgrade_in_which_a_machine_loses_its_power_goes_on(living: LivingLab) -> None:
    node = min(name for name, version in version_of_each(living).items() if version == "v1.36.3")
    assert node.startswith("cp"), "a control plane was not upgraded yet when the former was killed"
    with upgrading(living, node) as process:
        docker("kill", f"{PREFIX}-{node}")
    assert process.returncode == 1
    said = (living.lab.folder / f"upgrade-{node}.txt").read_text(encoding="utf-8")
    assert [line for line in said.splitlines() if "✗" in line and f" {node} " in line], said
    ended = living.lab.inv("up", "--yes", timeout=LONGEST)
    assert ended.code == 0, ended.said
    assert versions(living) == {"v1.37.2"}
    assert living.plan()[0] == 0
    living.verified()


@pytest.mark.whole
def test_etcd_goes_back_a_minor_version_and_forward_again(living: LivingLab) -> None:
    ended = living.lab.inv("drill", "downgrade-etcd", timeout=LONGEST)
    assert ended.code == 0, ended.said
    living.verified()


def test_it_shrinks_to_one_control_plane(living: LivingLab) -> None:
    living.edit(control_planes=1)
    figures = living.measured("up")
    assert figures["connections.failed"] == figures["writes.lost"] == 0
    living.verified()


def test_destroy_leaves_nothing(living: LivingLab) -> None:
    sockets = control_folder(living.lab.session.workspace)
    assert "and its checkpoint start (" in living.lab.inv("destroy").said
    living.lab.succeed("destroy", "--yes")
    assert living.lab.containers() == {}
    assert not (living.lab.folder / ".lab").exists()
    assert not sockets.exists()
    assert "192.168.58.0" not in docker("network", "ls")
    assert docker("volume", "ls", "--quiet", "--filter", f"name={PREFIX}") == ""
