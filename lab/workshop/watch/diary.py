"""What has changed between two views, in words, and the newest of it. Pure but for what it keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.texts import Bilingual
from lab.workshop.watch import words
from lab.workshop.watch.view import LEADERS, Known, is_up, lease_holder

KEPT = 12
"""How many of the newest changes the page shows."""


@dataclass
class Diary:
    """The newest changes, the newest first, each with the time at which it was seen."""

    _before: Known | None = None
    _entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def entries(self, known: Known, time: str) -> list[dict[str, Any]]:
        """Add what has changed since the last call, as seen at `time`; return the newest changes."""
        if self._before is not None:
            for said in changes(self._before, known):
                self._entries.appendleft({"time": time, "what": said._asdict()})
        self._before = known
        return list(self._entries)


def changes(before: Known, after: Known) -> Iterator[Bilingual]:
    """What differs in what is known about a lab. A first answer, and the age of one, are no change."""
    for source in sorted(set(before.heard) | set(after.heard)):
        was, is_now = before.is_fresh(source), after.is_fresh(source)
        had = source in before.heard and before.heard[source].at is not None
        if was and not is_now:
            yield words.change("silent", name=words.SOURCES.get(source, source))
        elif had and is_now and not was:
            yield words.change("answers", name=words.SOURCES.get(source, source))
    # While more of them are heard for the first time, nothing has moved.
    if after.lab.pair and _same(before.balancers, after.balancers) and before.holders != after.holders:
        yield words.holders(after.holders)
    if _same(before.members, after.members) and before.leader != after.leader:
        term = max((status.term for status in after.fresh_members.values()), default=0)
        yield (
            words.change("leader", name=after.leader, term=term) if after.leader else words.change("no_leader")
        )
    yield from _servers(before, after)
    for name, node in after.nodes.items():
        if name in before.nodes and before.nodes[name].ready != node.ready:
            yield words.change("ready" if node.ready else "not_ready", name=name)
    yield from _leases(before, after)


def _same(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Whether the same sources had answered, and any had."""
    return bool(before) and before.keys() == after.keys()


def _servers(before: Known, after: Known) -> Iterator[Bilingual]:
    for balancer, now in after.balancers.items():
        if balancer not in before.balancers:
            continue
        if bool(before.balancers[balancer].problem) != bool(now.problem):
            yield words.change("haproxy_gone" if now.problem else "haproxy_back", name=balancer)
        was_up = {server.name: is_up(server) for server in before.balancers[balancer].servers}
        for server in now.servers:
            if was_up.get(server.name, is_up(server)) != is_up(server):
                kind = "server_up" if is_up(server) else "server_down"
                yield words.change(kind, balancer=balancer, server=server.name)


def _leases(before: Known, after: Known) -> Iterator[Bilingual]:
    if not (before.leases and after.leases):
        return
    held = {lease.name: lease_holder(lease) for lease in before.leases.leases}
    for lease in after.leases.leases:
        holder = lease_holder(lease)
        if lease.name in LEADERS and holder and held.get(lease.name, holder) != holder:
            yield words.change("lease", lease=lease.name, name=holder)
