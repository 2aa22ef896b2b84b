"""Carries the suite out on a lab: images in, tests, what is left out again, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from lab.conformance import delivery, leftovers, results
from lab.conformance.output import LONG, Ending, Output
from lab.conformance.results import Outcome
from lab.conformance.suite import Suite
from lab.conformance.tests import ENDED_BEFORE, Request, Selection
from lab.errors import LabError, LabStateError
from lab.health import status
from lab.health.cluster import Api
from lab.model import Lab, Node
from lab.session import Session, require_up
from lab.system import process, proxies
from lab.system.progress import Step

WORKERS = 2
"""How many workers must take pods: tests compare two machines (kubernetes/kubernetes issue 102712)."""

MOST_PROCESSES = 8
LONGEST = 12 * 3600.0
"""Seconds for a run: ginkgo's own limit is an hour, and all tests take longer on a small host."""

INTERVAL = 0.5
MARKS: dict[Ending, str] = {"passed": "✓", "failed": "✗", "skipped": "-"}
UNTAKEN = ("NoSchedule", "NoExecute")

LEFT_HINT = "`./inv verify` shows whether it matters; the next `./inv conformance` removes what it can"


def require_fit(session: Session) -> tuple[Node, ...]:
    """Return the machines that take pods. Raises LabStateError where the lab is no lab to judge."""
    require_up(session)
    with session.progress.asking("answers of the machines and of the API"):
        found = status.look(session)
    if found.health == "down":
        raise _not_healthy(found)
    # Before what else is wrong: a lab with cordoned workers is degraded for that.
    nodes = require_workers(session.lab.nodes, _api(session).get("/api/v1/nodes")["items"])
    if found.health != "healthy":
        raise _not_healthy(found)
    return nodes


def require_workers(nodes: Sequence[Node], items: Sequence[dict[str, Any]]) -> tuple[Node, ...]:
    """Return the machines whose nodes take pods. Raises LabStateError where they are too few."""
    why_not = {item["metadata"]["name"]: _takes_no_pods(item) for item in items}
    found = tuple(node for node in nodes if node.name in why_not and why_not[node.name] is None)
    if len(found) < WORKERS:
        others = [f"{name}: {why}" for name, why in sorted(why_not.items()) if why]
        raise LabStateError(
            f"the suite needs {WORKERS} workers that take pods, and this lab has {len(found)} "
            f"({'; '.join(others)})",
            hint=f"set nodes.workers.count in lab.yaml to {WORKERS} or more and run `./inv up`; "
            "`kubectl uncordon` lets pods on a cordoned worker again",
        )
    return found


def carry_out(
    session: Session,
    suite: Suite,
    nodes: Sequence[Node],
    selection: Selection,
    wish: Request,
    junit: Path | None,
) -> Outcome:
    """Run the selected tests and return what came of them; the lab is as before, also after Ctrl-C."""
    folder = session.workspace.root / "conformance" / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    began = time.monotonic()
    log = folder / "suite.log"
    left: list[str] = []
    title = f"{len(selection.run)} of {selection.total} tests"
    with (
        _clean_lab(session, suite, nodes, left),
        session.progress.step("conformance", title) as step,
    ):
        _ginkgo(session, suite, selection, folder, log, step)
    written = folder / "junit_01.xml"
    passed, failures, not_run = results.judge(
        selection, results.read(written), ENDED_BEFORE, folder / "failures"
    )
    results.keep_logs(failures)
    if junit is not None:
        session.workspace.write(junit.absolute(), written.read_bytes())
    return Outcome(
        session.lab.name,
        session.lab.kubernetes.version,
        wish.title,
        passed,
        failures,
        not_run,
        time.monotonic() - began,
        junit or written,
        log,
        tuple(left),
    )


def words(suite: Suite, selection: Selection, kubeconfig: Path, folder: Path, processes: int) -> list[str]:
    """What is run: ginkgo with the suite, which share the tests among so many processes."""
    return [
        str(suite.folder / "ginkgo"),
        *("run", "-v", "--no-color", f"--procs={processes}", f"--timeout={LONGEST:.0f}s", "--grace-period=20s"),
        *(f"--poll-progress-after={LONG}s", "--poll-progress-interval=15s"),
        f"--focus={selection.focus}",
        str(suite.program),
        "--",
        f"--kubeconfig={kubeconfig}",
        *("--provider=skeleton", f"--kubectl-path={suite.folder / 'kubectl'}"),
        f"--report-dir={folder}",
        "--disable-log-dump=true",
    ]


def environment(folder: Path) -> dict[str, str]:
    """What the suite's programs get besides: no proxy, since all they speak to is the lab."""
    none = {spelling: "" for name in proxies.NAMES for spelling in (name, name.upper())}
    return none | {"KUBECACHEDIR": str(folder / "kubectl-cache")}


def processes(lab: Lab) -> int:
    """How many tests run side by side: most of their time they wait."""
    return lab.at_once(min(MOST_PROCESSES, (os.cpu_count() or 1) + 1))


@contextlib.contextmanager
def _clean_lab(session: Session, suite: Suite, nodes: Sequence[Node], left: list[str]) -> Iterator[None]:
    """The lab with the images of the tests while inside; without anything of the suite's before and after."""
    api = _api(session)
    progress = session.progress
    with progress.step("before", "nothing of an earlier run is in the lab") as step:
        earlier = leftovers.remove(api, step.log)
    if earlier:
        raise LabStateError(
            f"an earlier run has left in the lab what can't be removed: {', '.join(earlier[:5])}",
            hint="look at it with kubectl, and remove its finalizers",
        )
    try:
        with progress.step("deliver", f"import the images of the tests on {len(nodes)} machines") as step:
            delivery.deliver(session.remote, nodes, suite, step.log)
        yield
    finally:
        # Also after Ctrl-C, when no command may start otherwise.
        with process.defer_interrupts():
            with progress.step("after", "remove what the suite has left in the lab") as step:
                try:
                    left += leftovers.remove(api, step.log)
                except LabError as error:
                    left.append(f"what the suite made: {error.message}")
                left += delivery.withdraw(session.remote, nodes, suite)
                step.note = "; ".join(left)
            for each in left:
                progress.say(f"left in the lab: {each}; {LEFT_HINT}")


def _ginkgo(session: Session, suite: Suite, selection: Selection, folder: Path, log: Path, step: Step) -> None:
    """Run the tests to their end, and show each as it ends. Raises LabError where the suite could not begin."""
    argv = words(suite, selection, session.workspace.kubeconfig, folder, processes(session.lab))
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(session, log, len(selection.run), step, over), daemon=True)
    watcher.start()
    try:
        result = process.run(
            argv, cwd=folder, env=environment(folder), log=log, accept=None, timeout=LONGEST + 600
        )
    finally:
        over.set()
        watcher.join()
    if not (folder / "junit_01.xml").exists():
        last = [
            line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ][-8:]
        tail = "\n".join(f"    {line}" for line in last)
        raise LabError(
            f"the suite ended with exit code {result.returncode} before it could report\n{tail}",
            hint="`./inv status` shows whether the lab still works; then run it again",
            log=log,
        )


def _watch(session: Session, log: Path, total: int, step: Step, over: threading.Event) -> None:
    """Read the suite's output as it comes until `over`, and once after; show which tests run and have ended."""
    output, place = Output(), 0
    said: set[str] = set()
    last = False
    while not last:
        last = over.wait(INTERVAL)
        try:
            with log.open("rb") as file:
                file.seek(place)
                new = file.read()
        except FileNotFoundError:
            continue
        # A letter of several bytes may be cut where the file ends for now: it is read the next time.
        whole = new if last else new[: new.rfind(b"\n") + 1]
        place += len(whole)
        for ended in output.read(whole.decode(errors="replace")):
            count = f"{len(output.ended):4} of {total}"
            session.progress.say(Text(f"{count}  {MARKS[ended.ending]} {ended.name}  {ended.seconds:.1f} s"))
        for name, since in output.running.items():
            if name not in said:
                said.add(name)
                session.progress.say(Text(f"               … {name}  runs for {since}", "dim"))
        step.note = f"{len(output.ended)} of {total} ended, {output.count('failed')} failed"
        if output.running:
            step.note += "; now " + ", ".join(output.running)


def _not_healthy(found: status.Status) -> LabStateError:
    why = found.problem or "; ".join([*(each.sentence for each in found.causes), *found.problems])
    return LabStateError(
        f"the lab is {found.health}, and tests would fail for that: {why}",
        hint="`./inv status` shows all of it; `./inv up` repairs what it can",
    )


def _takes_no_pods(item: dict[str, Any]) -> str | None:
    """Why a node takes no pods; None where it does, as the suite itself decides (test/e2e/framework/node)."""
    if item["spec"].get("unschedulable"):
        return "cordoned"
    taints = [taint["key"] for taint in item["spec"].get("taints", []) if taint["effect"] in UNTAKEN]
    if taints:
        return f"tainted {taints[0]}"
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in item["status"]["conditions"])
    return None if ready else "not Ready"


def _api(session: Session) -> Api:
    return Api(session.workspace.kubeconfig, timeout=20.0 * session.lab.patience)
