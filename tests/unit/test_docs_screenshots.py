"""How screenshots are made from what commands print, and put into pages. Real runs make them."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import pytest

from lab.system.paths import REPOSITORY
from tests.docs import screenshots
from tests.unit.test_docs import loads

PAGE = "# A page\n\n<!-- screenshot up: `./inv up`, its end -->\n\nText.\n"


def test_a_screenshot_is_put_below_its_comment_once(tmp_path: Path) -> None:
    page, images = tmp_path / "docs" / "page.md", tmp_path / "docs" / "images"
    images.mkdir(parents=True)
    assert screenshots.placed(PAGE, page, images) == PAGE
    (images / "up.svg").write_text("<svg/>")
    shown = screenshots.placed(PAGE, page, images)
    assert shown == PAGE.replace("-->\n", "-->\n![./inv up, its end](images/up.svg)\n")
    assert screenshots.placed(shown, page, images) == shown
    (images / "up.svg").unlink()
    assert screenshots.placed(shown, page, images) == PAGE


def test_a_terminal_s_picture_has_its_text_and_colours_and_asks_for_nothing() -> None:
    printed = f"\x1b[1;32m✓\x1b[0m all <hold> & {REPOSITORY}/.lab\x1b[2K\n"
    picture = screenshots.terminal("./inv verify", printed)
    minidom.parseString(picture)  # noqa: S318  our own
    assert not loads(picture)
    assert "&lt;hold&gt;" in picture
    assert "~/ha-lab/.lab" in picture
    assert str(REPOSITORY) not in picture
    assert "#98a84b" in picture, "rich's green"


def test_of_a_long_output_the_beginning_and_the_end_are_shown() -> None:
    lines = [f"line {number}" for number in range(200)]
    shown = screenshots.shortened("\n".join(lines))
    assert len(shown) == screenshots.LINES
    assert shown[: screenshots.FIRST] == lines[: screenshots.FIRST]
    assert shown[-1] == "line 199"
    left = next(line for line in shown if line.startswith("[…"))
    assert left == f"[… {200 - (screenshots.LINES - 1)} lines]"
    assert screenshots.shortened("a\nb\n") == ["a", "b"]


def test_every_screenshot_has_a_step_and_a_place_in_a_page() -> None:
    made = {*screenshots.STEPS, "up", "status"}
    assert made == set(screenshots.NAMES)
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    placed = {each.name for path in pages for each in screenshots.comments(path.read_text(encoding="utf-8"))}
    assert placed == set(screenshots.NAMES)


def test_a_name_that_there_is_not_ends_the_script_before_anything() -> None:
    with pytest.raises(SystemExit, match="there is no screenshot upp"):
        screenshots.main(["upp"])


def test_a_command_that_ends_otherwise_ends_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(screenshots, "REPOSITORY", tmp_path)
    (tmp_path / "inv").write_text("#!/bin/sh\necho said $*\nexit 7\n")
    (tmp_path / "inv").chmod(0o755)
    with pytest.raises(SystemExit, match=r"said status\n\n\./inv status ended with 7"):
        screenshots.inv("status")
    assert screenshots.inv("status", codes=(7,)) == "said status\n"
