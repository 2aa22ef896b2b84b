"""The table of add-ons, and what is rendered of it: manifests that are what their rows and the lab say."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from lab.config import default
from lab.golden.supply.images import PROBE, RECIPES, addon_images, short_name
from lab.golden.supply.releases import release
from lab.health.checks import GROUPS, cases
from lab.health.checks.check import LabCheck
from lab.health.facts import probes
from lab.model.addons import ADDONS
from lab.plans.up import provisioners
from lab.system.paths import PROVISION
from lab.workspace import render
from tests.breaking.sabotages import SABOTAGES
from tests.unit.fakes import SITE

FILES = render.render(default(), SITE, provisioners)
RELEASE = release(default().kubernetes.version)


def manifest(name: str) -> list[dict[str, Any]]:
    """The objects of an add-on's manifest, as cp1 has it."""
    return [each for each in yaml.safe_load_all(FILES[f"nodes/cp1/addons/{name}.yaml"]) if each]


def pod_of(name: str) -> dict[str, Any]:
    """The one pod that an add-on runs, as its Deployment has it."""
    (found,) = [each for each in manifest(name) if each["kind"] == "Deployment"]
    assert found["spec"]["replicas"] == 1, "without it, `up` could not scale it back"
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", ADDONS)
def test_every_object_of_an_add_on_carries_its_name(name: str) -> None:
    labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in manifest(name)}
    assert [each for each, found in labels.items() if found.get("ha-lab/addon") != name] == []


@pytest.mark.parametrize("name", ADDONS)
def test_the_list_of_objects_is_that_of_the_manifest(name: str) -> None:
    listed = FILES[f"nodes/cp1/addons/{name}.objects"].splitlines()
    assert listed == [
        f"{each['kind']} {each['metadata'].get('namespace', '-')} {each['metadata']['name']}"
        for each in manifest(name)
    ]
    assert len(set(listed)) == len(listed) > 5


@pytest.mark.parametrize("name", ADDONS)
def test_an_add_on_runs_from_its_own_image_which_every_golden_machine_has(name: str) -> None:
    (container,) = pod_of(name)["containers"]
    assert container["image"] == ADDONS[name].image.format(release=RELEASE)
    assert container["image"] in addon_images(RELEASE)
    assert short_name(container["image"]) in RECIPES
    assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("name", ADDONS)
def test_an_add_on_reaches_the_api_through_the_load_balancer_and_needs_no_worker(name: str) -> None:
    pod = pod_of(name)
    env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert (env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"]) == ("192.168.56.10", "6443")
    assert {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"} in pod["tolerations"]


@pytest.mark.parametrize("name", ADDONS)
def test_the_pods_of_an_add_on_are_known_by_its_row(name: str) -> None:
    (found,) = [each["metadata"] for each in manifest(name) if each["kind"] == "Deployment"]
    assert ADDONS[name].pods == f"{found['namespace']}/{found['name']}-"


@pytest.mark.parametrize("name", ADDONS)
def test_an_add_on_has_a_check_of_its_own_and_a_sabotage(name: str) -> None:
    checks = {check.name: check for _, checks in GROUPS for check in checks}
    check = checks[ADDONS[name].check]
    assert isinstance(check, LabCheck)
    assert check.addon == name
    assert any(check.name in each.expected and name in each.addons for each in SABOTAGES)


def test_a_lab_is_checked_only_for_the_add_ons_that_it_has() -> None:
    def checked(*addons: str) -> set[str]:
        lab = default().model_copy(update={"addons": addons})
        return {case.check.name for case in cases(lab) if case.group == "add-ons"}

    assert checked() == set()
    assert checked("local-path") == {"local-path"}
    assert checked(*ADDONS) == {addon.check for addon in ADDONS.values()}


def test_metrics_server_verifies_kubelets_by_the_cluster_s_ca() -> None:
    args = pod_of("metrics-server")["containers"][0]["args"]
    ca = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    assert f"--kubelet-certificate-authority={ca}" in args
    # The certificates are for names and addresses; it asks at the latter.
    assert "--kubelet-preferred-address-types=InternalIP" in args


def test_nothing_takes_a_kubelet_s_certificate_unverified() -> None:
    """Neither a template nor a script; this test and texts may name the option."""
    found = [
        path
        for path in PROVISION.rglob("*")
        if path.is_file() and "kubelet-insecure-tls" in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_local_path_makes_folders_with_an_image_that_machines_have() -> None:
    (config,) = [each for each in manifest("local-path") if each["kind"] == "ConfigMap"]
    (container,) = yaml.safe_load(config["data"]["helperPod.yaml"])["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == (PROBE, "Never")
    applets = (PROVISION / "golden" / "tools-layer.sh").read_text(encoding="utf-8")
    assert {"sh", "mkdir", "rm"} <= set(applets.partition("applets=")[2].split('"')[1].split())
    (storage,) = [each for each in manifest("local-path") if each["kind"] == "StorageClass"]
    assert storage["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_the_script_that_removes_local_path_knows_verify_s_namespaces() -> None:
    begins = re.search(r"generateName: (\S+)", probes.TEMPLATE.read_text(encoding="utf-8"))
    script = (PROVISION / "node" / "addons.sh").read_text(encoding="utf-8")
    assert begins is not None
    assert f"readonly OF_VERIFY={begins[1]}\n" in script


def test_only_control_planes_have_the_manifests() -> None:
    assert {path.split("/")[1] for path in FILES if "/addons/" in path} == {"cp1", "cp2", "cp3"}
