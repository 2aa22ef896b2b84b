from pathlib import Path
from typing import Any

import pytest

from lab.golden.supply import bom, licences
from lab.golden.supply.bom import Material

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
Version: 1.8.0.3-1

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""
    assert bom.debian_packages(status) == (
        Material("debian-package", "socat", "1.8.0.3-1", "see /usr/share/doc/socat/copyright"),
    )


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    go = Material("toolchain", "go", "1.26.6", "BSD-3-Clause", used_in=("etcd",))
    module_ = Material("go-module", "example.org/a", "v1.0.0", "MIT", "h1:abc", ("etcd",))
    bom.write(tmp_path / "bom.json", bom.merge([go], [module_]))
    assert bom.read(tmp_path / "bom.json") == (module_, go)
