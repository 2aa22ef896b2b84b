"""A command that is told to a person names the lab that it is about."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.collection import Collection
from rich.console import Group
from rich.table import Table
from rich.text import Text

import tasks
from lab.system.progress import Progress
from lab.system.terminal import Terminal, naming_in_json, replace_unencodable


def said(lab_file: str, *objects: object) -> str:
    out = io.StringIO()
    terminal = Terminal(file=out, width=200)
    terminal.lab_file = lab_file
    terminal.print(*objects)
    return out.getvalue()


def cell(text: str) -> Table:
    table = Table("try", box=None, pad_edge=False, show_header=False)
    table.add_row(Text(text))
    return table


WRAPS = [str, Text, lambda text: Group("", Group(Text(text))), cell]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_command_names_another_lab(wrap: Callable[[str], object]) -> None:
    text = said("/labs/my lab.yaml", wrap("`./inv destroy`, then `./inv up`; ./inv --list; ./inv drill --heal"))
    assert text.strip() == (
        "`./inv destroy --lab '/labs/my lab.yaml'`, then `./inv up --lab '/labs/my lab.yaml'`; "
        "./inv --list; ./inv drill --lab '/labs/my lab.yaml' --heal"
    )


def test_commands_in_json_name_the_lab_and_nothing_else_changes() -> None:
    data = {"next": "`./inv up`", "./inv up": [1.5, None, True, {"hint": "./inv plan; ls"}], "café": ""}
    text = json.dumps(data, indent=2)
    assert naming_in_json(text, "") == text
    named = json.loads(naming_in_json(text, '/labs/my "lab".yaml'))
    assert named == {
        "next": """`./inv up --lab '/labs/my "lab".yaml'`""",
        "./inv up": [1.5, None, True, {"hint": """./inv plan --lab '/labs/my "lab".yaml'; ls"""}],
        "café": "",
    }


def test_every_verb_that_takes_a_lab_names_it() -> None:
    takes = {
        task.name
        for task in Collection.from_module(tasks).tasks.values()
        if any(argument.name == "lab" for argument in task.get_arguments())
    }
    assert takes > {"up", "plan", "replace", "stop"}
    for verb in takes:
        assert said("/a.yaml", f"`./inv {verb}`").strip() == f"`./inv {verb} --lab /a.yaml`"


def test_the_lab_that_commands_mean_anyway_is_not_named() -> None:
    assert said("", "./inv up").strip() == "./inv up"


@pytest.mark.parametrize("wrap", WRAPS)
def test_an_installed_kit_shows_its_own_command(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[str], object]
) -> None:
    monkeypatch.setattr("lab.system.terminal.COMMAND", "ha-lab")
    text = "`./inv destroy`, ./inv --list, x./invalid"
    assert said("", wrap(text)).strip() == "`ha-lab destroy`, ha-lab --list, x./invalid"
    assert said("/a.yaml", wrap(text)).strip() == "`ha-lab destroy --lab /a.yaml`, ha-lab --list, x./invalid"
    assert json.loads(naming_in_json(json.dumps({"next": text}), ""))["next"].startswith("`ha-lab destroy`")


def test_a_lab_is_named_once() -> None:
    assert said("/a.yaml", "./inv up --lab /b.yaml").strip() == "./inv up --lab /b.yaml"


def long_table() -> Table:
    table = Table("step", "machines", box=None, pad_edge=False)
    table.add_row("names, routes, container runtime", " ".join(f"machine{number}" for number in range(99)))
    return table


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
def test_no_line_is_wrapped_or_cut_where_no_terminal_shows_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    Terminal(file=out).print(Group(long_table(), Text("words " * 99), "more words " * 99))
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.getvalue().splitlines()]
    assert [" ".join(line.split())[:12] for line in lines] == [
        "step machine",
        "names, route",
        "words words ",
        "more words m",
    ]
    assert lines[1].endswith(" machine98")
    assert max(map(len, lines)) < 1500, "none is padded to the width"


def test_a_terminal_s_lines_have_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    Terminal(file=out).print(long_table())
    assert len(out.getvalue().splitlines()) > 9


def test_signs_that_an_encoding_lacks_become_plain_ones(tmp_path: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    replace_unencodable(out)
    with Progress(Terminal(file=out), tmp_path).step("node", "names", "cp1"):
        pass
    print("⠋ ✗ · {}".format(json.dumps({"ko": "장애"}, ensure_ascii=False)), file=out)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    start, end, last = out.buffer.getvalue().decode("ascii").splitlines()
    assert "  ... cp1  names" in start
    assert "  + cp1  names" in end
    assert last == '* x - {"ko": "\\uc7a5\\uc560"}', "JSON stays JSON"


def test_a_bracket_in_a_path_is_no_markup() -> None:
    out = io.StringIO()
    Terminal(file=out, width=200).print("rendered /home/ada/[red]/:bomb:/.lab")
    assert out.getvalue() == "rendered /home/ada/[red]/:bomb:/.lab\n"


def test_colours_that_are_asked_for_in_a_file_bring_no_line_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    run = Progress(Terminal(file=out), tmp_path)
    with run.live(), run.step("node", "names", "cp1"):
        pass
    said = out.getvalue()
    assert "\x1b[32m" in said, "colours"
    assert set(re.findall(r"\x1b\[[^a-zA-Z]*([a-zA-Z])", said)) == {"m"}
    assert "\r" not in said
