"""Keeps and merges the administrator's kubeconfig, whose server is the load balancer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from lab import quoting
from lab.errors import LabStateError
from lab.host.places import home
from lab.model import Lab, Node
from lab.remote import Remote
from lab.workspace import Workspace


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
            hint="`./inv destroy`, then `./inv up` make the lab again",
        )
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(config))
    return True


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
        theirs: Any = yaml.safe_load(before) or {"apiVersion": "v1", "kind": "Config"}
        for kind in ("clusters", "users", "contexts"):
            kept = [each for each in theirs.get(kind) or [] if each["name"] != lab.name]
            theirs[kind] = kept + ours[kind]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        # What a parser says may quote the file, and that may be a token or a key.
        raise LabStateError(
            f"{target} can't be read as a kubeconfig ({type(error).__name__})",
            hint=f"fix it, or use the lab's own: {export(workspace)}",
        ) from (error if isinstance(error, OSError) else None)
    theirs["current-context"] = theirs.get("current-context") or lab.name
    writer = Workspace(target.parent)
    kept_before = target.with_name(f"{target.name}.before-{lab.name}")
    if before and not kept_before.exists():
        writer.write_secret(kept_before, before)
    writer.write_secret(target, yaml.safe_dump(theirs, sort_keys=False))
    return target


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
