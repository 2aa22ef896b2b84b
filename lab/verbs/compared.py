"""What `lock` prints: each part of upstream's, and whether its host has the pinned hash."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import exit_codes
from lab.golden.supply.comparison import Compared

STYLES = {"same": "green", "differs": "bold red", "not pinned": "yellow", "no answer": "yellow"}


def shown(found: Sequence[Compared]) -> RenderableType:
    """Return a table with a row for each hash, what differs in full below it, and what to do."""
    table = Table("part", "verdict", box=None, pad_edge=False)
    for each in found:
        table.add_row(each.title, Text(each.verdict, style=STYLES[each.verdict]))
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in STYLES}
    lines = [
        f"{each.title}: pinned {each.pinned}, its host has {each.found}" for each in _with("differs", found)
    ]
    lines += [f"{each.title}: not pinned, its host has {each.found}" for each in _with("not pinned", found)]
    lines += list(dict.fromkeys(each.problem for each in _with("no answer", found)))
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if counts["differs"]:
        lines.append(
            "next: find out which is right. `bake` refuses what differs, and nothing was changed here."
        )
    return Group(table, "", *map(Text, lines))


def exit_code(found: Sequence[Compared]) -> int:
    """80 where a pinned hash differs, 1 where a host did not answer, else 0."""
    if _with("differs", found):
        return exit_codes.LOCK_DIFFERS
    return exit_codes.FAILED if _with("no answer", found) else exit_codes.DONE


def _with(verdict: str, found: Sequence[Compared]) -> list[Compared]:
    return [each for each in found if each.verdict == verdict]
