"""The end of a run: the closing table on the terminal, `.lab/report.json` for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.model import EMULATION_PATIENCE, Lab
from lab.plans import up, upgrade
from lab.system.progress import Progress
from lab.verbs import durations
from lab.workspace import Workspace, kubeconfig

EMULATED = (
    "Machines are emulated: KVM does not work here, or lab.yaml says so. Each step takes many times as long,\n"
    f"so all timeouts are {EMULATION_PATIENCE} times as long. Two machines take about 12 minutes on two CPUs\n"
    "that do nothing else, with `network: {policy: none}` in lab.yaml, three 20 to 25."
)
"""What `up` prints before it starts to create emulated machines."""


def write(lab: Lab, workspace: Workspace, progress: Progress, *, changed: bool) -> None:
    """Save the run: total seconds and those of each step, and the machines."""
    report = {
        "lab": lab.name,
        "kubernetes": lab.kubernetes.version,
        "provider": lab.provider,
        "emulated": lab.emulated,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed": changed,
        "seconds": round(progress.seconds, 1),
        "nodes": [node.model_dump(mode="json") for node in lab.nodes],
        "steps": [asdict(step) for step in progress.finished],
        "remarks": progress.remarks,
    }
    workspace.write(workspace.report, json.dumps(report, indent=2) + "\n")
    durations.keep(workspace, progress.finished)


def closing(lab: Lab, workspace: Workspace, progress: Progress, *, changed: bool) -> RenderableType:
    """Return what `up` prints at its end: machines, the API's URL, the slowest steps, the next command."""
    said = "the lab is up" if changed else "the lab was up already; nothing was changed"
    return Group(
        "",
        _machines(lab),
        "",
        Text(f"API         {lab.api.url} (Kubernetes {lab.kubernetes.version})"),
        Text(f"kubeconfig  {workspace.kubeconfig}"),
        Text(f"took        {progress.seconds:.0f} s{_by_step(progress)}"),
        *map(Text, progress.remarks),
        "",
        Text(f"{lab.name}: {said}.", style="bold green"),
        Text(f"next: {kubeconfig.export(workspace)}; ./inv verify"),
    )


def stopped(
    lab: Lab, workspace: Workspace, progress: Progress, until: str, done: tuple[str, ...]
) -> RenderableType:
    """Return what `up --until` prints at its end: machines, what is done and left, the next command."""
    if until in upgrade.STOPS:
        return _stopped_in_upgrade(lab, workspace, progress, until)
    kubeconfig = workspace.kubeconfig if workspace.kubeconfig.exists() else "none yet: there is no cluster"
    return Group(
        "",
        _machines(lab),
        "",
        Text(f"done        machines run; {'; '.join(done)}"),
        Text(f"left        {up.left(until)}; `./inv task` shows what of it is done"),
        Text(f"kubeconfig  {kubeconfig}"),
        Text(f"took        {progress.seconds:.0f} s{_by_step(progress)}"),
        *map(Text, progress.remarks),
        "",
        Text(f"{lab.name}: stopped before {until}; ./inv up does the rest.", style="bold green"),
        Text(f"next: ./inv task {up.STOPS[until].task}"),
    )


def _stopped_in_upgrade(lab: Lab, workspace: Workspace, progress: Progress, until: str) -> RenderableType:
    """Return the same of an upgrade: how far it is, and where to read what comes next."""
    return Group(
        "",
        _machines(lab),
        "",
        Text(f"left        {upgrade.STOPS[until].remaining}; docs/upgrade.md has each command"),
        Text(f"kubeconfig  {workspace.kubeconfig}"),
        Text(f"took        {progress.seconds:.0f} s{_by_step(progress)}"),
        "",
        Text(f"{lab.name}: stopped before {until}; ./inv up does the rest.", style="bold green"),
        Text("next: ./inv status"),
    )


def _machines(lab: Lab) -> Table:
    table = Table("machine", "role", "address", box=None, pad_edge=False)
    for node in lab.nodes:
        table.add_row(node.name, node.role.value, str(node.address))
    return table


def _by_step(progress: Progress) -> str:
    """The slowest steps, each with the time of its slowest machine."""
    slowest: dict[str, float] = {}
    for step in progress.finished:
        slowest[step.name] = max(slowest.get(step.name, 0.0), step.seconds)
    top = sorted(slowest.items(), key=lambda item: -item[1])[:6]
    shown = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in top if seconds >= 1)
    return f" ({shown})" if shown else ""
