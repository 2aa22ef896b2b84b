"""Reads texts in English and Korean from a YAML file that is beside the code that shows them.

A file has tables, a table has names, and a name has `en` and `ko`. `{placeholders}` are those of str.format;
the code declares which ones it fills.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lab.config import yamlfile
from lab.errors import ConfigError
from lab.system import quoting

Tables = dict[str, dict[str, "Bilingual"]]
"""The texts of a file, by table and name, in the file's order."""

Placeholders = Mapping[tuple[str, str], Collection[str]]
"""The placeholders of each text that has any, by table and name."""


class Bilingual(NamedTuple):
    """One text in both languages; each field is named after its language."""

    en: str
    ko: str

    def fill(self, **values: object) -> Bilingual:
        """Return the text with its placeholders filled in; a Bilingual value is filled in per language."""
        return Bilingual(*(text.format(**_in_language(values, index)) for index, text in enumerate(self)))


def read(
    path: Path, tables: Sequence[str] | None = None, placeholders: Placeholders = MappingProxyType({})
) -> Tables:
    """Read a file that must have exactly these tables; with None, any tables.

    `placeholders` lists the texts that have any. Raises ConfigError with every missing or unknown table, text
    and language, and every placeholder that differs from its declaration, each with its line.
    """
    hint = f"restore it: `git checkout {quoting.word(path)}`"
    document = yamlfile.read(path, path.name, hint=hint)
    if tables is None:
        tables = tuple(document.data)
    problems = [*document.problems, *_problems(document, tables, placeholders)]
    if problems:
        lines = (f"{path.name}:{each.line}: {'.'.join(each.key)} {each.what}" for each in sorted(problems))
        raise ConfigError(list(lines), hint=hint)
    return {
        table: {name: Bilingual(**languages) for name, languages in document.data[table].items()}
        for table in tables
    }


def _problems(
    document: yamlfile.Document, tables: Sequence[str], placeholders: Placeholders
) -> Iterator[yamlfile.Problem]:
    for key in [*((table,) for table in tables), *placeholders]:
        if key not in document.lines:
            yield document.problem([key], "is missing")
    for table, texts in document.data.items():
        if table not in tables:
            yield document.problem([(table,)], "is not a table that the code reads")
        elif not isinstance(texts, dict):
            yield document.problem([(table,)], "has no names")
        else:
            for name, text in texts.items():
                yield from _text_problems(document, (table, name), text, placeholders.get((table, name), ()))


def _text_problems(
    document: yamlfile.Document, key: tuple[str, str], text: object, declared: Collection[str]
) -> Iterator[yamlfile.Problem]:
    languages = text if isinstance(text, dict) else {}
    for language in Bilingual._fields:
        if not isinstance(languages.get(language), str) or not languages[language].strip():
            yield document.problem([(*key, language), key], f"has no text in the language {language}")
    for language, content in languages.items():
        if language not in Bilingual._fields:
            yield document.problem([(*key, language)], "is not a supported language")
        elif isinstance(content, str) and (why := _placeholder_problem(content, declared)):
            yield document.problem([(*key, language)], why)


def _placeholder_problem(text: str, declared: Collection[str]) -> str | None:
    """How a text's placeholders differ from the declared ones; None where they match."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        return f"can't be read: {error}"
    if unknown := sorted(found - set(declared)):
        return f"has a placeholder that the code does not fill: {{{unknown[0]}}}"
    if missing := sorted(set(declared) - found):
        return f"lacks the placeholder {{{missing[0]}}}"
    return None


def _in_language(values: Mapping[str, object], index: int) -> dict[str, object]:
    return {name: value[index] if isinstance(value, Bilingual) else value for name, value in values.items()}
