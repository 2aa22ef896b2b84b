"""VirtualBox's box in another hypervisor, since it can't run here itself.

QEMU has the hardware that the box describes: BIOS, a disk and a disc drive on AHCI, two Intel 82540EM, no
serial port; and its NAT has the addresses of VirtualBox's. What is tried is the VMDK of the box and the disc of
the lab, not VirtualBox's importer.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.providers.virtualbox import golden as virtualbox
from lab.system import process
from lab.system.wait import wait_until
from lab.workspace.render import disc

pytestmark = pytest.mark.whole

BOOT_TIMEOUT = 300

QEMU = (
    *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "1"),
    *("-m", "1024", "-display", "none", "-monitor", "none", "-serial", "none", "-parallel", "none"),
    *(
        "-device",
        "ahci,id=sata",
        "-device",
        "ide-hd,drive=disk,bus=sata.0",
        "-device",
        "ide-cd,drive=disc,bus=sata.1",
    ),
    *("-device", "e1000,netdev=nat", "-device", "e1000,netdev=lab", "-netdev", "hubport,id=lab,hubid=0"),
)
SSH = (
    *("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=10"),
)


@dataclass(frozen=True)
class Machine:
    """A machine that runs: how it is reached, and with which key."""

    port: int
    key: Path

    def ssh(self, *command: str, key: Path | None = None) -> process.Result:
        where = ["-p", str(self.port), "-i", str(key or self.key), "vagrant@127.0.0.1"]
        return process.run([*SSH, *where, "--", *command], accept=None, timeout=60)

    def says(self, *command: str) -> str:
        done = self.ssh(*command)
        assert done.ok, done.stderr
        return done.stdout.strip()


def make_key(folder: Path, name: str) -> Path:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
    process.run(words)
    return folder / name


@pytest.fixture(scope="module")
def machine(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("virtualbox")
    virtualbox.convert(disk, folder / virtualbox.VMDK, folder / "convert.log")
    virtualbox.describe(folder, disk.parent.name)
    print(f"{(folder / virtualbox.VMDK).stat().st_size // 2**20} MiB of VMDK")
    key = make_key(folder, "lab")
    (folder / "key.iso").write_bytes(disc.image((folder / "lab.pub").read_text().strip()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        *QEMU,
        *("-drive", f"file={folder / virtualbox.VMDK},format=vmdk,if=none,id=disk,snapshot=on"),
        *("-drive", f"file={folder / 'key.iso'},format=raw,if=none,id=disc,media=cdrom,readonly=on"),
        *("-netdev", f"user,id=nat,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
    ]
    running = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    started = Machine(port, key)

    def why_not_let_in() -> str | None:
        if running.poll() is not None:
            return f"QEMU ended: {running.returncode}"
        answer = started.ssh("true")
        return None if answer.ok else answer.stderr.strip() or f"ssh ended with {answer.returncode}"

    try:
        took = wait_until(
            why_not_let_in,
            what="the machine lets the lab's key in",
            timeout=BOOT_TIMEOUT,
            interval=2,
        )
        print(f"logged in after {took:.0f} s")
        yield started
    finally:
        running.terminate()
        running.wait(timeout=30)
        for path in folder.iterdir():
            path.unlink()


def test_the_key_on_the_disc_is_the_only_one_that_is_let_in(machine: Machine, tmp_path: Path) -> None:
    text = machine.says("cat", ".ssh/authorized_keys")
    assert text == machine.key.with_suffix(".pub").read_text().strip()
    refused = machine.ssh("true", key=make_key(tmp_path, "another"))
    assert "Permission denied (publickey)" in refused.stderr


def test_vagrant_s_well_known_key_is_refused(machine: Machine, tmp_path: Path) -> None:
    process.run(["vagrant", "box", "list"], timeout=120)  # it lays its key out the first time it runs
    found = [path for path in (Path.home() / ".vagrant.d").rglob("insecure_private_key*") if path.is_file()]
    found += [path for path in (Path.home() / ".vagrant.d" / "insecure_private_keys").glob("*")]
    assert found
    for path in found:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        assert "Permission denied (publickey)" in machine.ssh("true", key=copy).stderr


def test_it_stands_on_the_hardware_that_the_box_describes(machine: Machine) -> None:
    assert machine.says("findmnt", "--noheadings", "--output", "SOURCE", "/") == "/dev/sda1"
    assert "/ata" in machine.says("readlink", "-f", "/sys/block/sda")
    for card in ("eth0", "eth1"):
        assert machine.says("readlink", f"/sys/class/net/{card}/device/driver").endswith("/e1000")


def test_its_first_network_is_the_nat_and_its_second_is_left_to_vagrant(machine: Machine) -> None:
    assert "10.0.2.15/24" in machine.says("ip", "-4", "-brief", "address", "show", "eth0")
    assert machine.says("ip", "-4", "-brief", "address", "show", "eth1") == ""


def test_all_that_starts_has_started(machine: Machine) -> None:
    assert machine.ssh("systemctl", "is-system-running", "--wait").stdout.strip() == "running"
    assert machine.says("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""


def test_it_has_an_identity_of_its_own(machine: Machine) -> None:
    assert len(machine.says("cat", "/etc/machine-id")) == 32
    assert machine.says("ls", "/etc/ssh").count("_key.pub") >= 1
