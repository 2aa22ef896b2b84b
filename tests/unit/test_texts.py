from __future__ import annotations

from pathlib import Path

import pytest

from lab import texts
from lab.errors import ConfigError
from lab.texts import Bilingual

GOOD = """words:
  hello: { en: "Hello", ko: "안녕" }
  runs: { en: "{run} of {runs}", ko: "{runs}회 중 {run}회차" }
"""
PLACEHOLDERS = {("words", "runs"): ("run", "runs")}


def read(folder: Path, text: str) -> texts.Tables:
    (folder / "words.yaml").write_text(text, encoding="utf-8")
    return texts.read(folder / "words.yaml", ("words",), PLACEHOLDERS)


def test_a_text_has_both_languages_and_takes_values_in_each_one_s_order(tmp_path: Path) -> None:
    words = read(tmp_path, GOOD)["words"]
    assert words["hello"] == Bilingual("Hello", "안녕")
    assert words["runs"].fill(run=1, runs=Bilingual("three", "셋")) == Bilingual("1 of three", "셋회 중 1회차")


def test_a_file_may_have_any_tables_where_none_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "stories.yaml").write_text("a: { title: { en: A, ko: 가 } }", encoding="utf-8")
    assert texts.read(tmp_path / "stories.yaml") == {"a": {"title": Bilingual("A", "가")}}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (', ko: "안녕"', "", "words.yaml:2: words.hello has no text in the language ko"),
        ('"안녕"', '""', "words.yaml:2: words.hello.ko has no text in the language ko"),
        ('"안녕"', "[안녕]", "words.yaml:2: words.hello.ko has no text in the language ko"),
        ("ko: ", "kr: ", "words.yaml:2: words.hello.kr is not a supported language"),
        ('"안녕"', '"안녕 {name}"', "words.hello.ko has a placeholder that the code does not fill: {name}"),
        ('"안녕"', '"안녕 {}"', "words.hello.ko has a placeholder that the code does not fill: {}"),
        (
            "{runs}회",
            "{all}회",
            "words.yaml:3: words.runs.ko has a placeholder that the code does not fill: {all}",
        ),
        ("{run}회차", "회차", "words.yaml:3: words.runs.ko lacks the placeholder {run}"),
        ('"안녕"', '"안녕 {"', "words.hello.ko can't be read"),
        ("  hello:", "  runs:", "words.yaml:3: words.runs is given twice, first on line 2"),
        ("  runs:", "  run:", "words.yaml:1: words.runs is missing"),
        ("words:", "others:", "words.yaml:1: words is missing"),
        ("words:", "others:", "words.yaml:1: others is not a table that the code reads"),
        (GOOD, "words: none", "words.yaml:1: words has no names"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert any(problem in each for each in caught.value.problems), caught.value.problems


def test_a_file_that_is_not_there_lacks_every_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="words is missing") as caught:
        texts.read(tmp_path / "words.yaml", ("words",))
    assert "git checkout" in caught.value.hint
