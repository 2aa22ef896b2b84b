"""Imports between rooms go one way: a room uses those before it in ORDER, and nobody those after it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lab.render import REPOSITORY

ORDER = (
    *("errors", "proxies", "process", "wait", "commandline", "terminal", "progress", "workspace", "onepage"),
    *("yamlfile", "supply", "model", "shape", "config", "credentials", "disc", "render", "host", "choice"),
    *("remote", "machines", "doctor", "image", "bundle", "cluster", "kubeconfig", "report", "provision"),
    *("facts", "checks", "status", "verify", "diagnose", "session", "bench", "drill", "task", "handout"),
    *("selftest", "tasks"),
)
"""From what everyone may use to what nobody may."""


def room(module: str) -> str:
    return module.split(".")[1] if module.startswith("lab.") else module


def imported(tree: ast.AST) -> Iterator[str]:
    """The rooms a file imports as it runs; what is only for the type checker doesn't count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "lab":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lab."):
            yield room(node.module or "")
        elif isinstance(node, ast.Import):
            yield from (room(alias.name) for alias in node.names if alias.name.startswith("lab."))
        yield from imported(node)


def files() -> dict[str, list[str]]:
    """Every room's imports."""
    found: dict[str, list[str]] = {}
    for path in [*sorted((REPOSITORY / "lab").rglob("*.py")), REPOSITORY / "tasks.py"]:
        name = (
            path.stem
            if path.parent in (REPOSITORY, REPOSITORY / "lab")
            else path.relative_to(REPOSITORY).parts[1]
        )
        if name != "__init__":
            found.setdefault(name, []).extend(imported(ast.parse(path.read_text())))
    return found


def test_every_room_has_its_place() -> None:
    assert sorted(files()) == sorted(ORDER)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{name} uses {used}"
        for name, rooms in files().items()
        for used in sorted(set(rooms))
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
