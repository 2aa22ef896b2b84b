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

`./inv test --sabotage` breaks a real lab in each of these ways. It asserts that exactly the expected checks of
`verify` fail, and what `./inv up` does about the fault:

- Repairs it: `up` ends with exit code 0, and every check passes again.
- Leaves it: within a minute `up` shows the cause and what to do. The exit code is 1, or 0 for a warning.
- Not tested: no user causes this fault by mistake, so it is reverted before `up` runs.

"Detected by" names the checks that fail, at most three of them; `./inv verify` shows what each expects and what
it found. What `up` shows is quoted in part. What else `up` repairs is in
[Changing a lab](lifecycle.md#what-up-repairs).

This page is generated from `tests/breaking/sabotages.py` by `.venv/bin/python -m tests.breaking.page`.

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
            return f"leaves it ({'a warning' if warns else 'exit code 1'}), and shows what to do: “{helps}”"
        case NoMistake(why):
            return f"not tested: it {why}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
