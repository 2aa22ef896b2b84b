from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab.drill import dial, probes, stream, writer
from lab.drill.dial import Target
from lab.drill.figures import figures
from lab.drill.probes import Probes, Seen, probing
from lab.drill.recording import Mark, Recording
from lab.drill.workload import NAMESPACE_PATH, read_back
from lab.errors import ConfigError, LabStateError, WaitTimedOut
from lab.health.cluster import Api
from lab.model import Lab, LoadBalancer, Network, Node
from lab.model.roles import Role
from lab.system.wait import wait_until
from lab.workspace import Workspace
from tests.unit.apiserver import HOST, ApiServer
from tests.unit.fakes import FakeClock, FakeRemote

pytestmark = pytest.mark.slow

Run = Callable[..., AbstractContextManager[Probes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path).running() as running:
        yield running


@pytest.fixture
def remote(server: ApiServer, tmp_path: Path) -> FakeRemote:
    nodes = [
        Node(name=name, role=role, address=IPv4Address(HOST), cpus=1, memory_mib=1)
        for name, role in (("lb1", Role.LOAD_BALANCER), ("cp1", Role.CONTROL_PLANE), ("w1", Role.WORKER))
    ]
    network = Network(subnet=IPv4Network("127.0.0.0/24"))
    lab = Lab(nodes=tuple(nodes), network=network, load_balancer=LoadBalancer(port=server.port))
    return FakeRemote(lab, Workspace(tmp_path / ".lab"))


@pytest.fixture
def run(server: ApiServer, remote: FakeRemote, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Start the probes, their patience made short; afterwards not one of their threads is left."""
    monkeypatch.setattr(stream, "STALLED", 0.4)
    monkeypatch.setattr(stream, "LOOK", 0.05)
    monkeypatch.setattr(stream, "PAUSE", 0.02)
    before = set(threading.enumerate())

    def start(limit: float = 30.0) -> AbstractContextManager[Probes]:
        api = Api(server.kubeconfig)
        return probing(remote, api, via=remote.lab.workers, node_port=server.node_port, limit=limit)

    yield start
    ours = [thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name]
    assert ours == []


def until_asked(server: ApiServer, kind: str, more: int) -> None:
    """Wait for that many requests from now on."""
    least = server.asked[kind] + more
    wait_until(
        lambda: None if server.asked[kind] >= least else f"{server.asked[kind]} of {least}",
        what=f"{more} times {kind}",
        timeout=5,
        interval=0.01,
    )


def at_work() -> list[str]:
    """The probes that have not ended."""
    own = {"_connect", "_write", "_ask_service", "_follow", "_beat"}
    return sorted(own & {thread.name for thread in threading.enumerate()})


def errors(seen: Seen, probe: str) -> Counter[str]:
    return Counter(sample.error for sample in getattr(seen, probe))


def all_seen(seen: Seen) -> bool:
    """Whether the watch has every acknowledged write, once and in order."""
    acknowledged = [sample.value for sample in seen.writes if not sample.error]
    events = [event.value for event in seen.watch]
    return [value for value in events if value in acknowledged] == acknowledged


def test_all_of_a_healthy_cluster_is_seen(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        until_asked(server, "write", 5)
        seen = probing_.finish()
    assert errors(seen, "connections").keys() == errors(seen, "writes").keys() == {""}
    assert errors(seen, "service").keys() == {""}
    assert [sample.value for sample in seen.writes] == list(range(1, len(seen.writes) + 1))
    assert [event.value for event in seen.watch] == [sample.value for sample in seen.writes]
    assert [one.error for one in seen.streams] == [""]
    assert read_back(Api(server.kubeconfig)) == tuple(range(len(seen.writes) + 1))
    assert 0 < seen.writes[-1].ended <= seen.seconds


def test_a_recording_takes_what_was_seen_as_it_is(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        mark = Mark(at=probing_.now(), kind="inject", what="nothing")
        until_asked(server, "write", 3)
        seen = probing_.finish()
    numbers = read_back(Api(server.kubeconfig))
    run_ = Recording(
        drill="d", lab="l", profile="p", run=1, began="now", marks=(mark,), read_back=numbers, **dict(seen)
    )
    limits = dict.fromkeys(("connections.failed", "writes.failed", "service.failed"), 0)
    limits |= dict.fromkeys(("writes.lost", "watch.missed", "watch.repeated", "watch.out_of_order"), 0)
    assert all(figure.holds for figure in figures(run_, limits))


class Passing(threading.Event):
    """An event that nobody sets, and a clock that shows only what was waited for."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.sleep(timeout or 0.0)
        return False


def due(monkeypatch: pytest.MonkeyPatch, per_second: float, delays: dict[int, float]) -> list[float]:
    """When each request of two seconds is made, if the host is late by `delays` at some of them."""
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    idle = Probes(Target(HOST, 9, HOST), [], "1", limit=2.0)
    idle._enough = Passing(clock)
    made = []
    for _ in idle._ticks(per_second):
        made.append(idle.now())
        clock.sleep(delays.get(len(made), 0.0))
    return made


def test_they_ask_as_often_as_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    for per_second, promised in ((probes.CONNECTIONS, 20), (probes.WRITES, 10)):
        assert len(due(monkeypatch, per_second, {})) >= promised * 2
        short_delays = dict.fromkeys(range(0, 40, 4), 0.09)
        assert len(due(monkeypatch, per_second, short_delays)) >= promised * 2


def test_what_a_pause_of_the_host_kept_from_being_asked_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = due(monkeypatch, 20, {10: 1.0})
    assert len(made) == pytest.approx(20, abs=3)
    after = [moment for moment in made if moment > made[9]]
    assert after[0] - made[9] == pytest.approx(1.0)
    assert sum(moment < after[0] + 0.04 for moment in after) <= 3


def test_they_end_by_themselves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1.5
    with run(limit=limit) as probing_:
        monkeypatch.setattr(probes, "SETTLE", 0.0)
        monkeypatch.setattr(probes, "CONNECTION_TIMEOUT", 0.0)
        wait_until(
            lambda: " and ".join(at_work()) or None,
            what="all probes have ended",
            timeout=limit + 5,
            interval=0.05,
        )
        assert probing_.now() >= limit
        seen = probing_.finish()
    begun = [sample.started for sample in (*seen.connections, *seen.writes, *seen.service)]
    assert max(begun) < limit + sum(pause.seconds for pause in seen.pauses) + 0.1


def test_finishing_twice_says_the_same(run: Run) -> None:
    with run() as probing_:
        seen = probing_.finish()
    assert probing_.finish() == seen


def test_what_fails_inside_stops_them_too(run: Run, server: ApiServer) -> None:
    with pytest.raises(KeyError), run():
        raise KeyError


def test_a_slow_connection_does_not_delay_the_next(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "CONNECTION_TIMEOUT", 0.7)
    with run() as probing_:
        server.break_("object", "hang")
        since = probing_.now()
        until_asked(server, "object", 25)
        seen = probing_.finish()
    late = [sample for sample in seen.connections if sample.started > since]
    assert len(late) >= 20
    assert {sample.error for sample in late} == {"timed out"}
    assert all(sample.seconds > 0.6 for sample in late)
    # One after the other, 20 would take 14 s.
    assert late[19].started - late[0].started < 7


@pytest.mark.parametrize(
    ("kind", "probe"), [("object", "connections"), ("page", "service"), ("write", "writes")]
)
@pytest.mark.parametrize(("fault", "error"), [("refuse", "answered 500"), ("drop", "closed")])
def test_what_is_not_answered_200_has_failed(
    run: Run, server: ApiServer, kind: str, probe: str, fault: str, error: str
) -> None:
    with run() as probing_:
        server.break_(kind, fault)  # type: ignore[arg-type]
        until_asked(server, kind, 3)
        server.break_(kind, "")
        until_asked(server, kind, 3)
        seen = probing_.finish()
    assert errors(seen, probe).keys() == {"", error}
    assert getattr(seen, probe)[-1].error == ""
    assert all_seen(seen)


def test_a_write_that_hangs_is_given_up_and_the_next_number_is_written(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TIMEOUT", 0.3)
    with run() as probing_:
        server.break_("write", "hang")
        until_asked(server, "write", 2)
        server.break_("write", "")
        until_asked(server, "write", 3)
        seen = probing_.finish()
    given_up = [sample.value for sample in seen.writes if sample.error]
    # The last of them may have been let go by the server before its time was up.
    assert errors(seen, "writes").keys() - {"closed"} == {"", "timed out"}
    assert [sample.value for sample in seen.writes] == list(range(1, len(seen.writes) + 1))
    # They happened late: they are there, unacknowledged, and nothing is out of order for it.
    assert set(given_up) <= set(read_back(Api(server.kubeconfig)))
    assert all_seen(seen)


def test_a_connection_closed_between_two_writes_costs_none(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        server.break_("write", "close")
        until_asked(server, "write", 4)
        seen = probing_.finish()
    assert errors(seen, "writes").keys() == {""}


def test_a_stream_that_breaks_goes_on_where_it_was(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        for _ in range(2):
            until_asked(server, "write", 2)
            server.cut_streams()
            until_asked(server, "watch", 1)
        seen = probing_.finish()
    assert [one.error for one in seen.streams] == ["closed", "closed", ""]
    assert [event.value for event in seen.watch] == [sample.value for sample in seen.writes]


def test_a_stream_whose_past_is_gone_lists_anew_and_says_so(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        server.break_("watch", "drop")
        server.cut_streams()
        until_asked(server, "write", 3)
        server.forget()
        server.break_("watch", "")
        until_asked(server, "watch", 2)
        until_asked(server, "write", 2)
        seen = probing_.finish()
    ends = [one.error for one in seen.streams]
    assert ends[-2:] == [stream.GONE, ""]
    assert set(ends[:-2]) == {"closed"}
    assert [event.value for event in seen.watch] == [sample.value for sample in seen.writes]
    assert server.asked["read"] == 1


@pytest.mark.parametrize("fault", ["refuse", "hang"])
def test_a_stream_that_can_t_be_opened_is_tried_again(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(stream, "OPENING", 0.2)
    with run() as probing_:
        server.break_("watch", fault)  # type: ignore[arg-type]
        server.cut_streams()
        until_asked(server, "watch", 2)
        until_asked(server, "write", 2)
        server.break_("watch", "")
        seen = probing_.finish()
    expected = {"refuse": "answered 500", "hang": "timed out"}[fault]
    assert {"closed", expected} <= {one.error for one in seen.streams}
    assert seen.streams[-1].error == ""
    assert all_seen(seen)


def test_a_silent_stream_that_owes_an_event_is_given_up(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        server.mute_streams()
        until_asked(server, "watch", 1)
        seen = probing_.finish()
    assert [one.error for one in seen.streams] == ["stalled", ""]
    assert [event.value for event in seen.watch] == [sample.value for sample in seen.writes]


def test_a_silent_stream_that_owes_nothing_is_kept(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        server.break_("write", "refuse")
        until_asked(server, "write", 12)  # a second: twice as long as a stream may owe something
        seen = probing_.finish()
    assert seen.writes[-1].ended - max(event.at for event in seen.watch) > 1.5 * stream.STALLED
    assert [one.error for one in seen.streams] == [""]


def test_the_end_waits_for_the_last_event(run: Run, server: ApiServer) -> None:
    with run() as probing_:
        server.mute_streams()
        until_asked(server, "write", 2)
        seen = probing_.finish()
    assert seen.watch[-1].value == seen.writes[-1].value


def test_the_end_does_not_wait_for_an_event_for_ever(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run() as probing_:
        server.break_("watch", "refuse")
        server.cut_streams()
        until_asked(server, "write", 2)
        monkeypatch.setattr(probes, "SETTLE", 0.2)
        seen = probing_.finish()
    assert not all_seen(seen)
    assert seen.streams[-1].error == "answered 500"


def test_a_probe_without_a_good_answer_keeps_the_drill_from_beginning(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SETTLE", 0.3)
    server.break_("page", "refuse")
    began = []
    with pytest.raises(WaitTimedOut, match="no successful response to the Service") as caught, run():
        began.append("a drill")
    assert "verify" in caught.value.hint
    assert began == []


def test_a_probe_that_breaks_is_not_taken_for_a_quiet_one(
    run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run() as probing_:
        monkeypatch.setattr(writer, "write_of", lambda number: 1 / 0)
        until_asked(server, "object", 5)
        with pytest.raises(ZeroDivisionError):
            probing_.finish()


def test_a_host_that_lets_nobody_run_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "BEAT", 0.15)  # to the heartbeat it's the same who made it wait
    with run() as probing_:
        wait_until(
            lambda: None if probing_.now() > 0.5 else "not yet", what="three beats", timeout=5, interval=0.05
        )
        seen = probing_.finish()
    assert len(seen.pauses) >= 2
    assert all(pause.seconds >= 0.15 for pause in seen.pauses)
    assert seen.pauses[1].at == pytest.approx(seen.pauses[0].at + seen.pauses[0].seconds)


def test_nothing_is_sent_while_the_lab_s_network_is_down(
    run: Run, remote: FakeRemote, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "route_problem", lambda: "the network is not up")
    with pytest.raises(LabStateError, match="the network is not up"), run():
        pass
    assert (server.asked, server.version) == (Counter(), 100)


@pytest.mark.parametrize("limit", [0.0, -1.0, 901.0])
def test_a_run_without_a_bound_is_refused(run: Run, server: ApiServer, limit: float) -> None:
    with pytest.raises(ConfigError), run(limit=limit):
        pass
    assert server.version == 100


def test_packets_never_go_through_a_gateway() -> None:
    # UDP, whose connect(2) asks for a route and sends nothing. A host without any says the same.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fenced:
        dial.fence(fenced, "0.0.0.0")  # noqa: S104  binds to no interface in particular, and listens to none
        with pytest.raises(OSError, match="unreachable") as caught:
            fenced.connect(("198.51.100.1", 9))
    assert dial.word(caught.value) == "unreachable"


def test_without_the_lab_s_own_address_nothing_is_sent() -> None:
    with pytest.raises(OSError, match="Cannot assign") as caught:
        dial.dial(Target(HOST, 9, "198.51.100.1"), time.monotonic() + 1)
    assert dial.word(caught.value) == "no lab network"


def test_every_connection_of_a_probe_is_fenced(server: ApiServer) -> None:
    context = Api(server.kubeconfig).context
    for door in (Target(HOST, server.port, HOST, context), Target(HOST, server.node_port, "127.0.0.9")):
        with dial.dial(door, time.monotonic() + 2) as opened:
            assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE)
            assert opened.getsockname()[0] == door.source


def test_a_connection_that_the_server_ends_is_not_opened_again_without_a_fence(server: ApiServer) -> None:
    server.break_("page", "close")
    connection = dial.opened(Target(HOST, server.node_port, HOST), time.monotonic() + 2)
    assert dial.exchange(connection, time.monotonic() + 2, "GET", "/node")[0] == 200
    wait_until(
        lambda: None if writer._was_closed(connection) else "open", what="its end", timeout=2, interval=0.01
    )
    connection.close()
    with pytest.raises(http.client.NotConnected):
        connection.request("GET", "/node")


def test_another_ca_is_not_trusted(server: ApiServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with ApiServer(other).running() as stranger:
        trusting_the_other = Target(HOST, server.port, HOST, Api(stranger.kubeconfig).context)
        why = probes._why_not_answered(trusting_the_other, NAMESPACE_PATH, 2.0)
    assert why == "TLS: CERTIFICATE_VERIFY_FAILED"
    assert server.asked["object"] == 0


def test_a_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    with ApiServer(tmp_path, named="127.0.0.5").running() as other:
        door = Target(HOST, other.port, HOST, Api(other.kubeconfig).context)
        assert probes._why_not_answered(door, NAMESPACE_PATH, 2.0) == "TLS: CERTIFICATE_VERIFY_FAILED"
    assert other.asked["object"] == 0


def test_a_closed_port_refuses() -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    assert probes._why_not_answered(Target(HOST, port, HOST), "/node", 2.0) == "refused"


def test_one_deadline_holds_for_the_whole_request() -> None:
    with socket.create_server((HOST, 0)) as silent:
        began = time.monotonic()
        door = Target(HOST, silent.getsockname()[1], HOST)
        assert probes._why_not_answered(door, "/node", 0.2) == "timed out"
        assert 0.2 <= time.monotonic() - began < 1
    with pytest.raises(TimeoutError):
        dial.dial(door, time.monotonic() - 1)
