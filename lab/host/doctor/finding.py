"""The doctor's findings, their exit code, and their output for the terminal and as JSON."""

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
"""Repairable: `--yes` repairs it. Unfit: you have to repair it. Note: worth knowing, but no obstacle."""

_MARKS = {
    "fit": ("✓", "green"),
    "note": ("·", "cyan"),
    "repairable": ("!", "yellow"),
    "unfit": ("✗", "bold red"),
}


@dataclass(frozen=True)
class Action:
    """A command that needs root, with its standard input."""

    argv: tuple[str, ...]
    stdin: str = ""

    def pasted(self, *, is_root: bool) -> str:
        """As a shell line to paste."""
        words = quoting.line(self.argv if is_root else ("sudo", *self.argv))
        return f"printf '%s' {quoting.word(self.stdin)} | {words}" if self.stdin else words


@dataclass(frozen=True)
class Finding:
    """One finding of the doctor.

    `what` is what was found, `why` why it matters, `repair` the commands to paste; `why` and `repair` are empty
    if there is no problem. `actions` are what `--yes` runs, one after another, or what `runs` does with them:
    for a daemon, which has to respond in the end.
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
    """A finding without a problem."""
    return Finding(check, title, "fit", what)


def note(check: str, title: str, what: str, why: str, repair: str = "") -> Finding:
    """A finding that is no obstacle."""
    return Finding(check, title, "note", what, why, repair)


def unfit(check: str, title: str, what: str, why: str, repair: str) -> Finding:
    """A finding that you have to repair."""
    return Finding(check, title, "unfit", what, why, repair)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return whether the host is fit, is not, or is fit after the repairs of `--yes`."""
    verdicts = {finding.verdict for finding in findings}
    if "unfit" in verdicts:
        return exit_codes.NOT_FIT
    return exit_codes.FIT_AFTER_REPAIRS if "repairable" in verdicts else exit_codes.DONE


def to_json(findings: Sequence[Finding]) -> str:
    """Return the findings and the exit code as JSON text, for programs."""
    listed = [
        {
            "check": each.check,
            "title": each.title,
            "verdict": each.verdict,
            "what": each.what,
            "why": each.why,
            "repair": each.repair,
        }
        for each in findings
    ]
    return json.dumps({"exit_code": exit_code(findings), "findings": listed}, indent=2)


def shown(findings: Sequence[Finding]) -> RenderableType:
    """Return the findings for the terminal. Print with `soft_wrap=True`, so that commands can be pasted."""
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
        exit_codes.FIT_AFTER_REPAIRS: "this host is fit for the lab after the repairs of `--yes`",
        exit_codes.NOT_FIT: "this host is not fit for the lab",
    }[exit_code(findings)]
