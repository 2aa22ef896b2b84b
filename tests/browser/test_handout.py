"""A handout in a real browser and on paper: on a phone and a desk, in both languages, by day and by night."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import config
from lab.health import status
from lab.workshop.handout import chapters, pdf, prose, topology
from lab.workshop.handout.context import context
from lab.workshop.handout.page import Cover, page
from tests.browser.chromium import Chromium, Page, opened, started
from tests.browser.test_page import GLYPHS, SHOWN, fits, in_pairs
from tests.unit import drills
from tests.unit.handouts import folder
from tests.unit.recorded_facts import external_facts, external_lab, pair_lab, silent
from tests.unit.test_handout_page import SIZES, sized
from tests.unit.test_status import of_two, server_down
from tests.whole import rows

WIDTHS = (390, 1280)
LANGUAGES = {"en": "en-US", "ko": "ko-KR"}
EDITIONS = ("student", "instructor")

TAKE_OVER_THE_CLIPBOARD = """
globalThis.written = [];
Object.defineProperty(navigator, "clipboard", {configurable: true, value: {
  writeText: async (text) => { written.push(text); },
}})"""

NO_CLIPBOARD = 'Object.defineProperty(navigator, "clipboard", {configurable: true, value: undefined})'

OUTSIDE = """[...document.querySelectorAll("main *, header *, nav *")].filter((each) => {
  if (each.closest("svg, pre, .scroll") && !each.matches("svg, pre, .scroll")) return false;
  const box = each.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => each.outerHTML.slice(0, 120))"""
"""What reaches over the edge of the screen and can't be scrolled by itself."""

TEXTS = """[...document.querySelectorAll("svg.topology text")].map((text) => {
  const [own, whole] = [text.getBBox(), text.closest("svg").viewBox.baseVal];
  return [text.textContent, own.x, own.y, own.x + own.width, own.y + own.height, whole.width, whole.height];
})"""

NOTES = """[...document.querySelectorAll("svg.topology rect.balancer, svg.topology rect.etcd")].map((rect) => {
  const outer = rect.getBBox();
  const inside = (box) => box.x >= outer.x && box.x + box.width <= outer.x + outer.width
    && box.y >= outer.y && box.y + box.height <= outer.y + outer.height;
  const notes = [...document.querySelectorAll("svg.topology text.note")];
  return [rect.outerHTML, notes.filter((note) => inside(note.getBBox())).length === 1];
})"""
"""Of every load balancer and etcd member in the picture, whether its note lies within it."""

NAMES = """[...document.querySelectorAll("svg.topology text.name, svg.topology text.address")].map((text) => {
  const boxes = [...document.querySelectorAll("svg.topology rect.machine")].map((each) => each.getBBox());
  const own = text.getBBox();
  return [text.textContent, boxes.some((box) => box.x <= own.x && box.x + box.width >= own.x + own.width
    && box.y <= own.y && box.y + box.height >= own.y + own.height)];
})"""
"""Of every name and address in the picture, whether it lies within a machine."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with started(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each edition in each language, of the kit's own chapters, or where there are none of a test's."""
    root = tmp_path_factory.mktemp("handout")
    source = chapters.FOLDER if (chapters.FOLDER / "en").is_dir() else folder(root / "docs")
    lab, made = config.default(), {}
    for language in LANGUAGES:
        told = context(lab, language, found=drills.whole_report(runs=1, count=50))
        read = chapters.read(language, told, source)
        for edition in prose.EDITIONS:
            made[f"{edition}-{language}"] = path = root / f"{edition}-{language}.html"
            path.write_text(page(lab, language, edition, read, Cover("2025-11-24", up=True)), encoding="utf-8")
    return made


def commands(tab: Page) -> list[str]:
    """The text of every command that is on the screen."""
    found: list[str] = tab.value(
        '[...document.querySelectorAll("figure.command")].filter((each) => each.offsetParent)'
        '.map((each) => each.querySelector("pre").textContent)'
    )
    return found


@pytest.mark.parametrize(("width", "language", "edition"), in_pairs(WIDTHS, LANGUAGES, EDITIONS))
def test_the_page_fits_the_screen_both_ways(
    chromium: Chromium, files: dict[str, Path], width: int, language: str, edition: str
) -> None:
    file = files[f"{edition}-{language}"]
    with opened(chromium, file, width=width, language=LANGUAGES[language]) as tab:
        assert tab.value("innerWidth") == width
        for way in prose.WAYS:
            tab.click(f"button[data-choose={way}]")
            fits(tab)
            assert tab.value(OUTSIDE) == []
        assert tab.requests == [file.as_uri()]
        assert tab.complaints == []


@pytest.mark.parametrize(("width", "language", "dark"), in_pairs(WIDTHS, LANGUAGES, (False, True)))
def test_the_picture_is_inside_its_frame_and_follows_the_light(
    chromium: Chromium, files: dict[str, Path], width: int, language: str, dark: bool
) -> None:
    with opened(chromium, files[f"student-{language}"], width=width, dark=dark) as tab:
        for text, left, top, right, bottom, wide, high in tab.value(TEXTS):
            assert left >= 0, text
            assert top >= 0, text
            assert right <= wide, text
            assert bottom <= high, text
        assert [name for name, inside in tab.value(NAMES) if not inside] == []
        shown = tab.value('document.querySelector("svg.topology").getBoundingClientRect().width')
        assert shown > 300
        ink = tab.value('getComputedStyle(document.querySelector("svg.topology text.name")).fill')
        assert ink == ("rgb(230, 233, 236)" if dark else "rgb(27, 31, 36)")


@pytest.mark.parametrize("prefix", rows(["", "m" * 20], usual=["m" * 20]))
@pytest.mark.parametrize(("control_planes", "workers"), SIZES)
def test_a_picture_of_any_lab_keeps_its_names_in_their_machines(
    chromium: Chromium, tmp_path: Path, control_planes: int, workers: int, prefix: str
) -> None:
    lab = sized(control_planes, workers, prefix)
    (tmp_path / "any.html").write_text(
        page(lab, "en", "student", [], Cover("", up=True)).replace(
            "<main>", f"<main>{topology.picture(lab, 'en')}"
        )
    )
    with opened(chromium, tmp_path / "any.html", width=390) as tab:
        found = tab.value(NAMES)
        assert len(found) == 2 * len(lab.nodes) + 1
        assert [name for name, inside in found if not inside] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_was_found_of_a_lab_is_in_its_machines(chromium: Chromium, tmp_path: Path, language: str) -> None:
    lab, found = pair_lab(), of_two(silent("cp2"), server_down("cp2"))
    now = topology.Now(found, "2026-11-30 14:50")
    read = chapters.read(language, context(lab, language), folder(tmp_path / "docs"))
    file = tmp_path / "now.html"
    file.write_text(page(lab, language, "student", read, Cover("2026-11-30", up=True, now=now)))
    with opened(chromium, file, width=390, language=LANGUAGES[language]) as tab:
        fits(tab)
        assert [name for name, inside in tab.value(NOTES) if not inside] == []
        widths = {
            name: tab.value(f"getComputedStyle(document.querySelector('rect.machine.{name}')).strokeWidth")
            for name in ("balancer", "stops")
        }
        assert widths == {"balancer": "1px", "stops": "3px"}
        dashes = "getComputedStyle(document.querySelector('rect.machine.lost')).strokeDasharray"
        assert tab.value(dashes) != "none"
        assert tab.value("document.querySelector('figcaption.now').getBoundingClientRect().height") > 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_members_and_their_leader_are_in_the_machines_that_etcd_has_of_its_own(
    chromium: Chromium, tmp_path: Path, language: str
) -> None:
    lab, file = external_lab(), tmp_path / "now.html"
    now = topology.Now(status.judge(lab, external_facts()), "2026-11-30 14:50")
    drawn = f"<main>{topology.picture(lab, language, now)}"
    file.write_text(page(lab, language, "student", [], Cover("", up=True)).replace("<main>", drawn))
    with opened(chromium, file, width=390, language=LANGUAGES[language]) as tab:
        fits(tab)
        found = tab.value(NOTES)
        assert len([rect for rect, _ in found if "etcd" in rect]) == 6, "three machines, and the member in each"
        assert [rect for rect, inside in found if not inside] == []
        assert [name for name, inside in tab.value(NAMES) if not inside] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_copies_exactly_the_command(chromium: Chromium, files: dict[str, Path], width: int) -> None:
    with opened(chromium, files["student-en"], width=width) as tab:
        tab.click("button[data-choose=hand]")
        tab.value(TAKE_OVER_THE_CLIPBOARD)
        shown = commands(tab)
        tab.click('.hand figure[data-on="cp1"] .copy')
        first = tab.value("document.querySelector('.hand figure[data-on=\"cp1\"] pre').textContent")
        assert tab.value("written") == [first]
        assert first in shown
        assert first == first.strip()
        assert (
            tab.value("document.querySelector('.hand figure[data-on=\"cp1\"] .copy').textContent") == "Copied"
        )


def test_every_copy_button_has_its_own_command(chromium: Chromium, files: dict[str, Path]) -> None:
    with opened(chromium, files["instructor-ko"], width=1280, language="ko-KR") as tab:
        tab.value(TAKE_OVER_THE_CLIPBOARD)
        tab.value('document.querySelectorAll(".copy").forEach((button) => button.click())')
        all_of_them = '[...document.querySelectorAll("figure.command pre")].map((each) => each.textContent)'
        assert tab.value("written") == tab.value(all_of_them)


def test_without_a_clipboard_the_command_is_copied_another_way(
    chromium: Chromium, files: dict[str, Path]
) -> None:
    with opened(chromium, files["student-en"], width=390) as tab:
        tab.value(NO_CLIPBOARD)
        tab.value(
            'globalThis.heard = []; addEventListener("copy", () => heard.push(getSelection().toString()))'
        )
        tab.click("figure.check .copy")
        assert tab.value("heard") == ["./inv task 1"]
        assert tab.value('document.querySelector("figure.check .copy").textContent') == "Copied"


def test_the_way_is_kept_in_the_address_and_in_every_link(chromium: Chromium, files: dict[str, Path]) -> None:
    file = files["student-en"]
    visible = "(kind) => [...document.querySelectorAll('.way.' + kind)].some((each) => each.offsetParent)"
    with opened(chromium, file, width=390) as tab:
        assert (tab.value(f"({visible})('watch')"), tab.value(f"({visible})('hand')")) == (True, False)
        tab.click("button[data-choose=hand]")
        assert (tab.value(f"({visible})('watch')"), tab.value(f"({visible})('hand')")) == (False, True)
        assert tab.value("location.hash") == "#hand"
        tab.click(".contents li:nth-child(2) a")
        assert tab.value("location.hash") == "#hand/chapter-2"
        top = 'document.getElementById("chapter-2").getBoundingClientRect().top'
        tab.wait_for(f"{top} < 120")  # it glides there
        assert "./inv up --until load-balancer" in commands(tab)[:2]
    # The address as it would be sent to somebody: another browser begins where this one was.
    with opened(chromium, file, width=390, url=f"{file.as_uri()}#hand/chapter-2") as tab:
        assert tab.value("document.documentElement.dataset.way") == "hand"


def test_without_scripts_both_ways_are_there_and_labelled(chromium: Chromium, files: dict[str, Path]) -> None:
    with opened(chromium, files["student-en"], width=390, scripts=False) as tab:
        shown = tab.value(SHOWN)
        assert "./inv up --until load-balancer" in shown
        assert "Watch\n" in shown
        assert "By hand\n" in shown
        assert tab.value("getComputedStyle(document.querySelector('.bar')).display") == "none"
        assert tab.value("getComputedStyle(document.querySelector('.copy')).display") == "none"
        fits(tab)


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_korean_letter_has_a_glyph(chromium: Chromium, files: dict[str, Path], edition: str) -> None:
    with opened(chromium, files[f"{edition}-ko"], width=1280, language="ko-KR") as tab:
        letters = sorted(
            {letter for letter in tab.value("document.body.textContent") if "가" <= letter <= "힣"}
        )
        assert len(letters) > 40
        assert tab.value(f"{GLYPHS}({letters!r})") == []


@pytest.mark.parametrize("language", rows(LANGUAGES, usual=["ko"]))
def test_on_paper_both_ways_are_there_and_no_page_is_blank(
    files: dict[str, Path], language: str, tmp_path: Path
) -> None:
    target = tmp_path / "handout.pdf"
    pdf.write(files[f"student-{language}"], target, mark="ours")
    said = subprocess.run(
        ["pdftotext", "-layout", target, "-"], check=True, capture_output=True, text=True
    ).stdout
    sheets = said.split("\f")[:-1]
    for number, sheet in enumerate(sheets, start=1):
        assert f"{number} / {len(sheets)}" in sheet, "each page has its number"
        assert len("".join(sheet.split())) > 20, f"page {number} is blank"
    for words in {"en": ("Watch", "By hand"), "ko": ("살펴보기", "직접 하기")}[language]:
        assert words in said
    assert "./inv up --until load-balancer" in said
    assert "Copy" not in said
    subprocess.run(["pdftoppm", "-r", "40", "-gray", target, tmp_path / "sheet"], check=True)
    pictures = sorted(tmp_path.glob("sheet-*.pgm"))
    assert len(pictures) == len(sheets)
    for picture in pictures:
        dark = sum(point < 200 for point in picture.read_bytes()[20:])
        assert dark > 100, f"{picture.name} is blank"
