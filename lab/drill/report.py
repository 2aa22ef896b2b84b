"""Reports drills: a table for the terminal, JSON for programs, an HTML page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.drill import words
from lab.drill.figures import PROBES
from lab.drill.page import page
from lab.drill.recording import Recording, Report
from lab.drill.summary import Drill, Row, Runs, profiles, summarise
from lab.session import Session
from lab.workspace import Workspace

FAILED = {f"{probe}.failed": probe for probe in PROBES}


def begin(session: Session) -> Report:
    """Return an empty report with the present time, and the host's load before anything happens."""
    return Report(
        lab=session.lab.name,
        kubernetes=session.lab.kubernetes.version,
        provider=session.lab.provider,
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        host=_host(),
        results=(),
    )


def keep(report: Report, workspace: Workspace, name: str) -> Path:
    """Write a report into a folder under .lab/drills/, by its time and a name; return the folder."""
    began = datetime.fromisoformat(report.began)
    folder = workspace.root / "drills" / f"{began:%Y%m%d-%H%M%S}-{name}"
    write(report, workspace, folder)
    return folder


def write(report: Report, workspace: Workspace, folder: Path) -> tuple[Path, Path]:
    """Keep a report as report.json and report.html in a folder, and return the two paths."""
    data, text = folder / "report.json", folder / "report.html"
    workspace.write(data, report.model_dump_json(indent=1) + "\n")
    workspace.write(text, page(report))
    return data, text


def read(path: Path) -> Report:
    """Return a saved report. Raises ValueError if the file has none."""
    return Report.model_validate_json(path.read_text(encoding="utf-8"))


def destroyed_with(session: Session) -> str:
    """The reports that `destroy` would remove, as a phrase; "" if there are none."""
    number = len(list((session.workspace.root / "drills").glob("*/report.json")))
    if not number:
        return ""
    return f"and {'a drill report' if number == 1 else f'{number} drill reports'} in .lab/drills"


def shown(report: Report) -> RenderableType:
    """Return all drills as a table of medians over their runs, with a column for each profile, and the verdict.

    figure                                 tuned            reference        limit
    kill-control-plane                     ✓ 5 of 5 passed  ✗ 0 of 5 passed
      New connections: longest gap (s)     ✓ 0.41           ✗ 12.1 (9–13)    ≤ 2
    """
    columns, drills = profiles(report), summarise(report)
    table = Table("figure", box=None, pad_edge=False)
    for name in (*columns, "limit"):
        table.add_column(Text(name))
    for drill in drills:
        _add(table, drill, columns)
    passed = sum(result.passed for result in report.results)
    verdict = f"{report.lab}: {words.headline(passed, len(report.results)).en}."
    style = "bold green" if report.passed else "bold red"
    notes = (*_problems(drills), *_failures(report), *_exemptions(report))
    return Group(table, *notes, "", Text(verdict, style), *_doubts(report))


def _host() -> dict[str, str]:
    """The conditions that figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _doubts(report: Report) -> list[Text]:
    """Reasons to doubt the figures: a host that was overloaded."""
    load, cores = float(report.host.get("load before", 0)), int(report.host.get("cores", 1))
    if load <= 4 * cores:
        return []
    said = f"This host was busy before (load {load:g} on {cores} cores): this may have affected the figures."
    return [Text(said, "yellow")]


def _add(table: Table, drill: Drill, columns: tuple[str, ...]) -> None:
    """Add one drill: a line for its verdict, then a line for every figure that matters."""
    by_profile = {runs.profile: runs for runs in drill.profiles}
    all_runs = [by_profile.get(profile) for profile in columns]
    table.add_section()
    name = drill.title.en if drill.title else drill.name
    table.add_row(Text(name, "bold"), *(_verdict(runs) for runs in all_runs), "")
    for name in drill.names:
        rows = [None if runs is None else runs.row(name) for runs in all_runs]
        if any(row is not None and row.matters for row in rows):
            limit = words.limit([row.limit for row in rows if row is not None])
            table.add_row(Text(f"  {words.figure(name).en}"), *(_cell(row) for row in rows), limit)


def _verdict(runs: Runs | None) -> Text:
    """How many runs passed; empty if the drill was not run with this profile."""
    if runs is None:
        return Text("-")
    every = runs.passed == len(runs.results)
    said = f"{'✓' if every else '✗'} {runs.passed} of {len(runs.results)} passed"
    return Text(said, "bold green" if every else "bold red")


def _cell(row: Row | None) -> Text:
    """A figure's median, with minimum and maximum if its runs differ, and whether it held in all of them."""
    if row is None:
        return Text("-")
    mark = " " if row.limit is None else "✓" if row.holds else "✗"
    if row.median is None:
        return Text(f"{mark} not seen", "" if row.holds else "red")
    said = f"{mark} {words.number(row.median)}"
    if spread := words.spread(row.low, row.high):
        said += f" ({spread})"
    if row.unseen:
        said += f", {words.unseen(row.unseen, row.runs).en}"
    return Text(said, "" if row.holds else "red")


def _failures(report: Report) -> list[Text]:
    """When and why requests failed where more did than the limit allows: a line for each probe and error."""
    return [
        Text(f"{run.drill} ({run.profile}, run {run.run}): {line}", "red")
        for result in report.results
        for run in (result.recording,)
        for figure in result.figures
        if figure.name in FAILED and not figure.holds
        for line in _errors(run, FAILED[figure.name])
    ]


def _errors(recording: Recording, probe: str) -> Iterator[str]:
    """How often requests of a probe failed with each error, when, and the last event before the first."""
    began = recording.started
    if began is None:
        return
    failed: dict[str, list[float]] = {}
    for sample in getattr(recording, probe):
        if sample.error and sample.started >= began:
            failed.setdefault(sample.error, []).append(sample.started)
    for error, times in failed.items():
        event = max((mark for mark in recording.marks if mark.at <= times[0]), key=lambda mark: mark.at)
        when = f"{times[0] - began:.1f} to {times[-1] - began:.1f} s after the start"
        yield f"{words.PROBES[probe].en}: {len(times)} × {error}, {when}, after the event: {event.what}"


def _exemptions(report: Report) -> list[Text]:
    """Why figures have no limit although they usually have one, a line each."""
    return [Text(each.en, "yellow") for result in report.results for each in result.exemptions]


def _problems(drills: tuple[Drill, ...]) -> list[Text]:
    """Why runs could not be completed, a line each."""
    return [
        Text(f"{drill.name} ({runs.profile}, run {run}): {problem}", "red")
        for drill in drills
        for runs in drill.profiles
        for run, problem in runs.problems
    ]
