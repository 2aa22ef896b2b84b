from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lab import providers
from lab.errors import CommandFailed, LabStateError
from lab.health.cluster import Api
from lab.health.facts import probes as probing
from lab.health.facts.api import ask_api, read_endpoints, read_leases
from lab.health.facts.certificates import read_certificates
from lab.health.facts.gather import Facts, by_ssh, gather
from lab.health.facts.machine import AddressFact, Machine, Section, own_scripts, read_machine, read_sections
from lab.health.facts.probes import ask_probes, read_why_not_ready
from lab.host import firewall, network
from lab.host.facts import Forwarding, Way
from lab.model import Lab, Libvirt, Node
from lab.providers import MachineState
from lab.remote import Remote
from lab.system import process
from lab.unknown import CouldNotAsk, Unknown, known
from lab.workspace import Workspace
from lab.workspace.render import credentials
from tests.unit.fakes import CA, FakeRemote
from tests.unit.recorded_facts import clock, facts, lab, pair_lab, told

NOBODY = LabStateError("nobody answers")


def machine(name: str) -> Machine:
    return known(facts().machines[name])


def test_sections_are_read_with_their_exit_codes() -> None:
    assert read_sections("== a 0\none\n\ntwo\n\n== b-2 124\n\n== c 1\nno == d 0\n\n") == {
        "a": Section(0, "one\n\ntwo\n"),
        "b-2": Section(124, ""),
        "c": Section(1, "no == d 0\n"),
    }


def test_a_control_plane_tells_who_it_is() -> None:
    cp1 = machine("cp1")
    assert (cp1.hostname, cp1.own_addresses) == ("cp1", ("192.168.57.11",))
    assert len(cp1.identity.machine_id) == 32
    assert cp1.services["kubelet"].running
    assert cp1.services["ha-lab-dns"].enabled
    assert cp1.kernel["net.ipv4.ip_forward"] == "1"
    assert cp1.cgroup_drivers == {"containerd": "systemd", "kubelet": "systemd"}


def test_etcd_is_read_from_each_member() -> None:
    views = [machine(name).etcd_status for name in ("cp1", "cp2", "cp3")]
    assert len({view.member for view in views}) == 3
    assert len({(view.leader, view.term) for view in views}) == 1
    assert {view.version for view in views} == {"3.6.16"}
    assert {member.name for member in machine("cp2").etcd_members} == {"cp1", "cp2", "cp3"}
    assert machine("cp1").etcd_alarms == ()


def test_alarms_are_named() -> None:
    text = '{"alarms":[{"memberID":1,"alarm":1},{"memberID":1,"alarm":2}]}'
    assert Machine("cp1", {"etcd-alarms": Section(0, text)}, 0.0).etcd_alarms == ("NOSPACE", "CORRUPT")


def test_the_load_balancer_tells_its_backends_and_where_connections_went() -> None:
    lb1 = machine("lb1")
    assert {name: backend.status for name, backend in lb1.backends.items()} == {
        "cp1": "UP",
        "cp2": "UP",
        "cp3": "UP",
    }
    assert sum(lb1.spread.values()) >= 12
    assert min(lb1.spread.values()) > 0


def test_certificates_are_read_with_names_and_end() -> None:
    apiserver = machine("cp1").certificate("/etc/kubernetes/pki/apiserver.crt")
    assert {"cp1", "kubernetes", "10.96.0.1", "192.168.57.10", "192.168.57.11"} <= apiserver.names
    assert apiserver.until > facts().api.asked_at
    assert machine("w1").certificate("/etc/kubernetes/pki/ca.crt").sha256 == (
        machine("lb1").certificate("/etc/haproxy/kubernetes-ca.crt").sha256
    )


def test_a_file_with_two_certificates_gives_two() -> None:
    found = read_certificates(f"# /a.crt\n{CA}{CA}# /b.crt\n{CA}# /none.crt\n")
    assert [each.path for each in found] == ["/a.crt", "/a.crt", "/b.crt"]


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (None, "w1 said nothing of kernel"),
        (Section(124, ""), "w1 did not report kernel in time"),
        (Section(137, ""), "w1 did not report kernel in time"),
        (
            Section(1, "sysctl: cannot stat\n"),
            r"w1 could not report kernel \(exit code 1\): sysctl: cannot stat",
        ),
    ],
)
def test_what_was_not_answered_could_not_be_asked(section: Section | None, why: str) -> None:
    with pytest.raises(CouldNotAsk, match=why):
        _ = Machine("w1", {"kernel": section} if section else {}, 0.0).kernel


@pytest.mark.parametrize(
    "text", ["", "sudo: /opt/ha-lab/facts.sh: command not found", "== script 0\nbeef  x\n"]
)
def test_another_checkout_s_script_is_told_apart(text: str) -> None:
    with pytest.raises(CouldNotAsk, match=r"another checkout's facts.sh: `./inv up`"):
        read_machine("w1", text, 0.0, 1.0)


@pytest.mark.parametrize(("asked", "answered", "skew"), [(-1.0, 1.0, 0.0), (3.0, 4.0, 3.0), (-9.0, -5.0, 5.0)])
def test_a_clock_is_off_by_what_the_question_s_time_does_not_explain(
    asked: float, answered: float, skew: float
) -> None:
    now = clock("w1")
    assert read_machine("w1", told("w1"), now + asked, now + answered).skew == pytest.approx(skew)


def test_leases_tell_leaders_from_servers() -> None:
    answer = json.loads((Path(__file__).parent / "recorded" / "facts" / "leases.json").read_text())
    found = read_leases(answer)
    assert {lease.server for lease in found if lease.server} == {"cp1", "cp2", "cp3"}
    assert {lease.name for lease in found if not lease.server} == {"kube-controller-manager", "kube-scheduler"}
    del answer["items"][0]["spec"]["renewTime"]
    assert len(read_leases(answer)) == len(found) - 1


def test_an_endpoint_slice_may_be_empty() -> None:
    assert read_endpoints({"endpoints": None}) == frozenset()


def test_an_api_that_can_t_be_opened_leaves_everything_unknown() -> None:
    found = ask_api(lab(), Unknown("no kubeconfig"), Unknown("no CA"))
    assert found.nodes == found.restarts == Unknown("no kubeconfig")
    assert set(found.health.values()) == {Unknown("no CA")}
    assert set(found.direct) == {"cp1", "cp2", "cp3"}


def provider(monkeypatch: pytest.MonkeyPatch, **states: MachineState) -> list[str]:
    """The provider knows these machines; return how often it is asked."""
    asked: list[str] = []

    def answer(of: Lab, workspace: Workspace) -> dict[str, MachineState]:
        asked.append(of.name)
        return dict(states)

    monkeypatch.setattr(providers, "states", answer)
    return asked


def test_gathering_never_fails_and_keeps_each_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider(monkeypatch, w1="running")

    def ask(node: Node, *answers: str) -> str:
        if node.name == "w1":
            raise CommandFailed(["ssh", "w1"], "did not end within 14 s")
        return told(node.name)

    workspace = Workspace(tmp_path)
    found = gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=True)
    assert isinstance(found.machines["cp1"], Machine)
    assert found.machines["w1"] == Unknown("w1 can't be asked: `ssh w1` did not end within 14 s")
    assert isinstance(found.probes, Unknown)
    assert isinstance(found.files, Unknown)
    assert "can't be used" in known_why(found.api.nodes)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("paused", "w1 is paused"),
        ("stopped", "w1 is stopped"),
        ("absent", "w1 does not exist"),
        ("running", "w1 can't be asked: no answer"),
    ],
)
def test_why_a_machine_does_not_answer_the_provider_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: MachineState, reason: str
) -> None:
    asked = provider(monkeypatch, w1=state, w2="paused")
    silent = {"w1"}

    def ask(node: Node, *answers: str) -> str:
        if node.name in silent:
            raise LabStateError("no answer")
        return told(node.name)

    workspace = Workspace(tmp_path)
    words = (lab(), workspace, FakeRemote(lab(), workspace), ask)
    found = gather(*words, probes=False, cluster=False)
    assert found.machines["w1"] == Unknown(reason)
    assert dict(found.off) == ({} if state == "running" else {"w1": state})
    assert isinstance(found.machines["w2"], Machine), "it answers, whatever the provider says"
    silent.clear()
    assert not gather(*words, probes=False, cluster=False).off
    assert gather(*words, probes=False, cluster=False, of=()).machines["w1"] == Unknown("w1 was not asked")
    assert len(asked) == 1, "only where a machine does not answer"


@pytest.mark.parametrize(
    ("two", "elsewhere", "expected"),
    [(True, False, "02:42:c0:a8:39:08"), (True, True, None), (False, False, None)],
)
def test_this_host_s_neighbour_table_is_asked_where_two_load_balancers_share_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: bool, elsewhere: bool, expected: str | None
) -> None:
    asked: list[IPv4Address] = []

    def neighbour(address: IPv4Address) -> str:
        asked.append(address)
        return "02:42:c0:a8:39:08"

    monkeypatch.setattr(network, "neighbour", neighbour)
    of = pair_lab() if two else lab()
    if elsewhere:
        of = of.model_copy(update={"libvirt": Libvirt(uri="qemu+ssh://big/system")})
    workspace = Workspace(tmp_path)
    found = gather(
        of, workspace, FakeRemote(of, workspace), lambda node, *_: "", probes=False, answers=("here",), of=()
    )
    assert found.neighbour == expected
    assert asked == ([of.network.virtual_address] if expected else [])


def test_where_a_machine_has_the_shared_address_is_read_or_could_not_be_asked() -> None:
    def said(text: str) -> Machine:
        return Machine("w1", {"virtual-address": Section(0, text)}, 0.0)

    assert said("holds 02:42:c0:a8:39:08\n").virtual_address == AddressFact(True, "02:42:c0:a8:39:08")
    assert said("sees 02:42:c0:a8:39:08").virtual_address == AddressFact(False, "02:42:c0:a8:39:08")
    assert said("sees ").virtual_address == AddressFact(False, "")
    with pytest.raises(CouldNotAsk):
        _ = said("bash: ip: command not found").virtual_address


def test_this_host_s_firewall_is_asked_where_machines_do_not_reach_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def forwarding(root: Path, **_: object) -> Forwarding:
        asked.append(str(root))
        return Forwarding(True, ("-P FORWARD DROP",))

    monkeypatch.setattr(firewall, "forwarding", forwarding)
    monkeypatch.setattr(network, "way", lambda address: Way("br-own"))
    reached, lost = "== reach 0\nlb1\n", "== reach 0\nlb1 no answer within 3 s\n"
    answer = reached
    workspace = Workspace(tmp_path)

    def look() -> Facts:
        def ask(node: Node, *answers: str) -> str:
            return told(node.name).replace(reached, answer)

        return gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=False, cluster=False)

    assert (look().obstacle, asked) == (None, [])
    answer = lost
    found = look().obstacle
    assert found is not None
    assert "br-own" in found.what
    monkeypatch.setattr(network, "way", lambda address: Way("eth0", "192.0.2.1"))
    assert look().obstacle is None
    assert asked == ["/"]


def test_when_the_ca_is_valid_is_among_this_host_s_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    credentials.ca_certificate(workspace)
    found = gather(
        lab(), workspace, FakeRemote(lab(), workspace), lambda node, *_: "", probes=False, cluster=False, of=()
    )
    assert known(found.files).ca_valid == credentials.ca_validity(workspace)


def test_a_kubeconfig_that_can_t_be_read_leaves_its_dates_unknown(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    credentials.ca_certificate(workspace)
    workspace.write_secret(workspace.kubeconfig, "server: https://x\n")
    found = gather(
        lab(), workspace, FakeRemote(lab(), workspace), lambda node, *_: "", probes=False, cluster=False, of=()
    )
    client = known(found.files).client_valid
    assert isinstance(client, Unknown)
    assert "has no valid client certificate" in client.reason


def test_a_provider_that_can_t_be_asked_leaves_the_reason_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> dict[str, MachineState]:
        raise CommandFailed(["docker", "ps"], "ended with exit code 1")

    def ask(node: Node, *answers: str) -> str:
        raise LabStateError("no answer")

    monkeypatch.setattr(providers, "states", fails)
    workspace = Workspace(tmp_path)
    found = gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=False, cluster=False)
    assert found.machines["w1"] == Unknown("w1 can't be asked: no answer")
    assert not found.off


def test_emulated_machines_are_asked_one_after_the_other(tmp_path: Path) -> None:
    emulated = lab().model_copy(update={"libvirt": Libvirt(emulated=True)})
    barrier = threading.Barrier(2, timeout=0.1)
    alone: list[str] = []

    def ask(node: Node, *answers: str) -> str:
        if answers:  # what one is asked in the end
            return ""
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            barrier.reset()
            alone.append(node.name)
        return told(node.name)

    workspace = Workspace(tmp_path)
    gather(emulated, workspace, FakeRemote(emulated, workspace), ask, probes=False, cluster=False)
    assert alone == [node.name for node in emulated.nodes]
    alone.clear()
    gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=False, cluster=False)
    assert len(alone) < len(lab().nodes)


class OneAnswer:
    """Machines of which each control plane says only how its API server and unfinished.sh end."""

    def __init__(self, endpoint: dict[str, int], unfinished: dict[str, int]) -> None:
        """Take exit codes by machine."""
        self.endpoint, self.unfinished = endpoint, unfinished
        self.asked: list[str] = []

    def __call__(self, node: Node, *answers: str) -> str:
        """Answer one question, or all but that one."""
        script = f"== script 0\n{own_scripts()}  -\n"
        if not answers:
            return f"{script}== endpoint {self.endpoint.get(node.name, 0)}\nlb1:6443\n"
        assert answers == ("unfinished",)
        self.asked.append(node.name)
        return f"{script}== unfinished {self.unfinished.get(node.name, 0)}\nrevoke\n"


@pytest.mark.parametrize(
    ("endpoint", "unfinished", "asked"),
    [
        ({}, {}, ["cp1"]),
        ({"cp1": 1}, {}, ["cp2"]),
        ({}, {"cp1": 124}, ["cp1", "cp2", "cp3"]),
        ({"cp1": 1, "cp2": 1, "cp3": 1}, {"cp1": 1, "cp2": 1, "cp3": 1}, ["cp1", "cp2", "cp3"]),
    ],
)
def test_one_control_plane_says_what_is_unfinished_and_the_others_if_it_can_t(
    tmp_path: Path, endpoint: dict[str, int], unfinished: dict[str, int], asked: list[str]
) -> None:
    ask = OneAnswer(endpoint, unfinished)
    workspace = Workspace(tmp_path)
    found = gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=False)
    assert sorted(ask.asked) == asked
    codes = {node.name: found.machine(node).sections.get("unfinished") for node in lab().control_planes}
    assert {name: section.code for name, section in codes.items() if section} == {
        name: unfinished.get(name, 0) for name in asked
    }
    assert all("endpoint" in found.machine(node).sections for node in lab().control_planes)


def test_who_does_not_ask_about_the_cluster_asks_nobody_what_is_unfinished(tmp_path: Path) -> None:
    ask = OneAnswer({}, {})
    workspace = Workspace(tmp_path)
    gather(lab(), workspace, FakeRemote(lab(), workspace), ask, probes=False, cluster=False)
    assert ask.asked == []


def test_who_asks_for_a_few_answers_is_given_those(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(node: Node, *answers: str) -> str:
        asked.append(answers)
        return f"== script 0\n{own_scripts()}  -\n== endpoint 0\n"

    workspace = Workspace(tmp_path)
    remote = FakeRemote(lab(), workspace)
    gather(lab(), workspace, remote, ask, probes=False, cluster=False, answers=("endpoint",))
    assert asked == [("endpoint",)] * len(lab().nodes)


@pytest.mark.parametrize(
    ("code", "stdout", "expected"),
    [(0, "all", "all"), (1, "", ""), (255, "", "No route to host")],
)
def test_a_machine_without_the_script_answers_and_one_without_ssh_does_not(
    tmp_path: Path, code: int, stdout: str, expected: str
) -> None:
    class Answering(FakeRemote):
        def run(self, node: Node, command: Any, **words: Any) -> process.Result:
            return process.Result(("ssh",), code, stdout, "ssh: x\nNo route to host\n", 0.1)

    ask = by_ssh(Answering(lab(), Workspace(tmp_path)))
    if code == 255:
        with pytest.raises(LabStateError, match=expected):
            ask(cp1())
    else:
        assert ask(cp1()) == expected


def known_why(fact: object) -> str:
    assert isinstance(fact, Unknown)
    return fact.reason


class ProbeApi(Api):
    """An API that takes pods, and lets those become Ready that `ready` says."""

    def __init__(self, ready: Callable[[str], bool], account_after: int = 0) -> None:
        """Have no namespace yet."""
        self.ready, self.refusals = ready, account_after
        self.pods_made: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.made: list[str] = []
        self.claim = "Bound"
        self.warnings: list[dict[str, Any]] = []

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Answer what probes ask."""
        if method == "DELETE":
            self.deleted.append(path)
            return http.client.OK, "{}"
        if path.endswith("/log"):
            return http.client.OK, "probe on " + path.split("/")[-2].removeprefix("probe-") + "\n"
        assert isinstance(body, dict)
        self.made.append(body["kind"])
        if path.endswith("/networkpolicies"):
            assert path == "/apis/networking.k8s.io/v1/namespaces/ha-lab-verify-x/networkpolicies"
            return http.client.CREATED, "{}"
        if path.endswith("/namespaces"):
            return http.client.CREATED, json.dumps({"metadata": {"name": "ha-lab-verify-x"}})
        if path.endswith("/services"):
            spec = {"clusterIP": "10.96.7.7", "ports": [{"nodePort": 31000}]}
            return http.client.CREATED, json.dumps({"spec": spec})
        if path.endswith("/persistentvolumeclaims"):
            assert body["spec"]["storageClassName"] == "local-path"
            return http.client.CREATED, "{}"
        if self.refusals:
            self.refusals -= 1
            return http.client.FORBIDDEN, 'error looking up service account x/default: serviceaccount "default"'
        self.pods_made.append(body)
        return http.client.CREATED, "{}"

    def get(self, path: str) -> dict[str, Any]:
        """Return the pods that were made, or an old namespace."""
        if "labelSelector" in path:
            old = {"name": "ha-lab-verify-old", "creationTimestamp": "2020-01-01T00:00:00Z"}
            return {"items": [{"metadata": old}]}
        if path.endswith("/persistentvolumeclaims/volume"):
            return {"status": {"phase": self.claim}}
        if path.endswith(f"/pods/{probing.STORAGE_POD}"):
            return self._pod({"metadata": {"name": probing.STORAGE_POD}, "spec": {}})
        if path.endswith("/ha-lab-verify-x/events?fieldSelector=type%3DWarning"):
            return {"items": self.warnings}
        assert path == "/api/v1/namespaces/ha-lab-verify-x/pods"
        return {"items": [self._pod(pod) for pod in self.pods_made]}

    def _pod(self, pod: dict[str, Any]) -> dict[str, Any]:
        """One pod; that with a volume says nothing of a node until the scheduler has chosen one."""
        ready = self.ready(pod["spec"].get("nodeName", probing.STORAGE_POD))
        status: dict[str, Any] = {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "podIP": "10.244.0.9",
        }
        if "nodeName" not in pod["spec"]:
            status |= {"startTime": "x", "phase": "Pending"}
        return {"metadata": pod["metadata"], "spec": pod["spec"], "status": status}


class ExecRemote(FakeRemote):
    """A control plane whose kubectl exec answers what it is told to."""

    said = ""
    asked = ""

    def run(self, node: Node, command: Any, **words: Any) -> process.Result:
        """Answer pods.sh."""
        assert command[:2] == ["sudo", "/opt/ha-lab/pods.sh"]
        self.asked = words["stdin"]
        return process.Result(("ssh",), 0, self.said, "", 0.1)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExecRemote:
    monkeypatch.setattr(probing, "START", 0.0)
    monkeypatch.setattr(probing, "_node_port", lambda lab, node, port: node.name)
    return ExecRemote(lab(), Workspace(tmp_path))


def cp1() -> Node:
    return lab().first


def test_pods_tell_what_they_see_and_their_namespace_goes(remote: ExecRemote) -> None:
    remote.said = "".join(
        f"== probe-{node.name} 0\ndns=10.96.0.1\npod:cp1=cp1\n\n" for node in lab().kubernetes_nodes
    )
    api = ProbeApi(lambda node: True, account_after=1)
    found = ask_probes(lab(), api, remote, cp1)
    assert not isinstance(found, Unknown)
    assert found.seen["w1"] == {"dns": "10.96.0.1", "pod:cp1": "cp1"}
    assert found.logs["w1"] == "probe on w1\n"
    assert set(found.started.values()) == {None}
    assert found.volume is None
    policy = "4;8080;8081,8082;w2=10.244.0.9;w3=10.244.0.9"
    assert f"probe-w1 10.96.7.7 31000 {policy} cp1,192.168.57.11,10.244.0.9" in remote.asked
    # Under a policy from the start, and one that Services do not know of beside the last node's.
    assert api.made[0] == "Namespace"
    assert sorted(api.made[1:5]) == ["NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "Service"]
    assert set(api.made[5:]) == {"Pod"}
    second = next(pod for pod in api.pods_made if pod["metadata"]["name"] == "second")
    assert (second["spec"]["nodeName"], second["metadata"]["labels"]) == ("w3", {"app": "second"})
    assert "4;8080;8081,8082;cp1=10.244.0.9;cp2=10.244.0.9;second=10.244.0.9" in remote.asked
    assert (found.second, found.neighbours["w2"]) == (("w3", None), ("w3", "cp1"))
    # On a node whose CPUs are busy, a pod without a CPU request answers after seconds.
    for pod in api.pods_made:
        assert pod["spec"]["containers"][0]["readinessProbe"]["timeoutSeconds"] == 5
    # Pods first, then the namespaces: this run's, and one that a killed run had left.
    assert [path.rpartition("/")[2] for path in api.deleted] == [
        "ha-lab-verify-old",
        "pods?gracePeriodSeconds=0",
        "ha-lab-verify-x",
    ]


def test_a_node_without_a_pod_is_unknown_and_the_others_are_told(remote: ExecRemote) -> None:
    remote.said = "== probe-w1 1\nerror: timeout\n\n"
    found = ask_probes(lab(), ProbeApi(lambda node: node != "w2"), remote, cp1)
    assert not isinstance(found, Unknown)
    assert "no pod is Ready on w2" in known_why(found.seen["w2"])
    assert "w2" not in found.peers
    assert "kubectl exec into the pod on w1 failed: error: timeout" in known_why(found.seen["w1"])
    assert "nothing" in known_why(found.seen["w3"])
    assert found.neighbours["w1"] == ("w3", "cp1")


def test_the_newest_warning_says_why_a_pod_is_not_ready_in_time(remote: ExecRemote) -> None:
    def warning(pod: str, minute: int, message: str) -> dict[str, Any]:
        return {
            "involvedObject": {"name": pod},
            "lastTimestamp": f"2026-11-30T10:{minute}:00Z",
            "message": message,
        }

    api = ProbeApi(lambda node: node not in ("w1", "w2"))
    api.warnings = [
        warning("probe-w2", 31, "Readiness probe failed:\n  refused"),
        warning("probe-w2", 30, "FailedMount"),
        warning("probe-w3", 30, "of a pod that became Ready later"),
    ]
    found = ask_probes(lab(), api, remote, cp1)
    assert not isinstance(found, Unknown)
    late = {name: why for name, why in found.started.items() if why}
    assert late == {
        "w1": "its kubelet has not taken it up",
        "w2": "its kubelet has not taken it up; Readiness probe failed: refused",
    }


@pytest.mark.parametrize(("phase", "why"), [("Running", None), ("Pending", "not Ready in time (Pending)")])
def test_a_pod_that_runs_is_given_more_time(remote: ExecRemote, phase: str, why: str | None) -> None:
    class Late(ProbeApi):
        looks = 0

        def get(self, path: str) -> dict[str, Any]:
            self.looks += path.endswith("/pods")
            return super().get(path)

        def _pod(self, pod: dict[str, Any]) -> dict[str, Any]:
            late = pod["spec"].get("nodeName") == "w2" and self.looks < 2
            found = super()._pod(pod)
            return found | ({"status": {"phase": phase, "startTime": "x"}} if late else {})

    api = Late(lambda node: True)
    found = ask_probes(lab(), api, remote, cp1)
    assert not isinstance(found, Unknown)
    assert {name: found for name, found in found.started.items() if name == "w2" or found} == {"w2": why}
    assert api.looks == (1 if why else 2)


def test_a_list_of_pods_that_was_lost_at_the_deadline_is_told_besides(remote: ExecRemote) -> None:
    class Lost(ProbeApi):
        def get(self, path: str) -> dict[str, Any]:
            if path.endswith("/pods") or "/events" in path:
                raise LabStateError("the API can't be asked: no answer within 10 s")
            return super().get(path)

    found = ask_probes(lab(), Lost(lambda node: True), remote, cp1)
    assert not isinstance(found, Unknown)
    assert found.started["w1"] == "it was not seen; the API can't be asked: no answer within 10 s"


def test_a_second_pod_that_does_not_start_is_known_and_not_asked(remote: ExecRemote) -> None:
    class WithoutSecond(ProbeApi):
        def _pod(self, pod: dict[str, Any]) -> dict[str, Any]:
            second = pod["metadata"]["name"] == "second"
            return super()._pod(pod) | ({"status": {"phase": "Pending"}} if second else {})

    found = ask_probes(lab(), WithoutSecond(lambda node: True), remote, cp1)
    assert not isinstance(found, Unknown)
    assert found.second == ("w3", "its kubelet has not taken it up")
    assert "second=" not in remote.asked
    assert set(found.started.values()) == {None}


def test_denials_are_waited_for_only_where_something_may_enforce_policies(remote: ExecRemote) -> None:
    network = lab().network
    for changes, seconds in (
        ({"policy": "none"}, "0"),
        ({"policy": "none", "pod_network": "/calico.yaml"}, "4"),
        ({}, "4"),
    ):
        of = lab().model_copy(update={"network": network.model_copy(update=changes)})
        ask_probes(of, ProbeApi(lambda node: True), remote, cp1)
        assert f" 31000 {seconds};8080;" in remote.asked


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (("cp1",), {"cp1": ()}),
        (("cp1", "w1"), {"cp1": ("w1",), "w1": ("cp1",)}),
        (("a", "b", "c", "d"), {"a": ("b", "c"), "b": ("c", "d"), "c": ("d", "a"), "d": ("a", "b")}),
    ],
)
def test_each_pod_asks_those_that_follow_it_in_a_ring(
    nodes: tuple[str, ...], expected: dict[str, tuple[str, ...]]
) -> None:
    assert probing._neighbours(nodes) == expected


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ("Pending", "its claim has no volume (Pending): not Ready in time (Pending)"),
        ("Bound", "not Ready in time (Pending)"),
    ],
)
def test_a_pod_that_does_not_get_its_volume_says_so_and_the_others_are_told(
    remote: ExecRemote, claim: str, why: str
) -> None:
    api = ProbeApi(lambda node: node != probing.STORAGE_POD)
    api.claim = claim
    found = ask_probes(lab(), api, remote, cp1)
    assert not isinstance(found, Unknown)
    assert found.volume == why
    assert set(found.started.values()) == {None}


def test_a_lab_without_local_path_asks_for_no_volume(remote: ExecRemote) -> None:
    plain = lab().model_copy(update={"addons": ()})
    api = ProbeApi(lambda node: True)
    found = ask_probes(plain, api, remote, cp1)
    assert not isinstance(found, Unknown)
    assert "no volume was asked for" in known_why(found.volume)
    assert {pod["metadata"]["name"] for pod in api.pods_made} == {
        probing.SECOND,
        *(f"probe-{node.name}" for node in plain.kubernetes_nodes),
    }


def test_without_any_control_plane_the_pods_are_not_asked_and_still_removed(remote: ExecRemote) -> None:
    def nobody() -> Node:
        raise CouldNotAsk("no control plane answers")

    api = ProbeApi(lambda node: True)
    found = ask_probes(lab(), api, remote, nobody)
    assert not isinstance(found, Unknown)
    assert "no control plane answers" in known_why(found.seen["w1"])
    assert api.deleted[-1].endswith("ha-lab-verify-x")


class InterruptedApi(ProbeApi):
    """An API whose first connections are ended before there is an answer."""

    left = 1

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Raise for the first ones."""
        if self.left:
            self.left -= 1
            raise LabStateError("the API can't be asked: Remote end closed connection without response")
        return super().request(method, path, body, content_type)


def test_probes_whose_connection_was_ended_are_run_once_more(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    found = ask_probes(lab(), InterruptedApi(lambda node: True), remote, cp1)
    assert not isinstance(found, Unknown)
    assert waits[0] == lab().patience
    silent = InterruptedApi(lambda node: True)
    silent.left = 99
    assert "Remote end closed connection" in known_why(ask_probes(lab(), silent, remote, cp1))
    monkeypatch.setattr(probing, "SOON", 0.0)
    late = InterruptedApi(lambda node: True)
    assert "Remote end closed connection" in known_why(ask_probes(lab(), late, remote, cp1))


def test_an_api_that_takes_no_pods_leaves_all_unknown(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ACCOUNT", 0.0)
    monkeypatch.setattr(probing, "SOON", 0.0)  # once is enough here
    found = ask_probes(lab(), ProbeApi(lambda node: True, account_after=99), remote, cp1)
    assert "the controller manager has not given the namespace its service account" in known_why(found)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, None),
        ({}, "its kubelet has not taken it up"),
        ({"startTime": "x", "phase": "Pending"}, "not Ready in time (Pending)"),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "m"}}}]},
            "ErrImageNeverPull m",
        ),
    ],
)
def test_a_pod_says_why_it_is_not_ready(status: dict[str, Any], why: str | None) -> None:
    assert read_why_not_ready({"status": status}) == why


@pytest.mark.parametrize(("emulated", "seconds"), [(False, 20), (True, 44)])
def test_pods_that_are_asked_in_turn_have_their_seconds_each(emulated: bool, seconds: float) -> None:
    asked: list[float] = []

    class Asked:
        lab = lab().model_copy(update={"libvirt": Libvirt(emulated=emulated)})

        def run(self, node: Node, command: list[str], *, stdin: str, timeout: float) -> process.Result:
            asked.append(timeout)
            raise CommandFailed(command, "ended")

    words = {"w1": ["a"], "w2": ["b"], "w3": ["c"]}
    remote: Any = Asked()
    found = probing._exec(remote, lambda: lab().nodes[1], "probes", words)
    assert asked == [seconds]
    assert set(found) == set(words)
