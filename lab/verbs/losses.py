"""What a recovery undoes: the keys that etcd has now, compared with those of a backup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from lab.workspace.backup import REGISTRY, Inventory

ROUTINE = frozenset(
    ("events", "leases", "masterleases", "peerserverleases", "endpoints", "endpointslices", "ranges")
)
"""Kinds that the cluster itself writes all the time. They are counted, not named."""

NAMED = 5
"""How many objects of a kind a question names."""


@dataclass(frozen=True)
class Object:
    """One object, as its key names it: `deployments`, `default/web`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Losses:
    """How etcd differs from a backup.

    `kept` are as in the backup now. Of those that differ since, a recovery removes the `created`, undoes the
    changes of the `changed`, and brings back the `deleted`.
    """

    kept: tuple[Object, ...]
    created: tuple[Object, ...]
    changed: tuple[Object, ...]
    deleted: tuple[Object, ...]


def losses(backup: Inventory, now: Inventory) -> Losses:
    """Compare two inventories: an object has changed if the revision of its last change differs."""

    def objects(keys: Iterable[str]) -> tuple[Object, ...]:
        return tuple(map(of_key, sorted(keys)))

    both = backup.keys() & now.keys()
    return Losses(
        objects(key for key in both if backup[key] == now[key]),
        objects(now.keys() - backup.keys()),
        objects(key for key in both if backup[key] != now[key]),
        objects(backup.keys() - now.keys()),
    )


def of_key(key: str) -> Object:
    """The object that the API server stores under a key.

    `/registry/KIND/…`, `/registry/GROUP/KIND/…` for groups with a dot in their names, and
    `/registry/services/specs/…` (k8s.io/apiserver, registry/generic).
    """
    parts = key.removeprefix(REGISTRY).split("/")
    if len(parts) > 2 and "." in parts[0]:
        parts = parts[1:]
    if parts[:2] == ["services", "endpoints"]:
        parts = parts[1:]
    elif parts[:2] == ["services", "specs"]:
        parts = ["services", *parts[2:]]
    kind = "nodes" if parts[0] == "minions" else parts[0]
    return Object(kind, "/".join(parts[1:]))


def in_words(found: Losses) -> list[str]:
    """A sentence each about what will be lost, undone and restored; none if nothing differs."""
    sentences = (
        ("Created since the backup, so lost", found.created),
        ("Changed since, so undone", found.changed),
        ("Deleted since, so restored", found.deleted),
    )
    return [f"{begin}: {_named(objects)}." for begin, objects in sentences if objects]


def table(found: Losses) -> Table:
    """A row for each kind: how many objects are as in the backup, and how many of what came since are gone."""
    shown = Table(
        "kind", "as in the backup", "changed since: undone", "created since: gone", "deleted since: restored"
    )
    shown.box, shown.pad_edge = None, False
    parts = (found.kept, found.changed, found.created, found.deleted)
    counts = [Counter(each.kind for each in part) for part in parts]
    for kind in sorted({kind for count in counts for kind in count}):
        kept, changed, created, deleted = (count[kind] for count in counts)
        shown.add_row(
            kind, str(kept + changed + deleted), *(str(each or "·") for each in (changed, created, deleted))
        )
    return shown


def _named(objects: Sequence[Object]) -> str:
    kinds: dict[str, list[str]] = {}
    for each in objects:
        kinds.setdefault(each.kind, []).append(each.name)
    phrases = [
        f"{len(names)} {kind} ({_few(names)})"
        for kind, names in kinds.items()
        if kind not in ROUTINE and any(names)
    ]
    routine = sum(len(names) for kind, names in kinds.items() if kind in ROUTINE or not any(names))
    return ", ".join([*phrases, *([f"{routine} of the cluster's own records"] if routine else [])])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
