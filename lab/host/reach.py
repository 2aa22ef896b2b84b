"""Which machines of a lab reach which others, as they report it; the doctor and `verify` judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """Pairs (from, to) of responding machines, with why `from` does not reach `to`, or ""."""

    pairs: Mapping[tuple[str, str], str]

    @property
    def broken(self) -> dict[tuple[str, str], str]:
        """The pairs in which `from` does not reach `to`."""
        return {pair: why for pair, why in self.pairs.items() if why}

    @property
    def machines(self) -> frozenset[str]:
        """The machines that responded."""
        return frozenset(name for pair in self.pairs for name in pair)

    @property
    def all_broken(self) -> bool:
        """Whether no machine reaches any other one."""
        return bool(self.pairs) and len(self.broken) == len(self.pairs)

    def described(self) -> str:
        """What is broken, as a phrase; "" if nothing is."""
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
    """Parse the output of provision/node/reach.sh: each other machine's name, and why it is not reached."""
    return {name: why for name, _, why in (line.partition(" ") for line in text.splitlines() if line.strip())}


def reach(said: Mapping[str, Mapping[str, str]]) -> Reach:
    """Combine the machines' reports: by name, the others' names with why each is not reached, or "".

    Only machines that reported count: one that does not respond to this host is known to be down.
    """
    return Reach(
        {(one, other): why for one, others in said.items() for other, why in others.items() if other in said}
    )
