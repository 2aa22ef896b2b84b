"""docs/exit-codes.md, generated from `lab.exit_codes`."""

from __future__ import annotations

from lab.exit_codes import EXIT_CODES

HEAD = """\
# Exit codes

Each code has one meaning. 0 to 3 mean the same for every verb. A verb that answers a question has codes of its
own from 10 on, so a script can tell an answer from an error:

    ./inv status
    ./inv plan --json

`./inv ssh NODE -- COMMAND` ends with the exit code of the command, and `./inv test` with that of pytest.

This page is generated from `lab/exit_codes.py` by `./inv docs --write`.

| code | verbs | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """The text of the page."""
    rows = (
        f"| {each.code} | {', '.join(f'`{verb}`' for verb in each.verbs) or 'all'} | {each.meaning} |\n"
        for each in EXIT_CODES
    )
    return f"{HEAD}{''.join(rows)}"
