from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.system.paths import REPOSITORY
from tests.unit.fakes import program

NEEDED = ("sh", "dirname", "cmp", "cp", "rm", "id", "mkdir", "chmod", "cat", "env", "tar")

PYTHON = """
echo "python3 $*" >>{kept}
case "$1 $2" in
"-c import sys; sys.exit"*) exit {old} ;;
"-c import ensurepip, venv") exit {bare} ;;
"-c import sys; print"*) echo python3.11-venv ;;
"-m venv")
	mkdir -p "$3/bin"
	cat >"$3/bin/python3" <<-'END'
		#!/bin/sh
		[ "$1 $2" = "-P -m" ] || exit 98
		shift 2
		env >{kept}."$1"
		case $1 in
		pip) echo "$*" >>{kept} && exit {pip} ;;
		invoke) echo "$*" && exit 7 ;;
		*) exit 99 ;;
		esac
	END
	chmod +x "$3/bin/python3"
	;;
*) exit 97 ;;
esac
"""


class Copy:
    """A copy of the start script in a folder of its own, on a PATH of what it needs and no more."""

    def __init__(self, root: Path, name: str = "a kit") -> None:
        """Lay out script, lock and programs, in a folder of that name; there is no Python yet."""
        self.root, self.bin, self.kept = root / name, root / "bin", root / "kept"
        self.cache = root / "cache"
        self.root.mkdir()
        self.bin.mkdir()
        shutil.copy(REPOSITORY / "inv", self.root / "inv")
        (self.root / "requirements.txt").write_text("a==1\n")
        for name in NEEDED:
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)

    def python(self, *, old: int = 0, bare: int = 0, pip: int = 0) -> None:
        """Put a Python on PATH; each number is the exit code of one question to it."""
        program(self.bin, "python3", PYTHON.format(kept=f"'{self.kept}'", old=old, bare=bare, pip=pip))

    def start(
        self, *words: str, typed: str = "", cwd: str = "/", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Type the command, as the name `typed` in the folder `cwd`."""
        return subprocess.run(
            [typed or self.root / "inv", *words],
            capture_output=True,
            text=True,
            env={"PATH": str(self.bin), "XDG_CACHE_HOME": str(self.cache), **environment},
            cwd=cwd,
            timeout=30,
            check=False,
        )

    def seen(self, program: str) -> dict[str, str]:
        """The environment in which pip or invoke was started last."""
        lines = (self.root.parent / f"kept.{program}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def asked(self) -> list[str]:
        """What Python, pip and apt were asked since the last time."""
        lines = self.kept.read_text().splitlines() if self.kept.exists() else []
        self.kept.write_text("")
        return lines


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_the_start_script_is_posix_shell() -> None:
    assert (REPOSITORY / "inv").read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", REPOSITORY / "inv"], check=True)
    assert os.access(REPOSITORY / "inv", os.X_OK)


def test_the_first_start_makes_the_venv_from_the_hashed_lock_and_hands_on(copy: Copy) -> None:
    copy.python()
    ran = copy.start("up", "--lab", "a b.yaml")
    assert ran.stdout == f"invoke --search-root {copy.root} up --lab a b.yaml\n"
    assert ran.returncode == 7, "invoke's exit code is the script's"
    pip = [line for line in copy.asked() if line.startswith("pip ")]
    assert len(pip) == 1
    assert "--require-hashes" in pip[0]
    assert f"--requirement {copy.root}/requirements.txt" in pip[0]


def test_a_second_start_asks_neither_python_nor_pip(copy: Copy) -> None:
    copy.python()
    copy.start("up")
    copy.asked()
    ran = copy.start("up")
    assert copy.asked() == []
    assert ran.stdout.startswith("invoke ")
    assert ran.stderr == ""


def test_a_changed_lock_makes_the_venv_again(copy: Copy) -> None:
    copy.python()
    copy.start("up")
    copy.asked()
    (copy.root / ".venv" / "stale").touch()
    (copy.root / "requirements.txt").write_text("a==2\n")
    copy.start("up")
    assert any(line.startswith("pip ") for line in copy.asked())
    assert not (copy.root / ".venv" / "stale").exists()


def test_a_checkout_may_be_moved(copy: Copy) -> None:
    copy.python()
    copy.start("up")
    copy.asked()
    moved = copy.root.with_name("its new place")
    copy.root.rename(moved)
    started = copy.start("up", typed=str(moved / "inv"))
    assert (started.returncode, started.stdout) == (7, f"invoke --search-root {moved} up\n")
    assert copy.asked() == []


def test_a_venv_whose_python_is_gone_is_made_again(copy: Copy) -> None:
    copy.python()
    copy.start("up")
    copy.asked()
    python = copy.root / ".venv" / "bin" / "python3"
    python.unlink()
    python.symlink_to("/usr/bin/python3.of-an-older-debian")
    assert copy.start("up").returncode == 7
    assert any("-m venv" in line for line in copy.asked())


def test_a_set_up_that_failed_is_never_taken_for_whole(copy: Copy) -> None:
    copy.python(pip=1)
    ran = copy.start("up")
    assert ran.returncode == 3
    assert "the Python packages could not be installed" in ran.stderr
    copy.asked()
    copy.python()
    assert copy.start("up").returncode == 7
    assert any(line.startswith("pip ") for line in copy.asked())


def test_a_missing_python_is_told(copy: Copy) -> None:
    ran = copy.start("up")
    assert ran.returncode == 3
    assert "inv: python3 is missing\n  next: install Python 3.11" in ran.stderr


def test_an_old_python_is_told(copy: Copy) -> None:
    copy.python(old=1)
    ran = copy.start("up")
    assert ran.returncode == 3
    assert "python3 is older than 3.11" in ran.stderr


def test_a_python_without_venv_is_told_with_its_package_and_nothing_is_installed(copy: Copy) -> None:
    copy.python(bare=1)
    program(copy.bin, "apt-get", f"echo \"apt-get $*\" >>'{copy.kept}'")
    ran = copy.start("up")
    assert ran.returncode == 3
    assert "apt-get install python3.11-venv" in ran.stderr
    assert not any(line.startswith("apt-get") for line in copy.asked())


@pytest.mark.parametrize("flag", ["--yes", "-y"])
def test_with_consent_the_venv_module_is_installed(copy: Copy, flag: str) -> None:
    copy.python(bare=1)
    for name in ("apt-get", "sudo"):
        body = f"echo \"{name} $*\" >>'{copy.kept}'" + ('\nexec "$@"' if name == "sudo" else "")
        program(copy.bin, name, body)
    assert copy.start("up", flag).returncode == 7
    asked = [line for line in copy.asked() if line.startswith("apt-get")]
    assert asked[0].startswith("apt-get update")
    assert asked[1].endswith("python3.11-venv")


def test_a_word_for_a_machine_is_no_consent(copy: Copy) -> None:
    copy.python(bare=1)
    assert copy.start("ssh", "cp1", "--", "apt-get", "install", "--yes").returncode == 3


def test_a_home_that_is_shut_or_gone_is_told_before_anything(copy: Copy) -> None:
    copy.python()
    ran = copy.start("up", HOME="/nowhere/at/all")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert (
        "HOME is /nowhere/at/all, which is not a folder that this user can use\n  next: export HOME"
        in ran.stderr
    )
    assert copy.asked() == []


@pytest.mark.parametrize(
    ("name", "why"),
    [("lab 12:30", "a colon"), ("a\nkit", "a line break"), ("a\tkit", "a line break or another control")],
)
def test_a_checkout_in_a_folder_that_can_t_be_on_path_is_refused_before_anything(
    tmp_path: Path, name: str, why: str
) -> None:
    copy = Copy(tmp_path, name)
    copy.python()
    (tmp_path / "linked").symlink_to(copy.root)
    for typed in (copy.root / "inv", tmp_path / "linked" / "inv"):
        ran = copy.start("up", "--yes", typed=str(typed))
        assert (ran.returncode, ran.stdout) == (3, "")
        assert f"inv: this checkout's folder, {copy.root}, has {why}" in ran.stderr
        assert "\n  next: move it to, or clone it into, a folder without one\n" in ran.stderr
        assert copy.asked() == []
        assert not (copy.root / ".venv").exists()


def test_a_checkout_may_be_in_a_folder_with_letters_of_any_language(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "실습 \u00e9")
    copy.python()
    assert copy.start("up", LC_ALL="C").returncode == 7


def bundle(folder: Path, lock: str) -> Path:
    """A file such as `bake --export` makes, with the packages of that lock."""
    wheels = folder / "made" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"a")
    (wheels / "requirements.txt").write_text(lock)
    path = folder / "a lab.tar"
    subprocess.run(["tar", "-cf", path, "-C", folder / "made", "wheels"], check=True)
    return path


@pytest.mark.parametrize("words", [["--import", "{}"], ["--import={}"], ["-i", "{}"], ["-i={}"], ["-i{}"]])
def test_a_first_start_with_a_bundle_takes_its_packages_and_asks_no_index(
    copy: Copy, tmp_path: Path, words: list[str]
) -> None:
    copy.python()
    file = bundle(tmp_path, "a==1\n")
    assert copy.start("bake", *(word.format(file) for word in words)).returncode == 7
    pip = [line for line in copy.asked() if line.startswith("pip ")]
    assert len(pip) == 1
    assert f"--no-index --find-links {copy.root}/.venv/wheels" in pip[0]
    assert "--require-hashes" in pip[0]
    assert not (copy.root / ".venv" / "wheels").exists(), "they are no use once they are installed"
    assert not copy.cache.exists(), "the file is checked before anything of it is kept"


def test_what_was_imported_once_serves_every_start(copy: Copy, tmp_path: Path) -> None:
    copy.python()
    kept = copy.cache / "ha-lab" / "wheels"
    kept.mkdir(parents=True)
    shutil.copy(copy.root / "requirements.txt", kept)
    copy.start("up")
    assert f"--no-index --find-links {kept}" in copy.asked()[-1]


def test_the_letter_that_names_a_bundle_is_another_verb_s_flag(copy: Copy) -> None:
    copy.python()
    assert copy.start("drill", "-i", "all").returncode == 7
    assert copy.start("ssh", "cp1", "--", "bake", "-i", "x").returncode == 7


def test_a_bundle_that_is_not_there_is_told(copy: Copy) -> None:
    copy.python()
    ran = copy.start("bake", "--import", "/nowhere/lab.tar")
    assert ran.returncode == 3
    assert "there is no file /nowhere/lab.tar\n  next: './inv bake --export FILE' writes one" in ran.stderr


def test_packages_of_another_lock_are_not_taken(copy: Copy, tmp_path: Path) -> None:
    copy.python()
    ran = copy.start("bake", "--import", str(bundle(tmp_path, "a==2\n")))
    assert "was made by another checkout" in ran.stderr
    assert "--no-index" not in "".join(copy.asked())


def test_a_python_that_the_bundle_has_no_packages_for_asks_the_index(copy: Copy, tmp_path: Path) -> None:
    copy.python(pip=1)
    ran = copy.start("bake", "--import", str(bundle(tmp_path, "a==1\n")))
    assert ran.returncode == 3
    tries = [line for line in copy.asked() if line.startswith("pip ")]
    assert ["--no-index" in line for line in tries] == [True, False]


def test_a_bundle_that_is_none_is_told_before_anything_is_installed(copy: Copy, tmp_path: Path) -> None:
    copy.python()
    (tmp_path / "text").write_text("no tar\n")
    ran = copy.start("bake", "--import", str(tmp_path / "text"))
    assert ran.returncode == 3
    assert "text was not made by 'bake --export', or is incomplete\n  next: use a file that" in ran.stderr
    assert not any(line.startswith("pip ") for line in copy.asked())


def test_a_path_for_cd_leads_nowhere_else(copy: Copy, tmp_path: Path) -> None:
    copy.python()
    ran = copy.start("--list", typed="a kit/inv", cwd=str(tmp_path), CDPATH=f".:{tmp_path}:/")
    assert (ran.returncode, ran.stdout) == (7, f"invoke --search-root {copy.root} --list\n")


@pytest.mark.parametrize("root", [True, False])
def test_settings_of_other_work_do_not_reach_apt(copy: Copy, root: bool) -> None:
    copy.python(bare=1)
    (copy.bin / "id").unlink()
    program(copy.bin, "id", f"echo {0 if root else 1000}")
    program(copy.bin, "sudo", 'exec "$@"')
    program(copy.bin, "apt-get", f"env >>'{copy.kept}.apt'")
    others = {"APT_CONFIG": "/elsewhere", "DPKG_ROOT": "/elsewhere", "DEBCONF_DEBUG": "."}
    assert (
        copy.start("up", "--yes", **others, DEBIAN_FRONTEND="gnome", http_proxy="http://p:3128").returncode == 7
    )
    seen = copy.seen("apt")
    assert not others.keys() & seen.keys()
    assert (seen["DEBIAN_FRONTEND"], seen["http_proxy"]) == ("noninteractive", "http://p:3128")


FOREIGN = {
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONSTARTUP": "/nowhere.py",
    "PYTHONWARNINGS": "error",
    "PIP_USER": "1",
    "PIP_TARGET": "/elsewhere",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_NO_DEPS": "1",
    "INVOKE_TASKS_COLLECTION_NAME": "others",
    "GREP_OPTIONS": "--color=always",
    "TAR_OPTIONS": "--exclude=*",
    "CDPATH": "/",
}


def test_settings_of_other_work_reach_neither_pip_nor_the_kit(copy: Copy) -> None:
    copy.python()
    kept = {"PIP_INDEX_URL": "https://mirror.example/simple", "PIP_CERT": "/ca.pem", "HA_LAB_DEBUG": "1"}
    # The second line of a value is no variable, whatever it looks like.
    odd = {"ODD": "1\nPIP_ two words\nPYTHON;exit 9\nPIP_CERT=/other.pem"}
    assert copy.start("up", **FOREIGN, **kept, **odd).returncode == 7
    for started in ("pip", "invoke"):
        seen = copy.seen(started)
        assert not FOREIGN.keys() & seen.keys()
        assert seen.items() >= kept.items() - {("PIP_CERT", "/ca.pem")}
    assert "--no-user" in next(line for line in copy.asked() if line.startswith("pip ")), (
        "a pip.conf may ask so"
    )


def test_a_python_home_of_the_user_s_does_not_keep_python_from_starting(copy: Copy) -> None:
    copy.python()
    program(copy.bin, "python3", f'[ -z "${{PYTHONHOME-}}" ] || exit 98\n{(copy.bin / "python3").read_text()}')
    assert copy.start("up", PYTHONHOME="/nowhere").returncode == 7


def test_git_gives_every_checkout_the_line_ends_that_shells_read() -> None:
    names = ["inv", "provision/node/node.sh", "supply/go/requirements.txt", "tasks.py"]
    words = ["git", "check-attr", "text", "eol", "--", *names]
    said = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert said.count(": eol: lf") == said.count(": text: auto") == len(names)
