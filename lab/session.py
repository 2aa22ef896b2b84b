"""One lab opened for work: a record that the verbs pass on. Opening touches nothing.

`open_wanted` opens the lab as lab.yaml has it now, for verbs that change it. `open_made` opens it as its
machines were made, for verbs that look at it, whatever lab.yaml says by now.
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
    """A lab and the file it was read from, its `.lab/` folder, the way to its machines, and the one printer.

    `made` is the record of what was made, None where nothing was. `differs` says in which way lab.yaml differs
    from it, and what to do; None where it does not.
    """

    path: Path
    lab: Lab
    workspace: Workspace
    remote: Remote
    progress: Progress
    made: Made | None = None
    differs: str | None = None


def open_wanted(path: Path, console: Console) -> Session:
    """The lab as lab.yaml has it.

    Raises ConfigError with every problem of the file, of its folder, and of this checkout's own scripts.
    """
    path = path.resolve()
    workspace = Workspace(path.parent / ".lab")
    record = made.read(workspace)
    ways_out = {quoting.folder_problem(path.parent): _MOVE, paths.line_end_problem(): _CONVERT}
    problems, hints = [each for each in ways_out if each], [ways_out[each] for each in ways_out if each]
    try:
        lab = config.load(path, lambda file: choice.settle(file, workspace))
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems], hint="; ".join([*hints, error.hint])) from error
    if problems:
        raise ConfigError(problems, hint="; ".join(hints))
    return _session(path, lab, workspace, console, record)


def open_made(path: Path, console: Console) -> Session:
    """The lab as its machines were made; as lab.yaml has it where none was made yet.

    A lab.yaml that can't be used any more is no obstacle where a lab was rendered.
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
    """Whether machines were made: they are recorded, and Vagrant knows at least one. Asks files only."""
    return bool(session.made and session.made.machines) and session.workspace.has_machines()


def change_of(session: Session, wanted: Lab) -> Change:
    """What has to change in the lab that was made to get `wanted`; everything is added where none was made."""
    if session.made is None or not has_machines(session):
        return Change(added=wanted.nodes)
    enforced = provider_of(session.made.lab).enforces_sizes
    manifests = (session.made.manifest, made.manifest_sha256(wanted))
    found = change(session.made.lab, wanted, sizes_enforced=enforced, manifests=manifests)
    # A machine that a killed run was resizing may have either size.
    begun = [n for n in wanted.nodes if n.name in session.made.resizing and n not in found.resized]
    return replace(found, resized=(*found.resized, *begun))


def of_lab(session: Session, lab: Lab) -> Session:
    """The same session for another form of its lab."""
    return replace(session, lab=lab, remote=Remote(lab, session.workspace))


def with_profile(session: Session, name: str) -> Session:
    """The same lab with another profile of the load balancer."""
    balancer = session.lab.load_balancer.model_copy(update={"profile": name})
    return of_lab(session, session.lab.model_copy(update={"load_balancer": balancer}))


def machine(session: Session, name: str) -> Node:
    """The machine of that name. Raises ConfigError, which names the lab's machines."""
    node = session.lab.node(name)
    if node is None:
        names = ", ".join(each.name for each in session.lab.nodes)
        raise ConfigError([f"there is no machine {name!r} in this lab"], hint=f"its machines: {names}")
    return node


def require_up(session: Session) -> None:
    """Raise LabStateError unless the lab was brought up and its network is there."""
    if not session.workspace.kubeconfig.exists():
        raise LabStateError(
            f"the lab {session.lab.name} has not been brought up", hint="bring it up with `./inv up`"
        )
    session.remote.require_route()


def _session(path: Path, lab: Lab, workspace: Workspace, console: Console, record: Made | None) -> Session:
    return Session(path, lab, workspace, Remote(lab, workspace), Progress(console, workspace.logs), record)
