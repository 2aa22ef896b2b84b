"""Builds a lab's golden machine, exports it to a file or imports it, and prepares the host for that."""

from __future__ import annotations

from pathlib import Path

from lab.conformance import suite
from lab.errors import LabError
from lab.golden import bundle, disk, image
from lab.golden.supply import comparison, releases
from lab.host.doctor import examination
from lab.session import Session


def bake(session: Session, *, consent: bool) -> str:
    """Build the golden machine unless it exists; return its name.

    Existing machines keep the one that they were created from, whatever has changed since.
    """
    own = own_golden(session)
    if own:
        make_fit(session, {"up"}, consent=consent)
        return own
    baked = is_baked(session)
    if not baked:
        image.key(session.lab)  # fails early if upstream's lock is missing
    make_fit(session, {"up"} if baked else {"up", "bake"}, consent=consent)
    # Ask again: before the host was prepared, the provider's daemon may not have been running.
    return own_golden(session) or image.bake(session.lab, session.progress)


def export(session: Session, target: Path, *, consent: bool) -> bundle.Manifest:
    """Pack this checkout's golden machine for hosts without a network; build it first if it does not exist.

    The conformance suite is included if it was built.
    """
    bundle.require_new(target)
    make_fit(session, {"up"} if is_baked(session) else {"up", "bake"}, consent=consent)
    image.bake(session.lab, session.progress)
    built = suite.folder(session.lab) if suite.is_built(session.lab) else None
    return bundle.write(session.lab, target, session.progress, built)


def import_(session: Session, file: Path, *, consent: bool) -> bundle.Manifest:
    """Import the golden machine that `export` packed; the file is checked before anything is changed."""
    with session.progress.step("check", f"check {file.name}"):
        manifest = bundle.check(session.lab, file)
    make_fit(session, {"up"}, consent=consent)
    bundle.take(session.lab, file, manifest, session.progress)
    return manifest


def compare(session: Session, records: Path | None, *, consent: bool) -> tuple[comparison.Compared, ...]:
    """Compare the lock of the lab's Kubernetes version with what upstream's hosts say.

    `records`: a new file for what they say. The lock itself is never changed. Raises LabError, for records also
    where a mirror would answer: only what upstream's own hosts say is a record.
    """
    if records is not None:
        comparison.require_own_hosts(session.lab.mirrors)
        bundle.require_new(records)
    make_fit(session, {"lock"}, consent=consent)
    wanted = releases.release(session.lab.kubernetes.version)
    found = comparison.compare(wanted, session.lab.mirrors, session.progress)
    if records is not None:
        comparison.write(records, comparison.records(wanted, found))
    return found


def make_fit(session: Session, purposes: set[str], *, consent: bool) -> None:
    """Let the doctor check this host, and repair it with the user's consent."""
    examination.make_fit(
        session.lab,
        session.workspace,
        purposes=frozenset(purposes),
        baked="bake" not in purposes,
        consent=consent,
        progress=session.progress,
    )


def is_baked(session: Session) -> bool:
    """Whether the golden machine exists; also False if the provider can't be asked."""
    try:
        with session.progress.asking("whether the golden machine exists"):
            return image.exists(session.lab, image.name(session.lab))
    except LabError:
        return False


def is_missing(session: Session) -> bool:
    """Whether `up` has to build the golden machine first.

    If machines exist and their provider can't be asked, their golden machine is assumed to exist.
    """
    try:
        return not own_golden(session) and not is_baked(session)
    except LabError:
        return False


def own_golden(session: Session) -> str:
    """The golden machine that this lab's machines were created from; "" if there is none."""
    own = session.made.golden if session.made else ""
    if not own or not session.workspace.has_machines():
        return ""
    if session.made and session.made.lab.kubernetes.version != session.lab.kubernetes.version:
        return ""  # they are to be upgraded
    with session.progress.asking("whether the machines' golden machine exists"):
        return own if image.exists(session.lab, own) else ""


def golden_disk(session: Session) -> Path:
    """The path of the golden disk, once it is baked."""
    return disk.folder(disk.key(session.lab)) / disk.DISK
