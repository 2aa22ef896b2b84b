"""One opened lab: a record that the verbs pass on. Opening it changes nothing.

`open_wanted` opens the lab as lab.yaml describes it now, for verbs that change it. `open_made` opens it as its
machines were created, for verbs that only look at it, even if lab.yaml has changed since.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lab import config
from lab.config import choice
from lab.errors import ConfigError, LabStateError
from lab.model import Lab, Node
from lab.model.change import Change, change
from lab.providers import provider_of
from lab.remote import Remote
from lab.system import paths, quoting
from lab.system.progress import Progress
from lab.workspace import Workspace, made
from lab.workspace.made import Made

_MOVE = "rename that folder, or keep the lab file in another one and name it with --lab"
_CONVERT = f"find {quoting.word(paths.PROVISION)} -type f -exec sed -i 's/\\r$//' {{}} +"
SHOWS = "`./inv plan` shows what `up` would change"
"""What to do about a lab.yaml that differs from the lab."""


@dataclass(frozen=True)
class Session:
    """A lab: its lab.yaml, its `.lab/` folder, the connection to its machines, and the progress output.

    `made` is the record of what was created, None before the first `up`. `differs` says how lab.yaml differs
    from that record and what to do; None where it does not differ.
    """

    path: Path
    lab: Lab
    workspace: Workspace
    remote: Remote
    progress: Progress
    made: Made | None = None
    differs: str | None = None


def open_wanted(path: Path, console: Console) -> Session:
    """Open the lab as lab.yaml describes it.

    Raises ConfigError with every problem of the file, of its folder, and of this checkout's scripts.
    """
    path = path.resolve()
    workspace = Workspace(path.parent / ".lab")
    record = made.read(workspace)
    hints_by_keys = {quoting.folder_problem(path.parent): _MOVE, paths.line_end_problem(): _CONVERT}
    problems, hints = (
        [each for each in hints_by_keys if each],
        [hints_by_keys[each] for each in hints_by_keys if each],
    )
    try:
        lab = config.load(path, lambda file: choice.settle(file, workspace))
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems], hint="; ".join([*hints, error.hint])) from error
    if problems:
        raise ConfigError(problems, hint="; ".join(hints))
    return _session(path, lab, workspace, console, record)


def open_made(path: Path, console: Console) -> Session:
    """Open the lab as its machines were created; before the first `up`, as lab.yaml describes it.

    Works with an invalid lab.yaml, if the lab was rendered before.
    """
    path = path.resolve()
    workspace = Workspace(path.parent / ".lab")
    record = made.read(workspace)
    if record is None or not record.machines:
        return open_wanted(path, console)
    if not workspace.has_machines():
        with contextlib.suppress(ConfigError):
            return open_wanted(path, console)
    session = _session(path, record.lab, workspace, console, record)
    try:
        wanted = config.load(path, lambda file: choice.settle(file, workspace))
    except ConfigError as error:
        what = f"{path.name} can't be used now ({error.problems[0]})"
        return replace(session, differs=f"{what}. Correct it, then {SHOWS}")
    keys = [setting.key for setting in change_of(session, wanted).settings]
    if keys:
        return replace(session, differs=f"{path.name} differs from it in {', '.join(keys)}. {SHOWS}")
    return session


def has_machines(session: Session) -> bool:
    """Whether machines were created: they are recorded, and Vagrant knows at least one. Reads files only."""
    return bool(session.made and session.made.machines) and session.workspace.has_machines()


def change_of(session: Session, wanted: Lab) -> Change:
    """How the lab that was created has to change to become `wanted`; before the first `up`, all is added."""
    if session.made is None or not has_machines(session):
        return Change(added=wanted.nodes)
    enforced = provider_of(session.made.lab).enforces_sizes
    manifests = (session.made.manifest, made.manifest_sha256(wanted))
    found = change(
        session.made.lab,
        wanted,
        sizes_enforced=enforced,
        manifests=manifests,
        upgrading=session.made.upgrading,
    )
    # A killed run may have left a machine that it was resizing with either size.
    begun = [n for n in wanted.nodes if n.name in session.made.resizing and n not in found.resized]
    return replace(found, resized=(*found.resized, *begun))


def of_lab(session: Session, lab: Lab) -> Session:
    """The same session for a variant of its lab."""
    return replace(session, lab=lab, remote=Remote(lab, session.workspace))


def with_profile(session: Session, name: str) -> Session:
    """The same lab with another load balancer profile."""
    balancer = session.lab.load_balancer.model_copy(update={"profile": name})
    return of_lab(session, session.lab.model_copy(update={"load_balancer": balancer}))


def machine(session: Session, name: str) -> Node:
    """The machine of that name. Raises ConfigError, with the names of the lab's machines."""
    node = session.lab.node(name)
    if node is None:
        names = ", ".join(each.name for each in session.lab.nodes)
        raise ConfigError([f"there is no machine {name!r} in this lab"], hint=f"its machines: {names}")
    return node


def require_up(session: Session) -> None:
    """Raise LabStateError unless the lab was brought up, and its kubeconfig and its network exist."""
    kubeconfig = session.workspace.kubeconfig
    if not kubeconfig.exists() and was_complete(session):
        raise LabStateError(
            f"the kubeconfig of the lab {session.lab.name} is missing: {kubeconfig}",
            hint="`./inv up` fetches it again",
        )
    if not kubeconfig.exists():
        raise LabStateError(
            f"the lab {session.lab.name} has not been brought up", hint="bring it up with `./inv up`"
        )
    session.remote.require_route()


def was_complete(session: Session) -> bool:
    """Whether lab.yaml was applied completely before, so that there is a cluster."""
    return session.made is not None and bool(session.made.complete)


def _session(path: Path, lab: Lab, workspace: Workspace, console: Console, record: Made | None) -> Session:
    return Session(path, lab, workspace, Remote(lab, workspace), Progress(console, workspace.logs), record)
