"""Manifests of pod networks: what is refused before any machine is made, and with which line."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab.config import load
from lab.config.manifest import Fault, faults
from lab.errors import ConfigError
from lab.system.paths import REPOSITORY
from tests.unit.fakes import MANIFEST

PODS = IPv4Network("10.244.0.0/16")
FLANNEL = (REPOSITORY / "supply" / "flannel" / "0.28.4" / "kube-flannel.yml").read_text(encoding="utf-8")
CALICO = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec:
  template:
    spec:
      containers:
        - name: calico-node
          env:
            - {name: DATASTORE_TYPE, value: kubernetes}
            - {name: NODENAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - name: CALICO_IPV4POOL_CIDR
              value: "%s"
"""
POOL = """\
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: default}
spec:
  cidr: %s
"""
OPERATOR = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: tigera-operator, namespace: tigera-operator}
---
apiVersion: operator.tigera.io/v1
kind: Installation
metadata: {name: default}
spec:
  calicoNetwork:
    ipPools:
      - blockSize: 26
        cidr: %s
"""
CILIUM = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config}
data:
  ipam: "%s"
  cluster-pool-ipv4-cidr: "10.0.0.0/8"
"""
PAGE = "\n<!DOCTYPE html>\n<html lang=en>\n<head><title>flannel/kube-flannel.yml</title>\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (PAGE, 1, "is a web page, not a manifest: download the raw file"),
        ("", 1, "is empty"),
        ("# nothing yet\n---\n", 1, "is empty"),
        ("404: Not Found", 1, "is not a manifest: the object that starts here has no apiVersion and no kind"),
        ("Not found\n", 1, "is text, not a manifest"),
        ("- a\n- b\n", 1, "is text, not a manifest"),
        (f"{MANIFEST}---\nnetwork: {{pods: 10.0.0.0/16}}\n", 5, "is not a manifest: the object that starts"),
        (
            "apiVersion: v1\nkind: Pod\n",
            1,
            "is not a manifest: the object that starts here has no metadata.name",
        ),
        ("a: b: c\n", 1, "can't be read as YAML: mapping values are not allowed in this context"),
        (
            "kind: DaemonSet\n{{- if .Values.x }}\na: b\n",
            3,
            "can't be read as YAML: could not find expected ':' (while scanning a simple key that begins on "
            "line 2) (if it is a Helm chart's template",
        ),
        ("\0", 1, "can't be read as YAML: "),
        (SERVICE, 1, "has no DaemonSet, so no node would get a pod network (it has: Service)"),
        ("apiVersion: v1\nkind: List\nitems: []\n", 1, "has no DaemonSet, so no node would get a pod network"),
    ],
)
def test_a_file_that_is_no_pod_networks_manifest_is_one_fault(text: str, line: int, what: str) -> None:
    (found,) = faults(text, PODS)
    assert found.line == line
    assert found.what.startswith(what)
    assert not found.pods


@pytest.mark.parametrize(
    "text",
    [
        MANIFEST,
        FLANNEL,
        CALICO % "10.244.0.0/16",
        CALICO % "10.244.128.0/17",
        CALICO % "fd00::/48",
        f"{MANIFEST}---\n" + POOL % "10.244.0.0/17",
        OPERATOR % "10.244.0.0/16",
        f"{MANIFEST}---\n" + CILIUM % "kubernetes",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: DaemonSet\n  metadata: {name: a}\n",
    ],
)
def test_a_pod_networks_manifest_with_the_labs_pods_has_no_fault(text: str) -> None:
    assert faults(text, PODS) == []


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (CALICO % "192.168.0.0/16", 13, "Calico's CALICO_IPV4POOL_CIDR is 192.168.0.0/16, and should be"),
        (CALICO % "10.0.0.0/8", 13, "Calico's CALICO_IPV4POOL_CIDR is 10.0.0.0/8, and should be"),
        (
            CALICO % "$POD_CIDR",
            13,
            "Calico's CALICO_IPV4POOL_CIDR is $POD_CIDR, and should be network.pods, 10.2",
        ),
        (f"{MANIFEST}---\n" + POOL % "192.168.0.0/16", 9, "Calico's IPPool, spec.cidr is 192.168.0.0/16"),
        (
            OPERATOR % "192.168.0.0/16",
            12,
            "Calico's Installation, spec.calicoNetwork.ipPools is 192.168.0.0/16",
        ),
        (
            f"{MANIFEST}---\n" + CILIUM % "cluster-pool",
            10,
            "Cilium's cluster-pool-ipv4-cidr is 10.0.0.0/8, and",
        ),
        (
            FLANNEL.replace('"10.244.0.0/16"', '"10.5.0.0/16"'),
            93,
            "flannel's net-conf.json, Network is 10.5.0.0/16",
        ),
        # A part of the pods' network leaves nodes without one: flannel refuses a node's part outside its own.
        (
            FLANNEL.replace('"10.244.0.0/16"', '"10.244.0.0/17"'),
            93,
            "flannel's net-conf.json, Network is 10.244.0",
        ),
        (
            FLANNEL.replace('"10.244.0.0/16",', ""),
            93,
            "flannel's net-conf.json, Network is missing, and should",
        ),
    ],
)
def test_a_network_that_is_not_the_labs_pods_is_a_fault_with_its_line(text: str, line: int, what: str) -> None:
    (found,) = faults(text, PODS)
    assert found.line == line
    assert found.what.startswith(what)
    assert "network.pods, 10.244.0.0/16" in found.what
    assert found.pods


def test_every_network_that_is_wrong_is_named() -> None:
    text = CALICO % "192.168.0.0/16" + "---\n" + POOL % "192.168.0.0/17" + "---\n" + POOL % "10.244.0.0/17"
    assert [fault.line for fault in faults(text, PODS)] == [13, 19]


def test_aliases_in_a_manifest_are_followed_and_none_without_end() -> None:
    text = CALICO.replace("env:", "env: &env").replace("name: calico-node\n", "name: calico-node\n", 1)
    assert [fault.line for fault in faults(text % "192.168.0.0/16", PODS)] == [13]
    assert faults("a: &a\n  - *a\n", PODS)[0].what.startswith("is not a manifest")


def test_a_fault_is_a_problem_of_lab_yaml_with_file_key_and_line(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "lab.yaml").write_text("network:\n  pods: 10.0.0.0/16\n  pod_network: page.html\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "lab.yaml")
    (problem,) = caught.value.problems
    assert problem.endswith(
        "lab.yaml:3: network.pod_network: page.html:1: is a web page, not a manifest: download the raw file"
    )
    (tmp_path / "page.html").write_text(FLANNEL)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "lab.yaml")
    (problem,) = caught.value.problems
    assert problem.endswith(
        "lab.yaml:3: network.pod_network: page.html:93: flannel's net-conf.json, Network is 10.244.0.0/16, and "
        "should be network.pods, 10.0.0.0/16"
    )


@pytest.mark.parametrize("kind", ["DaemonSet", "ClusterRole"])
def test_a_manifest_that_has_kube_router_itself_needs_policy_none(tmp_path: Path, kind: str) -> None:
    own = f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: kube-router}}\n"
    (tmp_path / "mine.yaml").write_text(f"{MANIFEST}---\n{own}")
    lab_file = tmp_path / "lab.yaml"
    lab_file.write_text("network:\n  pod_network: mine.yaml\n")
    with pytest.raises(ConfigError) as caught:
        load(lab_file)
    (problem,) = caught.value.problems
    line = MANIFEST.count("\n") + 2
    assert problem.endswith(
        f"mine.yaml:{line} has kube-router, which the kit would run a second time (network.policy: none)"
    )
    lab_file.write_text("network:\n  pod_network: mine.yaml\n  policy: none\n")
    assert load(lab_file).network.policy == "none"
    (tmp_path / "mine.yaml").write_text(MANIFEST + "# kube-router\n")
    lab_file.write_text("network:\n  pod_network: mine.yaml\n")
    assert load(lab_file).network.policy == "kube-router", "allowed beside any other"


def test_a_network_is_not_held_against_pods_that_are_wrong_themselves(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(FLANNEL.replace("10.244.0.0/16", "10.0.0.0/16"))
    (tmp_path / "lab.yaml").write_text("network:\n  pods: 10.0.0.0\n  pod_network: mine.yaml\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "lab.yaml")
    (problem,) = caught.value.problems
    assert "lab.yaml:2: network.pods: 10.0.0.0 has no prefix length" in problem


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "disc.iso").open("wb") as file:
        file.truncate(8 * 2**20 + 1)
    (tmp_path / "lab.yaml").write_text("network: {pod_network: disc.iso}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "lab.yaml")
    (problem,) = caught.value.problems
    assert "disc.iso is larger than 8 MiB" in problem


def test_a_fault_says_whether_it_depends_on_the_pods_network() -> None:
    assert Fault(1, "is empty").pods is False
