"""UP: from any state of a lab to all nodes Ready behind HAProxy. This list is the complete order.

START is its beginning, for which nothing need be known of the cluster. What follows depends on what the
machines have (`lab.plans.situation`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from lab import providers
from lab.errors import ConfigError, LabStateError, WaitTimedOut
from lab.model import Lab, Node
from lab.plans import ready
from lab.plans.engine import Job, Plan, Step, Stop
from lab.plans.script import script
from lab.plans.situation import Situation, from_nothing
from lab.workspace import kubeconfig

ANSWER_TIMEOUT = 300.0
"""Seconds for a machine to answer by ssh after it was started; 10 s are usual."""

SHUTDOWN_TIMEOUT = 120.0
"""Seconds for a machine that is shutting down to have stopped: 45 were seen on a busy host."""

KUBEADM_SECRETS = ("secrets", "ca.key")
"""Of a machine's secrets, those that kubeadm's steps need."""


def _boot(job: Job) -> bool:
    context = job.context
    states = providers.states(context.lab, context.workspace)
    off = [node for node in context.situation.off if states[node.name] != "running"]
    for node in off:
        providers.resume(context.lab, node)
    # What exists needs no Vagrant, which takes seconds for each machine that it looks at.
    providers.power_on(context.lab, [node for node in off if states[node.name] == "stopped"])
    missing = [node.name for node in off if states[node.name] in ("absent", "incomplete")]
    if missing:
        providers.boot(context.workspace, job.log, missing)
    _start_what_goes_down(job, [node for node in context.situation.off if node not in off])
    return True


def _start_what_goes_down(job: Job, silent: list[Node]) -> None:
    """Start silent machines that ran, once they stop: a `stop` that was killed goes on shutting them down."""
    context = job.context

    def why_not() -> str | None:
        states = providers.states(context.lab, context.workspace)
        stopped = [node for node in silent if states[node.name] == "stopped"]
        if stopped:
            providers.power_on(context.lab, stopped)
        silent[:] = [n for n in silent if n not in stopped and context.remote.why_not_reachable(n)]
        return ", ".join(node.name for node in silent) or None

    if silent:
        with contextlib.suppress(WaitTimedOut):  # the step that waits for an answer says more
            job.wait_until(
                why_not,
                what="machines that run and do not answer to stop or to answer",
                timeout=SHUTDOWN_TIMEOUT,
                interval=1.0,
            )


def _answers(job: Job) -> bool:
    def why_not() -> str | None:
        if job.failed("boot"):
            raise LabStateError(f"{job.node.name} was not started: making the machines failed")
        remote = job.context.remote
        return "its network is not made yet" if remote.route_problem() else remote.why_not_reachable(job.node)

    job.wait_until(
        why_not,
        what=f"{job.node.name} to answer by ssh",
        timeout=ANSWER_TIMEOUT,
        interval=0.3,
        hint=f"`./inv doctor` looks at the host; `./inv replace {job.node.name}` makes this machine again",
    )
    return True


def _deliver(job: Job) -> bool:
    job.context.remote.deliver(job.node)
    return False


def _fetch_kubeconfig(job: Job) -> bool:
    kubeconfig.fetch(job.context.lab, job.context.workspace, job.context.remote, job.node)
    return False


def _machines(lab: Lab, situation: Situation) -> Sequence[Node]:
    return situation.machines


def _off(lab: Lab, situation: Situation) -> Sequence[Node]:
    return situation.off


def _first(lab: Lab, situation: Situation) -> Sequence[Node]:
    return (situation.first,)


def _cluster_exists(lab: Lab, situation: Situation) -> str | None:
    """What is done in the place of `kubeadm init` where that was done before."""
    if situation.first.name not in situation.joined:
        return None
    return "join token and certificate key" if situation.newcomers(lab) else "the cluster is initialised"


def _where_all_exist(title: str) -> Callable[[Lab, Situation], str | None]:
    """This title where no machine has to be made: starting one is much quicker."""
    return lambda lab, situation: None if situation.absent else title


START: Plan = (
    # Makes machines that are missing and starts those that are off, all at once.
    Step("boot", "make and start machines", _boot, retitled=_where_all_exist("start machines")),
    # Beside it, as each machine answers by itself long before Vagrant is done with all.
    Step(
        "machine",
        "starts and answers",
        _answers,
        _off,
        retitled=_where_all_exist("starts again and answers"),
    ),
    # This checkout's scripts and configuration, at /opt/ha-lab.
    Step("deliver", "scripts and configuration", _deliver, _machines, after=("machine",)),
)

UP: Plan = (
    *START,
    # Whatever does not touch membership, everywhere and as early as possible.
    script(
        "node",
        "names, routes, container runtime",
        lambda lab, _: lab.kubernetes_nodes,
        after=("deliver",),
        secrets=lambda situation: ("proxy.env", "ca.key") if _init_by_hand(situation) else ("proxy.env",),
    ),
    # HAProxy before kubeadm: its address is the cluster's, and kubeadm init already speaks through it.
    script(
        "load-balancer",
        "HAProxy in front of the API servers",
        lambda lab, _: lab.balancers,
        after=("deliver",),
        stop=Stop("load-balancer", "HAProxy", task=3),
    ),
    # Where it is done already, the machines that join a cluster which is up are named to it.
    script(
        "control-plane-init",
        "kubeadm init",
        _first,
        after=("load-balancer", "node"),
        words=lambda lab, situation, _: (
            *(("--alone",) if situation.alone else ()),
            *(("--by-hand",) if situation.until else ()),
            *(node.name for node in situation.newcomers(lab)),
        ),
        secrets=lambda _: KUBEADM_SECRETS,
        stop=Stop("control-plane", "kubeadm init", task=4),
        retitled=_cluster_exists,
    ),
    script(
        "pod-network",
        "the pod network",
        _first,
        after=("control-plane-init",),
        stop=Stop("pod-network", "the pod network", task=6),
    ),
    # The host asks the API itself from here on.
    Step(
        "kubeconfig", "the administrator's kubeconfig", _fetch_kubeconfig, _first, after=("control-plane-init",)
    ),
    # Workers all at once, beside the control planes: they don't touch etcd's membership.
    script(
        "worker-join",
        "kubeadm join",
        lambda lab, _: lab.workers,
        after=("control-plane-init", "node"),
        secrets=lambda _: KUBEADM_SECRETS,
        stop=Stop("joins", "the joins", task=6),
    ),
    # Control planes one by one: etcd takes one learner at a time (etcd, "Learner").
    script(
        "control-plane-join",
        "kubeadm join --control-plane",
        lambda lab, situation: situation.joining(lab),
        after=("control-plane-init", "node"),
        one_at_a_time=True,
        secrets=lambda _: KUBEADM_SECRETS,
        words=lambda lab, situation, _: ("--ordered", *(("--former",) if situation.joined else ())),
    ),
    # Beside the joins: their pods start on the first nodes that there are.
    script("addons", "add-ons", _first, after=("pod-network",)),
    Step(
        "nodes-ready",
        "all nodes are Ready",
        ready.wait_for_nodes,
        after=("kubeconfig", "pod-network", "worker-join", "control-plane-join"),
    ),
    # kube-router leaves its rules behind, and they go on denying.
    script(
        "policy-rules",
        "no rules of kube-router are left",
        lambda lab, _: lab.kubernetes_nodes if lab.network.policy == "none" else (),
        after=("nodes-ready",),
    ),
    # The checks that verify judges, as far as the API answers them.
    Step("pods-ready", "all system pods are Ready", ready.wait_for_pods, after=("nodes-ready",)),
    # Each kubelet asks for its serving certificate once it has its Node; kubectl logs and exec need it.
    script("kubelet-certificates", "kubelets' serving certificates", _first, after=("nodes-ready",)),
    # Nothing that could add a machine stays behind.
    script("revoke", "bootstrap token and uploaded certificates are gone", _first, after=("pods-ready",)),
    # And those that the machines answer themselves.
    Step(
        "healthy",
        "the lab is healthy",
        ready.wait_for_health,
        after=("kubelet-certificates", "addons", "revoke", "policy-rules"),
    ),
)


def _init_by_hand(situation: Situation) -> bool:
    """Whether `kubeadm init` is to be typed in, which needs the lab's CA on that machine."""
    there = situation.first.name in situation.joined
    return bool(situation.until) and "control-plane-init" not in names(before(situation.until)) and not there


STOPS: dict[str, Stop] = {step.stop.name: step.stop for step in UP if step.stop}
"""Where `up --until` stops, in order: before the step of that name; the rest is done manually."""


def require_stop(until: str | None) -> None:
    """Raise ConfigError, naming those there are, unless it is one of STOPS, or None for all of UP."""
    if until is not None and until not in STOPS:
        what = f"--until {until}: `up` does not stop there" if until else "--until needs the name of a stop"
        raise ConfigError([what], hint=f"one of: {', '.join(STOPS)}")


def before(until: str) -> Plan:
    """The steps of UP before a stop; all of them where it is ""."""
    stops = [index for index, step in enumerate(UP) if until and step.stop and step.stop.name == until]
    return UP[: stops[0]] if stops else UP


def left(until: str) -> str:
    """What is left to do from a stop on, in words."""
    rest = [stop.by_hand for stop in list(STOPS.values())[list(STOPS).index(until) :]]
    return ", ".join(rest)


def names(plan: Plan) -> tuple[str, ...]:
    """The names of a plan's steps."""
    return tuple(step.name for step in plan)


def provisioners(lab: Lab, node: Node) -> tuple[str, ...]:
    """The scripts that a bare `vagrant up` runs on a machine, in order: those of UP from nothing."""
    nothing = from_nothing(lab)
    return tuple(step.name for step in UP if step.script and step.on and node in step.on(lab, nothing))
