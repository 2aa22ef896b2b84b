"""What a machine takes of another version's golden machine."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.config import default
from lab.errors import LabStateError
from lab.golden import disk, image, payload
from lab.golden.payload import GoldenImage
from lab.model import Lab
from lab.providers.docker import golden

LIST = """image registry.k8s.io/kube-proxy:v1.36.3 sha256:aa application/x
layer sha256:01 /usr/lib/ha-lab/containerd/snapshots/1/fs
layer sha256:02 /usr/lib/ha-lab/containerd/snapshots/2/fs
image registry.k8s.io/etcd:3.6.16-0 sha256:bb application/x
layer sha256:03 /usr/lib/ha-lab/containerd/snapshots/3/fs
"""
PROXY = GoldenImage(
    "registry.k8s.io/kube-proxy:v1.36.3",
    ("usr/lib/ha-lab/containerd/snapshots/1/fs", "usr/lib/ha-lab/containerd/snapshots/2/fs"),
)


def test_the_list_of_a_golden_machine_names_images_and_their_layers_folders() -> None:
    assert payload.parse(LIST)[0] == PROXY
    assert [each.name for each in payload.parse(LIST)] == [PROXY.name, "registry.k8s.io/etcd:3.6.16-0"]


def test_a_worker_needs_nothing_that_only_control_planes_start() -> None:
    lab, known = default(), payload.parse(LIST)
    assert payload.missing(lab.workers[0], known, ()) == (PROXY,)
    assert payload.missing(lab.control_planes[0], known, [PROXY.name]) == known[1:]


def golden_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the golden machine's root be a folder."""

    def files(lab: Lab, name: str, paths: Sequence[str], target: Path) -> None:
        with tarfile.open(target, "w") as out:
            for path in paths:
                if (root / path).exists():
                    out.add(root / path, path)

    monkeypatch.setattr(image, "files", files)


def test_a_payload_has_the_programs_the_list_and_the_layers_of_its_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    for name in ("usr/bin/kubeadm", "usr/bin/haproxy", payload.LIST, payload.BILL):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(LIST)
    for number in (1, 2, 3):
        (root / f"usr/lib/ha-lab/containerd/snapshots/{number}/fs").mkdir(parents=True)
    golden_root(monkeypatch, root)
    assert payload.images(default(), "golden") == payload.parse(LIST)
    target = tmp_path / "payloads" / "worker.tar"
    payload.write(default(), "golden", [PROXY], target)
    with tarfile.open(target) as archive:
        names = set(archive.getnames())
    assert {"usr/bin/kubeadm", payload.LIST, payload.BILL, *PROXY.folders} == names
    assert list(target.parent.iterdir()) == [target]


def test_a_golden_machine_of_an_earlier_version_of_the_kit_can_t_be_upgraded_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden_root(monkeypatch, tmp_path)
    with pytest.raises(LabStateError, match="does not list its images"):
        payload.images(default(), "ha-lab/golden:0123")


def test_what_a_golden_image_lacks_is_left_out_of_the_tar(tmp_path: Path) -> None:
    """In a container it runs at its root; here at this host's."""
    target = tmp_path / "out.tar"
    with target.open("wb") as out:
        words = ["sh", "-c", golden.PRINT_FILES, "sh", "etc/passwd", "no/such file"]
        subprocess.run(words, stdout=out, check=True)
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["etc/passwd"]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, ("debugfs", "mke2fs", "qemu-img"))), reason="no debugfs, mke2fs or qemu-img"
)
def test_files_of_a_golden_disk_are_read_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "disks_folder", lambda: tmp_path)
    root, raw = tmp_path / "root", tmp_path / "raw"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/kubeadm").write_text("kubeadm")
    (root / "usr/bin/kubeadm").chmod(0o755)
    with raw.open("wb") as out:
        out.truncate(16 * 2**20)
    offset = f"offset={disk.PARTITION}"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, "-E", offset, raw, "3000"], check=True)
    (tmp_path / "mark").mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, tmp_path / "mark" / disk.DISK], check=True)
    disk.files("mark", ["usr/bin/kubeadm", "usr/bin/etcdutl"], tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        [member] = archive.getmembers()
    assert (member.name, member.mode, member.uid, member.size) == ("usr/bin/kubeadm", 0o755, 0, 7)


def test_a_disk_that_is_gone_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "disks_folder", lambda: tmp_path)
    with pytest.raises(LabStateError, match="does not exist"):
        disk.files("mark", ["usr/bin/kubeadm"], tmp_path / "out.tar")
