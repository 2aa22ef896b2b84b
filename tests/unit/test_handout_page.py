"""A handout's page and its drawing: who gets what, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import itertools
import re
from html import unescape
from html.parser import HTMLParser
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab import config
from lab.drill.recording import Report
from lab.model import Lab, Network, Node
from lab.model.roles import Role
from lab.system.paths import REPOSITORY
from lab.workshop.handout import context, topology
from lab.workshop.handout.words import WORDS
from tests.unit import drills
from tests.unit.fakes import with_a_second_balancer
from tests.unit.handouts import folder, made
from tests.unit.recorded_facts import lab, pair_lab, silent
from tests.unit.test_status import looked, of_two, server_down

LAB = config.default()
SIZES = [(1, 0), (1, 1), (3, 3), (5, 9)]
VOID = frozenset(("meta", "br", "rect", "path"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("handout") / "docs")


class Reader(HTMLParser):
    """Reads a page: every element with its attributes; checks that each is closed."""

    def __init__(self, text: str) -> None:
        """Read all of it."""
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element without an end tag."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Check that it closes the open element."""
        assert self.open.pop() == tag


def sized(control_planes: int, workers: int, prefix: str = "") -> Lab:
    roles = [(Role.LOAD_BALANCER, "lb", 1, 10), (Role.CONTROL_PLANE, "cp", control_planes, 11)]
    nodes = tuple(
        Node(
            name=f"{prefix or name}{n + 1}",
            role=role,
            address=IPv4Address(f"192.168.156.{first + n}"),
            cpus=2,
            memory_mib=2048,
        )
        for role, name, count, first in (*roles, (Role.WORKER, "w", workers, 21))
        for n in range(count)
    )
    return Lab(nodes=nodes, network=Network(subnet=IPv4Network("192.168.156.0/24")))


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("edition", ["student", "instructor"])
def test_the_page_is_valid_and_loads_nothing(root: Path, language: str, edition: str) -> None:
    text = made(root, language, "instructor" if edition == "instructor" else "student")
    page = Reader(text)
    assert {name for name, _ in page.found} & {"img", "link", "iframe", "object"} == set()
    for name, attributes in page.found:
        assert not {"src", "srcset", "style"} & set(attributes), name
        assert not [key for key in attributes if key.startswith("on")], name
        assert (attributes.get("href") or "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes.get("href") or "#top")[1:] for name, attributes in page.found if name == "a"}
    assert links <= set(ids)
    assert "@import" not in text
    assert "url(" not in text.replace("url(#tip)", "")
    assert text.splitlines()[1].startswith(f'<html lang="{language}"')


def test_a_students_file_has_nothing_that_is_for_instructors(root: Path) -> None:
    student, instructor = made(root), made(root, edition="instructor")
    for word in ("ANSWER", "TROUBLE", 'id="sheet"', 'id="timing"', WORDS["sheet"].en):
        assert word not in student
        assert word in instructor
    assert re.search(r'<td class="right">0:20</td><td class="right">45 min</td>', instructor)
    assert '<td class="right">1:05</td>' in instructor
    assert "<code>./inv task 2</code>" in instructor


def test_a_handout_without_a_lab_says_so(root: Path) -> None:
    assert WORDS["no_lab"].en in unescape(made(root))
    assert WORDS["no_lab"].ko in made(root, "ko")


def test_two_load_balancers_are_drawn_with_the_address_that_they_share() -> None:
    pair = config.load(REPOSITORY / "examples" / "two-load-balancers.yaml")
    drawn = topology.picture(pair, "en")
    assert drawn.count(">HAProxy :6443<") == 2
    assert ">https://192.168.62.5:6443<" in drawn
    assert topology.described(pair, "en").startswith(
        "API: https://192.168.62.5:6443; load balancers: lb1 192.168.62.6, lb2 192.168.62.7; "
    )
    assert topology.described(sized(1, 0), "en").startswith("load balancer: lb1 ")


def test_what_was_found_of_a_lab_is_drawn_and_said() -> None:
    found = topology.Now(of_two(silent("cp2"), server_down("cp2")), "2026-11-30 14:50")
    drawn = unescape(topology.picture(pair_lab(), "en", found))
    boxes = re.findall(r'<rect class="machine ([^"]*)"[^>]*/>\s*<text class="name"[^>]*>([^<]*)<', drawn)
    assert {name: kind for kind, name in boxes} == {
        **dict.fromkeys(("lb1", "lb2"), "balancer"),
        **dict.fromkeys(("cp1", "cp3"), "control-plane stops"),
        "cp2": "control-plane lost",
        **dict.fromkeys(("w1", "w2", "w3"), "worker"),
    }
    assert drawn.count(">API's address<") == drawn.count(">HAProxy :6443<") == 1
    assert drawn.count(">etcd leader<") == drawn.count('class="etcd leads"') == 1
    assert drawn.count('class="etcd"') == 2
    assert drawn.partition('<figcaption class="now">')[2].partition("<")[0] == (
        "As of 2026-11-30 14:50: lb1 has the API's address. cp1 leads etcd. Not there (dashed): cp2. "
        "Any one of these may be lost: lb1, lb2, w1, w2, w3. "
        "The lab would stop without any of these (thick frame): cp1, cp3."
    )
    korean = topology.picture(pair_lab(), "ko", found)
    assert "API 주소는 lb1에 있습니다. etcd 리더는 cp1입니다." in korean


def test_the_only_load_balancer_has_the_address_and_nothing_else_is_said_of_a_healthy_lab() -> None:
    found = topology.Now(looked(), "14:50")
    assert topology.caption(lab(), "en", found) == (
        "As of 14:50: lb1 has the API's address. cp1 leads etcd. "
        "Any one of these may be lost: cp1, cp2, cp3, w1, w2, w3. "
        "The lab would stop without any of these (thick frame): lb1."
    )
    assert "figcaption" not in topology.picture(lab(), "en")


@pytest.mark.parametrize(("control_planes", "workers"), SIZES)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_machine_is_inside_the_drawing_and_none_overlaps_another(
    control_planes: int, workers: int, language: str
) -> None:
    lab = sized(control_planes, workers)
    drawn = topology.picture(lab, language)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    boxes = [
        tuple(map(float, box))
        for box in re.findall(
            r'<rect class="machine[^"]*" x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"', drawn
        )
    ]
    assert len(boxes) == 1 + len(lab.nodes)
    for x, y, wide, high in boxes:
        assert x >= 0
        assert x + wide <= width
        assert y >= 0
        assert y + high <= height
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    for node in lab.nodes:
        assert f">{node.name}</text>" in drawn
        assert f">{node.address}</text>" in drawn
    assert drawn.count('class="etcd"') == control_planes
    assert "<title" in drawn
    assert f"{lab.workers[-1].name} {lab.workers[-1].address}" in drawn if workers else True


def test_every_load_balancer_is_drawn_beside_the_other() -> None:
    drawn = topology.picture(with_a_second_balancer(sized(3, 3)), "en")
    places = re.findall(r'<rect class="machine balancer" x="([\d.-]+)" y="([\d.-]+)"', drawn)
    assert len(set(places)) == 2
    assert len({y for _, y in places}) == 1
    assert ">lb2</text>" in drawn
    assert "lb1 192.168.156.10, lb2 192.168.156.9" in drawn


def test_no_arrow_crosses_a_control_plane() -> None:
    """Arrows to the second row pass between two machines of the first."""
    found = topology.group(sized(5, 0).control_planes, 100, 70)
    first, second = found.boxes[:3], found.boxes[3:]
    for below in second:
        assert all(abs(below.x - above.x) > topology.BOX_WIDTH / 2 for above in first)


def test_the_longest_name_fits_its_box() -> None:
    name = sized(5, 9, "a" * 20).workers[-1].name
    assert len(name) * topology.size(name) * topology.LETTER <= topology.BOX_WIDTH
    assert topology.size("cp1") == 15


@pytest.mark.parametrize(("members", "majority", "lost"), [(1, 1, 0), (3, 2, 1), (5, 3, 2)])
def test_quorums(members: int, majority: int, lost: int) -> None:
    assert (context.quorum(members), context.survives(members)) == (majority, lost)


def test_preflight_errors_are_those_that_the_scripts_ignore() -> None:
    assert context.preflight(LAB, 2) == "Swap"
    assert context.preflight(LAB, 1) == "Swap,SystemVerification"
    assert context.preflight(LAB.model_copy(update={"provider": "virtualbox"}), 1) == "Swap"


def test_a_copy_button_announces_itself_to_screen_readers(root: Path) -> None:
    buttons = [each for name, each in Reader(made(root)).found if each.get("class") == "copy"]
    assert {each.get("aria-live") for each in buttons} == {"polite"}


def test_measured_figures_are_those_of_this_labs_newest_report(tmp_path: Path) -> None:
    for name, runs in (("20250101-000000-all", 3), ("20250202-000000-all", 1)):
        path = tmp_path / "drills" / name / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(drills.whole_report(runs=runs, count=50).model_dump_json())
    broken = tmp_path / "drills" / "20250303-000000-all" / "report.json"
    broken.parent.mkdir()
    broken.write_text("{")
    found = context.newest_report(tmp_path)
    assert isinstance(found, Report)
    measured = context.measured(found, LAB, "ko")
    assert measured is not None
    assert measured.date == "2025-11-24"
    assert measured.table.splitlines()[2].startswith("| 컨트롤 플레인 노드 강제 종료 | ")
    assert len({line.count("|") for line in measured.table.splitlines()}) == 1
    figures = measured.drill("kill-control-plane")
    assert figures is not None
    assert set(context.COLUMNS) <= set(figures)
    assert figures["writes.lost"] == "0"
    assert measured.drill("none") is None
    assert context.measured(found, LAB.model_copy(update={"name": "other"}), "en") is None
    assert context.measured(None, LAB, "en") is None
    assert context.newest_report(tmp_path / "nowhere") is None
