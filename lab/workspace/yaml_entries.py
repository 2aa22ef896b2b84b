"""Adds and removes named entries in the lists of a YAML text, and leaves every other byte unchanged.

A YAML dumper would rewrite the file without its comments and in another layout. That is still done for texts
that can't be edited in place, such as those with lists on one line.
"""

from __future__ import annotations

import contextlib
import copy
import textwrap
from collections.abc import Callable, Collection, Mapping
from typing import Any

import yaml


def without(text: str, kinds: Collection[str], name: str, current: str) -> str:
    """The text of a mapping without the entries of that `name` in its lists `kinds`.

    If the value of the key `current` is that name, it becomes an empty string. Raises yaml.YAMLError, KeyError
    or TypeError for a text with another structure.
    """
    wanted = _expected(yaml.safe_load(text), kinds, name, current)
    return _checked(lambda: _cut(text, kinds, name, current), wanted)


def added(text: str, entries: Mapping[str, Mapping[str, Any]], current: str) -> str:
    """The text of a mapping with one more entry in each of these lists: kind → entry, all with the same `name`.

    Entries with that name are replaced. The key `current` is set to the name if it has no value. Raises like
    `without`.
    """
    (name,) = {str(entry["name"]) for entry in entries.values()}
    wanted = _expected(yaml.safe_load(text), entries, name, "")
    for kind, entry in entries.items():
        wanted[kind] = [*(wanted.get(kind) or []), dict(entry)]
    wanted[current] = wanted.get(current) or name

    def edited() -> str:
        found = _cut(text, entries, name, "")
        for kind, entry in entries.items():
            found = _insert(found, kind, entry)
        return _set(found, current, name)

    return _checked(edited, wanted)


def _checked(edit: Callable[[], str], wanted: Any) -> str:
    """The edited text if it parses as `wanted`; otherwise `wanted`, dumped from scratch."""
    with contextlib.suppress(yaml.YAMLError):
        text = edit()
        if yaml.safe_load(text) == wanted:
            return text
    return yaml.safe_dump(wanted, sort_keys=False)


def _expected(found: Any, kinds: Collection[str], name: str, current: str) -> Any:
    wanted = copy.deepcopy(found)
    for kind in kinds:
        if wanted.get(kind):
            wanted[kind] = [each for each in wanted[kind] if each["name"] != name]
    if wanted.get(current) == name:
        wanted[current] = ""
    return wanted


def _cut(text: str, kinds: Collection[str], name: str, current: str) -> str:
    """The text without these parts, cut from the end so that earlier positions stay valid."""
    parts: list[tuple[int, int, str]] = []
    for key, value in _pairs(text):
        if key.value in kinds and isinstance(value, yaml.SequenceNode) and not value.flow_style:
            parts += _entries(text, key, value, name)
        elif key.value == current and isinstance(value, yaml.ScalarNode) and value.value == name:
            parts.append((value.start_mark.index, value.end_mark.index, '""'))
    for begin, end, instead in sorted(parts, reverse=True):
        text = text[:begin] + instead + text[end:]
    return text


def _insert(text: str, kind: str, entry: Mapping[str, Any]) -> str:
    """The text with an entry at the end of a list that is in block style, empty or missing."""
    block = yaml.safe_dump([dict(entry)], sort_keys=False)
    for key, value in _pairs(text):
        if key.value != kind:
            continue
        if isinstance(value, yaml.SequenceNode) and value.value and not value.flow_style:
            end = _end_of_line(text, _end(value))
            indent = " " * value.start_mark.column
            line = "" if text[:end].endswith("\n") else "\n"
            return text[:end] + line + textwrap.indent(block, indent) + text[end:]
        begin, end = value.start_mark.index, value.end_mark.index
        rest = _end_of_line(text, end)
        kept = text[:begin].rstrip(" ") + text[end:rest].rstrip("\n")
        return f"{kept}\n{block}{text[rest:]}"
    return f"{_ended(text)}{kind}:\n{block}"


def _set(text: str, key: str, value: str) -> str:
    """The text with a value for a key that has none."""
    for found, node in _pairs(text):
        if found.value == key:
            begin, end = node.start_mark.index, node.end_mark.index
            space = "" if text[:begin].endswith(" ") else " "
            return text if node.value not in ("", "null", "~") else f"{text[:begin]}{space}{value}{text[end:]}"
    return f"{_ended(text)}{key}: {value}\n"


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _pairs(text: str) -> list[tuple[yaml.Node, yaml.Node]]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(root.value) if isinstance(root, yaml.MappingNode) else []


def _entries(text: str, key: yaml.Node, entries: yaml.SequenceNode, name: str) -> list[tuple[int, int, str]]:
    """The lines of a list's entries with that name; a list that becomes empty is written as []."""
    named = [entry for entry in entries.value if _name_of(entry) == name]
    parts = [
        (text.rfind("\n", 0, entry.start_mark.index) + 1, _end_of_line(text, _end(entry)), "")
        for entry in named
    ]
    if named and len(named) == len(entries.value):
        colon = text.index(":", key.end_mark.index) + 1
        parts.append((colon, colon, " []"))
    return parts


def _name_of(entry: yaml.Node) -> str | None:
    pairs = entry.value if isinstance(entry, yaml.MappingNode) else []
    return next((value.value for key, value in pairs if key.value == "name"), None)


def _end(node: yaml.Node) -> int:
    """Where a node's text ends: the end mark of a block is where the next node begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _end_of_line(text: str, index: int) -> int:
    if index and text[index - 1] == "\n":
        return index  # a literal block ends with its line
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1
