"""Asks docker's client, in few calls, about its daemon, containers and networks."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from lab.host.ask import ask
from lab.host.facts import Container, Daemon, DockerNetwork
from lab.host.places import may_exist
from lab.model import LABEL, Lab
from lab.system import environment
from lab.unknown import Unknown

INFO = (
    '{"data": {{json .DockerRootDir}}, "kernel": {{json .KernelVersion}},'
    ' "security": {{json .SecurityOptions}}, "driver": {{json .Driver}}, "status": {{json .DriverStatus}},'
    ' "runtime": {{json .DefaultRuntime}}}'
)
SYSTEM_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
"""Where the system's daemon listens, which is configured in /etc."""

ICC = "com.docker.network.bridge.enable_icc"
"""The option with which docker isolates the containers on a bridge network from one another."""

CONTAINER = '[{{json .Names}}, {{json .State}}, {{json (.Label "' + LABEL + '")}}, {{json .Networks}}]'


def daemon() -> Daemon:
    """Ask the daemon about itself. A daemon on another host is not asked."""
    where = ask(["docker", "context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"])
    if isinstance(where, Unknown):
        return Daemon("no client" if "no such program" in where.reason else "mute", "", where.reason)
    context, _, endpoint = where.stdout.strip().partition(" ")
    return replace(_daemon_at(endpoint), chosen=_chosen(context))


def _chosen(context: str) -> str:
    """What selects docker's daemon; DOCKER_HOST overrides any context (docs.docker.com)."""
    if environment.chosen(["DOCKER_HOST"]):
        return "DOCKER_HOST"
    return "" if context == "default" else f"context {context}"


def _daemon_at(endpoint: str) -> Daemon:
    if not endpoint.startswith("unix://"):
        return Daemon("elsewhere", endpoint)
    version = ask(["docker", "version", "--format", "{{json .}}"], accept=(0, 1))
    if isinstance(version, Unknown):
        return Daemon("mute", endpoint, version.reason)
    server = _object(version.stdout).get("Server") or {}
    if not server:
        words = version.stderr.strip() or "`docker version` names no server (is it podman?)"
        return _silent(endpoint, words)
    info = ask(["docker", "info", "--format", INFO])
    if isinstance(info, Unknown):
        return Daemon("mute", endpoint, info.reason)
    about = _object(info.stdout)
    return Daemon(
        "answers",
        endpoint,
        version=str(server.get("Version", "")),
        kernel=str(about.get("kernel", "")),
        data=Path(about.get("data") or "/var/lib/docker"),
        security=tuple(about.get("security") or ()),
        driver=str(about.get("driver") or ""),
        about_driver={str(name): str(said) for name, said in about.get("status") or ()},
        runtime=str(about.get("runtime") or ""),
    )


def containers() -> tuple[Container, ...] | Unknown:
    """List all containers, running or not, each with the lab that its label names."""
    answer = ask(["docker", "ps", "--all", "--no-trunc", "--format", CONTAINER])
    if isinstance(answer, Unknown):
        return answer
    rows = [json.loads(line) for line in answer.stdout.splitlines() if line]
    found = (
        Container(
            _own_name(names),
            state in ("running", "paused"),
            owner,
            tuple(networks.split(",")),
            paused=state == "paused",
        )
        for names, state, owner, networks in rows
    )
    return tuple(replace(each, folder_exists=may_exist(each.folder)) if each.folder else each for each in found)


def networks() -> tuple[DockerNetwork, ...] | Unknown:
    """List docker's networks that have IPv4 subnets."""
    listed = ask(["docker", "network", "ls", "--quiet", "--no-trunc"])
    if isinstance(listed, Unknown) or not listed.stdout.split():
        return listed if isinstance(listed, Unknown) else ()
    # 1: one was removed after it was listed; the others are still in the output.
    words = ["docker", "network", "inspect", "--format", "{{json .}}", *listed.stdout.split()]
    answer = ask(words, accept=(0, 1))
    if isinstance(answer, Unknown):
        return answer
    found = (_network(_object(line)) for line in answer.stdout.splitlines() if line)
    return tuple(network for network in found if network.subnets)


def network_name(lab: Lab) -> str:
    """The name that Vagrant's docker provider gives a lab's network (its action/prepare_networks.rb)."""
    return f"vagrant_network_{lab.network.subnet}"


def _own_name(names: str) -> str:
    """The container's own name: one that others link to is also listed as `other/alias`."""
    return next((name for name in names.split(",") if "/" not in name), names)


def _network(data: dict[str, Any]) -> DockerNetwork:
    configured = [entry["Subnet"] for entry in data["IPAM"].get("Config") or () if entry.get("Subnet")]
    subnets = (ip_network(subnet) for subnet in configured)
    options = data.get("Options") or {}
    named = options.get("com.docker.network.bridge.name")
    return DockerNetwork(
        data["Name"],
        named or f"br-{data['Id'][:12]}",
        tuple(subnet for subnet in subnets if isinstance(subnet, IPv4Network)),
        isolates=options.get(ICC) == "false",
    )


def _silent(endpoint: str, words: str) -> Daemon:
    """Ask the socket itself why the daemon does not respond: docker's messages differ by version."""
    words = words.splitlines()[0]
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(1)
        try:
            door.connect(endpoint.removeprefix("unix://"))
        except PermissionError:
            return Daemon("denied", endpoint, words)
        except (FileNotFoundError, ConnectionRefusedError):
            return Daemon("absent", endpoint, words)
        except OSError as error:
            return Daemon("mute", endpoint, f"{words} ({error})")
    return Daemon("mute", endpoint, words)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
