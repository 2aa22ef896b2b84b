"""What the documents say is so: commands exist with their flags, named files are there, a page is a page."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.program import Program

import tasks
from lab.model.change import EFFECTS
from lab.system.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LIFECYCLE = (REPOSITORY / "docs" / "lifecycle.md").read_text(encoding="utf-8")
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs" / "decisions").glob("*.md")),
    REPOSITORY / "docs" / "handout" / "README.md",
]
"""Those that are no templates: the handout's chapters have tests of their own."""


def commands(text: str) -> list[str]:
    """The `./inv …` command lines of a document: in code blocks, indented or fenced, and between backticks."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ./inv")]
    fenced = re.findall(r"^```.*?$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines += [line for block in fenced for line in re.findall(r"(?:^|; )(\./inv[^;\n]*)", block, re.MULTILINE)]
    without_fences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*lines, *(" ".join(span.split()) for span in re.findall(r"`(\./inv [^`]+)`", without_fences))]


@functools.cache
def parse(command: str) -> None:
    """Let invoke read a command as it would, without running anything. Raises ParseError."""
    core = Parser(initial=Program().initial_context, ignore_unknown=True).parse_argv(shlex.split(command)[1:])
    verbs().parse_argv(core.unparsed)


@functools.cache
def verbs() -> Parser:
    """What reads each command; it copies a verb's context before it fills it."""
    return Parser(contexts=Collection.from_module(tasks).to_contexts())


def named_paths(text: str) -> Iterator[str]:
    """What stands between backticks and looks like a file or folder here; `x.py` alone may be one of lab/'s."""
    known = {path.name for path in REPOSITORY.iterdir()}
    for span in re.findall(r"`([^`\n]+)`", text):
        first = span.split()[0]
        of_repository = first.split("/")[0] in known or re.fullmatch(r"[\w-]+\.(md|ya?ml|py|txt|toml)", first)
        if of_repository and not first.startswith((".lab", ".venv")):
            yield first


def tracked_or_new() -> set[str]:
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        words, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    folders = {str(parent) for name in listed for parent in Path(name).parents}
    return {*listed, *folders, *(name.removeprefix("lab/") for name in listed)}


def test_readme_begins_with_the_one_command() -> None:
    assert commands(README)[0] == "./inv up --yes"


@pytest.mark.parametrize("command", sorted({c for path in DOCUMENTS for c in commands(path.read_text())}))
def test_every_command_in_a_document_is_one_that_invoke_understands(command: str) -> None:
    parse(command)


@pytest.mark.parametrize(
    "wrong", ["./inv rise", "./inv up --yess", "./inv verify --jsonn", "./inv bench --pairs"]
)
def test_a_command_that_invoke_does_not_understand_would_be_found(wrong: str) -> None:
    with pytest.raises(ParseError):
        parse(wrong)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    there = tracked_or_new()
    named = {name.rstrip("/") for name in named_paths(path.read_text(encoding="utf-8"))}
    assert sorted(named - there) == []


def test_ci_runs_what_the_page_for_developers_says() -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [line for line in lines if line.startswith("./inv")]
    suites = [f"./inv test --yes{suite}" for suite in ("", " --sabotage --drills --lifecycle", " --vm")]
    assert run == [*suites, "./inv lint --yes"]
    page = REPOSITORY / "docs" / "contributing.md"
    assert set(run) <= set(commands(page.read_text(encoding="utf-8")))


def test_the_changelog_has_a_section_for_what_comes_next() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", text, re.MULTILINE)


def test_the_design_fits_a_page() -> None:
    assert len((REPOSITORY / "docs" / "DESIGN.md").read_text(encoding="utf-8").splitlines()) <= 85


def test_decisions_are_numbered_in_a_row() -> None:
    names = sorted(path.name for path in (REPOSITORY / "docs" / "decisions").glob("[0-9]*.md"))
    assert [name[:4] for name in names] == [f"{number:04d}" for number in range(1, len(names) + 1)]


SPOKEN = {
    "members": "adds or removes",
    "upgraded": "upgrades Kubernetes",
    "resized": "resizes",
    "load-balancer": "HAProxy",
    "pod-network": "manifest",
    "network-policy": "kube-router",
    "addons": "add-ons",
}
"""How the page about changes begins to say what a change of a key does, where it is not impossible."""


def rows(text: str) -> dict[str, str]:
    """The table of that page: what a change does, by key; `*` stands for each role's group."""
    found = {}
    for keys, effect in re.findall(r"^\| (`[a-z_.*]+`.*?) \| (.*) \|$", text, re.MULTILINE):
        for key in re.findall(r"`([a-z_.*]+)`", f"{keys} {effect}"):
            found[key] = effect
    return found


def test_the_page_about_changes_says_of_each_key_what_change_py_says() -> None:
    said = rows(LIFECYCLE)
    wrong = []
    for key, effect in EFFECTS.items():
        text = said.get(key) or said.get(re.sub(r"^nodes\.\w+", "nodes.*", key), "")
        start = {"impossible": "impossible: ", "none": "touches no machine: "}.get(effect.kind, "")
        right = text == f"{start}{effect.why}" if start else SPOKEN[effect.kind] in text
        if not right:
            wrong.append(key)
    assert wrong == []
    known = {*EFFECTS, *(re.sub(r"^nodes\.\w+", "nodes.*", key) for key in EFFECTS)}
    assert sorted(set(said) - known) == []


def typed_by_tests() -> list[tuple[str, ...]]:
    """The verbs with their words that tests type into real labs; a verb that a test is given is "*".

    Two that need no lab are typed by unit tests.
    """
    found: list[tuple[str, ...]] = [("doctor",), ("docs",)]
    for suite in ("labs", "lifecycle", "breaking", "pair"):
        for path in (REPOSITORY / "tests" / suite).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    words = ["*" if isinstance(each, ast.Starred) else _text(each) for each in node.args]
                    if node.func.attr in ("inv", "succeed", "argv", "measured") and words and words[0]:
                        found.append(tuple(word for word in words if word))
    return found


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_typed(command: str, typed: list[tuple[str, ...]]) -> bool:
    """Whether a test types this verb with at least these options, whatever machine it names."""
    verb, *words = shlex.split(command)[1:]
    options = {word for word in words if word.startswith("--")}
    verbs = {words[0] for words in typed}
    return verb in verbs and any(words[0] in (verb, "*") and options <= set(words[1:]) for words in typed)


TYPED = [REPOSITORY / "README.md", REPOSITORY / "docs" / "lifecycle.md"]
"""Pages whose every command is typed into a real lab; those of other pages are read by invoke at least."""


@pytest.mark.parametrize(
    "command", sorted({c.partition(" -- ")[0] for path in TYPED for c in commands(path.read_text())})
)
def test_every_command_of_these_pages_is_typed_into_a_real_lab(command: str) -> None:
    assert is_typed(command, typed_by_tests())


def test_a_command_that_no_test_types_would_be_found() -> None:
    typed = [("up", "--yes"), ("*", "--measure"), ("status",)]
    assert is_typed("./inv up", typed)
    assert is_typed("./inv up --measure", typed)
    assert not is_typed("./inv status --json", typed)
    assert not is_typed("./inv stop w3", typed)
