"""What `lock` prints: each part of upstream's, and whether the host has the pinned hash."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import exit_codes
from lab.golden.supply.comparison import Compared

STYLES = {
    "same": "green",
    "differs": "bold red",
    "not pinned": "yellow",
    "not available": "yellow",
    "no answer": "yellow",
}


def shown(found: Sequence[Compared]) -> RenderableType:
    """Return a table with a row for each hash, what differs in full below it, and what to do."""
    table = Table("part", "verdict", box=None, pad_edge=False)
    for each in found:
        table.add_row(each.title, Text(each.verdict, style=STYLES[each.verdict]))
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in STYLES}
    lines = [
        f"{each.title}: pinned {each.pinned}, the host has {each.found}" for each in _with("differs", found)
    ]
    lines += [f"{each.title}: not pinned, the host has {each.found}" for each in _with("not pinned", found)]
    lines += list(dict.fromkeys(each.problem for each in found if each.problem))
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if counts["differs"]:
        lines.append("next: find out which is right. `bake` refuses parts that differ. No pin was changed.")
    return Group(table, "", *map(Text, lines))


def exit_code(found: Sequence[Compared]) -> int:
    """80 where a pinned hash differs; 1 where a host did not answer, or lacks what is pinned; else 0."""
    if _with("differs", found):
        return exit_codes.LOCK_DIFFERS
    missed = [each for each in found if each.problem and (each.pinned or not each.absent)]
    return exit_codes.FAILED if missed else exit_codes.DONE


def _with(verdict: str, found: Sequence[Compared]) -> list[Compared]:
    return [each for each in found if each.verdict == verdict]
