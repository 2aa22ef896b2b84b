"""The verb `watch`: from its words to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.exit_codes import DOWN, INTERRUPTED
from lab.health import status
from lab.session import Session
from lab.system.paths import REPOSITORY
from lab.workshop.watch import command, sources, words
from lab.workshop.watch.board import Board
from lab.workshop.watch.command import Drawn
from lab.workshop.watch.serve import Server
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote, program, progress
from tests.unit.test_process import gone
from tests.unit.test_tasks import bin_folder as bin_folder
from tests.unit.typed import typed
from tests.unit.watched import SERVERS, external, member, pair, told

LAB = pair()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    workspace = Workspace(tmp_path / ".lab")
    monkeypatch.setattr(status, "why_not_up", lambda _session: None)
    return Session(
        tmp_path / "lab.yaml", LAB, workspace, FakeRemote(LAB, workspace), progress(tmp_path / "logs")
    )


def answering(monkeypatch: pytest.MonkeyPatch, say: Callable[[Board], None]) -> None:
    """Let the sources say this, once."""

    @contextmanager
    def asking(_session: Session, board: Board, _broken: object) -> Iterator[None]:
        say(board)
        yield

    monkeypatch.setattr(sources, "asking", asking)


@pytest.mark.parametrize("port", ["x", "0", "-1", "65536", "1.5", "٣"])
def test_a_port_is_a_port(port: str) -> None:
    with pytest.raises(ConfigError, match="not a port from 1 to 65535"):
        command.port_in(port)


def test_without_a_port_it_is_any_free_one() -> None:
    assert command.port_in("") == 0
    assert command.port_in("8600") == 8600


def test_the_page_is_served_until_ctrl_c(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda board: board.answered("cp1", member("cp1", "cp1")))
    urls: list[str] = []

    def interrupted(_self: object, _poll: float = 0.5) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.watch(session, 0, urls.append)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", urls[0])


def test_a_lab_of_which_nothing_answers_is_not_served(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "FIRST_ANSWER", 0.1)
    answering(monkeypatch, lambda board: board.failed("lb1", "lb1: No route to host"))
    urls: list[str] = []
    assert command.watch(session, 0, urls.append) == "no machine answers: lb1: No route to host"
    answering(monkeypatch, lambda board: None)
    assert command.watch(session, 0, urls.append) == "no machine answers"
    assert urls == []


def test_a_first_answer_may_come_late(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(board: Board) -> None:
        board.failed("lb1", "refused")
        threading.Timer(0.3, board.answered, ("cp1", member("cp1", "cp1"))).start()

    answering(monkeypatch, late)
    monkeypatch.setattr(Server, "serve_forever", lambda _self: None)
    urls: list[str] = []
    assert command.watch(session, 0, urls.append) == ""
    assert len(urls) == 1


def test_no_lab_is_an_answer_as_of_status(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "watch", "--lab", "lab.yaml")
    assert (ran.returncode, ran.stdout) == (DOWN, "")
    assert "error: ha-lab: the lab is not up\n" in ran.stderr
    assert "next: `./inv status --lab lab.yaml` shows more; `./inv up --lab lab.yaml` brings" in ran.stderr


def test_ctrl_c_ends_it_without_a_word(
    tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_session: object, _port: int, ready: Callable[[str], None]) -> str:
        ready("http://127.0.0.1:43123/")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "watch", interrupted)
    ran = typed(tmp_path, "watch", "--lab", "lab.yaml")
    assert (ran.returncode, ran.stderr) == (INTERRUPTED, "")
    assert ran.stdout == "http://127.0.0.1:43123/ shows ha-lab, in a browser on this host; Ctrl-C ends\n"


SSH = """case "$*" in
*" lb1 -- "*) name=backends said=$(printf '# pxname,svname,status,stot,scur\\napiserverbackend,cp1,UP,7,2') ;;
*" cp1 -- "*) name=etcd-status said=$STATUS ;;
*) sleep 60 ;;
esac
while echo "== $name 0" && echo "$said" && echo "== end 0"; do sleep 0.2; done"""
STATUS = '[{"Status": {"header": {"member_id": 11}, "leader": 11, "raftTerm": 4, "raftIndex": 99}}]'


@pytest.mark.slow
def test_the_whole_of_it_from_ssh_to_the_browser_until_ctrl_c(tmp_path: Path) -> None:
    """A real process, whose ssh answers for two machines and hangs for the others."""
    workspace = Workspace(tmp_path / ".lab")
    (tmp_path / "lab.yaml").write_text("provider: docker\n")
    for file in (workspace.ssh_config, workspace.kubeconfig):
        workspace.write(file, "")
    route = '[{"dst":"192.168.56.10","dev":"br-lab","prefsrc":"192.168.56.1"}]'
    program(tmp_path / "bin", "ip", f"echo '{route}'")
    program(tmp_path / "bin", "ssh", f"echo $$ >>{tmp_path}/pids\nSTATUS='{STATUS}'\n{SSH}")
    words = ["-m", "invoke", "--search-root", str(REPOSITORY), "watch", "--lab", "lab.yaml"]
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(" ")[0]
        with urllib.request.urlopen(f"{url}events", timeout=30) as events:  # noqa: S310  our own server
            while True:
                line = events.readline().decode()
                if line.startswith("data: ") and (found := json.loads(line[6:]))["leader"]:
                    break
        assert found["leader"] == "cp1"
        machines = {machine["name"]: machine for machine in found["machines"]}
        assert machines["lb1"]["servers"][0]["sessions"] == 7
        assert machines["cp2"]["member"] is None
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said, errors) == (INTERRUPTED, "", "")
    pids = [int(each) for each in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 4
    assert [pid for pid in pids if not gone(pid)] == []


# The page, and what is drawn on it.


def test_the_page_needs_no_other_file_and_only_its_own_server() -> None:
    text = command.page(LAB)
    assert not re.findall(r"""(?:src|href)=["'](?!#)|@import|url\(|https?://(?!192\.168\.62\.5)""", text)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("connect-src 'self'")
    assert "unsafe" not in policy


def test_every_machine_has_its_card_in_the_row_of_its_role() -> None:
    text = command.page(LAB)
    assert re.findall(r'class="card" data-machine="([^"]*)"', text) == [node.name for node in LAB.nodes]
    assert [name for name, _ in command.rows(LAB)] == ["balancers", "control_planes", "workers"]
    few = LAB.model_copy(update={"nodes": LAB.nodes[:5]})
    assert [name for name, _ in command.rows(few)] == ["balancers", "control_planes"]
    assert [name for name, _ in command.rows(external())] == ["balancers", "control_planes", "etcd", "workers"]
    assert "innerHTML" not in text


def test_each_view_is_drawn_once_and_every_browser_gets_it() -> None:
    board, _ = told(LAB)
    drawn, broken = Drawn(LAB, board, lambda: "14:50:07"), list[BaseException]()
    drawn.start(broken.append)
    try:
        streams = [drawn.stream(), drawn.stream()]
        first = [json.loads(next(each)) for each in streams]
        assert first[0]["time"] == "14:50:07"
        assert first[0]["leader"] == first[1]["leader"] == "cp2"
        for name in SERVERS:
            board.answered(name, member(name, "cp3", 5))
        began = time.monotonic()
        while json.loads(next(streams[0]))["leader"] != "cp3":
            assert time.monotonic() - began < 10
        assert (
            json.loads(next(streams[0]))["changes"][0]["what"]
            == words.change("leader", name="cp3", term=5)._asdict()
        )
    finally:
        drawn.over.set()
    assert broken == []


def test_a_new_view_is_sent_at_once_and_not_when_the_wait_for_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SELDOM", 60.0)
    board, _ = told(LAB)
    drawn = Drawn(LAB, board, lambda: "")
    drawn.start(lambda error: None)
    try:
        stream = drawn.stream()
        next(stream)
        began = time.monotonic()
        threading.Timer(0.5, board.failed, ("cp1", "gone")).start()
        while json.loads(next(stream))["machines"][2]["heard"]["problem"] != "gone":
            assert time.monotonic() - began < 30
        assert time.monotonic() - began < 30
    finally:
        drawn.over.set()


def test_a_view_is_drawn_while_nothing_new_is_heard_since_ages_grow() -> None:
    board, clock = told(LAB)
    drawn = Drawn(LAB, board, lambda: "14:50:07")
    drawn.start(lambda error: None)
    try:
        stream = drawn.stream()
        next(stream)
        clock.now += 7
        began = time.monotonic()
        while json.loads(next(stream))["machines"][0]["heard"]["age"] != 7:
            assert time.monotonic() - began < 10
    finally:
        drawn.over.set()


def test_a_stream_ends_when_the_watch_is_over() -> None:
    drawn = Drawn(LAB, told(LAB)[0], lambda: "")
    drawn.over.set()
    assert list(drawn.stream()) == []


def test_what_can_not_be_drawn_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_known: object) -> dict[str, object]:
        raise KeyError("bug")

    monkeypatch.setattr(command, "view", bug)
    broken: list[BaseException] = []
    heard = threading.Event()

    def keep(error: BaseException) -> None:
        broken.append(error)
        heard.set()

    Drawn(LAB, told(LAB)[0], lambda: "").start(keep)
    assert heard.wait(20)
    assert isinstance(broken[0], KeyError)
