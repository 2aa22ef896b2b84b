"""The form of a cause, and what every sign of one needs: what was found, and words for it."""

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
"""How many checks are named that fail for a cause."""


ON_THEIR_OWN = ("security", "host facts")
"""Groups of checks of each machine by itself: they fail for no cause in the cluster or between machines."""


@dataclass(frozen=True)
class Cause:
    """What is in the way, and the least that removes it.

    Which checks fail for it: those with a title in `titles`, those about one of `machines`, those whose finding
    has one of `words`; all where `everything`. `passes`: waiting may cure it. `explains` are the titles of the
    checks that do not hold now and fail for it. `detail` is what may differ at the next look; `what` names the
    cause by itself.
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
        """All that is known of it now."""
        return f"{self.what}: {self.detail}" if self.detail else self.what

    def is_of(self, verdict: Verdict) -> bool:
        """Whether a check that does not hold fails for it."""
        return (
            self.everything
            or verdict.title in self.titles
            or verdict.machine in self.machines
            or any(words in verdict.found for words in self.words)
        )

    @property
    def as_json(self) -> dict[str, object]:
        """It as `--json` shows it."""
        return {"what": self.sentence, "fix": self.fix, "explains": list(self.explains)}

    @property
    def affected(self) -> str:
        """The checks that fail for it, the first few by name."""
        more = f" and {len(self.explains) - NAMED} more" if len(self.explains) > NAMED else ""
        return f"{', '.join(self.explains[:NAMED])}{more}"


class Found(NamedTuple):
    """What causes are looked for in: the facts, and the checks that do not hold."""

    lab: Lab
    facts: Facts
    bad: tuple[Verdict, ...]

    def titles(self, *names: str) -> frozenset[str]:
        """The titles of the checks of these names that do not hold."""
        return frozenset(verdict.title for verdict in self.bad if verdict.name in names)

    def kubectl(self, *words: str) -> str:
        """A command that needs no kubectl on this host, on a control plane whose API server is well."""
        serving = (
            n for n in self.lab.control_planes if self.facts.api.direct[n.name]["/readyz"] == (200, "ok")
        )
        name = next(serving, self.lab.first).name
        return f"`./inv ssh {name} -- sudo kubectl --kubeconfig {ADMIN} {quoting.line(words)}`"


class Sign(NamedTuple):
    """A row of the table: what it is a sign of, and the function that finds that.

    One `of_the_rest` is looked for only in the checks that no row above it explains.
    """

    of: str
    shows: Callable[[Found], Iterable[Cause]]
    of_the_rest: bool = False


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
