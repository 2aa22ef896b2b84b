"""Snapshots of virtual machines that hold a checkpoint's states: their names, and when they are gone."""

from __future__ import annotations

GONE = "its snapshot went with the machine, which was created again since"


def snapshot_name(checkpoint: str) -> str:
    """The name of a checkpoint's snapshots. It has a prefix, so that those of yours are never touched."""
    return f"ha-lab-{checkpoint}"
