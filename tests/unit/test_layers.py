"""Imports go one way: a module uses those before it in ORDER, none after it. docs/DESIGN.md has this order."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from typing import get_args

import pytest

from lab.model import Provider
from lab.system.paths import REPOSITORY

ORDER = (
    *("exit_codes", "system.quoting", "errors", "unknown", "system.meaning", "system.paths", "system.version"),
    *(
        "system.redact",
        "system.proxies",
        "system.environment",
        "system.process",
        "system.wait",
        "system.terminal",
        "system.commandline",
        "system.progress",
    ),
    *("workspace", "model.roles", "model", "model.selectors", "workspace.made", "model.change"),
    "workspace.checkpoints",
    *("golden.supply", "config", "texts", "workspace.render", "host", "config.choice", "remote"),
    *(
        "workspace.kubeconfig",
        "host.doctor",
        "golden",
        "providers",
        "golden.image",
        "golden.payload",
        "golden.bundle",
    ),
    *(
        "host.doctor.examination",
        "session",
        "health.reading",
        "health.connecting",
        "health.cluster",
        "health.manifests",
    ),
    *(
        "health.facts",
        "health.checks",
        "health.causes",
        "health.tolerance",
        "health.status",
        "health.repeat",
        "health.plain_tests",
        "health.verify",
    ),
    *("conformance", "plans", "verbs", "drill", "workshop", "verbs.docs", "tasks", "__main__"),
)
"""From what every module may use to what none may: a package, or a part of one that has its own place."""


def place(module: str) -> str:
    """The entry of ORDER that a module belongs to: the longest that it begins with."""
    name = module.removeprefix("lab.")
    fitting = [each for each in ORDER if name == each or name.startswith(f"{each}.")]
    return max(fitting, key=len, default=name)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports as it runs; what is only for the type checker doesn't count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lab":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lab."))
        if not isinstance(node, ast.expr):
            yield from imported(node)


@functools.cache
def files() -> dict[str, list[str]]:
    """Every place in ORDER, with the places that its files import."""
    found: dict[str, list[str]] = {}
    for path in [*sorted((REPOSITORY / "lab").rglob("*.py")), REPOSITORY / "tasks.py"]:
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        uses = [place(name) for name in imported(ast.parse(path.read_text()))]
        if uses or not path.name.startswith("__init__"):
            found.setdefault(place(module), []).extend(uses)
    return found


def test_every_module_has_its_place() -> None:
    assert sorted(files()) == sorted(ORDER)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{name} uses {used}"
        for name, places in files().items()
        for used in sorted(set(places))
        if used != name and ORDER.index(used) >= ORDER.index(name)
    ]
    assert wrong == []


def test_python_vagrant_has_one_door() -> None:
    users = [
        path.stem
        for path in (REPOSITORY / "lab").rglob("*.py")
        if any(
            line.split()[:2] in (["import", "vagrant"], ["from", "vagrant"])
            for line in path.read_text().splitlines()
        )
    ]
    assert users == ["vagrant"]


PROVIDER_NAMES = get_args(Provider)
CHOOSES_A_PROVIDER = {"lab/config/__init__.py:_lab", "lab/config/choice.py:settle"}
"""They make a lab from its file, before there is a provider whose row could be asked."""


def compared(tree: ast.AST) -> Iterator[ast.AST]:
    """What comparisons and cases of `match` compare with a provider's name, alone or among others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue) and any(
            isinstance(part, ast.Constant) and part.value in PROVIDER_NAMES for part in ast.walk(node)
        ):
            yield node


def functions_that_compare(text: str) -> set[str]:
    """The functions of a module that compare something with a provider's name; "" is outside of any."""
    if not any(name in text for name in PROVIDER_NAMES):
        return set()  # as in most modules, without the time that it takes to parse them
    tree = ast.parse(text)
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {node: body.name for body in bodies for node in compared(body)}
    return {inside.get(node, "") for node in compared(tree)}


def test_only_the_choice_of_a_provider_compares_its_name() -> None:
    """Everywhere else the provider's row is asked for what differs."""
    found = {
        f"{path.relative_to(REPOSITORY)}:{name}"
        for path in [*(REPOSITORY / "lab").rglob("*.py"), REPOSITORY / "tasks.py"]
        if "providers" not in path.relative_to(REPOSITORY).parts
        for name in functions_that_compare(path.read_text(encoding="utf-8"))
    }
    assert found == CHOOSES_A_PROVIDER


@pytest.mark.parametrize(
    "text",
    [
        'lab.provider == "docker"',
        '"libvirt" != name',
        'lab.provider in ("docker", "virtualbox")',
        'match lab.provider:\n    case "docker": pass',
    ],
)
def test_a_comparison_with_a_provider_s_name_would_be_found(text: str) -> None:
    assert functions_that_compare(text) == {""}


DESIGN = (REPOSITORY / "docs" / "DESIGN.md").read_text(encoding="utf-8")


def rows(text: str) -> list[str]:
    """What the first column of a table names between backticks: modules and packages, in its order."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return [name.removeprefix("lab/").removesuffix("/").removesuffix(".py").replace("/", ".") for name in names]


def packages() -> list[str]:
    """What is directly in lab/, in ORDER. A package that ORDER has in parts only is where its first part is."""
    wholes = {place for place in ORDER if "." not in place}
    tops = [place.split(".")[0] for place in ORDER if place in wholes or place.split(".")[0] not in wholes]
    return list(dict.fromkeys(tops))


def test_the_design_names_every_module_in_this_order() -> None:
    assert rows(DESIGN) == packages()


def test_the_design_names_the_parts_of_packages_that_have_a_place_of_their_own() -> None:
    wholes = {place for place in ORDER if "." not in place}
    parts = {place for place in ORDER if place.split(".")[0] in wholes and "." in place}
    before = DESIGN.partition("\n| module |")[0]
    assert set(re.findall(r"`(\w+\.(?!py|yaml|json)\w+(?:\.\w+)?)`", before)) == parts


def test_a_listing_of_lab_is_short_enough_to_show_the_architecture() -> None:
    found = [path for path in (REPOSITORY / "lab").iterdir() if not path.name.startswith("_")]
    assert len([path for path in found if path.is_dir()]) <= 13
    assert sorted(path.stem for path in found if path.suffix == ".py") == [
        *("errors", "exit_codes", "remote", "session", "texts", "unknown")
    ]


def test_a_row_in_another_place_would_be_found() -> None:
    table = (
        "| `lab/b.py`, `c/` | what |\n| `lab/a.py` | what |\n| `tasks.py` | what |\nIn `lab/x.py`, | or not |\n"
    )
    assert rows(table) == ["b", "c", "a", "tasks"]
