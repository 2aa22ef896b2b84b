"""The rendered Vagrantfile before Vagrant's own judgement, with a VirtualBox that only says its version."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.labs.conftest import TestLab, make_lab
from tests.unit.fakes import program


@pytest.fixture
def lab(tmp_path: Path) -> TestLab:
    program(tmp_path / "bin", "VBoxManage", '[ "$*" = --version ] && echo 7.0.20r163906 || exit 97')
    return make_lab(tmp_path / "lab", name="ha-lab-virtualbox-test", provider="virtualbox")


def validated(lab: TestLab) -> subprocess.CompletedProcess[str]:
    path = f"{lab.folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {
        "PATH": path,
        "VAGRANT_DEFAULT_PROVIDER": "virtualbox",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    return subprocess.run(
        ["vagrant", "validate"],
        cwd=lab.folder / ".lab",
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_vagrant_takes_the_rendered_file(lab: TestLab) -> None:
    lab.succeed("render")
    done = validated(lab)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_vagrant_would_refuse_a_word_that_it_does_not_know(lab: TestLab) -> None:
    lab.succeed("render")
    file = lab.folder / ".lab" / "Vagrantfile"
    file.write_text(file.read_text().replace("virtualbox.linked_clone =", "virtualbox.linked_clown ="))
    done = validated(lab)
    assert done.returncode != 0
    assert "linked_clown" in done.stdout + done.stderr
