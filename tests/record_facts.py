"""Records from a running lab what the unit tests of lab.health stand on.

    .venv/bin/python -m tests.record_facts /tmp/somewhere/lab.yaml

Machines' answers are kept as they came; of the API's only what is read, and never a Secret's content.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.health.cluster import FLANNEL_ADDRESS, Api
from lab.health.facts.admission import REGISTRATION
from lab.health.facts.gather import by_ssh, gather
from lab.health.facts.machine import read_sections
from lab.model import Node
from lab.session import open_made, require_up
from lab.unknown import known
from tests.unit.fakes import RECORDED

ANSWERS = {
    "nodes.json": "/api/v1/nodes",
    "pods.json": "/api/v1/pods",
    "leases.json": "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
    "endpoints.json": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    "kube-proxy.json": "/api/v1/namespaces/kube-system/configmaps/kube-proxy",
    "namespaces.json": "/api/v1/namespaces",
    "validating.json": f"{REGISTRATION}/validatingwebhookconfigurations",
    "mutating.json": f"{REGISTRATION}/mutatingwebhookconfigurations",
    "quotas.json": "/api/v1/resourcequotas",
    "limits.json": "/api/v1/limitranges",
    "refusals.json": "/api/v1/namespaces/kube-system/events?fieldSelector=reason%3DFailedCreate",
}
UNREAD = {"managedFields", "annotations", "images", "volumes", "volumeMounts", "containers", "initContainers"}


def main(path: Path) -> None:
    session = open_made(path, Console())
    require_up(session)
    folder = RECORDED / "facts"
    folder.mkdir(exist_ok=True)
    ask = by_ssh(session.remote)

    def keep(node: Node, *answers: str) -> str:
        text, file = ask(node, *answers), folder / f"{node.name}.txt"
        if answers:  # asked after all the others: it belongs before the clock
            sections = read_sections(text)
            also = "".join(f"== {name} {sections[name].code}\n{sections[name].text}\n" for name in answers)
            file.write_text(file.read_text(encoding="utf-8").replace("== clock", f"{also}== clock"))
        else:
            file.write_text(text, encoding="utf-8")
        return text

    facts = gather(session.lab, session.workspace, session.remote, keep, probes=True)
    api = Api(session.workspace.kubeconfig)
    for name, where in ANSWERS.items():
        _write(folder / name, _read_part(api.get(where)))
    said = facts.api
    known_of_api = {"asked_at": said.asked_at.isoformat(), "health": said.health, "direct": said.direct}
    _write(folder / "api.json", known_of_api | {"secrets": known(said.secrets)})
    _write(folder / "probes.json", asdict(known(facts.probes)))
    # Until when certificates are valid is not recorded: tests have their own.
    files = replace(known(facts.files), ca_valid=None, client_valid=None)
    _write(folder / "files.json", asdict(files))
    (folder / "lab.yaml").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def _read_part(answer: Any) -> Any:
    """The answer without what no reader of ours looks at."""
    if isinstance(answer, dict):
        kept = {key: _read_part(value) for key, value in answer.items() if key not in UNREAD}
        said = answer.get("annotations", {})
        return kept | (
            {"annotations": {FLANNEL_ADDRESS: said[FLANNEL_ADDRESS]}} if FLANNEL_ADDRESS in said else {}
        )
    return [_read_part(each) for each in answer] if isinstance(answer, list) else answer


def _write(path: Path, found: object) -> None:
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
