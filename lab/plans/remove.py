"""REMOVE: removes machines from a running lab, whether or not they still respond.

The order is kubeadm's ("Clean up" in "Creating a cluster with kubeadm", `kubeadm reset`), with HAProxy first:
no new connection goes to an API server that is about to stop. A machine is drained; its etcd member and its
Node are removed while the others have quorum; the machine is removed last. Until its etcd member or Node is
removed, the removal can be undone: the next `up` restores the machine (`control-plane-init.sh`, `node.sh`).
"""

from __future__ import annotations

from collections.abc import Sequence

from lab import providers
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.plans import script as scripts
from lab.plans.engine import Job, Plan, Step
from lab.plans.situation import Situation
from lab.workspace import made as made_record


def _balancers(lab: Lab, situation: Situation) -> Sequence[Node]:
    if not any(node.spec.serves_api for node in _kubernetes(lab, situation)):
        return []
    return _staying_balancers(lab, situation)


def _kubernetes(lab: Lab, situation: Situation) -> Sequence[Node]:
    if situation.first.name not in situation.joined:
        return []  # no cluster exists that they could have joined
    return [node for node in situation.leaving if node.spec.runs_kubelet]


def _etcd_machines(lab: Lab, situation: Situation) -> Sequence[Node]:
    """The leaving etcd machines, if one of those that stay can remove their members."""
    if not situation.etcd_exists(lab) or _keeper(lab, situation) is None:
        return []
    return [node for node in situation.leaving if not node.spec.runs_kubelet and node.spec.etcd_member]


def _keeper(lab: Lab, situation: Situation) -> Node | None:
    """An etcd machine that stays."""
    stay = [node for node in etcd_machines(lab) if node in situation.machines and node.name in situation.joined]
    return next(iter(stay), None)


def _members(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [*_etcd_machines(lab, situation), *_kubernetes(lab, situation)]


def _answering(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in _kubernetes(lab, situation) if node.name not in situation.silent]


def _answering_api_servers(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in _answering(lab, situation) if node.spec.serves_api]


def _leaving(lab: Lab, situation: Situation) -> Sequence[Node]:
    return situation.leaving


def _staying_balancers(lab: Lab, situation: Situation) -> Sequence[Node]:
    leaving = {node.name for node in situation.leaving}
    return [node for node in lab.balancers if node.name not in leaving]


def _answering_pair(lab: Lab, situation: Situation) -> Sequence[Node]:
    """The leaving load balancers that another one can take the API's address from."""
    if not lab.pair or not _staying_balancers(lab, situation):
        return []
    return [n for n in situation.leaving if n.spec.balances and n.name not in situation.silent]


def _scripted(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [*_answering(lab, situation), *_answering_pair(lab, situation)]


def _deliver(job: Job) -> bool:
    job.context.remote.deliver(job.node)
    return False


def _drain_haproxy(job: Job) -> bool:
    leaving = [node.name for node in job.context.situation.leaving if node.spec.serves_api]
    return scripts.run(job, "load-balancer", job.node, words=("--drain", *leaving))


def _give_up_address(job: Job) -> bool:
    """The other one may not run, as after an interrupted removal; then nobody would take the address."""
    for balancer in _staying_balancers(job.context.lab, job.context.situation):
        scripts.run(job, "load-balancer", balancer)
    return scripts.run(job, "give-up-address", job.node)


def _drain(job: Job) -> bool:
    return scripts.run(job, "drain", job.context.situation.first, words=(job.node.name,))


def _stop_api_server(job: Job) -> bool:
    return scripts.run(job, "leave", job.node)


def _forget(job: Job) -> bool:
    made_record.update(job.context.workspace, lambda made: made.with_leaving(job.node.name))
    return _forgotten(job, node_only=not job.context.lab.is_etcd_member(job.node))


def _forgotten(job: Job, *, node_only: bool) -> bool:
    node, context = job.node, job.context
    words = ("--node-only", node.name) if node_only else (node.name, str(node.address))
    from_there = context.situation.first
    if not node.spec.runs_kubelet:
        keeper = _keeper(context.lab, context.situation)
        assert keeper is not None
        from_there = keeper
    return scripts.run(job, "remove-member", from_there, words=words)


def _remove(job: Job) -> bool:
    context, node = job.context, job.node
    made = made_record.update(context.workspace, lambda made: made.with_leaving(node.name))
    providers.remove_machines(made.lab, context.workspace, [node.name], job.log)
    if node in _kubernetes(context.lab, context.situation):
        # A kubelet that was restarted after its Node was deleted has registered it again.
        _forgotten(job, node_only=True)
    made_record.update(context.workspace, lambda made: made.without(node.name, context.lab.node(node.name)))
    return True


REMOVE: Plan = (
    # Leaving machines need this checkout's scripts, too.
    Step("deliver", "scripts and configuration", _deliver, _scripted),
    # Of two load balancers the other one takes the address now, and not when this one is missed.
    Step(
        "give-up-address",
        "the API's address moves to the other load balancer",
        _give_up_address,
        _answering_pair,
        after=("deliver",),
    ),
    # New connections go to the other servers; open ones stay.
    Step("drain-haproxy", "HAProxy drains the leaving API servers", _drain_haproxy, _balancers),
    # One by one: evicted pods start on the remaining machines.
    Step("drain", "drain", _drain, _answering, after=("drain-haproxy",), one_at_a_time=True),
    # The API server finishes its requests and closes its connections, so that clients reconnect elsewhere.
    Step("leave", "the API server stops", _stop_api_server, _answering_api_servers, after=("deliver", "drain")),
    # Only while the remaining etcd members have a quorum.
    Step(
        "forget",
        "leaves etcd and the cluster",
        _forget,
        _members,
        after=("drain", "leave"),
        one_at_a_time=True,
    ),
    # Last, when nothing in the cluster needs the machine.
    Step(
        "remove",
        "the machine is removed",
        _remove,
        _leaving,
        after=("forget", "drain-haproxy", "give-up-address"),
        one_at_a_time=True,
    ),
)
