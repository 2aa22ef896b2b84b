"""What every check is given: the lab, the host, and what the host is wanted for."""

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
"""One check: it judges a case, and changes nothing."""

PURPOSES = frozenset({"up", "bake", "lint", "test", "lock", "pdf", "korean"})


@dataclass(frozen=True)
class Own:
    """What is known of the lab itself, beside its host.

    `ca` is when the cluster's CA is valid, None where it was not made yet, `client` when the client
    certificate of the lab's kubeconfig is, None where there is none. `unusable` are the lab's own keys
    that can't be used, by their check. `reach` is what machines that run
    say of one another, None where none was asked. `has_machines`: some were made, whether they run or not.
    """

    ca: Validity | None = None
    client: Validity | None = None
    unusable: Mapping[str, Unusable] = field(default_factory=dict)
    reach: Reach | None = None
    has_machines: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Case:
    """One question to the doctor.

    `owner` is the label value of the lab's own machines; `baked`: its golden machine is there.
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
        """Whether the host is wanted for this; the tests need all.

        To bake from upstream is a purpose of its own; something is built from Go modules in every bake.
        """
        if "test" in self.purposes or purpose in self.purposes:
            return True
        if purpose == "upstream" and "bake" in self.purposes:
            wanted = self.lab.kubernetes
            return "upstream" in source.possible(release(wanted.version), wanted.source)
        return purpose == "upstream" and "lock" in self.purposes

    @property
    def containers(self) -> tuple[Container, ...]:
        """All containers of the host; none where docker could not be asked."""
        found = self.host.containers
        return () if isinstance(found, Unknown) else found

    def is_ours(self, container: Container) -> bool:
        """Whether this lab made it."""
        return container.owner == self.owner

    @property
    def paused(self) -> tuple[Node, ...]:
        """The machines of which docker says that they are paused: they run and answer nothing."""
        paused = {each.name for each in self.containers if each.paused and self.is_ours(each)}
        return tuple(node for node in self.lab.nodes if machine_name(self.lab, node) in paused)

    @property
    def waiting(self) -> tuple[Node, ...]:
        """The machines that do not run yet: the others already have what they need."""
        running = {each.name for each in self.containers if each.running and self.is_ours(each)}
        if self.host.provider:
            running |= self.host.provider.running(owner_label(self.owner))
        return tuple(node for node in self.lab.nodes if machine_name(self.lab, node) not in running)
