"""The input of every check: the lab, the host, and what the host is needed for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lab.golden.supply import source
from lab.golden.supply.releases import release
from lab.host import Container, HostFacts, Unknown
from lab.host.doctor.finding import Finding
from lab.host.reach import Reach
from lab.model import Lab, Node, machine_name, owner_label
from lab.workspace.render.credentials import Validity
from lab.workspace.render.keys import Unusable

Check = Callable[["Case"], Iterable[Finding]]
"""A check judges a case and changes nothing."""

PURPOSES = frozenset({"up", "bake", "lint", "test", "lock", "pdf", "korean"})


@dataclass(frozen=True)
class Own:
    """What is known about the lab itself, besides its host.

    `ca` is when the cluster's CA is valid, None if it was not generated yet; `client` is when the client
    certificate in the lab's kubeconfig is valid, None if there is none. `unusable` are the lab's own keys that
    can't be used, by their check. `reach` is which running machines reach one another, None if none was asked.
    `has_machines`: machines were created, whether or not they run.
    """

    ca: Validity | None = None
    client: Validity | None = None
    unusable: Mapping[str, Unusable] = field(default_factory=dict)
    reach: Reach | None = None
    has_machines: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Case:
    """One examination by the doctor.

    `owner` is the label value of the lab's own machines; `baked`: its golden machine exists.
    `bridges_with_docker` is the provider's (`lab.providers.protocol.Provider`).
    """

    lab: Lab
    host: HostFacts
    owner: str
    purposes: frozenset[str]
    baked: bool
    bridges_with_docker: bool
    own: Own = field(default_factory=Own)

    def wants(self, purpose: str) -> bool:
        """Whether the host is needed for this purpose; the tests need everything.

        Baking from upstream is a separate purpose; every bake builds something from Go modules.
        """
        if "test" in self.purposes or purpose in self.purposes:
            return True
        if purpose == "upstream" and "bake" in self.purposes:
            wanted = self.lab.kubernetes
            return "upstream" in source.possible(release(wanted.version), wanted.source)
        return purpose == "upstream" and "lock" in self.purposes

    @property
    def containers(self) -> tuple[Container, ...]:
        """All containers of the host; empty if docker could not be asked."""
        found = self.host.containers
        return () if isinstance(found, Unknown) else found

    def is_ours(self, container: Container) -> bool:
        """Whether this lab created it."""
        return container.owner == self.owner

    @property
    def paused(self) -> tuple[Node, ...]:
        """The machines that docker has paused: they run but do not respond."""
        paused = {each.name for each in self.containers if each.paused and self.is_ours(each)}
        return tuple(node for node in self.lab.nodes if machine_name(self.lab, node) in paused)

    @property
    def waiting(self) -> tuple[Node, ...]:
        """The machines that do not run yet; the others already have what they need."""
        running = {each.name for each in self.containers if each.running and self.is_ours(each)}
        if self.host.provider:
            running |= self.host.provider.running(owner_label(self.owner))
        return tuple(node for node in self.lab.nodes if machine_name(self.lab, node) not in running)
