"""This module reads texts in English and Korean from a YAML file beside the code that shows them.

Such a file has tables, a table has names, and a name has `en` and `ko`. `{placeholders}` in them are
those of str.format, and the code declares which ones it fills.
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

Tables = dict[str, dict[str, "Said"]]
"""The texts of a file, by table and name, in the file's order."""

Placeholders = Mapping[tuple[str, str], Collection[str]]
"""The placeholders of each text that has any, by table and name."""


class Said(NamedTuple):
    """One text in both languages; the names of its fields are those of the languages."""

    en: str
    ko: str

    def fill(self, **values: object) -> Said:
        """Return the text with values for its placeholders; of a value that is a Said, each language's own."""
        return Said(*(text.format(**_spoken(values, index)) for index, text in enumerate(self)))


def read(
    path: Path, tables: Sequence[str] | None = None, placeholders: Placeholders = MappingProxyType({})
) -> Tables:
    """Read a file that has exactly these tables, or any where the code asks for none by its name.

    `placeholders` are those of the texts that have any. Raises ConfigError with every table, text or language
    that is missing or unknown and every placeholder that is not as declared, each with its line.
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
        table: {name: Said(**languages) for name, languages in document.data[table].items()} for table in tables
    }


def _problems(
    document: yamlfile.Document, tables: Sequence[str], placeholders: Placeholders
) -> Iterator[yamlfile.Problem]:
    for key in [*((table,) for table in tables), *placeholders]:
        if key not in document.lines:
            yield document.problem([key], "is missing")
    for table, texts in document.data.items():
        if table not in tables:
            yield document.problem([(table,)], "is no table that the code reads")
        elif not isinstance(texts, dict):
            yield document.problem([(table,)], "has no names")
        else:
            for name, text in texts.items():
                yield from _text_problems(document, (table, name), text, placeholders.get((table, name), ()))


def _text_problems(
    document: yamlfile.Document, key: tuple[str, str], text: object, declared: Collection[str]
) -> Iterator[yamlfile.Problem]:
    languages = text if isinstance(text, dict) else {}
    for language in Said._fields:
        if not isinstance(languages.get(language), str) or not languages[language].strip():
            yield document.problem([(*key, language), key], f"has no text in the language {language}")
    for language, content in languages.items():
        if language not in Said._fields:
            yield document.problem([(*key, language)], "is no language")
        elif isinstance(content, str) and (why := _placeholder_problem(content, declared)):
            yield document.problem([(*key, language)], why)


def _placeholder_problem(text: str, declared: Collection[str]) -> str | None:
    """Why a text's placeholders are not the declared ones."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        return f"can't be read: {error}"
    if unknown := sorted(found - set(declared)):
        return f"has a placeholder that the code does not fill: {{{unknown[0]}}}"
    if missing := sorted(set(declared) - found):
        return f"lacks the placeholder {{{missing[0]}}}"
    return None


def _spoken(values: Mapping[str, object], index: int) -> dict[str, object]:
    return {name: value[index] if isinstance(value, Said) else value for name, value in values.items()}
