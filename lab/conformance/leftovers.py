"""What the suite has left in a cluster, found by who made it, and removed.

The API notes of every object who made it (`managedFields`): for the suite's objects that is the name of its
program. So nothing of the user's is taken for the suite's, and what a killed run has left is found as well.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError, LabStateError, WaitTimedOut
from lab.health.cluster import Api, refusal
from lab.system.wait import wait_until

MAKER = "e2e.test"
"""By what name the API knows the suite: its program's (client-go's default for a field manager)."""

RUN_LABEL = "e2e-run"
"""The label of every namespace that the suite's framework makes."""

FIRST = ("apiservices", "mutatingwebhookconfigurations", "validatingwebhookconfigurations")
"""Kinds that are removed before others: while what they name is gone, the API removes no namespace."""

NOT_ASKED = ("events",)
"""Kinds that are many, and vanish by themselves."""

SYSTEM_KEYS = ("node.kubernetes.io/", "node-role.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""How the keys of taints begin that Kubernetes itself sets."""

GONE = 180.0
"""Seconds for everything to be gone; a namespace takes as long as its pods take to end, at most 30 s mostly."""


@dataclass(frozen=True)
class Kind:
    """One kind of object that can be listed and deleted: `path` is its group's, `name` in the plural."""

    path: str
    name: str
    namespaced: bool


@dataclass(frozen=True)
class Left:
    """One object of the suite's. `path` is its own; `removing` says that it is being deleted already."""

    kind: str
    name: str
    path: str
    removing: bool = False

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.kind} {self.name}"


def remove(api: Api, log: Path, timeout: float = GONE) -> tuple[str, ...]:
    """Remove all that the suite has left, and wait until it is gone; return what is still there then."""
    asked: set[str] = set()

    def why_not_clean() -> str | None:
        try:
            left = find(api)
            for each in left:
                if each.path not in asked and _accepted(
                    api, "DELETE", each.path, {"propagationPolicy": "Background"}
                ):
                    asked.add(each.path)
            marked = clean_nodes(api)
        except LabError as error:
            return error.message  # a load balancer may just be leaving a server
        nodes = [f"its marks on the node {name}" for name in marked]
        return ", ".join([*(each.title for each in left), *nodes]) or None

    try:
        wait_until(why_not_clean, what="the suite's objects to be gone", timeout=timeout, interval=2, log=log)
    except WaitTimedOut as error:
        return (error.reason,)
    return ()


def find(api: Api) -> tuple[Left, ...]:
    """Every object that the suite made and that is there now; of its namespaces not what is in them."""
    namespaces = _found(api, Kind("/api/v1", "namespaces", namespaced=False))
    own = {each.name for each in namespaces}
    others = [
        each
        for kind in _kinds(api)
        if kind.name not in ("namespaces", *NOT_ASKED)
        for each in _found(api, kind, without=own)
    ]
    first = [each for each in others if each.kind in FIRST]
    return (*first, *namespaces, *(each for each in others if each.kind not in FIRST))


def clean_nodes(api: Api) -> tuple[str, ...]:
    """Take labels and taints off the nodes that the suite has put on them, and let pods on them again.

    Return the names of nodes where that was refused.
    """
    refused = []
    for node in api.get("/api/v1/nodes")["items"]:
        patch, name = node_patch(node), node["metadata"]["name"]
        if patch and not _accepted(
            api, "PATCH", f"/api/v1/nodes/{name}", patch, "application/merge-patch+json"
        ):
            refused.append(name)
    return tuple(refused)


def _accepted(
    api: Api, method: str, path: str, body: dict[str, Any], content_type: str = "application/json"
) -> bool:
    """Send a change; whether the API takes it, or has no such object any more."""
    status, _ = api.request(method, path, body, content_type)
    return http.client.OK <= status < http.client.MULTIPLE_CHOICES or status == http.client.NOT_FOUND


def node_patch(node: dict[str, Any]) -> dict[str, Any]:
    """What has to change in a node so that nothing of the suite's is left on it; empty for nothing."""
    labels: dict[str, None] = {}
    spec: dict[str, Any] = {}
    for entry in node["metadata"].get("managedFields", []):
        if entry.get("manager") != MAKER or entry.get("subresource"):
            continue
        fields = entry.get("fieldsV1", {})
        for field in fields.get("f:metadata", {}).get("f:labels", {}):
            if field.startswith("f:"):
                labels[field.removeprefix("f:")] = None
        if "f:unschedulable" in fields.get("f:spec", {}) and node["spec"].get("unschedulable"):
            spec["unschedulable"] = None
        taints = node["spec"].get("taints", [])
        kept = [taint for taint in taints if taint["key"].startswith(SYSTEM_KEYS)]
        if "f:taints" in fields.get("f:spec", {}) and kept != taints:
            spec["taints"] = kept or None
    return ({"metadata": {"labels": labels}} if labels else {}) | ({"spec": spec} if spec else {})


def is_made_by_the_suite(metadata: dict[str, Any]) -> bool:
    """Whether an object is the suite's: a namespace of its framework, or one that the suite wrote first."""
    if RUN_LABEL in metadata.get("labels", {}):
        return True
    entries = metadata.get("managedFields", [])
    first = min((entry.get("time", "") for entry in entries), default="")
    return any(entry.get("manager") == MAKER and entry.get("time", "") == first for entry in entries)


def _found(api: Api, kind: Kind, without: set[str] | None = None) -> list[Left]:
    """The suite's objects of one kind; none of a kind that can't be listed now, as of an API that is gone."""
    answer = _answer(api, f"{kind.path}/{kind.name}")
    return [
        _left(kind, item["metadata"])
        for item in (answer or {"items": []})["items"]
        if item["metadata"].get("namespace") not in (without or ()) and is_made_by_the_suite(item["metadata"])
    ]


def _left(kind: Kind, metadata: dict[str, Any]) -> Left:
    where = f"/namespaces/{metadata['namespace']}" if kind.namespaced else ""
    path = f"{kind.path}{where}/{kind.name}/{metadata['name']}"
    return Left(kind.name, metadata["name"], path, "deletionTimestamp" in metadata)


def _kinds(api: Api) -> Iterator[Kind]:
    """Every kind of object that the API can list and delete, each in the version that it prefers."""
    paths = ["/api/v1"]
    paths += [f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"]]
    for path in paths:
        for each in (_answer(api, path) or {"resources": []})["resources"]:
            if {"list", "delete"} <= set(each["verbs"]) and "/" not in each["name"]:
                yield Kind(path, each["name"], each["namespaced"])


def _answer(api: Api, path: str) -> dict[str, Any] | None:
    """What the API has at a path; None where it has nothing to list there now.

    So it is for an aggregated API whose server is gone (503), and for a kind that has just been removed (404).
    """
    status, body = api.request("GET", path)
    if status in (http.client.NOT_FOUND, http.client.SERVICE_UNAVAILABLE) and path.startswith("/apis/"):
        return None
    if status != http.client.OK:
        raise LabStateError(f"the API answered {status} to GET {path}: {refusal(body)}")
    found: dict[str, Any] = json.loads(body)
    return found
