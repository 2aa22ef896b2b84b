"""The load balancer: the API responds through it, and its view of the API servers is correct."""

from __future__ import annotations

from collections.abc import Callable

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    expect,
    expect_none,
    holds,
    only_if_all_answered,
    shown,
)
from lab.health.facts.api import health_paths
from lab.health.facts.gather import Facts
from lab.model import Lab, Node
from lab.model.selectors import balancers, control_planes
from lab.unknown import CouldNotAsk, Unknown

OK = (200, "ok")

Judge = Callable[[Lab, Facts, Node], Finding]


def api_through_it(lab: Lab, facts: Facts) -> Finding:
    bad = []
    for path in health_paths(lab):
        answer = facts.api.health[path]
        if isinstance(answer, Unknown):
            bad.append(f"{path}: {answer.reason}")
        elif answer != OK:
            bad.append(f"{path}: {answer[0]} {answer[1][:200]}")
    return expect_none(f"200 ok from {lab.api.url}, its certificate verified", bad)


def haproxy_runs(lab: Lab, facts: Facts, node: Node) -> Finding:
    return service_runs(facts, node, "haproxy")


def service_runs(facts: Facts, node: Node, name: str) -> Finding:
    """A load balancer's service runs, and starts at boot."""
    machine = facts.machine(node)
    service = machine.services.get(name)
    if service is None:
        found = "no such service"
    else:
        found = machine.restart_loop(service) or _state(service.running, service.enabled)
    return expect("running, and enabled for the next boot", found)


def _state(running: bool, enabled: bool) -> str:
    return (
        f"{'running' if running else 'not running'}, and {'enabled' if enabled else 'not enabled'} "
        "for the next boot"
    )


def haproxy_configuration(lab: Lab, facts: Facts, node: Node) -> Finding:
    section = facts.machine(node).section("configuration")
    said = section.text.strip()[:300] or f"exit code {section.code}"
    return Finding("haproxy -c accepts it", said if section.code else "it does", holds(not section.code))


def _of_every_balancer(judge: Callable[[Lab, Facts, Node, Node], Finding]) -> Judge:
    """Judges an API server for every load balancer: `judge` gets one of each.

    Holds if it holds for all. With several load balancers, each one's finding is shown.
    """

    def judged(lab: Lab, facts: Facts, node: Node) -> Finding:
        found: dict[str, Finding] = {}
        silent = []
        for balancer in lab.balancers:
            try:
                found[balancer.name] = judge(lab, facts, balancer, node)
            except CouldNotAsk as error:
                silent.append(error.message)
        if len(found) == len(lab.balancers) == 1:
            return found[lab.balancers[0].name]
        together = Finding(
            shown({name: each.expected for name, each in found.items()}),
            shown({name: each.found for name, each in found.items()}),
            holds(all(each.outcome == "holds" for each in found.values())),
        )
        return only_if_all_answered(together, tuple(silent))

    return judged


@_of_every_balancer
def backend_up(lab: Lab, facts: Facts, balancer: Node, node: Node) -> Finding:
    backends = facts.machine(balancer).backends
    if node.name not in backends:
        return Finding("UP by L7OK 200", "HAProxy has no such server", "fails")
    backend = backends[node.name]
    if backend.checking:
        # HAProxy shows no code while a check is running.
        return expect("UP by L7OK", f"{backend.status} by {backend.check_status}")
    return expect("UP by L7OK 200", f"{backend.status} by {backend.check_status} {backend.check_code}".strip())


@_of_every_balancer
def backend_belief(lab: Lab, facts: Facts, balancer: Node, node: Node) -> Finding:
    backends = facts.machine(balancer).backends
    if node.name not in backends:
        raise CouldNotAsk(f"HAProxy has no server {node.name}")
    path = lab.load_balancer.asked_path
    answer = facts.api.direct[node.name][path]
    if isinstance(answer, Unknown):
        well, said = False, answer.reason
    else:
        well, said = answer[0] == OK[0], f"it answers {answer[0]}"
    believed = backends[node.name].status.split(" ")[0]
    return Finding(
        f"{'UP' if well else 'DOWN'}, since of {path} {said}",
        f"HAProxy believes {believed}",
        holds((believed == "UP") is well),
    )


@_of_every_balancer
def backend_takes_connections(lab: Lab, facts: Facts, balancer: Node, node: Node) -> Finding:
    taken = facts.machine(balancer).spread
    count = taken.get(node.name, 0)
    return Finding("some of a dozen new connections", f"it took {count} (all: {taken})", holds(count > 0))


CHECKS = (
    LabCheck(
        "api-through-it",
        api_through_it,
        means="kubectl and every worker reach the API through the load balancer; when this fails they do not",
        hint="`./inv status` shows what is down; on lb1: `systemctl status haproxy`, `journalctl -u haproxy`",
    ),
    MachineCheck(
        "haproxy-runs",
        balancers,
        haproxy_runs,
        means="without HAProxy no client reaches the API, or none will after the machine's next boot",
        hint="`./inv up` starts it; on the machine: `systemctl enable --now haproxy`",
    ),
    MachineCheck(
        "haproxy-configuration",
        balancers,
        haproxy_configuration,
        means="with this configuration HAProxy would not start again, or not apply a change",
        hint="`./inv up` writes the lab's configuration again",
    ),
    MachineCheck(
        "backend-up",
        control_planes,
        backend_up,
        means="no connection goes to this API server, so the others have all the load, and one less may fail",
        hint="ask the server itself: the check api-server-healthy does; `./inv ssh lb1` and "
        "`echo show stat | sudo socat -t 5 - /run/haproxy/admin.sock` show why HAProxy refuses it",
    ),
    MachineCheck(
        "backend-belief",
        control_planes,
        backend_belief,
        means="HAProxy sends users to an unhealthy API server, or none to a healthy one",
        hint="its line in /etc/haproxy/haproxy.cfg should match lab.yaml; `./inv up` writes it again",
    ),
    MachineCheck(
        "backend-takes-connections",
        control_planes,
        backend_takes_connections,
        means="new connections are not spread over all API servers",
        hint="see backend-up first; `balance` in /etc/haproxy/haproxy.cfg determines how they are spread",
    ),
)
