"""Creates locks of upstream's parts from records of their hashes that others keep.

`supply/pin-upstream RECORDS...` runs this. A file of records has, for each hash, its value and the labels of
the records that it was copied from: tests/supply/records.yaml is the one that the locks were made of, and
`./inv lock --records` writes one of what the hosts say. No host is asked here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.errors import ConfigError, LabError
from lab.golden.supply import images, lock
from lab.golden.supply.lock import Hash, Lock, LockedFile
from lab.golden.supply.parts import CONTROL_PLANE, OF_KUBERNETES, File, Image, all_images, architectures, files
from lab.golden.supply.releases import Release, release, supported

FORMAT = 1
"""The format of a file of records: its key `format`."""

Records = Mapping[str, Any]


def main(words: list[str]) -> int:
    """Write the lock of every supported version from files of records."""
    parser = argparse.ArgumentParser(prog="supply/pin-upstream", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "records", type=Path, nargs="+", metavar="RECORDS", help="a YAML file of hashes and their sources"
    )
    try:
        records = [read(file) for file in parser.parse_args(words).records]
        locks = [make(release(version), *records) for version in supported()]
    except LabError as error:
        print(f"pin-upstream: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    for made in locks:
        print(f"wrote {lock.write(made)}: {_summary(made)}")
    print("next: git diff, and commit them")
    return 0


def read(file: Path) -> Records:
    """Read a file of records. Raises ConfigError for one that is none."""
    hint = "name a file of records in YAML, with `format: 1`; tests/supply/records.yaml is one"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not YAML in UTF-8"
        raise ConfigError([f"{file} can't be read: {reason}"], hint=hint) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError([f"{file} is not a file of records in format {FORMAT}"], hint=hint)
    return found


def make(wanted: Release, *records: Records) -> Lock:
    """Return the lock of a version: every part that has a record for each architecture.

    Several files add to one another. Raises ConfigError with all hashes in them that can't be used, or
    contradict one another.
    """
    problems: list[str] = []
    pinned = {
        image.name: found
        for image in all_images(wanted)
        if (found := _hash(records, place_of_image(image, wanted), problems))
    }
    # kube-proxy's release binary is only used for an image that is made here.
    spare = {"kube-proxy"} if f"registry.k8s.io/kube-proxy:v{wanted.kubernetes}" in pinned else set()
    locked = {
        file.name: of_file
        for file in files(wanted)
        if file.name not in spare and (of_file := _file(file, wanted, records, problems))
    }
    used = [label for each in _all(locked, pinned) for label in (*each.sources, each.prefix12) if label]
    named = {label: each for file in records for label, each in (file.get("sources") or {}).items()}
    problems += [f"sources lacks {label}" for label in sorted(set(used) - set(named))]
    if problems:
        raise ConfigError(problems, hint="correct these records; nothing was written")
    explained = {label: _where(named[label]) for label in named if label in used}
    return Lock(kubernetes=wanted.kubernetes, files=locked, images=pinned, sources=explained)


def _all(locked: Mapping[str, LockedFile], pinned: Mapping[str, Hash]) -> Iterator[Hash]:
    yield from (each for file in locked.values() for each in file.hashes.values())
    yield from pinned.values()


def place_of_file(file: File, wanted: Release, architecture: str) -> tuple[str, ...]:
    """Where a file's hash is in a file of records: by Kubernetes' version, or by the file's own name."""
    if file.name in OF_KUBERNETES:
        section = "other_binaries" if file.name == "kube-proxy" else "binaries"
        return "kubernetes", wanted.kubernetes, section, file.name, architecture
    return "files", file.name, file.version, architecture


def place_of_image(image: Image, wanted: Release) -> tuple[str, ...]:
    """Where an image's digest is in a file of records: only that of the list for all architectures counts."""
    short = images.short_name(image.name)
    if short in CONTROL_PLANE:
        return "kubernetes", wanted.kubernetes, "images", short, "index"
    tag = wanted.etcd if short == "etcd" else image.name.rpartition(":")[2].removeprefix("v")
    return "images", short, tag, "index"


def _file(file: File, wanted: Release, records: Sequence[Records], problems: list[str]) -> LockedFile | None:
    """Pin a file that has a record for each architecture; None for another."""
    found = {arch: _hash(records, place_of_file(file, wanted, arch), problems) for arch in architectures()}
    hashes = {arch: each for arch, each in found.items() if each}
    return LockedFile(version=file.version, hashes=hashes) if len(hashes) == len(found) else None


def _hash(records: Sequence[Records], place: tuple[str, ...], problems: list[str]) -> Hash | None:
    """What the files of records have at one place, together; None where none has a hash there."""
    found = [each for file in records if (each := _record(_dig(file, *place), place, problems))]
    if len({each.sha256 for each in found}) > 1:
        said = " and ".join(f"{each.sha256} ({', '.join(each.sources)})" for each in found)
        problems.append(f"{'.'.join(place)}: records contradict one another: {said}")
        return None
    if not found:
        return None
    sources = tuple(dict.fromkeys(label for each in found for label in each.sources))
    prefix12 = next((each.prefix12 for each in found if each.prefix12), None)
    return Hash(sha256=found[0].sha256, sources=sources, prefix12=prefix12, single_source=len(sources) == 1)


def _record(record: object, place: tuple[str, ...], problems: list[str]) -> Hash | None:
    """Read one record; None where there is none (also `missing`, in words)."""
    if record is None or record == "missing":
        return None
    try:
        given = dict(record)  # type: ignore[call-overload]
        agree = given.pop("agree")
        given.pop("note", None)
        found = Hash.model_validate(given)
    except (KeyError, TypeError, ValueError):
        problems.append(f"{'.'.join(place)}: the record must be a hash with its sources: {record}")
        return None
    if len(set(found.sources)) != agree or len(found.sources) != agree:
        problems.append(
            f"{'.'.join(place)}: `agree` is {agree}, but {len(set(found.sources))} sources are listed"
        )
        return None
    return found


def _dig(data: object, *keys: str) -> object:
    """What is below these keys; None where one is missing."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _where(source: Mapping[str, Any]) -> str:
    """Describe a source in one line: its repository and path, and how to find this very version of it."""
    parts = [source.get("repo"), source.get("path")]
    parts += [f"commit {source['commit']}" if "commit" in source else None]
    parts += [f"stored file {source['id']}" if "id" in source else None]
    return ", ".join(part for part in parts if part)


def _summary(made: Lock) -> str:
    single = sum(each.single_source for each in made.hashes)
    parts = f"{len(made.files)} files, {len(made.images)} images"
    return f"{parts}; {single} of {len(made.hashes)} hashes have only one source"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
