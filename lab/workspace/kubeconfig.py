"""The administrator's kubeconfig, whose server is the load balancer: kept, merged into the user's, removed."""

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

KINDS = ("clusters", "users", "contexts")
CURRENT = "current-context"
HEAD = "apiVersion: v1\nkind: Config\n"
"""What a new kubeconfig begins with."""


def fetch(lab: Lab, workspace: Workspace, remote: Remote, node: Node) -> bool:
    """Copy admin.conf from a control plane to `.lab/kubeconfig` (0600), under the lab's own names.

    Returns whether there is one. Raises LabStateError when it is incomplete, or its server is not the
    load balancer.
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
            f"replace {node.name}` makes the machine again where there are other control planes",
        )
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(config))
    return True


def client_validity(workspace: Workspace) -> Validity | None:
    """When the kubeconfig's client certificate is valid; None where there is no kubeconfig, or none in it.

    Raises LabStateError where there is one that can't be read.
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
        # What a parser says may quote the file, which holds the administrator's key.
        raise LabStateError(
            f"{workspace.kubeconfig} holds no client certificate that can be read",
            hint="`./inv up` writes it again",
        ) from None


def client_way_out(lab: Lab) -> str:
    """What to do about a client certificate that is not valid now, or not for long: commands to be pasted."""
    renew = f"./inv ssh {lab.first.name} -- sudo kubeadm certs renew admin.conf"
    return f"{CLOCK}\n{renew}\n./inv up   # fetches the kubeconfig again"


def export(workspace: Workspace) -> str:
    """Return the command with which kubectl uses the lab, to be pasted into a shell."""
    return f"export KUBECONFIG={quoting.word(workspace.kubeconfig)}"


def merge(lab: Lab, workspace: Workspace, target: Path | None = None) -> Path:
    """Add the lab as a context of its name to the user's kubeconfig; nothing else in it changes.

    The file before is kept beside it as `NAME.before-LAB`. The current context is set only where
    there was none. Raises LabStateError when the file can't be read as a kubeconfig.
    """
    target = (target or user_kubeconfig()).resolve()  # what a link points to is changed, not the link
    ours = yaml.safe_load(workspace.kubeconfig.read_text(encoding="utf-8"))
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        empty = yaml.safe_load(before) is None
        entries = {kind: ours[kind][0] for kind in KINDS}
        after = yaml_entries.added(HEAD if empty else before, entries, CURRENT)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        # What a parser says may quote the file, and that may be a token or a key.
        raise LabStateError(
            f"{target} can't be read as a kubeconfig ({type(error).__name__})",
            hint=f"fix it, or use the lab's own: {export(workspace)}",
        ) from (error if isinstance(error, OSError) else None)
    writer = Workspace(target.parent)
    kept_before = target.with_name(f"{target.name}.before-{lab.name}")
    if before and not kept_before.exists():
        writer.write_secret(kept_before, before)
    # First, so that `destroy` finds it whatever happens.
    files = sorted({*_merged_into(workspace), str(target)})
    workspace.write(workspace.merged, json.dumps(files, indent=2) + "\n")
    writer.write_secret(target, after)
    return target


def unmerge(lab: Lab, workspace: Workspace) -> tuple[Path, ...]:
    """Remove the lab's context, cluster and user from the user's kubeconfigs; return the files that had them.

    Only where the cluster of the lab's name there trusts the lab's own CA: another lab may have that name.
    Nothing else in them changes, and the file before is kept beside it as `NAME.with-LAB`. Raises LabStateError
    at the end, with the files that could not be changed.
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
    """Remove the lab from one file; whether it was in there. Raises LabStateError where it can't be written."""
    try:
        before = file.read_text(encoding="utf-8")
        if not _is_in(yaml.safe_load(before), lab, workspace):
            return False
        after = yaml_entries.without(before, KINDS, lab.name, CURRENT)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False  # no kubeconfig that the lab was merged into
    writer = Workspace(file.parent)
    writer.write_secret(file.with_name(f"{file.name}.with-{lab.name}"), before)
    writer.write_secret(file, after)
    return True


def _is_in(theirs: Any, lab: Lab, workspace: Workspace) -> bool:
    """Whether a kubeconfig has this very lab: a cluster of its name that trusts its CA."""
    ca = (workspace.secrets / "ca.crt").read_text(encoding="utf-8").strip()
    return any(
        each["name"] == lab.name
        and base64.b64decode(each["cluster"].get("certificate-authority-data", "")).decode().strip() == ca
        for each in theirs.get("clusters") or []
    )


def _merged_into(workspace: Workspace) -> list[str]:
    """The files that the lab was merged into, as far as that was noted."""
    try:
        found = json.loads(workspace.merged.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def user_kubeconfig() -> Path:
    """Where kubectl looks: the first file of $KUBECONFIG that is no lab's own, else ~/.kube/config."""
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(":") if part]
    own = [path for path in listed if not Workspace(path.parent).exists()]
    return own[0] if own else home() / ".kube" / "config"


def _named(config: dict[str, Any], name: str) -> dict[str, Any]:
    """One cluster, one user, one context, all of the lab's name, so that labs don't collide."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": config["clusters"][0]["cluster"]}],
        "users": [{"name": name, "user": config["users"][0]["user"]}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
