from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.config import default
from lab.exit_codes import DEGRADED, DONE, DOWN
from lab.health import status, tolerance
from lab.health.connecting import NO_SERVER_UP
from lab.health.facts.api import ask_api
from lab.health.facts.gather import Facts
from lab.host.doctor.forwarding import Obstacle
from lab.session import Session
from lab.system.progress import Progress
from lab.unknown import Unknown, known
from lab.workspace import Workspace
from lab.workspace import made as records
from tests.unit.fakes import FakeRemote, keep_made, printed
from tests.unit.recorded_facts import (
    MACS,
    Alter,
    admission,
    apart,
    api,
    facts,
    haproxy_stopped,
    lab,
    not_running,
    pair_facts,
    pair_lab,
    section,
    silent,
    told_otherwise,
    unreached,
)
from tests.unit.test_admission import read_one


def looked(*alter: Alter) -> status.Status:
    found = facts()
    for each in alter:
        found = each(found)
    return status.judge(lab(), found)


def nodes_not_ready(*names: str) -> Alter:
    return api(
        nodes=tuple(
            replace(node, ready=False, reason="Kubelet stopped posting node status.")
            if node.name in names
            else node
            for node in known(facts().api.nodes)
        )
    )


def server_down(name: str) -> Alter:
    why = Unknown("timed out")
    return lambda found: api(direct={**found.api.direct, name: dict.fromkeys(found.api.direct[name], why)})(
        found
    )


def etcd_down(name: str) -> Alter:
    return section(name, "etcd-health", "unhealthy", 1)


def shown(found: status.Status) -> str:
    console, text = printed()
    console.print(status.shown(found))
    return text.getvalue()


def test_a_lab_that_is_well_is_healthy() -> None:
    found = looked()
    assert (found.health, found.exit_code) == ("healthy", DONE)
    assert found.all_ready
    assert [machine.cluster for machine in found.machines] == ["-"] + ["Ready"] * 6
    assert "ha-lab-verify: healthy; the API is https://192.168.57.10:6443" in shown(found)


def test_a_lost_control_plane_degrades_and_the_loss_that_would_stop_it_is_named() -> None:
    found = looked(silent("cp2"), server_down("cp2"))
    assert (found.health, found.exit_code) == ("degraded", DEGRADED)
    assert not found.all_ready
    assert [machine.name for machine in found.machines if not machine.answers] == ["cp2"]
    assert found.losses == ("the loss of cp1 or cp3: etcd needs 2 of its 3 members to take writes",)
    said = shown(found)
    assert "degraded; it works" in said
    assert "problem: cp2 can't be asked: no answer within 15 s\n" in said
    assert "problem: api-server-healthy[cp2]: /livez: timed out" in said
    assert "etcd-one-leader" not in said  # it could not be asked because of cp2, which is said
    assert "would stop it: the loss of cp1 or cp3" in said


def test_a_machine_with_another_checkout_s_script_answers_all_the_same() -> None:
    why = Unknown("w1 has another checkout's facts.sh: `./inv up` gives it this one's", answered=True)
    found = looked(lambda known_facts: replace(known_facts, machines={**known_facts.machines, "w1": why}))
    assert all(machine.answers for machine in found.machines)
    assert found.all_ready
    assert found.health == "degraded"
    assert found.problems == (why.reason,)


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        (looked(section("cp2", "etcd-status", "")), 2),
        (looked(), 1),
        (looked(silent("cp2"), server_down("cp2")), 1),
        (looked(haproxy_stopped), 1),
    ],
    ids=["degraded", "healthy", "a machine does not answer", "down"],
)
def test_what_may_be_an_election_is_asked_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: status.Status, asked: int
) -> None:
    answers = [first, looked()]
    monkeypatch.setattr(status, "SOON", 0.0)
    monkeypatch.setattr(status, "_look", lambda session: answers.pop(0))
    workspace = Workspace(tmp_path / ".lab")
    opened = Session(
        tmp_path / "lab.yaml", lab(), workspace, FakeRemote(lab(), workspace), Progress(printed()[0], tmp_path)
    )
    assert status.look(opened) == (first if asked == 1 else looked())
    assert len(answers) == 2 - asked


def test_one_api_server_left_is_named() -> None:
    found = looked(server_down("cp1"), server_down("cp3"))
    assert found.losses == ("the loss of cp2: no other API server is well",)


def test_an_etcd_member_that_is_not_well_degrades() -> None:
    found = looked(etcd_down("cp3"))
    assert found.health == "degraded"
    assert found.losses == ("the loss of cp1 or cp2: etcd needs 2 of its 3 members to take writes",)


def test_one_worker_left_is_named() -> None:
    found = looked(nodes_not_ready("w1", "w2"))
    assert "the loss of w3: no other worker is Ready" in found.losses
    assert [m.cluster for m in found.machines if m.name == "w1"] == [
        "not Ready: Kubelet stopped posting node status."
    ]


def test_coredns_on_one_node_is_named() -> None:
    said = known(facts().api.pods)
    pods = tuple(replace(p, node="w1") if p.name.startswith("coredns-") else p for p in said)
    assert looked(api(pods=pods)).losses == ("the loss of w1: no other node answers pods' questions for names",)


def test_a_degraded_lab_that_can_lose_one_more_says_so() -> None:
    found = looked(nodes_not_ready("w1"))
    assert found.health == "degraded"
    assert found.losses == ("the loss of the load balancer; no other single loss",)


def of_two(*alter: Alter) -> status.Status:
    """The status of a lab with two load balancers."""
    found = pair_facts()
    for each in alter:
        found = each(found)
    return status.judge(pair_lab(), found)


def stopped(machine: str, name: str) -> Alter:
    runs = f"Id={name}.service\nActiveState=active"
    return told_otherwise(machine, "services", runs, runs.replace("=active", "=inactive"))


def test_of_two_load_balancers_the_one_is_named_that_has_the_address() -> None:
    found = of_two()
    assert (found.health, found.holder) == ("healthy", "lb1")
    assert "healthy; the API is https://192.168.57.10:6443, at lb1" in shown(found)
    assert json.loads(status.to_json(found))["holder"] == "lb1"
    assert looked().holder == ""


def test_an_address_that_both_have_is_at_neither() -> None:
    found = of_two(section("lb2", "virtual-address", f"holds {MACS['lb2']}"))
    assert (found.health, found.holder) == ("degraded", "")
    assert "cause: lb1 and lb2 both have the API's address, 192.168.57.10" in shown(found)
    assert "the API is https://192.168.57.10:6443\n" in shown(found)


@pytest.mark.parametrize("name", ["haproxy", "keepalived"])
def test_one_load_balancer_left_of_two_is_named(name: str) -> None:
    assert of_two(stopped("lb2", name)).losses == (
        "the loss of lb1: the other load balancer could not take over",
    )


def test_a_lost_load_balancer_of_two_leaves_the_other_one_to_lose() -> None:
    found = of_two(not_running("stopped", "lb2"))
    assert found.health == "degraded"
    assert found.losses == ("the loss of lb1: the other load balancer could not take over",)


def test_a_degraded_lab_with_two_load_balancers_can_lose_any_one_machine() -> None:
    assert of_two(nodes_not_ready("w1")).losses == ("no single further loss; only that of two machines",)


# What only one machine has, and which machine may be lost.


def leads(name: str, term: int) -> Alter:
    """Let a member say that it leads, in this term."""

    def alter(found: Facts) -> Facts:
        said = json.loads(known(found.machines[name]).sections["etcd-status"].text)
        own = said[0]["Status"]
        own |= {"leader": own["header"]["member_id"], "raftTerm": term}
        return section(name, "etcd-status", json.dumps(said))(found)

    return alter


def rows(found: status.Status, name: str) -> tuple[tuple[str, ...], str | None]:
    [row] = [(machine.has, machine.if_lost) for machine in found.machines if machine.name == name]
    return row


def test_the_leader_and_the_machines_that_may_be_lost_are_named() -> None:
    found = looked()
    assert found.leader == "cp1"
    assert rows(found, "cp1") == (("etcd's leader",), "works")
    assert rows(found, "lb1") == ((), "stops")
    said = shown(found)
    assert "cp1 leads etcd; the lab tolerates the loss of any one of cp1, cp2, cp3, w1, w2 and w3\n" in said


def test_of_two_that_say_that_they_lead_it_is_the_one_in_the_later_term() -> None:
    found = looked(lambda f: leads("cp3", 99)(leads("cp2", 98)(f)))
    assert found.leader == "cp3"
    assert rows(found, "cp2")[0] == ()


def test_without_a_leader_that_is_said() -> None:
    told = [section(name, "etcd-status", "", 1) for name in ("cp1", "cp2", "cp3")]
    found = looked(*told)
    assert found.leader == ""
    assert "no member is known to lead etcd; the lab tolerates the loss of any one of" in shown(found)


def test_a_lost_control_plane_leaves_none_of_the_others_to_lose() -> None:
    found = looked(silent("cp2"), server_down("cp2"))
    assert {machine.name: machine.if_lost for machine in found.machines} == {
        "lb1": "stops",
        "cp1": "stops",
        "cp2": None,
        "cp3": "stops",
        "w1": "works",
        "w2": "works",
        "w3": "works",
    }
    assert "the lab tolerates the loss of any one of w1, w2 and w3" in shown(found)


def test_with_two_load_balancers_any_one_machine_may_be_lost_and_the_holder_has_the_address() -> None:
    found = of_two()
    assert rows(found, "lb1") == (("API's address",), "works")
    assert rows(found, "lb2") == ((), "works")
    assert "leads etcd; the lab tolerates the loss of any one machine\n" in shown(found)


def test_eighty_columns_cut_no_name_and_no_address() -> None:
    console, text = printed(width=80)
    console.print(status.shown(of_two()))
    assert "cp1      control-plane  192.168.57.11  yes      Ready    etcd's" in text.getvalue()
    assert "…" not in text.getvalue()


def test_both_that_have_the_address_are_shown_with_it() -> None:
    found = of_two(section("lb2", "virtual-address", f"holds {MACS['lb2']}"))
    assert rows(found, "lb1")[0] == rows(found, "lb2")[0] == ("API's address",)


def test_of_a_lab_that_is_down_nothing_is_said_to_be_expendable() -> None:
    found = looked(haproxy_stopped)
    assert {machine.if_lost for machine in found.machines} == {None}
    assert "tolerates the loss" not in shown(found)


@pytest.mark.parametrize(
    ("spare", "said"), [((), "no machine"), (("w1",), "w1"), (("w1", "w2"), "any one of w1 and w2")]
)
def test_few_machines_that_may_be_lost_are_named(spare: tuple[str, ...], said: str) -> None:
    found = looked()
    machines = tuple(
        replace(machine, if_lost="works" if machine.name in spare else "stops") for machine in found.machines
    )
    assert f"; the lab tolerates the loss of {said}" in replace(found, machines=machines).tolerance


# What is behind a problem.

RULE = Obstacle("this host drops packets on br-own, by its rule `-P FORWARD DROP`", "sudo iptables -I …\n# or")
CUT = unreached(NO_SERVER_UP)


def kept_apart(found: Facts) -> Facts:
    return replace(apart(found), obstacle=RULE)


def test_machines_that_do_not_reach_one_another_are_the_problem_and_not_the_api_s_last_word() -> None:
    found = looked(kept_apart)
    assert found.health == "down"
    assert found.problem == f"no machine reaches another one (no answer within 3 s): {RULE.what}"
    assert "cut before" not in shown(found)
    assert "\n  fix: sudo iptables -I …\n       # or\n" in shown(found)
    assert shown(found).count("no machine reaches") == 1


def test_one_machine_that_is_apart_leaves_the_problem_as_it_is() -> None:
    degraded = looked(section("w1", "reach", "lb1 No route to host\ncp1\ncp2\ncp3\n"))
    assert degraded.health == "degraded"
    assert degraded.problems == ("machines-reach-one-another: w1 does not reach lb1 (No route to host)",)


def test_haproxy_that_is_stopped_is_the_problem() -> None:
    found = looked(haproxy_stopped)
    assert (found.health, found.problem, found.problems) == ("down", "HAProxy does not run on lb1", ())
    said = shown(found)
    assert "down: HAProxy does not run on lb1\n  fix: `./inv up` writes" in said
    assert "can't be asked" not in said
    assert "Errno" not in said


def test_an_api_without_a_server_is_down_in_words_that_mean_something() -> None:
    assert looked(CUT).problem == (
        "the API is not reached through the load balancer at https://192.168.57.10:6443: the connection was "
        "cut before an answer: HAProxy has no API server that is up"
    )


def servers_down(*names: str) -> Alter:
    """These API servers do not run, and HAProxy knows."""

    def alter(found: Facts) -> Facts:
        for name in names:
            [address] = [node.address for node in lab().control_planes if node.name == name]
            answers = {
                path: Unknown(f"https://{address}:6443{path} can't be asked: nothing listens there")
                for path in found.api.direct[name]
            }
            found = api(direct={**found.api.direct, name: answers})(found)
            text = known(found.machines["lb1"]).sections["backends"].text
            row = next(line for line in text.splitlines() if line.startswith(f"apiserverbackend,{name},"))
            down = row.replace(",UP,", ",DOWN,").replace(",L7OK,200,", ",L4CON,,")
            found = section("lb1", "backends", text.replace(row, down))(found)
        return found

    return alter


def test_a_lab_that_is_down_shows_what_its_load_balancer_servers_and_etcd_lack() -> None:
    found = looked(servers_down("cp1", "cp2", "cp3"), CUT, etcd_down("cp2"))
    assert found.health == "down"
    said = shown(found)
    assert "  problem: backend-up[cp1] (also on cp2 and cp3): DOWN by L4CON\n" in said
    server = "https://192.168.57.11:6443/livez can't be asked: nothing listens there"
    assert f"  problem: api-server-healthy[cp1] (also on cp2 and cp3): /livez: {server}" in said
    assert "  problem: etcd-member-healthy[cp2]: unhealthy\n" in said
    assert "node-ready" not in said, "that nothing is known of nodes is the API's cause"
    assert json.loads(status.to_json(found))["problems"] == list(found.problems)


def test_of_a_lab_that_is_down_the_first_findings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FIRST", 1)
    found = looked(servers_down("cp1", "cp2", "cp3"), CUT)
    assert shown(found).count("  problem: ") == 1
    assert f"  and {len(found.problems) - 1} more: `./inv verify` shows all\n" in shown(found)


def test_what_is_only_private_does_not_degrade() -> None:
    found = looked(api(secrets=(("kubeadm-certs", "Opaque"),)))
    assert found.health == "healthy"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Unknown("timed out"), "timed out"),
        ((500, "etcd failed"), "the API answered 500 to /readyz: etcd failed"),
    ],
)
def test_without_the_api_the_lab_is_down_and_says_why(answer: object, problem: str) -> None:
    found = looked(api(health={**facts().api.health, "/readyz": answer}))
    assert (found.health, found.exit_code, found.problem) == ("down", DOWN, problem)
    assert f"down: {problem}" in shown(found)
    assert "next: ./inv up" in shown(found)


def test_an_api_that_does_not_name_its_nodes_is_down() -> None:
    found = looked(api(nodes=Unknown("the API can't be asked")))
    assert found.health == "down"
    assert [machine.cluster for machine in found.machines] == ["-"] + ["unknown"] * 6


def test_a_lab_that_is_not_up_is_not_asked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    session = Session(
        tmp_path / "lab.yaml",
        default(),
        workspace,
        FakeRemote(default(), workspace),
        Progress(printed()[0], workspace.logs),
    )
    found = status.look(session)
    assert (found.health, found.problem) == ("down", "the lab is not up")
    assert not any(machine.answers for machine in found.machines)


def test_machines_without_a_cluster_are_asked_and_the_next_is_also_the_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / ".lab")
    remote = FakeRemote(lab(), workspace)
    monkeypatch.setattr(remote, "route_problem", lambda: None)
    progress = Progress(printed()[0], workspace.logs)
    session = Session(tmp_path / "lab.yaml", lab(), workspace, remote, progress)
    workspace.write(workspace.ssh_config, "")
    assert status.look(session).problem == "the lab is not up"
    workspace.write(workspace.root / ".vagrant/machines/lb1/docker/id", "1")
    asked: list[bool] = []

    def gather(*_: object, cluster: bool, probes: bool, admission: bool) -> Facts:
        assert admission is cluster
        asked.append(cluster)
        api = ask_api(lab(), Unknown("the API was not asked"), Unknown("the API was not asked"))
        return replace(silent("w3")(facts()), api=api)

    monkeypatch.setattr(status, "gather", gather)
    found = status.look(session)
    assert asked == [False]
    assert [machine.name for machine in found.machines if not machine.answers] == ["w3"]
    assert (found.health, found.exit_code, found.problems) == ("down", DOWN, ())
    said = shown(found)
    assert "down: there is no cluster yet that this host knows of" in said
    assert "next: ./inv up, or manually: ./inv task" in said
    keep_made(workspace, lab())
    record = records.read(workspace)
    assert record is not None
    there = record.model_copy(update={"complete": lab().nodes})
    said = shown(status.look(replace(session, made=there)))
    assert "down: the kubeconfig is missing on this host, so the API can't be asked" in said
    assert said.endswith("next: ./inv up\n")
    monkeypatch.setattr(
        status, "gather", lambda *_, **words: replace(kept_apart(facts()), api=gather(**words).api)
    )
    assert status.look(session).problem.startswith("no machine reaches another one"), "also before a cluster"


def no_proxy_on(name: str) -> Alter:
    said = known(facts().api.pods)
    return api(pods=tuple(p for p in said if not (p.name.startswith("kube-proxy-") and p.node == name)))


def broken_webhook() -> Alter:
    return admission(webhooks=(replace(read_one()[0], problem="its Service default/gate does not exist"),))


def test_a_cause_is_named_once_with_what_helps_and_its_checks_are_not() -> None:
    found = looked(broken_webhook(), no_proxy_on("w1"), lambda f: f)
    assert (found.health, found.problems) == ("degraded", ())
    said = shown(found)
    assert said.count("ValidatingWebhookConfiguration gate") == 1
    assert "  cause: the webhook pods.gate.example.com in the ValidatingWebhookConfiguration gate has" in said
    assert "    fix: `./inv ssh cp1 -- sudo kubectl" in said
    assert "kube-proxy[w1]" not in said
    [cause] = json.loads(status.to_json(found))["causes"]
    assert set(cause) == {"what", "fix", "explains"}
    assert cause["explains"] == ["kube-proxy[w1]"]


def test_beside_a_cause_the_other_problems_are_named() -> None:
    found = looked(no_proxy_on("w1"), lambda f: broken_webhook()(f), etcd_down("cp3"))
    assert [line.partition(":")[0] for line in found.problems] == ["etcd-member-healthy[cp3]"]
    assert len(found.causes) == 1


def test_without_a_cause_a_pod_that_is_missing_is_named() -> None:
    assert looked(no_proxy_on("w1")).problems == (
        "kube-proxy[w1]: no pod kube-proxy-… of kube-system is on this node",
    )


def test_a_machine_that_has_just_been_stopped_is_not_called_ready() -> None:
    found = looked(not_running("stopped", "w2"))
    assert [machine.cluster for machine in found.machines if machine.name == "w2"] == ["unknown"]


def test_a_node_that_the_cluster_lacks_is_called_so() -> None:
    found = looked(api(nodes=tuple(node for node in known(facts().api.nodes) if node.name != "w2")))
    assert [machine.cluster for machine in found.machines if machine.name == "w2"] == ["not a node"]


def test_a_paused_machine_is_named_as_such() -> None:
    found = looked(not_running("paused", "w2"), nodes_not_ready("w2"))
    assert [machine.state for machine in found.machines if machine.name == "w2"] == ["paused"]
    said = shown(found)
    assert "no: paused" in said
    assert "  cause: w2 is paused\n    fix: `./inv up` resumes it\n" in said
    assert "problem:" not in said
    assert "destroy" not in said


def test_a_lab_whose_machines_are_all_paused_is_down_and_says_so() -> None:
    gone = Unknown("the API can't be asked: timed out")
    paused = not_running("paused", *(node.name for node in lab().nodes))
    found = looked(paused, api(health={**facts().api.health, "/readyz": gone}, nodes=gone, pods=gone))
    assert found.health == "down"
    said = shown(found)
    assert "down: lb1, cp1, cp2, cp3, w1, w2 and w3 are paused\n  fix: `./inv up` resumes them\n" in said


def test_status_for_programs_says_the_same() -> None:
    found = json.loads(status.to_json(looked()))
    assert found["all_ready"] is True
    assert found["health"] == "healthy"
    assert found["machines"][1] == {
        "name": "cp1",
        "role": "control-plane",
        "address": "192.168.57.11",
        "answers": True,
        "cluster": "Ready",
        "state": "",
        "version": "v1.36.3",
        "has": ["etcd's leader"],
        "if_lost": "works",
    }
    assert found["leader"] == "cp1"


def test_in_a_lab_with_one_of_each_the_loss_of_either_is_named() -> None:
    there = facts()
    one = tuple(node for node in lab().nodes if node.name in ("lb1", "cp1", "w1"))
    alone = replace(there, api=replace(there.api, direct={"cp1": there.api.direct["cp1"]}))
    losses = tolerance.sentences(lab().model_copy(update={"nodes": one}), alone)
    assert "the loss of cp1: no other API server is well" in losses
    assert "the loss of w1: no other worker is Ready" in losses
    assert any(loss.startswith("the loss of cp1: etcd needs 1 of its 1 members") for loss in losses)


# An upgrade.


def with_version(name: str, version: str) -> Alter:
    return api(
        nodes=tuple(
            replace(node, version=version) if node.name == name else node for node in known(facts().api.nodes)
        )
    )


def under_way(version: str) -> Alter:
    return lambda found: replace(found, upgrading=version)


def test_versions_are_shown_while_they_differ_and_an_upgrade_under_way_is_no_fault() -> None:
    assert "version" not in shown(looked())
    found = looked(with_version("cp1", "v1.37.2"), under_way("1.37.2"))
    assert (found.health, found.versions_differ) == ("healthy", True)
    said = shown(found)
    assert "v1.37.2" in said
    assert "v1.36.3" in said
    assert "an upgrade to Kubernetes 1.37.2 is under way; `./inv up` continues it" in said
    assert json.loads(status.to_json(found))["upgrading"] == "1.37.2"


@pytest.mark.parametrize("upgrading", ["", "1.36.9"])
def test_another_version_without_such_an_upgrade_is_drift(upgrading: str) -> None:
    found = looked(with_version("cp1", "v1.37.2"), under_way(upgrading))
    assert found.health == "degraded"
    assert any("node-as-declared[cp1]" in each and "v1.37.2" in each for each in found.problems)


def test_where_etcd_is_lost_for_good_the_plan_is_next_and_not_up() -> None:
    unavailable = api(health={path: (503, "no") for path in facts().api.health})
    assert shown(looked(not_running("absent", "cp2"), unavailable)).endswith("next: ./inv up\n")
    said = shown(looked(not_running("absent", "cp2", "cp3"), unavailable))
    assert "fix: `./inv plan` shows what can be recovered" in said
    assert said.endswith("next: ./inv plan\n")
