"""The page's texts in both languages, from words.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab import texts
from lab.texts import Bilingual

_TEXTS = texts.read(
    Path(__file__).with_suffix(".yaml"),
    ("headings", "changes", "sources", "quorum"),
    {
        ("changes", "silent"): ("name",),
        ("changes", "answers"): ("name",),
        ("changes", "holder"): ("names",),
        ("changes", "holders"): ("names",),
        ("changes", "leader"): ("name", "term"),
        ("changes", "haproxy_gone"): ("name",),
        ("changes", "haproxy_back"): ("name",),
        ("changes", "server_up"): ("balancer", "server"),
        ("changes", "server_down"): ("balancer", "server"),
        ("changes", "ready"): ("name",),
        ("changes", "not_ready"): ("name",),
        ("changes", "lease"): ("lease", "name"),
        ("quorum", "spare"): ("answer", "members", "leader", "spare"),
        ("quorum", "last"): ("answer", "members", "leader"),
        ("quorum", "no_leader"): ("answer", "members", "quorum"),
    },
)

HEADINGS = _TEXTS["headings"]
SOURCES = _TEXTS["sources"]
"""What the sources are called that are no machines."""


def change(kind: str, /, **values: object) -> Bilingual:
    """Return the text of a change, with its values."""
    return _TEXTS["changes"][kind].fill(**values)


def holders(names: Sequence[str]) -> Bilingual:
    """Return which load balancers have the API's address, as a change."""
    if not names:
        return change("no_holder")
    return change("holder" if len(names) == 1 else "holders", names=" + ".join(names))


def quorum(answer: int, members: int, leader: str) -> Bilingual:
    """Return how etcd is: how many of its members answer, who leads, how many of them may still be lost."""
    needed = members // 2 + 1
    if not leader:
        return _TEXTS["quorum"]["no_leader"].fill(answer=answer, members=members, quorum=needed)
    spare = answer - needed
    name = "spare" if spare > 0 else "last"
    values = {"spare": spare} if spare > 0 else {}
    return _TEXTS["quorum"][name].fill(answer=answer, members=members, leader=leader, **values)
