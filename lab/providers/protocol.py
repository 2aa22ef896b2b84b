"""What the rest of the kit knows about a provider: a record, and three Protocols.

`Machines` is for the machines of one lab, `Checkpoints` for what is saved of them, `GoldenForm` for the golden
machines that this host keeps for all labs. Modules implement them, since a provider has no state: mypy checks
the signatures of its `machines.py`, `checkpoints.py` and `golden.py` where its record is created.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.host import AskProvider
from lab.host.doctor.case import Check
from lab.host.doctor.tools import Tool
from lab.model import Lab, Node
from lab.system.progress import Progress
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved

MachineState = Literal["running", "paused", "stopped", "incomplete", "absent"]
"""`paused`: it has power, but nothing on it runs. `stopped`: it exists without power. `absent`: it does not
exist. `incomplete`: its creation was interrupted before it was on the lab's network; `boot` completes it.
"""


class Machines(Protocol):
    """Creates, removes, starts and stops the machines of a lab. Every function can raise CommandFailed.

    `names` are machines' names in lab.yaml, now or in the past.
    """

    def boot(self, workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
        """Create and start machines that don't run, without provisioning: those named, or all. Idempotent.

        Raises LabStateError if the provider's error is one that `explained` knows.
        """
        ...

    def remove(self, workspace: Workspace, log: Path) -> None:
        """Remove every machine and the lab's network, also machines that Vagrant has lost track of."""
        ...

    def remove_machines(self, lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
        """Remove these machines, their disks, and Vagrant's records of them; nothing else. Idempotent.

        Works even if the Vagrantfile does not have them. A machine that this lab did not create is not removed.
        """
        ...

    def unknown_to_vagrant(self, workspace: Workspace) -> list[str]:
        """The provider's ids of this lab's machines that Vagrant does not know."""
        ...

    def adopt(self, lab: Lab, workspace: Workspace) -> None:
        """Register those machines with Vagrant again, by their names."""
        ...

    def state(self, lab: Lab, node: Node) -> MachineState:
        """The state of one machine."""
        ...

    def states(self, lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
        """The state of every machine in `lab`, by its name there; `absent` if this lab did not create it."""
        ...

    def start(self, lab: Lab, node: Node) -> None:
        """Start a stopped machine; it boots without provisioning."""
        ...

    def stop(self, lab: Lab, node: Node, timeout: float) -> bool:
        """Shut a running machine down in an orderly way. After `timeout` seconds, cut its power.

        Returns whether it was orderly.
        """
        ...

    def resume(self, lab: Lab, node: Node) -> None:
        """Resume a paused machine."""
        ...

    def cut(self, lab: Lab, node: Node, silent: Callable[[], None]) -> None:
        """Cut the power of a running machine; `silent` is called at the moment when it stops responding."""
        ...

    def resize(self, lab: Lab, node: Node) -> None:
        """Give a stopped machine the CPUs and the memory of `node`; does nothing without `enforces_sizes`."""
        ...


SPARE_MIB = 512
"""The MiB that stay free where machines are kept: etcd does not survive a full disk."""


@dataclass(frozen=True)
class Room:
    """Disk space for a checkpoint: what the machines take now, and what is free where it is saved, in MiB."""

    taken: int
    free: int


class Checkpoints(Protocol):
    """Saves the states of a lab's machines under a checkpoint's name, and loads them.

    A state is all of a machine that lasts without power. Every function can raise CommandFailed.
    """

    def room(self, lab: Lab, workspace: Workspace) -> Room:
        """The disk space that saving all machines takes at most, and what is free.

        Raises LabStateError if the machines' states can't be saved on this host.
        """
        ...

    def save(self, lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> Saved:
        """Save the state of a stopped machine.

        Replaces what an interrupted run has saved under that name.
        """
        ...

    def load(self, lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved, log: Path) -> None:
        """Give a stopped machine the state that was saved under that name; what came after is lost.

        Idempotent. Raises LabStateError if there is a `problem`.
        """
        ...

    def problem(self, lab: Lab, workspace: Workspace, node: Node, name: str, saved: Saved) -> str | None:
        """Why that state can't be loaded, as a phrase; None if it can. The machine may not exist."""
        ...

    def discard(self, lab: Lab, workspace: Workspace, name: str, log: Path) -> None:
        """Remove what is saved under that name of the lab's machines. Idempotent."""
        ...


class GoldenForm(Protocol):
    """The golden machine as an image or a box. Every function can raise LabError.

    `lab.golden.image` calls it with a lab whose `kubernetes.source` is decided.
    """

    def key(self, lab: Lab) -> str:
        """The content hash: 16 hex digits."""
        ...

    def name(self, lab: Lab) -> str:
        """The name of the image or box, which ends with the key."""
        ...

    def exists(self, golden_machine: str, /) -> bool:
        """Whether the golden machine of that name is there."""
        ...

    def make(self, lab: Lab, progress: Progress) -> None:
        """Build it; an incomplete one never gets its name."""
        ...

    def bill_of_materials(self, golden_machine: str, /) -> str:
        """The golden machine's bill of materials, as JSON text."""
        ...

    def files(self, golden_machine: str, paths: Sequence[str], target: Path, /) -> None:
        """Write these files and folders of the golden machine's root to the file `target`, as a tar.

        Paths are as in the tar, without a slash in front; those that the root does not have are left out.
        """
        ...

    def prune(self, lab: Lab) -> list[str]:
        """Remove every golden machine except the lab's and those in use; return the removed names."""
        ...

    def size(self, lab: Lab) -> int:
        """Its size on this host, in MiB; it must exist."""
        ...

    def pack(self, lab: Lab, folder: Path, progress: Progress) -> None:
        """Export it to an empty folder, for another host; it must exist."""
        ...

    def unpack(self, lab: Lab, folder: Path, progress: Progress) -> None:
        """Import it from a folder that `pack` has filled."""
        ...


@dataclass(frozen=True)
class Provider:
    """One provider.

    The doctor runs `checks` and looks for `tools`; `look` asks the provider's client about this host (None for
    docker, which is asked for every lab). `enforces_sizes`: machines get exactly the CPUs and the memory in
    lab.yaml; otherwise these are only declared. `shares_kernel`: machines are containers on this host's kernel.
    `may_emulate`: machines may have to be emulated, which is tested with the golden disk's kernel.
    `takes_disc`: machines read the lab's key from a disc. `bridges_with_docker`: the lab's network is a docker
    bridge; docker restores its firewall rules when it restarts. `runs_on_macos`: the host can be a Mac.
    """

    machines: Machines
    checkpoints: Checkpoints
    golden: GoldenForm
    checks: tuple[Check, ...]
    tools: tuple[Tool, ...]
    look: AskProvider | None = None
    enforces_sizes: bool = True
    shares_kernel: bool = False
    may_emulate: bool = False
    takes_disc: bool = False
    bridges_with_docker: bool = False
    runs_on_macos: bool = False
