"""Which machines of a lab reach which others, as they say themselves; the doctor and `verify` judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """Pairs (from, to) of machines that answer this host, and why one does not reach the other, or ""."""

    pairs: Mapping[tuple[str, str], str]

    @property
    def broken(self) -> dict[tuple[str, str], str]:
        """The pairs that do not reach each other."""
        return {pair: why for pair, why in self.pairs.items() if why}

    @property
    def machines(self) -> frozenset[str]:
        """The machines that answered."""
        return frozenset(name for pair in self.pairs for name in pair)

    @property
    def all_broken(self) -> bool:
        """Whether no machine reaches any other one."""
        return bool(self.pairs) and len(self.broken) == len(self.pairs)

    def described(self) -> str:
        """What is broken, in a phrase; "" where nothing is."""
        if not self.broken:
            return ""
        reasons = ", ".join(dict.fromkeys(self.broken.values()))
        if self.all_broken:
            return f"no machine reaches another one ({reasons})"
        others: dict[str, list[str]] = {}
        for one, other in self.broken:
            others.setdefault(one, []).append(other)
        said = "; ".join(f"{one} does not reach {', '.join(names)}" for one, names in others.items())
        return f"{said} ({reasons})"


def read_reach(text: str) -> dict[str, str]:
    """Read what provision/node/reach.sh printed: each other machine's name, and why it is not reached."""
    return {name: why for name, _, why in (line.partition(" ") for line in text.splitlines() if line.strip())}


def reach(said: Mapping[str, Mapping[str, str]]) -> Reach:
    """Join what machines say: by name, the others' names and why each is not reached, "" where it is.

    Only machines that are asked themselves count: one that does not answer this host is known to be away.
    """
    return Reach(
        {(one, other): why for one, others in said.items() for other, why in others.items() if other in said}
    )
