from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.errors import CommandFailed, HostNotFit
from lab.exit_codes import FIT_AFTER_REPAIRS, NOT_FIT
from lab.golden.supply import lock
from lab.golden.supply.source import Wanted
from lab.host import (
    Cgroups,
    Configured,
    Container,
    Daemon,
    DockerNetwork,
    FileSystem,
    Folder,
    Forwarding,
    HostFacts,
    Inotify,
    Memory,
    Route,
    Unknown,
    Way,
)
from lab.host.docker import ICC
from lab.host.doctor import examination, repairs
from lab.host.doctor.addresses import free_network
from lab.host.doctor.case import PURPOSES, Own
from lab.host.doctor.finding import Action, Finding, exit_code, shown, to_json
from lab.host.kernel import CAPABILITIES, FEATURES
from lab.host.reach import Reach
from lab.model import Kubernetes, Lab, Network, Node
from lab.model.roles import Role
from lab.system import process
from lab.system.process import Result
from lab.system.progress import Progress
from lab.workspace import Workspace
from lab.workspace.render.credentials import Validity
from lab.workspace.render.keys import Unusable

WORKSPACE = Path("/home/me/lab/.lab")
SOCKET = "unix:///var/run/docker.sock"
UNKNOWN = Unknown("nobody answered")
OWN = DockerNetwork("vagrant_network_192.168.56.0/24", "br-own", (IPv4Network("192.168.56.0/24"),))
DEFAULT = Route(IPv4Network("0.0.0.0/0"), "eth0", "192.0.2.1")
ALL_PROGRAMS = frozenset(
    (
        *(
            "apt-get",
            "chromium",
            "docker",
            "dockerd",
            "curl",
            "gcc",
            "ip",
            "mmdebstrap",
            "pdftoppm",
            "pkg-config",
            "shellcheck",
            "shfmt",
            "ssh",
            "sudo",
        ),
        *("sysctl", "vagrant"),
    )
)


def nodes() -> tuple[Node, ...]:
    rows = [("lb1", Role.LOAD_BALANCER, 10, 512)]
    rows += [(f"cp{n}", Role.CONTROL_PLANE, 10 + n, 2048) for n in (1, 2, 3)]
    rows += [(f"w{n}", Role.WORKER, 20 + n, 1536) for n in (1, 2, 3)]
    return tuple(
        Node(name=name, role=role, address=IPv4Address(f"192.168.56.{last}"), cpus=2, memory_mib=memory)
        for name, role, last, memory in rows
    )


def docker(**named: Any) -> Daemon:
    """A daemon that answers; what is no field of its record is a setting of daemon.json."""
    own = {key: value for key, value in named.items() if key in Daemon.__dataclass_fields__}
    written = {
        key: Configured(value, "/etc/docker/daemon.json:3")
        for key, value in named.items()
        if key not in Daemon.__dataclass_fields__
    }
    return Daemon("answers", SOCKET, **{"version": "20.10.24", "settings": written, **own})


LAB = Lab(nodes=nodes())
FIT = HostFacts(
    uid=0,
    python=(3, 11, 7),
    kernel="6.1.0",
    systemd=False,
    cpus=4,
    memory=Memory(32000, 24000, 0),
    tmp=Folder(Path("/tmp"), 90000, 1, True),  # noqa: S108  a path in a record
    cache=Folder(Path("/home/me/.cache/ha-lab"), 90000, 1, True),
    workspace=Folder(WORKSPACE, 90000, 1, True),
    docker_data=Folder(Path("/var/lib/docker"), 90000, 1, True),
    programs=ALL_PROGRAMS,
    static_libc=True,
    static_libseccomp=True,
    trixie_key=True,
    authorities=True,
    korean_font=True,
    vagrant=(2, 3, 4),
    daemon=Daemon("answers", "unix:///var/run/docker.sock", version="20.10.24+dfsg1"),
    containers=(),
    docker_networks=(DockerNetwork("bridge", "docker0", (IPv4Network("172.17.0.0/16"),)),),
    libvirt_networks={},
    routes=(DEFAULT, Route(IPv4Network("172.17.0.0/16"), "docker0")),
    way=Way("eth0", "192.0.2.1"),
    cgroups=Cgroups(2, frozenset({"cpu", "memory", "pids"})),
    inotify=Inotify(1024, 200000, 20),
    capabilities=frozenset(CAPABILITIES),
    features=dict.fromkeys(FEATURES, "there") | {"vxlan": "loadable"},  # type: ignore[arg-type]
)


def examine(host: HostFacts, lab: Lab = LAB, **named: Any) -> tuple[Finding, ...]:
    return examination.examine(lab, host, owner=str(WORKSPACE), **named)


def finding(check: str, host: HostFacts, lab: Lab = LAB, **named: Any) -> Finding:
    return next(each for each in examine(host, lab, **named) if each.check == check)


def running(*names: str, owner: str = str(WORKSPACE)) -> tuple[Container, ...]:
    return tuple(Container(f"ha-lab-{name}", True, owner, (OWN.name,)) for name in names)


BUSY = replace(FIT, inotify=Inotify(4096, 9, 4090))
ALL = tuple(node.name for node in LAB.nodes)


def test_a_fit_host_is_fit_in_every_respect() -> None:
    findings = examine(FIT)
    assert {each.verdict for each in findings} == {"fit"}
    assert exit_code(findings) == 0
    examination.require(findings, consent=False)


@pytest.mark.parametrize("check", ["workspace", "cache"])
def test_the_command_for_a_folder_can_be_pasted_whatever_is_in_its_path(check: str) -> None:
    folder = Folder(Path("/home/ada/my labs/$x"), 90000, 1, False)
    host = replace(FIT, workspace=folder) if check == "workspace" else replace(FIT, cache=folder)
    repair = finding(check, host).repair
    assert shlex.split(repair, comments=True)[-1] == str(folder.path)


def test_a_daemon_that_hangs_is_restarted_where_it_is_the_system_s() -> None:
    def repair_of(endpoint: str) -> str:
        hanging = Daemon("mute", endpoint, "did not end within 5 s")
        return finding("docker-daemon", replace(FIT, daemon=hanging)).repair

    assert "sudo systemctl restart docker   # this stops machines" in repair_of(SOCKET)
    assert "restart" not in repair_of("unix:///home/ada/docker.sock")


@pytest.mark.parametrize(
    ("check", "verdict", "change"),
    [
        ("packages", "repairable", {"programs": ALL_PROGRAMS - {"vagrant"}}),
        ("packages", "repairable", {"trixie_key": False}),
        ("packages", "repairable", {"static_libc": False}),
        ("packages", "repairable", {"static_libseccomp": False}),
        ("packages", "repairable", {"authorities": False}),
        ("packages", "unfit", {"programs": ALL_PROGRAMS - {"vagrant", "apt-get"}}),
        ("docker-daemon", "repairable", {"daemon": Daemon("absent", SOCKET)}),
        ("docker-daemon", "repairable", {"daemon": Daemon("no client", "")}),
        ("docker-daemon", "unfit", {"daemon": Daemon("denied", SOCKET, "permission denied")}),
        ("docker-daemon", "unfit", {"daemon": Daemon("elsewhere", "tcp://10.1.1.1:2375")}),
        ("docker-daemon", "unfit", {"daemon": Daemon("mute", SOCKET, "did not end within 5 s")}),
        ("docker-daemon", "unfit", {"daemon": Daemon("answers", SOCKET, version="19.03.1")}),
        (
            "docker-daemon",
            "unfit",
            {"daemon": Daemon("answers", SOCKET, version="28.2.2", security=("name=rootless",))},
        ),
        (
            "docker-daemon",
            "unfit",
            {"daemon": Daemon("answers", SOCKET, version="28.2.2", security=("name=userns",))},
        ),
        (
            "docker-daemon",
            "unfit",
            {"daemon": Daemon("answers", SOCKET, version="28.2.2", kernel="6.6.87-linuxkit")},
        ),
        ("docker-daemon", "unfit", {"daemon": Daemon("absent", "unix:///home/me/.docker/run/docker.sock")}),
        ("docker-storage", "unfit", {"docker_file_system": FileSystem(Path("/n"), "nfs4", "nas:/vol")}),
        ("docker-storage", "unfit", {"docker_file_system": FileSystem(Path("/n"), "fuse.sshfs", "ada@nas:")}),
        ("docker-storage", "unfit", {"docker_file_system": FileSystem(Path("/"), "overlay", "overlay")}),
        ("docker-storage", "note", {"docker_file_system": FileSystem(Path("/"), "zfs", "tank/docker")}),
        ("docker-storage", "note", {"docker_file_system": UNKNOWN}),
        ("docker-storage", "unfit", {"daemon": docker(about_driver={"Supports d_type": "false"})}),
        ("docker-storage", "note", {"daemon": docker(driver="vfs")}),
        ("docker-storage", "note", {"daemon": docker(driver="devicemapper")}),
        ("docker-runtime", "unfit", {"daemon": docker(runtime="runsc")}),
        ("docker-open-files", "unfit", {"daemon": docker(**{"default-ulimits": {"nofile": {"Hard": 1024}}})}),
        ("docker-open-files", "note", {"daemon": docker(**{"default-ulimits": {"nofile": {"Hard": 8192}}})}),
        ("docker-networks", "note", {"daemon": docker(iptables=False)}),
        (
            "docker-networks",
            "unfit",
            {"daemon": docker(**{"default-network-opts": {"bridge": {ICC: "false"}}})},
        ),
        ("docker-networks", "unfit", {"docker_networks": (replace(OWN, isolates=True),)}),
        ("docker-privileges", "note", {"daemon": docker(security=("name=no-new-privileges",))}),
        ("docker-privileges", "note", {"daemon": docker(**{"no-new-privileges": True})}),
        ("docker-settings", "note", {"daemon": docker(settings=UNKNOWN)}),
        ("vagrant", "unfit", {"vagrant": UNKNOWN}),
        ("vagrant", "unfit", {"vagrant": (2, 2, 19)}),
        ("memory", "unfit", {"memory": Memory(4000, 2411, 0)}),
        ("memory", "note", {"memory": Memory(4000, 2412, 0)}),
        ("memory", "note", {"memory": UNKNOWN}),
        ("cpus", "unfit", {"cpus": 1}),
        ("disk", "unfit", {"docker_data": Folder(Path("/d"), 2047, 2, True)}),
        ("disk", "note", {"docker_data": UNKNOWN}),
        ("cache", "unfit", {"cache": Folder(Path("/c"), 90000, 1, False)}),
        ("cache", "note", {"cache": UNKNOWN}),
        ("tmp", "unfit", {"tmp": Folder(Path("/t"), 90000, 1, False)}),
        ("workspace", "unfit", {"workspace": Folder(WORKSPACE, 90000, 1, False)}),
        ("cgroups", "note", {"cgroups": Cgroups(1, frozenset({"cpu", "memory", "pids"}))}),
        ("cgroups", "unfit", {"cgroups": Cgroups(2, frozenset({"cpu", "pids"}))}),
        ("cgroups", "note", {"cgroups": UNKNOWN}),
        ("inotify", "repairable", {"inotify": Inotify(128, 200000, 20)}),
        ("inotify", "repairable", {"inotify": Inotify(1024, 8192, 20)}),
        ("inotify", "note", {"inotify": UNKNOWN}),
        ("capabilities", "note", {"capabilities": frozenset(CAPABILITIES) - {"SYS_RESOURCE"}}),
        ("capabilities", "unfit", {"capabilities": frozenset(CAPABILITIES) - {"SYS_ADMIN"}}),
        ("capabilities", "note", {"capabilities": UNKNOWN}),
        ("kernel-vxlan", "unfit", {"features": FIT.features | {"vxlan": "missing"}}),  # type: ignore[operator]
        ("kernel-xt_set", "unfit", {"features": FIT.features | {"xt_set": "missing"}}),  # type: ignore[operator]
        ("kernel-vxlan", "note", {"features": FIT.features | {"vxlan": UNKNOWN}}),  # type: ignore[operator]
        ("kernel-br_netfilter", "repairable", {"features": FIT.features | {"br_netfilter": "loadable"}}),  # type: ignore[operator]
        ("swap", "note", {"memory": Memory(32000, 24000, 1024)}),
        ("addresses", "note", {"routes": UNKNOWN}),
        ("addresses", "note", {"way": UNKNOWN}),
        ("network-pods", "unfit", {"libvirt_networks": {"lab": IPv4Network("10.244.7.0/24")}}),
        ("network-services", "unfit", {"routes": (Route(IPv4Network("10.0.0.0/8"), "tun0"),)}),
        ("names", "unfit", {"containers": running("cp1", owner="")}),
    ],
)
def test_each_check_tells_a_host_that_is_not_fit(check: str, verdict: str, change: dict[str, Any]) -> None:
    found = finding(check, replace(FIT, **change))
    assert (found.verdict, bool(found.what), bool(found.why)) == (verdict, True, True)
    if verdict in ("repairable", "unfit"):
        assert found.repair
    assert bool(found.actions) == (verdict == "repairable")


def test_what_only_network_policies_need_is_not_asked_for_without_them() -> None:
    features: dict[str, Any] = {**FIT.features, "ip_set": "missing"}
    host = replace(FIT, features=features)
    assert "set network.policy to none" in finding("kernel-ip_set", host).repair
    without = LAB.model_copy(update={"network": LAB.network.model_copy(update={"policy": "none"})})
    assert not [each for each in examine(host, without) if each.check == "kernel-ip_set"]
    assert finding("kernel", host, without).verdict == "fit"


@pytest.mark.parametrize(
    "daemon",
    [
        docker(icc=False),  # of docker's default bridge, on which machines ask each other nothing
        docker(**{"live-restore": True}),  # is no swarm's
        docker(init=True),  # machines are made without
        docker(**{"default-ulimits": {"nofile": {"Hard": 1048576}, "nproc": {"Hard": 9}}}),
        docker(**{"default-ulimits": {"nofile": {"Hard": -1}}}),
        docker(**{"default-ulimits": "odd", "default-network-opts": []}),
        docker(iptables=True, runtime="runc", driver="overlayfs"),
    ],
)
def test_settings_of_docker_that_harm_no_machine_are_no_finding(daemon: Daemon) -> None:
    findings = examine(replace(FIT, daemon=daemon))
    assert [each.verdict for each in findings if each.check.startswith("docker-")] == ["fit", "fit"]


def test_the_line_of_docker_s_file_is_in_the_advice() -> None:
    low = docker(**{"default-ulimits": {"nofile": {"Hard": 1024}}})
    assert finding("docker-open-files", replace(FIT, daemon=low)).repair == (
        "# /etc/docker/daemon.json:3: at least 65536 for nofile, or remove it\n"
        "sudo systemctl restart docker   # this stops machines; `./inv up` starts them again"
    )
    mapped = docker(security=("name=userns",), **{"userns-remap": "default"})
    repair = finding("docker-daemon", replace(FIT, daemon=mapped)).repair
    assert repair.startswith("# /etc/docker/daemon.json:3: remove userns-remap\n")
    unseen = docker(security=("name=userns",))
    assert finding("docker-daemon", replace(FIT, daemon=unseen)).repair.startswith(
        "# /etc/docker/daemon.json: rem"
    )


def test_with_vfs_each_machine_needs_room_for_a_copy() -> None:
    roomy = replace(FIT, daemon=docker(driver="vfs"), docker_data=Folder(Path("/d"), 2048 + 7 * 1400, 2, True))
    assert finding("disk", roomy).verdict == "fit"
    tight = replace(roomy, docker_data=Folder(Path("/d"), 2047 + 7 * 1400, 2, True))
    assert finding("disk", tight).verdict == "unfit"
    assert "7 machines take 9800 MiB more" in finding("docker-storage", roomy).why


NOW = datetime(2026, 11, 28, 10, 30, tzinfo=UTC)
CA = Path("/home/me/lab dir/.lab/secrets/ca.crt")


def ca(since: datetime, until: datetime, **named: Any) -> Finding:
    return finding("ca", FIT, own=Own(ca=Validity(CA, since, until), now=NOW, **named))


def test_a_ca_that_was_not_made_yet_is_no_finding() -> None:
    assert "ca" not in {each.check for each in examine(FIT)}


def test_a_ca_is_held_against_the_clock_at_both_ends() -> None:
    year, day, minute = timedelta(days=365), timedelta(days=1), timedelta(minutes=1)
    assert ca(NOW - day, NOW + year).verdict == "fit"
    assert ca(NOW, NOW + year).verdict == "fit"
    assert ca(NOW - year, NOW + 29 * day).verdict == "note"
    early = ca(NOW + minute, NOW + year)
    assert (early.verdict, early.what) == (
        "unfit",
        f"the lab's CA is not yet valid: {CA} is valid from 2026-11-28 10:31 UTC to 2027-11-28 10:30 UTC, and "
        "this host's clock says 2026-11-28 10:30 UTC",
    )
    over = ca(NOW - year, NOW)
    assert over.verdict == "unfit"
    assert "the lab's CA is expired" in over.what


def test_the_kubeconfig_s_certificate_is_held_against_the_clock_and_keeps_up_from_nothing() -> None:
    def client(since: datetime, until: datetime) -> Finding:
        validity = Validity(Path("/l/.lab/kubeconfig"), since, until, "the client certificate")
        return finding("kubeconfig", FIT, own=Own(client=validity, now=NOW))

    day = timedelta(days=1)
    assert client(NOW - day, NOW + 31 * day).verdict == "fit"
    assert client(NOW - day, NOW + 29 * day).verdict == "note"
    for found, word in (
        (client(NOW - day, NOW), "expired"),
        (client(NOW + day, NOW + 99 * day), "not yet valid"),
    ):
        assert found.verdict == "note"
        assert f"the client certificate is {word}" in found.what
        assert "./inv up   # renews the certificates on cp1, fetches the kubeconfig again" in found.repair
    assert "kubeconfig" not in {each.check for each in examine(FIT)}


def test_the_way_out_of_a_ca_costs_no_machine_where_none_was_made() -> None:
    early = ca(NOW + timedelta(days=9), NOW + timedelta(days=99))
    assert "date -u" in early.repair
    assert "rm '/home/me/lab dir/.lab/secrets/ca.crt' '/home/me/lab dir/.lab/secrets/ca.key'" in early.repair
    assert "destroy" not in early.repair
    late = ca(NOW + timedelta(days=9), NOW + timedelta(days=99), has_machines=True)
    assert "./inv destroy" in late.repair
    assert "rm " not in late.repair


def test_a_ca_that_cannot_be_read_is_unfit() -> None:
    problem = Unusable("ca.crt is empty", "restore it: cp1 has it")
    found = [each for each in examine(FIT, own=Own(unusable={"ca": problem})) if each.check == "ca"]
    assert [(each.verdict, each.what, each.repair) for each in found] == [
        ("unfit", "ca.crt is empty", "# restore it: cp1 has it")
    ]


UP = replace(
    FIT,
    containers=running(*ALL),
    docker_networks=(OWN,),
    routes=(DEFAULT, Route(IPv4Network("192.168.56.0/24"), OWN.device)),
    way=Way(OWN.device),
)
OPEN = Forwarding(True, ("-P FORWARD DROP", f"-A FORWARD -i {OWN.device} -o {OWN.device} -j ACCEPT"))
SHUT = Forwarding(True, ("-P FORWARD DROP",))
EACH_OTHER = {("w1", "lb1"): "", ("lb1", "cp1"): ""}
NOBODY = dict.fromkeys(EACH_OTHER, "no answer within 3 s")
TWO = {("lb1", "cp1"): "No route to host", ("cp1", "lb1"): "No route to host"}
BY_POLICY = "this host drops packets on br-own, by its rule `-P FORWARD DROP`"
ONE = {**EACH_OTHER, ("w1", "lb1"): "No route to host"}


@pytest.mark.parametrize(
    ("forwarding", "pairs", "verdict", "what"),
    [
        (OPEN, None, "fit", "this host's rules accept packets"),
        (Forwarding(), None, "fit", "this host's rules don't apply to them (bridge-nf-call-iptables is off)"),
        (Forwarding(True, UNKNOWN, UNKNOWN), None, "note", "nobody answered"),
        (SHUT, None, "unfit", "this host drops packets on br-own, by its rule `-P FORWARD DROP`"),
        (OPEN, EACH_OTHER, "fit", "machines reach one another"),
        # What machines say counts for more than what rules seem to say.
        (SHUT, EACH_OTHER, "fit", "machines reach one another"),
        (
            SHUT,
            NOBODY,
            "unfit",
            "no machine reaches another one (no answer within 3 s): this host drops packets on br-own, by its "
            "rule `-P FORWARD DROP`",
        ),
        (OPEN, NOBODY, "unfit", "no machine reaches another one (no answer within 3 s)"),
        (OPEN, ONE, "note", "w1 does not reach lb1 (No route to host)"),
        (OPEN, TWO, "note", "no machine reaches another one (No route to host)"),
        (SHUT, ONE, "note", f"w1 does not reach lb1 (No route to host): {BY_POLICY}"),
        (OPEN, {}, "fit", "this host's rules accept packets"),
    ],
)
def test_whether_machines_reach_one_another_is_judged_with_what_is_in_the_way(
    forwarding: Forwarding, pairs: dict[tuple[str, str], str] | None, verdict: str, what: str
) -> None:
    own = Own(reach=None if pairs is None else Reach(pairs))
    found = finding("forwarding", replace(UP, forwarding=forwarding), own=own)
    assert (found.verdict, found.what) == (verdict, what)
    assert bool(found.repair) == (verdict == "unfit" or bool(pairs and verdict == "note"))


@pytest.mark.parametrize(("provider", "of_docker"), [("docker", True), ("libvirt", False)])
def test_docker_is_restarted_only_where_the_bridge_is_docker_s(provider: str, *, of_docker: bool) -> None:
    lab = LAB.model_copy(update={"provider": provider})
    found = finding("forwarding", replace(UP, forwarding=SHUT), lab)
    assert ("systemctl restart docker" in found.repair) == of_docker


def test_the_way_between_machines_is_judged_only_where_the_lab_has_its_own() -> None:
    elsewhere = replace(UP, way=Way("eth0", "192.0.2.1"), forwarding=SHUT)
    assert "forwarding" not in {each.check for each in examine(elsewhere)}
    strangers = replace(UP, way=Way("br-other"), forwarding=SHUT)
    assert "forwarding" not in {each.check for each in examine(strangers)}


def test_a_public_network_that_lab_yaml_allows_is_noted() -> None:
    network = Network(pods=IPv4Network("193.0.0.0/16"), public_addresses=True)
    found = finding("network-pods", FIT, LAB.model_copy(update={"network": network}))
    assert found.verdict == "note"
    assert "is not private" in found.what


def test_all_missing_packages_are_one_command() -> None:
    host = replace(FIT, uid=1000, programs=frozenset({"apt-get"}), daemon=Daemon("no client", ""))
    found = finding("packages", host, purposes=frozenset({"up", "bake"}))
    assert found.repair == (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends "
        "'?exact-name(docker-cli)' docker.io gcc iproute2 libc6-dev mmdebstrap openssh-client "
        "pkgconf procps vagrant"
    )


def test_only_what_the_purposes_need_is_missed() -> None:
    bare = replace(FIT, programs=ALL_PROGRAMS - {"shfmt", "mmdebstrap"}, static_libc=False)
    assert finding("packages", bare, purposes=frozenset({"up"})).verdict == "fit"
    assert "mmdebstrap" in finding("packages", bare, purposes=frozenset({"bake"})).what
    assert "shfmt" in finding("packages", bare, purposes=frozenset({"test"})).what


def test_only_the_tests_need_a_browser_and_korean_letters() -> None:
    bare = replace(FIT, programs=ALL_PROGRAMS - {"chromium"}, korean_font=False)
    assert finding("packages", bare, purposes=frozenset({"up", "bake", "lint"})).verdict == "fit"
    missed = finding("packages", bare, purposes=frozenset({"test"}))
    assert missed.verdict == "repairable"
    assert missed.repair.endswith("chromium fonts-noto-cjk")


def test_a_pdf_needs_a_browser_and_a_korean_one_its_letters_and_neither_needs_machines() -> None:
    bare = replace(FIT, programs=frozenset({"apt-get"}), korean_font=False)
    [missed, *others] = examine(bare, purposes=frozenset({"pdf"}))
    assert (missed.verdict, missed.what) == ("repairable", "missing: chromium")
    assert {each.check for each in others} == {"python"}
    assert "Korean fonts" in finding("packages", bare, purposes=frozenset({"pdf", "korean"})).what


@pytest.mark.parametrize(
    ("source", "pinned", "needed"),
    [
        ("modules", True, set()),
        ("upstream", True, {"curl"}),
        ("auto", False, set()),
        ("auto", True, {"curl"}),
    ],
)
def test_upstream_needs_programs_of_its_own_and_every_bake_those_that_build_the_runtime(
    monkeypatch: pytest.MonkeyPatch, source: Wanted, pinned: bool, needed: set[str]
) -> None:
    monkeypatch.setattr(lock, "exists", lambda version: pinned)
    lab = LAB.model_copy(update={"kubernetes": Kubernetes(source=source)})
    programs = ALL_PROGRAMS - {"gcc", "pkg-config", "curl"}
    bare = replace(FIT, programs=programs, static_libc=False, static_libseccomp=False)
    missed = finding("packages", bare, lab=lab, purposes=frozenset({"bake"}))
    assert set(missed.what.removeprefix("missing: ").split(", ")) == {
        *("gcc", "libc.a", "libseccomp.a", "pkg-config"),
        *needed,
    }
    assert {"gcc", "libc6-dev", "libseccomp-dev", "pkgconf"} < set(missed.repair.split())


@pytest.mark.parametrize(("pinned", "verdict"), [(True, "fit"), (False, "unfit")])
def test_upstream_that_nobody_has_pinned_is_unfit(
    monkeypatch: pytest.MonkeyPatch, pinned: bool, verdict: str
) -> None:
    monkeypatch.setattr(lock, "exists", lambda version: pinned)
    lab = LAB.model_copy(update={"kubernetes": Kubernetes(source="upstream")})
    assert finding("upstream", FIT, lab=lab).verdict == verdict
    assert "upstream" not in {each.check for each in examine(FIT, lab=lab, purposes=frozenset({"up", "lock"}))}


def test_to_lock_only_upstreams_programs_are_needed() -> None:
    bare = replace(FIT, daemon=Daemon("no client", ""), programs=frozenset({"curl"}))
    assert {each.verdict for each in examine(bare, purposes=frozenset({"lock"}))} == {"fit"}
    assert finding(
        "packages", replace(bare, programs=frozenset({"apt-get"})), purposes=frozenset({"lock"})
    ).what == ("missing: curl")


def test_a_host_needs_no_docker_to_lint() -> None:
    bare = replace(FIT, daemon=Daemon("no client", ""), programs=frozenset({"shellcheck", "shfmt"}))
    assert {each.verdict for each in examine(bare, purposes=frozenset({"lint"}))} == {"fit"}
    assert finding("packages", replace(bare, programs=frozenset({"apt-get"}))).verdict == "repairable"


def test_a_daemon_that_answers_need_not_be_on_path() -> None:
    assert finding("packages", replace(FIT, programs=ALL_PROGRAMS - {"dockerd"})).verdict == "fit"


def test_the_daemon_starts_in_the_way_of_the_host() -> None:
    silent = replace(FIT, daemon=Daemon("absent", SOCKET))
    assert finding("docker-daemon", silent).repair.startswith("/etc/init.d/docker start || start-stop-daemon ")
    assert finding("docker-daemon", silent).actions[1].argv[0] == "start-stop-daemon"
    managed = replace(silent, systemd=True, uid=1000)
    assert finding("docker-daemon", managed).repair == "sudo systemctl start docker"


def test_the_table_shows_which_docker_it_is() -> None:
    own = replace(FIT.daemon, endpoint="unix:///run/user/1000/docker.sock", chosen="context rootless")
    said = finding("docker-daemon", replace(FIT, daemon=own)).what
    assert said == "20.10.24+dfsg1 answers at unix:///run/user/1000/docker.sock (context rootless)"
    far = Daemon("elsewhere", "tcp://10.1.1.1:2375", chosen="DOCKER_HOST")
    assert finding("docker-daemon", replace(FIT, daemon=far)).what == (
        "is on another host: tcp://10.1.1.1:2375 (DOCKER_HOST)"
    )


def test_machines_that_run_need_nothing_more() -> None:
    tight = replace(
        FIT,
        memory=Memory(4000, 700, 0),
        inotify=Inotify(128, 200000, 120),
        containers=running(*ALL),
        docker_networks=(OWN,),
    )
    assert finding("memory", tight).verdict == "fit"
    assert finding("inotify", tight, purposes=frozenset({"up"})).verdict == "fit"
    half = replace(tight, containers=running(*ALL[:6]))
    assert finding("memory", half).verdict == "unfit"  # one worker and the reserve
    assert finding("inotify", half, purposes=frozenset({"up"})).verdict == "repairable"


def test_another_labs_machines_don_t_count_as_ours() -> None:
    other = replace(FIT, memory=Memory(4000, 700, 0), containers=running(*ALL, owner="/other/.lab"))
    assert finding("memory", other).verdict == "unfit"


def test_inotify_is_compared_to_what_is_free() -> None:
    up = frozenset({"up"})
    assert finding("inotify", replace(FIT, inotify=Inotify(128, 65536, 13)), purposes=up).verdict == "fit"
    assert (
        finding("inotify", replace(FIT, inotify=Inotify(128, 65536, 14)), purposes=up).verdict == "repairable"
    )
    # The tests stand a second lab beside the first.
    test = frozenset({"test"})
    assert (
        finding("inotify", replace(FIT, inotify=Inotify(128, 65536, 0)), purposes=test).verdict == "repairable"
    )


def test_inotify_that_nobody_may_count_is_estimated_and_said_to_be() -> None:
    found = finding("inotify", replace(FIT, uid=1000, inotify=Inotify(128, 65536, UNKNOWN)))
    assert found.verdict == "repairable"
    assert "estimated" in found.what
    assert finding("inotify", replace(FIT, inotify=Inotify(1024, 65536, UNKNOWN))).verdict == "fit"


def test_inotify_of_our_own_machines_is_not_taken_for_free_where_nobody_may_count() -> None:
    half = replace(FIT, inotify=Inotify(128, 65536, UNKNOWN), containers=running(*ALL[:6]))
    assert finding("inotify", half, purposes=frozenset({"up"})).verdict == "repairable"


def test_inotify_is_raised_now_and_kept_in_our_own_file_and_never_lowered() -> None:
    now, kept = finding("inotify", BUSY, purposes=frozenset({"up"})).actions
    assert now.argv[:2] == ("sysctl", "-w")
    assert "fs.inotify.max_user_instances=8410" in now.argv
    assert kept.argv[-1] == "/etc/sysctl.d/90-ha-lab.conf"
    assert "fs.inotify.max_user_watches=65536\n" in kept.stdin


def test_baking_needs_room_once_and_one_disk_holds_both() -> None:
    small = replace(
        FIT,
        cache=Folder(Path("/c"), 9500, 1, True),
        docker_data=Folder(Path("/d"), 9500, 1, True),
    )
    assert finding("disk", small).verdict == "unfit"
    assert finding("disk", small, baked=True).verdict == "fit"
    apart = replace(small, docker_data=Folder(Path("/d"), 2048, 2, True))
    assert [each.verdict for each in examine(apart) if each.check == "disk"] == ["fit"] * 2


def test_the_labs_own_network_is_no_clash() -> None:
    up = replace(
        FIT,
        containers=running(*ALL),
        docker_networks=(OWN,),
        routes=(DEFAULT, Route(IPv4Network("192.168.56.0/24"), "br-own")),
        way=Way("br-own"),
    )
    assert finding("network-subnet", up).verdict == "fit"
    shared = replace(up, containers=(*running(*ALL), Container("guest", False, "", (OWN.name,))))
    assert "docker's network vagrant_network" in finding("network-subnet", shared).what


@pytest.mark.parametrize(
    ("change", "named", "free"),
    [
        ({"routes": (DEFAULT, Route(IPv4Network("192.168.0.0/16"), "tun0"))}, "192.168.0.0/16", ""),
        (
            {"routes": (DEFAULT, Route(IPv4Network("192.168.56.128/25"), "tun0"))},
            "192.168.56.128/25",
            "57",
        ),
        ({"way": Way("wg0")}, "the route to 192.168.56.10 via wg0", "57"),
        (
            {"docker_networks": (DockerNetwork("theirs", "br-1", (IPv4Network("192.168.56.0/23"),)),)},
            "docker's network theirs",
            "58",
        ),
    ],
)
def test_a_subnet_that_leads_elsewhere_is_named_with_a_free_one(
    change: dict[str, Any], named: str, free: str
) -> None:
    found = finding("network-subnet", replace(FIT, **change))
    assert found.verdict == "unfit"
    assert found.what.count(named) == 1
    if free:
        assert f"subnet: 192.168.{free}.0/24" in found.repair
        assert f"workers: {{first_address: 192.168.{free}.21}}" in found.repair
    else:
        assert "choose a free network.subnet" in found.repair


@pytest.mark.parametrize("half", ["0.0.0.0/1", "0.0.0.0/0"])
def test_a_way_by_a_default_route_is_a_network_that_is_not_there_yet(half: str) -> None:
    vpn = replace(FIT, routes=(DEFAULT, Route(IPv4Network(half), "tun0")), way=Way("tun0"))
    assert finding("network-subnet", vpn).verdict == "fit"
    assert finding("network-subnet", replace(FIT, routes=(), way=Way(""))).verdict == "fit"


def test_a_bridge_that_a_stopped_daemon_left_is_not_called_foreign() -> None:
    bridge = "br-2ccbb0200f28"
    stopped = replace(
        FIT,
        daemon=Daemon("absent", SOCKET),
        docker_networks=UNKNOWN,
        containers=UNKNOWN,
        routes=(DEFAULT, Route(IPv4Network("192.168.56.0/24"), bridge)),
        way=Way(bridge),
    )
    assert finding("network-subnet", stopped).verdict == "fit"
    assert finding("addresses", stopped).verdict == "note"
    assert exit_code(examine(stopped)) == FIT_AFTER_REPAIRS  # the daemon can be started


def test_the_labs_networks_must_not_overlap_one_another() -> None:
    lab = LAB.model_copy(update={"network": Network(pods=IPv4Network("10.0.0.0/8"))})
    assert "network.services" in finding("network-pods", FIT, lab).what
    assert "network.pods" in finding("network-services", FIT, lab).what


@pytest.mark.parametrize(("provider", "verdict"), [("docker", "note"), ("virtualbox", "unfit")])
def test_virtualbox_nat_matters_to_virtualbox(provider: str, verdict: str) -> None:
    network = Network(pods=IPv4Network("10.0.0.0/16"))
    lab = LAB.model_copy(update={"network": network, "provider": provider})
    assert finding("network-virtualbox", FIT, lab).verdict == verdict


def test_a_free_network_overlaps_nothing_taken() -> None:
    within = (IPv4Network("192.168.56.0/21"), IPv4Network("192.168.0.0/16"))
    assert free_network(within, 24, [IPv4Network("192.168.56.0/23")]) == "192.168.58.0/24"
    assert free_network(within, 24, [within[0]]) == "192.168.0.0/24"
    assert free_network(within, 24, [within[1]]) == ""


def test_a_foreign_name_is_never_ours_to_remove() -> None:
    theirs = replace(FIT, containers=running("cp1", owner="") + running("w1", owner="/x y/.lab"))
    found = finding("names", theirs)
    assert "ha-lab-cp1, ha-lab-w1" in found.what
    assert "docker rename ha-lab-cp1 ha-lab-cp1-old" in found.repair
    assert "./inv destroy --lab '/x y/lab.yaml'" in found.repair
    assert finding("names", replace(FIT, containers=running(*ALL), docker_networks=(OWN,))).verdict == "fit"


def test_advice_names_no_folder_that_is_gone() -> None:
    [gone] = running("w1", owner="/x y/.lab#0123")
    found = finding("names", replace(FIT, containers=(replace(gone, folder_exists=False),)))
    assert "lab.yaml" not in found.repair.partition("#")[0]
    assert found.repair.startswith(
        "docker ps --all --filter 'label=ha-lab.workspace=/x y/.lab#0123'   # another lab's"
    )
    assert "/x y/.lab is gone" in found.repair


def test_a_host_where_nothing_could_be_asked_is_judged_without_a_false_claim() -> None:
    names = (
        *("memory", "docker_data", "cache", "containers", "docker_networks", "libvirt_networks"),
        *("routes", "way", "cgroups", "inotify", "capabilities"),
    )
    findings = examine(replace(FIT, **dict.fromkeys(names, UNKNOWN)))  # type: ignore[arg-type]
    assert exit_code(findings) == 0
    assert sum(each.verdict == "note" for each in findings) >= 8


def test_exit_codes_and_json() -> None:
    repairable = examine(replace(FIT, inotify=Inotify(128, 65536, 100)))
    assert exit_code(repairable) == FIT_AFTER_REPAIRS
    unfit = examine(replace(FIT, inotify=Inotify(128, 65536, 100), vagrant=UNKNOWN))
    said = json.loads(to_json(unfit))
    assert (exit_code(unfit), said["exit_code"]) == (NOT_FIT, NOT_FIT)
    assert set(said["findings"][0]) == {"check", "title", "verdict", "what", "why", "repair"}
    verdicts = {each["check"]: each["verdict"] for each in said["findings"]}
    assert verdicts["inotify"] == "repairable"


def test_what_is_shown_can_be_pasted_whole() -> None:
    console = Console(width=40, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    findings = examine(replace(FIT, uid=1000, programs=frozenset({"apt-get"})))
    with console.file:
        console.print(shown(findings), soft_wrap=True)
    assert (
        finding("packages", replace(FIT, uid=1000, programs=frozenset({"apt-get"}))).repair
        in console.export_text()
    )


def test_one_message_lists_all_that_is_missing_with_its_commands() -> None:
    host = replace(FIT, programs=ALL_PROGRAMS - {"vagrant"}, inotify=Inotify(128, 65536, 100))
    with pytest.raises(HostNotFit) as caught:
        examination.require(examine(host), consent=False)
    assert "apt-get install -y --no-install-recommends vagrant" in caught.value.message
    assert "sysctl -w" in caught.value.message
    assert "--yes" in caught.value.hint
    examination.require(examine(host), consent=True)
    with pytest.raises(HostNotFit):
        examination.require(examine(replace(host, daemon=Daemon("mute", ""))), consent=True)


class FakeHost:
    """Stands for process.run: answers what it was told, refuses all else, and keeps what was asked."""

    def __init__(self, answers: dict[tuple[str, ...], Sequence[int]]) -> None:
        """Take each command's exit codes, in turn; the last one stays."""
        self.answers = {words: list(codes) for words, codes in answers.items()}
        self.asked: list[tuple[str, ...]] = []
        self.stdin: list[str] = []

    def run(self, argv: Sequence[str], **named: Any) -> Result:
        """Answer as the real door would."""
        words = tuple(argv)
        self.asked.append(words)
        self.stdin.append(named.get("stdin") or "")
        assert words in self.answers, words
        codes = self.answers[words]
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        if named.get("accept", (0,)) is not None and code:
            locked = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7"
            raise CommandFailed(argv, "ended badly", tail=locked if code == 100 else "broken")
        return Result(words, code, "", "Cannot connect" if code else "", 0.0)


ANSWERS = ("docker", "version", "--format", "{{.Server.Version}}")
INIT = ("/etc/init.d/docker", "start")
UPDATE = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "update")


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(Console(quiet=True), tmp_path / "logs")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeHost]:
    def make(answers: dict[tuple[str, ...], Sequence[int]], uid: int = 0) -> FakeHost:
        host = FakeHost(answers)
        monkeypatch.setattr(process, "run", host.run)
        monkeypatch.setattr("os.geteuid", lambda: uid)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        return host

    return make


def test_mending_runs_exactly_what_was_said_and_announces_it(
    fake: Callable[..., FakeHost], progress: Progress
) -> None:
    findings = examine(replace(FIT, programs=ALL_PROGRAMS - {"vagrant"}, inotify=Inotify(128, 65536, 100)))
    actions = [action for each in findings for action in each.actions]
    host = fake({action.argv: [0] for action in actions})
    repairs.repair(findings, progress)
    assert host.asked == [action.argv for action in actions]
    assert "max_user_instances=1024" in host.stdin[-1]
    assert progress.finished[0].title == " ".join(UPDATE)


def test_another_apts_lock_is_waited_for(fake: Callable[..., FakeHost], progress: Progress) -> None:
    host = fake({UPDATE: [100, 100, 0]})
    repairs._run("packages", Action(UPDATE), progress)
    assert len(host.asked) == 3
    broken = fake({UPDATE: [1]})
    with pytest.raises(CommandFailed):
        repairs._run("packages", Action(UPDATE), progress)
    assert len(broken.asked) == 1


def test_where_the_init_script_fails_dockerd_is_started_by_itself(
    fake: Callable[..., FakeHost], progress: Progress
) -> None:
    findings = examine(replace(FIT, daemon=Daemon("absent", SOCKET)))
    script, alone = (
        action.argv
        for action in finding("docker-daemon", replace(FIT, daemon=Daemon("absent", SOCKET))).actions
    )
    host = fake({ANSWERS: [1, 1, 0], script: [2], alone: [0]})
    repairs.repair(findings, progress)
    assert [words for words in host.asked if words != ANSWERS] == [INIT, alone]


def test_a_daemon_that_its_package_started_is_left_alone(
    fake: Callable[..., FakeHost], progress: Progress
) -> None:
    host = fake({ANSWERS: [0]})
    repairs.repair(examine(replace(FIT, daemon=Daemon("absent", SOCKET))), progress)
    assert host.asked == [ANSWERS]


def test_a_plain_user_mends_through_sudo(
    fake: Callable[..., FakeHost], progress: Progress, monkeypatch: Any
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    findings = examine(replace(FIT, uid=1000, inotify=Inotify(128, 65536, 100)))
    actions = [action for each in findings for action in each.actions]
    commands = {("sudo", "--", *action.argv): [0] for action in actions}
    host = fake({("sudo", "--validate"): [0], **commands}, uid=1000)
    repairs.repair(findings, progress)
    assert host.asked[1:] == list(commands)
    asks = fake({("sudo", "--validate"): [1]}, uid=1000)
    with pytest.raises(HostNotFit) as caught:
        repairs.repair(findings, progress)
    assert "sudo sysctl -w" in caught.value.hint
    assert len(asks.asked) == 1


def test_a_host_is_looked_at_again_after_mending(
    fake: Callable[..., FakeHost], progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = replace(FIT, inotify=Inotify(128, 65536, 100))
    looks = [sick, FIT]

    def gather(lab: Lab, workspace: Workspace, *, programs: Sequence[str], ask_provider: object) -> HostFacts:
        assert "dockerd" in programs
        assert ask_provider is None
        waits = [step.title for step in progress._running]
        assert waits == ["waiting for facts about this host, and answers from the running machines"]
        return looks.pop(0)

    monkeypatch.setattr("lab.host.gather", gather)
    fake({action.argv: [0] for each in examine(sick) for action in each.actions})

    def make(consent: bool) -> HostFacts:
        return examination.make_fit(
            LAB,
            Workspace(WORKSPACE),
            purposes=PURPOSES,
            baked=False,
            consent=consent,
            progress=progress,
        )

    assert make(consent=True) == FIT
    looks[:] = [sick]
    with pytest.raises(HostNotFit):
        make(consent=False)
    looks[:] = [sick, sick]
    with pytest.raises(HostNotFit):
        make(consent=True)
