"""The texts of a handout other than its chapters, in both languages, from words.yaml."""

from __future__ import annotations

from pathlib import Path

from lab import texts
from lab.texts import Bilingual

_TEXTS = texts.read(
    Path(__file__).with_suffix(".yaml"),
    ("words", "drills"),
    {
        ("words", "chapter"): ("number",),
        ("words", "minutes"): ("minutes",),
        ("words", "members"): ("quorum", "members"),
        ("words", "check_note"): ("task",),
        ("words", "now"): ("at",),
    }
    | {("words", f"now_{name}"): ("names",) for name in ("holder", "leader", "lost", "spare", "stops")},
)

WORDS = _TEXTS["words"]
DRILLS = _TEXTS["drills"]
"""The headers of a chapter's table of drills: `drill`, then figures."""


def in_language(said: Bilingual, language: str) -> str:
    """Return one of a text's two languages."""
    return said.ko if language == "ko" else said.en


def word(language: str, name: str, **values: object) -> str:
    """Return one of WORDS in a language, with its values."""
    return in_language(WORDS[name].fill(**values), language)
