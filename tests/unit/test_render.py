"""Rendered files against golden ones. `UPDATE_GOLDEN=1 pytest tests/unit/test_render.py` writes them anew."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from lab import config
from lab.config import Choice
from lab.golden.supply.releases import release
from lab.health.facts.api import health_paths
from lab.health.facts.machine import SCRIPTS
from lab.host import hypervisor
from lab.model import Lab, Libvirt, LoadBalancer
from lab.model.addons import ADDONS
from lab.model.roles import COREDNS_PATCH, NETWORK_POLICY
from lab.plans.up import provisioners
from lab.system.paths import REPOSITORY
from lab.workspace import render
from lab.workspace.render import Site
from tests.unit.fakes import GOLDEN, SITE, program, with_a_second_balancer
from tests.whole import rows

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
HOSTILE = "a'b\"c `id` $(id) ${HOME} #{`id`} \\' \\ %x(id) {{ 1 }} é"
STUB = """
class Anything
  def method_missing(name, *words, **named, &block)
    $seen << [name.to_s.delete_suffix("="), *words, *(named.empty? ? [] : [named])] unless block
    block.call(Anything.new) if block
    Anything.new
  end
  def respond_to_missing?(*) = true
end
module Vagrant
  def self.configure(version) = yield(Anything.new)
end
$seen = []
load ARGV[0]
require "json"
puts JSON.dump($seen)
"""


def labs() -> dict[str, Lab]:
    default = config.default()
    return {
        "default": default,
        "smallest": config.load(REPOSITORY / "examples" / "smallest.yaml"),
        "external": external(),
        "pair": pair(),
        "pair-reference": pair(profile="reference"),
        "reference-profile": default.model_copy(update={"load_balancer": LoadBalancer(profile="reference")}),
        "virtualbox": default.model_copy(update={"provider": "virtualbox"}),
        "libvirt": virtual(default),
        "emulated": config.load(REPOSITORY / "examples" / "smallest.yaml", lambda _: Choice("libvirt", True)),
    }


def pair(**settings: Any) -> Lab:
    lab = config.load(REPOSITORY / "examples" / "two-load-balancers.yaml")
    return lab.model_copy(update={"load_balancer": LoadBalancer(**settings)})


def external() -> Lab:
    return config.load(REPOSITORY / "examples" / "external-etcd-small.yaml")


def virtual(lab: Lab, **settings: Any) -> Lab:
    return lab.model_copy(update={"provider": "libvirt", "libvirt": Libvirt(**settings)})


def texts(lab: Lab, site: Site = SITE) -> dict[str, str]:
    """All that is rendered but scripts and the CA, which are copies."""
    found = render.render(lab, site, provisioners)
    return {path: text for path, text in found.items() if not path.endswith((".sh", ".lua", "ca.crt"))}


def kept(name: str) -> dict[str, str]:
    folder = GOLDEN / name
    return {
        str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def ruby() -> str:
    """Ruby, which Vagrant brings; CI has it, and says so where it is missing."""
    found = shutil.which("ruby")
    if not found and not os.environ.get("CI"):
        pytest.skip("ruby is not on PATH; CI has it")
    assert found, "CI must have ruby"
    return found


def evaluated(text: str, tmp_path: Path) -> list[Any]:
    """Every word that a Vagrantfile says, as Ruby has it."""
    (tmp_path / "Vagrantfile").write_text(text)
    (tmp_path / "stub.rb").write_text(STUB)
    subprocess.run([ruby(), "-c", tmp_path / "Vagrantfile"], check=True, capture_output=True)
    said = subprocess.run(
        [ruby(), tmp_path / "stub.rb", tmp_path / "Vagrantfile"], check=True, capture_output=True, text=True
    )
    found = json.loads(said.stdout)
    assert isinstance(found, list)
    return found


def sourced(text: str, names: list[str]) -> list[str]:
    """What bash has in variables after it has read an env file."""
    script = f'set -eu\n{text}\nprintf "%s\\0" ' + " ".join(f'"${{{name}}}"' for name in names)
    said = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, cwd="/")
    return said.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    "name",
    [
        *("default", "smallest", "external", "pair", "pair-reference", "reference-profile"),
        *("libvirt", "emulated", "virtualbox"),
    ],
)
def test_rendered_files_are_the_golden_ones(name: str) -> None:
    boxed = labs()[name].provider != "docker"
    site = replace(SITE, image="ha-lab/golden-0123456789abcdef") if boxed else SITE
    found = texts(labs()[name], site)
    if name == "reference-profile":  # only this file differs from the default lab's
        found = {"nodes/lb1/haproxy.cfg": found["nodes/lb1/haproxy.cfg"]}
    if name.startswith("pair"):  # what only a lab with two load balancers has
        own = re.compile(r"nodes/lb./(haproxy.cfg|keepalived.conf|node.env)|nodes/cp1/kubeadm-init.yaml")
        found = {path: text for path, text in found.items() if own.fullmatch(path)}
    if name == "external":  # what only a lab has whose etcd has machines of its own
        own = re.compile(r"nodes/etcd[12]/.*|nodes/cp1/(kubeadm-(init|etcd-client).yaml|node.env)")
        found = {path: text for path, text in found.items() if own.fullmatch(path)}
    if name in ("libvirt", "virtualbox"):
        found = {"Vagrantfile": found["Vagrantfile"]}
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        for path, text in found.items():
            (GOLDEN / name / path).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name / path).write_text(text)
    assert found == kept(name)


def test_nothing_reaches_the_api_at_the_address_of_one_of_two_load_balancers() -> None:
    found = texts(pair())
    naming = sorted(path for path, text in found.items() if "192.168.62.5" in text)
    for own in ("192.168.62.6:6443", "192.168.62.7:6443"):
        assert [path for path, text in found.items() if own in text] == []
    for path in ("kubeadm-init.yaml", "kubeadm-join.yaml", "token.conf", "node.env"):
        assert f"nodes/cp1/{path}" in naming
    assert {"nodes/cp1/pod-network/kustomization.yaml", "nodes/cp1/pod-network/kube-router.yaml"} <= set(naming)
    names = yaml.safe_load(found["nodes/cp1/kubeadm-init.yaml"].split("\n---\n")[1])["apiServer"]["certSANs"]
    assert names[:5] == ["192.168.62.5", "192.168.62.6", "lb1", "192.168.62.7", "lb2"]


@pytest.mark.parametrize("provider", ["docker", "libvirt", "virtualbox"])
def test_machines_of_every_provider_share_an_address_in_the_same_way(provider: Any) -> None:
    lab = virtual(pair()) if provider == "libvirt" else pair().model_copy(update={"provider": provider})
    for name in ("lb1", "lb2"):
        path = f"nodes/{name}/keepalived.conf"
        assert texts(lab)[path] == texts(pair())[path]
    assert "192.168.62.5" not in texts(lab)["Vagrantfile"], "no machine has it from the start"


def test_emulated_load_balancers_give_one_another_more_time() -> None:
    lab = pair().model_copy(update={"provider": "libvirt", "libvirt": Libvirt(emulated=True)})
    found = texts(lab)["nodes/lb1/keepalived.conf"]
    for line in ("interval 10", "timeout 10", "advert_int 5.0"):
        assert f"\t{line}\n" in found


def test_keepalived_asks_haproxy_and_not_the_api_but_in_the_write_up_s_profile() -> None:
    tuned = render.render(pair(), SITE, provisioners)["nodes/lb1/keepalived-check.sh"]
    assert tuned.startswith("#!/bin/sh\n")
    assert "/run/haproxy/admin.sock" in tuned
    assert "6443" not in tuned
    reference = render.render(pair(profile="reference", port=8443), SITE, provisioners)
    assert reference["nodes/lb1/keepalived-check.sh"].startswith("#!/bin/sh\n")
    assert "https://localhost:8443/healthz" in reference["nodes/lb1/keepalived-check.sh"]


def test_one_load_balancer_has_nothing_of_keepalived() -> None:
    found = render.render(labs()["default"], SITE, provisioners)
    assert [path for path in found if "keepalived." in path and not path.endswith("/keepalived.sh")] == []
    assert [path for path in found if "keepalived-check" in path] == []
    assert "transparent" not in found["nodes/lb1/haproxy.cfg"]


def test_the_load_balancer_s_profile_changes_only_its_own_file() -> None:
    plain, reference = texts(labs()["default"]), texts(labs()["reference-profile"])
    assert [path for path in plain if plain[path] != reference[path]] == ["nodes/lb1/haproxy.cfg"]


@pytest.mark.parametrize(
    ("profile", "wanted", "asked"),
    [
        ("tuned", "/readyz", "/readyz"),
        ("tuned", "/livez", "/livez"),
        ("reference", "/readyz", "/healthz"),
        ("reference", "/livez", "/healthz"),
    ],
)
def test_haproxy_asks_the_path_of_lab_yaml_and_the_write_up_its_own(
    profile: Literal["tuned", "reference"], wanted: str, asked: str
) -> None:
    load_balancer = LoadBalancer(profile=profile, health_path=wanted)
    lab = config.default().model_copy(update={"load_balancer": load_balancer})
    haproxy = texts(lab)["nodes/lb1/haproxy.cfg"]
    assert re.findall(r"http-check send meth GET uri (\S+)", haproxy) == [asked]
    assert health_paths(lab)[:3] == ("/healthz", "/livez", "/readyz"), (
        "verify asks /healthz, whatever HAProxy asks"
    )


def test_keepalive_notices_a_lost_client_before_its_timeout_does() -> None:
    haproxy = texts(config.default())["nodes/lb1/haproxy.cfg"]
    idle, interval, count = (
        int(re.findall(rf"clitcpka-{name} (\d+)", haproxy)[0]) for name in ("idle", "intvl", "cnt")
    )
    assert "timeout client 1h\n" in haproxy
    assert idle + interval * count < 3600


def test_virtualbox_changes_only_the_vagrantfile_and_nothing_names_its_nat() -> None:
    """So what runs in a machine is what runs in a container: it knows the lab's addresses and no other."""
    plain, found = texts(labs()["default"]), texts(labs()["virtualbox"])
    assert [path for path in plain if plain[path] != found[path]] == ["Vagrantfile"]
    assert not [
        path for path, text in found.items() if "10.0.2." in text or "eth0" in text.replace("eth0 is", "")
    ]


def test_each_load_balancer_has_its_own_statistics_and_the_same_api() -> None:
    one, two = texts(labs()["default"]), texts(with_a_second_balancer(labs()["default"]))
    assert two["nodes/lb1/haproxy.cfg"] == one["nodes/lb1/haproxy.cfg"]
    assert "bind 192.168.56.9:8404" in two["nodes/lb2/haproxy.cfg"]
    names = documents("nodes/cp1/kubeadm-init.yaml", with_a_second_balancer(labs()["default"]))
    assert names["ClusterConfiguration"]["controlPlaneEndpoint"] == "192.168.56.10:6443"
    assert names["ClusterConfiguration"]["apiServer"]["certSANs"] == [
        *("192.168.56.10", "lb1"),
        *("192.168.56.9", "lb2"),
    ]


def test_a_machine_is_given_no_script_of_another_role() -> None:
    found = render.render(labs()["default"], SITE, provisioners)
    assert "nodes/w1/control-plane-join.sh" not in found
    assert "nodes/cp1/worker-join.sh" not in found
    assert "nodes/cp1/load-balancer.sh" not in found


@pytest.mark.parametrize("name", sorted(labs()))
def test_every_machine_can_say_whose_scripts_it_has(name: str) -> None:
    """facts.sh hashes what it is asked by, on machines without pods, too."""
    lab = labs()[name]
    found = render.render(lab, SITE, provisioners)
    missing = [
        f"{node.name}/{path.name}"
        for node in lab.nodes
        for path in SCRIPTS
        if f"nodes/{node.name}/{path.name}" not in found
    ]
    assert missing == []


def test_a_load_balancer_has_the_scripts_that_it_runs_and_those_that_ask_it() -> None:
    found = render.render(labs()["default"], SITE, provisioners)
    scripts = {path.removeprefix("nodes/lb1/") for path in found if path.startswith("nodes/lb1/")}
    lab = labs()["default"]
    assert {f"{name}.sh" for name in provisioners(lab, lab.balancers[0])} <= scripts
    assert {"facts.sh", "pods.sh", "collect.sh", "probe.sh", "lib.sh", "kubernetes.sh", "settle.sh"} <= scripts
    assert not {"control-plane-init.sh", "worker-join.sh", "node.sh"} & scripts
    assert "nodes/w1/node.sh" in found


def test_another_provider_changes_the_vagrantfile_only() -> None:
    plain, libvirt = texts(labs()["default"]), texts(labs()["libvirt"])
    assert [path for path in plain if plain[path] != libvirt[path]] == ["Vagrantfile"]


def test_the_firmware_tells_a_virtual_machine_its_name_its_address_and_the_lab_s_key(tmp_path: Path) -> None:
    seen = evaluated(texts(labs()["libvirt"])["Vagrantfile"], tmp_path)
    values = [words[1]["value"] for words in seen if words[0] == "qemuargs"]
    assert values[::2] == ["-smbios"] * 21
    told = []
    for value in values[1::2]:
        head, _, text = value.rpartition("=") if not value.endswith("=") else value.rstrip("=").rpartition("=")
        kind, _, name = head.rpartition(":")
        assert kind == "type=11,value=io.systemd.credential.binary"
        told.append((name, base64.b64decode(text + "=" * (-len(text) % 4)).decode()))
    key, name, network = told[:3]
    assert key == (render.CREDENTIAL, f"{SITE.authorized_key}\n")
    assert name == ("system.hostname", "lb1")
    assert network[0] == "network.network.20-lab"
    assert "Name=eth1" in network[1]
    assert "Address=192.168.56.10/24" in network[1]
    assert [text for name, text in told if name == "system.hostname"] == [
        n.name for n in labs()["libvirt"].nodes
    ]
    # So that Vagrant does not log in to set them, half a minute where machines are emulated.
    assert not [words for words in seen if words[0] == "hostname"]
    networks = [words[-1] for words in seen if words[0] == "network"]
    assert {each["auto_config"] for each in networks} == {False}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("vagrant"), reason="Vagrant is not installed; `./inv test` wants it")
@pytest.mark.parametrize("name", rows(["default", "libvirt", "emulated"], usual=["default"]))
def test_vagrant_takes_the_rendered_file(name: str, tmp_path: Path) -> None:
    if name != "default" and not hypervisor.plugin():
        pytest.skip("Vagrant has no plugin for libvirt here; `./inv test --vm` wants it")
    (tmp_path / "Vagrantfile").write_text(texts(labs()[name])["Vagrantfile"])
    for node in labs()[name].nodes:
        (tmp_path / "nodes" / node.name).mkdir(parents=True)
        (tmp_path / "secrets" / node.name).mkdir(parents=True)
    (tmp_path / "secrets" / "id_ed25519").touch(mode=0o600)
    environment = {**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1", "HA_LAB_BOOT_ONLY": "1"}
    environment["VAGRANT_DEFAULT_PROVIDER"] = labs()[name].provider
    # Vagrant asks docker whether it is there, whose daemon need not run for this.
    program(tmp_path / "bin", "docker", '[ "$1" = version ]')
    environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}"
    said = subprocess.run(
        ["vagrant", "validate"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_times_are_longer_by_one_factor_where_machines_are_emulated_and_nowhere_else() -> None:
    lab = labs()["emulated"]
    assert (lab.patience, labs()["libvirt"].patience, labs()["default"].patience) == (10, 1, 1)
    found = documents("nodes/cp1/kubeadm-init.yaml", lab)
    assert found["InitConfiguration"]["timeouts"]["controlPlaneComponentHealthCheck"] == "60m0s"
    leases = {each["name"]: each["value"] for each in found["ClusterConfiguration"]["scheduler"]["extraArgs"]}
    assert leases["leader-elect-lease-duration"] == "150s"
    assert found["KubeletConfiguration"]["nodeLeaseDurationSeconds"] == 400
    assert found["InitConfiguration"]["patches"] == {"directory": "/opt/ha-lab/patches"}
    probed = {
        "etcd": {"readinessProbe": {"periodSeconds": 10}},
        "kube-apiserver": {"readinessProbe": {"periodSeconds": 10}},
        "kube-controller-manager": {},  # it has no readiness probe that a period could be given
        "kube-scheduler": {"readinessProbe": {"periodSeconds": 10}},
    }
    for name, readiness in probed.items():
        patch = f"nodes/cp1/patches/{name}+strategic.yaml"
        [container] = yaml.safe_load(texts(lab)[patch])["spec"]["containers"]
        assert container == {"name": name, "livenessProbe": {"periodSeconds": 100}} | readiness
        assert patch not in texts(labs()["libvirt"])
    plain = documents("nodes/cp1/kubeadm-init.yaml")["ClusterConfiguration"]["scheduler"]["extraArgs"]
    assert [each["name"] for each in plain if each["name"].startswith("leader-elect")] == []
    assert "timeout check 30s" in texts(lab)["nodes/lb1/haproxy.cfg"]
    assert "LAB_PATIENCE=10" in texts(lab)["nodes/w1/node.env"]
    assert not any("LAB_PATIENCE" in text for text in texts(labs()["libvirt"]).values())
    assert {node.cpus for node in lab.nodes} == {1}


# What docker 26 says of its networks, two of which have no addresses, before Vagrant's own class.
DOCKER_26 = """
module VagrantPlugins
  module DockerProvider
    class Driver
      def list_network_names = %w[host none lab]
      def inspect_network(names)
        [{ "Name" => "host", "IPAM" => { "Config" => nil } }, { "Name" => "none", "IPAM" => nil },
         { "Name" => "lab", "IPAM" => { "Config" => [{ "Subnet" => "192.168.56.0/24" }] } }]
      end
    end
  end
end
load ARGV[0]
require "json"
asked = VagrantPlugins::DockerProvider::Driver.new
puts JSON.generate([asked.network_defined?("192.168.56.0/24"), asked.network_defined?("192.168.57.0/24")])
"""


def test_networks_without_addresses_are_nobody_s_subnet(tmp_path: Path) -> None:
    """Vagrant 2.3.8 of Debian 13 ended with a NoMethodError there, seen in an emulated machine."""
    (tmp_path / "Vagrantfile").write_text(texts(labs()["default"])["Vagrantfile"])
    head = STUB.partition("load ARGV[0]")[0]
    (tmp_path / "docker26.rb").write_text(head + DOCKER_26)
    said = subprocess.run(
        [ruby(), tmp_path / "docker26.rb", tmp_path / "Vagrantfile"], check=True, capture_output=True, text=True
    )
    assert json.loads(said.stdout.splitlines()[-1]) == ["lab", None]


def test_the_same_lab_gives_the_same_texts() -> None:
    assert render.render(config.default(), SITE, provisioners) == render.render(
        config.default(), SITE, provisioners
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_renders(path: Path, tmp_path: Path) -> None:
    lab = config.load(path)
    found = texts(lab)
    hostnames = [words[1] for words in evaluated(found["Vagrantfile"], tmp_path) if words[0] == "hostname"]
    assert hostnames == [node.name for node in lab.nodes]
    for node in lab.nodes:
        assert f"nodes/{node.name}/node.env" in found


@pytest.mark.parametrize("name", ["default", "smallest"])
def test_every_yaml_is_yaml(name: str) -> None:
    for path, text in texts(labs()[name]).items():
        if path.endswith((".yaml", "token.conf")):
            assert all(isinstance(document, dict) for document in yaml.safe_load_all(text)), path


def documents(path: str, lab: Lab | None = None) -> dict[str, Any]:
    """The documents of a rendered file, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(texts(lab or config.default())[path])}


def test_kubeadm_s_init_is_of_the_right_kinds_and_versions() -> None:
    found = documents("nodes/cp1/kubeadm-init.yaml")
    assert {kind: each["apiVersion"] for kind, each in found.items()} == {
        "InitConfiguration": "kubeadm.k8s.io/v1beta4",
        "ClusterConfiguration": "kubeadm.k8s.io/v1beta4",
        "KubeletConfiguration": "kubelet.config.k8s.io/v1beta1",
        "KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
    }
    cluster = found["ClusterConfiguration"]
    assert cluster["controlPlaneEndpoint"] == "192.168.56.10:6443"
    assert cluster["kubernetesVersion"] == "v1.36.3"
    assert cluster["networking"] == {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/16"}
    assert found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == "192.168.56.11"


def test_kubeadm_s_join_is_v1beta4_with_the_ca_s_hash() -> None:
    control_plane = documents("nodes/cp2/kubeadm-join.yaml")["JoinConfiguration"]
    worker = documents("nodes/w1/kubeadm-join.yaml")["JoinConfiguration"]
    assert control_plane["apiVersion"] == worker["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert control_plane["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "192.168.56.12"
    assert "controlPlane" not in worker
    (pin,) = worker["discovery"]["bootstrapToken"]["caCertHashes"]
    assert pin.startswith("sha256:")
    assert worker["discovery"]["bootstrapToken"]["apiServerEndpoint"] == "192.168.56.10:6443"


def test_every_kubelet_has_the_lab_s_address() -> None:
    lab = config.default()
    for node in lab.kubernetes_nodes:
        files = ["kubeadm-join.yaml"] + (["kubeadm-init.yaml"] if node in lab.control_planes else [])
        for file in files:
            found = documents(f"nodes/{node.name}/{file}")
            registration = next(each for each in found.values() if "nodeRegistration" in each)[
                "nodeRegistration"
            ]
            assert registration["name"] == node.name
            assert {"name": "node-ip", "value": str(node.address)} in registration["kubeletExtraArgs"]


def test_no_secret_is_rendered() -> None:
    for path, text in render.render(config.default(), SITE, provisioners).items():
        assert "PRIVATE KEY" not in text, path
    assert "@BOOTSTRAP_TOKEN@" in texts(config.default())["nodes/w1/kubeadm-join.yaml"]
    assert "@CERTIFICATE_KEY@" not in texts(config.default())["nodes/w1/kubeadm-join.yaml"]


def test_a_machine_is_given_what_its_role_needs() -> None:
    found = texts(config.default())
    names = {
        name: {path.removeprefix(f"nodes/{name}/") for path in found if path.startswith(f"nodes/{name}/")}
        for name in ("lb1", "cp2", "w1")
    }
    common = {"node.env", "network.env", "hosts"}
    assert names["lb1"] == common | {"haproxy.cfg"}
    assert names["w1"] == common | {"kubeadm-join.yaml", "token.conf"}
    joins = {"kubeadm-init.yaml", "kubeadm-join.yaml", "token.conf", "pod-network/kustomization.yaml"}
    addons = {f"addons/{name}.{kind}" for name in ADDONS for kind in ("yaml", "objects")}
    assert names["cp2"] == common | joins | addons | {COREDNS_PATCH, NETWORK_POLICY}


def test_coredns_s_replicas_are_kept_apart_where_there_are_two_nodes() -> None:
    patch = f"nodes/cp1/{COREDNS_PATCH}"
    found = texts(labs()["default"])
    [term] = yaml.safe_load(found[patch])["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert "directory: /opt/ha-lab/patches" in found["nodes/cp1/kubeadm-init.yaml"]
    alone = config.default().model_copy(update={"nodes": config.default().nodes[:2]})
    # A second replica would wait for ever where there is one node.
    assert patch not in texts(alone)
    assert "patches" not in texts(alone)["nodes/cp1/kubeadm-init.yaml"]


def test_env_files_give_bash_what_the_model_says() -> None:
    found = texts(config.default())
    names = ["LAB_NAME", "NODE_NAME", "NODE_ROLE", "NODE_ADDRESS", "API_ENDPOINT", "KUBERNETES_NODES"]
    assert sourced(found["nodes/cp2/node.env"], names) == [
        *("ha-lab", "cp2", "control-plane", "192.168.56.12", "192.168.56.10:6443", "cp1 cp2 cp3 w1 w2 w3"),
    ]
    assert sourced(found["nodes/cp3/node.env"], ["PREVIOUS_CONTROL_PLANE"]) == ["cp2"]
    assert sourced(found["nodes/cp1/node.env"], ["PREVIOUS_CONTROL_PLANE"]) == [""]
    assert sourced(found["nodes/w1/network.env"], ["PODS", "SERVICES"]) == ["10.244.0.0/16", "10.96.0.0/16"]
    assert sourced(found["nodes/lb1/network.env"], ["PODS", "SERVICES"]) == ["", ""]


def hostile() -> tuple[Lab, Site]:
    """A lab and a site whose every free text wants to be more than text."""
    lab = config.default().model_copy(update={"name": HOSTILE})
    owner = f"/home/{HOSTILE}/.lab"
    site = replace(SITE, workspace=Path(owner), owner=owner, image=HOSTILE, authorized_key=HOSTILE)
    return lab, site


def test_nothing_in_a_text_means_anything_to_ruby(tmp_path: Path) -> None:
    seen = evaluated(render.render(*hostile(), provisioners)["Vagrantfile"], tmp_path)
    said = {words[0]: words[1] for words in seen if len(words) > 1}
    assert said["image"] == HOSTILE
    assert said["env"] == {"HA_LAB_AUTHORIZED_KEY": HOSTILE}
    assert said["name"] == f"{HOSTILE}-w3"
    assert f"ha-lab.workspace=/home/{HOSTILE}/.lab" in said["create_args"]


def test_nothing_in_a_text_means_anything_to_a_shell() -> None:
    found = render.render(*hostile(), provisioners)
    assert sourced(found["nodes/cp1/node.env"], ["LAB_NAME"]) == [HOSTILE]


def test_nothing_in_a_text_means_anything_to_yaml() -> None:
    found = render.render(*hostile(), provisioners)["nodes/cp1/kubeadm-init.yaml"]
    cluster = next(each for each in yaml.safe_load_all(found) if each["kind"] == "ClusterConfiguration")
    assert cluster["clusterName"] == HOSTILE


@pytest.mark.parametrize("part", ["a b", 'a"b', "a'b", "a%hb", "a#b", "a\\b"])
def test_a_workspace_may_have_any_name_for_ssh(tmp_path: Path, part: str) -> None:
    workspace = tmp_path / part / ".lab"
    (tmp_path / "ssh_config").write_text(
        render.render(config.default(), replace(SITE, workspace=workspace), provisioners)["ssh_config"]
    )
    words = ["ssh", "-G", "-F", str(tmp_path / "ssh_config"), "cp1"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "hostname 192.168.56.11" in said
    # -G shows paths before their tokens are replaced, and %% is the one for %.
    assert f"identityfile {workspace}/secrets/id_ed25519".replace("%", "%%") in said


def test_a_manifest_of_one_s_own_is_copied_as_it_is() -> None:
    manifest = f"apiVersion: v1\nkind: ConfigMap\n# {HOSTILE}\n"
    found = render.render(config.default(), replace(SITE, manifest=manifest), provisioners)
    assert found["nodes/cp1/pod-network/manifest.yaml"] == manifest
    kustomization = yaml.safe_load(found["nodes/cp1/pod-network/kustomization.yaml"])
    assert kustomization["resources"] == ["manifest.yaml", "kube-router.yaml"]
    assert "patches" not in kustomization


def without_policies() -> Lab:
    lab = config.default()
    return lab.model_copy(update={"network": lab.network.model_copy(update={"policy": "none"})})


def test_kube_router_runs_its_firewall_only_and_may_only_read() -> None:
    documents = list(yaml.safe_load_all(texts(config.default())[f"nodes/cp1/{NETWORK_POLICY}"]))
    kinds = {each["kind"]: each for each in documents}
    assert set(kinds) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"}
    assert {each["metadata"]["name"] for each in documents} == {"kube-router"}
    assert {each["metadata"]["labels"]["ha-lab/part"] for each in documents} == {"network-policy"}
    verbs = {verb for rule in kinds["ClusterRole"]["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
    resources = {name for rule in kinds["ClusterRole"]["rules"] for name in rule["resources"]}
    assert "secrets" not in resources
    pod = kinds["DaemonSet"]["spec"]["template"]
    assert pod["metadata"]["labels"]["ha-lab/part"] == "network-policy"
    [container] = pod["spec"]["containers"]
    assert container["image"] == release("1.36.3").kube_router_image
    assert container["args"] == [
        *("--run-firewall=true", "--run-router=false", "--run-service-proxy=false"),
        "--service-cluster-ip-range=10.96.0.0/16",
    ]
    assert "privileged" not in container["securityContext"]
    assert pod["spec"]["priorityClassName"] == "system-node-critical"
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_without_network_policies_there_is_no_kube_router_and_its_rules_are_removed() -> None:
    lab = without_policies()
    found = texts(lab)
    assert f"nodes/cp1/{NETWORK_POLICY}" not in found
    assert len(yaml.safe_load(found["nodes/cp1/pod-network/kustomization.yaml"])["resources"]) == 1
    assert "NETWORK_POLICY=none\n" in found["nodes/w1/node.env"]
    assert list(provisioners(lab, lab.workers[0])) == ["node", "worker-join", "policy-rules"]
    assert "policy-rules" in provisioners(lab, lab.first)


def test_a_bare_vagrant_up_runs_every_script_that_each_role_needs(tmp_path: Path) -> None:
    lab = config.default()
    steps = {node.name: list(provisioners(lab, node)) for node in lab.nodes}
    assert steps["lb1"] == ["load-balancer"]
    assert steps["cp1"] == [
        *("node", "control-plane-init", "pod-network", "addons", "kubelet-certificates", "revoke")
    ]
    assert steps["cp2"] == steps["cp3"] == ["node", "control-plane-join"]
    assert steps["w1"] == ["node", "worker-join"]
