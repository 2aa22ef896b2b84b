"""The wheel: what is in it, and what its command does in an empty folder. A real one is built and installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tasks
from hatch_build import needed, read
from lab import config, exit_codes
from lab.golden import image
from lab.system.paths import REPOSITORY
from lab.system.version import version
from tests.unit.fakes import program

pytestmark = pytest.mark.slow

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
FILES = "lab/files/"
Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment of its own, which has the packages of this one instead of a network's."""
    environment = tmp_path_factory.mktemp("installed")
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    words = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, timeout=60)
    [packages] = environment.glob("lib/python3*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "ha-lab"


@pytest.fixture
def ha_lab(installed: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Type the command in an empty folder; no program of a lab may be asked anything."""
    folder, programs = tmp_path / "any folder", tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "vagrant", "ssh", "sudo", "apt-get", "service", "virsh"):
        program(programs, name, f'echo "{name} $*" >>{tmp_path}/asked; exit 97')

    def typed(*words: str, **environment: str) -> Ran:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(tmp_path / "home"), "COLUMNS": "80", **environment}
        return subprocess.run(
            [installed, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return typed


def of_git(*folders: str) -> list[str]:
    """The files of the repository in these folders, as git has them or would take them."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(
        words, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [name for name in listed if (REPOSITORY / name).exists()]


def expected() -> Iterator[tuple[str, str]]:
    """Every file that belongs into the wheel: its name there, and in the repository."""
    yield from ((name, name) for name in of_git("lab"))
    for source in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        yield from ((FILES + name, name) for name in of_git(source))


def test_the_wheel_has_the_files_of_git_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        there = {each.filename: each for each in packed.infolist() if ".dist-info/" not in each.filename}
        wanted = dict(expected())
        assert sorted(there) == sorted(wanted)
        for name, source in wanted.items():
            path = REPOSITORY / source
            assert packed.read(name) == path.read_bytes(), name
            assert (there[name].external_attr >> 16 & 0o111) == (path.stat().st_mode & 0o111), name


def test_what_the_kit_reads_of_the_repository_is_in_the_wheel() -> None:
    """A new folder beside `provision/` that a module reads has to be listed, too."""
    code = "\n".join(
        (REPOSITORY / name).read_text(encoding="utf-8") for name in of_git("lab") if name.endswith(".py")
    )
    read_there = {match.replace('" / "', "/") for match in re.findall(r'REPOSITORY / "([^)\n]*)"', code)}
    listed = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    # What `bench` and `docs` read, which need a checkout.
    missing = {
        name
        for name in read_there - {"tests/bench/floor.sh", "docs", "docs/decisions", "site"}
        if not any(name.startswith(each) for each in listed)
    }
    assert read_there > {"lab.yaml", "examples", "provision", "supply"}
    assert missing == set()


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def closure(direct: list[str]) -> set[str]:
    """What these requirements need on this system, as the installed packages themselves say it."""
    found: set[str] = set()
    left = list(direct)
    while left:
        name = canonicalize_name(Requirement(left.pop()).name)
        if name not in found:
            found.add(name)
            left += [
                each
                for each in importlib.metadata.requires(name) or []
                if (marker := Requirement(each).marker) is None or marker.evaluate({"extra": ""})
            ]
    return found


def test_the_wheel_says_what_it_is_and_requires_the_lock_s_own_versions(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        [folder] = {name.split("/")[0] for name in packed.namelist() if ".dist-info/" in name}
        for name in ("LICENSE", "NOTICE"):
            assert packed.read(f"{folder}/licenses/{name}") == (REPOSITORY / name).read_bytes()
        said = packed.read(f"{folder}/METADATA").decode()
    assert f"\nVersion: {version()}\n" in said
    assert "\nLicense-Expression: Apache-2.0\n" in said
    required = re.findall(r"^Requires-Dist: (.*)$", said, re.MULTILINE)
    groups = PYPROJECT["dependency-groups"]
    assert names(required) >= closure(groups["run"])
    assert not names(required) & names(groups["dev"])
    pins = {str(Requirement(pin)) for pin in read(LOCK)[0].values()}
    assert {str(Requirement(each)) for each in required} <= pins


LOCKED = """\
alpha==1.0 \\
    --hash=sha256:00
    # via kit (pyproject.toml:run)
beta==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:00
    # via
    #   alpha
    #   tool
gamma==3.0 \\
    --hash=sha256:00
    # via tool
tool==4.0 \\
    --hash=sha256:00
    # via kit (pyproject.toml:dev)
"""


def test_the_hook_takes_what_is_needed_with_its_marker_and_no_tool() -> None:
    assert needed(["alpha"], LOCKED) == ["alpha==1.0", "beta==2.0 ; sys_platform == 'win32'"]
    assert needed(["tool"], LOCKED) == [
        *("beta==2.0 ; sys_platform == 'win32'", "gamma==3.0", "tool==4.0"),
    ]


def test_a_lock_that_is_older_than_its_groups_makes_no_wheel() -> None:
    with pytest.raises(ValueError, match=r"requirements.txt has no delta, omega"):
        needed(["omega", "alpha", "delta"], LOCKED)


def test_the_command_has_the_version_and_all_verbs(ha_lab: Callable[..., Ran]) -> None:
    assert ha_lab("--version").stdout == f"ha-lab {version()}\n"
    listed = json.loads(ha_lab("--list", "--list-format", "json").stdout)
    verbs = {task["name"] for task in listed["tasks"]}
    assert verbs == {name.replace("_", "-") for name in Collection.from_module(tasks).task_names}


def test_a_folder_without_a_lab_file_says_what_writes_one(ha_lab: Callable[..., Ran], tmp_path: Path) -> None:
    for verb in ("up", "plan", "status", "verify", "destroy"):
        ran = ha_lab(verb)
        assert ran.returncode == exit_codes.USAGE, ran.stderr
        assert ran.stderr == (
            "error: there is no lab file lab.yaml in this folder\n  next: `ha-lab init` writes one\n"
        )
    assert list((tmp_path / "any folder").iterdir()) == []
    assert not (tmp_path / "asked").exists()


def test_a_lab_begins_in_any_folder(ha_lab: Callable[..., Ran], tmp_path: Path) -> None:
    folder = tmp_path / "any folder"
    assert ha_lab("init", "--example", "smallest").returncode == 0
    made = config.load(folder / "lab.yaml")
    assert made == config.load(REPOSITORY / "examples" / "smallest.yaml")
    ran = ha_lab("plan")
    assert ran.returncode == exit_codes.CHANGES, ran.stderr
    assert f"{made.name}: `ha-lab up` takes about" in ran.stdout
    ran = ha_lab("render")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith(f"rendered {folder}/.lab\nnext: ha-lab up\n")
    assert (folder / ".lab" / "Vagrantfile").is_file()
    record = json.loads((folder / ".lab" / "lab.json").read_text())
    goldens = {machine["golden"] for machine in record["machines"].values()}
    assert goldens == {image.name(config.load(folder / "lab.yaml"))}, "a checkout has the same golden machine"
    ran = ha_lab("handout")
    assert ran.returncode == 0, ran.stderr
    [page] = (folder / "handouts").rglob("*.html")
    text = re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))
    assert "ha-lab task 1" in text
    assert "./inv" not in text
    ran = ha_lab("status", "--json")
    assert ran.returncode == exit_codes.DOWN
    assert "./inv" not in ran.stdout + ran.stderr


def test_what_verify_runs_is_found(ha_lab: Callable[..., Ran], installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "any folder"
    ha_lab("init")
    code = "from lab.health import verify; from lab.system import paths; print(verify.CHECKS, paths.REPOSITORY)"
    python = installed.with_name("python")
    ran = subprocess.run(
        [python, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    checks, root = ran.stdout.split()
    words = [str(python), "-m", "pytest", checks, "--collect-only"]
    words += ["--rootdir", root, "-c", f"{root}/pyproject.toml"]
    words += ["-p", "no:cacheprovider", "--lab", "lab.yaml"]
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout
    assert "test_acceptance.py::test_nodes_are_all_ready" in ran.stdout
    assert ran.stdout.count("test_checks.py::test_check[") > 150


@pytest.mark.parametrize("verb", ["bench", "docs", "lint", "lock", "test"])
def test_what_needs_a_checkout_says_so(ha_lab: Callable[..., Ran], tmp_path: Path, verb: str) -> None:
    ran = ha_lab(verb)
    assert ran.returncode == 2
    assert f"error: `{verb}` is about a checkout of the repository" in ran.stderr
    assert "  next: clone the repository" in ran.stderr
    assert not (tmp_path / "asked").exists()


def test_help_and_what_is_not_understood_name_the_command(ha_lab: Callable[..., Ran]) -> None:
    shown = [ha_lab("--list").stdout, ha_lab("--help", "drill").stdout]
    assert "Usage: ha-lab [--core-opts] drill" in shown[1]
    wrong = ha_lab("upp", INVOKE_RUNTIME_CONFIG="/nowhere.yaml")
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: there is no verb upp\n  next: did you mean `ha-lab up`? `ha-lab --list` shows all verbs\n"
    )
    for task in Collection.from_module(tasks).tasks.values():
        shown += [task.__doc__ or "", *(task.help or {}).values()]
    assert not [text for text in shown if "./inv" in text], "invoke shows these itself, as they are"


@pytest.mark.whole
def test_an_index_s_packages_are_those_of_the_lock(wheel: Path, tmp_path: Path) -> None:
    """Installed as uv and pipx do it, in an environment that has nothing."""
    environment = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, timeout=900)
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
    )
    there = {line.lower().replace("_", "-") for line in frozen.stdout.splitlines() if "==" in line}
    pins = {pin.partition(" ")[0] for pin in read(LOCK)[0].values()}
    assert closure(PYPROJECT["dependency-groups"]["run"]) <= {line.partition("==")[0] for line in there}
    assert {line.replace(".", "-") for line in there if not line.startswith(("ha-lab", "setuptools"))} <= {
        pin.replace(".", "-") for pin in pins
    }
    folder = tmp_path / "any folder"
    folder.mkdir()
    for words in (["--version"], ["init"], ["render"]):
        subprocess.run([environment / "bin" / "ha-lab", *words], cwd=folder, check=True, timeout=60)
    assert (folder / ".lab" / "Vagrantfile").is_file()
    assert shutil.which("ha-lab", path=str(environment / "bin"))
