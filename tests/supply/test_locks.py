"""The locks in the repository: what supply/pin-upstream makes of the records, complete, with their sources.

No host of upstream's was ever asked here: `./inv lock` does that, where there is one.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errors import ConfigError
from lab.golden.supply import lock, parts, pinning
from lab.golden.supply.releases import release, supported
from lab.system.paths import REPOSITORY

RECORDS = Path(__file__).with_name("records.yaml")

FROM_MODULES = {
    "1.35.4": {"etcd", "etcdctl", "etcdutl", "kube-router", "local-path-provisioner"},
    "1.36.3": {"etcd", "etcdctl", "etcdutl", "kube-router", "local-path-provisioner"},
    "1.37.2": {
        *("kubeadm", "kubelet", "kubectl"),
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"),
        *("etcd", "etcdctl", "etcdutl", "kube-router", "local-path-provisioner"),
    },
}
"""What no record has the hash of. A new record makes this shorter; nothing else may change it."""


@pytest.fixture(scope="module")
def records() -> dict[str, Any]:
    return dict(pinning.read(RECORDS))


@pytest.mark.parametrize("version", supported())
def test_a_lock_is_what_the_script_makes_of_the_records(version: str, records: dict[str, Any]) -> None:
    assert lock.path(version).read_text(encoding="utf-8") == lock.text(pinning.make(release(version), records))


@pytest.mark.parametrize("version", supported())
def test_every_program_is_in_one_part_or_built_from_modules(version: str) -> None:
    wanted, pinned = release(version), lock.read(version)
    had: list[parts.Part] = [
        *(file for file in parts.files(wanted) if file.name in pinned.files),
        *(image for image in parts.all_images(wanted) if image.name in pinned.images),
    ]
    rest = {Path(program).name for program in parts.without(wanted, had)}
    assert rest == FROM_MODULES[version]
    twice = [program for part in had for program in part.programs]
    assert len(twice) == len(set(twice))


@pytest.mark.parametrize("version", supported())
def test_every_image_that_kubeadm_asks_for_is_pinned_or_made_here(
    version: str, records: dict[str, Any]
) -> None:
    wanted, pinned = release(version), lock.read(version)
    asked = records["kubernetes"].get(version)
    if isinstance(asked, dict):  # what kubeadm's source says of these, but for etcd, which the kit pins itself
        assert asked["kubeadm_wants"]["coredns"] == f"v{wanted.coredns}"
        assert asked["kubeadm_wants"]["pause"] == wanted.pause
    for image in parts.all_images(wanted):
        built = {Path(program).name for program in image.programs} <= FROM_MODULES[version]
        proxy = image.name.startswith("registry.k8s.io/kube-proxy:") and "kube-proxy" in pinned.files
        assert (image.name in pinned.images) is not (built or proxy), image.name
    assert set(parts.image_names(wanted)) <= {image.name for image in parts.all_images(wanted)}


@pytest.mark.parametrize("version", supported())
def test_a_lock_names_nothing_that_this_version_does_not_have(version: str) -> None:
    wanted, pinned = release(version), lock.read(version)
    versions = {file.name: file.version for file in parts.files(wanted)}
    assert {name: each.version for name, each in pinned.files.items()}.items() <= versions.items()
    assert set(pinned.images) <= {image.name for image in parts.all_images(wanted)}


@pytest.mark.parametrize("version", supported())
def test_files_are_pinned_for_every_architecture(version: str) -> None:
    for name, file in lock.read(version).files.items():
        assert set(file.hashes) == {"amd64", "arm64"}, name
        assert len({each.sha256 for each in file.hashes.values()}) == 2, name


@pytest.mark.parametrize("version", supported())
def test_every_hash_is_in_the_records_with_exactly_those_sources(version: str) -> None:
    text = RECORDS.read_text(encoding="utf-8")
    pinned = lock.read(version)
    for each in pinned.hashes:
        line = next(line for line in text.splitlines() if each.sha256 in line)
        assert f"agree: {len(each.sources)}, sources: [{', '.join(each.sources)}]" in line
        assert each.single_source is ("single_source: true" in line.partition(each.sha256)[2].partition("}")[0])
    assert set(pinned.sources) == {
        label for each in pinned.hashes for label in (*each.sources, each.prefix12) if label
    }


# The script.


def test_the_script_writes_all_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    assert pinning.main([str(RECORDS)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(supported())
    said = capsys.readouterr().out
    assert "6 of 22 hashes have only one source" in said
    assert "git diff" in said


def test_the_script_is_told_what_to_read() -> None:
    words = ["bash", str(REPOSITORY / "supply" / "pin-upstream")]
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 2
    assert "RECORDS" in done.stderr


def of_kubelet(records: dict[str, Any]) -> Any:
    return records["kubernetes"]["1.36.3"]["binaries"]["kubelet"]["amd64"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 63}, "the record must be a hash with its sources"),
        ({"sha256": None}, "the record must be a hash with its sources"),
        ({"more": 1}, "the record must be a hash with its sources"),
        ({"sources": ["kubespray"]}, "the record must be a hash with its sources"),  # and no mark
        ({"agree": 3}, "`agree` is 3, but 2 sources are listed"),
        ({"sources": ["kops", "kops"]}, "`agree` is 2, but 1 sources are listed"),
        ({"sources": ["kops", "nobody"]}, "sources lacks nobody"),
    ],
)
def test_a_record_that_can_t_be_used_is_named_and_nothing_is_made(
    records: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    spoilt = copy.deepcopy(records)
    of_kubelet(spoilt).update(change)
    with pytest.raises(ConfigError, match=said) as caught:
        pinning.make(release("1.36.3"), spoilt)
    assert len(caught.value.problems) == 1


def test_all_wrong_records_are_named_at_once(records: dict[str, Any]) -> None:
    spoilt = copy.deepcopy(records)
    of_kubelet(spoilt)["agree"] = 7
    spoilt["images"]["pause"]["3.10.2"]["index"]["sha256"] = "x"
    with pytest.raises(ConfigError) as caught:
        pinning.make(release("1.36.3"), spoilt)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "images.pause.3.10.2.index",
        "kubernetes.1.36.3.binaries.kubelet.amd64",
    ]


def test_a_file_without_a_record_for_each_architecture_is_left_to_modules(records: dict[str, Any]) -> None:
    fewer = copy.deepcopy(records)
    fewer["files"]["crictl"]["1.37.0"]["arm64"] = "missing"
    assert "crictl" not in pinning.make(release("1.36.3"), fewer).files


def test_what_the_hosts_said_adds_a_source_and_takes_the_mark_away(records: dict[str, Any]) -> None:
    sha256 = records["files"]["crictl"]["1.37.0"]["amd64"]["sha256"]
    asked = {"sha256": sha256, "agree": 1, "sources": ["upstream"], "single_source": True}
    hosts = {
        "format": 1,
        "files": {"crictl": {"1.37.0": {"amd64": asked}}},
        "sources": {"upstream": {"path": "asked"}},
    }
    crictl = pinning.make(release("1.36.3"), records, hosts).files["crictl"].hashes
    assert crictl["amd64"].sources == ("kyvnode", "upstream")
    assert (crictl["amd64"].single_source, crictl["arm64"].single_source) == (False, True)


def test_records_that_contradict_one_another_are_refused(records: dict[str, Any]) -> None:
    asked = {"sha256": "0" * 64, "agree": 1, "sources": ["upstream"], "single_source": True}
    hosts = {
        "format": 1,
        "files": {"crictl": {"1.37.0": {"amd64": asked}}},
        "sources": {"upstream": {"path": "asked"}},
    }
    with pytest.raises(ConfigError, match=r"files\.crictl\.1\.37\.0\.amd64: records contradict one another"):
        pinning.make(release("1.36.3"), records, hosts)


@pytest.mark.parametrize("content", [b"", b"- a", b"{format: 2}", b"\xff", b"{"])
def test_what_is_no_file_of_records_is_refused(tmp_path: Path, content: bytes, capsys: Any) -> None:
    (tmp_path / "records.yaml").write_bytes(content)
    assert pinning.main([str(tmp_path / "records.yaml")]) == 2
    assert "tests/supply/records.yaml is one" in capsys.readouterr().err


def test_a_file_of_records_that_is_not_there_is_named(tmp_path: Path, capsys: Any) -> None:
    assert pinning.main([str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_records_name_no_registry_of_packages() -> None:
    """Nothing here may name one; these are sources of containers and files only."""
    text = yaml.safe_dump(pinning.read(RECORDS))
    assert "pypi" not in text
