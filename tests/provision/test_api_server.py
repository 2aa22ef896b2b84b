"""Waits for API servers: why they end, and when they end early (provision/api-server.sh)."""

from __future__ import annotations

import errno
import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from lab.health.connecting import CUT, NO_SERVER_UP, connection_problem
from lab.system.paths import PROVISION
from tests.provision.test_repair import again, made, phases
from tests.provision.world import World
from tests.whole import rows

BALANCER, OWN = "https://192.168.56.10:6443/readyz", "https://192.168.56.11:6443/readyz"
NOT_TRUSTED = "SSL certificate problem: unable to get local issuer certificate"


def words(url: str, code: int, said: str) -> str:
    """What the scripts make of curl's exit code and words."""
    script = (
        f"API_ENDPOINT=192.168.56.10:6443 LAB_PATIENCE=1; source {PROVISION}/api-server.sh; "
        'connection_problem "$@" 3'
    )
    argv = ["bash", "-c", script, "bash", str(code), f"curl: ({code}) {said}", url]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("code", "said", "meaning"),
    [
        (
            7,
            "Failed to connect to 192.168.56.11 port 6443 after 0 ms: Couldn't connect to server",
            connection_problem(ConnectionRefusedError(errno.ECONNREFUSED, ""), 3),
        ),
        (28, "Connection timed out after 3000 milliseconds", connection_problem(TimeoutError(), 3)),
        (35, "OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to 192.168.56.11:6443 ", CUT),
        (35, "Send failure: Connection reset by peer", CUT),
        (35, "Send failure: Broken pipe", CUT),
        (35, "TLS connect error: error:0A000126:SSL routines::unexpected eof while reading", CUT),
        (35, "GnuTLS, handshake failed: The TLS connection was non-properly terminated.", CUT),
        (52, "Empty reply from server", CUT),
        (56, "Recv failure: Connection reset by peer", CUT),
        (77, "error setting certificate file: /opt/ca.crt", "error setting certificate file: /opt/ca.crt"),
    ],
)
def test_what_curl_reports_is_put_into_the_words_of_the_checks(code: int, said: str, meaning: str) -> None:
    assert words(OWN, code, said) == meaning


def test_a_connection_that_the_load_balancer_cuts_means_that_no_api_server_is_up() -> None:
    said = "OpenSSL SSL_connect: Connection reset by peer in connection to 192.168.56.10:6443 "
    assert words(BALANCER, 35, said) == NO_SERVER_UP


def test_certificates_and_handshakes_are_told_from_each_other() -> None:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    more = "\nMore details here: https://curl.se/docs/sslcerts.html"
    assert words(OWN, 60, NOT_TRUSTED + more) == connection_problem(error, 3)
    handshake = words(OWN, 35, "OpenSSL/3.0.19: error:0A00010B:SSL routines::wrong version number")
    assert handshake == "what answers there does not complete a TLS handshake (wrong version number)"


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("", "can't be asked: nothing listens there"),
        (
            "22 The requested URL returned error: 500",
            "answers with the HTTP status 500",
        ),
        (f"60 {NOT_TRUSTED}", "can't be asked: its certificate is not accepted (unable to get local issuer"),
    ],
)
@pytest.mark.parametrize("name", rows(["cp1", "cp2", "w1"], usual=["cp2"]))
def test_a_wait_for_an_api_server_ends_with_its_url_and_the_meaning(
    tmp_path: Path, name: str, fails: str, reason: str
) -> None:
    world = made(tmp_path, name)
    for state in ("api", "own-api", "named"):
        (world.root / "state" / state).unlink(missing_ok=True)
    if fails:
        world.let(curl_fails=f"{fails}\n")
    ran = again(world)
    url = OWN if name == "cp1" else BALANCER
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert " after 180 s waiting for th" in ran.said
    assert f": {url} {reason}" in ran.said
    assert "curl" not in ran.said


def test_plan_says_why_the_api_can_t_be_asked_in_one_line(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    (world.root / "state/api").unlink()
    ran = world.run("unfinished")
    assert ran.code == 1
    assert ran.said.splitlines() == [f"{BALANCER} can't be asked: nothing listens there"]


# Containers that end again and again.

FLAG = "Error: unknown flag: --nonsense"
NO_ETCD = (
    "F1128 instance.go:232] Error creating leases: error creating storage factory: context deadline exceeded"
)


def container_log(world: World, name: str, last: str, *, number: int = 3, age: int = 0) -> Path:
    """The log of a container that was started `number` times before, as the kubelet and containerd leave it."""
    log = world.path(f"/var/log/pods/kube-system_{name}-{world.name}_0c2b/{name}/{number}.log")
    log.parent.mkdir(parents=True)
    stamp = "2026-11-28T17:00:00.123456789Z stderr F "
    log.write_text(f"{stamp}Usage:\n{stamp}{last}\n{stamp}\n")
    then = time.time() - age
    os.utime(log, (then, then))
    return log


def crashing(world: World, name: str, last: str) -> None:
    """Let a container end between any two questions for the API server."""
    log = container_log(world, name, last)
    (world.root / "state/own-api").unlink()
    world.let(crashing=f"/var/log/pods/{log.parent.parent.name}/{name}\n")


@pytest.mark.parametrize("name", ["kube-apiserver", "etcd"])
def test_the_first_control_plane_is_not_waited_for_while_a_container_ends_again_and_again(
    tmp_path: Path, name: str
) -> None:
    world = made(tmp_path, "cp1")
    crashing(world, name, FLAG)
    ran = again(world)
    assert (ran.code, ran.changes) == (1, []), ran.said
    assert (
        f"ERROR: {name} on cp1 ends again and again; the last line of its log: {FLAG}. If you have " in ran.said
    )
    assert "move it out of that folder: `./inv up` then writes it again" in ran.said
    assert "gave up" not in ran.said
    assert sum(call.startswith("curl") for call in ran.calls) == 7, (
        "four of them are of a wait of 60 s by time.sh"
    )


def test_another_control_plane_joins_again_without_waiting_for_five_minutes(tmp_path: Path) -> None:
    world = made(tmp_path, "cp2")
    crashing(world, "kube-apiserver", FLAG)
    ran = again(world)
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert f"\nkube-apiserver on cp2 ends again and again; the last line of its log: {FLAG}\n" in ran.said
    assert "gave up" not in ran.said
    assert (phases(ran)[0], phases(ran)[-1]) == ("reset", "join")


def test_a_start_that_runs_may_yet_serve(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    crashing(world, "kube-apiserver", FLAG)
    world.let(runs_kube_apiserver="")
    ran = again(world)
    assert "gave up after 180 s waiting for this control plane" in ran.said


def test_the_log_before_the_newest_counts_too(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    crashing(world, "kube-apiserver", "I1128 a start that has just begun")
    [log] = world.path("/var/log/pods").rglob("*.log")
    world.let(earlier_log=f"2026-11-28T17:00:00.123456789Z stderr F {NO_ETCD}\n")
    ran = again(world)
    assert "gave up after 180 s waiting for this control plane" in ran.said, log


def test_an_api_server_that_ends_for_want_of_etcd_is_waited_for(tmp_path: Path) -> None:
    world = made(tmp_path, "cp1")
    crashing(world, "kube-apiserver", NO_ETCD)
    ran = again(world)
    assert ran.code == 1
    assert "gave up after 180 s waiting for this control plane" in ran.said


@pytest.mark.parametrize(
    ("age", "kubelet", "runs", "useless"),
    [
        (100, 600, False, True),  # the kubelet pauses for longer than that
        (20, 600, False, False),  # it may start it any moment
        (100, 60, False, False),  # the container ended before this kubelet was started
        (100, 600, True, False),
    ],
)
def test_a_container_that_the_kubelet_will_not_start_for_minutes_is_not_waited_for(
    tmp_path: Path, age: int, kubelet: int, runs: bool, useless: bool
) -> None:
    world = made(tmp_path, "cp1")
    container_log(world, "kube-apiserver", FLAG, age=age)
    (world.root / "state/own-api").unlink()
    world.let(kubelet_since=f"@{int(time.time()) - kubelet}\n")
    if runs:
        world.let(runs_kube_apiserver="")
    ran = again(world)
    assert ran.code == 1
    assert (
        f"kube-apiserver on cp1 ends again and again; the last line of its log: {FLAG}" in ran.said
    ) is useless
    assert ("gave up after 180 s" in ran.said) is not useless
