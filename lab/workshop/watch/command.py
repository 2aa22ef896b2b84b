"""The verb `watch`: starts asking, waits for a first answer, then serves the page until Ctrl-C."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lab.drill import onepage
from lab.errors import ConfigError
from lab.health import status
from lab.model import Lab
from lab.model.selectors import etcd_machines
from lab.session import Session
from lab.workshop.watch import sources, words
from lab.workshop.watch.board import Board
from lab.workshop.watch.diary import Diary
from lab.workshop.watch.serve import Server
from lab.workshop.watch.view import Known, view

HERE = Path(__file__).parent

FIRST_ANSWER = 8.0
"""Seconds for the first answer of any source: longer than ssh takes to give up a machine."""

OFTEN, SELDOM = 0.2, 0.5
"""Seconds between two views, at least and at most: ages grow also while nothing new is heard."""


def port_in(said: str) -> int:
    """Return the port that was asked for, 0 for any free one. Raises ConfigError."""
    if not said:
        return 0
    if not (said.isascii() and said.isdigit() and 0 < int(said) < 2**16):
        raise ConfigError([f"--port {said}: not a port from 1 to 65535"], hint="leave it out for any free one")
    return int(said)


def watch(session: Session, port: int, ready: Callable[[str], None]) -> str:
    """Serve the page until Ctrl-C; `ready` gets its URL. Return why not, if no source of the lab answers.

    Raises LabError if the port can't be used.
    """
    reason = status.why_not_up(session)
    if reason:
        return reason
    board = Board(time.monotonic)
    drawn = Drawn(session.lab, board, lambda: time.strftime("%H:%M:%S"))
    with (
        Server(port, page(session.lab), drawn.stream) as server,
        sources.asking(session, board, server.broken),
    ):
        with session.progress.asking("a first answer of a machine or the API"):
            reason = _why_silent(board, FIRST_ANSWER * session.lab.patience)
        if reason:
            return reason
        drawn.start(server.broken)
        ready(server.url)
        try:
            server.serve_forever()
        finally:
            drawn.over.set()
    return ""


def page(lab: Lab) -> str:
    """Return the page as the text of an HTML file; all that moves comes later, by its stream."""
    environment = onepage.environment(HERE)
    environment.globals |= {"H": words.HEADINGS, "both": onepage.both}
    texts = {name: said._asdict() for name, said in words.HEADINGS.items()}
    parts = onepage.parts(HERE, connects=True)
    return environment.get_template("page.html.j2").render(lab=lab, rows=rows(lab), texts=texts, **parts)


def rows(lab: Lab) -> list[tuple[str, tuple[Any, ...]]]:
    """The page's rows of machines: the name of its heading, and the machines."""
    found = [
        ("balancers", lab.balancers),
        ("control_planes", lab.control_planes),
        ("etcd", etcd_machines(lab)),
        ("workers", lab.workers),
    ]
    return [(name, nodes) for name, nodes in found if nodes]


def _why_silent(board: Board, seconds: float) -> str:
    """Wait for a first answer; return why there is none, "" once there is one."""
    end, seen = time.monotonic() + seconds, -1
    while not any(heard.at is not None for heard in board.heard().values()):
        if time.monotonic() >= end:
            problems = [heard.problem for heard in board.heard().values() if heard.problem]
            return f"no machine answers: {problems[0]}" if problems else "no machine answers"
        seen = board.wait(seen, end - time.monotonic())
    return ""


class Drawn:
    """The newest view as JSON, drawn once for all browsers by a thread of its own."""

    def __init__(self, lab: Lab, board: Board, clock: Callable[[], str]) -> None:
        """Draw nothing yet. `clock` is the time of day that the page shows."""
        self.over = threading.Event()
        self._lab, self._board, self._clock = lab, board, clock
        self._diary = Diary()
        self._text, self._number = "", 0
        self._new = threading.Condition()

    def start(self, broken: Callable[[BaseException], None]) -> None:
        """Draw in the background until `over`; `broken` gets an error, which is a bug."""

        def draw() -> None:
            try:
                self._draw_on()
            except BaseException as error:
                broken(error)

        threading.Thread(target=draw, daemon=True).start()

    def draw(self) -> str:
        """Draw a view now, and return its JSON."""
        known = Known(self._lab, self._board.heard(), self._board.clock())
        now = self._clock()
        shown = view(known) | {"time": now, "changes": self._diary.entries(known, now)}
        return json.dumps(shown, ensure_ascii=False)

    def stream(self) -> Iterator[str]:
        """Each new view, for one browser, until `over`."""
        seen = 0
        while not self.over.is_set():
            with self._new:
                self._new.wait_for(partial(self._is_newer, seen), SELDOM)
                text, newer, seen = self._text, self._is_newer(seen), self._number
            if newer:
                yield text

    def _is_newer(self, seen: int) -> bool:
        return self._number != seen

    def _draw_on(self) -> None:
        seen = -1
        while not self.over.wait(OFTEN):
            text = self.draw()
            with self._new:
                self._text, self._number = text, self._number + 1
                self._new.notify_all()
            seen = self._board.wait(seen, SELDOM - OFTEN)
