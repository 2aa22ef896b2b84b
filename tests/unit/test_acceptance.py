"""The acceptance list on machines that answer as told: all of it holds, and each test is shown to fail."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lab import config
from lab.errors import LabStateError
from lab.health import plain_tests, verify
from lab.health.checks import GROUPS
from lab.health.verify import Outcome
from lab.remote import SSH_FAILED, Remote
from lab.session import Session
from lab.system.progress import Progress
from lab.workspace import Workspace
from tests.unit.answers import Answers, acceptance_list, titles
from tests.unit.fakes import FakeRemote, printed
from tests.unit.recorded_facts import FOLDER, lab

pytestmark = pytest.mark.slow

MOST = 12
"""Tests that are still read at a glance."""

OFF = LabStateError("https://192.168.57.10:6443/healthz can't be asked: timed out")

SERVERS = "backend b\n\tserver cp1 192.168.57.11:6443 check\n\tserver cp2 192.168.57.12:6444 check\n"

FAILING: dict[str, tuple[Callable[[Answers], None], dict[str, str]]] = {
    "HAProxy is stopped": (
        lambda said: said.alter("lb1", "is-active haproxy", 3, "inactive"),
        {"haproxy-service-runs-and-is-enabled[lb1]": "fails"},
    ),
    "HAProxy would not come back": (
        lambda said: said.alter("lb1", "is-enabled haproxy", 1, "disabled"),
        {"haproxy-service-runs-and-is-enabled[lb1]": "fails"},
    ),
    "HAProxy listens elsewhere": (
        lambda said: said.alter("lb1", "ss --numeric", 0, "State\nLISTEN 0 9 0.0.0.0:7443 0.0.0.0:*\n"),
        {"haproxy-listens-on-the-port-of-the-api[lb1]": "fails"},
    ),
    "HAProxy's file is wrong": (
        lambda said: said.alter("lb1", "haproxy -c", 1, "unknown keyword"),
        {"haproxy-configuration-is-valid[lb1]": "fails"},
    ),
    "a server has another port, and one is missing": (
        lambda said: said.alter("lb1", "cat -- /etc/haproxy", 0, SERVERS),
        {"haproxy-has-a-server-for-each-control-plane[lb1]": "fails"},
    ),
    "the API is not healthy": (
        lambda said: setattr(said, "health", (500, "etcd failed")),
        {"healthz-answers-ok-through-the-load-balancer": "fails"},
    ),
    "nothing answers at the load balancer": (
        lambda said: setattr(said, "health", OFF),
        {"healthz-answers-ok-through-the-load-balancer": "could-not-ask"},
    ),
    "a node is not Ready": (lambda said: said.not_ready("w2"), {"nodes-are-all-ready": "fails"}),
    "a node is missing": (
        lambda said: setattr(said, "nodes", said.nodes[:-1]),
        {"nodes-are-all-ready": "fails"},
    ),
    "a member is missing": (
        lambda said: said.members("cp1", "cp3"),
        {"etcd-has-one-voting-member-on-each-control-plane": "fails"},
    ),
    "a learner was left behind": (
        lambda said: said.members("cp1", "cp2", "cp3", learner="cp9"),
        {"etcd-has-one-voting-member-on-each-control-plane": "fails"},
    ),
    "a member has no vote": (
        lambda said: said.members("cp1", "cp2", learner="cp3"),
        {"etcd-has-one-voting-member-on-each-control-plane": "fails"},
    ),
    "etcd can't be asked": (
        lambda said: said.alter("cp1", "etcdctl", 1, "context deadline exceeded"),
        {"etcd-has-one-voting-member-on-each-control-plane": "fails"},
    ),
    "a kubelet is stopped": (
        lambda said: said.alter("w3", "is-active kubelet", 3, "inactive"),
        {"kubelet-and-containerd-run[w3]": "fails"},
    ),
    "containerd is stopped": (
        lambda said: said.alter("cp2", "is-active containerd", 3, "inactive"),
        {"kubelet-and-containerd-run[cp2]": "fails"},
    ),
    "admin.conf points elsewhere": (
        lambda said: said.alter("cp3", "admin.conf", 1),
        {"admin-conf-points-at-the-load-balancer[cp3]": "fails"},
    ),
    "a worker goes past the load balancer": (
        lambda said: said.alter("w1", "kubelet.conf", 1),
        {"worker-reaches-the-api-through-the-load-balancer[w1]": "fails"},
    ),
    "a machine does not answer": (
        lambda said: said.silent.add("w1"),
        {
            "kubelet-and-containerd-run[w1]": "could-not-ask",
            "worker-reaches-the-api-through-the-load-balancer[w1]": "could-not-ask",
        },
    ),
    "a connection breaks": (
        lambda said: said.alter("w1", "is-active kubelet", SSH_FAILED),
        {"kubelet-and-containerd-run[w1]": "could-not-ask"},
    ),
    "a connection breaks at first": (
        lambda said: said.alter("w1", "uname -s", SSH_FAILED),
        {
            "kubelet-and-containerd-run[w1]": "could-not-ask",
            "worker-reaches-the-api-through-the-load-balancer[w1]": "could-not-ask",
        },
    ),
}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A lab that was brought up."""
    path = tmp_path / "lab.yaml"
    path.write_text((FOLDER / "lab.yaml").read_text())
    workspace = Workspace(tmp_path / ".lab")
    workspace.write_secret(workspace.kubeconfig, "x")
    monkeypatch.setattr(Remote, "require_route", lambda self: None)
    return Session(path, lab(), workspace, FakeRemote(lab(), workspace), Progress(printed()[0], workspace.logs))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers(lab())
    answers.give(monkeypatch)
    return answers


def accepted(session: Session, select: str = "acceptance") -> Outcome:
    return verify.run(session, select=select)


def test_a_lab_as_it_should_be_is_accepted(session: Session, said: Answers) -> None:
    found = accepted(session)
    assert found.green, verify.to_json(found)
    assert {v.group for v in found.verdicts} == {"acceptance"}
    assert {v.title for v in found.verdicts} == titles(lab())
    assert len(found.verdicts) == len(titles(lab()))


def test_a_lab_without_workers_is_accepted(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    data = yaml.safe_load(session.path.read_text())
    data |= {"nodes": {"workers": {"count": 0}}}
    session.path.write_text(yaml.safe_dump(data))
    small = config.load(session.path)
    answers = Answers(small)
    answers.nodes = tuple(node for node in answers.nodes if node.name in {n.name for n in small.nodes})
    answers.give(monkeypatch)
    found = accepted(dataclasses.replace(session, lab=small))
    assert found.green, verify.to_json(found)
    assert "worker-reaches-the-api-through-the-load-balancer" not in {v.name for v in found.verdicts}


@pytest.mark.parametrize("name", FAILING)
def test_each_part_of_it_fails_when_it_should(session: Session, said: Answers, name: str) -> None:
    alter, expected = FAILING[name]
    alter(said)
    found = accepted(session)
    assert {v.title: v.outcome for v in found.verdicts if v.outcome != "holds"} == expected


def test_every_test_of_it_is_shown_to_fail() -> None:
    shown = {title.partition("[")[0] for _, expected in FAILING.values() for title in expected}
    assert shown == set(acceptance_list())


def test_it_is_short_and_every_test_says_what_it_means_and_what_to_try() -> None:
    assert len(acceptance_list()) <= MOST
    for name, test in acceptance_list().items():
        told = plain_tests.read(inspect.getdoc(test) or "", "")
        general = plain_tests.read("", "")
        assert not {*told} & {*general}, name


def test_its_names_are_no_names_of_checks() -> None:
    checks = {check.name for _, checks in GROUPS for check in checks}
    assert not checks & set(acceptance_list())


def test_a_failure_says_what_was_found_and_what_the_docstring_says(session: Session, said: Answers) -> None:
    said.health = (500, "etcd failed")
    said.alter("w3", "is-active kubelet", 3, "inactive")
    said.silent.add("w1")
    found = {v.title: v for v in accepted(session).verdicts}
    healthz = found["healthz-answers-ok-through-the-load-balancer"]
    assert healthz.expected.startswith("/healthz answers 200 ok through the load balancer")
    assert "(500, 'etcd failed') == (200, 'ok')" in healthz.found
    assert healthz.means.startswith("kubectl and the workers' kubelets")
    assert healthz.hint == "`./inv status` says which machines run."
    kubelet = found["kubelet-and-containerd-run[w3]"]
    assert (kubelet.name, kubelet.machine) == ("kubelet-and-containerd-run", "w3")
    assert kubelet.found == "assert False + where False = <service kubelet>.is_running"
    assert found["kubelet-and-containerd-run[w1]"].found == "w1 can't be asked: timed out"


@pytest.mark.parametrize(
    ("select", "titles"),
    [
        ("haproxy-configuration-is-valid", {"haproxy-configuration-is-valid[lb1]"}),
        (
            "acceptance and cp2",
            {"kubelet-and-containerd-run[cp2]", "admin-conf-points-at-the-load-balancer[cp2]"},
        ),
        ("acceptance and etcd", {"etcd-has-one-voting-member-on-each-control-plane"}),
    ],
)
def test_it_is_selected_by_group_name_and_machine(
    session: Session, said: Answers, select: str, titles: set[str]
) -> None:
    assert {v.title for v in accepted(session, select).verdicts} == titles


def test_machines_of_no_selected_test_are_not_asked(session: Session, said: Answers) -> None:
    accepted(session, "haproxy-configuration-is-valid")
    assert {machine for machine, _ in said.asked} == {"lb1"}


def test_it_takes_few_commands(session: Session, said: Answers) -> None:
    """Each takes an ssh client's time, one after the other, except for those that testinfra asks at first."""
    accepted(session)
    first = {
        "command -v command",
        "uname -s",
        "cat /etc/os-release",
        "uname -m",
        "test -d /run/systemd/system/",
    }
    assert len([command for _, command in said.asked if command not in first]) <= 30


def test_a_docstring_without_parts_is_told_in_general_words() -> None:
    assert plain_tests.read("", "tests/live/test_mine.py") == (
        "the test passes",
        "a test of your own in tests/live does not hold",
        "read tests/live/test_mine.py",
    )
    assert plain_tests.read("Swap is off.\n\nMore of it.\n\nTry: `swapoff`\n    and again", "").hint == (
        "`swapoff` and again"
    )
