"""What chapters 8 to 11 leave behind: all checks green, something broken and repaired, and nothing at last."""

from __future__ import annotations

from collections.abc import Iterator

from lab.health import status
from lab.health.checks import cases
from lab.workshop.task.task import Found, Sight, State

FINISHED_BY_UP = (
    *("no-bootstrap-token", "no-uploaded-certificates", "no-run-secret", "kubeconfig-private"),
    *("own-name", "network-services", "exact-nodes", "node-ready", "pod-network-agent", "system-pods-ready"),
)
"""Checks that need not hold before the kit has finished what was done manually."""


def all_hold(sight: Sight) -> Iterator[Found]:
    """Every check that needs no pod of its own, judged now."""
    for case in cases(sight.lab):
        if case.check.probes:
            continue
        verdict = case.judge(sight.facts)
        if verdict.good:
            continue
        state, hint = _meanwhile(sight, verdict.hint)
        if verdict.name in FINISHED_BY_UP:
            state, hint = "not yet", "`./inv up` finishes what is left"
        yield Found(state, verdict.machine, f"{verdict.name}: {verdict.expected}", verdict.found, hint)


def verified(sight: Sight) -> Iterator[Found]:
    """The checks with pods take longer than a task may: what the last `verify` found of them counts."""
    found, expected = sight.kept.verified, f"`./inv verify` found all {len(cases(sight.lab))} checks to hold"
    if found is None:
        yield Found("not yet", "", expected, "it was not run", "run it")
    elif found.bad:
        what = f"{found.bad} of {found.checks} did not, when it was last run"
        state: State = "not yet" if sight.kept.was_broken else "broken"  # maybe it looked at a fault
        yield Found(state, "", expected, what, "run it again: it says which, and what to try")
    elif found.checks < len(cases(sight.lab)):
        what = f"it was last run for {found.checks} of them"
        yield Found("not yet", "", expected, what, "run it without -k")


def drilled(sight: Sight) -> Iterator[Found]:
    if not sight.kept.reports and not sight.kept.was_broken:
        yield Found("not yet", "", "a drill was run, or its fault is in", "neither was seen")


def fault_is_out(sight: Sight) -> Iterator[Found]:
    if sight.kept.fault:
        yield Found("not yet", "", "no fault is in", sight.kept.fault, "`./inv drill --heal` takes it out")


def healthy(sight: Sight) -> Iterator[Found]:
    found = status.judge(sight.lab, sight.facts)
    state, hint = _meanwhile(sight, "`./inv up` repairs what it can")
    for what in (
        (found.problem,) if found.problem else (*(each.sentence for each in found.causes), *found.problems)
    ):
        yield Found(state, "", "status is healthy", f"{found.health}: {what}", hint)


def _meanwhile(sight: Sight, hint: str) -> tuple[State, str]:
    """What it means that something does not hold, and what to try: in the minute after a fault, to wait."""
    if sight.kept.settling:
        return "not yet", "wait: it takes a minute after the fault is out"
    return "broken", hint


def nothing_left(sight: Sight) -> Iterator[Found]:
    kept = sight.kept
    hint = "`./inv destroy` removes machines, network and folder"
    if kept.folder:
        yield Found("not yet", "", "no machine, no network and no .lab", f"{kept.folder} is there", hint)
    elif kept.strays:
        what = f"{len(kept.strays)} machines of this lab, whose .lab was removed"
        again = "`./inv render` makes the folder again, and `./inv destroy` removes all of it"
        yield Found("broken", "", "no machine, no network and no .lab", what, again)
