"""The verbs. Each is a few lines that call `lab`; only here do errors become a message and an exit code."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task as invoke_task

from lab import exit_codes
from lab.system import commandline, quoting
from lab.system.paths import IS_CHECKOUT
from lab.system.terminal import Terminal, naming_in_json, replace_unencodable

HERE = Path(__file__).resolve().parent
DEFAULT_LAB = str(HERE / "lab.yaml") if IS_CHECKOUT else "lab.yaml"
_DEFAULT_IS = "beside tasks.py" if IS_CHECKOUT else "in this folder"
LAB_HELP = {"lab": f"the lab file (default: lab.yaml {_DEFAULT_IS}); its .lab/ folder is beside it"}
CONFIRM_HELP = {
    "yes": "agree to installing what is missing, to other repairs that `doctor` shows, and to removing machines"
}
MEASURE_HELP = {
    "measure": "run the probes of the failure drills during the change, and report what users noticed; "
    "exit 60 when a figure exceeds its limit"
}
GOES_ON = "run the same command again: it continues where it stopped"
YES_HELP = {
    "yes": "agree to installing what is missing, to starting a daemon, and to other repairs that `doctor` shows"
}

commandline.patch_invoke()
for stream in (sys.stdout, sys.stderr):
    replace_unencodable(stream)
console = Terminal()
errors_console = Terminal(stderr=True)


def verb(
    interrupted: str = "", of_checkout: bool = False, **options: Any
) -> Callable[[Callable[..., None]], Any]:
    """An invoke task whose errors become one message: what happened, what to do next, where the log is.

    `interrupted` is what to do after Ctrl-C. With `of_checkout`, an installed package refuses the verb.
    """

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def safely(*words: Any, **named: Any) -> None:
            # Imported here, since `--list` and shell completion don't need it.
            from lab.errors import LabError
            from lab.system import process

            signal.signal(signal.SIGINT, _interrupted)
            signal.signal(signal.SIGTERM, _interrupted)
            try:
                if of_checkout and not IS_CHECKOUT:
                    raise _not_here(body.__name__)
                body(*words, **named)
            except Exit:
                raise
            except LabError as error:
                _show_error(error.message, error.hint, error.log)
                _show_traceback()
                raise Exit(code=error.exit_code) from None  # an Exit is only a code; invoke shows no cause
            except KeyboardInterrupt:
                process.end_all()
                _show_error("interrupted", interrupted, None)
                raise Exit(code=exit_codes.INTERRUPTED) from None
            except BrokenPipeError:
                raise Exit(code=exit_codes.READER_LEFT) from None
            except OSError as error:
                process.end_all()
                what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
                _show_error(what, "free some space, or make it writable (see `./inv doctor`)", None)
                _show_traceback()
                raise Exit(code=exit_codes.FAILED) from None
            except Exception as error:
                process.end_all()
                log = _keep_traceback()
                _show_error(
                    f"internal error: {type(error).__name__}", "report this as a bug, with this file", log
                )
                _show_traceback()
                raise Exit(code=exit_codes.FAILED) from None

        made = invoke_task(**options)(safely)
        made.explained = dict(options.get("help", {}))  # invoke's own copy is empty once it has read a line
        return made

    return decorate


@verb(
    help=LAB_HELP
    | {
        "example": "instead of the defaults: smallest, reference, mirrors, two-load-balancers, external-etcd "
        "or external-etcd-small"
    }
)
def init(c: Context, lab: str = DEFAULT_LAB, example: str = "") -> None:
    """Write a lab file with every setting and its default; never overwrites a file."""
    from lab.verbs import init as beginning

    beginning.init(_name_lab(lab), example)
    console.print(f"{lab} is written\nnext: change what you like in it, then ./inv up --yes", soft_wrap=True)


@verb(positional=["shell"], help={"shell": "bash, zsh or fish"})
def completion(c: Context, shell: str) -> None:
    """Print the script with which your shell completes verbs and flags, to source or to keep."""
    print(commandline.completion(shell), end="")


@verb(help=LAB_HELP | YES_HELP | {"json": "as JSON, for programs"})
def doctor(c: Context, lab: str = DEFAULT_LAB, json: bool = False, yes: bool = False) -> None:
    """Check whether this host can run this lab. Exit 0 fit, 3 not fit, 40 fit after the repairs of --yes."""
    from lab.host.doctor import examination, finding
    from lab.verbs import bake as baking

    session = _wanted(lab, errors_console if json else console)
    if yes:
        baking.make_fit(session, {"up"} if baking.is_baked(session) else {"up", "bake"}, consent=True)
    baked = baking.is_baked(session)
    with session.progress.asking("facts about this host, and answers from the running machines"):
        findings = examination.look(session.lab, session.workspace, baked=baked)
    if json:
        _print_json(finding.to_json(findings))
    else:
        console.print(finding.shown(findings), soft_wrap=True)
    code = finding.exit_code(findings)
    if code:
        raise Exit(code=code)


@verb(
    interrupted=GOES_ON,
    help=LAB_HELP
    | YES_HELP
    | {
        "prune": "remove golden machines that this lab doesn't use",
        "export": "pack it into this file, with everything else that a host without a network needs",
        "import_": "import it from such a file instead of building it",
    },
)
def bake(
    c: Context,
    lab: str = DEFAULT_LAB,
    yes: bool = False,
    prune: bool = False,
    export: str | None = None,
    import_: str | None = None,
) -> None:
    """Build the golden machine, once: Debian, Kubernetes, all images. Needs the network; `up` then doesn't."""
    from lab.errors import ConfigError
    from lab.golden import image
    from lab.verbs import bake as baking

    session = _wanted(lab)
    if [prune, export is not None, import_ is not None].count(True) > 1:
        raise ConfigError(["--prune, --export and --import can't be combined"], hint="choose one")
    if "" in (export, import_):
        raise ConfigError(["--export and --import need a file name"], hint="./inv bake --export lab.tar")
    if export:
        packed = baking.export(session, Path(export), consent=yes)
        console.print(
            f"{export} contains {packed.golden}\n"
            f"next, on the other machine: ./inv bake --import {quoting.word(export)}",
            soft_wrap=True,
        )
        return
    if import_:
        taken = baking.import_(session, Path(import_), consent=yes)
        console.print(f"{taken.golden} is ready\nnext: ./inv up")
        return
    if prune:
        with session.progress.asking("golden machines to be removed"):
            removed = image.prune(session.lab)
        for name in removed:
            console.print(f"removed {name}")
        return
    name = baking.bake(session, consent=yes)
    for remark in session.progress.remarks:
        console.print(remark, soft_wrap=True)
    console.print(f"{name} is ready\nnext: ./inv up")


@verb(
    of_checkout=True,
    help=LAB_HELP
    | YES_HELP
    | {"records": "write the hosts' answers to this new file, for supply/pin-upstream"},
)
def lock(c: Context, lab: str = DEFAULT_LAB, yes: bool = False, records: str = "") -> None:
    """Compare the pinned hashes of upstream's files and images with what the hosts say; for maintainers.

    Exit 80 if a hash differs, 1 if a host does not answer or lacks a pinned part. Changes no pin.
    """
    from lab.verbs import bake as baking
    from lab.verbs import compared

    found = baking.compare(_wanted(lab), Path(records) if records else None, consent=yes)
    console.print(compared.shown(found), soft_wrap=True)
    code = compared.exit_code(found)
    if code:
        raise Exit(code=code)


@verb(help=LAB_HELP)
def render(c: Context, lab: str = DEFAULT_LAB) -> None:
    """Write .lab/ (Vagrantfile, configuration of every machine) without touching a machine."""
    import dataclasses

    from lab.golden import image
    from lab.session import change_of
    from lab.verbs import bake as baking
    from lab.verbs import render as rendering
    from lab.verbs import up as bring_up
    from lab.workspace import made

    session = _wanted(lab)
    with session.workspace.lock():
        # Another run may have changed it before the lock was taken.
        session = dataclasses.replace(session, made=made.read(session.workspace))
        change = change_of(session, session.lab)
        bring_up.require_possible(session, change)
        bring_up.require_no_upgrade(change)
        with session.progress.asking("the name of the golden machine"):
            golden = baking.own_golden(session) or image.name(session.lab)
        rendering.record_and_write(session, golden)
    console.print(f"rendered {session.workspace.root}\nnext: ./inv up", soft_wrap=True)


@verb(
    interrupted=GOES_ON,
    help=LAB_HELP
    | CONFIRM_HELP
    | MEASURE_HELP
    | {
        "until": "stop before this step (load-balancer, control-plane, pod-network, joins; in an upgrade "
        "upgrade-control-planes, upgrade-workers); you do the rest",
        "plain": "upgrade as kubeadm's page has it, without what the kit adds, to compare: users notice more",
    },
)
def up(
    c: Context,
    lab: str = DEFAULT_LAB,
    yes: bool = False,
    until: str | None = None,
    measure: bool = False,
    plain: bool = False,
) -> None:
    """Bring the lab from any state to what lab.yaml describes: all nodes Ready behind HAProxy.

    Creates, starts, changes, upgrades, repairs and removes machines; asks before removing or upgrading one. See
    `plan` first.
    """
    from lab.errors import ConfigError
    from lab.plans.up import require_stop
    from lab.verbs import up as bring_up

    session = _wanted(lab)
    require_stop(until)
    if until and measure:
        raise ConfigError(["--until and --measure can't be combined"], hint="choose one")
    _revert_drill(session)
    _up(session, bring_up.Request(consent=yes, until=until or "", plain=plain), "up", measure)


@verb(
    interrupted=GOES_ON,
    positional=["node"],
    help=LAB_HELP | CONFIRM_HELP | MEASURE_HELP | {"node": "the machine, such as cp2"},
)
def replace(c: Context, node: str, lab: str = DEFAULT_LAB, yes: bool = False, measure: bool = False) -> None:
    """Remove a machine, even one that does not respond, and create it again.

    Works for any machine except the only control plane. It is drained first if it responds; asks first.
    """
    from lab.verbs import up as bring_up

    session = _wanted(lab)
    bring_up.require_replaceable(session, node)
    _revert_drill(session)
    _up(session, bring_up.Request(consent=yes, replacing=(node,)), f"replace {node}", measure)


@verb(help=LAB_HELP | {"json": "as JSON, for programs"})
def plan(c: Context, lab: str = DEFAULT_LAB, json: bool = False) -> None:
    """Show what `up` would change, how long it takes and what users notice. Changes nothing.

    Exit 0 nothing to change, 10 changes, 11 an impossible or refused change.
    """
    from lab.verbs import plan as planning

    session = _wanted(lab, errors_console if json else console)
    found = planning.look(session)
    _print_json(planning.to_json(found)) if json else console.print(planning.shown(found), soft_wrap=True)
    _warn_of_another_run(session)
    if found.exit_code:
        raise Exit(code=found.exit_code)


@verb(
    interrupted="the same command stops the rest; `./inv up` starts all machines again",
    positional=["nodes"],
    optional=["nodes"],
    help=LAB_HELP | {"nodes": "only these machines, such as w3 or w2,w3"},
)
def stop(c: Context, nodes: str | None = None, lab: str = DEFAULT_LAB) -> None:
    """Shut the lab's machines down in the right order; `up` starts them again.

    Workers first, then all control planes together, then etcd machines if there are any, then the load
    balancers.
    """
    from lab.verbs import stop as stopping

    stopped = stopping.stop(_made(lab), [name for name in (nodes or "").split(",") if name])
    if stopped:
        names, them = ", ".join(node.name for node in stopped), "it" if len(stopped) == 1 else "them"
        console.print(f"{names} stopped\nnext: ./inv up starts {them} again")
    else:
        console.print("these machines were not running; nothing was changed")


@verb(
    interrupted="the same command goes on; `./inv up` starts the machines without it",
    positional=["name"],
    help=LAB_HELP | {"name": "the checkpoint's name, such as chapter-9"},
)
def checkpoint(c: Context, name: str, lab: str = DEFAULT_LAB) -> None:
    """Save the states of all machines, as they are at one instant, under a name; `restore` goes back to it.

    The machines are shut down together for that, and started again. Never overwrites a checkpoint.
    """
    from lab.verbs import checkpoint as saving

    session = _made(lab)
    _require_no_drill(session)
    saved = saving.save(session, name)
    took = f"{saved.size} MiB; it took {session.progress.seconds:.0f} s"
    console.print(
        f"saved the checkpoint {name}: {took}\nnext: ./inv restore {name} goes back to it", soft_wrap=True
    )


@verb(
    interrupted=GOES_ON,
    help=LAB_HELP
    | {
        "remove": "remove the checkpoint of this name, after asking",
        "yes": "don't ask",
        "json": "as JSON, for programs",
    },
)
def checkpoints(
    c: Context, lab: str = DEFAULT_LAB, remove: str = "", yes: bool = False, json: bool = False
) -> None:
    """List the lab's checkpoints, with their sizes; remove one."""
    from lab.verbs import checkpoint as saving

    session = _made(lab, errors_console if json else console)
    if remove:
        _require_no_drill(session)  # it may need this one
        if not yes and not _confirmed(f"checkpoints --remove {remove}")(
            saving.removal_question(session, remove)
        ):
            raise Exit("nothing was removed", code=exit_codes.FAILED)
        saving.remove(session, remove)
        console.print(f"removed the checkpoint {remove}")
        return
    _print_json(saving.to_json(session)) if json else console.print(saving.listed(session), soft_wrap=True)


@verb(
    interrupted=GOES_ON,
    positional=["name"],
    help=LAB_HELP | {"name": "which checkpoint (see `checkpoints`)", "yes": "don't ask"},
)
def restore(c: Context, name: str, lab: str = DEFAULT_LAB, yes: bool = False) -> None:
    """Give all machines the states of a checkpoint. What came after it is lost; asks first."""
    from lab.verbs import checkpoint as saving

    session = _wanted(lab)
    _require_no_drill(session)
    restored = saving.restore(session, name, consent=yes, confirm=_confirmed(f"restore {name}"))
    console.print(
        f"{restored.made.lab.name} is as it was at {name}; it took {session.progress.seconds:.0f} s\n"
        f"next: ./inv {'verify' if restored.healthy else 'status'}",
        soft_wrap=True,
    )


@verb(
    help=LAB_HELP
    | {"json": "as JSON, for programs", "watch": "repeat it until Ctrl-C, and mark what has changed"}
)
def status(c: Context, lab: str = DEFAULT_LAB, json: bool = False, watch: bool = False) -> None:
    """Show how the lab is, machine by machine. Exit 0 healthy, 20 degraded (works), 21 down."""
    from lab.errors import ConfigError
    from lab.health import repeat
    from lab.health import status as lab_status

    if json and watch:
        raise ConfigError(["--json and --watch can't be combined"], hint="choose one")
    session = _made(lab, errors_console if json else console)
    if watch and lab_status.why_not_up(session) is None:
        _warn_of_a_drill(session)
        _warn_of_a_recovery(session)
        try:
            repeat.watch(session)
        except KeyboardInterrupt:
            raise Exit(code=exit_codes.INTERRUPTED) from None
    with session.progress.asking("answers from the machines and the API"):
        found = lab_status.look(session)
    _print_json(lab_status.to_json(found)) if json else console.print(lab_status.shown(found))
    _warn_of_another_run(session)
    _warn_of_a_drill(session)
    _warn_of_a_recovery(session)
    if found.exit_code:
        raise Exit(code=found.exit_code)


@verb(help=LAB_HELP | {"port": "the port of the page (default: any free one)"})
def watch(c: Context, lab: str = DEFAULT_LAB, port: str = "") -> None:
    """Serve a page on this host that shows how the lab moves, until Ctrl-C. Exit 21 if nothing answers."""
    from lab.workshop.watch import command

    number = command.port_in(port)
    session = _made(lab)
    _warn_of_a_drill(session)

    def ready(url: str) -> None:
        console.print(f"{url} shows {session.lab.name}, in a browser on this host; Ctrl-C ends", soft_wrap=True)

    try:
        why = command.watch(session, number, ready)
    except KeyboardInterrupt:
        raise Exit(code=exit_codes.INTERRUPTED) from None
    _show_error(f"{session.lab.name}: {why}", "`./inv status` shows more; `./inv up` brings the lab up", None)
    raise Exit(code=exit_codes.DOWN)


@verb(
    help=LAB_HELP
    | {
        "k": "only checks whose group, name or machine matches, as pytest's -k",
        "junit": "write the JUnit XML to this file (default: .lab/verify.xml)",
        "json": "as JSON, for programs",
        "watch": "repeat the checks until Ctrl-C, and print only changes",
    }
)
def verify(
    c: Context, lab: str = DEFAULT_LAB, k: str = "", junit: str = "", json: bool = False, watch: bool = False
) -> None:
    """Check the running lab, from the load balancer to the pods. Exit 0 when all checks pass, else 50.

    Exit 2 when -k matches no check.
    """
    from lab.health import verify as lab_checks

    session = _made(lab, errors_console if json else console)
    if watch:
        try:
            lab_checks.watch(session, select=k, say=session.progress.say)
        except KeyboardInterrupt:
            raise Exit(code=exit_codes.INTERRUPTED) from None
    with session.progress.asking("the facts for all checks", usual=lab_checks.USUAL):
        outcome = lab_checks.run(session, select=k, junit=Path(junit) if junit else None)
    if json:
        _print_json(lab_checks.to_json(outcome))
    else:
        console.print(lab_checks.shown(outcome))
    _warn_of_a_drill(session)
    _warn_of_a_recovery(session)
    _warn_of_an_upgrade(session)
    if not outcome.green:
        raise Exit(code=exit_codes.CHECKS_FAIL)


@verb(
    interrupted="run the same command again; nothing was written",
    positional=["file"],
    optional=["file"],
    help=LAB_HELP | {"file": "the file to write, which must not exist (default: a new one in .lab/backups)"},
)
def backup(c: Context, file: str | None = None, lab: str = DEFAULT_LAB) -> None:
    """Write a verified snapshot of etcd, and the keys that control planes share, to one private file."""
    from lab.verbs import backup as backing_up

    written = backing_up.backup(_made(lab), Path(file) if file else None)
    about = written.manifest
    console.print(
        f"saved {about.keys} keys of etcd on {about.member}, at revision {about.revision}, to {written.path}\n"
        f"next: keep this file private; ./inv recover {quoting.word(written.path)} restores it",
        soft_wrap=True,
    )


@verb(
    interrupted=GOES_ON,
    positional=["file"],
    help=LAB_HELP
    | {
        "file": "the backup",
        "yes": "agree to losing later writes, and to removing control planes that do not respond",
    },
)
def recover(c: Context, file: str, lab: str = DEFAULT_LAB, yes: bool = False) -> None:
    """Restore etcd on all control planes from a backup, even after its quorum was lost for good.

    Shows what would be lost, and asks first. If it is interrupted, the same command continues it.
    """
    from lab.verbs import recover as recovering

    missing = recovering.recover(
        _made(lab), Path(file), consent=yes, confirm=_confirmed(f"recover {quoting.word(file)}")
    )
    console.print(f"etcd was restored from {file}\nnext: {recovering.next_step(missing)}", soft_wrap=True)


@verb(
    interrupted="the drill's fault is reverted; `./inv status` shows when the lab has recovered",
    positional=["name"],
    optional=["name"],
    help=LAB_HELP
    | {
        "name": "which drill, or all",
        "list": "list the drills",
        "repeat": "how often to run each drill",
        "compare": "run each drill with this profile of the load balancer too, such as reference; for upgrade: "
        "plain, which is kubeadm's order by itself",
        "json": "as JSON, for programs",
        "keep": "inject the fault and leave it in, to explore the lab; measures nothing",
        "heal": "revert the fault that an earlier drill left in the lab",
        "yes": "agree to what the drill loses, and to repairs of the host that it needs (upgrade)",
    },
)
def drill(
    c: Context,
    name: str | None = None,
    lab: str = DEFAULT_LAB,
    list: bool = False,  # noqa: A002  the flag's name
    repeat: str = "1",
    compare: str = "",
    json: bool = False,
    keep: bool = False,
    heal: bool = False,
    yes: bool = False,
) -> None:
    """Break the lab on purpose, measure what users notice, and repair it. Exit 0 within all limits, else 60."""
    from lab.drill import command, report

    if list:
        console.print(command.listed())
        return
    session = _made(lab, errors_console if json else console)
    command.require_one_way(keep=keep, heal=heal, repeat=repeat, compare=compare, name=name or "")
    if heal:
        console.print(command.heal(session))
        return
    confirm = _confirmed(f"drill {name}")
    if keep:
        console.print(command.keep(session, name or "", consent=yes, confirm=confirm))
        return
    found, folder = command.drill(
        session, name or "", repeat=repeat, compare=compare, consent=yes, confirm=confirm
    )
    if json:
        _print_json(command.to_json(found))
    else:
        console.print(report.shown(found), f"\nreport: {folder}/report.html", soft_wrap=True)
    if not found.passed:
        raise Exit(code=exit_codes.BEYOND_LIMIT)


@verb(
    interrupted="what the suite had made is removed; a build of it goes on from where it was stopped",
    help=LAB_HELP
    | YES_HELP
    | {
        "quick": "a fixed set of tests, one or a few for each part of a cluster (at most 10 minutes)",
        "focus": "only the conformance tests whose names match this regular expression",
        "serial": "the tests that must run alone or take minutes, instead of all others",
        "junit": "also write the JUnit XML to this file (.lab/conformance/ has it in any case)",
        "json": "as JSON, for programs",
    },
)
def conformance(
    c: Context,
    lab: str = DEFAULT_LAB,
    quick: bool = False,
    focus: str = "",
    serial: bool = False,
    junit: str = "",
    json: bool = False,
    yes: bool = False,
) -> None:
    """Run Kubernetes' own conformance tests, and leave nothing behind. Exit 0 if all that ran passed, else 70.

    Without --quick, --focus or --serial: all tests that are not serial or slow, which takes 40 minutes or more.
    """
    from lab.conformance import results
    from lab.conformance.tests import Request
    from lab.verbs import conformance as conforming

    session = _made(lab, errors_console if json else console)
    wish = Request(quick=quick, serial=serial, focus=focus)
    outcome = conforming.conformance(session, wish, junit=Path(junit) if junit else None, consent=yes)
    _print_json(results.to_json(outcome)) if json else console.print(results.shown(outcome), soft_wrap=True)
    if not outcome.green:
        raise Exit(code=exit_codes.TESTS_FAIL)


@verb(
    help=LAB_HELP
    | YES_HELP
    | {
        "lang": "en or ko",
        "for_": "student or instructor",
        "format": "html, or pdf (converted from it)",
        "class_": "a CSV file, a line per seat (columns seat, name, subnet): a lab and a handout for each",
        "out": "the output folder (default: handouts/ beside the lab file)",
    },
)
def handout(
    c: Context,
    lab: str = DEFAULT_LAB,
    lang: str = "en",
    for_: str = "student",
    format: str = "html",  # noqa: A002  the flag's name
    class_: str = "",
    out: str = "",
    yes: bool = False,
) -> None:
    """Write the workshop's handout for this lab, with its names and addresses and commands to copy."""
    from lab.workshop.handout import command

    session = _wanted(lab)
    named = "" if lab == DEFAULT_LAB else lab
    asked = command.request(session, lang, for_, format, out, named, of=class_)
    if class_:
        written = command.write_class(session, asked, Path(class_), consent=yes)
    else:
        written = command.write(session, asked, consent=yes)
    console.print(f"wrote {written}\nnext: open it in a browser", soft_wrap=True)


@verb(
    positional=["number"],
    optional=["number"],
    help=LAB_HELP
    | {"number": "which task, 1 to 11; without it, the progress of all", "json": "as JSON, for programs"},
)
def task(c: Context, number: str | None = None, lab: str = DEFAULT_LAB, json: bool = False) -> None:
    """Show the progress of the handout's tasks. With a number: exit 0 done, 30 not done, 31 done but broken."""
    from lab.workshop.task import command, look

    session = _made(lab, errors_console if json else console)
    with session.progress.asking("answers from the machines and the API"):
        results = [look.ask(session, look.numbered(number))] if number else look.progress(session)
    if json:
        _print_json(command.to_json(session.lab, results))
    elif number:
        console.print(command.shown_one(results[0]), soft_wrap=True)
    else:
        console.print(command.shown(session.lab, results))
    _warn_of_a_drill(session)
    if number and results[0].state != "done":
        raise Exit(code=command.EXIT_CODES[results[0].state])


@verb(help=LAB_HELP | {"merge": "add it to your kubeconfig as a context with the lab's name"})
def kubeconfig(c: Context, lab: str = DEFAULT_LAB, merge: bool = False) -> None:
    """Print the path of the lab's kubeconfig, or merge it into yours."""
    from lab.session import require_up
    from lab.workspace import kubeconfig as kubeconfigs

    session = _made(lab)
    require_up(session)
    print(kubeconfigs.merge(session.lab, session.workspace) if merge else session.workspace.kubeconfig)


@verb(positional=["node"], help=LAB_HELP | {"node": "the machine, such as cp1"})
def ssh(c: Context, node: str, lab: str = DEFAULT_LAB) -> None:
    """Log in to a machine; with `-- COMMAND…`, run that command there and exit with its exit code."""
    from lab.session import machine

    session = _made(lab)
    there = machine(session, node)
    session.remote.require_route()
    session.remote.shell(there, commandline.after_dashes())


@verb(help=LAB_HELP)
def logs(c: Context, lab: str = DEFAULT_LAB) -> None:
    """Collect what a bug report needs into one archive, without secrets."""
    from lab.verbs import diagnose

    session = _made(lab, errors_console)  # standard output has only the archive's name
    with session.progress.asking("logs from this host and every machine"):
        archive = diagnose.collect(session)
    console.print(f"{archive}", soft_wrap=True)


@verb(interrupted=GOES_ON, help=LAB_HELP | {"yes": "don't ask"})
def destroy(c: Context, lab: str = DEFAULT_LAB, yes: bool = False) -> None:
    """Remove the lab's machines, network, checkpoints, kubeconfig context and .lab/, and nothing else."""
    from lab.drill import report
    from lab.verbs import backup as backing_up
    from lab.verbs import checkpoint as saving
    from lab.verbs import destroy as destroying

    session = _made(lab, lenient=True)
    also = (saving.destroyed_with(session), backing_up.destroyed_with(session), report.destroyed_with(session))
    what = " ".join(filter(None, (session.lab.name, *also)))
    question = f"Remove all machines of {what}? [y/N] "
    if not yes and session.workspace.root.exists() and not _confirmed("destroy")(question):
        raise Exit("nothing was removed", code=exit_codes.FAILED)
    removed = destroying.destroy(session)
    said = f"removed {what}" if removed else f"there is no lab at {session.workspace.root}"
    console.print(said, soft_wrap=True)


@verb(
    of_checkout=True,
    help=YES_HELP
    | {
        "quick": "only the fast unit tests; installs nothing",
        "live": "with or without the tests on real labs; with them is the default",
        "sabotage": "instead: break a lab in the ways of docs/faults.md, and run `up` (25 minutes)",
        "drills": "instead: run failure drills on a lab, and interrupt them (10 minutes)",
        "lifecycle": "instead: change a lab in every way, and kill running commands (20 minutes)",
        "vm": "instead: bake a disk and boot virtual machines from it (10 minutes where they are emulated)",
        "whole": "also what CI has no time for: chapters 8 to 10 of the handout, read without doing them, and "
        "a golden machine from a stand-in for upstream's hosts (5 minutes); with --sabotage: each fault by "
        "itself; with --drills: also every other drill, and both load balancer profiles side by side (10 "
        "minutes more); with either: also labs with two load balancers and with external etcd; with "
        "--lifecycle: also five control planes, and more changes that are measured; with --vm: also labs of "
        "two and three machines, VirtualBox's disk, and the golden image on another docker (up to an hour "
        "more)",
        "k": "as pytest's -k",
    },
)
def test(
    c: Context,
    yes: bool = False,
    quick: bool = False,
    live: bool = True,
    sabotage: bool = False,
    drills: bool = False,
    lifecycle: bool = False,
    vm: bool = False,
    whole: bool = False,
    k: str = "",
) -> None:
    """Run all tests: unit tests, provisioning scripts, and live tests on labs created for them."""
    from lab.errors import ConfigError
    from lab.verbs import selftest

    if quick and (sabotage or drills or lifecycle or vm or whole):
        raise ConfigError(
            ["--quick runs only the unit tests"],
            hint="remove --quick, or the other flags",
        )
    if quick:
        code = selftest.run_quick(select=k)
    elif vm:
        from lab.verbs import bake as baking

        suite = HERE / "tests" / "vm"
        virtual = _wanted(str(suite / "lab.yaml"))
        if whole:
            baking.bake(_wanted(str(suite / "docker_host" / "lab.yaml")), consent=yes)
        baking.bake(virtual, consent=yes)
        code = selftest.run_virtual(virtual, whole=whole, select=k)
    else:
        asked = {"sabotage": sabotage, "drills": drills, "lifecycle": lifecycle}
        breaking = [suite for suite, wanted in asked.items() if wanted]
        code = selftest.run(
            _wanted(DEFAULT_LAB), consent=yes, live=live, breaking=breaking, whole=whole, select=k
        )
    if code:
        raise Exit(code=code)


@verb(of_checkout=True, help=LAB_HELP | YES_HELP | {"pairs": "how often to run each"})
def bench(c: Context, lab: str = DEFAULT_LAB, yes: bool = False, pairs: str = "3") -> None:
    """Measure `up` against the same steps without the kit, and write .lab/bench.json."""
    from lab.verbs import bench as benchmark

    console.print(benchmark.bench(_wanted(lab), consent=yes, pairs=pairs))


@verb(
    of_checkout=True,
    help={
        "write": "first write the pages and the picture that are generated from the code",
        "out": "the folder for the site (default: site/ beside tasks.py)",
    },
)
def docs(c: Context, write: bool = False, out: str = "") -> None:
    """Build a site from README.md and docs/, to read in a browser; for developers."""
    from invoke.collection import Collection

    from lab.errors import LabError
    from lab.verbs.docs import reference, site

    if write:
        for path in reference.write(Collection.from_module(sys.modules[__name__]).tasks):
            console.print(f"{path.relative_to(HERE)} is written")
    target = Path(out) if out else site.SITE
    problems = site.build(target)
    if problems:
        raise LabError("\n".join(problems), hint="correct the links that these lines name")
    console.print(f"{target}/index.html is written\nnext: open it in a browser", soft_wrap=True)


@verb(of_checkout=True, help=YES_HELP)
def lint(c: Context, yes: bool = False) -> None:
    """Run all linters and the type checker."""
    from lab.verbs import selftest

    code = selftest.lint(_wanted(DEFAULT_LAB), consent=yes)
    if code:
        raise Exit(code=code)


def _warn_of_another_run(session: Any) -> None:
    """Warn that another command is changing the lab, so that the output may soon be out of date."""
    user = session.workspace.in_use_by()
    if user:
        errors_console.print(
            f"{user} is changing this lab now, so this may soon be out of date", style="yellow", soft_wrap=True
        )


def _warn_of_a_drill(session: Any) -> None:
    """Warn that a drill's fault is in the lab, which explains failing checks."""
    if session.workspace.drill.exists():
        from lab.drill import undo

        left = undo.pending(session)
        if left:
            errors_console.print(
                f"a drill's fault is in the lab: {left}; `./inv drill --heal` reverts it",
                style="yellow",
                soft_wrap=True,
            )


def _require_no_drill(session: Any) -> None:
    """Raise LabStateError while a drill's fault is in the lab: its record would not agree with the machines."""
    from lab.drill import undo
    from lab.errors import LabStateError

    left = undo.pending(session)
    if left:
        raise LabStateError(f"a drill's fault is in the lab: {left}", hint="`./inv drill --heal` reverts it")


def _warn_of_a_recovery(session: Any) -> None:
    """Warn that a recovery was interrupted, which explains why the API is down."""
    from lab.workspace import recovery

    left = recovery.read(session.workspace)
    if left:
        errors_console.print(
            f"a recovery was interrupted; `./inv recover {quoting.word(left.file)}` goes on",
            style="yellow",
            soft_wrap=True,
        )


def _warn_of_an_upgrade(session: Any) -> None:
    """Warn that an upgrade is under way, so that machines may have either version."""
    if session.made and session.made.upgrading:
        errors_console.print(
            f"an upgrade to Kubernetes {session.made.upgrading} is under way; `./inv up` continues it",
            style="yellow",
            soft_wrap=True,
        )


def _interrupted(*_: object) -> None:
    """Kill all commands at once: threads that wait for one would delay the interrupt."""
    from lab.system import process

    process.interrupt()
    raise KeyboardInterrupt


def _wanted(lab: str, speaking: Terminal = console) -> Any:
    """The lab as lab.yaml describes it, for verbs that change it."""
    from lab.session import open_wanted

    return open_wanted(_lab_file(lab), speaking)


def _made(lab: str, speaking: Terminal = console, *, lenient: bool = False) -> Any:
    """The lab as its machines were created, with a note where lab.yaml differs.

    `lenient`: for a verb that works without the files that contain the lab's path, which a moved lab lacks.
    """
    from lab.errors import LabError
    from lab.session import open_made
    from lab.verbs.render import refresh_locked

    session = open_made(_lab_file(lab), speaking)
    if session.differs:
        errors_console.print(
            f"note: the lab is as it was made; {session.differs}",
            style="yellow",
            soft_wrap=True,
        )
    with contextlib.suppress(LabError) if lenient else contextlib.nullcontext():
        refresh_locked(session)
    return session


def _lab_file(lab: str) -> Path:
    """The lab file that was named, or the default one. Raises ConfigError where it must be there and is not.

    A checkout's own may be missing, for the defaults. So may that of a lab that was made.
    """
    from lab.errors import ConfigError

    path = _name_lab(lab)
    if path.exists() or (lab == DEFAULT_LAB and (IS_CHECKOUT or Path(".lab").exists())):
        return path
    where = "in this folder" if lab == DEFAULT_LAB else ""
    raise ConfigError([f"there is no lab file {lab} {where}".rstrip()], hint="`./inv init` writes one")


def _name_lab(lab: str) -> Path:
    """Have commands that are shown name the lab file from now on, unless it is the default one."""
    for each in (console, errors_console):
        each.lab_file = "" if lab == DEFAULT_LAB else lab
    return Path(lab)


def _not_here(name: str) -> Exception:
    from lab.errors import ConfigError

    what = f"`{name}` is about a checkout of the repository, and this is an installed package"
    return ConfigError([what], hint="clone the repository and use it there: CONTRIBUTING.md")


def _revert_drill(session: Any) -> None:
    """Revert the fault that an earlier drill left in the lab."""
    if session.workspace.drill.exists():
        from lab.drill import command
        from lab.session import of_lab

        # The fault is in the lab as it was created, even if lab.yaml has changed since.
        undone = command.revert(of_lab(session, session.made.lab) if session.made else session)
        if undone:
            console.print(undone)


def _up(session: Any, wish: Any, command: str, measure: bool) -> None:
    """Change the lab; with `measure`, report what users noticed, and exit with 60 if a limit is exceeded."""
    from lab.verbs import up as bring_up

    if not measure:
        bring_up.up(session, wish, _confirmed(command))
        return
    from lab.drill import measure as measuring
    from lab.drill.measured_up import Measured

    measured = Measured(plain=wish.plain)
    bring_up.up(session, wish, _confirmed(command), measured)
    assert measured.report is not None
    assert measured.folder is not None
    console.print(measuring.shown(measured.report, measured.folder), soft_wrap=True)
    if not measured.report.passed:
        raise Exit(code=exit_codes.BEYOND_LIMIT)


def _confirmed(command: str) -> Callable[[str], bool]:
    """Ask the user before something is removed; True means yes. Exits as for bad usage without a terminal."""

    def ask(question: str) -> bool:
        if not sys.stdin.isatty():
            what = f"`{command}` needs confirmation, and standard input is not a terminal"
            asked = question.removesuffix("[y/N] ").removesuffix("Continue? ").strip()
            first = "./inv plan shows all that changes; " if command == "up" else ""
            _show_error(f"{what}: {asked}", f"{first}./inv {command} --yes", None)
            raise Exit(code=exit_codes.USAGE)
        try:
            answer = console.input(question, markup=False)
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    return ask


def _print_json(text: str) -> None:
    """Print JSON for programs, with `--lab` in its commands where that is needed."""
    print(naming_in_json(text, console.lab_file))


def _show_error(message: str, hint: str, log: Path | None) -> None:
    errors_console.print("error:", message, markup=False, soft_wrap=True, style="red")
    if hint:
        aligned = hint.replace("\n", "\n        ")
        errors_console.print("  next:", aligned, markup=False, soft_wrap=True)
    if log is not None:
        errors_console.print("  log: ", str(log), markup=False, soft_wrap=True)


def _show_traceback() -> None:
    """With HA_LAB_DEBUG set, show the traceback of the current error and of its causes."""
    if os.environ.get("HA_LAB_DEBUG"):
        errors_console.print(_traceback(), markup=False, soft_wrap=True)


def _traceback() -> str:
    """The traceback of the current error, with its causes and without secrets."""
    from lab.system.redact import redacted

    return redacted(traceback.format_exc())


def _keep_traceback() -> Path:
    """Save the traceback for a bug report, in the cache folder or else in a temporary file; return its path."""
    from lab.errors import LabError
    from lab.host.places import cache_folder

    said = _traceback()
    try:
        path = cache_folder() / "fault.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said, encoding="utf-8", errors="backslashreplace")
    except (OSError, LabError):
        handle, name = tempfile.mkstemp(prefix="ha-lab-fault-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(said)
        return Path(name)
    return path
