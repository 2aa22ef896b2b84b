"""docs/verbs.md, generated from the verbs of tasks.py: what `./inv --help VERB` shows, of all verbs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from invoke.parser import Argument

from lab.exit_codes import EXIT_CODES

HEAD = """\
# Verbs

`./inv --list` lists the verbs, `./inv --help up` explains one. `--lab` names another lab file than `lab.yaml`.
Words in brackets can be left out.

This page is generated from `tasks.py` by `./inv docs --write`.

| verb | what it does |
| --- | --- |
"""


def page(known: Mapping[str, Any]) -> str:
    """The text of the page."""
    rows = "".join(f"| [{name}](#{name}) | {_first(known[name])} |\n" for name in sorted(known))
    return f"{HEAD}{rows}{''.join(_section(name, known[name]) for name in sorted(known))}"


def _first(verb: Any) -> str:
    return _explained(verb).partition("\n")[0]


def _explained(verb: Any) -> str:
    return inspect.getdoc(verb) or ""


def _section(name: str, verb: Any) -> str:
    arguments: list[Argument] = verb.get_arguments()
    words = [each for each in arguments if each.positional]
    flags = [each for each in arguments if not each.positional]
    line = " ".join(
        ["./inv", name, *(f"[{each.name.upper()}]" if each.optional else each.name.upper() for each in words)]
    )
    lines = [line, f"{line} -- COMMAND"] if name == "ssh" else [line]
    table = "".join(
        f"| {option} | {meaning} |\n"
        for option, meaning in (
            *((f"`{each.name.upper()}`", verb.explained[each.name]) for each in words),
            *((_flag(each), verb.explained[each.name]) for each in flags),
        )
    )
    codes = "".join(
        f"| {each.code} | {each.meaning} |\n"
        for each in EXIT_CODES
        if name in {typed.split()[0] for typed in each.verbs}
    )
    return (
        f"\n## {name}\n\n```sh\n{chr(10).join(lines)}\n```\n\n{_explained(verb)}\n"
        + (f"\n| option | meaning |\n| --- | --- |\n{table}" if table else "")
        + (f"\n| exit code | meaning |\n| --- | --- |\n{codes}" if codes else "")
    )


def _flag(argument: Argument) -> str:
    name = argument.name.strip("_").replace("_", "-")
    if argument.kind is bool:
        return f"`--no-{name}`" if argument.default else f"`--{name}`"
    return f"`-{name} VALUE`" if len(name) == 1 else f"`--{name} VALUE`"
