"""What a provider is to the rest of the kit: a row of facts about it, and two Protocols.

Two, since they answer for different things: `Machines` for the machines of one lab, `GoldenForm` for what this
host keeps for all labs. Modules implement them, since a provider has no state of its own: mypy checks the
signatures of `machines.py` and `golden.py` in its folder where its row is made.
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

MachineState = Literal["running", "paused", "stopped", "incomplete", "absent"]
"""`paused`: it has power, and nothing on it runs. `stopped`: it exists without power. `absent`: it doesn't.
`incomplete`: its making was interrupted before it was on the lab's network; `boot` completes it.
"""


class Machines(Protocol):
    """Making, removing and powering the machines of a lab. Everything here raises CommandFailed.

    `names` are machines' names in lab.yaml, or those of machines that it had once.
    """

    def boot(self, workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
        """Make and start machines that don't run, without provisioning: those named, or all. Idempotent.

        Raises LabStateError where the provider's refusal has a meaning for the lab.
        """
        ...

    def remove(self, workspace: Workspace, log: Path) -> None:
        """Remove every machine and the lab's network, also those that Vagrant has lost sight of."""
        ...

    def remove_machines(self, lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
        """Remove these machines with their disks, and Vagrant's memory of them; nothing else. Idempotent.

        Works without a Vagrantfile that names them. A machine of such a name that this lab did not make stays.
        """
        ...

    def lost_sight_of(self, workspace: Workspace) -> list[str]:
        """The provider's ids of this lab's machines that Vagrant does not know."""
        ...

    def adopt(self, lab: Lab, workspace: Workspace) -> None:
        """Tell Vagrant again which of those machines it made, by their names."""
        ...

    def state(self, lab: Lab, node: Node) -> MachineState:
        """The state of one machine."""
        ...

    def states(self, lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
        """The state of every machine in `lab`, by its name there; `absent` where this lab did not make it."""
        ...

    def start(self, lab: Lab, node: Node) -> None:
        """Start a machine that is stopped; it comes up by itself, without provisioning."""
        ...

    def stop(self, lab: Lab, node: Node, timeout: float) -> bool:
        """Shut a running machine down in an orderly way. After `timeout` seconds, cut its power.

        Returns whether it was orderly.
        """
        ...

    def resume(self, lab: Lab, node: Node) -> None:
        """Let a paused machine go on."""
        ...

    def cut(self, lab: Lab, node: Node, silent: Callable[[], None]) -> None:
        """Cut the power of a machine that has it; `silent` is called at the moment in which it falls silent."""
        ...

    def resize(self, lab: Lab, node: Node) -> None:
        """Give a stopped machine the CPUs and the memory of `node`; nothing to do without `enforces_sizes`."""
        ...


class GoldenForm(Protocol):
    """The golden machine in the form that a provider takes: an image, a box. Everything here raises LabError.

    `lab.golden.image` asks it with a lab whose `kubernetes.source` is settled.
    """

    def key(self, lab: Lab) -> str:
        """The content hash: 16 hex digits."""
        ...

    def name(self, lab: Lab) -> str:
        """The name: docker's for an image, Vagrant's for a box. The key is its end."""
        ...

    def exists(self, golden_machine: str, /) -> bool:
        """Whether the golden machine of that name is there."""
        ...

    def make(self, lab: Lab, progress: Progress) -> None:
        """Make it; nothing half-made is ever under its name."""
        ...

    def bill_of_materials(self, golden_machine: str, /) -> str:
        """The golden machine's own list of what went in, as JSON text."""
        ...

    def prune(self, lab: Lab) -> list[str]:
        """Remove every golden machine but the lab's and those in use; the names of what was removed."""
        ...

    def size(self, lab: Lab) -> int:
        """What it takes on this host, in MiB; it must be there."""
        ...

    def pack(self, lab: Lab, folder: Path, progress: Progress) -> None:
        """Put it, which must be there, into an empty folder, for another host."""
        ...

    def unpack(self, lab: Lab, folder: Path, progress: Progress) -> None:
        """Take it from a folder that `pack` has filled."""
        ...


@dataclass(frozen=True)
class Provider:
    """One provider's row.

    `checks` and `tools` are what the doctor checks and looks for; `look` asks the provider's own client about
    this host (None for docker's, which is asked for every lab). `enforces_sizes`: a machine gets the CPUs and
    the memory of lab.yaml, and no more; else they are only declared. `shares_kernel`: machines are containers,
    on this host's kernel. `may_emulate`: whether machines have to be emulated is tried with the golden disk's
    kernel. `takes_disc`: machines read the lab's key from a disc. `bridges_with_docker`: the lab's network is a
    bridge of docker's, which restores its firewall rules when it restarts. `runs_on_macos`: hosts can be Macs.
    """

    machines: Machines
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
