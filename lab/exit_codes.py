"""Every exit code, with its one meaning. docs/exit-codes.md is generated from this table.

0 to 3 mean the same for all verbs. A verb that answers a question has its own codes, from a ten of its own on,
so that a script can tell an answer from an error. `watch` has `status`'s code for a lab that is down.
"""

from __future__ import annotations

from dataclasses import dataclass

DONE = 0
FAILED = 1
USAGE = 2
NOT_FIT = 3

CHANGES = 10
IMPOSSIBLE = 11
DEGRADED = 20
DOWN = 21
TASK_NOT_YET = 30
TASK_BROKEN = 31
FIT_AFTER_REPAIRS = 40
CHECKS_FAIL = 50
BEYOND_LIMIT = 60
TESTS_FAIL = 70
LOCK_DIFFERS = 80

INTERRUPTED = 130
READER_LEFT = 141


@dataclass(frozen=True)
class ExitCode:
    """One code. `verbs` are those that end with it, as they are typed; empty means any verb."""

    code: int
    meaning: str
    verbs: tuple[str, ...] = ()


EXIT_CODES = (
    ExitCode(DONE, "done; or nothing to do; or the answer is good: healthy, fit, all checks hold"),
    ExitCode(FAILED, "failed; or you answered no to a question, and nothing was changed"),
    ExitCode(
        USAGE,
        "what you typed or `lab.yaml` is wrong; or a question needs your answer, and standard input is not a "
        "terminal: use `--yes`",
    ),
    ExitCode(NOT_FIT, "this host is not fit for the lab"),
    ExitCode(CHANGES, "`up` would change something, or something does not hold", ("plan",)),
    ExitCode(IMPOSSIBLE, "`lab.yaml` asks for a change that is impossible, or that is refused now", ("plan",)),
    ExitCode(DEGRADED, "degraded: the lab works, but not all of it", ("status",)),
    ExitCode(DOWN, "down, or not brought up", ("status", "watch")),
    ExitCode(TASK_NOT_YET, "not done", ("task N",)),
    ExitCode(TASK_BROKEN, "done but broken", ("task N",)),
    ExitCode(FIT_AFTER_REPAIRS, "fit after the repairs of `--yes`", ("doctor",)),
    ExitCode(
        CHECKS_FAIL,
        "a check fails, could not be asked or did not run (a warning counts as holding)",
        ("verify",),
    ),
    ExitCode(
        BEYOND_LIMIT, "a measured figure is beyond its limit", ("drill", "up --measure", "replace --measure")
    ),
    ExitCode(
        TESTS_FAIL,
        "a conformance test failed, none passed, or something of the suite is left in the lab",
        ("conformance",),
    ),
    ExitCode(LOCK_DIFFERS, "an upstream host has a hash that differs from the lock", ("lock",)),
    ExitCode(INTERRUPTED, "interrupted, as by Ctrl-C"),
    ExitCode(READER_LEFT, "the program that read the output has ended, as `head` does"),
)
