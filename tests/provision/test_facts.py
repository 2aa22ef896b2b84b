"""facts.sh run for real on a machine of scratch folders (world.py): what it tells, and what it never does."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import pytest

from lab.health.facts.machine import read_sections
from lab.plans import already
from lab.system.paths import PROVISION, REPOSITORY
from lab.workspace import Workspace
from tests.provision.world import FAKED, World
from tests.unit.fakes import CA

EVERYWHERE = {
    "script",
    "here",
    "identity",
    "given",
    "left-by-runs",
    "logins",
    "reach",
    "services",
    "certificates",
    "clock",
}
NODES = EVERYWHERE | {"membership", "kubeadm", "kubelet-error", "kubelet-server", "kernel", "cgroup-drivers"}
NODES |= {"pod-network-interface"}
TOLD = {
    "lb1": EVERYWHERE | {"configuration", "lab-configuration", "unread", "listening", "backends", "spread"},
    "w1": NODES,
    "cp2": NODES
    | {"admin-server", "open-keys", "service-account-key", "etcd-members", "etcd-status", "etcd-health"}
    | {"etcd-alarms", "programs", "images", "ca-key", "endpoint", "metrics"},
}
DOCS = REPOSITORY / "docs" / "handout"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nsecretsecretsecret\n-----END RSA PRIVATE KEY-----\n"


def machine(tmp_path: Path, name: str, body: str = "exit 0") -> World:
    """A machine whose programs all do the same."""
    world = World(tmp_path, name)
    for program in (*FAKED, "socat", "sysctl"):
        path = world.root / "bin" / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return world


@pytest.mark.parametrize("name", ["w1", "cp2"])
def test_rules_of_kube_router_are_looked_for_where_it_is_not_wanted(tmp_path: Path, name: str) -> None:
    world = machine(tmp_path, name, "exit 1")
    world.without_policies()
    (world.root / "bin/iptables-save").write_text(
        "#!/bin/sh\nprintf ':KUBE-ROUTER-INPUT - [0:0]\\n:INPUT X\\n'\n"
    )
    sections = read_sections(world.run("facts").said)
    assert set(sections) == TOLD[name] | {"policy-chains"}
    assert sections["policy-chains"].text.split() == ["KUBE-ROUTER-INPUT"]


@pytest.mark.parametrize("answer", ["unfinished", "etcd-stored-members"])
def test_what_all_control_planes_would_say_is_told_on_request_only(tmp_path: Path, answer: str) -> None:
    ran = machine(tmp_path, "cp2").run("facts", answer)
    assert set(read_sections(ran.said)) == {"script", answer, "clock"}


@pytest.mark.parametrize("name", TOLD)
def test_every_question_of_a_role_is_answered_even_where_all_programs_fail(tmp_path: Path, name: str) -> None:
    ran = machine(tmp_path, name, "echo broken >&2; exit 3").run("facts")
    assert ran.code == 0
    sections = read_sections(ran.said)
    assert set(sections) == TOLD[name]
    assert sections["services"].code == 3
    assert "broken" in sections["services"].text


def test_a_program_that_hangs_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp2", '[ "$1" != --cacert ] || exec sleep 60')
    script = world.root / "opt" / "facts.sh"
    script.write_text(script.read_text().replace("PATIENCE=5", "PATIENCE=2"))
    sections = read_sections(world.run("facts").said)
    assert sections["etcd-members"].code == 124
    assert sections["services"].code == 0


def emulated(tmp_path: Path) -> World:
    """An emulated machine whose programs fail where two of them run at once; a line of `scopes` is a scope."""
    one_at_a_time = 'mkdir "$0.runs" || exit 9; sleep 0.05; rmdir "$0.runs"'
    world = machine(tmp_path, "cp2", one_at_a_time.replace("$0", str(tmp_path / "program")))
    with (world.root / "opt/node.env").open("a") as file:
        file.write("LAB_PATIENCE=10\n")
    systemd_run = world.root / "bin" / "systemd-run"
    systemd_run.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2 $3 $4 $5" = "--quiet --scope --slice=-.slice --property=CPUWeight=39 --" ] || exit 1\n'
        f'echo run >>{tmp_path}/scopes\nshift 5\nexec bash "$@"\n'
    )
    systemd_run.chmod(0o755)
    return world


def test_an_emulated_machine_is_asked_with_the_weight_of_pods_and_one_command_at_a_time(tmp_path: Path) -> None:
    world = emulated(tmp_path)
    sections = read_sections(world.run("facts", "services", "etcd-members", "etcd-health").said)
    assert set(sections) == {"script", "services", "etcd-members", "etcd-health", "clock"}
    assert {section.code for section in sections.values()} == {0}, sections
    assert (tmp_path / "scopes").read_text() == "run\n"


def test_pods_of_an_emulated_lab_are_asked_with_the_weight_of_pods_and_in_turn(tmp_path: Path) -> None:
    _, told = emulated(tmp_path).stream("pods", "probes", stdin=b"probe-w1 a\nprobe-w2 b\nprobe-w3 c\n")
    sections = read_sections(told.decode())
    assert {name: section.code for name, section in sections.items()} == {
        "probe-w1": 0,
        "probe-w2": 0,
        "probe-w3": 0,
    }
    assert (tmp_path / "scopes").read_text() == "run\n"


def test_certificates_are_told_and_keys_never(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp2")
    kubernetes = world.path("/etc/kubernetes/pki")
    (kubernetes / "etcd").mkdir(parents=True)
    (kubernetes / "apiserver.crt").write_text(CA)
    (kubernetes / "apiserver.key").write_text(KEY)
    packed = [base64.b64encode(text.encode()).decode() for text in (CA, KEY)]
    (kubernetes.parent / "admin.conf").write_text(
        "clusters:\n- cluster:\n    server: https://192.168.56.10:6443\nusers:\n- user:\n"
        f"    client-certificate-data: {packed[0]}\n    client-key-data: {packed[1]}\n    token: tokentoken\n"
    )
    kubelet = world.path("/var/lib/kubelet/pki")
    kubelet.mkdir(parents=True)
    (kubelet / "kubelet-client-current.pem").write_text(KEY + CA + KEY)

    said = world.run("facts").said
    told = read_sections(said)["certificates"].text
    for path in ("pki/apiserver.crt", "admin.conf", "kubelet-client-current.pem"):
        assert any(line.endswith(path) for line in told.splitlines() if line.startswith("# "))
    assert told.count("BEGIN CERTIFICATE") == 3
    assert read_sections(said)["admin-server"].text.strip() == "https://192.168.56.10:6443"
    for secret in ("PRIVATE KEY", "secretsecret", packed[1], "tokentoken"):
        assert secret not in said


FAILED = 'E1128 13:43:42.123456    1841 run.go:72] "command failed" err="failed to load kubelet config file"'


@pytest.mark.parametrize(("restarts", "told"), [(2, ""), (3, FAILED)])
def test_the_last_error_of_a_kubelet_that_is_restarted_is_told(
    tmp_path: Path, restarts: int, told: str
) -> None:
    world = machine(tmp_path, "w1")
    systemctl, journalctl = (world.root / "bin" / name for name in ("systemctl", "journalctl"))
    systemctl.write_text(
        f'#!/bin/sh\n[ "$*" = "show --property NRestarts --value kubelet.service" ] && echo {restarts}\n'
    )
    journalctl.write_text(
        '#!/bin/sh\n[ "$*" = "--quiet --output cat --lines 300 _SYSTEMD_UNIT=kubelet.service" ] || exit 1\n'
        f"cat <<'END'\nE1128 13:43:32.000001    1800 run.go:72] earlier\n{FAILED}\n"
        "I1128 13:43:52.000001    1900 server.go:1] starts again\nEND\n"
    )
    journalctl.chmod(0o755)
    section = read_sections(world.run("facts", "kubelet-error").said)["kubelet-error"]
    assert (section.code, section.text.strip()) == (0, told)


def test_the_endpoint_that_init_was_given_is_told_by_the_machine_s_own_api_server(tmp_path: Path) -> None:
    world = machine(tmp_path, "cp2")
    kubectl = world.root / "bin" / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\ncase "$*" in *"--server https://192.168.56.12:6443"*" get configmap kubeadm-config"*)\n'
        'printf "apiServer: {}\\ncontrolPlaneEndpoint: lb:6443\\n" ;; *) exit 1 ;; esac\n'
    )
    told = read_sections(world.run("facts").said)["endpoint"]
    assert (told.code, told.text.strip()) == (0, "")  # there is no cluster
    admin = world.path("/etc/kubernetes/admin.conf")
    admin.parent.mkdir(parents=True, exist_ok=True)
    admin.write_text("server: https://192.168.56.10:6443\n")
    assert read_sections(world.run("facts").said)["endpoint"].text.strip() == "lb:6443"


@pytest.mark.parametrize("proxied", [True, False])
def test_a_machine_tells_all_that_up_gave_it_as_the_host_does(tmp_path: Path, proxied: bool) -> None:
    world = World(tmp_path / "machine", "w1")
    given = world.root / "opt"
    workspace = Workspace(tmp_path / ".lab")
    shutil.copytree(given, workspace.node("w1"))
    (workspace.secrets / "w1").mkdir(parents=True)
    proxies = 'HTTPS_PROXY="http://user:secret@proxy.example:3128"\n' if proxied else ""
    (workspace.secrets / "w1" / "proxy.env").write_text(proxies)
    if proxied:
        (world.path("/etc/ha-lab") / "proxy.env").write_text(proxies)
    section = read_sections(world.run("facts", "given").said)["given"]
    assert section.text.split()[0] == already.files_hash(workspace, world.node)
    (given / "more").write_text("")
    section = read_sections(world.run("facts", "given").said)["given"]
    assert section.text.split()[0] != already.files_hash(workspace, world.node)


@pytest.mark.parametrize("passing", ["UP 1/2,1,* L7OK,200", "DOWN,1,L7TOUT,,1001"])
def test_haproxy_is_asked_until_its_state_has_settled(passing: str, tmp_path: Path) -> None:
    counting = 'cat >/dev/null; echo >>"$WORLD/n"; n=$(wc -l <"$WORLD/n")'
    world = machine(tmp_path, "lb1")
    socat = world.root / "bin" / "socat"
    socat.write_text(f"#!/bin/sh\n{counting}\n[ $n -gt 3 ] && echo 'a,UP,L7OK' || echo 'a,{passing}'\n")
    # This section alone: connections_spread asks at the same time, and would be counted, too.
    assert read_sections(world.run("facts", "backends").said)["backends"].text.strip() == "a,UP,L7OK"
    assert len((world.root / "n").read_text().splitlines()) == 4


def test_connections_are_made_once_haproxy_s_state_has_settled(tmp_path: Path) -> None:
    counting = 'cat >/dev/null; echo >>"$WORLD/n"; n=$(wc -l <"$WORLD/n")'
    world = machine(tmp_path, "lb1")
    socat = world.root / "bin" / "socat"
    socat.write_text(f"#!/bin/sh\n{counting}\n[ $n -gt 3 ] && echo 'a,UP,L7OK' || echo 'a,DOWN,1,L7TOUT,'\n")
    told = read_sections(world.run("facts", "spread").said)["spread"].text.split()
    assert told == ["a,UP,L7OK", "--", "after", "a,UP,L7OK"]


def test_haproxy_has_as_long_to_answer_as_any_other_program(tmp_path: Path) -> None:
    world = machine(tmp_path, "lb1")
    socat = world.root / "bin" / "socat"
    words = "-t 5 - UNIX-CONNECT:/run/haproxy/admin.sock"
    socat.write_text(f'#!/bin/sh\ncat >/dev/null; [ "$*" = "{words}" ] && echo "a,UP,L7OK"\n')
    assert read_sections(world.run("facts").said)["backends"].text.strip() == "a,UP,L7OK"


def test_no_answer_of_haproxy_could_not_be_asked_and_its_own_words_are_kept(tmp_path: Path) -> None:
    world = machine(tmp_path, "lb1", "cat >/dev/null")
    told = read_sections(world.run("facts").said)
    for name in ("backends", "spread"):
        assert (told[name].code, told[name].text.strip()) == (1, "HAProxy gave no answer within 5 s")
    refusing = machine(tmp_path / "other", "lb1", "cat >/dev/null; echo E connect: refused >&2; exit 1")
    assert read_sections(refusing.run("facts").said)["backends"].text.strip() == "E connect: refused"


@pytest.mark.parametrize(
    ("answers", "asked", "last"),
    [
        ([("UP", 4, 4), ("UP", 10, 10)], 2, "UP"),
        ([("UP", 4, 4), ("UP", 16, 4), ("UP", 22, 10)], 3, "UP"),
        ([("UP", 4, 4), ("UP", 16, 4), ("UP", 28, 4), ("UP", 40, 4)], 4, "UP"),
        ([("DOWN", 4, 4), ("DOWN", 16, 4)], 2, "DOWN"),
    ],
    ids=["each", "one later", "one never", "one that is down"],
)
def test_a_server_that_is_up_by_now_is_given_another_dozen(
    tmp_path: Path, answers: list[tuple[str, int, int]], asked: int, last: str
) -> None:
    world = machine(tmp_path, "lb1")
    folder = tmp_path / "answers"
    folder.mkdir()

    def row(name: str, sessions: int, status: str) -> str:
        return ",".join(["apiserverbackend", name, *(["0"] * 5), str(sessions), *(["0"] * 9), status, "L7OK"])

    for number, (status, one, two) in enumerate(answers):
        rows = (row("cp1", one, "UP"), row("cp2", two, status), row("BACKEND", 4, "UP"))
        (folder / str(number)).write_text("".join(f"{each}\n" for each in rows))
    counter = folder / "count"
    (world.root / "bin" / "socat").write_text(
        f"#!/bin/sh\ncat >/dev/null\nn=$(cat {counter} 2>/dev/null || echo 0)\necho $((n + 1)) >{counter}\n"
        f"cat {folder}/$n\n"
    )
    curls = folder / "curls"
    (world.root / "bin" / "curl").write_text(f'#!/bin/sh\necho "$*" >>{curls}\n')
    # This section alone: what else asks HAProxy does so at the same time, and would take answers away.
    said = read_sections(world.run("facts", "spread").said)["spread"]
    assert (said.code, int(counter.read_text())) == (0, asked)
    dozens = curls.read_text().splitlines()
    assert len(dozens) == asked - 1
    for dozen in dozens:
        assert dozen.endswith("https://192.168.56.10:6443/readyz?[1-12]")
        assert "--http1.1 --header Connection: close " in dozen, "one connection would do for all"
    before, after = said.text.split("-- after\n")
    assert ",cp1,0,0,0,0,0,4," in before
    assert after.splitlines()[1].split(",")[17] == last
    assert after.splitlines()[1].split(",")[7] == str(answers[-1][2])


ASKING = (*(PROVISION / "node").glob("*.sh"), *(REPOSITORY / "lab").rglob("*.py"), *DOCS.rglob("*.md"))


@pytest.mark.parametrize("script", sorted(each for each in ASKING if "socat" in each.read_text()), ids=str)
def test_no_script_drops_an_answer_of_haproxy_that_takes_longer_than_half_a_second(script: Path) -> None:
    """That is how long socat waits by itself once it has sent all (socat(1), option -t)."""
    assert re.findall(r"\bsocat (?=- |-u |UNIX).*", script.read_text()) == []
