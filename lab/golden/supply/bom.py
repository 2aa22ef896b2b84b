"""This room lists what went in, with versions and licences: Go modules, C code, packages, images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lab.golden.supply import licences
from lab.golden.supply.golang import Go
from lab.golden.supply.releases import Release
from lab.system import process

Kind = Literal[
    "go-module", "c-source", "c-library", "toolchain", "debian-package", "upstream-package", "upstream-image"
]
"""Where a thing came from: built here from Go modules and C, or Debian's, or the Kubernetes project's own."""

WITH_C = ("flanneld", "pause")
"""The programs that have the build host's C library linked into them."""


@dataclass(frozen=True)
class Material:
    """One thing that went in: its SPDX licence or `unknown`, its hash, the programs it is in.

    The hash is go.sum's, a package's sum or an image's digest.
    """

    kind: Kind
    name: str
    version: str
    licence: str
    checksum: str = ""
    used_in: tuple[str, ...] = ()


def write(path: Path, materials: Iterable[Material]) -> None:
    """Write a bill of materials, sorted, as JSON."""
    ordered = sorted(materials, key=lambda each: (each.kind, each.name, each.version))
    path.write_text(json.dumps([asdict(each) for each in ordered], indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[Material, ...]:
    """Read what `write` wrote."""
    items = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Material(**item | {"used_in": tuple(item["used_in"])}) for item in items)


def merge(*bills: Sequence[Material]) -> tuple[Material, ...]:
    """Put bills together."""
    return tuple(material for bill in bills for material in bill)


def built(go: Go, folder: Path, release: Release) -> tuple[Material, ...]:
    """Ask every program below `bin/` and `cni/` what is in it, and this host what its C is."""
    said = {
        program.name if program.parent.name == "bin" else f"cni/{program.name}": go.linked(program)
        for program in sorted([*(folder / "bin").iterdir(), *(folder / "cni").iterdir()])
    }
    linked = {name: json.loads(text) for name, text in said.items() if text.strip()}
    return merge(
        go_modules(linked, go.module_cache()),
        [
            Material("toolchain", "go", release.go, "BSD-3-Clause", used_in=tuple(linked)),
            Material("c-source", "pause", release.pause, "Apache-2.0", used_in=("pause",)),
        ],
        _c_parts(),
    )


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


def debian_packages(status: str) -> tuple[Material, ...]:
    """Read dpkg's status file: what is installed, in which version."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name = fields["Package"]
            licence = f"see /usr/share/doc/{name}/copyright"
            found.append(Material("debian-package", name, fields["Version"], licence))
    return tuple(found)


def _c_parts() -> tuple[Material, ...]:
    """The host's compiler and the C library that it links: the one part that isn't pinned."""
    compiler = process.run(["gcc", "-dumpfullversion"], timeout=60).stdout.strip()
    macros = "#include <features.h>\n__GLIBC__ __GLIBC_MINOR__\n"
    said = process.run(["gcc", "-E", "-P", "-"], stdin=macros, timeout=60).stdout.split()
    version = ".".join(said[-2:])
    licence = "LGPL-2.1-or-later"
    if not version.replace(".", "").isdigit():  # a host with another C library, such as musl
        version, licence = licences.UNKNOWN, licences.UNKNOWN
    return (
        Material("toolchain", "gcc", compiler, "GPL-3.0-or-later WITH GCC-exception-3.1", used_in=WITH_C),
        Material("c-library", "libc", version, licence, used_in=WITH_C),
    )
