"""The record of a recovery that is under way or was interrupted: `.lab/recovery.json`.

While it exists, control planes may be stopped, and their etcd members may have data of two clusters. So `up`
refuses, and `./inv recover` continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lab.errors import LabStateError
from lab.system import quoting
from lab.workspace import Workspace


@dataclass(frozen=True)
class Recovery:
    """One recovery.

    `file` is the backup's path, `sha256` identifies its content. `token` is etcd's new initial-cluster
    token, with which all `members` are restored. `before` are the keys that etcd had before the recovery, with
    their revisions; None if no member could list them.
    """

    file: str
    sha256: str
    token: str
    members: tuple[str, ...]
    before: Mapping[str, int] | None


def read(workspace: Workspace) -> Recovery | None:
    """The recovery that is incomplete; None if there is none."""
    try:
        found = json.loads(workspace.recovery.read_text(encoding="utf-8"))
        return Recovery(**(found | {"members": tuple(found["members"])}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabStateError(
            f"{workspace.recovery} can't be read ({type(error).__name__})",
            hint=f"`rm {quoting.word(workspace.recovery)}`, then `./inv recover FILE` begins again",
        ) from None


def write(workspace: Workspace, recovery: Recovery) -> None:
    """Record it. It has the names of the cluster's objects, so only its owner may read it."""
    workspace.write_secret(workspace.recovery, json.dumps(asdict(recovery), indent=1) + "\n")


def remove(workspace: Workspace) -> None:
    """Remove the record, once the recovery is complete or no longer needed."""
    workspace.recovery.unlink(missing_ok=True)
