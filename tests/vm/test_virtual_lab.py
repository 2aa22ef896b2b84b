"""Labs of virtual machines, through the kit as a user drives it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request

import pytest

from lab.drill.scene import holder
from lab.plans.pair import holding
from lab.system.wait import wait_until
from tests.labs.conftest import TestLab

HOST_FACTS = "host_facts or load_balancer"


def test_the_load_balancer_alone_is_up_by_a_bare_vagrant_up(pair: TestLab) -> None:
    pair.succeed("render")
    words = ["vagrant", "up", "lb1", "--provider", "libvirt"]
    environment = {**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1"}
    started = time.monotonic()
    said = subprocess.run(
        words, cwd=pair.folder / ".lab", env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    assert said.returncode == 0, said.stdout + said.stderr
    print(f"the load balancer alone: {seconds:.0f} s")
    assert pair.succeed("ssh", "lb1", "--", "systemctl is-active haproxy").said.strip() == "active"
    lab = pair.session.lab
    with urllib.request.urlopen(f"http://{lab.balancers[0].address}:8404/", timeout=30) as page:
        assert b"apiserverbackend" in page.read()


@pytest.mark.whole
def test_a_load_balancer_and_a_node_come_up_and_pass_their_host_checks(pair: TestLab) -> None:
    said = pair.inv("up", timeout=2400)
    assert said.code == 0, said.said
    report = json.loads((pair.folder / ".lab" / "report.json").read_text())
    assert report["provider"] == "libvirt"
    if report["emulated"]:
        assert "Machines are emulated" in said.said
    print({step["name"]: step["seconds"] for step in report["steps"]})
    verified = pair.succeed("verify", "-k", HOST_FACTS)
    assert "all hold" in verified.said


@pytest.mark.whole
def test_up_again_changes_nothing(pair: TestLab) -> None:
    assert "nothing was changed" in pair.succeed("up").said


def test_destroy_leaves_no_machine_no_disk_and_no_network(pair: TestLab) -> None:
    pair.succeed("destroy", "--yes")
    for words in (["list", "--all", "--name"], ["net-list", "--all", "--name"], ["vol-list", "default"]):
        assert "ha-lab-vm-test" not in _virsh(*words)


@pytest.mark.whole
def test_two_load_balancers_alone_move_the_address(sharing: TestLab) -> None:
    sharing.succeed("render")
    words = ["vagrant", "up", "lb1", "lb2", "--provider", "libvirt"]
    environment = {**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1"}
    subprocess.run(words, cwd=sharing.folder / ".lab", env=environment, check=True)
    session = sharing.session
    lab = session.lab
    first = holder(session)
    [other] = [node for node in lab.pair if node != first]
    session.remote.run(first, ["sudo", "systemctl", "stop", "haproxy"], timeout=60)
    started = time.monotonic()

    def why_not_moved() -> str | None:
        found = holding(lab, session.remote)
        return None if found == {other.name} else f"at {', '.join(found) or 'no load balancer'}"

    wait_until(
        why_not_moved, what=f"the address to be at {other.name}", timeout=30 * lab.patience, interval=1.0
    )
    print(f"the address has moved after {time.monotonic() - started:.0f} s, as far as ssh shows")
    with urllib.request.urlopen(f"http://{lab.api.address}:8404/", timeout=30) as page:
        assert f"on {other.name}".encode() in page.read()


@pytest.mark.whole
def test_a_whole_lab_is_ready_and_verify_is_green(whole: TestLab) -> None:
    up = whole.inv("up", timeout=3600)
    assert up.code == 0, up.said
    verified = whole.inv("verify", timeout=900)
    assert verified.code == 0, verified.said
    machines = len(whole.session.lab.nodes)
    print(f"{machines} machines Ready and the report: {up.seconds:.0f} s; verify: {verified.seconds:.0f} s")


def _virsh(*words: str) -> str:
    from lab.system import process

    return process.run(["virsh", "--connect", "qemu:///system", *words], timeout=60).stdout
