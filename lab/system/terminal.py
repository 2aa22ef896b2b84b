"""The terminal: rich's console, which adds `--lab` to every command that it shows.

Symbols that the terminal's encoding lacks are replaced, instead of raising an error.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from typing import IO, Any

from rich.console import Console, ConsoleDimensions, Group
from rich.table import Table
from rich.text import Text

from lab.system import quoting
from lab.system.paths import COMMAND

# The verbs that take --lab, as hints show them. A command that is pasted must not act on another lab.
ABOUT_A_LAB = re.compile(
    r"\./inv (init|up|plan|replace|stop|status|watch|task|verify|destroy|doctor|bake|render|kubeconfig|ssh|logs"
    r"|drill|backup|recover|checkpoints?|restore|conformance|handout|bench|lock)\b(?! --lab)"
)
NAMES_THE_KIT = re.compile(r"\./inv\b")


def naming(text: str, lab_file: str) -> str:
    """Add `--lab lab_file` to the commands in a text; "" is the default lab file, which needs no flag.

    Texts have `./inv`; if the kit is an installed package, it becomes that package's command.
    """
    named = f" --lab {quoting.word(lab_file)}" if lab_file else ""
    return NAMES_THE_KIT.sub(COMMAND, ABOUT_A_LAB.sub(lambda found: found[0] + named, text))


def naming_in_json(text: str, lab_file: str) -> str:
    """Change the commands in the strings of a JSON text as `naming` does."""
    return json.dumps(_named_strings(json.loads(text), lab_file), indent=2)


def _named_strings(value: Any, lab_file: str) -> Any:
    if isinstance(value, str):
        return naming(value, lab_file)
    if isinstance(value, list):
        return [_named_strings(each, lab_file) for each in value]
    if isinstance(value, dict):
        return {key: _named_strings(each, lab_file) for key, each in value.items()}
    return value


PLAIN = {"✓": "+", "✗": "x", "·": "-", "…": "..."}
"""ASCII replacements for our symbols."""
SPINNER = range(0x2800, 0x2900)
"""Braille characters, which rich's spinner uses."""


def replace_unencodable(stream: object) -> None:
    """Let a stream replace characters that its encoding lacks: our symbols by ASCII, others by escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="ha-lab-plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_replacement(sign) for sign in signs), error.end


def _replacement(sign: str) -> str:
    if ord(sign) in SPINNER:
        return "*"
    return PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error("ha-lab-plain", _plain)


UNLIMITED = 100_000
"""A width in characters that no line reaches."""


class Terminal(Console):
    """A console that adds `--lab` to commands; `lab_file` is "" for the default lab file.

    All that it prints has the commands as you type them (`naming`), also in tables.

    Into a file or a pipe it prints lines that are never wrapped or cut, since programs read lines.
    """

    lab_file = ""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> None:
        """Print on standard output, standard error or a file. rich's markup is off, as names may look like it.

        FORCE_COLOR enables colours wherever the output goes; live updates and wrapping to the terminal's width
        are for real terminals only.
        """
        options: dict[str, Any] = {"stderr": stderr, "file": file, "highlight": False, "markup": False}
        super().__init__(**options, emoji=False, width=width)
        if not self.file.isatty():
            self.is_interactive = False
            if width is None:
                self.size = ConsoleDimensions(UNLIMITED, self.size.height)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich's console does, with commands as you type them."""
        super().print(*(self._named(each) for each in objects), **options)

    def _named(self, said: Any) -> Any:
        if isinstance(said, Group):
            return Group(*(self._named(each) for each in said.renderables))
        if isinstance(said, Table):
            for column in said.columns:
                column._cells = [self._named(cell) for cell in column._cells]
        if isinstance(said, str):
            return naming(said, self.lab_file)
        if isinstance(said, Text) and self._named(said.plain) != said.plain:
            return Text(self._named(said.plain), style=said.style)
        return said
