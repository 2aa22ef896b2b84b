"""The load balancer: the API is answered through it, and what it believes of its backends is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.cluster import Api, ask_health, read_backends
from lab.model import Lab, Node
from lab.wait import wait_until

HEALTH_PATHS = ["/healthz", "/livez", "/readyz"]


def backends(machine: Any) -> dict[str, Any]:
    answer = machine.check_output("echo show stat | socat - /run/haproxy/admin.sock")
    return {backend.name: backend for backend in read_backends(answer)}


@pytest.mark.parametrize("path", HEALTH_PATHS)
def test_the_api_is_healthy_through_the_load_balancer(lab: Lab, api: Api, path: str) -> None:
    status, text = ask_health(lab.balancer.address, lab.load_balancer.port, path, api.ca)
    assert (status, text) == (200, "ok"), f"expected 200 'ok' from {path}, found {status} {text!r}"


def test_haproxy_runs_and_its_configuration_is_valid(lab: Lab, host: Callable[[Node], Any]) -> None:
    machine = host(lab.balancer)
    assert machine.service("haproxy").is_running
    assert machine.service("haproxy").is_enabled, "HAProxy would not come back after a reboot"
    assert machine.run("haproxy -c -q -f /etc/haproxy/haproxy.cfg").rc == 0


def backends_at_rest(machine: Any) -> dict[str, Any]:
    """The backends at a moment when none is just being checked: only then is every check's code known."""
    found: dict[str, Any] = {}

    def being_checked() -> str:
        found.update(backends(machine))
        return ", ".join(name for name, backend in found.items() if backend.checking)

    wait_until(being_checked, what="no backend is just being checked", timeout=10, interval=0.1)
    return found


def test_every_backend_is_up_by_its_https_check(lab: Lab, host: Callable[[Node], Any]) -> None:
    found = {
        name: (backend.status, backend.check_status, backend.check_code)
        for name, backend in backends_at_rest(host(lab.balancer)).items()
    }
    assert found == {node.name: ("UP", "L7OK", "200") for node in lab.control_planes}


def test_new_connections_are_spread_over_all_control_planes(
    lab: Lab, api: Api, host: Callable[[Node], Any]
) -> None:
    machine = host(lab.balancer)
    before = backends(machine)
    for _ in range(4 * len(lab.control_planes)):
        ask_health(lab.balancer.address, lab.load_balancer.port, "/readyz", api.ca)
    after = backends(machine)
    taken = {name: after[name].sessions - before[name].sessions for name in after}
    assert all(count > 0 for count in taken.values()), f"connections each server took: {taken}"


def test_the_load_balancer_trusts_the_clusters_ca(lab: Lab, api: Api, host: Callable[[Node], Any]) -> None:
    if lab.load_balancer.profile == "tuned":
        found = host(lab.balancer).file("/etc/haproxy/kubernetes-ca.crt").content_string
        assert found.strip() == api.ca.strip()
