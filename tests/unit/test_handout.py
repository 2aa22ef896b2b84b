"""The verb handout: what it writes and where, what it refuses, and that it never reads secrets."""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ConfigError, HostNotFit, LabError, LabStateError
from lab.health import status
from lab.health.status import Health, Status
from lab.host import Cgroups, kernel
from lab.session import Session, open_wanted
from lab.system.paths import REPOSITORY
from lab.verbs import bake
from lab.workshop.handout import chapters, command, pdf
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.command import Request
from lab.workshop.handout.words import WORDS
from tests.unit.fakes import MANIFEST, first_on_path, keep_made, printed, program
from tests.unit.handouts import folder

pytestmark = pytest.mark.slow

opened: list[str] = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
"""Every file that this process opens; an audit hook can't be removed again."""

MARKER = "MARK-OF-A-KEY"


@pytest.fixture(autouse=True)
def _chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "FOLDER", folder(tmp_path / "docs"))


def session(tmp_path: Path, text: str = "provider: docker\n") -> Session:
    (tmp_path / "lab").mkdir(exist_ok=True)
    (tmp_path / "lab" / "lab.yaml").write_text(text)
    return open_wanted(tmp_path / "lab" / "lab.yaml", printed()[0])


def request(
    own: Session, lang: str = "en", edition: str = "student", form: str = "html", **more: str
) -> Request:
    return command.request(own, lang, edition, form, more.get("out", ""), "", of=more.get("of", ""))


def test_a_handout_is_beside_the_lab_file_where_destroy_leaves_it(tmp_path: Path) -> None:
    own = session(tmp_path)
    written = command.write(own, request(own), consent=False)
    assert written == tmp_path / "lab" / "handouts" / "ha-lab" / "student-en.html"
    assert command.write(own, request(own), consent=False) == written, "ours is written again"
    assert not own.workspace.root.exists()


def test_a_lab_counts_as_up_while_its_machines_are_those_of_the_lab_file(tmp_path: Path) -> None:
    def says_not_up(text: str) -> bool:
        own = session(tmp_path, text)
        return WORDS["no_lab"].en in unescape(command.write(own, request(own), consent=False).read_text())

    lab_yaml = "provider: docker\n"
    assert says_not_up(lab_yaml)
    own = session(tmp_path, lab_yaml)
    own.workspace.write(own.workspace.root / ".vagrant/machines/lb1/docker/id", "1")
    keep_made(own.workspace, own.lab)
    assert not says_not_up(lab_yaml)
    assert says_not_up(lab_yaml + "network: {subnet: 192.168.57.0/24}\n")


@pytest.mark.parametrize(("health", "said"), [("healthy", True), ("degraded", True), ("down", False)])
def test_the_picture_of_a_lab_that_works_shows_what_status_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, health: Health, said: bool
) -> None:
    own = session(tmp_path)
    found = Status("ha-lab", own.lab.api.url, health, (), "", leader="cp2")
    monkeypatch.setattr(status, "look", lambda asked: found if asked is own else None)
    assert "cp2 leads etcd" not in command.write(own, request(own), consent=False).read_text(), "it is not up"
    own.workspace.write(own.workspace.root / ".vagrant/machines/lb1/docker/id", "1")
    keep_made(own.workspace, own.lab)
    own = open_wanted(own.path, printed()[0])
    assert ("cp2 leads etcd" in command.write(own, request(own), consent=False).read_text()) is said


def test_all_unknown_values_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        request(session(tmp_path), "kr", "teacher", "docx")
    assert [each.split()[0] for each in caught.value.problems] == ["--lang", "--for", "--format"]


@pytest.mark.parametrize("name", ["student-en.html", "index.html", "instructor-en.html"])
def test_nothing_that_is_not_ours_is_overwritten(tmp_path: Path, name: str) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\na2\n")
    out = tmp_path / "out"
    theirs = out / name
    out.mkdir()
    theirs.write_text("mine\n")
    edition = "instructor" if name.startswith("instructor") else "student"
    asked = request(own, edition=edition, out=str(out))
    write_class = partial(command.write_class, own, asked, tmp_path / "class.csv", consent=False)
    write = partial(command.write, own, asked, consent=False) if name == "student-en.html" else write_class
    with pytest.raises(LabStateError, match="not overwritten") as caught:
        write()
    assert str(theirs) in caught.value.message
    assert theirs.read_text() == "mine\n"
    if name != "instructor-en.html":
        assert [path for path in out.rglob("*") if path.is_file()] == [theirs]


def test_a_class_is_a_folder_for_each_seat_and_a_list(tmp_path: Path) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat,name\na1,Ada <b>\na2,\n")
    asked = request(own, of="class.csv", edition="student")
    listed = command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    assert listed == tmp_path / "lab" / "handouts" / "class" / "index.html"
    assert 'href="a1/student-en.html"' in listed.read_text()
    assert "Ada &lt;b&gt;" in listed.read_text()
    first, second = ((listed.parent / seat / "student-en.html").read_text() for seat in ("a1", "a2"))
    assert "https://192.168.57.10:6443" in first
    assert "https://192.168.58.10:6443" in second
    assert "192.168.56." not in first
    assert "ha-lab-a1" in first
    assert "Ada &lt;b&gt;" in first
    command.write_class(own, asked, tmp_path / "class.csv", consent=False)


def test_a_seats_kubeadm_comes_up_on_either_version_of_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = session(tmp_path)
    given: list[dict[str, Any]] = []

    def read(language: str, values: dict[str, Any], *words: object, **named: object) -> tuple[Chapter, ...]:
        given.append(values)
        return ()

    (tmp_path / "class.csv").write_text("seat\na1\n")
    monkeypatch.setattr(kernel, "cgroups", lambda root: Cgroups(2, frozenset()))
    monkeypatch.setattr(chapters, "read", read)
    command.write_class(own, request(own, of="class.csv"), tmp_path / "class.csv", consent=False)
    command.write(own, request(own), consent=False)
    assert [values["preflight"] for values in given] == ["Swap,SystemVerification", "Swap"]


def test_a_class_again_keeps_every_lab_and_its_subnet(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "net.yaml").write_text(MANIFEST)
    own = session(tmp_path, "provider: docker\nnetwork: {pod_network: net.yaml}\n")
    classes = {"first": "seat\na1\na2\n", "then": "seat\nnew\na2\na1\n"}
    for name, text in classes.items():
        (tmp_path / f"{name}.csv").write_text(text)
    asked = request(own, of="class.csv")
    out = command.write_class(own, asked, tmp_path / "first.csv", consent=False).parent
    before = {path: path.read_bytes() for path in out.glob("*/*")}
    command.write_class(own, asked, tmp_path / "then.csv", consent=False)
    assert {path: path.read_bytes() for path in before} == before
    assert "192.168.59.0/24" in (out / "new" / "lab.yaml").read_text()


def test_what_a_seat_changed_is_kept_and_named_and_keeps_no_other_seat_out(tmp_path: Path) -> None:
    said = printed()
    own = open_wanted(session(tmp_path).path, said[0])
    (tmp_path / "class.csv").write_text("seat\na1\na2\na3\na4\n")
    asked = request(own, of="class.csv")
    out = command.write_class(own, asked, tmp_path / "class.csv", consent=False).parent
    for path in out.glob("*/student-en.html"):
        path.unlink()
    changed, broken = out / "a1" / "lab.yaml", out / "a2" / "lab.yaml"
    changed.write_text("name: mine\nnetwork: {subnet: 192.168.57.0/24}\nnodes: {workers: {count: 1}}\n")
    broken.write_text("nodes: {workers: {count: many}}\n")
    foreign = out / "a3" / "student-en.html"
    foreign.write_text("mine\n")
    with pytest.raises(LabStateError) as caught:
        command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    seats = [line.partition(":")[0] for line in caught.value.message.splitlines()]
    assert seats == ["seat a2", "seat a3"]
    assert "nodes.workers.count" in caught.value.message
    assert str(foreign) in caught.value.message
    assert foreign.read_text() == "mine\n"
    assert changed.read_text().startswith("name: mine\n")
    assert "kept, since it differs" in said[1].getvalue()
    first = (out / "a1" / "student-en.html").read_text()
    assert "w1" in first
    assert "w2" not in first, "the handout is about the lab that the seat has"
    assert "ha-lab-a4" in (out / "a4" / "student-en.html").read_text()
    listed = (out / "index.html").read_text()
    assert 'href="a4/student-en.html"' in listed
    assert 'href="a3/student-en.html"' not in listed


def test_a_class_has_the_instructors_handout_once_and_no_seat_has_the_answers(tmp_path: Path) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\na2\n")
    out = tmp_path / "out"
    (out / "a1").mkdir(parents=True)
    earlier = out / "a1" / "instructor-en.html"
    earlier.write_text("ANSWER\n")
    said = printed()
    own = open_wanted(own.path, said[0])
    for edition in ("student", "instructor"):
        asked = request(own, edition=edition, out=str(out))
        command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    assert "ANSWER" in (out / "instructor-en.html").read_text()
    assert [path for path in out.glob("*/*") if "ANSWER" in path.read_text()] == [earlier]
    assert str(earlier) in said[1].getvalue().replace("\n", "")
    assert re.findall(r'href="([^"#]*)"', (out / "index.html").read_text()) == [
        "instructor-en.html",
        *(f"{seat}/{name}" for seat in ("a1", "a2") for name in ("lab.yaml", "student-en.html")),
    ]


def test_both_languages_of_a_class_are_in_one_list(tmp_path: Path) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\n")
    for language in chapters.LANGUAGES:
        for edition in ("student", "instructor"):
            asked = request(own, language, edition, out=str(tmp_path / "out"))
            listed = command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    assert re.findall(r'href="([^"#]*)"', listed.read_text()) == [
        *("instructor-en.html", "instructor-ko.html"),
        *("a1/lab.yaml", "a1/student-en.html", "a1/student-ko.html"),
    ]


def test_a_class_does_not_read_what_was_measured_in_the_instructors_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\na2\n")
    looked: list[Path] = []
    monkeypatch.setattr(command, "newest_report", looked.append)
    command.write_class(own, request(own, of="class.csv"), tmp_path / "class.csv", consent=False)
    assert looked == [], "a report has megabytes, and no seat's lab has one"
    command.write(own, request(own), consent=False)
    assert looked == [own.workspace.root]


def test_no_secret_is_in_a_handout_and_none_is_read(tmp_path: Path) -> None:
    own = session(tmp_path)
    root = own.workspace.root
    planted = ["secrets/ca.key", "secrets/ca.crt", "secrets/id_ed25519", "secrets/cp1/secrets", "kubeconfig"]
    planted += ["nodes/cp1/kubeadm-init.yaml", "nodes/cp1/ca.crt", "ssh_config", "logs/01-cp1-init.log"]
    for name in planted:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(MARKER)
    (root / "lab.json").write_text(json.dumps({"name": "ha-lab"}))
    (tmp_path / "class.csv").write_text("seat\na1\n")
    opened.clear()
    for language in chapters.LANGUAGES:
        for edition in ("student", "instructor"):
            asked = request(own, language, edition, out=str(tmp_path / "out"))
            command.write(own, asked, consent=False)
            command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    assert str(tmp_path / "class.csv") in opened, "the hook sees opened files"
    assert [path for path in opened if path in {str(root / name) for name in planted}] == []
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 4 + 1 + 2 + 1, "four handouts, the list, a seat's two and its lab"
    assert not [path for path in written if MARKER in path.read_text()]


def test_handouts_do_not_use_credentials() -> None:
    paths = sorted((REPOSITORY / "lab" / "workshop" / "handout").glob("*.py"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        names = {
            name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (*(alias.name for alias in node.names), getattr(node, "module", None) or "")
        }
        assert not names & {
            "credentials",
            "lab.workspace.render.credentials",
            "kubeconfig",
            "lab.verbs.kubeconfig",
            "remote",
        }, path
        for word in (".secrets", ".kubeconfig", "ca_key"):
            assert word not in text, f"{path}: {word}"


def test_both_languages_and_editions_take_a_moment(tmp_path: Path) -> None:
    own, started = session(tmp_path), time.monotonic()
    for language in chapters.LANGUAGES:
        for edition in ("student", "instructor"):
            command.write(own, request(own, language, edition), consent=False)
    assert time.monotonic() - started < 5


def chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program(tmp_path / "bin", "chromium", body)
    first_on_path(tmp_path / "bin", monkeypatch)


def test_a_pdf_is_made_from_the_html_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'for word in "$@"; do case $word in --print-to-pdf=*) echo %PDF >"${word#*=}" ;; esac; done'
    chromium(tmp_path, monkeypatch, body)
    monkeypatch.setattr(bake, "make_fit", lambda *_, **__: None)
    own = session(tmp_path)
    for _ in range(2):
        written = command.write(own, request(own, form="pdf"), consent=False)
    assert written.name == "student-en.pdf"
    assert written.read_text() == "%PDF\n%ha-lab handout\n"
    assert sorted(path.name for path in written.parent.iterdir()) == ["student-en.html", "student-en.pdf"]


def test_a_browser_that_creates_no_pdf_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "a.html").write_text("a")
    with pytest.raises(LabError, match="created no PDF"):
        pdf.write(tmp_path / "a.html", tmp_path / "a.pdf", mark="x")
    assert not (tmp_path / "a.pdf").exists()


@pytest.mark.parametrize(("language", "asked_for"), [("en", {"pdf"}), ("ko", {"pdf", "korean"})])
def test_the_html_is_written_even_if_a_pdf_needs_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, asked_for: set[str]
) -> None:
    seen: list[Any] = []

    def lacking(self: Session, purposes: set[str], *, consent: bool) -> None:
        seen.append((purposes, consent))
        raise HostNotFit("no browser", hint="--yes")

    monkeypatch.setattr(bake, "make_fit", lacking)
    own = session(tmp_path)
    with pytest.raises(HostNotFit):
        command.write(own, request(own, language, form="pdf"), consent=True)
    assert seen == [(asked_for, True)]
    assert [path.name for path in (tmp_path / "lab" / "handouts" / "ha-lab").iterdir()] == [
        f"student-{language}.html"
    ]
