from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.errors import WaitTimedOut
from lab.host import Folder, HostFacts, Memory, Route, Unknown
from lab.host.doctor import examination, repairs
from lab.host.doctor.finding import Finding
from lab.model import Lab, Libvirt
from lab.providers.libvirt.host import Domain, LibvirtHost, Pool
from lab.system import process
from lab.system.process import Result
from tests.unit.fakes import progress
from tests.unit.hosts import DEFAULT_ROUTE, WORKSPACE, FakeRun, host

OWNER = f"ha-lab.workspace={WORKSPACE}"
LIBVIRT = LibvirtHost("answers", True, True, hypervisor="QEMU 7.2.22", pool=Pool("default", True, 60_000))
PROGRAMS = {"libvirtd", "virsh", "qemu-img", "qemu-system-x86_64", "iptables"}


def lab(**settings: Any) -> Lab:
    return default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt(**settings)})


def facts(libvirt: LibvirtHost = LIBVIRT, **different: Any) -> HostFacts:
    fit = host(memory=Memory(32_000, 24_000, 0), provider=libvirt, **different)
    return replace(fit, programs=(fit.programs - {"docker", "dockerd", "sysctl"}) | PROGRAMS)


def examined(of: Lab, found: HostFacts) -> dict[str, Finding]:
    purposes = frozenset({"up"})
    found_out = examination.examine(of, found, owner=str(WORKSPACE), purposes=purposes, baked=True)
    return {each.check: each for each in found_out}


def test_a_host_with_libvirt_and_without_docker_is_fit() -> None:
    found = examined(lab(), facts())
    assert {name: each.verdict for name, each in found.items() if each.verdict != "fit"} == {}
    assert "docker-daemon" not in found


def test_libvirts_programs_are_asked_for_with_libvirt_only() -> None:
    bare = replace(
        facts(replace(LIBVIRT, plugin=False)), programs=frozenset({"apt-get", "vagrant", "ssh", "ip"})
    )
    what = examined(lab(), bare)["packages"]
    assert {"virsh", "libvirtd", "qemu-img", "vagrant-libvirt"} <= set(what.what.split(": ")[1].split(", "))
    assert "docker" not in what.what
    assert "vagrant-libvirt" in what.actions[1].argv
    plain = examined(default(), host())
    assert plain["packages"].verdict == "fit"


@pytest.mark.parametrize(
    ("check", "verdict", "words", "changed"),
    [
        ("libvirtd", "repairable", "does not run", {"state": "absent"}),
        ("libvirtd", "repairable", "virsh is not installed", {"state": "no client"}),
        ("libvirtd", "unfit", "does not let this user in", {"state": "denied", "words": "no polkit agent"}),
        ("libvirtd", "unfit", "gives no clear answer: broken", {"state": "mute", "words": "broken"}),
        ("hypervisor", "unfit", "neither KVM nor QEMU", {"hypervisor": ""}),
        ("hypervisor", "unfit", "KVM runs no kernel", {"kvm": False}),
        ("hypervisor", "note", "KVM has not been tested", {"kvm": Unknown("no kernel")}),
        ("kvm-device", "repairable", "is not accessible to the group kvm", {"kvm_closed": True}),
        ("pool", "repairable", "default does not exist", {"pool": None}),
        ("pool", "repairable", "default is not started", {"pool": Pool("default", False, 0)}),
        ("pool", "unfit", "900 MiB free in default", {"pool": Pool("default", True, 900)}),
        (
            "pool",
            "unfit",
            "x_box.img in default is incomplete",
            {"pool": Pool("default", True, 60_000, torn=("x_box.img",))},
        ),
        (
            "names",
            "unfit",
            "domains exist that this lab did not create: ha-lab-cp1",
            {"domains": (Domain("ha-lab-cp1", True, "somebody's"), Domain("ha-lab-lb1", True, OWNER))},
        ),
        (
            "names",
            "unfit",
            "disks without a machine are in the pool: ha-lab-w1.img",
            {"pool": Pool("default", True, 60_000, frozenset({"ha-lab-w1.img", "other.img"}))},
        ),
        (
            "leases",
            "unfit",
            "cp1's 192.168.56.11 by box (52:54:00:00:00:01), on default",
            {"leases": {"192.168.56.11": "box (52:54:00:00:00:01), on default"}},
        ),
    ],
)
def test_what_is_wrong_with_libvirt_is_told_with_what_mends_it(
    check: str, verdict: str, words: str, changed: dict[str, Any]
) -> None:
    finding = examined(lab(), facts(replace(LIBVIRT, **changed)))[check]
    assert finding.verdict == verdict
    assert words in finding.what
    assert finding.why
    assert finding.repair or verdict == "note"
    assert bool(finding.actions) == (verdict == "repairable")


@pytest.mark.parametrize(
    ("owner", "folder_exists", "line"),
    [
        ("somebody's", True, "virsh --connect qemu:///system dominfo ha-lab-cp1   # what is it?"),
        ("ha-lab.workspace=/x y/.lab#01", True, "./inv destroy --lab '/x y/lab.yaml'   # another lab's"),
        (
            "ha-lab.workspace=/x y/.lab#01",
            False,
            "virsh --connect qemu:///system dominfo ha-lab-cp1   # another lab's, whose folder /x y/.lab is "
            "gone; if it was moved",
        ),
    ],
)
def test_a_domain_of_another_s_is_shown_with_what_can_be_done(
    owner: str, folder_exists: bool, line: str
) -> None:
    domains = (Domain("ha-lab-cp1", False, owner, folder_exists),)
    finding = examined(lab(), facts(replace(LIBVIRT, domains=domains)))["names"]
    assert finding.repair.startswith(line)
    assert finding.repair.endswith("\n# or give this lab another `name:` in lab.yaml")


def test_no_command_of_the_doctor_s_removes_a_machine_or_a_disk() -> None:
    worst = replace(
        LIBVIRT,
        pool=Pool("default", True, 10, frozenset({"ha-lab-w1.img"})),
        domains=(Domain("ha-lab-cp1", False, "somebody's"),),
    )
    for finding in examined(lab(), facts(worst)).values():
        for action in finding.actions:
            assert not {"undefine", "destroy", "vol-delete", "vol-wipe"} & set(action.argv)


def test_disks_of_own_machines_are_no_stale_ones() -> None:
    own = replace(
        LIBVIRT,
        pool=Pool("default", True, 60_000, frozenset({"ha-lab-w1.img"})),
        domains=(Domain("ha-lab-w1", False, OWNER),),
    )
    assert examined(lab(), facts(own))["names"].verdict == "fit"


def test_emulation_is_told_with_what_it_costs_and_is_no_obstacle() -> None:
    finding = examined(lab(emulated=True), facts(replace(LIBVIRT, kvm=False)))["hypervisor"]
    assert finding.verdict == "note"
    assert "emulated" in finding.what
    assert "minutes" in finding.why


def test_libvirtd_is_started_by_systemd_where_that_runs() -> None:
    absent = replace(LIBVIRT, state="absent")
    systemd = examined(lab(), facts(absent, systemd=True))["libvirtd"].actions
    plain = examined(lab(), facts(absent, systemd=False))["libvirtd"].actions
    assert [action.argv for action in systemd] == [("systemctl", "start", "libvirtd")]
    assert [action.argv for action in plain] == [("virtlogd", "--daemon"), ("libvirtd", "--daemon")]


def test_a_pool_of_another_name_is_the_users_to_make() -> None:
    finding = examined(lab(pool="fast"), facts(replace(LIBVIRT, pool=None)))["pool"]
    assert (finding.verdict, finding.what) == ("unfit", "fast does not exist")


def test_virtual_machines_take_the_memory_they_are_given() -> None:
    assert examined(lab(), facts())["memory"].verdict == "fit"
    small = replace(facts(), memory=Memory(12_000, 9_000, 0))
    assert examined(lab(), small)["memory"].verdict == "unfit"


def test_a_management_network_with_other_addresses_is_told_with_the_line_for_lab_yaml() -> None:
    networks = {"vagrant-libvirt": IPv4Network("192.168.200.0/24")}
    finding = examined(lab(), facts(libvirt_networks=networks))["network-management"]
    assert finding.verdict == "unfit"
    assert "libvirt: {management: 192.168.200.0/24}" in finding.repair
    same = {"vagrant-libvirt": IPv4Network("192.168.121.0/24")}
    assert "network-management" not in examined(lab(), facts(libvirt_networks=same))


def test_the_labs_own_networks_overlap_nothing() -> None:
    running = replace(
        LIBVIRT,
        domains=tuple(Domain(f"ha-lab-{node.name}", True, OWNER) for node in lab().nodes),
        bridges={"ha-lab": "virbr2", "vagrant-libvirt": "virbr1"},
    )
    networks = {"ha-lab": IPv4Network("192.168.56.0/24"), "vagrant-libvirt": IPv4Network("192.168.121.0/24")}
    routes = (
        DEFAULT_ROUTE,
        Route(IPv4Network("192.168.56.0/24"), "virbr2"),
        Route(IPv4Network("192.168.121.0/24"), "virbr1"),
    )
    found = examined(lab(), facts(running, libvirt_networks=networks, routes=routes))
    assert {name: each.verdict for name, each in found.items() if each.verdict != "fit"} == {}


def test_a_stranger_s_network_of_the_lab_s_addresses_overlaps() -> None:
    networks = {"default": IPv4Network("192.168.56.0/22")}
    finding = examined(lab(), facts(libvirt_networks=networks))["network-subnet"]
    assert (finding.verdict, "libvirt's network default" in finding.what) == ("unfit", True)


def test_the_management_network_may_overlap_nothing_of_the_host_s() -> None:
    routes = (DEFAULT_ROUTE, Route(IPv4Network("192.168.120.0/22"), "eth0"))
    finding = examined(lab(), facts(routes=routes))["network-management"]
    assert (finding.verdict, "192.168.120.0/22" in finding.what) == ("unfit", True)
    assert "libvirt: {management:" in finding.repair


def test_another_hosts_lab_wants_a_way_there_and_no_hypervisor_here() -> None:
    remote = lab(uri="qemu+ssh://ada@big/system")
    elsewhere = replace(LIBVIRT, kvm=Unknown("it is that host's"))
    bare = replace(facts(elsewhere), programs=facts().programs - {"libvirtd", "qemu-system-x86_64", "iptables"})
    found = examined(remote, bare)
    assert found["packages"].verdict == "fit"
    assert found["remote"].verdict == "unfit"
    assert "default route" in found["remote"].why
    routed = replace(bare, routes=(DEFAULT_ROUTE, Route(IPv4Network("192.168.56.0/24"), "eth0", "192.0.2.7")))
    assert examined(remote, routed)["remote"].verdict == "fit"
    assert examined(remote, routed)["network-subnet"].verdict == "fit"


VIRSH_VERSION = "virsh --connect qemu:///system version"


def repaired(monkeypatch: pytest.MonkeyPatch, logs: Path, *answers: int) -> list[str]:
    """What is run to repair an absent libvirtd, virsh answering with these codes one after another."""
    findings = [examined(lab(), facts(replace(LIBVIRT, state="absent"), systemd=False))["libvirtd"]]
    left, run = list(answers), FakeRun()
    run.tell("virtlogd --daemon", code=1, stderr="cannot lock /run/virtlogd.pid: it runs already")
    run.tell("libvirtd --daemon")

    def door(argv: Sequence[str], **options: Any) -> Result:
        if " ".join(argv) == VIRSH_VERSION:
            return Result(tuple(argv), left.pop(0), "", "error: failed to connect", 0.0)
        return run(argv, **options)

    monkeypatch.setattr(process, "run", door)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    repairs.repair(findings, progress(logs))
    return [" ".join(words) for words in run.asked]


def test_both_of_libvirts_daemons_are_started_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert repaired(monkeypatch, tmp_path, 1, 1, 0) == ["virtlogd --daemon", "libvirtd --daemon"]


def test_a_daemon_that_libvirts_package_started_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert repaired(monkeypatch, tmp_path, 0) == []


def test_a_daemon_that_never_answers_is_an_error_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(repairs, "DAEMON_TIMEOUT", 0.05)
    with pytest.raises(WaitTimedOut) as caught:
        repaired(monkeypatch, tmp_path, *([1] * 10))
    assert "/var/log/libvirt" in caught.value.hint


REMOTE = {"uri": "qemu+ssh://ada@big/system"}
ELSEWHERE = replace(LIBVIRT, kvm=Unknown("it is that host's"))


def test_another_host_is_not_judged_by_the_memory_of_this_one() -> None:
    small = replace(facts(ELSEWHERE), memory=Memory(2_000, 1_000, 0), cpus=1)
    finding = examined(lab(**REMOTE), small)["memory"]
    assert finding.verdict == "note"
    assert "11264 MiB on the host of qemu+ssh://ada@big/system" in finding.what
    assert "available" not in finding.what
    running = tuple(Domain(f"ha-lab-{node.name}", True, OWNER) for node in lab().nodes)
    up = replace(small, provider=replace(ELSEWHERE, domains=running))
    assert examined(lab(**REMOTE), up)["memory"].what == "all machines run already"


def test_another_host_s_kvm_is_never_promised_to_be_tried() -> None:
    finding = examined(lab(**REMOTE), facts(ELSEWHERE))["hypervisor"]
    assert (finding.verdict, "can't be tested from here" in finding.what) == ("note", True)
    assert "tests it" not in finding.why
    assert "emulated: true" in finding.why
    assert (
        "machines are emulated" in examined(lab(**REMOTE, emulated=True), facts(ELSEWHERE))["hypervisor"].what
    )


def test_what_is_said_of_virtual_machines_speaks_of_no_docker() -> None:
    full = Folder(Path("/"), 10, 1, writable=True)
    clash = {"default": IPv4Network("192.168.56.0/22")}
    worst = replace(facts(libvirt_networks=clash), vagrant=(2, 2, 0), cache=full, tmp=full)
    for purposes in (frozenset({"up"}), frozenset({"up", "bake"})):
        for finding in examination.examine(lab(), worst, owner=str(WORKSPACE), purposes=purposes):
            assert "docker" not in f"{finding.what} {finding.why} {finding.repair}", finding
