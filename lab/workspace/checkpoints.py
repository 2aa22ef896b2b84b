"""The records of checkpoints: of which lab each is, when it was taken, and the secrets that belong to it.

Only this module reads and writes `.lab/checkpoints/`. The states of the machines are elsewhere, with their
provider. What has to agree with the machines is kept here: the lab's record, its CA, its ssh key and the
administrator's kubeconfig.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from lab.errors import ConfigError, LabStateError
from lab.model import Frozen
from lab.workspace import PRIVATE_FILE, PRIVATE_FOLDER, Workspace
from lab.workspace import made as records
from lab.workspace.made import Made

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
"""A checkpoint's name. It is part of names in docker and hypervisors."""

RECORD, SECRETS, KUBECONFIG = "checkpoint.json", "secrets", "kubeconfig"

_UPDATING = threading.Lock()


class Saved(Frozen):
    """One machine's saved state: what it takes on the disk, in MiB, and what it can be restored onto.

    `base` is the provider's own word for what is not in the state, such as the image; "" if there is nothing.
    """

    mib: int
    base: str = ""


class Checkpoint(Frozen):
    """One checkpoint. `made` is the record of the lab that it is of.

    `healthy`: all checks passed before, so that they have to pass after a restore, too. `machines` are those
    that are saved so far, by name. `complete`: all are.
    """

    name: str
    taken: datetime
    made: Made
    healthy: bool
    complete: bool = False
    machines: dict[str, Saved] = Field(default_factory=dict)

    @property
    def size(self) -> int:
        """The MiB that all machines' states take."""
        return sum(machine.mib for machine in self.machines.values())


def require_name(name: str) -> None:
    """Raise ConfigError unless a checkpoint can have that name."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            [f"a checkpoint can't have the name {name!r}"],
            hint="use up to 30 lowercase letters, digits and `-`, such as `before-chapter-9`",
        )


def find(workspace: Workspace, name: str) -> Checkpoint | None:
    """The checkpoint of that name, complete or not; None if there is none.

    Raises LabStateError if its record can't be used.
    """
    path = workspace.checkpoints / name / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record.get("made"), dict):
            records.say_what_earlier_versions_did(record["made"])
        found = Checkpoint.model_validate(record)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it was not written by this version of the kit"
        raise LabStateError(
            f"the checkpoint {name} can't be used: {path}: {what}",
            hint=f"`./inv checkpoints --remove {name}` removes it",
        ) from error
    return found.model_copy(update={"made": records.where_it_is(workspace, found.made)})


def names(workspace: Workspace) -> tuple[str, ...]:
    """The names of all checkpoints, also of those that are incomplete or can't be used."""
    folder = workspace.checkpoints
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.exists() else ()


def begin(workspace: Workspace, checkpoint: Checkpoint) -> None:
    """Record an incomplete checkpoint, with the lab's present secrets; replaces an incomplete one."""
    folder = workspace.checkpoints / checkpoint.name
    shutil.rmtree(folder, ignore_errors=True)
    for each in (workspace.checkpoints, folder, folder / SECRETS):
        each.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    _copy(_files(workspace.secrets), folder / SECRETS)
    _copy([workspace.kubeconfig] if workspace.kubeconfig.exists() else [], folder)
    _write(workspace, checkpoint)


def add(workspace: Workspace, name: str, machine: str, saved: Saved) -> None:
    """Record that a machine's state is saved. Machines are saved in parallel."""
    with _UPDATING:
        found = _known(workspace, name)
        _write(workspace, found.model_copy(update={"machines": found.machines | {machine: saved}}))


def complete(workspace: Workspace, name: str) -> Checkpoint:
    """Record that all machines are saved, and return the checkpoint."""
    done = _known(workspace, name).model_copy(update={"complete": True})
    _write(workspace, done)
    return done


def withdraw(workspace: Workspace, name: str) -> None:
    """Record that a checkpoint is incomplete from now on, before its machines' states are removed."""
    _write(workspace, _known(workspace, name).model_copy(update={"complete": False}))


def put_back(workspace: Workspace, checkpoint: Checkpoint) -> None:
    """Give the lab the secrets, the kubeconfig and the record that belong to the machines' restored states.

    The record is the last, since it says that a restore has ended.
    """
    folder = workspace.checkpoints / checkpoint.name
    for path in _files(folder / SECRETS):
        workspace.write_secret(workspace.secrets / path.name, path.read_text(encoding="utf-8"))
    kubeconfig = folder / KUBECONFIG
    if kubeconfig.exists():
        workspace.write_secret(workspace.kubeconfig, kubeconfig.read_text(encoding="utf-8"))
    else:
        workspace.kubeconfig.unlink(missing_ok=True)
    records.write(workspace, checkpoint.made)


def remove(workspace: Workspace, name: str) -> None:
    """Remove a checkpoint's record and secrets; there may be none."""
    shutil.rmtree(workspace.checkpoints / name, ignore_errors=True)


def _known(workspace: Workspace, name: str) -> Checkpoint:
    found = find(workspace, name)
    assert found is not None
    return found


def _write(workspace: Workspace, checkpoint: Checkpoint) -> None:
    path = workspace.checkpoints / checkpoint.name / RECORD
    workspace.write_secret(path, checkpoint.model_dump_json(indent=2) + "\n")


def _files(folder: Path) -> list[Path]:
    """The lab's own secrets. Folders have those of one machine, which are written again for each run."""
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.exists() else []


def _copy(files: Iterable[Path], folder: Path) -> None:
    for path in files:
        target = folder / path.name
        target.touch(mode=PRIVATE_FILE)
        target.write_bytes(path.read_bytes())
