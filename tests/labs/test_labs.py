"""Real labs, in the order of a life: interrupted, finished, looked at, broken, healed, removed.

The tests build on one another, so they run in the order of this file, and `./inv test` stops them at
the first failure.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from lab.remote import control_folder
from lab.system.redact import SECRETS
from lab.verbs import bake
from tests.breaking.test_drills import HARMLESS, drilled, figures
from tests.labs.conftest import TestLab

KUBECTL = ("sudo", "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf")


class Watcher(threading.Thread):
    """Looks at every command line and environment on the host while a lab comes up."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        text = (process / name).read_bytes().decode(errors="replace")
                    except OSError:
                        continue
                    self.seen.update(text.replace("\0", "\n").splitlines())


def no_secret_in(text: str, secrets: set[str]) -> None:
    for pattern, kind in SECRETS:
        found = [match.group() for match in pattern.finditer(text) if "[removed]" not in match.group()]
        assert not found, f"{kind}: {len(found)} found"
    assert not [secret for secret in secrets if secret in text]


def known_secrets(lab: TestLab) -> set[str]:
    """This run's own secrets, as rendered for a bare `vagrant up`, and the CA's key."""
    lines = set()
    for path in (lab.folder / ".lab" / "secrets").rglob("*"):
        if path.name == "secrets":
            lines |= {line.partition("=")[2] for line in path.read_text().splitlines()}
    key = (lab.folder / ".lab" / "secrets" / "ca.key").read_text().splitlines()
    return lines | {line for line in key if len(line) > 40}


def test_up_killed_in_the_middle_of_kubeadm_init_is_finished_by_the_next_up(seven: TestLab) -> None:
    process = subprocess.Popen(seven.argv("up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    logs = seven.folder / ".lab" / "logs"
    deadline = time.monotonic() + 180
    while not any("[control-plane]" in log.read_text() for log in logs.glob("*control-plane-init.log")):
        assert process.poll() is None, "up ended before kubeadm init began"
        assert time.monotonic() < deadline, "kubeadm init did not begin within 180 s"
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()

    watcher = Watcher()
    watcher.start()
    ended = seven.succeed("up")
    watcher.ended.set()
    watcher.join()
    assert "the lab is up" in ended.said
    no_secret_in("\n".join(watcher.seen), known_secrets(seven))


def test_every_check_of_verify_holds_and_all_are_asked_within_30_s(seven: TestLab) -> None:
    ended = seven.inv("verify", "--json")
    found = json.loads(ended.out)
    assert [verdict for verdict in found["verdicts"] if verdict["outcome"] != "holds"] == []
    assert found["green"] is True
    assert ended.code == 0
    assert ended.seconds <= 30


def test_up_again_changes_nothing(seven: TestLab) -> None:
    before = seven.containers(), _restarts(seven)
    ended = seven.succeed("up")
    assert "nothing was changed" in ended.said
    assert (seven.containers(), _restarts(seven)) == before


def test_status_says_that_all_is_ready(seven: TestLab) -> None:
    found = json.loads(seven.succeed("status", "--json").out)
    assert found["all_ready"] is True
    assert found["health"] == "healthy"
    assert len(found["machines"]) == 7


def test_ssh_has_the_commands_own_exit_code(seven: TestLab) -> None:
    assert seven.inv("ssh", "w1", "--", "sh", "-c", "exit 7").code == 7
    assert seven.inv("ssh", "w1", "--", "hostname").said.strip() == "w1"


def test_sessions_end_as_soon_as_their_server_is_of_no_use_and_no_sooner(seven: TestLab) -> None:
    session = seven.session
    [balancer] = session.lab.balancers
    script = Path(__file__).with_name("sessions-end.sh").read_text(encoding="utf-8")
    command = ["sudo", "setsid", "--wait", "bash", "-s"]
    said = session.remote.run(balancer, command, stdin=script, timeout=60).stdout
    ended = {name: int(after) / 1000 for name, after in (line.split() for line in said.splitlines())}
    assert set(ended) == {"refusing", "silent", "drained"}, "the session with a server that is well goes on"
    assert 0.5 < ended["refusing"] < ended["drained"]
    assert ended["drained"] > 4
    assert ended["silent"] > 4, "two checks that time out, and two seconds more"


def test_logs_hold_what_happened_and_no_secret(seven: TestLab) -> None:
    archive = Path(seven.succeed("logs").out.strip())
    secrets = known_secrets(seven)
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        for member in packed.getmembers():
            file = packed.extractfile(member)
            if file is not None:
                no_secret_in(file.read().decode(errors="replace"), secrets)
    for machine in ("lb1", "cp1", "w3"):
        assert any(f"/{machine}/journal.txt" in name for name in names)
    for log in (seven.folder / ".lab" / "logs").glob("*.log"):
        no_secret_in(log.read_text(errors="replace"), secrets)


def test_machines_that_were_lost_or_stopped_come_back(seven: TestLab) -> None:
    before = _addresses(seven)
    subprocess.run(["docker", "rm", "-f", "-v", "ha-lab-test-cp3", "ha-lab-test-w2"], check=True)
    subprocess.run(["docker", "kill", "ha-lab-test-cp2"], check=True)
    seven.succeed("up")
    assert _addresses(seven) == before
    seven.succeed("verify", "-k", "control_planes or etcd or node or load_balancer")


def test_up_at_once_after_a_restart_ends_when_verify_holds_and_not_before(seven: TestLab) -> None:
    # Without a grace: no kubelet tells the API that it goes, so that has only what was before.
    names = ["ha-lab-test-cp1", "ha-lab-test-cp3", "ha-lab-test-w3"]
    subprocess.run(["docker", "restart", "--time", "0", *names], check=True)
    seven.succeed("up")
    seven.succeed("verify")


def test_a_bare_vagrant_up_gives_the_same_cluster_beside_it(small: TestLab, seven: TestLab) -> None:
    small.succeed("render")
    subprocess.run(
        ["vagrant", "up"],
        cwd=small.folder / ".lab",
        env=os.environ | {"VAGRANT_CHECKPOINT_DISABLE": "1"},
        check=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    small.succeed("up")
    assert "all hold" in small.succeed("verify").said
    assert "all hold" in seven.succeed("verify", "-k", "load_balancer or node").said


@pytest.mark.parametrize("drill", ["kill-load-balancer", "kill-etcd-member"])
def test_the_loss_of_a_machine_that_the_seven_lack_is_survived(small: TestLab, drill: str) -> None:
    _, report = drilled(small, drill)
    (result,) = report["results"]
    assert not result["problem"]
    found = figures(result)
    assert {figure: found[figure] for figure in HARMLESS} == dict.fromkeys(HARMLESS, 0)
    # Limits are for a host without other load. Without another machine, the gap would be that of a boot.
    assert found["connections.longest_gap_s"] < 8
    assert found["writes.longest_gap_s"] < 20


CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: writer
      image: localhost/ha-lab/probe:1
      imagePullPolicy: Never
      command: [sh, -c, "echo kept >/data/file && sleep 3600"]
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""


def test_add_ons_come_and_go_while_the_lab_is_up(small: TestLab) -> None:
    _ask_for(small, "metrics-server", "local-path")
    assert "add-ons" in small.inv("plan").said
    small.succeed("up")
    assert "all hold" in small.succeed("verify").said
    top = small.succeed("ssh", "cp1", "--", *KUBECTL, "top", "nodes").said
    assert {line.split()[0] for line in top.splitlines()} >= {"cp1", "w1"}
    assert "version 1.37." in small.succeed("ssh", "cp1", "--", "crictl", "--version").said
    assert "v4." in small.succeed("ssh", "cp1", "--", "helm", "version", "--short").said
    assert small.succeed("ssh", "w1", "--", "sudo", "crictl", "ps", "--quiet").said.strip()

    _kubectl(small, "apply", "--filename", "-", stdin=CLAIM)
    _kubectl(small, "wait", "pod/writer", "--for", "condition=Ready", "--timeout", "60s")
    _ask_for(small)
    refused = small.inv("up")
    assert refused.code == 1
    assert "these claims have volumes of it: default/data" in refused.said
    _kubectl(small, "delete", "pod/writer", "pvc/data")
    _kubectl(small, "wait", "persistentvolumes", "--all", "--for", "delete", "--timeout", "60s")
    small.succeed("up")
    assert "No resources" in _kubectl(small, "get", "deployments,pods", "--namespace", "local-path-storage")
    assert "all hold" in small.succeed("verify").said
    assert "nothing to change" in small.succeed("plan").said


def _ask_for(lab: TestLab, *addons: str) -> None:
    path = lab.folder / "lab.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(data | {"addons": list(addons)}), encoding="utf-8")


def _kubectl(lab: TestLab, *words: str, stdin: str = "") -> str:
    said = subprocess.run(
        lab.argv("ssh", "cp1", "--", *KUBECTL, *words), input=stdin, capture_output=True, text=True, check=True
    )
    return said.stdout + said.stderr


def test_another_lab_yaml_over_a_lab_that_stands_is_refused(small: TestLab) -> None:
    path = small.folder / "lab.yaml"
    text = path.read_text()
    path.write_text(re.sub(r"192\.168\.59", "192.168.62", text))
    try:
        ended = small.inv("up")
    finally:
        path.write_text(text)
    assert ended.code == 2
    assert "network.subnet: 192.168.59.0/24 → 192.168.62.0/24 can't be done" in ended.said
    assert "Traceback" not in ended.said


def test_a_foreign_container_of_our_name_is_refused_and_kept(tmp_path: Path) -> None:
    from tests.labs.conftest import make_lab

    lab = make_lab(tmp_path, name="ha-lab-foreign", network={"subnet": "192.168.62.0/24"})
    image = bake.bake(lab.session, consent=False)
    name = "ha-lab-foreign-cp1"
    subprocess.run(["docker", "create", "--name", name, "--entrypoint", "true", image], check=True)
    try:
        ended = lab.inv("up")
        assert ended.code == 3
        assert name in ended.said
        assert "Traceback" not in ended.said
        assert lab.inv("destroy", "--yes").code == 0
        assert subprocess.run(["docker", "inspect", name], capture_output=True, check=False).returncode == 0
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", name], check=True)


def test_destroy_leaves_nothing_behind(seven: TestLab, small: TestLab) -> None:
    volumes = [v for lab in (seven, small) for v in _volumes(lab)]
    assert volumes
    for lab in (seven, small):
        name, sockets = lab.session.lab.name, control_folder(lab.session.workspace)
        lab.succeed("ssh", "cp1", "--", "true")  # ssh keeps a connection for 60 s after its last use
        assert list(sockets.glob("*"))
        lab.succeed("destroy", "--yes")
        assert not lab.containers()
        assert not (lab.folder / ".lab").exists()
        left = _docker("ps", "--all", "--format", "{{.Names}}") + _docker(
            "network", "ls", "--format", "{{.Name}}"
        )
        assert not [each for each in left if name in each or str(lab.session.lab.network.subnet) in each]
        assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(lab.folder) in _read(p)]
        assert not list(sockets.glob("*"))
    assert not set(volumes) & set(_docker("volume", "ls", "--quiet"))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _docker(*words: str) -> list[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()


def _volumes(lab: TestLab) -> list[str]:
    template = "{{range .Mounts}}{{if .Name}}{{.Name}} {{end}}{{end}}"
    return _docker("inspect", "--format", template, *lab.containers().values())


def _addresses(lab: TestLab) -> dict[str, str]:
    template = "{{range $name, $net := .NetworkSettings.Networks}}{{$net.IPAddress}},{{end}}"
    subnet = str(lab.session.lab.network.subnet).rpartition(".")[0]
    found = {}
    for name, container in lab.containers().items():
        addresses = _docker("inspect", "--format", template, container)[0].split(",")
        found[name] = next(address for address in addresses if address.startswith(subnet))
    return found


def _restarts(lab: TestLab) -> dict[str, str]:
    """Every pod's restart count, as the API has it."""
    from lab.health.cluster import Api

    items = Api(lab.session.workspace.kubeconfig).get("/api/v1/namespaces/kube-system/pods")["items"]
    return {
        item["metadata"]["name"]: str(sum(c["restartCount"] for c in item["status"]["containerStatuses"]))
        for item in items
    }
