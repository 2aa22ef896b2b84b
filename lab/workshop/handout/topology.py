"""The positions in the drawing of a lab, in units of the drawing. Pure.

From the top: the host, the load balancer, the control planes with their etcd members, etcd machines if there
are any, the workers. It is as wide as a phone, with three machines in a row, so that it need not be scaled down
there. Of a lab that was up, it shows what status found: who has the API's address, who leads etcd, and which
machine may still be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from lab.drill import onepage
from lab.health.status import ADDRESS, Status
from lab.model import Lab, Node
from lab.workshop.handout.context import quorum
from lab.workshop.handout.words import word

WIDTH = 448
MIDDLE = 215
"""The middle of the machines; the workers' line to the load balancer is on their right."""
BOX_WIDTH, GAP, ROW = 122, 10, 3
STEP = BOX_WIDTH + GAP
HEIGHT, MEMBER = 50, 74
"""The heights of a machine, and of one that runs an etcd member."""
TITLE = 20
"""The height of a group's title: below control planes, since arrows come from above."""
LETTER = 0.62
"""The width of a letter of the monospaced names, relative to its size."""


@dataclass(frozen=True)
class Box:
    """One machine: the middle of its upper edge, its height, the font size of its name."""

    name: str
    address: str
    x: float
    y: float
    height: float
    size: float

    @property
    def left(self) -> float:
        """Its left edge."""
        return self.x - BOX_WIDTH / 2


@dataclass(frozen=True)
class Group:
    """Machines of one role in rows of three, in a frame.

    A row of two is below the gaps of the row of three above it, so no arrow crosses a machine.
    """

    boxes: tuple[Box, ...]
    y: float
    height: float

    @property
    def bottom(self) -> float:
        """The frame's lower edge."""
        return self.y + self.height


@dataclass(frozen=True)
class Now:
    """What status found of a lab that works, and when, as text."""

    status: Status
    at: str


def picture(lab: Lab, language: str, now: Now | None = None) -> Markup:
    """Return the picture as an SVG element; its colours are the page's. A caption has what was found."""
    balancers = group(lab.balancers, 74.0, 61).boxes
    balancers_bottom = balancers[-1].y + balancers[-1].height
    control_planes = group(lab.control_planes, balancers_bottom + 30, HEIGHT if lab.external_etcd else MEMBER)
    members = group(lab.etcd_members, control_planes.bottom + 30, MEMBER) if lab.external_etcd else None
    above = members or control_planes
    workers = group(lab.workers, above.bottom + 16, HEIGHT, above=TITLE) if lab.workers else None
    bottom = (workers or above).bottom
    return Markup(  # noqa: S704  the template escapes what it is given
        onepage.environment(Path(__file__).parent)
        .get_template("topology.svg.j2")
        .render(
            lab=lab,
            word=partial(word, language),
            described=described(lab, language),
            marks=marks(lab, now),
            # The only load balancer always has it.
            holders=holders(now) if lab.pair else (),
            leader=now.status.leader if now else "",
            caption=caption(lab, language, now) if now else "",
            balancers=balancers,
            control_planes=control_planes,
            etcd=members,
            workers=workers,
            bus=balancers_bottom + 16,
            members=len(lab.etcd_members),
            quorum=quorum(len(lab.etcd_members)),
            frame=bottom + 10,
            height=bottom + 62,
            width=WIDTH,
            middle=MIDDLE,
            box_width=BOX_WIDTH,
            room=ROW * STEP + GAP,
        )
    )


def group(nodes: tuple[Node, ...], y: float, height: float, above: float = 0) -> Group:
    """Return the positions of one role's machines, `height` each, from `y` down, its title above or below."""
    boxes = []
    rows = [nodes[start : start + ROW] for start in range(0, len(nodes), ROW)]
    for number, row in enumerate(rows):
        left = MIDDLE - (len(row) - 1) * STEP / 2
        top = y + GAP + above + number * (height + GAP)
        boxes += [
            Box(node.name, str(node.address), left + place * STEP, top, height, size(node.name))
            for place, node in enumerate(row)
        ]
    return Group(tuple(boxes), y, GAP + TITLE + len(rows) * (height + GAP))


def size(name: str) -> float:
    """Return the font size at which a name fits into its box."""
    return round(min(15.0, (BOX_WIDTH - 12) / (LETTER * len(name))), 1)


def described(lab: Lab, language: str) -> str:
    """Return in words what the drawing shows, for readers who can't see it."""
    roles = (
        (word(language, "balancers" if lab.pair else "balancer"), lab.balancers),
        (word(language, "control_planes"), lab.control_planes),
        (word(language, "etcd"), lab.etcd_members if lab.external_etcd else ()),
        (word(language, "workers"), lab.workers),
    )
    listed = {role: ", ".join(f"{node.name} {node.address}" for node in nodes) for role, nodes in roles}
    listed = {word(language, "api"): lab.api.url} | listed if lab.pair else listed
    return "; ".join(f"{role}: {names}" for role, names in listed.items() if names)


def holders(now: Now | None) -> tuple[str, ...]:
    """Return the machines that have the API's address, as status found it."""
    return tuple(machine.name for machine in now.status.machines if ADDRESS in machine.has) if now else ()


def marks(lab: Lab, now: Now | None) -> dict[str, str]:
    """Return the classes that a machine's box has besides, by its name, each after a space.

    `lost` does not answer; the loss of one that is `stops` would stop the lab.
    """
    found = {node.name: "" for node in lab.nodes}
    for machine in now.status.machines if now else ():
        found[machine.name] = "" if machine.if_lost == "works" else f" {machine.if_lost or 'lost'}"
    return found


def caption(lab: Lab, language: str, now: Now) -> str:
    """Return in words what status found: who has the address and leads etcd, what is lost and what may be."""
    machines = now.status.machines
    stopping, spare, lost = (
        ", ".join(machine.name for machine in machines if machine.if_lost == kind)
        for kind in ("stops", "works", None)
    )
    parts = {
        "now_holder": ", ".join(holders(now) if lab.pair else (lab.balancers[0].name,)),
        "now_leader": now.status.leader,
        "now_lost": lost,
        "now_spare": spare,
        "now_stops": stopping,
    }
    said = [word(language, name, names=names) for name, names in parts.items() if names]
    return " ".join([word(language, "now", at=now.at), *said])
