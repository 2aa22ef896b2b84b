"""The build of the suite: its pins, its name, what is built, and what is kept of a build that ended early."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.conformance import images, suite
from lab.errors import LabError
from lab.golden import bundle, debian
from lab.golden.supply import toolchain
from lab.golden.supply.golang import Go
from lab.golden.supply.images import short_name
from lab.golden.supply.releases import release, supported
from lab.system import process
from lab.system.process import Result
from tests.unit.fakes import progress, recorded

LAB = default()


@pytest.mark.parametrize("version", supported())
def test_each_version_has_a_pin_of_its_own_suite(version: str) -> None:
    pin = release(version).pins()["conformance"]
    gomod = (pin / "go.mod").read_text(encoding="utf-8")
    gosum = (pin / "go.sum").read_text(encoding="utf-8")
    assert re.search(rf"^\tk8s\.io/kubernetes v{version}\b", gomod, re.MULTILINE)
    assert f"k8s.io/kubernetes v{version} h1:" in gosum
    assert (
        f"replace k8s.io/sample-apiserver => k8s.io/sample-apiserver v0.{version.removeprefix('1.')}" in gomod
    )
    assert "godebug " in gomod


@pytest.mark.parametrize("version", supported())
def test_each_pin_names_what_is_built_from_it(version: str) -> None:
    gomod = (release(version).pins()["conformance"] / "go.mod").read_text(encoding="utf-8")
    block = re.search(r"^tool \((.*?)^\)", gomod, re.MULTILINE | re.DOTALL)
    assert block is not None
    tools = set(block[1].split())
    assert {*suite.PROGRAMS.values(), suite.TESTS} <= tools
    # All that only the suite's test file imports, such as the tests of networks.
    assert f"{suite.TESTS}/network" in tools


def test_each_version_has_a_key_of_its_own() -> None:
    keys = {suite.key(release(version)) for version in supported()}
    assert len(keys) == len(supported())
    assert all(re.fullmatch(r"[0-9a-f]{16}", key) for key in keys)


class Builder:
    """Go, Debian and the suite's own answers; each program is a file with its name."""

    def __init__(self) -> None:
        """Fail at nothing."""
        self.built: list[str] = []
        self.fails_at = ""

    def build(self, component: Any, target: str, output: Path, log: Path) -> None:
        """Build one program, or run out of something."""
        if target == self.fails_at:
            raise LabError(f"no {target} today")
        self.built.append(target)
        output.write_text(target)

    def run(self, argv: list[Path | str], **options: Any) -> Result:
        """Answer as the suite and busybox do."""
        words = [str(word) for word in argv]
        said = {
            "--list-conformance-tests": lambda: recorded("conformance/list-conformance-tests.yaml"),
            "--list-images": lambda: recorded("conformance/list-images.txt"),
        }
        return Result(tuple(words), 0, said[words[1]](), "", 0.0)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Builder:
    found = Builder()
    monkeypatch.setattr(bundle, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(suite, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(toolchain, "ensure", lambda cache, log: tmp_path / "go")
    monkeypatch.setattr(Go, "download", lambda *_: None)
    monkeypatch.setattr(Go, "source", lambda *_: tmp_path)
    monkeypatch.setattr(Go, "build", found.build)
    monkeypatch.setattr(Go, "build_tests", found.build)
    monkeypatch.setattr(process, "run", found.run)
    monkeypatch.setattr(debian, "root", lambda *_: tmp_path / "root.tar")
    monkeypatch.setattr(images, "write", lambda archive, *_: archive.write_text("images"))
    return found


def test_a_finished_folder_has_what_a_run_needs_and_no_more(builder: Builder, tmp_path: Path) -> None:
    built = suite.build(LAB, progress(tmp_path))
    assert {path.name for path in built.folder.iterdir()} == set(suite.KEPT)
    assert len(built.tests) == 446
    assert "agnhost" in {short_name(name) for name in built.images}
    assert suite.is_built(LAB)


def test_it_is_built_once(builder: Builder, tmp_path: Path) -> None:
    suite.build(LAB, progress(tmp_path))
    builder.built.clear()
    suite.build(LAB, progress(tmp_path))
    assert builder.built == []


def test_a_build_that_ended_early_goes_on_where_it_was(builder: Builder, tmp_path: Path) -> None:
    builder.fails_at = suite.SUITE
    with pytest.raises(LabError, match=r"no e2e\.test today"):
        suite.build(LAB, progress(tmp_path))
    assert not suite.is_built(LAB)
    builder.fails_at = ""
    builder.built.clear()
    suite.build(LAB, progress(tmp_path))
    assert builder.built == [suite.SUITE]
