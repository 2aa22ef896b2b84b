"""What machines answer to the acceptance list, and the API to its questions: all well, unless altered.

testinfra itself is real, up to the command that it would give to ssh; a command that is not known is refused.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import testinfra.backend.ssh

from lab.errors import LabStateError
from lab.health import cluster, plain_tests
from lab.health.cluster import Api, NodeFact
from lab.model import Lab, Node
from lab.model.roles import Role
from lab.model.selectors import SINGULAR
from lab.remote import SSH_FAILED, Remote
from lab.unknown import known
from tests.live import test_acceptance
from tests.unit.fakes import CA
from tests.unit.recorded_facts import facts

PKI = "/etc/kubernetes/pki/etcd"


def acceptance_list() -> dict[str, Callable[..., None]]:
    """Each test of the acceptance list by the name that `verify` shows, in order."""
    found = vars(test_acceptance).items()
    return {plain_tests.title(name): test for name, test in found if name.startswith("test_")}


def titles(lab: Lab) -> set[str]:
    """The titles of the acceptance list's verdicts for a lab."""
    found = set()
    for name, test in acceptance_list().items():
        [nodes] = [SINGULAR[each](lab) for each in inspect.signature(test).parameters if each in SINGULAR] or [
            ()
        ]
        found |= {f"{name}[{node.name}]" for node in nodes} if nodes else {name}
    return found


class Answers:
    """The answers of one lab. `said`: machine and command → exit code and standard output."""

    def __init__(self, lab: Lab) -> None:
        """Let everything be as it should be."""
        self.lab = lab
        self.silent: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.health: tuple[int, str] | LabStateError = (200, "ok")
        self.nodes: tuple[NodeFact, ...] = known(facts().api.nodes)
        self.said = {(node.name, command): said for node in lab.nodes for command, said in self._of(node)}

    def alter(self, machine: str, part: str, code: int, text: str = "") -> None:
        """Let the one command with this part in it be answered otherwise on a machine."""
        [key] = [(name, command) for name, command in self.said if name == machine and part in command]
        self.said[key] = (code, text)

    def not_ready(self, name: str) -> None:
        """Let a node not be Ready."""
        self.nodes = tuple(replace(n, ready=False) if n.name == name else n for n in self.nodes)

    def members(self, *names: str, learner: str = "") -> None:
        """Let etcd have these members; one that never started has no name."""
        found = [{"ID": number, "name": name} for number, name in enumerate(names)]
        found += [{"ID": 99, "isLearner": True, "name": learner}] if learner else []
        self.alter(self.lab.etcd_members[0].name, "etcdctl", 0, json.dumps({"members": found}))

    def give(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answer instead of machines and the API from now on."""

        def run_ssh(backend: Any, command: str) -> Any:
            _, shell, command = command.split(" ", 2) if command.startswith("sudo ") else ("", "", command)
            assert shell == "/bin/sh", f"not as root: {command}"
            command = command.removeprefix("-c ").replace("'\"'\"'", "'").strip("'")
            self.asked.append((backend.host.name, command))
            assert (backend.host.name, command) in self.said, f"not told of {command} on {backend.host.name}"
            code, text = self.said[backend.host.name, command]
            if code == SSH_FAILED:
                raise RuntimeError(backend.result(code, command.encode(), b"", b"Broken pipe"))
            return backend.result(code, command.encode(), text.encode(), text.encode())

        def use(api: Any, kubeconfig: Path, timeout: float = 10.0) -> None:
            api.ca = CA

        def ask_health(
            address: IPv4Address, port: int, path: str, ca: str, timeout: float = 5.0
        ) -> tuple[int, str]:
            assert (address, port, path, ca) == (self.lab.api.address, 6443, "/healthz", CA)
            if isinstance(self.health, LabStateError):
                raise self.health
            return self.health

        monkeypatch.setattr(testinfra.backend.ssh.SshBackend, "run_ssh", run_ssh)
        monkeypatch.setattr(
            Remote, "why_not_reachable", lambda _, node: "timed out" if node.name in self.silent else None
        )
        monkeypatch.setattr(Api, "__init__", use)
        monkeypatch.setattr(Api, "nodes", lambda api: self.nodes)
        monkeypatch.setattr(cluster, "ask_health", ask_health)

    def _of(self, node: Node) -> list[tuple[str, tuple[int, str]]]:
        said = [
            ("command -v command", (0, "command\n")),
            ("uname -s", (0, "Linux\n")),
            ("cat /etc/os-release", (0, "ID=debian\n")),
            ("uname -m", (0, "x86_64\n")),
            ("test -d /run/systemd/system/", (0, "")),
        ]
        if node.role is Role.LOAD_BALANCER:
            return said + self._of_a_load_balancer()
        said += [(f"systemctl is-active {name}", (0, "active\n")) for name in ("kubelet", "containerd")]
        file = "admin" if node.role is Role.CONTROL_PLANE else "kubelet"
        said += [(f"grep -qs -- 'server: {self.lab.api.url}$' /etc/kubernetes/{file}.conf", (0, ""))]
        if node == self.lab.etcd_members[0]:
            names = [each.name for each in self.lab.control_planes]
            members = {"members": [{"ID": number, "name": name} for number, name in enumerate(names)]}
            said += [(self._member_list(), (0, json.dumps(members)))]
        return said

    def _of_a_load_balancer(self) -> list[tuple[str, tuple[int, str]]]:
        servers = "".join(f"\tserver {n.name} {n.address}:6443 check\n" for n in self.lab.control_planes)
        listening = "State Recv-Q Send-Q Local Peer\nLISTEN 0 4096 0.0.0.0:6443 0.0.0.0:*\n"
        return [
            ("systemctl is-active haproxy", (0, "active\n")),
            ("systemctl is-enabled haproxy", (0, "enabled\n")),
            ("command -v ss", (0, "/usr/bin/ss\n")),
            ("/usr/bin/ss --numeric --listening --tcp", (0, listening)),
            ("haproxy -c -f /etc/haproxy/haproxy.cfg", (0, "Configuration file is valid\n")),
            ("cat -- /etc/haproxy/haproxy.cfg", (0, f"global\n\nbackend apiserverbackend\n{servers}")),
        ]

    def _member_list(self) -> str:
        urls = ",".join(f"https://{node.address}:2379" for node in self.lab.control_planes)
        client = f"--cert {PKI}/healthcheck-client.crt --key {PKI}/healthcheck-client.key"
        limits = f"--endpoints {urls} --command-timeout 5s"
        return f"etcdctl --cacert {PKI}/ca.crt {client} {limits} member list --write-out json"
