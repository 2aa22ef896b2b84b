"""The administrator's kubeconfig: fetched, merged into the user's, and removed from there."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from lab.errors import LabStateError
from lab.host.places import home
from lab.model import Lab, Node
from lab.remote import Remote
from lab.system import quoting
from lab.workspace import Workspace, yaml_entries
from lab.workspace.render.credentials import CLOCK, Validity
from lab.workspace.render.keys import CERTIFICATE

KINDS = ("clusters", "users", "contexts")
CURRENT = "current-context"
HEAD = "apiVersion: v1\nkind: Config\n"
"""The beginning of a new kubeconfig."""


def fetch(lab: Lab, workspace: Workspace, remote: Remote, node: Node) -> bool:
    """Copy admin.conf from a control plane to `.lab/kubeconfig` (0600), with names after the lab.

    Returns whether it exists. Raises LabStateError when it is incomplete, or its server is not the load
    balancer.
    """
    said = remote.run(node, ["sudo", "cat", "/etc/kubernetes/admin.conf"], timeout=30, accept=(0, 1))
    if not said.ok:
        return False
    try:
        config = _named(yaml.safe_load(said.stdout), lab.name)
        server = config["clusters"][0]["cluster"]["server"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        server = ""  # kubeadm may be writing it at this moment
    if server != lab.api.url:
        raise LabStateError(
            f"the kubeconfig on {node.name} does not point at the load balancer {lab.api.url}",
            hint=f"`./inv ssh {node.name}` and set `server:` in /etc/kubernetes/admin.conf to it; `./inv "
            f"replace {node.name}` creates the machine again, if there are other control planes",
        )
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(config))
    return True


def client_validity(workspace: Workspace) -> Validity | None:
    """When the kubeconfig's client certificate is valid; None if there is no kubeconfig or certificate.

    Raises LabStateError when it can't be parsed.
    """
    try:
        user = yaml.safe_load(workspace.kubeconfig.read_text(encoding="utf-8"))["users"][0]["user"]
        if "client-certificate-data" not in user:
            return None
        certificate = x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))
        return Validity(
            workspace.kubeconfig,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            "the client certificate of the lab's kubeconfig",
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, x509.InvalidVersion):
        # A parser's message may quote the file, which contains the administrator's key.
        raise LabStateError(
            f"{workspace.kubeconfig} has no valid client certificate",
            hint="`./inv up` writes it again",
        ) from None


def client_hint(lab: Lab) -> str:
    """Commands that renew a client certificate that is not valid now, or not for long."""
    return f"{CLOCK}\n./inv up   # renews the certificates on {lab.first.name}, fetches the kubeconfig again"


def export(workspace: Workspace) -> str:
    """Return the shell command that makes kubectl use the lab."""
    return f"export KUBECONFIG={quoting.word(workspace.kubeconfig)}"


def merge(lab: Lab, workspace: Workspace, target: Path | None = None) -> Path:
    """Add the lab to the user's kubeconfig, as a context with the lab's name; nothing else changes.

    The previous file is kept beside it as `NAME.before-LAB`. The current context is set only if there was none.
    Raises LabStateError when the file can't be parsed as a kubeconfig.
    """
    target = (target or user_kubeconfig()).resolve()  # changes a symbolic link's target, not the link
    ours = yaml.safe_load(workspace.kubeconfig.read_text(encoding="utf-8"))
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        empty = yaml.safe_load(before) is None
        entries = {kind: ours[kind][0] for kind in KINDS}
        after = yaml_entries.added(HEAD if empty else before, entries, CURRENT)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        # A parser's message may quote the file, which may contain a token or a key.
        raise LabStateError(
            f"{target} can't be read as a kubeconfig ({type(error).__name__})",
            hint=f"fix it, or use the lab's own: {export(workspace)}",
        ) from (error if isinstance(error, OSError) else None)
    writer = Workspace(target.parent)
    kept_before = target.with_name(f"{target.name}.before-{lab.name}")
    if before and not kept_before.exists():
        writer.write_secret(kept_before, before)
    # Recorded first, so that `destroy` finds the file even if this run is killed.
    files = sorted({*_merged_into(workspace), str(target)})
    workspace.write(workspace.merged, json.dumps(files, indent=2) + "\n")
    writer.write_secret(target, after)
    return target


def refresh(lab: Lab, workspace: Workspace) -> tuple[Path, ...]:
    """Write the lab's certificates to the kubeconfigs that it was merged into; return the changed files.

    Raises LabStateError if one can't be written.
    """
    files = [Path(each) for each in _merged_into(workspace)]
    if not files:
        return ()
    ours = yaml.safe_load(workspace.kubeconfig.read_text(encoding="utf-8"))
    outdated = [file for file in files if _is_outdated(file, ours, lab, workspace)]
    return tuple(merge(lab, workspace, file) for file in outdated)


def _is_outdated(file: Path, ours: Any, lab: Lab, workspace: Workspace) -> bool:
    """Whether a kubeconfig contains this lab, but not as the lab's own kubeconfig does."""
    try:
        theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _is_in(theirs, lab, workspace) and not all(ours[kind][0] in theirs[kind] for kind in KINDS)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False  # not a kubeconfig that the lab was merged into


def unmerge(lab: Lab, workspace: Workspace) -> tuple[Path, ...]:
    """Remove the lab's context, cluster and user from the user's kubeconfigs; return the changed files.

    Only if the cluster with the lab's name trusts the lab's CA: another lab may have that name. Nothing else
    changes, and the previous file is kept beside it as `NAME.with-LAB`. Raises LabStateError at the end, with
    the files that could not be changed.
    """
    files = {Path(each) for each in _merged_into(workspace)} | {user_kubeconfig().resolve()}
    changed, failed = [], []
    for file in sorted(files):
        try:
            if _unmerge_from(file, lab, workspace):
                changed.append(file)
        except LabStateError:
            failed.append(file)
    if failed:
        names = " and ".join(str(file) for file in failed)
        words = f"kubectl --kubeconfig {quoting.word(failed[0])} config"
        raise LabStateError(
            f"the context {lab.name} could not be removed from {names}",
            hint=f"`{words} delete-context {lab.name}`, and the same with delete-cluster and delete-user",
        )
    return tuple(changed)


def _unmerge_from(file: Path, lab: Lab, workspace: Workspace) -> bool:
    """Remove the lab from one file; whether it was there. Raises LabStateError if it can't be written."""
    try:
        before = file.read_text(encoding="utf-8")
        if not _is_in(yaml.safe_load(before), lab, workspace):
            return False
        after = yaml_entries.without(before, KINDS, lab.name, CURRENT)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False  # not a kubeconfig that the lab was merged into
    writer = Workspace(file.parent)
    writer.write_secret(file.with_name(f"{file.name}.with-{lab.name}"), before)
    writer.write_secret(file, after)
    return True


def _is_in(theirs: Any, lab: Lab, workspace: Workspace) -> bool:
    """Whether a kubeconfig contains this lab: a cluster with its name that trusts its CA.

    While the CA is rotated, the lab and the kubeconfig may each trust two.
    """
    ca = _certificates((workspace.secrets / "ca.crt").read_text(encoding="utf-8"))
    return any(
        each["name"] == lab.name
        and _certificates(base64.b64decode(each["cluster"].get("certificate-authority-data", "")).decode()) & ca
        for each in theirs.get("clusters") or []
    )


def _certificates(text: str) -> set[str]:
    """The PEM certificates in a text, without their line ends."""
    return {"".join(each.split()) for each in CERTIFICATE.findall(text)}


def _merged_into(workspace: Workspace) -> list[str]:
    """The recorded files that the lab was merged into."""
    try:
        found = json.loads(workspace.merged.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def user_kubeconfig() -> Path:
    """The user's kubeconfig: the first file in $KUBECONFIG that is not a lab's own, else ~/.kube/config."""
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(":") if part]
    own = [path for path in listed if not Workspace(path.parent).exists()]
    return own[0] if own else home() / ".kube" / "config"


def _named(config: dict[str, Any], name: str) -> dict[str, Any]:
    """One cluster, one user and one context, all with the lab's name, so that labs don't collide."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": config["clusters"][0]["cluster"]}],
        "users": [{"name": name, "user": config["users"][0]["user"]}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
