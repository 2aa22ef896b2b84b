"""The drill `upgrade`: the lab's next upgrade, on a lab that is what it was afterwards.

An upgrade can't be reverted, so all machines are saved in a checkpoint before, which is restored at the end.
`lab.drill.measured_upgrade` measures it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from lab.errors import LabStateError
from lab.golden.supply.releases import supported
from lab.model import Lab, Node
from lab.model.change import version_effect
from lab.session import Session, of_lab
from lab.verbs import checkpoint
from lab.verbs import up as bring_up
from lab.verbs.up import Around, Request
from lab.workspace import checkpoints

if TYPE_CHECKING:
    from lab.drill.scene import Scene

NAME = "upgrade"

CHECKPOINT = "before-drill-upgrade"
"""The checkpoint that is restored at the end, and then removed."""


def lab_problem(lab: Lab) -> str | None:
    """Why this lab has no next upgrade; None if it has one."""
    if _next(lab):
        return None
    return (
        f"{NAME} needs a later version that the kit has, and {lab.name} has Kubernetes {lab.kubernetes.version}"
    )


def wanted(session: Session) -> Session:
    """The same lab with the version that the drill upgrades it to."""
    lab = _next(session.lab)
    assert lab is not None
    return of_lab(session, lab)


def loss(session: Session) -> str:
    """What the drill does to the machines, and what is lost."""
    version = wanted(session).lab.kubernetes.version
    return (
        f"All machines of {session.lab.name} will be saved, upgraded to Kubernetes {version}, and given their "
        "saved states again. All that is done meanwhile on the machines and in the cluster will be lost."
    )


def machines(session: Session) -> tuple[Node, ...]:
    """All machines. Raises LabStateError if there is a checkpoint with the name of the drill's own."""
    if CHECKPOINT in checkpoints.names(session.workspace):
        raise LabStateError(
            f"there is a checkpoint {CHECKPOINT} already, and the drill needs that name for its own",
            hint=f"`./inv checkpoints --remove {CHECKPOINT}` removes it",
        )
    return session.lab.nodes


def upgrade(scene: Scene) -> None:
    """Save the machines, then upgrade them."""
    save(scene.session)
    carry_out(scene.session, Request(consent=True))


def save(session: Session) -> None:
    """Save all machines as they are now. The caller holds the lab's lock."""
    checkpoint.take(session, CHECKPOINT)


def carry_out(session: Session, wish: Request, around: Around = bring_up.unmeasured) -> None:
    """Upgrade the lab as `up` does; the question of the drill has been answered."""
    bring_up.apply(wanted(session), wish, lambda question: True, around)


def put_back(scene: Scene) -> None:
    """Give the machines their saved states again, wherever the drill was. The caller holds the lab's lock."""
    session = scene.session
    shutil.rmtree(session.workspace.payloads, ignore_errors=True)
    found = checkpoints.find(session.workspace, CHECKPOINT)
    if found is None:
        return
    if not found.complete:
        checkpoint.abandon(session, CHECKPOINT)
        return
    former = of_lab(session, found.made.lab)
    checkpoint.bring_back(former, CHECKPOINT, consent=True, confirm=lambda question: True)
    # From here on there is nothing to restore, also if this is killed while half of it is removed.
    checkpoints.withdraw(session.workspace, CHECKPOINT)
    checkpoint.discard(former, CHECKPOINT)


def _next(lab: Lab) -> Lab | None:
    """The lab with the newest version that it can be upgraded to at once; None if there is none."""
    own = lab.kubernetes.version
    for version in supported():
        if version != own and version_effect(own, version).kind == "upgraded":
            return lab.model_copy(update={"kubernetes": lab.kubernetes.model_copy(update={"version": version})})
    return None
