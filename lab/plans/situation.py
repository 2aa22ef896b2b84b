"""The state that was found before anything is done; it determines what there is to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from lab.errors import LabError
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.remote import SILENT_SSH, SSH_FAILED, Remote, side_by_side
from lab.unknown import Unknown
from lab.workspace.backup import Backup

JoinState = Literal["fresh", "partial", "damaged", "joined"]
"""Whether a machine has joined (`provision/node/probe.sh`).

`fresh`: it never joined. `partial`: it has to join again, because a join was interrupted or files are missing
or broken. `damaged`: a control plane, or an etcd machine, with such files, which it restores by itself.
"""

MEMBERS = ("damaged", "joined")
"""States of machines that belong to a cluster and stay in it."""

PROBE = "/opt/ha-lab/probe.sh"

UNFINISHED = "/opt/ha-lab/unfinished.sh"

PROBE_TIMEOUT = 60.0
"""Seconds for a machine to report its state; it only reads files."""

LOOK_TIMEOUT = 20.0
"""The same for `plan`, which works without an answer."""


@dataclass(frozen=True)
class Upgrade:
    """An upgrade of machines that exist to the version of `lab`, from the golden machine of that name.

    `control_planes` are in the order in which they are upgraded, the leader of etcd last; `etcd` are the
    etcd machines, in theirs. `etcd_alone` are those whose etcd gets another version before all else,
    or nothing but that: that of `etcd_lab`, with the image of its golden machine `etcd_golden`. `plain`: as
    kubeadm's page has it, which leaves out the load balancer, etcd's leader, and the clients of the API server,
    its kubelet among them; for comparison.
    """

    lab: Lab
    golden: str
    control_planes: tuple[Node, ...]
    workers: tuple[Node, ...]
    etcd_alone: tuple[Node, ...] = ()
    etcd_lab: Lab | None = None
    etcd_golden: str = ""
    plain: bool = False
    etcd: tuple[Node, ...] = ()

    @property
    def members(self) -> tuple[Node, ...]:
        """The machines among them that run etcd."""
        return self.etcd or self.control_planes


@dataclass(frozen=True)
class Source:
    """The backup that etcd is restored from, and the token of the new cluster.

    etcd's revision is raised by `revision_bump`. `common_keys`: the control planes also
    get the shared keys of the backup. `restored`: an interrupted run has already restored each member with
    this token.
    """

    backup: Backup
    token: str
    revision_bump: int
    common_keys: bool
    restored: bool = False


@dataclass(frozen=True)
class Situation:
    """Where the cluster is, and which machines this run is about.

    `machines` are those; `off` are the ones among them that do not respond yet; `absent` are the ones among
    those that do not exist yet. `first` is where `kubeadm init` runs, or ran. `joined` have joined completely
    and need not join again, the cluster or etcd. `alone`: no machine but `first` belongs to a cluster, so that
    `first` may start over. `leaving` are to be removed, in this order; `silent` are those among them that do
    not respond. `resized` get another size, `upgrade` is another version. `until` is the name of the stop
    before which to end, or "". `checkpoint` is the name of the checkpoint that is saved or restored, or "".
    `recovery` is what etcd is restored from. `holding` are the load balancers that have the API's shared
    address.
    """

    first: Node
    machines: tuple[Node, ...]
    off: tuple[Node, ...] = ()
    absent: tuple[Node, ...] = ()
    joined: frozenset[str] = frozenset()
    alone: bool = True
    leaving: tuple[Node, ...] = ()
    silent: frozenset[str] = frozenset()
    resized: tuple[Node, ...] = ()
    upgrade: Upgrade | None = None
    until: str = ""
    checkpoint: str = ""
    recovery: Source | None = None
    holding: frozenset[str] = frozenset()

    def joining(self, lab: Lab) -> tuple[Node, ...]:
        """The control planes besides the first, in the order in which they join."""
        return tuple(node for node in lab.control_planes if node != self.first)

    def etcd_exists(self, lab: Lab) -> bool:
        """Whether an etcd machine is a complete member, so that others can only join it."""
        return any(node.name in self.joined for node in etcd_machines(lab))

    def newcomers(self, lab: Lab) -> tuple[Node, ...]:
        """The machines besides the first that have yet to join."""
        return tuple(n for n in lab.kubernetes_nodes if n != self.first and n.name not in self.joined)


def from_nothing(lab: Lab, until: str = "") -> Situation:
    """The situation of machines that this run creates."""
    return Situation(lab.first, lab.nodes, off=lab.nodes, absent=lab.nodes, until=until)


def survey(nodes: Iterable[Node], remote: Remote) -> dict[str, JoinState]:
    """Ask machines whether they have joined: by name. Raises NodeFailed if one can't be asked.

    They must have this checkout's scripts.
    """

    def ask(node: Node) -> JoinState:
        return _join_state(remote.run(node, ["sudo", PROBE], timeout=PROBE_TIMEOUT).stdout)

    return side_by_side("asking the machines whether they have joined", nodes, ask)


@dataclass(frozen=True)
class JoinReport:
    """Whether a machine has joined. `problems` are its missing or broken files, a phrase each."""

    found: JoinState
    problems: tuple[str, ...] = ()


def ask_one(node: Node, remote: Remote) -> JoinReport | Unknown:
    """Ask a running machine whether it has joined, or return why it can't be asked. It may lack the scripts."""
    try:
        said = remote.run(node, ["sudo", PROBE], timeout=LOOK_TIMEOUT, accept=None)
    except LabError as error:
        return Unknown(error.message)
    if said.returncode == SSH_FAILED:
        return Unknown((said.stderr.strip().splitlines() or [SILENT_SSH])[-1])
    found = _join_state(said.stdout)
    return JoinReport(found, tuple(said.stderr.splitlines()) if found in ("partial", "damaged") else ())


def unfinished(node: Node, remote: Remote) -> Mapping[str, tuple[str, ...]] | Unknown:
    """The steps besides joins that are left to do, as reported by a running machine, with the reasons.

    An interrupted run left them, or something was deleted or changed since; a step may have no reason. A load
    balancer reports on itself, a control plane on the cluster (`provision/node/unfinished.sh`). Unknown if the
    machine or the cluster does not respond, or the machine has an earlier version's scripts.
    """
    try:
        said = remote.run(node, ["sudo", UNFINISHED], timeout=LOOK_TIMEOUT, accept=None)
    except LabError as error:
        return Unknown(error.message)
    if said.returncode != 0:
        return Unknown((said.stderr.strip().splitlines() or [SILENT_SSH])[-1])
    steps: dict[str, tuple[str, ...]] = {}
    for line in said.stdout.splitlines():
        step, _, reason = line.partition(" ")
        steps[step] = (*steps.get(step, ()), *([reason] if reason else []))
    return steps


def has_joined(node: Node, remote: Remote) -> bool:
    """Whether a responding machine belongs to a cluster; False if it never got the kit's scripts."""
    said = remote.run(node, ["sudo", PROBE], timeout=PROBE_TIMEOUT, accept=None)
    return _join_state(said.stdout) in MEMBERS


def judge(lab: Lab, found: Mapping[str, JoinState], until: str = "") -> Situation:
    """The situation that follows from the answers of all machines of the cluster.

    An etcd machine has nothing of the cluster that an incomplete control plane would lose.
    """
    joined = joined_machines(found)
    nodes = {node.name for node in lab.kubernetes_nodes}
    complete = [node for node in lab.control_planes if found.get(node.name) == "joined"]
    serving = complete or [node for node in lab.control_planes if node.name in joined]
    # An incomplete first control plane is reset only while no other machine belongs to the cluster.
    others = {state for name, state in found.items() if name in nodes - {lab.first.name}}
    nowhere = not serving and others <= {"fresh"}
    alone = found[lab.first.name] != "fresh" and others <= {"fresh"}
    first = serving[0] if serving else lab.first
    return Situation(first, lab.nodes, joined=joined, alone=nowhere or alone, until=until)


def joined_machines(found: Mapping[str, JoinState]) -> frozenset[str]:
    """The names of those that belong to a cluster and need not join again."""
    return frozenset(name for name, state in found.items() if state in MEMBERS)


def _join_state(said: str) -> JoinState:
    """The probe's answer; a machine without the kit's scripts gives none, and is fresh."""
    word = said.strip()
    return cast(JoinState, word) if word in get_args(JoinState) else "fresh"
