"""The drill that takes all etcd members one minor version back, and forward again, while Kubernetes stays.

The way back is that of etcd.io, "Downgrade etcd from v3.7 to v3.6", the way forward that of "Upgrade etcd from
v3.6 to v3.7": one member at a time, the leader last, as `up` does it (`lab.plans.upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable

from lab.drill.certificates import carry_out
from lab.drill.scene import Scene
from lab.errors import LabError, LabStateError
from lab.golden import image
from lab.golden.supply.releases import release, supported
from lab.health.facts.gather import ask_machine
from lab.health.facts.machine import EtcdStatus
from lab.model import Lab, Node
from lab.plans import quorum, upgrade
from lab.plans.script import script
from lab.plans.situation import Situation, Upgrade
from lab.remote import side_by_side
from lab.session import Session
from lab.system.wait import wait_until

AGREED_TIMEOUT = 60.0
"""Seconds until all members agree about what was enabled or is complete: they compare versions every 5."""

DOWNGRADED = "all etcd members are one version back"
"""The mark for the time when only the way forward is left."""

FAULT = "etcd_downgrade_enabled"


def lab_problem(lab: Lab) -> str | None:
    """Why etcd of this lab can't be downgraded; None if it can."""
    if _former(lab):
        return None
    version = lab.kubernetes.version
    return (
        "downgrade-etcd needs a lab whose etcd has an earlier minor version among those of the kit, and "
        f"Kubernetes {version} has etcd {release(version).etcd}"
    )


def members(session: Session) -> tuple[Node, ...]:
    """All etcd members. Raises LabStateError where they could not get the former version's image."""
    former = _former(session.lab)
    assert former is not None
    version, tag = former.kubernetes.version, release(former.kubernetes.version).etcd_tag
    lacking = [n.name for n in session.lab.etcd_members if not upgrade.has_etcd(session.remote, n, tag)]
    if lacking and not image.exists(former, image.name(former)):
        raise LabStateError(
            f"{', '.join(lacking)}: the image etcd:{tag} is missing, and so is the golden machine that has it, "
            f"of Kubernetes {version}",
            hint=f"`./inv bake --lab FILE` builds it, with a FILE that has kubernetes.version: {version}",
        )
    return session.lab.etcd_members


def downgrade(scene: Scene) -> None:
    """Take all members to the former version, as the cluster runs."""
    former = _former(scene.session.lab)
    assert former is not None
    carry_out(scene, upgrade.ETCD_IMAGE, _situation(scene, former))
    scene.injected()
    _on_one(scene).fault(FAULT, "inject", _minor(former))
    _wait_until_all(scene, "have the former format", lambda each: _format_problem(each, former))
    carry_out(scene, upgrade.ETCD_ALONE, _situation(scene, former))
    _wait_until_all(scene, "have completed the downgrade", _why_not_complete)
    scene.mark("detect", DOWNGRADED)


def finish(scene: Scene) -> None:
    """Take all members forward again, wherever the downgrade was; changes nothing where none was begun."""
    lab = scene.session.lab
    carry_out(scene, (script("load-balancer", "HAProxy uses all API servers", lambda lab, _: lab.balancers),))
    ahead = _situation(scene, lab)
    assert ahead.upgrade is not None
    if not ahead.upgrade.etcd_alone and _why_not_all(scene, lambda each: _why_not_ahead(each, lab)) is None:
        return
    _on_one(scene).fault(FAULT, "heal")
    carry_out(scene, upgrade.ETCD_ALONE, ahead)
    _wait_until_all(scene, "have their own format again", lambda each: _why_not_ahead(each, lab))


def _former(lab: Lab) -> Lab | None:
    """The lab with the newest Kubernetes version whose etcd is one minor version older; None without one."""
    major, minor = map(int, _minor(lab).split("."))
    for version in supported():
        kubernetes = lab.kubernetes.model_copy(update={"version": version})
        former = lab.model_copy(update={"kubernetes": kubernetes})
        if _minor(former) == f"{major}.{minor - 1}":
            return former
    return None


def _minor(lab: Lab) -> str:
    """The minor version of a lab's etcd, such as 3.7."""
    return release(lab.kubernetes.version).etcd.rpartition(".")[0]


def _situation(scene: Scene, wanted: Lab) -> Situation:
    """The members that have another version than etcd of this lab, the leader last."""
    session = scene.session
    running = quorum.running(session.lab, session.remote)
    version = release(wanted.kubernetes.version).etcd
    others = [node for node in scene.victims if running.versions.get(node.name) != version]
    change = Upgrade(
        lab=session.lab,
        golden="",
        control_planes=(),
        workers=(),
        etcd_alone=upgrade.with_leader_last(others, running),
        etcd_lab=wanted,
        etcd_golden=image.name(wanted),
    )
    return Situation(session.lab.first, session.lab.nodes, upgrade=change)


def _on_one(scene: Scene) -> Scene:
    return Scene(scene.session, scene.victims[:1], scene.mark)


def _format_problem(status: EtcdStatus, lab: Lab) -> str | None:
    """Why a member does not store its data as etcd of this lab does; None if it does."""
    if status.storage.rpartition(".")[0] != _minor(lab):
        return f"its data has the format of {status.storage}"
    return None


def _why_not_complete(status: EtcdStatus) -> str | None:
    return "a downgrade is still enabled" if status.downgrading else None


def _why_not_ahead(status: EtcdStatus, lab: Lab) -> str | None:
    return _why_not_complete(status) or _format_problem(status, lab)


def _wait_until_all(scene: Scene, what: str, why_not: Callable[[EtcdStatus], str | None]) -> None:
    with scene.session.progress.step("etcd", f"etcd's members {what}") as shown:
        wait_until(
            lambda: _why_not_all(scene, why_not),
            what=f"etcd's members to {what}",
            timeout=AGREED_TIMEOUT,
            log=shown.log,
        )


def _why_not_all(scene: Scene, why_not: Callable[[EtcdStatus], str | None]) -> str | None:
    """The members for which there is a reason, each with it."""
    remote = scene.session.remote

    def ask(node: Node) -> str | None:
        try:
            return why_not(ask_machine(remote, node, "etcd-status").etcd_status)
        except LabError as error:
            return error.message

    found = side_by_side("asking etcd", scene.victims, ask)
    return "; ".join(f"{name}: {reason}" for name, reason in found.items() if reason) or None
