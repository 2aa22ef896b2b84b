from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab import config, host
from lab.host import docker, network, places
from lab.host.facts import FileSystem, Forwarding, Way
from lab.model import Lab
from lab.providers.libvirt.host import LibvirtHost
from lab.system import process
from lab.unknown import Unknown
from lab.workspace import Workspace
from tests.unit.hosts import FakeRun, recorded, recorded_tree

# Not recorded: the build machine has no libvirt. As virsh prints it on Debian 12.
LIBVIRT_NETWORK = """\
<network>
  <name>default</name>
  <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
  <ip family='ipv6' address='fd00:122::1' prefix='64'/>
</network>
"""


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A door to commands that answers as the recorded host did."""
    fake = FakeRun()
    fake.tell("docker context inspect", recorded("docker-context.txt"))
    fake.tell("docker version", recorded("docker-version.json"))
    fake.tell("docker info", recorded("docker-info.json"))
    fake.tell("docker ps --all", recorded("docker-ps.txt"))
    fake.tell("docker network ls", recorded("docker-network-ls.txt"))
    fake.tell("docker network inspect", recorded("docker-network-inspect.txt"))
    fake.tell("ip -4 -json route show table all", recorded("ip-route-show.json"))
    fake.tell("ip -4 -json route get 192.168.56.10", recorded("ip-route-get.up.json"))
    fake.tell("vagrant --version", recorded("vagrant-version.txt"))
    monkeypatch.setattr(process, "run", fake)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "virsh" else f"/usr/bin/{name}")
    return fake


@pytest.fixture
def silent(door: FakeRun) -> FakeRun:
    """A docker whose client is there and whose daemon says nothing."""
    said, complaint = recorded("docker-version.silent.json"), recorded("docker-version.silent.stderr")
    door.tell("docker version", said, code=1, stderr=complaint)
    return door


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket in a file, at which nobody listens yet."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "docker.sock"))
        yield door


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the recorded parts of /proc."""
    return recorded_tree(tmp_path)


def test_gathering_fills_every_fact_from_what_the_host_said(door: FakeRun, root: Path) -> None:
    facts = host.gather(config.default(), Workspace(root / ".lab"), programs=["docker"], root=root)
    assert facts.daemon.state == "answers"
    assert facts.daemon.version == "20.10.24+dfsg1"
    assert (facts.daemon.driver, facts.daemon.runtime, facts.daemon.settings) == ("overlay2", "runc", {})
    assert facts.daemon.about_driver["Supports d_type"] == "true"
    assert facts.docker_file_system == FileSystem(Path("/var/lib/docker"), "ext4", "/dev/vda")
    assert facts.forwarding == Forwarding()
    assert facts.vagrant == (2, 3, 4)
    assert facts.way == Way("br-57fb6121b355")
    assert facts.libvirt_networks == {}
    assert {"docker", "vagrant", "ip"} <= facts.programs
    assert not isinstance(facts.containers, Unknown)
    assert {each.name for each in facts.containers} >= {"ha-lab-lb1", "ha-lab-cp1", "ha-lab-w3"}
    assert all(each.running and each.owner == "/tmp/tlab/.lab" for each in facts.containers)  # noqa: S108


def test_the_system_s_file_says_nothing_of_another_daemon(door: FakeRun, root: Path, tmp_path: Path) -> None:
    door.tell("docker context inspect", recorded("docker-context.txt").replace("/var/run/", "/home/ada/"))
    facts = host.gather(config.default(), Workspace(root / ".lab"), root=root)
    assert isinstance(facts.daemon.settings, Unknown)


def test_gathering_asks_the_firewall_where_packets_on_bridges_pass_it(
    door: FakeRun, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = root / "proc/sys/net/bridge"
    bridge.mkdir(parents=True)
    (bridge / "bridge-nf-call-iptables").write_text("1\n")
    door.tell("iptables --list-rules", recorded("iptables-rules.txt"))
    door.tell("nft --json list chains", '{"nftables": []}')
    monkeypatch.setattr("os.geteuid", lambda: 0)
    facts = host.gather(config.default(), Workspace(root / ".lab"), root=root)
    assert facts.forwarding.bridged
    assert not isinstance(facts.forwarding.rules, Unknown)
    assert "-P FORWARD DROP" in facts.forwarding.rules


def test_gathering_asks_the_provider_and_looks_for_its_programs(door: FakeRun, root: Path) -> None:
    asked: list[tuple[str, Path, Path]] = []
    said = LibvirtHost("mute", False, Unknown("not tried"))

    def look(lab: Lab, workspace: Path, where: Path) -> LibvirtHost:
        asked.append((lab.name, workspace, where))
        return said

    lab, workspace = config.default(), Workspace(root / ".lab")
    facts = host.gather(lab, workspace, programs=["docker"], ask_provider=look, root=root)
    assert facts.provider is said
    assert asked == [("ha-lab", root / ".lab", root)]
    assert "docker" in facts.programs
    plain = host.gather(lab, workspace, root=root)
    assert plain.provider is None
    assert "docker" not in plain.programs


def test_gathering_asks_a_daemon_that_is_elsewhere_nothing(door: FakeRun, root: Path) -> None:
    door.tell("docker context inspect", "default ssh://ada@far.example\n")
    facts = host.gather(config.default(), Workspace(root / ".lab"), root=root)
    assert facts.daemon.state == "elsewhere"
    assert facts.daemon.endpoint == "ssh://ada@far.example"
    assert [words[1] for words in door.asked if words[0] == "docker"] == ["context"]
    assert isinstance(facts.containers, Unknown)


def test_gathering_takes_words_that_it_cannot_read_for_no_answer(door: FakeRun, root: Path) -> None:
    door.tell("ip -4 -json route show table all", "default via 192.0.2.1 dev eth0\n")
    door.tell("docker ps --all", "not JSON\n")
    facts = host.gather(config.default(), Workspace(root / ".lab"), root=root)
    assert isinstance(facts.routes, Unknown)
    assert isinstance(facts.containers, Unknown)


def test_gathering_survives_a_host_that_has_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeRun()
    for program in ("docker", "ip", "vagrant"):
        fake.fail(program, "could not start: no such program")
    monkeypatch.setattr(process, "run", fake)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    (tmp_path / "proc").mkdir()
    facts = host.gather(config.default(), Workspace(tmp_path / ".lab"), root=tmp_path)
    assert facts.daemon.state == "no client"
    assert facts.programs == frozenset()
    unknown = (
        facts.memory,
        facts.routes,
        facts.way,
        facts.cgroups,
        facts.inotify,
        facts.capabilities,
    )
    assert all(isinstance(fact, Unknown) for fact in (*unknown, facts.vagrant, facts.containers))


def test_vagrant_is_kept_from_calling_home(door: FakeRun) -> None:
    host._vagrant()
    assert door.environments["vagrant --version"]["VAGRANT_CHECKPOINT_DISABLE"] == "1"


def test_a_daemon_without_a_client(door: FakeRun) -> None:
    door.fail("docker context inspect", "could not start: no such program")
    assert docker.daemon().state == "no client"


def test_a_daemon_with_nothing_at_its_socket(silent: FakeRun, tmp_path: Path) -> None:
    silent.tell("docker context inspect", f"default unix://{tmp_path}/docker.sock\n")
    found = docker.daemon()
    assert found.state == "absent"
    assert "Cannot connect to the Docker daemon" in found.words


def test_a_daemon_with_a_socket_that_nobody_listens_at(silent: FakeRun, listener: socket.socket) -> None:
    silent.tell("docker context inspect", f"default unix://{listener.getsockname()}\n")
    listener.close()
    assert docker.daemon().state == "absent"


def test_a_daemon_that_listens_and_does_not_answer(silent: FakeRun, listener: socket.socket) -> None:
    silent.tell("docker context inspect", f"default unix://{listener.getsockname()}\n")
    listener.listen()
    assert docker.daemon().state == "mute"


def test_a_daemon_that_lets_others_in_only(
    silent: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by file modes: tests may run as root, whom they don't stop.
    monkeypatch.setattr(socket.socket, "connect", _denied)
    silent.tell("docker context inspect", f"default unix://{tmp_path}/docker.sock\n")
    assert docker.daemon().state == "denied"


def test_a_daemon_that_takes_too_long(door: FakeRun) -> None:
    door.fail("docker version", "did not end within 5 s")
    found = docker.daemon()
    assert found.state == "mute"
    assert "did not end within 5 s" in found.words


def _denied(door: socket.socket, address: str) -> None:
    raise PermissionError(13, "Permission denied")


def test_dockers_networks_have_subnets_and_bridges(door: FakeRun) -> None:
    found = docker.networks()
    assert not isinstance(found, Unknown)
    assert {each.name: (each.device, *map(str, each.subnets)) for each in found} == {
        "bridge": ("docker0", "172.17.0.0/16"),
        "vagrant_network_192.168.56.0/24": ("br-57fb6121b355", "192.168.56.0/24"),
    }


def test_dockers_networks_may_vanish_while_we_ask(door: FakeRun) -> None:
    text = recorded("docker-network-inspect.txt")
    door.tell("docker network inspect", text, code=1, stderr="Error: No such network: 57fb")
    assert not isinstance(docker.networks(), Unknown)


def test_dockers_networks_are_unknown_where_docker_fails(door: FakeRun) -> None:
    door.tell("docker network ls", code=1, stderr="Cannot connect")
    assert isinstance(docker.networks(), Unknown)


def test_a_paused_container_runs_and_is_known_to_be_paused(door: FakeRun) -> None:
    door.tell("docker ps --all", '["w1", "paused", "", "bridge"]\n["w2", "running", "", "bridge"]\n')
    found = docker.containers()
    assert not isinstance(found, Unknown)
    assert [(each.running, each.paused) for each in found] == [(True, True), (True, False)]


def test_a_linked_container_goes_by_its_own_name(door: FakeRun) -> None:
    door.tell("docker ps --all", '["web/db,db", "exited", "", "bridge"]\n')
    found = docker.containers()
    assert not isinstance(found, Unknown)
    assert (found[0].name, found[0].running) == ("db", False)


def test_routes_of_all_tables_are_read_without_broadcasts(door: FakeRun) -> None:
    found = network.routes()
    assert not isinstance(found, Unknown)
    shown = [str(route) for route in found]
    assert shown[0] == "0.0.0.0/0 via 192.0.2.1 dev eth0"
    assert "192.168.56.0/24 dev br-57fb6121b355" in shown
    assert "192.0.2.255/32 dev eth0" not in shown


def test_routes_with_several_next_hops_count_for_each(door: FakeRun) -> None:
    hops = '{"gateway": "10.0.0.1", "dev": "a"}, {"via": {"host": "fe80::1"}, "dev": "b"}'
    door.tell("ip -4 -json route show table all", f'[{{"dst": "default", "nexthops": [{hops}]}}]')
    found = network.routes()
    assert not isinstance(found, Unknown)
    assert [(each.device, each.gateway) for each in found] == [("a", "10.0.0.1"), ("b", "fe80::1")]


@pytest.mark.parametrize(
    ("said", "mac"),
    [
        (
            '[{"dst":"192.168.99.5","dev":"br-1","lladdr":"02:42:c0:a8:63:07","state":["STALE"]}]',
            "02:42:c0:a8:63:07",
        ),
        ('[{"dst":"192.168.99.5","dev":"br-1","state":["FAILED"]}]', ""),
        ("[]", ""),
        ("", ""),
    ],
)
def test_where_packets_go_is_what_the_neighbour_table_says(door: FakeRun, said: str, mac: str) -> None:
    door.tell("ip -4 -json neighbour show to 192.168.99.5", said)
    assert network.neighbour(IPv4Address("192.168.99.5")) == mac


def test_a_neighbour_table_that_can_t_be_read_is_unknown(door: FakeRun) -> None:
    door.tell("ip -4 -json neighbour show to", code=1, stderr="Cannot open netlink socket")
    assert isinstance(network.neighbour(IPv4Address("192.168.99.5")), Unknown)


def test_routes_to_the_lab_when_it_is_down(door: FakeRun) -> None:
    door.tell("ip -4 -json route get", recorded("ip-route-get.default.json"))
    assert network.way(IPv4Address("192.168.99.10")) == Way("eth0", "192.0.2.1")


def test_routes_to_the_lab_on_a_host_without_any(door: FakeRun) -> None:
    door.tell("ip -4 -json route get", code=2, stderr="RTNETLINK answers: Network is unreachable")
    assert network.way(IPv4Address("192.168.99.10")) == Way("")


def test_routes_to_the_lab_when_ip_fails(door: FakeRun) -> None:
    door.tell("ip -4 -json route get", code=2, stderr="Cannot open netlink socket")
    assert network.way(IPv4Address("192.168.99.10")) == Unknown("Cannot open netlink socket")


def test_libvirts_networks_are_read_from_their_definitions(
    door: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    door.tell("virsh --readonly --connect qemu:///system net-list --all --name", "default\n\n")
    door.tell(
        "virsh --readonly --connect qemu:///system net-dumpxml default",
        LIBVIRT_NETWORK,
    )
    assert network.libvirt() == {"default": IPv4Network("192.168.122.0/24")}
    door.tell("virsh --readonly --connect qemu:///system net-list", code=1, stderr="no connection")
    door.answers.pop("virsh --readonly --connect qemu:///system net-list --all --name")
    assert isinstance(network.libvirt(), Unknown)


def test_machines_get_what_docker_has_and_knows(door: FakeRun, root: Path) -> None:
    facts = host.gather(config.default(), Workspace(root / ".lab"), root=root)
    names = host.node_capabilities(facts)
    assert names == tuple(sorted(names))
    assert {"SYS_ADMIN", "NET_ADMIN", "MKNOD"} <= set(names)
    assert not {"SYS_RESOURCE", "PERFMON", "BPF", "CHECKPOINT_RESTORE"} & set(names)
    assert len(names) == 37


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    found = places.folder(tmp_path / "a" / "b")
    assert not isinstance(found, Unknown)
    assert found.path == tmp_path / "a" / "b"
    assert found.writable
    assert found.free > 0


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert host.cache_folder() == Path("/elsewhere/ha-lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert host.cache_folder() == Path("/home/ada/.cache/ha-lab")


@pytest.mark.parametrize(
    ("context", "docker_host", "chosen"),
    [
        ("default", "", ""),
        ("rootless", "", "context rootless"),
        ("default", "unix:///run/other.sock", "DOCKER_HOST"),
    ],
)
def test_what_chose_the_daemon_is_known(
    door: FakeRun, monkeypatch: pytest.MonkeyPatch, context: str, docker_host: str, chosen: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    door.tell("docker context inspect", f"{context} unix:///run/some.sock\n")
    found = docker.daemon()
    assert (found.endpoint, found.chosen) == ("unix:///run/some.sock", chosen)
    assert found.place == f"unix:///run/some.sock{f' ({chosen})' if chosen else ''}"
