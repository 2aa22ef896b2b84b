from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

import lab.remote
from lab.config import default
from lab.errors import CommandTimedOut, LabError, LabStateError, NodeFailed
from lab.model import Libvirt, Node
from lab.remote import RUN, Remote, control_folder, side_by_side
from lab.system import process
from lab.workspace import Workspace
from tests.unit.fakes import first_on_path, program

LAB = default()
CP1 = LAB.first
SECRET = "BOOTSTRAP_TOKEN=abcdef.0123456789abcdef\n"  # noqa: S105  nobody's
OURS = '[{"dst":"192.168.56.10","dev":"br-1","prefsrc":"192.168.56.1","flags":[],"uid":0,"cache":[]}]'
BY_DEFAULT = '[{"dst":"192.168.56.10","gateway":"192.0.2.1","dev":"eth0","prefsrc":"192.0.2.2","flags":[]}]'
OTHERS = '[{"dst":"192.168.56.10","dev":"eth1","prefsrc":"192.168.56.77","flags":[]}]'
THROUGH = '[{"dst":"192.168.56.10","gateway":"192.168.56.2","dev":"br-1","prefsrc":"192.168.56.1","flags":[]}]'


@pytest.fixture(autouse=True)
def _own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of sockets for each test: these make and remove them."""
    monkeypatch.setattr(lab.remote, "SOCKETS", tmp_path)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    workspace = Workspace(tmp_path / ".lab")
    workspace.write(workspace.node("cp1") / "node.env", "A=1\n")
    workspace.write(workspace.node("cp1") / "init.sh", "#!/bin/sh\n")
    workspace.write(workspace.node("cp1") / "pod-network" / "kustomization.yaml", "x")
    return Remote(LAB, workspace)


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> Path:
    """A program first on PATH that keeps its words and standard input."""
    first_on_path(tmp_path / "bin", monkeypatch)
    seen = tmp_path / f"{name}.words"
    program(tmp_path / "bin", name, f'printf "%s\\n" "$@" >>{seen}\n{body}')
    return seen


def test_a_network_of_ours_is_used(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake(tmp_path, monkeypatch, "ip", f"echo '{OURS}'")
    assert remote.route_problem() is None
    assert seen.read_text().split() == ["-json", "route", "get", "192.168.56.10"]
    remote.require_route()


@pytest.mark.parametrize("answer", [BY_DEFAULT, OTHERS, THROUGH, "[]", ""])
def test_nothing_is_sent_by_any_other_route(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake(tmp_path, monkeypatch, "ip", f"echo '{answer}'")
    fake(tmp_path, monkeypatch, "ssh", "exit 99")
    assert remote.route_problem() == "the lab's network 192.168.56.0/24 is not up on this host"
    assert remote.why_not_reachable(CP1) == remote.route_problem()
    with pytest.raises(LabStateError) as caught:
        remote.require_route()
    assert "./inv up" in caught.value.hint
    assert not (tmp_path / "ssh.words").exists()


def test_no_route_at_all_is_no_network_of_ours(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "ip", "echo 'RTNETLINK answers: Network is unreachable' >&2; exit 2")
    assert "is not up" in (remote.route_problem() or "")


@pytest.mark.parametrize(
    ("routes", "reached"),
    [
        ('[{"dst":"default","gateway":"192.0.2.1"},{"dst":"192.168.56.0/24","gateway":"192.0.2.7"}]', True),
        ('[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"}]', False),
        ('[{"dst":"128.0.0.0/1","dev":"tun0"},{"dst":"default","dev":"eth0"}]', False),
        ("[]", False),
    ],
)
def test_another_host_s_lab_is_reached_by_a_route_of_its_own_and_no_default_one(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routes: str, reached: bool
) -> None:
    settings = Libvirt(uri="qemu+ssh://ada@big/system")
    remote.lab = LAB.model_copy(update={"provider": "libvirt", "libvirt": settings})
    seen = fake(tmp_path, monkeypatch, "ip", f"echo '{routes}'")
    assert (remote.route_problem() is None) is reached
    assert seen.read_text().split() == ["-4", "-json", "route", "show", "match", "192.168.56.10"]


def test_commands_on_emulated_machines_have_longer(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def door(argv: list[str], **options: object) -> process.Result:
        given.append(options["timeout"])
        return process.Result((), 0, "", "", 0.0)

    monkeypatch.setattr(process, "run", door)
    remote.run(CP1, ["true"], timeout=20)
    remote.lab = LAB.model_copy(update={"provider": "libvirt", "libvirt": Libvirt(emulated=True)})
    remote.run(CP1, ["true"], timeout=20)
    remote.run(CP1, ["true"])
    assert given == [20, 200, None]


def test_a_machine_is_followed_on_a_connection_of_its_own(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake(tmp_path, monkeypatch, "ssh", "echo one; echo two; exit 4")
    heard: list[str] = []
    ran = remote.follow(CP1, ["sudo", "follow"], heard.append, silence=20, over=lambda: False)
    assert (ran.returncode, heard) == (4, ["one", "two"])
    assert seen.read_text().split()[-6:] == ["-o", "ControlPath=none", "cp1", "--", "sudo", "follow"]


def test_an_emulated_machine_that_is_followed_may_be_silent_for_longer(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    monkeypatch.setattr(process, "follow", lambda *_, silence, over: given.append(silence))
    remote.follow(CP1, ["x"], print, silence=4, over=lambda: False)
    remote.lab = LAB.model_copy(update={"provider": "libvirt", "libvirt": Libvirt(emulated=True)})
    remote.follow(CP1, ["x"], print, silence=4, over=lambda: False)
    assert given == [4, 40]


def test_why_a_machine_does_not_answer_is_ssh_s_last_line(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "ip", f"echo '{OURS}'")
    fake(tmp_path, monkeypatch, "ssh", "echo noise >&2; echo 'No route to host' >&2; exit 255")
    assert remote.why_not_reachable(CP1) == "No route to host"
    fake(tmp_path, monkeypatch, "ssh", "exit 255")
    assert remote.why_not_reachable(CP1) == "ssh failed without a message"
    fake(tmp_path, monkeypatch, "ssh", "exit 0")
    assert remote.why_not_reachable(CP1) is None


def unpacked(path: Path) -> dict[str, tuple[int, str]]:
    """What an archive holds: name → mode and content."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        assert {(member.uid, member.gid) for member in archive} == {(0, 0)}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = member.mode, file.read().decode()
    return found


def test_a_machine_is_given_its_folder_with_places_and_modes(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "ssh", f"cat >{tmp_path}/archive")
    remote.deliver(CP1)
    assert unpacked(tmp_path / "archive") == {
        "opt/ha-lab/init.sh": (0o755, "#!/bin/sh\n"),
        "opt/ha-lab/node.env": (0o644, "A=1\n"),
        "opt/ha-lab/pod-network/kustomization.yaml": (0o644, "x"),
    }


def test_secrets_travel_by_standard_input_and_no_other_way(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = fake(tmp_path, monkeypatch, "ssh", f"cat >{tmp_path}/archive; env >{tmp_path}/environment; exit 1")
    log = tmp_path / "init.log"
    with pytest.raises(LabError) as caught:
        remote.script(CP1, "init", ["--alone"], secrets={"secrets": SECRET, "ca.key": "the key"}, log=log)
    assert unpacked(tmp_path / "archive") == {"secrets": (0o600, SECRET), "ca.key": (0o600, "the key")}
    assert words.read_text().split()[-3:] == ["/opt/ha-lab/init.sh", "--stdin", "--alone"]
    for text in (words.read_text(), (tmp_path / "environment").read_text(), log.read_text(), str(caught.value)):
        assert "abcdef.0123456789abcdef" not in text
        assert "the key" not in text


def test_a_script_says_whether_it_changed_anything(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = fake(tmp_path, monkeypatch, "ssh", "echo 'ha-lab: unchanged'")
    assert not remote.script(CP1, "node", ["--alone"], log=tmp_path / "1.log")
    assert words.read_text().split() == [
        *("-F", str(remote.workspace.ssh_config), "cp1", "--", "sudo", "env", f"HA_LAB_RUN={RUN}"),
        *("/opt/ha-lab/node.sh", "--alone"),
    ]
    fake(tmp_path, monkeypatch, "ssh", "echo 'ha-lab: changed'")
    assert remote.script(CP1, "node", log=tmp_path / "2.log")


def test_a_gentle_command_has_a_connection_of_its_own(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that shares a connection would do the work, at its own priority."""
    words = fake(tmp_path, monkeypatch, "ssh", "sleep 0.3; nice")
    assert remote.run(CP1, ["true"], gently=True).stdout == "19\n"
    configured = str(remote.workspace.ssh_config)
    assert words.read_text().split() == ["-F", configured, "-o", "ControlPath=none", "cp1", "--", "true"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["-t", "cp1"]),
        (["uname -a"], ["cp1", "--", "uname -a"]),
        (["echo", "a b", "$HOME"], ["cp1", "--", "echo 'a b' '$HOME'"]),
    ],
)
def test_a_login_has_a_terminal_and_a_command_keeps_its_words(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, command: list[str], words: list[str]
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(process, "replace", became.append)
    remote.shell(CP1, command)
    assert became == [["ssh", "-F", str(remote.workspace.ssh_config), *words]]


def test_hanging_up_ends_every_connection_and_leaves_no_folder(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = fake(tmp_path, monkeypatch, "ssh", "exit 255")
    folder = control_folder(remote.workspace)
    assert not folder.exists(), "who only asks for its name makes none"
    remote.run(CP1, ["true"], accept=None)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    remote.close_connections()
    assert words.read_text().split().count("exit") == len(LAB.nodes)
    assert not folder.exists()


def test_a_connection_that_does_not_end_keeps_no_other(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def door(argv: list[str], **options: object) -> process.Result:
        if argv[-1] == "lb1":
            raise CommandTimedOut(argv, "did not end within 10 s")
        ended.append(argv[-1])
        return process.Result((), 255, "", "", 0.0)

    monkeypatch.setattr(process, "run", door)
    with pytest.raises(NodeFailed, match="to end the connection failed on lb1") as caught:
        remote.close_connections()
    assert set(caught.value.failures) == {"lb1"}
    assert sorted(ended) == sorted(node.name for node in LAB.nodes if node.name != "lb1")


def test_the_sockets_of_where_the_lab_was_before_go_too(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "ssh", "exit 255")
    sockets = lab.remote.SOCKETS
    former, other = (sockets / f"ha-lab-{os.getuid()}-{mark * 12}" for mark in "ab")
    for folder in (former, other):
        folder.mkdir()
        (folder / "socket").touch()
    remote.workspace.write(remote.workspace.ssh_config, f'Host *\n    ControlPath "{former}/%C"\n')
    remote.close_connections(LAB.nodes[:1])
    assert former.exists(), "others still use it"
    remote.close_connections()
    assert not former.exists()
    assert other.exists(), "another lab's"


@pytest.mark.parametrize("folder", ["{home}", "{sockets}", "{sockets}/mine", "{home}/{right}"])
def test_no_folder_but_one_for_sockets_is_removed(remote: Remote, tmp_path: Path, folder: str) -> None:
    home, right = tmp_path / "home", f"ha-lab-{os.getuid()}-{'a' * 12}"
    for each in (home, home / right, lab.remote.SOCKETS / "mine"):
        each.mkdir()
    named = folder.format(home=home, sockets=lab.remote.SOCKETS, right=right)
    remote.workspace.write(remote.workspace.ssh_config, f'    ControlPath "{named}/%C"\n')
    remote.remove_sockets()
    assert (home / right).exists()
    assert (lab.remote.SOCKETS / "mine").exists()


def test_another_user_s_folder_is_not_trusted_with_connections(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.getuid()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    monkeypatch.setattr(Path, "stat", lambda *_: os.stat_result((0o40700, 0, 0, 0, real + 1, 0, 0, 0, 0, 0)))
    with pytest.raises(LabStateError, match="belongs to another user"):
        remote.run(CP1, ["true"])


def test_two_labs_have_two_folders_of_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.remote, "SOCKETS", Path("/tmp"))  # noqa: S108  only its length counts
    folders = [control_folder(Workspace(tmp_path / name)) for name in ("a", "b")]
    assert len(set(folders)) == 2
    assert all(len(str(folder)) < 50 for folder in folders)


def test_side_by_side_gives_every_result() -> None:
    assert side_by_side("asking", LAB.workers, lambda node: node.cpus) == {"w1": 2, "w2": 2, "w3": 2}
    assert side_by_side("asking", [], lambda node: node.cpus) == {}


def test_side_by_side_tells_every_failure() -> None:
    def work(node: Node) -> None:
        if node.name != "w2":
            raise LabError(f"{node.name} is gone", hint="look")

    with pytest.raises(NodeFailed) as caught:
        side_by_side("asking", LAB.workers, work)
    assert caught.value.message == "asking failed on w1: w1 is gone\nasking failed on w3: w3 is gone"
    assert caught.value.hint == "look"
