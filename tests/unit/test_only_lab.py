"""The labs of the suites on labs: one of each name, and nothing left of a run that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labs import conftest
from tests.labs.conftest import Ended, TestLab, only_lab


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ha-lab" / "tests" / "ours"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs that labs are asked for, and of which; those of a lab in a folder `stuck` end with 1."""
    asked: list[str] = []

    def inv(self: TestLab, verb: str, *words: str) -> Ended:
        asked.append(f"{' '.join([verb, *words])} {self.folder.name}")
        return Ended(int(self.folder.name == "stuck"), "", 0.0)

    monkeypatch.setattr(conftest.TestLab, "inv", inv)
    return asked


def test_what_a_killed_run_left_is_removed_first(place: Path, said: list[str]) -> None:
    for name in ("lab", "moved"):
        (place / name / ".lab").mkdir(parents=True)
    with only_lab("ours", provider="docker") as made:
        assert sorted(said) == ["destroy --yes lab", "destroy --yes moved"]
        assert made.folder == place / "lab"
        assert (made.folder / "lab.yaml").read_text() == "name: ours\nprovider: docker\n"
        assert [each.name for each in place.iterdir()] == ["lab"]
        (made.folder / ".lab").mkdir()
        said.clear()
    assert said == ["destroy --yes lab"]


def test_what_can_t_be_removed_is_not_forgotten(place: Path, said: list[str]) -> None:
    (place / "stuck" / ".lab").mkdir(parents=True)
    with pytest.raises(AssertionError, match="inv destroy ended with 1"), only_lab("ours"):
        pass
    assert (place / "stuck" / ".lab").exists()


def test_two_runs_don_t_have_the_same_lab(place: Path, said: list[str]) -> None:
    with only_lab("ours"), pytest.raises(pytest.fail.Exception, match="another run"), only_lab("ours"):
        pass
    with only_lab("ours"):
        pass


def test_the_logs_of_a_lab_that_failed_are_collected_before_it_is_removed(place: Path, said: list[str]) -> None:
    def break_off(lab: TestLab) -> None:
        (lab.folder / ".lab").mkdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), only_lab("ours") as made:
        break_off(made)
    assert said == ["logs lab", "destroy --yes lab"]
