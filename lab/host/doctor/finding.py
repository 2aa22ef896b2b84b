"""What the doctor says: findings, their exit code, how people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.text import Text

from lab import exit_codes
from lab.system import quoting
from lab.system.progress import Progress

Verdict = Literal["fit", "repairable", "unfit", "note"]
"""Repairable: `--yes` does it. Unfit: a person must. Note: worth knowing, and no obstacle."""

_MARKS = {
    "fit": ("✓", "green"),
    "note": ("·", "cyan"),
    "repairable": ("!", "yellow"),
    "unfit": ("✗", "bold red"),
}


@dataclass(frozen=True)
class Action:
    """A command that needs root, with what it is given on standard input."""

    argv: tuple[str, ...]
    stdin: str = ""

    def pasted(self, *, is_root: bool) -> str:
        """As a person would paste it."""
        words = quoting.line(self.argv if is_root else ("sudo", *self.argv))
        return f"printf '%s' {quoting.word(self.stdin)} | {words}" if self.stdin else words


@dataclass(frozen=True)
class Finding:
    """One answer of the doctor.

    `what` is what was found, `why` why that matters, `repair` the commands for it, as a person would paste
    them; `why` and `repair` are empty where all is well. `actions` are what `--yes` runs instead, one after
    another, or as `runs` has it: for a daemon, which has to answer in the end.
    """

    check: str
    title: str
    verdict: Verdict
    what: str
    why: str = ""
    repair: str = ""
    actions: tuple[Action, ...] = ()
    runs: Callable[[Sequence[Action], Progress], None] | None = None


def fit(check: str, title: str, what: str) -> Finding:
    """A finding with which nothing is wrong."""
    return Finding(check, title, "fit", what)


def note(check: str, title: str, what: str, why: str, repair: str = "") -> Finding:
    """A finding that prevents nothing."""
    return Finding(check, title, "note", what, why, repair)


def unfit(check: str, title: str, what: str, why: str, repair: str) -> Finding:
    """A finding that a person has to repair."""
    return Finding(check, title, "unfit", what, why, repair)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return whether the host is fit, is not, or is fit after what `--yes` can do."""
    verdicts = {finding.verdict for finding in findings}
    if "unfit" in verdicts:
        return exit_codes.NOT_FIT
    return exit_codes.FIT_AFTER_REPAIRS if "repairable" in verdicts else exit_codes.DONE


def to_json(findings: Sequence[Finding]) -> str:
    """Return the findings and the exit code as JSON text, for programs.

    They may know `repair` as `mend`, and `repairable` as `mendable`: these are the names in JSON.
    """
    listed = [
        {
            "check": each.check,
            "title": each.title,
            "verdict": "mendable" if each.verdict == "repairable" else each.verdict,
            "what": each.what,
            "why": each.why,
            "mend": each.repair,
        }
        for each in findings
    ]
    return json.dumps({"exit_code": exit_code(findings), "findings": listed}, indent=2)


def shown(findings: Sequence[Finding]) -> RenderableType:
    """Return what a terminal shows. Print it with `soft_wrap=True`, so that commands can be pasted."""
    lines: list[Text] = []
    for finding in findings:
        mark, colour = _MARKS[finding.verdict]
        lines.append(Text.assemble((mark, colour), f" {finding.title}: {finding.what}"))
        if finding.why:
            lines.append(Text(f"    {finding.why}", style="dim"))
        lines += [Text(f"    {line}") for line in finding.repair.splitlines()]
    return Group(*lines, Text(_summary(findings), style="bold"))


def _summary(findings: Sequence[Finding]) -> str:
    return {
        exit_codes.DONE: "this host is fit for the lab",
        exit_codes.FIT_AFTER_REPAIRS: "this host is fit for the lab after what `--yes` can do",
        exit_codes.NOT_FIT: "this host is not fit for the lab",
    }[exit_code(findings)]
