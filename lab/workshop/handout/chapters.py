"""Reads chapters: docs/handout/LANGUAGE/NN-name.md → Chapter, with the lab's values in its text.

A file begins with front matter, YAML between two lines `---`: title, minutes, task. What follows is a template
of Jinja2, and what that gives is Markdown.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from lab.errors import LabError
from lab.system import terminal
from lab.system.paths import REPOSITORY

FOLDER = REPOSITORY / "docs" / "handout"
LANGUAGES = ("en", "ko")

FRONT = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
VALUE = re.compile(r"\{\{.*?\}\}")
KEYS = {"title": str, "minutes": int, "task": int}
"""All keys of the front matter."""


class ChapterError(LabError):
    """A chapter can't be made into a page; the message begins with its file and line."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        """Begin with the file and the line, as editors take them."""
        name = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
        super().__init__(
            f"{name}:{line}: {what}",
            hint="correct the chapter; docs/handout/README.md explains how chapters are written",
        )


@dataclass(frozen=True)
class Chapter:
    """One chapter in one language. `minutes`: to read and do it. `text`: its Markdown, filled for a lab."""

    path: Path
    number: int
    title: str
    minutes: int
    task: int
    text: str

    def error(self, line: int, what: str) -> ChapterError:
        """An error on a line of the rendered text, reported for the line of the file that it came from."""
        return ChapterError(self.path, self._source(line), what)

    def _source(self, line: int) -> int:
        """The line of the file that a rendered line most likely came from."""
        rendered = self.text.splitlines()[:line]
        written = self.path.read_text(encoding="utf-8").splitlines()
        alike = [number for number, each in enumerate(written, 1) if _pattern(each).fullmatch(rendered[-1])]
        fixed = {number: len(VALUE.sub("", written[number - 1])) for number in alike}
        best = [number for number in alike if fixed[number] == max(fixed.values())]
        return best[min(rendered.count(rendered[-1]), len(best)) - 1] if best else line


def _pattern(written: str) -> re.Pattern[str]:
    """Matches everything that a template's line can become."""
    return re.compile(".*".join(map(re.escape, VALUE.split(written))))


def read(language: str, context: Mapping[str, Any], folder: Path, *, lab_file: str = "") -> tuple[Chapter, ...]:
    """Return a folder's chapters in a language, in order, with the context's values. Raises ChapterError.

    `lab_file` is named in every command; "" where commands use it without being told.
    """
    paths = sorted((folder / language).glob("[0-9][0-9]-*.md"))
    if not paths:
        raise LabError(
            f"there are no chapters in {folder / language}", hint="`git status` shows which files are missing"
        )
    return tuple(_chapter(path, context, lab_file) for path in paths)


def _chapter(path: Path, context: Mapping[str, Any], lab_file: str) -> Chapter:
    source = path.read_text(encoding="utf-8")
    found = FRONT.match(source)
    if not found:
        raise ChapterError(
            path, 1, "does not begin with front matter (title, minutes, task between lines of `---`)"
        )
    # Its lines stay, blank, so that the template has the file's line numbers.
    blank = "\n" * found[0].count("\n")
    text = terminal.naming(_rendered(path, blank + source[found.end() :], context), lab_file)
    return Chapter(path=path, number=int(path.name[:2]), text=text, **_front(path, found[1]))


def _front(path: Path, text: str) -> dict[str, Any]:
    try:
        front = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise ChapterError(path, line, f"front matter can't be read: {error.problem}") from error
    if not isinstance(front, dict) or set(front) != set(KEYS):
        raise ChapterError(path, 1, f"front matter must have {', '.join(KEYS)}, and nothing else")
    for number, key in enumerate(front, start=2):
        if type(front[key]) is not KEYS[key]:
            kind = "a text" if KEYS[key] is str else "a whole number"
            raise ChapterError(path, number, f"{key}: {front[key]!r} is not {kind}")
    return front


def _rendered(path: Path, source: str, context: Mapping[str, Any]) -> str:
    try:
        return _template(source).render(context)
    except jinja2.TemplateSyntaxError as error:
        raise ChapterError(path, error.lineno, str(error.message)) from error
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno or 1 for frame in frames if frame.filename == "<template>"]
        raise ChapterError(path, lines[-1] if lines else 1, str(error)) from error


@functools.cache
def _template(source: str) -> jinja2.Template:
    """Compile each chapter once, since a class needs it for each seat."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Markdown, in which raw HTML means nothing
    )
    return environment.from_string(source)
