"""What an edited lab.yaml asks of machines that exist, as a table with every key of lab.yaml."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from lab import config
from lab.config import Choice, shape
from lab.config.shape import File
from lab.model import Lab, Node
from lab.model.change import BEGIN_AGAIN, EFFECTS, Change, Setting, change, settings, version_effect
from lab.workspace.made import Made
from tests.unit.fakes import MANIFEST

LIBVIRT = "provider: libvirt\n"
ADDRESSES = """nodes:
  load_balancers: {first_address: 192.168.56.10}
  control_planes: {first_address: 192.168.56.11}
  workers: {first_address: 192.168.56.21}
"""
PAIR = "nodes: {load_balancers: {count: 2}}\n"
ONE = "nodes: {load_balancers: {first_address: 192.168.56.6}}\n"
"""One load balancer, with the address that the first of `PAIR` has."""
CPS = ("cp1", "cp2", "cp3")
WORKERS = ("w1", "w2", "w3")
ETCD = ["etcd1", "etcd2", "etcd3"]
EXTERNAL = "nodes: {etcd: {count: 3}}"


class Case(NamedTuple):
    """Two lab files that differ in one key only, how its values are shown, and what the difference asks for.

    `resized` are machines where the provider enforces sizes.
    """

    before: str
    after: str
    was: str
    becomes: str
    kind: str
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    resized: Sequence[str] = ()


CASES: dict[str, Case] = {
    "name": Case("", "name: other", "ha-lab", "other", "impossible"),
    "provider": Case("provider: docker", "provider: libvirt", "docker", "libvirt", "impossible"),
    "kubernetes.version": Case("", "kubernetes: {version: 1.37.2}", "1.36.3", "1.37.2", "upgraded"),
    "kubernetes.source": Case("", "kubernetes: {source: modules}", "auto", "modules", "none"),
    "network.subnet": Case(
        ADDRESSES,
        ADDRESSES + "network: {subnet: 192.168.0.0/16}\n",
        "192.168.56.0/24",
        "192.168.0.0/16",
        "impossible",
    ),
    "network.virtual_address": Case(
        PAIR, f"{PAIR}network: {{virtual_address: 192.168.56.4}}", "192.168.56.5", "192.168.56.4", "impossible"
    ),
    "network.pods": Case("", "network: {pods: 10.200.0.0/16}", "10.244.0.0/16", "10.200.0.0/16", "impossible"),
    "network.services": Case(
        "", "network: {services: 10.97.0.0/16}", "10.96.0.0/16", "10.97.0.0/16", "impossible"
    ),
    "network.pod_network": Case(
        "", "network: {pod_network: mine.yaml}", "flannel", "{folder}/mine.yaml", "pod-network"
    ),
    "network.policy": Case("", "network: {policy: none}", "kube-router", "none", "network-policy"),
    "network.public_addresses": Case("", "network: {public_addresses: true}", "false", "true", "none"),
    "load_balancer.profile": Case(
        "", "load_balancer: {profile: reference}", "tuned", "reference", "load-balancer"
    ),
    "load_balancer.health_path": Case(
        "", "load_balancer: {health_path: /livez}", "/readyz", "/livez", "load-balancer"
    ),
    "load_balancer.port": Case("", "load_balancer: {port: 8443}", "6443", "8443", "impossible"),
    "addons": Case(
        "addons: [local-path]",
        "addons: [local-path, metrics-server]",
        "local-path",
        "metrics-server, local-path",
        "addons",
    ),
    "mirrors.debian": Case("", "mirrors: {debian: http://m/d}", "nothing", "http://m/d", "none"),
    "mirrors.debian_security": Case(
        "mirrors: {debian_security: http://m/s}", "", "http://m/s", "nothing", "none"
    ),
    "mirrors.files": Case(
        "", "mirrors: {files: {dl.k8s.io: https://m/k}}", "nothing", "dl.k8s.io: https://m/k", "none"
    ),
    "mirrors.images": Case(
        "mirrors: {images: {registry.k8s.io: m}}",
        "mirrors: {images: {registry.k8s.io: m, ghcr.io: m/g}}",
        "registry.k8s.io: m",
        "ghcr.io: m/g, registry.k8s.io: m",
        "none",
    ),
    "mirrors.go": Case("", "mirrors: {go: https://m/go}", "nothing", "https://m/go", "none"),
    "libvirt.uri": Case(
        LIBVIRT,
        LIBVIRT + "libvirt: {uri: qemu+ssh://ada@big/system}",
        "qemu:///system",
        "qemu+ssh://ada@big/system",
        "impossible",
    ),
    # Emulated machines have one CPU each, which is no edit of `cpus`.
    "libvirt.emulated": Case(
        LIBVIRT, LIBVIRT + "libvirt: {emulated: true}", "false", "true", "impossible", resized=(*CPS, *WORKERS)
    ),
    "libvirt.pool": Case(LIBVIRT, LIBVIRT + "libvirt: {pool: fast}", "default", "fast", "impossible"),
    "libvirt.management": Case(
        LIBVIRT,
        LIBVIRT + "libvirt: {management: 192.168.122.0/24}",
        "192.168.121.0/24",
        "192.168.122.0/24",
        "impossible",
    ),
    "nodes.load_balancers.prefix": Case(
        "", "nodes: {load_balancers: {prefix: haproxy}}", "lb", "haproxy", "impossible", ["haproxy1"], ["lb1"]
    ),
    "nodes.load_balancers.count": Case(ONE, PAIR, "1", "2", "impossible", ["lb2"]),
    "nodes.load_balancers.first_address": Case(
        "",
        "nodes: {load_balancers: {first_address: 192.168.56.9}}",
        "192.168.56.10",
        "192.168.56.9",
        "impossible",
    ),
    "nodes.load_balancers.cpus": Case(
        "", "nodes: {load_balancers: {cpus: 2}}", "1", "2", "resized", resized=["lb1"]
    ),
    "nodes.load_balancers.memory_mib": Case(
        "", "nodes: {load_balancers: {memory_mib: 256}}", "512", "256", "resized", resized=["lb1"]
    ),
    "nodes.control_planes.prefix": Case(
        "",
        "nodes: {control_planes: {prefix: master}}",
        "cp",
        "master",
        "impossible",
        ["master1", "master2", "master3"],
        CPS,
    ),
    "nodes.control_planes.count": Case(
        "", "nodes: {control_planes: {count: 5}}", "3", "5", "members", ["cp4", "cp5"]
    ),
    "nodes.control_planes.first_address": Case(
        "",
        "nodes: {control_planes: {first_address: 192.168.56.12}}",
        "192.168.56.11",
        "192.168.56.12",
        "impossible",
    ),
    "nodes.control_planes.cpus": Case(
        "", "nodes: {control_planes: {cpus: 4}}", "2", "4", "resized", resized=CPS
    ),
    "nodes.control_planes.memory_mib": Case(
        "", "nodes: {control_planes: {memory_mib: 3072}}", "2048", "3072", "resized", resized=CPS
    ),
    "nodes.etcd.prefix": Case(
        EXTERNAL, "nodes: {etcd: {count: 3, prefix: e}}", "etcd", "e", "impossible", ["e1", "e2", "e3"], ETCD
    ),
    "nodes.etcd.count": Case("", EXTERNAL, "0", "3", "impossible", ETCD),
    "nodes.etcd.first_address": Case(
        EXTERNAL,
        "nodes: {etcd: {count: 3, first_address: 192.168.56.41}}",
        "192.168.56.31",
        "192.168.56.41",
        "impossible",
    ),
    "nodes.etcd.cpus": Case(EXTERNAL, "nodes: {etcd: {count: 3, cpus: 2}}", "1", "2", "resized", resized=ETCD),
    "nodes.etcd.memory_mib": Case(
        EXTERNAL, "nodes: {etcd: {count: 3, memory_mib: 2048}}", "1024", "2048", "resized", resized=ETCD
    ),
    "nodes.workers.prefix": Case(
        "", "nodes: {workers: {prefix: node}}", "w", "node", "impossible", ["node1", "node2", "node3"], WORKERS
    ),
    "nodes.workers.count": Case("", "nodes: {workers: {count: 1}}", "3", "1", "members", (), ["w2", "w3"]),
    "nodes.workers.first_address": Case(
        "",
        "nodes: {workers: {first_address: 192.168.56.31}}",
        "192.168.56.21",
        "192.168.56.31",
        "impossible",
    ),
    "nodes.workers.cpus": Case("", "nodes: {workers: {cpus: 1}}", "2", "1", "resized", resized=WORKERS),
    "nodes.workers.memory_mib": Case(
        "", "nodes: {workers: {memory_mib: 1024}}", "1536", "1024", "resized", resized=WORKERS
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(MANIFEST)
    return tmp_path


def load(folder: Path, text: str) -> Lab:
    """The lab of a lab file with that text."""
    (folder / "lab.yaml").write_text(text)
    return config.load(folder / "lab.yaml")


def asked(folder: Path, before: str, after: str, *, enforced: bool = True) -> Change:
    return change(load(folder, before), load(folder, after), sizes_enforced=enforced)


def names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]


def keys(section: type[BaseModel] = File, prefix: str = "") -> Iterator[str]:
    """Every key of lab.yaml that has a value of its own."""
    for name, field in section.model_fields.items():
        inside = field.annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from keys(inside, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_of_a_lab_file_has_its_effect_and_no_other_has() -> None:
    assert {*keys()} == {*EFFECTS}


def test_a_new_key_of_a_lab_file_is_noticed() -> None:
    class Section(shape.NetworkSection):
        mtu: int = 1500

    class Wider(File):
        network: Section = Section()
        colour: str = ""

    assert {*keys(Wider)} - {*EFFECTS} == {"network.mtu", "colour"}


def test_the_table_has_every_key() -> None:
    assert {*CASES} == {*EFFECTS}


@pytest.mark.parametrize("key", CASES)
def test_one_changed_key_is_one_setting_with_its_effect(folder: Path, key: str) -> None:
    case = CASES[key]
    found = asked(folder, case.before, case.after)
    setting = Setting(key, case.was, case.becomes.format(folder=folder))
    assert found.settings == (setting,)
    assert setting.effect.kind == case.kind
    assert names(found.added) == [*case.added]
    assert names(found.removed) == [*case.removed]
    groups = {
        "impossible": found.impossible,
        "load-balancer": found.reconfigured,
        "pod-network": found.reconfigured,
        "network-policy": found.reconfigured,
        "addons": found.reconfigured,
        "none": found.untouched,
    }
    assert groups.get(case.kind, (setting,)) == (setting,)
    assert len({*found.impossible, *found.reconfigured, *found.untouched}) == (case.kind in groups)


@pytest.mark.parametrize("key", CASES)
def test_a_key_that_is_changed_back_is_the_same_key(folder: Path, key: str) -> None:
    case = CASES[key]
    found = asked(folder, case.after, case.before)
    assert found.settings == (Setting(key, case.becomes.format(folder=folder), case.was),)


@pytest.mark.parametrize("key", CASES)
def test_machines_get_another_size_where_it_is_enforced_and_nowhere_else(folder: Path, key: str) -> None:
    case = CASES[key]
    assert names(asked(folder, case.before, case.after).resized) == [*case.resized]
    shared = asked(folder, case.before, case.after, enforced=False)
    assert shared.resized == ()
    assert [each.key for each in shared.untouched] == ([key] if case.kind in ("none", "resized") else [])


@pytest.mark.parametrize("address", ["", "network: {virtual_address: 192.168.56.4}\n"])
def test_another_number_of_load_balancers_is_impossible_and_says_so_once(folder: Path, address: str) -> None:
    """The virtual address comes and goes with it, and is no second message."""
    [more], [fewer] = (
        asked(folder, *both).impossible for both in ((ONE, PAIR + address), (PAIR + address, ONE))
    )
    assert (more.key, more.before, more.after) == ("nodes.load_balancers.count", "1", "2")
    assert (fewer.key, fewer.before, fewer.after) == ("nodes.load_balancers.count", "2", "1")
    assert "changes the API's address" in more.effect.why


def test_beside_the_number_of_load_balancers_other_keys_are_still_reported(folder: Path) -> None:
    subnet = "network: {subnet: 192.168.77.0/24}\n"
    found = asked(folder, "", PAIR + subnet)
    assert [each.key for each in found.impossible] == [
        "network.subnet",
        "nodes.load_balancers.count",
        "nodes.load_balancers.first_address",
        "nodes.control_planes.first_address",
        "nodes.workers.first_address",
    ]
    assert {each.effect.instead for each in found.impossible} == {BEGIN_AGAIN}
    both = asked(folder, PAIR, PAIR + subnet).impossible
    assert {"network.subnet", "network.virtual_address"} <= {each.key for each in both}


def test_one_load_balancer_of_two_that_is_gone_is_made_again(folder: Path) -> None:
    pair = load(folder, PAIR)
    for name in ("lb1", "lb2"):
        found = change(Made(lab=pair, owner="o", root="/r").without(name).lab, pair, sizes_enforced=True)
        assert (found.impossible, names(found.added)) == ((), [name])


def test_the_order_of_add_ons_is_no_change_and_no_add_on_is_nothing(folder: Path) -> None:
    both = "addons: [metrics-server, local-path]", "addons:\n  - local-path\n  - metrics-server\n"
    assert asked(folder, *both) == Change()
    assert asked(folder, both[0], "addons: []").settings == (
        Setting("addons", "metrics-server, local-path", "nothing"),
    )


@pytest.mark.parametrize("key", EFFECTS)
def test_what_can_t_be_done_says_why_and_what_to_do_instead(key: str) -> None:
    effect = EFFECTS[key]
    if effect.kind == "impossible":
        assert effect.why
        assert "change it back; or " in effect.instead
    else:
        assert effect.instead == ""
        assert bool(effect.why) is (effect.kind in ("none", "resized")), "why no machine is touched"


@pytest.mark.parametrize("text", ["", "name: mine", LIBVIRT, "nodes: {workers: {count: 0}}"])
def test_the_same_lab_asks_for_nothing(folder: Path, text: str) -> None:
    assert asked(folder, text, f"# a word\n{text}") == Change()


def test_other_words_for_a_default_are_the_same_lab(folder: Path) -> None:
    words = "nodes: {workers: {count: 3, first_address: 192.168.56.21}, control_planes: {prefix: cp}}"
    assert asked(folder, "", words) == Change()


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_workers_come_and_go_at_the_end(folder: Path, count: int) -> None:
    found = asked(folder, "", f"nodes: {{workers: {{count: {count}}}}}")
    assert names(found.added) == [f"w{number}" for number in range(4, count + 1)]
    assert names(found.removed) == [f"w{number}" for number in range(count + 1, 4)]
    assert [each.key for each in found.settings] == ["nodes.workers.count"]
    back = asked(folder, f"nodes: {{workers: {{count: {count}}}}}", "")
    assert (names(back.added), names(back.removed)) == (names(found.removed), names(found.added))
    assert [each.key for each in back.settings] == ["nodes.workers.count"]


@pytest.mark.parametrize(
    ("before", "after", "added", "removed"),
    [(1, 3, ["cp2", "cp3"], []), (3, 5, ["cp4", "cp5"], []), (5, 1, [], ["cp2", "cp3", "cp4", "cp5"])],
)
def test_control_planes_come_and_go_at_the_end(
    folder: Path, before: int, after: int, added: list[str], removed: list[str]
) -> None:
    text = "nodes: {{control_planes: {{count: {}}}}}".format
    found = asked(folder, text(before), text(after))
    assert (names(found.added), names(found.removed)) == (added, removed)
    assert [(each.key, each.before, each.after) for each in found.settings] == [
        ("nodes.control_planes.count", str(before), str(after))
    ]


def test_what_a_group_without_machines_is_called_touches_none(folder: Path) -> None:
    empty = (
        "nodes: {workers: {count: 0, prefix: node, cpus: 4, memory_mib: 4096, first_address: 192.168.56.99}}"
    )
    assert asked(folder, "nodes: {workers: {count: 0}}", empty) == Change()
    found = asked(folder, "nodes: {workers: {count: 0}}", empty.replace("count: 0", "count: 2"))
    assert [each.key for each in found.settings] == ["nodes.workers.count"]
    assert (names(found.added), found.resized) == (["node1", "node2"], ())


def test_several_keys_are_all_there_in_the_table_s_order(folder: Path) -> None:
    found = asked(
        folder, "", "name: other\nnodes: {workers: {count: 4, memory_mib: 1024}}\nmirrors: {go: https://m}"
    )
    assert [each.key for each in found.settings] == [
        *("name", "mirrors.go"),
        *("nodes.workers.count", "nodes.workers.memory_mib"),
    ]
    assert names(found.added) == ["w4"]
    assert names(found.resized) == [*WORKERS], "one that is added has its size from the beginning"


@pytest.mark.parametrize(("before", "after"), [("w", "w1"), ("w1", "w"), ("w1", "w2"), ("w-1", "w-11")])
def test_a_prefix_that_ends_in_a_digit_is_another_prefix(folder: Path, before: str, after: str) -> None:
    text = "nodes: {{workers: {{prefix: {}}}}}".format
    found = asked(folder, text(before), text(after))
    assert [(each.key, each.before, each.after) for each in found.impossible] == [
        ("nodes.workers.prefix", before, after)
    ]
    assert asked(folder, text(before), text(before)) == Change()


def test_libvirt_s_keys_mean_nothing_to_another_provider(folder: Path) -> None:
    assert asked(folder, "", "libvirt: {pool: fast, uri: qemu+ssh://ada@big/system}") == Change()
    found = asked(folder, LIBVIRT + "libvirt: {pool: fast}", "provider: virtualbox")
    assert [each.key for each in found.settings] == ["provider"]


def test_cpus_of_emulated_machines_are_not_what_lab_yaml_says(folder: Path) -> None:
    text = LIBVIRT + "nodes: {{workers: {{cpus: {}}}}}"
    (folder / "lab.yaml").write_text(text.format(1))
    emulated = functools.partial(config.load, settle=lambda _: Choice("libvirt", True))
    one = emulated(folder / "lab.yaml")
    (folder / "lab.yaml").write_text(text.format(4))
    assert change(one, emulated(folder / "lab.yaml"), sizes_enforced=True) == Change()


@pytest.mark.parametrize("missing", [["w1"], ["w1", "w2"], ["cp1"], ["lb1"], ["cp1", "cp2", "w1"]])
def test_a_group_whose_first_machine_is_gone_has_its_prefix_and_addresses_still(
    folder: Path, missing: list[str]
) -> None:
    """As after a run that was killed between the removal of one machine and the next."""
    lab = load(folder, "")
    made = Made(lab=lab, owner="o", root="/r")
    for name in missing:
        made = made.without(name)
    found = change(made.lab, lab, sizes_enforced=True)
    assert found.impossible == ()
    assert names(found.added) == [node.name for node in lab.nodes if node.name in missing]
    assert {each.key.rpartition(".")[2] for each in found.settings} <= {"count"}


def test_sizes_that_were_changed_on_some_machines_only_still_differ(folder: Path) -> None:
    lab, wanted = load(folder, ""), load(folder, "nodes: {workers: {memory_mib: 1024}}")
    half = lab.model_copy(update={"nodes": (*lab.nodes[:4], wanted.nodes[4], *lab.nodes[5:])})
    found = change(half, wanted, sizes_enforced=True)
    assert found.settings == (Setting("nodes.workers.memory_mib", "1024, 1536", "1024"),)
    assert names(found.resized) == ["w2", "w3"]


def test_settings_are_keys_of_the_lab_file(folder: Path) -> None:
    for text in ("", LIBVIRT, "mirrors: {images: {ghcr.io: m}}"):
        assert {*settings(load(folder, text))} <= {*EFFECTS}


@pytest.mark.parametrize(
    ("manifests", "differs"),
    [(("a1", "b2"), True), (("a1", "a1"), False), (("", "b2"), False), (("a1", ""), False), (("", ""), False)],
)
def test_a_manifest_whose_file_was_edited_differs(
    folder: Path, manifests: tuple[str, str], differs: bool
) -> None:
    lab = load(folder, "network: {pod_network: mine.yaml}")
    found = change(lab, lab, sizes_enforced=True, manifests=manifests)
    path = folder / "mine.yaml"
    assert found == Change(
        settings=(Setting("network.pod_network", f"{path} (sha256 a1…)", f"{path} (sha256 b2…)"),) * differs
    )
    assert found.reconfigured == found.settings


def test_another_manifest_is_named_by_its_path_alone(folder: Path) -> None:
    before, after = load(folder, ""), load(folder, "network: {pod_network: mine.yaml}")
    [setting] = change(before, after, sizes_enforced=True, manifests=("a1", "b2")).settings
    assert (setting.before, setting.after) == ("flannel", str(folder / "mine.yaml"))


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        ("1.35.4", "1.36.3", "upgraded", ""),
        ("1.36.3", "1.37.2", "upgraded", ""),
        ("1.35.4", "1.35.9", "upgraded", ""),
        ("1.9.11", "1.10.0", "upgraded", ""),  # as numbers, not as text
        ("1.35.4", "1.37.2", "impossible", "one minor version at a time"),
        ("1.36.3", "1.35.4", "impossible", "can't be downgraded"),
        ("1.36.3", "1.36.2", "impossible", "can't be downgraded"),
        ("1.10.0", "1.9.11", "impossible", "can't be downgraded"),
    ],
)
def test_kubernetes_goes_on_by_one_minor_version_and_never_back(
    before: str, after: str, kind: str, words: str
) -> None:
    effect = version_effect(before, after)
    assert effect.kind == kind
    assert words in effect.why


def test_two_minor_versions_are_refused_with_the_one_between() -> None:
    assert "1.36 first" in version_effect("1.35.4", "1.37.2").instead


def of_versions(folder: Path, made: str, wanted: str, upgrading: str) -> Change:
    labs = [load(folder, f"kubernetes: {{version: {version}}}") for version in (made, wanted)]
    return change(*labs, sizes_enforced=True, upgrading=upgrading)


def test_an_upgrade_under_way_is_continued_even_where_lab_yaml_differs_in_nothing_else(folder: Path) -> None:
    found = of_versions(folder, "1.35.4", "1.36.3", "1.36.3")
    assert found.upgraded == Setting("kubernetes.version", "1.35.4", "1.36.3", "1.36.3")
    assert found.impossible == ()


@pytest.mark.parametrize("wanted", ["1.35.4", "1.37.2"])
def test_an_upgrade_under_way_can_go_nowhere_else(folder: Path, wanted: str) -> None:
    [refused] = of_versions(folder, "1.35.4", wanted, "1.36.3").impossible
    assert "an upgrade to 1.36.3 is under way" in refused.effect.why
    assert "set it to 1.36.3" in refused.effect.instead
