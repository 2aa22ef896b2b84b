"""Reads one small YAML file into plain text values, with the line of every key.

Input: a path. Output: a `Document`. A file that can't be parsed raises ConfigError with the position; smaller
mistakes (a key given twice) are problems in the document, reported with the others.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from lab.errors import ConfigError
from lab.system import quoting

Key = tuple[str, ...]

SIZE_LIMIT = 64 * 1024  # bytes; a lab file has some 30 lines


class Problem(NamedTuple):
    """A problem with a key, and the line to correct."""

    line: int
    key: Key
    what: str


@dataclass
class Document:
    """A file's values (dict, list, text), the line of each key, and problems."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, keys: Sequence[Key], what: str) -> Problem:
        """A problem with `keys`, reported at the first one that is in the file.

        If none is, it is reported for the first, on the line of its parent.
        """
        key = next((key for key in keys if key in self.lines), keys[0])
        line = next((self.lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.lines), 1)
        return Problem(line, key, what)


def read(path: Path, name: str, *, hint: str) -> Document:
    """Parse the file at `path`; a missing or empty one is an empty document.

    Raises ConfigError, with `name` for the file, if it can't be read or is not one YAML mapping.
    """
    root = _parse(_text(path, name, hint), name, hint)
    document = Document()
    if root is not None:
        document.data = _plain(root, (), document)
    return document


def _refuse(place: str, what: str, hint: str, cause: Exception | None = None) -> NoReturn:
    """Raise ConfigError. `cause` must not be YAML's own error, which quotes the line, maybe a password."""
    raise ConfigError([f"{place}: {what}"], hint=hint) from cause


def _text(path: Path, name: str, hint: str) -> str:
    """The file's text; empty if there is no file. Never waits for a pipe, never reads without a limit."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            _refuse(name, f"is {kind}; it should be one YAML file", hint)
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        if path.is_symlink():
            _refuse(name, "is a link to a file that does not exist", hint, error)
        return ""
    except OSError as error:
        _refuse(
            name,
            f"can't be read: {error.strerror}",
            f"make it readable for you (`ls -ld {quoting.word(path)}`)",
            error,
        )
    if len(content) > SIZE_LIMIT:
        _refuse(name, f"is larger than {SIZE_LIMIT // 1024} KiB, more than such a file needs", hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _refuse(f"{name}:{line}", "is not UTF-8 text", "save it as UTF-8 and try again", error)


class _Loader(yaml.SafeLoader):
    """Plain data only: aliases could expand without limit, and tags are not supported."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it bare
        what = ""
        if isinstance(event, yaml.AliasEvent) or event.tag:
            what = "aliases (*name) and tags (!name) are not used here"
        elif isinstance(event, yaml.ScalarEvent) and re.search(r"[\ud800-\udfff]", event.value):
            what = "an escape encodes half a character"  # no file name or terminal could take it
        if what:
            raise yaml.composer.ComposerError(problem=what, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """The problem, and where its context begins if that is on an earlier line."""
    began, noticed = error.context_mark, error.problem_mark
    if error.problem and error.context and began and noticed and began.line < noticed.line:
        return f"{error.problem} ({error.context} that begins on line {began.line + 1})"
    return error.problem or error.context or "it is not YAML"


def _parse(text: str, name: str, hint: str) -> yaml.MappingNode | None:
    """The file's one mapping; None if the file is empty."""
    try:
        documents = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        _refuse(place, f"can't be read as YAML: {yaml_problem(error)}", hint)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _refuse(f"{name}:{line}", f"contains U+{error.character:04X}, which YAML does not allow", hint)
    except (ValueError, OverflowError) as error:  # an escape for a character that does not exist
        _refuse(name, f"can't be read as YAML: {error}", hint)
    except RecursionError:
        _refuse(name, "is nested too deeply", hint)
    if len(documents) > 1:
        place = f"{name}:{documents[1].start_mark.line + 1}"
        _refuse(place, "a second document starts here; only one is allowed", "remove the line `---`")
    root = documents[0] if documents else None
    if root is None or _is_unset(root):
        return None
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "one value"
        _refuse(f"{name}:{root.start_mark.line + 1}", f"is {kind}, not keys with values (`key: value`)", hint)
    return root


def _is_unset(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _plain(node: yaml.Node, key: Key, document: Document) -> Any:
    """A node as plain data. Records each key's line.

    Scalars stay text, so that version 1.30 does not become 1.3, nor a lab named `no` False. A key without a
    value is left out.
    """
    if not isinstance(node, yaml.MappingNode):
        if isinstance(node, yaml.SequenceNode):
            places = ((*key, str(number)) for number in range(len(node.value)))
            return [_plain(each, place, document) for each, place in zip(node.value, places, strict=True)]
        return node.value
    data: dict[str, Any] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(line, (*key, "?"), "a list or mapping can't be a key"))
            continue
        child = (*key, key_node.value)
        if child in document.lines:
            first = document.lines[child]
            document.problems.append(Problem(line, child, f"is given twice, first on line {first}"))
            continue
        document.lines[child] = line
        if not _is_unset(value):
            data[key_node.value] = _plain(value, child, document)
    return data
