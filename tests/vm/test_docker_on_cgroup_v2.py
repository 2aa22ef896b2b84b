"""The golden docker image where users are: Debian 13 with cgroup v2 and its own docker, without a network.

Build machines have cgroup v1 and an old docker, so the host is one emulated machine. It boots a kernel from a
root that mmdebstrap makes, runs `docker_host/look.sh`, says what it saw on a serial port, and powers off.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.system import process
from lab.system.paths import REPOSITORY
from tests.labs.conftest import TestLab

pytestmark = pytest.mark.whole

HERE = Path(__file__).parent / "docker_host"

PACKAGES = (
    *(
        "systemd-sysv",
        "udev",
        "kmod",
        "dbus",
        "procps",
        "iproute2",
        "linux-image-cloud-amd64",
        "initramfs-tools",
    ),
    # What `./inv doctor` names, and what `inv` needs.
    *("docker.io", "docker-cli", "vagrant", "openssh-client", "python3", "python3-venv", "iptables"),
)
DISK, MEMORY_MIB = "10G", 4096
LONGEST = 20 * 60

QEMU = (
    *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2"),
    *("-m", str(MEMORY_MIB), "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"),
    *("-device", "virtio-rng-pci"),
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each part of look.sh said in there."""
    folder = tmp_path_factory.mktemp("docker-host")
    bundle = _bundle(folder)
    _make_disk(folder, bundle)
    _boot(folder)
    text = (folder / "said.txt").read_text(encoding="utf-8", errors="replace").replace("\r", "")
    print(text)
    parts, seconds = {}, {}
    for part in text.split("\n## ")[1:]:
        head, _, body = part.partition("\n")
        moment, name = head.split()
        parts[name], seconds[name] = body, moment
    assert "end" in parts, f"it did not come to its end: {(folder / 'console.txt').read_text()[-3000:]}"
    print("seconds since its boot:", seconds)
    yield parts
    process.run(process.as_root("rm", "-rf", "--one-file-system", folder))


def _bundle(folder: Path) -> Path:
    (folder / "lab").mkdir()
    shutil.copy(HERE / "lab.yaml", folder / "lab")
    file = folder / "lab.tar"
    TestLab(folder / "lab").succeed("bake", "--export", str(file))
    return file


def _make_disk(folder: Path, bundle: Path) -> None:
    """A root with the kit, the bundle and look.sh in it, on a disk; its kernel and initial RAM disk beside."""
    root = folder / "root"
    include = f"--include={','.join(PACKAGES)}"
    words: list[str | Path] = ["mmdebstrap", "--variant=minbase", "--mode=root", include, "trixie", root]
    process.run(process.as_root(*words), log=folder / "mmdebstrap.log", timeout=900)
    home = folder / "home"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in process.run(listed, cwd=REPOSITORY).stdout.splitlines():
        (home / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, home / "kit" / name)
    (home / "lab").mkdir()
    shutil.copy(folder / "lab" / "lab.yaml", home / "lab")
    bundle.rename(home / "lab.tar")
    shutil.copy(HERE / "look.sh", home)
    script = """
        set -eu
        cp -r "$2/." "$1/root/" && rm -rf "$2"
        cp "$3/look.service" "$1/etc/systemd/system/"
        echo docker-host >"$1/etc/hostname"
        chroot "$1" systemctl enable --quiet look.service
        chroot "$1" systemctl mask --quiet systemd-networkd-wait-online.service serial-getty@ttyS1.service
        cp "$1"/boot/vmlinuz-* "$4/vmlinuz" && cp "$1"/boot/initrd.img-* "$4/initrd"
        truncate -s "$5" "$4/disk.raw"
        mke2fs -q -t ext4 -d "$1" "$4/disk.raw"
        chmod a+rw "$4/disk.raw" && chmod a+r "$4/vmlinuz" "$4/initrd"
        rm -rf --one-file-system "$1"
    """
    process.run(
        process.as_root("sh", "-c", script, "sh", root, home, HERE, folder, DISK),
        log=folder / "disk.log",
        timeout=600,
    )


def _boot(folder: Path) -> None:
    """Run the machine until it powers itself off."""
    process.run(
        [
            *QEMU,
            *("-kernel", folder / "vmlinuz", "-initrd", folder / "initrd"),
            *("-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0"),
            *("-drive", f"file={folder}/disk.raw,format=raw,if=virtio,cache=unsafe"),
            *("-serial", f"file:{folder}/console.txt", "-serial", f"file:{folder}/said.txt"),
        ],
        log=folder / "qemu.log",
        timeout=LONGEST,
    )


def _findings(text: str) -> dict[str, dict[str, Any]]:
    # Before it may be what is waited for, which is on standard error, and both are on one serial port.
    return {found["check"]: found for found in json.loads(text[text.index("{\n") :])["findings"]}


def test_it_is_a_host_as_users_have_it(said: dict[str, str]) -> None:
    assert said["cgroups"].strip() == "cgroup2fs"
    assert int(said["docker"].split(".")[0]) >= 26
    assert said["routes"].strip() == "", "it has no network"


def test_the_golden_machine_is_imported_there_without_a_network(said: dict[str, str]) -> None:
    assert "is ready" in said["import"]


def test_the_doctor_says_what_is_so(said: dict[str, str]) -> None:
    found = _findings(said["doctor"])
    kernel, cpus = said["kernel"].split()
    assert (found["cgroups"]["what"], found["cgroups"]["verdict"]) == ("version 2", "fit")
    assert found["docker-daemon"]["what"] == f"{said['docker'].strip()} answers at unix:///var/run/docker.sock"
    assert found["capabilities"]["what"] == "all that machines need"
    assert found["packages"]["verdict"] == "fit"
    assert found["cpus"]["what"].startswith(f"{cpus} found")
    assert kernel in found["kernel"]["what"]
    assert found["python"]["what"].startswith("3.13.")
    assert said["doctor-code"].strip() == "0"
    assert {each["verdict"] for each in found.values()} <= {"fit", "note"}


def test_vagrant_makes_the_machine_with_the_kit_s_own_arguments(said: dict[str, str]) -> None:
    made = json.loads(said["inspect"])
    assert made["Privileged"] is False
    assert made["CgroupnsMode"] == "private"
    assert {"CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"} <= {
        f"CAP_{name.removeprefix('CAP_')}" for name in made["CapAdd"]
    }
    assert made["Tmpfs"] == {"/run": "exec"}


def test_it_boots_to_running(said: dict[str, str]) -> None:
    assert said["boot"].strip().splitlines()[-1] == "running"
    assert said["failed-units"].strip() == ""
    assert said["node-cgroups"].strip() == "cgroup2fs"


def test_its_containerd_answers_and_has_the_images(said: dict[str, str]) -> None:
    assert "Server:" in said["containerd"]
    assert "/kube-apiserver:v1.36.3" in said["images"]


def test_a_kubelet_by_itself_is_healthy_and_runs_a_pod(said: dict[str, str]) -> None:
    assert said["healthz"].strip() == "ok"
    assert '"ready":true' in said["pod"]
    # The sandbox has no limit of its own.
    assert set(said["pod-memory"].split()) == {"max", str(32 * 2**20)}, "the limit is in a cgroup of version 2"


def test_the_doctor_still_says_what_is_so_once_machines_run(said: dict[str, str]) -> None:
    found = _findings(said["doctor-again"])
    assert found["names"]["verdict"] == "fit"
    assert found["network-subnet"]["verdict"] == "fit"
