"""follow.sh on a machine of scratch folders: what it prints again and again, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.health.facts.machine import read_sections
from tests.provision.world import World

STAT = "# pxname,svname,status,stot,scur\\napiserverbackend,cp1,UP,7,2\\n"
STATUS = [{"Status": {"header": {"member_id": 11}, "leader": 12, "raftTerm": 4, "raftIndex": 99}}]


def machine(tmp_path: Path, name: str, example: str = "two-load-balancers", /, **programs: str) -> World:
    """A machine of an example's lab, with these programs in place of its own."""
    world = World(tmp_path, name, example)
    for program, body in programs.items():
        path = world.root / "bin" / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return world


def rounds(said: str) -> list[dict[str, tuple[int, str]]]:
    """What each round printed: answer → exit code and text."""
    return [
        {name: (section.code, section.text) for name, section in read_sections(part).items()}
        for part in said.split("== end 0\n")[:-1]
    ]


def test_a_load_balancer_says_what_haproxy_has_and_whether_the_address_is_here(tmp_path: Path) -> None:
    lb1 = machine(tmp_path, "lb1", socat=f"printf '{STAT}'", ip='echo \'[{"ifname":"eth1"}]\'')
    ran = lb1.run("follow", "0.1", "2", "backends", "address")
    assert ran.code == 0
    expected = {"backends": (0, STAT.replace("\\n", "\n").strip()), "address": (0, "here")}
    assert rounds(ran.said) == [expected, expected]


def test_an_address_that_is_elsewhere_is_no_failure(tmp_path: Path) -> None:
    lb1 = machine(tmp_path, "lb1", ip="echo '[]'")
    assert rounds(lb1.run("follow", "0", "1", "address").said) == [{"address": (0, "elsewhere")}]


def test_a_member_says_its_own_status(tmp_path: Path) -> None:
    keep = 'echo "etcdctl $*" >>"$WORLD/state/asked"'
    cp1 = machine(tmp_path, "cp1", etcdctl=f"{keep}; echo '{json.dumps(STATUS)}'")
    said = rounds(cp1.run("follow", "0", "1", "etcd-status").said)
    assert json.loads(said[0]["etcd-status"][1]) == STATUS
    asked = (cp1.root / "state/asked").read_text()
    assert "--endpoints https://127.0.0.1:2379 --command-timeout 1s --write-out json endpoint status" in asked


def test_an_answer_that_fails_is_told_with_its_code_and_the_others_go_on(tmp_path: Path) -> None:
    lb1 = machine(tmp_path, "lb1", socat="echo refused >&2; exit 3", ip="echo '[]'")
    said = rounds(lb1.run("follow", "0", "2", "backends", "address").said)
    assert said == [{"backends": (3, "refused"), "address": (0, "elsewhere")}] * 2


def test_one_that_hangs_is_given_up_within_seconds(tmp_path: Path) -> None:
    lb1 = machine(tmp_path, "lb1", socat="exec sleep 30")
    said = rounds(lb1.run("follow", "0", "1", "backends").said)
    assert said[0]["backends"][0] == 124


def test_an_unknown_name_is_told(tmp_path: Path) -> None:
    said = rounds(machine(tmp_path, "lb1").run("follow", "0", "1", "bogus").said)
    assert said == [{"bogus": (1, "ERROR: there is no answer to bogus")}]


def test_a_machine_of_etcd_says_its_member_s_status_with_the_certificate_that_it_has(tmp_path: Path) -> None:
    """A control plane of that lab has another certificate, and no member."""
    keep = 'echo "etcdctl $*" >>"$WORLD/state/asked"'
    body = f"{keep}; echo '{json.dumps(STATUS)}'"
    etcd1 = machine(tmp_path, "etcd1", "external-etcd", etcdctl=body)
    said = rounds(etcd1.run("follow", "0", "1", "etcd-status").said)
    assert json.loads(said[0]["etcd-status"][1]) == STATUS
    asked = (etcd1.root / "state/asked").read_text()
    assert "--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt" in asked
    assert "--endpoints https://127.0.0.1:2379" in asked


@pytest.mark.parametrize("name", ["lb1", "cp1"])
def test_the_machines_that_are_followed_have_it_and_a_worker_has_not(tmp_path: Path, name: str) -> None:
    assert (World(tmp_path / "a", name).root / "opt/follow.sh").exists()
    assert not (World(tmp_path / "b", "w1").root / "opt/follow.sh").exists()
