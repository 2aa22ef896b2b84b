from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.config import default
from lab.errors import LabError, LabStateError
from lab.golden import bundle, image
from lab.system import process
from lab.system.process import Result
from tests.unit.fakes import progress

LAB = default()
SAVED = b"what docker save writes" * 1000


class Host:
    """docker, pip and gzip: docker has the golden machine or not, and keeps what it was given."""

    def __init__(self) -> None:
        """Have it."""
        self.has, self.loaded = True, b""
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Do what a command would."""
        words = [str(word) for word in argv]
        self.asked.append(words)
        code, said = 0, ""
        if words[:3] == ["docker", "image", "inspect"]:
            code, said = (0, f"{300 * 2**20}\n") if self.has else (1, "")
        elif words[:2] == ["docker", "save"]:
            assert words[-1] == image.name(LAB)
            Path(words[words.index("--output") + 1]).write_bytes(SAVED)
        elif words[0] == "gzip":
            plain = Path(words[-1])
            plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes(), 1, mtime=0))
            plain.unlink()
        elif words[1:4] == ["-m", "pip", "download"]:
            folder = Path(words[words.index("--dest") + 1])
            folder.mkdir(exist_ok=True)
            (folder / "invoke-3-py3-none-any.whl").write_bytes(b"invoke")
            (folder / f"cffi-2-{words[words.index('--python-version') + 1]}.whl").write_bytes(b"cffi")
        elif words[0] == "git":
            said = "0123456789\n"
        elif words[:2] == ["docker", "load"]:
            self.loaded = gzip.decompress(Path(words[-1]).read_bytes())
            self.has = True
        else:
            raise AssertionError(f"a command that this test was not told of: {words}")
        return Result(tuple(words), code, said, "", 0.0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    host = Host()
    monkeypatch.setattr(process, "run", host)
    monkeypatch.setattr(bundle, "cache_folder", lambda: tmp_path / "cache")
    return host


@pytest.fixture
def file(host: Host, tmp_path: Path) -> Path:
    path = tmp_path / "disk" / "lab.tar"
    path.parent.mkdir()
    bundle.write(LAB, path, progress(tmp_path))
    host.has = False
    return path


def repacked(file: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same bundle with other contents, name by name."""
    with tarfile.open(file) as packed:
        contents = {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]
    change(contents)
    other = file.with_name("other.tar")
    with tarfile.open(other, "w") as packed:
        for name, content in contents.items():
            path = file.with_name("content")
            path.write_bytes(content)
            packed.add(path, name)
    return other


def manifest_with(**changes: object) -> Callable[[dict[str, bytes]], None]:
    """Other words in the manifest, and a sum that fits them."""

    def change(contents: dict[str, bytes]) -> None:
        data = json.loads(contents[bundle.MANIFEST])
        del data["sha256"]
        made = bundle.Manifest.model_validate(data | changes)
        contents[bundle.MANIFEST] = made.text().encode()

    return change


def test_a_bundle_begins_with_its_manifest_and_ends_with_the_machine(file: Path) -> None:
    with tarfile.open(file, "r:") as packed:
        names = packed.getnames()
        manifest = json.loads(packed.extractfile(names[0]).read())  # type: ignore[union-attr]
    assert (names[0], names[-1]) == ("manifest.json", "machine/image.tar.gz")
    assert names[-2] == "wheels/requirements.txt", "inv takes a folder that has it for whole"
    assert [part["name"] for part in manifest["parts"]] == names[1:]
    assert (manifest["golden"], manifest["provider"]) == (image.key(LAB), "docker")
    assert (manifest["kubernetes"], manifest["commit"], manifest["kit"]) == ("1.36.3", "0123456789", "0.1.0")


def test_every_python_gets_the_packages_that_the_lock_names_by_hash(host: Host, file: Path) -> None:
    pip = [words for words in host.asked if "pip" in words]
    assert [words[words.index("--python-version") + 1] for words in pip] == list(bundle.PYTHONS)
    assert all("--require-hashes" in words and "--only-binary=:all:" in words for words in pip)


def test_the_same_machine_gives_the_same_bundle(host: Host, file: Path, tmp_path: Path) -> None:
    host.has = True
    again = file.with_name("again.tar")
    bundle.write(LAB, again, progress(tmp_path))
    assert again.read_bytes() == file.read_bytes()
    assert sorted(path.name for path in file.parent.iterdir()) == ["again.tar", "lab.tar"]


def test_nothing_is_overwritten(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(LabStateError, match=r"lab\.tar exists already"):
        bundle.write(LAB, file, progress(tmp_path))
    assert file.read_bytes() == before


def test_a_disk_without_room_is_told_before_anything_is_written(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    with pytest.raises(LabStateError, match="has 100 MiB free, and 651 are needed"):
        bundle.write(LAB, tmp_path / "lab.tar", progress(tmp_path))
    assert not (tmp_path / "lab.tar").exists()
    assert {words[0] for words in host.asked} == {"docker"}


def test_what_fails_half_way_leaves_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "lab.tar")

    monkeypatch.setattr(bundle, "_write_tar", full)
    folder = tmp_path / "disk"
    folder.mkdir()
    with pytest.raises(LabError, match="No space left on device"):
        bundle.write(LAB, folder / "lab.tar", progress(tmp_path))
    assert list(folder.iterdir()) == []


def test_what_is_imported_is_what_was_exported(host: Host, file: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "of-an-earlier-lock.whl").touch()
    bundle.take(LAB, file, bundle.check(LAB, file), progress(tmp_path))
    assert host.loaded == SAVED
    assert (wheels / "requirements.txt").read_bytes() == bundle.LOCK.read_bytes()
    assert len(list(wheels.iterdir())) == 1 + 1 + len(bundle.PYTHONS)
    assert list((tmp_path / "cache" / "golden").iterdir()) == [], "nothing half-made stays"


def test_importing_again_gives_docker_nothing(host: Host, file: Path, tmp_path: Path) -> None:
    host.has = True
    bundle.take(LAB, file, bundle.check(LAB, file), progress(tmp_path))
    assert host.loaded == b""


def test_checking_touches_nothing(host: Host, file: Path, tmp_path: Path) -> None:
    host.asked.clear()
    bundle.check(LAB, file)
    assert host.asked == []
    assert not (tmp_path / "cache").exists()


def test_every_reason_is_told_at_once(file: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        manifest_with(golden="f" * 16, kubernetes="1.35.4", architecture="s390x")(contents)
        contents["machine/image.tar.gz"] = contents["machine/image.tar.gz"][:-1] + b"?"
        contents["wheels/extra.whl"] = b"extra"
        del contents["wheels/invoke-3-py3-none-any.whl"]

    with pytest.raises(LabError) as caught:
        bundle.check(LAB, repacked(file, change))
    told = caught.value.message
    assert "it was made on a machine with an s390x processor, and this one has" in told
    assert f"is {'f' * 16} (Kubernetes 1.35.4), and this lab wants {image.key(LAB)}" in told
    assert "machine/image.tar.gz is not what it was" in told
    assert "'wheels/extra.whl' is in it, which its manifest does not name" in told
    assert "wheels/invoke-3-py3-none-any.whl is missing" in told
    assert "git checkout 0123456789" in caught.value.hint
    assert "copy the file again" in caught.value.hint


def test_another_provider_s_machine_is_refused(file: Path) -> None:
    with pytest.raises(LabError, match="for labs with provider libvirt, and this lab has docker"):
        bundle.check(LAB, repacked(file, manifest_with(provider="libvirt")))


@pytest.mark.parametrize("name", ["manifest.json", "wheels/requirements.txt", "machine/image.tar.gz"])
@pytest.mark.parametrize("lacking", [1, 0])
def test_a_file_that_ends_early_is_refused(file: Path, name: str, lacking: int) -> None:
    """Within a part, or right behind it."""
    with tarfile.open(file) as packed:
        member = packed.getmember(name)
    short = file.with_name("short.tar")
    short.write_bytes(file.read_bytes()[: member.offset_data + member.size - lacking])
    with pytest.raises(LabError, match=r"can't be imported") as caught:
        bundle.check(LAB, short)
    assert "copy the file again" in caught.value.hint


def test_one_byte_that_changed_in_any_part_is_found(file: Path) -> None:
    """Each part in turn, the manifest first; headers and padding of the tar hold nothing that is used."""
    with tarfile.open(file) as packed:
        places = {member.name: (member.offset_data, member.size) for member in packed}
    for name, (start, size) in places.items():
        content = bytearray(file.read_bytes())
        content[start + size // 2] ^= 1
        altered = file.with_name("altered.tar")
        altered.write_bytes(content)
        with pytest.raises(LabError, match=r"can't be imported") as caught:
            bundle.check(LAB, altered)
        assert name in caught.value.message


def test_what_is_no_bundle_is_refused(file: Path) -> None:
    text = file.with_name("notes.txt")
    text.write_text("notes\n")
    with pytest.raises(LabError, match=r"it was not written by `\./inv bake --export`") as caught:
        bundle.check(LAB, text)
    assert (
        "check whether it is the right file; `./inv bake --export FILE` writes such a file" in caught.value.hint
    )
    with pytest.raises(LabError, match=r"there is no file .*missing") as caught:
        bundle.check(LAB, file.with_name("missing"))
    assert "on a host with a network" in caught.value.hint
    with pytest.raises(LabError, match="is a folder"):
        bundle.check(LAB, file.parent)
    other = file.with_name("other.tar")
    with tarfile.open(other, "w") as packed:
        packed.add(text, "notes.txt")
    with pytest.raises(LabError, match=r"it is an archive, but none of `\./inv bake --export`"):
        bundle.check(LAB, other)


def test_a_copied_folder_s_bundle_names_no_commit(file: Path) -> None:
    with pytest.raises(LabError) as caught:
        bundle.check(LAB, repacked(file, manifest_with(golden="f" * 16, commit="unknown")))
    assert "it was made by another checkout or lab.yaml" in caught.value.message
    assert "git checkout" not in caught.value.hint


def test_a_later_format_is_refused_as_such(file: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents[bundle.MANIFEST] = json.dumps({"format": 2}).encode()

    with pytest.raises(LabError, match="it has format 2, and this checkout knows 1"):
        bundle.check(LAB, repacked(file, change))


def test_no_part_lands_outside_the_cache(host: Host, file: Path, tmp_path: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents["wheels/../../escaped.whl"] = b"?"
        data = json.loads(contents[bundle.MANIFEST])
        parts = [*data["parts"], {"name": "wheels/../../escaped.whl", "bytes": 1, "sha256": SUM_OF_MARK}]
        manifest_with(parts=parts)(contents)

    other = repacked(file, change)
    bundle.take(LAB, other, bundle.check(LAB, other), progress(tmp_path))
    assert [path.parent.name for path in tmp_path.rglob("escaped.whl")] == ["wheels"]


SUM_OF_MARK = "8a8de823d5ed3e12746a62ef169bcf372be0ca44f0a1236abc35df05d96928e1"
"""Of one question mark."""


SUITE_KEY = "feedfacefeedface"


@pytest.fixture
def with_suite(host: Host, tmp_path: Path) -> Path:
    """A bundle with a conformance suite in it."""
    built = tmp_path / SUITE_KEY
    built.mkdir()
    for name in ("e2e.test", "images.tar", "tests.txt"):
        (built / name).write_text(name)
    path = tmp_path / "disk" / "with-suite.tar"
    path.parent.mkdir()
    manifest = bundle.write(LAB, path, progress(tmp_path), built)
    assert manifest.suite == SUITE_KEY
    return path


def test_a_suite_that_was_built_goes_with_it(host: Host, with_suite: Path, tmp_path: Path) -> None:
    bundle.take(LAB, with_suite, bundle.check(LAB, with_suite), progress(tmp_path))
    taken = bundle.suites_folder() / SUITE_KEY
    assert sorted(path.name for path in taken.iterdir()) == ["e2e.test", "images.tar", "tests.txt"]
    assert (taken / "e2e.test").stat().st_mode & 0o777 == 0o755
    assert (taken / "images.tar").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in bundle.suites_folder().iterdir()] == [SUITE_KEY]  # nothing half unpacked


def test_a_suite_that_is_there_stays_as_it_is(host: Host, with_suite: Path, tmp_path: Path) -> None:
    (bundle.suites_folder() / SUITE_KEY).mkdir(parents=True)
    bundle.take(LAB, with_suite, bundle.check(LAB, with_suite), progress(tmp_path))
    assert list((bundle.suites_folder() / SUITE_KEY).iterdir()) == []


def test_a_damaged_suite_is_found_before_anything_is_touched(with_suite: Path) -> None:
    def damage(content: dict[str, bytes]) -> None:
        content["suite/e2e.test"] = b"e2e.tesT"

    with pytest.raises(LabError, match=r"suite/e2e\.test is not what it was"):
        bundle.check(LAB, repacked(with_suite, damage))


def test_without_a_suite_none_is_looked_for(host: Host, file: Path, tmp_path: Path) -> None:
    manifest = bundle.check(LAB, file)
    assert manifest.suite == ""
    bundle.take(LAB, file, manifest, progress(tmp_path))
    assert not bundle.suites_folder().exists()
