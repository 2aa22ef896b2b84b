"""What a chapter's template gets: the lab, its versions, its files, what drills measured.

All of it comes from lab.yaml, from the newest report of drills, and from one fact of this host. Where a
machine's files hold this lab's secrets, the texts here have the words that stand for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.drill import report, words
from lab.drill.recording import Report
from lab.drill.stories import STORIES
from lab.drill.summary import Drill, Runs, summarise
from lab.golden.supply.releases import release
from lab.model import Lab
from lab.providers import provider_of
from lab.texts import Bilingual
from lab.workshop.handout.words import DRILLS, told
from lab.workspace import render

IMAGE = {"haproxy": "3.0", "containerd": "1.7", "debian": "13"}
"""What comes with the golden machine's Debian."""

CA_HASH = "sha256:..."
"""Stands for the hash of the CA's key, which differs in every lab; the machines' files have it."""

TOPOLOGY = "::: topology\n:::"
"""What a chapter's `{{ topology }}` becomes, and `lab.workshop.handout.prose` draws."""

COLUMNS = (
    *("detect_s", "connections.failed", "connections.longest_gap_s", "writes.failed"),
    *("writes.longest_gap_s", "writes.lost", "service.longest_gap_s", "leader_changes"),
)
"""The figures of a chapter's table of drills."""

UNSEEN = "–"


@dataclass(frozen=True)
class Story:
    """One drill as a chapter tells of it, in its language."""

    name: str
    title: str
    text: str


@dataclass(frozen=True)
class Measured:
    """What the newest report of this lab's drills found, in one language. `seconds`: what all runs took."""

    date: str
    seconds: int
    language: str
    drills: tuple[Drill, ...]
    profile: str

    @property
    def table(self) -> str:
        """A Markdown table: a row for each drill, medians over its runs."""
        heads = [told(said, self.language) for said in (DRILLS[name] for name in ("drill", *COLUMNS))]
        lines = [heads, ["---", *("---:" for _ in COLUMNS)]]
        for each in self.drills:
            title = STORIES[each.name].title if each.name in STORIES else Bilingual(each.name, each.name)
            figures = self._figures(each)
            lines.append([told(title, self.language), *(figures[name] for name in COLUMNS)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def drill(self, name: str) -> dict[str, str] | None:
        """The figures of one drill as people read them; None when the report has no run of it."""
        found = next((each for each in self.drills if each.name == name), None)
        return self._figures(found) if found else None

    def _figures(self, drill: Drill) -> dict[str, str]:
        runs = next((each for each in drill.profiles if each.profile == self.profile), drill.profiles[0])
        return {name: _median(runs, name) for name in dict.fromkeys((*COLUMNS, *drill.names))}


def newest_report(workspace: Path) -> Report | None:
    """Return the newest report of drills in a `.lab/` that can be read; None when there is none."""
    for path in sorted((workspace / "drills").glob("*/report.json"), reverse=True):
        try:
            return report.read(path)
        except (OSError, ValueError):
            continue  # another version of the kit may have written it
    return None


def measured(found: Report | None, lab: Lab, language: str) -> Measured | None:
    """Return what a report of this lab says; None without one."""
    if found is None or found.lab != lab.name or not found.results:
        return None
    return Measured(
        date=_day(found.began),
        seconds=round(sum(result.recording.seconds for result in found.results)),
        language=language,
        drills=summarise(found),
        profile=lab.load_balancer.profile,
    )


def context(lab: Lab, language: str, *, found: Report | None = None, cgroups: int = 2) -> dict[str, Any]:
    """Return what every template is given. `cgroups` is the version that this host's kernel has."""
    first, joining, workers = lab.first, lab.control_planes[1:], lab.workers
    return {
        "lang": language,
        "lab": lab,
        "balancer": lab.balancers[0],
        "first": first,
        "joining": joining,
        "second": joining[0] if joining else first,
        "others": (*joining, *workers),
        "worker": workers[0] if workers else None,
        "versions": versions(lab),
        "haproxy_cfg": _text(f"haproxy.{lab.load_balancer.profile}.cfg", lab, lab.balancers[0]),
        "kubeadm_init": _text("kubeadm-init.yaml", lab, first),
        "kubeadm_join_control_plane": _text("kubeadm-join.yaml", lab, joining[0]) if joining else "",
        "kubeadm_join_worker": _text("kubeadm-join.yaml", lab, workers[0]) if workers else "",
        "preflight": preflight(lab, cgroups),
        "topology": TOPOLOGY,
        "quorum": quorum,
        "survives": survives,
        "measured": measured(found, lab, language),
        "drills": tuple(
            Story(name, told(story.title, language), told(story.text, language))
            for name, story in STORIES.items()
        ),
    }


def versions(lab: Lab) -> dict[str, str]:
    """Return which version of what the lab's machines run."""
    built = release(lab.kubernetes.version)
    names = ("kubernetes", "etcd", "coredns", "flannel")
    return {name: getattr(built, name) for name in names} | IMAGE


def preflight(lab: Lab, cgroups: int) -> str:
    """Return what kubeadm's preflight checks are to ignore: what provision/kubernetes.sh names to them.

    Containers see this host's control groups; virtual machines have a kernel of their own, with version 2.
    """
    ignored = ["Swap"]
    if provider_of(lab).shares_kernel and cgroups == 1:
        ignored.append("SystemVerification")
    if lab.patience > 1:
        ignored.append("NumCPU")
    return ",".join(ignored)


def quorum(members: int) -> int:
    """Return how many of so many etcd members are a majority."""
    return members // 2 + 1


def survives(members: int) -> int:
    """Return how many of so many etcd members may be lost."""
    return members - quorum(members)


def _text(name: str, lab: Lab, node: Any) -> str:
    return render.template(f"{name}.j2", **render.template_values(lab, node), ca_hash=CA_HASH).strip("\n")


def _median(runs: Runs, name: str) -> str:
    row = runs.row(name)
    return UNSEEN if row is None or row.median is None else words.number(row.median)


def _day(began: str) -> str:
    try:
        return datetime.fromisoformat(began).date().isoformat()
    except ValueError:
        return began
