"""`up` and `replace`: bring the lab from any state to what lab.yaml describes.

lab.yaml is compared with the lab as it was created (`lab.model.change`). What no plan can do is refused before
anything is changed. Machines that will be removed are shown first, and removal needs consent.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lab import config, providers
from lab.config import choice
from lab.errors import CommandFailed, ConfigError, LabError, LabStateError, WaitTimedOut
from lab.golden import image
from lab.model import Lab, Node
from lab.model.change import Change, Setting
from lab.model.selectors import etcd_machines
from lab.plans import already, engine, pair, quorum, upgrade
from lab.plans.engine import Context, Plan
from lab.plans.remove import REMOVE
from lab.plans.repair import REPAIR
from lab.plans.resize import RESIZE
from lab.plans.situation import (
    JoinState,
    Situation,
    Upgrade,
    from_nothing,
    has_joined,
    joined_machines,
    judge,
    survey,
)
from lab.plans.up import START, before
from lab.providers import MachineState
from lab.remote import side_by_side
from lab.session import Session, change_of, has_machines, machine, of_lab
from lab.system import quoting
from lab.system.wait import wait_until
from lab.verbs import answers, backup, bake, render, report
from lab.verbs.interrupted import require_not_interrupted
from lab.workspace import kubeconfig, made
from lab.workspace.made import Made
from lab.workspace.render import credentials

QUORUM_TIMEOUT = 120.0
"""Seconds until etcd has a majority again once its machines were started; 5 s are usual."""

STORED_TIMEOUT = 45.0
"""Seconds until an etcd member reports what it has stored, once its machine was started; 10 s are usual."""

REJOIN_TIMEOUT = 45.0
"""Seconds until etcd has a majority without a member that has to join again; 5 s are usual."""

Confirm = Callable[[str], bool]
"""Asks the user; True means yes. Raises if standard input is not a terminal."""

Around = Callable[[Session, Change, Sequence[Node], Callable[[], None]], None]
"""Runs the work that changes a lab, given the session, the change, the leaving machines, and the work."""


@dataclass(frozen=True)
class Request:
    """What the user requested of `up`.

    `consent`: to repairs of the host, removals and upgrades, without a question. `until` is a stop of
    `lab.plans.up`, or of `lab.plans.upgrade`, or "". `plain`: an upgrade goes in kubeadm's plain order.
    `replacing` are names of machines.
    """

    consent: bool = False
    until: str = ""
    plain: bool = False
    replacing: tuple[str, ...] = ()


def unmeasured(session: Session, change: Change, leaving: Sequence[Node], work: Callable[[], None]) -> None:
    """Run the work and nothing else."""
    work()


def up(session: Session, wish: Request, confirm: Confirm, around: Around = unmeasured) -> None:
    """Bring the lab from any state to the one that lab.yaml describes, and show what was done.

    `around` runs the work, for example while probes run.

    Raises ConfigError if lab.yaml has a change that no plan can make, LabError if a step failed: the next `up`
    continues from there.
    """
    with session.workspace.lock():
        apply(session, wish, confirm, around)


def apply(session: Session, wish: Request, confirm: Confirm, around: Around = unmeasured) -> None:
    """The same; the caller holds the lab's lock."""
    session = dataclasses.replace(session, made=made.read(session.workspace))
    render.refresh(session)
    change = change_of(session, session.lab)
    require_possible(session, change)
    require_not_interrupted(session)
    require_stop_of(change, wish.until)
    if wish.plain and not change.upgraded:
        raise ConfigError(
            ["--plain: no upgrade is to be done"],
            hint="set kubernetes.version in lab.yaml to the version to upgrade to",
        )
    leaving = leaving_machines(session, change, wish.replacing)
    refusal = quorum_problem(session, change, leaving, wish.replacing) or upgrade_problem(session, change)
    if refusal:
        raise LabStateError(refusal.what, hint=refusal.next)
    asks = bool(change.removed or wish.replacing or _begins_upgrade(session, change)) and not wish.consent
    if asks and not confirm(question(session, change, wish.replacing)):
        raise LabStateError("nothing was changed", hint="`./inv plan` shows what `up` would do")
    session.workspace.rotate_logs()
    if not (wish.until or leaving) and _is_up(session):
        around(session, change, leaving, lambda: _end(session, wish, changed=False))
        return
    golden = bake.bake(session, consent=wish.consent)
    if _begins_upgrade(session, change):
        _require_room_for_upgrade(session)
    settled = _settled(session)
    around(settled, change, leaving, lambda: _carry_out(settled, change, golden, leaving, wish))


def require_replaceable(session: Session, name: str) -> Node:
    """The machine of that name, if it can be removed from a running lab.

    Raises ConfigError, LabStateError.
    """
    node = machine(session, name)
    if session.made is None or not has_machines(session):
        raise LabStateError(
            "the lab has no machines yet, so none can be replaced", hint="`./inv up` creates them"
        )
    if session.made.node(name) is None:
        raise LabStateError(
            f"{name} was not created yet, so it can't be replaced", hint="`./inv up` creates it"
        )
    if node.spec.serves_api and len(session.lab.control_planes) == 1:
        has = (
            "has the only copy of the service accounts' key"
            if session.lab.external_etcd
            else "has the only copy of the cluster's data"
        )
        raise LabStateError(
            f"{name} is the only control plane, and {has}",
            hint="raise nodes.control_planes.count to 3 in lab.yaml and `./inv up`, then replace it",
        )
    if session.lab.etcd_members == (node,):
        raise LabStateError(
            f"{name} is etcd's only member, and has the only copy of the cluster's data",
            hint="`./inv up` repairs what it can on it; `./inv backup` saves the data",
        )
    return node


def require_possible(session: Session, change: Change) -> None:
    """Raise ConfigError with every change in lab.yaml that no plan can make to existing machines."""
    if change.impossible:
        lines = config.lines(session.path)
        problems = [impossible_message(session, lines, setting) for setting in change.impossible]
        instead = {setting.key: setting.effect.instead for setting in change.impossible}
        raise ConfigError(problems, hint="\n".join(hints_by_keys(instead)))


def require_stop_of(change: Change, until: str) -> None:
    """Raise ConfigError if `up` does not come to that stop with this change."""
    if not until or (until in upgrade.STOPS) == bool(change.upgraded):
        return
    if change.upgraded:
        raise ConfigError(
            [f"--until {until}: kubernetes.version changes, and an upgrade does not stop there"],
            hint=f"one of: {', '.join(upgrade.STOPS)}",
        )
    raise ConfigError(
        [f"--until {until}: no upgrade is to be done"],
        hint="set kubernetes.version in lab.yaml to the version to upgrade to",
    )


def require_no_upgrade(change: Change) -> None:
    """Raise LabStateError if machines have another Kubernetes version than the one in lab.yaml."""
    if change.upgraded:
        raise LabStateError(
            f"machines have Kubernetes {change.upgraded.before}, and files of {change.upgraded.after} are not "
            "for them; nothing was written",
            hint="`./inv up` upgrades the machines, then writes their files",
        )


def upgrade_problem(session: Session, change: Change) -> quorum.Problem | None:
    """Why an upgrade can't begin now, and what to do; None if it can, or is under way, or none is wanted."""
    if not _begins_upgrade(session, change):
        return None
    assert session.made is not None
    with session.progress.asking("whether the lab is healthy"):
        return upgrade.problem(session.made.lab, session.workspace, session.remote)


def _require_room_for_upgrade(session: Session) -> None:
    assert session.made is not None
    with session.progress.asking("the disk's free space"):
        refusal = upgrade.no_room(session.made.lab, session.workspace)
    if refusal:
        raise LabStateError(refusal.what, hint=refusal.next)


def _begins_upgrade(session: Session, change: Change) -> bool:
    return bool(change.upgraded and session.made and not session.made.upgrading)


def hints_by_keys(instead: Mapping[str, str]) -> list[str]:
    """What to do about keys that no plan can change: a line for each hint, with its keys if there are two.

    `instead` is the hint for each key.
    """
    keys: dict[str, list[str]] = {}
    for key, way in instead.items():
        keys.setdefault(way, []).append(key)
    if len(keys) == 1:
        return list(keys)
    return [f"{', '.join(each)}: {way}" for way, each in keys.items()]


def impossible_message(session: Session, lines: dict[str, int], setting: Setting) -> str:
    """The key, its line, the old and the new value, and why that can't be done."""
    line = lines.get(setting.key)
    place = f"{session.path.name}:{line}" if line else f"{session.path.name} (not in the file, so its default)"
    return (
        f"{place}: {setting.key}: {setting.before} → {setting.after} can't be done to machines that exist: "
        f"{setting.effect.why}"
    )


def question(session: Session, change: Change, replacing: Sequence[str]) -> str:
    """The question before machines are removed or upgraded: which ones, and what is lost."""
    names = [node.name for node in change.removed]
    sentences = [f"{', '.join(names)} will be removed, with all data that is only there."] if names else []
    if change.upgraded:
        versions = f"from {change.upgraded.before} to {change.upgraded.after}"
        sentences.append(
            f"Kubernetes will be upgraded {versions}; the only way back is a checkpoint that you have."
        )
    if replacing:
        sentences.append(f"{', '.join(replacing)} will be removed and created again.")
    loss = quorum.loss(session.made.lab if session.made else session.lab, session.lab)
    return " ".join([*sentences, *([f"{loss[0].upper()}{loss[1:]}."] if loss else []), "Continue? [y/N] "])


def leaving_machines(session: Session, change: Change, replacing: Sequence[str]) -> tuple[Node, ...]:
    """The machines that are to be removed.

    Those that are no longer in lab.yaml, those that are replaced, and those that an earlier run did not remove
    completely.
    """
    record = session.made
    if record is None:
        return ()
    names = {*(node.name for node in change.removed), *replacing, *record.leaving}
    return tuple(node for node in record.lab.nodes if node.name in names)


def quorum_problem(
    session: Session, change: Change, leaving: Sequence[Node], replacing: Sequence[str] = ()
) -> quorum.Problem | None:
    """Why etcd has no majority without the leaving members, and what to do; None if it has one."""
    record = session.made
    members = _members(record.lab, leaving) if record else []
    if not members or record is None or not session.workspace.kubeconfig.exists():
        return None  # without a kubeconfig no `up` got to the joins, so there is no second member
    if session.remote.route_problem() or (not replacing and _members_off(session, record)):
        return None  # `up` first starts stopped machines, and asks then
    with session.progress.asking("etcd's members"):
        found = quorum.membership(record.lab, session.remote)
    problem = quorum.problem(found.members, found.healthy, members)
    return quorum.Problem(problem.what, _hint(record, change, problem)) if problem else None


def _hint(record: Made, change: Change, problem: quorum.Problem) -> str:
    """What to do first. If lab.yaml is the reason, every `up` would try the same again."""
    if not _members(record.lab, change.removed):
        return problem.next
    count = len(record.lab.control_planes)
    return f"set nodes.control_planes.count back to {count} in lab.yaml for now; {problem.next}"


def _members(lab: Lab, nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes if lab.is_etcd_member(node)]


def _members_off(session: Session, record: Made) -> bool:
    states = _states(session, record.lab)
    return any(states[node.name] in ("stopped", "paused") for node in record.lab.etcd_members)


def _is_up(session: Session) -> bool:
    """Whether lab.yaml was applied completely, and the lab is still in that state."""
    lab, record = session.lab, session.made
    if record is None or record != record.applied(lab, record.golden, made.manifest_sha256(lab)):
        return False
    try:
        if _unknown_to_vagrant(session):
            return False
        render.record_and_write(session, record.golden)
        with session.progress.asking("the checks whether anything is left to do"):
            return already.is_up(lab, session.workspace, session.remote)
    except CommandFailed:  # a provider that does not respond: the doctor reports more
        return False


def _settled(session: Session) -> Session:
    """The same lab, now that baking has provided a kernel to try KVM with; existing machines decide that."""
    if has_machines(session) or not providers.provider_of(session.lab).may_emulate:
        return session
    return of_lab(session, config.load(session.path, lambda file: choice.settle(file, session.workspace)))


def _carry_out(session: Session, change: Change, golden: str, leaving: tuple[Node, ...], wish: Request) -> None:
    lab, workspace = session.lab, session.workspace
    if lab.emulated:
        session.progress.say(report.EMULATED)
    if _adopt(session) and change_of(session, session.lab) not in (change, Change()):
        raise LabStateError(
            "Vagrant had lost track of machines of this lab; they were found, and lab.yaml differs from them",
            hint="`./inv plan` shows what `up` would change; then `./inv up` again",
        )
    if change.upgraded:
        session = _upgrade(session, change, golden, leaving, wish)
        leaving = ()  # they are removed by now
        if wish.until:
            _end(session, wish, changed=True)
            return
    known = workspace.has_machines()
    # Computed before the work, so that a later edit of the file is a change for the next `up`.
    manifest = made.manifest_sha256(lab)
    record = render.record_and_write(session, golden)
    run = Run(dataclasses.replace(session, made=record), credentials.new_run_secrets())
    with session.progress.live():
        changed = bool(change.upgraded)
        if leaving:
            changed = run.remove(leaving, wish.replacing, change) or changed
        if leaving:
            # Machines to be created again are recorded as such first.
            record = render.record_and_write(dataclasses.replace(session, made=made.read(workspace)), golden)
        changed = run.up(known, wish.until, change) or changed
    with session.progress.asking("the administrator's kubeconfig"):
        keep_kubeconfig(session)
    _keep_bill_of_materials(session, golden)
    if not wish.until:
        made.write(workspace, record.applied(lab, golden, manifest))
    _end(session, wish, changed=changed)


def _upgrade(
    session: Session, change: Change, golden: str, leaving: tuple[Node, ...], wish: Request
) -> Session:
    """Upgrade the machines that exist, as they were made; return the session with the new record.

    Machines that leave are removed first: one of them may be why an upgrade could not go on. Files stay those
    of the former version until all machines have the new one, since kubeadm's configuration has it, too.
    """
    record, workspace = session.made, session.workspace
    assert record is not None
    former = dataclasses.replace(session, lab=record.lab)
    render.write(former, record, record.golden)
    run = Run(former, credentials.new_run_secrets())
    try:
        with session.progress.live():
            if not record.upgrading:
                _keep_backup(former, session.lab.kubernetes.version)
            if leaving:
                run.remove(leaving, wish.replacing, change)
                record = made.read(workspace)
                assert record is not None
                run = dataclasses.replace(run, session=dataclasses.replace(former, lab=record.lab, made=record))
            run.upgrade(session.lab, golden, wish)
    except LabError:
        _say_versions(session)
        raise
    return dataclasses.replace(session, made=made.read(workspace))


def _keep_backup(session: Session, version: str) -> None:
    """Keep a backup from before the upgrade, and say where it is."""
    target = session.workspace.backups / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-before-{version}.tar"
    kept = backup.write(session, target, backup.healthy_member(session)).path
    session.progress.say(f"backup      {kept}: `./inv recover {quoting.word(kept)}` goes back to its data")


def _say_versions(session: Session) -> None:
    """After a failed upgrade: which machine has which version, as far as that is recorded."""
    record = made.read(session.workspace)
    if record is not None and record.upgrading:
        versions = {n.name: record.version_of(n.name) or "removed" for n in record.lab.cluster_machines}
        session.progress.say(
            "Kubernetes' versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())
        )


def _end(session: Session, wish: Request, *, changed: bool) -> None:
    """Save and show what the run did."""
    lab, workspace = session.lab, session.workspace
    report.write(lab, workspace, session.progress, changed=changed)
    if wish.until:
        done = tuple(step.title for step in before(wish.until) if step.script)
        session.progress.say(report.stopped(lab, workspace, session.progress, wish.until, done))
    else:
        session.progress.say(report.closing(lab, workspace, session.progress, changed=changed))


@dataclass(frozen=True)
class Run:
    """One run of `up`; all of its plans use the same secrets."""

    session: Session
    secrets: credentials.RunSecrets

    def context(self, situation: Situation) -> Context:
        """What the steps of one of its plans share."""
        session = self.session
        return Context(
            session.lab, session.workspace, session.remote, session.progress, self.secrets, situation
        )

    def up(self, known: bool, until: str, change: Change) -> bool:
        """Run everything up to a stop; return whether anything was changed."""
        lab, plan = self.session.lab, before(until)
        nothing = from_nothing(lab, until)
        if not known:
            # If all machines are new, their state is known, and no step has to wait for all of them.
            return engine.run(plan, self.context(nothing))
        resized = self._resized(change) if not until else ()
        changed = self._require_majority()
        changed = self._start(nothing) or changed
        found = self._survey(lab.cluster_machines)
        if self._repair_for_majority(found, plan):
            changed, found = True, self._survey(lab.cluster_machines)
        lost = quorum.without_data_problem(lab, joined_machines(found))
        lost = lost or quorum.without_keys_problem(lab, found)
        if lost:
            raise LabStateError(lost.what, hint=lost.next)
        situation = dataclasses.replace(
            judge(lab, found, until), holding=pair.holding(lab, self.session.remote)
        )
        self._require_majority_for_rejoining(found, situation, plan)
        if resized:
            situation = dataclasses.replace(situation, resized=resized)
            changed = engine.run(RESIZE, self.context(situation)) or changed
        return engine.run(plan[len(START) :], self.context(situation)) or changed

    def start(self) -> None:
        """Start all machines, and copy this checkout's scripts; change nothing else on them."""
        self._start(from_nothing(self.session.lab))

    def upgrade(self, wanted: Lab, golden: str, wish: Request) -> bool:
        """Upgrade the session's machines to the version of `wanted`, up to a stop; return True."""
        session, lab = self.session, self.session.lab
        absent = {node.name for node in _absent(session, lab.nodes)}
        there = tuple(node for node in lab.nodes if node.name not in absent)
        self._start(Situation(lab.first, there))
        control_planes = tuple(node for node in there if node.spec.serves_api)
        with session.progress.asking("etcd's members for their versions"):
            running = quorum.running(lab, session.remote)
        members = tuple(node for node in there if lab.is_etcd_member(node))
        old = upgrade.with_old_etcd(members, running, wanted.kubernetes.version)
        versioned = lab.model_copy(update={"kubernetes": wanted.kubernetes})
        plan = Upgrade(
            lab=versioned,
            golden=golden,
            control_planes=control_planes if wish.plain else upgrade.with_leader_last(control_planes, running),
            workers=tuple(n for n in there if n.spec.runs_kubelet and not n.spec.serves_api),
            etcd_alone=upgrade.with_leader_last(old, running),
            etcd_lab=lab if old else None,
            etcd_golden=image.bake(lab, session.progress) if old else "",
            plain=wish.plain,
            etcd=upgrade.with_leader_last(members, running) if lab.external_etcd else (),
        )
        situation = Situation(lab.first, there, upgrade=plan, until=wish.until)
        return engine.run(upgrade.before(wish.until), self.context(situation))

    def _repair_for_majority(self, found: Mapping[str, JoinState], plan: Plan) -> bool:
        """Repair damaged control planes first if the complete ones are not a majority of etcd's members.

        Otherwise the complete ones would wait for the API in vain. Returns whether a repair ran.
        """
        session = self.session
        damaged = tuple(node for node in session.lab.control_planes if found.get(node.name) == "damaged")
        if not damaged or not any(step.name == "control-plane-init" for step in plan):
            return False
        with session.progress.asking("etcd's members"):
            listed = quorum.membership(session.lab, session.remote)
        stay = [name for name in listed.healthy if found.get(name) == "joined"]
        if len(stay) >= quorum.needed(len(listed.members)):
            return False
        return engine.run(REPAIR, self.context(Situation(damaged[0], damaged)))

    def _require_majority_for_rejoining(
        self, found: Mapping[str, JoinState], situation: Situation, plan: Plan
    ) -> None:
        """Raise LabStateError if a machine has to join again, and etcd has no majority without it.

        Joining again removes its etcd data.
        """
        lab = self.session.lab
        members = etcd_machines(lab) if situation.etcd_exists(lab) else ()
        joining = (*members, *situation.joining(lab))
        again = [node.name for node in joining if found.get(node.name) == "partial"]
        serving = [node for node in self.session.lab.control_planes if node.name in situation.joined]
        if again and serving and any(step.name == "control-plane-join" for step in plan):
            self._majority(
                self.session.lab,
                ", ".join(again),
                REJOIN_TIMEOUT,
                lambda listed: quorum.rejoin_problem(listed.members, listed.healthy, again),
            )

    def _majority(
        self,
        lab: Lab,
        without: str,
        timeout: float,
        why_none: Callable[[quorum.Membership], quorum.Problem | None],
        way_out: Callable[[quorum.Problem], str] = lambda problem: problem.next,
    ) -> quorum.Membership:
        """Wait until etcd has a majority without some members; the others may have only just started.

        `why_none` judges the members. Returns the last members found. Raises LabStateError with the problem and
        its hint.
        """
        session = self.session
        listed = quorum.Membership((), frozenset())
        problem: quorum.Problem | None = None

        def why_not() -> str | None:
            nonlocal listed, problem
            listed = quorum.membership(lab, session.remote)
            problem = why_none(listed)
            return problem.what if problem else None

        with session.progress.step("quorum", f"etcd has a majority without {without}") as shown:
            what = f"etcd to have a majority without {without}"
            try:
                wait_until(why_not, what=what, timeout=timeout * session.lab.patience, log=shown.log)
            except WaitTimedOut as error:
                assert problem is not None
                raise LabStateError(problem.what, hint=way_out(problem)) from error
            shown.unchanged()
        return listed

    def _require_majority(self) -> bool:
        """Raise LabStateError if so many of etcd's members are lost that no new machine could ever join.

        Returns whether a machine was started to be asked. If no member responds, `up` stops, since it would
        create machines that can't join; but a damaged member is repaired first.
        """
        session = self.session
        states = _states(session, session.lab)
        members = session.lab.etcd_members
        left = tuple(node for node in members if states[node.name] not in ("absent", "incomplete"))
        if not left or len(left) >= quorum.needed(len(members)) or not session.workspace.kubeconfig.exists():
            return False  # without a kubeconfig no `up` got to the joins, so there is no second member
        started = self._start(Situation(left[0], left))
        has = self._survey(left)
        if not joined_machines(has):
            return started
        found: quorum.StoredMembership | None = None

        def why_not() -> str | None:
            nonlocal found
            found = quorum.stored_membership(session.lab, session.remote, left)
            return None if found else f"no member answers on {', '.join(node.name for node in left)}"

        with session.progress.step("quorum", "etcd's members report what is left") as shown:
            timeout = STORED_TIMEOUT * session.lab.patience
            try:
                wait_until(why_not, what="etcd's members to answer", timeout=timeout, log=shown.log)
            except WaitTimedOut as error:
                shown.note = error.reason
                if "damaged" not in has.values():
                    unknown = quorum.unknown_problem(
                        [node.name for node in members], [node.name for node in left], error.reason
                    )
                    raise LabStateError(unknown.what, hint=unknown.next) from error
            problem = quorum.lost_problem(found, [node.name for node in left]) if found else None
            if problem:
                raise LabStateError(problem.what, hint=problem.next)
            shown.unchanged()
        return started

    def _resized(self, change: Change) -> tuple[Node, ...]:
        """The existing machines that get another size; new ones are created with it."""
        absent = _absent(self.session, change.resized)
        return tuple(node for node in change.resized if node not in absent)

    def remove(self, leaving: tuple[Node, ...], replacing: Sequence[str], change: Change) -> bool:
        """Remove machines from the lab, in an orderly way if they respond; return True."""
        lab = self.session.lab
        names = {node.name for node in leaving}
        staying = tuple(node for node in lab.nodes if node.name not in names)
        self._start(Situation(lab.first, staying))
        silent = self._silent(leaving, replacing)
        found = self._survey([node for node in staying if node in lab.cluster_machines])
        joined = joined_machines(found)
        serving = [node for node in staying if node.spec.serves_api and node.name in joined]
        if serving or any(node.name in joined for node in etcd_machines(lab)):
            leaving = self._when_etcd_keeps_a_majority(leaving, change)
        if not serving and any(self._may_have_joined(node, silent) for node in leaving if node.spec.serves_api):
            raise LabStateError(
                "none of the remaining control planes belongs to the cluster, so none could take over",
                hint="`./inv status` shows what runs; `./inv up` with the previous lab.yaml repairs what it can"
                if change.removed
                else "`./inv status` shows what runs; `./inv up` repairs what it can",
            )
        first = serving[0] if serving else lab.first
        situation = Situation(first, staying, joined=joined, leaving=leaving, silent=silent)
        try:
            return engine.run(REMOVE, self.context(situation))
        except LabError:
            if any(node.spec.serves_api or node.spec.balances for node in leaving):
                self._restore_haproxy()
            raise

    def _when_etcd_keeps_a_majority(self, leaving: tuple[Node, ...], change: Change) -> tuple[Node, ...]:
        """The machines in the order in which they leave, once etcd has a majority without them."""
        record = self.session.made
        assert record is not None
        members = _members(record.lab, leaving)
        if not members:
            return leaving
        listed = self._majority(
            record.lab,
            "the leaving members",
            QUORUM_TIMEOUT,
            lambda listed: quorum.problem(listed.members, listed.healthy, members),
            lambda problem: _hint(record, change, problem),
        )
        order = quorum.in_order(members, listed.healthy)
        others = [node for node in leaving if node.name not in members]
        return (*(node for name in order for node in leaving if node.name == name), *others)

    def _may_have_joined(self, node: Node, silent: frozenset[str]) -> bool:
        """Whether a leaving machine may belong to a cluster: it says so, or it exists and can't be asked."""
        if node.name not in silent:
            return has_joined(node, self.session.remote)
        return providers.state(self.session.lab, node) != "absent"

    def _restore_haproxy(self) -> None:
        """After a failed removal: let HAProxy use the API servers again that have not left yet."""
        record = made.read(self.session.workspace)
        assert record is not None
        stay = tuple(node for node in record.lab.nodes if node.name not in record.leaving)
        lab = record.lab.model_copy(update={"nodes": stay})
        with contextlib.suppress(LabError):  # the error of the removal is the one to show
            render.configure_load_balancers(dataclasses.replace(self.session, lab=lab, made=record))

    def _survey(self, nodes: Sequence[Node]) -> dict[str, JoinState]:
        with self.session.progress.asking("the machines to report whether they have joined"):
            return survey(nodes, self.session.remote)

    def _start(self, situation: Situation) -> bool:
        """Start the situation's machines and copy this checkout's scripts; return whether any was started."""
        off = _off(self.session, situation.machines)
        start = tuple(step for step in START if off or step.name == "deliver")
        absent = _absent(self.session, off)
        engine.run(start, self.context(dataclasses.replace(situation, off=off, absent=absent)))
        return bool(off)

    def _silent(self, leaving: tuple[Node, ...], replacing: Sequence[str]) -> frozenset[str]:
        """The leaving machines that do not respond.

        A stopped one is started first, so that it can leave in an orderly way.
        """
        session = self.session
        record = session.made
        assert record is not None
        states = _states(session, record.lab)
        kept = [node for node in leaving if node.name not in replacing]
        started = answers.start(session, record.lab, states, kept)
        exist = [node for node in leaving if states.get(node.name) != "absent"]
        dead = answers.silent(session, exist, patient=started, note="does not respond, so it counts as dead")
        return frozenset(node.name for node in leaving if node not in exist or node in dead)


def _absent(session: Session, machines: Sequence[Node]) -> tuple[Node, ...]:
    """Those of these machines that have to be created."""
    if not machines:
        return ()
    states = _states(session, session.lab)
    return tuple(node for node in machines if states[node.name] in ("absent", "incomplete"))


def _off(session: Session, machines: Sequence[Node]) -> tuple[Node, ...]:
    """The machines that do not respond. Stopped ones are not asked: ssh to a paused one takes 20 s."""
    if session.remote.route_problem():
        return tuple(machines)
    states = _states(session, session.lab)
    running = [node for node in machines if states[node.name] == "running"]
    with session.progress.asking("an answer of each machine"):
        silent = side_by_side("ssh", running, session.remote.why_not_reachable)
    return tuple(node for node in machines if node not in running or silent[node.name])


def keep_kubeconfig(session: Session) -> bool:
    """Fetch the kubeconfig from the first control plane that has one; False if none has.

    A kubeconfig that the lab was merged into gets its present certificates.
    """
    found = any(
        kubeconfig.fetch(session.lab, session.workspace, session.remote, node)
        for node in session.lab.control_planes
        if not session.remote.why_not_reachable(node)
    )
    for file in kubeconfig.refresh(session.lab, session.workspace) if found else ():
        session.progress.say(f"{file}: the context {session.lab.name} has the lab's present certificates")
    return found


def _states(session: Session, lab: Lab) -> dict[str, MachineState]:
    with session.progress.asking("what state the machines are in"):
        return providers.states(lab, session.workspace)


def _unknown_to_vagrant(session: Session) -> list[str]:
    with session.progress.asking("a list of this lab's machines"):
        return providers.unknown_to_vagrant(session.workspace)


def _adopt(session: Session) -> bool:
    """Register this lab's machines with Vagrant again if it has lost track of them; whether there were any."""
    lost = _unknown_to_vagrant(session)
    if lost and session.made:
        with session.progress.asking("the names of machines that Vagrant has lost track of"):
            providers.adopt(session.made.lab, session.workspace)
    elif lost:
        raise LabStateError(
            f"{session.workspace.root}/.vagrant does not know this many machines of this lab: {len(lost)}",
            hint=f"if you have a copy of {session.workspace.identity}, their record, restore it: `./inv up` "
            "then uses them; otherwise `./inv destroy` removes them",
        )
    return bool(lost)


def _keep_bill_of_materials(session: Session, golden: str) -> None:
    target = session.workspace.root / "bom.json"
    if not target.exists():
        with session.progress.asking("the golden machine's bill of materials"):
            session.workspace.write(target, image.bill_of_materials(session.lab, golden))
