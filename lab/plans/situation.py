"""What was found before anything is done; what there is to do follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from lab.errors import LabError
from lab.model import Lab, Node
from lab.remote import SILENT_SSH, SSH_FAILED, Remote, side_by_side
from lab.unknown import Unknown

Found = Literal["fresh", "partial", "damaged", "joined"]
"""What a machine has of Kubernetes (`provision/node/probe.sh`).

`fresh` is nothing. `partial` has to join again: half a join, or files are missing or broken. `damaged` is a
control plane with such files, which makes them again by itself.
"""

MEMBERS = ("damaged", "joined")
"""Those that belong to a cluster and stay in it."""

PROBE = "/opt/ha-lab/probe.sh"

UNFINISHED = "/opt/ha-lab/unfinished.sh"

PROBE_TIMEOUT = 60.0
"""Seconds for a machine to report what it has; it asks files only."""

LOOK_TIMEOUT = 20.0
"""The same for `plan`, which can do without an answer."""


@dataclass(frozen=True)
class Situation:
    """Where the cluster is, and which machines this run is about.

    `machines` are those, and `off` the ones of them that do not answer yet; `absent` are the ones of these that
    do not exist yet. `first` is where `kubeadm init` runs, or ran. `joined` are the machines that once joined
    completely, and need not join again. `alone`: no machine but `first` has anything of a cluster, so that
    `first` may begin again. `leaving` are machines on their way out, in the order in which they leave, `silent`
    those of them that do not answer, `resized` those that get another size.
    `until` is the stop before which to end, or "".
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
    until: str = ""

    def joining(self, lab: Lab) -> tuple[Node, ...]:
        """The control planes besides the first, in the order in which they join."""
        return tuple(node for node in lab.control_planes if node != self.first)

    def newcomers(self, lab: Lab) -> tuple[Node, ...]:
        """The machines besides the first that have yet to join."""
        return tuple(n for n in lab.kubernetes_nodes if n != self.first and n.name not in self.joined)


def from_nothing(lab: Lab, until: str = "") -> Situation:
    """The situation of machines that are made by this very run."""
    return Situation(lab.first, lab.nodes, off=lab.nodes, absent=lab.nodes, until=until)


def survey(nodes: Iterable[Node], remote: Remote) -> dict[str, Found]:
    """Ask machines what they have of a cluster: by name. Raises NodeFailed where one can't be asked.

    They have this checkout's scripts.
    """

    def ask(node: Node) -> Found:
        return _found(remote.run(node, ["sudo", PROBE], timeout=PROBE_TIMEOUT).stdout)

    return side_by_side("asking the machines what they have", nodes, ask)


@dataclass(frozen=True)
class Has:
    """What a machine has of a cluster. `problems` are its files that are missing or broken, a phrase each."""

    found: Found
    problems: tuple[str, ...] = ()


def ask_one(node: Node, remote: Remote) -> Has | Unknown:
    """Ask a machine that runs what it has, or say why it can't be asked. It may lack the kit's scripts."""
    try:
        said = remote.run(node, ["sudo", PROBE], timeout=LOOK_TIMEOUT, accept=None)
    except LabError as error:
        return Unknown(error.message)
    if said.returncode == SSH_FAILED:
        return Unknown((said.stderr.strip().splitlines() or [SILENT_SSH])[-1])
    found = _found(said.stdout)
    return Has(found, tuple(said.stderr.splitlines()) if found in ("partial", "damaged") else ())


def unfinished(node: Node, remote: Remote) -> Mapping[str, tuple[str, ...]] | Unknown:
    """The steps besides joins that are left to do, as a machine that runs sees them, with the reasons.

    An interrupted run has left them, or something was deleted or changed since; a step may have no reason.
    A load balancer answers for itself, a control plane for the cluster (`provision/node/unfinished.sh`). It is
    unknown where the machine or the cluster does not answer, or the machine has an earlier version's scripts.
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
    """Whether a machine that answers belongs to a cluster; not if it was never given the kit's scripts."""
    said = remote.run(node, ["sudo", PROBE], timeout=PROBE_TIMEOUT, accept=None)
    return _found(said.stdout) in MEMBERS


def judge(lab: Lab, found: Mapping[str, Found], until: str = "") -> Situation:
    """The situation that the answers of all Kubernetes machines show."""
    joined = joined_machines(found)
    complete = [node for node in lab.control_planes if found.get(node.name) == "joined"]
    serving = complete or [node for node in lab.control_planes if node.name in joined]
    # A half-made first control plane is undone only while no other machine belongs to the cluster.
    others = {state for name, state in found.items() if name != lab.first.name}
    nowhere = not serving and others <= {"fresh"}
    alone = found[lab.first.name] != "fresh" and others <= {"fresh"}
    first = serving[0] if serving else lab.first
    return Situation(first, lab.nodes, joined=joined, alone=nowhere or alone, until=until)


def joined_machines(found: Mapping[str, Found]) -> frozenset[str]:
    """The names of those that belong to a cluster and need not join again."""
    return frozenset(name for name, state in found.items() if state in MEMBERS)


def _found(said: str) -> Found:
    """The probe's word; a machine without the kit's scripts has none, and is fresh."""
    word = said.strip()
    return cast(Found, word) if word in get_args(Found) else "fresh"
