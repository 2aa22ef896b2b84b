from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from lab.host import kernel
from lab.host.facts import Cgroups, FileSystem, Memory
from lab.unknown import Unknown
from tests.unit.hosts import recorded, recorded_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the recorded parts of /proc."""
    return recorded_tree(tmp_path)


def test_memory_is_in_mib(root: Path) -> None:
    found = kernel.memory(root)
    assert isinstance(found, Memory)
    assert found.total == 24103
    assert 0 < found.available < found.total
    (root / "proc/meminfo").write_text("nonsense")
    assert isinstance(kernel.memory(root), Unknown)


def test_cgroups_are_version_1_here(root: Path) -> None:
    found = kernel.cgroups(root)
    assert isinstance(found, Cgroups)
    assert found.version == 1
    assert {"cpu", "memory", "pids"} <= found.controllers


def test_cgroups_are_version_2_where_one_tree_has_all(root: Path) -> None:
    tree = root / "sys/fs/cgroup"
    tree.mkdir(parents=True)
    (tree / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert kernel.cgroups(root) == Cgroups(2, frozenset({"cpuset", "cpu", "io", "memory", "pids"}))


def test_inotify_instances_of_a_user_are_counted(root: Path) -> None:
    handles = root / "proc/3827/fd"
    handles.mkdir()
    for number, target in enumerate(("anon_inode:inotify", "/dev/null", "anon_inode:inotify", "pipe:[1]")):
        (handles / str(number)).symlink_to(target)
    assert kernel.inotify_in_use(root, os.getuid()) == 2
    assert kernel.inotify_in_use(root, os.getuid() + 1) == 0


def test_inotify_instances_in_use_are_unknown_to_others_than_root(root: Path) -> None:
    found = kernel.inotify(root, uid=1000)
    assert not isinstance(found, Unknown)
    assert (found.instances, found.watches) == (128, 192493)
    assert isinstance(found.used, Unknown)


def test_capabilities_are_dockerds(root: Path) -> None:
    found = kernel.capabilities(root)
    assert not isinstance(found, Unknown)
    assert set(kernel.CAPABILITIES) - found == {"SYS_RESOURCE"}


def test_capabilities_are_our_own_where_no_dockerd_runs(root: Path) -> None:
    shutil.rmtree(root / "proc/3827")
    assert isinstance(kernel.capabilities(root), Unknown)
    (root / "proc/self/status").write_text("CapBnd:\t0000000000000001\n")
    assert kernel.capabilities(root) == frozenset({"CHOWN"})


def test_all_41_capabilities_have_their_bits() -> None:
    assert len(set(kernel.CAPABILITIES)) == 41
    # linux/capability.h: CAP_SYS_ADMIN 21, CAP_SYS_RESOURCE 24, CAP_SETFCAP 31, CAP_BPF 39
    numbered = [kernel.CAPABILITIES[bit] for bit in (21, 24, 31, 39)]
    assert numbered == ["SYS_ADMIN", "SYS_RESOURCE", "SETFCAP", "BPF"]


def test_kernel_features_are_built_in_by_its_configuration(root: Path) -> None:
    (root / "proc/config.gz").write_bytes(gzip.compress(recorded("kernel-config.txt").encode()))
    there = dict.fromkeys(kernel.FEATURES, "there")
    assert kernel.features(root, "6.18") == there


def test_kernel_features_are_missing_by_its_configuration(root: Path) -> None:
    (root / "boot").mkdir()
    (root / "boot/config-6.18").write_text("CONFIG_OVERLAY_FS=y\n# CONFIG_VXLAN is not set\n")
    found = kernel.features(root, "6.18")
    assert (found["overlay"], found["vxlan"], found["br_netfilter"]) == (
        "there",
        "missing",
        "missing",
    )


def test_kernel_features_are_modules_that_can_be_loaded(root: Path) -> None:
    modules = root / "lib/modules/6.18"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/udp_tunnel.ko.xz\n")
    (modules / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    found = kernel.features(root, "6.18")
    assert found == dict.fromkeys(kernel.FEATURES, "missing") | {"overlay": "there", "vxlan": "loadable"}


def test_kernel_features_are_there_once_loaded(root: Path) -> None:
    sign = root / "proc/sys/net/bridge"
    sign.mkdir(parents=True)
    (sign / "bridge-nf-call-iptables").write_text("1\n")
    assert kernel.features(root, "6.18")["br_netfilter"] == "there"


def test_kernel_features_are_unknown_where_nothing_tells(root: Path) -> None:
    assert all(isinstance(found, Unknown) for found in kernel.features(root, "6.18").values())
    (root / "boot").mkdir()
    (root / "boot/config-6.18").write_text("CONFIG_VXLAN=m\n")
    assert isinstance(kernel.features(root, "6.18")["vxlan"], Unknown)


def test_the_file_system_of_a_path_is_that_of_the_last_mount_above_it(root: Path) -> None:
    assert kernel.file_system(root, Path("/var/lib/docker/volumes")) == FileSystem(
        Path("/var/lib/docker"), "ext4", "/dev/vda"
    )
    assert kernel.file_system(root, Path("/srv")) == FileSystem(Path("/"), "ext4", "/dev/vda")
    mounts = root / "proc/self/mountinfo"
    mounts.write_text(
        mounts.read_text()
        + "99 27 0:50 / /srv/on\\040net rw,relatime shared:9 - nfs4 nas:/vol rw,vers=4.2\n"
        + "98 27 0:51 / /var/lib/docker rw - overlay overlay rw\n"
    )
    found = kernel.file_system(root, Path("/srv/on net/docker"))
    assert found == FileSystem(Path("/srv/on net"), "nfs4", "nas:/vol")
    over = kernel.file_system(root, Path("/var/lib/docker"))
    assert not isinstance(over, Unknown)
    assert over.kind == "overlay"
    mounts.write_text("nonsense\n")
    assert isinstance(kernel.file_system(root, Path("/srv")), Unknown)
    mounts.unlink()
    assert isinstance(kernel.file_system(root, Path("/srv")), Unknown)


def test_packets_on_bridges_pass_the_rules_only_where_br_netfilter_says_so(root: Path) -> None:
    assert not kernel.forwards_bridged(root)
    setting = root / "proc/sys/net/bridge/bridge-nf-call-iptables"
    setting.parent.mkdir(parents=True)
    setting.write_text("0\n")
    assert not kernel.forwards_bridged(root)
    setting.write_text("1\n")
    assert kernel.forwards_bridged(root)
