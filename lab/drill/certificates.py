"""Drills about certificates: they are renewed in time, or only after they have expired.

Both renew as `up` does (`lab.plans.renew`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from lab.drill.scene import Scene
from lab.errors import LabStateError
from lab.health.facts.certificates import CertificateFact
from lab.health.facts.gather import ask_machine
from lab.model import Node
from lab.plans import engine, renew
from lab.plans.engine import Context, Plan
from lab.plans.situation import Situation
from lab.remote import side_by_side
from lab.system.wait import wait_until
from lab.workspace.render import credentials

VALID = 240.0
"""Seconds that short-lived certificates are valid: more than three control planes need to restart."""

ALL = str(100 * 365)
"""Days within which all certificates end."""

RENEWED = "all certificates are renewed"
"""The mark for the time from which only restarts are left to do."""

KUBELET = "/var/lib/kubelet/"
"""The folder of certificates that the kubelet renews itself."""


def renew_all(scene: Scene) -> None:
    """Renew all certificates of all control planes, one machine at a time."""
    scene.injected()
    _renew(scene, ALL)


def finish(scene: Scene) -> None:
    """Complete a renewal that was interrupted."""
    _renew(scene, renew.DAYS)


def expire(scene: Scene) -> None:
    """Give all control planes certificates that end soon, restart what reads them, and wait until they expire.

    Raises LabStateError if they would not expire soon.
    """
    scene.fault("certificates_short_lived", "inject", f"{VALID:.0f}")
    ends = _first_end(scene)
    if (ends - datetime.now(UTC)).total_seconds() > 2 * VALID:
        raise LabStateError(
            f"the certificates would end at {ends:%Y-%m-%d %H:%M} UTC: kubeadm has not made short-lived ones",
            hint="`./inv drill --heal` renews them",
        )
    _renew(scene, renew.ONLY_RESTART)
    with scene.session.progress.step("expiry", "certificates end while probes run") as shown:
        wait_until(
            lambda: _why_not_over(ends),
            what="the first certificate to end",
            timeout=VALID + 10,
            interval=0.1,
            log=shown.log,
        )
        scene.injected()


def bring_back(scene: Scene) -> None:
    """Renew expired certificates on all control planes, then restart the static pods, one machine at a time.

    All files first: etcd's members and the API servers reject one another until most have valid certificates,
    and reload them without a restart. Controller managers and schedulers need one (kubernetes.io, "Certificate
    Management with kubeadm").
    """
    session = scene.session

    def files(node: Node) -> None:
        with session.progress.step("renew-files", "kubeadm certs renew all", node.name) as shown:
            session.remote.script(node, "renew-certificates", ("--files", renew.DAYS), log=shown.log)

    side_by_side("renewing certificates", scene.victims, files)
    scene.mark("detect", RENEWED)
    finish(scene)


def _renew(scene: Scene, days: str) -> None:
    carry_out(scene, (renew.step(lambda lab, situation: scene.victims, days=days),))


def carry_out(scene: Scene, plan: Plan, situation: Situation | None = None) -> None:
    """Run a plan on a lab that is up, about all its machines. Raises LabError if a step failed."""
    session = scene.session
    situation = situation or Situation(session.lab.first, session.lab.nodes)
    secrets = credentials.new_run_secrets()
    context = Context(session.lab, session.workspace, session.remote, session.progress, secrets, situation)
    engine.run(plan, context)


def _first_end(scene: Scene) -> datetime:
    """When the first of the victims' certificates ends that kubeadm renews."""
    remote = scene.session.remote

    def ask(node: Node) -> datetime:
        return min(each.until for each in _renewed(ask_machine(remote, node, "certificates").certificates))

    return min(side_by_side("asking for certificates", scene.victims, ask).values())


def _renewed(certificates: Iterable[CertificateFact]) -> list[CertificateFact]:
    """Those that `kubeadm certs renew` renews: no CA, and none of the kubelet."""
    own = [each for each in certificates if not each.path.startswith(KUBELET)]
    return [each for each in own if not each.path.endswith("ca.crt")]


def _why_not_over(ends: datetime) -> str | None:
    left = (ends - datetime.now(UTC)).total_seconds()
    return f"it ends in {left:.0f} s" if left > 0 else None
