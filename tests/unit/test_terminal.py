"""A command that is told to a person names the lab that it is about."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Group
from rich.text import Text

from lab.terminal import Terminal


def said(lab_file: str, *objects: object) -> str:
    out = io.StringIO()
    terminal = Terminal(file=out, width=200)
    terminal.lab_file = lab_file
    terminal.print(*objects)
    return out.getvalue()


@pytest.mark.parametrize("wrap", [str, Text, lambda text: Group("", Group(Text(text)))])
def test_a_command_names_another_lab(wrap: Callable[[str], object]) -> None:
    text = said("/labs/my lab.yaml", wrap("`./inv destroy`, then `./inv up`; ./inv --list; ./inv drill --heal"))
    assert text.strip() == (
        "`./inv destroy --lab '/labs/my lab.yaml'`, then `./inv up --lab '/labs/my lab.yaml'`; "
        "./inv --list; ./inv drill --lab '/labs/my lab.yaml' --heal"
    )


def test_the_lab_that_commands_mean_anyway_is_not_named() -> None:
    assert said("", "./inv up").strip() == "./inv up"


def test_a_lab_is_named_once() -> None:
    assert said("/a.yaml", "./inv up --lab /b.yaml").strip() == "./inv up --lab /b.yaml"
