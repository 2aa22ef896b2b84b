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
from lab.errors import ConfigError, HostNotFit, LabError
from lab.health import status
from lab.host.doctor import finding
from lab.model.change import EFFECTS
from lab.system import commandline
from lab.system.paths import REPOSITORY
from lab.verbs import plan
from lab.workshop.task import command as task_command

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

# A word that ends as host names do. docker.io is a Debian package.
HOST_NAME = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:org|com|io|dev|net|cloud)\b")
NO_HOSTS = {"docker.io", "rbac.authorization.k8s.io"}


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


def test_readme_names_every_verb() -> None:
    verbs = {name.replace("_", "-") for name in Collection.from_module(tasks).task_names}
    assert {shlex.split(command)[1] for command in commands(README)} >= verbs


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    there = tracked_or_new()
    named = {name.rstrip("/") for name in named_paths(path.read_text(encoding="utf-8"))}
    assert sorted(named - there) == []


def test_readme_names_the_paths_that_a_reader_needs() -> None:
    assert {"lab.yaml", "examples/smallest.yaml", "docs/DESIGN.md", ".ci/run"} <= set(named_paths(README))


@pytest.mark.parametrize("path", [*DOCUMENTS, REPOSITORY / ".ci" / "run"], ids=lambda path: path.name)
def test_no_document_names_a_host_of_the_internet(path: Path) -> None:
    assert sorted(set(HOST_NAME.findall(path.read_text(encoding="utf-8").lower())) - NO_HOSTS) == []


def test_ci_runs_what_the_readme_tells_developers() -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [line for line in lines if line.startswith("./inv")]
    suites = [f"./inv test --yes{suite}" for suite in ("", " --sabotage --drills --lifecycle", " --vm")]
    assert run == [*suites, "./inv lint --yes"]
    assert set(run) <= set(commands(README))


def test_the_changelog_has_a_section_for_what_comes_next() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", text, re.MULTILINE)


def test_the_design_fits_a_page() -> None:
    assert len((REPOSITORY / "docs" / "DESIGN.md").read_text(encoding="utf-8").splitlines()) <= 70


def test_decisions_are_numbered_in_a_row() -> None:
    names = sorted(path.name for path in (REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert [name[:4] for name in names] == [f"{number:04d}" for number in range(1, len(names) + 1)]


SPOKEN = {
    "members": "adds or removes",
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
    """The verbs with their words that tests type into real labs; a verb that a test is given is "*"."""
    found = []
    for suite in ("labs", "lifecycle"):
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


@pytest.mark.parametrize("command", sorted(set(commands(LIFECYCLE))))
def test_every_command_of_the_page_about_changes_is_typed_into_a_real_lab(command: str) -> None:
    assert is_typed(command, typed_by_tests())


def test_a_command_that_no_test_types_would_be_found() -> None:
    typed = [("up", "--yes"), ("*", "--measure"), ("status",)]
    assert is_typed("./inv up", typed)
    assert is_typed("./inv up --measure", typed)
    assert not is_typed("./inv status --json", typed)
    assert not is_typed("./inv stop w3", typed)


def cells(section: str) -> dict[str, list[str]]:
    """The rows of a section's tables: the first cell → the others."""
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in found}


def test_the_exit_codes_are_those_of_the_code() -> None:
    table = cells(README.partition("### Exit codes")[2].partition("\n## ")[0])
    assert table[str(LabError("").exit_code)][0].startswith("failed")
    assert ConfigError([]).exit_code == commandline.USAGE
    assert table[str(commandline.USAGE)][0].startswith("what was typed or `lab.yaml` is wrong")
    assert table[str(HostNotFit("").exit_code)] == ["this host is not fit"]
    assert [table["`plan`"][code] for code in (plan.NOTHING, plan.IMPOSSIBLE, plan.CHANGES)] == [
        "nothing to change",
        "something is impossible, or any error",
        "there are changes",
    ]
    for health, code in status.EXIT_CODES.items():
        assert table["`status`"][code].startswith(health)
    words = {"done": "done", "not yet": "not yet done", "broken": "done, but wrong"}
    for state, code in task_command.EXIT_CODES.items():
        assert table["`task`"][code] == words[state]
    assert f"{finding.NOT_FIT} not fit, {finding.FIT_AFTER_REPAIRS} fit after" in table["`doctor`"][3]
