"""Runs a test pod on every node and asks each what it observes: names, Services, the other pods.

Pods are assigned to nodes by name, not by the scheduler, so that they only test networks and kubelets. Every
run has its own namespace, which is removed at its end; the next run removes one that a killed run left.

They are under NetworkPolicies, and ask one another at ports that these allow and deny: each its neighbours on
other nodes, and on one node also a second pod there. Each additional pod costs every node another round of
rules.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab.errors import LabError, LabStateError, WaitTimedOut
from lab.golden.supply.images import PROBE
from lab.health import manifests
from lab.health.cluster import Api, refusal
from lab.health.facts.machine import read_sections
from lab.health.manifests import Manifest, of_kind
from lab.health.reading import listed, mapping, moment, number, read, text
from lab.model import Lab, Node
from lab.remote import Remote
from lab.system.paths import PROVISION
from lab.system.wait import wait_until
from lab.unknown import Unknown

TEMPLATE = Path(__file__).with_suffix(".yaml.j2")

LABEL = "ha-lab.verify"
PORT, INGRESS_DENIED, EGRESS_DENIED = 8080, 8081, 8082
"""What pods serve by TCP and UDP: a port that the NetworkPolicies allow, one at which they let no pod be asked,
and one at which they let no pod ask."""

PROTOCOLS = ("tcp", "udp")
NEIGHBOURS = 2
"""How many pods on other nodes each asks under the policy, so that one that is not reached leaves another."""

SECOND = "second"
"""The pod that is beside another one on its node, by its name among those that are asked."""

ENFORCED_WITHIN = 4
"""Seconds after pods are Ready within which a NetworkPolicy is in force; 1 s is usual."""

STORAGE = "local-path"
"""The add-on that makes volumes, and its StorageClass."""

STORAGE_POD = "writes-to-volume"
NO_VOLUME = Unknown("no volume was asked for")
PAYLOAD = 4000
"""Bytes each way between two pods: more than two Ethernet frames take."""

START = 20.0
"""Seconds for a probe pod to be Ready; 3 s are usual.

One that runs gets them twice: beside pods that take all of a CPU it needs 30 s, since a pod without a CPU
request gets next to none then."""

ACCOUNT = 18.0
"""Seconds for a new namespace to get its service account, without which no pod is admitted; 0.1 s are usual."""

FORGOTTEN = 600.0
"""Seconds after which a probe namespace belongs to no run any more."""

Seen = dict[str, str]


SOON = 5.0
"""Seconds within which an API that could not be asked is asked once more."""


@dataclass(frozen=True)
class ProbeFacts:
    """What was seen by node. `started` is None for a pod that became Ready, else why it did not.

    `seen` are the answers from inside the pods (provision/pod/ask.sh), through `kubectl exec`; `node_ports`
    what each node's address answered to this host. `peers` is every Ready pod's address by node.

    `neighbours` are the nodes whose pods each node's pod asked under the NetworkPolicy, `second` is the node
    with two pods, and why its second one is not Ready, None where it is.

    `volume` is why a pod that writes to a new volume of local-path did not become Ready, None where it did; it
    is asked only where lab.yaml asks for local-path.
    """

    started: dict[str, str | None]
    peers: dict[str, str]
    seen: dict[str, Seen | Unknown]
    logs: dict[str, str | Unknown]
    node_ports: dict[str, str | Unknown]
    neighbours: dict[str, tuple[str, ...]]
    second: tuple[str, str | None]
    volume: str | Unknown | None = NO_VOLUME


def policy_question(target: str, protocol: str, port: int) -> str:
    """The name in `seen` of what a node's pod, or SECOND, answered at a port (provision/pod/policy.pl)."""
    return f"policy:{target}:{protocol}:{port}"


def ask_probes(lab: Lab, api: Api, remote: Remote, someone: Callable[[], Node]) -> ProbeFacts | Unknown:
    """Run the probes and ask them, `kubectl exec` being started on the control plane that `someone` names.

    Never raises LabError: what could not be asked is Unknown. Takes 5 s, and 60 s at most. HAProxy ends the
    connections of a server that it marks down, as happens just after a boot; such requests are repeated.
    """
    began = time.monotonic()
    found = _run_probes(lab, api, remote, someone)
    if isinstance(found, Unknown) and time.monotonic() - began < SOON * lab.patience:
        time.sleep(lab.patience)
        return _run_probes(lab, api, remote, someone)
    return found


def _run_probes(lab: Lab, api: Api, remote: Remote, someone: Callable[[], Node]) -> ProbeFacts | Unknown:
    try:
        _remove_forgotten(api)
        wanted = _manifests(lab)
        with _namespace(api, of_kind(wanted, "Namespace")) as namespace:
            service = _prepare(lab, api, namespace, wanted)
            _place(lab, api, namespace, [each for each in wanted if each["kind"] == "Pod"])
            found = _ask(lab, api, remote, someone, namespace, service, _wait_for_pods(lab, api, namespace))
            return replace(found, volume=_volume(lab, api, namespace)) if STORAGE in lab.addons else found
    except LabError as error:
        return Unknown(f"pods could not be asked: {error.message}")


def _ask(
    lab: Lab,
    api: Api,
    remote: Remote,
    someone: Callable[[], Node],
    namespace: str,
    service: dict[str, Any],
    pods: _Pods,
) -> ProbeFacts:
    own, port = read("the API's answer to a new Service", service, _places)
    started = {node.name: pods.problems[_pod_name(node.name)] for node in lab.kubernetes_nodes}
    peers = {name: pods.addresses[_pod_name(name)] for name, why in started.items() if not why}
    neighbours = _neighbours(tuple(peers))
    others = [
        f"{node.name},{node.address},{peers[node.name]}" for node in lab.kubernetes_nodes if node.name in peers
    ]
    words = {
        name: [own, str(port), ";".join(_policy_words(lab, name, neighbours[name], peers, pods)), *others]
        for name in peers
    }
    missing: dict[str, Unknown] = {
        name: Unknown(f"no pod is Ready on {name}: {why}") for name, why in started.items() if why
    }
    nodes = [node for node in lab.kubernetes_nodes if node.name in peers]
    with ThreadPoolExecutor(max_workers=lab.at_once(2 * len(lab.kubernetes_nodes) + 1)) as pool:
        seen = pool.submit(_exec, remote, someone, namespace, words)
        logs = {node.name: pool.submit(_log, api, namespace, node.name) for node in nodes}
        ports = {node.name: pool.submit(_node_port, lab, node, port) for node in nodes}
        return ProbeFacts(
            started,
            peers,
            {**seen.result(), **missing},
            {**{name: future.result() for name, future in logs.items()}, **missing},
            {**{name: future.result() for name, future in ports.items()}, **missing},
            neighbours,
            (_second_node(lab), pods.problems[SECOND]),
        )


def _neighbours(nodes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The nodes that follow each, in a ring."""
    ring = nodes + nodes
    return {
        name: ring[index + 1 : index + 1 + min(NEIGHBOURS, len(nodes) - 1)] for index, name in enumerate(nodes)
    }


def _policy_words(
    lab: Lab, node: str, neighbours: Sequence[str], peers: Mapping[str, str], pods: _Pods
) -> list[str]:
    """What policy.pl is asked on a node. Where nothing is said to enforce policies, no denial is waited for."""
    seconds = ENFORCED_WITHIN if may_enforce_policies(lab) else 0
    targets = [f"{name}={peers[name]}" for name in neighbours]
    if node == _second_node(lab) and SECOND in pods.addresses:
        targets.append(f"{SECOND}={pods.addresses[SECOND]}")
    return [str(seconds), str(PORT), f"{INGRESS_DENIED},{EGRESS_DENIED}", *targets]


def may_enforce_policies(lab: Lab) -> bool:
    """Whether something in the lab may enforce NetworkPolicies: kube-router, or the user's own pod network."""
    return lab.network.policy != "none" or lab.network.pod_network != "flannel"


def _second_node(lab: Lab) -> str:
    return lab.kubernetes_nodes[-1].name


def _volume(lab: Lab, api: Api, namespace: str) -> str | Unknown | None:
    """Why the pod that writes to a volume is not Ready, in the API's words, after START; None once it is."""
    why: str | Unknown | None = Unknown("it was not seen")

    def why_not_ready() -> str | None:
        nonlocal why
        try:
            why = _why_no_volume(api, namespace)
        except LabError as error:  # one question that was lost; the next one may be answered
            why = Unknown(error.message)
            return error.message
        return why

    with contextlib.suppress(WaitTimedOut):  # why not is what was asked
        wait_until(why_not_ready, what="a pod with a volume", timeout=START * lab.patience, interval=0.3)
    return why


def _why_no_volume(api: Api, namespace: str) -> str | None:
    pod = api.get(f"/api/v1/namespaces/{namespace}/pods/{STORAGE_POD}")
    why = read("the API's answer about the pod with a volume", pod, read_why_not_ready)
    if why is None:
        return None
    claim = api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/volume")
    phase = read(
        "the API's answer about a claim", claim, lambda answer: text(answer["status"].get("phase", ""))
    )
    return why if phase == "Bound" else f"its claim has no volume ({phase}): {why}"


def _exec(
    remote: Remote, someone: Callable[[], Node], namespace: str, words: dict[str, list[str]]
) -> dict[str, Seen | Unknown]:
    """Ask from inside all pods, in one round trip to one control plane."""
    lines = "".join(f"{_pod_name(node)} {' '.join(each)}\n" for node, each in words.items())
    try:
        command = ["sudo", "/opt/ha-lab/pods.sh", namespace]
        # pods.sh gives each 12 s, and asks one after the other where machines are emulated.
        timeout = 8 + 12 * (len(words) if remote.lab.emulated else 1)
        sections = read_sections(remote.run(someone(), command, stdin=lines, timeout=timeout).stdout)
    except LabError as error:
        return {node: Unknown(f"pods could not be asked: {error.message}") for node in words}
    found: dict[str, Seen | Unknown] = {}
    for node in words:
        section = sections.get(_pod_name(node))
        if section is None or section.code:
            said = (section.text.strip().splitlines() or ["no answer in time"])[-1] if section else "nothing"
            found[node] = Unknown(f"kubectl exec into the pod on {node} failed: {said}")
        else:
            found[node] = dict(line.split("=", 1) for line in section.text.splitlines() if "=" in line)
    return found


def _log(api: Api, namespace: str, node: str) -> str | Unknown:
    """What `kubectl logs` would show: the API server asks the node's kubelet for it."""
    try:
        path = f"/api/v1/namespaces/{namespace}/pods/{_pod_name(node)}/log"
        status, said = api.request("GET", path)
    except LabError as error:
        return Unknown(error.message)
    return said if status == http.client.OK else f"{status} {refusal(said)}"


def _node_port(lab: Lab, node: Node, port: int) -> str:
    """What the Service answers at a node's own address, once it does, or why it does not after 5 s."""
    answer = ""

    def why_not_answered() -> str | None:
        nonlocal answer
        answer = _ask_node_port(node, port, 2 * lab.patience)
        return None if answer == node.name else answer or "an empty page"

    with contextlib.suppress(WaitTimedOut):  # the last answer is reported
        wait_until(why_not_answered, what=f"{node.name} answers", timeout=3 * lab.patience, interval=0.3)
    return answer


def _ask_node_port(node: Node, port: int, timeout: float) -> str:
    connection = http.client.HTTPConnection(str(node.address), port, timeout=timeout)
    try:
        connection.request("GET", "/node")
        return connection.getresponse().read().decode(errors="replace")[:200]
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()


@contextmanager
def _namespace(api: Api, manifest: Manifest) -> Iterator[str]:
    made = _create(api, "/api/v1/namespaces", manifest)
    name = read("the API's answer to a new Namespace", made, lambda answer: text(answer["metadata"]["name"]))
    try:
        yield name
    finally:
        # Pods last for as long as their namespace, which takes its time: they go first, at once.
        now = "?gracePeriodSeconds=0"
        for path in (f"/api/v1/namespaces/{name}/pods{now}", f"/api/v1/namespaces/{name}"):
            api.request("DELETE", path)


def _remove_forgotten(api: Api) -> None:
    answer = api.get(f"/api/v1/namespaces?labelSelector={LABEL}%3Dprobes")
    for name, made in read("the API's list of probe namespaces", answer, _namespaces).items():
        if (datetime.now(UTC) - made).total_seconds() > FORGOTTEN:
            api.request("DELETE", f"/api/v1/namespaces/{name}")


def _create(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, said = api.request("POST", path, body)
    if status != http.client.CREATED:
        raise LabStateError(f"the API answered {status} to a new {body['kind']}: {refusal(said)}")
    return read(f"the API's answer to a new {body['kind']}", said, lambda answer: mapping(json.loads(answer)))


def _prepare(lab: Lab, api: Api, namespace: str, wanted: Sequence[Manifest]) -> dict[str, Any]:
    """Create what pods need before they start, side by side; return the API's answer to the Service."""
    core, networking = f"/api/v1/namespaces/{namespace}", f"/apis/networking.k8s.io/v1/namespaces/{namespace}"
    where = {
        "NetworkPolicy": f"{networking}/networkpolicies",
        "PersistentVolumeClaim": f"{core}/persistentvolumeclaims",
    }
    with ThreadPoolExecutor(max_workers=lab.at_once(len(wanted))) as pool:
        service = pool.submit(_create, api, f"{core}/services", of_kind(wanted, "Service"))
        others = [
            pool.submit(_create, api, where[each["kind"]], each) for each in wanted if each["kind"] in where
        ]
    for created in others:
        created.result()
    return service.result()


def _place(lab: Lab, api: Api, namespace: str, pods: Sequence[Manifest]) -> None:
    """Put a pod on every node. The first one waits until the namespace's service account is there."""

    def why_refused() -> str | None:
        status, said = api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pods[0])
        if status == http.client.FORBIDDEN and "serviceaccount" in said:
            return "the controller manager has not given the namespace its service account"
        if status != http.client.CREATED:
            raise LabStateError(f"the API answered {status} to a new Pod: {refusal(said)}")
        return None

    wait_until(why_refused, what="a new namespace takes pods", timeout=ACCOUNT * lab.patience, interval=0.1)
    where = f"/api/v1/namespaces/{namespace}/pods"
    with ThreadPoolExecutor(max_workers=lab.at_once(len(pods))) as pool:
        list(pool.map(lambda pod: _create(api, where, pod), pods[1:]))


@dataclass(frozen=True)
class _Pods:
    """Each pod by name: why it is not Ready, None where it is; the addresses of those that are; which run."""

    problems: dict[str, str | None]
    addresses: dict[str, str]
    running: set[str] = field(default_factory=set)


def _wait_for_pods(lab: Lab, api: Api, namespace: str) -> _Pods:
    names = [*(_pod_name(node.name) for node in lab.kubernetes_nodes), SECOND]
    found = _Pods(dict.fromkeys(names, "it was not seen"), {})
    lost = ""

    def why_not_ready(wanted: Collection[str]) -> str | None:
        nonlocal lost
        try:
            answer = api.get(f"/api/v1/namespaces/{namespace}/pods")
            pods = read("the API's list of probe pods", answer, _probe_pods)
        except LabError as error:  # one question that was lost; the next one may be answered
            lost = error.message
            return lost
        lost = ""
        for name, (why_not, address, runs) in pods.items():
            found.problems[name] = why_not
            if why_not is None:
                found.addresses[name] = address
            if runs:
                found.running.add(name)
        return ", ".join(name for name in wanted if found.problems[name]) or None

    for wanted in (names, found.running):
        if not any(found.problems[name] for name in wanted):
            break
        with contextlib.suppress(WaitTimedOut):  # which nodes have none is what was asked
            wait_until(
                partial(why_not_ready, wanted),
                what="a probe pod on every node",
                timeout=START * lab.patience,
                interval=0.3,
            )
    late = {name: why for name, why in found.problems.items() if why}
    warnings = _warnings(api, namespace) if late else {}
    for name, why in late.items():
        found.problems[name] = "; ".join(part for part in (why, warnings.get(name, ""), lost) if part)
    return found


def _warnings(api: Api, namespace: str) -> dict[str, str]:
    """Each pod's newest warning, such as that its readiness probe failed; {} where the API has no list."""
    try:
        answer = api.get(f"/api/v1/namespaces/{namespace}/events?fieldSelector=type%3DWarning")
        return read("the API's list of warnings", answer, _newest_of_each)
    except LabError:
        return {}


def _newest_of_each(answer: dict[str, Any]) -> dict[str, str]:
    events = [mapping(item) for item in listed(answer["items"])]
    events.sort(key=lambda event: text(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return {
        text(event["involvedObject"]["name"]): " ".join(
            text(event.get("message") or event.get("reason") or "").split()
        )
        for event in events
    }


def read_why_not_ready(item: dict[str, Any]) -> str | None:
    """Read a Pod: why it is not Ready, in its own words; None when it is. Raises one of UNREADABLE."""
    status = item["status"]
    conditions = {each["type"]: each for each in listed(status.get("conditions", []))}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    for container in listed(status.get("containerStatuses", [])):
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip() or "it waits"
    if not status.get("startTime"):
        return "its kubelet has not taken it up"
    return f"not Ready in time ({status.get('phase', 'no phase')})"


def _probe_pods(answer: dict[str, Any]) -> dict[str, tuple[str | None, str, bool]]:
    """Name → why the pod is not Ready, its address, which one that is Ready has, and whether it runs."""
    found = {}
    for item in listed(answer["items"]):
        if item["metadata"]["name"] == STORAGE_POD:
            continue
        why = read_why_not_ready(item)
        address = "" if why is not None else str(IPv4Address(text(item["status"]["podIP"])))
        found[text(item["metadata"]["name"])] = why, address, item["status"].get("phase") == "Running"
    return found


def _namespaces(answer: dict[str, Any]) -> dict[str, datetime]:
    """Name → when it was made."""
    items = [mapping(item["metadata"]) for item in listed(answer["items"])]
    return {text(each["name"]): moment(each["creationTimestamp"]) for each in items}


def _places(service: dict[str, Any]) -> tuple[str, int]:
    """A Service's own address, and its port on every node."""
    spec = service["spec"]
    return str(IPv4Address(text(spec["clusterIP"]))), number(spec["ports"][0]["nodePort"])


def _pod_name(node: str) -> str:
    return f"probe-{node}"


def _manifests(lab: Lab) -> tuple[Manifest, ...]:
    """The Namespace, its NetworkPolicies, the Service, a Pod for each node, and a second one for one."""
    scripts = {"ASK": "ask.sh", "SERVE": "serve.pl", "ASK_UNDER_POLICY": "policy.pl"}
    common = {name: (PROVISION / "pod" / file).read_text(encoding="utf-8") for name, file in scripts.items()}
    common |= {"PAYLOAD": "x" * PAYLOAD, "LAB_PATIENCE": str(lab.patience)}
    probes = [_pod(_pod_name(node.name), "probe", node, common) for node in lab.kubernetes_nodes]
    return manifests.read(
        TEMPLATE,
        label=LABEL,
        image=PROBE,
        port=PORT,
        ingress_denied=INGRESS_DENIED,
        egress_denied=EGRESS_DENIED,
        pods=[*probes, _pod(SECOND, SECOND, lab.kubernetes_nodes[-1], common)],
        storage=STORAGE if STORAGE in lab.addons else "",
        storage_pod=STORAGE_POD,
    )


def _pod(name: str, app: str, node: Node, common: Mapping[str, str]) -> dict[str, object]:
    """What the template needs for one Pod. Only those of the app `probe` are behind the Service."""
    known = {"NODE": node.name, "NODE_ADDRESS": str(node.address), **common}
    # Kubernetes would replace `$(…)` in a value; with two dollar signs it is taken literally.
    env = {key: value.replace("$(", "$$(") for key, value in known.items()}
    return {"name": name, "app": app, "node": node.name, "env": env}
