"""What was made: the lab as last applied, which golden machine each machine is a clone of, and its label.

`.lab/lab.json` is read and written here only. It says what was *wanted* last, never what *is*: for that, the
machines are asked (docs/decisions). A machine is recorded before it is made and forgotten after it is gone, so
that a run that is killed leaves no machine without a record.
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
"""The form of lab.json. 1 was the lab itself beside `image`; it is still read."""

_LABELLED = re.compile(rf"'{re.escape(owner_label(''))}((?:[^'\\]|\\.)+)'")
"""The label in a Vagrantfile, between single quotes as Ruby has them."""

_UPDATING = threading.Lock()


class MadeMachine(Frozen):
    """One machine: the golden machine that it is a clone of ("" where none was noted), and its Kubernetes."""

    golden: str
    kubernetes: str


class Made(Frozen):
    """A lab's record.

    `machines` may exist, by name. `leaving` are those of them whose removal can't be taken back, since the
    cluster has begun to forget them: the next `up` ends it, whether lab.yaml wants them again or not.
    `resizing` are those that may have their former size or another one.

    A machine of `lab` that is not among `machines` was removed in order to be made again.

    `complete` are the machines of the lab that was last applied completely: they know one another's names, and
    HAProxy its API servers. It is empty where none was, and in records of earlier versions.

    `manifest` is the SHA-256 of the pod network's manifest that lab.yaml brought, as last applied; "" for
    flannel, and in records of earlier versions.

    `owner` is the value of the label that the lab's machines carry. It stays the same for the lab's life,
    wherever its folder is moved; `root` is where `.lab/` was when files with its path were last rendered.
    """

    lab: Lab
    owner: str
    root: str
    machines: dict[str, MadeMachine] = Field(default_factory=dict)
    leaving: tuple[str, ...] = ()
    resizing: tuple[str, ...] = ()
    complete: tuple[Node, ...] = ()
    manifest: str = ""

    @property
    def golden(self) -> str:
        """The golden machine that most of the machines are clones of; "" where there are none."""
        found = [machine.golden for machine in self.machines.values() if machine.golden]
        return max(found, key=found.count, default="")

    def node(self, name: str) -> Node | None:
        """The machine of that name, as it was made or is to be made again."""
        return self.lab.node(name)

    def with_machines(self, lab: Lab, golden: str) -> Made:
        """The record before `lab` is applied: its machines beside those that may still exist.

        What stays keeps the golden machine that it is a clone of, and its settings as they were made, until
        they have been applied.
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
        """The record once a machine's removal can't be taken back."""
        return self if name in self.leaving else self.model_copy(update={"leaving": (*self.leaving, name)})

    def without(self, name: str, again: Node | None = None) -> Made:
        """The record once a machine is gone, for good or to be made again as the node `again`.

        The latter keeps its place in the lab: without the first machine of a role, what is left would look like
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
        """The record before a machine gets another size."""
        return self if name in self.resizing else self.model_copy(update={"resizing": (*self.resizing, name)})

    def resized(self, node: Node) -> Made:
        """The record once a machine has the size of `node`."""
        nodes = tuple(node if n.name == node.name else n for n in self.lab.nodes)
        resizing = tuple(each for each in self.resizing if each != node.name)
        return self.model_copy(
            update={"lab": self.lab.model_copy(update={"nodes": nodes}), "resizing": resizing}
        )

    def applied(self, lab: Lab, golden: str, manifest: str = "") -> Made:
        """The record once `lab` has been applied completely, with the manifest of this SHA-256."""
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
            }
        )


def manifest_sha256(lab: Lab) -> str:
    """The SHA-256 of the pod network's manifest that lab.yaml brings itself; "" for flannel."""
    if lab.network.pod_network == "flannel":
        return ""
    return hashlib.sha256(Path(lab.network.pod_network).read_bytes()).hexdigest()


def new_owner(workspace: Workspace) -> str:
    """A label value for a lab that is made now: its folder, and a random part for others made there."""
    return f"{workspace.root}#{secrets.token_hex(4)}"


def owner(workspace: Workspace) -> str:
    """The label value of this folder's lab; the folder's path where there is no record of it."""
    record = read(workspace)
    return record.owner if record else str(workspace.root)


def read(workspace: Workspace) -> Made | None:
    """The lab's record; None where nothing was ever rendered.

    A pod network's manifest that is beside lab.yaml moves with it. Raises LabStateError where there is a record
    that can't be used, with the way out.
    """
    record = _read(workspace)
    if record is None or record.root == str(workspace.root):
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
            hint=f"make {workspace.root} readable for you, or move it away if it isn't a lab's",
        ) from error
    if not isinstance(found, dict):
        raise LabStateError(
            f"{workspace.identity} can't be read: it is not a lab's record",
            hint=f"move {workspace.root} away if it isn't a lab's",
        )
    _say_what_earlier_versions_did(found)
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
            hint="work on this lab with the checkout that made it; its `./inv destroy` removes the machines",
        ) from error
    raise LabStateError(
        f"{workspace.identity} was written by a later version of the kit (form {form}, not {FORMAT})",
        hint="work on this lab with the checkout that made it, or update this one (`git pull`)",
    )


def _say_what_earlier_versions_did(found: dict[str, Any]) -> None:
    """Put in what is not a default in a record that is older than a key: its lab was made without it."""
    lab = found["lab"] if isinstance(found.get("lab"), dict) else found
    if isinstance(lab.get("network"), dict):
        lab["network"].setdefault("policy", "none")


def update(workspace: Workspace, change: Callable[[Made], Made]) -> Made:
    """Change the record, which there is, in one go: steps of a plan run side by side. Return the new one."""
    with _UPDATING:
        record = read(workspace)
        assert record is not None
        changed = change(record)
        write(workspace, changed)
    return changed


def write(workspace: Workspace, made: Made) -> None:
    """Keep the record."""
    data = {"format": FORMAT} | json.loads(made.model_dump_json())
    workspace.write(workspace.identity, json.dumps(data, indent=2, sort_keys=True) + "\n")


def _first_form(found: dict[str, Any], workspace: Workspace) -> Made:
    """What earlier versions wrote: the lab, with `image`; the label was the path of `.lab/` as it was then.

    It is in the Vagrantfile only.
    """
    lab = Lab.model_validate({key: value for key, value in found.items() if key != "image"})
    machine = MadeMachine(golden=str(found.get("image", "")), kubernetes=lab.kubernetes.version)
    root = _root_when_rendered(workspace)
    machines = {node.name: machine for node in lab.nodes} if workspace.has_machines() else {}
    return Made(lab=lab, owner=root, root=root, machines=machines)


def _root_when_rendered(workspace: Workspace) -> str:
    """Where `.lab/` was when its machines got their label, as its Vagrantfile says.

    That is another folder where `.lab/` was moved since. Where the other folder has a lab, this one is a copy
    of it, or that one came later: machines with its label are not taken for this folder's.
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
