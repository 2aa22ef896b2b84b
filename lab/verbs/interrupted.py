"""Whether a restore or a recovery was interrupted, so that machines may not be of one instant."""

from __future__ import annotations

from lab.errors import LabStateError
from lab.plans import quorum
from lab.session import Session
from lab.system import quoting
from lab.workspace import recovery


def require_not_interrupted(session: Session) -> None:
    """Raise LabStateError if a restore or a recovery was interrupted: only these may go on then."""
    problem = interrupted_problem(session)
    if problem:
        raise LabStateError(problem.what, hint=problem.next)


def interrupted_problem(session: Session) -> quorum.Problem | None:
    """Why the machines may have data of different times, and what to do; None if they have not."""
    return restore_problem(session) or _recovery_problem(session)


def _recovery_problem(session: Session) -> quorum.Problem | None:
    found = recovery.read(session.workspace)
    if found is None:
        return None
    return quorum.Problem(
        f"a recovery from {found.file} was interrupted, and etcd's members may have different data",
        f"`./inv recover {quoting.word(found.file)}` goes on, and so does `./inv recover` with another backup "
        "of this lab; if none can be used, `./inv destroy` removes the lab",
    )


def restore_problem(session: Session) -> quorum.Problem | None:
    """Why the machines may not be of one instant, and what to do: a restore was interrupted. None if not."""
    name = session.made.restoring if session.made else ""
    if not name:
        return None
    return quorum.Problem(
        f"restoring the checkpoint {name} was interrupted: some machines may have its state, and others not",
        f"`./inv restore {name}` completes it, and so does `./inv restore` with another checkpoint; if none "
        "can be used, `./inv destroy` removes the lab",
    )
