from __future__ import annotations

import gc
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import testinfra
from testinfra.backend.base import CommandResult

from lab.config import default
from lab.errors import ConfigError, LabStateError
from lab.health import verify
from lab.health.causes import Cause
from lab.health.checks import cases
from lab.health.checks.check import Outcome as Found
from lab.health.checks.check import Verdict
from lab.health.facts import gather as gathering
from lab.health.facts.gather import Facts
from lab.health.verify import Outcome
from lab.remote import Remote
from lab.session import Session
from lab.system.progress import Progress
from lab.workspace import Workspace
from tests.live.conftest import by_testinfra
from tests.unit.answers import Answers, titles
from tests.unit.fakes import FakeRemote, printed
from tests.unit.recorded_facts import FOLDER, facts, haproxy_stopped, lab, not_running, silent

pytestmark = pytest.mark.slow


def verdict(name: str = "node-ready", machine: str = "w1", outcome: Found = "fails") -> Verdict:
    return Verdict(name, "workers", machine, outcome, "Ready", "not Ready", "no pods come here", "look at it")


def outcome(*verdicts: Verdict) -> Outcome:
    return Outcome("ha-lab", verdicts, 8.25, Path(".lab/verify.xml"))


def shown(found: Outcome) -> str:
    console, text = printed()
    console.print(verify.shown(found))
    return text.getvalue()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A lab that was brought up, whose facts are the recorded ones; it is accepted."""
    path = tmp_path / "lab.yaml"
    path.write_text((FOLDER / "lab.yaml").read_text())
    workspace = Workspace(tmp_path / ".lab")
    workspace.write_secret(workspace.kubeconfig, "x")
    monkeypatch.setattr(Remote, "require_route", lambda self: None)
    Answers(lab()).give(monkeypatch)
    return Session(path, lab(), workspace, FakeRemote(lab(), workspace), Progress(printed()[0], workspace.logs))


def told(monkeypatch: pytest.MonkeyPatch, found: Facts) -> list[bool]:
    """Let verify find these facts; return whether it asked for probes, run by run."""
    asked: list[bool] = []

    def gather(*_: object, probes: bool, admission: bool) -> Facts:
        assert admission
        asked.append(probes)
        return found

    monkeypatch.setattr(gathering, "gather", gather)
    return asked


def test_a_run_returns_a_verdict_for_every_check(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, facts())
    found = verify.run(session)
    assert found.green
    assert len(found.verdicts) == len(cases(lab())) + len(titles(lab()))
    assert list(dict.fromkeys(v.group for v in found.verdicts))[:2] == ["acceptance", "load balancer"]
    assert {v.outcome for v in found.verdicts} == {"holds"}
    assert f'tests="{len(found.verdicts)}"' in found.junit.read_text()


def test_a_run_collects_no_garbage_which_would_take_half_a_second(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, facts())
    collections: list[object] = []
    monkeypatch.setattr(gc, "collect", lambda *generation: collections.append(generation))
    assert verify.run(session).green
    assert collections == []


def test_a_machine_that_is_silent_is_not_green_and_junit_has_it(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(monkeypatch, silent("w1")(facts()))
    junit = tmp_path / "elsewhere.xml"
    found = verify.run(session, junit=junit)
    assert not found.green
    [clock] = [v for v in found.verdicts if v.title == "clock[w1]"]
    assert (clock.outcome, clock.group) == ("could-not-ask", "host facts")
    assert "clock[w1]: could-not-ask" in junit.read_text()


@pytest.mark.parametrize(
    ("select", "titles"),
    [
        ("etcd-one-leader", {"etcd-one-leader"}),
        ("node-ready and w1", {"node-ready[w1]"}),
        ("host_facts and lb1", {"own-name[lb1]", "network-services[lb1]", "clock[lb1]"}),
    ],
)
def test_checks_are_selected_by_group_name_and_machine(
    session: Session, monkeypatch: pytest.MonkeyPatch, select: str, titles: set[str]
) -> None:
    asked = told(monkeypatch, facts())
    assert {v.title for v in verify.run(session, select=select).verdicts} == titles
    assert asked == [False]  # no pods are run for what needs none


def test_pods_are_run_for_what_needs_them(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = told(monkeypatch, facts())
    verify.run(session, select="dns")
    assert asked == [True]


def test_no_check_of_that_name_is_an_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, facts())
    with pytest.raises(ConfigError, match="no check has a name that matches 'nothing'"):
        verify.run(session, select="nothing")


def test_a_selection_that_pytest_does_not_understand_is_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, facts())
    with pytest.raises(ConfigError, match=r"-k 'and and': expected not OR .*; got and, at character 1"):
        verify.run(session, select="and and")


def everything() -> set[str]:
    """The titles of all that a run has to judge."""
    return {verdict.title for verdict in verify._required(lab())}


def test_what_must_be_judged_is_known_without_pytest() -> None:
    assert len(everything()) == len(verify._required(lab())) == len(cases(lab())) + len(titles(lab()))
    assert titles(lab()) < everything()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("PYTEST_ADDOPTS", words)
            for words in ("-k etcd", "--collect-only", "-x", "-n 1", "--no-such-option")
        ),
        ("PYTEST_PLUGINS", "no_such_plugin"),
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
    ],
)
def test_the_user_s_own_settings_of_pytest_change_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    told(monkeypatch, facts())
    monkeypatch.setenv(name, value)
    found = verify.run(session)
    assert found.green
    assert {v.title for v in found.verdicts} == everything()
    assert os.environ[name] == value, "they are the user's again afterwards"


def test_a_pytest_ini_where_one_works_changes_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(monkeypatch, facts())
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -k etcd\npython_files = nothing.py\n")
    monkeypatch.chdir(tmp_path)
    found = verify.run(session)
    assert found.green
    assert len(found.verdicts) == len(everything())


@pytest.mark.parametrize(
    ("words", "ran"),
    [
        (["-k", "etcd"], {"etcd-one-leader"}),
        (["-m", "acceptance"], {"nodes-are-all-ready"}),
        (["--collect-only"], set()),
        (["--ignore", str(verify.CHECKS / "test_checks.py")], {"nodes-are-all-ready"}),
        (["--ignore", str(verify.ACCEPTANCE)], {"etcd-one-leader"}),
        (["-p", "tests.unit.run_elsewhere"], set()),
        (["-p", "tests.unit.leaving_out"], {"nodes-are-all-ready"}),
    ],
)
def test_less_than_all_is_never_green_whatever_leaves_it_out(
    session: Session, monkeypatch: pytest.MonkeyPatch, words: list[str], ran: set[str]
) -> None:
    told(monkeypatch, facts())
    usual = verify._words
    monkeypatch.setattr(verify, "_words", lambda *given: [*usual(*given), *words])
    found = verify.run(session)
    assert not found.green
    assert {v.title for v in found.verdicts} == everything()
    held = {v.title for v in found.verdicts if v.outcome == "holds"}
    assert ran <= held if ran else not held
    assert set(found.not_run) == everything() - held
    assert f"{len(found.not_run)} did not run" in found.summary
    assert "could not be asked" not in found.summary


def test_a_run_that_ends_at_its_first_failure_says_what_is_missing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, silent("w1")(facts()))
    usual = verify._words
    monkeypatch.setattr(verify, "_words", lambda *given: [*usual(*given), "-x"])
    found = verify.run(session)
    assert {v.title for v in found.verdicts} == everything()
    assert len(found.not_run) > 50
    assert sum(not v.good for v in found.verdicts if v.title not in found.not_run) == 1


def test_a_selection_of_the_user_s_is_all_that_must_be_judged_then(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, facts())
    found = verify.run(session, select="etcd-one-leader or clock")
    assert found.green
    usual = verify._words
    monkeypatch.setattr(verify, "_words", lambda *given: [*usual(*given), "-k", "clock"])
    found = verify.run(session, select="etcd-one-leader or clock")
    assert (found.green, found.not_run) == (False, ("etcd-one-leader",))


def test_what_did_not_run_is_one_message() -> None:
    ones = [verify._not_run("workers", "node-ready", f"w{number}") for number in range(20)]
    said = shown(outcome(verdict("dns", "", "holds"), *ones))
    assert "20 checks did not run" in said
    assert "missing   node-ready[w0], node-ready[w1], " in said
    assert "node-ready[w11] and 8 more (--json has all)" in " ".join(said.split())
    assert " ".join(said.split()).count(verify.LEFT_OUT) == 1
    assert "verify: 21 checks, 20 did not run, 8.2 s" in said


def test_facts_that_can_t_be_gathered_are_no_pass(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, probes: bool, admission: bool) -> Facts:
        raise ValueError("a fault")

    monkeypatch.setattr(gathering, "gather", broken)
    found = verify.run(session, select="clock")
    assert not found.green
    assert {v.outcome for v in found.verdicts} == {"could-not-ask"}


def test_results_of_an_earlier_run_are_never_told_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, facts())
    junit = session.workspace.root / "verify.xml"
    junit.write_text("earlier")
    with pytest.raises(ConfigError):
        verify.run(session, select="nothing")
    assert not junit.exists() or "earlier" not in junit.read_text()


def test_a_lab_that_was_never_up_is_not_verified(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    opened = Session(
        tmp_path / "lab.yaml",
        default(),
        workspace,
        FakeRemote(default(), workspace),
        Progress(printed()[0], workspace.logs),
    )
    with pytest.raises(LabStateError, match="has not been brought up"):
        verify.run(opened)


def test_green_is_all_good_and_at_least_one() -> None:
    assert outcome(verdict(outcome="holds"), verdict(outcome="warns")).green
    assert not outcome(verdict(outcome="holds"), verdict(outcome="could-not-ask")).green
    assert not outcome(verdict(outcome="fails")).green
    assert not outcome().green


def test_what_does_not_hold_is_shown_in_full() -> None:
    said = shown(outcome(verdict(), verdict(machine="w2", outcome="holds"), verdict("dns", "", "holds")))
    assert "node-ready on w1: fails" in said
    for words in ("expected", "Ready", "found", "not Ready", "means", "no pods come here", "try", "look at it"):
        assert words in said
    assert "verify: 3 checks, 1 fail, 8.2 s" in said
    assert [line.split() for line in said.splitlines() if line.startswith("  node-ready")] == [
        ["node-ready", "fails", "w1"]
    ]


def test_what_a_user_should_know_is_shown_once_though_nothing_is_wrong() -> None:
    note = "a NetworkPolicy denies nothing in this lab"
    ones = [replace(verdict("network-policy", each, "holds"), note=note) for each in ("w1", "w2")]
    said = shown(outcome(*ones))
    assert said.count(f"note: {note}") == 1
    assert "all hold" in said
    assert [each["note"] for each in json.loads(verify.to_json(outcome(*ones)))["verdicts"]] == [note, note]


CAUSE = Cause("w1 is paused", "`./inv up` resumes it", explains=("node-ready[w1]", "clock[w1]"))


def test_a_cause_is_shown_once_above_what_it_does_not_explain() -> None:
    found = outcome(verdict(), verdict("clock"), verdict("dns", "w2"))
    said = shown(replace(found, causes=(CAUSE,)))
    assert said.count("w1 is paused") == 1
    assert "cause of 2 checks that do not hold" in said
    assert "these 2 checks do not hold: node-ready[w1], clock[w1]" in said
    assert "`./inv up` resumes it" in said
    assert "node-ready on w1: fails" not in said
    assert said.index("cause of 2") < said.index("dns on w2: fails")
    assert "3 fail" in said, "they are still counted"
    told = json.loads(verify.to_json(replace(found, causes=(CAUSE,))))
    assert told["causes"] == [{"what": CAUSE.what, "fix": CAUSE.fix, "explains": list(CAUSE.explains)}]
    assert len(told["verdicts"]) == 3
    assert not told["green"]


def test_a_run_finds_the_causes_of_what_does_not_hold(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, not_running("paused", "w1")(facts()))
    found = verify.run(session)
    [cause] = found.causes
    assert cause.what == "w1 is paused"
    assert set(cause.explains) == {each.title for each in found.verdicts if not each.good}
    told(monkeypatch, facts())
    assert verify.run(session).causes == ()
    assert verify.run(session, select="acceptance and haproxy-service").causes == ()


def test_haproxy_that_is_stopped_is_shown_once_for_all_the_checks_that_fail_for_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, haproxy_stopped(facts()))
    found = verify.run(session)
    bad = [each for each in found.verdicts if not each.good]
    said = shown(found)
    assert [cause.what for cause in found.causes] == ["HAProxy does not run on lb1"]
    assert f"so      these {len(bad)} checks do not hold: " in said
    assert len(bad) > 80
    assert "can't be asked" not in said
    assert "expected" not in said, "no check is shown in full"
    rows = {each.name for each in found.verdicts}
    assert len(said.splitlines()) < len(rows) + 20


def test_watching_says_a_cause_instead_of_its_checks(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    well = outcome(verdict(outcome="holds"), verdict("clock", outcome="holds"))
    caused = replace(outcome(verdict(), verdict("clock")), causes=(CAUSE,))
    looks = iter([well, caused, caused, outcome(verdict(), verdict("clock", outcome="holds"))])
    said: list[str] = []

    def run(*_: object, select: str) -> Outcome:
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(KeyboardInterrupt):
        verify.watch(session, select="", say=lambda line: said.append(str(line)))
    assert [line.split("  ", 1)[-1] for line in said[1:]] == [
        "cause  w1 is paused; `./inv up` resumes it",
        "fails  node-ready[w1]: not Ready",
        "holds  clock[w1]: not Ready",
    ]


def test_a_summary_counts_each_outcome() -> None:
    found = outcome(verdict(), verdict(outcome="warns"), verdict(outcome="could-not-ask"))
    assert found.summary.startswith("verify: 3 checks, 1 fail, 1 could not be asked, 1 warn, ")
    assert "all hold" in outcome(verdict(outcome="holds")).summary


def test_verdicts_for_programs() -> None:
    found = json.loads(verify.to_json(outcome(verdict())))
    assert found["green"] is False
    assert found["verdicts"][0]["found"] == "not Ready"


def test_watching_says_only_what_changes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    well, bad = verdict(outcome="holds"), verdict()
    looks = iter([(well,), (well,), (bad,), (bad,), (replace(well, found="Ready"),)])
    said: list[str] = []

    def run(*_: object, select: str) -> Outcome:
        try:
            return outcome(*next(looks))
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(verify, "run", run)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(KeyboardInterrupt):
        verify.watch(session, select="", say=lambda line: said.append(str(line)))
    assert len(said) == 3
    assert "1 checks watched, 0 do not hold" in said[0]
    assert said[1].endswith("fails  node-ready[w1]: not Ready")
    assert said[2].endswith("holds  node-ready[w1]: Ready")


def test_what_ssh_said_is_kept_as_the_cause_of_a_machine_that_can_t_be_asked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = testinfra.get_host("local://").backend

    def run(command: str) -> CommandResult:
        assert "facts.sh" in command
        # As testinfra's ssh backend does where ssh itself fails: it ends with 255.
        result = CommandResult(backend, 255, command.encode(), b"", b"ssh: w1: No route to host\r\n")
        raise RuntimeError(result)

    monkeypatch.setattr("testinfra.get_host", lambda *_, **__: SimpleNamespace(run=run))
    with pytest.raises(LabStateError, match=r"^ssh: w1: No route to host$") as caught:
        by_testinfra(session)(lab().workers[0])
    assert isinstance(caught.value.__cause__, RuntimeError)
