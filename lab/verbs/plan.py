"""`plan`: what `up` would do, in which order, how long it takes and what users notice. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import config, providers
from lab.errors import LabError
from lab.model import Lab, Node
from lab.model.change import Change
from lab.plans import engine, quorum
from lab.plans.engine import Plan, Step
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.situation import Situation
from lab.plans.up import UP
from lab.providers import MachineState
from lab.session import Session, change_of
from lab.verbs import durations
from lab.verbs.up import impossible

NOTHING, IMPOSSIBLE, CHANGES = 0, 1, 2
"""Exit codes."""


@dataclass(frozen=True)
class Planned:
    """One step of what `up` would do. `seconds` is how long it took when last measured."""

    name: str
    title: str
    machines: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Impossible:
    """A key that differs from what was made and that no plan can change, with the reason and the way out."""

    key: str
    before: str
    after: str
    message: str
    next: str


@dataclass(frozen=True)
class Forecast:
    """What `up` would do. `problem` is why the machines could not be asked, None when they were.

    `seconds` is how long all of it takes; steps that run side by side count once. `notice` is what users of the
    lab notice, a sentence each. `differs` are keys that differ and touch no machine.
    """

    lab: str
    problem: str | None
    steps: tuple[Planned, ...]
    seconds: float
    notice: tuple[str, ...]
    impossible: tuple[Impossible, ...]
    differs: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 nothing to do, 1 something is impossible, 2 there are changes."""
        if self.impossible:
            return IMPOSSIBLE
        return CHANGES if self.steps else NOTHING


def look(session: Session) -> Forecast:
    """Compare lab.yaml with what was made, and that with the machines that exist. Raises ConfigError."""
    change = change_of(session, session.lab)
    lines = config.lines(session.path)
    impossibles = tuple(
        Impossible(each.key, each.before, each.after, impossible(session, lines, each), each.effect.instead)
        for each in change.impossible
    )
    states, problem = _states(session)
    plans = [] if impossibles else _plans(session, change, states)
    measured = durations.read(session.workspace)
    steps = tuple(
        Planned(
            step.name,
            step.title,
            tuple(name for name in targets[step.name] if name != engine.ONCE),
            durations.of(step.name, measured),
        )
        for plan, targets in plans
        for step in plan
        if targets[step.name]
    )
    seconds = sum(
        engine.forecast(plan, targets, lambda step: durations.of(step.name, measured))
        for plan, targets in plans
    )
    return Forecast(
        session.lab.name,
        problem,
        steps,
        seconds,
        tuple(_notice(session, change, states)) if steps else (),
        impossibles,
        tuple(f"{each.key}: {each.before} → {each.after} ({each.effect.why})" for each in change.untouched),
        tuple(node.name for node in change.removed),
    )


def _states(session: Session) -> tuple[Mapping[str, MachineState], str | None]:
    """The state of every machine that was made, by name, and why that could not be asked."""
    record = session.made
    if record is None or not session.workspace.has_machines():
        return {}, None
    try:
        return providers.states(record.lab, session.workspace), None
    except LabError as error:
        return {}, error.message


Targets = Mapping[str, Sequence[str]]
"""Which machines a step changes something on, by the step's name; "" is the lab."""


def _plans(
    session: Session, change: Change, states: Mapping[str, MachineState]
) -> list[tuple[Plan, dict[str, list[str]]]]:
    """The plans that `up` would run, in order, each with what it changes."""
    lab = session.lab
    found = []
    leaving = [*change.removed, *_half_removed(session, change)]
    if leaving:
        staying = tuple(node for node in lab.nodes if node not in leaving)
        situation = Situation(lab.first, staying, leaving=tuple(leaving), silent=_off(leaving, states))
        found.append((REMOVE, {s.name: _on(s, lab, situation) for s in REMOVE}))
    if change.resized:
        situation = Situation(lab.first, lab.nodes, resized=change.resized)
        found.append((RESIZE, {s.name: _on(s, lab, situation) for s in RESIZE}))
    targets = _targets(lab, change, states)
    if any(targets.values()):
        found.append((UP, targets))
    return found


def _half_removed(session: Session, change: Change) -> list[Node]:
    record = session.made
    names = set(record.leaving) - {node.name for node in change.removed} if record else set()
    return [node for node in record.lab.nodes if node.name in names] if record else []


def _off(nodes: Sequence[Node], states: Mapping[str, MachineState]) -> frozenset[str]:
    return frozenset(node.name for node in nodes if states.get(node.name, "running") == "absent")


def _on(step: Step, lab: Lab, situation: Situation) -> list[str]:
    return [node.name for node in step.on(lab, situation)] if step.on else [engine.ONCE]


def _targets(lab: Lab, change: Change, states: Mapping[str, MachineState]) -> dict[str, list[str]]:
    """What UP changes: on machines that are missing everything, on others what depends on who is there."""
    missing = {node.name for node in lab.nodes if states.get(node.name, "absent") == "absent"}
    missing |= {node.name for node in change.added}
    off = {node.name for node in lab.nodes if states.get(node.name) in ("stopped", "paused")}
    all_new = missing >= {node.name for node in lab.nodes}
    members = bool(missing or change.added or change.removed)
    servers = any(node.spec.etcd_member for node in (*change.added, *change.removed))
    kinds = {setting.effect.kind for setting in change.reconfigured}
    first = next((node for node in lab.control_planes if node.name not in missing), lab.first)
    new = [node.name for node in lab.nodes if node.name in missing]
    joining = [name for name in new if name != first.name or not all_new]
    targets: dict[str, list[str]] = {step.name: [] for step in UP}
    if missing or off:
        targets["boot"] = [engine.ONCE]
        targets["machine"] = [node.name for node in lab.nodes if node.name in missing | off]
    if members:
        targets["node"] = [node.name for node in lab.kubernetes_nodes]
    if servers or "load-balancer" in kinds or any(node.name in missing for node in lab.balancers):
        targets["load-balancer"] = [node.name for node in lab.balancers]
    if all_new or joining:
        targets["control-plane-init"] = [first.name]
        targets["revoke"] = [first.name]
    if all_new or "pod-network" in kinds:
        targets["pod-network"] = [first.name]
    if all_new:
        targets["kubeconfig"] = [first.name]
    targets["worker-join"] = [node.name for node in lab.workers if node.name in missing]
    targets["control-plane-join"] = [
        node.name for node in lab.control_planes if node.name in missing and node != first
    ]
    if any(targets.values()):
        targets |= {name: [engine.ONCE] for name in ("nodes-ready", "pods-ready", "healthy")}
    return targets


def _notice(session: Session, change: Change, states: Mapping[str, MachineState]) -> Iterator[str]:
    """What users of the lab notice; figures are in docs/measurements.md."""
    lab = session.lab
    if not states:
        return
    off = [node for node in lab.nodes if states.get(node.name) in ("stopped", "paused", "absent")]
    lost = [node for node in off if change_has(change.added, node) is False]
    if any(not node.spec.runs_kubelet for node in lost):
        yield "the API answers again once the load balancer is back"
    if lost:
        yield f"{', '.join(node.name for node in lost)} available again"
    if change.added:
        yield "nothing while machines are added"
    if any(node.spec.etcd_member for node in change.removed):
        yield (
            "connections to the API servers that leave end, after the answers that are due; new ones go to the "
            "others, and none fails"
        )
    if any(node.spec.runs_kubelet and not node.spec.etcd_member for node in change.removed):
        yield "pods on the workers that leave are evicted and start on others"
    if any(setting.effect.kind == "load-balancer" for setting in change.reconfigured):
        yield "nothing of HAProxy's new configuration: its reload cuts no connection"
    if change.resized:
        names = ", ".join(node.name for node in change.resized)
        yield f"{names}: unavailable one after the other, while they restart"
    smaller = quorum.loss(session.made.lab, lab) if session.made else None
    if smaller:
        yield smaller


def change_has(nodes: Sequence[Node], node: Node) -> bool:
    """Whether a machine of that name is among them."""
    return any(each.name == node.name for each in nodes)


def to_json(forecast: Forecast) -> str:
    """Return the forecast as JSON text."""
    return json.dumps(asdict(forecast) | {"changes": bool(forecast.steps)}, indent=2)


def shown(forecast: Forecast) -> RenderableType:
    """Return the forecast for people."""
    parts: list[RenderableType] = []
    if forecast.problem:
        parts.append(
            Text(f"the machines could not be asked ({forecast.problem}), so only lab.yaml is compared")
        )
    for each in forecast.impossible:
        parts += [Text(f"impossible: {each.message}", "red"), Text(f"  next: {each.next}")]
    if forecast.steps:
        table = Table("step", "machines", "seconds", box=None, pad_edge=False)
        for step in forecast.steps:
            table.add_row(step.title, " ".join(step.machines) or "the lab", f"{step.seconds:.0f}")
        parts += [table, ""]
    parts += [Text(f"users notice: {sentence}") for sentence in forecast.notice]
    parts += [Text(f"touches no machine: {line}", "dim") for line in forecast.differs]
    if forecast.impossible:
        parts.append(Text(f"{forecast.lab}: `up` would refuse this lab.yaml and touch nothing.", "bold red"))
    elif forecast.steps:
        ask = f"; it asks before it removes {', '.join(forecast.removed)}" if forecast.removed else ""
        parts.append(Text(f"{forecast.lab}: `./inv up` takes about {forecast.seconds:.0f} s{ask}.", "bold"))
    else:
        parts.append(Text(f"{forecast.lab}: nothing to change; the machines are as lab.yaml says.", "green"))
    return Group(*parts)
