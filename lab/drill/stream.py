"""Watches the ConfigMap like an informer: a list, then a stream, resumed after a break.

client-go waits 0.8 s to 30 s before it reconnects, and detects a dead connection by HTTP/2 pings after 45 s.
This watch does both within seconds, so that figures show the cluster's times, not the client's.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator

from lab.drill.dial import Target, dial, fetch, left, word
from lab.drill.recording import Event, Stream
from lab.drill.workload import COUNTER, numbers

STALLED = 2.0
"""Seconds after which a stream without a due event has stalled; longer than an etcd election."""

OPENING = 3.0
"""Seconds for a new stream's connection and response header."""

PAUSE = 0.1
"""Seconds between a broken stream and the next one."""

LOOK = 0.25
"""Seconds between two checks of a silent stream."""

GONE = "410 Gone, listed again"
"""The API server no longer has the events since that version, for example because it has just started."""

ENDED = "the stream ended"


class Watch:
    """One watch over many streams. `events` and `streams` are its records, `latest` the highest number."""

    def __init__(
        self,
        target: Target,
        since: str,
        clock: Callable[[], float],
        overdue: Callable[[int, float], bool],
    ) -> None:
        """Watch from resourceVersion `since`.

        `overdue(number, seconds)`: was a write above `number` acknowledged more than that many seconds ago?
        While no write is acknowledged, for example without quorum, silence is expected, so a stream has stalled
        only if an event is due.
        """
        self.events: list[Event] = []
        self.streams: list[Stream] = []
        self.latest = 0
        self._target = target
        self._version = since
        self._clock = clock
        self._overdue = overdue
        self._seen = {0}
        self._heard = 0.0

    def follow(self, over: Callable[[], bool]) -> None:
        """Stream until `over()`; record each break in `streams`, and resume."""
        while not over():
            opened = self._clock()
            error = self._why_broken(over)
            self.streams.append(Stream(opened=opened, ended=self._clock(), error=error or ""))
            if error:
                time.sleep(PAUSE)

    def _why_broken(self, over: Callable[[], bool]) -> str | None:
        """Stream once; return why it broke, None if it lasted until `over()`."""
        try:
            problem = None if self._version else self._list_problem()
            return problem or self._stream_problem(over)
        except (OSError, http.client.HTTPException) as error:
            return word(error)

    def _list_problem(self) -> str | None:
        """List the complete state, as after 410; writes without an event count as received now.

        Returns why it could not be read.
        """
        status, body = fetch(self._target, COUNTER, OPENING)
        if status != http.client.OK:
            return f"answered {status}"
        counter = json.loads(body)
        for number in numbers(counter):
            if number not in self._seen:
                self._saw(number)
        self._version = counter["metadata"]["resourceVersion"]
        return None

    def _stream_problem(self, over: Callable[[], bool]) -> str | None:
        with dial(self._target, deadline := time.monotonic() + OPENING) as connection:
            connection.sendall(self._request())
            status, rest = _head(connection, deadline)
            if status == http.client.GONE:
                self._version = ""
                return GONE
            if status != http.client.OK:
                return f"answered {status}"
            self._heard = self._clock()
            for line in self._lines(connection, rest, over):
                problem = self._event_problem(line)
                if problem:
                    return problem
            return None if over() else "stalled"

    def _request(self) -> bytes:
        path, _, name = COUNTER.rpartition("/")
        query = f"watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={self._version}"
        # HTTP/1.0, because its body has no chunks to assemble.
        lines = (f"GET {path}?{query} HTTP/1.0", f"Host: {self._target.host}:{self._target.port}", "", "")
        return "\r\n".join(lines).encode()

    def _lines(self, connection: socket.socket, rest: bytes, over: Callable[[], bool]) -> Iterator[bytes]:
        """Every complete line, until `over()` or the stream has stalled. Raises OSError, HTTPException."""
        connection.settimeout(LOOK)
        while True:
            *whole, rest = rest.split(b"\n")
            yield from whole
            try:
                more = connection.recv(1 << 16)
            except TimeoutError:
                more = b""
                if over() or self._stalled():
                    return
            else:
                if not more:
                    raise http.client.RemoteDisconnected(ENDED)
                self._heard = self._clock()
                if over():
                    return
            rest += more

    def _stalled(self) -> bool:
        return self._clock() - self._heard >= STALLED and self._overdue(self.latest, STALLED)

    def _event_problem(self, line: bytes) -> str | None:
        """Record one event; return why the stream can't continue, or None."""
        event = json.loads(line)
        found = event["object"]
        if event["type"] == "ERROR":
            if found.get("code") != http.client.GONE:
                return f"answered {found.get('code')}"
            self._version = ""
            return GONE
        if event["type"] == "DELETED":
            return "the ConfigMap was deleted"
        self._version = found["metadata"]["resourceVersion"]
        self._saw(int(found["data"]["counter"]))
        return None

    def _saw(self, number: int) -> None:
        self.events.append(Event(at=self._clock(), value=number))
        self._seen.add(number)
        self.latest = max(self.latest, number)


def _head(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """The status of a response, and the part of its body that came with the header."""
    read = b""
    while b"\r\n\r\n" not in read:
        connection.settimeout(left(deadline))
        more = connection.recv(1 << 16)
        if not more:
            raise http.client.RemoteDisconnected(ENDED)
        read += more
    head, _, rest = read.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest
