"""VirtualBox, which no build machine can run: its words as its manual and source have them, and the doctor."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab import config
from lab.host import Folder, HostFacts, Route, Unknown
from lab.host.doctor import examination
from lab.host.doctor.finding import Finding, exit_code
from lab.host.facts import System
from lab.providers.virtualbox import host as virtualbox
from lab.providers.virtualbox.host import VirtualBoxHost
from tests.unit.hosts import FIT_HOST, FakeRun, folder

LAB = config.default().model_copy(update={"provider": "virtualbox"})
WORKSPACE = Path("/home/ada/lab/.lab")

VERSION = "7.0.20r163906\n"
NO_DRIVER = """\
WARNING: The character device /dev/vboxdrv does not exist.
         Please install the virtualbox-dkms package and the appropriate
         headers, most likely linux-headers-amd64.

         You will not be able to start VMs until this problem is fixed.
7.0.20r163906
"""
VMS = """\
"other machine" {0b1f2a53-9d7e-4c8e-8f0d-0a1b2c3d4e5f}
"ha-lab-cp1" {11111111-2222-3333-4444-555555555555}
"""
HOST_ONLY = """\
Name:            vboxnet0
GUID:            786f6276-656e-4074-8000-0a0027000000
DHCP:            Disabled
IPAddress:       192.168.56.1
NetworkMask:     255.255.255.0
IPV6Address:     fe80::800:27ff:fe00:0
IPV6NetworkMaskPrefixLength: 64
HardwareAddress: 0a:00:27:00:00:00
MediumType:      Ethernet
Wireless:        No
Status:          Up
VBoxNetworkName: HostInterfaceNetworking-vboxnet0

Name:            vboxnet1
IPAddress:       192.168.60.1
NetworkMask:     255.255.252.0
Status:          Down

"""

PROPERTIES = """\
API version:                     7_0
Default machine folder:          /
Default VRDE library:            VBoxVRDP
"""
ROOM = folder("/home/ada/VirtualBox VMs")
READY = VirtualBoxHost((7, 0, 20), driver=True, allowed=virtualbox.ALLOWED, folder=ROOM)
FIT = replace(FIT_HOST, provider=READY, vagrant=(2, 3, 4))


@pytest.fixture
def client(run: FakeRun) -> FakeRun:
    """VBoxManage, which has two machines and two networks."""
    run.tell("VBoxManage --version", VERSION)
    run.tell("VBoxManage list vms", VMS)
    run.tell("VBoxManage list hostonlyifs", HOST_ONLY)
    run.tell("VBoxManage list systemproperties", PROPERTIES)
    return run


def root(tmp_path: Path, **files: str) -> Path:
    """A file system with some files, `__` being their slashes."""
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def examined(host: HostFacts = FIT, **changes: object) -> dict[str, Finding]:
    before = host.provider
    assert isinstance(before, VirtualBoxHost)
    host = replace(host, provider=replace(before, **changes))  # type: ignore[arg-type]
    found = examination.examine(LAB, host, owner=str(WORKSPACE), purposes=frozenset({"up", "bake"}))
    return {each.check: each for each in found}


# What it says


def test_what_virtualbox_says_is_read(client: FakeRun, tmp_path: Path) -> None:
    system = root(tmp_path, dev__vboxdrv="", **{"lab__.vagrant__machines__cp1__virtualbox__id": "1111-22"})
    found = virtualbox.look_on("linux", system / "lab", system)
    assert isinstance(found.folder, Folder)
    assert found.folder.path == Path("/")
    assert replace(found, folder=ROOM) == VirtualBoxHost(
        (7, 0, 20),
        driver=True,
        allowed=(IPv4Network("192.168.56.0/21"),),
        networks={"vboxnet0": IPv4Network("192.168.56.0/24"), "vboxnet1": IPv4Network("192.168.60.0/22")},
        machines={
            "other machine": "0b1f2a53-9d7e-4c8e-8f0d-0a1b2c3d4e5f",
            "ha-lab-cp1": "11111111-2222-3333-4444-555555555555",
        },
        own=frozenset({"1111-22"}),
        folder=ROOM,
    )


def test_a_driver_that_is_missing_does_not_hide_the_version(client: FakeRun, tmp_path: Path) -> None:
    client.tell("VBoxManage --version", NO_DRIVER)
    found = virtualbox.look_on("linux", tmp_path, tmp_path)
    assert (found.version, found.driver) == ((7, 0, 20), False)


def test_without_a_client_nothing_more_is_asked(run: FakeRun, tmp_path: Path) -> None:
    run.fail("VBoxManage", "could not start: no such program")
    found = virtualbox.look_on("linux", tmp_path, tmp_path)
    assert isinstance(found.version, Unknown)
    assert [words[1] for words in run.asked] == ["--version"]


def test_words_that_are_no_version_are_unknown(run: FakeRun, tmp_path: Path) -> None:
    run.tell("VBoxManage --version", "VBoxManage: error: failed\n")
    assert "prints" in str(virtualbox.look_on("linux", tmp_path, tmp_path).version)


def test_under_wsl_the_client_is_windows_own_and_says_so_with_carriage_returns(
    run: FakeRun, tmp_path: Path
) -> None:
    run.tell("VBoxManage.exe --version", VERSION)
    run.tell("VBoxManage.exe list vms", VMS.replace("\n", "\r\n"))
    run.tell("VBoxManage.exe list hostonlyifs", HOST_ONLY.replace("\n", "\r\n"))
    run.tell("VBoxManage.exe list systemproperties", PROPERTIES.replace("/", "C:\\Users\\ada"))
    found = virtualbox.look_on("wsl", tmp_path, tmp_path)
    assert found.driver, "Windows has no such device, and its driver can't be looked at from here"
    assert isinstance(found.machines, dict)
    assert set(found.machines) == {"other machine", "ha-lab-cp1"}
    assert isinstance(found.networks, dict)
    assert set(found.networks) == {"vboxnet0", "vboxnet1"}


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("* 10.0.0.0/8 192.168.0.0/16\n* 2001::/64\n", ["10.0.0.0/8", "192.168.0.0/16"]),
        ("# all\n  * 0.0.0.0/0 ::/0\n", ["0.0.0.0/0"]),
        ("*10.11.0.0/16\n", ["10.11.0.0/16"]),
        ("* 10.11.0.1\n", ["10.11.0.1/32"]),
        ("10.11.0.0/16\n", []),
        ("", []),
    ],
)
def test_networks_conf_is_read_as_vagrant_reads_it(text: str, networks: list[str], tmp_path: Path) -> None:
    system = root(tmp_path, **{"etc__vbox__networks.conf": text})
    assert virtualbox.allowed(system) == tuple(map(IPv4Network, networks))


def test_networks_conf_that_vagrant_would_choke_on_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "etc/vbox").mkdir(parents=True)
    (tmp_path / "etc/vbox/networks.conf").write_text("* anywhere\n")
    assert isinstance(virtualbox.allowed(tmp_path), Unknown)


@pytest.mark.parametrize(
    ("files", "held"),
    [
        ({}, False),
        ({"sys__module__kvm_intel__refcnt": "0\n"}, False),
        ({"sys__module__kvm_intel__refcnt": "4\n"}, True),
        ({"sys__module__kvm_amd__refcnt": "2\n"}, True),
        (
            {
                "sys__module__kvm_intel__refcnt": "0\n",
                "sys__module__kvm__parameters__enable_virt_at_load": "Y\n",
            },
            True,
        ),
        ({"sys__module__kvm__parameters__enable_virt_at_load": "Y\n"}, False),
        (
            {
                "sys__module__kvm_amd__refcnt": "0\n",
                "sys__module__kvm__parameters__enable_virt_at_load": "N\n",
            },
            False,
        ),
    ],
)
def test_kvm_holds_the_processor_once_loaded_or_once_used(
    files: dict[str, str], held: bool, tmp_path: Path
) -> None:
    assert virtualbox.kvm_holds_the_cpu(root(tmp_path, **files)) is held


# What the doctor makes of it


def test_a_host_with_virtualbox_is_fit_and_docker_is_not_asked_for() -> None:
    host = replace(FIT, programs=FIT.programs - {"docker", "dockerd"} | {"qemu-img"})
    found = examined(host)
    assert {each.verdict for each in found.values()} <= {"fit", "note"}
    assert "docker-daemon" not in found


@pytest.mark.parametrize(
    ("version", "vagrant", "verdict", "repair"),
    [
        ((6, 1, 50), (2, 3, 0), "fit", ""),
        ((7, 0, 20), (2, 3, 0), "unfit", "Vagrant 2.3.2 or later, or VirtualBox 6.1"),
        ((7, 0, 20), (2, 3, 4), "fit", ""),
        ((7, 1, 4), (2, 3, 7), "unfit", "Vagrant 2.4.2 or later, or VirtualBox 7.0"),
        ((7, 1, 4), (2, 4, 2), "fit", ""),
        ((7, 2, 0), (2, 4, 8), "unfit", "Vagrant 2.4.9 or later, or VirtualBox 7.1"),
        ((7, 2, 0), (2, 4, 9), "fit", ""),
        ((8, 0, 0), (2, 4, 9), "unfit", "a newer Vagrant, or VirtualBox 7.2"),
        ((5, 2, 44), (2, 3, 4), "unfit", "install VirtualBox 6.1 or later"),
    ],
)
def test_vagrant_has_to_know_the_virtualbox(
    version: tuple[int, ...], vagrant: tuple[int, ...], verdict: str, repair: str
) -> None:
    found = examined(replace(FIT, vagrant=vagrant), version=version)["virtualbox"]
    assert found.verdict == verdict
    assert repair in found.repair


def test_a_virtualbox_that_is_missing_is_told_once() -> None:
    found = examined(version=Unknown("`VBoxManage --version` could not start: no such program"), driver=False)
    assert found["virtualbox"].what == "is not installed"
    assert not {"vboxdrv", "network-host-only", "names"} & set(found)


def test_a_driver_that_is_not_loaded_is_told() -> None:
    assert "modprobe vboxdrv" in examined(driver=False)["vboxdrv"].repair


def test_a_disk_without_room_for_the_machines_is_told() -> None:
    assert examined(folder=folder("/vms", 13_311))["machines-folder"].verdict == "unfit"
    assert examined(folder=folder("/vms", 13_312))["machines-folder"].verdict == "fit"
    assert examined(folder=Unknown("nobody answered"))["machines-folder"].verdict == "note"


def test_kvm_in_the_way_is_told() -> None:
    found = examined(kvm=True)["kvm"]
    assert found.verdict == "unfit"
    assert "modprobe -r kvm_intel" in found.repair


@pytest.mark.parametrize(
    ("allowed", "version", "system", "verdict"),
    [
        (("192.168.56.0/21",), (7, 0, 20), "linux", "fit"),
        (("192.168.56.0/24",), (7, 0, 20), "linux", "fit"),
        (("10.0.0.0/8",), (7, 0, 20), "linux", "unfit"),
        (("192.168.56.0/25",), (7, 0, 20), "linux", "unfit"),
        ((), (7, 0, 20), "linux", "unfit"),
        (("10.0.0.0/8",), (6, 1, 26), "linux", None),
        (("10.0.0.0/8",), (7, 0, 20), "macos", None),
        (("10.0.0.0/8",), (6, 1, 40), "macos", "unfit"),
        (("10.0.0.0/8",), (7, 0, 20), "wsl", None),
    ],
)
def test_the_lab_s_network_has_to_be_allowed_where_virtualbox_asks(
    allowed: tuple[str, ...], version: tuple[int, ...], system: System, verdict: str | None
) -> None:
    host = replace(FIT, system=system)
    found = examined(host, allowed=tuple(map(IPv4Network, allowed)), version=version)
    assert (found["network-host-only"].verdict if "network-host-only" in found else None) == verdict


def test_allowing_a_network_keeps_what_was_allowed() -> None:
    repair = examined(allowed=(IPv4Network("10.0.0.0/8"),))["network-host-only"].repair
    assert r"'* 10.0.0.0/8\n* 192.168.56.0/24\n'" in repair


def test_a_host_only_network_with_the_lab_s_addresses_is_the_one_that_vagrant_takes() -> None:
    networks = {"vboxnet0": IPv4Network("192.168.56.0/24")}
    routes = (*FIT_HOST.routes, Route(IPv4Network("192.168.56.0/24"), "vboxnet0"))  # type: ignore[misc]
    host = replace(FIT, routes=routes)
    assert examined(host, networks=networks)["network-subnet"].verdict == "fit"
    assert examined(host, networks={})["network-subnet"].verdict == "unfit"


def test_a_machine_of_our_name_that_the_lab_did_not_make_is_told() -> None:
    assert examined(machines={"ha-lab-cp1": "1"})["names"].verdict == "unfit"
    assert examined(machines={"ha-lab-cp1": "1"}, own=frozenset({"1"}))["names"].verdict == "fit"
    assert examined(machines=Unknown("nobody answered"))["names"].verdict == "note"


@pytest.mark.parametrize(("system", "words"), [("macos", "macOS, which can't bake"), ("wsl", "WSL")])
def test_a_host_that_can_t_bake_is_told_to_import(system: System, words: str) -> None:
    host = replace(FIT, system=system, programs=FIT.programs - {"mmdebstrap", "gcc"})
    found = examined(host)
    assert words in found["system"].what
    assert found["system"].repair.startswith("./inv bake --import FILE")
    assert found["untried"].verdict == "note"
    assert found["packages"].verdict == "fit", "nobody is told to install what bakes"
    baked = examination.examine(LAB, host, owner=str(WORKSPACE), purposes=frozenset({"up"}), baked=True)
    assert exit_code(baked) == 0


def test_a_virtualbox_that_vagrant_does_not_know_is_told_in_whole_sentences() -> None:
    newer = examined(version=(7, 1, 4))["virtualbox"]
    assert newer.what == "7.1.4 is newer than Vagrant 2.3.4 supports, which is up to 7.0"
    assert newer.repair == "# install Vagrant 2.4.2 or later, or VirtualBox 7.0"
    assert examined(version=(6, 0, 24))["virtualbox"].what == "6.0.24 is too old"
