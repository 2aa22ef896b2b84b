import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lab.golden.supply import bom, document, licences
from lab.golden.supply.bom import Material
from lab.system.paths import REPOSITORY

MIT = """The MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal"""
BSD_2 = """Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:"""
BSD_3 = f"{BSD_2}\n * Neither the name of the copyright holder nor the names of its contributors"
BSD_4 = f"{BSD_3}\n All advertising materials mentioning features or use of this software must"
ISC = """Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted"""
APACHE = "                                 Apache License\n   Version 2.0, January 2004\n"
COMMENTED_APACHE = '// Licensed under the Apache License,\n// Version 2.0 (the "License")'
MPL = "Mozilla Public License Version 2.0\n=================================="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (BSD_2, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        (BSD_4, "unknown"),
        (ISC, "ISC"),
        (APACHE, "Apache-2.0"),
        (COMMENTED_APACHE, "Apache-2.0"),
        (MPL, "MPL-2.0"),
        (f"{MIT}\n\n{APACHE}", "Apache-2.0 AND MIT"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_told_by_its_text(text: str, expected: str) -> None:
    assert licences.of_text(text) == expected


def module(cache: Path, folder: str, **files: str) -> None:
    (cache / folder).mkdir(parents=True)
    for name, text in files.items():
        (cache / folder / name.replace("_", ".")).write_text(text)


def test_all_licence_files_of_a_module_count_and_capitals_are_escaped(tmp_path: Path) -> None:
    module(tmp_path, "github.com/!burnt!sushi/toml@v1.0.0", COPYING=MIT, LICENSE_docs="of our own")
    module(tmp_path, "example.org/plain@v1.0.0", LICENSE_txt=BSD_3, license_go=MIT, README=APACHE)
    assert licences.of_module(tmp_path, "github.com/BurntSushi/toml", "v1.0.0") == "MIT AND unknown"
    assert licences.of_module(tmp_path, "example.org/plain", "v1.0.0") == "BSD-3-Clause"
    assert licences.of_module(tmp_path, "example.org/gone", "v1.0.0") == "unknown"


def said(path: str, *dependencies: dict[str, Any]) -> dict[str, Any]:
    return {"Main": {"Path": path, "Version": "v1.0.0", "Sum": "h1:main"}, "Deps": list(dependencies)}


def test_a_module_is_listed_once_with_all_programs_that_it_is_in(tmp_path: Path) -> None:
    module(tmp_path, "example.org/shared@v1.2.3", LICENSE=MIT)
    shared = {"Path": "example.org/shared", "Version": "v1.2.3", "Sum": "h1:abc"}
    linked = {"one": said("example.org/one", shared), "two": said("example.org/two", shared)}
    found = {material.name: material for material in bom.go_modules(linked, tmp_path)}
    assert found["example.org/shared"] == Material(
        "go-module", "example.org/shared", "v1.2.3", "MIT", "h1:abc", ("one", "two")
    )
    assert found["example.org/one"].used_in == ("one",)
    assert len(found) == 3


def test_what_replaces_a_module_is_what_went_in(tmp_path: Path) -> None:
    new = {"Path": "example.org/new", "Version": "v0.9.0", "Sum": "h1:new"}
    linked = {"one": said("example.org/one", {"Path": "example.org/old", "Version": "v2.0.0", "Replace": new})}
    assert {material.name for material in bom.go_modules(linked, tmp_path)} == {
        "example.org/one",
        "example.org/new",
    }


def test_only_installed_debian_packages_are_listed() -> None:
    status = """Package: socat
Status: install ok installed
Architecture: amd64
Version: 1.8.0.3-1

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: glibc (2.41-1)
Version: 2.41-1+b1

Package: libssl3t64
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.5.1-1

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""
    assert bom.debian_packages(status, "13") == (
        Material("operating-system", "debian", "13", "unknown"),
        debian_package("socat", "1.8.0.3-1"),
        debian_package("libc6", "2.41-1+b1", "glibc@2.41-1"),
        debian_package("libssl3t64", "3.5.1-1", "openssl"),
    )


def debian_package(name: str, version: str, source: str = "") -> Material:
    return Material(
        *("debian-package", name, version, "unknown"),
        architecture="amd64",
        distribution="debian-13",
        source=source,
    )


DIGEST = f"sha256:{'0a' * 32}"
BILL = (
    Material("c-library", "libc", "2.36", "LGPL-2.1-or-later", used_in=("flanneld", "pause")),
    Material("c-source", "pause", "3.10", "Apache-2.0", used_in=("pause",)),
    debian_package("libc6", "2.41-1+b1", "glibc@2.41-1"),
    Material("go-module", "example.org/a/v2", "v2.0.0", "MIT", "h1:abc=", ("etcd", "etcdctl")),
    Material("go-module", "example.org/both", "v1.0.0", "Apache-2.0 AND MIT", "h1:def=", ("etcd",)),
    Material("go-module", "example.org/part", "v1.0.0", "MIT AND unknown", "", ("etcd",)),
    Material("go-module", "example.org/part", "v1.0.0", "MIT AND unknown", "h1:ghi=", ("etcd",)),
    Material("operating-system", "debian", "13", "unknown"),
    Material(
        "toolchain", "gcc", "12.2.0", "GPL-3.0-or-later WITH GCC-exception-3.1", used_in=("flanneld", "pause")
    ),
    Material("toolchain", "go", "1.26.6", "BSD-3-Clause", used_in=("etcd",)),
    Material("upstream-file", "kubelet", "1.36.3", "Apache-2.0", DIGEST, ("kubelet",), architecture="amd64"),
    Material("upstream-image", "registry.k8s.io/etcd", "3.6.5-0", "unknown", DIGEST, ("etcdctl",)),
)
"""A material of each kind, each form of a licence and of a hash, in the order in which bills are read."""


def written(path: Path, materials: Sequence[Material]) -> dict[str, Any]:
    bom.write(path / "bom.json", materials)
    content = json.loads((path / "bom.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    bom.write(tmp_path / "bom.json", bom.merge(BILL[6:], BILL[:6]))
    assert bom.read(tmp_path / "bom.json") == BILL


def test_what_two_bills_have_is_listed_once_with_the_programs_of_both() -> None:
    def shared(*programs: str) -> Material:
        return Material("go-module", "example.org/shared", "v1.2.3", "MIT", "h1:abc", programs)

    other = Material("go-module", "example.org/shared", "v1.2.3", "MIT", "", ("runc",))
    assert bom.merge([shared("etcd", "kubelet")], [shared("kubelet", "ctr"), other]) == (
        shared("etcd", "kubelet", "ctr"),
        other,
    )


def test_a_bill_is_valid_cyclonedx(tmp_path: Path) -> None:
    bom.write(tmp_path / "bom.json", BILL)
    text = (tmp_path / "bom.json").read_text(encoding="utf-8")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"type": "library"', '"type": "leaflet"')) is not None


def test_the_same_materials_give_the_same_bytes_and_others_another_serial_number(tmp_path: Path) -> None:
    first, second = document.dump(BILL), document.dump([*reversed(BILL), BILL[0]])
    assert first == second
    assert "timestamp" not in first
    assert written(tmp_path, BILL)["serialNumber"] != written(tmp_path, BILL[1:])["serialNumber"]


def test_scanners_find_what_they_look_for(tmp_path: Path) -> None:
    components = written(tmp_path, BILL)["components"]
    by_name = {each["name"]: each for each in components}
    assert {name: each.get("purl") for name, each in by_name.items()} == {
        "libc": "pkg:generic/libc@2.36",
        "pause": "pkg:generic/pause@3.10",
        "libc6": "pkg:deb/debian/libc6@2.41-1%2Bb1?arch=amd64&distro=debian-13&upstream=glibc%402.41-1",
        "example.org/a/v2": "pkg:golang/example.org/a/v2@v2.0.0",
        "example.org/both": "pkg:golang/example.org/both@v1.0.0",
        "example.org/part": "pkg:golang/example.org/part@v1.0.0",
        "debian": None,
        "gcc": "pkg:generic/gcc@12.2.0",
        "go": "pkg:golang/stdlib@1.26.6",
        "registry.k8s.io/etcd": (f"pkg:oci/etcd@{DIGEST}?repository_url=registry.k8s.io/etcd&tag=3.6.5-0"),
        "kubelet": "pkg:generic/kubelet@1.36.3?arch=amd64",
    }
    assert by_name["debian"]["type"] == "operating-system"
    assert len({each["bom-ref"] for each in components}) == len(BILL)


def test_a_licence_is_an_id_an_expression_or_called_unknown(tmp_path: Path) -> None:
    licences_of = {each["name"]: each["licenses"] for each in written(tmp_path, BILL)["components"]}
    assert licences_of["example.org/a/v2"] == [{"license": {"id": "MIT"}}]
    assert licences_of["example.org/both"] == [{"expression": "Apache-2.0 AND MIT"}]
    assert licences_of["gcc"] == [{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]
    assert licences_of["example.org/part"] == [{"license": {"id": "MIT"}}, {"license": {"name": "unknown"}}]
    assert licences_of["libc6"] == [{"license": {"name": "unknown"}}]


def test_what_cyclonedx_has_no_place_for_is_a_property(tmp_path: Path) -> None:
    found = {
        each["name"]: [(one["name"], one["value"]) for one in each["properties"]]
        for each in written(tmp_path, BILL)["components"]
    }
    assert found["example.org/a/v2"] == [
        ("ha-lab:go-sum", "h1:abc="),
        ("ha-lab:kind", "go-module"),
        ("ha-lab:used-in", "etcd"),
        ("ha-lab:used-in", "etcdctl"),
    ]
    assert ("ha-lab:copyright-file", "/usr/share/doc/libc6/copyright") in found["libc6"]


def test_the_list_of_earlier_versions_is_read_as_well(tmp_path: Path) -> None:
    empty = {"checksum": "", "used_in": []}
    listed = [
        {"kind": "debian-package", "name": "socat", "version": "1.8", "licence": "see /usr/share/doc"} | empty,
        {"kind": "go-module", "name": "example.org/a", "version": "v1.0.0", "licence": "MIT"}
        | {"checksum": "h1:abc", "used_in": ["etcd"]},
    ]
    (tmp_path / "bom.json").write_text(json.dumps(listed))
    assert bom.read(tmp_path / "bom.json") == (
        Material("debian-package", "socat", "1.8", "unknown"),
        Material("go-module", "example.org/a", "v1.0.0", "MIT", "h1:abc", ("etcd",)),
    )


@pytest.mark.slow
def test_only_a_bill_loads_the_library_since_that_takes_longer_than_most_verbs() -> None:
    program = "import sys, lab.golden.build; sys.exit(any('cyclonedx' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=60)
