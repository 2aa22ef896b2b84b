"""The verbs as a person types them, with nothing behind them; in a process of its own what depends on one."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import config, exit_codes
from lab.drill import command
from lab.errors import LabStateError
from lab.exit_codes import CHANGES, DOWN, INTERRUPTED, TASK_NOT_YET, USAGE
from lab.exit_codes import IMPOSSIBLE as REFUSED_CHANGE
from lab.health import verify
from lab.session import Session, open_wanted
from lab.system import progress
from lab.workspace import Workspace, made
from lab.workspace.made import Made
from tests.unit.fakes import keep_made, printed, program
from tests.unit.sessions import let_exist
from tests.unit.typed import run_as_main, typed
from tests.whole import rows

REPOSITORY = Path(__file__).resolve().parents[2]
INVOKE = Path(sys.executable).with_name("invoke")
VERBS = (
    *(
        "backup",
        "bake",
        "bench",
        "checkpoint",
        "checkpoints",
        "completion",
        "conformance",
        "destroy",
        "docs",
        "doctor",
        "drill",
        "handout",
        "init",
        "kubeconfig",
        "lint",
        "lock",
        "logs",
        "plan",
        "recover",
        "render",
        "replace",
        "restore",
        "ssh",
        "status",
        "stop",
        "task",
        "test",
    ),
    *("up", "verify", "watch"),
)
ON_A_LAB = [verb for verb in VERBS if verb not in ("completion", "docs", "init", "lint", "test")]

RAISING = """
import sys
import tasks
from lab.errors import *
from pathlib import Path
from typing import Any

@tasks.verb(interrupted=tasks.GOES_ON)
def body(c):
    {statement}

from invoke import Program, Collection
collection = Collection()
collection.add_task(body, "body")
Program(namespace=collection).run()
"""


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Programs that a verb may find: none of them may be asked anything, but where the lab's network is."""
    (tmp_path / "lab.yaml").write_text("")
    folder = tmp_path / "bin"
    for name in ("docker", "vagrant", "ssh", "sudo", "apt-get", "service"):
        program(folder, name, f'echo "{name} $*" >>{tmp_path}/asked; exit 97')
    program(folder, "ip", 'echo \'[{"gateway": "192.0.2.1", "prefsrc": "192.0.2.2"}]\'')
    return folder


def started(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a line in a process of its own, where that makes a difference."""
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [INVOKE, "--search-root", REPOSITORY, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path / "home"), **environment},
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def raising(
    tmp_path: Path, statement: str, *, user: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb whose body is this statement."""
    code = compile(RAISING.format(statement=statement), "a verb of this test", "exec")
    known = {"HOME": str(tmp_path), **environment}
    return run_as_main(
        lambda: exec(code, {"__name__": "__main__"}),  # noqa: S102  the test's own words
        ["inv", "body"],
        cwd=REPOSITORY,
        environment=known,
        user=user,
    )


def test_every_verb_is_listed_with_what_it_does(tmp_path: Path) -> None:
    said = typed(tmp_path, "--list").stdout
    found = re.findall(r"^  (\w+)   +\S", said, re.MULTILINE)
    assert tuple(found) == VERBS


@pytest.mark.slow
@pytest.mark.parametrize("line", rows(["upp", "--help up", "render --lab lab.yaml"], usual=["upp"]))
def test_a_line_does_here_what_it_does_in_a_process_of_its_own(
    tmp_path: Path, bin_folder: Path, line: str
) -> None:
    (tmp_path / "lab.yaml").write_text("bogus: 1\n")
    apart, here = started(tmp_path, *line.split()), typed(tmp_path, *line.split())
    assert (here.returncode, here.stdout, here.stderr) == (apart.returncode, apart.stdout, apart.stderr)


def test_a_plan_of_a_lab_yaml_with_mistakes_does_not_end_as_one_with_changes(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("bogus: 1\n")
    for words in (("plan",), ("plan", "--json"), ("render",)):
        ran = typed(tmp_path, *words, "--lab", "lab.yaml")
        assert (ran.returncode, ran.stdout) == (USAGE, "")
        assert "error: lab.yaml:1: bogus" in ran.stderr


ASKING = {
    "doctor": ("lab.host.doctor.examination.look", ()),
    "doctor --json": ("lab.host.doctor.examination.look", ()),
    "status": ("lab.health.status.look", LabStateError("asked")),
    "status --json": ("lab.health.status.look", LabStateError("asked")),
    "verify": ("lab.health.verify.run", LabStateError("asked")),
    "verify --json": ("lab.health.verify.run", LabStateError("asked")),
    "task": ("lab.workshop.task.look.progress", ()),
    "task --json": ("lab.workshop.task.look.progress", ()),
    "task 3": ("lab.workshop.task.look.ask", LabStateError("asked")),
    "logs": ("lab.verbs.diagnose.collect", Path("archive")),
    "bake --prune": ("lab.golden.image.prune", []),
}
"""Verbs that ask and have no steps: which function asks, and what it returns here, or raises."""


@pytest.mark.usefixtures("bin_folder")
@pytest.mark.parametrize("line", ASKING)
def test_no_verb_waits_without_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(progress, "FIRST_NOTICE", 0.05)
    monkeypatch.setattr(progress, "NEXT_NOTICE", 0.05)
    monkeypatch.setattr(progress, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(verify, "USUAL", 0.0)
    name, answer = ASKING[line]

    def slow(*_: object, **__: object) -> object:
        time.sleep(0.5)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(name, slow)
    ran = typed(tmp_path, *line.split(), "--lab", "lab.yaml")
    on_errors = "--json" in line or line == "logs"  # standard output is for a program there
    said, other = (ran.stderr, ran.stdout) if on_errors else (ran.stdout, ran.stderr)
    assert re.search(r"… waiting for .*  no answer yet\n", said)
    assert "waiting for" not in other


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_for_each_option(tmp_path: Path, verb: str) -> None:
    said = typed(tmp_path, "--help", verb)
    assert said.returncode == 0
    assert re.search(r"Docstring:\n  \S", said.stdout)
    options = said.stdout.partition("Options:\n")[2]
    for line in filter(None, options.splitlines()):
        assert re.match(r"  (-\w, )?--|  -\w|   {4,}\S", line), line
        if line.startswith("  -"):
            assert len(re.split(r"   +", line.strip())) == 2, f"no help: {line}"


@pytest.mark.parametrize(
    ("statement", "code", "said"),
    [
        (
            'raise ConfigError(["lab.yaml:3: x: bad", "lab.yaml:5: y: bad"], hint="mend it")',
            2,
            "lab.yaml:5: y: bad",
        ),
        ('raise HostNotFit("docker is missing", hint="mend it")', 3, "error: docker is missing"),
        ('raise LabStateError("no", hint="mend it", log=Path("/x/01.log"))', 1, "  log:  /x/01.log"),
        (
            'raise CommandFailed(["ip", "a b"], "ended", tail="words", hint="mend it")',
            1,
            "`ip 'a b'` ended\n    words",
        ),
        ('raise WaitTimedOut("cp1", 10, "no route", hint="mend it")', 1, "cp1: not after 10 s: no route"),
        (
            'raise NodeFailed("join", {"w1": LabError("no", hint="mend it"), "w2": LabError("nor")})',
            1,
            "join failed on w2: nor",
        ),
        ('raise LabError("[red]as it is[/red]", hint="mend it")', 1, "error: [red]as it is[/red]"),
    ],
)
def test_an_error_is_a_message_a_next_step_and_an_exit_code(
    tmp_path: Path, statement: str, code: int, said: str
) -> None:
    ran = raising(tmp_path, statement)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "  next: mend it" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


CAUSED = """
    try:
        open("/nowhere/proxy")
    except OSError as error:
        raise LabError("no answer", hint="fix it") from error"""


def test_the_cause_of_an_error_is_shown_with_debug_set(tmp_path: Path) -> None:
    ran = raising(tmp_path, CAUSED, HA_LAB_DEBUG="1")
    assert ran.returncode == 1
    message, _, rest = ran.stderr.partition("Traceback")
    assert message == "error: no answer\n  next: fix it\n"
    cause, _, error = rest.partition("The above exception was the direct cause of the following exception")
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/proxy'" in cause
    assert "lab.errors.LabError: no answer" in error


def test_without_debug_no_cause_is_shown(tmp_path: Path) -> None:
    ran = raising(tmp_path, CAUSED, HA_LAB_DEBUG="")
    assert (ran.returncode, ran.stderr, ran.stdout) == (1, "error: no answer\n  next: fix it\n", "")


def test_every_machine_s_own_error_is_a_cause(tmp_path: Path) -> None:
    statement = 'raise NodeFailed("join", {"w1": LabError("w1 is off"), "w2": LabError("w2 is full")})'
    shown = raising(tmp_path, statement, HA_LAB_DEBUG="1").stderr
    assert "LabError: w1 is off" in shown
    assert "LabError: w2 is full" in shown


@pytest.mark.parametrize("raised", ["LabError('no') from {}", "OSError(1, 'no') from {}", "{}"])
def test_a_login_in_a_cause_is_shown_nowhere(tmp_path: Path, raised: str) -> None:
    statement = "raise " + raised.format("ValueError('http://ada:hunter2@proxy:3128')")
    ran = raising(tmp_path, statement, HA_LAB_DEBUG="1")
    assert ran.returncode == 1
    assert "ValueError: http://[login]@proxy:3128" in ran.stderr
    for text in (ran.stdout, ran.stderr, *(kept.read_text() for kept in tmp_path.rglob("fault.txt"))):
        assert "hunter2" not in text


def test_a_fault_of_the_kit_is_one_message_and_a_file_to_report(tmp_path: Path) -> None:
    ran = raising(tmp_path, "1 / 0")
    assert ran.returncode == 1
    assert "internal error: ZeroDivisionError" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "ZeroDivisionError" in (tmp_path / ".cache/ha-lab/fault.txt").read_text()


def test_a_fault_is_kept_also_where_the_home_folder_can_t_be_used(tmp_path: Path) -> None:
    (tmp_path / "shut").write_text("no folder\n")
    ran = raising(tmp_path, "1 / 0", XDG_CACHE_HOME=str(tmp_path / "shut"), TMPDIR=str(tmp_path))
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    (kept,) = tmp_path.glob("ha-lab-fault-*.txt")
    assert f"log:  {kept}" in ran.stderr
    assert "ZeroDivisionError" in kept.read_text()


def test_a_user_without_a_home_folder_is_told(tmp_path: Path) -> None:
    ran = raising(
        tmp_path, "import os; del os.environ['HOME']; from lab.host.places import home; home()", user=False
    )
    assert ran.returncode == 3
    assert "this user has no home folder" in ran.stderr
    assert "next: export HOME=" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", rows(["--list", "--help ssh", "status --lab lab.yaml"], usual=["status --lab lab.yaml"])
)
def test_an_encoding_without_our_signs_gets_plain_ones(tmp_path: Path, bin_folder: Path, line: str) -> None:
    ran = started(tmp_path, *line.split(), PYTHONIOENCODING="ascii")
    assert "Traceback" not in ran.stderr
    assert "fault of the kit" not in ran.stderr
    assert ran.stdout
    assert ran.returncode == (DOWN if line.startswith("status") else 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("upp",),
            "error: there is no verb upp\n  next: did you mean `./inv up`? `./inv --list` shows all verbs\n",
        ),
        (("zzz",), "error: there is no verb zzz\n  next: `./inv --list` shows all verbs\n"),
        (
            ("ssh", "cp1", "hostname"),
            "error: `ssh` takes no hostname after that, and there is no verb of that name\n"
            "  next: `./inv ssh MACHINE -- hostname` runs it on a machine; `./inv --help ssh` shows",
        ),
        (("plan", "zzz"), "error: `plan` takes no zzz after that, and there is no verb of that name\n"),
        (("render", "upp"), "error: there is no verb upp\n  next: did you mean `./inv up`?"),
        (
            ("up", "--yess"),
            "error: there is no flag --yess\n  next: did you mean --yes? `./inv --help up` shows",
        ),
        (
            ("stop", "--la"),
            "error: there is no flag --la\n  next: did you mean --lab? `./inv --help stop` shows",
        ),
        (("ssh", "--yes"), "error: there is no flag --yes\n"),
        (("status", "--lab"), "error: --lab needs a value\n  next: `./inv --help status` shows"),
        (("task", "--number"), "error: --number needs a value\n  next: `./inv --help task` shows"),
        (("--help", "upp"), "error: there is no verb upp\n  next: did you mean `./inv --help up`? `./inv --l"),
        (("ssh",), "error: `ssh` needs: node\n  next: `./inv --help ssh` shows"),
        (("replace",), "error: `replace` needs: node\n  next: `./inv --help replace` shows"),
        (("recover",), "error: `recover` needs: file\n  next: `./inv --help recover` shows"),
        (("ssh", "cp1", "status"), "error: no other verb can follow `ssh`\n  next: run them as two commands\n"),
        (("ssh", "cp1", "ssh", "cp2", "--", "id"), "error: no other verb can follow `ssh`\n"),
        (
            ("up", "status", "--", "id"),
            "error: arguments after `--` are a command for a machine, and `status` takes",
        ),
    ],
)
def test_a_line_that_is_not_understood_is_told_with_what_to_type(
    tmp_path: Path, bin_folder: Path, words: tuple[str, ...], said: str
) -> None:
    ran = typed(tmp_path, *words)
    assert ran.returncode == 2
    assert ran.stderr.startswith(said)
    assert ran.stderr.count(said) == 1
    assert not (tmp_path / "asked").exists()


def test_ssh_may_be_the_last_of_a_line_with_its_words(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "destroy", "--lab", "lab.yaml", "ssh", "cp9", "--lab", "lab.yaml", "--", "id")
    assert "there is no machine 'cp9'" in ran.stderr


@pytest.mark.parametrize("until", ["", "workers"])
def test_a_stop_that_there_is_not_is_told_before_anything(tmp_path: Path, bin_folder: Path, until: str) -> None:
    ran = typed(tmp_path, "up", "--yes", "--lab", "lab.yaml", "--until", until)
    assert ran.returncode == 2
    assert "next: one of: load-balancer, control-plane, pod-network, joins" in ran.stderr
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / ".lab").exists()


def test_until_and_measure_exclude_each_other_before_anything_is_touched(
    tmp_path: Path, lived: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    healed: list[object] = []
    monkeypatch.setattr(command, "heal", healed.append)
    Workspace(tmp_path / ".lab").drill.mkdir()
    ran = typed(tmp_path, "up", "--lab", "lab.yaml", "--until", "joins", "--measure")
    assert ran.returncode == 2
    assert "--until and --measure" in ran.stderr
    assert (healed, asked(tmp_path)) == ([], [])


@pytest.mark.parametrize("number", [[], ["3"], ["--number", "3"]])
def test_task_tells_that_what_does_not_hold_may_be_meant(
    tmp_path: Path, bin_folder: Path, number: list[str]
) -> None:
    (tmp_path / ".lab" / "drill").mkdir(parents=True)
    (tmp_path / ".lab" / "drill" / "fault.json").write_text('{"drill": "lose-quorum", "victims": ["cp1"]}')
    ran = typed(tmp_path, "task", "--lab", "lab.yaml", *number)
    assert ran.returncode == (TASK_NOT_YET if number else 0)
    assert (
        "a drill's fault is in the lab: lose-quorum on cp1; `./inv drill --lab lab.yaml --heal`" in ran.stderr
    )


def test_an_interrupted_recovery_is_named_with_the_command_that_goes_on(
    tmp_path: Path, bin_folder: Path
) -> None:
    (tmp_path / ".lab").mkdir()
    record: dict[str, Any] = {
        "file": "/home/ada/my backup.tar",
        "sha256": "",
        "token": "",
        "members": [],
        "before": None,
    }
    (tmp_path / ".lab" / "recovery.json").write_text(json.dumps(record))
    command = "`./inv recover --lab lab.yaml '/home/ada/my backup.tar'` goes on"
    assert f"a recovery was interrupted; {command}" in typed(tmp_path, "status", "--lab", "lab.yaml").stderr
    planned = typed(tmp_path, "plan", "--lab", "lab.yaml")
    assert planned.returncode == REFUSED_CHANGE
    assert f"next: {command}, and so does `./inv recover --lab lab.yaml` with another" in planned.stdout


@pytest.mark.parametrize(
    ("upgrading", "said"),
    [("1.37.2", "an upgrade to Kubernetes 1.37.2 is under way; `./inv up` continues it"), ("", "")],
)
def test_verify_says_that_an_upgrade_is_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], upgrading: str, said: str
) -> None:
    import tasks

    monkeypatch.setattr(tasks.errors_console, "print", lambda text, **style: print(text))
    tasks._warn_of_an_upgrade(SimpleNamespace(made=SimpleNamespace(upgrading=upgrading)))
    tasks._warn_of_an_upgrade(SimpleNamespace(made=None))
    assert capsys.readouterr().out.strip() == said


def test_the_list_has_the_drills_that_all_leaves_out(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "drill", "--lab", "lab.yaml", "--list")
    assert "Kubernetes is upgraded" in ran.stdout
    assert "etcd is downgraded" in ran.stdout


def test_a_backup_that_is_none_is_refused_with_what_to_do(tmp_path: Path, bin_folder: Path) -> None:
    for file, said in (("none.tar", "there is no file"), ("lab.yaml", "is not a backup")):
        ran = typed(tmp_path, "recover", file, "--lab", "lab.yaml")
        assert ran.returncode == USAGE
        assert said in ran.stderr
        assert "next:" in ran.stderr


@pytest.mark.parametrize("pairs", ["x", "0", "-1", "51"])
def test_a_number_of_pairs_that_is_none_is_told_before_anything(
    tmp_path: Path, bin_folder: Path, pairs: str
) -> None:
    ran = typed(tmp_path, "bench", "--lab", "lab.yaml", "--pairs", pairs)
    assert ran.returncode == 2
    assert f"--pairs: {pairs} is not" in ran.stderr
    assert "from 1 to 50" in ran.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--list", "--help up"])
def test_a_reader_who_leaves_while_invoke_prints_is_no_fault(words: str) -> None:
    line = f"set -o pipefail; ./inv {words} | true"
    ran = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_reader_who_leaves_is_no_fault(tmp_path: Path) -> None:
    ran = raising(tmp_path, "raise BrokenPipeError")
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.slow
def test_an_interrupt_ends_what_runs_also_in_threads_and_says_how_to_go_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    working = (
        "from concurrent.futures import ThreadPoolExecutor as Pool; from lab.system import process\n"
        "    with Pool() as pool:\n"
        f"        pool.submit(process.run, ['sh', '-c', 'echo $$ >{pid}; exec sleep 60'])\n"
        "        import time; time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", RAISING.format(statement=working), "body"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    ) as kit:
        end = time.monotonic() + 10
        while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        assert pid.exists(), "the command never started"
        time.sleep(0.2)
        kit.send_signal(signal.SIGINT)
        _, said = kit.communicate(timeout=20)
    assert kit.returncode == 130
    assert "error: interrupted" in said
    assert "run the same command again" in said
    assert "Traceback" not in said
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("verb", "text", "said"),
    [
        *((verb, "bogus: 1\n", "bogus") for verb in ON_A_LAB),
        ("render", "{", "lab.yaml"),
        ("render", "network: {pods: x}\n", "network.pods"),
    ],
)
def test_a_lab_file_that_is_wrong_stops_every_verb_before_anything(
    tmp_path: Path, bin_folder: Path, verb: str, text: str, said: str
) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    words = [verb, "cp1"] if verb in ("ssh", "replace", "checkpoint", "restore", "recover") else [verb]
    ran = typed(tmp_path, *words, "--lab", "lab.yaml")
    assert ran.returncode == USAGE, ran.stderr
    assert "error:" in ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / ".lab").exists()
    assert not (tmp_path / "asked").exists()


def test_a_lab_file_that_is_named_and_missing_is_told(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "status", "--lab", "other.yaml")
    assert ran.returncode == 2
    assert "there is no lab file other.yaml" in ran.stderr


def test_a_lab_file_is_written_where_none_is(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "init", "--lab", "small/lab.yaml", "--example", "smallest")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].endswith("then ./inv up --lab small/lab.yaml --yes")
    assert (tmp_path / "small" / "lab.yaml").read_text() == (REPOSITORY / "examples/smallest.yaml").read_text()
    again = typed(tmp_path, "init", "--lab", "small/lab.yaml")
    assert again.returncode == 1
    assert "small/lab.yaml is there already, and was not changed" in again.stderr
    assert (tmp_path / "small" / "lab.yaml").read_text() == (REPOSITORY / "examples/smallest.yaml").read_text()
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("example", ["small", "../lab", "smallest.yaml"])
def test_an_unknown_example_is_answered_with_those_there_are(tmp_path: Path, example: str) -> None:
    ran = typed(tmp_path, "init", "--lab", "new.yaml", "--example", example)
    assert ran.returncode == 2
    known = sorted(path.stem for path in (REPOSITORY / "examples").glob("*.yaml"))
    assert f"the examples: {', '.join(known)}" in ran.stderr
    assert not (tmp_path / "new.yaml").exists()


def test_the_help_of_init_names_every_example(tmp_path: Path) -> None:
    said = typed(tmp_path, "--help", "init", COLUMNS="200").stdout
    assert [path.stem for path in (REPOSITORY / "examples").glob("*.yaml") if path.stem not in said] == []


COMPLETE = r"""
eval "$1"
COMP_WORDS=(./inv {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compline=$(complete -p inv)
[[ $compline =~ -F\ ([^ ]+) ]]
"${{BASH_REMATCH[1]}}" ./inv "${{COMP_WORDS[COMP_CWORD]}}" ./inv
printf '%s\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ver", ["verify"]),
        ("stat", ["status"]),
        ("verify --ju", ["--junit"]),
        ("stop --la", ["--lab"]),
        ("x", []),
    ],
)
def test_bash_completes_verbs_and_flags(tmp_path: Path, words: str, found: list[str]) -> None:
    """Bash itself is asked, with a `./inv` that is invoke as it is started here."""
    script = typed(tmp_path, "completion", "bash").stdout
    program(tmp_path, "inv", f'exec "{sys.executable}" -P -m invoke --search-root "{REPOSITORY}" "$@"')
    words_ = ["bash", "--noprofile", "--norc", "-c", COMPLETE.format(words=words), "bash", script]
    ran = subprocess.run(words_, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ran.stdout.split() == found, ran.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_the_kit(tmp_path: Path, shell: str) -> None:
    ran = typed(tmp_path, "completion", shell)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"\./inv (\S+ )?--complete -- ", ran.stdout)
    assert not re.search(r"\./inv(?! (\S+ )?--complete )", ran.stdout), "no function may be called so"


def test_an_unknown_shell_is_answered_with_those_there_are(tmp_path: Path) -> None:
    ran = typed(tmp_path, "completion", "csh")
    assert ran.returncode == 2
    assert "error: there is no completion for 'csh'\n  next: bash, zsh or fish" in ran.stderr


def test_an_unknown_machine_is_told_with_those_there_are(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "ssh", "cp9", "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert "there is no machine 'cp9' in this lab" in ran.stderr
    assert "next: its machines: lb1, cp1, cp2, cp3, w1, w2, w3" in ran.stderr


@pytest.mark.parametrize("words", [("kubeconfig",), ("verify",), ("ssh", "cp1")])
def test_what_needs_a_lab_says_that_none_is_up(
    tmp_path: Path, bin_folder: Path, words: tuple[str, ...]
) -> None:
    ran = typed(tmp_path, *words, "--lab", "lab.yaml")
    assert ran.returncode == 1
    assert "./inv up" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_status_of_no_lab_is_an_answer_and_not_an_error(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "status", "--lab", "lab.yaml")
    assert ran.returncode == DOWN
    assert "the lab is not up" in ran.stdout
    assert ran.stderr == ""


def test_status_of_no_lab_is_not_repeated(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "status", "--watch", "--lab", "lab.yaml")
    assert (ran.returncode, ran.stderr) == (DOWN, "")
    assert ran.stdout.count("the lab is not up") == 1


def test_ctrl_c_ends_a_repeated_status_without_a_word(
    tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_session: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.health.status.why_not_up", lambda _session: None)
    monkeypatch.setattr("lab.health.repeat.watch", interrupted)
    ran = typed(tmp_path, "status", "--watch", "--lab", "lab.yaml")
    assert (ran.returncode, ran.stdout, ran.stderr) == (INTERRUPTED, "", "")


def test_a_status_for_programs_is_not_repeated(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "status", "--watch", "--json", "--lab", "lab.yaml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--json and --watch can't be combined" in ran.stderr


def test_status_names_the_command_that_is_changing_the_lab(tmp_path: Path, bin_folder: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    with workspace.lock():
        ran = typed(tmp_path, "status", "--lab", "lab.yaml")
    assert ran.stderr == f"process {os.getpid()} is changing this lab now, so this may soon be out of date\n"


def test_destroying_no_lab_is_no_error(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "destroy", "--lab", "lab.yaml")
    assert ran.returncode == 0
    assert "there is no lab at" in ran.stdout


def test_destroy_asks_and_takes_no_answer_for_no(tmp_path: Path, bin_folder: Path) -> None:
    (tmp_path / ".lab").mkdir()
    ran = typed(tmp_path, "destroy", "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert "next: ./inv destroy --lab lab.yaml --yes" in ran.stderr
    assert (tmp_path / ".lab").exists()


def test_making_taking_along_and_taking_in_are_one_thing_each(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "bake", "--lab", "lab.yaml", "--export", "a.tar", "--import", "b.tar")
    assert ran.returncode == 2
    assert "can't be combined" in ran.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("flag", ["--export", "--import"])
def test_a_bundle_without_a_name_is_no_bake(tmp_path: Path, bin_folder: Path, flag: str) -> None:
    ran = typed(tmp_path, "bake", "--lab", "lab.yaml", flag, "")
    assert ran.returncode == 2
    assert "need a file name" in ran.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("target", ["lab.yaml", "nowhere/lab.tar"])
def test_where_a_bundle_can_t_be_is_said_before_anything_is_made(
    tmp_path: Path, bin_folder: Path, target: str
) -> None:
    ran = typed(tmp_path, "bake", "--lab", "lab.yaml", "--export", target)
    assert ran.returncode == 1
    assert "exists already" in ran.stderr or "not a folder that you can write to" in ran.stderr
    assert not (tmp_path / "asked").exists()


def test_a_file_that_is_no_bundle_touches_nothing(tmp_path: Path, bin_folder: Path) -> None:
    (tmp_path / "notes.tar").write_text("notes\n")
    for name, words in (("notes.tar", "it was not written by"), ("missing.tar", "there is no file")):
        ran = typed(tmp_path, "bake", "--lab", "lab.yaml", "--import", name)
        assert ran.returncode == 1
        assert words in ran.stderr
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / "home" / ".cache").exists()


# A lab that was made, and what lab.yaml has by now.


@pytest.fixture
def lived(tmp_path: Path, bin_folder: Path) -> Made:
    """The default lab as it was made, its machines known to Vagrant."""
    workspace = Workspace(tmp_path / ".lab")
    lab = config.default()
    record = keep_made(workspace, lab)
    let_exist(workspace, *(node.name for node in lab.nodes))
    return record


def record_of(tmp_path: Path) -> Made | None:
    return made.read(Workspace(tmp_path / ".lab"))


def edited(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)


def test_a_plan_of_no_lab_is_everything_and_touches_nothing(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "plan", "--lab", "lab.yaml")
    assert ran.returncode == CHANGES, ran.stderr
    assert "kubeadm init" in ran.stdout
    assert "ha-lab: `./inv up --lab lab.yaml` takes about" in ran.stdout
    assert ran.stderr == ""
    assert not (tmp_path / ".lab").exists()
    assert {line.partition(" --format")[0] for line in asked(tmp_path)} == {"docker image inspect"}
    assert "build the golden machine" in ran.stdout


def test_a_plan_for_programs_is_json_with_the_same_exit_code(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "plan", "--lab", "lab.yaml", "--json")
    found = json.loads(ran.stdout)
    assert ran.returncode == CHANGES
    assert found["changes"] is True
    assert {step["name"] for step in found["steps"]} >= {"boot", "control-plane-init", "worker-join"}


def test_a_plan_says_where_machines_could_not_be_asked(tmp_path: Path, lived: Made) -> None:
    ran = typed(tmp_path, "plan", "--lab", "lab.yaml")
    assert "the machines could not be asked" in ran.stdout
    assert ran.returncode in (0, CHANGES)
    assert record_of(tmp_path) == lived


IMPOSSIBLE = "\nname: yours\nnetwork:\n  pods: 10.200.0.0/16\n"


def test_a_plan_of_what_is_impossible_says_each_with_its_line_and_the_way_out(
    tmp_path: Path, lived: Made
) -> None:
    edited(tmp_path, IMPOSSIBLE)
    ran = typed(tmp_path, "plan", "--lab", "lab.yaml")
    assert ran.returncode == exit_codes.IMPOSSIBLE
    said = " ".join(ran.stdout.split())
    assert (
        "impossible: lab.yaml:2: name: ha-lab → yours can't be done to machines that exist: machines," in said
    )
    assert "impossible: lab.yaml:4: network.pods: 10.244.0.0/16 → 10.200.0.0/16 can't be done" in said
    assert "next: name: change it back; or create the other lab beside this one, " in said
    assert "next: network.pods: change it back; or remove this lab with `./inv destroy --lab lab.yaml`" in said
    assert ran.stderr == ""
    found = json.loads(typed(tmp_path, "plan", "--lab", "lab.yaml", "--json").stdout)
    assert "`./inv destroy --lab lab.yaml`" in found["impossible"][1]["next"]


@pytest.mark.parametrize("words", [("up", "--yes"), ("render",), ("replace", "w3", "--yes")])
def test_machines_made_from_another_lab_file_are_refused_before_anything(
    tmp_path: Path, lived: Made, words: tuple[str, ...]
) -> None:
    edited(tmp_path, IMPOSSIBLE)
    ran = typed(tmp_path, *words, "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert "lab.yaml:2: name: ha-lab → yours can't be done to machines that exist" in ran.stderr
    assert "lab.yaml:4: network.pods: 10.244.0.0/16 → 10.200.0.0/16" in ran.stderr
    assert "  next: name: change it back; or create the other lab beside this one, " in ran.stderr
    assert "        network.pods: change it back; or remove this lab with `./inv destroy --lab" in ran.stderr
    assert not (tmp_path / "asked").exists()
    assert record_of(tmp_path) == lived


def test_keys_with_the_same_way_out_are_named_once(tmp_path: Path, lived: Made) -> None:
    edited(tmp_path, "network: {pods: 10.200.0.0/16}\nload_balancer: {port: 8443}\n")
    for words, where in ((("up", "--yes"), "stderr"), (("plan",), "stdout")):
        said = getattr(typed(tmp_path, *words, "--lab", "lab.yaml"), where)
        assert said.count("change it back") == 1
        assert "next: change it back; or remove this lab with" in said


def test_a_key_that_is_not_in_the_file_is_said_to_have_its_default(tmp_path: Path, lived: Made) -> None:
    made.write(
        Workspace(tmp_path / ".lab"),
        lived.model_copy(update={"lab": lived.lab.model_copy(update={"name": "mine"})}),
    )
    ran = typed(tmp_path, "up", "--yes", "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert "lab.yaml (not in the file, so its default): name: mine → ha-lab" in ran.stderr


def test_a_lab_that_was_only_rendered_may_become_another(tmp_path: Path, bin_folder: Path) -> None:
    for text in ("name: one\n", "name: other\nnetwork: {subnet: 192.168.77.0/24}\n"):
        edited(tmp_path, f"provider: docker\n{text}")
        ran = typed(tmp_path, "render", "--lab", "lab.yaml")
        assert ran.returncode == 0, ran.stderr
        assert "next: ./inv up --lab lab.yaml" in ran.stdout
    record = record_of(tmp_path)
    assert record is not None
    assert record.lab.name == "other"


@pytest.mark.parametrize(
    ("text", "words", "said", "again"),
    [
        (
            "nodes: {workers: {count: 1}}",
            ("up",),
            "`up` needs confirmation, and standard input is not a terminal: w2, w3 will be removed, with all "
            "data that is only there.",
            "./inv plan --lab lab.yaml shows all that changes; ./inv up --lab lab.yaml --yes",
        ),
        (
            "nodes: {control_planes: {count: 1}}",
            ("up",),
            "With 1 control plane, none may fail any more; with the present 3, 1 may.",
            "./inv plan --lab lab.yaml shows all that changes; ./inv up --lab lab.yaml --yes",
        ),
        (
            "",
            ("replace", "w3"),
            "`replace w3` needs confirmation, and standard input is not a terminal: w3 will be removed and "
            "created again.",
            "./inv replace --lab lab.yaml w3 --yes",
        ),
        (
            "",
            ("replace", "lb1"),
            "lb1 will be removed and created again.",
            "./inv replace --lab lab.yaml lb1 --yes",
        ),
        ("", ("destroy",), "Remove all machines of ha-lab?", "./inv destroy --lab lab.yaml --yes"),
    ],
)
def test_what_takes_something_away_needs_a_person_or_yes(
    tmp_path: Path, lived: Made, text: str, words: tuple[str, ...], said: str, again: str
) -> None:
    edited(tmp_path, text)
    ran = typed(tmp_path, *words, "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert said in ran.stderr
    assert f"next: {again}\n" in ran.stderr
    assert not any(line.startswith(("vagrant", "docker rm")) for line in asked(tmp_path))
    assert record_of(tmp_path) == lived


def asked(tmp_path: Path) -> list[str]:
    """What programs were asked."""
    return (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []


@pytest.mark.parametrize(
    ("answer", "removes"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_person_who_does_not_say_yes_keeps_the_lab(
    tmp_path: Path, lived: Made, monkeypatch: pytest.MonkeyPatch, answer: str, removes: bool
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    import tasks

    monkeypatch.setattr("sys.stdin", Person(answer))
    assert tasks._confirmed("up")("Continue? [y/N] ") is removes


@pytest.mark.parametrize("undone", ["", "reverted: cp2's API server frozen"])
def test_a_drill_s_fault_is_reverted_in_the_lab_as_it_was_made_and_told_if_there_was_one(
    tmp_path: Path, lived: Made, monkeypatch: pytest.MonkeyPatch, undone: str
) -> None:
    import tasks

    healed: list[tuple[str, ...]] = []

    def revert(session: Session) -> str:
        healed.append(tuple(node.name for node in session.remote.lab.nodes))
        return undone

    monkeypatch.setattr(command, "revert", revert)
    console, text = printed()
    monkeypatch.setattr(tasks, "console", console)
    edited(tmp_path, "nodes: {workers: {count: 0}}")
    session = open_wanted(tmp_path / "lab.yaml", printed()[0])
    tasks._revert_drill(session)
    assert healed == []
    session.workspace.drill.mkdir()
    tasks._revert_drill(session)
    assert healed == [tuple(node.name for node in lived.lab.nodes)]
    assert text.getvalue().strip() == undone


def test_replacing_in_a_lab_that_has_no_machines_says_how_to_make_them(
    tmp_path: Path, bin_folder: Path
) -> None:
    for rendered in (False, True):
        if rendered:
            keep_made(Workspace(tmp_path / ".lab"), config.default())
        ran = typed(tmp_path, "replace", "cp2", "--yes", "--lab", "lab.yaml")
        assert ran.returncode == 1
        assert "the lab has no machines yet, so none can be replaced" in ran.stderr
        assert "next: `./inv up --lab lab.yaml` creates them" in ran.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("text", "name", "code", "said"),
    [
        ("", "cp9", 2, "there is no machine 'cp9' in this lab"),
        ("nodes: {workers: {count: 4}}", "w4", 1, "w4 was not created yet, so it can't be replaced"),
        ("nodes: {control_planes: {count: 1}}", "cp1", 1, "cp1 is the only control plane"),
    ],
)
def test_what_can_t_be_replaced_is_refused_before_anything(
    tmp_path: Path, lived: Made, text: str, name: str, code: int, said: str
) -> None:
    edited(tmp_path, text)
    ran = typed(tmp_path, "replace", name, "--yes", "--lab", "lab.yaml")
    assert ran.returncode == code
    assert said in ran.stderr
    assert "  next: " in ran.stderr
    assert not (tmp_path / "asked").exists()


def test_stopping_no_lab_says_how_to_make_one(tmp_path: Path, bin_folder: Path) -> None:
    ran = typed(tmp_path, "stop", "--lab", "lab.yaml")
    assert ran.returncode == 1
    assert "the lab has no machines, so none can be stopped" in ran.stderr
    assert "next: `./inv up --lab lab.yaml` creates them" in ran.stderr
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / ".lab").exists()


@pytest.mark.parametrize("words", [("w9",), ("w3,w9",), ("--nodes", "w9")])
def test_stopping_a_machine_that_there_is_not_stops_none(
    tmp_path: Path, lived: Made, words: tuple[str, ...]
) -> None:
    ran = typed(tmp_path, "stop", *words, "--lab", "lab.yaml")
    assert ran.returncode == 2
    assert "there is no machine 'w9' in this lab" in ran.stderr
    assert not (tmp_path / "asked").exists()


def test_stopping_machines_says_which_were_and_how_to_start_them(tmp_path: Path, lived: Made) -> None:
    states = (
        'case "$*" in *ExitCode*) echo 0;; *w2*Status*|*Status*w2*) echo exited;; *Status*) echo running;; esac'
    )
    program(tmp_path / "bin", "docker", f'echo "docker $*" >>{tmp_path}/asked\n{states}')
    ran = typed(tmp_path, "stop", "w3,w2", "--lab", "lab.yaml")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("w3 stopped\nnext: ./inv up --lab lab.yaml starts it again\n")
    assert [line for line in asked(tmp_path) if "docker stop" in line] == ["docker stop --time 30 ha-lab-w3"]
    ran = typed(tmp_path, "stop", "w2", "--lab", "lab.yaml")
    assert ran.returncode == 0
    assert ran.stdout.endswith("these machines were not running; nothing was changed\n")


@pytest.mark.parametrize("words", [("kubeconfig",), ("ssh", "w3"), ("verify",), ("stop", "w9"), ("destroy",)])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: {workers: {count: 1}}\n", "lab.yaml differs from it in nodes.workers.count."),
        ("name: yours\nload_balancer: {port: 8443}\n", "lab.yaml differs from it in name, load_balancer.port."),
        ("bogus: 1\n", "lab.yaml can't be used now (lab.yaml:1: bogus: unknown key"),
    ],
)
def test_what_looks_at_a_lab_says_that_lab_yaml_differs_and_looks_at_the_lab_as_made(
    tmp_path: Path, lived: Made, words: tuple[str, ...], text: str, said: str
) -> None:
    edited(tmp_path, text)
    ran = typed(tmp_path, *words, "--lab", "lab.yaml")
    note, _, rest = ran.stderr.partition("\n")
    assert note.startswith(f"note: the lab is as it was made; {said}")
    assert note.endswith("`./inv plan --lab lab.yaml` shows what `up` would change")
    assert ("). Correct it, then `./inv plan" in note) == ("bogus" in text), "plan can't read it before that"
    assert "bogus" not in rest
    assert "there is no machine 'w3'" not in rest
    assert ran.stdout == ""
    assert record_of(tmp_path) == lived


def test_nothing_is_noted_of_a_lab_that_is_as_lab_yaml_has_it(tmp_path: Path, lived: Made) -> None:
    assert "note:" not in typed(tmp_path, "kubeconfig", "--lab", "lab.yaml").stderr


def test_what_looks_at_a_lab_that_has_moved_finds_its_machines_again(tmp_path: Path, bin_folder: Path) -> None:
    edited(tmp_path, "provider: docker\n")
    assert typed(tmp_path, "render", "--lab", "lab.yaml").returncode == 0
    let_exist(Workspace(tmp_path / ".lab"))
    before = record_of(tmp_path)
    assert before is not None
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("lab.yaml", ".lab", "bin"):
        (tmp_path / name).rename(moved / name)
    ran = typed(moved, "kubeconfig", "--lab", "lab.yaml")
    assert ran.returncode == 1
    assert "has not been brought up" in ran.stderr
    assert f'"{moved}/.lab/secrets/id_ed25519"' in (moved / ".lab" / "ssh_config").read_text()
    after = record_of(moved)
    assert after is not None
    assert (after.owner, after.root) == (before.owner, str(moved / ".lab"))


def test_a_lab_of_a_later_version_is_left_alone_by_every_verb(tmp_path: Path, bin_folder: Path) -> None:
    (tmp_path / ".lab").mkdir()
    (tmp_path / ".lab" / "lab.json").write_text('{"format": 99}')
    for verb in ("up", "plan", "status", "destroy"):
        ran = typed(tmp_path, verb, "--lab", "lab.yaml")
        assert ran.returncode == 1
        assert "was written by a later version of the kit" in ran.stderr
        assert "  next: use this lab with the checkout that created it" in ran.stderr
    assert (tmp_path / ".lab" / "lab.json").read_text() == '{"format": 99}'
    assert not (tmp_path / "asked").exists()
