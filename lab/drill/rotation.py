"""The drill that replaces a running lab's CA: both are trusted, the new one signs, only the new one is trusted.

The order is that of kubernetes.io, "Manual Rotation of CA Certificates". The kit creates the CA on the host, so
the host's `ca.crt` is the record of the rotation: it lists the trusted CAs, and the first of them signs.
`provision/node/rotate-ca.sh` applies that on the machines, on one control plane at a time. The CAs of etcd and
of the front proxy are not replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.drill.certificates import carry_out
from lab.drill.scene import Scene
from lab.errors import LabStateError
from lab.model import Lab, Node
from lab.plans import renew
from lab.plans.engine import Job, Plan, Step
from lab.plans.script import script
from lab.plans.situation import Situation
from lab.session import Session
from lab.verbs import render
from lab.workspace import Workspace, kubeconfig
from lab.workspace.render import credentials
from lab.workspace.render.credentials import Pair
from lab.workspace.render.keys import CERTIFICATE, ca_files


@dataclass(frozen=True)
class Stage:
    """A stage. `trusted` are the CAs that are trusted in it, of which the first signs.

    `mark` is set once all machines have it. `restarts`: the kit's pods are restarted, since they may have read
    only the earlier CAs. `reissues`: kubelets get new serving certificates, which the cluster itself signs.
    """

    mark: str
    trusted: tuple[str, ...]
    restarts: bool = False
    reissues: bool = False


OLD, NEW = "old", "new"
STAGES = (
    Stage("both CAs are trusted", (OLD, NEW), restarts=True),
    Stage("the new CA signs", (NEW, OLD), reissues=True),
    Stage("only the new CA is trusted", (NEW,), restarts=True),
)


def rotate(scene: Scene) -> None:
    """Create a new CA, and replace the lab's with it."""
    scene.injected()
    _roll(scene)


def finish(scene: Scene) -> None:
    """Complete a rotation that was interrupted: there is no way back once the new CA has signed."""
    if _next_files(scene.session.workspace)[0].exists():
        _roll(scene)


def _roll(scene: Scene) -> None:
    workspace = scene.session.workspace
    new = _new_ca(workspace)
    for stage in STAGES[_reached(workspace, new) :]:
        signing = _write(scene.session, stage, new)
        # One after the other, each on all machines: a step waits for another on its own machine only.
        for plan in _plans(stage, signing):
            carry_out(scene, plan)
        _fetch_kubeconfig(scene)
        scene.mark("detect", stage.mark)
    for file in _next_files(workspace):
        file.unlink(missing_ok=True)


def _next_files(workspace: Workspace) -> tuple[Path, Path]:
    """The files of the new CA and its key; the certificate exists exactly while a rotation is under way."""
    return workspace.secrets / "next-ca.crt", workspace.secrets / "next-ca.key"


def _new_ca(workspace: Workspace) -> str:
    """The certificate of the new CA, which is created the first time."""
    certificate, key = _next_files(workspace)
    if not certificate.exists():
        made = credentials.new_ca()
        workspace.write_secret(key, made.key)
        workspace.write_secret(certificate, made.certificate)
    return certificate.read_text(encoding="utf-8").strip() + "\n"


def _trusted(workspace: Workspace) -> list[str]:
    text = ca_files(workspace)[0].read_text(encoding="utf-8")
    return [f"{each}\n" for each in CERTIFICATE.findall(text)]


def _reached(workspace: Workspace, new: str) -> int:
    """The index of the stage of the host's files, which machines may not have yet; 0 before the first."""
    trusted = _trusted(workspace)
    if trusted == [new]:
        return len(STAGES) - 1
    return 1 if trusted[:1] == [new] else 0


def _write(session: Session, stage: Stage, new: str) -> Pair:
    """Write the host's files for a stage; return the CA that signs in it.

    Raises LabStateError if the lab was never brought up.
    """
    workspace, record = session.workspace, session.made
    if record is None:
        raise LabStateError("the lab has no machines yet, so there is no CA to rotate", hint="`./inv up`")
    certificate, key = ca_files(workspace)
    others = [each for each in _trusted(workspace) if each != new]
    trusted = [each for name in stage.trusted for each in ([new] if name == NEW else others)]
    # Rendering refuses another CA than the machines were given (lab/workspace/render/keys.py).
    for given in (workspace.root / "nodes").glob("*/ca.crt"):
        given.unlink()
    workspace.write_secret(certificate, "".join(trusted))
    next_key = _next_files(workspace)[1]
    if stage.trusted[0] == NEW and next_key.exists():
        workspace.write_secret(key, next_key.read_text(encoding="utf-8"))
    render.write(session, record, record.golden)
    return Pair(trusted[0], key.read_text(encoding="utf-8"))


def _plans(stage: Stage, signing: Pair) -> tuple[Plan, ...]:
    """The plans of one stage."""

    def machine(job: Job) -> None:
        node = job.node
        client = credentials.kubelet_client(node.name, signing)
        secrets = {"kubelet.pem": client.certificate + client.key}
        if node.spec.serves_api:
            secrets["ca.key"] = signing.key
        job.context.remote.script(node, "rotate-ca", secrets=secrets, log=job.log)

    def worker(job: Job) -> bool:
        machine(job)
        return True

    def control_plane(job: Job) -> bool:
        def work() -> None:
            machine(job)
            renew.restart_outdated(job)
            job.context.remote.script(job.node, "rotate-ca", ("--restart",), log=job.log)

        renew.while_drained(job, work)
        return True

    def kubelet(job: Job) -> bool:
        return job.context.remote.script(job.node, "rotate-ca", ("--kubelet",), log=job.log)

    def objects(job: Job) -> bool:
        words = ("--objects", *(["--restart"] if stage.restarts else []))
        job.context.remote.script(job.node, "rotate-ca", words, log=job.log)
        return True

    machines: Plan = (
        Step("deliver", f"{stage.mark}: files", _deliver, _all),
        # A reload cuts no connection. HAProxy's ca-file may have several.
        script("load-balancer", f"{stage.mark}: HAProxy", lambda lab, _: lab.balancers, after=("deliver",)),
        Step("rotate-ca", stage.mark, worker, lambda lab, _: lab.workers, after=("deliver",)),
        Step(
            "rotate-control-plane",
            stage.mark,
            control_plane,
            lambda lab, _: lab.control_planes,
            after=("deliver", "load-balancer", "rotate-ca"),
            one_at_a_time=True,
        ),
    )
    # Once every controller manager signs with the new CA.
    asks = f"{stage.mark}: the kubelet asks for another serving certificate"
    serving: Plan = (Step("rotate-serving", asks, kubelet, lambda lab, _: lab.kubernetes_nodes),)
    cluster: Plan = (
        script("kubelet-certificates", "kubelets' serving certificates", _first),
        Step(
            "rotate-objects",
            f"{stage.mark}: the cluster's pods",
            objects,
            _first,
            after=("kubelet-certificates",),
        ),
    )
    return (machines, serving, cluster) if stage.reissues else (machines, cluster)


def _all(lab: Lab, situation: Situation) -> Sequence[Node]:
    return lab.nodes


def _first(lab: Lab, situation: Situation) -> Sequence[Node]:
    return (situation.first,)


def _deliver(job: Job) -> bool:
    job.context.remote.deliver(job.node)
    return True


def _fetch_kubeconfig(scene: Scene) -> None:
    """The administrator's kubeconfig, also where it was merged, and the probes' users."""
    session = scene.session
    with session.progress.asking("the administrator's kubeconfig"):
        kubeconfig.fetch(session.lab, session.workspace, session.remote, session.lab.first)
        kubeconfig.refresh(session.lab, session.workspace)
    scene.users_read_again()
