"""Removes named entries from the lists of a YAML file's text, and leaves every other byte as it is.

YAML's dumpers would write the file anew, without its comments and in another form. Where a text is written in a
form that can't be cut, such as lists on one line, that is still what comes of it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import yaml


def without(text: str, kinds: Collection[str], name: str, current: str) -> str:
    """The text of a mapping without the entries of that `name` in its lists `kinds`.

    Where the value of the key `current` is that name, it becomes an empty string. Raises yaml.YAMLError,
    KeyError or TypeError where the text has another form.
    """
    wanted = _expected(yaml.safe_load(text), kinds, name, current)
    cut = _cut(text, kinds, name, current)
    try:
        fine = yaml.safe_load(cut) == wanted
    except yaml.YAMLError:
        fine = False
    return cut if fine else yaml.safe_dump(wanted, sort_keys=False)


def _expected(found: Any, kinds: Collection[str], name: str, current: str) -> Any:
    wanted = copy.deepcopy(found)
    for kind in kinds:
        if wanted.get(kind):
            wanted[kind] = [each for each in wanted[kind] if each["name"] != name]
    if wanted.get(current) == name:
        wanted[current] = ""
    return wanted


def _cut(text: str, kinds: Collection[str], name: str, current: str) -> str:
    """The text without these parts, from behind, so that places before them stay true."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    parts: list[tuple[int, int, str]] = []
    for key, value in root.value:
        if key.value in kinds and isinstance(value, yaml.SequenceNode) and not value.flow_style:
            parts += _entries(text, key, value, name)
        elif key.value == current and isinstance(value, yaml.ScalarNode) and value.value == name:
            parts.append((value.start_mark.index, value.end_mark.index, '""'))
    for begin, end, instead in sorted(parts, reverse=True):
        text = text[:begin] + instead + text[end:]
    return text


def _entries(
    text: str, key: yaml.ScalarNode, entries: yaml.SequenceNode, name: str
) -> list[tuple[int, int, str]]:
    """The lines of a list's entries of that name; a list that gets empty is written so."""
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
    """Where what is written of it ends: a block's own mark is where the next one begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _end_of_line(text: str, index: int) -> int:
    if index and text[index - 1] == "\n":
        return index  # a literal block ends with its line
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1
