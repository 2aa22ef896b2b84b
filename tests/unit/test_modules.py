import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errors import CommandFailed, LabError
from lab.golden.supply import (
    bom,
    complaints,
    flannel,
    golang,
    modules,
    programs,
    recipe,
    releases,
    shelf,
    toolchain,
)
from lab.golden.supply.releases import Release, release
from lab.model import Mirrors
from lab.system import environment, process
from lab.system.paths import SUPPLY
from lab.system.process import Result
from lab.system.progress import Progress
from tests.unit import fakes

PROGRAMS = {
    *("kubeadm", "kubelet", "kubectl", "kube-proxy"),
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("etcd", "etcdctl", "etcdutl", "coredns", "flanneld", "kube-router", "pause"),
    *("metrics-server", "local-path-provisioner", "crictl", "helm"),
}


class FakeTools:
    """Stands for `go` and `gcc`: writes small programs, remembers which, refuses all other words."""

    def __init__(self, sources: Path) -> None:
        """Answer `go list -m` and `go env GOMODCACHE` with what lies below `sources`."""
        self.sources = sources
        self.built: list[str] = []
        self.fails_at = ""
        self.error: BaseException = KeyboardInterrupt()

    def __call__(self, argv: Sequence[str | Path], **named: Any) -> Result:
        """Stand in for `process.run`."""
        words = [str(word) for word in argv]
        program, rest = Path(words[0]).name, words[1:]
        if program == "go" and rest[0] == "build":
            assert named["env"]["GOTOOLCHAIN"] == "local"
            assert "-trimpath" in rest
            assert (named["cwd"] / "go.mod").is_file()
        output = self._answer(program, rest)
        return Result(tuple(words), 0, output, "", 0.0)

    def _answer(self, program: str, rest: list[str]) -> str:
        match program, rest:
            case ("go", ["build", *_]) | ("gcc", ["-Os", *_]):
                self._build(Path(rest[rest.index("-o") + 1]))
                return ""
            case "go", ["mod", "download"]:
                return ""
            case "go", ["list", "-m", "-f", "{{.Dir}}", module]:
                return f"{self.sources / module}\n"
            case "go", ["env", "GOMODCACHE"]:
                return str(self.sources)
            case "go", ["version", "-m", "-json", built]:
                main = {"Path": "example.org/main", "Version": "v1.0.0"}
                return "" if built.endswith("/pause") else json.dumps({"Main": main})
            case "gcc", ["-dumpfullversion"]:
                return "12.2.0\n"
            case "gcc", ["-E", "-P", "-"]:
                return "2 36\n"
            case "pkg-config", ["--modversion", "libseccomp"]:
                return "2.5.4\n"
        raise AssertionError(f"unexpected command: {program} {rest}")

    def _build(self, output: Path) -> None:
        output.write_text("half")
        name = output.name.split(".")[1]
        if name == self.fails_at:
            raise self.error
        output.write_text("whole")
        self.built.append(name)


def fake_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTools:
    """Let all builds use them, and a toolchain that need not be fetched."""
    fake = FakeTools(tmp_path / "sources")
    monkeypatch.setattr(process, "run", fake)
    monkeypatch.setattr(toolchain, "ensure", lambda cache, log: cache / "go" / "tree" / "bin" / "go")
    return fake


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTools:
    return fake_tools(monkeypatch, tmp_path)


@pytest.fixture
def wanted() -> Release:
    return release("1.36.3")


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return fakes.progress(tmp_path / "logs")


@pytest.mark.usefixtures("tools")
def test_everything_lies_under_its_name(wanted: Release, progress: Progress, tmp_path: Path) -> None:
    folder = modules.build(wanted, Mirrors(), tmp_path, progress)
    assert folder == tmp_path / "modules" / modules.key(wanted)
    assert {path.name for path in (folder / "bin").iterdir()} == PROGRAMS
    assert {"bridge", "flannel", "host-local", "loopback", "portmap"} < {
        path.name for path in (folder / "cni").iterdir()
    }
    assert json.loads((folder / "bom.json").read_text(encoding="utf-8"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.usefixtures("tools")
def test_flannels_manifest_does_not_bring_its_plugin(
    wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    text = (modules.build(wanted, Mirrors(), tmp_path, progress) / "kube-flannel.yml").read_text()
    (agent,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "DaemonSet"]
    spec = agent["spec"]["template"]["spec"]
    assert [step["name"] for step in spec["initContainers"]] == ["install-cni"]
    assert "cni-plugin" not in [volume["name"] for volume in spec["volumes"]]
    assert flannel.agent_image(text) == f"ghcr.io/flannel-io/flannel:v{wanted.flannel}"
    assert flannel.plugin_image(wanted).startswith("ghcr.io/flannel-io/flannel-cni-plugin:")


@pytest.mark.parametrize(
    ("own", "proxy", "said"),
    [
        ("", "", None),
        ("http://own.example", "", "http://own.example"),
        ("http://own.example", "http://mirror.example", "http://mirror.example"),
    ],
)
def test_a_mirror_of_modules_is_go_s_proxy_and_without_one_the_user_s_own_is(
    wanted: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, proxy: str, said: str | None
) -> None:
    monkeypatch.setenv("GOPROXY", own)
    environments: list[dict[str, str]] = []

    def run(argv: Sequence[str | Path], **named: Any) -> Result:
        environments.append(named["env"])
        return Result(tuple(map(str, argv)), 0, "", "", 0.0)

    monkeypatch.setattr(process, "run", run)
    golang.Go(tmp_path / "go", proxy).download(recipe.components(wanted)[0], tmp_path / "log")
    assert [each.get("GOPROXY") for each in environments] == [said]


def test_what_is_whole_is_not_built_again(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    first = modules.build(wanted, Mirrors(), tmp_path, progress)
    tools.built.clear()
    steps = len(progress.finished)
    assert modules.build(wanted, Mirrors(), tmp_path, progress) == first
    assert (tools.built, len(progress.finished)) == ([], steps)


@pytest.mark.parametrize("stopped_at", ["pause", "flanneld", "bridge", "kube-apiserver", "coredns"])
def test_a_stopped_build_looks_never_whole_and_goes_on(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path, stopped_at: str
) -> None:
    tools.fails_at = stopped_at
    with pytest.raises(KeyboardInterrupt):
        modules.build(wanted, Mirrors(), tmp_path, progress)
    assert not (tmp_path / "modules" / modules.key(wanted)).exists()
    done, tools.built, tools.fails_at = tools.built, [], ""
    folder = modules.build(wanted, Mirrors(), tmp_path, progress)
    assert stopped_at in tools.built
    assert len(done) + len(tools.built) == len(PROGRAMS) + 17
    programs = [*(folder / "bin").iterdir(), *(folder / "cni").iterdir()]
    assert {program.read_text() for program in programs} == {"whole"}


def test_a_full_disk_is_said_and_nothing_is_taken_for_whole(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    tools.fails_at, tools.error = "etcd", OSError(errno.ENOSPC, "No space left on device", "etcd")
    with pytest.raises(LabError, match="No space left") as caught:
        modules.build(wanted, Mirrors(), tmp_path, progress)
    assert "free some space" in caught.value.hint
    assert not (tmp_path / "modules" / modules.key(wanted)).exists()


@pytest.mark.parametrize(
    ("go_says", "hint"),
    [
        ("write /tmp/x.a: no space left on device", "free some disk space"),
        (
            "verifying k8s.io/api@v0.36.3: checksum mismatch\n\nSECURITY ERROR",
            "does not match the pins in supply/",
        ),
        ("ld: final link failed: No space left on device", "free some disk space"),
        ('cgo: C compiler "gcc" not found: exec: "gcc": executable file not found in $PATH', "apt-get"),
        ("_cgo_export.c:3:10: fatal error: stdlib.h: No such file or directory", "libc6-dev"),
        ("/usr/bin/ld: cannot find -lpthread", "libc6-dev"),
        ("/usr/bin/ld: cannot find -lseccomp", "libseccomp-dev"),
        ("Package libseccomp was not found in the pkg-config search path.", "libseccomp-dev"),
        ('exec: "pkg-config": executable file not found in $PATH', "pkgconf"),
        ('Get "https://p/m.zip": dial tcp: lookup p: no such host', "network up"),
        ("read tcp 10.0.0.1:443: i/o timeout", "does not answer"),
        ("compile: signal: killed", "memory"),
        ("undefined: something", "the log has the complete output"),
    ],
)
def test_what_go_complains_of_becomes_something_to_do(
    tools: FakeTools,
    wanted: Release,
    progress: Progress,
    tmp_path: Path,
    go_says: str,
    hint: str,
) -> None:
    tools.fails_at = "kubelet"
    tools.error = CommandFailed(["go", "build"], "ended with exit code 1", tail=go_says)
    with pytest.raises(CommandFailed) as caught:
        modules.build(wanted, Mirrors(), tmp_path, progress)
    assert hint in caught.value.hint
    assert complaints.GOES_ON in caught.value.hint


@pytest.fixture
def supply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the pins that a test may change."""
    copy = tmp_path / "supply"
    shutil.copytree(SUPPLY, copy)
    monkeypatch.setattr(releases, "SUPPLY", copy)
    monkeypatch.setattr(toolchain, "LOCK", copy / "go" / "requirements.txt")
    return copy


def test_a_clone_elsewhere_has_the_same_key(wanted: Release, request: pytest.FixtureRequest) -> None:
    here = modules.key(wanted)
    request.getfixturevalue("supply")
    assert modules.key(wanted) == here == modules.key(release("1.36.3"))


def test_each_version_has_its_own_key() -> None:
    assert len({modules.key(release(version)) for version in releases.supported()}) == 3


@pytest.mark.parametrize(
    "name", ["kubernetes", "etcd", "coredns", "cni-plugins", "cni-flannel", "flannel", "kube-router"]
)
@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_changed_pin_changes_the_key(wanted: Release, supply: Path, name: str, file: str) -> None:
    before = modules.key(wanted)
    pin = wanted.pins()[name] / file
    assert supply in pin.parents
    pin.write_text(pin.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert modules.key(wanted) != before


def test_another_releases_pin_does_not_change_the_key(wanted: Release, supply: Path) -> None:
    before = modules.key(wanted)
    (supply / "kubernetes" / "1.37.2" / "go.sum").write_text("")
    (supply / "releases.yaml").write_text("# said otherwise\n")
    assert modules.key(wanted) == before


@pytest.mark.parametrize(
    ("room", "name", "value"),
    [
        (programs, "FLAGS", ("-trimpath",)),
        (modules, "PAUSE_FLAGS", ("-O2",)),
        (modules, "LAYOUT", 0),
        (recipe, "STATIC_C", "-linkmode external"),
        (golang, "architecture", lambda: "riscv64"),
    ],
)
def test_changed_flags_change_the_key(
    wanted: Release, monkeypatch: pytest.MonkeyPatch, room: Any, name: str, value: object
) -> None:
    before = modules.key(wanted)
    monkeypatch.setattr(room, name, value)
    assert modules.key(wanted) != before


def test_another_runtime_builds_no_kubernetes_again(wanted: Release, supply: Path) -> None:
    before = modules.key(wanted)
    (wanted.pins()["runc"] / "go.sum").write_text("")
    assert modules.key(replace(wanted, containerd="2.9.0", runc="1.9.0")) == before


def test_another_toolchain_changes_the_key(wanted: Release, supply: Path) -> None:
    before = modules.key(wanted)
    lock = supply / "go" / "requirements.txt"
    lock.write_text(lock.read_text(encoding="utf-8").replace("1.26.6", "1.26.7"), encoding="utf-8")
    assert modules.key(wanted) != before


def test_the_users_own_go_settings_do_not_change_the_key(
    wanted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = modules.key(wanted)
    for name in ("GOFLAGS", "GOPROXY", "GOMODCACHE", "GOCACHE", "GOAMD64", "GOROOT", "CC"):
        monkeypatch.setenv(name, "other")
    assert modules.key(wanted) == before


def test_where_modules_come_from_and_are_cached_is_left_to_the_user(wanted: Release) -> None:
    set_by_us = set(golang.settings(recipe.components(wanted)[0]))
    left = {"GOPROXY", "GOMODCACHE", "GOCACHE", "GONOSUMDB", "GOPRIVATE", "GOTMPDIR"}
    assert left <= set(environment.GO)
    assert not set_by_us & set(environment.GO)


def test_another_run_on_the_shelf_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "LONGEST_BUILD", 0.0)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        asked: list[str] = []
        shown = fakes.progress(tmp_path / "logs")

        @contextlib.contextmanager
        def asking(what: str) -> Iterator[None]:
            asked.append(what)
            yield

        monkeypatch.setattr(shown, "asking", asking)
        with pytest.raises(LabError, match="another run"):
            shelf.keep(tmp_path / "thing", lambda partial: partial, shown)
        assert asked == [f"another run that makes something in {tmp_path}"]
    finally:
        os.close(handle)
    assert shelf.keep(tmp_path / "thing", lambda partial: partial).is_dir()


# A few programs only, beside what comes from upstream.


def kinds(folder: Path) -> set[str]:
    return {each.kind for each in bom.read(folder / "bom.json")}


def test_only_what_is_wanted_is_built(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    only = ("bin/etcd", "bin/kube-router", "cni/bridge")
    folder = modules.build(wanted, Mirrors(), tmp_path, progress, only)
    assert sorted(tools.built) == ["bridge", "etcd", "kube-router"]
    assert {str(path.relative_to(folder)) for path in folder.glob("*/*")} == set(only)
    assert kinds(folder) == {"go-module", "toolchain"}
    assert folder == tmp_path / "modules" / modules.key(wanted, only)


def test_pause_alone_needs_kubernetes_module_and_none_of_its_programs(
    tools: FakeTools, wanted: Release, progress: Progress, tmp_path: Path
) -> None:
    folder = modules.build(wanted, Mirrors(), tmp_path, progress, ["bin/pause"])
    assert tools.built == ["pause"]
    assert {"c-source", "c-library"} < kinds(folder)
    (pause,) = [each for each in bom.read(folder / "bom.json") if each.kind == "c-source"]
    assert pause.used_in == ("pause",)


def test_another_choice_is_another_folder_and_all_is_the_one_of_ever(wanted: Release) -> None:
    keys = [modules.key(wanted, only) for only in (None, ["bin/etcd"], ["bin/etcd", "bin/etcdctl"])]
    assert len(set(keys)) == 3
    assert modules.key(wanted, ["bin/etcdctl", "bin/etcd"]) == keys[2]


def test_all_programs_are_named(wanted: Release) -> None:
    assert {Path(each).name for each in modules.programs_of(wanted) if each.startswith("bin/")} == PROGRAMS
