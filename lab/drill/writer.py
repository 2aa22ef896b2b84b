"""Writes to the cluster on a keep-alive connection, one write after another, and records every response."""

from __future__ import annotations

import http.client
import select
import time
from collections.abc import Callable

from lab.drill.dial import Target, exchange, opened, word
from lab.drill.recording import Sample
from lab.drill.workload import COUNTER, write_of

TIMEOUT = 3.0
"""A write's timeout. Real clients have longer ones (leader election 5 s, a kubelet's lease 10 s, kubectl none),
but a client that waits 10 s on a frozen API server would itself cause a gap of 10 s. Not less, since an etcd
election takes 1 to 2 s, and a write that waits for it is not a failure."""

HEADERS = {"Content-Type": "application/merge-patch+json"}


class Writer:
    """Writes 1, 2, 3, …, each once, whatever the result. `samples` are the responses.

    A write without a response may have happened or not, or happen later: it is not acknowledged, and never
    counts as lost.
    """

    def __init__(self, target: Target, clock: Callable[[], float]) -> None:
        """Write nothing yet."""
        self.samples: list[Sample] = []
        self.acknowledged = 0
        self._target = target
        self._clock = clock
        self._connection: http.client.HTTPConnection | None = None

    def write(self) -> None:
        """Write the next number, on a new connection if the previous one was closed."""
        number = len(self.samples) + 1
        started = self._clock()
        try:
            status = self._send(number)
            error = "" if status == http.client.OK else f"answered {status}"
        except (OSError, http.client.HTTPException) as problem:
            error = word(problem)
            self.close()
        if not error:
            self.acknowledged = number
        seconds = self._clock() - started
        self.samples.append(Sample(started=started, seconds=seconds, error=error, value=number))

    def overdue(self, number: int, seconds: float) -> bool:
        """Whether a write above `number` was acknowledged more than that many seconds ago."""
        latest = self._clock() - seconds
        return any(not sample.error and sample.ended < latest for sample in self.samples[number:])

    def close(self) -> None:
        """Close the connection; the next write opens one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, number: int) -> int:
        deadline = time.monotonic() + TIMEOUT
        if self._connection is not None and _was_closed(self._connection):
            self.close()
        if self._connection is None:
            self._connection = opened(self._target, deadline)
        return exchange(self._connection, deadline, "PATCH", COUNTER, write_of(number), HEADERS)[0]


def _was_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the peer has closed an idle connection.

    Connection pools such as Go's check this before they reuse a connection, so their users don't notice.
    """
    if connection.sock is None:
        return True
    idle = select.poll()
    idle.register(connection.sock, select.POLLIN)
    return bool(idle.poll(0))
