"""payload.sh, run for real on a machine of scratch folders (world.py).

That containerd takes images so was tried with containerd 2.4.2 itself (docs/decisions/0033).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.provision.world import World

PROXY, PAUSE = "registry.k8s.io/kube-proxy:v1.36.3", "registry.k8s.io/pause:3.10.2"
STORE = "usr/lib/ha-lab/containerd"
MANIFEST = b'{"schemaVersion":2}'
DIGEST = hashlib.sha256(MANIFEST).hexdigest()
TYPE = "application/vnd.oci.image.manifest.v1+json"
LIST = f"""image {PROXY} sha256:{DIGEST} {TYPE}
layer sha256:aaaa /{STORE}/snapshots/1/fs
layer sha256:bbbb /{STORE}/snapshots/2/fs
image {PAUSE} sha256:{DIGEST} {TYPE}
layer sha256:cccc /{STORE}/snapshots/3/fs
"""


def archive() -> bytes:
    """What a golden machine's payload has."""
    files = {
        "usr/bin/kubeadm": b"#!/bin/sh\n",
        "usr/bin/kubelet": b"#!/bin/sh\n",
        "usr/share/ha-lab/images.txt": LIST.encode(),
        "usr/share/ha-lab/bom.json": b"{}",
        f"{STORE}/io.containerd.content.v1.content/blobs/sha256/{DIGEST}": MANIFEST,
        f"{STORE}/snapshots/1/fs/bin/sh": b"tools",
        f"{STORE}/snapshots/2/fs/kube-proxy": b"kube-proxy",
        f"{STORE}/snapshots/3/fs/pause": b"pause",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            out.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def w1(tmp_path: Path) -> World:
    """A worker with an image of an earlier version."""
    world = World(tmp_path / "w1", "w1")
    world.let(kubelet_version="1.35.4", images="registry.k8s.io/pause:3.10.1\n", snapshots="sha256:0000\n")
    return world


def lines(world: World, name: str) -> list[str]:
    return (world.root / "state" / name).read_text().splitlines()


def test_images_are_taken_by_moving_their_layers_and_programs_are_kept_aside(w1: World) -> None:
    ran = w1.run("payload", "1.36.3", PROXY, PAUSE, given=archive())
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert lines(w1, "snapshots")[1:] == ["sha256:aaaa", "sha256:bbbb", "sha256:cccc"]
    assert w1.path("/var/lib/containerd/snapshots/3/fs/kube-proxy").read_bytes() == b"kube-proxy"
    assert lines(w1, "pinned") == [PROXY, PAUSE]
    index = json.loads((w1.root / "state/imported/index.json").read_text())
    assert [(each["digest"], each["size"], each["mediaType"]) for each in index["manifests"]] == [
        (f"sha256:{DIGEST}", len(MANIFEST), TYPE)
    ] * 2
    assert (w1.root / f"state/imported/blobs/sha256/{DIGEST}").read_bytes() == MANIFEST
    folder = w1.path("/var/lib/containerd/ha-lab-upgrade")
    assert sorted(path.name for path in folder.iterdir()) == ["1.36.3"], "what is unfinished is gone"
    assert (folder / "1.36.3/bin/kubeadm").stat().st_mode & 0o111


def test_a_payload_that_ends_early_leaves_nothing(w1: World) -> None:
    ran = w1.run("payload", "1.36.3", PROXY, given=archive()[:2000])
    assert ran.code != 0
    assert not w1.has("/var/lib/containerd/ha-lab-upgrade/unfinished")


def test_what_a_machine_has_is_listed(w1: World) -> None:
    assert w1.run("payload", "--present", "1.36.3").said == "image registry.k8s.io/pause:3.10.1\n"
    w1.run("payload", "1.36.3", PROXY, PAUSE, given=archive())
    said = w1.run("payload", "--present", "1.36.3").said.splitlines()
    assert said == ["program", "image registry.k8s.io/pause:3.10.1", f"image {PROXY}", f"image {PAUSE}"]


def test_a_layer_that_is_there_is_left_alone(w1: World) -> None:
    w1.let(snapshots="sha256:aaaa\n")
    ran = w1.run("payload", "1.36.3", PROXY, given=archive())
    assert ran.code == 0, ran.said
    assert lines(w1, "snapshots") == ["sha256:aaaa", "sha256:bbbb"]


def test_only_images_that_are_asked_for_are_taken(w1: World) -> None:
    ran = w1.run("payload", "1.36.3", PAUSE, given=archive())
    assert ran.code == 0, ran.said
    assert lines(w1, "snapshots")[1:] == ["sha256:cccc"]
    assert lines(w1, "images")[1:] == [PAUSE]


def test_a_payload_without_an_image_that_is_asked_for_is_refused(w1: World) -> None:
    ran = w1.run("payload", "1.36.3", PAUSE, "registry.k8s.io/other:1", given=archive())
    assert ran.code == 1
    assert "not all of: registry.k8s.io/pause:3.10.2 registry.k8s.io/other:1" in ran.said
    assert w1.run("payload", "--present", "1.36.3").said.splitlines()[0] != "program"


def test_a_payload_that_is_cut_short_leaves_no_program_to_install(w1: World) -> None:
    ran = w1.run("payload", "1.36.3", PAUSE, given=archive()[:3000])
    assert ran.code != 0
    assert not w1.has("/var/lib/containerd/ha-lab-upgrade/1.36.3")


def test_a_run_that_was_killed_is_repeated(w1: World) -> None:
    w1.let(failing_commit="1")
    assert w1.run("payload", "1.36.3", PROXY, given=archive()).code != 0
    ran = w1.run("payload", "1.36.3", PROXY, given=archive())
    assert (ran.code, lines(w1, "snapshots")[1:]) == (0, ["sha256:aaaa", "sha256:bbbb"]), ran.said
