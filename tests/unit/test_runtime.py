"""What runs containers: built from Go modules for every machine, whatever the source of its Kubernetes."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.errors import CommandFailed
from lab.golden import build, debian
from lab.golden.supply import bom, complaints, modules, recipe, releases, runtime
from lab.golden.supply.releases import Release, release, supported
from lab.model import Mirrors
from lab.system.paths import PROVISION, SUPPLY
from lab.system.progress import Progress
from tests.unit import fakes
from tests.unit.test_modules import FakeTools, fake_tools

LAB = default()
PROGRAMS = ["containerd", "containerd-shim-runc-v2", "ctr", "runc"]
CONFIG = PROVISION / "files" / "etc" / "containerd" / "config.toml"
UNIT = PROVISION / "files" / "usr" / "lib" / "systemd" / "system" / "containerd.service"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTools:
    return fake_tools(monkeypatch, tmp_path)


@pytest.fixture
def wanted() -> Release:
    return release("1.36.3")


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return fakes.progress(tmp_path / "logs")


def test_its_programs_lie_under_its_name_with_their_bill(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    folder = runtime.build(wanted, Mirrors(), tmp_path, progress)
    assert folder == tmp_path / "runtime" / runtime.key(wanted)
    assert sorted(path.name for path in (folder / "bin").iterdir()) == PROGRAMS
    assert tools.built[0] == "runc"  # what a host lacks shows before the longer build
    parts = {each.name: each for each in bom.read(folder / "bom.json")}
    assert (parts["libseccomp"].version, parts["libseccomp"].licence) == ("2.5.4", "LGPL-2.1-only")
    assert {parts[name].used_in for name in ("gcc", "libc", "libseccomp")} == {("runc",)}
    assert set(parts["example.org/main"].used_in) == set(PROGRAMS)


def test_a_stopped_build_goes_on_and_a_whole_one_is_not_built_again(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    tools.fails_at = "ctr"
    with pytest.raises(KeyboardInterrupt):
        runtime.build(wanted, Mirrors(), tmp_path, progress)
    assert not (tmp_path / "runtime" / runtime.key(wanted)).exists()
    tools.built, tools.fails_at = [], ""
    runtime.build(wanted, Mirrors(), tmp_path, progress)
    assert tools.built == ["ctr"]
    runtime.build(wanted, Mirrors(), tmp_path, progress)
    assert tools.built == ["ctr"]


def test_a_host_without_libseccomp_is_told_what_to_install(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    tools.fails_at = "runc"
    said = (
        "# pkg-config --cflags  -- libseccomp\nPackage libseccomp was not found in the pkg-config search path."
    )
    tools.error = CommandFailed(["go", "build"], "ended with exit code 1", tail=said)
    with pytest.raises(CommandFailed) as caught:
        runtime.build(wanted, Mirrors(), tmp_path, progress)
    assert complaints.SECCOMP in caught.value.hint


def test_every_kubernetes_has_the_same_runtime() -> None:
    assert len({runtime.key(release(version)) for version in supported()}) == 1


@pytest.mark.parametrize("name", ["containerd", "runc"])
def test_a_changed_pin_is_another_runtime_and_another_golden_machine(
    wanted: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    before = runtime.key(wanted), build.key(LAB, debian.packages())
    shutil.copytree(SUPPLY, tmp_path / "supply")
    monkeypatch.setattr(releases, "SUPPLY", tmp_path / "supply")
    of_kubernetes = modules.key(wanted)
    pin = wanted.pins()[name] / "go.sum"
    pin.write_text(pin.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    now = runtime.key(wanted), build.key(LAB, debian.packages())
    assert before[0] != now[0]
    assert before[1] != now[1]
    assert modules.key(wanted) == of_kubernetes


def test_runc_knows_seccomp_and_needs_no_library_of_the_machine(wanted: Release) -> None:
    (runc,) = [each for each in recipe.runtime(wanted) if each.name == "runc"]
    assert "seccomp" in runc.tags.split(",")
    assert runc.cgo
    assert "-static" in runc.ldflags


def test_debian_brings_no_second_runtime() -> None:
    assert not {"containerd", "runc"} & set(debian.packages())


def configured() -> dict[str, Any]:
    return tomllib.loads(CONFIG.read_text(encoding="utf-8"))


def test_containerd_is_configured_for_kubernetes_in_version_3() -> None:
    told = configured()
    assert (told["version"], set(told["plugins"])) == (
        3,
        {"io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"},
    )
    of_images, of_runtime = told["plugins"].values()
    assert of_images["pinned_images"]["sandbox"] == "@PAUSE_IMAGE@"
    assert "@PAUSE_IMAGE@" in (PROVISION / "golden" / "images.sh").read_text(encoding="utf-8")
    assert of_runtime["restrict_oom_score_adj"] is True
    assert of_runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is True


def test_images_are_linked_for_the_snapshotter_that_containerd_has() -> None:
    snapshotter = configured()["plugins"]["io.containerd.cri.v1.images"]["snapshotter"]
    for script in ("files/usr/lib/ha-lab/link-images", "golden/images.sh"):
        text = (PROVISION / script).read_text(encoding="utf-8")
        assert f"io.containerd.snapshotter.v1.{snapshotter}" in text
    assert f"--snapshotter {snapshotter} " in (PROVISION / "golden" / "images.sh").read_text(encoding="utf-8")


def test_facts_read_the_cgroup_driver_that_is_configured() -> None:
    script = (PROVISION / "node" / "facts.sh").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"s/(.*?)/containerd /p' /etc/containerd/config\.toml", script)
    found = [
        re.sub(pattern, "containerd ", line)
        for line in CONFIG.read_text().splitlines()
        if re.match(pattern, line)
    ]
    assert found == ["containerd true"]


def test_the_unit_starts_the_program_that_is_installed_and_restarts_it() -> None:
    unit = UNIT.read_text(encoding="utf-8")
    assert "\nExecStart=/usr/bin/containerd\n" in unit
    assert "\nRestart=always\n" in unit
    assert "\nKillMode=process\n" in unit  # containers go on while containerd restarts
    make = (PROVISION / "golden" / "make.sh").read_text(encoding="utf-8")
    assert 'install -m 755 "$payload"/runtime/* "$root/usr/bin/"' in make
