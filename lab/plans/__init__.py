"""This room brings machines up: BRING_UP is the whole order, and everything else here carries it out.

A step starts on a machine as soon as the steps it names are done: on the same machine where they run
there, else wherever they run. So the first control plane starts while workers still boot.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from lab import providers as machines
from lab.errors import ConfigError, LabError, LabStateError, NodeFailed
from lab.model import Lab, Node
from lab.remote import Remote, side_by_side
from lab.render import credentials
from lab.render.credentials import RunSecrets
from lab.system.progress import Progress
from lab.system.wait import wait_until
from lab.workspace import Workspace

ANSWER_TIMEOUT = 300.0
"""Seconds for a machine to answer by ssh after Vagrant was told to start it; 10 s are usual."""


@dataclass(frozen=True)
class Situation:
    """What was found before anything was done, and so what there is to do.

    `first` is where `kubeadm init` runs, or ran. `joined` are the machines that once joined whole;
    `fresh` is true when no machine has anything of a cluster. `until` is one of STOPS, or "" for the whole.
    """

    first: Node
    joined: frozenset[str] = frozenset()
    fresh: bool = True
    until: str = ""

    def joining(self, lab: Lab) -> tuple[Node, ...]:
        """The control planes besides the first, in the order in which they join."""
        return tuple(node for node in lab.control_planes if node != self.first)

    def newcomers(self, lab: Lab) -> tuple[Node, ...]:
        """The machines besides the first that have yet to join."""
        return tuple(n for n in lab.kubernetes_nodes if n != self.first and n.name not in self.joined)

    @property
    def init_by_hand(self) -> bool:
        """Whether somebody is to do `kubeadm init`, who needs the lab's CA for it."""
        there = self.first.name in self.joined
        return bool(self.until) and "control-plane-init" not in STOPS[self.until] and not there


@dataclass(frozen=True)
class Step:
    """One script of provision/node/, the machines it runs on, and what it comes after."""

    name: str
    title: str
    on: Callable[[Lab, Situation], tuple[Node, ...]]
    after: tuple[str, ...] = ()
    one_at_a_time: bool = False
    secrets: Callable[[Situation], tuple[str, ...]] = field(default=lambda situation: ())
    words: Callable[[Lab, Situation], tuple[str, ...]] = field(default=lambda lab, situation: ())


def _for_kubeadm(situation: Situation) -> tuple[str, ...]:
    """Of a machine's secrets, those that kubeadm's steps need."""
    return ("secrets", "ca.key")


def _first(lab: Lab, situation: Situation) -> tuple[Node, ...]:
    return (situation.first,)


BRING_UP = (
    # HAProxy first: its address is the cluster's, and kubeadm init already speaks through it.
    Step("load-balancer", "HAProxy stands before the API servers", lambda lab, _: lab.balancers),
    # Whatever does not touch membership, everywhere and as early as possible.
    Step(
        "node",
        "names, routes, container runtime",
        lambda lab, _: lab.kubernetes_nodes,
        secrets=lambda s: ("proxy.env", "ca.key") if s.init_by_hand else ("proxy.env",),
    ),
    Step(
        "control-plane-init",
        "kubeadm init",
        _first,
        after=("load-balancer", "node"),
        # Where it is done already, the machines that join a cluster which is up are named to it.
        words=lambda lab, s: (
            *(("--alone",) if s.fresh else ()),
            *(("--by-hand",) if s.until else ()),
            *(node.name for node in s.newcomers(lab)),
        ),
        secrets=_for_kubeadm,
    ),
    Step("pod-network", "the pod network", _first, after=("control-plane-init",)),
    # Workers all at once, beside the control planes: they don't touch etcd's membership.
    Step(
        "worker-join",
        "kubeadm join",
        lambda lab, _: lab.workers,
        after=("control-plane-init", "node"),
        secrets=_for_kubeadm,
    ),
    # Control planes one by one: etcd takes one learner at a time.
    Step(
        "control-plane-join",
        "kubeadm join --control-plane",
        lambda lab, s: s.joining(lab),
        after=("control-plane-init", "node"),
        one_at_a_time=True,
        secrets=_for_kubeadm,
        words=lambda _, situation: ("--ordered", *(("--former",) if situation.joined else ())),
    ),
    Step(
        "ready",
        "all nodes and system pods Ready",
        _first,
        after=("pod-network", "worker-join", "control-plane-join"),
    ),
    # Nothing that could add a machine stays behind.
    Step("revoke", "bootstrap token and uploaded certificates are gone", _first, after=("ready",)),
)

STOPS = {
    "load-balancer": ("node",),
    "control-plane": ("node", "load-balancer"),
    "pod-network": ("node", "load-balancer", "control-plane-init"),
    "joins": ("node", "load-balancer", "control-plane-init", "pod-network"),
}
"""Where `up --until` stops: before the step of that name, having run these; somebody does the rest by hand."""


def require_stop(until: str | None) -> None:
    """Raise ConfigError, naming those there are, unless it is one of STOPS or None for the whole."""
    if until is not None and until not in STOPS:
        what = f"--until {until}: `up` does not stop there" if until else "--until wants a word"
        raise ConfigError([what], hint=f"one of: {', '.join(STOPS)}")


def before(until: str) -> tuple[str, ...]:
    """What `up --until` has done, in words."""
    return tuple(step.title for step in BRING_UP if step.name in STOPS[until])


def bring_up(lab: Lab, workspace: Workspace, remote: Remote, progress: Progress, until: str = "") -> bool:
    """Boot what isn't running, provision it, and return whether anything was changed.

    `until` is where to stop. Raises LabError: the first failure of each step, with its machine and log.
    """
    known = machines.known_to_vagrant(workspace)
    run = credentials.new_run_secrets()
    with ThreadPoolExecutor(max_workers=4 * len(lab.nodes) + 2) as pool:
        booting = None if _all_answer(lab, remote, known) else pool.submit(_boot, workspace, progress)
        answers = {node.name: pool.submit(_machine, node, remote, booting, progress) for node in lab.nodes}
        # Machines made by this very run have nothing on them; others are asked before anything is done.
        try:
            found = _survey(lab, remote, answers) if known else Situation(lab.first)
        except LabError:
            if booting is not None:
                booting.result()  # what Vagrant said comes first
            raise
        situation = replace(found, until=until)
        jobs = _Jobs(lab, workspace, remote, progress, run, situation, answers)
        failures = jobs.carry_out(pool)
        if booting is not None:
            booting.result()
    if failures:
        raise failures[0]
    return booting is not None or jobs.changed


def _all_answer(lab: Lab, remote: Remote, known: bool) -> bool:
    """Whether every machine is there already, which spares asking Vagrant (seconds)."""
    if not known or remote.route_is_ours():
        return False
    return not any(side_by_side("ssh", lab.nodes, remote.unreachable).values())


def _boot(workspace: Workspace, progress: Progress) -> None:
    with progress.step("boot", "vagrant up") as step:
        machines.boot(workspace, step.log)


def _machine(node: Node, remote: Remote, booting: Future[None] | None, progress: Progress) -> None:
    """Wait until a machine can be logged into. Raises what Vagrant said when it failed to boot it."""

    def not_yet() -> str:
        if booting is not None and booting.done() and booting.exception() is not None:
            raise LabStateError(f"{node.name} was not started: Vagrant failed")
        return remote.unreachable(node)

    if booting is None:
        return
    with progress.step("machine", "starts and answers", node.name):
        wait_until(
            not_yet,
            what=f"{node.name} answers by ssh",
            timeout=ANSWER_TIMEOUT * remote.lab.patience,
            interval=0.3,
            hint="`./inv doctor` looks at the host; `./inv destroy` and `./inv up` begin anew",
        )


def _survey(lab: Lab, remote: Remote, answers: dict[str, Future[None]]) -> Situation:
    """Ask every machine what it has of Kubernetes, and so find where the cluster is.

    Raises LabError when one can't be asked.
    """
    # Without every machine's answer nothing may be decided: one that is silent could be the cluster's heart.
    for future in answers.values():
        future.result()

    def ask(node: Node) -> str:
        remote.deliver(node)
        return remote.run(node, ["sudo", "/opt/ha-lab/probe.sh"], timeout=60).stdout.strip()

    found = side_by_side("asking the machines what they have", lab.kubernetes_nodes, ask)
    joined = frozenset(name for name, state in found.items() if state == "joined")
    serving = [node for node in lab.control_planes if node.name in joined]
    # A half-made first control plane is undone only while nobody else belongs to the cluster.
    others = {state for name, state in found.items() if name != lab.first.name}
    fresh = not serving and others <= {"fresh"}
    alone = found[lab.first.name] != "fresh" and others <= {"fresh"}
    return Situation(serving[0] if serving else lab.first, joined, fresh or alone)


class _Jobs:
    """One run of BRING_UP: a future for each step on each machine."""

    def __init__(
        self,
        lab: Lab,
        workspace: Workspace,
        remote: Remote,
        progress: Progress,
        run: RunSecrets,
        situation: Situation,
        answers: dict[str, Future[None]],
    ) -> None:
        """Keep what every job needs."""
        self._lab, self._workspace, self._remote, self._progress = lab, workspace, remote, progress
        self._run, self._situation, self._answers = run, situation, answers
        until = situation.until
        self._steps = tuple(step for step in BRING_UP if not until or step.name in STOPS[until])
        self._futures: dict[str, dict[str, Future[bool]]] = {}
        self.changed = False

    def carry_out(self, pool: ThreadPoolExecutor) -> list[LabError]:
        """Run everything; return one error for each step that failed by itself."""
        delivered = {node.name: pool.submit(self._deliver, node) for node in self._lab.nodes}
        for step in self._steps:
            nodes = step.on(self._lab, self._situation)
            self._futures[step.name] = {}
            previous: Future[bool] | None = None
            for node in nodes:
                needed = [delivered[node.name], *self._needed(step, node)]
                if step.one_at_a_time and previous is not None:
                    needed.append(previous)
                previous = pool.submit(self._do, step, node, needed)
                self._futures[step.name][node.name] = previous
        failures = _own_failures("preparing", delivered)
        for step in self._steps:
            failures += _own_failures(step.title, self._futures[step.name])
        self.changed = any(
            future.exception() is None and future.result()
            for futures in self._futures.values()
            for future in futures.values()
        )
        return failures

    def _needed(self, step: Step, node: Node) -> list[Future[bool]]:
        needed = []
        for name in step.after:
            futures = self._futures[name]
            needed += [futures[node.name]] if node.name in futures else list(futures.values())
        return needed

    def _deliver(self, node: Node) -> bool:
        self._answers[node.name].result()
        self._remote.deliver(node)
        return False

    def _secrets(self, node: Node, names: tuple[str, ...]) -> dict[str, str]:
        key = credentials.ca_key(self._workspace)
        given = credentials.secret_files(node, self._lab, self._run, key)
        return {name: text for name, text in given.items() if name in names}

    def _do(self, step: Step, node: Node, needed: list[Future[bool]]) -> bool:
        wait(needed)
        if any(future.exception() is not None for future in needed):
            raise _Skipped(f"{step.name} on {node.name} was not tried")
        with self._progress.step(step.name, step.title, node.name) as shown:
            words = step.words(self._lab, self._situation)
            needed_secrets = step.secrets(self._situation)
            secrets = self._secrets(node, needed_secrets) if needed_secrets else None
            changed = self._remote.script(node, step.name, words, secrets=secrets, log=shown.log)
            if not changed:
                shown.unchanged()
            return changed


class _Skipped(LabError):
    """A job whose needs failed; the failure itself is what is reported."""


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
    return [NodeFailed(title, own)] if own else []
