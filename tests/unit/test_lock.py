"""A lock that can't be used is told in words that a newcomer to the kit can act on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.golden.supply import lock

VERSION = "1.36.3"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the lock of that version would be."""
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    return lock.path(VERSION)


def test_no_lock_is_told_with_both_ways_on(kept: Path) -> None:
    with pytest.raises(LabError) as caught:
        lock.read(VERSION)
    assert caught.value.message == (
        f"Kubernetes {VERSION} can't be taken from upstream: its packages and images are not pinned "
        f"(there is no {kept})"
    )
    assert "kubernetes: {source: modules}" in caught.value.hint
    assert "./inv lock" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty, or no mapping of keys"),
        (b"- a", "it is empty, or no mapping of keys"),
        (b"a: 1\n{", "it is not YAML (line 2)"),
        (b"\xff", "it is not a text in UTF-8"),
        (b"kubernetes: 1.36.3\n", "signed_by is missing, packages is missing, images is missing, and 1 more"),
        (
            b"{kubernetes: 1.36.3, signed_by: x, packages: {}, images: {}, key: k, more: 1}",
            "signed_by is not as it should be, more is no key of a lock",
        ),
    ],
)
def test_what_is_no_lock_is_told_without_its_reader_s_words(kept: Path, content: bytes, words: str) -> None:
    kept.write_bytes(content)
    with pytest.raises(LabError) as caught:
        lock.read(VERSION)
    assert caught.value.message == f"{kept} is not a lock in the format of `./inv lock`: {words}"
    assert "git checkout" in caught.value.hint
