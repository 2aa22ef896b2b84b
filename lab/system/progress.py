"""Prints the progress of a run: steps as they start and end, with machine and seconds.

On a terminal the running steps are a live list; elsewhere each start and end is a plain line. Every step has a
numbered log file, and every finished step is kept as a `StepTime` for the report. A step that takes long is
shown with what it waits for: the last line of its log, if that begins with "waiting for".
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

Outcome = Literal["done", "unchanged", "failed"]

WAITING = re.compile(r"^\[[0-9:]{8}\] (waiting for .*)")
"""How scripts (`wait_for` in provision/lib.sh) and `lab.system.wait` log what they wait for."""

FIRST_NOTICE, NEXT_NOTICE = 5.0, 20.0
"""Seconds until a waiting step is shown again, and between two such lines."""

LOOK_AGAIN = 0.5
"""Seconds between two checks for steps that take long."""


@dataclass(frozen=True)
class StepTime:
    """One finished step: `started` counts seconds from the start of the run."""

    name: str
    title: str
    machine: str
    started: float
    seconds: float
    outcome: Outcome


class Step:
    """A running step: where its output goes, and its outcome."""

    def __init__(self, name: str, title: str, machine: str, log: Path, *, asks: bool = False) -> None:
        """Start the clock. `asks`: it is only a question; its title names what is waited for."""
        self.name, self.title, self.machine, self.log, self.asks = name, title, machine, log, asks
        self.outcome: Outcome = "failed"  # until it ends otherwise
        self.note = ""
        self.began = time.monotonic()
        self.next_notice = self.began + FIRST_NOTICE

    @property
    def waits_for(self) -> str:
        """What it waits for now, from the last line of its log; "" where that is about something else."""
        if self.asks:
            return "no answer yet"
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                last = (file.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        except OSError:
            return ""
        found = WAITING.match(last)
        return found[1] if found else ""

    def unchanged(self) -> None:
        """Record that the step found everything in place and changed nothing."""
        self.outcome = "unchanged"


class Progress:
    """The steps of one run. Safe to use from several threads."""

    def __init__(self, console: Console, logs: Path) -> None:
        """Print on `console`; write numbered log files to `logs`."""
        self.console = console
        self.logs = logs
        self.finished: list[StepTime] = []
        self.remarks: list[str] = []
        self._running: list[Step] = []
        self._count = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._watcher: threading.Thread | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show a live list of running steps while inside; no effect without a terminal, or inside another."""
        if not (self.console.is_terminal and self.console.is_interactive) or self._live is not None:
            yield
            return
        with Live(
            get_renderable=self._render, console=self.console, refresh_per_second=8, transient=True
        ) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    @contextmanager
    def step(self, name: str, title: str, machine: str = "") -> Iterator[Step]:
        """Announce a step, give it a log file, and show its seconds when it ends or fails."""
        with self._lock:
            self._count += 1
            label = f"{self._count:02d}-{machine + '-' if machine else ''}{name}.log"
            step = Step(name, title, machine, self.logs / label)
            self._watch_over(step)
        if self._live is None:
            self._print(step, "…", "")
        try:
            yield step
            if step.outcome == "failed":
                step.outcome = "done"
        except BaseException:
            step.outcome = "failed"
            raise
        finally:
            seconds = time.monotonic() - step.began
            with self._lock:
                self._running.remove(step)
                started = step.began - self._began
                self.finished.append(StepTime(name, title, machine, started, seconds, step.outcome))
            mark = {"done": "✓", "unchanged": "=", "failed": "✗"}[step.outcome]
            self._print(step, mark, f"{seconds:.1f} s")

    @contextmanager
    def asking(self, what: str, *, usual: float = 0) -> Iterator[None]:
        """Show that `what` is waited for, if that takes long: "an answer of each machine". No step, no log.

        Shows nothing during the first `usual` seconds.
        """
        step = Step("", f"waiting for {what}", "", self.logs, asks=True)
        step.next_notice = step.began + max(FIRST_NOTICE, usual)
        with self._lock:
            self._watch_over(step)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(step)

    def _watch_over(self, step: Step) -> None:
        self._running.append(step)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def say(self, message: RenderableType) -> None:
        """Print a line, or anything that rich can render."""
        self.console.print(message, soft_wrap=True)

    def remark(self, line: str) -> None:
        """Print a line that the end of the run repeats, since much may be printed in between."""
        self.remarks.append(line)
        self.say(line)

    def _watch(self) -> None:
        """Until no step runs, show steps that take long and what they wait for, so that no wait is silent."""
        while True:
            time.sleep(LOOK_AGAIN)
            now = time.monotonic()
            with self._lock:
                if not self._running:
                    self._watcher = None
                    return
                due = [step for step in self._running if now >= step.next_notice]
            for step in due:
                waits_for = step.waits_for
                if waits_for or now - step.began >= NEXT_NOTICE:
                    step.next_notice = now + NEXT_NOTICE
                    with self._lock:  # so that no step is shown after it has ended
                        if self._live is None and step in self._running:
                            self._print(
                                step,
                                "…",
                                f"{now - step.began:.0f} s",
                                waits_for or step.note or "still running",
                            )

    def _print(self, step: Step, mark: str, seconds: str, note: str = "") -> None:
        colour = {"✓": "green", "=": "dim", "✗": "bold red"}.get(mark, "dim")
        line = Text(f"{self.seconds:6.1f} s  ")
        line.append(mark, style=colour)
        line.append(f" {step.machine:<4} {step.title}" if step.machine else f" {step.title}")
        if seconds:
            line.append(f"  {seconds}", style="dim")
        if note or (step.note and mark != "…"):
            line.append(f"  {note or step.note}", style="dim")
        self.console.print(line, soft_wrap=True)

    def _render(self) -> RenderableType:
        with self._lock:
            running = list(self._running)
        now = time.monotonic()
        return Group(
            *(
                Spinner(
                    "dots",
                    text=Text(
                        f"{s.machine:<4} {s.title}  {now - s.began:.0f} s  {s.note or s.waits_for}".rstrip()
                    ),
                )
                for s in running
            )
        )
