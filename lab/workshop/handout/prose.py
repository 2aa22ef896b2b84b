"""Turns a chapter's Markdown into HTML, and lists the commands in it that are typed.

Markdown is CommonMark with tables; HTML in it is shown as text. Boxes are `::: NAME` … `:::`. A command is a
fence whose info string is `sh on=MACHINE`, with `exit=1` or `exit=0,1` where it ends with another exit code
than 0. A fence that is only shown names another language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape
from mdit_py_plugins.container import container_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer, RegexLexer, bygroups
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Text
from pygments.util import ClassNotFound

from lab.model import Lab
from lab.system import terminal
from lab.system.paths import COMMAND
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.words import word

Edition = Literal["student", "instructor"]
Way = Literal["", "watch", "hand"]

EDITIONS: tuple[Edition, ...] = ("student", "instructor")
WAYS = ("watch", "hand")
FOR_INSTRUCTORS = ("instructor", "answer")
BOXES = (*WAYS, *FOR_INSTRUCTORS, "note", "question", "topology")
HOST = "host"
CHECK = re.compile(rf"{re.escape(COMMAND)} task(?: --lab .+)? (\d+)")
"""The command at a chapter's end."""
EXITS = re.compile(r"exit=\d{1,3}(,\d{1,3})*")
BOX = re.compile(r"(\s*):{3,}\s*(\S*)\s*")
DEEPEST = 20
"""Colons; boxes are never nested as deep."""
SHORT = 20
"""Lines; a block up to this length is kept on one page of paper."""
OPEN, CLOSE = "container_box_open", "container_box_close"


@dataclass(frozen=True)
class Command:
    """A block that is typed: on `host` or a machine, in which of the two ways ("" both), from which line.

    `exits` are the exit codes that it may end with.
    """

    on: str
    text: str
    way: Way
    instructor: bool
    line: int
    exits: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Reader:
    """The reader of a page. `picture` shows the lab, as SVG; `lab_file` is what commands name, if anything."""

    lab: Lab
    language: str
    edition: Edition
    picture: Markup
    lab_file: str = ""

    def word(self, name: str, **values: object) -> str:
        """Return one of the texts of words.yaml in the reader's language."""
        return word(self.language, name, **values)


def commands(chapter: Chapter, lab: Lab) -> tuple[Command, ...]:
    """Return a chapter's commands in order, including those for instructors. Raises ChapterError."""
    found, within = [], []
    for token in _tokens(chapter, lab):
        if token.type == OPEN:
            within.append(_box(token))
        elif token.type == CLOSE:
            within.pop()
        elif _machine(token):
            ways = [name for name in within if name in WAYS]
            way: Any = ways[-1] if ways else ""
            closed = any(name in FOR_INSTRUCTORS for name in within)
            text = token.content.rstrip("\n")
            found.append(Command(_machine(token), text, way, closed, _line(token), _exits(token)))
    return tuple(found)


def html(chapter: Chapter, reader: Reader) -> Markup:
    """Return a chapter as HTML, for students without what is for instructors. Raises ChapterError."""
    tokens = _tokens(chapter, reader.lab)
    if reader.edition == "student":
        tokens = list(_for_students(tokens))
    environment = {"reader": reader, "chapter": chapter, "headings": 0}
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, environment))  # noqa: S704


def inline(text: str) -> Markup:
    """Return a sentence as HTML: text between backticks is code."""
    return Markup(_MARKDOWN.renderInline(text))  # noqa: S704  HTML in it is escaped


def figure(reader: Reader, on: str, command: str) -> Markup:
    """Return a command as it is shown: where it is typed, as which user, and a button that copies it."""
    word = reader.word
    checks = CHECK.fullmatch(command)
    if checks:
        how = escape(word("check_note", task=checks[1]))
    elif on == HOST:
        how = escape(word("on_host"))
    else:
        login = Markup("{}: <code>{}</code>, {} <code>sudo -i</code>")
        typed = terminal.naming(f"./inv ssh {on}", reader.lab_file)
        how = login.format(word("as_root"), typed, word("then"))
    return Markup(
        '<figure class="{kind}" data-on="{on}">\n<figcaption><span class="where">{where}</span> '
        '<span class="how">{how}</span> '
        '<button type="button" class="copy" aria-live="polite">{copy}</button></figcaption>\n'
        '<pre tabindex="0"><code>{code}</code></pre>\n</figure>\n'
    ).format(
        kind="command check" if checks else "command",
        on=on,
        where=word("check") if checks else word("host") if on == HOST else on,
        how=how,
        copy=word("copy"),
        code=_coloured(command, "sh"),
    )


class HAProxy(RegexLexer):  # type: ignore[misc]  # pygments has no types
    """HAProxy's configuration: comments, section headers, and the keyword that begins each line."""

    name = "HAProxy"
    tokens = {  # noqa: RUF012  pygments requires a plain dict
        "root": [
            (r"#.*?$", Comment),
            (r"^(global|defaults|frontend|backend|listen)\b(.*?)$", bygroups(Keyword, Name.Class)),
            (r"^([ \t]+)([\w.-]+)", bygroups(Text, Name.Attribute)),
            (r"\s+", Text),
            (r"\S+", Text),
        ]
    }


def _tokens(chapter: Chapter, lab: Lab) -> list[Token]:
    tokens = _MARKDOWN.parse(_nested(chapter))
    for token in tokens:
        problem = _token_problem(token, lab)
        if problem:
            raise chapter.error(_line(token), problem)
    return tokens


def _nested(chapter: Chapter) -> str:
    """The text with fewer colons for each inner box, so that the parser can match every end."""
    lines, around, fenced = [], [], False
    for number, line in enumerate(chapter.text.splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        found = None if fenced else BOX.fullmatch(line)
        if found and found[2]:
            if found[2] not in BOXES:
                raise chapter.error(number, f"there is no box {found[2]!r} ({', '.join(BOXES)})")
            around.append(number)
            line = f"{found[1]}{':' * (DEEPEST - len(around))} {found[2]}"
        elif found:
            if not around:
                raise chapter.error(number, "closes a box, but none is open")
            line = f"{found[1]}{':' * (DEEPEST - len(around))}"
            around.pop()
        lines.append(line)
    if around:
        raise chapter.error(around[-1], "this box is never closed")
    return "\n".join(lines) + "\n"


def _token_problem(token: Token, lab: Lab) -> str | None:
    """What is wrong with a block; None if nothing is."""
    if token.type == "fence":
        return _fence_problem(token, lab)
    for child in token.children or ():
        if child.type == "image" or (
            child.type == "link_open" and not str(child.attrs["href"]).startswith("#")
        ):
            return "leads out of the handout; write the address as plain text"
    return None


def _fence_problem(token: Token, lab: Lab) -> str | None:
    language, *words = token.info.split() or ["text"]
    if language == "sh":
        places = (HOST, *(node.name for node in lab.nodes))
        if not words or words[0].removeprefix("on=") not in places or "=" not in words[0]:
            return f"`sh` needs `on=` and where it is typed ({', '.join(places)})"
        if len(words) > 2 or (words[1:] and not EXITS.fullmatch(words[1])):
            return "after `on=` only `exit=` and exit codes may follow, as in `exit=0,1`"
    elif words or _lexer(language) is None:
        return f"{token.info!r} is not a language that is shown (text, haproxy, yaml, json …)"
    return None


def _for_students(tokens: Sequence[Token]) -> Iterator[Token]:
    hidden = 0
    for token in tokens:
        if token.type == OPEN and (hidden or _box(token) in FOR_INSTRUCTORS):
            hidden += 1
        if not hidden:
            yield token
        if token.type == CLOSE and hidden:
            hidden -= 1


def _box(token: Token) -> str:
    return (token.info.split() or [""])[0]


def _line(token: Token) -> int:
    return (token.map or [0])[0] + 1


def _machine(token: Token) -> str:
    """Where a fence is typed; "" for one that is only shown, and for every other token."""
    words = token.info.split() if token.type == "fence" else []
    return words[1].removeprefix("on=") if words[:1] == ["sh"] else ""


def _exits(token: Token) -> tuple[int, ...]:
    """The exit codes that a command may end with."""
    _, _, *codes = token.info.split()
    return tuple(int(code) for code in codes[0].removeprefix("exit=").split(",")) if codes else (0,)


def _lexer(language: str) -> Lexer | None:
    if language == "haproxy":
        return HAProxy(stripnl=False)
    try:
        found: Lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return None
    return found


def _coloured(text: str, language: str) -> Markup:
    lexer = _lexer(language)
    if lexer is None or language == "text":
        return escape(text)
    coloured = highlight(text, lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return Markup(re.sub(r'<span class="w">(\s*)</span>', r"\1", coloured))  # noqa: S704  pygments escapes


# How tokens become HTML. Each rule gets all tokens, the position of its own, and the environment of `html`.

Rule = Callable[[Any, Sequence[Token], int, Any, dict[str, Any]], str]


def _fence(_: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    token, reader = tokens[place], environment["reader"]
    text, on = token.content.rstrip("\n"), _machine(tokens[place])
    if on:
        return figure(reader, on, text)
    language = (token.info.split() or ["text"])[0]
    kind = "shown short" if text.count("\n") < SHORT else "shown"
    shown = Markup('<pre class="{}" tabindex="0"><code>{}</code></pre>\n')
    return shown.format(kind, _coloured(text, language))


def _open(_: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    reader: Reader = environment["reader"]
    name = _box(tokens[place])
    if name == "topology":
        return Markup("<figure>{}\n").format(reader.picture)
    kind = f"way {name}" if name in WAYS else f"box {name}"
    return Markup('<div class="{}">\n<p class="label">{}</p>\n').format(kind, reader.word(name))


def _close(_: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    depth = 0
    for token in reversed(tokens[: place + 1]):
        depth += {CLOSE: 1, OPEN: -1}.get(token.type, 0)
        if not depth:
            return "</figure>\n" if _box(token) == "topology" else "</div>\n"
    return "</div>\n"


def _heading(_: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    """One level down: a chapter's title is the page's second level."""
    level = min(int(tokens[place].tag[1:]) + 1, 6)
    if tokens[place].nesting < 0:
        return f"</h{level}>\n"
    environment["headings"] += 1
    return f'<h{level} id="chapter-{environment["chapter"].number}-{environment["headings"]}">'


def _table(self: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    if tokens[place].nesting > 0:
        return '<div class="scroll" tabindex="0"><table>\n'
    return "</table></div>\n"


def _cell(self: Any, tokens: Sequence[Token], place: int, options: Any, environment: dict[str, Any]) -> str:
    """Aligned by a class: the page's Content Security Policy ignores an element's own style."""
    right = "right" in str(tokens[place].attrs.get("style", ""))
    return f'<{tokens[place].tag} class="right">' if right else f"<{tokens[place].tag}>"


def _parser() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    container_plugin(markdown, name="box", validate=lambda *_: True)
    rules: dict[str, Rule] = {
        "fence": _fence,
        "heading_open": _heading,
        "heading_close": _heading,
        "table_open": _table,
        "table_close": _table,
        "th_open": _cell,
        "td_open": _cell,
        OPEN: _open,
        CLOSE: _close,
    }
    for name, rule in rules.items():
        markdown.add_render_rule(name, rule)
    return markdown


_MARKDOWN = _parser()
