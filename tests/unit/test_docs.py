"""The pages: every link leads somewhere, what is made from the code is as the code, no registry is named."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from invoke.collection import Collection

import tasks
from lab import config
from lab.config.shape import File
from lab.errors import LabError
from lab.model.change import EFFECTS
from lab.system.paths import REPOSITORY
from lab.verbs.docs import lab_yaml, reference, site
from tests.docs import screenshots
from tests.unit.typed import typed

DOCS = REPOSITORY / "docs"
PAGES = [path for path in site.sources() if path.suffix == ".md"]
LINK = re.compile(r"(?<!`)(!?)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@functools.cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(markdown: str) -> str:
    fenced = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.sub(
        r"`[^`\n]*`", "", "\n".join(line for line in fenced.splitlines() if not line.startswith("    "))
    )


def links(markdown: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return [target for _, target in LINK.findall(without_code(markdown))]


def slug(heading: str) -> str:
    """A heading's anchor, as forges make it, and ProperDocs for these headings too."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(markdown: str) -> set[str]:
    found = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", found, re.MULTILINE)}


def broken(path: Path, markdown: str) -> list[str]:
    """Links of a page that lead nowhere, to a file that is no page or picture of the site, or out of it."""
    wrong = []
    known = set(site.sources())
    for target in links(markdown):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if there not in known or (anchor and anchor not in anchors(text(there) if file else markdown)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_link_leads_to_a_page_and_a_heading(path: Path) -> None:
    assert broken(path, text(path)) == []


@pytest.mark.parametrize(
    "link",
    [
        "[x](nowhere.md)",
        "[x](lifecycle.md#nowhere)",
        "[x](#nowhere)",
        "![x](images/no.png)",
        "[x](../lab.yaml)",
    ],
)
def test_a_link_that_leads_nowhere_would_be_found(link: str) -> None:
    assert broken(DOCS / "verbs.md", f"# Verbs\n\n{link}\n") != []


def test_a_link_that_leads_somewhere_would_not() -> None:
    page = "# Verbs\n\n## Up, and `down`\n\n[x](lifecycle.md#the-plan) [y](#up-and-down) `[z](no.md)`\n"
    assert broken(DOCS / "verbs.md", page) == []


def test_every_page_of_docs_is_in_its_index() -> None:
    listed = {(DOCS / target).resolve() for target in links(text(DOCS / "README.md"))}
    decisions = {path for path in PAGES if path.parent.name == "decisions" and path.name != "README.md"}
    below = {path for path in PAGES if path.is_relative_to(DOCS)} - decisions - {DOCS / "README.md"}
    assert below <= listed


def test_pages_and_the_picture_are_as_the_code_has_them() -> None:
    known = Collection.from_module(tasks).tasks
    differing = [name(path) for path, made in reference.pages(known).items() if text(path) != made]
    assert differing == [], "`./inv docs --write` writes them"


def test_a_page_that_differs_from_the_code_would_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {tmp_path / "old.md": "new\n", tmp_path / "same.md": "same\n", tmp_path / "none.md": "none\n"}
    (tmp_path / "old.md").write_text("old\n")
    (tmp_path / "same.md").write_text("same\n")
    monkeypatch.setattr(reference, "pages", lambda _known: pages)
    assert reference.write({}) == [tmp_path / "old.md", tmp_path / "none.md"]
    assert {path: path.read_text() for path in pages} == pages


def test_the_reference_of_lab_yaml_has_every_key_with_what_it_may_hold() -> None:
    page = text(DOCS / "lab-yaml.md")
    keys = re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)
    assert sorted(keys) == sorted(EFFECTS)
    assert lab_yaml.allowed("nodes.control_planes.count") == "1, 3 or 5: etcd wants an odd number"
    assert lab_yaml.allowed("provider") == "auto, docker, libvirt, virtualbox"
    assert lab_yaml.allowed("network.public_addresses") == "true or false"
    assert "| `name` | `ha-lab` |" in page
    assert set(File.model_fields) == {key.partition(".")[0] for key in keys}


def test_comments_of_a_lab_file_are_those_right_above_a_key() -> None:
    written = "# The first\n# line.\nname: x\n\n# Not of a key.\n\nnodes:\n  # Inside.\n  workers: 1\n"
    told = lab_yaml.comments(written, {"name": 3, "nodes": 7, "nodes.workers": 9})
    assert told == {"name": "The first line.", "nodes": "", "nodes.workers": "Inside."}


# The picture.


def test_the_picture_shows_the_machines_of_the_default_lab() -> None:
    picture = text(DOCS / "images" / "topology.svg")
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    lab = config.default()
    for node in lab.nodes:
        assert node.name in shown
        assert str(node.address) in shown
    names = [each for each in shown if re.fullmatch(r"(lb|cp|w)\d+", each)]
    assert sorted(names) == sorted(node.name for node in lab.nodes)
    assert lab.api.url in shown


def test_pictures_are_small_and_ask_nothing_of_other_hosts() -> None:
    for path in sorted((DOCS / "images").glob("*")):
        assert path.stat().st_size < 250_000, path.name
        if path.suffix == ".svg":
            assert not loads(text(path)), path.name


def loads(picture: str) -> list[str]:
    """What an SVG asks of another file or host."""
    return re.findall(r"@import|url\((?!#)|href=\"(?!#)|<(?:image|script|foreignObject)", picture)


@pytest.mark.parametrize("part", ["@import 'x'", "url(https://x.test/f.woff2)", '<image href="x.png"/>'])
def test_a_picture_that_asks_for_something_would_be_found(part: str) -> None:
    assert loads(f"<svg><style>{part}</style></svg>")


def test_the_readme_shows_the_picture_and_is_short() -> None:
    assert "docs/images/topology.svg" in links(text(REPOSITORY / "README.md"))
    assert len(text(REPOSITORY / "README.md").splitlines()) <= 120


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_screenshot_that_was_made_is_shown_where_its_comment_is(path: Path) -> None:
    assert screenshots.placed(text(path), path, DOCS / "images") == text(path)
    asked = [each.name for each in screenshots.comments(text(path))]
    assert set(asked) <= set(screenshots.NAMES)


# Troubleshooting.


@functools.cache
def said_by_the_code() -> str:
    """Every text of the kit's own programs, apart from one another."""
    files = [*(REPOSITORY / "lab").rglob("*.py"), REPOSITORY / "tasks.py"]
    constants = [
        node.value
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    scripts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "provision").rglob("*.sh")]
    return "\0".join([*constants, *scripts])


def unsaid(message: str) -> list[str]:
    """The parts of a message that no text of the code has; `…` stands for what differs."""
    parts = [part.strip(" :(,") for sentence in message.split(", the ") for part in re.split("…|: ", sentence)]
    return [part for part in parts if len(part) > 3 and part not in said_by_the_code()]


def messages() -> list[str]:
    table = text(DOCS / "troubleshooting.md").partition("| it says | do |")[2]
    return re.findall(r"^\| (?!---)(.*?) \|", table, re.MULTILINE)


@pytest.mark.slow
def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    assert len(messages()) > 20
    assert {message: unsaid(message) for message in messages() if unsaid(message)} == {}
    assert unsaid("no program says … this") == ["no program says"]


# Hosts.

REGISTRIES = re.compile(
    r"\b(?:(?:deb|security|snapshot|ftp|archive)\.debian\.org|(?:test\.)?pypi\.org|pythonhosted\.org"
    r"|(?:proxy|sum)\.golang\.org|registry\.npmjs\.org|crates\.io|repo1?\.maven(?:\.apache)?\.org)\b"
)
"""Hosts of package registries: which of them is used is the clients' own setting."""


@pytest.mark.slow
def test_no_registry_s_host_is_named_anywhere() -> None:
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        words, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    found = {}
    for each in listed:
        path = REPOSITORY / each
        if path.is_file():
            named = REGISTRIES.findall(path.read_bytes().decode("utf-8", errors="replace"))
            if named:
                found[each] = sorted(set(named))
    assert found == {}


@pytest.mark.parametrize("host", ["deb", "security"], ids=str)
def test_a_registry_s_host_would_be_found(host: str) -> None:
    assert REGISTRIES.findall(f"http://{host}.debian" + ".org/debian")
    assert not REGISTRIES.findall("https://www.debian.org/releases/ and https://kubernetes.io/docs/")


# The site.


class Reader(HTMLParser):
    """What a page of the site loads, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.scripts += tag == "script"
        if tag in ("img", "source", "iframe"):
            self.loads.append(values.get("src") or "")
        if tag == "link":
            self.loads.append(values.get("href") or "")
        if tag == "a":
            self.leads.append(values.get("href") or "")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert list(site.build(folder)) == []
    return folder


@functools.cache
def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(built: Path) -> None:
    pages = sorted(built.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for path in pages:
        reader = read(path)
        assert reader.scripts == 0, path
        for target in reader.loads:
            assert not re.match(r"\w+:|//", target), (path, target)
            assert (path.parent / target).exists(), (path, target)
    style = (built / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import", style)


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_and_a_heading(built: Path) -> None:
    for path in sorted(built.rglob("*.html")):
        for target in read(path).leads:
            if re.match(r"https?://", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.is_file(), (path, target)
            assert not anchor or anchor in read(there).ids, (path, target)


@pytest.mark.slow
def test_the_navigation_of_each_page_has_all_pages_of_the_index(built: Path) -> None:
    titles = re.findall(r"^- \[([^\]]+)\]", text(DOCS / "README.md"), re.MULTILINE)
    shown = (built / "index.html").read_text(encoding="utf-8")
    assert [title for title in titles if f">{title}</a>" not in shown] == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    with pytest.raises(LabError, match="holds something else"):
        site.build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine\n"


@pytest.mark.slow
def test_the_verb_builds_the_site_and_names_broken_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "build", lambda target: [])
    done = typed(tmp_path, "docs", "--out", str(tmp_path / "site"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/site/index.html is written" in done.stdout
    monkeypatch.setattr(site, "build", lambda target: ["a page links to nowhere"])
    done = typed(tmp_path, "docs")
    assert done.returncode == 1
    assert "error: a page links to nowhere\n  next: correct the links" in done.stderr


@pytest.mark.slow
def test_a_link_that_leads_nowhere_is_a_problem_of_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Home\n\n[x](docs/none.md) [y](docs/README.md#none)\n")
    (tmp_path / "docs" / "README.md").write_text("# All\n\n## One\n\n- [Two](two.md): it.\n")
    (tmp_path / "docs" / "two.md").write_text("# Two\n")
    monkeypatch.setattr(site, "REPOSITORY", tmp_path)
    problems = site.build(tmp_path / "site")
    assert len(problems) == 2
    assert "docs/none.md" in problems[0]
    assert "#none" in problems[1]
    assert (tmp_path / "site" / "docs" / "two.html").exists()


def test_the_navigation_is_that_of_the_index() -> None:
    index = (
        "# All\n\nText.\n\n## Use it\n\n- [A](a.md): one.\n- [B](../B.md): two.\n\n"
        "## Else\n\n- [C](x/c.md): c.\n"
    )
    assert site.navigation(index) == [
        {"Home": "README.md"},
        {"Use it": [{"A": "docs/a.md"}, {"B": "B.md"}]},
        {"Else": [{"C": "docs/x/c.md"}]},
    ]
