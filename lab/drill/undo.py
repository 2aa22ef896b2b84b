"""Reverts what a drill changes: at its end, after Ctrl-C, or before the next drill.

A change is recorded in `.lab/drill/` before it is made, until it is reverted, so that even a killed drill
leaves a record of what to revert. Reverting twice does no harm.
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
    """Allow a fault while inside; revert it afterwards. Raises LabError if it can't be reverted."""
    remember(scene, drill)
    try:
        yield
    finally:
        scene.mark("heal", "the fault")
        with process.defer_interrupts():
            drill.heal(scene)
            _fault(scene.session).unlink()


def remember(scene: Scene, drill: Drill) -> None:
    """Record which fault is injected into which machines, before it is."""
    left = {"drill": drill.name, "victims": [node.name for node in scene.victims]}
    scene.session.workspace.write(_fault(scene.session), json.dumps(left) + "\n")


@contextmanager
def profile(session: Session, name: str) -> Iterator[Session]:
    """The lab with that load balancer profile while inside; its own profile is restored afterwards."""
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
    """Revert what an earlier drill left; return phrases for what that was."""
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


def pending(session: Session, besides: str = "") -> str:
    """The fault that a drill besides the named one has left in the lab; "" if none. Reads files only."""
    try:
        left = json.loads(_fault(session).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    if left["drill"] == besides:
        return ""
    return f"{left['drill']} on {', '.join(left['victims']) or 'no machine'}"


def is_pending(session: Session, name: str) -> bool:
    """Whether the fault of the drill of that name was injected and not reverted. Reads files only."""
    return bool(pending(session)) and not pending(session, besides=name)


def _own_profile(session: Session) -> None:
    render.configure_load_balancers(session)
    _profile(session).unlink()


def _fault(session: Session) -> Path:
    return session.workspace.drill / "fault.json"


def _profile(session: Session) -> Path:
    return session.workspace.drill / "profile.json"
