"""Causes why the API can't be reached: HAProxy, the CA, packets between machines, or something unknown."""

from __future__ import annotations

import http
import re
from collections import Counter
from collections.abc import Iterator

from lab.health.causes.cause import ON_THEIR_OWN, Cause, Found, listed
from lab.health.checks import virtual_address
from lab.health.connecting import NO_SERVER_UP
from lab.health.facts.apart import reach_of
from lab.health.facts.api import health_paths
from lab.host.doctor.forwarding import LOOK
from lab.model import Lab, Node
from lab.unknown import CouldNotAsk, Unknown
from lab.workspace.kubeconfig import client_hint
from lab.workspace.render.credentials import Validity, ca_hint

HAPROXY = "haproxy-runs"
LISTENS = ("haproxy-service-runs-and-is-enabled", "haproxy-listens-on-the-port-of-the-api")
"""The checks of HAProxy's own service and port; LISTENS are in the acceptance list."""

BACKENDS = ("backend-up", "backend-belief", "backend-takes-connections", "same-backends")
"""The checks that ask HAProxy about API servers."""

NOT_VALID = ("certificate has expired", "certificate is not yet valid")
"""OpenSSL's messages for a certificate outside its validity (its x509_txt.c)."""

REFUSED = f"the API answered {http.HTTPStatus.FORBIDDEN.value} to "
"""The beginning of findings about requests that the API forbids (`lab.health.cluster`)."""


UNAUTHORIZED = ("the API answered 401", ": 401 ")
"""What findings contain if the API does not accept the client's credentials."""


def without_haproxy(found: Found) -> Iterator[Cause]:
    """Load balancers on which HAProxy does not run, or ends soon after each start."""
    ended = {node.name: why for node in found.lab.balancers if (why := _haproxy_problem(found, node))}
    for problem in dict.fromkeys(ended.values()):
        names = [name for name, why in ended.items() if why == problem]
        yield Cause(
            f"HAProxy {problem} on {listed(names)}",
            f"`./inv up` writes its configuration again and starts it; `./inv ssh {names[0]} -- sudo "
            "journalctl -u haproxy` shows why it ended",
            titles=frozenset(
                verdict.title
                for verdict in found.bad
                if verdict.name in BACKENDS
                or (verdict.name in (HAPROXY, *LISTENS) and verdict.machine in names)
            ),
            words=_unreached(found.lab) if len(ended) == len(found.lab.balancers) else (),
        )


def _haproxy_problem(found: Found, node: Node) -> str | None:
    """What is wrong with HAProxy's service there; None if it runs, or if that is unknown."""
    machine = found.facts.machines[node.name]
    if isinstance(machine, Unknown):
        return None
    try:
        service = machine.services.get("haproxy")
        if service is not None and machine.restart_loop(service):
            return "ends soon after each start"
    except CouldNotAsk:
        return None
    return None if service is not None and service.running else "does not run"


def without_one_holder(found: Found) -> Iterator[Cause]:
    """The address that two load balancers share, if both have it, or neither does."""
    lab = found.lab
    holding, silent = virtual_address.holders(lab, found.facts)
    if not lab.pair or silent or len(holding) == 1:
        return
    titles = found.titles("one-holder", "address-agreed")
    if holding:
        yield Cause(
            f"{listed(list(holding))} both have the API's address, {lab.api.address}: they do not hear one "
            "another",
            "`./inv up` writes keepalived's configuration again; if both still have the address, something "
            "drops VRRP between them (IP protocol 112): a drill's fault, which `./inv drill --heal` reverts, "
            f"or a rule that `./inv ssh {next(iter(holding))} -- sudo iptables -S` shows",
            titles=titles,
        )
    else:
        yield Cause(
            f"no load balancer has the API's address, {lab.api.address}",
            "`./inv up` starts HAProxy and keepalived where they do not run; `./inv ssh "
            f"{lab.pair[0].name} -- sudo journalctl -u keepalived` shows why it does not take the address",
            titles=titles,
            words=_unreached(lab),
        )


def ca_not_valid(found: Found) -> Iterator[Cause]:
    """The lab's CA, if it is not valid by this host's clock or can't be read."""
    files = found.facts.files
    validity = None if isinstance(files, Unknown) else files.ca_valid
    if validity is None:
        return
    if isinstance(validity, Unknown):
        problem = validity.reason
        fix = "restore it: each control plane has it in /etc/kubernetes/pki/ca.crt (`./inv ssh NAME`)"
    else:
        problem = validity.problem(found.facts.api.asked_at) or ""
        fix = ca_hint(validity, has_machines=True)
    if problem:
        yield Cause(
            problem,
            fix,
            titles=found.titles("certificate-expiry", "node-ready", "node-taints", *BACKENDS),
            words=(*_unreached(found.lab), *NOT_VALID),
        )


def administrator_refused(found: Found) -> Iterator[Cause]:
    """The lab's administrator, if the API knows but forbids everything: its group has no binding any more."""
    nodes = found.facts.api.nodes
    if isinstance(nodes, Unknown) and REFUSED in nodes.reason:
        yield Cause(
            "the API refuses the lab's administrator: the ClusterRoleBinding kubeadm:cluster-admins was "
            "deleted or changed",
            "`./inv up` creates it again",
            titles=found.titles("cluster-objects"),
            words=(REFUSED,),
        )


def client_not_valid(found: Found) -> Iterator[Cause]:
    """The kubeconfig's client certificate, if not valid by this host's clock: the API rejects its user."""
    files = found.facts.files
    validity = None if isinstance(files, Unknown) else files.client_valid
    problem = validity.problem(found.facts.api.asked_at) if isinstance(validity, Validity) else None
    if problem:
        yield Cause(
            problem, client_hint(found.lab), titles=found.titles("kubeconfig-expiry"), words=UNAUTHORIZED
        )


def apart(found: Found) -> Iterator[Cause]:
    """Machines that do not reach one another. A single unreachable one is reported by its own check."""
    reach, obstacle = reach_of(found.facts.machines), found.facts.obstacle
    if not reach.broken or not (obstacle or reach.all_broken):
        return
    yield Cause(
        f"{reach.described()}{f': {obstacle.what}' if obstacle else ''}",
        obstacle.repair if obstacle else LOOK,
        titles=frozenset(each.title for each in found.bad if each.group not in ON_THEIR_OWN)
        if reach.all_broken
        else found.titles("machines-reach-one-another"),
        words=_unreached(found.lab) if reach.all_broken else (),
    )


def not_reached(found: Found) -> Iterator[Cause]:
    """The API that does not respond through the load balancer, with the most frequent reason."""
    said = found.facts.api
    if not isinstance(said.nodes, Unknown) or not isinstance(said.health["/readyz"], Unknown):
        return  # a single late response is not a cause of others
    sign = re.compile(rf"{re.escape(found.lab.api.url)}\S* can't be asked: ([^;]+)")
    reasons = Counter(reason for each in found.bad for reason in sign.findall(each.found))
    for reason, _ in reasons.most_common(1):
        fix = "`./inv up` starts what does not run, and writes HAProxy's configuration again"
        if reason == NO_SERVER_UP:
            fix = (
                "`./inv up` starts API servers and etcd members that are down; `./inv verify -k "
                "'control_planes or etcd'` shows what is wrong with each"
            )
        yield Cause(
            f"the API is not reached through the load balancer at {found.lab.api.url}: {reason}",
            fix,
            words=_unreached(found.lab),
            passes=True,
        )


def _unreached(lab: Lab) -> tuple[str, ...]:
    """What findings contain if the API can't be reached through the load balancer, for any reason."""
    return tuple(f"{lab.api.url}{path} can't be asked" for path in ("", *health_paths(lab)))
