"""The engine: runs any plan, without knowledge of a particular one.

A plan is a literal tuple of steps. A step starts on a machine as soon as the steps in its `after` are done: on
the same machine if they run there, else wherever they run. A name that is not in the running plan counts as
done, so a part of a plan is a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, NodeFailed
from lab.model import Lab, Node
from lab.plans.situation import Situation
from lab.remote import Remote
from lab.system import progress
from lab.system.progress import Progress
from lab.system.wait import wait_until
from lab.workspace import Workspace
from lab.workspace.render.credentials import RunSecrets


@dataclass(frozen=True)
class Context:
    """What the steps of one run share: the lab from lab.yaml, the situation, and access to the machines.

    `secrets` are this run's token and certificate key, which are invalid afterwards.
    """

    lab: Lab
    workspace: Workspace
    remote: Remote
    progress: Progress
    secrets: RunSecrets
    situation: Situation


@dataclass(frozen=True)
class Job:
    """One running step, on one machine or once for the lab. `failed(name)`: whether another step has failed."""

    context: Context
    shown: progress.Step
    failed: Callable[[str], bool]
    target: Node | None = None

    @property
    def node(self) -> Node:
        """The machine; only for steps that run on machines."""
        assert self.target is not None
        return self.target

    @property
    def log(self) -> Path:
        """The step's log file."""
        return self.shown.log

    def wait_until(
        self,
        check: Callable[[], str | None],
        *,
        what: str,
        timeout: float,
        interval: float = 0.5,
        hint: str = "",
    ) -> None:
        """Wait as `lab.system.wait` does, logging to the step's log.

        Emulated machines get more time, and more of it between two questions, since an answer costs them
        seconds of CPU.
        """
        patience = self.context.lab.patience
        wait_until(
            check, what=what, timeout=timeout * patience, interval=interval * patience, hint=hint, log=self.log
        )


@dataclass(frozen=True)
class Stop:
    """A step before which a plan can stop; you do the rest manually.

    `remaining` names what is left to do; `task` is the handout's task that begins there, if there is one.
    """

    name: str
    remaining: str
    task: int | None = None


@dataclass(frozen=True)
class Step:
    """A part of a plan.

    `do` runs it and returns whether it changed anything; it raises LabError when it fails. `on` returns the
    machines it runs on, independently; None means once for the lab. `one_at_a_time`: on one after the other, in
    every lab or in those for which it returns true. `script`: it is the script of its name in
    provision/node/, which a bare `vagrant up` can run, too. `retitled` returns another title where the step
    does something else in this situation, None where `title` applies.
    """

    name: str
    title: str
    do: Callable[[Job], bool]
    on: Callable[[Lab, Situation], Sequence[Node]] | None = None
    after: tuple[str, ...] = ()
    one_at_a_time: bool | Callable[[Lab], bool] = False
    stop: Stop | None = None
    script: bool = False
    retitled: Callable[[Lab, Situation], str | None] = lambda lab, situation: None

    def title_in(self, lab: Lab, situation: Situation) -> str:
        """The title of what the step does in this situation."""
        return self.retitled(lab, situation) or self.title

    def goes_in_turn(self, lab: Lab) -> bool:
        """Whether it runs on one machine after the other in this lab."""
        return self.one_at_a_time if isinstance(self.one_at_a_time, bool) else self.one_at_a_time(lab)


Plan = tuple[Step, ...]

ONCE = ""
"""The machine name for a step that runs once for the lab."""


def run(plan: Plan, context: Context) -> bool:
    """Run a plan; return whether anything was changed.

    Steps that do not depend on a failed one continue, so that the next run finds them done. Raises LabError
    with the failures of the first step that failed, each with its machine.
    """
    wanted = {step.name: _targets(step, context) for step in plan}
    with ThreadPoolExecutor(max_workers=max(1, sum(map(len, wanted.values())))) as pool:
        futures: dict[str, dict[str, Future[bool]]] = {}

        def failed(name: str) -> bool:
            return any(
                each.done() and each.exception() is not None for each in list(futures.get(name, {}).values())
            )

        for step in plan:
            futures[step.name] = {}
            previous: Future[bool] | None = None
            for key, node in wanted[step.name].items():
                needed = _needed(step, key, futures)
                if step.goes_in_turn(context.lab) and previous is not None:
                    needed.append(previous)
                previous = pool.submit(_carry_out, step, context, node, needed, failed)
                futures[step.name][key] = previous
    failures = [
        error
        for step in plan
        for error in _own_failures(step.title_in(context.lab, context.situation), futures[step.name])
    ]
    if failures:
        raise failures[0]
    return any(future.result() for each in futures.values() for future in each.values())


def forecast(
    plan: Plan, lab: Lab, targets: Mapping[str, Sequence[str]], seconds: Callable[[Step], float]
) -> float:
    """How many seconds a plan takes on a lab.

    `targets` are the machines that each step changes; `seconds` returns how long a step takes on one.
    """
    ends: dict[str, dict[str, float]] = {}
    passed: dict[str, float] = {}  # when a step that changes nothing could start
    for step in plan:
        ends[step.name] = {}
        passed[step.name] = max((_end(name, None, ends, passed) for name in step.after), default=0.0)
        previous = 0.0
        for key in targets.get(step.name, ()):
            begin = max((_end(name, key, ends, passed) for name in step.after), default=0.0)
            begin = max(begin, previous) if step.goes_in_turn(lab) else begin
            previous = ends[step.name][key] = begin + seconds(step)
    return max((end for each in ends.values() for end in each.values()), default=0.0)


def _end(
    name: str, key: str | None, ends: Mapping[str, Mapping[str, float]], passed: Mapping[str, float]
) -> float:
    """When the steps after this one may start on this machine."""
    each = ends.get(name, {})
    return each[key] if key is not None and key in each else max(each.values(), default=passed.get(name, 0.0))


def _targets(step: Step, context: Context) -> dict[str, Node | None]:
    if step.on is None:
        return {ONCE: None}
    return {node.name: node for node in step.on(context.lab, context.situation)}


def _needed(step: Step, key: str, futures: dict[str, dict[str, Future[bool]]]) -> list[Future[bool]]:
    needed: list[Future[bool]] = []
    for name in step.after:
        before = futures.get(name, {})
        needed += [before[key]] if key in before else list(before.values())
    return needed


def _carry_out(
    step: Step, context: Context, node: Node | None, needed: list[Future[bool]], failed: Callable[[str], bool]
) -> bool:
    wait(needed)
    if any(future.exception() is not None for future in needed):
        raise _Skipped(f"{step.name} was skipped")
    title = step.title_in(context.lab, context.situation)
    with context.progress.step(step.name, title, node.name if node else "") as shown:
        changed = step.do(Job(context, shown, failed, node))
        if not changed:
            shown.unchanged()
        return changed


class _Skipped(LabError):
    """A step that was skipped because a step that it depends on failed; that failure is reported."""


def _own_failures(title: str, futures: dict[str, Future[bool]]) -> list[LabError]:
    errors = {name: future.exception() for name, future in futures.items()}
    for error in errors.values():
        if error is not None and not isinstance(error, LabError):
            raise error
    own = {
        name: error
        for name, error in errors.items()
        if isinstance(error, LabError) and not isinstance(error, _Skipped)
    }
    if not own:
        return []
    return [own[ONCE]] if ONCE in own else [NodeFailed(title, own)]
