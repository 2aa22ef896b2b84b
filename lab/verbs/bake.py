"""The golden machine for a lab: made, packed into a file, taken from one; and the host made fit for that."""

from __future__ import annotations

from pathlib import Path

from lab.conformance import suite
from lab.errors import LabError
from lab.golden import bundle, disk, image
from lab.golden.supply import lock, pinning, releases
from lab.host.doctor import examination
from lab.session import Session


def bake(session: Session, *, consent: bool) -> str:
    """Make sure that the golden machine is there; return its name.

    Machines that exist keep the one that they are clones of, whatever has changed since.
    """
    own = own_golden(session)
    if own:
        make_fit(session, {"up"}, consent=consent)
        return own
    baked = is_baked(session)
    if not baked:
        image.key(session.lab)  # without upstream's lock nothing else need be looked at
    make_fit(session, {"up"} if baked else {"up", "bake"}, consent=consent)
    # What could not be asked before the host was made fit, such as a daemon that did not run, can be now.
    return own_golden(session) or image.bake(session.lab, session.progress)


def export(session: Session, target: Path, *, consent: bool) -> bundle.Manifest:
    """Pack this checkout's golden machine for hosts without a network, made first where it isn't there.

    The conformance suite goes with it if it was built.
    """
    bundle.require_new(target)
    make_fit(session, {"up"} if is_baked(session) else {"up", "bake"}, consent=consent)
    image.bake(session.lab, session.progress)
    built = suite.folder(session.lab) if suite.is_built(session.lab) else None
    return bundle.write(session.lab, target, session.progress, built)


def import_(session: Session, file: Path, *, consent: bool) -> bundle.Manifest:
    """Give this host the golden machine that `export` packed; nothing is touched before the file is checked."""
    with session.progress.step("check", f"check {file.name}"):
        manifest = bundle.check(session.lab, file)
    make_fit(session, {"up"}, consent=consent)
    bundle.take(session.lab, file, manifest, session.progress)
    return manifest


def pin(session: Session, *, consent: bool) -> Path:
    """Write the lock of upstream's parts of the lab's Kubernetes version, and return its path."""
    make_fit(session, {"lock"}, consent=consent)
    signed_by = releases.upstream().signed_by
    wanted = releases.release(session.lab.kubernetes.version)
    return lock.write(pinning.make(wanted, session.lab.mirrors, signed_by, session.progress))


def make_fit(session: Session, purposes: set[str], *, consent: bool) -> None:
    """Let the doctor look at this host, and repair it where that was consented to."""
    examination.make_fit(
        session.lab,
        session.workspace,
        purposes=frozenset(purposes),
        baked="bake" not in purposes,
        consent=consent,
        progress=session.progress,
    )


def is_baked(session: Session) -> bool:
    """Whether the golden machine is there; False also where the provider can't be asked."""
    try:
        with session.progress.asking("whether the golden machine is there"):
            return image.exists(session.lab, image.name(session.lab))
    except LabError:
        return False


def is_missing(session: Session) -> bool:
    """Whether `up` has to make the golden machine first.

    Where there are machines and their provider can't be asked, theirs is assumed to be there.
    """
    try:
        return not own_golden(session) and not is_baked(session)
    except LabError:
        return False


def own_golden(session: Session) -> str:
    """The golden machine that this lab's machines are clones of; "" where there are none, or it is gone."""
    own = session.made.golden if session.made else ""
    if not own or not session.workspace.has_machines():
        return ""
    with session.progress.asking("whether the machines' golden machine is there"):
        return own if image.exists(session.lab, own) else ""


def golden_disk(session: Session) -> Path:
    """Where the golden disk is, once it is baked."""
    return disk.folder(disk.key(session.lab)) / disk.DISK
