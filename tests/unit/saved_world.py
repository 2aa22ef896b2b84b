"""Checkpoints of a lab that lives in memory, in place of docker's."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import providers
from lab.model import Lab, Node
from lab.providers.protocol import Room
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved
from tests.unit.world import Machine, World


@dataclass
class SavedWorld:
    """What is saved of a world: by checkpoint and machine. The cluster's data is part of each control plane."""

    world: World
    free: int = 10_000
    saved: dict[tuple[str, str], tuple[Machine, set[str], dict[str, str], bool]] = field(default_factory=dict)

    def room(self, lab: Lab, workspace: Workspace) -> Room:
        """100 MiB for each machine."""
        return Room(100 * sum(machine.state != "absent" for machine in self.world.machines.values()), self.free)

    def save(self, lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> Saved:
        """Save a machine while all are off."""
        running = [each for each, machine in self.world.machines.items() if machine.state != "stopped"]
        assert running == [], "states of different instants"
        world = self.world
        state = (copy.copy(world.machine(node.name)), set(world.members), dict(world.nodes), world.pod_network)
        world.touch(f"save {node.name}", lambda: self.saved.update({(name, node.name): state}))
        return Saved(mib=100, base=world.machine(node.name).base)

    def load(self, lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved, log: Path) -> None:
        """Restore a machine that is off; the record says meanwhile that the machines differ."""
        assert self.world.machine(node.name).state == "stopped"
        assert self.world.record.restoring == name
        machine, members, nodes, pod_network = self.saved[name, node.name]

        def load() -> None:
            self.world.machines[node.name] = copy.copy(machine)
            if node.spec.etcd_member:
                self.world.members, self.world.nodes = set(members), dict(nodes)
                self.world.pod_network = pod_network

        self.world.touch(f"load {node.name}", load)

    def problem(self, lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved) -> str | None:
        """Whether that was not saved, or is of another golden machine."""
        if (name, node.name) not in self.saved:
            return "nothing is saved of it"
        same = self.world.machine(node.name).base in (saved.base, "")
        return None if same else "it is another machine"

    def discard(self, lab: Lab, workspace: Workspace, name: str, log: Path) -> None:
        """Forget a checkpoint."""
        for key in [key for key in self.saved if key[0] == name]:
            self.world.touch(f"discard {key[1]}", lambda key=key: self.saved.pop(key))  # type: ignore[misc]

    def names(self) -> set[str]:
        """The checkpoints of which something is saved."""
        return {name for name, _ in self.saved}


def live(world: World, monkeypatch: pytest.MonkeyPatch) -> SavedWorld:
    """Put it in the place of the provider's checkpoints."""
    saved = SavedWorld(world)
    monkeypatch.setattr(providers, "checkpoints_of", lambda lab: saved)
    return saved
