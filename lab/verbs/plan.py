"""`plan`: what `up` would do, in which order, how long it takes and what users notice. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import config, exit_codes, providers
from lab.errors import LabError
from lab.model import Lab, Node
from lab.model.addons import ADDONS
from lab.model.change import Change
from lab.model.selectors import etcd_machines
from lab.plans import already, engine, quorum, renew
from lab.plans.engine import Plan, Step
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.situation import JoinReport, Situation, Upgrade, ask_one, unfinished
from lab.plans.up import UP
from lab.plans.upgrade import UPGRADE
from lab.providers import MachineState
from lab.remote import Remote, side_by_side
from lab.session import Session, change_of
from lab.unknown import Unknown
from lab.verbs import bake, durations
from lab.verbs.interrupted import interrupted_problem
from lab.verbs.up import (
    hints_by_keys,
    impossible_message,
    leaving_machines,
    quorum_problem,
    upgrade_problem,
)

_Left = Mapping[str, tuple[str, ...]]
"""The steps that are left to do, each with its reasons."""


@dataclass(frozen=True)
class Planned:
    """One step that `up` would run. `seconds` is how long it took when last measured."""

    name: str
    title: str
    machines: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Impossible:
    """A changed key that no plan can apply to existing machines, with the reason and what to do.

    `line` is its line in lab.yaml, None if it is not in the file; `message` is everything in one sentence.
    """

    key: str
    before: str
    after: str
    line: int | None
    why: str
    message: str
    next: str


@dataclass(frozen=True)
class Forecast:
    """What `up` would do. `problem` names the machines that could not be asked, and why; None if all were.

    `not_asked` are machines that do not run, a phrase each: they are assumed to be as `up` left them.
    `problems` are failing checks of a lab for which no step is left to do: `up` repairs what it can. `seconds`
    is how long everything takes; steps in parallel count once. `notice` is what users of the lab notice, a
    sentence each. `repairs` are missing or broken parts of machines or the cluster that `up` restores;
    `renewals` are certificates that it renews, and pods that it restarts for them, on one machine each.
    `differs` are changed keys that affect no machine. `refused` is why `up` would not do it now: etcd
    would lose its majority, the lab is not healthy enough for an upgrade, or a restore or a recovery was
    interrupted. `upgraded` is the version that machines have and the one they get.
    """

    lab: str
    problem: str | None
    steps: tuple[Planned, ...]
    seconds: float
    notice: tuple[str, ...]
    impossible: tuple[Impossible, ...]
    differs: tuple[str, ...]
    removed: tuple[str, ...]
    refused: quorum.Problem | None = None
    repairs: tuple[str, ...] = ()
    not_asked: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    renewals: tuple[str, ...] = ()
    upgraded: tuple[str, str] | None = None

    @property
    def exit_code(self) -> int:
        """Nothing to do, something is impossible, or there are changes."""
        if self.impossible or self.refused:
            return exit_codes.IMPOSSIBLE
        return exit_codes.CHANGES if self.steps or self.problems else exit_codes.DONE


def look(session: Session) -> Forecast:
    """Compare lab.yaml with the record, and the record with the machines that exist. Raises ConfigError."""
    change = change_of(session, session.lab)
    lines = config.lines(session.path)
    impossibles = tuple(
        Impossible(
            each.key,
            each.before,
            each.after,
            lines.get(each.key),
            each.effect.why,
            impossible_message(session, lines, each),
            each.effect.instead,
        )
        for each in change.impossible
    )
    # If lab.yaml is refused, machines are not asked: its addresses may belong to another lab.
    there = _Observed({}) if impossibles else _ask(session)
    leaving = leaving_machines(session, change, ())
    refused = interrupted_problem(session)
    if not (refused or impossibles or there.problem):
        refused = quorum_problem(session, change, leaving) or upgrade_problem(session, change)
        refused = refused or _lost_etcd(session, there)
    parts = [] if impossibles or refused else _parts(session, change, there)
    figures = durations.of_lab(session.lab, session.workspace)
    golden = [_golden(figures)] if parts and bake.is_missing(session) else []
    steps = (*golden, *(each for part in parts for each in _planned(session.lab, part, figures)))
    seconds = sum(each.seconds for each in golden)
    seconds += sum(_seconds(session.lab, part, figures) for part in parts)
    return Forecast(
        session.made.lab.name if session.made else session.lab.name,
        there.problem,
        steps,
        seconds,
        tuple(_notice(session, change, there, figures.of("resize"))) if steps else (),
        impossibles,
        tuple(f"{each.key}: {each.before} → {each.after} ({each.effect.why})" for each in change.untouched),
        tuple(node.name for node in change.removed),
        refused,
        there.repairs,
        tuple(f"{name} is {state}: not asked" for name, state in there.off.items()),
        () if steps or impossibles or refused or there.problem else _problems(session, there),
        tuple(f"{name}: {'; '.join(reasons)}" for name, reasons in there.renewals.items()),
        (change.upgraded.before, change.upgraded.after) if change.upgraded else None,
    )


def _lost_etcd(session: Session, there: _Observed) -> quorum.Problem | None:
    """Why `up` makes no machine again: etcd's data, or its majority, is lost with those that are gone."""
    record = session.made
    if record is None or not session.workspace.kubeconfig.exists():
        return None
    lab = record.lab
    left = [node for node in lab.etcd_members if there.states[node.name] not in ("absent", "incomplete")]
    joined = {node.name for node in lab.nodes if there.states[node.name] not in ("absent", "incomplete")}
    lost = quorum.without_data_problem(lab, joined - there.unjoined)
    running = [node for node in left if there.states[node.name] == "running"]
    if lost or not running or len(left) >= quorum.needed(len(lab.etcd_members)):
        return lost
    with session.progress.asking("etcd's members for what is left"):
        stored = quorum.stored_membership(lab, session.remote, running)
    return quorum.lost_problem(stored, [node.name for node in left]) if stored else None


def _golden(figures: durations.Figures) -> Planned:
    """The step before all plans if there is no golden machine yet."""
    return Planned("bake", "build the golden machine", (), figures.of("bake"))


@dataclass(frozen=True)
class _Observed:
    """What was observed: each machine's state, and the names of those that run and have yet to join.

    `damaged` are control planes that restore their own files, `partial` those that have yet to join and are
    reset first. `unfinished` are steps besides joins that an interrupted run left to do, or that restore what
    was deleted since. `repairs` are the reasons. `renewals` has the control planes whose certificates have to
    be renewed, each with the reasons.

    Machines that can't be asked (`problem` names them, and why) are assumed to be as `up` left them: running
    and joined. `silent` are those of them that run.
    """

    states: Mapping[str, MachineState]
    unjoined: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    repairs: tuple[str, ...] = ()
    silent: frozenset[str] = frozenset()
    problem: str | None = None
    partial: frozenset[str] = frozenset()
    renewals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def off(self) -> dict[str, MachineState]:
        """The machines that exist and do not run, by name; they were not asked."""
        return {name: state for name, state in self.states.items() if state in ("stopped", "paused")}


def _ask(session: Session) -> _Observed:
    record, remote = session.made, session.remote
    if record is None or not session.workspace.has_machines():
        return _Observed({})
    try:
        with session.progress.asking("what state the machines are in"):
            states = providers.states(record.lab, session.workspace)
    except LabError as error:
        return _Observed({node.name: "running" for node in record.lab.nodes}, problem=error.message)
    running = [node for node in record.lab.nodes if states[node.name] == "running"]
    reason = remote.route_problem() if running else None
    if reason:
        return _Observed(states, silent=frozenset(node.name for node in running), problem=reason)
    first = next((node for node in running if node.spec.serves_api), None)

    def ask(node: Node) -> tuple[JoinReport | Unknown, _Left | Unknown | None, tuple[str, ...]]:
        """Whether a machine has joined, and from those that know, what is left to do and to renew."""
        has = ask_one(node, remote)
        if not _is_complete(has):
            return has, None, ()
        knows = node == first or node.spec.balances
        ends = _renewals(node, remote) if node.spec.serves_api or node.spec.etcd_member else ()
        return has, unfinished(node, remote) if knows else None, ends

    with session.progress.asking("the machines to report whether they have joined"):
        said = side_by_side("asking machines whether they have joined", running, ask)
        answers = {name: has for name, (has, _, _) in said.items()}
        to_do = {name: left for name, (_, left, _) in said.items() if left is not None}
        if first and first.name not in to_do:
            others = [node for node in running if node.spec.serves_api and _is_complete(answers[node.name])]
            to_do |= {node.name: unfinished(node, remote) for node in others[:1]}
    has = {name: each for name, each in answers.items() if isinstance(each, JoinReport)}
    left, reasons = _unfinished(session, to_do)
    why_not = {name: said.reason for name, said in answers.items() if isinstance(said, Unknown)}
    return _Observed(
        states,
        unjoined=frozenset(name for name, said in has.items() if said.found in ("fresh", "partial")),
        damaged=frozenset(name for name, said in has.items() if said.found == "damaged"),
        unfinished=left,
        repairs=(*(f"{name}: {each}" for name, said in has.items() for each in said.problems), *reasons),
        silent=frozenset(why_not),
        problem="; ".join(f"{name}: {why}" for name, why in why_not.items()) or None,
        partial=frozenset(name for name, said in has.items() if said.found == "partial"),
        renewals={name: ends for name, (_, _, ends) in said.items() if ends},
    )


def _renewals(node: Node, remote: Remote) -> tuple[str, ...]:
    """What a control plane has to renew; nothing if it has an earlier version's scripts, which can't say."""
    try:
        return renew.left(node, remote)
    except LabError:
        return ()


def _problems(session: Session, there: _Observed) -> tuple[str, ...]:
    """What is wrong with a lab whose machines all run and have joined."""
    record = session.made
    if record is None or any(there.states[node.name] != "running" for node in record.lab.nodes):
        return ()
    with session.progress.asking("the results of the checks"):
        found = already.problems(record.lab, session.workspace, session.remote)
        # A restarting pod or a leader change is soon over.
        again = already.problems(record.lab, session.workspace, session.remote) if found else ()
    return tuple(each for each in again if each in found)


def _is_complete(has: JoinReport | Unknown) -> bool:
    return isinstance(has, JoinReport) and has.found == "joined"


def _unfinished(
    session: Session, answers: Mapping[str, _Left | Unknown]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """What is left to do, with the reasons, as reported by the load balancers and one control plane.

    If the cluster can't be asked and no run got that far, all that follows `kubeadm init` is left.
    """
    said = {name: answer for name, answer in answers.items() if not isinstance(answer, Unknown)}
    found = frozenset(step for steps in said.values() for step in steps)
    if not session.workspace.kubeconfig.exists():
        found |= {"kubeconfig"}
        if len(said) < len(answers):
            found |= {"pod-network", "revoke"}
    reasons = (
        f"{name}: {each}" for name, steps in said.items() for reasons in steps.values() for each in reasons
    )
    return found, tuple(reasons)


@dataclass(frozen=True)
class _Part:
    """A plan that `up` would run, the situation, and the machines that each step changes; "" means the lab."""

    plan: Plan
    situation: Situation
    targets: Mapping[str, Sequence[str]]


def _planned(lab: Lab, part: _Part, figures: durations.Figures) -> Iterator[Planned]:
    """The steps of a plan that change something."""
    for step in part.plan:
        if part.targets.get(step.name):
            title = step.title_in(lab, part.situation)
            machines = tuple(name for name in part.targets[step.name] if name != engine.ONCE)
            yield Planned(step.name, title, machines, figures.of(step.name, title))


def _seconds(lab: Lab, part: _Part, figures: durations.Figures) -> float:
    """How long a plan takes, with steps in parallel."""
    return engine.forecast(
        part.plan, lab, part.targets, lambda step: figures.of(step.name, step.title_in(lab, part.situation))
    )


OF_MEMBERS = ("drain", "leave", "forget")
"""Steps of REMOVE that do nothing for a machine that has not joined the cluster."""


def _parts(session: Session, change: Change, there: _Observed) -> list[_Part]:
    """The plans that `up` would run, in order."""
    lab = session.lab
    found: list[_Part] = [_upgrade(session, there)] if change.upgraded else []
    leaving = (*change.removed, *_half_removed(session, change))
    if leaving:
        names = {node.name for node in leaving}
        staying = tuple(node for node in lab.nodes if node.name not in names)
        situation = Situation(
            next((node for node in staying if node.spec.serves_api), lab.first),
            staying,
            joined=frozenset(node.name for node in staying if _serves(node, there)),
            leaving=leaving,
            silent=frozenset(n.name for n in leaving if n.name in there.silent or _to_be_made(n, there)),
        )
        targets = {s.name: _on(s, lab, situation) for s in REMOVE if s.name != "deliver"}
        for name in OF_MEMBERS:
            targets[name] = [each for each in targets[name] if each not in there.unjoined]
        found.append(_Part(REMOVE, situation, targets))
    resized = tuple(node for node in change.resized if not _to_be_made(node, there))
    if resized:
        situation = Situation(lab.first, lab.nodes, resized=resized)
        found.append(_Part(RESIZE, situation, {s.name: _on(s, lab, situation) for s in RESIZE}))
    last = _up(session, change, there, {node.name for node in leaving})
    return [*found, last] if any(last.targets.values()) else found


def _upgrade(session: Session, there: _Observed) -> _Part:
    """The upgrade of the machines that exist, without those that a run before has upgraded."""
    record = session.made
    assert record is not None
    version = session.lab.kubernetes.version
    left = [
        node
        for node in record.lab.cluster_machines
        if not _to_be_made(node, there) and record.version_of(node.name) != version
    ]
    upgrade = Upgrade(
        lab=session.lab,
        golden="",
        control_planes=tuple(node for node in left if node.spec.serves_api),
        workers=tuple(node for node in left if node.spec.runs_kubelet and not node.spec.serves_api),
        etcd=tuple(node for node in left if not node.spec.runs_kubelet),
    )
    situation = Situation(record.lab.first, record.lab.nodes, upgrade=upgrade)
    return _Part(UPGRADE, situation, {s.name: _on(s, record.lab, situation) for s in UPGRADE if s.on})


def _half_removed(session: Session, change: Change) -> list[Node]:
    """Machines in lab.yaml that an earlier run did not remove completely."""
    record = session.made
    names = set(record.leaving) - {node.name for node in change.removed} if record else set()
    return [node for node in record.lab.nodes if node.name in names] if record else []


def _to_be_made(node: Node, there: _Observed) -> bool:
    return there.states.get(node.name, "absent") in ("absent", "incomplete")


def _serves(node: Node, there: _Observed) -> bool:
    return not _to_be_made(node, there) and node.name not in there.unjoined


def _on(step: Step, lab: Lab, situation: Situation) -> list[str]:
    return [node.name for node in step.on(lab, situation)] if step.on else [engine.ONCE]


def _come_and_gone(session: Session, change: Change) -> list[Node]:
    """Machines that the others have yet to add to or remove from their files."""
    before, after = (session.made.complete if session.made else ()), session.lab.nodes
    if not before:
        return [*change.added, *change.removed]
    names = {node.name for node in before} ^ {node.name for node in after}
    return [node for node in (*before, *after) if node.name in names]


def _up(session: Session, change: Change, there: _Observed, leaving: Collection[str]) -> _Part:
    """What UP changes: everything on new machines; on others, only what depends on the list of machines."""
    lab = session.lab
    missing = {node.name for node in lab.nodes if node.name in leaving or _to_be_made(node, there)}
    off = {node.name for node in lab.nodes if node.name in there.off}
    joining = {node.name for node in lab.kubernetes_nodes if node.name in missing | there.unjoined}
    of_etcd = {node.name for node in etcd_machines(lab) if node.name in missing | there.unjoined}
    serving = [node for node in lab.control_planes if node.name not in joining]
    serving.sort(key=lambda node: node.name in there.damaged)
    first = serving[0] if serving else lab.first
    joined = frozenset(node.name for node in lab.cluster_machines if node.name not in joining | of_etcd)
    come_and_gone = _come_and_gone(session, change)
    renamed = bool(come_and_gone)  # every machine has a file with all names
    kinds = {setting.effect.kind for setting in change.reconfigured}
    targets: dict[str, list[str]] = {step.name: [] for step in UP}
    if missing or off:
        targets["boot"] = [engine.ONCE]
        targets["machine"] = [node.name for node in lab.nodes if node.name in missing | off]
    targets["node"] = [node.name for node in lab.cluster_machines if renamed or node.name in joining | of_etcd]
    targets["etcd"] = [node.name for node in etcd_machines(lab) if node.name in of_etcd | there.damaged]
    unconfigured = any(node.name in missing | there.unjoined for node in lab.balancers)
    if renamed or unconfigured or "load-balancer" in kinds | there.unfinished:
        targets["load-balancer"] = [node.name for node in lab.balancers]
    if joining or first.name in there.damaged or "control-plane-init" in there.unfinished:
        targets["control-plane-init"] = [first.name]
    if joining or "revoke" in there.unfinished:
        targets["revoke"] = [first.name]
    if not serving or "kubeconfig" in there.unfinished:
        targets["kubeconfig"] = [first.name]
    if not serving or kinds & {"pod-network", "network-policy"} or "pod-network" in there.unfinished:
        targets["pod-network"] = [first.name]
    if "network-policy" in kinds and lab.network.policy == "none":
        targets["policy-rules"] = [node.name for node in lab.kubernetes_nodes]
    if (not serving and lab.addons) or "addons" in kinds | there.unfinished:
        targets["addons"] = [first.name]
    if joining or "revoke" in there.unfinished:  # which comes after it
        targets["kubelet-certificates"] = [first.name]
    targets["renew-certificates"] = [node.name for node in lab.cluster_machines if node.name in there.renewals]
    targets["worker-join"] = [node.name for node in lab.workers if node.name in joining]
    targets["control-plane-join"] = [
        node.name for node in lab.control_planes if node.name in joining | there.damaged and node != first
    ]
    if any(targets.values()):
        targets |= {name: [engine.ONCE] for name in ("nodes-ready", "pods-ready", "healthy")}
    situation = Situation(
        first,
        lab.nodes,
        off=tuple(node for node in lab.nodes if node.name in missing | off),
        absent=tuple(node for node in lab.nodes if node.name in missing),
        joined=joined,
    )
    return _Part(UP, situation, targets)


def _notice(session: Session, change: Change, there: _Observed, resize: float) -> Iterator[str]:
    """What users of the lab notice; docs/measurements.md has figures. `resize`: seconds for one machine."""
    lab, states = session.lab, there.states
    if not states:
        return
    off = [node for node in lab.nodes if states.get(node.name) in ("stopped", "paused", "incomplete", "absent")]
    lost = [node for node in off if node not in change.added]
    if all(node in lost for node in lab.balancers):
        yield "the API answers again once the load balancer is back"
    if lost:
        yield f"{', '.join(node.name for node in lost)} available again"
    if change.upgraded:
        yield from _notice_of_upgrade(lab)
    if change.added:
        yield "nothing while machines are added"
    if any(node.spec.serves_api for node in change.removed):
        yield (
            "connections to the leaving API servers close once their requests are answered; new ones go to "
            "the other servers, and none fails"
        )
    gone = [node for node in change.removed if node.name not in there.unjoined]
    if any(node.spec.runs_kubelet and not node.spec.serves_api for node in gone):
        then = "start on others" if lab.workers else "stay Pending, since no worker is left"
        yield f"pods on the workers that leave are evicted and {then}"
    if any(setting.effect.kind == "load-balancer" for setting in change.reconfigured):
        order = "; the load balancer without the API's address is first" if lab.pair else ""
        yield f"nothing while HAProxy loads its new configuration: a reload cuts no connection{order}"
    if any(setting.effect.kind == "pod-network" for setting in change.reconfigured):
        yield (
            "where the pod network's manifest makes its pods restart, traffic between pods of different nodes "
            "and the start of new pods may have to wait for them"
        )
    if any(setting.effect.kind == "network-policy" for setting in change.reconfigured):
        what = "deny nothing" if lab.network.policy == "none" else "deny"
        yield f"NetworkPolicies {what} from then on"
    yield from _notice_of_addons(session.made.lab if session.made else lab, lab)
    yield from _notice_of_joins(lab, there)
    yield from _notice_of_renewals(lab, there)
    resized = [node for node in change.resized if not _to_be_made(node, there)]
    for node in resized:
        if node in lab.pair:
            yield (
                f"if {node.name} has the API's address, that moves while {node.name} restarts with its new "
                "size: open connections end, and new ones may take a second longer"
            )
        elif node.spec.balances:
            yield (
                f"the API can't be reached while {node.name} restarts with its new size, about {resize:.0f} s; "
                "pods keep running"
            )
    others = [node.name for node in resized if not node.spec.balances]
    if others:
        how = "one after the other, while they restart" if len(others) > 1 else "while it restarts"
        yield f"{', '.join(others)}: unavailable {how}"
    smaller = quorum.loss(session.made.lab, lab) if session.made else None
    if smaller:
        yield smaller


def _notice_of_upgrade(lab: Lab) -> Iterator[str]:
    """What users notice while machines are upgraded one by one."""
    if len(lab.control_planes) > 1:
        yield (
            "each API server in turn gets no new connections, and its open ones end after some seconds; new "
            "ones go to the others, and none fails"
        )
    else:
        yield "the only API server restarts: for about a minute requests fail"
    yield "pods are evicted from each machine in turn and start on others"


def _notice_of_addons(made: Lab, wanted: Lab) -> Iterator[str]:
    """What users notice if add-ons are added or removed."""
    for name in made.addons:
        if name not in wanted.addons:
            yield f"{name} is removed: {ADDONS[name].gone}"
    new = [name for name in wanted.addons if name not in made.addons]
    if new:
        yield f"nothing while {', '.join(new)} {'starts' if len(new) == 1 else 'start'}"


def _notice_of_joins(lab: Lab, there: _Observed) -> Iterator[str]:
    """What users notice if running machines have not joined, or not completely."""
    members = ", ".join(node.name for node in etcd_machines(lab) if node.name in there.partial)
    if members:
        yield f"{members}: joins etcd again; nothing while the other members have a majority"
    again = [node for node in lab.kubernetes_nodes if node.name in there.partial]
    control_planes = ", ".join(node.name for node in again if node.spec.serves_api)
    workers = ", ".join(node.name for node in again if not node.spec.serves_api)
    if not any(_serves(node, there) for node in lab.control_planes):
        yield "the API can be reached once `kubeadm init` is done"
    elif control_planes:
        yield f"{control_planes}: reset, then joins again; requests go to the other API servers"
    if workers:
        yield f"{workers}: reset, then joins again; pods that run there end"
    names = there.unjoined - there.partial
    fresh = ", ".join(node.name for node in lab.kubernetes_nodes if node.name in names)
    if fresh:
        yield f"nothing while machines join that have not joined yet: {fresh}"


def _notice_of_renewals(lab: Lab, there: _Observed) -> Iterator[str]:
    """What users notice while control planes, or etcd machines, restart with renewed certificates."""
    if len(lab.etcd_members) == 1 and lab.external_etcd and lab.etcd_members[0].name in there.renewals:
        yield (
            f"the API answers no request while {lab.etcd_members[0].name}, the only etcd member, restarts with "
            "renewed certificates"
        )
    names = [node.name for node in lab.control_planes if node.name in there.renewals]
    if names and len(lab.control_planes) == 1:
        yield f"the API can't be reached while {names[0]} restarts it with renewed certificates"
    elif names:
        yield (
            f"{', '.join(names)}: the API server restarts with renewed certificates, one machine at a time; "
            "new connections go to the others"
        )


def to_json(forecast: Forecast) -> str:
    """Return the forecast as JSON text."""
    return json.dumps(asdict(forecast) | {"changes": bool(forecast.steps or forecast.problems)}, indent=2)


def shown(forecast: Forecast) -> RenderableType:
    """Return the forecast for the terminal."""
    parts: list[RenderableType] = []
    if forecast.problem:
        why = f"the machines could not be asked ({forecast.problem})"
        parts.append(Text(f"{why}, so they are assumed to be as they were made"))
    if forecast.not_asked:
        names = "; ".join(forecast.not_asked)
        them = "it" if len(forecast.not_asked) == 1 else "them"
        parts.append(Text(f"{names}. `up` starts {them}, then checks {them}"))
    parts += [Text(f"impossible: {each.message}", "red") for each in forecast.impossible]
    parts += [
        Text(f"  next: {way}") for way in hints_by_keys({each.key: each.next for each in forecast.impossible})
    ]
    if forecast.refused:
        parts += [
            Text(f"impossible now: {forecast.refused.what}", "red"),
            Text(f"  next: {forecast.refused.next}"),
        ]
    if forecast.steps:
        table = Table("step", "machines", "seconds", box=None, pad_edge=False)
        for step in forecast.steps:
            table.add_row(step.title, " ".join(step.machines) or "the lab", f"{step.seconds:.0f}")
        parts += [table, ""]
    parts += [Text(f"up repairs: {line}") for line in forecast.repairs]
    parts += [Text(f"up renews: {line}") for line in forecast.renewals]
    parts += [Text(f"problem: {line}") for line in forecast.problems]
    parts += [Text(f"users notice: {sentence}") for sentence in forecast.notice]
    parts += [Text(f"affects no machine: {line}", "dim") for line in forecast.differs]
    if forecast.impossible or forecast.refused:
        parts.append(Text(f"{forecast.lab}: `up` would refuse this lab.yaml and change nothing.", "bold red"))
    elif forecast.steps:
        asks = [f"removes {', '.join(forecast.removed)}"] if forecast.removed else []
        asks += [f"upgrades Kubernetes {' → '.join(forecast.upgraded)}"] if forecast.upgraded else []
        ask = f"; it asks before it {' and '.join(asks)}" if asks else ""
        parts.append(Text(f"{forecast.lab}: `./inv up` takes about {forecast.seconds:.0f} s{ask}.", "bold"))
    elif forecast.problems:
        says = "lab.yaml has no change, but there are problems; `./inv up` repairs what it can."
        parts.append(Text(f"{forecast.lab}: {says}", "bold"))
    elif forecast.problem:
        parts.append(Text(f"{forecast.lab}: lab.yaml has no change; `./inv up` checks the machines.", "bold"))
    else:
        parts.append(Text(f"{forecast.lab}: nothing to change; the machines match lab.yaml.", "green"))
    return Group(*parts)
