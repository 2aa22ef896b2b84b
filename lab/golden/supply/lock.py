"""The lock of upstream's parts: which packages and images a Kubernetes version is made of.

supply/upstream/VERSION.yaml; `./inv lock` writes it (`lab.golden.supply.pinning`), `bake` reads it. Where
there is none, upstream's parts of that version are not pinned, and are not used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.errors import LabError
from lab.system.paths import SUPPLY

FOLDER = SUPPLY / "upstream"

HEAD = """\
# What upstream's Kubernetes {version} is made of. `./inv lock` writes this file, from the upstream hosts or
# from the mirrors of lab.yaml; `bake` takes nothing that differs from it.
"""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Pinned(BaseModel):
    """A record that refuses unknown keys and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Package(Pinned):
    """One Debian package: its exact version, and its file's hash for each architecture."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+~-]+$")]
    sha256: dict[str, Sha256]


class Lock(Pinned):
    """All that is pinned of one version. `images` maps full names to digests, `key` is ASCII-armoured."""

    kubernetes: str
    signed_by: Annotated[str, Field(pattern=r"^[0-9A-F]{40}$")]
    packages: dict[str, Package]
    images: dict[str, Digest]
    key: str


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
            f"Kubernetes {version} can't be taken from upstream: its packages and images are not pinned "
            f"(there is no {file})",
            hint="set `kubernetes: {source: modules}` in lab.yaml, which needs no such file; or write it with "
            "`./inv lock` on a host that reaches upstream or a mirror (`mirrors` in lab.yaml)",
        ) from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(
            f"{file} is not a lock in the format of `./inv lock`: {_wrong(error)}", hint=_MADE_AGAIN
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
        beside.write_text(HEAD.format(version=lock.kubernetes) + _text(lock), encoding="utf-8")
        beside.rename(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LabError(
            f"{file} can't be written: {error.strerror}", hint="make that folder yours and writable"
        ) from error
    return file


_MADE_AGAIN = "restore it as it was committed (`git checkout` it), or write it again: `./inv lock`"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is, so that a key can be read and compared."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _text(lock: Lock) -> str:
    data: dict[str, Any] = lock.model_dump()
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000)


def _wrong(error: ValidationError | yaml.YAMLError | UnicodeDecodeError) -> str:
    """Say in a few words what is wrong with the file."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not a text in UTF-8"
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        return f"it is not YAML{f' (line {mark.line + 1})' if mark else ''}"
    found = error.errors(include_url=False)
    if not found[0]["loc"]:
        return "it is empty, or no mapping of keys"
    said = {"missing": "is missing", "extra_forbidden": "is no key of a lock"}
    each = [
        f"{'.'.join(map(str, one['loc']))} {said.get(one['type'], 'is not as it should be')}" for one in found
    ]
    return ", ".join(each[:3]) + (f", and {len(each) - 3} more" if len(each) > 3 else "")
