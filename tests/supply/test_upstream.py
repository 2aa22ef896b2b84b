"""Kubernetes from upstream's packages and images: what comes of it, and of everything that can go wrong."""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errors import CommandFailed, LabError
from lab.golden.supply import bom, hosts, images, lock, oci, recipe, registry, releases, source, upstream
from lab.model import Mirrors
from lab.session import Session, open_wanted
from lab.system import proxies
from lab.verbs import bake
from tests.supply.conftest import VERSION, Built, Upstream
from tests.supply.standins import Faults, SigningKey, web_server
from tests.unit.fakes import printed, program

ANYWHERE = "127.0.0.1:1"
"""Nothing listens there."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE", 4)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """For a host that never answers: of PATIENCE, apt has half."""
    monkeypatch.setattr(hosts, "PATIENCE", 2)


def refused(stand_in: Upstream, *words: str, mirrors: Mirrors | None = None) -> LabError:
    """What `build` raises: it says these words, what to do, and has left nothing that anybody would take."""
    with pytest.raises(LabError) as caught:
        stand_in.build(mirrors)
    error = caught.value
    for word in words:
        assert word in error.message
    assert error.hint
    assert error.log is not None
    assert error.log.is_file()
    assert stand_in.nothing_under_its_name()
    return error


# What comes of it.


def test_the_lock_pins_versions_sums_and_digests(stand_in: Upstream) -> None:
    made = stand_in.pin()
    assert lock.write(made) == lock.path(VERSION)
    assert lock.read(VERSION) == made == stand_in.lock
    assert {name: package.version for name, package in made.packages.items()} == {
        **{name: f"{VERSION}-1.1" for name in ("kubeadm", "kubelet", "kubectl")},
        "cri-tools": "1.36.0-1.1",
        "kubernetes-cni": "1.8.0-1.1",
    }
    assert {name.rpartition("/")[2].partition(":")[0] for name in made.images} == {
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns"),
        *("pause", "flannel", "flannel-cni-plugin", "kube-router"),
        *("metrics-server", "local-path-provisioner"),
    }
    assert made.images[f"registry.k8s.io/kube-proxy:v{VERSION}"] == stand_in.registry.digest(
        f"kube-proxy:v{VERSION}"
    )
    assert "BEGIN PGP PUBLIC KEY BLOCK" in lock.path(VERSION).read_text()


def session_of(stand_in: Upstream, folder: Path) -> Session:
    data = {"kubernetes": {"source": "upstream"}, "mirrors": stand_in.mirrors.model_dump(exclude_defaults=True)}
    (folder / "lab.yaml").write_text(yaml.safe_dump(data))
    return open_wanted(folder / "lab.yaml", printed()[0])


def test_the_verb_writes_the_lock_by_what_lab_yaml_says(
    stand_in: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.path(VERSION).unlink()
    session = session_of(stand_in, tmp_path)
    with pytest.raises(LabError, match=r"another key than the pinned one"):  # which is upstream's own
        bake.pin(session, consent=False)
    assert not lock.path(VERSION).exists()
    pinned = releases.Upstream(packages="https://packages.invalid", signed_by=stand_in.key.fingerprint)
    monkeypatch.setattr(releases, "upstream", lambda: pinned)
    assert bake.pin(session, consent=False) == lock.path(VERSION)
    assert lock.read(VERSION) == stand_in.lock


def test_without_a_lock_nothing_is_tried(stand_in: Upstream, tmp_path: Path) -> None:
    lock.path(VERSION).unlink()
    stand_in.faults.asked.clear()
    with pytest.raises(
        LabError, match=r"Kubernetes 1\.36\.3 can't be taken from upstream: .* not pinned"
    ) as caught:
        bake.bake(session_of(stand_in, tmp_path), consent=True)
    assert "./inv lock" in caught.value.hint
    assert stand_in.faults.asked == []


def test_the_folder_has_the_files_that_a_build_from_modules_has(built: Built) -> None:
    folder = built.folder
    assert {path.name for path in folder.iterdir()} == {"bin", "cni", "images", "kube-flannel.yml", "bom.json"}
    assert {path.name for path in (folder / "cni").iterdir()} == {
        "flannel",
        *(plugin.partition("/")[2] for plugin in recipe.CNI_PLUGINS),
    }
    installed = {"kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl"}  # by provision/golden/make.sh
    assert {path.name for path in (folder / "bin").iterdir()} == installed | {"crictl"}
    programs = [*(folder / "bin").iterdir(), *(folder / "cni").iterdir()]
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in programs)
    assert (folder / "bin" / "etcdctl").read_text().endswith("echo etcdctl\n")
    assert (folder / "cni" / "flannel").read_text().endswith("echo flannel\n")


def test_images_have_the_names_that_kubeadm_asks_for(built: Built, tmp_path: Path) -> None:
    folder, out = built.folder, tmp_path / "images"
    tools = tmp_path / "tools.tar"
    tarfile.open(tools, "w").close()
    archives = images.write_images(folder, built.release, tools, out)
    names = (out / images.NAMES).read_text().splitlines()
    assert names == list(images.image_names(folder, built.release))
    for archive, name in zip(archives, names, strict=True):
        with tarfile.open(archive) as content:
            index = content.extractfile("index.json")
            assert index is not None
            (entry,) = json.loads(index.read())["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == name


def test_the_bill_says_what_is_upstreams(built: Built) -> None:
    bill = bom.read(built.folder / "bom.json")
    assert {material.kind for material in bill} == {"upstream-package", "upstream-image"}
    by_name = {material.name: material for material in bill}
    assert by_name["kubelet"].version == f"{VERSION}-1.1"
    assert by_name["kubelet"].checksum == f"sha256:{built.lock.packages['kubelet'].sha256['amd64']}"
    etcd = by_name["registry.k8s.io/etcd"]
    assert etcd.checksum == built.lock.images[f"registry.k8s.io/etcd:{built.release.etcd_tag}"]
    assert etcd.used_in == ("etcdctl", "etcdutl")


def test_what_is_whole_is_not_fetched_again(stand_in: Upstream) -> None:
    folder = stand_in.build()
    stand_in.faults.asked.clear()
    assert stand_in.build(Mirrors(kubernetes_packages=f"http://{ANYWHERE}")) == folder
    assert stand_in.faults.asked == []


def test_another_lock_is_another_folder_and_a_renewed_key_is_not(stand_in: Upstream) -> None:
    before = upstream.key(stand_in.release)
    stand_in.change_lock(key="renewed")
    assert upstream.key(stand_in.release) == before
    name = next(iter(stand_in.lock.images))
    stand_in.change_lock(images=stand_in.lock.images | {name: f"sha256:{'0' * 64}"})
    assert upstream.key(stand_in.release) != before


# Packages that are not what was pinned.


def test_an_index_signed_by_a_foreign_key_is_refused(stand_in: Upstream, foreign_key: SigningKey) -> None:
    stand_in.repository.publish(foreign_key)
    error = refused(stand_in, "another key than the pinned one", stand_in.web.removeprefix("http://"))
    assert "do not use it" in error.hint


def test_a_lock_is_not_made_of_what_a_foreign_key_signed(stand_in: Upstream, foreign_key: SigningKey) -> None:
    stand_in.repository.publish(foreign_key)  # and gives that key away as its own
    with pytest.raises(LabError, match=r"another key than the pinned one"):
        stand_in.pin()
    assert lock.read(VERSION) == stand_in.lock


def test_an_index_that_was_changed_is_refused(stand_in: Upstream) -> None:
    index = stand_in.repository.folder / "InRelease"
    index.write_text(index.read_text().replace("Origin: stand-in", "Origin: somebody"))
    refused(stand_in, "not the one that was signed")


def test_an_index_without_a_signature_is_refused(stand_in: Upstream) -> None:
    for name in ("InRelease", "Release.gpg"):
        (stand_in.repository.folder / name).unlink()
    refused(stand_in, "its index is not signed")


def test_a_package_that_is_not_the_indexs_is_refused(stand_in: Upstream) -> None:
    (package,) = stand_in.repository.folder.glob("*/kubelet_*.deb")
    content = bytearray(package.read_bytes())
    content[-3] ^= 1
    package.write_bytes(content)
    refused(stand_in, f"the package kubelet {VERSION}-1.1", "not the one that its index names")


def test_a_package_that_is_well_signed_and_not_the_pinned_one_is_refused(
    stand_in: Upstream, tmp_path: Path
) -> None:
    other = program(tmp_path, "kubelet", "echo made anew")
    stand_in.repository.add("kubelet", f"{VERSION}-1.1", {"/usr/bin/kubelet": other})
    stand_in.repository.publish(stand_in.key)
    error = refused(stand_in, f"the package kubelet {VERSION}-1.1", "another sum than the pinned one")
    assert "./inv lock" in error.hint


@pytest.mark.whole
def test_a_version_that_is_gone_is_named(stand_in: Upstream) -> None:
    next(stand_in.repository.folder.glob("*/kubectl_*.deb")).unlink()
    stand_in.repository.add("kubectl", "1.36.4-1.1", {})
    stand_in.repository.publish(stand_in.key)
    refused(stand_in, f"the package kubectl {VERSION}-1.1", "it has no such version")
    with pytest.raises(LabError, match=r"no package kubectl 1\.36\.3 .*it has: 1\.36\.4-1\.1"):
        stand_in.pin()


@pytest.mark.whole
def test_a_package_without_its_program_is_named(stand_in: Upstream, key: SigningKey) -> None:
    stand_in.repository.add("kubelet", f"{VERSION}-1.1", {})
    stand_in.repository.publish(key)
    stand_in.change_lock(packages=stand_in.pin().packages)
    with pytest.raises(LabError, match=r"the package kubelet .* has no kubelet"):
        stand_in.build()
    assert stand_in.nothing_under_its_name()


# Images that are not what was pinned.


@pytest.fixture
def liar(stand_in: Upstream, tmp_path: Path) -> Iterator[Mirrors]:
    """A registry that answers any digest of pause with another manifest."""
    digest = stand_in.lock.images[f"registry.k8s.io/pause:{stand_in.release.pause}"]
    place = tmp_path / "liar" / "v2" / "pause" / "manifests"
    place.mkdir(parents=True)
    data = stand_in.registry.blobs / digest[7:9] / digest[7:] / "data"
    (place / digest).write_bytes(data.read_bytes() + b"\n")
    with web_server(tmp_path / "liar", Faults()) as web:
        yield stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": web}})


def test_an_image_of_another_digest_is_refused(stand_in: Upstream, liar: Mirrors, tmp_path: Path) -> None:
    name = f"registry.k8s.io/pause:{stand_in.release.pause}"
    with pytest.raises(LabError, match=r"pause.*the download has another digest") as caught:
        registry.fetch(name, stand_in.lock.images[name], liar, tmp_path / "layout", tmp_path / "log")
    assert "do not use it" in caught.value.hint


@pytest.mark.whole
def test_an_image_with_changed_bytes_is_refused(stand_in: Upstream) -> None:
    largest = max(stand_in.registry.blobs.glob("*/*/data"), key=lambda path: path.stat().st_size)
    stand_in.registry.spoil(largest.parent.name)
    refused(stand_in, "another digest", stand_in.registry.host)


def test_an_image_that_is_not_there_is_named(stand_in: Upstream) -> None:
    name = f"registry.k8s.io/kube-proxy:v{VERSION}"
    stand_in.change_lock(images=stand_in.lock.images | {name: f"sha256:{'0' * 64}"})
    refused(stand_in, f"the image {name}", stand_in.registry.host, "no image of that digest")


def etcd_without(stand_in: Upstream, programs: Path, tool: str) -> None:
    """Let upstream's etcd image lack a program, and pin it so."""
    name = f"registry.k8s.io/etcd:{stand_in.release.etcd_tag}"
    tools = {
        f"/usr/local/bin/{each}": programs / each for each in ("etcd", "etcdctl", "etcdutl") if each != tool
    }
    stand_in.registry.push_files(name.partition("/")[2], tools)
    stand_in.change_lock(images=stand_in.pin().images)


@pytest.mark.whole
def test_an_etcd_image_without_etcdctl_is_named(stand_in: Upstream, programs: Path) -> None:
    etcd_without(stand_in, programs, "etcdctl")
    refused(stand_in, "registry.k8s.io/etcd", "has no /usr/local/bin/etcdctl")


@pytest.mark.whole
def test_an_etcd_image_may_lack_etcdutl(stand_in: Upstream, programs: Path) -> None:
    etcd_without(stand_in, programs, "etcdutl")
    folder = stand_in.build()
    assert {path.name for path in (folder / "bin").glob("etcd*")} == {"etcdctl"}
    etcd = next(each for each in bom.read(folder / "bom.json") if each.name == "registry.k8s.io/etcd")
    assert etcd.used_in == ("etcdctl",)


@pytest.mark.whole
def test_a_lock_that_lacks_an_image_which_kubeadm_asks_for_is_named(stand_in: Upstream) -> None:
    fewer = {name: digest for name, digest in stand_in.lock.images.items() if "coredns" not in name}
    stand_in.change_lock(images=fewer)
    with pytest.raises(LabError, match=r"does not pin registry.k8s.io/coredns/coredns"):
        stand_in.build()
    assert stand_in.nothing_under_its_name()


@pytest.fixture
def listed(stand_in: Upstream, programs: Path) -> str:
    """pause, as upstream has it: a list of images for several architectures."""
    name = f"registry.k8s.io/pause:{stand_in.release.pause}"
    files = {arch: {"/pause": programs / program} for arch, program in (("arm64", "etcd"), ("amd64", "pause"))}
    stand_in.registry.push_list(name.partition("/")[2], files)
    return name


@pytest.mark.parametrize(("arch", "program"), [("amd64", "pause"), ("arm64", "etcd")])
def test_of_a_list_of_images_this_hosts_own_is_taken(
    stand_in: Upstream,
    listed: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arch: str,
    program: str,
) -> None:
    monkeypatch.setattr(registry, "architecture", lambda: arch)
    digest = registry.digest(listed, stand_in.mirrors)
    registry.fetch(listed, digest, stand_in.mirrors, tmp_path / "layout", tmp_path / "log")
    assert oci.take_file(tmp_path / "layout", "/pause", tmp_path / "pause")
    assert (tmp_path / "pause").read_text().endswith(f"echo {program}\n")


def test_a_list_without_this_hosts_architecture_is_named(
    stand_in: Upstream, listed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "architecture", lambda: "riscv64")
    digest = registry.digest(listed, stand_in.mirrors)
    with pytest.raises(LabError, match=r"none for this host's kind of processor"):
        registry.fetch(listed, digest, stand_in.mirrors, tmp_path / "layout", tmp_path / "log")


# Hosts that do not answer, or do not want to.


@pytest.mark.usefixtures("hasty")
def test_a_registry_that_says_nothing_is_given_up_soon(stand_in: Upstream, tmp_path: Path) -> None:
    with web_server(tmp_path, Faults(hangs="v2")) as web:
        mute = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": web}})
        started = time.monotonic()
        refused(stand_in, web.removeprefix("http://"), "it does not answer", mirrors=mute)
        assert time.monotonic() - started < 15


@pytest.mark.whole
@pytest.mark.usefixtures("hasty")
def test_a_registry_that_falls_silent_in_the_middle_is_given_up_soon(
    stand_in: Upstream, tmp_path: Path
) -> None:
    name = f"registry.k8s.io/pause:{stand_in.release.pause}"
    digest = stand_in.lock.images[name]
    place = tmp_path / "half" / "v2" / "pause" / "manifests"
    place.mkdir(parents=True)
    (place / digest).write_bytes((stand_in.registry.blobs / digest[7:9] / digest[7:] / "data").read_bytes())
    with web_server(tmp_path / "half", Faults(hangs="blobs")) as web:
        mute = Mirrors(images={"registry.k8s.io": web})
        started = time.monotonic()
        with pytest.raises(LabError, match=r"pause.*it does not answer"):
            registry.fetch(name, digest, mute, tmp_path / "layout", tmp_path / "log")
        assert time.monotonic() - started < 15


@pytest.mark.whole
@pytest.mark.usefixtures("hasty")
def test_a_repository_that_says_nothing_is_given_up_soon(stand_in: Upstream) -> None:
    stand_in.faults.hangs = "Release"
    started = time.monotonic()
    refused(stand_in, stand_in.web.removeprefix("http://"), "it does not answer")
    assert time.monotonic() - started < 15


def test_a_repository_that_refuses_is_named(stand_in: Upstream) -> None:
    stand_in.faults.refuses = "Release"
    refused(stand_in, stand_in.web.removeprefix("http://"), "it refuses (403)")


def test_a_repository_where_nothing_is_is_named(stand_in: Upstream) -> None:
    elsewhere = stand_in.mirrors.model_copy(update={"kubernetes_packages": f"{stand_in.web}/nothing"})
    refused(stand_in, stand_in.web.removeprefix("http://"), "(404)", mirrors=elsewhere)


@pytest.mark.whole
def test_a_registry_that_refuses_is_named(stand_in: Upstream, tmp_path: Path) -> None:
    with web_server(tmp_path, Faults(refuses="v2")) as web:
        closed = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": web}})
        refused(stand_in, web.removeprefix("http://"), "it refuses (403)", mirrors=closed)


@pytest.mark.parametrize("kind", ["packages", "images"])
def test_a_host_where_nobody_listens_is_named(stand_in: Upstream, kind: str) -> None:
    nobody = f"http://{ANYWHERE}"
    gone: dict[str, dict[str, Any]] = {
        "packages": {"kubernetes_packages": nobody},
        "images": {"images": {"registry.k8s.io": nobody}},
    }
    error = refused(
        stand_in, ANYWHERE, "connection refused", mirrors=stand_in.mirrors.model_copy(update=gone[kind])
    )
    assert "proxy" in error.hint


def test_numbers_in_ports_and_digests_mean_nothing() -> None:
    failed = CommandFailed(
        ["skopeo", "127.0.0.1:40401", "sha256:403404"], "ended with exit code 1", tail="E: odd: 40301"
    )
    with (
        pytest.raises(LabError, match=r"^it can't be had from here: E: odd: 40301$") as caught,
        hosts.explained("it", "here"),
    ):
        raise failed
    assert "the log has all it said" in caught.value.hint


@pytest.mark.whole
def test_what_came_whole_is_kept_for_the_next_try(stand_in: Upstream) -> None:
    name = "ghcr.io/flannel-io/flannel-cni-plugin"
    last = next(each for each in stand_in.lock.images if each.startswith(name))
    digest = stand_in.lock.images[last]
    data = stand_in.registry.blobs / digest[7:9] / digest[7:] / "data"
    kept = data.read_bytes()
    stand_in.registry.spoil(digest)
    refused(stand_in, last)
    data.write_bytes(kept)
    stand_in.faults.asked.clear()
    folder = stand_in.build()
    assert not [path for path in stand_in.faults.asked if path.endswith(".deb")]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_lock_is_not_made_of_digests_that_anyone_could_have_changed(stand_in: Upstream) -> None:
    before = lock.path(VERSION).read_text()
    far = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": "http://registry.invalid:5000"}})
    with pytest.raises(LabError, match=r"registry.invalid:5000 is asked without TLS"):
        stand_in.pin(far)
    assert lock.path(VERSION).read_text() == before


# What `auto` comes to.


def test_auto_takes_upstream_where_it_answers(stand_in: Upstream) -> None:
    assert source.choose(stand_in.release, "auto", stand_in.mirrors, stand_in.progress) == "upstream"


def test_auto_builds_from_modules_where_upstream_is_silent_for_three_seconds(stand_in: Upstream) -> None:
    stand_in.faults.hangs = "Release"
    started = time.monotonic()
    assert source.choose(stand_in.release, "auto", stand_in.mirrors, stand_in.progress) == "modules"
    assert 2.5 < time.monotonic() - started < 5


def test_auto_builds_from_modules_where_the_registry_is_gone(stand_in: Upstream) -> None:
    gone = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": f"http://{ANYWHERE}"}})
    assert source.choose(stand_in.release, "auto", gone, stand_in.progress) == "modules"


def test_auto_asks_nobody_where_nothing_is_pinned(stand_in: Upstream) -> None:
    lock.path(VERSION).unlink()
    stand_in.faults.asked.clear()
    assert source.choose(stand_in.release, "auto", stand_in.mirrors, stand_in.progress) == "modules"
    assert stand_in.faults.asked == []


# Through a proxy.

PASSWORD = "pa55word"  # noqa: S105  the tests' own


@pytest.fixture
def proxy(stand_in: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A proxy that knows upstream's hosts by names which nobody else does."""
    for name in (*proxies.NAMES, *(name.upper() for name in proxies.NAMES)):
        monkeypatch.delenv(name, raising=False)
    seen = Faults()
    with web_server(stand_in.repository.host, seen) as web:
        monkeypatch.setenv("HTTP_PROXY", web.replace("://", f"://ada:{PASSWORD}@"))  # in capitals only
        yield seen


def test_packages_come_through_the_proxy_and_its_password_is_nowhere(stand_in: Upstream, proxy: Faults) -> None:
    far = stand_in.mirrors.model_copy(update={"kubernetes_packages": "http://packages.invalid"})
    stand_in.build(far)
    assert any(path.startswith("http://packages.invalid/core:/stable:/v1.36/deb/") for path in proxy.asked)
    assert any("ada" in login for login in proxy.logins)
    assert "packages.invalid" in stand_in.log
    assert PASSWORD not in stand_in.log


def test_a_registry_is_asked_through_the_proxy(stand_in: Upstream, proxy: Faults) -> None:
    far = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": "http://registry.invalid"}})
    error = refused(stand_in, "registry.invalid", mirrors=far)  # the proxy is no registry
    assert any(path.startswith("http://registry.invalid/v2/") for path in proxy.asked)
    assert PASSWORD not in stand_in.log + error.message


# What is no lock.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a lock"),
        ("kubernetes: 1.36.3\n", "is not a lock"),
        ("{", "is not a lock"),
        ("\xff", "is not a lock"),
    ],
)
def test_a_file_that_is_no_lock_is_said_to_be_none(stand_in: Upstream, text: str, said: str) -> None:
    lock.path(VERSION).write_text(text, encoding="latin-1")
    with pytest.raises(LabError, match=said) as caught:
        stand_in.build()
    assert "./inv lock" in caught.value.hint


def test_another_versions_lock_is_not_taken(stand_in: Upstream) -> None:
    lock.path(VERSION).rename(lock.path("1.37.2"))
    with pytest.raises(LabError, match=re.escape("is the lock of Kubernetes 1.36.3")):
        lock.read("1.37.2")
    with pytest.raises(LabError, match=r"are not pinned") as caught:
        stand_in.build()
    assert "./inv lock" in caught.value.hint
    assert "modules" in caught.value.hint
