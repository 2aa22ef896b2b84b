"""This room says at a glance what runs: each machine, and what the cluster says of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.cluster import Api
from lab.errors import LabError
from lab.model import Role
from lab.remote import side_by_side

if TYPE_CHECKING:
    from lab.session import Session


@dataclass(frozen=True)
class MachineStatus:
    """One machine: whether it answers, and what the cluster says (`-` for the load balancer)."""

    name: str
    role: str
    address: str
    answers: bool
    cluster: str


@dataclass(frozen=True)
class Status:
    """The whole lab; `problem` is why the API could not be asked, if so."""

    lab: str
    api: str
    machines: tuple[MachineStatus, ...]
    problem: str

    @property
    def all_ready(self) -> bool:
        """Whether every machine answers and every node is Ready."""
        return not self.problem and all(m.answers and m.cluster in ("Ready", "-") for m in self.machines)


def look(session: Session) -> Status:
    """Ask machines and API, side by side; what can't be asked is said to be so. Never raises LabError."""
    lab = session.lab
    if not session.workspace.ssh_config.exists() or session.remote.route_is_ours():
        reasons = {node.name: "the lab is not up" for node in lab.nodes}
    else:
        reasons = side_by_side("ssh", lab.nodes, session.remote.unreachable)
    said, problem = _nodes(session, any(not reason for reason in reasons.values()))
    machines = tuple(
        MachineStatus(
            node.name,
            node.role.value,
            str(node.address),
            not reasons[node.name],
            "-" if node.role is Role.LOAD_BALANCER else said.get(node.name, "unknown"),
        )
        for node in lab.nodes
    )
    return Status(lab.name, lab.api_url, machines, problem)


def to_json(status: Status) -> str:
    """Return the status as JSON text."""
    return json.dumps(asdict(status) | {"all_ready": status.all_ready}, indent=2)


def shown(status: Status) -> RenderableType:
    """Return the status as a table for people."""
    table = Table("machine", "role", "address", "answers", "cluster", box=None, pad_edge=False)
    for machine in status.machines:
        answers = Text("yes", "green") if machine.answers else Text("no", "red")
        colour = "green" if machine.cluster in ("Ready", "-") else "red"
        table.add_row(machine.name, machine.role, machine.address, answers, Text(machine.cluster, colour))
    if status.all_ready:
        line = Text(f"{status.lab}: all is Ready; the API is {status.api}", "bold green")
    else:
        line = Text(f"{status.lab}: {status.problem or 'not all is Ready'}\nnext: ./inv up", "bold red")
    return Group(table, "", line)


def _nodes(session: Session, network_is_up: bool) -> tuple[dict[str, str], str]:
    """What the API says of each node, or why it could not be asked."""
    if not network_is_up or not session.workspace.kubeconfig.exists():
        return {}, "the lab is not up"
    try:
        nodes = Api(session.workspace.kubeconfig, timeout=5).nodes()
    except LabError as error:
        return {}, error.message
    return {node.name: "Ready" if node.ready else f"not Ready: {node.reason}" for node in nodes}, ""
