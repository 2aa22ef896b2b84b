"""The terminal: rich's console, which names the lab in every command that it shows.

Where a terminal's encoding has no letter for one of our signs, it prints another one and goes on.
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

# The verbs that take --lab, as hints have them. One that is pasted must not act on another lab.
ABOUT_A_LAB = re.compile(
    r"\./inv (init|up|plan|replace|stop|status|task|verify|destroy|doctor|bake|render|kubeconfig|ssh|logs|drill"
    r"|conformance|handout|bench|lock)\b(?! --lab)"
)
NAMES_THE_KIT = re.compile(r"\./inv\b")


def naming(text: str, lab_file: str) -> str:
    """Return a text whose commands name the lab file; "" is the one that they mean anyway.

    Texts have `./inv`; where the kit is an installed package, they come out with its command.
    """
    named = f" --lab {quoting.word(lab_file)}" if lab_file else ""
    return NAMES_THE_KIT.sub(COMMAND, ABOUT_A_LAB.sub(lambda found: found[0] + named, text))


def naming_in_json(text: str, lab_file: str) -> str:
    """Return a JSON text whose strings name the lab file in their commands, as `naming` does."""
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
"""What stands for our signs in ASCII."""
SPINNER = range(0x2800, 0x2900)
"""The signs of braille, of which rich makes a wheel that turns."""


def print_anything(stream: object) -> None:
    """Let a stream print what its encoding has no letter for: our signs as plain ones, others by number."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="ha-lab-plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_stand_in(sign) for sign in signs), error.end


def _stand_in(sign: str) -> str:
    if ord(sign) in SPINNER:
        return "*"
    return PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error("ha-lab-plain", _plain)


UNLIMITED = 100_000
"""A width in letters that no line has."""


class Terminal(Console):
    """A console that knows which lab is spoken of; `lab_file` is "" for the one that commands mean anyway.

    Whatever it prints has the commands as they are to be typed (`naming`), also in tables.

    Where it prints into a file or a pipe, no line is wrapped or cut, as programs read lines.
    """

    lab_file = ""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> None:
        """Print on standard output, standard error or a file. Names and paths are no markup of rich's.

        FORCE_COLOR asks for colours wherever the output goes; lines that move are for real terminals alone, and
        so are lines that are as long as a terminal is wide.
        """
        options: dict[str, Any] = {"stderr": stderr, "file": file, "highlight": False, "markup": False}
        super().__init__(**options, emoji=False, width=width)
        if not self.file.isatty():
            self.is_interactive = False
            if width is None:
                self.size = ConsoleDimensions(UNLIMITED, self.size.height)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich's console does, with commands as they are to be typed."""
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
