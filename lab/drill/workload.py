"""The workload during a drill: a ConfigMap for the writes, and a Service that responds.

Also checks the invariant of Kubernetes' own high availability tests (test/e2e/cloud/gcp/ha_master.go): after
every step a new workload runs, and every older one still does.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lab.errors import LabError, LabStateError
from lab.golden.supply.images import PROBE
from lab.health import manifests
from lab.health.cluster import Api, read_pods, refusal
from lab.health.manifests import Manifest, of_kind
from lab.model import Lab
from lab.system.wait import wait_until

HERE = Path(__file__).parent

NAMESPACE = "ha-lab-drill"
NAMESPACE_PATH = f"/api/v1/namespaces/{NAMESPACE}"
"""The namespace of all this. Each new connection reads it, which an API server does from a majority of etcd."""
COUNTER = f"{NAMESPACE_PATH}/configmaps/counter"
"""The ConfigMap for the writes: `counter` is the last write's number, and each write has a key `n<number>`."""
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SERVICE = f"{NAMESPACE_PATH}/services/probe"
NAME = "probe"
PORT = 8080
PAGE = "/node"
"""The path at which every pod of the workload returns the name of its node."""

EVICTED_AFTER = 5
"""Seconds that a pod tolerates an unready or unreachable node; Kubernetes' default is 300, too long here."""

HINT = f"`kubectl -n {NAMESPACE} get pods,events` shows more"


def deploy(
    api: Api,
    lab: Lab,
    timeout: float = 60.0,
    *,
    replicas: int = 0,
    avoided: Collection[str] = (),
    log: Path | None = None,
) -> int:
    """Run the workload in a namespace of its own until all pods are Ready; return its Service's node port.

    It has `replicas` pods, or one for each worker of `lab`, but at least two, and none on the nodes `avoided`.
    Removes what an earlier run left. Logs to `log` what it waits for. Raises LabStateError if the API rejects a
    request, WaitTimedOut if pods aren't Ready in `timeout` seconds.
    """
    fixed = _manifests()
    if api.request("GET", NAMESPACE_PATH)[0] != http.client.NOT_FOUND:
        remove(api, timeout, log)
    _create(api, "/api/v1/namespaces", of_kind(fixed, "Namespace"))
    _create(api, COUNTER.rpartition("/")[0], of_kind(fixed, "ConfigMap"))
    _create(api, DEPLOYMENTS, _deployment(NAME, lab, max(2, replicas or len(lab.workers)), avoided))
    service = _create(api, SERVICE.rpartition("/")[0], of_kind(fixed, "Service"))
    wait_until(
        lambda: why_not_running(api),
        what="the drill's workload to run",
        timeout=timeout,
        interval=0.3,
        hint=HINT,
        log=log,
    )
    return int(service["spec"]["ports"][0]["nodePort"])


def remove(api: Api, timeout: float = 60.0, log: Path | None = None) -> None:
    """Remove the namespace with its contents, and wait until it is gone; it may not exist.

    Logs to `log` what it waits for. Raises LabStateError if the API rejects the request, WaitTimedOut if the
    namespace still exists after `timeout` seconds.
    """
    status, text = api.request("DELETE", NAMESPACE_PATH)
    if status not in (http.client.OK, http.client.ACCEPTED, http.client.NOT_FOUND, http.client.CONFLICT):
        raise LabStateError(f"the API answered {status} to DELETE {NAMESPACE_PATH}: {refusal(text)}")

    def why_not_gone() -> str | None:
        gone = api.request("GET", NAMESPACE_PATH)[0] == http.client.NOT_FOUND
        return None if gone else "the API still has it"

    what = f"namespace {NAMESPACE} to be gone"
    wait_until(why_not_gone, what=what, timeout=timeout, interval=0.3, hint=HINT, log=log)


def why_not_running(api: Api, name: str = NAME) -> str | None:
    """Why a Deployment of the drill does not have all its pods Ready; None if it has.

    The pods themselves are counted, since a Deployment's status may be outdated.
    """
    try:
        enough = wanted(api, name)
        facts = read_pods(api.get(f"{NAMESPACE_PATH}/pods?labelSelector=app%3D{name}"))
    except LabError as error:
        return error.message
    ready = [pod for pod in facts if pod.ready]
    if len(ready) >= enough:
        return None
    others = [f"{pod.name} on {pod.node or 'no node'} is {pod.phase}" for pod in facts if not pod.ready]
    return f"{len(ready)} of {enough} pods are Ready: {'; '.join(others) or 'there are no others'}"


def wanted(api: Api, name: str = NAME) -> int:
    """How many pods a Deployment of the drill should have. Raises LabStateError if the API can't be asked."""
    return int(api.get(f"{DEPLOYMENTS}/{name}")["spec"]["replicas"])


def schedules(api: Api, lab: Lab, name: str, timeout: float = 60.0) -> float:
    """Run one more pod with a new `name`, and remove it; return the seconds until it was Ready.

    Raises LabStateError if the API rejects it (also if the name exists), WaitTimedOut if the pod isn't Ready in
    `timeout` seconds.
    """
    began = time.monotonic()
    _create(api, DEPLOYMENTS, _deployment(name, lab, 1))
    try:
        wait_until(
            lambda: why_not_running(api, name),
            what=f"a new workload ({name}) to run",
            timeout=timeout,
            interval=0.2,
            hint=HINT,
        )
        return time.monotonic() - began
    finally:
        api.request("DELETE", f"{DEPLOYMENTS}/{name}?propagationPolicy=Background")


def start_counting(api: Api) -> str:
    """Reset the ConfigMap for the writes; return its resourceVersion, from which a watch receives all writes.

    It has the number 0, so that "no writes" differs from "not read". Raises LabStateError if the API rejects
    the request.
    """
    status, text = api.request("PUT", COUNTER, of_kind(_manifests(), "ConfigMap"))
    if status != http.client.OK:
        raise LabStateError(f"the API answered {status} to PUT {COUNTER}: {refusal(text)}", hint=HINT)
    return str(json.loads(text)["metadata"]["resourceVersion"])


def write_of(number: int) -> bytes:
    """The JSON merge patch (RFC 7386) of write `number`; it does not change other writes' keys.

    So each acknowledged write is proven by its own key, and a later write can't hide its loss.
    """
    # managedFields records the owner of each key for server-side apply, which is not used here; with thousands
    # of keys it would become larger than the data ("Clearing managedFields" in Kubernetes' documentation).
    metadata: dict[str, Any] = {"managedFields": [{}]}
    data = {"counter": str(number), f"n{number}": ""}
    return json.dumps({"metadata": metadata, "data": data}).encode()


def numbers(counter: dict[str, Any]) -> tuple[int, ...]:
    """The numbers of all writes in a state of the ConfigMap, in order."""
    return tuple(sorted(int(key[1:]) for key in counter.get("data") or {} if key[1:].isdigit()))


def read_back(api: Api, timeout: float = 60.0) -> tuple[int, ...]:
    """The numbers of all writes that the cluster has, in order; 0 is always among them.

    A GET without resourceVersion is a quorum read from etcd. Raises WaitTimedOut if the API does not respond in
    `timeout` seconds.
    """
    found: list[tuple[int, ...]] = []

    def why_not_read() -> str | None:
        try:
            found.append(numbers(api.get(COUNTER)))
        except LabError as error:
            return error.message
        return None

    wait_until(why_not_read, what="the writes to be read back", timeout=timeout, hint=HINT)
    return found[-1]


def _create(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, text = api.request("POST", path, body)
    if status != http.client.CREATED:
        name = body["metadata"]["name"]
        raise LabStateError(
            f"the API answered {status} to a new {body['kind']} {name}: {refusal(text)}", hint=HINT
        )
    made = json.loads(text)
    assert isinstance(made, dict)
    return made


def _manifests() -> tuple[Manifest, ...]:
    """The Namespace, the ConfigMap with the number 0, and the Service."""
    return manifests.read(
        HERE / "workload.yaml.j2",
        namespace=NAMESPACE,
        counter=COUNTER.rpartition("/")[2],
        name=NAME,
        port=PORT,
    )


def _deployment(name: str, lab: Lab, replicas: int, avoided: Collection[str] = ()) -> Manifest:
    (found,) = manifests.read(
        HERE / "deployment.yaml.j2",
        namespace=NAMESPACE,
        name=name,
        replicas=replicas,
        image=PROBE,
        port=PORT,
        page=PAGE,
        evicted_after=EVICTED_AFTER,
        workers=len(lab.workers),
        avoided=sorted(avoided),
    )
    return found
