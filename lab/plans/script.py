"""A step that runs one script of provision/node/ on its machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import CommandFailed, LabStateError
from lab.model import Lab, Node
from lab.plans import ready
from lab.plans.engine import Job, Step, Stop
from lab.plans.situation import Situation
from lab.system.meaning import printed_by
from lab.workspace.render import credentials

WEBHOOK = 'webhook "'
"""What the API's errors contain when a webhook could not be called, or has denied a request."""

REPAIRS = re.compile(r"^\[[0-9:]+\] repairs: (.+)$", re.MULTILINE)
"""The lines that `repairs` in provision/lib.sh prints."""

Words = Callable[[Lab, Situation, Node], Sequence[str]]


def script(
    name: str,
    title: str,
    on: Callable[[Lab, Situation], Sequence[Node]],
    *,
    after: tuple[str, ...] = (),
    one_at_a_time: bool | Callable[[Lab], bool] = False,
    words: Words = lambda lab, situation, node: (),
    secrets: Callable[[Situation], Sequence[str]] = lambda situation: (),
    stop: Stop | None = None,
    retitled: Callable[[Lab, Situation], str | None] = lambda lab, situation: None,
) -> Step:
    """A step that runs `provision/node/NAME.sh` on each of its machines.

    `words` returns its arguments. `secrets` are the names of the secrets (`lab.workspace.render.credentials`)
    that it gets on standard input.
    """

    def do(job: Job) -> bool:
        context = job.context
        return run(
            job,
            name,
            job.node,
            words=words(context.lab, context.situation, job.node),
            secrets=secrets(context.situation),
        )

    return Step(
        name,
        title,
        do,
        on,
        after=after,
        one_at_a_time=one_at_a_time,
        stop=stop,
        script=True,
        retitled=retitled,
    )


def run(job: Job, name: str, node: Node, *, words: Sequence[str] = (), secrets: Sequence[str] = ()) -> bool:
    """Run a script on a machine, which may differ from the job's; return whether it changed anything."""
    context = job.context
    given = None
    if secrets:
        keys = credentials.ca_key(context.workspace), credentials.etcd_ca_key(context.workspace)
        files = credentials.secret_files(node, context.lab, context.secrets, *keys)
        given = {name: text for name, text in files.items() if name in secrets}
    try:
        changed = context.remote.script(node, name, words, secrets=given, log=job.log)
    except CommandFailed as error:
        _raise_explained(job, name, node, error)
        raise
    repairs = _repairs(job.log)
    if repairs:
        job.shown.note = f"problem repaired: {'; '.join(repairs)}"
    return changed


def _repairs(log: Path) -> list[str]:
    """What a script reported as repaired (`repairs` in provision/lib.sh), without duplicates."""
    try:
        said = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return list(dict.fromkeys(REPAIRS.findall(said)))


def _raise_explained(job: Job, name: str, node: Node, error: CommandFailed) -> None:
    """Raise LabStateError with the cause if a webhook made the API reject the script's request."""
    said = [line for line in printed_by(error).replace('\\"', '"').splitlines() if WEBHOOK in line]
    cause = ready.cause_of(job.context, node.name, said[-1]) if said else None
    if cause:
        raise LabStateError(
            f"{name} on {node.name}: {cause.sentence}", hint=f"{cause.fix}; then `./inv up` again", log=job.log
        ) from error
