"""Whether a lab is already in the state that `up` would bring it to: one check instead of every step.

It is when each machine has the files that this checkout and this host would give it, every check of `verify`
that needs no test pods passes (docs/decisions/0024), and no certificate has to be renewed.
"""

from __future__ import annotations

import hashlib

from lab import providers
from lab.errors import NodeFailed
from lab.health import causes
from lab.health.checks import cases
from lab.health.checks.check import Verdict
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines
from lab.plans import renew
from lab.remote import Remote, side_by_side
from lab.unknown import CouldNotAsk
from lab.workspace import Workspace


def is_up(lab: Lab, workspace: Workspace, remote: Remote) -> bool:
    """Whether all machines run with the files rendered for them, and all checks pass without a warning.

    Raises CommandFailed if the provider does not answer.
    """
    states = providers.states(lab, workspace)
    if any(states[node.name] != "running" for node in lab.nodes) or remote.route_problem():
        return False
    facts, judged = _look(lab, workspace, remote, admission=False)
    return (
        all(_files_match(workspace, facts, node) for node in lab.nodes)
        and all(verdict.outcome == "holds" for verdict in judged)
        # No check of `verify` knows of pods that are older than their certificates.
        and _nothing_to_renew(lab, remote)
    )


def _nothing_to_renew(lab: Lab, remote: Remote) -> bool:
    """Whether every control plane and every etcd machine reports so."""
    nodes = [*etcd_machines(lab), *lab.control_planes]
    try:
        found = side_by_side("asking for certificates", nodes, lambda node: renew.left(node, remote))
    except NodeFailed:  # the steps of `up` repair it, or show why not
        return False
    return not any(found.values())


def problems(lab: Lab, workspace: Workspace, remote: Remote) -> tuple[str, ...]:
    """What is wrong with a lab whose machines run: a phrase for each cause or failing check."""
    facts, judged = _look(lab, workspace, remote, admission=True)
    bad = [verdict for verdict in judged if not verdict.good]
    known = causes.find(lab, facts, bad)
    explained = causes.explained(known)
    others = [f"{verdict.title}: {verdict.found}" for verdict in bad if verdict.title not in explained]
    return (*(cause.sentence for cause in known), *others)


def _look(lab: Lab, workspace: Workspace, remote: Remote, *, admission: bool) -> tuple[Facts, list[Verdict]]:
    """The lab's facts, with `admission` also about what may reject pods, and all checks without test pods."""
    facts = gather(lab, workspace, remote, by_ssh(remote), probes=False, admission=admission)
    return facts, [case.judge(facts) for case in cases(lab) if not case.check.probes]


def _files_match(workspace: Workspace, facts: Facts, node: Node) -> bool:
    try:
        return facts.machine(node).given == files_hash(workspace, node)
    except CouldNotAsk:
        return False


def files_hash(workspace: Workspace, node: Node) -> str:
    """The hash of the files and proxy settings that `up` gives a machine, as its facts.sh computes it.

    Raises OSError if they were not rendered.
    """
    folder = workspace.node(node.name)
    files = {f"./{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    proxies = workspace.secrets / node.name / "proxy.env"
    files["proxy.env"] = proxies.read_bytes() if proxies.exists() else b""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
