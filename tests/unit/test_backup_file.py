"""The file of a backup: one that is damaged, cut short, or no backup is refused, and every problem is named."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lab.errors import ConfigError, HostNotFit, LabStateError
from lab.verbs.losses import Object, in_words, losses, of_key, table
from lab.workspace import backup as backups
from lab.workspace.backup import MANIFEST, SHARED_PKI, SNAPSHOT, Manifest
from tests.unit.fakes import printed
from tests.unit.recoveries import archive, listed

KEYS = {"/registry/configmaps/shop/prices": 7, "/registry/minions/cp1": 9}
ABOUT = Manifest("mine", "/home/ada/.lab#1", "2026-11-29T12:00:00+00:00", "cp1", "1.36.3", "3.6.8")
STATUS = '{"hash":1173045573,"revision":6,"totalKey":2,"totalSize":20480,"version":"3.6.0"}\n'
"""What `etcdutl snapshot status --write-out json` printed (3.6.8)."""


def sent(**changed: bytes | None) -> bytes:
    """What a control plane sends; a part that is None is not in it."""
    pages = b"etcd's pages".ljust(512, b".")
    files: dict[str, bytes | None] = {
        "status.json": STATUS.encode(),
        "keys.json": listed(KEYS).encode(),
        SNAPSHOT: pages + hashlib.sha256(pages).digest(),
        **{f"pki/{name}": f"{name}\n".encode() for name in SHARED_PKI},
    }
    files |= changed
    return archive({name: text for name, text in files.items() if text is not None})


def complete(folder: Path, content: bytes | None = None) -> Path:
    target = folder / "mine.tar"
    part = backups.begin(target)
    part.write_bytes(sent() if content is None else content)
    return backups.complete(part, target, ABOUT, '{"format": 2}').path


def test_a_complete_backup_has_all_that_was_sent(tmp_path: Path) -> None:
    found = backups.read(complete(tmp_path))
    assert dict(found.inventory) == KEYS
    assert found.manifest.revision == 6
    assert found.manifest.hash == 1173045573
    assert found.manifest.member == "cp1"
    assert found.pki["sa.key"] == "sa.key\n"
    with tarfile.open(found.path) as tar:
        assert {MANIFEST, "lab.json", SNAPSHOT} <= set(tar.getnames())
        manifest = json.load(tar.extractfile(MANIFEST) or io.BytesIO())
        record = tar.extractfile("lab.json")
        assert record is not None
        assert manifest["files"]["lab.json"] == hashlib.sha256(record.read()).hexdigest()


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        backups.read(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value.message


def test_a_changed_byte_in_any_part_of_a_backup_is_noticed(tmp_path: Path) -> None:
    path = complete(tmp_path)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        places = {each.name: each.offset_data for each in tar.getmembers() if each.name != MANIFEST}
    for name, offset in places.items():
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert f"is damaged: {name} is not as it was written" in problems(path), name


@pytest.mark.parametrize("size", [0, 100, 512, 1024, 5000])
def test_a_backup_that_was_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = complete(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert any(word in problems(path) for word in ("cut short", "is not a backup"))


@pytest.mark.parametrize("content", [b"apiVersion: v1\n", b"\0" * 20480, b"PK\3\4" * 500])
def test_a_file_that_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.tar"
    path.write_bytes(content)
    assert f"{path} is not a backup" in problems(path)


def test_any_other_tar_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    path.write_bytes(archive({"README.md": b"a bundle"}))
    assert "is not a backup of this kit: it has no manifest.json" in problems(path)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in problems(tmp_path / "none.tar")
    assert f"{tmp_path} is a folder, not a backup" in problems(tmp_path)


def test_the_backup_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.tar"
    path.write_bytes(archive({MANIFEST: b'{"format": 9, "files": {}}'}))
    assert "was written by a later version of the kit (format 9, not 1)" in problems(path)


def test_a_manifest_without_its_fields_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "broken.tar"
    for text in (b"{", b"[]", b'{"format": 1}'):
        path.write_bytes(archive({MANIFEST: text}))
        assert "is damaged: its manifest.json can't be read" in problems(path)


@pytest.mark.parametrize("part", ["status.json", "keys.json", SNAPSHOT, "pki/sa.key"])
def test_what_a_control_plane_did_not_send_is_named_and_there_is_no_file(tmp_path: Path, part: str) -> None:
    with pytest.raises(LabStateError, match=f"what cp1 sent is not a complete backup: it lacks {part}"):
        complete(tmp_path, sent(**{part: None}))
    assert not (tmp_path / "mine.tar").exists()


@pytest.mark.parametrize("changed", [b"x" * 544, b"x" * 500, b""])
def test_a_snapshot_whose_own_hash_does_not_match_is_no_backup(tmp_path: Path, changed: bytes) -> None:
    # `etcdutl snapshot status` (3.6.8) says nothing of a small one that was cut, or changed in a free page.
    with pytest.raises(LabStateError, match=r"snapshot\.db does not"):
        complete(tmp_path, sent(**{SNAPSHOT: changed}))


def test_a_snapshot_without_keys_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(LabStateError, match="its snapshot has no keys"):
        complete(tmp_path, sent(**{"status.json": STATUS.replace('"totalKey":2', '"totalKey":0').encode()}))


def test_a_file_that_was_created_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "mine.tar"
    part = backups.begin(target)
    part.write_bytes(sent())
    target.write_text("another process's")
    with pytest.raises(ConfigError, match="exists, and a backup overwrites nothing"):
        backups.complete(part, target, ABOUT, "{}")
    assert target.read_text() == "another process's"


def test_a_disk_that_is_full_at_the_end_leaves_no_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "mine.tar"
    part = backups.begin(target)
    part.write_bytes(sent())
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(HostNotFit, match=r"mine\.tar can't be written: No space left on device") as caught:
        backups.complete(part, target, ABOUT, "{}")
    assert "name a file on another disk" in caught.value.hint
    assert not target.exists()


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    backups.begin(tmp_path / "mine.tar").write_text("half of it")
    complete(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tar"]


def test_only_the_owner_reads_it_from_the_first_byte_on(tmp_path: Path) -> None:
    part = backups.begin(tmp_path / "new" / "mine.tar")
    assert part.stat().st_mode & 0o777 == 0o600
    assert part.parent.stat().st_mode & 0o777 == 0o700


RECORDED = (
    '{"header":{"cluster_id":12101053776118486841,"member_id":15985099378392235387,"revision":6,"raft_term":2},'
    '"kvs":[{"key":"L3JlZ2lzdHJ5L2FwcHMvZGVwbG95bWVudHM=","create_revision":4,"mod_revision":4,"version":1},'
    '{"key":"L3JlZ2lzdHJ5L2NvbmZpZ21hcHMvZGVmYXVsdC9h","create_revision":2,"mod_revision":5,"version":2}],'
    '"count":2}\n'
)
"""What `etcdctl get /registry/ --prefix --keys-only --write-out json` printed (3.6.8)."""


def test_keys_are_read_as_etcdctl_prints_them() -> None:
    assert backups.inventory(RECORDED) == {"/registry/apps/deployments": 4, "/registry/configmaps/default/a": 5}
    assert backups.inventory('{"header":{}}') == {}


# What a recovery takes back.


@pytest.mark.parametrize(
    ("key", "kind", "name"),
    [
        ("/registry/deployments/shop/web", "deployments", "shop/web"),
        ("/registry/minions/cp1", "nodes", "cp1"),
        ("/registry/services/specs/shop/web", "services", "shop/web"),
        ("/registry/services/endpoints/shop/web", "endpoints", "shop/web"),
        ("/registry/apiregistration.k8s.io/apiservices/v1.apps", "apiservices", "v1.apps"),
        ("/registry/leases/kube-node-lease/cp1", "leases", "kube-node-lease/cp1"),
        ("/registry/ranges/serviceips", "ranges", "serviceips"),
    ],
)
def test_a_key_names_its_object(key: str, kind: str, name: str) -> None:
    assert of_key(key) == Object(kind, name)


def test_losses_are_what_came_what_changed_and_what_went() -> None:
    found = losses(
        {"/registry/pods/a/same": 1, "/registry/pods/a/other": 2, "/registry/pods/a/gone": 3},
        {"/registry/pods/a/same": 1, "/registry/pods/a/other": 9, "/registry/pods/a/new": 8},
    )
    assert in_words(found) == [
        "Created since the backup, so lost: 1 pods (a/new).",
        "Changed since, so undone: 1 pods (a/other).",
        "Deleted since, so restored: 1 pods (a/gone).",
    ]
    console, text = printed()
    console.print(table(found))
    assert text.getvalue().splitlines()[-1].split() == ["pods", "3", "1", "1", "1"]


def test_what_the_cluster_writes_by_itself_is_counted_and_many_names_are_cut() -> None:
    now = {f"/registry/events/a/{n}": n for n in range(40)} | {f"/registry/pods/a/p{n}": n for n in range(7)}
    assert in_words(losses({}, now)) == [
        "Created since the backup, so lost: 7 pods (a/p0, a/p1, a/p2, a/p3, a/p4 …), "
        "40 of the cluster's own records."
    ]
    assert in_words(losses(now, now)) == []
