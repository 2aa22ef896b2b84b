"""Reads a running cluster: answers of the API, etcd and HAProxy, as typed facts.

The API is asked like a user: with the kubeconfig, so through the load balancer, with the CA verified.
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
from lab.health.connecting import NO_SERVER_UP, connection_problem
from lab.health.reading import UNREADABLE, listed, mapping, moment, number, read, text

CHECKING = "* "
"""What HAProxy puts before a check's status while the next check is under way."""


AGAIN = "`./inv up` writes it again"

LONGEST_REFUSAL = 500
"""Letters that are shown of what the API says when it refuses something."""

FLANNEL_ADDRESS = "flannel.alpha.coreos.com/public-ip"
"""The annotation by which flannel's agents find one another (flannel, Documentation/kubernetes.md)."""


@dataclass(frozen=True)
class NodeFact:
    """One node as the API has it. `internal_ips` are all its addresses of that type.

    `pod_network_address` is where flannel's agent there takes packets of other nodes' pods; "" until it says.
    `pod_network_up` is what the agent says of itself, in the condition NetworkUnavailable. `pressures` are the
    conditions by which its kubelet says that it has too little of something, such as DiskPressure.
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
    pressures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiting:
    """A container that does not run yet: its image, and the kubelet's reason, such as ErrImageNeverPull."""

    image: str
    reason: str


@dataclass(frozen=True)
class PodFact:
    """One pod: where it runs, whether it is Ready, and since when.

    `started` is when its first container with a startup probe began, `startup_delay` the seconds after which
    that probe asks for the first time; None and 0 without one.
    """

    namespace: str
    name: str
    node: str
    phase: str
    ready: bool
    ready_since: datetime | None = None
    started: datetime | None = None
    startup_delay: int = 0
    waiting: tuple[Waiting, ...] = ()

    def is_ready_at(self, now: datetime, taken_back_after: timedelta) -> bool:
        """Whether it is Ready and will not be called otherwise in a moment.

        A kubelet that is restarted beside a container not yet ten seconds old, as kubeadm does at the end of
        init, calls it Ready until the startup probe's turn has come, and then not Ready until its next one
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

    `sessions` are all since HAProxy's start, `open` those that are open now.
    While a check is under way (`checking`), `check_status` is the last one's and `check_code` is not known.
    """

    name: str
    status: str
    check_status: str
    check_code: str
    sessions: int
    checking: bool = False
    open: int = 0


class Api:
    """The Kubernetes API, as the kubeconfig's user."""

    def __init__(self, kubeconfig: Path, timeout: float = 10.0) -> None:
        """Load who we are and whom we trust (`context`). Raises LabStateError where it is no kubeconfig."""
        self.timeout = timeout
        self._kubeconfig = kubeconfig
        self.context = self._load(None)

    def read_again(self) -> None:
        """Read the kubeconfig again: new connections use its user, and trust its CAs besides the earlier ones.

        Raises LabStateError where it is no kubeconfig.
        """
        self._load(self.context)

    def _load(self, context: ssl.SSLContext | None) -> ssl.SSLContext:
        """Set `ca` and `server` from the kubeconfig; return `context`, or a new one, set up for its user."""
        kubeconfig = self._kubeconfig
        try:
            config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
            cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
            self.ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
            self.server = str(cluster["server"])
            if context is None:
                context = _trusting(self.ca)
            else:
                context.load_verify_locations(cadata=self.ca)
            _become(context, user)
            return context
        except OSError as error:
            raise LabStateError(f"{kubeconfig} can't be used: {error}", hint=AGAIN) from error
        except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
            # What a parser says may quote the file, which holds the administrator's key.
            what = f"it is no kubeconfig ({type(error).__name__})"
            raise LabStateError(f"{kubeconfig} can't be used: {what}", hint=AGAIN) from None

    def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object.

        Raises LabStateError when the API can't be asked or refuses, CouldNotAsk when it answers something else.
        """
        status, body = self.request("GET", path)
        if status != http.client.OK:
            raise LabStateError(f"the API answered {status} to GET {path}: {refusal(body)}")
        # Not quoted: it may be a list of Secrets.
        return read(
            f"the API's answer to GET {path}", body, lambda said: mapping(json.loads(said)), quoted=False
        )

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Ask on a new connection; return status and text. Raises LabStateError when it does not answer.

        A GET whose connection is cut is sent once more, as Kubernetes clients do (client-go, rest/request.go):
        HAProxy ends the connections to an API server that goes down, and then knows others that are up.
        """
        try:
            return self._ask(method, path, body, content_type)
        except LabStateError as error:
            if method != "GET" or not error.message.endswith(NO_SERVER_UP):
                raise
        return self._ask(method, path, body, content_type)

    def _ask(self, method: str, path: str, body: object, content_type: str) -> tuple[int, str]:
        host = self.server.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, timeout=self.timeout, context=self.context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            why = connection_problem(error, self.timeout, balanced=True)
            raise LabStateError(
                f"the API at {self.server} can't be asked: {why}",
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
        answer = self.get(f"/api/v1/namespaces/{namespace}/secrets")
        return read("the API's list of Secrets", answer, _secrets, quoted=False)


def ask_health(
    address: IPv4Address, port: int, path: str, ca: str, timeout: float = 5.0, *, balanced: bool = False
) -> tuple[int, str]:
    """GET a health path on a new connection, the CA and the address verified, without credentials.

    `balanced`: the address is the load balancer's. Returns status and text; raises LabStateError when it can't
    be asked (no answer, wrong certificate).
    """
    try:
        context = _trusting(ca)
    except (OSError, ValueError) as error:
        what = "the CA's certificate can't be read"
        raise LabStateError(f"https://{address}:{port}{path} can't be asked: {what}: {error}") from error
    connection = http.client.HTTPSConnection(str(address), port, timeout=timeout, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        why = connection_problem(error, timeout, balanced=balanced)
        raise LabStateError(f"https://{address}:{port}{path} can't be asked: {why}") from error
    finally:
        connection.close()


def refusal(body: str) -> str:
    """What the API says in an answer that is no success: a Status's message, or how another answer begins."""
    try:
        said = text(json.loads(body)["message"])
    except UNREADABLE:
        said = body
    words = " ".join(said.split())
    return f"{words[:LONGEST_REFUSAL]}…" if len(words) > LONGEST_REFUSAL else words


def read_nodes(answer: dict[str, Any]) -> tuple[NodeFact, ...]:
    """Read the API's NodeList. Raises CouldNotAsk where it is none."""
    return read("the API's list of nodes", answer, _nodes)


def read_pods(answer: dict[str, Any]) -> tuple[PodFact, ...]:
    """Read the API's PodList; pods on their way out are left aside. Raises CouldNotAsk where it is none."""
    return read("the API's list of pods", answer, _pods)


def read_members(said: str) -> tuple[MemberFact, ...]:
    """Read `etcdctl member list --write-out json`, sorted by id. Raises one of UNREADABLE where it is none."""
    members = (
        MemberFact(
            number(member["ID"]),
            text(member.get("name", "")),
            tuple(text(url) for url in listed(member.get("peerURLs", []))),
            bool(member.get("isLearner", False)),
        )
        for member in listed(json.loads(said)["members"])
    )
    return tuple(sorted(members, key=lambda member: member.id))


def read_backends(said: str) -> tuple[BackendFact, ...]:
    """Read HAProxy's `show stat`: the servers of the API servers' backend.

    Raises one of UNREADABLE where it is none.
    """
    rows = csv.DictReader(io.StringIO(said.lstrip("# ")))
    if not {"pxname", "svname", "status", "stot"} <= set(rows.fieldnames or ()):
        raise ValueError("no line of HAProxy's names of columns")
    return tuple(
        BackendFact(
            text(row["svname"]),
            text(row["status"]),
            (row.get("check_status") or "").removeprefix(CHECKING),
            row.get("check_code") or "",
            int(row["stot"] or 0),
            (row.get("check_status") or "").startswith(CHECKING),
            int(row.get("scur") or 0),
        )
        for row in rows
        if row["pxname"] == "apiserverbackend" and row["svname"] not in ("FRONTEND", "BACKEND")
    )


def _nodes(answer: dict[str, Any]) -> tuple[NodeFact, ...]:
    return tuple(sorted((_node(item) for item in listed(answer["items"])), key=lambda node: node.name))


def _pods(answer: dict[str, Any]) -> tuple[PodFact, ...]:
    items = [item for item in listed(answer["items"]) if "deletionTimestamp" not in mapping(item["metadata"])]
    return tuple(_pod(item) for item in items)


def _secrets(answer: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((text(item["metadata"]["name"]), text(item["type"])) for item in listed(answer["items"]))


def _node(item: dict[str, Any]) -> NodeFact:
    ready, reason = _condition(item, "Ready")
    status, metadata = item["status"], item["metadata"]
    return NodeFact(
        text(metadata["name"]),
        ready,
        reason,
        text(status["nodeInfo"]["kubeletVersion"]),
        "node-role.kubernetes.io/control-plane" in mapping(metadata.get("labels", {})),
        tuple(text(a["address"]) for a in listed(status.get("addresses", [])) if a["type"] == "InternalIP"),
        tuple(text(taint["key"]) for taint in listed(item["spec"].get("taints", []))),
        text(metadata.get("annotations", {}).get(FLANNEL_ADDRESS, "")),
        any(
            condition["type"] == "NetworkUnavailable" and condition["status"] == "False"
            for condition in listed(status.get("conditions", []))
        ),
        tuple(
            text(condition["type"])
            for condition in listed(status.get("conditions", []))
            if condition["type"].endswith("Pressure") and condition["status"] == "True"
        ),
    )


def _pod(item: dict[str, Any]) -> PodFact:
    metadata, spec, status = item["metadata"], item["spec"], item["status"]
    probed = [each for each in listed(spec.get("containers", [])) if "startupProbe" in mapping(each)]
    running = {
        each["name"]: each.get("state", {}).get("running", {}).get("startedAt")
        for each in listed(status.get("containerStatuses", []))
    }
    started = running.get(probed[0]["name"]) if probed else None
    conditions = listed(status.get("conditions", []))
    ready: dict[str, Any] = next((each for each in conditions if each["type"] == "Ready"), {})
    return PodFact(
        text(metadata["namespace"]),
        text(metadata["name"]),
        text(spec.get("nodeName", "")),
        text(status.get("phase", "")),
        ready.get("status") == "True",
        _moment(ready.get("lastTransitionTime")),
        _moment(started),
        number(probed[0]["startupProbe"].get("initialDelaySeconds", 0)) if probed else 0,
        tuple(
            Waiting(text(each.get("image", "")), text(each["state"]["waiting"].get("reason", "")))
            for kind in ("initContainerStatuses", "containerStatuses")
            for each in listed(status.get(kind, []))
            if "waiting" in mapping(each.get("state", {}))
        ),
    )


def _moment(value: object) -> datetime | None:
    return None if value is None else moment(value)


def _condition(item: dict[str, Any], kind: str) -> tuple[bool, str]:
    for condition in listed(item["status"].get("conditions", [])):
        if condition["type"] == kind:
            reason = condition.get("message") or condition.get("reason") or ""
            return condition["status"] == "True", text(reason)
    return False, f"no {kind} condition yet"


def _trusting(ca: str) -> ssl.SSLContext:
    """Trust these certificates (PEM) only. Raises ValueError or OSError where there is none."""
    if not ca.strip():
        raise ValueError("there is no certificate")  # of an empty text ssl makes the system's own CAs
    return ssl.create_default_context(cadata=ca)


def _become(context: ssl.SSLContext, user: dict[str, str]) -> None:
    """Authenticate as the user. OpenSSL reads keys from files only: a temporary one, 0600, removed at once."""
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(path)
    finally:
        Path(path).unlink()
