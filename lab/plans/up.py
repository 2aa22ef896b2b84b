"""UP: from any state of a lab to all nodes Ready behind HAProxy. This list is the complete order.

START is its beginning, which needs no knowledge of the cluster. What follows depends on the machines' state
(`lab.plans.situation`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from lab import providers
from lab.errors import ConfigError, LabStateError, WaitTimedOut
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.plans import ready, renew, upgrade
from lab.plans.engine import Job, Plan, Step, Stop
from lab.plans.script import script
from lab.plans.situation import Situation, from_nothing
from lab.workspace import kubeconfig

ANSWER_TIMEOUT = 300.0
"""Seconds until a machine responds to ssh after it was started; 10 s are usual."""

SHUTDOWN_TIMEOUT = 120.0
"""Seconds until a machine that is shutting down has stopped: up to 45 on a busy host."""

KUBEADM_SECRETS = ("secrets", "ca.key", "etcd-ca.key")
"""The secrets that kubeadm's steps need; those that a lab has."""


CA_KEYS = KUBEADM_SECRETS[1:]
"""Those that a manual `kubeadm init` needs."""


def _boot(job: Job) -> bool:
    context = job.context
    states = providers.states(context.lab, context.workspace)
    off = [node for node in context.situation.off if states[node.name] != "running"]
    for node in off:
        providers.resume(context.lab, node)
    # Existing machines are started without Vagrant, which takes seconds for each machine.
    providers.power_on(context.lab, [node for node in off if states[node.name] == "stopped"])
    missing = [node.name for node in off if states[node.name] in ("absent", "incomplete")]
    if missing:
        providers.boot(context.workspace, job.log, missing)
    _start_what_goes_down(job, [node for node in context.situation.off if node not in off])
    return True


def _start_what_goes_down(job: Job, silent: list[Node]) -> None:
    """Start machines that a killed `stop` is still shutting down, once they have stopped."""
    context = job.context

    def why_not() -> str | None:
        states = providers.states(context.lab, context.workspace)
        stopped = [node for node in silent if states[node.name] == "stopped"]
        if stopped:
            providers.power_on(context.lab, stopped)
        silent[:] = [n for n in silent if n not in stopped and context.remote.why_not_reachable(n)]
        return ", ".join(node.name for node in silent) or None

    if silent:
        with contextlib.suppress(WaitTimedOut):  # the step that waits for them reports more
            job.wait_until(
                why_not,
                what="running machines that do not respond to stop or to respond",
                timeout=SHUTDOWN_TIMEOUT,
                interval=1.0,
            )


def _answers(job: Job) -> bool:
    def why_not() -> str | None:
        if job.failed("boot"):
            raise LabStateError(f"{job.node.name} was not started: creating the machines failed")
        remote = job.context.remote
        return (
            "its network does not exist yet" if remote.route_problem() else remote.why_not_reachable(job.node)
        )

    job.wait_until(
        why_not,
        what=f"{job.node.name} to answer by ssh",
        timeout=ANSWER_TIMEOUT,
        interval=0.3,
        hint=f"`./inv doctor` checks the host; `./inv replace {job.node.name}` creates this machine again",
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
    """What is done instead of `kubeadm init` if that was done before."""
    if situation.first.name not in situation.joined:
        return None
    return "join token and certificate key" if situation.newcomers(lab) else "the cluster is initialised"


def _where_all_exist(title: str) -> Callable[[Lab, Situation], str | None]:
    """This title if no machine has to be created, since starting one is much faster."""
    return lambda lab, situation: None if situation.absent else title


START: Plan = (
    # Creates missing machines and starts stopped ones, all at once.
    Step("boot", "create and start machines", _boot, retitled=_where_all_exist("start machines")),
    # In parallel, as each machine responds long before Vagrant has finished all.
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
    # Everything that does not touch membership, on all machines and as early as possible.
    script(
        "node",
        "names, routes, container runtime",
        lambda lab, _: lab.cluster_machines,
        after=("deliver",),
        secrets=lambda situation: ("proxy.env", *(CA_KEYS if _init_is_manual(situation) else ())),
    ),
    # Where etcd has machines of its own, it is there before the first API server. All at once: members answer
    # once they have a majority.
    script(
        "etcd",
        "etcd on machines of its own",
        lambda lab, _: etcd_machines(lab),
        after=("node",),
        secrets=lambda _: ("etcd-ca.key",),
        words=lambda lab, situation, _: ("--existing",) if situation.etcd_exists(lab) else (),
    ),
    # HAProxy before kubeadm: its address is the API's, and kubeadm init already uses it. Of two, the one that
    # has the address is configured once the other one runs with the same configuration.
    script(
        "load-balancer",
        "HAProxy in front of the API servers",
        lambda lab, situation: lab.standby_first(situation.holding),
        after=("deliver",),
        one_at_a_time=True,
        stop=Stop("load-balancer", "HAProxy", task=3),
    ),
    # In a running cluster this step creates the join token, and makes joining machines' names known.
    script(
        "control-plane-init",
        "kubeadm init",
        _first,
        after=("load-balancer", "node", "etcd"),
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
    # From here on the host uses the API itself.
    Step(
        "kubeconfig", "the administrator's kubeconfig", _fetch_kubeconfig, _first, after=("control-plane-init",)
    ),
    # Workers all at once, in parallel with the control planes: they don't touch etcd's membership.
    script(
        "worker-join",
        "kubeadm join",
        lambda lab, _: lab.workers,
        after=("control-plane-init", "node"),
        secrets=lambda _: KUBEADM_SECRETS,
        stop=Stop("joins", "the joins", task=6),
    ),
    # Control planes one by one where each brings a member, since etcd takes one learner at a time (etcd,
    # "Learner"). Otherwise all at once (kubernetes.io, "Creating Highly Available Clusters with kubeadm").
    script(
        "control-plane-join",
        "kubeadm join --control-plane",
        lambda lab, situation: situation.joining(lab),
        after=("control-plane-init", "node"),
        one_at_a_time=lambda lab: not lab.external_etcd,
        secrets=lambda _: KUBEADM_SECRETS,
        words=lambda lab, situation, _: ("--ordered", *(("--former",) if situation.joined else ())),
    ),
    # Beside the joins: their pods start on the first nodes that there are.
    script("addons", "add-ons", _first, after=("pod-network",)),
    # After all joins, since restarting a member would disturb a learner: the first of them, which does not join
    # itself, waits for all. Control planes that have just joined have new certificates.
    renew.step(
        lambda lab, situation: [
            node
            for node in (*etcd_machines(lab), situation.first, *situation.joining(lab))
            if node.name in situation.joined
        ],
        after=("kubeconfig", "etcd", "control-plane-init", "control-plane-join"),
    ),
    Step(
        "nodes-ready",
        "all nodes are Ready",
        ready.wait_for_nodes,
        after=("kubeconfig", "pod-network", "worker-join", "control-plane-join", "renew-certificates"),
    ),
    # kube-router leaves its rules behind, and they still deny.
    script(
        "policy-rules",
        "no rules of kube-router are left",
        lambda lab, _: lab.kubernetes_nodes if lab.network.policy == "none" else (),
        after=("nodes-ready",),
    ),
    # Those checks of `verify` that need only the API.
    Step("pods-ready", "all system pods are Ready", ready.wait_for_pods, after=("nodes-ready",)),
    # Each kubelet asks for its serving certificate once it has its Node; kubectl logs and exec need it.
    script("kubelet-certificates", "kubelets' serving certificates", _first, after=("nodes-ready",)),
    # Remove all credentials that could add a machine. Until then `plan` expects kubelets to lack certificates.
    script(
        "revoke",
        "bootstrap token and uploaded certificates are gone",
        _first,
        after=("pods-ready", "kubelet-certificates"),
    ),
    # The remaining checks, which need answers from the machines.
    Step(
        "healthy",
        "the lab is healthy",
        ready.wait_for_health,
        after=("kubelet-certificates", "addons", "revoke", "policy-rules"),
    ),
)


def _init_is_manual(situation: Situation) -> bool:
    """Whether you run `kubeadm init` manually, which needs the lab's CA on that machine."""
    there = situation.first.name in situation.joined
    return bool(situation.until) and "control-plane-init" not in names(before(situation.until)) and not there


STOPS: dict[str, Stop] = {step.stop.name: step.stop for step in UP if step.stop}
"""Where `up --until` can stop, in order: before the step of that name; you do the rest manually."""


def require_stop(until: str | None) -> None:
    """Raise ConfigError, with the possible stops, unless `up` knows it, or it is None for everything."""
    if until is not None and until not in {**STOPS, **upgrade.STOPS}:
        what = f"--until {until}: `up` does not stop there" if until else "--until needs the name of a stop"
        raise ConfigError([what], hint=f"one of: {', '.join((*STOPS, *upgrade.STOPS))}")


def before(until: str) -> Plan:
    """The steps of UP before a stop; all of them for ""."""
    stops = [index for index, step in enumerate(UP) if until and step.stop and step.stop.name == until]
    return UP[: stops[0]] if stops else UP


def left(until: str) -> str:
    """What is left to do from a stop on, as a phrase."""
    rest = [stop.remaining for stop in list(STOPS.values())[list(STOPS).index(until) :]]
    return ", ".join(rest)


def names(plan: Plan) -> tuple[str, ...]:
    """The names of a plan's steps."""
    return tuple(step.name for step in plan)


def provisioners(lab: Lab, node: Node) -> tuple[str, ...]:
    """The scripts that a bare `vagrant up` runs on a machine, in order: those of UP for a new lab."""
    nothing = from_nothing(lab)
    return tuple(step.name for step in UP if step.script and step.on and node in step.on(lab, nothing))
