"""reach.sh run for real, with addresses of this host's own loopback network in place of the lab's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.provision.world import World

LISTENING, TOO, ALSO = "127.83.7.1", "127.83.7.3", "127.83.7.5"
CLOSED, SHUT = "127.83.7.2", "127.83.7.4"
PORT = 22


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is open at some addresses and closed at the others."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        one.bind((LISTENING, 0))
        two.bind((TOO, one.getsockname()[1]))
        three.bind((ALSO, one.getsockname()[1]))
        for door in (one, two, three):
            door.listen()
        yield one.getsockname()[1]


def machine(tmp_path: Path, name: str, port: int, **addresses: str) -> World:
    """A machine whose lab has these addresses, and no others."""
    world = World(tmp_path, name)
    opt = world.root / "opt"
    script = (opt / "real-reach.sh").read_text()
    assert f"/dev/tcp/$2/{PORT}" in script
    (opt / "reach.sh").write_text(script.replace(f"/dev/tcp/$2/{PORT}", f"/dev/tcp/$2/{port}"))
    (opt / "hosts").write_text("".join(f"{address} {each}\n" for each, address in addresses.items()))
    etcd = ",".join(f"https://{a}:2379" for each, a in addresses.items() if each.startswith("cp"))
    lines = [
        line
        for line in (opt / "node.env").read_text().splitlines()
        if not line.startswith(("API_ENDPOINT", "ETCD_ENDPOINTS", "LOAD_BALANCERS"))
    ]
    balancers = " ".join(each for each in addresses if each.startswith("lb"))
    lines += [
        f"API_ENDPOINT={addresses['lb1']}:6443",
        f"ETCD_ENDPOINTS={etcd}",
        f"LOAD_BALANCERS='{balancers}'",
    ]
    (opt / "node.env").write_text("\n".join(lines) + "\n")
    return world


def test_it_asks_the_load_balancer_and_the_control_planes_but_itself(tmp_path: Path, port: int) -> None:
    world = machine(tmp_path, "cp1", port, lb1=LISTENING, cp1=TOO, cp2=CLOSED, w1=SHUT, w2=ALSO)
    ran = world.run("reach")
    assert ran.code == 0
    assert sorted(ran.said.splitlines()) == ["cp2 Connection refused", "lb1"]


def test_it_asks_both_load_balancers_but_itself(tmp_path: Path, port: int) -> None:
    world = machine(tmp_path, "lb1", port, lb1=LISTENING, lb2=CLOSED, cp1=TOO, w1=SHUT)
    assert sorted(world.run("reach").said.splitlines()) == ["cp1", "lb2 Connection refused"]


def test_a_machine_that_says_nothing_is_not_waited_for_long(tmp_path: Path, port: int) -> None:
    world = machine(tmp_path, "w1", port, lb1=LISTENING, cp1=TOO)
    script = world.root / "opt" / "reach.sh"
    # A program that hangs as a connection would whose packets are dropped.
    script.write_text(
        script.read_text()
        .replace('bash -c "exec 3<>', 'bash -c "command sleep 30; exec 3<>')
        .replace("$((3", "$((1")
    )
    ran = world.run("reach")
    assert sorted(ran.said.splitlines()) == ["cp1 no answer within 1 s", "lb1 no answer within 1 s"]


def test_the_load_balancer_may_be_required(tmp_path: Path, port: int) -> None:
    assert machine(tmp_path / "a", "w1", port, lb1=LISTENING, cp1=CLOSED).run("reach", "--require").code == 0
    world = machine(tmp_path / "b", "w1", port, lb1=CLOSED, cp1=LISTENING)
    script = world.root / "opt" / "reach.sh"
    script.write_text(script.read_text().replace("wait_for 20", "wait_for 1"))
    ran = world.run("reach", "--require")
    assert ran.code == 1
    assert f"waiting for w1 to reach the load balancer at {CLOSED}: Connection refused" in ran.said
    assert (
        "ERROR: w1 does not reach the load balancer, so it can't take part in the cluster; `./inv doctor`"
        in ran.said
    )
