"""What a drill can do to a lab: power, faults inside machines, HAProxy; and who leads etcd.

Every fault can be reverted, whether or not it was injected (`provision/drill/fault.sh`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab import providers as machines
from lab.drill.recording import Kind
from lab.errors import LabStateError
from lab.health.cluster import Api
from lab.health.facts.gather import ask_machine
from lab.model import Node
from lab.plans import pair
from lab.remote import side_by_side
from lab.session import Session
from lab.system.paths import PROVISION

FAULTS = PROVISION / "drill" / "fault.sh"


@dataclass(frozen=True)
class Scene:
    """A lab with the machines that this run breaks.

    `mark` sets a mark on the recording's clock. `users_read_again` makes the probes read the kubeconfig again.
    """

    session: Session
    victims: tuple[Node, ...]
    mark: Callable[[Kind, str], None]
    users_read_again: Callable[[], None] = lambda: None

    @property
    def victim(self) -> Node:
        """The machine with the fault, if it is only one."""
        return self.victims[0]

    @property
    def api(self) -> Api:
        """The API as users see it, through the load balancer."""
        return Api(self.session.workspace.kubeconfig, timeout=3)

    def injected(self) -> None:
        """Mark the injection. Only the first call counts: the code that knows the time best calls it first."""
        self.mark("inject", "the fault")

    def fault(self, name: str, action: str, *words: str) -> None:
        """Inject a fault of fault.sh into the victims, or revert it (`action`: inject, heal)."""
        script = FAULTS.read_text(encoding="utf-8")

        def run(node: Node) -> None:
            command = ["sudo", "bash", "-s", "--", name, action, *words]
            self.session.remote.run(node, command, stdin=script, timeout=300)

        side_by_side(f"{name} {action}", self.victims, run)

    def power_off(self) -> None:
        """Cut the victims' power."""
        machines.power_off(self.session.lab, self.victims, self.injected)

    def power_on(self) -> None:
        """Restore the victims' power; they boot by themselves."""
        machines.power_on(self.session.lab, self.victims)

    def haproxy(self, action: str) -> None:
        """Have systemd `reload`, `restart` or `start` HAProxy on every load balancer."""
        self.injected()
        command = ["sudo", "systemctl", action, "haproxy"]

        def run(node: Node) -> None:
            self.session.remote.run(node, command, timeout=60)

        side_by_side(f"haproxy {action}", self.session.lab.balancers, run)


@dataclass(frozen=True)
class Etcd:
    """Who leads etcd, and in which raft term (each election starts another)."""

    leader: Node
    term: int


def etcd(session: Session) -> Etcd:
    """Ask a healthy etcd for its leader. Raises LabError if no member on our machines is the leader."""
    for node in session.lab.etcd_members:
        status = ask_machine(session.remote, node, "etcd-status").etcd_status
        if status.leader == status.member:
            return Etcd(node, status.term)
    raise LabStateError("etcd has no leader", hint="`./inv verify -k etcd` shows more")


def holder(session: Session) -> Node:
    """The only load balancer, or of two the one that has the API's address.

    Raises LabStateError where both have it, or neither.
    """
    lab = session.lab
    if not lab.pair:
        return lab.balancers[0]
    holding = pair.holding(lab, session.remote)
    if len(holding) != 1:
        who = "both load balancers have" if holding else "no load balancer has"
        raise LabStateError(
            f"{who} the API's address, {lab.api.address}", hint="`./inv verify -k one-holder` shows more"
        )
    return next(node for node in lab.pair if node.name in holding)


def raft_term(session: Session, node: Node) -> int:
    """The raft term of a control plane's etcd member. Raises LabError if it does not respond."""
    return ask_machine(session.remote, node, "etcd-status").etcd_status.term
