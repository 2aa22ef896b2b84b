"""How docker's daemon is configured: its file, its command line, and where each setting is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import dockerd
from lab.host.dockerd import COMMAND_LINE
from lab.host.facts import Configured
from lab.unknown import Unknown
from tests.unit.hosts import recorded_tree

FILE = """\
{
  "no-new-privileges": true,
  "default-ulimits": {
    "nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024}
  },
  "icc": false
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the recorded parts of /proc."""
    return recorded_tree(tmp_path)


def write(root: Path, text: str, path: str = "etc/docker/daemon.json") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def start(root: Path, *words: str) -> None:
    (root / "proc/3827/cmdline").write_text("".join(f"{word}\0" for word in ("/usr/sbin/dockerd", *words)))


def test_each_setting_of_the_file_has_its_line(root: Path) -> None:
    write(root, FILE)
    assert dockerd.configured(root) == {
        "no-new-privileges": Configured(True, "/etc/docker/daemon.json:2"),
        "default-ulimits": Configured(
            {"nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024}}, "/etc/docker/daemon.json:3"
        ),
        "icc": Configured(False, "/etc/docker/daemon.json:6"),
    }


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_without_a_file_nothing_is_set(root: Path, text: str | None) -> None:
    if text is not None:
        write(root, text)
    assert dockerd.configured(root) == {}


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\ud800"])
def test_a_file_that_cannot_be_read_is_not_taken_for_an_empty_one(root: Path, text: str) -> None:
    write(root, "")
    (root / "etc/docker/daemon.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = dockerd.configured(root)
    assert isinstance(found, Unknown)
    assert found.reason.startswith("/etc/docker/daemon.json ")


def test_the_command_line_is_read_too_and_may_name_another_file(root: Path) -> None:
    write(root, '{"iptables": true}')
    write(root, '{"iptables": false}', "srv/docker.json")
    start(
        root, "-H", "fd://", "--config-file=/srv/docker.json", "--no-new-privileges", "--storage-driver", "vfs"
    )
    found = dockerd.configured(root)
    assert found == {
        "iptables": Configured(False, "/srv/docker.json:1"),
        "no-new-privileges": Configured(True, COMMAND_LINE),
        "storage-driver": Configured("vfs", COMMAND_LINE),
    }


def test_options_that_are_given_several_times_are_one_setting(root: Path) -> None:
    start(
        root,
        *("--default-ulimit", "nofile=1024:2048", "--default-ulimit=nproc=9", "--iptables=false"),
        *("--default-network-opt", "bridge=com.docker.network.bridge.enable_icc=false"),
        *("--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"),
    )
    found = dockerd.configured(root)
    assert not isinstance(found, Unknown)
    assert {key: each.value for key, each in found.items()} == {
        "default-ulimits": {
            "nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048},
            "nproc": {"Name": "nproc", "Soft": 9, "Hard": 9},
        },
        "iptables": False,
        "default-network-opts": {
            "bridge": {
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.driver.mtu": "1400",
            }
        },
    }


def test_where_no_daemon_is_seen_only_the_file_counts(root: Path) -> None:
    (root / "proc/3827/comm").write_text("bash\n")
    start(root, "--iptables=false")
    assert dockerd.configured(root) == {}
