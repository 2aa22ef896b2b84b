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
        f"Kubernetes {VERSION} can't be taken from upstream: its files and images are not pinned "
        f"(there is no {kept})"
    )
    assert "kubernetes: {source: modules}" in caught.value.hint
    assert "supply/pin-upstream" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty or not a mapping"),
        (b"- a", "it is empty or not a mapping"),
        (b"a: 1\n{", "it is not YAML (line 2)"),
        (b"\xff", "it is not UTF-8 text"),
        (b"kubernetes: 1.36.3\n", "files is missing, images is missing, sources is missing"),
        (
            b"{kubernetes: 1.36.3, files: {}, images: {a: {sha256: x, sources: []}}, sources: {}, b: 1, c: 2}",
            "images.a.sha256 is not valid, images.a.sources is not valid, b is not a known key, and 1 more",
        ),
        (
            b"{kubernetes: 1.36.3, files: {}, images: {a: {sha256: %s, sources: [s]}}, sources: {s: t}}"
            % (b"a" * 64),
            "images.a: single_source must be true where there is one source, and only there",
        ),
        (
            b"{kubernetes: 1.36.3, files: {}, images: {a: {sha256: %s, sources: [s, t]}}, sources: {s: u}}"
            % (b"a" * 64),
            "sources lacks t",
        ),
    ],
)
def test_what_is_no_lock_is_told_without_its_reader_s_words(kept: Path, content: bytes, words: str) -> None:
    kept.write_bytes(content)
    with pytest.raises(LabError) as caught:
        lock.read(VERSION)
    assert caught.value.message == f"{kept} is not a lock in the format of `supply/pin-upstream`: {words}"
    assert "git checkout" in caught.value.hint
