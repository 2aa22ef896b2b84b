"""Every task on recorded facts: done as recorded, and shown to be "not yet" and "broken" when facts differ."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import config
from lab import providers as machines
from lab.errors import ConfigError, LabError, LabStateError
from lab.health.checks import GROUPS, cases
from lab.health.facts.api import ask_api
from lab.health.facts.gather import Facts
from lab.health.facts.machine import Machine
from lab.model import Lab
from lab.session import Session
from lab.system.progress import Progress
from lab.unknown import Unknown, known
from lab.workshop.task import cluster, command, kept, look
from lab.workshop.task import machines as machine_parts
from lab.workshop.task.catalogue import TASKS
from lab.workshop.task.kept import Kept, Verified
from lab.workshop.task.look import Result
from lab.workshop.task.task import Checks, Found, Sight, Task, state
from lab.workspace import Workspace
from tests.unit.fakes import CA, FakeRemote, keep_made, printed, with_a_second_balancer
from tests.unit.recorded_facts import (
    Alter,
    api,
    external_facts,
    external_lab,
    facts,
    lab,
    not_running,
    section,
    silent,
    told_otherwise,
)

KEPT = Kept(Path("/lab/.lab"), verified=Verified(len(cases(lab())), 0), reports=("20261126-100000-all",))


def sight(*alter: Alter, **left: Any) -> Sight:
    found: Facts = facts()
    for each in alter:
        found = each(found)
    return Sight(lab(), found, replace(KEPT, **left))


def task(number: int) -> Task:
    return TASKS[number - 1]


def without_nodes(*names: str) -> Alter:
    return api(nodes=tuple(node for node in known(facts().api.nodes) if node.name not in names))


def without_pods(start: str) -> Alter:
    return api(pods=tuple(pod for pod in known(facts().api.pods) if not pod.name.startswith(start)))


def not_ready(start: str) -> Alter:
    pods = known(facts().api.pods)
    return api(pods=tuple(replace(p, ready=False) if p.name.startswith(start) else p for p in pods))


def nodes(name: str, **changes: Any) -> Alter:
    return api(nodes=tuple(replace(n, **changes) if n.name == name else n for n in known(facts().api.nodes)))


def restarted(start: str, count: int) -> Alter:
    before, after = known(facts().api.restarts)
    more = {name: count for name in after if name.partition("/")[2].startswith(start)}
    return api(restarts=(before, {**after, **more}))


def api_secrets(secrets: tuple[tuple[str, str], ...]) -> Alter:
    return lambda found: replace(found, api=replace(found.api, secrets=secrets))


def both(*alter: Alter) -> Alter:
    def altered(found: Facts) -> Facts:
        for each in alter:
            found = each(found)
        return found

    return altered


FRESH = section("cp1", "membership", "fresh")
HALF = section("cp1", "membership", "partial")
BARE_NODE = both(section("w1", "membership", "fresh"), without_nodes("w1"))
NO_NODE = without_nodes("w1")
ANOTHER_CA = section("cp1", "certificates", f"# /etc/kubernetes/pki/ca.crt\n{CA}")
UNAVAILABLE = api(health={path: (503, "no") for path in facts().api.health})
RUNNING = {name: section(name, "kubeadm", "4711") for name in ("cp1", "cp2", "w1")}
RUNS = "Id=containerd.service\nActiveState=active"
ADMISSION = (("kubeadm-certs", "Opaque"), ("bootstrap-token-abc", "bootstrap.kubernetes.io/token"))
ROW = known(facts().machines["lb1"]).sections["backends"].text.split("apiserverbackend,cp1,")[1].splitlines()[0]
BACKEND_DOWN = told_otherwise("lb1", "backends", ROW, ROW.replace(",UP,", ",DOWN,"))

NOT_YET: list[tuple[int, Alter | None, dict[str, Any], str]] = [
    (1, silent("w3"), {}, "w3 can't be asked"),
    (2, section("cp1", "ca-key", ""), {}, "no /etc/kubernetes/pki/ca.key"),
    (2, section("cp1", "certificates", ""), {}, "no /etc/kubernetes/pki/ca.crt"),
    (3, section("lb1", "lab-configuration", "packaged"), {}, "only the packaged one"),
    (3, told_otherwise("lb1", "services", "active", "inactive"), {}, "not running"),
    (3, told_otherwise("lb1", "services", "enabled", "disabled"), {}, "not enabled"),
    (3, section("lb1", "unread", "/etc/haproxy/haproxy.cfg"), {}, "haproxy.cfg changed after"),
    (2, silent("cp2"), {}, "cp2 can't be asked"),
    (3, silent("lb1"), {}, "lb1 can't be asked"),
    (4, silent("lb1"), {}, "lb1 can't be asked"),
    (4, FRESH, {}, "no part of a cluster is there"),
    (4, both(FRESH, section("cp1", "certificates", "")), {}, "no /etc/kubernetes/pki/ca.crt"),
    (4, both(FRESH, section("cp1", "ca-key", "")), {}, "no /etc/kubernetes/pki/ca.key"),
    (4, both(FRESH, section("cp1", "ca-key", ""), RUNNING["cp1"]), {}, "kubeadm is running"),
    (4, both(section("cp1", "membership", "partial"), RUNNING["cp1"]), {}, "kubeadm is running"),
    (4, RUNNING["cp1"], {}, "kubeadm is running"),
    (5, FRESH, {}, "no part of a cluster is there"),
    (5, HALF, {}, "only half done"),
    (5, silent("cp1"), {}, "cp1 can't be asked"),
    (6, HALF, {}, "only half done"),
    (6, silent("w3"), {}, "w3 can't be asked"),
    (6, FRESH, {}, "no part of a cluster is there"),
    (6, both(section("w1", "membership", "partial"), RUNNING["w1"]), {}, "kubeadm is running"),
    (6, both(nodes("cp2", control_plane=False), RUNNING["cp2"]), {}, "kubeadm is running"),
    (6, BARE_NODE, {}, "no part of a cluster is there"),
    (7, HALF, {}, "only half done"),
    (7, silent("cp1"), {}, "cp1 can't be asked"),
    (7, FRESH, {}, "no part of a cluster is there"),
    (7, NO_NODE, {}, "w1 not in the cluster"),
    (7, without_pods("kube-flannel"), {}, "the pod network has not been applied"),
    (7, not_ready("kube-flannel"), {}, "is not Ready"),
    (7, nodes("w2", ready=False, reason="cni plugin not initialized"), {}, "cni plugin not initialized"),
    (7, not_ready("coredns"), {}, "none is"),
    (8, HALF, {}, "only half done"),
    (8, FRESH, {}, "no part of a cluster is there"),
    (8, silent("cp3"), {}, "cp3 can't be asked"),
    (8, NO_NODE, {}, "w1 not in the cluster"),
    (8, None, {"fault": "kill-control-plane on cp1"}, "kill-control-plane on cp1"),
    (8, api(secrets=(("kubeadm-certs", "Opaque"),)), {}, "kubeadm-certs"),
    (8, section("cp1", "left-by-runs", "/root/secrets.sed"), {}, "/root/secrets.sed"),
    (8, section("cp1", "unfinished", "pod-network\n"), {}, "the pod network"),
    (8, not_ready("kube-router"), {}, "is not Ready"),
    (8, None, {"verified": None}, "it has not been run"),
    (8, None, {"verified": Verified(3, 0)}, "the last run was for 3 of them"),
    (8, None, {"verified": Verified(201, 2), "was_broken": True}, "2 of 201 failed"),
    (8, section("cp2", "open-keys", "/x.key"), {"settling": True}, "/x.key"),
    (8, BACKEND_DOWN, {"settling": True}, "DOWN"),
    (9, None, {"reports": ()}, "neither was found"),
    (10, None, {"reports": ()}, "neither was found"),
    (10, None, {"fault": "kill-control-plane on cp1"}, "kill-control-plane on cp1"),
    (10, silent("w1"), {"settling": True}, "degraded: w1 can't be asked"),
    (11, None, {}, "/lab/.lab exists"),
]  # fmt: skip

BROKEN: list[tuple[int, Alter | None, dict[str, Any], str]] = [
    (1, told_otherwise("w1", "here", "w1", "w9"), {}, "w9"),
    (1, told_otherwise("w2", "kernel", "ip_forward = 1", "ip_forward = 0"), {}, "net.ipv4.ip_forward: 0"),
    (1, told_otherwise("w2", "services", RUNS, RUNS.replace("active", "failed")), {}, "it does not"),
    (2, told_otherwise("cp2", "programs", "/usr/bin/etcdctl", ""), {}, "no etcdctl"),
    (2, told_otherwise("cp3", "images", "kube-apiserver:v1.36.3", "other:v1"), {}, "no kube-apiserver:v1.36.3"),
    (2, ANOTHER_CA, {}, "another one in"),
    (3, section("lb1", "configuration", "unknown keyword 'serve'", 1), {}, "unknown keyword 'serve'"),
    (3, section("lb1", "lab-configuration", ">     balance first"), {}, "balance first"),
    (3, section("lb1", "listening", ""), {}, "no process does"),
    (4, HALF, {}, "only half done"),
    (4, ANOTHER_CA, {}, "another one in"),
    (4, both(FRESH, ANOTHER_CA), {}, "another one in"),
    (4, section("cp1", "admin-server", "https://192.168.57.11:6443"), {}, "https://192.168.57.11:6443"),
    (4, section("cp1", "endpoint", ""), {}, "it has none"),
    (4, section("cp1", "endpoint", "192.168.57.11:6443"), {}, "192.168.57.11:6443"),
    (4, BACKEND_DOWN, {}, "DOWN"),
    (4, UNAVAILABLE, {}, "503 no"),
    (4, nodes("cp1", control_plane=False), {}, "a worker"),
    (5, both(section("w1", "membership", "fresh"), NO_NODE), {}, "no bootstrap token"),
    (5, without_nodes("cp2"), {}, "no bootstrap token, no Secret kubeadm-certs"),
    (6, section("w1", "membership", "partial"), {}, "only half done"),
    (6, NO_NODE, {}, "not this one"),
    (6, section("w1", "membership", "fresh"), {}, "the machine has no part of the cluster"),
    (6, told_otherwise("cp2", "etcd-members", '"name":"cp3"', '"name":"cp9"'), {}, "cp9"),
    (6, nodes("cp2", control_plane=False), {}, "a worker"),
    (7, both(not_ready("kube-flannel"), restarted("kube-flannel", 4)), {}, "it was restarted 4 times"),
    (8, section("cp2", "open-keys", "/etc/kubernetes/pki/ca.key"), {}, "/etc/kubernetes/pki/ca.key"),
    (8, None, {"verified": Verified(201, 2)}, "2 of 201 failed"),
    (10, silent("w1"), {}, "degraded: w1 can't be asked"),
    (10, not_running("paused", "w1"), {}, "degraded: w1 is paused"),
    (10, UNAVAILABLE, {}, "down: the API answered 503"),
    (11, None, {"folder": None, "strays": ("0123", "4567")}, "2 machines of this lab"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(1, 11))
def test_a_healthy_lab_after_a_drill_has_every_task_done_except_the_last(number: int) -> None:
    assert task(number).judge(sight()) == ()


def test_the_last_task_is_done_when_nothing_is_left() -> None:
    assert task(11).judge(sight(folder=None)) == ()


@pytest.mark.parametrize(("number", "alter", "left", "said"), NOT_YET)
def test_what_is_missing_is_not_yet(number: int, alter: Alter | None, left: dict[str, Any], said: str) -> None:
    found = task(number).judge(sight(*([alter] if alter else []), **left))
    assert state(found) == "not yet"
    assert said in " ".join(each.found for each in found)


@pytest.mark.parametrize(("number", "alter", "left", "said"), BROKEN)
def test_what_is_wrong_is_broken_and_says_what_to_try(
    number: int, alter: Alter | None, left: dict[str, Any], said: str
) -> None:
    found = task(number).judge(sight(*([alter] if alter else []), **left))
    assert state(found) == "broken", found
    assert said in " ".join(each.found for each in found)
    assert all(each.hint for each in found)


@pytest.mark.parametrize("alter", [ANOTHER_CA, both(FRESH, ANOTHER_CA)])
def test_a_first_control_plane_with_another_ca_is_reset_and_gets_the_lab_s(alter: Alter) -> None:
    (found,) = task(4).judge(sight(alter))
    assert found.hint == cluster.RESET
    steps = ("kubeadm reset --force", "./inv up --until control-plane", "/opt/ha-lab/kubeadm-init.yaml")
    assert sorted(steps, key=found.hint.index) == list(steps)


def test_an_init_without_the_load_balancer_is_repeated_whatever_admin_conf_says() -> None:
    own = section("cp1", "admin-server", "https://192.168.57.11:6443")
    for alter in (section("cp1", "endpoint", ""), both(section("cp1", "endpoint", ""), own)):
        assert [found.hint for found in task(4).judge(sight(alter))] == [cluster.RESET]
    for alter in (own, both(section("cp1", "endpoint", "refused", 1), own)):
        (found,) = task(4).judge(sight(alter))
        assert "server:" in found.hint


def test_a_ca_that_a_reset_removed_is_put_back_before_init() -> None:
    (found,) = task(4).judge(sight(FRESH, section("cp1", "ca-key", "")))
    assert "./inv up --until control-plane" in found.hint


def test_every_task_has_been_shown_to_be_not_yet_and_broken() -> None:
    assert {number for number, *_ in NOT_YET} == set(range(1, 12))
    assert {number for number, *_ in BROKEN} == set(range(1, 12)) - {9}  # a drill's report exists or does not


def test_a_fault_that_was_kept_or_removed_counts_as_injected() -> None:
    assert task(9).judge(sight(reports=(), was_broken=True, fault="kill-control-plane on cp1")) == ()
    assert task(10).judge(sight(reports=(), was_broken=True)) == ()


def test_secrets_are_needed_only_while_machines_have_yet_to_join() -> None:
    def judged(missing: str, secrets: tuple[tuple[str, str], ...]) -> str:
        return state(task(5).judge(sight(without_nodes(missing), api_secrets(secrets))))

    assert judged("cp3", ADMISSION) == judged("w1", ADMISSION) == "done"
    assert judged("cp3", ADMISSION[:1]) == judged("w1", ADMISSION[:1]) == "broken"
    assert (judged("cp3", ADMISSION[1:]), judged("w1", ADMISSION[1:])) == ("broken", "done")
    assert judged("nobody", ()) == judged("nobody", ADMISSION) == "done"


@pytest.mark.parametrize("number", [4, 5, 6, 7, 8])
def test_a_cluster_that_can_t_be_asked_is_broken_once_it_exists(number: int) -> None:
    why = Unknown("the API can't be asked: timed out")
    gone = api(nodes=why, pods=why, secrets=why, restarts=why)
    found = task(number).judge(sight(gone))
    assert (state(found), "timed out" in " ".join(each.found for each in found)) == ("broken", True)
    assert all(each.hint for each in found)


def test_an_answer_that_can_t_be_read_is_broken_and_not_an_error_of_the_kit() -> None:
    (found,) = task(2).judge(sight(section("cp1", "certificates", "Error")))
    assert found.state == "broken"
    assert "cp1's answer to certificates can't be read" in found.found
    assert "./inv logs" in found.hint


def test_an_error_of_the_kit_is_not_taken_for_an_answer_that_can_t_be_read() -> None:
    with pytest.raises(KeyError):
        task(10).judge(sight(api(health={})))


# The tasks themselves.


def test_tasks_are_numbered_in_a_row_and_named_as_the_chapters() -> None:
    assert [each.number for each in TASKS] == list(range(1, 12))
    names = "machines quorum load-balancer control-plane certificates joins pod-network look-around break mend"
    assert [each.name for each in TASKS] == [*names.split(), "clean-up"]


@pytest.mark.parametrize("each", TASKS, ids=lambda each: each.name)
def test_every_task_has_hints_that_can_be_filled_in(each: Task) -> None:
    assert each.hints
    for hint in each.hints:
        assert "{" not in look.filled(hint, lab())


@pytest.mark.parametrize("each", TASKS, ids=lambda each: each.name)
def test_checks_that_a_task_uses_exist_and_need_no_pods(each: Task) -> None:
    there = {check.name: check for _, checks in GROUPS for check in checks}
    for part in each.parts:
        if isinstance(part, Checks):
            assert set(part.names) <= set(there)
            assert not any(there[name].probes for name in part.names)


ASKING = [(each, "stacked") for each in TASKS if each.asks]
# No external lab is recorded as a whole. Where a task names its answers, those that are recorded do.
ASKING += [(each, "external") for each in TASKS if each.asks and each.asks.answers]


@pytest.mark.parametrize(("each", "topology"), ASKING, ids=lambda part: getattr(part, "name", part))
def test_what_a_task_asks_is_all_that_it_needs(each: Task, topology: str) -> None:
    assert each.asks
    wanted, recorded = (lab(), facts()) if topology == "stacked" else (external_lab(), external_facts())
    answers = each.asks.answers
    told: dict[str, Machine | Unknown] = {node.name: Unknown("was not asked") for node in wanted.nodes}
    for node in each.asks.machines(wanted):
        machine = known(recorded.machines[node.name])
        sections = {name: said for name, said in machine.sections.items() if not answers or name in answers}
        told[node.name] = replace(machine, sections=sections)
    only = replace(recorded, machines=told, probes=Unknown("pods were not asked"))
    if not each.asks.api:
        only = replace(only, api=ask_api(wanted, Unknown("was not asked"), Unknown("was not asked")))
    assert each.judge(Sight(wanted, only, KEPT)) == ()


# Looking: what is asked, and how often.


class Way(FakeRemote):
    """Machines that record what they are asked, and do not answer."""

    def __init__(self, lab: Lab, workspace: Workspace) -> None:
        """Nothing has been asked yet."""
        super().__init__(lab, workspace)
        self.asked: list[tuple[str, ...]] = []
        self.way: str | None = None

    def route_problem(self) -> str | None:
        """Return why the lab's network is not up."""
        return self.way

    def run(self, node: Any, command: Any, **words: Any) -> Any:
        """Record it, and fail: these tests do not look at the result."""
        assert not self.way, "something was sent while the lab's network is down"
        self.asked.append((node.name, *command))
        raise LabStateError("no route to host")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    workspace = Workspace(tmp_path / ".lab")
    monkeypatch.setattr(machines, "unknown_to_vagrant", lambda workspace: [])
    monkeypatch.setattr(look, "SOON", 0.0)
    way = Way(config.default(), workspace)
    return Session(tmp_path / "lab.yaml", way.lab, workspace, way, Progress(printed()[0], workspace.logs))


def made(session: Session) -> Way:
    session.workspace.write(session.workspace.root / ".vagrant/machines/lb1/docker/id", "1")
    session.workspace.write(session.workspace.ssh_config, "")
    assert isinstance(session.remote, Way)
    return session.remote


def test_a_lab_that_was_never_brought_up_is_not_yet_and_counts_nothing(session: Session) -> None:
    for number in range(1, 11):
        result = look.ask(session, task(number))
        assert (result.state, result.hints) == ("not yet", ())
        assert "./inv up --until load-balancer" in result.found[0].hint or number == 9
    assert look.ask(session, task(9)).found[0].found == "neither was found"
    assert look.ask(session, task(11)).state == "done"
    assert not session.workspace.root.exists()


def test_nothing_is_sent_while_the_lab_s_network_is_down(session: Session) -> None:
    made(session).way = "the lab's network 192.168.56.0/24 is not up on this host"
    session.workspace.write(session.workspace.root / "drills" / "1-all" / "report.json", "{}")
    results = look.progress(session)
    assert [each.state for each in results] == [*["broken"] * 8, "done", "broken", "not yet"]
    assert "is not up on this host" in results[3].found[0].found
    assert look.ask(session, task(4)).state == "broken"


@pytest.mark.parametrize(
    ("number", "machines_asked", "answers"),
    [
        (2, {"cp1", "cp2", "cp3"}, ("programs", "images", "certificates", "ca-key")),
        (3, {"lb1"}, ("services", "configuration", "lab-configuration", "unread", "listening")),
        (8, {"lb1", "cp1", "cp2", "cp3", "w1", "w2", "w3"}, ()),
        (9, set(), ()),
    ],
)
def test_only_what_a_task_needs_is_asked(
    session: Session, number: int, machines_asked: set[str], answers: tuple[str, ...]
) -> None:
    way = made(session)
    look.ask(session, task(number))
    asked = [each for each in way.asked if "facts.sh" in each[2]]
    assert {each[0] for each in asked} == machines_asked
    assert {each[3:] for each in asked} <= {answers}


def test_the_load_balancer_s_task_looks_at_every_load_balancer() -> None:
    bare = section("lb1", "lab-configuration", "packaged")(facts()).machines["lb1"]
    found = replace(facts(), machines={**facts().machines, "lb2": bare})
    seen = replace(sight(lambda _: found), lab=with_a_second_balancer(lab()))
    assert [each.machine for each in machine_parts.configured(seen)] == ["lb2"]


def test_progress_asks_for_everything_needed_even_while_a_fault_blocks_some_tasks(
    session: Session,
) -> None:
    way = made(session)
    fault = {"drill": "kill-control-plane", "victims": ["cp1"]}
    session.workspace.write(session.workspace.drill / "fault.json", json.dumps(fault))
    look.progress(session)
    asked = next(each[3:] for each in way.asked if "facts.sh" in each[2])
    assert set(asked) == {name for each in TASKS if each.asks for name in each.asks.answers}


def test_a_slow_moment_of_a_cluster_is_no_finding(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    made(session)
    session = replace(session, lab=lab())
    session.workspace.write(session.workspace.root / "drills" / "1-all" / "report.json", "{}")
    slow = section("cp2", "etcd-status", "")(facts())
    answers = [slow, facts(), slow, slow, silent("lb1")(facts()), slow]
    monkeypatch.setattr(look, "_gathered", lambda session, tasks: answers.pop(0))
    assert look.ask(session, task(10)).state == "done"
    assert look.ask(session, task(10)).state == "broken"
    assert len(answers) == 2, "what lasts was asked twice"
    assert look.ask(session, task(3)).state == "not yet"
    look.progress(session)
    assert answers == [], "machines without a cluster, and the progress over all tasks, were asked once"


def test_only_a_task_that_needs_the_kubeconfig_fetches_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def keep(session: Session) -> bool:
        fetched.append("once")
        raise LabStateError("it does not point at the load balancer")

    monkeypatch.setattr(look, "keep_kubeconfig", keep)
    made(session)
    look.ask(session, task(3))
    assert fetched == []
    look.ask(session, task(4))
    assert fetched == ["once"] * 2  # a task of the cluster looks twice
    session.workspace.write_secret(session.workspace.kubeconfig, "x")
    look.ask(session, task(4))
    assert len(fetched) == 2


def test_each_check_shows_one_more_hint_until_the_task_is_done(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(session)
    asked = [look.ask(session, task(3)) for _ in range(6)]
    assert [len(each.hints) for each in asked] == [1, 2, 3, 4, 4, 4]
    assert [each.asked for each in asked] == [1, 2, 3, 4, 5, 6]
    assert "lb1" in asked[0].hints[0]
    look.progress(session)
    assert look.ask(session, task(3)).asked == 7
    assert look.ask(session, task(1)).asked == 1
    monkeypatch.setattr(look, "_judged", lambda session, tasks, again: [()])
    assert look.ask(session, task(3)) == Result(3, "load-balancer", task(3).title, "done")
    monkeypatch.undo()
    assert json.loads(session.workspace.tasks.read_text()) == {"1": 1, "3": 0}


@pytest.mark.parametrize("text", ["", "[]", "nothing", '{"3": "x"}', '{"3": {}}'])
def test_a_count_that_can_t_be_read_starts_again(session: Session, text: str) -> None:
    made(session)
    session.workspace.write(session.workspace.tasks, text)
    assert look.ask(session, task(3)).asked == 1


def test_a_count_that_can_t_be_written_does_not_prevent_the_result(session: Session) -> None:
    made(session)
    session.workspace.tasks.mkdir()
    for _ in range(2):
        result = look.ask(session, task(3))
        assert (result.state, result.asked, len(result.hints)) == ("not yet", 1, 1)


@pytest.mark.parametrize("word", ["0", "12", "x", "-1", "03", "1.5"])
def test_an_unknown_number_is_refused_with_the_known_ones(word: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no task '{word}'") as caught:
        look.numbered(word)
    assert "from 1 to 11" in caught.value.hint


def test_a_number_finds_its_task() -> None:
    assert [look.numbered(str(number)).number for number in range(1, 12)] == list(range(1, 12))


# What this host keeps.


def test_what_is_kept_about_a_lab_is_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.look(session) == Kept()
    root = session.workspace.root
    session.workspace.write(root / "drills" / "1-all" / "report.json", "{}")
    session.workspace.write(root / "drills" / "2-all" / "x", "")
    session.workspace.write(
        root / "drill" / "fault.json", json.dumps({"drill": "kill-control-plane", "victims": ["cp1"]})
    )
    session.workspace.write(
        root / "verify.xml",
        '<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" '
        'skipped="0" tests="201" time="9.9">',
    )
    keep_made(session.workspace, session.lab)
    was = kept.look(session)
    fault = "kill-control-plane on cp1"
    assert was == Kept(root, (), Verified(201, 3), ("1-all",), fault, was_broken=True, settling=True)
    os.utime(session.workspace.drill, (0, 0))
    assert kept.look(session) == replace(was, settling=False)

    def no_docker(workspace: Workspace) -> list[str]:
        raise LabError("docker is not there")

    monkeypatch.setattr(machines, "unknown_to_vagrant", no_docker)
    session.workspace.write(root / "verify.xml", "<testsuite>")
    assert (kept.look(session).strays, kept.look(session).verified) == ((), None)


def test_a_folder_without_a_lab_counts_as_nothing_left(session: Session) -> None:
    with session.workspace.lock():
        assert kept.look(session).folder is None


def test_no_machine_is_asked_while_a_fault_is_injected(session: Session) -> None:
    way = made(session)
    fault = {"drill": "kill-control-plane", "victims": ["cp1"]}
    session.workspace.write(session.workspace.drill / "fault.json", json.dumps(fault))
    for number in (8, 10):
        assert look.ask(session, task(number)).state == "not yet"
    assert way.asked == []


# What is shown.

RESULTS = (
    Result(1, "machines", "the machines answer", "done"),
    Result(
        3,
        "load-balancer",
        "HAProxy runs",
        "broken",
        (Found("broken", "lb1", "the lab's", "< one\n> two", "put it together again"),),
        ("look there", "`./inv up --until control-plane` does it"),
        2,
    ),
)


def shown(what: object) -> str:
    console, text = printed(width=100)
    console.print(what, soft_wrap=True)
    return text.getvalue()


def test_progress_shows_each_task_and_the_first_thing_missing() -> None:
    said = shown(command.shown(lab(), RESULTS))
    assert "3     HAProxy runs         broken  lb1: < one" in said
    assert "1 of 2 done" in said
    assert said.rstrip().endswith("next: ./inv task 3")
    assert "next:" not in shown(command.shown(lab(), RESULTS[:1]))


def test_progress_shows_an_empty_finding() -> None:
    said = shown(command.shown(lab(), (replace(RESULTS[1], found=(Found("broken", "lb1", "words", ""),)),)))
    assert "broken  lb1:" in said


def test_one_task_shows_all_of_it_and_the_hints_so_far() -> None:
    assert shown(command.shown_one(RESULTS[1])) == (
        "task 3, HAProxy runs: broken\n"
        "\n"
        "  machine   lb1\n"
        "  expected  the lab's\n"
        "  found     < one\n"
        "            > two\n"
        "  try       put it together again\n"
        "\n"
        "  hint      look there\n"
        "  hint      `./inv up --until control-plane` does it\n"
    )
    assert shown(command.shown_one(RESULTS[0])) == "task 1, the machines answer: done\n"


def test_a_long_list_is_cut_and_a_shared_hint_is_shown_once() -> None:
    many = tuple(Found("broken", f"w{n}", "Ready", "not", "wait" if n < 9 else "") for n in range(1, 10))
    said = shown(command.shown_one(replace(RESULTS[0], state="broken", found=many)))
    assert (said.count("  machine   "), said.count("wait")) == (6, 1)
    assert said.endswith("\n  and 3 more\n")


def test_json_has_the_same_keys_for_one_task_and_for_all() -> None:
    all_of_them = json.loads(command.to_json(lab(), RESULTS))
    one = json.loads(command.to_json(lab(), RESULTS[1:]))
    assert set(one) == set(all_of_them) == {"lab", "done", "tasks"}
    assert (all_of_them["lab"], all_of_them["done"]) == ("ha-lab-verify", 1)
    assert one["tasks"][0] == all_of_them["tasks"][1]
    keys = {"number", "name", "title", "state", "found", "hints", "asked"}
    assert {key for each in all_of_them["tasks"] for key in each} == keys
    assert set(one["tasks"][0]["found"][0]) == {"state", "machine", "expected", "found", "hint"}
