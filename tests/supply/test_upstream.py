"""Kubernetes from upstream's files and images: what comes of it, and of everything that can go wrong."""

from __future__ import annotations

import copy
import json
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.golden.supply import bom, hosts, images, lock, modules, parts, recipe, source, upstream
from lab.golden.supply.lock import Hash
from lab.model import Mirrors
from lab.system import process
from lab.system.paths import PROVISION
from tests.supply.conftest import VERSION, Built, Made, Upstream, names_in
from tests.supply.standins import Fault, Kind, served, tar_gz

NOWHERE = "http://127.0.0.1:1"
"""Nothing listens there."""

NO_RECORD = ["etcd", "etcdctl", "etcdutl", "kube-router", "local-path-provisioner"]
"""What the lock of this version lacks."""


def text(folder: Path, program: str) -> str:
    """What a program of a folder prints, as its script has it."""
    return (folder / program).read_text().strip().splitlines()[-1].removeprefix("echo ")


def missed(stand_in: Upstream) -> list[str]:
    """The remarks about what was not taken."""
    return [each for each in stand_in.progress.remarks if each.startswith("not downloaded ")]


def from_modules(stand_in: Upstream) -> list[str]:
    """The programs that were built for want of upstream's."""
    return [name for each in stand_in.modules.asked if (name := Path(each).name) not in NO_RECORD]


# What comes of it.


def test_the_folder_has_the_files_that_a_build_from_modules_has(built: Built) -> None:
    folder = built.folder
    assert {path.name for path in folder.iterdir()} == {"bin", "cni", "images", "kube-flannel.yml", "bom.json"}
    assert {path.name for path in (folder / "cni").iterdir()} == {
        "flannel",
        *(plugin.partition("/")[2] for plugin in recipe.CNI_PLUGINS),
    }
    installed = {"kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl", "crictl", "helm"}  # by make.sh
    in_images = {"kube-proxy", "etcd", "kube-router", "local-path-provisioner"}
    assert {path.name for path in (folder / "bin").iterdir()} == installed | in_images
    programs = [*(folder / "bin").iterdir(), *(folder / "cni").iterdir()]
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in programs)


def test_unit_files_are_the_kit_s_own_and_start_what_either_source_gives(built: Built) -> None:
    units = PROVISION / "files" / "usr" / "lib" / "systemd" / "system"
    dropin = (units / "kubelet.service.d" / "10-kubeadm.conf").read_text()
    assert "ExecStart=/usr/bin/kubelet $" in dropin
    assert (units / "kubelet.service").is_file()
    make = (PROVISION / "golden" / "make.sh").read_text()
    assert '{kubeadm,kubelet,kubectl,etcdctl,etcdutl,crictl,helm} "$root/usr/bin/"' in make
    assert [path for path in built.folder.rglob("*") if path.suffix in (".service", ".conf")] == []


def test_programs_are_upstream_s_but_for_what_no_record_has(built: Built) -> None:
    for name in ("kubelet", "kubectl", "kube-proxy", "crictl", "helm"):
        assert text(built.folder / "bin", name) == f"{name} from upstream"
    for name in ("bridge", "flannel"):
        assert text(built.folder / "cni", name) == f"{name} from upstream"
    for name in NO_RECORD:
        assert text(built.folder / "bin", name) == f"{name} from modules"
    assert {Path(each).name for each in built.modules} == set(NO_RECORD)


def test_images_have_the_names_that_kubeadm_asks_for(built: Built, tmp_path: Path) -> None:
    folder, out = built.folder, tmp_path / "images"
    assert names_in(folder) == {
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", "pause"),
        *("flannel", "metrics-server"),
    }
    tools = tmp_path / "tools.tar"
    tarfile.open(tools, "w").close()
    archives = images.write_images(folder, built.release, tools, out)
    names = (out / images.NAMES).read_text().splitlines()
    assert names == list(images.image_names(folder, built.release))
    for archive, name in zip(archives, names, strict=True):
        with tarfile.open(archive) as content:
            (entry,) = json.load(_file(content, "index.json"))["manifests"]
            manifest = json.load(_file(content, "blobs/" + entry["digest"].replace(":", "/")))
            for blob in (manifest["config"], *manifest["layers"]):
                assert _file(content, "blobs/" + blob["digest"].replace(":", "/"))
        assert entry["annotations"]["io.containerd.image.name"] == name


def _file(content: tarfile.TarFile, name: str) -> Any:
    found = content.extractfile(name)
    assert found is not None
    return found


def test_the_bill_says_what_came_from_where(built: Built) -> None:
    bill = bom.read(built.folder / "bom.json")
    assert {material.kind for material in bill} == {"upstream-file", "upstream-image", "go-module"}
    by_name = {material.name: material for material in bill}
    arch = recipe.architecture()
    kubelet = by_name["kubelet"]
    assert (kubelet.version, kubelet.architecture, kubelet.used_in) == (VERSION, arch, ("kubelet",))
    assert kubelet.checksum == f"sha256:{built.lock.files['kubelet'].hashes[arch].sha256}"
    pause = by_name["registry.k8s.io/pause"]
    assert pause.checksum == built.lock.images[f"registry.k8s.io/pause:{built.release.pause}"].digest
    assert by_name["ghcr.io/flannel-io/flannel-cni-plugin"].used_in == ("flannel",)
    assert {Path(each).name for each in by_name["example.org/built"].used_in} == set(NO_RECORD)


def test_the_end_says_what_came_from_where(built: Built) -> None:
    (said,) = built.remarks
    assert said.startswith(
        f"Kubernetes {VERSION}: 15 parts downloaded from upstream and verified; built from Go modules: "
    )
    assert set(said.rpartition(": ")[2].split(", ")) == set(NO_RECORD)


def test_downloads_run_side_by_side_with_bytes_and_a_rate(stand_in: Upstream) -> None:
    stand_in.site.delay = 0.05
    stand_in.build()
    assert 2 <= stand_in.site.most_at_once <= upstream.AT_ONCE
    step = next(each for each in stand_in.progress.finished if each.name == "upstream")
    assert step.outcome == "done"
    assert re.search(r"15 of 15 parts, \d+ MiB, \d+\.\d MiB/s", stand_in.printed)


def test_what_is_complete_is_not_downloaded_again(stand_in: Upstream) -> None:
    folder = stand_in.build()
    stand_in.site.asked.clear()
    (said,) = stand_in.progress.remarks
    assert stand_in.build(Mirrors(files={"dl.k8s.io": NOWHERE})) == folder
    assert stand_in.site.asked == []
    assert stand_in.progress.remarks == [said, said]  # a run that takes it says where it is from, too
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_another_lock_is_another_folder_and_other_sources_are_not(stand_in: Upstream) -> None:
    before = upstream.key(stand_in.release)
    name, hashed = next(iter(stand_in.lock.images.items()))
    more = Hash(sha256=hashed.sha256, sources=("stand-in",), single_source=True)
    stand_in.change_lock(images=stand_in.lock.images | {name: more})
    assert upstream.key(stand_in.release) == before
    other = Hash(sha256="0" * 64, sources=("stand-in", "other"))
    stand_in.change_lock(images=stand_in.lock.images | {name: other})
    assert upstream.key(stand_in.release) != before


def test_what_a_killed_run_had_laid_out_is_no_part_of_the_next(stand_in: Upstream) -> None:
    left = stand_in.partial.parent / "whole" / "bin" / "left"
    left.parent.mkdir(parents=True)
    left.touch()
    folder = stand_in.build()
    assert not (folder / "bin" / "left").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_interrupted_download_goes_on_where_it_was(
    stand_in: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = process.run

    def interrupted(words: Any, **named: Any) -> Any:
        if "/kubectl" in str(named.get("stdin")):
            raise KeyboardInterrupt
        return ask(words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(process, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stand_in.build()
    kept = {path.name for path in stand_in.partial.iterdir()}
    assert kept
    first = stand_in.site.paths()
    stand_in.site.asked.clear()
    stand_in.build()
    again = set(stand_in.site.paths()) & set(first)
    assert len(again) < len(first)
    assert stand_in.modules.asked
    assert missed(stand_in) == []


# Parts that can't be had: each is named, and only that is built from modules.


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("other"), "its file does not match the pinned hash"),
        (Fault("page"), "it answers with a web page, probably a network's login page"),
        (Fault("status", status=404), "it does not have it (404)"),
        (Fault("status", status=403), "it denies access (403)"),
        (Fault("closed"), "it closed the connection without an answer"),
    ],
)
@pytest.mark.parametrize(
    ("at", "part", "built"),
    [
        ("/kubelet", "kubelet 1.36.3", ["kubelet"]),
        ("cni-plugins", "cni-plugins 1.9.1", [path.partition("/")[2] for path in recipe.CNI_PLUGINS]),
        ("/kube-apiserver/manifests", "the image registry.k8s.io/kube-apiserver:v1.36.3", ["kube-apiserver"]),
        ("/pause/blobs", "the image registry.k8s.io/pause:3.10.2", ["pause"]),
        (
            "/flannel-cni-plugin/",
            "the image ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel1",
            ["flannel"],
        ),
    ],
)
def test_a_part_that_can_t_be_had_is_named_and_built_instead(
    stand_in: Upstream, fault: Fault, words: str, at: str, part: str, built: list[str]
) -> None:
    stand_in.site.faults = [Fault(fault.kind, at=at, status=fault.status)]
    folder = stand_in.build()
    (said,) = missed(stand_in)
    assert said == f"not downloaded from {stand_in.site.host} because {words}: {part} (built from Go modules)"
    assert set(from_modules(stand_in)) == set(built)
    for program in built:
        where = folder / ("cni" if program not in {"kubelet", "kube-apiserver", "pause"} else "bin")
        assert text(where, program) == f"{program} from modules"
    assert "14 parts downloaded from upstream" in stand_in.progress.remarks[-1]


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["silent", "silent in headers", "silent in body"])
def test_a_host_that_falls_silent_costs_seconds(stand_in: Upstream, made: Made, kind: Kind) -> None:
    with served(copy.deepcopy(made.site)) as mute:
        mute.faults = [Fault(kind)]
        files = stand_in.mirrors.files | {"dl.k8s.io": f"{mute.url}/dl.k8s.io"}
        started = time.monotonic()
        stand_in.build(stand_in.mirrors.model_copy(update={"files": files}))
        assert time.monotonic() - started < 30
    (said,) = missed(stand_in)
    assert {each.split()[0] for each in said.rpartition(": ")[2].split(", ")} == set(parts.OF_KUBERNETES)
    assert set(from_modules(stand_in)) == {"kubeadm", "kubelet", "kubectl", "kube-proxy"}


def test_a_host_where_nothing_listens_is_named_once_with_all_its_parts(stand_in: Upstream) -> None:
    gone = stand_in.mirrors.model_copy(update={"files": stand_in.mirrors.files | {"github.com": NOWHERE}})
    stand_in.build(gone)
    why = "it can't be reached (connection refused)"
    assert missed(stand_in) == [
        f"not downloaded from 127.0.0.1:1 because {why}: "
        "cni-plugins 1.9.1, crictl 1.37.0 (built from Go modules)"
    ]
    assert {"crictl", "bridge"} <= set(from_modules(stand_in))


def test_a_lab_comes_of_it_where_nothing_at_all_can_be_had(stand_in: Upstream) -> None:
    stand_in.site.faults = [Fault("page")]
    folder = stand_in.build()
    (said,) = missed(stand_in)
    assert len(said.rpartition("login page: ")[2].split(", ")) == 15
    assert set(stand_in.modules.asked) == set(parts.without(stand_in.release, []))
    assert names_in(folder) == set()
    assert "0 parts downloaded from upstream" in stand_in.progress.remarks[-1]


def test_nothing_is_left_where_the_rest_can_t_be_built(
    stand_in: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Path:
        raise LabError("the Go module proxy can't be reached")

    with monkeypatch.context() as patch:
        patch.setattr(modules, "build", fails)  # no longer: the stand-in puts back what was there before it
        with pytest.raises(LabError, match="Go module proxy"):
            stand_in.build()
    assert not (stand_in.cache / "upstream" / upstream.key(stand_in.release)).exists()
    assert [path for path in stand_in.partial.iterdir()]  # for the next try


def test_an_archive_that_lacks_a_program_is_named_and_nothing_of_it_is_used(stand_in: Upstream) -> None:
    file = next(each for each in parts.files(stand_in.release) if each.name == "cni-plugins")
    arch = recipe.architecture()
    path = file.url(arch).removeprefix("https:/")
    changed = stand_in.lock.files["cni-plugins"].hashes | {
        arch: Hash(
            sha256=stand_in.site.put(path, tar_gz({"./bridge": b"alone"})), sources=("stand-in", "other")
        )
    }
    locked = stand_in.lock.files["cni-plugins"].model_copy(update={"hashes": changed})
    stand_in.change_lock(files=stand_in.lock.files | {"cni-plugins": locked})
    folder = stand_in.build()
    (said,) = missed(stand_in)
    assert said.startswith(
        f"not downloaded from {stand_in.site.host} because its file lacks ./bandwidth, ./dhcp"
    )
    assert said.endswith(": cni-plugins 1.9.1 (built from Go modules)")
    assert text(folder / "cni", "bridge") == "bridge from modules"


def test_what_is_pinned_and_can_t_be_read_costs_one_part(stand_in: Upstream) -> None:
    """Nobody has asked the hosts what the hashes of the records belong to."""
    file = next(each for each in parts.files(stand_in.release) if each.name == "crictl")
    arch = recipe.architecture()
    hashed = {
        name: Hash(sha256=stand_in.site.put(path, content), sources=("stand-in", "other"))
        for name, path, content in [
            ("crictl", file.url(arch).removeprefix("https:/"), b"no archive"),
            ("image", "/v2/registry.k8s.io/pause/manifests/again", b"[]"),
        ]
    }
    stand_in.site.put(f"/v2/registry.k8s.io/pause/manifests/{hashed['image'].digest}", b"[]")
    locked = stand_in.lock.files["crictl"]
    stand_in.change_lock(
        files=stand_in.lock.files
        | {"crictl": locked.model_copy(update={"hashes": locked.hashes | {arch: hashed["crictl"]}})},
        images=stand_in.lock.images | {f"registry.k8s.io/pause:{stand_in.release.pause}": hashed["image"]},
    )
    stand_in.build()
    assert {"crictl", "pause"} == set(from_modules(stand_in))
    assert len([each for each in missed(stand_in) if "its content can't be read" in each]) == 2


def test_an_image_that_lacks_a_program_is_named(stand_in: Upstream) -> None:
    name = next(each for each in stand_in.lock.images if "flannel-cni-plugin" in each)
    digest = Hash(sha256=stand_in.site.put_image(name, {"/other": b"x"}), sources=("stand-in", "other"))
    stand_in.change_lock(images=stand_in.lock.images | {name: digest})
    folder = stand_in.build()
    (said,) = missed(stand_in)
    assert said.startswith(f"not downloaded from {stand_in.site.host} because its file lacks /flannel: ")
    assert said.endswith(f": the image {name} (built from Go modules)")
    assert text(folder / "cni", "flannel") == "flannel from modules"


def test_a_lock_of_another_version_of_a_file_is_left_to_modules(stand_in: Upstream) -> None:
    locked = stand_in.lock.files["crictl"].model_copy(update={"version": "1.30.0"})
    stand_in.change_lock(files=stand_in.lock.files | {"crictl": locked})
    stand_in.build()
    assert from_modules(stand_in) == ["crictl"]
    assert stand_in.site.paths("crictl") == []


def test_a_kubeadm_that_asks_for_another_tag_is_named(
    stand_in: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = images.image_names
    monkeypatch.setattr(
        images,
        "image_names",
        lambda *given: tuple(each.replace("pause:3.10.2", "pause:3.99") for each in names(*given)),
    )
    with pytest.raises(LabError, match=r"kubeadm 1\.36\.3 does not ask for registry\.k8s\.io/pause:3\.10\.2"):
        stand_in.build()


def test_etcd_s_image_would_bring_its_tools(stand_in: Upstream, programs: Path) -> None:
    """No record has that of the pinned etcd; one of another version would come the same way."""
    name = f"registry.k8s.io/etcd:{stand_in.release.etcd_tag}"
    digest = stand_in.site.contents[f"/v2/registry.k8s.io/etcd/manifests/{stand_in.release.etcd_tag}"]
    assert isinstance(digest, bytes)
    hashed = Hash(sha256=stand_in.site.put("/again", digest), sources=("stand-in", "other"))
    stand_in.change_lock(images=stand_in.lock.images | {name: hashed})
    folder = stand_in.build()
    assert set(stand_in.modules.asked) == {"bin/kube-router", "bin/local-path-provisioner"}
    assert text(folder / "bin", "etcdctl") == "etcdctl from upstream"
    assert "etcd" in names_in(folder)
    assert not (folder / "bin" / "etcd").exists()


# What `auto` and `upstream` come to.


def choose(stand_in: Upstream, wanted: source.Wanted, mirrors: Mirrors | None = None) -> source.Source:
    return source.choose(
        stand_in.release, wanted, mirrors or stand_in.mirrors, stand_in.cache, stand_in.progress
    )


def test_auto_takes_upstream_where_it_answers(stand_in: Upstream) -> None:
    assert choose(stand_in, "auto") == "upstream"
    assert len(stand_in.site.asked) == 2


@pytest.mark.parametrize("at", ["/dl.k8s.io/", "/v2/registry.k8s.io/"])
def test_auto_builds_from_modules_where_upstream_is_silent_for_three_seconds(
    stand_in: Upstream, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    stand_in.site.faults = [Fault("silent", at=at)]
    monkeypatch.setattr(hosts, "PATIENCE", 20)
    started = time.monotonic()
    assert choose(stand_in, "auto") == "modules"
    assert 2.5 < time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [Fault("page"), Fault("status", status=503), Fault("status", status=407)])
def test_auto_builds_from_modules_where_something_else_answers(stand_in: Upstream, fault: Fault) -> None:
    stand_in.site.faults = [fault]
    assert choose(stand_in, "auto") == "modules"
    (said,) = stand_in.progress.remarks
    assert said.startswith(
        f"Kubernetes {VERSION} is built from Go modules: kubeadm {VERSION} can't be downloaded from "
    )


@pytest.mark.parametrize("at", ["/kubeadm", "/kube-apiserver/manifests/"])
@pytest.mark.parametrize("fault", [Fault("other"), Fault("status", status=404)])
def test_auto_takes_upstream_where_one_part_alone_is_wrong(stand_in: Upstream, at: str, fault: Fault) -> None:
    stand_in.site.faults = [Fault(fault.kind, at=at, status=fault.status)]
    assert choose(stand_in, "auto") == "upstream"
    stand_in.build()
    assert len(missed(stand_in)) == 1


def test_auto_builds_from_modules_where_a_host_is_gone(stand_in: Upstream) -> None:
    gone = stand_in.mirrors.model_copy(update={"images": {"registry.k8s.io": NOWHERE}})
    assert choose(stand_in, "auto", gone) == "modules"


def test_auto_asks_nobody_where_nothing_is_pinned(stand_in: Upstream) -> None:
    lock.path(VERSION).unlink()
    assert choose(stand_in, "auto") == "modules"
    assert stand_in.site.asked == []


def test_upstream_is_an_error_where_it_can_t_be_used(stand_in: Upstream) -> None:
    gone = stand_in.mirrors.model_copy(update={"files": {"dl.k8s.io": NOWHERE}})
    with pytest.raises(
        LabError, match=r"can't be taken from upstream: kubeadm .* 127\.0\.0\.1:1: it can't be reached"
    ) as caught:
        choose(stand_in, "upstream", gone)
    assert "source: auto" in caught.value.hint
    assert caught.value.log is not None
    assert caught.value.log.is_file()


def test_what_was_downloaded_before_is_taken_without_asking(stand_in: Upstream) -> None:
    stand_in.build()
    stand_in.site.asked.clear()
    assert choose(stand_in, "auto") == choose(stand_in, "upstream") == "upstream"
    assert stand_in.site.asked == []


def test_modules_ask_nobody(stand_in: Upstream) -> None:
    assert choose(stand_in, "modules") == "modules"
    assert stand_in.site.asked == []


# Through a proxy.


def test_everything_comes_through_the_proxy(stand_in: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    far = Mirrors(
        files={host: f"http://files.invalid/{host}" for host in parts.file_hosts()},
        images={host: f"http://registry.invalid/{host}" for host in ("registry.k8s.io", "ghcr.io")},
    )
    monkeypatch.setenv("HTTP_PROXY", stand_in.site.url.replace("://", "://ada:pa55word@"))
    stand_in.build(far)
    assert missed(stand_in) == []
    asked = stand_in.site.asked
    assert {each.path.split("/")[2] for each in asked} == {"files.invalid", "registry.invalid"}
    assert {each.authorization for each in asked} == {"ada:pa55word"}
    assert "pa55word" not in stand_in.log


def test_a_mirror_may_be_another_host_for_each(stand_in: Upstream, made: Made) -> None:
    with served(copy.deepcopy(made.site)) as second:
        split = stand_in.mirrors.model_copy(
            update={"files": stand_in.mirrors.files | {"github.com": f"{second.url}/github.com"}}
        )
        stand_in.build(split)
        assert {path.split("/")[1] for path in second.paths()} == {"github.com"}
    assert stand_in.site.paths("github.com") == []
