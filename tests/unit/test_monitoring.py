"""docs/monitoring.md: its YAML can be read, and names the machines and ports of the lab that it is for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from lab.config import default
from lab.health.checks.control_planes import METRICS
from lab.model import Node
from lab.system.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
RIGHTS, PROMETHEUS = (
    list(yaml.safe_load_all(block)) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
)
PORTS = METRICS | {"api-server": 6443, "kubelet": 10250}
"""What a Prometheus asks: the ports that `verify` asks, and the two that all of Kubernetes asks."""

LAB = default()
MACHINES: dict[str, Sequence[Node]] = {
    "api-server": LAB.control_planes,
    "controller-manager": LAB.control_planes,
    "scheduler": LAB.control_planes,
    "etcd": LAB.etcd_members,
    "kubelet": LAB.kubernetes_nodes,
    "kube-proxy": LAB.kubernetes_nodes,
}


def jobs() -> dict[str, dict[str, Any]]:
    (config,) = PROMETHEUS
    return {job["job_name"]: job for job in config["scrape_configs"]}


def port(job: str) -> int:
    return PORTS.get(job) or PORTS[f"kube-{job}"]


def test_there_is_a_job_for_each_part_that_has_metrics() -> None:
    assert set(jobs()) == set(MACHINES)
    assert {port(job) for job in jobs()} == set(PORTS.values())


@pytest.mark.parametrize("job", MACHINES)
def test_the_targets_are_the_machines_of_the_default_lab(job: str) -> None:
    (targets,) = jobs()[job]["static_configs"]
    assert targets["targets"] == [f"{node.address}:{port(job)}" for node in MACHINES[job]]


@pytest.mark.parametrize("job", MACHINES)
def test_a_job_says_who_it_is_and_whom_it_trusts(job: str) -> None:
    found = jobs()[job]
    if job == "kube-proxy":
        assert set(found) == {"job_name", "static_configs"}
        return
    assert found["scheme"] == "https"
    tls = found["tls_config"]
    is_self_signed = job in ("scheduler", "controller-manager")
    own: dict[str, object] = {"insecure_skip_verify": True} if is_self_signed else {}
    if job == "etcd":
        assert tls == {"ca_file": "etcd-ca.crt", "cert_file": "etcd.crt", "key_file": "etcd.key"}
    else:
        assert found["authorization"] == {"credentials_file": "token"}
        assert tls == (own or {"ca_file": "ca.crt"})


def test_every_file_that_is_named_is_made_by_a_command_of_the_page() -> None:
    named = {
        value
        for job in jobs().values()
        for key, value in {**job.get("tls_config", {}), **job.get("authorization", {})}.items()
        if key.endswith("_file")
    }
    commands = re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)
    made = {command.rpartition(">")[2] if ">" in command else command.split()[-1] for command in commands}
    assert named <= made


def test_the_rights_are_those_that_metrics_need() -> None:
    kinds = {each["kind"]: each for each in RIGHTS}
    assert set(kinds) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    urls, nodes = kinds["ClusterRole"]["rules"]
    assert "/metrics" in urls["nonResourceURLs"]
    assert (nodes["resources"], nodes["verbs"], urls["verbs"]) == (["nodes/metrics"], ["get"], ["get"])
    account = kinds["ServiceAccount"]["metadata"]
    assert kinds["ClusterRoleBinding"]["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert kinds["ClusterRoleBinding"]["roleRef"]["name"] == kinds["ClusterRole"]["metadata"]["name"]


def test_the_table_has_each_part_s_port() -> None:
    rows = re.findall(r"^\| ([\w -]+) \| [\w, ]+ \| (\d+) \|", PAGE, re.MULTILINE)
    found = {name.lower().replace(" ", "-"): int(number) for name, number in rows}
    assert found == {job: port(job) for job in MACHINES}
