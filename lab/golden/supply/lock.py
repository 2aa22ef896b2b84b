"""The lock of upstream's parts: the hashes of the files and images that a Kubernetes version is made of.

supply/upstream/VERSION.yaml; `supply/pin-upstream` writes it (`lab.golden.supply.pinning`), `bake` reads it,
and `./inv lock` compares it with what the hosts have (`lab.golden.supply.comparison`). What a lock lacks is
built from Go modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.errors import LabError
from lab.system.paths import SUPPLY

FOLDER = SUPPLY / "upstream"

HEAD = """\
# What upstream's Kubernetes {version} consists of: release files by their SHA-256, images by the digest of
# their list for all architectures. `supply/pin-upstream` writes this file from public records, which
# `sources` lists. `bake` refuses what differs from it, and builds what is not in it from Go modules.
# single_source: one record only. prefix12: another record, which shows only the first 12 digits and agrees.
# `./inv lock` compares this file with what upstream's hosts have now.
"""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(pattern=r"^[0-9A-Za-z.-]+$")]


class Pinned(BaseModel):
    """A record that refuses unknown keys and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hash(Pinned):
    """A SHA-256 in hex, and the labels of the records that have it."""

    sha256: Sha256
    sources: Annotated[tuple[Label, ...], Field(min_length=1)]
    prefix12: Label | None = None
    single_source: bool = False

    @model_validator(mode="after")
    def _is_marked(self) -> Hash:
        if self.single_source != (len(self.sources) == 1):
            raise ValueError("single_source must be true where there is one source, and only there")
        return self

    @property
    def digest(self) -> str:
        """As registries write it."""
        return f"sha256:{self.sha256}"


class LockedFile(Pinned):
    """One release file: its version, and its hash for each architecture."""

    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    hashes: dict[Label, Hash]


class Lock(Pinned):
    """All that is pinned of one version. `images` has full names, `sources` says where each record is."""

    kubernetes: str
    files: dict[Label, LockedFile]
    images: dict[str, Hash]
    sources: dict[Label, str]

    @model_validator(mode="after")
    def _sources_are_explained(self) -> Lock:
        unknown = sorted({label for each in self.hashes for label in _labels(each)} - set(self.sources))
        if unknown:
            raise ValueError(f"sources lacks {', '.join(unknown)}")
        return self

    def of_file(self, name: str, version: str) -> Mapping[str, Hash]:
        """A file's hashes by architecture; none where it is not pinned, or in another version."""
        locked = self.files.get(name)
        return locked.hashes if locked and locked.version == version else {}

    @property
    def hashes(self) -> tuple[Hash, ...]:
        """Every hash, of files and then of images."""
        return (*(each for file in self.files.values() for each in file.hashes.values()), *self.images.values())


def path(version: str) -> Path:
    """Return the path of the lock for that Kubernetes version."""
    return FOLDER / f"{version}.yaml"


def exists(version: str) -> bool:
    """Whether upstream's parts of that version are pinned."""
    return path(version).exists()


def read(version: str) -> Lock:
    """Return the lock of that version. Raises LabError when there is none, or it isn't one."""
    file = path(version)
    try:
        lock = Lock.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LabError(
            f"Kubernetes {version} can't be taken from upstream: its files and images are not pinned "
            f"(there is no {file})",
            hint="set `kubernetes: {source: modules}` in lab.yaml, which needs no such file; or generate it "
            "with `supply/pin-upstream`",
        ) from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(
            f"{file} is not a lock in the format of `supply/pin-upstream`: {_wrong(error)}", hint=_MADE_AGAIN
        ) from error
    if lock.kubernetes != version:
        raise LabError(
            f"{file} is the lock of Kubernetes {lock.kubernetes}, not of {version}", hint=_MADE_AGAIN
        )
    return lock


def write(lock: Lock) -> Path:
    """Write a lock atomically; return its path. Raises LabError."""
    file = path(lock.kubernetes)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(exist_ok=True)
        beside.write_text(text(lock), encoding="utf-8")
        beside.rename(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LabError(
            f"{file} can't be written: {error.strerror}", hint="make that folder writable for you"
        ) from error
    return file


_MADE_AGAIN = "restore the committed file (`git checkout`), or generate it again: `supply/pin-upstream RECORDS`"


class _Line(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Writes each hash with its sources in one line, so that a change is one line of a diff."""


_Dumper.add_representer(
    _Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)


def text(lock: Lock) -> str:
    """Return a lock as its file has it: the same lock gives the same bytes."""
    data = lock.model_dump(mode="json", exclude_defaults=True)
    for file in data["files"].values():
        file["hashes"] = {name: _Line(each) for name, each in file["hashes"].items()}
    data["images"] = {name: _Line(each) for name, each in data["images"].items()}
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000)
    return HEAD.format(version=lock.kubernetes) + body


def _labels(hashed: Hash) -> tuple[str, ...]:
    return (*hashed.sources, *([hashed.prefix12] if hashed.prefix12 else []))


def _wrong(error: ValidationError | yaml.YAMLError | UnicodeDecodeError) -> str:
    """Say in a few words what is wrong with the file."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        return f"it is not YAML{f' (line {mark.line + 1})' if mark else ''}"
    each = [_problem(one["type"], ".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    return ", ".join(each[:3]) + (f", and {len(each) - 3} more" if len(each) > 3 else "")


def _problem(kind: str, place: str, said: str) -> str:
    if kind == "value_error":  # a rule of this module
        return f"{place}: {said}".removeprefix(": ").replace("Value error, ", "")
    if not place:
        return "it is empty or not a mapping"
    known = {"missing": "is missing", "extra_forbidden": "is not a known key"}
    return f"{place} {known.get(kind, 'is not valid')}"
