"""Measures how soon `watch` shows a change.

The lab is of containers, healthy, and has two load balancers and three control planes with stacked etcd.

    .venv/bin/python -m tests.bench.watching --lab DIR/lab.yaml --rounds 3

Reads the stream that a browser reads. Each round has etcd's leadership moved, a control plane killed, and
HAProxy stopped where the API's address is; seconds are from the end of the command that did it to the first
view that shows it. `up` puts the lab right after each. Prints a table.
"""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import re
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from lab.config import load
from lab.model import Lab, Node, machine_name
from lab.system.paths import REPOSITORY

DEADLINE = 60.0
"""Seconds until a view must show a change."""

PKI = "/etc/kubernetes/pki/etcd"

View = dict[str, Any]


class Views:
    """The views of one stream, each with the moment at which it came."""

    def __init__(self, port: int) -> None:
        """Begin the stream of the page on that port."""
        self._came: queue.SimpleQueue[tuple[float, View]] = queue.SimpleQueue()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        self._connection.request("GET", "/events")
        self._answer = self._connection.getresponse()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._answer:
            if line.startswith(b"data: "):
                self._came.put((time.monotonic(), json.loads(line.removeprefix(b"data: "))))

    def first(self, shows: Callable[[View], bool]) -> tuple[float, View]:
        """Return the next view for which `shows` is true, and when it came."""
        ends = time.monotonic() + DEADLINE
        while True:
            at, view = self._came.get(timeout=max(0.0, ends - time.monotonic()))
            if shows(view):
                return at, view


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lab = load(options.lab)
    if len(lab.balancers) < 2 or len(lab.control_planes) < 3 or lab.external_etcd:
        parser.error("the lab needs two load balancers and three control planes with stacked etcd")
    readings: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for what, change in CHANGES.items():
            with _watched(options.lab) as views:
                _, now = views.first(lambda view: bool(view["complete"] and view["leader"] and view["holders"]))
                readings[what].append(change(lab, views, now))
            _run(str(REPOSITORY / "inv"), "up", "--yes", "--lab", str(options.lab))
    for what, seconds in readings.items():
        print(f"| {what} | {median(seconds):.2f} | {', '.join(f'{each:.2f}' for each in seconds)} |")


def _leader_moves(lab: Lab, views: Views, now: View) -> float:
    """Move leadership of etcd: nothing has to be detected."""
    leader = lab.node(now["leader"])
    assert leader is not None
    other = next(node for node in lab.etcd_members if node is not leader)
    words = ["etcdctl", f"--endpoints=https://{leader.address}:2379", f"--cacert={PKI}/ca.crt"]
    words += [f"--cert={PKI}/healthcheck-client.crt", f"--key={PKI}/healthcheck-client.key"]
    members = json.loads(_in(lab, leader, *words, "member", "list", "--write-out=json"))["members"]
    number = next(each["ID"] for each in members if each["name"] == other.name)
    _in(lab, leader, *words, "move-leader", f"{number:x}")
    began = time.monotonic()
    return views.first(lambda view: view["leader"] == other.name)[0] - began


def _control_plane_is_killed(lab: Lab, views: Views, now: View) -> float:
    """Kill a control plane: HAProxy has to find out first."""
    victim = next(node for node in lab.control_planes if node.name != now["leader"])

    def shows(view: View) -> bool:
        return any(
            server["name"] == victim.name and not server["up"]
            for machine in view["machines"]
            for server in machine["servers"]
        )

    _run("docker", "kill", machine_name(lab, victim))
    began = time.monotonic()
    return views.first(shows)[0] - began


def _haproxy_is_stopped(lab: Lab, views: Views, now: View) -> float:
    """Stop HAProxy: keepalived has to find out first."""
    (holder,) = now["holders"]
    balancer = lab.node(holder)
    assert balancer is not None
    _in(lab, balancer, "systemctl", "stop", "haproxy")
    began = time.monotonic()
    return views.first(lambda view: view["holders"] not in ([], [holder]))[0] - began


CHANGES: dict[str, Callable[[Lab, Views, View], float]] = {
    "etcd's leadership is moved: the new leader is shown": _leader_moves,
    "a control plane is killed: HAProxy's server is shown as down": _control_plane_is_killed,
    "HAProxy is stopped: the address is shown at the other load balancer": _haproxy_is_stopped,
}


@contextmanager
def _watched(lab: Path) -> Iterator[Views]:
    """Serve the page while the body runs; the views of one stream."""
    words = [str(REPOSITORY / "inv"), "watch", "--lab", str(lab)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", served.stdout.readline())
            assert found, "watch has not said where its page is"
            yield Views(int(found[1]))
        finally:
            served.send_signal(signal.SIGINT)


def _in(lab: Lab, node: Node, *words: str) -> str:
    return _run("docker", "exec", machine_name(lab, node), *words)


def _run(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
