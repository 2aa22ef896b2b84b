"""What chapters 8 to 11 result in: all checks hold, a fault injected and repaired, and finally nothing left."""

from __future__ import annotations

from collections.abc import Iterator

from lab.health import status
from lab.health.checks import cases
from lab.workshop.task.task import Found, Sight, State

FINISHED_BY_UP = (
    *("no-bootstrap-token", "no-uploaded-certificates", "no-run-secret", "kubeconfig-private"),
    *("own-name", "network-services", "exact-nodes", "node-ready", "pod-network-agent", "system-pods-ready"),
    *("network-policy-agent", "cluster-objects", "kubelet-certificate", "metrics-server"),
)
"""Checks that need not hold until the kit has completed what was done manually."""


def all_hold(sight: Sight) -> Iterator[Found]:
    """Every check that needs no probe pod, judged now."""
    for case in cases(sight.lab):
        if case.check.probes:
            continue
        verdict = case.judge(sight.facts)
        if verdict.good:
            continue
        state, hint = _meanwhile(sight, verdict.hint)
        if verdict.name in FINISHED_BY_UP:
            state, hint = "not yet", "`./inv up` completes what is left"
        yield Found(state, verdict.machine, f"{verdict.name}: {verdict.expected}", verdict.found, hint)


def verified(sight: Sight) -> Iterator[Found]:
    """The checks with probe pods take too long for a task: the result of the last `verify` counts."""
    found, expected = sight.kept.verified, f"`./inv verify` has passed all {len(cases(sight.lab))} checks"
    if found is None:
        yield Found("not yet", "", expected, "it has not been run", "run it")
    elif found.bad:
        what = f"{found.bad} of {found.checks} failed in the last run"
        state: State = (
            "not yet" if sight.kept.was_broken else "broken"
        )  # it may have run while a fault was injected
        yield Found(state, "", expected, what, "run it again: it shows which, and what to try")
    elif found.checks < len(cases(sight.lab)):
        what = f"the last run was for {found.checks} of them"
        yield Found("not yet", "", expected, what, "run it without -k")


def drilled(sight: Sight) -> Iterator[Found]:
    if not sight.kept.reports and not sight.kept.was_broken:
        yield Found("not yet", "", "a drill was run, or has injected its fault", "neither was found")


def fault_is_out(sight: Sight) -> Iterator[Found]:
    if sight.kept.fault:
        yield Found("not yet", "", "no fault is injected", sight.kept.fault, "`./inv drill --heal` removes it")


def healthy(sight: Sight) -> Iterator[Found]:
    found = status.judge(sight.lab, sight.facts)
    state, hint = _meanwhile(sight, "`./inv up` repairs what it can")
    for what in (
        (found.problem,) if found.problem else (*(each.sentence for each in found.causes), *found.problems)
    ):
        yield Found(state, "", "status is healthy", f"{found.health}: {what}", hint)


def _meanwhile(sight: Sight, hint: str) -> tuple[State, str]:
    """The state and the hint for something that does not hold: in the minute after a fault, to wait."""
    if sight.kept.settling:
        return "not yet", "wait: recovery takes a minute after the fault was removed"
    return "broken", hint


def nothing_left(sight: Sight) -> Iterator[Found]:
    kept = sight.kept
    hint = "`./inv destroy` removes machines, network and folder"
    if kept.folder:
        yield Found("not yet", "", "no machine, no network and no .lab", f"{kept.folder} exists", hint)
    elif kept.strays:
        what = f"{len(kept.strays)} machines of this lab, whose .lab was removed"
        again = "`./inv render` creates the folder again, then `./inv destroy` removes everything"
        yield Found("broken", "", "no machine, no network and no .lab", what, again)
