"""`up` and `replace`: make the lab what lab.yaml says, from whatever it is.

What differs from the lab as it was made is found first (`lab.model.change`); what no plan can do is refused
before anything is touched, and what takes something away is shown, and needs consent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab import config, providers
from lab.config import choice
from lab.errors import ConfigError, LabStateError, WaitTimedOut
from lab.golden import image
from lab.model import Node
from lab.model.change import Change, Setting
from lab.plans import engine, quorum
from lab.plans.engine import Context
from lab.plans.remove import REMOVE
from lab.plans.resize import RESIZE
from lab.plans.situation import Situation, from_nothing, judge, survey
from lab.plans.up import START, before
from lab.remote import side_by_side
from lab.session import Session, change_of, has_machines, machine, of_lab
from lab.system.wait import wait_until
from lab.verbs import bake, render, report
from lab.workspace import kubeconfig, made
from lab.workspace.render import credentials

LEAVING_TIMEOUT = 60.0
"""Seconds for a machine that is to be removed to answer, after it was started; then it counts as dead."""

Confirm = Callable[[str], bool]
"""Asks a person; True is a yes. Raises ConfigError where there is nobody to ask."""


Around = Callable[[Session, Change, Sequence[Node], Callable[[], None]], None]
"""Does the work that changes a lab: given the session, the change, the machines that go, and the work."""


@dataclass(frozen=True)
class Wish:
    """How `up` is to go about it. `until` is a stop of `lab.plans.up`, or "".

    `replacing` are names of machines.
    """

    consent: bool = False
    until: str = ""
    replacing: tuple[str, ...] = ()


def plainly(session: Session, change: Change, leaving: Sequence[Node], work: Callable[[], None]) -> None:
    """Do the work, and nothing around it."""
    work()


def up(session: Session, wish: Wish, confirm: Confirm, around: Around = plainly) -> None:
    """Take the lab from whatever state it is in to the one that lab.yaml names, and show what was done.

    `around` does the work, such as with probes running.

    Raises ConfigError where lab.yaml asks for what no plan can do, LabError where a step failed: the next `up`
    goes on from there.
    """
    with session.workspace.lock():
        session = dataclasses.replace(session, made=made.read(session.workspace))
        render.refresh(session)
        change = change_of(session, session.lab)
        require_possible(session, change)
        leaving = _leaving(session, change, wish.replacing)
        _require_quorum(session, leaving)
        asks = bool(change.removed or wish.replacing) and not wish.consent
        if asks and not confirm(question(session, change, wish.replacing)):
            raise LabStateError("nothing was changed", hint="`./inv plan` shows what `up` would do")
        session.workspace.rotate_logs()
        golden = bake.bake(session, consent=wish.consent)
        settled = _settled(session)
        around(settled, change, leaving, lambda: _carry_out(settled, change, golden, leaving, wish))


def require_replaceable(session: Session, name: str) -> Node:
    """The machine of that name, where it can be taken out of a lab that is up.

    Raises ConfigError, LabStateError.
    """
    node = machine(session, name)
    if session.made is None or not has_machines(session):
        raise LabStateError(
            "the lab has no machines yet, so none can be replaced", hint="`./inv up` makes them"
        )
    if session.made.node(name) is None:
        raise LabStateError(f"{name} was not made yet, so it can't be replaced", hint="`./inv up` makes it")
    if node.spec.etcd_member and len(session.lab.etcd_members) == 1:
        raise LabStateError(
            f"{name} is the only control plane: the cluster's data is on it and nowhere else",
            hint="raise nodes.control_planes.count to 3 in lab.yaml and `./inv up`, then replace it",
        )
    return node


def require_possible(session: Session, change: Change) -> None:
    """Raise ConfigError with everything that lab.yaml asks for and no plan can do to machines that exist."""
    if change.impossible:
        lines = config.lines(session.path)
        hint = next(iter(dict.fromkeys(setting.effect.instead for setting in change.impossible)))
        raise ConfigError([impossible(session, lines, setting) for setting in change.impossible], hint=hint)


def impossible(session: Session, lines: dict[str, int], setting: Setting) -> str:
    """Which key, on which line, from what to what, and why that can't be done."""
    line = lines.get(setting.key)
    place = f"{session.path.name}:{line}" if line else f"{session.path.name} (not in the file, so its default)"
    return (
        f"{place}: {setting.key}: {setting.before} → {setting.after} can't be done to machines that exist: "
        f"{setting.effect.why}"
    )


def question(session: Session, change: Change, replacing: Sequence[str]) -> str:
    """What a person is asked before machines go: what goes, and what is lost with it."""
    names = [node.name for node in change.removed]
    sentences = [f"{', '.join(names)} will be removed, with all that is only there."] if names else []
    if replacing:
        sentences.append(f"{', '.join(replacing)} will be removed and made again.")
    loss = quorum.loss(session.made.lab if session.made else session.lab, session.lab)
    return " ".join([*sentences, *([loss] if loss else []), "Go on? [y/N] "])


def _leaving(session: Session, change: Change, replacing: Sequence[str]) -> tuple[Node, ...]:
    """The machines that are to go.

    Those that lab.yaml has no longer, those that are replaced, and those that an earlier run did not get rid of
    completely.
    """
    record = session.made
    if record is None:
        return ()
    names = {*(node.name for node in change.removed), *replacing, *record.leaving}
    return tuple(node for node in record.lab.nodes if node.name in names)


def _require_quorum(session: Session, leaving: Sequence[Node]) -> None:
    """Raise LabStateError, before anything is touched, where etcd can't do without what is to leave."""
    members = [node.name for node in leaving if node.spec.etcd_member]
    if not members or session.made is None or session.remote.route_problem():
        return  # of machines that are off nothing is known; the plan's own gate looks again once they run
    lab = session.made.lab
    healthy = quorum.healthy_members(lab, session.remote)
    problem = quorum.problem([node.name for node in lab.etcd_members], healthy, members)
    if problem:
        raise LabStateError(problem.what, hint=problem.next)


def _settled(session: Session) -> Session:
    """The same lab, now that baking has left a kernel by which KVM can be tried."""
    if not providers.provider_of(session.lab).may_emulate:
        return session
    return of_lab(session, config.load(session.path, lambda file: choice.settle(file, session.workspace)))


def _carry_out(session: Session, change: Change, golden: str, leaving: tuple[Node, ...], wish: Wish) -> None:
    lab, workspace = session.lab, session.workspace
    if lab.emulated:
        session.progress.say(report.EMULATED)
    if _adopted(session) and change_of(session, session.lab) not in (change, Change()):
        raise LabStateError(
            "machines of this lab were found that Vagrant had lost sight of, and lab.yaml differs from them",
            hint="`./inv plan` shows what `up` would change; then `./inv up` again",
        )
    known = workspace.has_machines()
    record = render.record_and_write(session, golden, leaving)
    session = dataclasses.replace(session, made=record)
    run = Run(session, credentials.new_run_secrets())
    with session.progress.live():
        changed = run.remove(leaving, wish.replacing) if leaving else False
        if leaving:
            # What is made again is recorded before it is made.
            record = (made.read(workspace) or record).with_machines(lab, golden, leaving=())
            made.write(workspace, record)
            render.write(session, record, golden)
        changed = run.up(known, wish.until, change) or changed
    keep_kubeconfig(session)
    _keep_bill_of_materials(session, golden)
    if not wish.until:
        made.write(workspace, record.applied(lab, golden))
    report.write(lab, workspace, session.progress, changed=changed)
    if wish.until:
        done = tuple(step.title for step in before(wish.until) if step.script)
        session.progress.say(report.stopped(lab, workspace, session.progress, wish.until, done))
    else:
        session.progress.say(report.closing(lab, workspace, session.progress, changed=changed))


@dataclass(frozen=True)
class Run:
    """One run of `up`: its secrets are good for all of its plans."""

    session: Session
    secrets: credentials.RunSecrets

    def _context(self, situation: Situation) -> Context:
        session = self.session
        return Context(
            session.lab, session.workspace, session.remote, session.progress, self.secrets, situation
        )

    def up(self, known: bool, until: str, change: Change) -> bool:
        """Everything up to a stop; return whether anything was changed."""
        lab, plan = self.session.lab, before(until)
        nothing = from_nothing(lab, until)
        if not known:
            # Machines that this run makes have nothing on them, so that no step need wait for all of them.
            return engine.run(plan, self._context(nothing))
        changed = self._start(nothing)
        situation = judge(lab, survey(lab.kubernetes_nodes, self.session.remote), until)
        if change.resized and not until:
            resized = dataclasses.replace(situation, resized=change.resized)
            changed = engine.run(RESIZE, self._context(resized)) or changed
        return engine.run(plan[len(START) :], self._context(situation)) or changed

    def remove(self, leaving: tuple[Node, ...], replacing: Sequence[str]) -> bool:
        """Take machines out of the lab, in an orderly way where they answer; return True."""
        lab, remote = self.session.lab, self.session.remote
        staying = tuple(node for node in lab.nodes if node not in leaving)
        self._start(Situation(lab.first, staying))
        silent = self._silent(leaving, replacing)
        found = survey([node for node in staying if node.spec.runs_kubelet], remote)
        serving = [node for node in staying if node.spec.etcd_member and found[node.name] == "joined"]
        if not serving:
            raise LabStateError(
                "no control plane that stays belongs to the cluster, so nothing could take over",
                hint="`./inv status` shows what runs; `./inv up` with the former lab.yaml repairs what it can",
            )
        situation = Situation(serving[0], staying, leaving=leaving, silent=silent)
        return engine.run(REMOVE, self._context(situation))

    def _start(self, situation: Situation) -> bool:
        """Have the situation's machines run, with this checkout's scripts; return whether any was started."""
        off = _off(self.session, situation.machines)
        start = tuple(step for step in START if off or step.name == "deliver")
        engine.run(start, self._context(dataclasses.replace(situation, off=off)))
        return bool(off)

    def _silent(self, leaving: tuple[Node, ...], replacing: Sequence[str]) -> frozenset[str]:
        """Which of the machines that leave do not answer.

        One that was only stopped is started for its farewell.
        """
        session = self.session
        record = session.made
        assert record is not None
        states = providers.states(record.lab, session.workspace)
        off = [n for n in leaving if states.get(n.name) in ("stopped", "paused") and n.name not in replacing]
        for node in off:
            providers.resume(record.lab, node)
        providers.power_on(record.lab, off)

        def why_not(node: Node) -> str | None:
            if states.get(node.name) == "absent":
                return "it does not exist"
            if node not in off:
                return session.remote.why_not_reachable(node)
            try:
                wait_until(
                    lambda: session.remote.why_not_reachable(node),
                    what=f"{node.name} to answer by ssh",
                    timeout=LEAVING_TIMEOUT * session.lab.patience,
                )
            except WaitTimedOut as error:
                return error.reason
            return None

        answers = side_by_side("asking what leaves", leaving, why_not)
        return frozenset(name for name, reason in answers.items() if reason)


def _off(session: Session, machines: Sequence[Node]) -> tuple[Node, ...]:
    """The machines that do not answer."""
    if session.remote.route_problem():
        return tuple(machines)
    silent = side_by_side("ssh", machines, session.remote.why_not_reachable)
    return tuple(node for node in machines if silent[node.name])


def keep_kubeconfig(session: Session) -> bool:
    """Fetch the kubeconfig of the first control plane that has one; False where none has."""
    return any(
        kubeconfig.fetch(session.lab, session.workspace, session.remote, node)
        for node in session.lab.control_planes
        if not session.remote.why_not_reachable(node)
    )


def _adopted(session: Session) -> bool:
    """Let Vagrant know again those machines of this lab that it has lost sight of; whether there were any."""
    lost = providers.lost_sight_of(session.workspace)
    if lost and session.made:
        providers.adopt(session.made.lab, session.workspace)
    elif lost:
        raise LabStateError(
            f"{len(lost)} machines of this lab run that {session.workspace.root}/.vagrant does not know",
            hint="`./inv destroy` removes them; then bring the lab up again",
        )
    return bool(lost)


def _keep_bill_of_materials(session: Session, golden: str) -> None:
    target = session.workspace.root / "bom.json"
    if not target.exists():
        session.workspace.write(target, image.bill_of_materials(session.lab, golden))
