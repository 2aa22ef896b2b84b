"""The report's texts in English and Korean: headings, figures, probes, marks.

The texts are in words.yaml. A name without a text there (a new figure, a machine) is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import texts
from lab.texts import Bilingual

_PLACEHOLDERS = {
    "change": ("parts",),
    "only_balancer": ("machine",),
    "only_control_plane": ("machine",),
    "whole_again": ("component",),
    "until": ("noticed",),
    "measured": ("probe", "measure"),
    "held": ("machine",),
    "ended_at": ("machine",),
    "mark": ("mark", "seconds"),
    "headline_one": ("passed", "runs"),
    "headline": ("passed", "runs"),
    "chosen": ("which", "why"),
    "nth": ("run", "runs"),
    "counts": ("asked", "slow", "failed"),
    "counts_watch": ("asked", "slow", "failed"),
    "picture": ("title", "profile", "run"),
    "over": ("broken", "runs"),
    "unseen": ("count", "runs"),
}
_WITH_A_MACHINE = (
    "taken_out",
    "not_ready",
    "behind_load_balancer",
    "api_server",
    "etcd_member",
    "address_at",
    "haproxy",
)
_CHANGE_PARTS = ("added", "removed", "replaced", "resized", "upgraded", "changed")
_TEXTS = texts.read(
    Path(__file__).with_suffix(".yaml"),
    (
        *("probes", "measures", "columns", "figures", "phrases", "marks", "chosen", "lanes", "facts"),
        *("headings", "change_headings", "change_measures", "change_parts", "sentences"),
    ),
    {("sentences", name): values for name, values in _PLACEHOLDERS.items()}
    | {("phrases", name): ("machine",) for name in _WITH_A_MACHINE}
    | {("change_parts", name): ("names",) for name in _CHANGE_PARTS},
)

PROBES = _TEXTS["probes"]
MEASURES = _TEXTS["measures"]
COLUMNS = MEASURES | _TEXTS["columns"]
FIGURES = _TEXTS["figures"]
MARKS = _TEXTS["marks"]
CHOSEN = _TEXTS["chosen"]
LANES = _TEXTS["lanes"]
FACTS = _TEXTS["facts"]
HEADINGS = _TEXTS["headings"]
CHANGE_HEADINGS = HEADINGS | _TEXTS["change_headings"]
CHANGE_MEASURES = MEASURES | _TEXTS["change_measures"]
CHANGE_PARTS = _TEXTS["change_parts"]
SENTENCES = _TEXTS["sentences"]

DRILL_MARKS = ("inject", "detect", "heal", "whole")
CHANGE_MARKS = ("begin", "step", "end", "whole")
"""The marks of a report on drills, and of one on a change, in order."""

DETECT, RECOVERY, ENDED = "detect_s.", "whole_s.", "ended_at."
"""Name prefixes of figures: for each detection, each component's recovery, each load balancer's connections."""


def figure(name: str, measures: Mapping[str, Bilingual] = MEASURES) -> Bilingual:
    """Return a figure's title; an unknown one keeps its name."""
    if name in FIGURES:
        return FIGURES[name]
    if name.startswith(RECOVERY):
        return SENTENCES["whole_again"].fill(component=phrase(name.removeprefix(RECOVERY)))
    if name.startswith(DETECT):
        return SENTENCES["until"].fill(noticed=phrase(name.removeprefix(DETECT)))
    if name.startswith(ENDED):
        return SENTENCES["ended_at"].fill(machine=name.removeprefix(ENDED))
    probe, _, measure = name.partition(".")
    if probe in PROBES and measure in measures:
        return SENTENCES["measured"].fill(probe=PROBES[probe], measure=measures[measure])
    return Bilingual(name, name)


def phrase(what: str) -> Bilingual:
    """Return the text of a drill's mark; an unknown one stays as it is in both languages."""
    for known in _TEXTS["phrases"].values():
        begins, _, ends = known.en.partition("{machine}")
        if what.startswith(begins) and what.endswith(ends):
            machine = what[len(begins) : len(what) - len(ends)]
            return Bilingual(what, known.ko.format(machine=machine))
    return Bilingual(what, what)


def change_title(parts: Mapping[str, Sequence[str]]) -> Bilingual:
    """Return a measured change's title: for each of CHANGE_PARTS, the machines or keys, if any."""
    found = [said.fill(names=", ".join(parts[name])) for name, said in CHANGE_PARTS.items() if parts[name]]
    if not found:
        return SENTENCES["no_change"]
    joined = Bilingual(*("; ".join(language) for language in zip(*found, strict=True)))
    return SENTENCES["change"].fill(parts=joined)


def held(machine: str) -> Bilingual:
    """Return the title of the row that shows when a load balancer had the API's address."""
    return SENTENCES["held"].fill(machine=machine)


def only_balancer(machine: str) -> Bilingual:
    """Return why new connections have no limit in a change: the only load balancer is off during it."""
    return SENTENCES["only_balancer"].fill(machine=machine)


def only_control_plane(machine: str) -> Bilingual:
    """Return why new connections have no limit in an upgrade of the only control plane."""
    return SENTENCES["only_control_plane"].fill(machine=machine)


def number(value: float) -> str:
    """Return a formatted figure: counts as integers, seconds with the significant digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"


def spread(low: float | None, high: float | None) -> str:
    """Return minimum and maximum; "" if they look the same."""
    if low is None or high is None or number(low) == number(high):
        return ""
    return f"{number(low)}–{number(high)}"


def limit(limits: list[float | None]) -> str:
    """Return a figure's limit, or each profile's limit in order if they differ."""
    shown = ["–" if most is None else f"≤ {number(most)}" for most in limits]
    return " / ".join(shown) if len(set(shown)) > 1 else shown[0]


def mark(kind: str, seconds: float) -> Bilingual:
    """Return the label of a timeline's mark."""
    return SENTENCES["mark"].fill(mark=MARKS[kind], seconds=seconds)


def headline(passed: int, runs: int) -> Bilingual:
    """Return the overall verdict."""
    return SENTENCES["headline_one" if runs == 1 else "headline"].fill(passed=passed, runs=runs)


def chosen(run: int, runs: int, reason: str) -> Bilingual:
    """Return which run a timeline shows, and why that one."""
    if runs == 1:
        return SENTENCES["only_run"]
    return SENTENCES["chosen"].fill(which=nth(run, runs), why=CHOSEN[reason])


def nth(run: int, runs: int) -> Bilingual:
    """Return which run of how many."""
    return SENTENCES["nth"].fill(run=run, runs=runs)


def counts(probe: str, asked: int, slow: int, failed: int) -> Bilingual:
    """Return a lane's totals; the watch's failures are connections that were cut."""
    sentence = SENTENCES["counts_watch" if probe == "watch" else "counts"]
    return sentence.fill(asked=asked, slow=slow, failed=failed)


def picture(title: Bilingual, profile: str, run: Bilingual) -> Bilingual:
    """Return the title of a timeline."""
    return SENTENCES["picture"].fill(title=title, profile=profile, run=run)


def over(broken: int, runs: int) -> Bilingual:
    """Return in how many runs a figure exceeded its limit."""
    return SENTENCES["over"].fill(broken=broken, runs=runs)


def unseen(count: int, runs: int) -> Bilingual:
    """Return in how many runs a figure has no value."""
    return SENTENCES["unseen"].fill(count=count, runs=runs)
