"""Each script of provision/node, run for real on a machine of scratch folders (world.py)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lab.workspace import Workspace
from lab.workspace.render import credentials
from tests.provision.world import CA_KEY, CERTIFICATE_KEY, TOKEN, World

Machine = Callable[[str], World]
Done = Callable[..., World]
SECRET_SCRIPTS = (("control-plane-init", "cp1"), ("control-plane-join", "cp2"), ("worker-join", "w1"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a machine by name, in a lab whose API answers through the load balancer."""
    return lambda name: fresh(tmp_path / str(len(list(tmp_path.iterdir()))), name)


def fresh(root: Path, name: str) -> World:
    world = World(root, name)
    world.let(
        api="",
        active_containerd="",
        previous_label="",
    )
    world.let(member_line=member_line(world))
    return world


@pytest.fixture
def done(tmp_path: Path) -> Done:
    """Give a machine by name on which a script has run, with these words; it was the same for each test."""
    return lambda name, *line: _done_once(tmp_path.parent, name, *line).copy(tmp_path / name)


@functools.cache
def _done_once(folder: Path, name: str, script: str, *words: str) -> World:
    world = fresh(folder / "-".join((name, script, *words)), name)
    ran = world.run(script, *words, secrets=(script, name) in SECRET_SCRIPTS)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    return world


def member_line(world: World, *, learner: bool = False) -> str:
    """The machine's member as etcd lists it."""
    address = world.node.address
    return (
        f"bbbb, started, {world.name}, https://{address}:2380, https://{address}:2379, {str(learner).lower()}\n"
    )


def index(calls: list[str], start: str) -> int:
    """The place of the first call that starts so, or has these words."""
    return next(place for place, call in enumerate(calls) if start in call)


def count(calls: list[str], words: str) -> int:
    return sum(words in call for call in calls)


# Run twice, nothing changes.


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        ("load-balancer", "lb1", ()),
        ("node", "cp1", ()),
        ("node", "w1", ()),
        ("control-plane-init", "cp1", ("--alone",)),
        ("control-plane-join", "cp2", ("--ordered",)),
        ("worker-join", "w1", ()),
    ],
)
def test_a_second_run_finds_everything_done_and_touches_nothing(
    machine: Machine, script: str, name: str, words: tuple[str, ...]
) -> None:
    world = machine(name)
    secrets = (script, name) in SECRET_SCRIPTS
    first = world.run(script, *words, secrets=secrets)
    assert (first.code, first.last) == (0, "ha-lab: changed"), first.said
    assert first.changes or script == "node"
    second = world.run(script, *words, secrets=secrets)
    assert (second.code, second.last) == (0, "ha-lab: unchanged"), second.said
    assert second.changes == []


def test_a_node_keeps_the_proxies_where_root_alone_reads_them(machine: Machine) -> None:
    world = machine("w1")
    world.given["proxy.env"] = 'http_proxy="http://ada:pa55word@proxy.example:3128"\n'
    first = world.run("node", secrets=True)
    kept = world.path("/etc/ha-lab/proxy.env")
    assert kept.read_text() == world.given["proxy.env"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not world.has("/run/ha-lab/proxy.env")
    assert "pa55word" not in first.said
    assert count(first.calls, "systemctl try-restart containerd kubelet") == 1
    again = world.run("node", secrets=True)
    assert (again.last, count(again.calls, "try-restart")) == ("ha-lab: unchanged", 0)
    world.given["proxy.env"] = ""
    without = world.run("node", secrets=True)
    assert (without.last, count(without.calls, "try-restart")) == ("ha-lab: changed", 1)
    assert not kept.exists()


@pytest.mark.parametrize(("script", "name"), SECRET_SCRIPTS)
def test_secrets_are_gone_when_a_script_ends_well_or_badly(machine: Machine, script: str, name: str) -> None:
    words = ["--ordered"] if script == "control-plane-join" else []
    for failures in ("0", "9"):
        world = machine(name)
        world.let(failing_init=failures, failing_join=failures)
        ran = world.run(script, *words, secrets=True)
        assert (ran.code == 0) == (failures == "0")
        assert world.secrets_left() == []


@pytest.mark.parametrize(("script", "name"), SECRET_SCRIPTS)
def test_a_machine_that_does_not_reach_the_load_balancer_ends_before_it_changes_anything(
    machine: Machine, script: str, name: str
) -> None:
    world = machine(name)
    world.let(apart="")
    ran = world.run(script, *(["--ordered"] if script == "control-plane-join" else []), secrets=True)
    assert (ran.code, ran.last, ran.calls) == (1, "ERROR: apart", [])
    assert world.secrets_left() == []


def test_without_secrets_a_join_says_what_is_missing(machine: Machine) -> None:
    ran = machine("w1").run("worker-join")
    assert ran.code == 1
    assert "no secrets were given for this run" in ran.said


# The load balancer.


def test_haproxy_s_configuration_is_the_packaged_one_and_the_lab_s(done: Done) -> None:
    world = done("lb1", "load-balancer")
    text = world.path("/etc/haproxy/haproxy.cfg").read_text()
    assert text.startswith("global\ndefaults\n")
    assert "server cp3 192.168.56.13:6443" in text
    assert world.has("/etc/haproxy/kubernetes-ca.crt")
    assert sorted(path.name for path in world.path("/etc/haproxy/x").parent.iterdir()) == [
        "cut-off.lua",
        "haproxy.cfg",
        "kubernetes-ca.crt",
    ]


def test_a_configuration_that_haproxy_refuses_leaves_the_old_one_in_use(done: Done) -> None:
    world = done("lb1", "load-balancer")
    before = world.path("/etc/haproxy/haproxy.cfg").read_text()
    rendered = world.root / "opt/haproxy.cfg"
    rendered.write_text(rendered.read_text() + "BROKEN\n")
    ran = world.run("load-balancer")
    assert ran.code == 1
    assert "HAProxy refuses the rendered configuration" in ran.said
    assert "unknown keyword 'BROKEN'" in ran.said
    assert world.path("/etc/haproxy/haproxy.cfg").read_text() == before
    assert ran.changes == []


@pytest.mark.parametrize("file", ["haproxy.cfg", "ca.crt", "cut-off.lua"])
def test_haproxy_is_reloaded_once_when_its_files_changed(done: Done, file: str) -> None:
    world = done("lb1", "load-balancer")
    rendered = world.root / "opt" / file
    rendered.write_text(rendered.read_text() + "\n# changed\n")
    ran = world.run("load-balancer")
    assert ran.changes == ["systemctl reload haproxy"]
    assert ran.last == "ha-lab: changed"


def test_haproxy_that_was_stopped_is_started(done: Done) -> None:
    world = done("lb1", "load-balancer")
    (world.root / "state/active-haproxy").unlink()
    ran = world.run("load-balancer")
    assert ran.changes == ["systemctl restart haproxy"]


def servers(world: World) -> dict[str, str]:
    """The administrative state that HAProxy has for each of its servers: "8" is drained on request."""
    lines = (world.root / "state/servers").read_text().splitlines()
    return dict(line.split() for line in lines)


def drained(name: str) -> str:
    """The command with which HAProxy drains a server."""
    return f"admin.sock set server apiserverbackend/{name} state drain"


@pytest.fixture
def lb1(done: Done) -> World:
    """A load balancer whose HAProxy runs with the lab's configuration."""
    world = done("lb1", "load-balancer")
    assert servers(world) == {"cp1": "0", "cp2": "0", "cp3": "0"}
    return world


def test_haproxy_drains_exactly_the_servers_that_are_named_and_once(lb1: World) -> None:
    ran = lb1.run("load-balancer", "--drain", "cp2", "cp3")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert ran.changes == [drained("cp2"), drained("cp3")]
    assert servers(lb1) == {"cp1": "0", "cp2": "8", "cp3": "8"}
    again = lb1.run("load-balancer", "--drain", "cp2", "cp3")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said


def asked_for_sessions(calls: list[str]) -> int:
    return count(calls, "admin.sock show stat")


def test_drained_servers_get_time_for_their_sessions_until_none_is_left(lb1: World) -> None:
    lb1.let(sessions="3\n", failing_sessions_left="9")
    ran = lb1.run("load-balancer", "--settle", "600", "--drain", "cp2")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert asked_for_sessions(ran.calls) == 4, "those of cp3 are not waited for"


def test_sessions_without_an_end_are_not_waited_for_longer_than_that(lb1: World) -> None:
    lb1.let(sessions="3\n")
    ran = lb1.run("load-balancer", "--settle", "5", "--drain", "cp2")
    assert (ran.code, servers(lb1)["cp2"]) == (0, "8"), ran.said
    assert 1 <= asked_for_sessions(ran.calls) <= 20


def test_servers_that_an_earlier_run_drained_are_ready_again(lb1: World) -> None:
    lb1.run("load-balancer", "--drain", "cp2")
    ran = lb1.run("load-balancer", "--drain", "cp3")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert servers(lb1) == {"cp1": "0", "cp2": "0", "cp3": "8"}
    for words in ((), ("--drain",)):
        ran = lb1.run("load-balancer", *words)
        assert (ran.code, servers(lb1)) == (0, {"cp1": "0", "cp2": "0", "cp3": "0"}), ran.said
    assert ran.last == "ha-lab: unchanged"


def test_a_server_that_is_down_for_another_reason_is_not_taken_for_drained(lb1: World) -> None:
    # 1: maintenance on request, 4: by configuration, 32: as it has no address. 12 is 4, and drained on request.
    lb1.let(servers="cp1 1\ncp2 12\ncp3 36\n")
    ran = lb1.run("load-balancer")
    assert (ran.code, ran.changes) == (0, ["admin.sock set server apiserverbackend/cp2 state ready"]), ran.said


def test_a_control_plane_that_haproxy_does_not_know_has_no_server_to_drain(lb1: World) -> None:
    # cp is the beginning of another server's name.
    ran = lb1.run("load-balancer", "--drain", "cp9", "cp", "cp2")
    assert (ran.code, ran.changes) == (0, [drained("cp2")]), ran.said


def test_what_haproxy_refuses_is_reported_in_its_words(lb1: World) -> None:
    lb1.let(refusal="Permission denied\n")
    ran = lb1.run("load-balancer", "--drain", "cp2")
    assert ran.code == 1
    assert "HAProxy refuses the state `drain` for its server cp2: Permission denied" in ran.said


def test_a_server_is_drained_in_the_process_that_a_reload_starts(lb1: World) -> None:
    rendered = lb1.root / "opt/haproxy.cfg"
    rendered.write_text(rendered.read_text() + "\n# changed\n")
    lb1.let(failing_reload="1")  # the old process answers twice more
    ran = lb1.run("load-balancer", "--drain", "cp2")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert not (lb1.root / "state/reloading").exists()
    assert servers(lb1) == {"cp1": "0", "cp2": "8", "cp3": "0"}


def test_a_reload_that_starts_no_process_is_reported(lb1: World) -> None:
    rendered = lb1.root / "opt/haproxy.cfg"
    rendered.write_text(rendered.read_text() + "\n# changed\n")
    lb1.let(failing_reload="99")
    ran = lb1.run("load-balancer", "--drain", "cp2")
    assert ran.code == 1
    assert "waiting for the process that HAProxy's reload starts: it answers as process 101" in ran.said
    assert servers(lb1)["cp2"] == "0"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("set server", "it is not known whether HAProxy's server cp2 is in the state `drain` now"),
        ("show servers", "it is not known which of HAProxy's servers are drained"),
        ("show info", "waiting for HAProxy to answer on its administrative socket: HAProxy gave no answer"),
    ],
)
def test_no_answer_of_haproxy_in_time_is_no_success(lb1: World, command: str, said: str) -> None:
    lb1.let(silent_haproxy=command)
    ran = lb1.run("load-balancer", "--drain", "cp2")
    assert ran.code == 1
    assert "HAProxy gave no answer to `" + command in ran.said
    assert said in ran.said
    assert servers(lb1)["cp2"] == "0"


def test_an_haproxy_that_does_not_answer_is_not_taken_for_one_without_drained_servers(lb1: World) -> None:
    (lb1.root / "state/servers").unlink()
    ran = lb1.run("load-balancer")
    assert ran.code == 1
    assert "waiting for HAProxy to answer on its administrative socket: socat[1] E connect" in ran.said


# A control plane that leaves.


@pytest.fixture
def cp2(done: Done) -> World:
    """A control plane that has joined."""
    return done("cp2", "control-plane-join", "--ordered")


MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"


def test_the_api_server_of_a_control_plane_that_leaves_ends_by_its_manifest_and_once(cp2: World) -> None:
    cp2.let(failing_close="1")
    ran = cp2.run("leave")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: changed", []), ran.said
    assert not cp2.has(MANIFEST)
    assert cp2.has("/etc/kubernetes/kube-apiserver.yaml.left")
    assert cp2.has("/etc/kubernetes/manifests/etcd.yaml")
    assert count(ran.calls, "ss ") == 2
    again = cp2.run("leave")
    assert (again.code, again.last) == (0, "ha-lab: unchanged"), again.said


def test_an_api_server_that_goes_on_is_reported(cp2: World) -> None:
    cp2.let(failing_close="99")
    ran = cp2.run("leave")
    assert ran.code == 1
    assert "waiting for this API server to take no more connections: it still takes connections" in ran.said
    # The next run waits for it, too.
    assert cp2.run("leave").code == 1


def test_an_api_server_that_can_t_be_asked_for_is_not_taken_for_ended(cp2: World) -> None:
    cp2.let(ss_broken="")
    assert cp2.run("leave").code == 1


@pytest.mark.parametrize(("endpoints", "waits"), [("", True), ("https://192.168.56.31:2379", False)])
def test_a_bare_vagrant_up_joins_in_turn_only_where_that_brings_a_member_of_etcd(
    machine: Machine, endpoints: str, waits: bool
) -> None:
    cp3 = machine("cp3")
    env = cp3.root / "opt/node.env"
    if endpoints:
        env.write_text(re.sub("(?m)^ETCD_ENDPOINTS=.*", f"ETCD_ENDPOINTS={endpoints}", env.read_text()))
    ran = cp3.run("control-plane-join", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert any("get node cp2 --output jsonpath={.metadata.labels}" in call for call in ran.calls) is waits


def test_a_control_plane_that_was_about_to_leave_and_stays_joins_again(cp2: World) -> None:
    cp2.run("leave")
    (cp2.root / "state/own-api").unlink()
    ran = cp2.run("control-plane-join", "--ordered", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert cp2.has(MANIFEST)


# Every node.


def test_a_node_s_kubelet_asks_the_machine_s_own_resolver(done: Done) -> None:
    world = done("w1", "node")
    assert world.path("/etc/ha-lab/resolv.conf").read_text() == "nameserver 192.168.56.21\n"
    drop_in = world.path("/etc/kubernetes/kubelet.conf.d/10-node.conf").read_text()
    assert "resolvConf: /etc/ha-lab/resolv.conf" in drop_in


def test_a_container_runtime_that_stands_still_is_started(machine: Machine) -> None:
    world = machine("w1")
    (world.root / "state/active-containerd").unlink()
    ran = world.run("node")
    assert "systemctl start containerd" in ran.changes
    assert ran.last == "ha-lab: changed"


# The first control plane.


def test_init_uses_the_ca_from_the_host_and_keeps_that_it_is_done(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    assert world.path("/etc/kubernetes/pki/ca.crt").read_text() == (world.root / "opt/ca.crt").read_text()
    assert world.path("/etc/kubernetes/pki/ca.key").stat().st_mode & 0o777 == 0o600
    assert world.has("/etc/ha-lab/once-complete")


@pytest.mark.parametrize("emulated", [False, True])
def test_kubeadm_bears_one_cpu_and_kube_proxy_requests_some_where_machines_are_emulated_and_nowhere_else(
    machine: Machine, emulated: bool
) -> None:
    world = machine("cp1")
    if emulated:
        with (world.root / "opt/node.env").open("a") as file:
            file.write("LAB_PATIENCE=10\n")
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert ran.code == 0, ran.said
    ignored = next(call for call in ran.calls if call.startswith("kubeadm init --config")).rpartition("=")[2]
    assert ("NumCPU" in ignored.split(",")) is emulated
    assert (world.root / "state/proxy-requests-cpu").exists() is emulated
    assert (world.root / "state/coredns-replicas").read_text() == "2\n", "they are on two nodes"
    # So it is after kubeadm has made kube-proxy again, or where the first run was interrupted.
    (world.root / "state/proxy-requests-cpu").unlink(missing_ok=True)
    again = world.run("control-plane-init", "--alone", secrets=True)
    assert again.code == 0, again.said
    assert (world.root / "state/proxy-requests-cpu").exists() is emulated


@pytest.mark.parametrize("emulated", [False, True])
def test_an_emulated_machine_completes_an_init_whose_last_phases_found_the_api_too_slow(
    machine: Machine, emulated: bool
) -> None:
    world = machine("cp1")
    world.let(failing_addons="1")
    if emulated:
        with (world.root / "opt/node.env").open("a") as file:
            file.write("LAB_PATIENCE=10\n")
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code == 0) is emulated, ran.said
    phases = [call.split()[3] for call in ran.calls if call.startswith("kubeadm init phase ")]
    completed = ["addon", "addon", "mark-control-plane", "bootstrap-token", "upload-certs"]
    assert phases == (completed if emulated else [])
    assert "kubeadm reset" not in "\n".join(ran.calls)


def test_an_emulated_machine_that_kubeadm_refuses_is_not_waited_for(machine: Machine) -> None:
    world = machine("cp1")
    world.let(refused_init="1")
    with (world.root / "opt/node.env").open("a") as file:
        file.write("LAB_PATIENCE=10\n")
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert ran.code == 1
    assert "remaining phases" not in ran.said


def test_one_coredns_is_enough_on_an_emulated_lab_s_only_node(machine: Machine) -> None:
    world = machine("cp1")
    (world.root / "opt/patches/corednsdeployment+strategic.yaml").unlink()
    with (world.root / "opt/node.env").open("a") as file:
        file.write("LAB_PATIENCE=10\n")
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert ran.code == 0, ran.said
    assert (world.root / "state/coredns-replicas").read_text() == "1\n"


def test_half_a_first_control_plane_is_undone_while_it_is_alone(machine: Machine) -> None:
    world = machine("cp1")
    world.let(failing_init="1")
    assert world.run("control-plane-init", "--alone", secrets=True).code != 0
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert index(ran.calls, "kubeadm reset") < index(ran.calls, "kubeadm init --config")


@pytest.mark.parametrize("why", ["others belong to the cluster", "it was initialised once"])
def test_half_a_first_control_plane_is_never_undone_when(machine: Machine, why: str) -> None:
    world = machine("cp1")
    if why == "it was initialised once":
        world.run("control-plane-init", "--alone", secrets=True)
        (world.root / "state/own-api").unlink()  # broken since, for whatever reason
    else:
        world.let(failing_init="1", active_kubelet="")
        world.run("control-plane-init", "--alone", secrets=True)
    words = ["--alone"] if why == "it was initialised once" else []
    ran = world.run("control-plane-init", *words, secrets=True)
    assert ran.code == 1
    assert "after 180 s waiting for this control plane, which was initialised earlier: " in ran.said
    assert ran.changes == []


def test_an_initialised_control_plane_admits_the_machines_that_are_named(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone", "cp2")
    ran = world.run("control-plane-init", "cp3", "w2", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.split()[3] for call in ran.changes if call.startswith("kubeadm")] == [
        "bootstrap-token",
        "upload-certs",
    ]
    assert ran.changes[-1].endswith("delete node cp3 w2 --ignore-not-found")
    assert world.secrets_left() == []


# The other control planes.


def test_a_control_plane_joins_and_asks_nobody_for_its_turn_when_it_is_told_the_order(machine: Machine) -> None:
    ran = machine("cp2").run("control-plane-join", "--ordered", secrets=True)
    assert len(ran.changes) == 1
    assert ran.changes[0].startswith("kubeadm join --config")
    assert count(ran.calls, "get node cp1") == 0


def test_without_an_order_a_control_plane_waits_for_the_one_before_it(machine: Machine) -> None:
    world = machine("cp3")
    ran = world.run("control-plane-join", secrets=True)
    assert index(ran.calls, "get node cp2") < index(ran.calls, "kubeadm join")
    world = World(world.root.with_name("early"), "cp3")
    world.let(api="", member_line="")
    ran = world.run("control-plane-join", secrets=True)
    assert ran.code == 1
    assert "cp2 has not joined yet" in ran.said
    assert ran.changes == []
    assert world.secrets_left() == []


def test_a_failed_join_is_undone_member_first_and_tried_again(machine: Machine) -> None:
    world = machine("cp2")
    world.let(failing_join="2")
    ran = world.run("control-plane-join", "--ordered", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert count(ran.calls, "kubeadm join --config") == 3
    assert count(ran.calls, "kubeadm reset") == 2
    assert index(ran.calls, "member remove bbbb") < index(ran.calls, "kubeadm reset")


def test_a_waiting_kubelet_is_started_anew_once_none_of_its_static_pods_seems_new_to_it(
    machine: Machine,
) -> None:
    world = machine("cp2")
    world.let(ages="9 8 9\n14 2 14\n16 16 4 16\n24 24 12 24\n")
    ran = world.run("control-plane-join", "--ordered", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert count(ran.calls, "ps -o etimes=") == 4
    assert count(ran.calls, "systemctl restart kubelet") == 1
    assert index(ran.calls, "systemctl restart kubelet") > index(ran.calls, "ps -o etimes=")


def test_a_join_is_tried_three_times_and_leaves_nothing_half_made(machine: Machine) -> None:
    world = machine("cp2")
    world.let(failing_join="9")
    ran = world.run("control-plane-join", "--ordered", secrets=True)
    assert ran.code == 1
    assert "kubeadm join failed 3 times" in ran.said
    assert count(ran.calls, "kubeadm join --config") == 3
    assert not (world.root / "state/member").exists()
    for path in ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki", "/var/lib/etcd/member"):
        assert not world.has(path)


@pytest.mark.parametrize(("lost", "seconds"), [("label", 60), ("own-api", 300)])
def test_a_join_without_its_last_step_is_given_up_sooner_than_a_control_plane_that_recovers(
    done: Done, lost: str, seconds: int
) -> None:
    world = done("cp2", "control-plane-join", "--ordered")
    (world.root / "state" / lost).unlink()
    world.let(member_line=member_line(world, learner=lost == "label"))
    ran = world.run("control-plane-join", "--ordered", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"gave up after {seconds} s waiting for the earlier join to be complete" in ran.said
    assert index(ran.calls, "kubeadm reset") < index(ran.calls, "kubeadm join")


def test_a_member_left_by_a_lost_machine_of_this_name_is_removed_before_the_join(machine: Machine) -> None:
    world = machine("cp2")
    world.let(member="")
    ran = world.run("control-plane-join", "--ordered", "--former", secrets=True)
    assert ran.code == 0, ran.said
    assert index(ran.calls, "member remove bbbb") < index(ran.calls, "kubeadm join --config")


def test_half_a_control_plane_is_undone_and_joins_again(done: Done) -> None:
    world = done("cp2", "control-plane-join", "--ordered")
    (world.root / "state/label").unlink()
    world.let(member_line=member_line(world, learner=True))
    ran = world.run("control-plane-join", "--ordered", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert (
        index(ran.calls, "systemctl stop kubelet")
        < index(ran.calls, "delete node cp2 --ignore-not-found")
        < index(ran.calls, "member remove")
        < index(ran.calls, "kubeadm reset")
        < index(ran.calls, "join --config")
    )


@pytest.mark.parametrize(("script", "name"), SECRET_SCRIPTS[1:])
def test_a_machine_that_has_joined_is_not_undone_while_the_api_is_away(
    done: Done, script: str, name: str
) -> None:
    world = done(name, script, "--ordered")
    (world.root / "state/api").unlink()
    ran = world.run(script, "--ordered", secrets=True)
    assert ran.code == 1
    assert "the API through the load balancer" in ran.said
    assert ran.changes == []


# Workers.


def test_a_worker_s_failed_join_is_undone_and_tried_again(machine: Machine) -> None:
    world = machine("w1")
    world.let(failing_join="1")
    ran = world.run("worker-join", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert count(ran.calls, "kubeadm join --config") == 2
    assert count(ran.calls, "etcdctl") == 0


def test_a_worker_s_join_is_tried_three_times(machine: Machine) -> None:
    world = machine("w1")
    world.let(failing_join="9")
    ran = world.run("worker-join", secrets=True)
    assert ran.code == 1
    assert "kubeadm join failed 3 times" in ran.said
    assert count(ran.calls, "kubeadm join --config") == 3


def test_half_a_worker_is_undone_and_joins_again(machine: Machine) -> None:
    world = machine("w1")
    world.path("/etc/kubernetes/x").parent.mkdir()
    world.path("/etc/kubernetes/bootstrap-kubelet.conf").touch()
    ran = world.run("worker-join", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert index(ran.calls, "kubeadm reset") < index(ran.calls, "kubeadm join")


@pytest.mark.parametrize(("script", "name"), [("worker-join", "w1"), ("control-plane-join", "cp2")])
def test_a_join_that_was_killed_at_its_end_is_not_undone_for_the_file_it_left(
    done: Done, script: str, name: str
) -> None:
    world = done(name, script)
    bootstrap = world.path("/etc/kubernetes/bootstrap-kubelet.conf")
    bootstrap.write_text("its token")
    ran = world.run(script, secrets=True)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: changed", []), ran.said
    assert not bootstrap.exists()
    assert world.run("probe").said == "joined\n"


# After the joins.


def test_the_pod_network_is_applied_once_and_again_when_it_changed(machine: Machine) -> None:
    world = machine("cp1")
    world.let(own_api="")
    assert count(world.run("pod-network").changes, " apply ") == 2
    second = world.run("pod-network")
    assert (second.last, second.changes) == ("ha-lab: unchanged", [])
    manifest = world.root / "opt/pod-network/kustomization.yaml"
    manifest.write_text(manifest.read_text() + "# changed\n")
    assert count(world.run("pod-network").changes, " apply ") == 2
    world.let(as_shipped="")
    assert count(world.run("pod-network").changes, " apply ") == 2
    (world.root / "state/pod-network").unlink()  # a user has deleted one of its objects
    assert count(world.run("pod-network").changes, " apply ") == 2
    world.let(pod_network="map[hostNetwork:false]")  # a user has changed one of them
    assert count(world.run("pod-network").changes, " apply ") == 2
    assert world.run("pod-network").last == "ha-lab: unchanged"


def test_kube_router_is_not_applied_on_a_machine_without_its_image(machine: Machine) -> None:
    world = machine("cp1")
    world.let(own_api="", images="registry.k8s.io/pause:3.10\n")
    ran = world.run("pod-network")
    assert (ran.code, ran.changes) == (1, [])
    assert "cp1 has no image docker.io/cloudnativelabs/kube-router:v2.1.0" in ran.said
    assert "network.policy to none in lab.yaml" in ran.said
    world.without_policies()
    assert world.run("pod-network").last == "ha-lab: changed"


def test_kube_router_is_removed_where_it_is_not_wanted_and_its_pods_are_waited_for(machine: Machine) -> None:
    world = machine("cp1")
    world.run("control-plane-init", "--alone", secrets=True)
    world.run("pod-network")
    world.let(
        policy_objects="daemonset.apps/kube-router\nclusterrole.rbac.authorization.k8s.io/kube-router\n",
        policy_pods="pod/kube-router-x\n",
    )
    with_it = world.run("pod-network")
    assert (with_it.last, with_it.changes) == ("ha-lab: unchanged", [])
    world.without_policies()
    assert "pod-network" in world.run("unfinished").said.split()
    ran = world.run("pod-network")
    assert ran.last == "ha-lab: changed", ran.said
    [deleted] = ran.changes
    assert " delete --wait=false daemonset.apps/kube-router " in deleted
    assert count(ran.calls, "get pods --selector ha-lab/part=network-policy") == 2
    assert world.run("pod-network").last == "ha-lab: unchanged"
    assert "pod-network" not in world.run("unfinished").said.split()


FILTER = """*filter
:INPUT ACCEPT [0:0]
:KUBE-ROUTER-INPUT - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
:KUBE-POD-FW-2XQY - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT
-A INPUT -j KUBE-FIREWALL
-A KUBE-ROUTER-INPUT -d 10.96.0.0/16 -j RETURN
-A KUBE-NWPLCY-DEFAULT -j MARK --set-xmark 0x10000/0x10000
COMMIT
"""


def test_the_rules_that_kube_router_has_left_go_in_one_transaction(machine: Machine) -> None:
    world = machine("w1")
    world.without_policies()
    world.let(filter=FILTER, sets="KUBE-SRC-AAA\nMINE\nKUBE-DST-BBB\n", set_in_use="")
    ran = world.run("policy-rules")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "repairs: rules of kube-router were left" in ran.said
    assert (world.root / "state/restored").read_text().splitlines() == [
        "*filter",
        *(f":{name} - [0:0]" for name in ("KUBE-ROUTER-INPUT", "KUBE-NWPLCY-DEFAULT", "KUBE-POD-FW-2XQY")),
        '-D INPUT -m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT',
        *(f"-X {name}" for name in ("KUBE-ROUTER-INPUT", "KUBE-NWPLCY-DEFAULT", "KUBE-POD-FW-2XQY")),
        "COMMIT",
    ]
    assert (world.root / "state/sets").read_text() == "MINE\n"
    again = world.run("policy-rules")
    assert (again.last, again.changes) == ("ha-lab: unchanged", [])


def test_the_rules_of_a_kube_router_that_runs_are_left_alone(machine: Machine) -> None:
    world = machine("w1")
    world.without_policies()
    world.let(filter=FILTER, sets="KUBE-SRC-AAA\n", runs_kube_router="")
    ran = world.run("policy-rules")
    assert (ran.last, ran.changes) == ("ha-lab: unchanged", [])


def test_what_could_add_a_machine_is_removed_and_nothing_else(machine: Machine) -> None:
    world = machine("cp1")
    world.let(
        secrets="bootstrap-token-abcdef one bring-up of the lab\nkubeadm-certs \n"
        "bootstrap-token-ghijkl Proxy for managing TTL for the kubeadm-certs secret\n"
        "bootstrap-token-theirs a student made this one\ntheirs \n"
    )
    ran = world.run("revoke")
    assert ran.last == "ha-lab: changed", ran.said
    assert [call.partition(" delete ")[2] for call in ran.changes] == [
        "secret bootstrap-token-abcdef kubeadm-certs bootstrap-token-ghijkl --ignore-not-found"
    ]
    second = world.run("revoke")
    assert (second.last, second.changes) == ("ha-lab: unchanged", [])


def test_nothing_is_revoked_before_every_machine_has_joined(machine: Machine) -> None:
    world = machine("cp1")
    world.let(names="cp1 cp2 cp3 w1 w2", secrets="kubeadm-certs \n")
    ran = world.run("revoke")
    assert ran.code == 1
    assert "w3 has not joined yet" in ran.said
    assert ran.changes == []


# What a run that was interrupted leaves to do, for `plan`.


def test_a_load_balancer_says_whether_haproxy_runs_with_the_lab_s_configuration(machine: Machine) -> None:
    world = machine("lb1")
    before = world.run("unfinished")
    assert before.said.splitlines() == [
        "load-balancer /etc/haproxy/kubernetes-ca.crt differs from the lab's",
        "load-balancer /etc/haproxy/cut-off.lua differs from the lab's",
        "load-balancer /etc/haproxy/haproxy.cfg differs from the lab's",
        "load-balancer HAProxy does not run",
        "load-balancer HAProxy does not start at boot",
    ]
    world.run("load-balancer")
    done = world.run("unfinished")
    assert (done.code, done.said, done.changes) == (0, "", [])
    world.let(haproxy_since="2000-01-01 00:00:00.5 UTC")
    assert world.run("unfinished").last == "load-balancer HAProxy has not read its files since they changed"


@pytest.mark.parametrize("file", ["haproxy.cfg", "kubernetes-ca.crt", "cut-off.lua"])
def test_what_a_load_balancer_calls_unfinished_is_what_its_script_changes(done: Done, file: str) -> None:
    world = done("lb1", "load-balancer")
    world.path(f"/etc/haproxy/{file}").write_text("global\ndefaults\n")
    assert f"load-balancer /etc/haproxy/{file} differs from the lab's" in world.run("unfinished").said
    ran = world.run("load-balancer")
    assert (ran.last, ran.changes) == ("ha-lab: changed", ["systemctl reload haproxy"])
    assert world.run("unfinished").said == ""


def test_a_control_plane_says_what_the_cluster_lacks_and_changes_nothing(machine: Machine) -> None:
    world = machine("cp1")
    assert world.run("unfinished").said == "", "without a cluster there is nothing to finish"
    world.run("control-plane-init", "--alone", secrets=True)
    world.let(secrets="kubeadm-certs \n")
    before = world.run("unfinished")
    assert (before.code, before.said.split(), before.changes) == (0, ["pod-network", "revoke"], [])
    world.run("pod-network")
    assert world.run("unfinished").said.split() == ["revoke"]
    world.run("revoke")
    assert world.run("unfinished").said == ""
    world.let(missing="DaemonSet kube-system kube-proxy\nClusterRole - kubeadm:get-nodes\n")
    lacks = world.run("unfinished")
    assert lacks.said.splitlines() == [
        "control-plane-init the cluster lacks its ClusterRole kubeadm:get-nodes",
        "control-plane-init the cluster lacks its DaemonSet kube-proxy",
    ]
    assert lacks.changes == []
    assert not list((world.root / "run").glob("manifest.*"))


def test_a_control_plane_whose_api_does_not_answer_does_not_guess(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    (world.root / "state/api").unlink()
    ran = world.run("unfinished")
    assert ran.code != 0
    assert not {"pod-network", "revoke"} & set(ran.said.split())


PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2", "w3")
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@pytest.mark.parametrize(("script", "name"), SECRET_SCRIPTS)
def test_a_kubelet_that_somebody_stopped_is_started(done: Done, script: str, name: str) -> None:
    words = ["--ordered"] if script == "control-plane-join" else []
    world = done(name, script, *words)
    (world.root / "state/active-kubelet").unlink()
    ran = world.run(script, *words, secrets=True)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: changed", ["systemctl start kubelet"]), ran.said


@pytest.mark.parametrize(("script", "name"), SECRET_SCRIPTS)
def test_a_machine_that_has_booted_waits_until_the_api_tells_of_what_runs_now(
    done: Done, script: str, name: str
) -> None:
    words = ["--ordered"] if script == "control-plane-join" else []
    world = done(name, script, *words)
    world.let(named="containerd://a1 containerd://b2 ", running="a1\nb2\nc3\n")
    assert world.run(script, *words, secrets=True).last == "ha-lab: unchanged"
    world.let(running="a1\nc3\n")
    ran = world.run(script, *words, secrets=True)
    assert ran.code == 1
    assert f"after 120 s waiting for the API to hear from {name}'s kubelet: the API still shows" in ran.said


# What a machine has.


def test_a_machine_says_what_it_has(machine: Machine) -> None:
    world = machine("cp2")
    assert world.run("probe").last == "fresh"
    world.let(failing_join="1")
    world.path("/etc/kubernetes/x").parent.mkdir()
    world.path("/etc/kubernetes/bootstrap-kubelet.conf").touch()
    assert world.run("probe").last == "partial"
    world.path("/etc/kubernetes/bootstrap-kubelet.conf").unlink()
    world.let(failing_join="0")
    world.run("control-plane-join", "--ordered", secrets=True)
    assert world.run("probe").last == "joined"


# What somebody has done by hand.


@pytest.fixture
def by_hand(done: Done) -> World:
    """A first control plane that somebody initialised: whole, and without a word of it from the kit."""
    world = done("cp1", "control-plane-init", "--alone")
    world.path("/etc/ha-lab/once-complete").unlink()
    return world


def test_an_init_by_hand_is_taken_over_as_it_is_and_never_undone_after(by_hand: World) -> None:
    ran = by_hand.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said
    assert by_hand.has("/etc/ha-lab/once-complete")


def test_an_init_by_hand_is_not_undone_while_its_api_server_is_away(by_hand: World) -> None:
    (by_hand.root / "state/own-api").unlink()
    ran = by_hand.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "after 180 s waiting for this control plane, which was initialised earlier: " in ran.said


def test_an_init_that_was_stopped_before_its_addons_gets_them(machine: Machine) -> None:
    world = machine("cp1")
    world.let(failing_addons="1")
    assert world.run("control-plane-init", "--alone", secrets=True).code != 0
    ran = world.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.split()[3:5] for call in ran.changes] == [["addon", "coredns"], ["addon", "kube-proxy"]]
    assert world.secrets_left() == []


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("/etc/kubernetes/pki/ca.crt", "another one\n", "its CA is not the lab's"),
        (
            "/etc/kubernetes/admin.conf",
            "",
            "its API is not at the load balancer",
        ),
    ],
)
def test_a_cluster_that_can_t_become_the_lab_s_is_refused_and_kept(
    by_hand: World, file: str, text: str, why: str
) -> None:
    if file.endswith(".conf"):
        text = by_hand.path(file).read_text().replace("192.168.56.10", "192.168.56.11")
    by_hand.path(file).write_text(text)
    if file.endswith(".conf"):
        assert by_hand.run("node").code == 0  # the step before, which leaves this to the next one
    ran = by_hand.run("control-plane-init", "--alone", secrets=True)
    assert (ran.code, ran.changes) == (1, [])
    assert why in ran.said
    assert "kubeadm reset --force" in ran.said
    assert "`./inv up --until control-plane`" in ran.said


def test_what_another_ca_signed_does_not_keep_init_from_its_work(machine: Machine) -> None:
    world = machine("cp1")
    kept = world.path("/etc/kubernetes/pki/apiserver.crt")
    kept.parent.mkdir(parents=True)
    kept.write_text("signed by another one\n")
    (kept.parent / "ca.crt").write_text("another one\n")
    assert world.run("control-plane-init", "--alone", secrets=True).code == 0
    assert kept.read_text() != "signed by another one\n"


def test_machines_that_the_cluster_does_not_have_are_admitted_whatever_their_files_say(
    done: Done,
) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    world.let(names="cp1 cp2 cp3 w1 w3")
    ran = world.run("control-plane-init", "cp3", secrets=True)
    assert ran.changes[-1].endswith("delete node cp3 w2 --ignore-not-found"), ran.said


def test_nobody_is_taken_for_missing_while_the_nodes_can_t_be_listed(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    (world.root / "state/names").unlink()
    ran = world.run("control-plane-init", secrets=True)
    assert (ran.code, ran.changes) == (1, []), ran.said


@pytest.mark.parametrize("initialised", [False, True])
def test_whoever_joins_machines_by_hand_finds_this_run_s_secrets(machine: Machine, initialised: bool) -> None:
    world = machine("cp1")
    if initialised:
        world.run("control-plane-init", "--alone", secrets=True)
    ran = world.run("control-plane-init", "--alone", "--by-hand", "cp2", "w1", secrets=True)
    assert ran.code == 0, ran.said
    kept = world.path("/root/secrets.sed")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_text() == f"s/@BOOTSTRAP_TOKEN@/{TOKEN}/\ns/@CERTIFICATE_KEY@/{CERTIFICATE_KEY}/\n"
    assert world.secrets_left() == ["root/secrets.sed"]


@pytest.mark.parametrize(
    ("script", "name", "secrets"),
    [("control-plane-join", "cp2", True), ("worker-join", "w1", True), ("revoke", "cp1", False)],
)
def test_secrets_of_somebody_s_hands_are_gone_once_the_kit_has_gone_on(
    machine: Machine, script: str, name: str, secrets: bool
) -> None:
    world = machine(name)
    world.let(secrets="")
    for file in ("secrets.sed", "kubeadm-init.yaml", "kubeadm-join.yaml", "somebody-s.yaml"):
        world.path(f"/root/{file}").write_text(TOKEN)
    assert world.run(script, secrets=secrets).code == 0
    assert world.secrets_left() == ["root/somebody-s.yaml"]


def test_the_ca_is_put_where_init_by_hand_finds_it_and_the_machine_is_fresh_still(machine: Machine) -> None:
    world = machine("cp1")
    world.given["secrets"] = ""
    first = world.run("node", secrets=True)
    assert (first.code, first.last) == (0, "ha-lab: changed"), first.said
    assert world.path("/etc/kubernetes/pki/ca.crt").read_text() == (world.root / "opt/ca.crt").read_text()
    key = world.path("/etc/kubernetes/pki/ca.key")
    assert (key.read_text(), key.stat().st_mode & 0o777) == (CA_KEY, 0o600)
    assert not world.has("/run/ha-lab/ca.key")
    assert world.run("probe").last == "fresh"
    assert world.run("node", secrets=True).last == "ha-lab: unchanged"


def test_a_cluster_s_ca_is_not_replaced_by_hand_or_otherwise(by_hand: World, tmp_path: Path) -> None:
    another = credentials.ca_certificate(Workspace(tmp_path / "another"))
    by_hand.path("/etc/kubernetes/pki/ca.crt").write_text(another)
    by_hand.given["secrets"] = ""
    assert by_hand.run("node", secrets=True).code == 0
    assert by_hand.path("/etc/kubernetes/pki/ca.crt").read_text() == another
    assert not by_hand.has("/run/ha-lab/ca.key")


def test_a_bare_vagrant_up_keeps_the_ca_s_key_for_init(machine: Machine) -> None:
    world = machine("cp1")
    key = world.path("/run/ha-lab/ca.key")
    key.parent.mkdir()
    key.write_text(CA_KEY)
    assert world.run("node").code == 0
    assert key.exists()
    assert not world.has("/etc/kubernetes/pki/ca.key")


def test_haproxy_that_has_not_read_what_was_put_there_by_hand_is_reloaded(done: Done) -> None:
    world = done("lb1", "load-balancer")
    world.let(haproxy_since="2020-01-01 00:00:00.5 UTC")
    ran = world.run("load-balancer")
    assert (ran.changes, ran.last) == (["systemctl reload haproxy"], "ha-lab: changed")


BRIDGE = "cni0             DOWN           10.244.7.1/24\n"


def test_the_pods_bridge_of_before_goes_where_a_node_was_reset_by_hand(done: Done) -> None:
    world = done("w1", "node")
    world.let(bridge=BRIDGE)
    configuration = world.path("/etc/cni/net.d/10-flannel.conflist")
    configuration.parent.mkdir(parents=True)
    configuration.touch()
    ran = world.run("node")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert not (world.root / "state/bridge").exists()
    assert not configuration.exists()
    assert world.run("node").last == "ha-lab: unchanged"


@pytest.mark.parametrize(("subnet", "kept"), [("10.244.7.1/24", True), ("10.244.8.1/24", False), ("", True)])
def test_the_pods_bridge_of_a_node_that_has_joined_goes_only_where_it_is_another_one_s(
    done: Done, subnet: str, kept: bool
) -> None:
    world = done("w1", "node")
    world.run("worker-join", secrets=True)
    world.let(bridge=BRIDGE)
    if subnet:
        flannel = world.path("/run/flannel/subnet.env")
        flannel.parent.mkdir()
        flannel.write_text(f"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET={subnet}\n")
    world.let(pods="a1 10.244.7.4\nb2 \nc3 10.244.7.5\n")
    ran = world.run("node")
    assert ran.code == 0, ran.said
    assert (world.root / "state/bridge").exists() is kept
    # Their addresses are another node's now; b2 is on the host's network.
    assert ran.changes == ([] if kept else ["crictl stopp a1", "crictl stopp c3", "ip link delete cni0"])


def joined_with_flannel(done: Done) -> World:
    """A worker on which flannel's agent has written its part of the pods' network."""
    world = done("w1", "node")
    world.run("worker-join", secrets=True)
    flannel = world.path("/run/flannel/subnet.env")
    flannel.parent.mkdir()
    flannel.write_text("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n")
    networks = world.path("/etc/cni/net.d")
    networks.mkdir(parents=True)
    (networks / "10-flannel.conflist").touch()
    return world


def test_a_bridge_that_is_being_made_for_a_pod_stays(done: Done) -> None:
    """Between its making and its getting an address: what was deleted then had a pod that reached nobody."""
    world = joined_with_flannel(done)
    world.let(bridge="")
    ran = world.run("node")
    assert (ran.code, ran.changes) == (0, []), ran.said


# As `ip` prints them, without some words: the machine's own interface, and those of two pods.
VETHS = """\
2: eth0@if7: <BROADCAST,UP,LOWER_UP> mtu 1500 qdisc noqueue \\    link/ether 02:42 link-netnsid 0
4: vetha1@if2: <BROADCAST,UP,LOWER_UP> mtu 1450 qdisc noqueue \\    link/ether 3e:ff link-netns cni-6df4
5: vethb2@if2: <BROADCAST,UP,LOWER_UP> mtu 1450 {}\\    link/ether 3e:fe link-netns cni-77aa
"""


@pytest.mark.parametrize("bridge", [None, BRIDGE.replace("7.1", "3.1")])
def test_pods_that_are_attached_to_no_bridge_are_attached_again(done: Done, bridge: str | None) -> None:
    world = joined_with_flannel(done)
    world.let(veths=VETHS.format("master cni0 " if bridge else ""))
    if bridge:
        world.let(bridge=bridge)
    ran = world.run("node")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "repairs: pods were attached to no bridge" in ran.said
    attached = [call.split()[3] for call in ran.changes if call.endswith("master cni0")]
    assert attached == (["vetha1"] if bridge else ["vetha1", "vethb2"])
    assert (world.root / "state/bridge").read_text() == "cni0 UP 10.244.3.1/24\n"
    assert world.run("node").last == "ha-lab: unchanged"


def test_pods_of_another_network_than_flannel_s_are_attached_to_no_bridge(done: Done) -> None:
    """Calico's, for one: it has no bridge, and flannel's files stay when its manifest is replaced."""
    world = joined_with_flannel(done)
    world.path("/etc/cni/net.d/10-calico.conflist").touch()
    world.let(veths=VETHS.format(""))
    ran = world.run("node")
    assert (ran.code, ran.changes) == (0, []), ran.said


# Labs of an earlier version of the kit.

OLD_ARGUMENT = "- --bind-address=127.0.0.1"


def listens_at_loopback(world: World, *names: str) -> None:
    """Let these components' manifests be as kubeadm writes them by default."""
    for name in names:
        manifest = world.path(f"/etc/kubernetes/manifests/{name}.yaml")
        manifest.write_text(manifest.read_text().replace(f"- {name}\n", f"- {name}\n    {OLD_ARGUMENT}\n"))


@pytest.mark.parametrize(
    ("name", "script", "word"),
    [("cp1", "control-plane-init", "--alone"), ("cp2", "control-plane-join", "--ordered")],
)
def test_a_control_plane_whose_metrics_only_it_can_read_gets_its_manifests_again(
    done: Done, name: str, script: str, word: str
) -> None:
    world = done(name, script, word)
    listens_at_loopback(world, "kube-scheduler", "kube-controller-manager")
    ran = world.run(script, word, secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.split()[3:5] for call in ran.changes if "phase" in call] == [
        ["control-plane", "controller-manager"],
        ["control-plane", "scheduler"],
    ]
    assert "repairs: only its own machine could read the metrics of kube-scheduler" in ran.said
    for part in ("kube-scheduler", "kube-controller-manager"):
        assert OLD_ARGUMENT not in world.path(f"/etc/kubernetes/manifests/{part}.yaml").read_text()
    assert world.secrets_left() == []
    assert world.run(script, word, secrets=True).last == "ha-lab: unchanged"


def test_what_control_planes_join_by_is_published_again_where_it_leaves_metrics_to_their_machine(
    done: Done,
) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    world.let(old_configuration="")
    ran = world.run("control-plane-init", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call for call in ran.changes if "phase upload-config kubeadm" in call]
    (world.root / "state/old-configuration").unlink()
    assert world.run("control-plane-init", secrets=True).last == "ha-lab: unchanged"


def test_what_a_backup_from_before_an_upgrade_had_of_kubeadm_gets_the_lab_s_version(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    world.let(recorded_version="1.35.4")
    said = "kubeadm's configuration and its add-ons are those of Kubernetes 1.35.4"
    assert f"control-plane-init {said}" in world.run("unfinished").said.splitlines()
    ran = world.run("control-plane-init", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"repairs: {said}" in ran.said
    assert [call.split()[3:5] for call in ran.changes if " phase " in call] == [
        ["upload-config", "kubeadm"],
        ["upload-config", "kubelet"],
        ["bootstrap-token", "--kubeconfig"],
        ["addon", "coredns"],
        ["addon", "kube-proxy"],
    ]
    assert world.run("control-plane-init", secrets=True).last == "ha-lab: unchanged"
    assert said not in world.run("unfinished").said


@pytest.mark.parametrize(
    ("recorded", "own"),
    [("1.35.4", "1.37.2"), ("1.37.2", "1.36.3")],
    ids=["an upgrade is under way", "the record is of a later version"],
)
def test_another_version_of_kubeadm_s_record_is_left_alone(done: Done, recorded: str, own: str) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    world.let(recorded_version=recorded, kubeadm_version=own)
    assert "kubeadm's configuration" not in world.run("unfinished").said
    assert world.run("control-plane-init", secrets=True).last == "ha-lab: unchanged"


@pytest.mark.parametrize("former", ['""', "127.0.0.1:10249"])
def test_kube_proxy_s_metrics_are_opened_and_all_else_of_its_configuration_is_kept(
    done: Done, former: str
) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    server = "    server: https://192.168.56.10:6443\n"
    world.let(kube_proxy=f"{server}mode: iptables\nmetricsBindAddress: {former}\nconntrack: null\n")
    ran = world.run("control-plane-init", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    changed = (world.root / "state/kube-proxy").read_text()
    assert changed == f"{server}mode: iptables\nmetricsBindAddress: 0.0.0.0:10249\nconntrack: null\n"
    assert count(ran.changes, " rollout restart daemonset kube-proxy") == 1
    assert world.run("control-plane-init", secrets=True).last == "ha-lab: unchanged"


def test_another_address_of_kube_proxy_s_metrics_is_the_user_s(done: Done) -> None:
    world = done("cp1", "control-plane-init", "--alone")
    world.let(kube_proxy="    server: https://192.168.56.10:6443\nmetricsBindAddress: 192.168.56.11:10249\n")
    assert world.run("control-plane-init", secrets=True).last == "ha-lab: unchanged"


# A kubelet's serving certificate.

SERVING = "/var/lib/kubelet/pki/kubelet-server-current.pem"


def with_serving_certificate(world: World, text: str) -> World:
    """Let the kubelet have a file with its serving certificate, through a link as it makes it."""
    file = world.path(SERVING).with_name("kubelet-server-2026-11-29.pem")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    world.path(SERVING).symlink_to("/var/lib/kubelet/pki/kubelet-server-2026-11-29.pem")
    return world


def issue(of: x509.Name, signed_by: x509.Name, key: ec.EllipticCurvePrivateKey, address: str = "") -> str:
    """A certificate as PEM, with this key's signature and, without a second one, for this key."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        signed_by, of, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1)
    ).add_extension(x509.BasicConstraints(ca=not address, path_length=None), critical=True)
    if address:
        alternative = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def signed_by_the_cluster(world: World, address: str = "192.168.56.21") -> str:
    """A serving certificate for an address, from a CA that becomes the lab's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    node = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:w1")])
    key = ec.generate_private_key(ec.SECP256R1())
    (world.root / "opt/ca.crt").write_text(issue(name, name, key))
    return issue(node, name, key, address)


def test_a_kubelet_asks_the_cluster_for_its_serving_certificate(done: Done) -> None:
    drop_in = done("w1", "node").path("/etc/kubernetes/kubelet.conf.d/10-node.conf").read_text()
    assert "serverTLSBootstrap: true" in drop_in.splitlines()


@pytest.mark.parametrize("code", [0, 7, 28, 35])
def test_a_serving_certificate_that_is_accepted_or_not_asked_for_is_kept(done: Done, code: int) -> None:
    world = done("w1", "node")
    with_serving_certificate(world, signed_by_the_cluster(world))
    world.let(serving=str(code))
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: unchanged", []), ran.said
    assert world.path(SERVING).is_symlink()


@pytest.mark.parametrize(
    ("serves", "address", "another_ca"),
    [
        ("60", "192.168.56.21", False),  # the kubelet has read another one
        ("7", "192.168.56.21", True),  # it does not serve now
        ("28", "192.168.56.22", False),
    ],
)
def test_a_serving_certificate_that_is_not_the_cluster_s_for_this_machine_is_removed(
    done: Done, serves: str, address: str, another_ca: bool
) -> None:
    world = done("w1", "node")
    with_serving_certificate(world, signed_by_the_cluster(world, address))
    if another_ca:
        signed_by_the_cluster(world)
    world.let(serving=serves)
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: changed", ["systemctl try-restart kubelet"]), ran.said
    assert "repairs: the kubelet's serving certificate" in ran.said
    assert list(world.path(SERVING).parent.glob("kubelet-server-*")) == []


@pytest.mark.parametrize("text", ["-----BEGIN CERTIFICATE-----\nMIIB", ""])
def test_a_serving_certificate_that_was_cut_short_or_lost_is_removed(done: Done, text: str) -> None:
    world = with_serving_certificate(done("w1", "node"), text)
    if not text:
        world.path(SERVING).with_name("kubelet-server-2026-11-29.pem").unlink()
    assert world.run("node").changes == ["systemctl try-restart kubelet"]
    assert not world.path(SERVING).is_symlink()


def test_the_pod_network_is_applied_once_what_was_deleted_of_it_is_gone(machine: Machine) -> None:
    world = machine("cp1")
    world.let(own_api="", leaving="Namespace kube-flannel is still being deleted\n" * 2)
    ran = world.run("pod-network")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert count(ran.changes, " apply --filename /run/ha-lab/pod-network.yaml") == 2
