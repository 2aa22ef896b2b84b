"""docs/faults.md, made from SABOTAGES: each fault, the checks that detect it, and what `up` does about it.

    .venv/bin/python -m tests.breaking.page

writes it.
"""

from __future__ import annotations

from lab.system.paths import REPOSITORY
from tests.breaking.sabotages import SABOTAGES, NoMistake, Repairs, Sabotage, Says

PAGE = REPOSITORY / "docs" / "faults.md"

NAMED = 3
"""How many checks are named that detect a fault."""

HEAD = """\
# Faults

`./inv test --sabotage` breaks a lab in each of these ways. It asserts that exactly the expected checks of
`verify` do not hold, and what `./inv up` does about it. Either it repairs the fault and ends with exit code 0,
and every check holds again. Or it shows the cause and what to do, within a minute, and leaves the fault as it
is; the exit code is then 1, and 0 for a warning.

This page is made from `tests/breaking/sabotages.py` by `.venv/bin/python -m tests.breaking.page`.
What `up` repairs besides is in `docs/lifecycle.md`.

| fault | detected by | what `up` does |
| --- | --- | --- |
"""


def page() -> str:
    """The text of the page."""
    rows = (f"| {each.name} | {_detected_by(each)} | {_outcome(each)} |\n" for each in SABOTAGES)
    return f"{HEAD}{''.join(rows)}"


def _detected_by(sabotage: Sabotage) -> str:
    names = list(dict.fromkeys(f"`{title.partition('[')[0]}`" for title in sabotage.expected))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}" or "no check"


def _outcome(sabotage: Sabotage) -> str:
    match sabotage.up:
        case Repairs(how):
            return f"repairs it: {how}"
        case Says(_, helps, warns):
            return f"exit code {0 if warns else 1}, with what to do: `{helps}`"
        case NoMistake(why):
            return f"not tried, since no user does this by mistake: it {why}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
