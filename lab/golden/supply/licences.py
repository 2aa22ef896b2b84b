"""Recognises a licence by its text; "unknown" if it is not certain."""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "unknown"

# Sentences that are in every copy of a licence and in no other one's, small letters, single spaces.
APACHE_2 = "apache license version 2.0, january 2004"
APACHE_2_NOTICE = "licensed under the apache license, version 2.0"
BSD = "redistribution and use in source and binary forms, with or without modification, are permitted"
BSD_3_CLAUSE = re.compile(
    r"neither the names? of|may not be used to endorse|the names? of .{1,80} may not be used"
)
BSD_4_CLAUSE = "all advertising materials mentioning features or use of this software"
ISC = re.compile(r"permission to use, copy, modify, (and/or|and) distribute this software for any purpose")
MIT = "permission is hereby granted, free of charge, to any person obtaining a copy of this software and"
MPL_2 = re.compile(r"mozilla public license,? version 2\.0")

LICENCE_FILE = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)
NO_LICENCE_FILE = {".go", ".py", ".sh", ".tmpl", ".yml", ".yaml", ".json"}


def of_text(text: str) -> str:
    """Return the SPDX expression of the licences in a text, joined by AND; `unknown` for none."""
    # Comment signs and markdown between the words are no words.
    plain = " ".join(re.sub(r"[*#=_>]+|^\s*//", " ", text, flags=re.MULTILINE).lower().split())
    found = []
    if APACHE_2 in plain or APACHE_2_NOTICE in plain:
        found.append("Apache-2.0")
    if BSD in plain and BSD_4_CLAUSE not in plain:
        found.append("BSD-3-Clause" if BSD_3_CLAUSE.search(plain) else "BSD-2-Clause")
    if ISC.search(plain):
        found.append("ISC")
    if MIT in plain:
        found.append("MIT")
    if MPL_2.search(plain):
        found.append("MPL-2.0")
    return " AND ".join(found) or UNKNOWN


def of_module(cache: Path, module: str, version: str) -> str:
    """Return the SPDX expression of a Go module's licence files, in Go's module cache."""
    folder = cache / f"{_escaped(module)}@{_escaped(version)}"
    found: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if LICENCE_FILE.match(path.name) and path.is_file() and path.suffix not in NO_LICENCE_FILE:
            found += of_text(path.read_text(encoding="utf-8", errors="replace")).split(" AND ")
    return " AND ".join(sorted(set(found))) or UNKNOWN


def _escaped(name: str) -> str:
    """Write a name as Go's module cache does: a capital letter is `!` and the small one."""
    return re.sub(r"[A-Z]", lambda letter: f"!{letter.group().lower()}", name)
