"""The form of a cause, and what the functions that find causes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lab.health.checks.check import Verdict
from lab.health.facts.gather import Facts
from lab.model import Lab
from lab.system import quoting

ADMIN = "/etc/kubernetes/admin.conf"
NAMED = 4
"""How many of a cause's failing checks are named."""


ON_THEIR_OWN = ("security", "host facts")
"""Groups of checks of single machines, which no cause in the cluster or between machines explains."""


@dataclass(frozen=True)
class Cause:
    """A problem that explains failing checks, and its fix.

    It explains checks with a title in `titles`, those about one of `machines`, those whose finding has one of
    `words`, or all if `everything`. `passes`: waiting may fix it. `explains` are the titles of the checks that
    fail now because of it. `what` identifies the cause; `detail` is what may change.
    """

    what: str
    fix: str
    titles: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    everything: bool = False
    passes: bool = False
    explains: tuple[str, ...] = ()
    detail: str = ""

    @property
    def sentence(self) -> str:
        """All that is known about it now."""
        return f"{self.what}: {self.detail}" if self.detail else self.what

    def is_of(self, verdict: Verdict) -> bool:
        """Whether it explains a failing check."""
        return (
            self.everything
            or verdict.title in self.titles
            or verdict.machine in self.machines
            or any(words in verdict.found for words in self.words)
        )

    @property
    def as_json(self) -> dict[str, object]:
        """Its form in `--json`."""
        return {"what": self.sentence, "fix": self.fix, "explains": list(self.explains)}

    @property
    def affected(self) -> str:
        """The checks that it explains, the first few by name."""
        more = f" and {len(self.explains) - NAMED} more" if len(self.explains) > NAMED else ""
        return f"{', '.join(self.explains[:NAMED])}{more}"


class Found(NamedTuple):
    """What causes are searched in: the facts, and the failing checks."""

    lab: Lab
    facts: Facts
    bad: tuple[Verdict, ...]

    def titles(self, *names: str) -> frozenset[str]:
        """The titles of the failing checks with these names."""
        return frozenset(verdict.title for verdict in self.bad if verdict.name in names)

    def kubectl(self, *words: str) -> str:
        """A command for a control plane with a healthy API server, so that this host needs no kubectl."""
        serving = (
            n for n in self.lab.control_planes if self.facts.api.direct[n.name]["/readyz"] == (200, "ok")
        )
        name = next(serving, self.lab.first).name
        return f"`./inv ssh {name} -- sudo kubectl --kubeconfig {ADMIN} {quoting.line(words)}`"


class Sign(NamedTuple):
    """A row of the table: the kind of cause, and the function that finds it.

    `of_the_rest`: searched only in the checks that no row above it explains.
    """

    of: str
    shows: Callable[[Found], Iterable[Cause]]
    of_the_rest: bool = False


def listed(names: Sequence[str]) -> str:
    """Names joined for a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
