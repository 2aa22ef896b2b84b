"""The drills' report in a real browser: on a phone and a desk, in both languages, by day and by night."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from lab.drill.page import page
from lab.drill.stories import STORIES
from tests.browser.chromium import Chromium, Page, opened, started
from tests.unit.drills import report, whole_report
from tests.whole import rows

WIDTHS = (360, 1280)
LANGUAGES = {"en": "en-US", "ko": "ko-KR"}

SHOWN = """(() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  // One range for all: a browser moves every range that it still has at every change of a text.
  const range = document.createRange();
  while (walk.nextNode()) {
    range.selectNodeContents(walk.currentNode);
    if (walk.currentNode.data.trim() && range.getClientRects().length) found.push(walk.currentNode.data.trim());
  }
  return found.join("\\n");
})()"""
"""The text of the page that has a place on the screen."""

TIMELINES = """[...document.querySelectorAll("section > figure svg.timeline")].map((image) => {
  const box = image.getBoundingClientRect();
  const bars = [...image.querySelectorAll("path.answered")].map((path) => path.getBoundingClientRect());
  const labels = [...image.querySelectorAll("text.label")].map((text) => text.getBoundingClientRect());
  const box4 = (b) => [b.left, b.top, b.right, b.bottom];
  return {box: box4(box), bars: bars.map(box4), labels: labels.map(box4)};
})"""

GLYPHS = """((letters) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 40;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.font = "28px " + getComputedStyle(document.body).fontFamily;
  pen.textBaseline = "top";
  const drawn = (letter) => {
    pen.clearRect(0, 0, 40, 40);
    pen.fillText(letter, 4, 4);
    return pen.getImageData(0, 0, 40, 40).data.join("");
  };
  const nothing = drawn(" ");
  const missing = drawn("\\u{10FFFE}");
  const pictures = new Map();
  const wrong = [];
  for (const letter of letters) {
    const picture = drawn(letter);
    if (picture === nothing || picture === missing || pictures.has(picture)) wrong.push(letter);
    pictures.set(picture, letter);
  }
  return wrong;
})"""
"""Letters that are drawn as nothing, as a letter that no font has, or as another letter is."""

Box = tuple[float, float, float, float]
T = TypeVar("T")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with started(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all drills with both profiles, one run being bad."""
    path = tmp_path_factory.mktemp("drills") / "report.html"
    path.write_text(page(whole_report(runs=2, count=400, profiles=("tuned", "reference"))), encoding="utf-8")
    return path


def in_pairs(widths: Sequence[int], languages: Iterable[str], others: Sequence[T]) -> list[tuple[int, str, T]]:
    """Half of the combinations of two values each, in which any two of them meet: a page takes a second."""
    return [
        (width, language, other)
        for i, width in enumerate(widths)
        for j, language in enumerate(languages)
        for k, other in enumerate(others)
        if (i + j + k) % 2 == 0
    ]


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def fits(tab: Page) -> None:
    """Hold that nothing but a table in its own frame is wider than the screen."""
    wide = tab.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1], f"the page is {wide[0]} wide on a screen of {wide[1]}"


@pytest.mark.parametrize(("width", "language", "dark"), in_pairs(WIDTHS, LANGUAGES, (False, True)))
def test_the_page_fits_the_screen_and_draws_every_timeline(
    chromium: Chromium, file: Path, width: int, language: str, dark: bool
) -> None:
    with opened(chromium, file, width=width, language=LANGUAGES[language], dark=dark) as tab:
        assert tab.value("innerWidth") == width
        assert tab.value("document.documentElement.lang") == language
        fits(tab)
        drawn = tab.value(TIMELINES)
        assert len(drawn) == 2 * len(STORIES)
        for each in drawn:
            left, top, right, bottom = each["box"]
            assert right - left > 300
            assert bottom - top > 200
            assert len(each["bars"]) == 4
            assert all(b[2] - b[0] > 250 and b[3] - b[1] >= 2 for b in each["bars"])
            assert len(each["labels"]) == 4
            assert all(label[0] >= 0 and label[2] <= width for label in each["labels"])
            crossed = [
                (a, b) for n, a in enumerate(each["labels"]) for b in each["labels"][:n] if overlap(a, b)
            ]
            assert crossed == []
        background = tab.value("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(15, 20, 25)" if dark else "rgb(255, 255, 255)")
        assert tab.requests == [file.as_uri()]
        assert tab.complaints == []


@pytest.mark.parametrize("width", rows(WIDTHS, usual=[360]))
def test_a_click_changes_the_language_of_everything_and_another_changes_it_back(
    chromium: Chromium, file: Path, width: int
) -> None:
    with opened(chromium, file, width=width) as tab:
        english = tab.value(SHOWN)
        assert "runs passed" in english
        assert "컨트롤" not in english
        tab.click("button[data-speak=ko]")
        korean = tab.value(SHOWN)
        assert tab.value("document.documentElement.lang") == "ko"
        assert tab.value("document.title") == "장애 훈련 보고서: ha-lab"
        assert tab.value("document.querySelector('svg.timeline title').textContent").startswith("타임라인")
        assert "회 통과" in korean
        for story in STORIES.values():
            assert story.text.ko in korean
            assert story.text.en not in korean
        assert "passed" not in korean
        pressed = "[...document.querySelectorAll('[data-speak]')].map((b) => b.getAttribute('aria-pressed'))"
        assert tab.value(pressed) == ["false", "true"]
        fits(tab)
        tab.click("button[data-speak=en]")
        assert tab.value(SHOWN) == english
        assert tab.requests == [file.as_uri()]
        assert tab.complaints == []


def test_every_korean_letter_of_the_page_has_a_glyph(chromium: Chromium, file: Path) -> None:
    listed = subprocess.run(["fc-list", ":lang=ko"], check=True, capture_output=True, text=True).stdout
    assert listed, "no font of this machine has Korean letters; `./inv test --yes` installs one"
    with opened(chromium, file, width=1280, language="ko-KR") as tab:
        letters = sorted({letter for letter in tab.value(SHOWN) if "가" <= letter <= "힣"})
        assert len(letters) > 200
        assert tab.value(f"{GLYPHS}({letters!r})") == []
        # The same, so that it is known to find letters without a glyph: these two have none.
        assert tab.value(f"{GLYPHS}(['\\u{{10FFFC}}'])") != []


def test_without_scripts_the_page_is_english_and_offers_no_switch(chromium: Chromium, file: Path) -> None:
    with opened(chromium, file, width=360, language="ko-KR", scripts=False) as tab:
        # Our own questions are answered all the same.
        assert tab.value("document.documentElement.lang") == "en"
        assert tab.value("getComputedStyle(document.querySelector('.switch')).display") == "none"
        assert "회 통과" not in tab.value(SHOWN)
        assert "runs passed" in tab.value(SHOWN)
        fits(tab)


def test_a_printed_page_is_black_on_white_and_fits_the_paper(chromium: Chromium, file: Path) -> None:
    inside_margins_of_a4 = 703
    with opened(chromium, file, width=inside_margins_of_a4, dark=True) as tab:
        night = {"name": "prefers-color-scheme", "value": "dark"}
        tab.ask("Emulation.setEmulatedMedia", media="print", features=[night])
        assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.value("getComputedStyle(document.querySelector('.switch')).display") == "none"
        fits(tab)


def test_every_run_can_be_unfolded_and_still_fits(chromium: Chromium, file: Path) -> None:
    with opened(chromium, file, width=360) as tab:
        tab.click("#drill-kill-worker details summary")
        assert tab.value("document.querySelector('#drill-kill-worker details').open")
        inside = "document.querySelector('#drill-kill-worker details svg.timeline').getBoundingClientRect()"
        assert tab.value(f"{inside}.width") > 300
        fits(tab)


def test_names_without_a_space_do_not_widen_the_page(chromium: Chromium, tmp_path: Path) -> None:
    long = "x" * 300
    odd = tmp_path / "odd.html"
    found = report()
    one = found.results[0]
    marks = tuple(mark.model_copy(update={"what": long}) for mark in one.recording.marks)
    run = one.recording.model_copy(update={"drill": long, "victims": (long,), "marks": marks})
    made = found.model_copy(
        update={
            "lab": long,
            "host": {"kernel": long},
            "results": (one.model_copy(update={"recording": run, "problem": long}),),
        }
    )
    odd.write_text(page(made), encoding="utf-8")
    with opened(chromium, odd, width=360) as tab:
        fits(tab)


def test_nothing_in_a_report_runs(chromium: Chromium, tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    path = tmp_path / "evil.html"
    path.write_text(page(report().model_copy(update={"lab": evil, "host": {evil: evil}})), encoding="utf-8")
    with opened(chromium, path, width=1280) as tab:
        assert tab.value("document.title") == f"Failure drills: {evil}"
        assert tab.value("document.querySelectorAll('img').length") == 0
        assert tab.requests == [path.as_uri()]


def test_a_page_that_asks_for_something_outside_would_be_found(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "leaky.html"
    path.write_text('<img src="http://lab.invalid/pixel.png"><script>throw Error("seen")</script>')
    with opened(chromium, path, width=360) as tab:
        assert "http://lab.invalid/pixel.png" in tab.requests
        assert any("seen" in complaint for complaint in tab.complaints)


def test_without_chromium_the_tests_fail_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(pytest.fail.Exception, match="chromium is not installed"),
        started(tmp_path / "profile"),
    ):
        pass
