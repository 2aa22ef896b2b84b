"""Writes the rendered files into `.lab/`, and the secrets into their folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lab import host
from lab.model import Lab
from lab.plans import pair, up
from lab.providers import provider_of
from lab.remote import control_folder
from lab.session import Session, has_machines
from lab.workspace import Workspace, made, render
from lab.workspace.made import Made
from lab.workspace.render import Site, credentials, disc


def record_and_write(session: Session, golden: str) -> Made:
    """Record every machine that may exist from now on, then write all files; return the record.

    Raises LabStateError, before anything is written, if the CA is not valid now.
    """
    lab, workspace = session.lab, session.workspace
    credentials.require_valid_ca(workspace)
    there = session.made if has_machines(session) else None
    owner = session.made.owner if session.made else made.new_owner(workspace)
    record = there or Made(lab=lab, owner=owner, root=str(workspace.root))
    record = record.with_machines(lab, golden)
    record = record.model_copy(update={"root": str(workspace.root)})
    made.write(workspace, record)
    write(session, record, golden)
    return record


def write(session: Session, record: Made, golden: str) -> None:
    """Write all files; leaving machines keep the configuration that they were created with.

    Files of machines that no longer exist are removed.
    """
    lab, workspace = session.lab, session.workspace
    leaving = tuple(node for node in record.lab.nodes if lab.node(node.name) is None)
    site = replace(_site(workspace, record, golden), manifest=_manifest(lab))
    texts = render.render(lab, site, up.provisioners, leaving)
    if leaving:
        former = render.render(record.lab, site, up.provisioners)
        own = tuple(f"nodes/{node.name}/" for node in leaving)
        texts |= {path: text for path, text in former.items() if path.startswith(own)}
    for path, text in texts.items():
        workspace.write(workspace.root / path, text)
    _write_disc(lab, workspace)
    workspace.restrict_secrets()
    run = credentials.new_run_secrets()
    key, etcd_key = credentials.ca_key(workspace), credentials.etcd_ca_key(workspace)
    for node in lab.nodes:
        folder = workspace.secrets / node.name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in credentials.secret_files(node, lab, run, key, etcd_key).items():
            workspace.write_secret(folder / name, text)
    workspace.remove_other_nodes({node.name for node in (*lab.nodes, *leaving)})
    # A machine gets everything in its folder, so files from an earlier version of the lab have to go.
    for file in (workspace.root / "nodes").rglob("*"):
        if file.is_file() and str(file.relative_to(workspace.root)) not in texts:
            file.unlink()


def refresh_locked(session: Session) -> None:
    """Call `refresh` with the lab locked and the record read again: another run may have changed it."""
    if _has_moved(session):
        with session.workspace.lock():
            refresh(replace(session, made=made.read(session.workspace)))


def refresh(session: Session) -> None:
    """Rewrite the files that contain the path of `.lab/` if that was moved or renamed since.

    The caller holds the lab's lock.
    """
    record, workspace = session.made, session.workspace
    if record is None or not _has_moved(session):
        return
    texts = render.render(record.lab, _site(workspace, record, record.golden), up.provisioners, ())
    for name in ("Vagrantfile", "ssh_config"):
        workspace.write(workspace.root / name, texts[name])
    made.write(workspace, record.model_copy(update={"root": str(workspace.root)}))


def _has_moved(session: Session) -> bool:
    record = session.made
    return record is not None and bool(record.machines) and record.root != str(session.workspace.root)


def configure_load_balancers(session: Session) -> None:
    """Give the running load balancers this lab's configuration, the one with the API's address last.

    Changes nothing else.
    """
    record = session.made
    assert record is not None
    lab, workspace = session.lab, session.workspace
    texts = render.render(lab, _site(workspace, record, record.golden), up.provisioners, ())
    for balancer in lab.standby_first(pair.holding(lab, session.remote)):
        for path, text in texts.items():
            if path.startswith(f"nodes/{balancer.name}/"):
                workspace.write(workspace.root / path, text)
        session.remote.deliver(balancer)
        with session.progress.step("load-balancer", "HAProxy's configuration", balancer.name) as step:
            session.remote.script(balancer, "load-balancer", log=step.log)


def _write_disc(lab: Lab, workspace: Workspace) -> None:
    """Write the disc with the lab's key if the provider needs one; once only, since it contains a date."""
    key = credentials.authorized_key(workspace)
    target = workspace.root / disc.name(key)
    if provider_of(lab).takes_disc and not target.exists():
        workspace.write(target, disc.image(key))


def _site(workspace: Workspace, record: Made, golden: str) -> Site:
    """The values for rendering besides the lab; without the manifest, which only control planes get."""
    return Site(
        workspace=workspace.root,
        owner=record.owner,
        control=control_folder(workspace),
        image=golden,
        capabilities=host.node_capabilities(),
        ca_certificate=credentials.ca_certificate(workspace),
        authorized_key=credentials.authorized_key(workspace),
        manifest="",
        etcd_ca_certificate=credentials.etcd_ca_certificate(workspace) if record.lab.external_etcd else "",
    )


def _manifest(lab: Lab) -> str:
    """The text of the pod network's manifest that lab.yaml names; empty for flannel."""
    if lab.network.pod_network == "flannel":
        return ""
    return Path(lab.network.pod_network).read_text(encoding="utf-8")
