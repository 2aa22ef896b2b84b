"""What programs that the kit starts see of the user's environment."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

import pytest

from lab.errors import CommandFailed
from lab.system import environment, process
from lab.system.paths import REPOSITORY
from tests.unit.fakes import first_on_path, program

# What made a command of the kit do something else, fail, or act on another project, or could.
FOREIGN = {
    "VAGRANT_CWD": "/some/other/project",
    "VAGRANT_VAGRANTFILE": "Vagrantfile.other",
    "VAGRANT_DOTFILE_PATH": "/some/other/.vagrant",
    "VAGRANT_DEFAULT_PROVIDER": "hyperv",
    "PYTEST_ADDOPTS": "-k etcd",
    "PYTEST_PLUGINS": "no_such_plugin",
    "PIP_USER": "1",
    "PIP_TARGET": "/elsewhere",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONSTARTUP": "/nowhere.py",
    "GOFLAGS": "-mod=vendor",
    "GOEXPERIMENT": "boringcrypto",
    "GOROOT": "/nowhere",
    "CGO_CFLAGS": "-O0",
    "DOCKER_CONTENT_TRUST": "1",
    "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "DOCKER_API_VERSION": "1.12",
    "LIBVIRT_DEFAULT_URI": "test:///default",
    "GIT_DIR": "/some/other/.git",
    "CDPATH": ".:/root",
    "GREP_OPTIONS": "--color=always",
    "TAR_OPTIONS": "--exclude=*",
    "GZIP": "-9",
    "BASH_ENV": "/nowhere.sh",
    "KUBECONFIG": "/another/cluster",
    "FORCE_COLOR": "1",
    "LANGUAGE": "ko",
    "LC_MESSAGES": "ko_KR.UTF-8",
    "LD_PRELOAD": "",
}
INTENDED = {
    "PATH": os.environ["PATH"],
    "HOME": "/home/ada",
    "USER": "ada",
    "TERM": "xterm-kitty",
    "XDG_CACHE_HOME": "/cache",
    "SSH_AUTH_SOCK": "/run/agent",
    "DOCKER_HOST": "unix:///run/user/1000/docker.sock",
    "DOCKER_CONTEXT": "rootless",
    "DOCKER_CONFIG": "/home/ada/docker",
    "VAGRANT_HOME": "/large/vagrant.d",
    "VBOX_USER_HOME": "/large/vbox",
    "HA_LAB_DEBUG": "1",
}


def test_a_program_sees_what_is_intended_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in (INTENDED | FOREIGN).items():
        monkeypatch.setenv(name, value)
    said = process.run(["env", "-0"]).stdout
    seen = dict(each.split("=", 1) for each in said.split("\0") if each)
    assert seen == INTENDED | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def test_a_shell_of_the_kit_s_has_no_function_of_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASH_FUNC_docker%%", "() { echo another docker; }")
    assert process.run(["bash", "-c", "type -t docker"], accept=None).stdout.strip() in ("", "file")


def test_what_a_caller_adds_is_there_too() -> None:
    assert process.run(["printenv", "LC_ALL"], env={"LC_ALL": "C"}).stdout == "C\n"
    assert environment.chosen(["A", "B", "C"], {"A": "1", "B": "", "D": "2"}) == {"A": "1"}


def test_a_vagrant_of_the_kit_s_never_acts_on_the_project_that_the_user_s_one_is_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.providers.vagrant import LoggedVagrant
    from lab.workspace import Workspace

    program(tmp_path / "bin", "vagrant", 'echo "$* in $PWD, ${VAGRANT_CWD:-nothing else}"')
    first_on_path(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("VAGRANT_CWD", "/some/other/project")
    workspace, log = Workspace(tmp_path / ".lab"), tmp_path / "log"
    workspace.root.mkdir()
    LoggedVagrant(workspace, log).destroy()
    assert f"destroy --force --parallel in {workspace.root}, nothing else" in log.read_text()


@pytest.mark.parametrize("kind", ["missing", "relative", "a file", "shut"])
def test_a_folder_for_temporary_files_that_can_t_be_used_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "file").touch()
    if kind == "shut":  # root may write everywhere, so the kernel's answer is played
        monkeypatch.setattr(os, "access", lambda *_: False)
    folder = {"missing": "/nowhere/at/all", "relative": ".", "a file": str(tmp_path / "file")}
    assert "TMPDIR" not in environment.base({"TMPDIR": folder.get(kind, str(tmp_path))})


def test_one_that_can_be_used_is_kept(tmp_path: Path) -> None:
    assert environment.base({"TMPDIR": str(tmp_path)})["TMPDIR"] == str(tmp_path)


def test_authorities_are_known_where_their_file_is_there(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    assert "SSL_CERT_FILE" not in environment.base({"SSL_CERT_FILE": str(file)})
    file.touch()
    assert environment.base({"SSL_CERT_FILE": str(file)})["SSL_CERT_FILE"] == str(file)


def test_inside_this_process_holds_for_libraries_too_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    before = dict(os.environ)
    with contextlib.suppress(KeyError), environment.in_this_process():
        assert os.environ == environment.base(before)
        os.environ["LEFT_BEHIND"] = "1"
        raise KeyError
    assert os.environ == before


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, name) for name in ("xterm", "xterm-256color", "screen", "tmux-256color", "linux", "dumb", "")),
        *((name, "xterm-256color") for name in ("xterm-kitty", "alacritty", "foot", "xterm-ghostty", "vt999")),
    ],
)
def test_machines_get_a_terminal_that_they_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: str
) -> None:
    assert environment.terminal_of_machines(name) == known
    became: list[dict[str, str]] = []
    monkeypatch.setenv("TERM", name)
    monkeypatch.setenv("LC_TIME", "ko_KR.UTF-8")
    monkeypatch.setattr(os, "execvpe", lambda program, words, env: became.append(env))
    process.replace(["ssh", "cp1"])
    assert [(env["TERM"], env.get("LC_TIME")) for env in became] == [(known, None)]


def test_becoming_a_program_looks_for_it_where_the_user_does(tmp_path: Path) -> None:
    program(tmp_path, "ssh", "echo $TERM")
    start = f"from lab.system import process; process.replace(['{tmp_path}/ssh'])"
    said = process.run([sys.executable, "-c", start], cwd=REPOSITORY, env={"TERM": "alacritty"})
    assert said.stdout == "xterm-256color\n"
    with pytest.raises(CommandFailed, match="no such program"):
        process.replace(["no-such-program"])


def test_the_start_script_leaves_the_same_settings_of_pip() -> None:
    [kept] = re.findall(r"\tPIP_INDEX_URL \|[^)]*\) ;;", (REPOSITORY / "inv").read_text())
    assert set(re.findall(r"PIP_\w+", kept)) == set(environment.PIP)
