"""What a chapter's template gets: the lab, its versions, its files, what drills measured.

All of it comes from lab.yaml, from the newest report of drills, and from one fact about this host. Where a
machine's files have this lab's secrets, the texts here have placeholders.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lab import exit_codes
from lab.drill import report, words
from lab.drill.recording import Report
from lab.drill.stories import STORIES
from lab.drill.summary import Drill, Runs, summarise
from lab.golden.supply.releases import release
from lab.health import status
from lab.model import Lab
from lab.providers import provider_of
from lab.texts import Bilingual
from lab.workshop.handout.words import DRILLS, in_language
from lab.workspace import render

IMAGE = {"haproxy": "3.0", "debian": "13"}
"""Versions that the golden machine's Debian has."""

CA_HASH = "sha256:..."
"""Placeholder for the hash of the CA's key, which differs in every lab; the machines' files have it."""

TOPOLOGY = "::: topology\n:::"
"""What a chapter's `{{ topology }}` becomes; `lab.workshop.handout.prose` draws it."""

COLUMNS = (
    *("detect_s", "connections.failed", "connections.longest_gap_s", "writes.failed"),
    *("writes.longest_gap_s", "writes.lost", "service.longest_gap_s", "leader_changes"),
)
"""The figures of a chapter's table of drills."""

LOCAL_INIT = {"1.35": 5, "1.36": 1}
"""The first patch release, by minor release, whose `kubeadm init` asks the API server of its own machine.

kubernetes/kubernetes#138449 and its cherry-picks; later minor releases have it from their start.
"""

UNSEEN = "–"


@dataclass(frozen=True)
class Story:
    """One drill as a chapter describes it, in its language."""

    name: str
    title: str
    text: str


@dataclass(frozen=True)
class Measured:
    """The newest report of this lab's drills, in one language. `seconds`: how long all runs took."""

    date: str
    seconds: int
    language: str
    drills: tuple[Drill, ...]
    profile: str

    @property
    def table(self) -> str:
        """A Markdown table: a row for each drill, medians over its runs."""
        heads = [in_language(said, self.language) for said in (DRILLS[name] for name in ("drill", *COLUMNS))]
        lines = [heads, ["---", *("---:" for _ in COLUMNS)]]
        for each in self.drills:
            title = STORIES[each.name].title if each.name in STORIES else Bilingual(each.name, each.name)
            figures = self._figures(each)
            lines.append([in_language(title, self.language), *(figures[name] for name in COLUMNS)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def drill(self, name: str) -> dict[str, str] | None:
        """The figures of one drill, formatted; None if the report has no run of it."""
        found = next((each for each in self.drills if each.name == name), None)
        return self._figures(found) if found else None

    def _figures(self, drill: Drill) -> dict[str, str]:
        runs = next((each for each in drill.profiles if each.profile == self.profile), drill.profiles[0])
        return {name: _median(runs, name) for name in dict.fromkeys((*COLUMNS, *drill.names))}


def newest_report(workspace: Path) -> Report | None:
    """Return the newest readable report of drills in a `.lab/`; None if there is none."""
    for path in sorted((workspace / "drills").glob("*/report.json"), reverse=True):
        try:
            return report.read(path)
        except (OSError, ValueError):
            continue  # another version of the kit may have written it
    return None


def measured(found: Report | None, lab: Lab, language: str) -> Measured | None:
    """Return what a report says about this lab; None if there is no report, or it is about another lab."""
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
    """Return the values for every template. `cgroups` is the version that this host's kernel uses.

    `member` is the machine on which chapters ask etcd: the first control plane, or an etcd machine.
    """
    first, joining, workers = lab.first, lab.control_planes[1:], lab.workers
    return {
        "lang": language,
        "lab": lab,
        "balancer": lab.balancers[0],
        "first": first,
        "member": lab.etcd_members[0],
        "members": len(lab.etcd_members),
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
        "local_init": asks_its_own_server(lab.kubernetes.version),
        "local_init_releases": [f"{minor}.{patch}" for minor, patch in LOCAL_INIT.items()],
        "detection": detection(lab),
        "exit_codes": status.EXIT_CODES | {"beyond_limit": exit_codes.BEYOND_LIMIT},
        "measured": measured(found, lab, language),
        "drills": tuple(
            Story(name, in_language(story.title, language), in_language(story.text, language))
            for name, story in STORIES.items()
        ),
    }


def versions(lab: Lab) -> dict[str, str]:
    """Return the versions of what the lab's machines run."""
    built = release(lab.kubernetes.version)
    names = ("kubernetes", "etcd", "coredns", "flannel", "containerd")
    return {name: getattr(built, name) for name in names} | IMAGE


def preflight(lab: Lab, cgroups: int) -> str:
    """Return the preflight errors that kubeadm has to ignore, the same as in provision/kubernetes.sh.

    Containers see this host's control groups; virtual machines have a kernel of their own, with version 2.
    """
    ignored = ["Swap"]
    if provider_of(lab).shares_kernel and cgroups == 1:
        ignored.append("SystemVerification")
    if lab.patience > 1:
        ignored.append("NumCPU")
    return ",".join(ignored)


def asks_its_own_server(version: str) -> bool:
    """Whether `kubeadm init` of a version asks the API server of its own machine, not the load balancer."""
    minor, _, patch = version.rpartition(".")
    return int(patch) >= LOCAL_INIT.get(minor, 0)


def detection(lab: Lab) -> tuple[float, float]:
    """Return how long HAProxy takes at least and at most to take a silent API server out, in seconds.

    Two checks run into `timeout connect`, with `fastinter` between them, up to `inter` after the last good one.
    """
    least = (0.3 + 0.25 + 0.3) * lab.patience
    return round(least, 2), round(least + lab.patience, 2)


def quorum(members: int) -> int:
    """Return how many etcd members are a majority of `members`."""
    return members // 2 + 1


def survives(members: int) -> int:
    """Return how many of `members` etcd members may be lost."""
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
