"""Writes a handout as one HTML file that needs no network and no other file. Pure.

Students and instructors get different files; a student's file has nothing that is for instructors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from lab.drill import onepage
from lab.model import Lab
from lab.system.terminal import naming
from lab.workshop.handout import prose, topology
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.prose import Edition, Reader
from lab.workshop.handout.topology import Now
from lab.workshop.task.catalogue import TASKS
from lab.workshop.task.look import filled

HERE = Path(__file__).parent

OURS = "ha-lab handout"
"""The mark at the end of every file that this kit wrote, and may overwrite."""


@dataclass(frozen=True)
class Cover:
    """What a handout says about itself: its date, whether the lab was up, its seat and person, its lab file.

    `now` is what was found of a lab that works; None of any other.
    """

    made: str
    up: bool
    seat: str = ""
    name: str = ""
    lab_file: str = ""
    now: Now | None = None


def page(lab: Lab, language: str, edition: Edition, chapters: Sequence[Chapter], cover: Cover) -> str:
    """Return a handout as the text of an HTML file. Raises ChapterError."""
    reader = Reader(lab, language, edition, topology.picture(lab, language, cover.now), cover.lab_file)
    template = _environment(reader).get_template("page.html.j2")
    return template.render(
        lab=lab,
        lang=language,
        instructor=edition == "instructor",
        cover=cover,
        title=f"{lab.name}: {reader.word('title')}",
        chapters=[_chapter(each, reader) for each in chapters],
        timings=_timings(chapters),
        tasks=_tasks(lab, cover.lab_file),
        in_all=_clock(sum(each.minutes for each in chapters)),
        progress=prose.figure(reader, prose.HOST, naming("./inv task", cover.lab_file)),
        **onepage.parts(HERE),
    )


def index(
    seats: Sequence[Any], files: Mapping[str, Sequence[str]], own: Sequence[str], lab: Lab, language: str
) -> str:
    """Return the instructor's list of a class as the text of an HTML file.

    `files` are those of each seat, by its name; `own` are the instructor's.
    """
    reader = Reader(lab, language, "instructor", Markup(""))
    title = f"{lab.name}: {reader.word('class')}"
    template = _environment(reader).get_template("index.html.j2")
    return template.render(seats=seats, files=files, own=own, lang=language, title=title, **onepage.parts(HERE))


def _environment(reader: Reader) -> Environment:
    environment = onepage.environment(HERE)
    environment.globals |= {"word": reader.word, "OURS": OURS}
    return environment


def _chapter(chapter: Chapter, reader: Reader) -> dict[str, Any]:
    return {
        "number": chapter.number,
        "anchor": f"chapter-{chapter.number}",
        "title": chapter.title,
        "minutes": chapter.minutes,
        "html": prose.html(chapter, reader),
    }


def _timings(chapters: Sequence[Chapter]) -> list[dict[str, Any]]:
    """When each chapter begins, counted from the first."""
    begins = accumulate((each.minutes for each in chapters), initial=0)
    return [
        {
            "number": each.number,
            "title": each.title,
            "begins": _clock(start),
            "minutes": each.minutes,
        }
        for each, start in zip(chapters, begins, strict=False)
    ]


def _tasks(lab: Lab, lab_file: str) -> list[dict[str, Any]]:
    """Each task as `./inv task` shows it."""
    return [
        {
            "number": task.number,
            "title": task.title,
            "hints": [prose.inline(naming(filled(hint, lab), lab_file)) for hint in task.hints],
            "command": naming(f"./inv task {task.number}", lab_file),
        }
        for task in TASKS
    ]


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"
