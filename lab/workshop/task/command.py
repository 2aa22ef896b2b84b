"""The verb `task`: the state of tasks, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import exit_codes
from lab.model import Lab
from lab.workshop.task.look import Result
from lab.workshop.task.task import Found, State

EXIT_CODES: dict[State, int] = {
    "done": exit_codes.DONE,
    "not yet": exit_codes.TASK_NOT_YET,
    "broken": exit_codes.TASK_BROKEN,
}
NAMED = 6
"""How many findings are shown in full; programs get all of them."""

COLOURS: dict[State, str] = {"done": "green", "not yet": "yellow", "broken": "red"}


def to_json(lab: Lab, results: Sequence[Result]) -> str:
    """Return the tasks as JSON text: the same keys for one and for all."""
    done = sum(result.state == "done" for result in results)
    return json.dumps({"lab": lab.name, "done": done, "tasks": [asdict(each) for each in results]}, indent=2)


def shown(lab: Lab, results: Sequence[Result]) -> RenderableType:
    """Return the progress over all tasks for people, each with the first thing that is missing."""
    table = Table("task", "", "state", "first thing missing", box=None, pad_edge=False)
    for each in results:
        first = _short(each.found[0]) if each.found else ""
        table.add_row(str(each.number), each.title, Text(each.state, COLOURS[each.state]), Text(first))
    done = sum(result.state == "done" for result in results)
    following = next((each.number for each in results if each.state != "done"), None)
    lines = [Text(f"{lab.name}: {done} of {len(results)} done.", style="bold")]
    lines += [Text(f"next: ./inv task {following}")] if following else []
    return Group(table, "", *lines)


def shown_one(result: Result) -> RenderableType:
    """Return one task for people: what is missing or wrong, in full, and the hints so far."""
    # Lines and no table: the terminal names the lab in the commands of a Text.
    lines = [Text(f"task {result.number}, {result.title}: ").append(result.state, COLOURS[result.state])]
    for each, following in zip_longest(result.found[:NAMED], result.found[1:NAMED]):
        # A hint that several findings in a row share is shown once, below the last.
        hint = "" if following and following.hint == each.hint else each.hint
        said = (("machine", each.machine), ("expected", each.expected), ("found", each.found), ("try", hint))
        lines += [Text(""), *(_line(label, text) for label, text in said if text)]
    more = len(result.found) - NAMED
    lines += [Text(""), Text(f"  and {more} more")] if more > 0 else []
    lines += [Text("")] if result.hints else []
    lines += [_line("hint", hint) for hint in result.hints]
    return Group(*lines)


def _line(label: str, text: str) -> Text:
    return Text(f"  {label:<10}{text.replace(chr(10), chr(10) + ' ' * 12)}")


def _short(found: Found) -> str:
    where = f"{found.machine}: " if found.machine else ""
    return f"{where}{found.found.partition(chr(10))[0]}"
