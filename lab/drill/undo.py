"""Changes back whatever a drill changes: at its end, at Ctrl-C, or by the next drill.

What was changed stands in `.lab/drill/` from before the change until it is undone, so that even a drill that
was killed outright leaves behind what has to be done. Undoing something twice does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.drill.catalogue import DRILLS, Drill
from lab.drill.scene import Scene
from lab.session import Session, with_profile
from lab.system import process
from lab.verbs import render


@contextmanager
def fault(scene: Scene, drill: Drill) -> Iterator[None]:
    """Allow a fault while inside; it is out afterwards. Raises LabError when it can't be taken out."""
    remember(scene, drill)
    try:
        yield
    finally:
        scene.mark("heal", "the fault")
        with process.defer_interrupts():
            drill.heal(scene)
            _fault(scene.session).unlink()


def remember(scene: Scene, drill: Drill) -> None:
    """Write down which fault goes into which machines, before it does."""
    left = {"drill": drill.name, "victims": [node.name for node in scene.victims]}
    scene.session.workspace.write(_fault(scene.session), json.dumps(left) + "\n")


@contextmanager
def profile(session: Session, name: str) -> Iterator[Session]:
    """The lab with that profile of its load balancer while inside, and with its own afterwards."""
    if name == session.lab.load_balancer.profile:
        yield session
        return
    changed = with_profile(session, name)
    session.workspace.write(_profile(session), json.dumps({"profile": name}) + "\n")
    try:
        render.configure_load_balancers(changed)
        yield changed
    finally:
        with process.defer_interrupts():
            _own_profile(session)


def leftovers(session: Session) -> tuple[str, ...]:
    """Undo what an earlier drill left behind; return what that was, in words."""
    undone = []
    with process.defer_interrupts():
        what = pending(session)
        if what:
            left = json.loads(_fault(session).read_text(encoding="utf-8"))
            victims = tuple(node for node in session.lab.nodes if node.name in left["victims"])
            drill = next(each for each in DRILLS if each.name == left["drill"])
            with session.progress.asking(f"{what} to be reverted"):
                drill.heal(Scene(session, victims, lambda kind, what: None))
            _fault(session).unlink()
            undone.append(what)
        if _profile(session).exists():
            _own_profile(session)
            undone.append("another profile of the load balancer")
    return tuple(undone)


def pending(session: Session) -> str:
    """What a drill has put in and not taken out; "" when nothing. Asks files only."""
    try:
        left = json.loads(_fault(session).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return f"{left['drill']} on {', '.join(left['victims']) or 'no machine'}"


def _own_profile(session: Session) -> None:
    render.configure_load_balancers(session)
    _profile(session).unlink()


def _fault(session: Session) -> Path:
    return session.workspace.drill / "fault.json"


def _profile(session: Session) -> Path:
    return session.workspace.drill / "profile.json"
