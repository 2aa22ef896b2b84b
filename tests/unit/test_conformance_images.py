"""The images of the suite's tests: which are made, of what, and how they start."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.conformance import images
from lab.golden.supply.images import short_name
from tests.unit.fakes import recorded

NAMES = recorded("conformance/list-images.txt").split()
SHELL = b"#!/bin/sh\nprintf 'busybox\\nsh\\nwget\\n'\n"
"""A busybox that says what it has; nothing else is asked of it."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The archive of all images, of small stand-ins for what they are made of."""
    programs, sources, folder = (tmp_path / name for name in ("programs", "images", "layers"))
    for path in (
        programs,
        folder,
        sources / "agnhost" / "porter",
        *(sources / n / "html" for n in ("kitten", "nautilus")),
    ):
        path.mkdir(parents=True)
    for name in ("agnhost", "nonewprivs", "sample-apiserver"):
        (programs / name).write_text(name)
    for name in ("localhost.crt", "localhost.key"):
        (sources / "agnhost" / "porter" / name).write_text(name)
    for name in ("kitten", "nautilus"):
        (sources / name / "html" / "data.json").write_text(f'{{"image": "{name}.jpg"}}')
    target = tmp_path / "images.tar"
    images.write(target, NAMES, programs, sources, debian_root(tmp_path / "root.tar"), folder)
    return target


def debian_root(path: Path) -> Path:
    files = {
        "./etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n",
        "./etc/group": b"root:x:0:\n",
        "./usr/bin/bash-static": b"bash",
        "./usr/bin/busybox": SHELL,
        "./usr/bin/dig": b"dig",
        "./usr/share/doc/dig/copyright": b"text",
        "./dev/null": b"",
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return path


def read(archive: Path) -> Iterator[tuple[str, dict[str, object], dict[str, tarfile.TarInfo]]]:
    """Each image: its name, how it starts, and what is in it."""
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> bytes:
            content = tar.extractfile("blobs/" + digest.replace(":", "/"))
            assert content is not None
            return content.read()

        index = tar.extractfile("index.json")
        assert index is not None
        for entry in json.loads(index.read())["manifests"]:
            manifest = json.loads(blob(entry["digest"]))
            members: dict[str, tarfile.TarInfo] = {}
            for layer in manifest["layers"]:
                with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as content:
                    members |= {member.name.removeprefix("./"): member for member in content}
            config = json.loads(blob(manifest["config"]["digest"]))["config"]
            yield entry["annotations"]["io.containerd.image.name"], config, members


def test_every_image_that_a_conformance_test_asks_for_is_made_or_on_the_machines() -> None:
    made = {short_name(name) for name in images.made(NAMES)}
    # What the conformance tests of 1.36.3 use: grepped from their sources (docs/conformance.md).
    assert made == {
        *("agnhost", "busybox", "glibc-dns-testing", "kitten", "nautilus", "nginx"),
        *("nonewprivs", "nonroot", "sample-apiserver"),
    }
    left = {short_name(name) for name in images.not_made(NAMES)}
    assert not left & {*made, *images.ON_MACHINES} - {"agnhost"}  # one of a registry that wants a login


def test_each_is_under_the_name_that_the_suite_asks_for(archive: Path) -> None:
    found = {name for name, _, _ in read(archive)}
    assert found == set(images.made(NAMES))
    assert sum("/agnhost:" in name for name in found) == 2  # two tags, for tests of rolling updates


def test_no_two_are_one_image_to_containerd(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        digests = [entry["digest"] for entry in json.loads(index.read())["manifests"]]
    assert len(digests) == len(set(digests))


def test_they_start_as_upstream_s_do(archive: Path) -> None:
    starts = {
        short_name(name): (config["Entrypoint"], config.get("Cmd"), config["User"])
        for name, config, _ in read(archive)
    }
    assert starts["agnhost"] == (["/agnhost"], ["pause"], "")
    assert starts["busybox"] == ([], ["sh"], "")
    assert starts["kitten"] == (["/agnhost"], ["test-webserver"], "")
    assert starts["nonroot"][2] == "1234"


def test_what_is_in_them(archive: Path) -> None:
    inside = {short_name(name): members for name, _, members in read(archive)}
    assert inside["nonewprivs"]["usr/local/bin/nnp"].mode == 0o6755  # its test is about the setuid bit
    assert inside["busybox"]["bin/wget"].linkname == "busybox"
    assert inside["busybox"]["bin/sh"].isfile(), "not busybox's own"
    assert inside["busybox"]["tmp"].mode == 0o1777
    assert {"agnhost", "agnhost-2", "localhost.crt", "usr/bin/dig", "data.json"} <= set(inside["kitten"])
    assert "usr/bin/dig" in inside["glibc-dns-testing"]


def test_of_the_debian_root_no_devices_and_no_documents_are_taken(archive: Path) -> None:
    for name, _, members in read(archive):
        assert not [path for path in members if path.startswith(("dev", "usr/share/doc"))], name
