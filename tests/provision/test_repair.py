"""What `up` repairs on machines and in the cluster, by the real scripts (world.py): files, objects, marks."""

from __future__ import annotations

import base64
import functools
import json
import os
import time
from pathlib import Path

import pytest

from lab.system.paths import PROVISION
from tests.provision.test_certificate import certificate
from tests.provision.world import Ran, World
from tests.whole import rows

PEM = "/var/lib/kubelet/pki/kubelet-client-current.pem"
KUBERNETES = "/etc/kubernetes"
LOST_LOG = (
    "panic: tocommit(9) is out of range [lastIndex(3)]. Was the raft log corrupted, truncated, or lost?\n"
)
EXPIRED = certificate("2024-02-29T12:00:00")


def made(tmp_path: Path, name: str) -> World:
    """A machine that is a complete node of a healthy lab."""
    return _made_once(tmp_path.parent, name).copy(tmp_path / name)


@functools.cache
def _made_once(folder: Path, name: str) -> World:
    """Such a machine, for tests to copy: to make one takes half a second of a CPU."""
    world = World(folder / f"made-{name}", name)
    address = world.node.address
    world.let(
        api="",
        active_containerd="",
        missing="",
        member_line=f"bbbb, started, {name}, https://{address}:2380, https://{address}:2379, false\n",
    )
    assert world.run("node").code == 0
    assert again(world).code == 0
    assert world.run("probe").last == "joined"
    return world


def again(world: World) -> Ran:
    """What the next `up` runs on this machine for its part in the cluster."""
    if world.name.startswith("w"):
        return world.run("worker-join", secrets=True)
    if world.name == "cp1":
        return world.run("control-plane-init", "--alone", secrets=True)
    return world.run("control-plane-join", "--ordered", secrets=True)


def empty(world: World, path: str) -> None:
    world.path(path).write_text("")


def phases(ran: Ran) -> list[str]:
    """The phases of kubeadm init that were run, and `reset` and `join`."""
    words = [call.split() for call in ran.changes if call.startswith("kubeadm")]
    return [
        " ".join(word for word in each[3:5] if not word.startswith("--")) if each[2] == "phase" else each[1]
        for each in words
    ]


# Files.

FILES = {
    f"{KUBERNETES}/kubelet.conf": ["kubeconfig kubelet", "kubelet-finalize all"],
    PEM: ["kubeconfig kubelet", "kubelet-finalize all"],
    "/var/lib/kubelet/config.yaml": ["kubelet-start"],
    "/var/lib/kubelet/kubeadm-flags.env": ["kubelet-start"],
    f"{KUBERNETES}/admin.conf": ["kubeconfig admin"],
    f"{KUBERNETES}/controller-manager.conf": ["kubeconfig controller-manager"],
    f"{KUBERNETES}/scheduler.conf": ["kubeconfig scheduler"],
    f"{KUBERNETES}/manifests/etcd.yaml": ["etcd local"],
    f"{KUBERNETES}/manifests/kube-apiserver.yaml": ["control-plane apiserver"],
    f"{KUBERNETES}/manifests/kube-scheduler.yaml": ["control-plane scheduler"],
    f"{KUBERNETES}/pki/apiserver.key": [],
    f"{KUBERNETES}/pki/etcd/healthcheck-client.crt": [],
}


@pytest.mark.parametrize(
    ("file", "name"),
    rows(
        [*((file, "cp2") for file in FILES), (PEM, "cp1"), (f"{KUBERNETES}/manifests/etcd.yaml", "cp1")],
        usual=[(PEM, "cp1"), (f"{KUBERNETES}/kubelet.conf", "cp2")],
    ),
)
def test_a_control_plane_s_empty_file_is_made_again_where_it_is(tmp_path: Path, file: str, name: str) -> None:
    world = made(tmp_path, name)
    empty(world, file)
    assert world.run("probe").last == "damaged"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"{PEM if file == PEM else file} is empty" in ran.said
    assert phases(ran) == ["certs all", *FILES[file]]
    assert "systemctl restart kubelet" in ran.changes
    assert world.run("probe").last == "joined"
    assert world.secrets_left() == []
    after = again(world)
    assert (after.last, after.changes) == ("ha-lab: unchanged", []), after.said


def test_all_files_that_are_empty_are_made_again_at_once(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    # kubelet.conf names the kubelet's certificate, which nobody looks for without it.
    files = [file for file in FILES if not file.endswith("kubelet.conf")]
    for file in files:
        empty(world, file)
    probed = world.run("probe")
    assert probed.last == "damaged"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    for file in files:
        assert f"{file} is empty" in probed.said
        assert f"{file} is empty" in ran.said
    assert set(phases(ran)) == {"certs all"}.union(*FILES.values())
    assert world.run("probe").last == "joined"


CUT_SHORT = [
    (PEM, "-----BEGIN CERTIFICATE-----\nMIID", "has no complete certificate"),
    (f"{KUBERNETES}/admin.conf", "    server: https://192.168.56.10:6443\n", "has no valid certificate"),
    (f"{KUBERNETES}/scheduler.conf", "apiVersion: v1\n", "names no server"),
    (f"{KUBERNETES}/manifests/etcd.yaml", "kind: Pod\nmetadata:\n  name: etcd\nspec: {", "is cut short"),
    (f"{KUBERNETES}/manifests/etcd.yaml", "kind: Pod\nmetadata:\n", "is incomplete"),
    ("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n", "is incomplete"),
    (f"{KUBERNETES}/pki/etcd/peer.key", "-----BEGIN RSA PRIVATE KEY-----\nMII", "has no complete key"),
]


@pytest.mark.parametrize(("file", "text", "problem"), rows(CUT_SHORT, usual=CUT_SHORT[:1]))
def test_a_file_that_was_cut_short_is_broken(tmp_path: Path, file: str, text: str, problem: str) -> None:
    world = made(tmp_path, "cp1")
    world.path(file).write_text(text)
    probed = world.run("probe")
    assert probed.last == "damaged"
    assert f"{file} {problem}" in probed.said
    assert again(world).code == 0
    assert world.run("probe").last == "joined"


def test_all_files_that_were_cut_short_are_broken(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    cut = {file: (text, problem) for file, text, problem in CUT_SHORT}  # of a file with two rows, the last
    for file, (text, _) in cut.items():
        world.path(file).write_text(text)
    probed = world.run("probe")
    assert probed.last == "damaged"
    for file, (_, problem) in cut.items():
        assert f"{file} {problem}" in probed.said
    assert again(world).code == 0
    assert world.run("probe").last == "joined"


def test_a_certificate_that_has_expired_is_named_and_made_again(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    pair = world.path(f"{KUBERNETES}/pki/etcd/peer.crt")
    pair.write_text(EXPIRED)
    admin = world.path(f"{KUBERNETES}/admin.conf")
    valid = base64.b64encode(world.path(f"{KUBERNETES}/pki/apiserver.crt").read_bytes()).decode()
    assert valid in admin.read_text()
    admin.write_text(admin.read_text().replace(valid, base64.b64encode(EXPIRED.encode()).decode()))
    probed = world.run("probe")
    assert probed.last == "damaged"
    assert f"the certificate in {KUBERNETES}/pki/etcd/peer.crt has expired\n" in probed.said
    assert f"{KUBERNETES}/admin.conf has no valid certificate\n" in probed.said
    ran = again(world)
    assert (ran.code, phases(ran)) == (0, ["certs all", "kubeconfig admin"]), ran.said
    assert world.run("probe").last == "joined"


NOT_YET_VALID = certificate("2099-01-01", begins="2098-01-01")


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        (EXPIRED, "is valid until Feb 29 12:00:00 2024 GMT, and the clock has "),
        (NOT_YET_VALID, "is valid from Jan  1 00:00:00 2098 GMT on, and the clock has "),
    ],
)
def test_no_worker_is_reset_for_a_date_since_the_clock_may_be_wrong(
    tmp_path: Path, text: str, dates: str
) -> None:
    world = made(tmp_path, "w1")
    pem = world.path(PEM)
    pem.write_text(text + pem.read_text().partition("-----END CERTIFICATE-----\n")[2])
    assert world.run("probe").last == "joined", "it needs no token, and its Node is not deleted"
    world.let(kubelet_refused="")
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert f"w1's kubelet can't take part in the cluster: the certificate in {PEM} {dates}" in ran.said
    assert "`./inv replace w1` makes the machine again" in ran.said
    assert "waiting" not in ran.said


def test_a_control_plane_s_kubelet_gets_another_certificate_for_one_that_has_expired(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    pem = world.path(PEM)
    pem.write_text(EXPIRED + pem.read_text().partition("-----END CERTIFICATE-----\n")[2])
    assert world.run("probe").last == "damaged"
    ran = again(world)
    assert (ran.code, phases(ran)[1:]) == (0, ["kubeconfig kubelet", "kubelet-finalize all"]), ran.said


@pytest.mark.parametrize("name", ["etcd/ca", "front-proxy-ca"])
def test_no_control_plane_is_reset_for_the_date_of_a_ca(tmp_path: Path, name: str) -> None:
    world = made(tmp_path, "cp2")
    world.path(f"{KUBERNETES}/pki/{name}.crt").write_text(EXPIRED)
    assert world.run("probe").last == "joined"


# Files that a user has edited.


@pytest.mark.parametrize(
    ("name", "file", "quote"),
    rows(
        [
            *[("w1", "kubelet.conf", quote) for quote in ('"', "'")],
            *[(name, "admin.conf", quote) for name in ("cp1", "cp2") for quote in ('"', "'")],
        ],
        usual=[("w1", "kubelet.conf", "'"), ("cp1", "admin.conf", '"')],
    ),
)
def test_a_kubeconfig_with_quoted_values_is_complete_and_stays_as_it_is(
    tmp_path: Path, name: str, file: str, quote: str
) -> None:
    world = made(tmp_path, name)
    world.run("node")  # the fake kubeadm leaves the CA's certificate to it
    path = world.path(f"{KUBERNETES}/{file}")
    lines = [line.partition(": ") for line in path.read_text().splitlines()]
    path.write_text("".join(f"{key}: {quote}{value}{quote} # edited\n" for key, _, value in lines))
    before = path.read_text()
    world.path("/etc/ha-lab/once-complete").unlink(missing_ok=True)
    assert world.run("probe").last == "joined"
    for ran in (world.run("node"), again(world)):
        assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said
        assert not any("config view" in call for call in ran.calls)
    assert path.read_text() == before


def test_a_quoted_server_that_is_another_one_is_replaced(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    replaced(world, f"{KUBERNETES}/kubelet.conf", "https://192.168.56.10:6443", '"https://elsewhere:6443"')
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: changed", ["systemctl try-restart kubelet"])
    assert "    server: https://192.168.56.10:6443\n" in world.path(f"{KUBERNETES}/kubelet.conf").read_text()


def test_a_kubeconfig_in_another_style_is_read_by_kubectl_before_a_worker_is_reset(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    path = world.path(f"{KUBERNETES}/kubelet.conf")
    lines = [line.strip().partition(": ") for line in path.read_text().splitlines()]
    world.let(canonical=path.read_text())
    path.write_text(json.dumps({key: value for key, _, value in lines}))
    assert world.run("probe").last == "joined"
    assert again(world).changes == []
    (world.root / "state/canonical").unlink()
    assert world.run("probe").last == "partial"


def test_a_cgroup_driver_that_is_quoted_is_the_same(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.run("node")
    file = world.path("/var/lib/kubelet/config.yaml")
    file.write_text(file.read_text() + 'cgroupDriver: "systemd"\n')
    assert world.run("node").last == "ha-lab: unchanged"


SETTINGS = "/var/lib/kubelet/config.yaml"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("w1", SETTINGS),
        ("w1", "/var/lib/kubelet/kubeadm-flags.env"),
        ("cp2", f"{KUBERNETES}/manifests/etcd.yaml"),
        ("cp2", f"{KUBERNETES}/kubelet.conf"),
    ],
)
def test_a_complete_file_without_a_last_newline_is_not_cut_short(tmp_path: Path, name: str, file: str) -> None:
    world = made(tmp_path, name)
    path = world.path(file)
    path.write_text(path.read_text().removesuffix("\n"))
    assert world.run("probe").last == "joined"


@pytest.mark.parametrize(
    ("file", "text", "odd"),
    [
        (SETTINGS, "kind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests", "cut short"),
        (SETTINGS, "kind: KubeletConfiguration\nvolumeStatsAggPeriod: 0s\n", "incomplete"),
    ],
)
@pytest.mark.parametrize(
    ("since", "active", "word"),
    [
        (-60, True, "joined"),  # it has read the file
        (-3600, True, "partial"),  # the file changed since
        (-3, True, "partial"),  # it may end at once
        (-60, False, "partial"),
    ],
)
def test_odd_settings_that_the_kubelet_runs_with_are_no_reason_to_reset_a_worker(
    tmp_path: Path, file: str, text: str, odd: str, since: int, active: bool, word: str
) -> None:
    world = made(tmp_path, "w1")
    path, now = world.path(file), int(time.time())
    path.write_text(text)
    os.utime(path, (now - 600, now - 600))
    world.let(kubelet_since=f"@{now + since}\n")
    if not active:
        (world.root / "state/active-kubelet").unlink()
    probed = world.run("probe")
    assert probed.last == word
    assert (f"{file} is {odd}\n" in probed.said) is (word == "partial")


def test_a_manifest_with_zeros_in_it_is_no_complete_text(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    path = world.path(f"{KUBERNETES}/manifests/etcd.yaml")
    path.write_bytes(path.read_bytes() + bytes(100) + b"\n")
    probed = world.run("probe")
    assert probed.last == "damaged"
    assert f"{KUBERNETES}/manifests/etcd.yaml is cut short" in probed.said


def test_zeros_that_a_power_cut_left_are_no_file(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    for file in (PEM, "/etc/kubernetes/manifests/etcd.yaml", "/var/lib/kubelet/config.yaml"):
        path = world.path(file)
        path.write_bytes(bytes(len(path.read_bytes())))
    ran = again(world)
    assert ran.code == 0, ran.said
    assert set(phases(ran)) >= {"kubeconfig kubelet", "etcd local", "kubelet-start"}
    assert world.run("probe").last == "joined"


def test_a_kubelet_that_stores_no_certificate_is_reported(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(kubelet_broken="")
    empty(world, PEM)
    ran = again(world)
    assert ran.code == 1
    assert f"after 60 s waiting for the kubelet to store its certificate: {PEM} is missing" in ran.said
    # The next run goes on there.
    (world.root / "state/kubelet-broken").unlink()
    assert again(world).code == 0
    assert world.run("probe").last == "joined"


@pytest.mark.parametrize("name", ["cp1", "w1"])
def test_the_ca_s_certificate_is_restored_where_it_is_empty(tmp_path: Path, name: str) -> None:
    world = made(tmp_path, name)
    file = f"{KUBERNETES}/pki/ca.crt"
    world.path(file).parent.mkdir(exist_ok=True)
    world.path(file).write_text("")
    assert world.run("probe").last == "joined"
    assert world.run("node").last == "ha-lab: changed"
    assert world.path(file).read_text() == (world.root / "opt/ca.crt").read_text()
    assert world.run("node").last == "ha-lab: unchanged"


@pytest.mark.parametrize("file", [PEM, f"{KUBERNETES}/kubelet.conf", "/var/lib/kubelet/config.yaml"])
def test_a_worker_with_an_empty_file_joins_again_at_once(tmp_path: Path, file: str) -> None:
    world = made(tmp_path, "w1")
    empty(world, file)
    assert world.run("probe").last == "partial"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"{file} is empty" in ran.said
    assert (phases(ran)[0], phases(ran)[-1]) == ("reset", "join")
    assert "waiting" not in ran.said
    assert world.run("probe").last == "joined"


def test_a_worker_without_its_kubeconfig_is_no_new_machine(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.path(f"{KUBERNETES}/kubelet.conf").unlink()
    ran = world.run("probe")
    assert (ran.last, f"{KUBERNETES}/kubelet.conf is missing" in ran.said) == ("partial", True)
    world.let(token_unknown="")
    ran = again(world)
    assert (ran.code, phases(ran)) == (1, []), "it may run pods, so it is reset only where it can join again"
    (world.root / "state/token-unknown").unlink()
    ran = again(world)
    assert (ran.code, phases(ran)[0], phases(ran)[-1]) == (0, "reset", "join"), ran.said
    assert world.run("probe").last == "joined"


# No machine is reset before it is sure that it can join again.


@pytest.mark.parametrize(("name", "file"), [("w1", PEM), ("cp2", f"{KUBERNETES}/pki/sa.key")])
def test_a_machine_is_not_reset_while_the_api_does_not_accept_the_token(
    tmp_path: Path, name: str, file: str
) -> None:
    world = made(tmp_path, name)
    empty(world, file)
    world.let(token_unknown="")
    ran = again(world)
    assert (ran.code, phases(ran)) == (1, []), ran.said
    assert "Unauthorized" in ran.said
    assert (
        f"{name} has to join again, and can't: the API does not accept this run's bootstrap token" in ran.said
    )
    assert f"If that ends here again: `./inv replace {name}`" in ran.said
    assert world.has(f"{KUBERNETES}/kubelet.conf")
    assert world.secrets_left() == []
    (world.root / "state/token-unknown").unlink()
    assert again(world).code == 0
    assert world.run("probe").last == "joined"


@pytest.mark.parametrize("name", ["w1", "cp2"])
def test_a_new_machine_waits_for_the_token_and_does_not_try_without(tmp_path: Path, name: str) -> None:
    world = World(tmp_path / name, name)
    world.let(api="", token_unknown="", previous_label="")
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "waiting for the API to accept this run's bootstrap token: error: You must be logged in" in ran.said


def test_a_token_may_read_what_a_control_plane_s_join_downloads(tmp_path: Path) -> None:
    for name, downloads in (("w1", False), ("cp2", True)):
        world = World(tmp_path / name, name)
        world.let(api="", member_line="")
        asked = next(call for call in again(world).calls if "token.conf" in call)
        assert ("secret/kubeadm-certs" in asked) is downloads


# What only other control planes still have.


def lose(world: World, what: str) -> None:
    """Take away what this control plane can't make again by itself."""
    if what == "etcd's data":
        world.path("/var/lib/etcd/member").rmdir()
    elif what == "etcd's log":
        log = world.path("/var/log/pods/kube-system_etcd-cp2_0c2b/etcd/3.log")
        log.parent.mkdir(parents=True)
        log.with_name("2.log").write_text("ready to serve client requests\n")
        log.write_text(LOST_LOG)
    else:
        empty(world, f"{KUBERNETES}/pki/{what}")


LOST = {
    "etcd's data": "/var/lib/etcd/member is missing",
    "etcd's log": "/var/lib/etcd/member has lost data that etcd had acknowledged",
    "sa.key": "/etc/kubernetes/pki/sa.key is empty",
    "ca.key": "/etc/kubernetes/pki/ca.key is empty",
    "etcd/ca.key": "/etc/kubernetes/pki/etcd/ca.key is empty",
    "front-proxy-ca.crt": "/etc/kubernetes/pki/front-proxy-ca.crt is empty",
}


@pytest.mark.parametrize("what", rows(LOST, usual=["etcd's log", "sa.key"]))
def test_a_control_plane_that_lost_what_others_have_leaves_etcd_and_joins_again(
    tmp_path: Path, what: str
) -> None:
    world = made(tmp_path, "cp2")
    lose(world, what)
    assert world.run("probe").last == "partial"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"repairs: {LOST[what]}" in ran.said
    assert "waiting" not in ran.said
    order = [
        next(place for place, call in enumerate(ran.changes) if words in call)
        for words in ("member remove bbbb", "kubeadm reset", "kubeadm join --config")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("what", [each for each in LOST if each not in ("etcd's log", "ca.key")])
def test_where_no_other_control_plane_has_it_that_is_said_at_once(tmp_path: Path, what: str) -> None:
    world = made(tmp_path, "cp1")
    lose(world, what)
    assert world.run("probe").last == "partial"
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert f"cp1 can't be repaired with its own files: {LOST[what]}. If another" in ran.said
    assert "`./inv replace cp1`" in ran.said
    assert "waiting" not in ran.said


def test_the_first_control_plane_gets_the_ca_s_key_from_the_host(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    empty(world, f"{KUBERNETES}/pki/ca.key")
    assert again(world).last == "ha-lab: changed"
    assert world.run("probe").last == "joined"


def test_an_etcd_that_runs_again_has_lost_nothing(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    lose(world, "etcd's log")
    world.path("/var/log/pods/kube-system_etcd-cp2_0c2b/etcd/4.log").write_text(
        "ready to serve client requests\n"
    )
    assert world.run("probe").last == "joined"


# A member that the others have removed.

REMOVED_LOG = (
    '{"level":"warn","caller":"etcdserver/server.go:1177","msg":"server error","error":"the member has been '
    'permanently removed from the cluster"}\n'
)


def removed(world: World, *, log: bool) -> None:
    """Let etcd's other members have removed this machine's, whose etcd ends each time that it is started."""
    for file in ("member", "own-api"):
        (world.root / "state" / file).unlink()
    if log:
        path = world.path(f"/var/log/pods/kube-system_etcd-{world.name}_0c2b/etcd/3.log")
        path.parent.mkdir(parents=True)
        path.write_text(REMOVED_LOG)


def test_a_control_plane_that_etcd_has_removed_joins_again(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    removed(world, log=True)
    probed = world.run("probe")
    assert probed.last == "partial"
    assert "etcd's other members have removed this machine's member\n" in probed.said
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "waiting" not in ran.said
    assert (phases(ran)[0], phases(ran)[-1]) == ("reset", "join")


def test_a_control_plane_that_etcd_s_list_lacks_is_not_waited_for(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    removed(world, log=False)
    assert world.run("probe").last == "joined"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "etcd's other members have removed cp2's member, so it has to join again" in ran.said
    assert "waiting" not in ran.said
    assert (phases(ran)[0], phases(ran)[-1]) == ("reset", "join")


def test_a_control_plane_that_etcd_s_list_lacks_is_kept_where_it_can_t_join_again(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    removed(world, log=False)
    world.let(token_unknown="")
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "`./inv replace cp2`" in ran.said
    assert "after 30 s waiting for the API to accept this run's bootstrap token" in ran.said


def test_the_first_control_plane_whose_member_was_removed_says_so_at_once(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    removed(world, log=False)
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "etcd's other members have removed cp1's member" in ran.said
    assert "`./inv replace cp1`" in ran.said
    assert "waiting" not in ran.said


def test_no_data_is_removed_while_etcd_does_not_say_whether_it_has_the_member(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    lose(world, "sa.key")
    world.let(no_quorum="")
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "after 30 s waiting for etcd to report cp2's member: Error: context deadline exceeded" in ran.said
    assert "so the machine was not reset and its data is kept" in ran.said
    assert world.has("/var/lib/etcd/member")
    assert world.has(f"{KUBERNETES}/manifests/etcd.yaml")


def test_a_control_plane_that_can_t_ask_etcd_leaves_it_when_it_joins_again(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    lose(world, "etcd/ca.crt")
    assert world.run("probe").last == "partial"
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "waiting" not in ran.said
    order = [
        next(place for place, call in enumerate(ran.changes) if words in call)
        for words in ("kubeadm reset", "member remove bbbb", "kubeadm join --config")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("name", "interrupted"),
    rows(
        [
            (name, phase)
            for name in ("cp1", "cp2")
            for phase in ("kubeconfig kubelet", "restart kubelet", "kubelet-finalize")
        ],
        usual=[("cp1", "kubeconfig kubelet"), ("cp2", "restart kubelet")],
    ),
)
def test_a_repair_that_is_interrupted_is_gone_on_with(tmp_path: Path, name: str, interrupted: str) -> None:
    world = made(tmp_path, name)
    world.path("/etc/ha-lab/once-complete").unlink(missing_ok=True)  # an earlier version's join left none
    for file in (PEM, f"{KUBERNETES}/manifests/kube-apiserver.yaml"):
        empty(world, file)
    assert world.run("probe").last == "damaged"
    world.let(killed_at=interrupted)
    assert again(world).code != 0
    (world.root / "state/killed-at").unlink()
    assert world.run("probe").last == "damaged"
    ran = again(world)
    assert ran.code == 0, ran.said
    assert not {"reset", "join", "init"} & set(phases(ran))
    assert world.run("probe").last == "joined"


def test_a_control_plane_that_joined_is_no_manual_cluster_when_it_is_the_first(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    world.let(coredns_replicas="2", coredns_apart="", label="", taint="")
    replaced(world, f"{KUBERNETES}/admin.conf", "https://192.168.56.10:6443", "https://192.168.56.12:6443")
    ran = world.run("control-plane-init", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "created manually" not in ran.said
    assert "    server: https://192.168.56.10:6443\n" in world.path(f"{KUBERNETES}/admin.conf").read_text()


# Objects.

API_SERVERS_BINDING = "ClusterRoleBinding - kubeadm:apiserver-kubelet-client"

OBJECTS = {
    "Deployment kube-system coredns": ["addon coredns"],
    "Service kube-system kube-dns": ["addon coredns"],
    "DaemonSet kube-system kube-proxy": ["addon kube-proxy"],
    "ClusterRoleBinding - kubeadm:node-proxier": ["addon kube-proxy"],
    "ConfigMap kube-system kubeadm-config": ["upload-config kubeadm"],
    "ConfigMap kube-system kubelet-config": ["upload-config kubelet"],
    "ConfigMap kube-public cluster-info": ["bootstrap-token"],
    "ClusterRoleBinding - kubeadm:kubelet-bootstrap": ["bootstrap-token"],
    API_SERVERS_BINDING: ["bootstrap-token"],
    "DaemonSet kube-system kube-proxy\nConfigMap kube-system kubeadm-config": [
        "upload-config kubeadm",
        "addon kube-proxy",
    ],
}


USUAL_OBJECTS = [
    API_SERVERS_BINDING,
    "Deployment kube-system coredns",
    "ConfigMap kube-public cluster-info",
    "DaemonSet kube-system kube-proxy\nConfigMap kube-system kubeadm-config",
]


@pytest.mark.parametrize("missing", rows(OBJECTS, usual=USUAL_OBJECTS))
def test_an_object_that_was_deleted_is_created_again_by_its_phase(tmp_path: Path, missing: str) -> None:
    world = made(tmp_path, "cp1")
    world.let(missing=f"{missing}\n")
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert phases(ran) == OBJECTS[missing]
    for line in missing.splitlines():
        assert line in ran.said
    assert world.secrets_left() == []
    after = again(world)
    assert (after.last, after.changes) == ("ha-lab: unchanged", []), after.said


def test_all_objects_are_asked_for_at_once(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    calls = again(world).calls
    assert sum("get --filename - " in call for call in calls) == 1


@pytest.mark.parametrize(
    ("name", "script", "kubectl", "others"),
    [
        ("cp1", "control-plane-init", ["get --filename -", "get pods"], ["curl"]),
        ("cp2", "control-plane-join", ["get node cp2", "get pods"], ["curl", "curl", "etcdctl"]),
        ("w1", "worker-join", ["get node w1", "get pods"], []),
        ("cp1", "pod-network", ["kustomize", "get --filename -"], ["curl"]),
        ("cp1", "revoke", ["--namespace kube-system get nodes,secrets"], []),
    ],
)
def test_where_nothing_is_left_to_do_each_question_is_asked_once(
    tmp_path: Path, name: str, script: str, kubectl: list[str], others: list[str]
) -> None:
    """Each call of kubectl takes 80 to 150 ms of CPU, on six machines at once."""
    world = made(tmp_path, name)
    world.let(secrets="")
    words = {"control-plane-init": ["--alone"], "control-plane-join": ["--ordered"]}.get(script, [])
    secrets = script not in ("pod-network", "revoke")
    for _ in range(2):  # the first applies the pod network
        ran = world.run(script, *words, secrets=secrets)
        assert ran.code == 0, ran.said
    assert (ran.last, ran.changes) == ("ha-lab: unchanged", [])
    asked = [call for call in ran.calls if call.startswith("kubectl")]
    assert [words in call for words, call in zip(kubectl, asked, strict=True)] == [True] * len(kubectl), asked
    assert sorted(c.split()[0] for c in ran.calls if c.startswith(("curl", "etcdctl"))) == others


def test_coredns_that_was_created_again_is_spread_as_the_lab_has_it(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(missing="Deployment kube-system coredns\n", coredns_replicas="0")
    (world.root / "state/coredns-apart").unlink()
    assert again(world).code == 0
    assert (world.root / "state/coredns-replicas").read_text() == "2\n"
    assert (world.root / "state/coredns-apart").exists()


def test_coredns_that_was_scaled_to_nothing_has_two_replicas_again(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(coredns_replicas="0")
    ran = again(world)
    assert (ran.code, len(ran.changes)) == (0, 1), ran.said
    assert ran.changes[0].endswith("scale --namespace kube-system deployment coredns --replicas 2")


def test_an_api_that_does_not_know_the_administrator_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(forbidden='Error from server (Forbidden): User "kubernetes-admin" cannot get resource\n')
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "does not know the lab's administrator: etcd has other data than before" in ran.said


SUPER_ADMIN = f"{KUBERNETES}/super-admin.conf"


@pytest.mark.parametrize("kubeconfig", rows(["complete", "empty", "missing"], usual=["empty"]))
def test_the_administrator_s_binding_is_made_again(tmp_path: Path, kubeconfig: str) -> None:
    world = made(tmp_path, "cp1")
    if kubeconfig == "empty":
        empty(world, SUPER_ADMIN)
    elif kubeconfig == "missing":  # as on a control plane that joined and is now the first that serves
        world.path(SUPER_ADMIN).unlink()
    world.let(unbound="", missing="ConfigMap kube-public cluster-info\n")
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert "repairs: the ClusterRoleBinding kubeadm:cluster-admins is missing, without which" in ran.said
    made_first = [] if kubeconfig == "complete" else ["kubeconfig super-admin"]
    assert phases(ran) == [*made_first, "bootstrap-token"], "and what else is missing"
    assert world.has(SUPER_ADMIN) is (kubeconfig != "missing")
    assert "waiting" not in ran.said
    assert world.secrets_left() == []
    after = again(world)
    assert (after.last, after.changes) == ("ha-lab: unchanged", []), after.said


@pytest.mark.parametrize("kubeconfig", ["complete", "missing"])
def test_other_data_of_etcd_is_not_taken_for_a_deleted_binding(tmp_path: Path, kubeconfig: str) -> None:
    world = made(tmp_path, "cp1")
    if kubeconfig == "missing":
        world.path(SUPER_ADMIN).unlink()
    text = (PROVISION / "cluster-objects.sh").read_text().partition("OBJECTS='")[2].partition("'")[0]
    world.let(unbound="", missing="".join(f"{line.partition(' ')[2]}\n" for line in text.splitlines() if line))
    ran = again(world)
    assert (ran.code, phases(ran)) == (1, ["kubeconfig super-admin"] * (kubeconfig == "missing")), ran.said
    assert "does not know the lab's administrator: etcd has other data than before" in ran.said
    assert not any("reconcile" in call for call in ran.calls)
    assert world.has(SUPER_ADMIN) is (kubeconfig == "complete")


def test_plan_knows_that_the_administrator_s_binding_is_missing(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(unbound="")
    ran = world.run("unfinished")
    assert (ran.code, ran.changes) == (0, [])
    assert ran.last == (
        "control-plane-init the API refuses admin.conf, so the cluster lacks its ClusterRoleBinding "
        "kubeadm:cluster-admins"
    )


@pytest.mark.parametrize(("version", "lacks"), [("1.35.4", False), ("1.36.3", True)])
def test_a_binding_that_kubeadm_makes_since_1_36_is_not_missing_before(
    tmp_path: Path, version: str, *, lacks: bool
) -> None:
    world = made(tmp_path, "cp1")
    world.let(kubeadm_version=version, missing=f"{API_SERVERS_BINDING}\n", secrets="")
    ran = world.run("unfinished")
    assert ran.code == 0, ran.said
    assert ("kubeadm:apiserver-kubelet-client" in ran.said) is lacks


# Labels and taints.


@pytest.mark.parametrize("name", rows(["cp1", "cp2"], usual=["cp2"]))
@pytest.mark.parametrize("mark", ["label", "taint"])
def test_a_control_plane_that_lost_its_label_or_taint_gets_it_back(
    tmp_path: Path, name: str, mark: str
) -> None:
    world = made(tmp_path, name)
    (world.root / "state" / mark).unlink()
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert phases(ran) == ["mark-control-plane"]
    assert world.secrets_left() == []
    assert again(world).last == "ha-lab: unchanged"


def test_an_etcd_that_turns_out_to_have_lost_its_data_is_not_waited_for(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    (world.root / "state/own-api").unlink()
    # The log is written between the first look and the question of the wait.
    curl = world.root / "bin/curl"
    curl.unlink()
    log = "/var/log/pods/kube-system_etcd-cp1_0c2b/etcd"
    curl.write_text(f"#!/bin/bash\nmkdir -p {log} && echo -n '{LOST_LOG}' >{log}/0.log\nexit 7\n")
    curl.chmod(0o755)
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    lost = LOST["etcd's log"]
    assert f"cp1 can't be repaired with its own files: {lost}" in ran.said
    assert "waiting" not in ran.said


def test_the_only_control_plane_of_a_lab_says_that_its_cluster_is_lost(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    with (world.root / "opt/node.env").open("a") as file:
        file.write("ETCD_ENDPOINTS=https://192.168.56.11:2379\n")
    lose(world, "etcd's data")
    ran = again(world)
    assert ran.code == 1
    assert (
        "No other control plane has them, so the cluster is lost: `./inv destroy`, then `./inv up`" in ran.said
    )


# A member that goes on alone.


ETCD_MANIFEST = f"{KUBERNETES}/manifests/etcd.yaml"
KEPT = "/var/lib/etcd.before-sole-member"


def alone(tmp_path: Path) -> World:
    """The only control plane that is left of three."""
    world = made(tmp_path, "cp2")
    world.path("/var/lib/etcd/member/snap").write_text("data")
    world.let(no_quorum="")
    return world


def test_a_sole_member_is_made_with_its_data_kept_and_no_flag_left(tmp_path: Path) -> None:
    world = alone(tmp_path)
    before = world.path(ETCD_MANIFEST).read_text()
    world.let(failing_restart="1")
    ran = world.run("sole-member")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert (world.root / "state/forced").exists()
    assert sum("pgrep -f" in call for call in ran.calls) == 2, "it waits for the member without the flag"
    assert world.path(ETCD_MANIFEST).read_text() == before
    assert world.path(f"{KEPT}/member/snap").read_text() == "data"
    assert not list(world.path(f"{KUBERNETES}/x").parent.glob("etcd.yaml.*"))
    assert world.run("probe").last == "joined"


def test_each_time_that_a_sole_member_is_made_the_data_of_that_time_is_kept(tmp_path: Path) -> None:
    world = alone(tmp_path)
    assert world.run("sole-member").code == 0
    world.path("/var/lib/etcd/member/snap").write_text("later data")
    half = world.path(f"{KEPT}.2.incomplete/member")
    half.mkdir(parents=True)  # of a copy that was interrupted
    (half / "half").touch()
    world.let(no_quorum="")
    (world.root / "state/forced").unlink()
    ran = world.run("sole-member")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"Its data as it was before is in {KEPT}.2\n" in ran.said
    assert world.path(f"{KEPT}/member/snap").read_text() == "data"
    assert world.path(f"{KEPT}.2/member/snap").read_text() == "later data"
    assert not world.has(f"{KEPT}.2/member/half")
    assert not world.has(f"{KEPT}.2.incomplete")


def test_no_sole_member_is_made_while_etcd_has_a_majority(tmp_path: Path) -> None:
    world = alone(tmp_path)
    (world.root / "state/no-quorum").unlink()
    ran = world.run("sole-member")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert "etcd has a majority, so no data has to be lost" in ran.said
    assert not world.has(KEPT)


def test_a_machine_without_etcd_s_data_can_t_be_the_sole_member(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    lose(world, "etcd's data")
    ran = world.run("sole-member")
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert world.has(ETCD_MANIFEST)


def test_a_sole_member_that_was_interrupted_is_completed_by_itself_or_undone_by_up(tmp_path: Path) -> None:
    world = alone(tmp_path)
    world.let(etcd_hangs="")
    ran = world.run("sole-member")
    assert ran.code == 1
    assert "waiting for etcd to end: it is still running" in ran.said
    assert not world.has(ETCD_MANIFEST)
    assert world.run("probe").last == "damaged"
    (world.root / "state/etcd-hangs").unlink()
    assert world.run("sole-member").code == 0
    world.path(ETCD_MANIFEST).write_text(
        world.path(ETCD_MANIFEST).read_text().replace("    - etcd\n", "    - etcd\n    - --force-new-cluster\n")
    )
    assert world.run("probe").last == "damaged"
    assert again(world).code == 0
    assert "force" not in world.path(ETCD_MANIFEST).read_text()


# Repairs before anything is asked of the cluster.


def test_a_control_plane_is_repaired_without_the_cluster(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    for state in ("api", "own-api"):
        (world.root / "state" / state).unlink()
    for file in (PEM, f"{KUBERNETES}/manifests/etcd.yaml", f"{KUBERNETES}/pki/ca.crt"):
        empty(world, file)
    ran = world.run("repair", secrets=True)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert phases(ran) == ["certs all", "etcd local", "kubeconfig kubelet", "kubelet-finalize all"]
    assert not any(call.startswith(("curl", "kubectl --kubeconfig", "etcdctl")) for call in ran.calls)
    assert world.path(f"{KUBERNETES}/pki/ca.crt").read_text() == (world.root / "opt/ca.crt").read_text()
    assert world.run("probe").last == "joined"
    assert world.secrets_left() == []
    after = world.run("repair", secrets=True)
    assert (after.last, after.changes) == ("ha-lab: unchanged", [])


def test_what_has_to_join_again_is_not_repaired(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    lose(world, "sa.key")
    ran = world.run("repair", secrets=True)
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said


# Settings.


def replaced(world: World, path: str, old: str, new: str) -> None:
    text = world.path(path).read_text()
    assert old in text
    world.path(path).write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["cp2", "w1"])
def test_a_complete_node_keeps_its_settings(tmp_path: Path, name: str) -> None:
    world = made(tmp_path, name)
    assert world.run("node").code == 0  # the fake kubeadm leaves the CA's certificate to it
    ran = world.run("node")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", [])


def test_a_node_that_takes_another_address_for_its_own_gets_its_names_again(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    replaced(world, "/etc/hosts", f"{world.node.address} w1\n", "10.0.2.15 w1\n")
    ran = world.run("node")
    assert (ran.last, ran.changes[0]) == ("ha-lab: changed", "systemctl restart ha-lab-network")
    assert f"{world.node.address} w1\n" in world.path("/etc/hosts").read_text()


def test_a_resolver_for_pods_that_was_stopped_is_started(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    (world.root / "state" / "active-ha-lab-dns").unlink()
    ran = world.run("node")
    assert (ran.last, ran.changes[-1]) == ("ha-lab: changed", "systemctl restart ha-lab-dns")


def test_settings_of_the_kernel_are_read_again_where_they_differ(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.let(kernel="1\n0\n")
    ran = world.run("node")
    assert ran.last == "ha-lab: changed"
    assert ran.changes == ["sysctl --quiet --load=/etc/sysctl.d/90-kubernetes.conf"]


def test_a_setting_that_the_kernel_lacks_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.let(kernel="1\n", kernel_lacks="")
    ran = world.run("node")
    assert ran.code == 1
    assert ran.changes == ["sysctl --quiet --load=/etc/sysctl.d/90-kubernetes.conf"]
    assert "the kernel lacks the module br_netfilter: `./inv up --yes` loads it" in ran.said


@pytest.mark.parametrize("path", ["pki/sa.key", "pki/etcd/ca.key", "admin.conf"])
def test_keys_are_for_root_only_again(tmp_path: Path, path: str) -> None:
    world = made(tmp_path, "cp2")
    file = world.path(f"{KUBERNETES}/{path}")
    file.chmod(0o644)
    assert world.run("node").last == "ha-lab: changed"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "file"), [("cp1", "admin.conf"), ("cp2", "admin.conf"), ("w1", "kubelet.conf")]
)
def test_a_kubeconfig_points_at_the_load_balancer_again(tmp_path: Path, name: str, file: str) -> None:
    world = made(tmp_path, name)
    replaced(world, f"{KUBERNETES}/{file}", "https://192.168.56.10:6443", "https://elsewhere:6443")
    ran = world.run("node") if name == "w1" else again(world)
    assert ran.last == "ha-lab: changed"
    assert ran.changes == (["systemctl try-restart kubelet"] if name == "w1" else [])
    assert "    server: https://192.168.56.10:6443\n" in world.path(f"{KUBERNETES}/{file}").read_text()


def test_the_kubelet_of_a_control_plane_may_have_an_api_server_of_its_own(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    replaced(world, f"{KUBERNETES}/kubelet.conf", "https://192.168.56.10:6443", "https://192.168.56.12:6443")
    assert world.run("node").last == "ha-lab: unchanged"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/etc/ha-lab/resolv.conf", []),
        (f"{KUBERNETES}/kubelet.conf.d/10-node.conf", ["systemctl try-restart kubelet"]),
    ],
)
def test_what_only_this_machine_can_tell_its_kubelet_is_there_again(
    tmp_path: Path, path: str, changes: list[str]
) -> None:
    world = made(tmp_path, "w1")
    assert world.run("node").code == 0  # the fake kubeadm leaves the CA's certificate to it
    before = world.path(path).read_text()
    empty(world, path)
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: changed", changes)
    assert world.path(path).read_text() == before
    assert world.run("node").last == "ha-lab: unchanged"


def test_the_kubelet_has_the_cgroup_driver_of_containerd_again(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    file = world.path("/var/lib/kubelet/config.yaml")
    file.write_text(file.read_text() + "cgroupDriver: cgroupfs\n")
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: changed", ["systemctl try-restart kubelet"])
    assert "cgroupDriver: systemd\n" in file.read_text()


def test_a_kubelet_has_the_node_s_address_again(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    file = world.path("/var/lib/kubelet/kubeadm-flags.env")
    file.write_text('KUBELET_KUBEADM_ARGS="--node-ip=10.0.2.15 --v=2"\n')
    ran = world.run("node")
    assert (ran.last, ran.changes) == ("ha-lab: changed", ["systemctl try-restart kubelet"])
    assert file.read_text() == f'KUBELET_KUBEADM_ARGS="--node-ip={world.node.address} --v=2"\n'
    assert world.run("node").last == "ha-lab: unchanged"


DOWN, UP = "<BROADCAST,MULTICAST>", "<BROADCAST,MULTICAST,UP,LOWER_UP>"


def flannel(flags: str) -> str:
    return f"flannel.1        UNKNOWN        66:aa:1f:3c:9d:01 {flags} \n"


def test_a_pod_network_s_interface_that_is_down_is_set_up_and_gets_its_routes(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.run("node")
    world.let(flannel_link=flannel(UP))
    assert world.run("node").last == "ha-lab: unchanged"
    world.let(flannel_link=flannel(DOWN))
    ran = world.run("node")
    assert ran.last == "ha-lab: changed", ran.said
    delete, link = ran.changes
    assert delete.endswith("kube-flannel delete pods --field-selector spec.nodeName=w1 --wait=false")
    assert link == "ip link set flannel.1 up"
    assert world.run("node").last == "ha-lab: unchanged"


def test_without_the_api_it_stays_down_for_the_next_run(tmp_path: Path) -> None:
    world = made(tmp_path, "w1")
    world.run("node")
    world.let(flannel_link=flannel(DOWN))
    (world.root / "state/api").unlink()
    ran = world.run("node")
    assert (ran.code, ran.last) == (0, "ha-lab: unchanged"), ran.said
    assert "the API to delete the pod network's agent on w1: connection refused" in ran.said
    assert "ip link set flannel.1 up" not in ran.changes


@pytest.mark.parametrize("quote", ['"', "'"])
def test_kube_proxy_s_server_may_be_quoted(tmp_path: Path, quote: str) -> None:
    world = made(tmp_path, "cp1")
    world.let(kube_proxy=f"    server: {quote}https://192.168.56.10:6443{quote}\n")
    assert again(world).last == "ha-lab: unchanged"
    world.let(kube_proxy=f"    server: {quote}https://192.168.56.12:6443{quote}\n")
    assert again(world).last == "ha-lab: changed"
    assert (world.root / "state/kube-proxy").read_text() == "    server: https://192.168.56.10:6443\n"


def test_kube_proxy_is_pointed_at_the_load_balancer_again_and_keeps_its_other_settings(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    world.let(kube_proxy="a user's own: setting\n    server: https://192.168.56.12:6443\n")
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.partition(" --namespace kube-system ")[2] for call in ran.changes] == [
        "",
        "rollout restart daemonset kube-proxy",
    ]
    kept = (world.root / "state/kube-proxy").read_text()
    assert kept == "a user's own: setting\n    server: https://192.168.56.10:6443\n"
    assert again(world).last == "ha-lab: unchanged"
