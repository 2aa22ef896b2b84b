"""The golden disk boots by itself on BIOS: the emulator is handed the disk, and no kernel."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from lab.system.wait import wait_until
from lab.workspace.render import CREDENTIAL

PATIENCE = 300.0
"""Seconds for one machine to boot, emulated, on a busy host; 40 to 60 are usual."""

# A machine as libvirt makes it, and one as VirtualBox has it: another disk controller, another network card.
HARDWARE = {
    "virtio": (
        *("-drive", "file={disk},if=virtio,cache=unsafe"),
        *("-device", "virtio-net-pci,netdev=net"),
    ),
    "ahci and e1000": (
        *("-device", "ahci,id=ahci", "-device", "ide-hd,drive=hd,bus=ahci.0"),
        *("-drive", "id=hd,if=none,file={disk},cache=unsafe"),
        *("-device", "e1000,netdev=net"),
    ),
}


@dataclass(frozen=True)
class Machine:
    """A machine that runs: its serial console, and the way in."""

    console: Path
    key: Path
    port: int
    uuid: str

    def ssh(self, *command: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]
        options += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=30"]
        words = [
            "ssh",
            *options,
            "-i",
            str(key or self.key),
            "-p",
            str(self.port),
            "vagrant@127.0.0.1",
            *command,
        ]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    def says(self, *command: str) -> str:
        answer = self.ssh(*command)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def why_silent(self) -> str | None:
        answer = self.ssh("true")
        return None if answer.returncode == 0 else answer.stderr.strip() or "ssh failed without a message"


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture(params=HARDWARE, ids=lambda name: name.replace(" ", "-"))
def machine(request: pytest.FixtureRequest, disk: Path, tmp_path: Path) -> Iterator[Machine]:
    key, overlay = new_key(tmp_path / "key"), tmp_path / "clone.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(overlay)]
    subprocess.run(words, check=True)
    public = base64.b64encode(key.with_suffix(".pub").read_bytes()).decode()
    found = Machine(tmp_path / "console", key, free_port(), str(uuid4()))
    words = [
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "qemu64", "-smp", "1", "-m", "1024"),
        *(
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-uuid",
            found.uuid,
            "-serial",
            f"file:{found.console}",
        ),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{found.port}-:22"),
        *("-smbios", f"type=11,value=io.systemd.credential.binary:{CREDENTIAL}={public}"),
        *(word.format(disk=overlay) for word in HARDWARE[request.param]),
    ]
    with subprocess.Popen(words) as emulator:
        try:
            started = time.monotonic()
            wait_until(found.why_silent, what="the machine answers by ssh", timeout=PATIENCE, interval=1)
            print(f"{request.param}: answers by ssh after {time.monotonic() - started:.0f} s")
            yield found
        except BaseException:
            print(found.console.read_text(encoding="utf-8", errors="replace")[-5000:])
            raise
        finally:
            emulator.kill()


def test_it_boots_by_itself_and_is_a_machine_of_its_own(machine: Machine, tmp_path: Path) -> None:
    console = machine.console.read_text(encoding="utf-8", errors="replace")
    assert "ha-lab: GRUB starts the kernel" in console
    assert machine.says("cat /proc/1/comm") == "systemd"
    assert re.fullmatch("[0-9a-f]{32}", machine.says("cat /etc/machine-id"))
    assert machine.says("sudo cat /sys/class/dmi/id/product_uuid") == machine.uuid
    assert machine.says("ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key"
    # The lab's key and no other, least of all the one that everybody has.
    assert machine.says("cat .ssh/authorized_keys") == machine.key.with_suffix(".pub").read_text().strip()
    assert machine.ssh("true", key=new_key(tmp_path / "stranger")).returncode != 0
    passwords = machine.says("sudo getent shadow vagrant root | cut -d: -f2").split()
    assert set(passwords) <= {"*", "!", "!*"}
    assert machine.says("systemctl list-units --failed --plain --no-legend") == ""
    # Networks as every provider has them, and room to work in.
    assert "eth0" in machine.says("ip -brief address show to 10.0.2.0/24")
    assert int(machine.says("df --output=size -m / | tail -n 1")) > 18_000
    # What a node is made of works on the disk itself.
    machine.says("sudo systemctl start containerd")
    assert "kube-apiserver" in machine.says("sudo ctr --namespace k8s.io images ls -q")
    machine.says("sudo modprobe -a overlay br_netfilter vxlan")
