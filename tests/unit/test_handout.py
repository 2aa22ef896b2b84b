"""The verb handout: what it writes and where, what it refuses, and that nothing secret is ever read."""

from __future__ import annotations

import ast
import json
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ConfigError, HostNotFit, LabError, LabStateError
from lab.host import Cgroups, kernel
from lab.session import Session, open_wanted
from lab.system.paths import REPOSITORY
from lab.verbs import bake
from lab.workshop.handout import chapters, command, pdf
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.command import Wish
from lab.workshop.handout.words import WORDS
from tests.unit.fakes import MANIFEST, first_on_path, keep_made, printed, program
from tests.unit.handouts import folder

pytestmark = pytest.mark.slow

opened: list[str] = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
"""Every file that this process opens; Python offers no way to take it out again."""

MARKER = "MARK-OF-A-KEY"


@pytest.fixture(autouse=True)
def _chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "FOLDER", folder(tmp_path / "docs"))


def session(tmp_path: Path, text: str = "provider: docker\n") -> Session:
    (tmp_path / "lab").mkdir(exist_ok=True)
    (tmp_path / "lab" / "lab.yaml").write_text(text)
    return open_wanted(tmp_path / "lab" / "lab.yaml", printed()[0])


def wish(own: Session, lang: str = "en", edition: str = "student", form: str = "html", **more: str) -> Wish:
    return command.wish(own, lang, edition, form, more.get("out", ""), "", of=more.get("of", ""))


def test_a_handout_lies_beside_the_lab_file_where_destroy_leaves_it(tmp_path: Path) -> None:
    own = session(tmp_path)
    written = command.write(own, wish(own), consent=False)
    assert written == tmp_path / "lab" / "handouts" / "ha-lab" / "student-en.html"
    assert command.write(own, wish(own), consent=False) == written, "ours is written again"
    assert not own.workspace.root.exists()


def test_a_lab_counts_as_up_while_its_machines_are_those_of_the_lab_file(tmp_path: Path) -> None:
    def says_not_up(text: str) -> bool:
        own = session(tmp_path, text)
        return WORDS["no_lab"].en in unescape(command.write(own, wish(own), consent=False).read_text())

    lab_yaml = "provider: docker\n"
    assert says_not_up(lab_yaml)
    own = session(tmp_path, lab_yaml)
    own.workspace.write(own.workspace.root / ".vagrant/machines/lb1/docker/id", "1")
    keep_made(own.workspace, own.lab)
    assert not says_not_up(lab_yaml)
    assert says_not_up(lab_yaml + "network: {subnet: 192.168.57.0/24}\n")


def test_what_is_not_known_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        wish(session(tmp_path), "kr", "teacher", "docx")
    assert [each.split()[0] for each in caught.value.problems] == ["--lang", "--for", "--format"]


@pytest.mark.parametrize("way", ["one", "class"])
def test_nothing_that_is_not_ours_is_overwritten(tmp_path: Path, way: str) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\na2\n")
    out = tmp_path / "out"
    theirs = out / "student-en.html" if way == "one" else out / "a2" / "lab.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine\n")
    asked = wish(own, out=str(out))
    write = {
        "one": lambda: command.write(own, asked, consent=False),
        "class": lambda: command.write_class(own, asked, tmp_path / "class.csv", consent=False),
    }
    with pytest.raises(LabStateError, match="so not overwritten") as caught:
        write[way]()
    assert str(theirs) in caught.value.message
    assert [path for path in out.rglob("*") if path.is_file()] == [theirs]


def test_a_class_is_a_folder_for_each_seat_and_a_list(tmp_path: Path) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat,name\na1,Ada <b>\na2,\n")
    asked = wish(own, of="class.csv", edition="student")
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
    told: list[dict[str, Any]] = []

    def read(language: str, values: dict[str, Any], *words: object, **named: object) -> tuple[Chapter, ...]:
        told.append(values)
        return ()

    (tmp_path / "class.csv").write_text("seat\na1\n")
    monkeypatch.setattr(kernel, "cgroups", lambda root: Cgroups(2, frozenset()))
    monkeypatch.setattr(chapters, "read", read)
    command.write_class(own, wish(own, of="class.csv"), tmp_path / "class.csv", consent=False)
    command.write(own, wish(own), consent=False)
    assert [values["preflight"] for values in told] == ["Swap,SystemVerification", "Swap"]


def test_a_class_again_keeps_labs_and_overwrites_none_that_was_changed(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "net.yaml").write_text(MANIFEST)
    own = session(tmp_path, "provider: docker\nnetwork: {pod_network: net.yaml}\n")
    classes = {"first": "seat\na1\na2\n", "then": "seat\nnew\na2\na1\n"}
    for name, text in classes.items():
        (tmp_path / f"{name}.csv").write_text(text)
    asked = wish(own, of="class.csv")
    out = command.write_class(own, asked, tmp_path / "first.csv", consent=False).parent
    before = {path: path.read_bytes() for path in out.glob("*/*")}
    command.write_class(own, asked, tmp_path / "then.csv", consent=False)
    assert {path: path.read_bytes() for path in before} == before
    assert "192.168.59.0/24" in (out / "new" / "lab.yaml").read_text()

    changed = [out / "a1" / "lab.yaml", out / "a2" / "pod-network.yaml"]
    for path in changed:
        path.write_text("# mine\n" + path.read_text())
    (out / "index.html").unlink()
    with pytest.raises(LabStateError, match="so not overwritten") as caught:
        command.write_class(own, asked, tmp_path / "then.csv", consent=False)
    assert all(str(path) in caught.value.message for path in changed)
    assert caught.value.message.count("/lab.yaml") == 1
    assert "--out" in caught.value.hint
    assert not (out / "index.html").exists()
    assert all(path.read_text().startswith("# mine\n") for path in changed)


def test_a_class_does_not_read_what_was_measured_in_the_instructors_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = session(tmp_path)
    (tmp_path / "class.csv").write_text("seat\na1\na2\n")
    looked: list[Path] = []
    monkeypatch.setattr(command, "newest_report", looked.append)
    command.write_class(own, wish(own, of="class.csv"), tmp_path / "class.csv", consent=False)
    assert looked == [], "a report has megabytes, and no seat's lab has one"
    command.write(own, wish(own), consent=False)
    assert looked == [own.workspace.root]


def test_no_secret_is_in_a_handout_and_none_is_even_read(tmp_path: Path) -> None:
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
            asked = wish(own, language, edition, out=str(tmp_path / "out"))
            command.write(own, asked, consent=False)
            command.write_class(own, asked, tmp_path / "class.csv", consent=False)
    assert str(tmp_path / "class.csv") in opened, "files are seen as they are opened"
    assert [path for path in opened if path in {str(root / name) for name in planted}] == []
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 4 + 1 + 4 + 1
    assert not [path for path in written if MARKER in path.read_text()]


def test_handouts_know_nothing_of_credentials() -> None:
    for path in (REPOSITORY / "lab" / "handout").glob("*.py"):
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
            command.write(own, wish(own, language, edition), consent=False)
    assert time.monotonic() - started < 5


def chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program(tmp_path / "bin", "chromium", body)
    first_on_path(tmp_path / "bin", monkeypatch)


def test_a_pdf_is_made_of_the_html_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'for word in "$@"; do case $word in --print-to-pdf=*) echo %PDF >"${word#*=}" ;; esac; done'
    chromium(tmp_path, monkeypatch, body)
    monkeypatch.setattr(bake, "make_fit", lambda *_, **__: None)
    own = session(tmp_path)
    for _ in range(2):
        written = command.write(own, wish(own, form="pdf"), consent=False)
    assert written.name == "student-en.pdf"
    assert written.read_text() == "%PDF\n%ha-lab handout\n"
    assert sorted(path.name for path in written.parent.iterdir()) == ["student-en.html", "student-en.pdf"]


def test_a_browser_that_makes_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "a.html").write_text("a")
    with pytest.raises(LabError, match="made no PDF"):
        pdf.write(tmp_path / "a.html", tmp_path / "a.pdf", mark="x")
    assert not (tmp_path / "a.pdf").exists()


@pytest.mark.parametrize(("language", "asked_for"), [("en", {"pdf"}), ("ko", {"pdf", "korean"})])
def test_where_a_pdf_lacks_something_the_html_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, asked_for: set[str]
) -> None:
    seen: list[Any] = []

    def lacking(self: Session, purposes: set[str], *, consent: bool) -> None:
        seen.append((purposes, consent))
        raise HostNotFit("no browser", hint="--yes")

    monkeypatch.setattr(bake, "make_fit", lacking)
    own = session(tmp_path)
    with pytest.raises(HostNotFit):
        command.write(own, wish(own, language, form="pdf"), consent=True)
    assert seen == [(asked_for, True)]
    assert [path.name for path in (tmp_path / "lab" / "handouts" / "ha-lab").iterdir()] == [
        f"student-{language}.html"
    ]
