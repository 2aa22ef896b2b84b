"""RECOVER: restores etcd on all of its members from one backup, and starts what uses it, in order.

The order is that of kubernetes.io ("Restoring an etcd cluster") and etcd ("Disaster recovery"). All API servers
and members stop before the first member is restored, since an API server without its etcd keeps answering from
its cache. All members are restored from one snapshot into one new cluster, each with its own name and address,
and they form it before the first API server starts. Kubelets, which watch through API servers, restart last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.errors import LabError, LabStateError
from lab.health.facts.gather import ask_machine
from lab.health.facts.machine import Machine
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.plans import script as scripts
from lab.plans.engine import Job, Plan, Step
from lab.plans.situation import Situation, Source
from lab.remote import SILENT_SSH, Remote, side_by_side
from lab.unknown import CouldNotAsk
from lab.workspace import backup
from lab.workspace.render import credentials, initial_cluster, peer

SCRIPT = "/opt/ha-lab/recover.sh"
KEYS = ("sudo", "/opt/ha-lab/backup.sh", "--keys")

LOOK_TIMEOUT = 60.0
"""Seconds for a control plane to report on its etcd."""

SEND_TIMEOUT = 600.0
"""Seconds for the snapshot to arrive on a machine."""

EXPIRE = ("/registry/events/", "/registry/masterleases/", "/registry/peerserverleases/")
"""Keys that etcd deletes by itself when their lease ends (kube-apiserver gives them a TTL)."""

CLUSTER_TIMEOUT = 60.0
"""Seconds for the restored members to become one cluster, once each answers."""


NO_TOKEN = "none"  # noqa: S105  no secret
"""What recover.sh prints for data that no recovery has restored, or one that is complete."""


@dataclass(frozen=True)
class Found:
    """The report of a control plane, or of an etcd machine, on its etcd (`recover.sh check`).

    `member`: it has joined a cluster. `etcd` is the version of its etcdutl, "" without one. `free` is the disk
    space for etcd's data, in bytes. `token` is the one with which its data was restored, or NO_TOKEN.
    `problems` prevent its recovery.
    """

    member: bool
    etcd: str
    free: int
    token: str
    problems: tuple[str, ...]


def look(remote: Remote, node: Node) -> Found:
    """Ask one machine. Raises LabError if it does not answer."""
    said = remote.run(node, ["sudo", SCRIPT, "check"], timeout=LOOK_TIMEOUT).stdout
    lines = [line.partition(" ")[::2] for line in said.splitlines()]
    known = dict(lines)
    try:
        return Found(
            known["member"] == "yes",
            known.get("etcd", ""),
            int(known["free"]),
            known["token"],
            tuple(text for name, text in lines if name == "problem"),
        )
    except (KeyError, ValueError) as error:
        raise LabStateError(
            f"{node.name} has not reported on its etcd", hint="run the same command again"
        ) from error


LEAST_BUMP = 10**9
"""By how much etcd's revision is raised at least (etcd, "Disaster recovery")."""


def revision_bump(revision: int, now: float) -> int:
    """By how much to raise etcd's revision, which is `revision` in the backup (etcdutl's --bump-revision).

    The result is the time `now` in milliseconds since 1970, which exceeds every revision that was seen.
    A fixed number would repeat revisions when the same backup is restored twice.
    """
    return max(int(now * 1000) - revision, LEAST_BUMP)


def cluster_problem(
    members: Sequence[Node], answers: Mapping[str, Machine], backup_revision: int
) -> str | None:
    """Why the restored members are not one cluster of exactly these; None if they are.

    Each has to list all members, by the same ids, with the addresses at which the others reach them: a
    member that was restored alone lists only itself, and one without --initial-advertise-peer-urls is at
    localhost.
    """
    expected = {node.name: (peer(node),) for node in members}
    ids: dict[frozenset[int], str] = {}
    for name in expected:
        machine = answers[name]
        try:
            listed, status, health = machine.etcd_members, machine.etcd_status, machine.etcd_health
        except CouldNotAsk as error:
            return error.message
        has = {member.name: member.peer_urls for member in listed}
        if has != expected:
            shown = ", ".join(
                f"{each or 'one without a name'} at {' '.join(urls)}" for each, urls in has.items()
            )
            return f"{name}'s etcd lists these members: {shown}; and not {initial_cluster(members)}"
        if health != "healthy":
            return f"etcd on {name} is not healthy: {health}"
        if status.revision <= backup_revision:
            return f"etcd on {name} is at revision {status.revision}, and the backup at {backup_revision}"
        ids[frozenset(member.id for member in listed)] = name
    if len(ids) > 1:
        return f"{' and '.join(ids.values())} are members of different clusters"
    return None


def difference(backup: backup.Inventory, etcd: backup.Inventory) -> str | None:
    """How restored keys differ from the backup's; None if they do not. Those that EXPIRE may be missing."""
    gone = {key for key in backup.keys() - etcd.keys() if key.startswith(EXPIRE)}
    wrong = [key for key in sorted({*backup, *etcd} - gone) if backup.get(key) != etcd.get(key)]
    if not wrong:
        return None
    return f"{len(wrong)} of {len(backup)} keys are not as in the backup, such as {wrong[0]}"


def _source(job: Job) -> Source:
    source = job.context.situation.recovery
    assert source is not None
    return source


def _part(name: str, *words: str) -> Callable[[Job], bool]:
    """A step that runs one part of recover.sh, with this run's secrets."""

    def do(job: Job) -> bool:
        return _run(job, name, *words)

    return do


def _run(job: Job, *words: str, more: Mapping[str, str] | None = None) -> bool:
    context, node = job.context, job.node
    keys = credentials.ca_key(context.workspace), credentials.etcd_ca_key(context.workspace)
    files = credentials.secret_files(node, context.lab, context.secrets, *keys)
    given = {name: files[name] for name in ("secrets", "etcd-ca.key") if name in files} | dict(more or {})
    return context.remote.script(node, "recover", words, secrets=given, log=job.log)


def _require_quiet(job: Job) -> bool:
    """Ask each machine again: nothing that uses etcd may still run when a member is restored."""
    remote = job.context.remote

    def ask(node: Node) -> None:
        said = remote.run(node, ["sudo", SCRIPT, "quiet"], timeout=60, accept=None)
        if not said.ok:
            raise LabStateError(
                (said.stdout + said.stderr).strip() or SILENT_SSH,
                hint="nothing was restored yet; run the same command again",
            )

    side_by_side("stopping etcd and what uses it", _concerned(job.context.lab, job.context.situation), ask)
    return False


def _restore(job: Job) -> bool:
    context, source, node = job.context, _source(job), job.node
    context.remote.run(
        node,
        ["sudo", SCRIPT, "receive", source.backup.snapshot_sha256],
        source=source.backup.path,
        timeout=SEND_TIMEOUT,
        log=job.log,
    )
    members = _members(context.lab, context.situation)
    words = ("restore", source.token, initial_cluster(members), str(source.revision_bump))
    return _run(job, *words, more=_shared_keys(job))


def _shared_keys(job: Job) -> dict[str, str]:
    """The backup's keys that control planes share, for one of them."""
    source = _source(job)
    if not source.common_keys or not job.node.spec.serves_api:
        return {}
    return {f"pki/{name}": text for name, text in source.backup.pki.items()}


def _install_keys(job: Job) -> bool:
    return _run(job, "keys", more=_shared_keys(job))


def _require_restored(job: Job) -> bool:
    """Ask each machine whether it has the data of the new cluster: from here on there is no way back."""
    remote, token = job.context.remote, _source(job).token

    def ask(node: Node) -> None:
        found = look(remote, node)
        if found.token != token:
            raise LabStateError(
                "it does not have the data of the new cluster",
                hint="no member was started; run the same command again",
            )

    side_by_side("restoring etcd", _members(job.context.lab, job.context.situation), ask)
    return False


def _require_one_cluster(job: Job) -> bool:
    context, source = job.context, _source(job)
    members = _members(context.lab, context.situation)
    revision = source.backup.manifest.revision

    def ask(node: Node) -> Machine:
        return ask_machine(context.remote, node, "etcd-members", "etcd-status", "etcd-health")

    def why_not() -> str | None:
        try:
            return cluster_problem(members, side_by_side("asking etcd", members, ask), revision)
        except LabError as error:
            return error.message

    job.wait_until(
        why_not,
        what="the restored members to be one cluster",
        timeout=CLUSTER_TIMEOUT,
        hint="no API server was started; run the same command again, and `./inv logs` if that fails, too",
    )
    if not source.restored:  # otherwise API servers may have written since
        said = context.remote.run(members[0], KEYS, timeout=60).stdout
        differs = difference(source.backup.inventory, backup.inventory(said))
        if differs:
            raise LabStateError(
                f"etcd was restored, but {differs}",
                hint="no API server was started; run the same command again",
            )
    return False


def _restart_kubelet(job: Job) -> bool:
    remote, first = job.context.remote, job.context.situation.first
    if not job.node.spec.serves_api:
        remote.deliver(job.node)  # control planes have this run's scripts already
    subnet: list[str] = []

    def why_not() -> str | None:
        try:
            said = remote.run(first, ["sudo", SCRIPT, "subnet", job.node.name], timeout=60).stdout
        except LabError as error:
            return error.message
        subnet[:] = said.split()
        return None

    job.wait_until(
        why_not,
        what=f"{first.name}'s API server to show the Node {job.node.name}",
        timeout=CLUSTER_TIMEOUT,
        hint="etcd is restored; run the same command again",
    )
    return remote.script(job.node, "restart-kubelet", subnet, log=job.log)


def _members(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in situation.machines if lab.is_etcd_member(node)]


def _etcd_machines(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in etcd_machines(lab) if node in situation.machines]


def _control_planes(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in situation.machines if node.spec.serves_api]


def _concerned(lab: Lab, situation: Situation) -> Sequence[Node]:
    """Those that run etcd, or what uses it."""
    return [node for node in situation.machines if node.spec.serves_api or lab.is_etcd_member(node)]


def _keyless(lab: Lab, situation: Situation) -> Sequence[Node]:
    """The control planes whose keys are not installed with a member's data."""
    return [node for node in _control_planes(lab, situation) if not lab.is_etcd_member(node)]


def _kubelets(lab: Lab, situation: Situation) -> Sequence[Node]:
    return [node for node in situation.machines if node.spec.runs_kubelet]


def _first(lab: Lab, situation: Situation) -> Sequence[Node]:
    return (situation.first,)


RESTORE: Plan = (
    # One that was made again has not run it.
    scripts.script(
        "node",
        "names, routes, container runtime",
        _etcd_machines,
        secrets=lambda _: ("proxy.env",),
    ),
    Step("recovery-stop", "etcd and what uses it stop", _part("stop"), _concerned, after=("node",)),
    # On every machine, before the first is restored.
    Step("recovery-quiet", "no API server and no etcd member runs", _require_quiet, after=("recovery-stop",)),
    Step("recovery-restore", "etcd's data from the backup", _restore, _members, after=("recovery-quiet",)),
    Step(
        "recovery-keys",
        "the keys that control planes share",
        _install_keys,
        _keyless,
        after=("recovery-quiet",),
    ),
    # All of them, before the first starts.
    Step(
        "recovery-restored",
        "every member is restored",
        _require_restored,
        after=("recovery-restore", "recovery-keys"),
    ),
)

START: Plan = (
    # All at once: a member answers once it has a majority.
    Step("recovery-etcd", "etcd starts", _part("start", "etcd"), _members, after=("recovery-restored",)),
    Step(
        "recovery-cluster",
        "the restored members are one cluster",
        _require_one_cluster,
        after=("recovery-etcd",),
    ),
    Step(
        "recovery-api",
        "the API server starts",
        _part("start", "kube-apiserver"),
        _control_planes,
        after=("recovery-cluster",),
    ),
    Step(
        "recovery-controllers",
        "the controller manager starts",
        _part("start", "kube-controller-manager"),
        _control_planes,
        after=("recovery-api",),
    ),
    Step(
        "recovery-scheduler",
        "the scheduler starts",
        _part("start", "kube-scheduler"),
        _control_planes,
        after=("recovery-controllers",),
    ),
    Step(
        "recovery-nodes",
        "Nodes of machines that the lab no longer has are deleted",
        _part("nodes"),
        _first,
        after=("recovery-scheduler",),
    ),
    # On workers, too: they register their Nodes again if the backup lacks them.
    Step(
        "recovery-kubelet", "the kubelet starts again", _restart_kubelet, _kubelets, after=("recovery-nodes",)
    ),
)

RECOVER: Plan = (*RESTORE, *START)
"""The complete recovery; START alone is enough if each member has been restored."""

FINISH: Plan = (
    # After the record was removed: an interrupted run could not tell restored members without their tokens.
    Step("recovery-finish", "files of the recovery are removed", _part("finish"), _concerned),
)
