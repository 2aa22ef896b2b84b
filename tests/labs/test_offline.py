"""A lab on a machine without any network, from the one file that another machine exported.

The machine is this one in namespaces of its own: no interface but loopback, a docker daemon that has no
image, no cache, and a copy of this checkout without its `.venv`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from lab.system import process
from lab.system.paths import REPOSITORY
from tests.labs.conftest import TestLab

ALONE = Path(__file__).parent / "without-network.sh"

# Each line's output is told apart by the line before it; the first that fails ends it all.
LIFE = """
set -euo pipefail
say() { printf '\\n## %s %s\\n' "$(date +%s.%N)" "$1"; }
say way-out; ip -json route get 192.0.2.1 2>&1 || true
say images; docker image ls --quiet
say import; "$KIT/inv" bake --import "$BUNDLE" --lab "$LAB"
say again; "$KIT/inv" bake --import "$BUNDLE" --lab "$LAB"
say up; "$KIT/inv" up --lab "$LAB"
say verify; "$KIT/inv" verify --lab "$LAB" --json
say destroy; "$KIT/inv" destroy --yes --lab "$LAB"
say end
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This checkout's files and nothing that it made."""
    folder = tmp_path / "kit"
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture
def lab_file(tmp_path: Path) -> Path:
    """The smallest lab."""
    data = yaml.safe_load((REPOSITORY / "examples" / "smallest.yaml").read_text(encoding="utf-8"))
    data["name"] = "ha-lab-offline-test"
    path = tmp_path / "lab" / "lab.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_a_lab_comes_up_from_an_import_with_the_network_unshared(
    tmp_path: Path, checkout: Path, lab_file: Path
) -> None:
    file = tmp_path / "lab.tar"
    exported = TestLab(lab_file.parent).succeed("bake", "--export", str(file))
    print(f"{file.stat().st_size / 2**20:.0f} MiB exported in {exported.seconds:.0f} s")

    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env |= {"KIT": str(checkout), "BUNDLE": str(file), "LAB": str(lab_file)}
    settings = [f"{name}={value}" for name, value in env.items()]
    done = subprocess.run(
        process.as_root("env", "--ignore-environment", *settings, ALONE, tmp_path / "host", "bash", "-c", LIFE),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)
    said, seconds = parts(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "unreachable" in said["way-out"].lower(), "there was a way out"
    assert said["images"].strip() == ""
    assert "creating" in said["import"], "inv made its .venv from the bundle"
    assert "is ready" in said["import"]
    assert "unpack" in said["import"]
    assert "unpack" not in said["again"], "what is there is not imported again"
    assert "the lab is up" in said["up"]
    # Before it may be what is waited for, which is on standard error.
    assert json.loads(said["verify"][said["verify"].index("{\n") :])["green"] is True
    assert "removed" in said["destroy"]
    print({name: round(took) for name, took in seconds.items()})


def parts(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """What each line of LIFE said, and how long it took."""
    said, began = {}, {}
    for part in text.split("\n## ")[1:]:
        head, _, body = part.partition("\n")
        moment, name = head.split()
        said[name], began[name] = body, float(moment)
    names = list(began)
    took = {name: began[after] - began[name] for name, after in pairwise(names)}
    return said, took
