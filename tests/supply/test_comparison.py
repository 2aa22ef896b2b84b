"""`lock` compares every pinned hash with what the hosts say, reports what differs, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lab.errors import LabError
from lab.golden.supply import comparison, lock, parts, pinning
from lab.golden.supply.comparison import Compared, Verdict
from lab.golden.supply.lock import Hash
from lab.model import Mirrors
from lab.verbs import compared
from tests.supply.conftest import VERSION, Upstream
from tests.supply.standins import Fault


def compare(stand_in: Upstream, mirrors: Mirrors | None = None) -> tuple[Compared, ...]:
    before = {path: path.read_bytes() for path in lock.FOLDER.iterdir()} if lock.FOLDER.exists() else {}
    found = comparison.compare(stand_in.release, mirrors or stand_in.mirrors, stand_in.progress)
    assert before == {path: path.read_bytes() for path in lock.FOLDER.iterdir()}
    return found


ARCHITECTURES = ("amd64", "arm64")


def titles(found: tuple[Compared, ...], verdict: Verdict) -> list[str]:
    return [each.title for each in found if each.verdict == verdict]


def printed(found: tuple[Compared, ...], tmp_path: Path) -> str:
    with (tmp_path / "printed").open("w+") as file:
        Console(file=file, width=300).print(compared.shown(found))
        file.seek(0)
        return file.read()


def test_hosts_that_have_what_is_pinned_are_all_the_same(stand_in: Upstream, tmp_path: Path) -> None:
    found = compare(stand_in)
    assert [each.problem for each in found if each.problem] == []
    assert len(titles(found, "same")) == 22
    assert titles(found, "differs") == titles(found, "no answer") == []
    assert titles(found, "not pinned") == [
        f"the image registry.k8s.io/kube-proxy:v{VERSION}",
        f"the image registry.k8s.io/etcd:{stand_in.release.etcd_tag}",
        f"the image {stand_in.release.kube_router_image}",
        f"the image docker.io/rancher/local-path-provisioner:v{stand_in.release.local_path}",
    ]
    assert compared.exit_code(found) == 0
    assert "22 same, 4 not pinned" in printed(found, tmp_path)


def test_every_difference_is_reported_with_both_hashes(stand_in: Upstream, tmp_path: Path) -> None:
    pinned = stand_in.lock.files["kubelet"]
    other = Hash(sha256="0" * 64, sources=("stand-in", "other"))
    pause = f"registry.k8s.io/pause:{stand_in.release.pause}"
    stand_in.change_lock(
        files=stand_in.lock.files
        | {"kubelet": pinned.model_copy(update={"hashes": pinned.hashes | {"arm64": other}})},
        images=stand_in.lock.images | {pause: other},
    )
    found = compare(stand_in)
    assert titles(found, "differs") == ["kubelet 1.36.3 for arm64", f"the image {pause}"]
    said = printed(found, tmp_path)
    assert f"kubelet 1.36.3 for arm64: pinned {'0' * 64}, the host has {pinned.hashes['arm64'].sha256}" in said
    assert "No pin was changed" in said
    assert compared.exit_code(found) == 80


def test_a_host_that_does_not_answer_is_no_difference(stand_in: Upstream, tmp_path: Path) -> None:
    stand_in.site.faults = [Fault("status", at="/github.com/", status=404), Fault("page", at="/get.helm.sh/")]
    found = compare(stand_in)
    of_github = [
        f"{name} for {arch}" for name in ("cni-plugins 1.9.1", "crictl 1.37.0") for arch in ARCHITECTURES
    ]
    assert titles(found, "not available") == of_github
    assert titles(found, "no answer") == [f"helm 4.3.0 for {arch}" for arch in ARCHITECTURES]
    assert compared.exit_code(found) == 1
    said = printed(found, tmp_path)
    assert "it does not have it (404)" in said
    assert "it answers with a web page" in said


@pytest.mark.parametrize(("at", "code"), [("/crictl", 1), ("/kube-router/", 0)])
def test_a_host_that_lacks_a_part_matters_where_it_is_pinned(stand_in: Upstream, at: str, code: int) -> None:
    stand_in.site.faults = [Fault("status", at=at, status=404)]
    found = compare(stand_in)
    assert titles(found, "not available")
    assert compared.exit_code(found) == code


def test_records_are_only_of_upstreams_own_hosts() -> None:
    comparison.require_own_hosts(Mirrors(go="https://mirror.example/go"))
    for mirrors in (
        Mirrors(files={"dl.k8s.io": "https://mirror.example/k8s"}),
        Mirrors(images={"ghcr.io": "mirror.example/ghcr"}),
    ):
        with pytest.raises(LabError, match=r"lab\.yaml names mirrors") as caught:
            comparison.require_own_hosts(mirrors)
        assert "--lab FILE" in caught.value.hint


def test_nothing_is_believed_that_anyone_on_the_way_could_say(stand_in: Upstream) -> None:
    far = Mirrors(
        files=dict.fromkeys(parts.file_hosts(), "http://files.invalid"),
        images=dict.fromkeys(("registry.k8s.io", "ghcr.io", "docker.io"), "http://registry.invalid"),
    )
    found = compare(stand_in, far)
    assert {each.verdict for each in found} == {"no answer"}
    assert all("it has no TLS" in each.problem for each in found)
    assert stand_in.site.asked == []


def test_without_a_lock_everything_is_asked_for_and_can_be_pinned(stand_in: Upstream) -> None:
    lock.path(VERSION).unlink()
    found = compare(stand_in)
    assert {each.verdict for each in found} == {"not pinned"}
    records = yaml.safe_load(comparison.records(stand_in.release, found))
    made = pinning.make(stand_in.release, records)
    assert set(made.images) == {image.name for image in parts.all_images(stand_in.release)}
    assert set(made.files) == {file.name for file in parts.files(stand_in.release)} - {"kube-proxy"}
    assert all(each.sources == ("upstream",) and each.single_source for each in made.hashes)
    assert made.files["kubelet"].hashes["arm64"].sha256 == stand_in.lock.files["kubelet"].hashes["arm64"].sha256


def test_a_file_of_hashes_that_has_none_is_no_answer(stand_in: Upstream) -> None:
    for path in [path for path in stand_in.site.contents if path.endswith(".sha256") and "/crictl" in path]:
        stand_in.site.contents[path] = b"nothing\n"
    found = compare(stand_in)
    assert titles(found, "no answer") == [f"crictl 1.37.0 for {arch}" for arch in ARCHITECTURES]
    assert any("its .sha256 file contains no hash" in each.problem for each in found)


def test_a_file_that_is_pinned_in_another_version_is_not_pinned(stand_in: Upstream) -> None:
    older = stand_in.lock.files["crictl"].model_copy(update={"version": "1.30.0"})
    stand_in.change_lock(files=stand_in.lock.files | {"crictl": older})
    found = compare(stand_in)
    assert titles(found, "differs") == []
    assert [f"crictl 1.37.0 for {arch}" for arch in ARCHITECTURES] == titles(found, "not pinned")[:2]


@pytest.mark.parametrize("mark", ["", "\n"])
def test_a_file_of_hashes_is_read_with_and_without_a_name(stand_in: Upstream, mark: str) -> None:
    for path in [path for path in stand_in.site.contents if path.endswith(".sha256")]:
        content = stand_in.site.contents[path]
        assert isinstance(content, bytes)
        stand_in.site.contents[path] = content.split()[0] + mark.encode()
    assert titles(compare(stand_in), "no answer") == []
