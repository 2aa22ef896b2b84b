"""Checks the pod network's manifest that lab.yaml names, before any machine is created.

kustomize and the API server would also reject a file that is not a manifest, but only once machines run, and
without the name of lab.yaml or the key. They would accept a pod network with other addresses than
`network.pods`: then its agents exit, or pods get addresses that no node routes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any, NamedTuple

import yaml

from lab.config.yamlfile import yaml_problem

# The C parser if PyYAML has it: Calico's manifest has 10000 lines, for which the other one needs five seconds.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

WEB_PAGE = re.compile(r"\s*(<!doctype html|<html|<\?xml|<head|<body)", re.IGNORECASE)
TEMPLATE = re.compile(r"\{\{.*\}\}")

KUBE_ROUTER = "kube-router"
"""The name of all objects of what enforces NetworkPolicies (provision/templates/kube-router.yaml.j2)."""

POOLS = {"CALICO_IPV4POOL_CIDR": "Calico", "IPALLOC_RANGE": "Weave Net"}
"""Environment variables of agents with the pods' network → the pod network's name."""


class Fault(NamedTuple):
    """A problem of a manifest, and its line there. `pods`: only with this `network.pods`."""

    line: int
    what: str
    pods: bool = False


class _Network(NamedTuple):
    """A network for pods in a manifest. `whole`: it must equal `network.pods`, not be a part of it."""

    line: int
    where: str
    value: str
    whole: bool = False


def faults(text: str, pods: IPv4Network) -> list[Fault]:
    """Return the problems of a manifest for a lab whose pods have addresses in `pods`.

    A file that is not a manifest has one; otherwise each wrong network is one.
    """
    if WEB_PAGE.match(text):
        return [Fault(1, "is a web page, not a manifest: download the raw file")]
    try:
        documents = [each for each in yaml.compose_all(text, Loader=LOADER) if not _is_empty(each)]
    except yaml.MarkedYAMLError as error:
        return [_unreadable(text, error)]
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        return [Fault(1, f"can't be read as YAML: {str(error).splitlines()[0]}")]
    if not documents:
        return [Fault(1, "is empty: it should contain the pod network's manifest")]
    for document in documents:
        what = _object_problem(document)
        if what:
            return [Fault(document.start_mark.line + 1, what)]
    objects = [each for document in documents for each in _objects(document)]
    if not any(map(_runs_agents, objects)):
        kinds = ", ".join(sorted({_text(each, "kind") for each in objects}))
        what = f"has no DaemonSet, so no node would get a pod network (it has: {kinds or 'no object'})"
        return [Fault(1, what)]
    return [
        Fault(each.line, what, pods=True)
        for one in objects
        for each in _networks(one)
        if (what := _network_problem(each, pods))
    ]


def line_of_kube_router(text: str) -> int | None:
    """The line of the first object, in a manifest without faults, with the name of the kit's kube-router."""
    if KUBE_ROUTER not in text:
        return None
    documents = (each for each in yaml.compose_all(text, Loader=LOADER) if not _is_empty(each))
    named = (
        each
        for document in documents
        for each in _objects(document)
        if _text(each, "metadata", "name") == KUBE_ROUTER
    )
    return next((each.start_mark.line + 1 for each in named), None)


def _unreadable(text: str, error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    what = f"can't be read as YAML: {yaml_problem(error)}"
    if TEMPLATE.search(text):
        what += " (if it is a Helm chart's template, `helm template` renders it to a manifest)"
    return Fault(mark.line + 1 if mark else 1, what)


def _is_empty(document: yaml.Node | None) -> bool:
    return document is None or document.tag == "tag:yaml.org,2002:null"


def _object_problem(document: yaml.Node) -> str | None:
    """Why kustomize would reject this as a Kubernetes object; None if it would not."""
    if not isinstance(document, yaml.MappingNode):
        return "is text, not a manifest: an object with apiVersion, kind and metadata should start here"
    missing = [key for key in ("apiVersion", "kind") if not _text(document, key)]
    if not missing and not _text(document, "kind").endswith("List") and not _text(document, "metadata", "name"):
        missing = ["metadata.name"]
    if missing:
        return f"is not a manifest: the object that starts here has no {' and no '.join(missing)}"
    return None


def _objects(document: yaml.Node) -> list[yaml.Node]:
    """A document's objects: itself, or the items of a list."""
    items = _at(document, "items") if _text(document, "kind").endswith("List") else None
    return list(items.value) if isinstance(items, yaml.SequenceNode) else [document]


def _runs_agents(one: yaml.Node) -> bool:
    """Whether it runs agents on nodes, or creates those: Calico's operator is a Deployment."""
    kind = _text(one, "kind")
    return kind == "DaemonSet" or (kind == "Deployment" and "operator" in _text(one, "metadata", "name"))


def _networks(one: yaml.Node) -> Iterator[_Network]:
    """The networks for pods in an object."""
    kind = _text(one, "kind")
    if kind == "ConfigMap":
        yield from _of_flannel(one)
        yield from _of_cilium(one)
    elif kind == "DaemonSet":
        for name, value in _environment(one):
            if name in POOLS:
                yield _Network(value.start_mark.line + 1, f"{POOLS[name]}'s {name}", _said(value))
    elif kind == "IPPool" and "projectcalico.org" in _text(one, "apiVersion"):
        yield from _pool(_at(one, "spec"), "Calico's IPPool, spec.cidr")
    elif kind == "Installation" and "tigera.io" in _text(one, "apiVersion"):
        for pool in _each(_at(one, "spec", "calicoNetwork", "ipPools")):
            yield from _pool(pool, "Calico's Installation, spec.calicoNetwork.ipPools")


def _of_flannel(one: yaml.Node) -> Iterator[_Network]:
    node = _at(one, "data", "net-conf.json")
    if node is None:
        return
    first = node.start_mark.line + 1 + (getattr(node, "style", "") == "|")
    text = _said(node)
    before = text.partition('"Network"')[0]
    line = first + (before.count("\n") if before != text else 0)
    try:
        found = json.loads(text)
        value = found.get("Network", "") if isinstance(found, dict) else ""
    except ValueError:
        value = ""
    yield _Network(line, "flannel's net-conf.json, Network", str(value), whole=True)


def _of_cilium(one: yaml.Node) -> Iterator[_Network]:
    node = _at(one, "data", "cluster-pool-ipv4-cidr")
    if node is not None and _text(one, "data", "ipam").startswith("cluster-pool"):
        for value in re.split(r"[\s,]+", _said(node).strip()):
            yield _Network(node.start_mark.line + 1, "Cilium's cluster-pool-ipv4-cidr", value)


def _pool(pool: yaml.Node | None, where: str) -> Iterator[_Network]:
    node = _at(pool, "cidr") if pool is not None else None
    if node is not None:
        yield _Network(node.start_mark.line + 1, where, _said(node))


def _environment(one: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """The environment variables with a value of an agent's containers."""
    for container in _each(_at(one, "spec", "template", "spec", "containers")):
        for variable in _each(_at(container, "env")):
            value = _at(variable, "value")
            if value is not None:
                yield _text(variable, "name"), value


def _network_problem(found: _Network, pods: IPv4Network) -> str | None:
    """Why pods can't get their addresses from it; None if they can."""
    if ":" in found.value:
        return None  # IPv6, in addition to the lab's
    try:
        network = IPv4Network(found.value, strict=False)
    except ValueError:
        return f"{found.where} is {found.value or 'missing'}, and should be network.pods, {pods}"
    if network == pods or (not found.whole and network.subnet_of(pods)):
        return None
    within = "" if found.whole else " or a part of it"
    return f"{found.where} is {network}, and should be network.pods, {pods}{within}"


def _at(node: yaml.Node | None, *keys: str) -> yaml.Node | None:
    """The value below these keys, or None."""
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for name, value in pairs if _said(name) == key), None)
    return node


def _each(node: yaml.Node | None) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _text(node: yaml.Node | None, *keys: str) -> str:
    found = _at(node, *keys)
    return _said(found) if found is not None else ""


def _said(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
