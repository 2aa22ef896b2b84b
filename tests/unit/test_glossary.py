"""docs/glossary.md has one word for one thing; the words of its second table appear in no code or document."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from lab.system.paths import REPOSITORY

GLOSSARY = "docs/glossary.md"
SCOPE = (
    *("lab/*.py", "lab/*.yaml", "lab/*.j2", "lab/*.js", "tasks.py", "inv", "lab.yaml", "examples/*"),
    *("provision/*.sh", "provision/*.j2", "provision/*.lua", "README.md", "CHANGELOG.md", "docs/*.md"),
)
"""Tracked files in which the words are looked for; `*` is any path. Tests may quote and use any words."""

EXCEPTIONS = {
    "lab/workshop/*": "the workshop is edited by itself, and names a task `mend`",
    "docs/handout/*": "handouts have tests of their own",
    "provision/golden/*": "is part of the golden machine's hash, so a changed comment costs a bake",
    "provision/vm/*": "the same",
    "provision/files/*": "the same",
    "lab/golden/supply/oci.py": "the same",
    "lab/golden/supply/images.py": "the same",
}
"""Files in which the words are not looked for, and why."""


def rows(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as cells; without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def forbidden(text: str) -> list[str]:
    """The words in backticks of the glossary's second table."""
    return [word for row in rows(text, "Words to replace") for word in re.findall(r"`([^`]+)`", row[0])]


def found(words: Iterable[str], name: str, text: str) -> Iterator[str]:
    """Where a text has one of the words: file, line and word. Code spans of Markdown may quote them."""
    if name.endswith(".md"):
        text = re.sub(r"`[^`\n]*`", "", text)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), 1):
        yield from (f"{name}:{number}: {match[0]}" for match in pattern.finditer(line))


def tracked() -> list[str]:
    """The tracked files in SCOPE."""
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in listed if any(fnmatch.fnmatch(name, pattern) for pattern in SCOPE)]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def is_exempt(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in EXCEPTIONS)


@pytest.fixture(scope="module", autouse=True)
def a_checkout() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")


def test_every_term_has_its_word_and_meaning_in_both_languages() -> None:
    terms = rows(read(GLOSSARY), "Terms")
    assert len(terms) > 30
    assert [row for row in terms if len(row) != 4 or not all(row)] == []
    for column in (0, 1):
        words = [row[column] for row in terms]
        assert sorted(words) == sorted(set(words))
    assert [row for row in terms if not re.search("[가-힣]", row[3])] == []


def test_no_file_has_a_word_to_replace() -> None:
    words = forbidden(read(GLOSSARY))
    assert "told" in words
    names = [name for name in tracked() if not is_exempt(name)]
    assert len(names) > 200
    assert [each for name in names for each in found(words, name, read(name))] == []


def test_a_word_to_replace_is_found_whatever_its_case_and_only_as_a_word() -> None:
    words = forbidden(read(GLOSSARY))
    text = "x = 1\n# This room is told what to mend.\nstolder, recommend\n"
    assert list(found(words, "a.py", text)) == ["a.py:2: This room", "a.py:2: told", "a.py:2: mend"]
    assert list(found(words, "a.md", "the key `mend`\nto mend\n")) == ["a.md:2: mend"]


def test_every_exception_is_of_files_that_exist() -> None:
    listed = tracked()
    assert [pattern for pattern in EXCEPTIONS if not fnmatch.filter(listed, pattern)] == []
