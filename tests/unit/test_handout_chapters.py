"""Chapters: their content, for whom it is, and the errors for one that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import Markup

from lab import config
from lab.errors import LabError
from lab.model import Lab
from lab.workshop.handout import chapters, prose
from lab.workshop.handout.chapters import ChapterError
from lab.workshop.handout.context import context
from lab.workshop.handout.prose import Command, Reader
from tests.unit.handouts import folder, read

LAB = config.default()
FRONT = "---\ntitle: Machines\nminutes: 5\ntask: 1\n---\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "docs")


def reader(edition: prose.Edition = "student", lab_file: str = "") -> Reader:
    return Reader(LAB, "en", edition, Markup("<svg></svg>"), lab_file)


def one(tmp_path: Path, text: str, front: str = FRONT) -> str:
    """One chapter with that text, as HTML."""
    path = tmp_path / "en" / "01-one.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(front + text, encoding="utf-8")
    return str(prose.html(read(tmp_path)[0], reader()))


def test_chapters_have_the_labs_own_values(root: Path) -> None:
    first, second = read(root)
    assert (first.number, first.title, first.minutes, first.task) == (1, "What the machines are", 20, 1)
    assert "| cp1 | 192.168.56.11 |\n| cp2 | 192.168.56.12 |" in first.text
    assert 'controlPlaneEndpoint: "192.168.56.10:6443"' in second.text
    assert "server cp1 192.168.56.11:6443" in second.text


def test_commands_are_listed_in_order_with_their_way(root: Path) -> None:
    found = prose.commands(read(root)[0], LAB)
    assert [(each.on, each.text.splitlines()[0], each.way, each.instructor) for each in found] == [
        ("host", "./inv up", "watch", False),
        ("host", "./inv up --until load-balancer", "hand", False),
        ("cp1", "umask 077; printf 'a/%s\\n' \"$(kubeadm token generate)\" > /root/secrets.sed", "hand", False),
        ("host", "./inv status", "", True),
        ("host", "./inv task 1", "", False),
    ]
    assert isinstance(found[0], Command)
    assert found[0].line < found[1].line


def test_a_command_may_end_with_the_exit_codes_that_its_fence_names(tmp_path: Path) -> None:
    one(tmp_path, "```sh on=host\na\n```\n```sh on=host exit=1\nb\n```\n```sh on=cp1 exit=0,60\nc\n```\n")
    found = prose.commands(read(tmp_path)[0], LAB)
    assert [(each.text, each.exits) for each in found] == [("a", (0,)), ("b", (1,)), ("c", (0, 60))]


def test_commands_name_another_lab(root: Path) -> None:
    chapter = read(root, lab_file="/labs/my lab.yaml")[0]
    assert prose.commands(chapter, LAB)[-1].text == "./inv task --lab '/labs/my lab.yaml' 1"
    html = prose.html(chapter, reader(lab_file="/labs/my lab.yaml"))
    assert "<code>./inv ssh --lab &#39;/labs/my lab.yaml&#39; cp1</code>" in html
    assert html.count('class="command check"') == 1


def test_students_get_neither_answers_nor_what_is_for_instructors(root: Path) -> None:
    student = prose.html(read(root)[0], reader())
    instructor = prose.html(read(root)[0], reader("instructor"))
    for word in ("ANSWER", "TROUBLE", "./inv status"):
        assert word not in student
        assert word in instructor
    assert "The load balancer has one address." in student


def test_a_box_in_a_box_ends_by_itself(tmp_path: Path) -> None:
    html = one(tmp_path, "::: hand\na\n\n::: note\nb\n:::\n\nc\n:::\nd\n")
    assert re.sub(r"\s|<p.*?>|</p>", "", html) == (
        '<divclass="wayhand">Byhanda<divclass="boxnote">Noteb</div>c</div>d'
    )


def test_html_in_markdown_is_text_and_headings_are_below_the_chapters(tmp_path: Path) -> None:
    html = one(tmp_path, "## <img src=x onerror=alert(1)>\n\n<script>1</script>\n")
    assert "<img" not in html
    assert "<script" not in html
    assert html.startswith('<h3 id="chapter-1-1">')


def test_no_element_has_a_style_of_its_own(tmp_path: Path) -> None:
    html = one(tmp_path, "| a | b |\n| --- | ---: |\n| 1 | 2 |\n")
    assert "style" not in html
    assert '<td class="right">2</td>' in html


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a\n\n{{ lab.nam }}\n", 8, "has no attribute 'nam'"),
        ("{% for x in lab.nodes %}\n", 6, "Unexpected end of template"),
        ("a\n{{ nobody }}\n", 7, "'nobody' is undefined"),
        ("{{ worker.name }}\n{{ worker / 2 }}\n", 7, "unsupported operand"),
        ("::: nota\n:::\n", 6, "there is no box 'nota'"),
        ("a\n\n::: note\nb\n", 8, "this box is never closed"),
        ("::: note\na\n:::\n:::\n", 9, "closes a box, but none is open"),
        ("```sh\nls\n```\n", 6, "`sh` needs `on=`"),
        ("```sh on=cp9\nls\n```\n", 6, "`sh` needs `on=`"),
        ("a\n\n```sh on={{ lab.name }}\nls\n```\n", 8, "`sh` needs `on=`"),
        ("```cobol9\nls\n```\n", 6, "not a language that is shown"),
        ("```sh on=host exit=\nls\n```\n", 6, "after `on=` only `exit=`"),
        ("```sh on=host exit=1 1\nls\n```\n", 6, "after `on=` only `exit=`"),
        ("```sh on=host sudo\nls\n```\n", 6, "after `on=` only `exit=`"),
        (
            "{% for n in lab.nodes %}\n{{ n.name }}\n{% endfor %}\n\n[a](b.html)\n",
            10,
            "leads out of the handout",
        ),
        ("![a](b.png)\n", 6, "leads out of the handout"),
    ],
)
def test_an_error_has_its_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(ChapterError, match=re.escape(what)) as caught:
        one(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/en/01-one.md:{line}: ")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("front", "line", "what"),
    [
        ("# Machines\n", 1, "does not begin with front matter"),
        ("---\ntitle: a\nminutes: 5\n---\n", 1, "must have title, minutes, task"),
        ("---\ntitle: a\nminutes: five\ntask: 1\n---\n", 3, "minutes: 'five' is not a whole number"),
        ("---\ntitle: a\nminutes: 5\ntask: true\n---\n", 4, "task: True is not a whole number"),
        ("---\ntitle: a\nminutes: [5\n---\n", 4, "front matter can't be read"),
    ],
)
def test_wrong_front_matter_is_reported(tmp_path: Path, front: str, line: int, what: str) -> None:
    with pytest.raises(ChapterError, match=re.escape(what)) as caught:
        one(tmp_path, "a\n", front)
    assert f"01-one.md:{line}: " in caught.value.message


def test_a_lab_of_three_and_one_of_two_can_be_written_about(root: Path) -> None:
    for workers in (0, 1):
        lab = Lab(nodes=tuple(node for node in LAB.nodes if node.name in ("lb1", "cp1", "w1")[: 2 + workers]))
        values = context(lab, "en")
        assert values["second"] == lab.first
        assert (values["worker"] is None) == (workers == 0)
        assert chapters.read("en", values, root)


def test_a_folder_without_chapters_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there are no chapters"):
        read(tmp_path)
