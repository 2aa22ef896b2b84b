from __future__ import annotations

import errno
import os
import traceback
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lab.config import default, load
from lab.errors import ConfigError
from lab.golden import build
from lab.golden.supply import lock
from lab.golden.supply.releases import supported
from lab.model import Kubernetes, Lab, LoadBalancer, Mirrors, Network
from tests.unit.fakes import MANIFEST

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lab_from(text: str) -> Lab:
    file = Path.cwd() / "lab.yaml"
    file.write_text(dedent(text), encoding="utf-8")
    return load(file)


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        lab_from(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.problems


# What a good file gives.


def test_the_defaults_are_the_designs() -> None:
    lab = default()
    assert (lab.name, lab.provider) == ("ha-lab", "docker")
    assert lab.kubernetes == Kubernetes(version="1.36.3", source="auto")
    assert lab.network == Network(
        subnet=IPv4Network("192.168.56.0/24"),
        pods=IPv4Network("10.244.0.0/16"),
        services=IPv4Network("10.96.0.0/16"),
        pod_network="flannel",
    )
    assert lab.load_balancer == LoadBalancer(profile="tuned", health_path="/readyz", port=6443)
    machines = [(node.name, str(node.address), node.cpus, node.memory_mib) for node in lab.nodes]
    assert machines == [
        ("lb1", "192.168.56.10", 1, 512),
        ("cp1", "192.168.56.11", 2, 2048),
        ("cp2", "192.168.56.12", 2, 2048),
        ("cp3", "192.168.56.13", 2, 2048),
        ("w1", "192.168.56.21", 2, 1536),
        ("w2", "192.168.56.22", 2, 1536),
        ("w3", "192.168.56.23", 2, 1536),
    ]


def test_the_default_version_is_supported() -> None:
    assert default().kubernetes.version in supported()


def test_the_kits_lab_yaml_is_the_default() -> None:
    assert load(ROOT / "lab.yaml") == default()


def test_a_missing_file_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path / "none.yaml") == default()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff", "network:\nnodes: ~\n", "{}"])
def test_a_file_that_says_nothing_is_the_default(text: str) -> None:
    assert lab_from(text) == default()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads_with_its_own_name_and_subnet(example: Path) -> None:
    lab = load(example)
    assert lab.name != default().name
    assert not lab.network.subnet.overlaps(default().network.subnet)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_can_be_baked_before_anybody_has_pinned_upstream(
    example: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    lab = load(example)
    assert build.key(lab, ["a"])


def test_the_reference_example_has_the_write_ups_addresses() -> None:
    lab = load(ROOT / "examples/reference.yaml")
    assert lab.api.host_port == "192.168.35.146:6443"
    assert lab.first.address == IPv4Address("192.168.35.243")
    assert str(lab.network.pods) == "10.0.0.0/16"
    assert len(lab.nodes) == 7


def test_the_smallest_example_has_one_machine_of_each_role() -> None:
    assert [node.name for node in load(ROOT / "examples/smallest.yaml").nodes] == ["lb1", "cp1", "w1"]


def test_two_load_balancers_come_after_the_address_that_they_share() -> None:
    lab = lab_from("nodes: {load_balancers: {count: 2}}")
    assert [(node.name, str(node.address)) for node in lab.nodes[:3]] == [
        ("lb1", "192.168.56.6"),
        ("lb2", "192.168.56.7"),
        ("cp1", "192.168.56.11"),
    ]
    assert lab.network.virtual_address == IPv4Address("192.168.56.5")


def test_the_shared_address_moves_along_with_the_subnet_or_is_the_one_in_the_file() -> None:
    text = "network: {{subnet: 10.9.0.0/24{}}}\nnodes: {{load_balancers: {{count: 2}}}}".format
    assert lab_from(text("")).network.virtual_address == IPv4Address("10.9.0.5")
    assert lab_from(text(", virtual_address: 10.9.0.99")).network.virtual_address == IPv4Address("10.9.0.99")


PAIR = "nodes: {load_balancers: {count: 2}}\nnetwork: {virtual_address: %s}"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("192.168.56.7", "192.168.56.7 is the address of lb2, and would be the virtual address, too"),
        ("192.168.56.21", "192.168.56.21 is the address of w1, and would be the virtual address, too"),
        ("192.168.56.0", "192.168.56.0 can't be the virtual address: it is the subnet's own address (192.168."),
        ("192.168.56.1", "192.168.56.1 can't be the virtual address: it is the host's own on that network ("),
        ("192.168.56.255", "192.168.56.255 can't be the virtual address: it is the subnet's broadcast address"),
        (
            "192.168.57.5",
            "192.168.57.5 can't be the virtual address: it is outside network.subnet, 192.168.56.0/24 "
            "(192.168.56.2 to 192.168.56.254)",
        ),
    ],
)
def test_an_address_that_two_load_balancers_can_t_share_is_a_problem(address: str, problem: str) -> None:
    (found,) = problems_of(PAIR % address)
    assert found.startswith(f"lab.yaml:2: network.virtual_address: {problem}")


def test_an_address_that_nothing_could_move_is_a_problem() -> None:
    (found,) = problems_of("network:\n  virtual_address: 192.168.56.5")
    assert found == (
        "lab.yaml:2: network.virtual_address: 192.168.56.5 has no second load balancer to move to "
        "(nodes.load_balancers.count: 2)"
    )


def test_the_shared_address_may_be_a_problem_without_being_in_the_file() -> None:
    (found,) = problems_of(
        "nodes:\n  load_balancers: {count: 2}\n  workers: {count: 2, first_address: 192.168.56.4}"
    )
    assert found.startswith("lab.yaml:3: nodes.workers.first_address: 192.168.56.5 is the address of w2, and")


def test_all_that_is_wrong_with_two_load_balancers_comes_at_once() -> None:
    found = problems_of("""\
        network:
          virtual_address: 192.168.57.5
        nodes:
          load_balancers: {count: 2, first_address: 192.168.56.10}
          workers: {first_address: 192.168.56.13}
        """)
    assert [problem.partition(": ")[0] for problem in found] == ["lab.yaml:2", "lab.yaml:4", "lab.yaml:5"]


def test_a_subnet_has_room_for_the_shared_address() -> None:
    tight = (
        "network: {{subnet: 192.168.56.0/29, virtual_address: 192.168.56.2}}\n"
        "nodes: {{workers: {{count: {}, first_address: 192.168.56.6}}, "
        "control_planes: {{count: 1, first_address: 192.168.56.5}}, "
        "load_balancers: {{count: 2, first_address: 192.168.56.3}}}}"
    ).format
    assert len(lab_from(tight(1)).nodes) == 4
    (found,) = problems_of(tight(2))
    assert found.startswith(
        "lab.yaml:1: network.subnet: 192.168.56.0/29 is too small for 5 machines and a virtual address (/28 or"
    )


def test_mirrors_are_taken_as_they_are() -> None:
    lab = lab_from("""
        mirrors:
          debian: http://10.1.2.3:8081/debian/
          files: {dl.k8s.io: https://mirror.example/k8s/}
          go: http://[::1]:3000
          images: {registry.k8s.io: "mirror.example:5000/k8s", ghcr.io: "http://127.0.0.1:5000", docker.io: https://m.example}
        """)
    assert lab.mirrors == Mirrors(
        debian="http://10.1.2.3:8081/debian",
        files={"dl.k8s.io": "https://mirror.example/k8s"},
        go="http://[::1]:3000",
        images={
            "registry.k8s.io": "mirror.example:5000/k8s",
            "ghcr.io": "http://127.0.0.1:5000",
            "docker.io": "m.example",
        },
    )


def test_all_that_is_wrong_with_mirrors_is_said_at_once_with_its_line() -> None:
    assert [
        problem.partition(": ")[0]
        for problem in problems_of(
            "mirrors:\n  debian: x\n  images:\n    k8s: mirror.example\n    ghcr.io: ' '\n  cargo: y\n"
        )
    ] == ["lab.yaml:2", "lab.yaml:4", "lab.yaml:5", "lab.yaml:6"]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ("{dl.k8s.io: [a]}", "dl.k8s.io: a list is not a mirror's URL"),
        (
            "{k8s.io: https://m}",
            "k8s.io: k8s.io is not a host of release files (dl.k8s.io, get.helm.sh, github.com)",
        ),
        (
            "{github.com: https://a:b@m}",
            "github.com: holds a login, which does not belong in this file (for files and images, put it",
        ),
    ],
)
def test_a_wrong_mirror_of_files_is_named(files: str, problem: str) -> None:
    (found,) = problems_of(f"mirrors: {{files: {files}}}\n")
    assert found.startswith(f"lab.yaml:1: mirrors.files.{problem}")


def test_a_file_of_an_earlier_version_that_sets_no_mirror_of_packages_still_loads() -> None:
    assert lab_from("mirrors:\n  kubernetes_packages:\n").mirrors == Mirrors()


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        ("{k8s: mirror.example}", "k8s: k8s is not the name of a registry (a host, such as registry.k8s.io)"),
        (
            "{ghcr.io: 'a b'}",
            "ghcr.io: 'a b' is not a registry (HOST, HOST:PORT or HOST/PATH, with http:// before",
        ),
        ("{ghcr.io: 'https://a:b@mirror.example'}", "ghcr.io: holds a login, which does not belong in this"),
        ("{ghcr.io: {}}", "ghcr.io: a mapping is not a registry"),
    ],
)
def test_a_wrong_mirror_of_images_is_named_by_its_registry(images: str, problem: str) -> None:
    (found,) = problems_of(f"mirrors: {{images: {images}}}")
    assert found.startswith(f"lab.yaml:1: mirrors.images.{problem}")


@pytest.mark.parametrize(
    "mirrors",
    [
        "{go: 'https://ada:s3cret@mirror.example'}",
        "{go: 'ada:s3cret@mirror.example'}",
        "{go: 'https://ada:s3c/s3cret@mirror.example/x'}",
        "{images: {registry.k8s.io: 'ada:s3cret@mirror.example/x'}}",
    ],
)
def test_a_login_in_a_mirror_is_not_repeated(mirrors: str) -> None:
    (problem,) = problems_of(f"mirrors: {mirrors}")
    assert "holds a login" in problem
    assert "s3c" not in problem


def test_machines_move_with_the_subnet() -> None:
    lab = lab_from("network: {subnet: 172.20.4.0/22}")
    assert [str(lab.by_role(role)[0].address) for role in {node.role: 0 for node in lab.nodes}] == [
        "172.20.4.10",
        "172.20.4.11",
        "172.20.4.21",
    ]


def test_a_group_given_by_hand_is_taken_as_it_is() -> None:
    workers = "{prefix: big-, count: 2, first_address: 192.168.56.99, cpus: 8, memory_mib: 9000}"
    lab = lab_from(f"nodes: {{workers: {workers}}}")
    assert [node.model_dump(exclude={"role"}) for node in lab.workers] == [
        {
            "name": f"big-{n}",
            "address": IPv4Address(f"192.168.56.{98 + n}"),
            "cpus": 8,
            "memory_mib": 9000,
        }
        for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "nodes: {control_planes: {count: 1}}",
        "nodes: {control_planes: {count: 5}}",
        "nodes: {workers: {count: 0}}",
        "nodes: {workers: {count: 9}}",
        "kubernetes: {version: 1.37.2, source: modules}",
        "provider: docker",
        "load_balancer: {profile: reference, health_path: /livez, port: 443}",
        "network: {pods: 10.0.0.0/16}",  # holds VirtualBox's NAT network; the doctor speaks of that
        "network: {pods: 10.244.0.0/21, services: 10.96.0.0/12}",
        "network: {pods: 100.64.0.0/12, services: 172.16.0.0/16}",
        "network: {subnet: 172.32.5.0/24, pods: 193.0.0.0/16, services: 195.48.0.0/12, public_addresses: true}",
        "{network: {subnet: 192.168.56.0/27}, nodes: {workers: {count: 9}}}",
        "{network: {subnet: 192.168.56.0/29}, nodes: {workers: {count: 0}, control_planes: {count: 1, "
        "first_address: 192.168.56.6}, load_balancers: {first_address: 192.168.56.2}}}",
        "name: 'no'",
        "name: no",  # a word, not YAML 1.1's False
        "name: &anchor fine",
    ],
)
def test_the_edge_of_what_is_allowed_is_allowed(text: str) -> None:
    lab_from(text)


@pytest.mark.parametrize(
    "name",
    ["net.yaml", "a b.yaml", 'it\'s "so".yaml', "#{`id`}.yaml", "$(id) & ;|.yaml", "ä: {{ x }}.yaml"],
)
def test_a_manifests_path_passes_unchanged(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(MANIFEST, encoding="utf-8")
    quoted = "'" + name.replace("'", "''") + "'"
    assert lab_from(f"network: {{pod_network: {quoted}}}").network.pod_network == f"{tmp_path}/{name}"


def test_a_manifest_is_looked_for_beside_the_lab_file(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "net.yaml").write_text(MANIFEST, encoding="utf-8")
    (folder / "my.yaml").write_text("network: {pod_network: net.yaml}", encoding="utf-8")
    assert load(Path("elsewhere/my.yaml")).network.pod_network == str(folder / "net.yaml")


# What is wrong with one key.


def lab_with(key: str, value: str) -> str:
    """A lab file of one line that sets one key."""
    *parents, last = key.split(".")
    return "".join(f"{{{parent}: " for parent in parents) + f"{{{last}: {value}}}" + "}" * len(parents)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "nmae: x",
            "nmae: unknown key, did you mean name? (name, provider, kubernetes, network, nodes,",
        ),
        ("nodes: {worker: {count: 1}}", "nodes.worker: unknown key, did you mean workers?"),
        ("seats: 3", "seats: unknown key (name, provider"),
        ("<<: {name: x}", "'<<': unknown key"),
        ('"a\\nb": 3', r"'a\nb': unknown key"),
        ("network: 5", "network: needs keys below it, not 5 (subnet, virtual_address, pods, services, pod_ne"),
        (
            "nodes: {workers: [1]}",
            "nodes.workers: needs keys below it, not a list (prefix, count, first_a",
        ),
        ("{a: 1}: 2", "'?': a list or mapping can't be a key"),
    ],
)
def test_a_wrong_shape_is_named_with_the_keys_there_are(text: str, problem: str) -> None:
    (found,) = problems_of(text)
    assert found.startswith(f"lab.yaml:1: {problem}")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", "Lab", "Lab can't be used in a host name (lowercase letters, digits and '-'"),
        ("name", "1lab", "1lab can't be used in a host name"),
        ("name", "lab-", "lab- can't be used in a host name"),
        ("name", "[lab]", "a list can't be used in a host name"),
        ("name", '"lab\'; rm"', "\"lab'; rm\" can't be used in a host name"),
        ("name", '"lab\\nx"', r"'lab\nx' can't be used in a host name"),
        ("name", '"lab\\n"', r"'lab\n' can't be used in a host name"),
        ("name", "x" * 31, f"{'x' * 31} can't be used in a host name"),
        ("nodes.workers.prefix", "W", "W can't be used in a host name"),
        ("nodes.workers.prefix", "w" * 21, f"{'w' * 21} can't be used in a host name"),
        ("provider", "podman", "podman is not known here (auto, docker, libvirt, virtualbox)"),
        ("libvirt.uri", "qemu:///session", "qemu:///session is not possible (qemu:///system, or qemu+ssh://"),
        ("libvirt.uri", "qemu+tcp://host/system", "qemu+tcp://host/system is not possible"),
        ("libvirt.emulated", "maybe", "maybe is not known here (auto, true, false)"),
        ("libvirt.pool", "a/b", "a/b is no storage pool's name"),
        ("libvirt.management", "192.168.121.1/24", "192.168.121.1/24 has host bits set"),
        ("kubernetes.source", "go", "go is not known here (auto, modules, upstream)"),
        (
            "mirrors",
            "x",
            "needs keys below it, not x (debian, debian_security, files, images, go)",
        ),
        ("mirrors.debian", "mirror.example", "mirror.example is not a mirror's URL (a URL such as"),
        ("mirrors.debian", "ftp://mirror.example/debian", "ftp://mirror.example/debian is not a mirror's"),
        (
            "mirrors.debian_security",
            "'https://mirror.example/a?b=c'",
            "'https://mirror.example/a?b=c' is not a mirror's URL",
        ),
        ("mirrors.files", "x", "needs keys below it, not x (hosts, such as dl.k8s.io)"),
        (
            "mirrors.kubernetes_packages",
            "https://m/k",
            "was removed: Kubernetes is downloaded as release files",
        ),
        ("mirrors.go", '"https://mirror.example/ x"', "'https://mirror.example/ x' is not a mirror's URL"),
        (
            "mirrors.go",
            "https://ada:secret@mirror.example",
            "holds a login, which does not belong in this file",
        ),
        ("mirrors.images", "[registry.k8s.io]", "needs keys below it, not a list (registries, such as"),
        ("kubernetes.version", "1.36", "1.36 is not a supported version, did you mean 1.36.3? ("),
        ("kubernetes.version", "1.30", "1.30 is not a supported version"),
        ("kubernetes.version", "v1.36.3", "v1.36.3 is not a supported version, did you mean 1.36.3? ("),
        ("kubernetes.version", "{}", "a mapping is not a supported version"),
        (
            "load_balancer.profile",
            "tune",
            "tune is not known here, did you mean tuned? (tuned, reference)",
        ),
        (
            "addons",
            "metrics-server",
            "metrics-server is not a list (a list, such as [metrics-server, local-path])",
        ),
        ("addons", "{metrics-server: true}", "a mapping is not a list"),
        (
            "addons",
            "[metric-server]",
            "metric-server is not an add-on that is known here, did you mean metrics-server? (metrics-server, "
            "local-path)",
        ),
        ("addons", "[ingress]", "ingress is not an add-on that is known here (metrics-server, local-path)"),
        ("addons", "[[local-path]]", "a list is not an add-on"),
        ("addons", "[{local-path: true}]", "a mapping is not an add-on"),
        ("addons", "['']", "'' is not an add-on"),
        ("addons", "[local-path, local-path]", "local-path is there 2 times (once is enough)"),
        ("load_balancer.health_path", "/ping", "/ping is not known here (/healthz, /livez, /readyz)"),
        ("load_balancer.port", "22", "22 is not possible (1 to 65535, not 22 (sshd)"),
        ("load_balancer.port", "8404", "8404 is not possible"),
        ("load_balancer.port", "0", "0 is not possible"),
        ("load_balancer.port", "65536", "65536 is not possible"),
        ("nodes.workers.count", "three", "three is not a whole number (0 to 9)"),
        ("nodes.workers.count", "2.5", "2.5 is not a whole number (0 to 9)"),
        ("nodes.workers.count", "true", "true is not a whole number (0 to 9)"),
        ("nodes.workers.count", "03", "03 is not a whole number (0 to 9)"),
        ("nodes.workers.count", "{of: 3}", "a mapping is not a whole number (0 to 9)"),
        ("nodes.workers.count", "10", "10 is not possible (0 to 9)"),
        ("nodes.workers.count", "-1", "-1 is not possible (0 to 9)"),
        ("nodes.workers.count", "9" * 20, f"{'9' * 20} is not possible (0 to 9)"),
        ("nodes.control_planes.count", "2", "2 is not possible (1, 3 or 5: etcd wants an odd number)"),
        ("nodes.control_planes.count", "7", "7 is not possible (1, 3 or 5"),
        ("nodes.load_balancers.count", "0", "0 is not possible (1 or 2: two share the API's address)"),
        ("nodes.load_balancers.count", "3", "3 is not possible (1 or 2"),
        ("network.virtual_address", "192.168.56.256", "192.168.56.256 is not an IPv4 address such as"),
        ("network.virtual_address", "lb", "lb is not an IPv4 address such as 192.168.56.10"),
        ("nodes.control_planes.cpus", "1", "1 is not possible (2 as kubeadm wants, or more)"),
        ("nodes.workers.cpus", "0", "0 is not possible (1 or more)"),
        (
            "nodes.control_planes.memory_mib",
            "1699",
            "1699 is not possible (1700 MiB, as kubeadm wants, or",
        ),
        ("nodes.workers.memory_mib", "511", "511 is not possible (512 MiB, or more)"),
        ("nodes.load_balancers.memory_mib", "127", "127 is not possible (128 MiB, or more)"),
        (
            "nodes.workers.first_address",
            "192.168.56.300",
            "192.168.56.300 is not an IPv4 address such as",
        ),
        ("nodes.workers.first_address", "127.0.0.1", "127.0.0.1 is, or holds, what no machine can have"),
        ("nodes.workers.first_address", "'fe80::1'", "fe80::1 looks like IPv6, which is not supported"),
        (
            "network.subnet",
            "here",
            "here has no prefix length (an IPv4 network such as 192.168.56.0/24)",
        ),
        ("network.subnet", "192.168.57.0", "192.168.57.0 has no prefix length"),
        ("network.subnet", "192.168.57.0/33", "192.168.57.0/33 is not an IPv4 network such as"),
        (
            "network.subnet",
            "192.168.57.1/24",
            "192.168.57.1/24 has host bits set (192.168.57.0/24 is the",
        ),
        ("network.subnet", "127.0.0.0/8", "127.0.0.0/8 is, or holds, what no machine can have"),
        ("network.pods", "0.0.0.0/0", "0.0.0.0/0 is, or holds, what no machine can have"),
        ("network.pods", "[10.0.0.0/8]", "a list is not an IPv4 network such as"),
        ("network.services", "'fd00::/108'", "fd00::/108 looks like IPv6, which is not supported"),
        ("network.public_addresses", "yes", "yes is neither true nor false"),
        ("network.public_addresses", "[true]", "a list is neither true nor false"),
        ("network.subnet", "172.32.5.0/24", "172.32.5.0/24 is not private: its addresses belong to others"),
        ("network.subnet", "172.0.0.0/8", "172.0.0.0/8 is not private"),
        ("network.pods", "193.0.0.0/16", "193.0.0.0/16 is not private"),
        ("network.services", "195.48.0.0/12", "195.48.0.0/12 is not private"),
        ("network.services", "100.128.0.0/16", "100.128.0.0/16 is not private"),
        ("libvirt.management", "11.0.0.0/24", "11.0.0.0/24 is not private"),
        ("network.pod_network", "no.yaml", "no.yaml is not a file (flannel, or the path of a manifest,"),
        ("network.policy", "calico", "calico is not known here (kube-router, none)"),
        ("network.policy", "kube_router", "kube_router is not known here, did you mean kube-router?"),
        ("network.pod_network", ".", ". is not a file"),
        ("network.pod_network", "''", "'' is not a file"),
        ("network.pod_network", '"a\\0b"', r"'a\x00b' is not a file"),
        ("network.pod_network", "x" * 300, f"'{'x' * 60}' can't be read: File name too long"),
        ("network.pod_network", "{file: x}", "a mapping is neither (flannel, or"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: str, problem: str) -> None:
    (found,) = problems_of(lab_with(key, value))
    assert found.startswith(f"lab.yaml:1: {key}: {problem}")


def test_an_unreadable_manifest_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").touch()
    forbid_opening(monkeypatch, "net.yaml")
    (found,) = problems_of("network: {pod_network: net.yaml}")
    assert found.startswith("lab.yaml:1: network.pod_network: net.yaml can't be read: Permission denied")


def test_a_manifest_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_bytes(b"\xff\xfe")
    (found,) = problems_of("network: {pod_network: net.yaml}")
    assert found.startswith("lab.yaml:1: network.pod_network: net.yaml is not a text in UTF-8")


def test_a_key_given_twice_is_told_with_both_lines() -> None:
    (found,) = problems_of("""\
        nodes:
          workers:
            count: 1
            cpus: 2
            count: 2
        """)
    assert found == "lab.yaml:5: nodes.workers.count: is given twice, first on line 3"


# What is wrong between keys.


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (
            "network.pods",
            "10.96.0.0/12",
            "network.pods 10.96.0.0/12 and network.services 10.96.0.0/16 overlap",
        ),
        (
            "network.services",
            "192.168.0.0/16",
            "network.subnet 192.168.56.0/24 and network.services 192.168.0.0/16 overlap",
        ),
        (
            "network.subnet",
            "10.244.7.0/24",
            "network.subnet 10.244.7.0/24 and network.pods 10.244.0.0/16 overlap",
        ),
        (
            "network.pods",
            "10.244.0.0/22",
            "10.244.0.0/22 has the wrong size (/8 to /21: each of 6 Kubernet",
        ),
        ("network.pods", "10.244.0.0/25", "10.244.0.0/25 has the wrong size"),
        (
            "network.services",
            "10.96.0.0/25",
            "10.96.0.0/25 has the wrong size (/12 to /24: kubeadm allows",
        ),
        ("network.services", "10.96.0.0/11", "10.96.0.0/11 has the wrong size"),
        (
            "network.subnet",
            "192.168.57.0/29",
            "192.168.57.0/29 is too small for 7 machines (/27 or larger)",
        ),
        ("network.subnet", "192.168.57.0/32", "192.168.57.0/32 is too small for 7 machines"),
        (
            "network.subnet",
            "192.168.57.0/28",
            "w1 would have 192.168.57.21, outside network.subnet, 192.168.57.0/28 (192.168.57.2 to",
        ),
        (
            "nodes.workers.first_address",
            "192.168.57.21",
            "w1 would have 192.168.57.21, outside network.subnet, 192.168.56.0/24 (192.168.56.2 to",
        ),
        (
            "nodes.workers.first_address",
            "192.168.56.0",
            "w1 would have 192.168.56.0, the subnet's own addr",
        ),
        (
            "nodes.workers.first_address",
            "192.168.56.1",
            "w1 would have 192.168.56.1, the host's own on tha",
        ),
        (
            "nodes.workers.first_address",
            "192.168.56.254",
            "w2 would have 192.168.56.255, the subnet's bro",
        ),
        (
            "nodes.workers.first_address",
            "192.168.56.255",
            "w1 would have 192.168.56.255, the subnet's bro",
        ),
        (
            "nodes.workers.first_address",
            "192.168.56.13",
            "nodes.control_planes and nodes.workers would both have the address 192.168.56.13",
        ),
        (
            "nodes.load_balancers.first_address",
            "192.168.56.23",
            "nodes.load_balancers and nodes.workers would both have the address 192.168.56.23",
        ),
        (
            "nodes.workers.prefix",
            "cp",
            "nodes.control_planes and nodes.workers would both have the name cp1",
        ),
    ],
)
def test_a_clash_is_told_at_the_key_to_mend(key: str, value: str, problem: str) -> None:
    (found,) = problems_of(lab_with(key, value))
    assert found.startswith(f"lab.yaml:1: {key}: {problem}")


@pytest.mark.parametrize(
    "text",
    [
        "network: {subnet: bad/24}\nnodes: {workers: {first_address: 172.16.0.5}}",
        "network: {pods: bad/16, services: 10.244.0.0/16}",
        "nodes: {control_planes: {count: four}, workers: {first_address: 192.168.56.13}}",
        "network: 3\nnodes: {workers: {first_address: 172.16.0.5}}",
    ],
)
def test_a_broken_key_breeds_no_second_problem(text: str) -> None:
    assert len(problems_of(text)) == 1


@pytest.mark.parametrize(
    ("nodes", "problems"),
    [
        (
            "{control_planes: {count: 4}, workers: {first_address: 192.168.56.13}}",
            (
                "control_planes.count: 4 is not possible",
                "workers.first_address: nodes.control_planes and nodes.w",
            ),
        ),
        (
            "{etcd: {count: 4, first_address: 192.168.71.1}}",
            ("etcd.count: 4 is not possible", "etcd.first_address: etcd1 would have 192.168.71.1, outside"),
        ),
        (
            "{load_balancers: {count: 3, first_address: 192.168.56.12}, etcd: {count: 2, first_address: "
            "192.168.56.11}}",
            (
                "load_balancers.count: 3 is not possible",
                "etcd.count: 2 is not possible",
                "load_balancers.first_address: nodes.load_balancers and nodes.control_planes would both",
                "load_balancers.first_address: nodes.load_balancers and nodes.etcd would both",
                "etcd.first_address: nodes.etcd and nodes.control_planes would both",
            ),
        ),
    ],
)
def test_a_count_that_is_not_possible_hides_no_clash_of_addresses(
    nodes: str, problems: tuple[str, ...]
) -> None:
    found = {problem.partition("nodes.")[2] for problem in problems_of(f"nodes: {nodes}")}
    assert len(found) == len(problems)
    for problem in problems:
        assert any(each.startswith(problem) for each in found), found


def test_a_subnet_of_the_size_that_a_message_names_is_large_enough() -> None:
    nodes = "nodes: {load_balancers: {count: 2}, etcd: {count: 3}}"
    (problem,) = problems_of(f"network: {{subnet: 192.168.70.0/29}}\n{nodes}")
    assert "is too small for 11 machines and a virtual address (/26 or larger)" in problem
    lab_from(f"network: {{subnet: 192.168.70.0/26}}\n{nodes}")


def test_a_second_load_balancer_at_an_old_address_is_told_where_it_would_be_without() -> None:
    (problem,) = problems_of("nodes: {load_balancers: {count: 2, first_address: 192.168.56.10}}")
    assert "nodes.load_balancers.first_address: nodes.load_balancers and nodes.control_planes would" in problem
    assert "(without nodes.load_balancers.first_address they are at 192.168.56.6 and 192.168.56.7)" in problem


def test_an_address_may_be_empty() -> None:
    assert lab_from('network: {virtual_address: ""}').network.virtual_address is None


def test_ten_problems_come_at_once_in_file_order() -> None:
    found = problems_of("""\
        name: My Lab
        providr: docker
        kubernetes:
          version: 1.36
        network:
          pods: 10.96.0.0/16
          services: 10.96.0.0/16
          pod_network: calico.yaml
        nodes:
          load_balancers: {memory_mib: 64}
          control_planes:
            count: 4
          workers:
            first_address: 192.168.57.21
            cpus: two
        load_balancer:
          port: 22
        """)
    assert [" ".join(problem.split()[:2]) for problem in found] == [
        "lab.yaml:1: name:",
        "lab.yaml:2: providr:",
        "lab.yaml:4: kubernetes.version:",
        "lab.yaml:7: network.services:",
        "lab.yaml:8: network.pod_network:",
        "lab.yaml:10: nodes.load_balancers.memory_mib:",
        "lab.yaml:12: nodes.control_planes.count:",
        "lab.yaml:14: nodes.workers.first_address:",
        "lab.yaml:15: nodes.workers.cpus:",
        "lab.yaml:17: load_balancer.port:",
    ]


def test_a_public_network_too_large_for_pods_is_one_problem() -> None:
    (found,) = problems_of("network: {pods: 32.0.0.0/7, public_addresses: true}")
    assert found.startswith("lab.yaml:1: network.pods: 32.0.0.0/7 has the wrong size")


# What is wrong with the whole file.


def load_bytes(content: bytes) -> str:
    file = Path.cwd() / "lab.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.hint
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: [a\n", "lab.yaml:2:1: can't be read as YAML: "),
        (
            b"name: a\nnodes: [unclosed\n# more\nprovider: docker\n",
            "lab.yaml:4:1: can't be read as YAML: expected ',' or ']', but got '?' (while parsing a flow "
            "sequence that begins on line 2)",
        ),
        (b"name: a\nnodes:\n\tx: 1\n", r"lab.yaml:3:1: can't be read as YAML: found character '\t'"),
        (b"a: b: c\n", "lab.yaml:1:5: can't be read as YAML: mapping values are not allowed here"),
        (b"name: a\nname2: \x01\n", "lab.yaml:2: contains U+0001"),
        (b'name: "\\ud800"', "lab.yaml:1:7: can't be read as YAML: an escape encodes half"),
        (b'name: "\\U00110000"', "lab.yaml: can't be read as YAML"),
        (b"name: a\nprovider: \xff\n", "lab.yaml:2: is not UTF-8 text"),
        ("name: a\n".encode("utf-16"), "lab.yaml:1: is not UTF-8 text"),
        (b"- a\n", "lab.yaml:1: is a list, not keys with values"),
        (b"\nlab\n", "lab.yaml:2: is one value, not keys with values"),
        (b"name: a\n---\nname: b\n", "lab.yaml:3: a second document starts here"),
        (b"a: &a [x]\nb: *a\n", "lab.yaml:2:4: can't be read as YAML: aliases (*name)"),
        (b"name: !ruby/object:Lab {}\n", "lab.yaml:1:7: can't be read as YAML: aliases (*name)"),
        (b"[\n" * 2000, "lab.yaml: is nested too deeply"),
        (b"#" * (64 * 1024 + 1), "lab.yaml: is larger than 64 KiB"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_a_file_that_cant_be_taken_apart_is_told_with_its_place(content: bytes, problem: str) -> None:
    assert load_bytes(content).startswith(problem)


def test_a_file_of_nested_aliases_does_not_unfold() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in load_bytes("\n".join(["l0: &l0 [x]", *levels]).encode())


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.hint
    return caught.value.message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").mkdir()
    assert refusal(tmp_path / "lab.yaml") == "lab.yaml: is a directory; it should be one YAML file"


def test_a_file_elsewhere_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "lab.yaml").write_text("a: 1", encoding="utf-8")
    assert refusal(tmp_path / "lab.yaml").startswith(f"{str(tmp_path).removeprefix('/')}/lab.yaml:1: a: ")
    monkeypatch.chdir(ROOT)
    assert refusal(tmp_path / "lab.yaml").startswith(f"{tmp_path}/lab.yaml:1: a: unknown key")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lab.yaml")
    assert refusal(tmp_path / "lab.yaml").startswith("lab.yaml: is not a regular file")


def test_a_link_to_nowhere_is_not_taken_for_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").symlink_to("gone.yaml")
    assert refusal(tmp_path / "lab.yaml") == "lab.yaml: is a link to a file that does not exist"


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file/lab.yaml") == "file/lab.yaml: can't be read: Not a directory"


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.yaml").touch()
    forbid_opening(monkeypatch, "lab.yaml")
    assert refusal(tmp_path / "lab.yaml") == "lab.yaml: can't be read: Permission denied"


def forbid_opening(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Modes don't stop root, who may run these tests."""
    real = Path.open

    def forbidden(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == name and args == ("rb",):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)


@pytest.mark.parametrize(
    "place",
    [
        *("http://mirror.example:0", "http://mirror.example:99999/x", "http://mirror.example:/x", "http://./x"),
        *(
            "http://a..b/x",
            "http://-a.example/x",
            "http://a-/x",
            "http://[::1::2]/x",
            "http://mirror example/x",
        ),
        f"http://{'a' * 64}.example",
    ],
)
def test_a_host_or_a_port_that_can_t_be_one_is_told_with_the_other_problems(place: str) -> None:
    text = f"mirrors:\n  debian: '{place}'\n  images:\n    ghcr.io: '{place}'\nbogus: 1\n"
    found = [problem.split(": ")[1] for problem in problems_of(text)]
    assert found == ["mirrors.debian", "mirrors.images.ghcr.io", "bogus"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("mirrors.images", "{'ghcr.io:0': mirror.example}"), ("libvirt.uri", "qemu+ssh://ada@big:70000/system")],
)
def test_a_port_that_can_t_be_one_is_told_wherever_it_stands(key: str, value: str) -> None:
    section, _, name = key.partition(".")
    (problem,) = problems_of(f"{section}: {{{name}: {value}}}")
    assert problem.startswith(f"lab.yaml:1: {key}")


@pytest.mark.parametrize("provider", ["docker", "libvirt", "virtualbox"])
@pytest.mark.parametrize(
    ("management", "words"),
    [
        (
            "10.64.0.0/15",
            "libvirt.management: 10.64.0.0/15 has the wrong size (/16 to /28: libvirt gives each of 7",
        ),
        ("192.168.121.0/29", "libvirt.management: 192.168.121.0/29 has the wrong size"),
        (
            "192.168.56.128/25",
            "network.subnet 192.168.56.0/24 and libvirt.management 192.168.56.128/25 overlap",
        ),
        ("10.244.8.0/24", "network.pods 10.244.0.0/16 and libvirt.management 10.244.8.0/24 overlap"),
    ],
)
def test_a_management_network_is_judged_whatever_the_provider(
    provider: str, management: str, words: str
) -> None:
    (problem,) = problems_of(f"provider: {provider}\nlibvirt:\n  management: {management}\n")
    assert problem.startswith("lab.yaml:3")
    assert words in problem


def test_the_management_network_that_no_file_speaks_of_is_in_no_other_provider_s_way() -> None:
    subnet = "network: {subnet: 192.168.121.0/24}\n"
    assert lab_from(f"provider: docker\n{subnet}").provider == "docker"
    (problem,) = problems_of(f"provider: libvirt\n{subnet}")
    assert "libvirt.management 192.168.121.0/24 overlap" in problem


def test_a_login_in_a_file_that_is_no_yaml_is_in_no_error() -> None:
    text = "mirrors:\n  debian: https://ada:hunter2@mirror: x\n"
    with pytest.raises(ConfigError, match="can't be read as YAML") as caught:
        lab_from(text)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
