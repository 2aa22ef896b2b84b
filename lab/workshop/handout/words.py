"""This module is what a handout says besides its chapters, in both languages: the texts of words.yaml."""

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
    },
)

WORDS = _TEXTS["words"]
DRILLS = _TEXTS["drills"]
"""What the columns of a chapter's table of drills are called: `drill`, then figures."""


def told(said: Bilingual, language: str) -> str:
    """Return one of a text's two languages."""
    return said.ko if language == "ko" else said.en


def word(language: str, name: str, **values: object) -> str:
    """Return one of WORDS in a language, with its values."""
    return told(WORDS[name].fill(**values), language)
