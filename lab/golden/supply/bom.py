"""The bill of materials: Go modules, C code, packages and images, with versions and licences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lab.golden.supply import licences
from lab.golden.supply.golang import Go
from lab.golden.supply.releases import Release
from lab.system import process

Kind = Literal[
    "go-module",
    "c-source",
    "c-library",
    "toolchain",
    "operating-system",
    "debian-package",
    "upstream-file",
    "upstream-image",
]
"""Where a thing came from: built here from Go modules and C, or Debian's, or published by its own project."""


@dataclass(frozen=True)
class Material:
    """One thing that went in: its SPDX licence or `unknown`, its hash, the programs it is in.

    The hash is go.sum's (`h1:…`), or a file's or an image's (`sha256:…`). A file of upstream's and a Debian
    package have an architecture. The latter has a distribution (`debian-13`), and a source where its source
    package has another name (`NAME`, or `NAME@VERSION` where the version is another one, too).
    """

    kind: Kind
    name: str
    version: str
    licence: str
    checksum: str = ""
    used_in: tuple[str, ...] = ()
    architecture: str = ""
    distribution: str = ""
    source: str = ""


def write(path: Path, materials: Iterable[Material]) -> None:
    """Write a bill of materials as CycloneDX in JSON; the same materials give the same bytes."""
    # Imported here: the library takes longer to import than most verbs to start, and only bakes write bills.
    from lab.golden.supply import document

    path.write_text(document.dump(materials), encoding="utf-8")


def read(path: Path) -> tuple[Material, ...]:
    """Read what `write` wrote, sorted; also the list that earlier versions of the kit wrote."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> tuple[Material, ...]:
    """Read the text of a bill of materials, as `read` does."""
    from lab.golden.supply import document

    content = json.loads(text)
    if isinstance(content, list):  # before CycloneDX: what a cache or a golden machine from then still has
        return tuple(_from_list(item) for item in content)
    return document.load(content)


def _from_list(item: dict[str, Any]) -> Material:
    """One entry of the list of earlier versions, which had a Debian package's copyright file as its licence."""
    licence = licences.UNKNOWN if item["kind"] == "debian-package" else item["licence"]
    return Material(**item | {"licence": licence, "used_in": tuple(item["used_in"])})


def merge(*bills: Sequence[Material]) -> tuple[Material, ...]:
    """Put bills together. What is in several of them is listed once, with all programs that it is in."""
    used: dict[Material, list[str]] = {}
    for material in (material for bill in bills for material in bill):
        used.setdefault(replace(material, used_in=()), []).extend(material.used_in)
    return tuple(
        replace(material, used_in=tuple(dict.fromkeys(programs))) for material, programs in used.items()
    )


def built(go: Go, folder: Path, release: Release) -> tuple[Material, ...]:
    """Ask every program in the folder's folders what is in it: its modules, and the toolchain."""
    said = {
        program.name if program.parent.name == "bin" else f"{program.parent.name}/{program.name}": go.linked(
            program
        )
        for program in sorted(folder.glob("*/*"))
    }
    linked = {name: json.loads(text) for name, text in said.items() if text.strip()}
    toolchain = Material("toolchain", "go", release.go, "BSD-3-Clause", used_in=tuple(linked))
    return (*go_modules(linked, go.module_cache()), toolchain)


def go_modules(linked: dict[str, Any], cache: Path) -> tuple[Material, ...]:
    """Turn what programs say (`go version -m -json`, by name) into one material a module."""
    used: dict[tuple[str, str, str], list[str]] = {}
    for program, said in linked.items():
        for module in [said["Main"], *said.get("Deps", [])]:
            module = module.get("Replace", module)
            key = (module["Path"], module["Version"], module.get("Sum", ""))
            used.setdefault(key, []).append(program)
    return tuple(
        Material(
            "go-module",
            path,
            version,
            licences.of_module(cache, path, version),
            checksum,
            tuple(programs),
        )
        for (path, version, checksum), programs in used.items()
    )


def debian_packages(status: str, release: str) -> tuple[Material, ...]:
    """Read dpkg's status file of Debian `release` (`13`): that release, and what is installed in which version.

    Their licences are not read: Debian describes them in a copyright file for each package.
    """
    distribution = f"debian-{release}"
    found = [Material("operating-system", "debian", release, licences.UNKNOWN)]
    for paragraph in status.split("\n\n"):
        named = r"^(Package|Version|Status|Architecture|Source): (.*)$"
        fields = dict(re.findall(named, paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found.append(
                Material(
                    "debian-package",
                    fields["Package"],
                    fields["Version"],
                    licences.UNKNOWN,
                    architecture=fields.get("Architecture", ""),
                    distribution=distribution,
                    # `Source: glibc (2.41-12)`; the version is left out where the package has the same.
                    source=re.sub(r" \((.+)\)$", r"@\1", fields.get("Source", "")),
                )
            )
    return tuple(found)


def c_parts(used_in: tuple[str, ...]) -> tuple[Material, ...]:
    """The host's compiler and C library, which are in some programs: the parts that aren't pinned."""
    compiler = process.run(["gcc", "-dumpfullversion"], timeout=60).stdout.strip()
    macros = "#include <features.h>\n__GLIBC__ __GLIBC_MINOR__\n"
    said = process.run(["gcc", "-E", "-P", "-"], stdin=macros, timeout=60).stdout.split()
    version = ".".join(said[-2:])
    licence = "LGPL-2.1-or-later"
    if not version.replace(".", "").isdigit():  # a host with another C library, such as musl
        version, licence = licences.UNKNOWN, licences.UNKNOWN
    return (
        Material("toolchain", "gcc", compiler, "GPL-3.0-or-later WITH GCC-exception-3.1", used_in=used_in),
        Material("c-library", "libc", version, licence, used_in=used_in),
    )
