"""The file of `./inv backup`: a tar with etcd's snapshot and what else a recovery of the lab needs.

    status.json    what `etcdutl snapshot status` found
    keys.json      etcd's keys with their revisions
    pki/           the CAs and keys that control planes share; where etcd has machines of its own, without
                   etcd's CA, whose key is on this host only
    snapshot.db    of `etcdctl snapshot save`: the database, followed by its SHA-256
    lab.json       the lab's record (`lab.workspace.made`)
    manifest.json  which lab, when, versions, and the SHA-256 of every other file

The machine of an etcd member prints the tar without the last two (provision/node/backup.sh); they are appended
on this host, as is pki/ where that machine is no control plane. It contains the cluster's secrets, so only its
owner may read it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from lab.errors import ConfigError, HostNotFit, LabStateError
from lab.system import quoting
from lab.workspace import PRIVATE_FILE, PRIVATE_FOLDER

FORMAT = 1
MANIFEST, SNAPSHOT, STATUS, KEYS, RECORD = (
    "manifest.json",
    "snapshot.db",
    "status.json",
    "keys.json",
    "lab.json",
)

SHARED_PKI = (
    *("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key"),
    *("etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub"),
)
"""Files of /etc/kubernetes/pki that all control planes share (kubeadm, "Manual certificate distribution")."""

OF_ETCD = "etcd/"
"""How those of SHARED_PKI begin that control planes without etcd don't have."""

SPARE = 20 * 2**20
"""Bytes of disk space besides the snapshot: for the rest of the file, and for a database that grows."""

MAKE_ROOM = "free some (`./inv bake --prune`), or name a file on another disk"

CHUNK = 2**20
REGISTRY = "/registry/"
"""The prefix of every key of the API server."""

Inventory = Mapping[str, int]
"""etcd's keys, each with the revision at which it last changed."""


@dataclass(frozen=True)
class Manifest:
    """What a backup is of.

    `owner` is the label value of the lab (`lab.workspace.made`). `taken` is in UTC, as ISO 8601. `member` is
    the machine whose etcd member it was taken from. `external`: that machine is no control plane. `hash`,
    `revision`, `keys` and `size` (bytes) are those of `etcdutl snapshot status`.
    """

    lab: str
    owner: str
    taken: str
    member: str
    kubernetes: str
    etcd: str
    external: bool = False
    hash: int = 0
    revision: int = 0
    keys: int = 0
    size: int = 0


@dataclass(frozen=True)
class Backup:
    """An undamaged backup. `sha256` is that of its manifest, which identifies its complete content."""

    path: Path
    manifest: Manifest
    inventory: Inventory
    pki: Mapping[str, str]
    snapshot_sha256: str
    sha256: str


def require_new(target: Path) -> None:
    """Raise ConfigError if that file exists, or its folder does not or can't be written to."""
    problems = []
    if os.path.lexists(target):
        problems.append(f"{target} exists, and a backup overwrites nothing")
    elif not target.parent.is_dir():
        problems.append(f"{target}: there is no folder {target.parent}")
    elif not os.access(target.parent, os.W_OK):
        problems.append(f"{target}: you have no permission to write to {target.parent}")
    if problems:
        raise ConfigError(problems, hint="name another file; without one, `./inv backup` chooses it")


def require_room(folder: Path, size: int) -> None:
    """Raise HostNotFit if the disk has too little space for a snapshot of that many bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    needed, free = size + SPARE, shutil.disk_usage(there).free
    if free < needed:
        raise HostNotFit(
            f"the backup needs {_mib(needed)} MiB of disk space at {folder}, and {_mib(free)} MiB are free",
            hint=MAKE_ROOM,
        )


def begin(target: Path) -> Path:
    """Create the empty file that becomes `target` once it is complete; only its owner can read it."""
    target.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # of a run that was killed
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    return part


def add_pki(part: Path, shared: Path) -> None:
    """Append the tar of a control plane's shared files to what the machine of an etcd member has printed.

    Raises LabStateError if either is no tar.
    """
    try:
        with tarfile.open(shared, "r:") as source, tarfile.open(part, "a:") as target:
            for member in source.getmembers():
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
    except tarfile.TarError as error:
        raise LabStateError(
            f"what the machines sent is not a complete backup: {error}", hint="run the same command again"
        ) from error


def complete(part: Path, target: Path, about: Manifest, record: str) -> Backup:
    """Verify what a control plane has printed, append lab.json and the manifest, and rename it to `target`.

    `about` lacks what `status.json` has, `record` is the text of lab.json. Raises LabStateError if the file is
    not complete, HostNotFit if the disk is full, ConfigError if `target` was created meanwhile.
    """
    try:
        with tarfile.open(part, "r:") as archive:
            members = {each.name: each for each in archive.getmembers() if each.isfile()}
            problem = _missing(members, external=about.external) or snapshot_problem(_file(archive, SNAPSHOT))
            if problem:
                raise tarfile.TarError(problem)
            sums = {name: _sha256(_file(archive, name)) for name in members}
            status = json.load(_file(archive, STATUS))
        manifest = replace(
            about,
            hash=int(status["hash"]),
            revision=int(status["revision"]),
            keys=int(status["totalKey"]),
            size=int(status["totalSize"]),
        )
        if not manifest.keys:
            raise tarfile.TarError("its snapshot has no keys")
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise LabStateError(
            f"what {about.member} sent is not a complete backup: {error}", hint="run the same command again"
        ) from error
    content = record.encode()
    sums[RECORD] = hashlib.sha256(content).hexdigest()
    said = json.dumps({"format": FORMAT, **asdict(manifest), "files": sums}, indent=2).encode()
    try:
        with tarfile.open(part, "a:") as archive:
            for name, text in ((RECORD, content), (MANIFEST, said)):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(text), PRIVATE_FILE
                archive.addfile(member, io.BytesIO(text))
        with part.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise HostNotFit(f"{target} can't be written: {error.strerror}", hint=MAKE_ROOM) from error
    _name(part, target)
    return read(target)


def read(path: Path) -> Backup:
    """Read a backup and verify each part of it. Raises ConfigError if one is damaged, or if it is no backup."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {each.name for each in archive.getmembers() if each.isfile()}
            if MANIFEST not in members:
                raise _refused(path, f"{path} is not a backup of this kit: it has no {MANIFEST}")
            text = _file(archive, MANIFEST).read()
            said = json.loads(text)
            if said["format"] != FORMAT:
                raise _refused(
                    path,
                    f"{path} was written by a later version of the kit (format {said['format']}, not {FORMAT})",
                )
            sums = said["files"]
            damaged = [
                name for name in sums if name not in members or _sha256(_file(archive, name)) != sums[name]
            ]
            said.setdefault("external", False)  # earlier versions of the kit knew no other topology
            pki_names = _shared(external=said["external"])
            damaged += [
                name for name in (SNAPSHOT, KEYS, *(f"pki/{each}" for each in pki_names)) if name not in sums
            ]
            if damaged:
                raise _refused(
                    path, *(f"{path} is damaged: {name} is not as it was written" for name in damaged)
                )
            problem = snapshot_problem(_file(archive, SNAPSHOT))
            if problem:
                raise _refused(path, f"{path} is damaged: {problem}")
            manifest = Manifest(**{key: said[key] for key in Manifest.__dataclass_fields__})
            keys = inventory(_file(archive, KEYS).read())
            pki = {name: _file(archive, f"pki/{name}").read().decode() for name in pki_names}
    except (FileNotFoundError, IsADirectoryError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise ConfigError(
            [f"there is no file {path}" if missing else f"{path} is a folder, not a backup"],
            hint="name a file that `./inv backup` wrote; .lab/backups has those without a name",
        ) from error
    except OSError as error:
        raise ConfigError(
            [f"{path} can't be read: {error.strerror}"], hint="make it readable for you"
        ) from error
    except tarfile.TarError as error:
        raise _refused(path, f"{path} is not a backup, or is cut short: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        # What a parser says may quote the file.
        raise _refused(
            path, f"{path} is damaged: its {MANIFEST} can't be read ({type(error).__name__})"
        ) from None
    return Backup(path, manifest, keys, pki, sums[SNAPSHOT], hashlib.sha256(text).hexdigest())


def snapshot_problem(snapshot: IO[bytes]) -> str | None:
    """Why the snapshot is not what etcd sent; None if it is. etcd appends the SHA-256 of the rest.

    `etcdutl snapshot status` ignores that hash: it may accept a snapshot that was cut short, or changed in some
    page (etcdutl, snapshot/v3_snapshot.go, `hasChecksum` and `Status`).
    """
    size = snapshot.seek(0, io.SEEK_END)
    own = hashlib.sha256().digest_size
    if size % 512 != own:
        return f"{SNAPSHOT} does not end with its hash, so it was cut short"
    snapshot.seek(0)
    if _sha256(snapshot, size - own) != snapshot.read(own).hex():
        return f"{SNAPSHOT} does not match the hash at its end"
    return None


def inventory(text: str | bytes) -> dict[str, int]:
    """Read what `etcdctl get --prefix /registry/ --keys-only --write-out json` printed: key → revision.

    Raises ValueError, KeyError or TypeError for anything else.
    """
    found: Any = json.loads(text)
    return {base64.b64decode(kv["key"]).decode(): int(kv["mod_revision"]) for kv in found.get("kvs") or []}


def newest(folder: Path) -> Path | None:
    """The backup in a folder that was completed last; None if there is none."""
    return max(complete_in(folder), key=lambda path: path.stat().st_mtime, default=None)


def complete_in(folder: Path) -> list[Path]:
    """The complete backups in a folder, which may be missing."""
    return [path for path in folder.glob("*.tar") if not path.name.startswith(".")]


def _shared(*, external: bool) -> tuple[str, ...]:
    return tuple(name for name in SHARED_PKI if not (external and name.startswith(OF_ETCD)))


def _missing(members: Mapping[str, object], *, external: bool) -> str | None:
    needed = (STATUS, KEYS, SNAPSHOT, *(f"pki/{name}" for name in _shared(external=external)))
    missing = [name for name in needed if name not in members]
    return f"it lacks {', '.join(missing)}" if missing else None


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file


def _sha256(file: IO[bytes], size: int | None = None) -> str:
    """The hash of a file from its current position: of that many bytes, or to its end."""
    digest = hashlib.sha256()
    while size is None or size > 0:
        part = file.read(CHUNK if size is None else min(CHUNK, size))
        if not part:
            break
        digest.update(part)
        size = None if size is None else size - len(part)
    return digest.hexdigest()


def _name(part: Path, target: Path) -> None:
    """Rename the complete file. Raises ConfigError if a file of that name exists."""
    try:
        os.link(part, target)
    except FileExistsError:
        part.unlink()
        require_new(target)
    except OSError:  # a file system without links
        require_new(target)
        part.rename(target)
    else:
        part.unlink()


def _refused(path: Path, *problems: str) -> ConfigError:
    return ConfigError(problems, hint=f"use another backup: `ls -l {quoting.word(path.parent)}`")


def _mib(size: int) -> int:
    return -(-size // 2**20)
