"""A pod on every node, and what each of them sees of the cluster: names, Services, the other pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.cluster import Api
from lab.errors import LabStateError
from lab.model import Node
from lab.remote import side_by_side
from lab.session import Session
from lab.wait import wait_until

NAMESPACE = "ha-lab-verify"
IMAGE = "localhost/ha-lab/probe:1"
PORT = 8080

SEEN = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
resolve() {
	nslookup -type=a kubernetes.default.svc.cluster.local. 2>/dev/null |
		awk '/^Address/ { a = $NF } END { print a }'
}
fetch() { wget -q -T 5 -O - "http://$1:8080/node" 2>&1; }
say dns "$(resolve)"
# A new Service reaches every node's kube-proxy a moment after its pods are Ready: asked 20 times.
tries=0
until service=$(fetch probe.ha-lab-verify.svc.cluster.local.) || [ "$tries" -ge 20 ]; do
	tries=$((tries + 1))
	sleep 0.5
done
say service "$service"
for peer in $PEERS; do say "pod:$peer" "$(fetch "$peer")"; done
"""


@dataclass(frozen=True)
class Probes:
    """Every probe pod's address by node, and what each said: node → (question → answer)."""

    addresses: dict[str, str]
    seen: dict[str, dict[str, str]]


@contextmanager
def deployed_probes(session: Session, api: Api) -> Iterator[Probes]:
    """Run the probes while inside. Raises WaitTimedOut when they don't become Ready within 60 s."""
    for path, body in _objects():
        status, text = api.request("POST", path, body)
        if status not in (201, 409):  # 409: left over from a run that was killed; used as it is
            raise LabStateError(f"the API answered {status} to a new {body['kind']}: {text[:200]}")
    try:
        names = {node.name for node in session.lab.kubernetes_nodes}
        wait_until(lambda: _missing(api, names), what="a probe pod on every node", timeout=60, interval=0.3)
        addresses = _addresses(api)
        yield Probes(addresses, _ask(session, addresses))
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def _missing(api: Api, names: set[str]) -> str:
    missing = names - {pod.node for pod in api.pods(NAMESPACE) if pod.ready}
    return f"none Ready on {', '.join(sorted(missing))}" if missing else ""


def _addresses(api: Api) -> dict[str, str]:
    items = api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return {item["spec"]["nodeName"]: item["status"]["podIP"] for item in items}


def _ask(session: Session, addresses: dict[str, str]) -> dict[str, dict[str, str]]:
    """Ask from inside each probe, side by side, in one `kubectl exec` each."""
    pods = {pod.node: pod.name for pod in Api(session.workspace.kubeconfig).pods(NAMESPACE)}
    script = f"PEERS='{' '.join(addresses.values())}'\n{SEEN}"

    def ask(node: Node) -> dict[str, str]:
        words = [
            "sudo",
            "kubectl",
            "--kubeconfig",
            "/etc/kubernetes/admin.conf",
            "--namespace",
            NAMESPACE,
        ]
        words += ["exec", "--stdin", pods[node.name], "--", "sh"]
        answer = session.remote.run(session.lab.first, words, stdin=script, timeout=90).stdout
        return dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)

    return side_by_side("asking from inside the pods", session.lab.kubernetes_nodes, ask)


def _objects() -> list[tuple[str, dict[str, Any]]]:
    metadata = {"name": "probe", "namespace": NAMESPACE}
    labels = {"app": "probe"}
    # The node's name as a web page: an answer says who gave it.
    serve = 'mkdir -p /tmp/www; printf %s "$NODE" >/tmp/www/node; exec httpd -f -p 8080 -h /tmp/www'
    container = {
        "name": "probe",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", serve],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"path": "/node", "port": PORT}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
        },
    }
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"port": PORT}]},
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    assert json.dumps(daemon_set)
    return [
        ("/api/v1/namespaces", namespace),
        (f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", daemon_set),
        (f"/api/v1/namespaces/{NAMESPACE}/services", service),
    ]
