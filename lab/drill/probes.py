"""Sends the requests of typical users to a cluster, many times a second, and records every response.

All probes run on the host, in threads, for a limited time, and over sockets whose packets can't leave the lab
(`lab.drill.dial`). New connections and the Service are an open loop: each request is sent at its scheduled
time, whether or not earlier ones were answered. Writes are a closed loop, one after the other.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from lab.drill.dial import Target, fetch, word
from lab.drill.recording import Event, Pause, Sample, Stream
from lab.drill.stream import Watch
from lab.drill.workload import NAMESPACE_PATH, PAGE, start_counting
from lab.drill.writer import Writer
from lab.errors import ConfigError, WaitTimedOut
from lab.health.cluster import Api
from lab.model import Frozen, Node
from lab.remote import Remote
from lab.system.wait import wait_until

CONNECTIONS = 22.0
WRITES = 12.0
SERVICE = 10.0
"""Requests per second: a little above 20 and 10, to reach these even if the host is sometimes late."""

CONNECTION_TIMEOUT = 10.0
SERVICE_TIMEOUT = 5.0

BEAT = 0.02
PAUSE = 0.1
"""Seconds between two heartbeats, and the delay after which one counts as a pause of this host."""

LONGEST = 900.0
"""Maximum seconds of probing: about 11,000 writes, whose keys are far below an object's limit of 1 MiB."""

SETTLE = 10.0
"""Seconds for each probe's first successful response, and for the watch to receive the last write."""

HINT = "`./inv verify` shows what is wrong with the cluster"


class Seen(Frozen):
    """The probes' part of a Recording: `Recording(…, **dict(seen))`. `seconds`: how long they ran."""

    seconds: float
    connections: tuple[Sample, ...]
    writes: tuple[Sample, ...]
    service: tuple[Sample, ...]
    watch: tuple[Event, ...]
    streams: tuple[Stream, ...]
    pauses: tuple[Pause, ...]


@contextmanager
def probing(remote: Remote, api: Api, *, via: Sequence[Node], node_port: int, limit: float) -> Iterator[Probes]:
    """Probe a lab with a deployed workload while inside, for at most `limit` seconds.

    `via`: the nodes whose `node_port` is used for the Service, in turn. Every probe has had a successful
    response before the block starts. Raises LabStateError if the lab's network is down or the API rejects a
    request, WaitTimedOut if a probe has no successful response, ConfigError if `limit` is out of range.
    """
    if not 0 < limit <= LONGEST:
        raise ConfigError(
            [f"probes can't run for {limit:g} s"], hint=f"choose more than 0 and at most {LONGEST:g} seconds"
        )
    remote.require_route()
    lab = remote.lab
    source = str(lab.network.gateway)
    balancer = Target(str(lab.api.address), lab.api.port, source, api.context)
    targets = [Target(str(node.address), node_port, source) for node in via]
    probes = Probes(balancer, targets, start_counting(api), limit)
    probes.start()
    try:
        wait_until(
            probes.why_not_settled,
            what="every probe to have a successful response",
            timeout=SETTLE,
            interval=0.05,
            hint=HINT,
        )
        yield probes
    finally:
        probes.stop()


class Probes:
    """The probes of one run. Their clock starts with them; `finish` returns what they observed."""

    def __init__(self, balancer: Target, service: Sequence[Target], since: str, limit: float) -> None:
        """Send nothing yet. `since`: the resourceVersion that the watch starts from."""
        self.limit = limit
        self._began = time.monotonic()
        self._enough = threading.Event()
        self._over = threading.Event()
        self._ended = 0.0
        self._broken: list[BaseException] = []
        self._balancer = balancer
        self._targets = tuple(service)
        self._connections: list[Sample] = []
        self._service: list[Sample] = []
        self._pauses: list[Pause] = []
        self._writer = Writer(balancer, self.now)
        self._watch = Watch(balancer, since, self.now, self._writer.overdue)
        self._askers = [self._thread(work) for work in (self._connect, self._write, self._ask_service)]
        self._listeners = [self._thread(work) for work in (self._follow, self._beat)]

    def now(self) -> float:
        """Seconds since the probes started: the clock of all their records."""
        return time.monotonic() - self._began

    def start(self) -> None:
        """Start all probes."""
        for thread in (*self._listeners, *self._askers):
            thread.start()

    def why_not_settled(self) -> str | None:
        """The probes without a successful response yet; None if all have one (the Service: every node)."""
        last = self._service[-len(self._targets) :]
        good = {
            "new connections": any(not sample.error for sample in self._connections),
            "writes": self._writer.acknowledged > 0,
            "the watch": self._watch.latest > 0,
            "the Service": len(last) == len(self._targets) and not any(sample.error for sample in last),
        }
        bad = [probe for probe, has in good.items() if not has]
        return f"no successful response to {', '.join(bad)}" if bad else None

    def finish(self) -> Seen:
        """Stop sending, wait for outstanding responses, and return all records. Can be called again.

        The watch continues until it has received the last acknowledged write, for 10 s at most; writes that
        have not arrived by then count as missed. Takes up to a request's timeout longer.
        """
        self._stop_asking()
        with contextlib.suppress(WaitTimedOut):
            wait_until(
                self._why_not_all_seen, what="the watch to receive all writes", timeout=SETTLE, interval=0.02
            )
        self.stop()
        if self._broken:
            raise self._broken[0]
        return Seen(
            seconds=self._ended,
            connections=_in_order(self._connections),
            writes=tuple(self._writer.samples),
            service=_in_order(self._service),
            watch=tuple(self._watch.events),
            streams=tuple(self._watch.streams),
            pauses=tuple(self._pauses),
        )

    def stop(self) -> None:
        """Stop all threads and wait for their end."""
        self._stop_asking()
        self._over.set()
        for thread in self._listeners:
            thread.join()
        self._ended = self._ended or self.now()

    def _stop_asking(self) -> None:
        self._enough.set()
        for thread in self._askers:
            thread.join()

    def _why_not_all_seen(self) -> str | None:
        """Why the watch can't be stopped yet."""
        missing = self._watch.latest < self._writer.acknowledged and self._listeners[0].is_alive()
        return f"it has not received write {self._writer.acknowledged}" if missing else None

    def _connect(self) -> None:
        self._open_loop(CONNECTIONS, CONNECTION_TIMEOUT, [self._balancer], NAMESPACE_PATH, self._connections)

    def _ask_service(self) -> None:
        self._open_loop(SERVICE, SERVICE_TIMEOUT, self._targets, PAGE, self._service)

    def _write(self) -> None:
        try:
            for _ in self._ticks(WRITES):
                self._writer.write()
        finally:
            self._writer.close()

    def _follow(self) -> None:
        self._watch.follow(self._is_over)

    def _beat(self) -> None:
        """Record when this host ran no process: a thread that only sleeps should wake up in time."""
        before = self.now()
        while not self._is_over():
            time.sleep(BEAT)
            now = self.now()
            if now - before > PAUSE:
                self._pauses.append(Pause(at=before, seconds=now - before))
            before = now

    def _is_over(self) -> bool:
        """Whether the listeners should end; they also end at the time limit."""
        return self._over.is_set() or self.now() > self.limit + SETTLE + CONNECTION_TIMEOUT

    def _open_loop(
        self, per_second: float, timeout: float, targets: Sequence[Target], path: str, samples: list[Sample]
    ) -> None:
        """GET from each target in turn, each in its own thread; end when the last has its response."""

        def ask(target: Target) -> None:
            started = self.now()
            error = _why_not_answered(target, path, timeout)
            samples.append(Sample(started=started, seconds=self.now() - started, error=error or ""))

        # Twice as many threads as requests can be in flight, so that no request waits for a thread.
        with ThreadPoolExecutor(max_workers=int(2 * per_second * timeout)) as pool:
            for target, _ in zip(itertools.cycle(targets), self._ticks(per_second), strict=False):
                pool.submit(self._guarded, partial(ask, target))

    def _ticks(self, per_second: float) -> Iterator[None]:
        """Yield that often until the probes stop.

        A short delay is caught up; after a pause of this host, missed requests are skipped, since a burst of
        them would be an unrealistic load.
        """
        due = self.now()
        while not self._enough.is_set() and self.now() < self.limit:
            yield
            due = max(due + 1 / per_second, self.now() - PAUSE)
            self._enough.wait(max(0.0, due - self.now()))

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(work,), name=work.__name__)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a probe, and keep its exception for `finish`: one that died unseen would look like a success."""
        try:
            work()
        except BaseException as error:
            self._broken.append(error)


def _why_not_answered(target: Target, path: str, timeout: float) -> str | None:
    """Why a GET on a new connection was not answered with 200; None if it was."""
    try:
        status = fetch(target, path, timeout)[0]
    except (OSError, http.client.HTTPException) as error:
        return word(error)
    return None if status == http.client.OK else f"answered {status}"


def _in_order(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.started))
