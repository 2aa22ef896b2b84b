from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from lab.drill.figures import FIGURES
from lab.drill.page import page
from lab.drill.recording import Figure, Mark, Result
from lab.drill.stories import STORIES
from tests.unit.drills import recording, report, result, whole_report

EVIL = "<script>alert('x')</script>\"&'{{ 7 * 7 }}"
VOID = frozenset(("meta", "br", "line", "rect", "path"))
MEBIBYTE = 2**20


class Reader(HTMLParser):
    """Reads a page: what it is made of, whether every element is closed, and the texts of each language."""

    def __init__(self, text: str) -> None:
        """Read all of it."""
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element that ends where it starts."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """See that what ends is what was open."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep what stands in cells of tables."""
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def whole() -> str:
    return page(whole_report())


@pytest.fixture(scope="module")
def reader(whole: str) -> Reader:
    return Reader(whole)


@pytest.mark.whole
@pytest.mark.slow
def test_a_page_of_fourteen_drills_and_five_long_runs_each_stays_light(whole: str) -> None:
    assert len(whole.encode()) < 3 * MEBIBYTE


@pytest.mark.slow
def test_a_page_is_well_formed(reader: Reader) -> None:
    assert reader.open == []
    names = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_every_link_leads_to_a_place_in_the_page(reader: Reader) -> None:
    places = {attributes.get("id") for _, attributes in reader.found}
    assert {link["href"] for link in reader.all("a")} <= {f"#{place}" for place in places}
    assert len(reader.all("a")) >= 2 * len(STORIES)


@pytest.mark.slow
def test_a_page_needs_no_other_file_and_no_network(whole: str, reader: Reader) -> None:
    assert {tag for tag, _ in reader.found} & {"link", "img", "iframe", "object", "use", "image"} == set()
    assert not [a for _, a in reader.found if "src" in a]
    assert "@import" not in whole
    assert "url(" not in whole
    assert "default-src 'none'" in whole


@pytest.mark.slow
def test_every_text_stands_in_both_languages(reader: Reader) -> None:
    spoken = [(tag, a["lang"]) for tag, a in reader.found if a.get("class") == "t"]
    assert spoken
    assert [(tag, "ko") for tag, _ in spoken[::2]] == spoken[1::2]
    assert {language for _, language in spoken[::2]} == {"en"}


@pytest.mark.slow
def test_every_drill_has_a_section_with_its_story_and_every_run_its_timeline(reader: Reader) -> None:
    sections = {section.get("id") for section in reader.all("section")}
    assert {f"drill-{name}" for name in STORIES} <= sections
    assert len([svg for svg in reader.all("svg") if svg.get("class") == "timeline"]) == len(STORIES) * 5


@pytest.mark.slow
def test_pictures_and_tables_say_what_they_are(whole: str, reader: Reader) -> None:
    pictures = [svg for svg in reader.all("svg") if svg.get("role") == "img"]
    assert len(reader.all("desc")) == 2 * len(pictures)
    # One title of the page itself, in the language of a page without scripts.
    assert len(reader.all("title")) == 2 * len(pictures) + 1
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all("scope" in head for head in reader.all("th"))
    assert "inject 0.0 s. detect 0.5 s. revert 40.0 s." in whole


def test_what_was_marked_is_shown_in_both_languages() -> None:
    marks = (Mark(at=6, kind="inject", what="the fault"), Mark(at=9, kind="whole", what="verify"))
    text = page(report(Result(recording=recording().model_copy(update={"marks": marks}))))
    listed = re.findall(r"<li><b>.*</b> (.*)</li>", text)
    assert [re.sub(r"<[^>]*>", " ", each).split() for each in listed] == [
        ["the", "fault", "장애"],
        ["verify", "verify", "검사"],
    ]


def test_nothing_that_a_report_says_becomes_markup() -> None:
    run = recording(drill=EVIL, profile=EVIL).model_copy(
        update={"victims": (EVIL,), "marks": (Mark(at=6, kind="inject", what=EVIL),), "lab": EVIL}
    )
    found = Result(
        recording=run, figures=(Figure(name=EVIL, value=1), Figure(name="x.y", value=2)), problem=EVIL
    )
    made = report(found).model_copy(
        update={"lab": EVIL, "kubernetes": EVIL, "provider": EVIL, "began": EVIL, "host": {EVIL: EVIL}}
    )
    text = page(made)
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    assert EVIL not in text
    assert "49" not in re.sub(r"[MHhv]?-?\d+[ .%]", "", text.split("</style>")[1].split("<svg")[0])
    assert {name for _, a in reader.found for name in a if name.startswith("on")} == set()


def test_the_headline_counts_runs() -> None:
    good, bad = result(recording()), result(recording(down=4))
    assert "2 of 2 runs passed" in page(report(good, good))
    text = page(report(good, bad))
    assert "1 of 2 runs passed" in text
    assert "전체 2회 중 1회 통과" in text
    assert "1 of 1 run passed" in page(report(good))


def test_figures_show_the_median_the_spread_the_limit_and_a_verdict_in_words() -> None:
    runs = [
        Result(recording=recording(run=n), figures=(Figure(name="detect_s", value=value, unit="s", limit=3),))
        for n, value in ((1, 0.5), (2, 4.25), (3, 0.75))
    ]
    cells = Reader(page(report(*runs))).cells
    assert "0.750.50–4.25" in cells
    assert "✗ failed in 1 of 33회 중 1회 실패" in cells
    assert "≤ 3" in cells
    assert "0.750.50–4.25✗ > 3 failed실패" in cells


def test_a_figure_that_was_not_seen_but_is_judged_fails_in_words() -> None:
    text = page(report(Result(recording=recording(), figures=(Figure(name="detect_s", value=None, limit=3),))))
    assert "— not seen미관측" in Reader(text).cells
    assert "0 of 1 run passed" in text


def test_figures_that_no_run_saw_and_nobody_judges_are_left_out() -> None:
    found = (Figure(name="service.asked", value=None), Figure(name="writes.asked", value=5))
    cells = Reader(page(report(Result(recording=recording(), figures=found)))).cells
    assert any(cell.startswith("Writes: requests") for cell in cells)
    assert not any(cell.startswith("Service: requests") for cell in cells)


def test_an_unknown_drill_and_an_unknown_figure_are_shown_as_themselves() -> None:
    found = Result(recording=recording(drill="unplug-it"), figures=(Figure(name="shadows.cast", value=7),))
    reader = Reader(page(report(found)))
    assert "shadows.cast" in reader.cells
    assert "unplug-it" in reader.cells


@pytest.mark.slow
def test_two_profiles_stand_side_by_side_tuned_first() -> None:
    text = page(whole_report(runs=2, count=50, profiles=("reference", "tuned")))
    section = text.split('id="drill-kill-worker"')[1].split("</section>")[0]
    heads = re.findall(r'<th scope="colgroup" colspan="2" class="pair">(\w+)</th>', section)
    assert heads == ["tuned", "reference"]
    row = section.split("장애 감지 시간(초)")[1].split("</tr>")[0]
    assert [float(each) for each in re.findall(r'<span class="value">([\d.]+)</span>', row)] == [0.45, 3.8]
    # Both drawn, at one scale.
    assert section.count('class="timeline"') == 4
    assert (
        len(
            set(
                re.findall(r'<text class="quiet" x="([\d.]+)%" y="\d+" text-anchor="middle">20</text>', section)
            )
        )
        == 1
    )


def test_the_worst_run_is_shown_when_one_failed_and_says_so() -> None:
    runs = [result(recording(run=n, down=down)) for n, down in ((1, 0.3), (2, 4.0), (3, 0.3))]
    text = page(report(*runs))
    shown = text.split("<figcaption>")[1].split("</figcaption>")[0]
    assert "run 2 of 3: the worst" in shown
    assert "3회 중 2회차(결과가 가장 나쁜 회차)" in shown


def test_the_median_run_is_shown_when_all_passed() -> None:
    runs = [result(recording(run=n, down=down)) for n, down in ((1, 0.7), (2, 0.1), (3, 0.4))]
    assert "run 3 of 3: the median by its longest gap" in page(report(*runs)).split("</figcaption>")[0]


def test_a_run_that_was_not_carried_through_says_why() -> None:
    broken = Result(recording=recording().model_copy(update={"marks": ()}), problem="cp2 did not start")
    text = page(report(broken))
    assert "Not completed" in text
    assert "cp2 did not start" in text
    assert "seconds from the start (nothing was injected)" in text


def test_a_report_without_results_is_still_a_page() -> None:
    empty = report().model_copy(update={"results": ()})
    text = page(empty)
    assert Reader(text).open == []
    assert "No drill was run." in text
    assert "✗" in text


def test_the_top_table_has_what_a_reader_asks_first() -> None:
    assert {"detect_s", "writes.lost", "watch.missed", "watch.repeated", "leader_changes", "whole_s"} <= set(
        FIGURES
    )
    top = page(report()).split("</table>")[0]
    for words in (
        "Time to detect (s)",
        "lost",
        "missed",
        "repeated",
        "etcd leader changes",
        "Fully recovered (s)",
    ):
        assert f">{words}</span>" in top
