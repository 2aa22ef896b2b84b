"""UPGRADE: another Kubernetes version for machines that run, one at a time, while the lab is used.

The order is kubeadm's ("Upgrading kubeadm clusters"), with what that page leaves to you: new connections go to
the other API servers first, sessions get time to end, and etcd's leader is last. Programs and images come from
the new version's golden machine, without a network. Each machine is asked what it runs, so that a run that was
killed is continued by the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence

from lab import providers
from lab.errors import LabError, LabStateError
from lab.golden import payload
from lab.golden.supply.releases import release
from lab.model import Lab, Node
from lab.plans import already, quorum, ready, spare
from lab.plans import script as scripts
from lab.plans.engine import Job, Plan, Step, Stop
from lab.plans.quorum import Problem, Running
from lab.plans.situation import Situation, Upgrade
from lab.remote import RUN, Remote
from lab.workspace import Workspace, made

PAYLOAD = "/opt/ha-lab/payload.sh"
SCRIPT = "/opt/ha-lab/upgrade.sh"

UPGRADED = "upgraded"
"""What SCRIPT prints with --asked on a machine that has the version."""

PAYLOAD_TIMEOUT = 900.0
"""Seconds for a machine to take its payload: up to 700 MB, which all machines get at once."""

SETTLE = 5
"""Seconds until no session of a drained API server is left: HAProxy ends the last ones after four."""

BACK_TIMEOUT = 180.0
"""Seconds until all checks about an upgraded machine pass; most pass at once."""

CONTROL_PLANE_MIB, WORKER_MIB, ETCD_MIB = 700, 350, 350
"""The most that an upgrade puts on a machine, and on this host for each role."""

NAMED = 3
"""How many problems a refusal names."""

_WRITING = threading.Lock()


def problem(lab: Lab, workspace: Workspace, remote: Remote) -> Problem | None:
    """Why an upgrade of the lab as it was made can't begin, and what to do; None if it can."""
    former = f"set kubernetes.version back to {lab.kubernetes.version} in lab.yaml for now"
    states = providers.states(lab, workspace)
    off = [f"{node.name} is {states[node.name]}" for node in lab.nodes if states[node.name] != "running"]
    if off:
        return Problem(
            f"an upgrade begins on a healthy lab, and {', '.join(off)}", f"{former}; then `./inv up` starts it"
        )
    reason = remote.route_problem()
    if reason:
        return Problem(f"an upgrade begins on a healthy lab, and {reason}", f"{former}; then `./inv up`")
    found = already.problems(lab, workspace, remote)
    # A restarting pod or a leader change is soon over.
    again = already.problems(lab, workspace, remote) if found else ()
    wrong = [each for each in again if each in found]
    if not wrong:
        return None
    more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return Problem(
        f"an upgrade begins on a healthy lab: {'; '.join(wrong[:NAMED])}{more}",
        f"`./inv verify` explains the failing checks; {former}, and `./inv up` repairs what it can",
    )


def no_room(lab: Lab, workspace: Workspace) -> Problem | None:
    """Why the disk is too small for what machines get before the first is upgraded: etcd needs some of it.

    None where it is large enough, or the provider can't say it, as with some of docker's storage drivers.
    """
    files = CONTROL_PLANE_MIB * (len(lab.control_planes) + 1) + WORKER_MIB * (len(lab.workers) + 1)
    files += ETCD_MIB * (len(lab.etcd_members) + 1) if lab.external_etcd else 0
    needed = files + providers.SPARE_MIB
    try:
        free = providers.checkpoints_of(lab).room(lab, workspace).free
    except LabError:
        return None
    if free >= needed:
        return None
    return Problem(
        f"an upgrade of these machines needs up to {needed} MiB, and {free} MiB are free where {lab.provider} "
        "keeps machines",
        "`./inv bake --prune` removes old golden machines, and `./inv checkpoints` shows what checkpoints take",
    )


def with_leader_last(machines: Sequence[Node], running: Running) -> tuple[Node, ...]:
    """The order in which control planes, or etcd machines, are upgraded."""
    return tuple(sorted(machines, key=lambda node: node.name == running.leader))


def with_old_etcd(members: Sequence[Node], running: Running, version: str) -> tuple[Node, ...]:
    """The machines whose etcd has to be upgraded before that of this Kubernetes version may join it."""
    oldest = _numbers(release(version).etcd_from)
    return tuple(
        node
        for node in members
        if node.name in running.versions and _numbers(running.versions[node.name]) < oldest
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _upgrade(situation: Situation) -> Upgrade:
    assert situation.upgrade is not None
    return situation.upgrade


def _machines(lab: Lab, situation: Situation) -> Sequence[Node]:
    return (*_upgrade(situation).etcd, *_upgrade(situation).control_planes, *_upgrade(situation).workers)


def _etcd(lab: Lab, situation: Situation) -> Sequence[Node]:
    return _upgrade(situation).etcd


def _control_planes(lab: Lab, situation: Situation) -> Sequence[Node]:
    return _upgrade(situation).control_planes


def _workers(lab: Lab, situation: Situation) -> Sequence[Node]:
    return _upgrade(situation).workers


def _etcd_alone(lab: Lab, situation: Situation) -> Sequence[Node]:
    return _upgrade(situation).etcd_alone


def _take_payload(job: Job) -> bool:
    upgrade = _upgrade(job.context.situation)
    return _take(job, upgrade.lab, upgrade.golden, upgrade.lab.kubernetes.version)


def _take_etcd_payload(job: Job) -> bool:
    context = job.context
    upgrade = _upgrade(context.situation)
    assert upgrade.etcd_lab is not None
    tag = release(upgrade.etcd_lab.kubernetes.version).etcd_tag
    if has_etcd(context.remote, job.node, tag):
        return False  # that golden machine need not exist any more
    return _take(job, upgrade.etcd_lab, upgrade.etcd_golden, f"etcd-{tag}", only=f"/etcd:{tag}")


def has_etcd(remote: Remote, node: Node, tag: str) -> bool:
    """Whether a machine has etcd's image with that tag, whether or not it runs it."""
    return any(line.endswith(f"/etcd:{tag}") for line in _present(remote, node, f"etcd-{tag}"))


def _present(remote: Remote, node: Node, name: str) -> list[str]:
    return remote.run(node, ["sudo", PAYLOAD, "--present", name], timeout=60).stdout.splitlines()


def _take(job: Job, lab: Lab, golden: str, name: str, only: str = "") -> bool:
    """Give a machine the programs and images that it lacks; `only` images whose names end so."""
    context, node = job.context, job.node
    there = _present(context.remote, node, name)
    with _WRITING:  # machines of one role lack the same
        known = [each for each in payload.images(lab, golden) if each.name.endswith(only)]
        lacks = payload.missing(node, known, (line.removeprefix("image ") for line in there))
        if not lacks and "program" in there:
            return False
        mark = hashlib.sha256(" ".join([golden, *(each.name for each in lacks)]).encode()).hexdigest()[:12]
        archive = context.workspace.payloads / f"{mark}.tar"
        if not archive.exists():
            job.shown.note = f"taken from {golden}"
            payload.write(lab, golden, lacks, archive)
    job.shown.note = f"{archive.stat().st_size // 2**20} MiB"
    command = ["sudo", "env", f"HA_LAB_RUN={RUN}", PAYLOAD, name, *(each.name for each in lacks)]
    # The lab is in use: six payloads at full speed left API servers too little CPU time for HAProxy's checks.
    context.remote.run(node, command, source=archive, timeout=PAYLOAD_TIMEOUT, log=job.log, gently=True)
    return True


def _remove_archives(job: Job) -> bool:
    shutil.rmtree(job.context.workspace.payloads, ignore_errors=True)
    return False


def _begin(job: Job) -> bool:
    version = _upgrade(job.context.situation).lab.kubernetes.version
    made.update(job.context.workspace, lambda record: record.with_upgrading(version))
    return False


def _upgrade_etcd(job: Job) -> bool:
    upgrade = _upgrade(job.context.situation)
    assert upgrade.etcd_lab is not None
    tag = release(upgrade.etcd_lab.kubernetes.version).etcd_tag
    with _spared(job):
        return scripts.run(job, "upgrade", job.node, words=("--etcd", tag))


def _require_etcd(job: Job) -> bool:
    context = job.context
    upgrade = _upgrade(context.situation)
    version = upgrade.lab.kubernetes.version
    running = quorum.Running("", {})

    def why_unknown() -> str | None:
        nonlocal running
        running = quorum.running(context.lab, context.remote)
        silent = [node.name for node in upgrade.members if node.name not in running.versions]
        return f"no answer of etcd on {', '.join(silent)}" if silent else None

    job.wait_until(
        why_unknown,
        what="all of etcd's members to tell their version",
        timeout=BACK_TIMEOUT,
        hint="`./inv verify` explains the failing checks; `./inv up` continues",
    )
    old = with_old_etcd(context.lab.etcd_members, running, version)
    if old:
        said = ", ".join(f"{node.name} runs etcd {running.versions[node.name]}" for node in old)
        raise LabStateError(
            f"the etcd of Kubernetes {version} can't join members before {release(version).etcd_from}: {said}",
            hint="`./inv up` upgrades etcd first",
        )
    return False


def _upgrade_machine(job: Job) -> bool:
    context, node = job.context, job.node
    upgrade = _upgrade(context.situation)
    version = upgrade.lab.kubernetes.version
    asked = (version, release(version).etcd_tag)
    words = (*asked, *(("--plain",) if upgrade.plain else ()))
    helper = next((each for each in context.lab.control_planes if each != node), node)
    changed = False
    if not _is_upgraded(job, asked):
        with _spared(job):
            job.shown.note = "its pods are evicted"
            scripts.run(job, "drain", helper, words=(node.name,))
            job.shown.note = f"to {version}"
            changed = scripts.run(job, "upgrade", node, words=words)
    changed = scripts.run(job, "drain", helper, words=(node.name, "--undo")) or changed
    made.update(context.workspace, lambda record: record.upgraded(node.name, upgrade.golden))
    return changed


def _upgrade_etcd_machine(job: Job) -> bool:
    """The same of an etcd machine, which runs no pods of the cluster."""
    node, upgrade = job.node, _upgrade(job.context.situation)
    words = (upgrade.lab.kubernetes.version, release(upgrade.lab.kubernetes.version).etcd_tag)
    changed = False
    if not _is_upgraded(job, words):
        with _spared(job):
            changed = scripts.run(job, "upgrade", node, words=words)
    made.update(job.context.workspace, lambda record: record.upgraded(node.name, upgrade.golden))
    return changed


def _is_upgraded(job: Job, words: Sequence[str]) -> bool:
    """Whether a machine has the new version, by an earlier run or manually, and is well."""
    asked = ["sudo", SCRIPT, "--asked", *words]
    said = job.context.remote.run(job.node, asked, timeout=60, accept=None).stdout
    return said.strip() == UPGRADED and ready.why_not_well(job.context, job.node, drained=False) is None


@contextlib.contextmanager
def _spared(job: Job) -> Iterator[None]:
    """Let a machine have no load while inside, as far as others can take it; then wait until it is back."""
    context, node = job.context, job.node
    plain = _upgrade(context.situation).plain
    alike = context.lab.control_planes if node.spec.serves_api else context.lab.etcd_members
    if node in alike and len(alike) > 1 and not plain:
        spare.wait_for_majority(job)
        job.shown.note = "HAProxy drains it" if node.spec.serves_api else ""
        with spare.drained(job, SETTLE):
            yield
            _wait_until_back(job, drained=True)
    else:
        yield
    # kubeadm's page asks no load balancer whether it uses this machine again before the next one.
    _wait_until_back(job, drained=plain)


def _wait_until_back(job: Job, *, drained: bool) -> None:
    job.wait_until(
        lambda: ready.why_not_well(job.context, job.node, drained=drained),
        what=f"{job.node.name} to be back with its new version",
        timeout=BACK_TIMEOUT,
        hint="`./inv verify` explains the failing checks; `./inv up` continues",
    )


def _complete(job: Job) -> bool:
    made.update(job.context.workspace, lambda record: record.with_version())
    return False


_ETCD_PAYLOAD = Step("etcd-payload", "the image of etcd in between", _take_etcd_payload, _etcd_alone)
_REMOVE_ARCHIVES = Step(
    "payload-archives", "remove the archives", _remove_archives, after=("payload", "etcd-payload")
)
_ETCD = Step(
    "upgrade-etcd",
    "etcd, before the new version's",
    _upgrade_etcd,
    _etcd_alone,
    after=("upgrade-begins",),
    one_at_a_time=True,
    stop=Stop("upgrade-control-planes", "the upgrade of control planes and workers"),
)

UPGRADE: Plan = (
    # Nothing that runs is touched: programs are kept aside, and images are beside the others. All machines need
    # them before the first is upgraded, since pods of the new kube-proxy and CoreDNS start on every one.
    Step("payload", "programs and images of the new version", _take_payload, _machines),
    _ETCD_PAYLOAD,
    _REMOVE_ARCHIVES,
    # From here on there is no way back but a checkpoint.
    Step(
        "upgrade-begins",
        "the upgrade begins",
        _begin,
        after=("payload", "etcd-payload"),
    ),
    # etcd first where the new version's etcd can't join members as old as these.
    _ETCD,
    # Once for the lab, so that no control plane is upgraded before all of etcd is ready for it.
    Step(
        "etcd-ready",
        "all of etcd is ready for the new version",
        _require_etcd,
        after=("upgrade-begins", "upgrade-etcd"),
    ),
    # etcd machines, one by one, before the API servers that are tested with that etcd.
    Step(
        "upgrade-etcd-machine",
        "etcd, and the kubelet",
        _upgrade_etcd_machine,
        _etcd,
        after=("etcd-ready",),
        one_at_a_time=True,
    ),
    # One by one, each back with its checks before the next, so that etcd and the API keep all others.
    Step(
        "upgrade-control-plane",
        "kubeadm upgrade, and the kubelet",
        _upgrade_machine,
        _control_planes,
        after=("etcd-ready", "upgrade-etcd-machine"),
        one_at_a_time=True,
    ),
    # Kubelets must not be newer than the API servers, so workers are last.
    Step(
        "upgrade-worker",
        "kubeadm upgrade, and the kubelet",
        _upgrade_machine,
        _workers,
        after=("etcd-ready", "upgrade-control-plane"),
        one_at_a_time=True,
        stop=Stop("upgrade-workers", "the upgrade of workers"),
    ),
    Step(
        "upgrade-complete",
        "all machines have the new version",
        _complete,
        after=("etcd-ready", "upgrade-etcd-machine", "upgrade-control-plane", "upgrade-worker"),
    ),
)

ETCD_IMAGE: Plan = (_ETCD_PAYLOAD, _REMOVE_ARCHIVES)
ETCD_ALONE: Plan = (dataclasses.replace(_ETCD, title="etcd, with another version"),)
"""What gives etcd alone another version, one after the other: first its image, then its members."""

STOPS: dict[str, Stop] = {step.stop.name: step.stop for step in UPGRADE if step.stop}
"""Where `up --until` can stop in an upgrade, in order: before the step of that name."""


def before(until: str) -> Plan:
    """The steps of UPGRADE before a stop; all of them for ""."""
    stops = [index for index, step in enumerate(UPGRADE) if until and step.stop and step.stop.name == until]
    return UPGRADE[: stops[0]] if stops else UPGRADE
