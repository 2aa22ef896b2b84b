"""This room reads a running cluster: what the API, etcd and HAProxy answer, as typed facts.

The API is asked as a user would: through the kubeconfig, so through the load balancer, CA verified.
"""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from lab.errors import LabStateError

CHECKING = "* "
"""What HAProxy puts before a check's status while the next check is under way."""


AGAIN = "`./inv up` writes it again"

FLANNEL_ADDRESS = "flannel.alpha.coreos.com/public-ip"
"""The annotation by which flannel's agents find one another (flannel, Documentation/kubernetes.md)."""


@dataclass(frozen=True)
class NodeFact:
    """One node as the API has it. `internal_ips` are all its addresses of that type.

    `pod_network_address` is where flannel's agent there takes packets of other nodes' pods; "" until it says.
    `pod_network_up` is what the agent says of itself, in the condition NetworkUnavailable.
    """

    name: str
    ready: bool
    reason: str
    version: str
    control_plane: bool
    internal_ips: tuple[str, ...]
    taints: tuple[str, ...]
    pod_network_address: str
    pod_network_up: bool = True


@dataclass(frozen=True)
class PodFact:
    """One pod: where it runs, whether it is Ready, and since when.

    `started` is when its first container with a startup probe began, `startup_delay` the seconds after which that
    probe asks for the first time; None and 0 without one.
    """

    namespace: str
    name: str
    node: str
    phase: str
    ready: bool
    ready_since: datetime | None = None
    started: datetime | None = None
    startup_delay: int = 0

    def is_ready_at(self, now: datetime, taken_back_after: timedelta) -> bool:
        """Whether it is Ready and will not be called otherwise in a moment.

        A kubelet that is restarted beside a container not yet ten seconds old, as kubeadm does at the end of init,
        calls it Ready until the startup probe's turn has come, and then not Ready until its next one
        (docs/decisions/0009-kubelet-asks-again.md). No probe can have passed before its delay.
        """
        if not self.ready or self.started is None or self.ready_since is None:
            return self.ready
        passed = self.ready_since - self.started >= timedelta(seconds=self.startup_delay)
        return passed or now - self.ready_since > taken_back_after


@dataclass(frozen=True)
class MemberFact:
    """One etcd member as another one lists it; a member that never started has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True)
class BackendFact:
    """One server of HAProxy's backend (management guide 9.1, "CSV format").

    While a check is under way (`checking`), `check_status` is the last one's and `check_code` is not known.
    """

    name: str
    status: str
    check_status: str
    check_code: str
    sessions: int
    checking: bool = False


class Api:
    """The Kubernetes API, as the kubeconfig's user."""

    def __init__(self, kubeconfig: Path, timeout: float = 10.0) -> None:
        """Load who we are and whom we trust (`context`). Raises LabStateError where it is no kubeconfig."""
        self.timeout = timeout
        try:
            config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
            cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
            self.ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
            self.server = str(cluster["server"])
            self.context = _context(self.ca, user)
        except OSError as error:
            raise LabStateError(f"{kubeconfig} can't be used: {error}", hint=AGAIN) from error
        except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
            # What a parser says may quote the file, which holds the administrator's key.
            what = f"it is no kubeconfig ({type(error).__name__})"
            raise LabStateError(f"{kubeconfig} can't be used: {what}", hint=AGAIN) from None

    def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object. Raises LabStateError when the API can't be asked or says no."""
        status, body = self.request("GET", path)
        if status != http.client.OK:
            raise LabStateError(f"the API answered {status} to GET {path}: {body[:200]}")
        found = json.loads(body)
        assert isinstance(found, dict)
        return found

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Ask on a new connection; return status and text. Raises LabStateError when nobody answers."""
        host = self.server.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, timeout=self.timeout, context=self.context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise LabStateError(
                f"the API at {self.server} can't be asked: {error}",
                hint="`./inv status` shows which machines run; `./inv up` repairs what it can",
            ) from error
        finally:
            connection.close()

    def nodes(self) -> tuple[NodeFact, ...]:
        """Every node of the cluster, by name."""
        return read_nodes(self.get("/api/v1/nodes"))

    def pods(self, namespace: str = "") -> tuple[PodFact, ...]:
        """Every pod, of one namespace or of all."""
        where = f"/namespaces/{namespace}" if namespace else ""
        return read_pods(self.get(f"/api/v1{where}/pods"))

    def secrets(self, namespace: str) -> tuple[tuple[str, str], ...]:
        """Names and types of a namespace's Secrets; never their content."""
        items = self.get(f"/api/v1/namespaces/{namespace}/secrets")["items"]
        return tuple((item["metadata"]["name"], item["type"]) for item in items)


def ask_health(address: IPv4Address, port: int, path: str, ca: str, timeout: float = 5.0) -> tuple[int, str]:
    """GET a health path on a new connection, the CA and the address verified, as nobody in particular.

    Returns status and text; raises LabStateError when it can't be asked (no answer, wrong certificate).
    """
    context = ssl.create_default_context(cadata=ca)
    connection = http.client.HTTPSConnection(str(address), port, timeout=timeout, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise LabStateError(f"https://{address}:{port}{path} can't be asked: {error}") from error
    finally:
        connection.close()


def read_nodes(answer: dict[str, Any]) -> tuple[NodeFact, ...]:
    """Read the API's NodeList."""
    return tuple(sorted((_node(item) for item in answer["items"]), key=lambda node: node.name))


def read_pods(answer: dict[str, Any]) -> tuple[PodFact, ...]:
    """Read the API's PodList; pods on their way out are left aside."""
    return tuple(_pod(item) for item in answer["items"] if "deletionTimestamp" not in item["metadata"])


def read_members(text: str) -> tuple[MemberFact, ...]:
    """Read `etcdctl member list --write-out json`, sorted by id."""
    members = (
        MemberFact(
            member["ID"],
            member.get("name", ""),
            tuple(member.get("peerURLs", ())),
            bool(member.get("isLearner", False)),
        )
        for member in json.loads(text)["members"]
    )
    return tuple(sorted(members, key=lambda member: member.id))


def read_backends(text: str) -> tuple[BackendFact, ...]:
    """Read HAProxy's `show stat`: the servers of the API servers' backend."""
    rows = csv.DictReader(io.StringIO(text.lstrip("# ")))
    return tuple(
        BackendFact(
            row["svname"],
            row["status"],
            (row.get("check_status") or "").removeprefix(CHECKING),
            row.get("check_code") or "",
            int(row["stot"] or 0),
            (row.get("check_status") or "").startswith(CHECKING),
        )
        for row in rows
        if row["pxname"] == "apiserverbackend" and row["svname"] not in ("FRONTEND", "BACKEND")
    )


def _node(item: dict[str, Any]) -> NodeFact:
    ready, reason = _condition(item, "Ready")
    return NodeFact(
        item["metadata"]["name"],
        ready,
        reason,
        item["status"]["nodeInfo"]["kubeletVersion"],
        "node-role.kubernetes.io/control-plane" in item["metadata"].get("labels", {}),
        tuple(a["address"] for a in item["status"].get("addresses", ()) if a["type"] == "InternalIP"),
        tuple(taint["key"] for taint in item["spec"].get("taints", ())),
        item["metadata"].get("annotations", {}).get(FLANNEL_ADDRESS, ""),
        any(
            condition["type"] == "NetworkUnavailable" and condition["status"] == "False"
            for condition in item["status"].get("conditions", ())
        ),
    )


def _pod(item: dict[str, Any]) -> PodFact:
    probed = [each for each in item["spec"].get("containers", ()) if "startupProbe" in each]
    running = {
        each["name"]: each.get("state", {}).get("running", {}).get("startedAt")
        for each in item["status"].get("containerStatuses", ())
    }
    started = running.get(probed[0]["name"]) if probed else None
    ready: dict[str, str] = next((c for c in item["status"].get("conditions", ()) if c["type"] == "Ready"), {})
    return PodFact(
        item["metadata"]["namespace"],
        item["metadata"]["name"],
        item["spec"].get("nodeName", ""),
        item["status"].get("phase", ""),
        ready.get("status") == "True",
        _time(ready.get("lastTransitionTime")),
        _time(started),
        probed[0]["startupProbe"].get("initialDelaySeconds", 0) if probed else 0,
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _condition(item: dict[str, Any], kind: str) -> tuple[bool, str]:
    for condition in item["status"].get("conditions", ()):
        if condition["type"] == kind:
            return condition["status"] == "True", condition.get("message") or condition.get("reason") or ""
    return False, f"no {kind} condition yet"


def _context(ca: str, user: dict[str, str]) -> ssl.SSLContext:
    """Trust the CA and be the user. OpenSSL takes keys from files only: one of ours, 0600, gone at once."""
    context = ssl.create_default_context(cadata=ca)
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(path)
    finally:
        Path(path).unlink()
    return context
