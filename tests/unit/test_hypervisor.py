from __future__ import annotations

import grp
import json
import os
import socket
from pathlib import Path

import pytest

from lab.host import Unknown, hypervisor
from tests.unit.fakes import first_on_path, program


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hypervisor, "PROBE_TIMEOUT", 0.5)
    made = tmp_path / "vmlinuz"
    made.write_text("a kernel")
    return made


@pytest.fixture
def device(tmp_path: Path) -> Path:
    made = tmp_path / "kvm"
    made.touch()
    return made


def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """An emulator that does this with `$console`, its serial console; returns what counts its starts."""
    starts = tmp_path / "starts"
    find = "for word; do case $word in file:*) console=${word#file:} ;; esac; done"
    program(tmp_path / "bin", hypervisor.EMULATOR, f'echo "$*" >>{starts}\n{find}\n{body}')
    first_on_path(tmp_path / "bin", monkeypatch)
    return starts


def test_kvm_works_when_a_kernel_says_its_first_words(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = emulator(tmp_path, monkeypatch, 'echo "[    0.000000] Linux version 6.12.48" >$console; exit 1')
    assert hypervisor.kvm_works([kernel], device) is True
    assert "-accel kvm" in starts.read_text()
    assert f"-kernel {kernel}" in starts.read_text()


@pytest.mark.parametrize("body", ["sleep 60", "exit 1", "echo SeaBIOS >$console; sleep 60"])
def test_kvm_that_hangs_or_fails_does_not_work(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    emulator(tmp_path, monkeypatch, body)
    assert hypervisor.kvm_works([kernel], device) is False


def test_a_kernel_that_spoke_and_did_not_end_is_enough(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator(tmp_path, monkeypatch, 'echo "Linux version 6" >$console; sleep 60')
    assert hypervisor.kvm_works([kernel], device) is True


def test_kvm_is_tried_once_for_a_boot_and_a_kernel(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = emulator(tmp_path, monkeypatch, "exit 1")
    for _ in range(3):
        assert hypervisor.kvm_works([kernel], device) is False
    assert len(starts.read_text().splitlines()) == 1
    kernel.write_text("another kernel")
    hypervisor.kvm_works([kernel], device)
    assert len(starts.read_text().splitlines()) == 2
    kept = tmp_path / "cache" / "ha-lab" / "kvm.json"
    kept.write_text(json.dumps({"mark": "an earlier boot's", "works": True}))
    assert hypervisor.kvm_works([kernel], device) is False


def test_a_cache_that_was_spoilt_is_asked_anew(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator(tmp_path, monkeypatch, "exit 1")
    kept = tmp_path / "cache" / "ha-lab" / "kvm.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{")
    assert hypervisor.kvm_works([kernel], device) is False


def test_where_kvm_is_not_there_nothing_is_started(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = emulator(tmp_path, monkeypatch, "exit 0")
    assert hypervisor.kvm_works([kernel], tmp_path / "no-kvm") is False
    assert not starts.exists()


def test_what_can_t_be_tried_is_not_known(
    kernel: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator(tmp_path, monkeypatch, "exit 0")
    assert hypervisor.kvm_works([], device) == Unknown("there is no kernel to try it with")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(hypervisor.kvm_works([kernel], device), Unknown)


@pytest.mark.parametrize(
    ("mode", "group", "closed"),
    [
        (0o600, "root", True),
        (0o660, "root", True),
        (0o660, "kvm", False),
        (0o640, "kvm", True),
        (0o666, "root", False),
    ],
)
def test_kvm_s_device_is_open_to_libvirt_by_its_group_or_to_all(
    device: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: str, closed: bool
) -> None:
    device.chmod(mode)
    named = grp.struct_group((group, "x", 1, []))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: named)
    assert hypervisor.closed_to_libvirt(device) is closed
    assert not hypervisor.closed_to_libvirt(device.with_name("none"))


def test_kernels_are_the_golden_disks_first_and_only_readable_ones(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    own, golden = boot / f"vmlinuz-{os.uname().release}", tmp_path / "golden"
    golden.touch()
    assert hypervisor.kernels([golden, tmp_path / "gone"], boot) == [golden]
    own.touch()
    assert hypervisor.kernels([golden], boot)[:2] == [golden, own]


def test_the_plugin_is_debians_package_or_the_users(tmp_path: Path) -> None:
    system, home = tmp_path / "system", tmp_path / "home"
    assert not hypervisor.plugin(home, system)
    (system / "all" / "gems" / "vagrant-libvirt-0.11.2").mkdir(parents=True)
    assert hypervisor.plugin(home, system)
    home.mkdir()
    (home / "plugins.json").write_text('{"version": "1", "installed": {"vagrant-libvirt": {}}}')
    assert hypervisor.plugin(home, tmp_path / "none")
    (home / "plugins.json").write_text("not json")
    assert not hypervisor.plugin(home, tmp_path / "none")


def test_a_daemon_answers_only_where_somebody_listens(tmp_path: Path) -> None:
    door = tmp_path / "sock"
    assert not hypervisor.libvirtd_answers(door)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        assert not hypervisor.libvirtd_answers(door)
        listener.listen()
        assert hypervisor.libvirtd_answers(door)
