"""What a public project has beside its code is true: licence, version, workflows, templates, an action."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.exceptions import ParseError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hatch_build import read
from lab.golden.bundle import PYTHONS
from lab.system.paths import REPOSITORY
from lab.system.version import version
from tests.unit.fakes import program
from tests.unit.test_readme import commands, named_paths, parse, tracked_or_new

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
HOME = PROJECT["urls"]["Homepage"]
"""Where the project lives; this table is the one place that says it."""

GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yaml"))
ACTION = REPOSITORY / "action.yml"
PAGES = [
    *(REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    GITHUB / "PULL_REQUEST_TEMPLATE.md",
]
"""Pages that test_readme.py does not hold."""

DATA = [*WORKFLOWS, *FORMS, ACTION, GITHUB / "dependabot.yml", REPOSITORY / ".pre-commit-config.yaml"]


def content(path: Path) -> Any:
    """A YAML file as a forge reads it: `on` and `3.10` are words."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  makes words only


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(each)


def values(value: Any, key: str) -> Iterator[Any]:
    """What a key has, wherever it is in a file."""
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name == key)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from values(each, key)


def typed(text: str) -> list[str]:
    """The commands of the kit in a text of a workflow, a form or a hook, as they are in a checkout."""
    text = text.replace('"$GITHUB_ACTION_PATH/inv"', "./inv")
    found = re.findall(r"\./inv(?= )(?: [^`)\n]*)?", text)
    return [re.sub(r'"\$\{\w+\[@\]\}"|"\$\w+"', "word", command) for command in found]


# Commands and paths.


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.name)
def test_every_command_in_a_file_of_the_forge_exists(path: Path) -> None:
    for text in strings(content(path)):
        for command in typed(text):
            parse(re.sub(r" word$", "", command))


def test_commands_are_found_in_all_of_them_that_have_some() -> None:
    found = {path.name: sum(len(typed(text)) for text in strings(content(path))) for path in DATA}
    assert found.pop("dependabot.yml") == 0
    assert all(found.values()), found


def test_a_command_that_does_not_exist_would_be_found() -> None:
    [command] = typed('x=$("$GITHUB_ACTION_PATH/inv" verify --junitt "$JUNIT")')
    with pytest.raises(ParseError):
        parse(command)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_and_paths_of_the_pages_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command in commands(text):
        parse(command)
    assert sorted({name.rstrip("/") for name in named_paths(text)} - tracked_or_new()) == []


def test_a_newcomer_finds_where_things_go() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert commands(text)[0] == "./inv test --quick"
    places = {"lab/health/checks/", "lab/drill/catalogue.py", "tests/breaking/sabotages.py", "docs/handout/en/"}
    assert places <= set(named_paths(text))


# Licence, version, packages.


def test_the_licence_is_apache_2() -> None:
    text = (REPOSITORY / "LICENSE").read_bytes()
    known = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256(text).hexdigest() == known, "not the text as Apache publishes it"
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]


def test_the_notice_names_parts_that_are_here() -> None:
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    named = re.findall(r"(?:supply|provision)/\S+", notice)
    assert len(named) == 5
    for pattern in named:
        assert list(REPOSITORY.glob(pattern)), pattern


def headings(changelog: str) -> list[str]:
    """The names of its sections that have one, in their order."""
    return re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)


def release_problems(changelog: str, current: str) -> list[str]:
    """What does not agree between the changelog's headings, its links and the version."""
    found = []
    first, *released = headings(changelog)
    if first != "Unreleased":
        found.append("the first section is not Unreleased")
    if [Version(each) for each in released] != sorted(map(Version, released), reverse=True):
        found.append("sections are not in order")
    dated = re.findall(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    found += [f"{each} has no date" for each in released if each not in dated]
    newest = Version(released[0])
    now = Version(current)
    if not (now == newest or (now.is_devrelease and now > newest)):
        found.append(f"the version is {current}, and the newest section {newest}")
    wanted = {"Unreleased": f"{HOME}/compare/v{newest}...HEAD"}
    for new, old in zip(released, [*released[1:], None], strict=True):
        wanted[new] = f"{HOME}/compare/v{old}...v{new}" if old else f"{HOME}/releases/tag/v{new}"
    if dict(re.findall(r"^\[(.+?)\]: (.+)$", changelog, re.MULTILINE)) != wanted:
        found.append(f"the links are not {wanted}")
    return found


def test_version_and_changelog_agree() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert release_problems(text, version()) == []


GOOD = f"""
## [Unreleased]
## [0.2.0] - 2027-01-02
## [0.1.0] - 2026-11-29

[Unreleased]: {HOME}/compare/v0.2.0...HEAD
[0.2.0]: {HOME}/compare/v0.1.0...v0.2.0
[0.1.0]: {HOME}/releases/tag/v0.1.0
"""


@pytest.mark.parametrize("current", ["0.2.0", "0.3.0.dev0"])
def test_a_release_and_what_follows_it_agree(current: str) -> None:
    assert release_problems(GOOD, current) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("## [Unreleased]\n", "", "the first section"),
        (" - 2027-01-02", " - soon", "0.2.0 has no date"),
        ("v0.2.0...HEAD", "v0.1.0...HEAD", "the links"),
        (f"[0.2.0]: {HOME}/compare/v0.1.0...v0.2.0\n", "", "the links"),
        ("## [0.2.0] - 2027-01-02\n", "", "the newest section 0.1.0"),
    ],
)
def test_a_release_that_was_half_made_is_found(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    assert problem in "; ".join(release_problems(GOOD.replace(old, new), "0.2.0"))


def test_a_version_that_did_not_move_is_found() -> None:
    assert release_problems(GOOD, "0.1.0") == ["the version is 0.1.0, and the newest section 0.2.0"]
    assert release_problems(GOOD, "0.2.0.dev0") != []


def test_one_file_has_the_version() -> None:
    code = [*(REPOSITORY / "lab").rglob("*.py"), REPOSITORY / "tasks.py", REPOSITORY / "inv"]
    assert [path.name for path in code if version() in path.read_text(encoding="utf-8")] == []


def test_pythons_are_the_same_everywhere() -> None:
    classified = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if " :: 3." in each]
    [matrix] = values(content(GITHUB / "workflows" / "ci.yml"), "matrix")
    assert classified == matrix["python"] == list(PYTHONS) == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={classified[0]}"
    [lowest] = re.findall(r"sys.version_info < \((\d), (\d+)\)", (REPOSITORY / "inv").read_text())
    assert ".".join(lowest) == classified[0]


def test_development_tools_are_pinned_as_the_lock_has_them() -> None:
    pins, users = read((REPOSITORY / "requirements.txt").read_text(encoding="utf-8"))
    groups = PYPROJECT["dependency-groups"]
    for each in groups["dev"]:
        assert each == pins[canonicalize_name(Requirement(each).name)].partition(" ")[0]
    assert [each for each in PYPROJECT["build-system"]["requires"] if each not in groups["dev"]] == []
    direct = {canonicalize_name(Requirement(each).name) for group in groups.values() for each in group}
    assert direct == {name for name, by in users.items() if PROJECT["name"] in by}


def test_the_lock_satisfies_what_the_kit_asks_for() -> None:
    pins, _ = read((REPOSITORY / "requirements.txt").read_text(encoding="utf-8"))
    for each in map(Requirement, PYPROJECT["dependency-groups"]["run"]):
        pinned = Requirement(pins[canonicalize_name(each.name)])
        [exact] = pinned.specifier
        assert each.specifier.contains(exact.version), each


def test_everything_says_that_the_project_lives_in_one_place() -> None:
    owner = HOME.removeprefix("https://github.com/")
    wrong = []
    for name in sorted(tracked_or_new()):
        path = REPOSITORY / name
        if path.suffix in (".md", ".yml", ".yaml", ".toml") and path.is_file():
            text = path.read_text(encoding="utf-8")
            there = re.findall(r"(?:github\.com/|uses: )([\w-]+/ha-lab\b)", text)
            wrong += [f"{name}: {each}" for each in there if each != owner]
    assert wrong == []
    assert [url for url in PROJECT["urls"].values() if not url.startswith(HOME)] == []
    assert f"    git clone {HOME}\n" in (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


# Workflows, forms and hooks.


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_actions_are_the_forge_s_own_with_their_version(path: Path) -> None:
    for used in values(content(path), "uses"):
        assert used == "./" or re.fullmatch(r"actions/[a-z-]+@v\d+", used), used


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_only_a_release_may_write(path: Path) -> None:
    assert content(path)["permissions"] == {"contents": "write" if path.stem == "release" else "read"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_ends(path: Path) -> None:
    for job in content(path)["jobs"].values():
        assert 0 < int(job["timeout-minutes"]) <= 360


def test_every_suite_runs_at_night_with_all_that_it_has() -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    tests = [shlex.split(line) for line in lines if line.startswith("./inv test")]
    nightly = [
        shlex.split(command) for command in values(content(GITHUB / "workflows" / "nightly.yml"), "command")
    ]
    assert [{*words, "--whole"} for words in tests] == [set(words) for words in nightly]


def test_a_change_is_tested_on_each_python_and_on_a_lab() -> None:
    jobs = content(GITHUB / "workflows" / "ci.yml")["jobs"]
    assert list(values(jobs["unit"], "run")) == ["./inv test --quick", "./inv lint --yes"]
    assert "./" in list(values(jobs["lab"], "uses"))
    assert {"./inv drill kill-control-plane", "./inv destroy --yes"} <= set(values(jobs["lab"], "run"))


def problems_of(form: dict[str, Any]) -> list[str]:
    """What a forge would refuse of an issue form."""
    found = [f"no {key}" for key in ("name", "description", "body") if not form.get(key)]
    parts = form.get("body", [])
    ids = [part["id"] for part in parts if "id" in part]
    found += [f"{each} is there twice" for each in ids if ids.count(each) > 1]
    for part in parts:
        needed = "value" if part.get("type") == "markdown" else "label"
        if part.get("type") not in ("markdown", "textarea", "input", "dropdown", "checkboxes"):
            found.append(f"no such type: {part.get('type')}")
        if needed not in part.get("attributes", {}):
            found.append(f"{part.get('id')} has no {needed}")
    return found


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_and_asks_for_the_logs(path: Path) -> None:
    assert problems_of(content(path)) == []
    assert "`./inv logs`" in path.read_text(encoding="utf-8")


def test_a_form_with_mistakes_would_be_found() -> None:
    wrong = {"name": "x", "body": [{"type": "text", "id": "a"}, {"type": "input", "id": "a", "attributes": {}}]}
    assert len(problems_of(wrong)) == 6


def test_a_bug_s_logs_are_required_and_a_change_mentions_them() -> None:
    parts = {part.get("id"): part for part in content(GITHUB / "ISSUE_TEMPLATE" / "bug.yaml")["body"]}
    assert parts["logs"]["validations"]["required"] == "true"
    assert "`./inv logs`" in (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")


def test_hooks_need_nothing_from_elsewhere() -> None:
    [repository] = content(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert (hook["language"], hook["entry"].split()[0]) == ("system", "./inv")


def test_updates_are_looked_for_where_locks_are() -> None:
    for update in content(GITHUB / "dependabot.yml")["updates"]:
        for folder in update.get("directories", [update.get("directory")]):
            place = REPOSITORY / folder.lstrip("/")
            assert update["package-ecosystem"] == "github-actions" or (place / "requirements.txt").is_file()


# The action.


def steps() -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in content(ACTION)["runs"]["steps"] if "id" in step}


def run_step(step: dict[str, Any], folder: Path, **given: str) -> int:
    """Run a step as a runner does it, with the kit in a folder; return its exit code."""
    runner = {"PATH": os.environ["PATH"], "GITHUB_ACTION_PATH": f"{folder}/kit"}
    runner |= {"GITHUB_OUTPUT": f"{folder}/output", "GITHUB_ENV": f"{folder}/env"}
    words = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", str(step["run"])]
    return subprocess.run(words, env=runner | given, check=False, timeout=30).returncode


INV = """
echo "$*" >>{asked}
case "$1" in
up | verify) ;;
kubeconfig) echo "/work/a lab/.lab/kubeconfig" ;;
logs) echo "/work/a lab/.lab/logs-1.tar.gz" ;;
*) exit 97 ;;
esac
"""


@pytest.mark.slow
@pytest.mark.parametrize(("lab", "named"), [("", ""), ("my labs/lab.yaml", " --lab my labs/lab.yaml")])
def test_the_action_brings_a_lab_up_and_hands_it_on(tmp_path: Path, lab: str, named: str) -> None:
    """Each of its steps is run as a runner does it."""
    asked = tmp_path / "asked"
    program(tmp_path / "kit", "inv", INV.format(asked=asked))
    for folder in ("supply", "provision"):
        (tmp_path / "kit" / folder).mkdir()
        (tmp_path / "kit" / folder / "pin").write_text(folder)
    inputs = {"inputs.lab": lab, "inputs.junit": "out/verify.xml"}
    for step in steps().values():
        assert step["shell"] == "bash"
        given = {name: inputs[value.strip("${} ")] for name, value in step.get("env", {}).items()}
        assert run_step(step, tmp_path, **given) == 0
    output, env = tmp_path / "output", tmp_path / "env"
    assert asked.read_text().splitlines() == [
        f"up --yes{named}",
        f"kubeconfig{named}",
        f"verify --junit out/verify.xml{named}",
        f"logs{named}",
    ]
    key, *rest = output.read_text().splitlines()
    assert re.fullmatch(r"key=[0-9a-f]{16}", key)
    assert rest == ["kubeconfig=/work/a lab/.lab/kubeconfig", "archive=/work/a lab/.lab/logs-1.tar.gz"]
    assert env.read_text() == "KUBECONFIG=/work/a lab/.lab/kubeconfig\n"


@pytest.mark.slow
def test_the_action_fails_where_the_lab_does(tmp_path: Path) -> None:
    program(tmp_path / "kit", "inv", "exit 1")
    for name in ("up", "verify"):
        assert run_step(steps()[name], tmp_path, LAB="", JUNIT="verify.xml") == 1
        assert not (tmp_path / "env").exists()


def test_what_the_action_refers_to_is_there() -> None:
    text = ACTION.read_text(encoding="utf-8")
    action = content(ACTION)
    assert set(re.findall(r"inputs\.(\w+)", text)) == set(action["inputs"])
    assert set(re.findall(r"steps\.(\w+)\.", text)) <= set(steps())
    for step, name in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", text):
        assert f'echo "{name}=' in steps()[step]["run"]


def test_what_the_page_has_you_type_is_typed_by_ci() -> None:
    page = (REPOSITORY / "docs" / "installed.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    run = "\n".join(values(content(GITHUB / "workflows" / "ci.yml"), "run"))
    for line in lines:
        if line.startswith("ha-lab "):
            parse(line.replace("ha-lab", "./inv"))
        else:
            assert line in run or line.startswith("mkdir "), line
    assert {"uv tool install .", "pipx install .", "ha-lab init"} <= set(lines)


def test_the_page_s_job_is_one_that_the_action_takes() -> None:
    page = (REPOSITORY / "docs" / "installed.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    job = yaml.load(block, Loader=yaml.BaseLoader)["jobs"]["test"]  # noqa: S506  makes words only
    [step] = [step for step in job["steps"] if step.get("id") == "lab"]
    newest = headings((REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"))[1]
    assert step["uses"] == f"{HOME.removeprefix('https://github.com/')}@v{newest}"
    assert set(step["with"]) == set(content(ACTION)["inputs"])
    own = content(GITHUB / "workflows" / "ci.yml")["jobs"]["lab"]
    assert job["container"] == own["container"]
    assert job["steps"][:2] == own["steps"][:2]
