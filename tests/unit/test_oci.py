import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab.golden.supply.oci import Image, pack_image, take_files, write_image, write_images

NAME = "registry.example/team/tool:v1"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF" + bytes(5000))
    path.chmod(0o700)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("bin"))
    return path


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file}


def blob(content: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    found = content["blobs/" + descriptor["digest"].replace(":", "/")]
    assert hashlib.sha256(found).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    assert len(found) == descriptor["size"]
    return found


def test_every_part_names_the_next_by_its_hash(tmp_path: Path, program: Path, base: Path) -> None:
    archive = tmp_path / "image.tar"
    write_image(archive, NAME, {"/opt/bin/tool": program}, entrypoint=["/opt/bin/tool"], base_layers=[base])
    content = read(archive)
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(content["index.json"])["manifests"]
    assert set(entry["annotations"].values()) == {NAME}
    manifest = json.loads(blob(content, entry))
    config = json.loads(blob(content, manifest["config"]))
    layers = [blob(content, layer) for layer in manifest["layers"]]
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    assert layers[0] == base.read_bytes()
    assert len(content) == 2 + 2 + len(layers)


def test_it_starts_as_told(tmp_path: Path, program: Path) -> None:
    archive = tmp_path / "image.tar"
    write_image(archive, NAME, {"/pause": program}, entrypoint=["/pause"], user="65535:65535")
    content = read(archive)
    manifest = json.loads(blob(content, json.loads(content["index.json"])["manifests"][0]))
    config = json.loads(blob(content, manifest["config"]))
    assert config["os"] == "linux"
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert config["config"]["User"] == "65535:65535"
    assert "/usr/local/bin:" in config["config"]["Env"][0]


def test_a_layer_holds_the_files_and_their_folders_as_roots_own(tmp_path: Path, program: Path) -> None:
    archive, plain = tmp_path / "image.tar", tmp_path / "plain"
    plain.write_text("text")
    plain.chmod(0o600)
    write_image(archive, NAME, {"/usr/local/bin/b": program, "/etc/a": plain}, entrypoint=[])
    content = read(archive)
    manifest = json.loads(blob(content, json.loads(content["index.json"])["manifests"][0]))
    layer = tmp_path / "layer.tar"
    layer.write_bytes(blob(content, manifest["layers"][0]))
    with tarfile.open(layer) as tar:
        members = tar.getmembers()
    assert {member.name: member.mode for member in members} == {
        "etc": 0o755,
        "usr": 0o755,
        "usr/local": 0o755,
        "usr/local/bin": 0o755,
        "etc/a": 0o644,
        "usr/local/bin/b": 0o755,
    }
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}


def test_the_same_files_give_the_same_bytes(tmp_path: Path, program: Path, base: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    other = tmp_path / "other"
    other.write_text("other")
    files = {"/b": program, "/a": other}
    write_image(first, NAME, files, entrypoint=["/b"], base_layers=[base])
    os.utime(program, (1, 1))
    program.chmod(0o755)
    reordered = dict(reversed(files.items()))
    write_image(second, NAME, reordered, entrypoint=["/b"], base_layers=[base])
    assert first.read_bytes() == second.read_bytes()


def test_an_image_may_be_its_base_layer_alone(tmp_path: Path, base: Path) -> None:
    archive = tmp_path / "image.tar"
    write_image(archive, NAME, {}, entrypoint=["sh"], base_layers=[base])
    content = read(archive)
    manifest = json.loads(blob(content, json.loads(content["index.json"])["manifests"][0]))
    assert [blob(content, layer) for layer in manifest["layers"]] == [base.read_bytes()]


def test_a_missing_program_leaves_no_archive(tmp_path: Path, program: Path) -> None:
    archive = tmp_path / "image.tar"
    with pytest.raises(FileNotFoundError):
        write_image(archive, NAME, {"/a": program, "/b": tmp_path / "none"}, entrypoint=["/b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program"]


# Images that were fetched.


@pytest.fixture
def fetched(tmp_path: Path, program: Path, base: Path) -> tuple[Path, str]:
    """The folder of an image's files, by their hashes, beside others, and the hash of its manifest."""
    write_image(tmp_path / "x.tar", "image", {"/usr/bin/tool": program}, entrypoint=["x"], base_layers=[base])
    with tarfile.open(tmp_path / "x.tar") as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    (blobs / ("0" * 64)).write_text("another image's")
    return blobs, entry["digest"].removeprefix("sha256:")


def test_a_fetched_image_gets_its_full_name(tmp_path: Path, fetched: tuple[Path, str]) -> None:
    archive = tmp_path / "image.tar"
    pack_image(*fetched, NAME, archive)
    content = read(archive)
    (entry,) = json.loads(content["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == NAME
    manifest = json.loads(blob(content, entry))
    assert [blob(content, layer) for layer in manifest["layers"]]
    assert f"blobs/sha256/{'0' * 64}" not in content
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_file_is_taken_out_of_the_topmost_layer_that_has_it(
    tmp_path: Path, fetched: tuple[Path, str], program: Path
) -> None:
    assert take_files(*fetched, {"/usr/bin/tool": tmp_path / "taken"}) == set()
    assert (tmp_path / "taken").read_bytes() == program.read_bytes()
    assert (tmp_path / "taken").stat().st_mode & 0o777 == 0o755


def test_files_that_no_layer_has_are_named_and_not_made(tmp_path: Path, fetched: tuple[Path, str]) -> None:
    wanted = {path: tmp_path / "taken" for path in ("/usr/bin/other", "/usr/bin")}
    assert take_files(*fetched, wanted) == set(wanted)
    assert not (tmp_path / "taken").exists()


def test_images_of_one_archive_share_their_layers(tmp_path: Path, base: Path, program: Path) -> None:
    archive = tmp_path / "images.tar"
    names = ["registry.example/one:1", "registry.example/two:1"]
    write_images(
        archive,
        [
            Image(
                name, [base, program], ["/tool"], ["serve"], labels={"org.opencontainers.image.ref.name": name}
            )
            for name in names
        ],
    )
    content = read(archive)
    entries = json.loads(content["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == names
    manifests = [json.loads(blob(content, entry)) for entry in entries]
    assert manifests[0]["layers"] == manifests[1]["layers"]
    assert manifests[0]["config"] != manifests[1]["config"]  # else they were one image to containerd
    config = json.loads(blob(content, manifests[0]["config"]))["config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/tool"], ["serve"])
    assert len(content) == 2 + 2 * 2 + 2  # index and layout, manifests and configurations, layers


def test_a_layer_that_two_files_hold_is_in_the_archive_once(tmp_path: Path, base: Path) -> None:
    same = tmp_path / "same.tar"
    same.write_bytes(base.read_bytes())
    archive = tmp_path / "images.tar"
    write_images(
        archive, [Image("registry.example/one:1", [base], []), Image("registry.example/two:1", [same], [])]
    )
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
