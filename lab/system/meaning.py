"""What other programs' messages mean: one row for each pattern in their output; the first match counts.

One type and one way to match, but three tables, since a pattern means something else in each: for "connection
refused", `golden.supply.complaints` says that the Go module proxy can't be reached, and `golden.supply.hosts`
that a host of upstream's can't. `providers.explained` has what docker and hypervisors print. Each table is
beside the code that runs those programs; rows that mean the same everywhere are here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lab.errors import CommandFailed
from lab.system import quoting


class Meaning(NamedTuple):
    """`sign` is what a program prints, in upper or lower case; `sentence` what it means; `hint` what to do."""

    sign: str
    sentence: str
    hint: str


NO_SPACE = (
    Meaning(
        "no space left on device",
        "the disk is full",
        "free some disk space: `./inv doctor` shows how much is needed, `./inv bake --prune` removes golden "
        "machines that this lab does not use",
    ),
    Meaning("disk quota exceeded", "the disk quota is used up", "free some space, or ask for a larger quota"),
)


def meaning_of(output: str, meanings: Iterable[Meaning]) -> Meaning | None:
    """The first row whose `sign` is in that output, or None."""
    lower = output.lower()
    return next((each for each in meanings if each.sign.lower() in lower), None)


def printed_by(error: CommandFailed) -> str:
    """How a command ended and all of its output, without its own arguments, which may contain a `sign`."""
    ended = error.message.removeprefix(f"`{quoting.line(error.argv)}`")
    if error.log is None or not error.log.exists():
        return ended
    text = error.log.read_text(encoding="utf-8", errors="replace")
    own = text[max(0, text.rfind("\n$ ")) :].lstrip("\n")  # a step's log has the commands before it, too
    return f"{ended}\n{own.partition(chr(10))[2]}"
