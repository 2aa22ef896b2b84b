"""No command waits forever: docker's client does where its daemon hangs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from lab.config import default
from lab.errors import CommandTimedOut
from lab.model import Provider
from lab.providers.docker import client, golden, machines
from lab.system.paths import REPOSITORY
from lab.workspace import Workspace
from tests.unit.fakes import first_on_path, program

LAB = default()
OWN = ("lab/providers/docker/client.py", "lab/host/docker.py")
"""The only files that name docker's client; the second asks by `lab.host.ask`, which has a deadline."""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A docker whose daemon hangs, and a lab with a machine that Vagrant knows."""
    program(tmp_path / "bin", "docker", "exec sleep 60")
    first_on_path(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(client, "ASK_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "CHANGE_TIMEOUT", 0.2)
    return Workspace(tmp_path / ".lab")


QUESTIONS: dict[str, Callable[[Workspace], object]] = {
    "exists": lambda workspace: golden.exists("ha-lab/golden:0123456789abcdef"),
    "baked": lambda workspace: golden.baked(),
    "prune": lambda workspace: golden.prune(LAB),
    "size": lambda workspace: golden.size(LAB),
    "unknown_to_vagrant": machines.unknown_to_vagrant,
    "adopt": lambda workspace: machines.adopt(LAB, workspace),
    "state": lambda workspace: machines.state(LAB, LAB.nodes[0]),
    "states": lambda workspace: machines.states(LAB, workspace),
    "start": lambda workspace: machines.start(LAB, LAB.nodes[0]),
    "boot": lambda workspace: machines.boot(workspace, workspace.logs / "01-boot.log"),
    "remove": lambda workspace: machines.remove(workspace, workspace.logs / "01-destroy.log"),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_daemon_that_hangs_is_an_error_with_what_to_do(
    hanging: Workspace, question: Callable[[Workspace], object]
) -> None:
    with pytest.raises(CommandTimedOut, match="docker's daemon does not respond") as caught:
        question(hanging)
    assert "`./inv doctor` shows whether docker's daemon responds" in caught.value.hint


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def names_docker(tree: ast.AST) -> bool:
    """Whether a command of docker's client is put together: words in brackets, the first of them its name."""
    return any(
        isinstance(node, ast.List | ast.Tuple)
        and len(node.elts) > 1
        and isinstance(node.elts[0], ast.Constant)
        and node.elts[0].value == "docker"
        and not all(isinstance(each, ast.Constant) and each.value in get_args(Provider) for each in node.elts)
        for node in ast.walk(tree)
    )


def files(words: str) -> dict[str, ast.AST]:
    """The kit's modules with these words in them; to parse all takes a second."""
    return {
        str(path.relative_to(REPOSITORY)): ast.parse(text)
        for path in [*sorted((REPOSITORY / "lab").rglob("*.py")), REPOSITORY / "tasks.py"]
        if words in (text := path.read_text(encoding="utf-8"))
    }


def test_docker_s_client_is_started_where_it_has_a_deadline() -> None:
    assert {name for name, tree in files('"docker"').items() if names_docker(tree)} == set(OWN)
    assert not list(calls(files('"docker"')[OWN[1]], "process.run"))


def without_a_deadline(tree: ast.AST) -> list[str]:
    """The commands that may run forever; those on the user's own terminal are the user's to end."""
    return [
        ast.unparse(call)
        for call in calls(tree, "process.run")
        if not {"timeout", "terminal"} & {each.arg for each in call.keywords}
    ]


def test_every_command_on_this_host_has_a_deadline() -> None:
    found = {name: without_a_deadline(tree) for name, tree in files("process.run").items()}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_a_command_without_a_deadline_would_be_found() -> None:
    assert without_a_deadline(ast.parse("process.run(words, accept=None)"))
    assert names_docker(ast.parse('words = ["docker", "ps"]'))
    assert names_docker(ast.parse('run(*("docker", "import"), name)'))
