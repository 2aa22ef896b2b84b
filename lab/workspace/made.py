"""The record of what was created: the lab as last applied, each machine's golden machine, the label.

Only this module reads and writes `.lab/lab.json`. It has what was *wanted* last, not the actual state: that is
asked of the machines (docs/decisions). A machine is recorded before it is created and removed from the record
after it is gone, so that a killed run leaves no machine without a record.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lab.errors import LabStateError
from lab.model import Frozen, Lab, Node, owner_label
from lab.workspace import Workspace

FORMAT = 2
"""The format of lab.json. Format 1 was the lab itself with `image`; it can still be read."""

_LABELLED = re.compile(rf"'{re.escape(owner_label(''))}((?:[^'\\]|\\.)+)'")
"""The label in a Vagrantfile, as a single-quoted Ruby string."""

_UPDATING = threading.Lock()


class MadeMachine(Frozen):
    """One machine: the golden machine that it was created from or upgraded to ("" if unknown), its version."""

    golden: str
    kubernetes: str


class Made(Frozen):
    """A lab's record.

    `machines` are those that may exist, by name. The removal of those in `leaving` can't be undone, since the
    cluster has begun to remove them: the next `up` completes it, even if lab.yaml wants them again. Those in
    `resizing` may have their previous size or the new one.

    A machine of `lab` that is not in `machines` was removed to be created again.

    `complete` are the machines of the lab that was last applied completely: they know one another's names, and
    HAProxy knows their API servers. Empty if none was, and in records of earlier versions.

    `upgrading` is the Kubernetes version that an upgrade under way leads to, from before the first machine is
    touched until the last one has it; "" if none is. `lab` keeps the former version until then.

    `manifest` is the SHA-256 of the pod network's manifest that lab.yaml names, as last applied; "" for
    flannel, and in records of earlier versions.

    `restoring` is the name of the checkpoint whose restore was begun: some machines may have its state and
    others not. "" otherwise.

    `owner` is the value of the label on the lab's machines. It never changes, even when the folder is moved;
    `root` is where `.lab/` was when files with its path were last rendered.
    """

    lab: Lab
    owner: str
    root: str
    machines: dict[str, MadeMachine] = Field(default_factory=dict)
    leaving: tuple[str, ...] = ()
    resizing: tuple[str, ...] = ()
    complete: tuple[Node, ...] = ()
    manifest: str = ""
    upgrading: str = ""
    restoring: str = ""

    @property
    def golden(self) -> str:
        """The golden machine of most machines; "" if there are no machines."""
        found = [machine.golden for machine in self.machines.values() if machine.golden]
        return max(found, key=found.count, default="")

    def node(self, name: str) -> Node | None:
        """The machine of that name, as it was created or is to be created again."""
        return self.lab.node(name)

    def version_of(self, name: str) -> str:
        """The Kubernetes version of a machine; "" for one that is to be created again."""
        return self.machines[name].kubernetes if name in self.machines else ""

    def with_machines(self, lab: Lab, golden: str) -> Made:
        """The record before `lab` is applied: its machines, and those that may still exist.

        Machines that stay keep their golden machine, and their previous settings until the new ones are
        applied.
        """
        former = [self.node(name) for name in self.machines if lab.node(name) is None]
        new = MadeMachine(golden=golden, kubernetes=lab.kubernetes.version)
        nodes = (*(self.node(node.name) or node for node in lab.nodes), *(node for node in former if node))
        return self.model_copy(
            update={
                "lab": self.lab.model_copy(update={"nodes": nodes}),
                "machines": {node.name: self.machines.get(node.name, new) for node in nodes},
            }
        )

    def with_leaving(self, name: str) -> Made:
        """The record once a machine's removal can't be undone."""
        return self if name in self.leaving else self.model_copy(update={"leaving": (*self.leaving, name)})

    def without(self, name: str, again: Node | None = None) -> Made:
        """The record once a machine is removed, for good or to be created again as the node `again`.

        The latter keeps its place in the lab: without the first machine of a role, the rest would look like
        another lab.
        """
        nodes = tuple(
            again if again and n.name == name else n for n in self.lab.nodes if again or n.name != name
        )
        return self.model_copy(
            update={
                "lab": self.lab.model_copy(update={"nodes": nodes}),
                "machines": {each: machine for each, machine in self.machines.items() if each != name},
                "leaving": tuple(each for each in self.leaving if each != name),
                "resizing": tuple(each for each in self.resizing if each != name),
            }
        )

    def with_resizing(self, name: str) -> Made:
        """The record before a machine is resized."""
        return self if name in self.resizing else self.model_copy(update={"resizing": (*self.resizing, name)})

    def resized(self, node: Node) -> Made:
        """The record once a machine has the size of `node`."""
        nodes = tuple(node if n.name == node.name else n for n in self.lab.nodes)
        resizing = tuple(each for each in self.resizing if each != node.name)
        return self.model_copy(
            update={"lab": self.lab.model_copy(update={"nodes": nodes}), "resizing": resizing}
        )

    def with_upgrading(self, version: str) -> Made:
        """The record before the first machine is upgraded."""
        return self.model_copy(update={"upgrading": version})

    def upgraded(self, name: str, golden: str) -> Made:
        """The record once a machine has the version of the upgrade under way, from this golden machine."""
        machine = MadeMachine(golden=golden, kubernetes=self.upgrading)
        return self.model_copy(update={"machines": self.machines | {name: machine}})

    def with_version(self) -> Made:
        """The record once all machines have the version of the upgrade that was under way."""
        kubernetes = self.lab.kubernetes.model_copy(update={"version": self.upgrading})
        lab = self.lab.model_copy(update={"kubernetes": kubernetes})
        # Load balancers have nothing of Kubernetes, and keep their golden machine.
        machines = {
            name: machine.model_copy(update={"kubernetes": self.upgrading})
            for name, machine in self.machines.items()
        }
        return self.model_copy(update={"lab": lab, "machines": machines, "upgrading": ""})

    def applied(self, lab: Lab, golden: str, manifest: str = "") -> Made:
        """The record once `lab` is applied completely, with the manifest of this SHA-256."""
        new = MadeMachine(golden=golden, kubernetes=lab.kubernetes.version)
        machines = {node.name: self.machines.get(node.name, new) for node in lab.nodes}
        return self.model_copy(
            update={
                "lab": lab,
                "machines": machines,
                "leaving": (),
                "resizing": (),
                "complete": lab.nodes,
                "manifest": manifest,
                "upgrading": "",
            }
        )


def manifest_sha256(lab: Lab) -> str:
    """The SHA-256 of the pod network's manifest that lab.yaml names; "" for flannel."""
    if lab.network.pod_network == "flannel":
        return ""
    return hashlib.sha256(Path(lab.network.pod_network).read_bytes()).hexdigest()


def new_owner(workspace: Workspace) -> str:
    """A label value for a new lab: its folder, and a random part, since labs may follow one another there."""
    return f"{workspace.root}#{secrets.token_hex(4)}"


def owner(workspace: Workspace) -> str:
    """The label value of this folder's lab; the folder's path if there is no record."""
    record = read(workspace)
    return record.owner if record else str(workspace.root)


def read(workspace: Workspace) -> Made | None:
    """The lab's record; None if nothing was ever rendered.

    Raises LabStateError, with what to do, when the record can't be used.
    """
    record = _read(workspace)
    return None if record is None else where_it_is(workspace, record)


def where_it_is(workspace: Workspace, record: Made) -> Made:
    """The record for the folder's present place: a pod network's manifest beside lab.yaml moves with it."""
    if record.root == str(workspace.root):
        return record
    manifest, former = Path(record.lab.network.pod_network), Path(record.root).parent
    if former not in manifest.parents:
        return record
    moved = str(workspace.root.parent / manifest.relative_to(former))
    network = record.lab.network.model_copy(update={"pod_network": moved})
    return record.model_copy(update={"lab": record.lab.model_copy(update={"network": network})})


def _read(workspace: Workspace) -> Made | None:
    try:
        found: Any = json.loads(workspace.identity.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabStateError(
            f"{workspace.identity} can't be read: {error}",
            hint=f"make {workspace.root} readable for you, or move it away if it is not a lab's folder",
        ) from error
    if not isinstance(found, dict):
        raise LabStateError(
            f"{workspace.identity} can't be read: it is not a lab's record",
            hint=f"move {workspace.root} away if it is not a lab's folder",
        )
    say_what_earlier_versions_did(found)
    form = found.get("format", 1)
    try:
        if form == 1:
            return _first_form(found, workspace)
        if form == FORMAT:
            return Made.model_validate({key: value for key, value in found.items() if key != "format"})
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_url=False)[:4])
        raise LabStateError(
            f"{workspace.identity} was not written by this version of the kit (it can't use: {wrong})",
            hint="use this lab with the checkout that created it; its `./inv destroy` removes the machines",
        ) from error
    raise LabStateError(
        f"{workspace.identity} was written by a later version of the kit (format {form}, not {FORMAT})",
        hint="use this lab with the checkout that created it, or update this one (`git pull`)",
    )


def say_what_earlier_versions_did(found: dict[str, Any]) -> None:
    """Add what is not a default to a record that is older than a key: its lab was created without it."""
    lab = found["lab"] if isinstance(found.get("lab"), dict) else found
    if isinstance(lab.get("network"), dict):
        lab["network"].setdefault("policy", "none")
    if isinstance(lab.get("mirrors"), dict):
        lab["mirrors"].pop("kubernetes_packages", None)  # it only mattered to what was fetched then


def update(workspace: Workspace, change: Callable[[Made], Made]) -> Made:
    """Change the existing record atomically, since steps of a plan run in parallel. Return the new one."""
    with _UPDATING:
        record = read(workspace)
        assert record is not None
        changed = change(record)
        write(workspace, changed)
    return changed


def write(workspace: Workspace, made: Made) -> None:
    """Write the record."""
    data = {"format": FORMAT} | json.loads(made.model_dump_json())
    workspace.write(workspace.identity, json.dumps(data, indent=2, sort_keys=True) + "\n")


def _first_form(found: dict[str, Any], workspace: Workspace) -> Made:
    """A record in format 1: the lab, with `image`. The label was the path of `.lab/` at that time.

    The label is in the Vagrantfile only.
    """
    lab = Lab.model_validate({key: value for key, value in found.items() if key != "image"})
    machine = MadeMachine(golden=str(found.get("image", "")), kubernetes=lab.kubernetes.version)
    root = _root_when_rendered(workspace)
    machines = {node.name: machine for node in lab.nodes} if workspace.has_machines() else {}
    return Made(lab=lab, owner=root, root=root, machines=machines)


def _root_when_rendered(workspace: Workspace) -> str:
    """Where `.lab/` was when its machines got their label, from its Vagrantfile.

    It differs if `.lab/` was moved since. If there is a lab in that other folder, this one is a copy of it, or
    that one was created later: machines with that label do not belong to this folder.
    """
    here = str(workspace.root)
    try:
        found = _LABELLED.search(workspace.vagrantfile.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return here
    if found is None:
        return here
    there = re.sub(r"\\(.)", r"\1", found[1])
    other = Workspace(Path(there)).identity
    return here if other.exists() and not other.samefile(workspace.identity) else there
