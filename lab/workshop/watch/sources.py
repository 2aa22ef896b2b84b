"""Asks a lab again and again, each source on its own, so that one that is silent does not hold up the others.

Load balancers and etcd members answer twice a second over one ssh connection each, which stays open: a login
costs more than a question. The API is asked for its nodes and its leases once a second each, on new
connections, as users ask it. For a lab with one load balancer and three members that is eight answers of
machines and two requests to the API a second: a fifth of a CPU at most. A change is seen within half a second,
or within one if only the API knows it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from lab.errors import CommandTimedOut, LabError
from lab.health.cluster import Api, read_backends
from lab.health.facts.api import ask_leases
from lab.health.facts.machine import Machine, read_sections
from lab.health.reading import read
from lab.model import Lab, Node
from lab.remote import SILENT_SSH
from lab.session import Session
from lab.system.redact import redacted
from lab.unknown import CouldNotAsk, Unknown
from lab.workshop.watch.board import LEASES, NODES, Answer, Balancing, Board, Leases, Nodes

PAUSE = 0.5
"""Seconds between two answers of a machine."""

API_PAUSE, API_TIMEOUT = 1.0, 2.0
"""Seconds between two questions to the API, and for each answer."""

SILENCE = 4.0
"""Seconds without a line after which a machine's connection is given up, and a new one is tried."""

AGAIN = 1.0
"""Seconds before a new connection to a machine that does not answer."""

ROUNDS = 1200
"""Rounds after which the script on a machine ends by itself, and is started again: ten minutes."""

COMMAND = "/opt/ha-lab/follow.sh"
END = "== end 0"
"""The line of follow.sh that ends a round."""

NO_CLOCK = Unknown("its clock was not asked")


@contextmanager
def asking(session: Session, board: Board, broken: Callable[[BaseException], None]) -> Iterator[None]:
    """Ask every source of the lab while inside, and put what it answers on the board.

    `broken` gets what a source raises that is no LabError, as it is a bug, and that source's thread has ended.
    """
    over = threading.Event()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            broken(error)

    works = [*_machines(session, board, over), *_api(session, board, over)]
    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        # A thread that still waits for an answer ends with this process.
        end = time.monotonic() + API_TIMEOUT
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def _machines(session: Session, board: Board, over: threading.Event) -> Iterator[Callable[[], None]]:
    lab = session.lab
    for node in lab.balancers:
        names = ["backends", *(["address"] if lab.pair else [])]
        yield partial(_follow, session, node, names, partial(_balancing, lab), board, over)
    for node in lab.etcd_members:
        yield partial(_follow, session, node, ["etcd-status"], _member, board, over)


def _follow(
    session: Session,
    node: Node,
    names: Sequence[str],
    reader: Callable[[Machine], Answer],
    board: Board,
    over: threading.Event,
) -> None:
    """Have a machine answer until the watch is over, over a new connection whenever one has ended."""
    lines: list[str] = []

    def heard(line: str) -> None:
        if line != END:
            lines.append(line)
            return
        machine = Machine(node.name, read_sections("\n".join(lines)), NO_CLOCK)
        lines.clear()
        try:
            board.answered(node.name, reader(machine))
        except LabError as error:
            board.failed(node.name, error.message)

    command = ["sudo", COMMAND, str(PAUSE * session.lab.patience), str(ROUNDS), *names]
    while not over.is_set():
        lines.clear()
        problem = _why_ended(session, node, command, heard, over)
        if problem and not over.is_set():
            board.failed(node.name, problem)
            over.wait(AGAIN * session.lab.patience)


def _why_ended(
    session: Session,
    node: Node,
    command: Sequence[str],
    heard: Callable[[str], None],
    over: threading.Event,
) -> str:
    """Follow a machine over one connection; return why that has ended, "" if it was at its end."""
    try:
        problem = session.remote.route_problem()
        if problem:
            return problem
        ended = session.remote.follow(node, command, heard, silence=SILENCE, over=over.is_set)
    except CommandTimedOut:
        return f"{node.name} does not answer"
    except LabError as error:
        return error.message
    if ended.ok:
        return ""
    said = redacted((ended.stderr.strip().splitlines() or [SILENT_SSH])[-1])
    if "command not found" in said:
        return f"{node.name} has another checkout's scripts: `./inv up` gives it this one's"
    return f"{node.name}: {said}"


def _balancing(lab: Lab, machine: Machine) -> Balancing:
    holds = not lab.pair or machine.text("address").strip() == "here"
    try:
        servers = read(f"{machine.name}'s servers", machine.text("backends"), read_backends)
    except CouldNotAsk as error:
        return Balancing(holds, (), error.message)
    return Balancing(holds, servers)


def _member(machine: Machine) -> Answer:
    return machine.etcd_status


def _api(session: Session, board: Board, over: threading.Event) -> Iterator[Callable[[], None]]:
    questions: dict[str, Callable[[Api], Answer]] = {
        NODES: lambda api: Nodes(api.nodes()),
        LEASES: lambda api: Leases(ask_leases(api), datetime.now(UTC)),
    }
    for source, question in questions.items():
        yield partial(_ask, session, source, question, board, over)


def _ask(
    session: Session, source: str, question: Callable[[Api], Answer], board: Board, over: threading.Event
) -> None:
    """Ask the API until the watch is over. The kubeconfig is read again after a failure, as it may be new."""
    patience = session.lab.patience
    api: Api | None = None
    while not over.is_set():
        try:
            # Each time: while the lab's network is gone, packets would leave this host by its default route.
            session.remote.require_route()
            api = api or Api(session.workspace.kubeconfig, API_TIMEOUT * patience)
            board.answered(source, question(api))
        except LabError as error:
            api = None
            board.failed(source, error.message)
        over.wait(API_PAUSE * patience)
