"""Every check on recorded facts: all hold as recorded, and each is seen red when what it looks at differs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.health.checks import GROUPS, cases
from lab.health.checks.check import LabCheck, Verdict
from lab.health.checks.security import KUBELET_SERVING
from lab.health.cluster import PodFact
from lab.health.facts.gather import Facts
from lab.model import Lab
from lab.unknown import Unknown, known
from lab.workspace.render.credentials import Validity, new_ca
from tests.breaking.sabotages import SABOTAGES
from tests.unit.answers import acceptance_list, titles
from tests.unit.fakes import with_a_second_balancer
from tests.unit.recorded_facts import (
    MACS,
    Alter,
    api,
    authority,
    early,
    external_facts,
    external_lab,
    facts,
    files,
    lab,
    off,
    pair_facts,
    pair_lab,
    probes,
    section,
    seen,
    serving,
    silent,
    told_otherwise,
)

UNASKED = Unknown("the API can't be asked: timed out")


def judged(seen_facts: Facts, outcome: str) -> set[str]:
    """The titles of the checks with that outcome."""
    verdicts = [case.judge(seen_facts) for case in cases(lab())]
    return {verdict.title for verdict in verdicts if verdict.outcome == outcome}


def pods(change: Callable[[Any], Any]) -> Alter:
    """Every pod is what `change` makes of it; one that becomes None is gone."""
    said = [change(pod) for pod in known(facts().api.pods)]
    return api(pods=tuple(pod for pod in said if pod is not None))


def nodes(name: str, **changes: Any) -> Alter:
    return api(nodes=tuple(replace(n, **changes) if n.name == name else n for n in known(facts().api.nodes)))


def leases(name: str, **changes: Any) -> Alter:
    said = known(facts().api.leases)
    return api(leases=tuple(replace(each, **changes) if each.name == name else each for each in said))


def direct(name: str, answer: object) -> Alter:
    said = facts().api.direct
    return api(direct={**said, name: {path: answer for path in said[name]}})


def service(machine: str, name: str, running: str = "active", enabled: str = "enabled") -> Alter:
    before = f"Id={name}.service\nActiveState=active\nUnitFileState=enabled"
    after = f"Id={name}.service\nActiveState={running}\nUnitFileState={enabled}"
    return told_otherwise(machine, "services", before, after)


def restarted(machine: str, name: str, times: int, ago: float) -> Alter:
    """A unit was restarted by systemd so often, the last time so many seconds ago."""

    def alter(found: Facts) -> Facts:
        there = known(found.machines[machine])
        began = there.services[name].started
        assert began is not None
        before = f"NRestarts=0\nExecMainStartTimestamp=@{began:.0f}\nId={name}.service"
        after = f"NRestarts={times}\nExecMainStartTimestamp=@{there.clock - ago:.0f}\nId={name}.service"
        return told_otherwise(machine, "services", before, after)(found)

    return alter


def own_lease(name: str) -> str:
    return next(lease.name for lease in known(facts().api.leases) if lease.server == name)


def of_another_ca(*names: str) -> str:
    """A certificate for w1 that another CA of the same name has signed, with more names than it has."""
    node = lab().node("w1")
    assert node is not None
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    return serving(node, issuer, ec.generate_private_key(ec.SECP256R1()), facts().api.asked_at - A_DAY, *names)


def known_nodes() -> frozenset[str]:
    return frozenset(node.name for node in lab().kubernetes_nodes)


def also_pods(*more: PodFact) -> Alter:
    return api(pods=(*known(facts().api.pods), *more))


A_DAY = timedelta(days=1)
GONE = "000 Failed to connect to 192.168.57.12 port 10259 after 0 ms: Could not connect to server"
LONG_AGO = facts().api.asked_at - timedelta(minutes=5)

FAILING: dict[str, tuple[Alter, set[str]]] = {
    "the API is not well behind the load balancer": (
        api(health={**facts().api.health, "/readyz": (500, "etcd failed")}),
        {"api-through-it"},
    ),
    "nobody answers at the load balancer": (
        api(health={path: UNASKED for path in facts().api.health}),
        {"api-through-it"},
    ),
    "HAProxy is stopped": (
        service("lb1", "haproxy", running="inactive"),
        {"haproxy-runs[lb1]"},
    ),
    "HAProxy would not come back": (
        service("lb1", "haproxy", enabled="disabled"),
        {"haproxy-runs[lb1]"},
    ),
    "HAProxy's file is wrong": (
        section("lb1", "configuration", "unknown keyword", 1),
        {"haproxy-configuration[lb1]"},
    ),
    "HAProxy believes a server down that is well": (
        told_otherwise("lb1", "backends", ",UP,1,1,0,", ",DOWN,1,1,0,"),
        {f"{check}[cp{n}]" for n in (1, 2, 3) for check in ("backend-up", "backend-belief")},
    ),
    "HAProxy has forgotten a server": (
        told_otherwise("lb1", "backends", "apiserverbackend,cp2,", "apiserverbackend,cp9,"),
        {"backend-up[cp2]"},
    ),
    "HAProxy believes a server up that is frozen": (
        direct("cp2", UNASKED),
        {"backend-belief[cp2]", "api-server-healthy[cp2]"},
    ),
    "a server takes no connections": (
        told_otherwise("lb1", "spread", "apiserverbackend,cp3,", "apiserverbackend,cp9,"),
        {"backend-takes-connections[cp3]"},
    ),
    "an API server is not well": (
        direct("cp1", (500, "etcd failed")),
        {"backend-belief[cp1]", "api-server-healthy[cp1]"},
    ),
    "a static pod is not Ready": (
        pods(lambda pod: replace(pod, ready=False) if pod.name == "kube-scheduler-cp2" else pod),
        {"static-pods-ready[cp2]", "system-pods-ready"},
    ),
    "a static pod is Ready before its startup probe can have passed": (
        pods(lambda pod: early(pod) if pod.name == "kube-apiserver-cp3" else pod),
        {"static-pods-ready[cp3]"},
    ),
    "a static pod is gone": (
        pods(lambda pod: None if pod.name == "etcd-cp2" else pod),
        {"static-pods-ready[cp2]"},
    ),
    "admin.conf points at one API server": (
        section("cp1", "admin-server", "https://192.168.57.11:6443"),
        {"admin-kubeconfig[cp1]"},
    ),
    "an API server does not renew its lease": (
        leases(own_lease("cp2"), renewed=LONG_AGO),
        {"identity-leases"},
    ),
    "an endpoint is the NAT address": (
        api(endpoints=frozenset({"192.168.57.11", "192.168.57.12", "10.0.2.15"})),
        {"api-endpoints"},
    ),
    "a leader does not renew": (leases("kube-scheduler", renewed=LONG_AGO), {"leader-leases"}),
    "a stranger leads": (leases("kube-controller-manager", holder="x9_1"), {"leader-leases"}),
    "an object of kubeadm's was deleted": (
        section("cp1", "unfinished", "control-plane-init the cluster lacks its ConfigMap kubeadm-config\n"),
        {"cluster-objects"},
    ),
    "the pod network is another one": (section("cp1", "unfinished", "pod-network\n"), {"cluster-objects"}),
    "a kubelet's certificate is empty": (
        section("w1", "membership", "partial\n/var/lib/kubelet/pki/kubelet-client-current.pem is empty\n"),
        {"node-files[w1]"},
    ),
    "a machine has nothing": (section("w1", "membership", "fresh\n"), {"node-files[w1]"}),
    "etcd on one machine does not answer": (
        section("cp3", "etcd-health", "Error: unhealthy cluster", 1),
        {"etcd-member-healthy[cp3]"},
    ),
    "one member lists a machine that was never started": (
        told_otherwise("cp2", "etcd-members", '"name":"cp3"', '"name":""'),
        {"etcd-members[cp2]", "etcd-same-members"},
    ),
    "members have different ids": (
        told_otherwise("cp2", "etcd-members", '"ID":', '"ID":1'),
        {"etcd-same-members"},
    ),
    "a learner": (
        told_otherwise("cp1", "etcd-members", '"name":"cp3"', '"isLearner":true,"name":"cp3"'),
        {"etcd-no-learner"},
    ),
    "two terms": (told_otherwise("cp1", "etcd-status", '"raftTerm":', '"raftTerm":9'), {"etcd-one-leader"}),
    "no leader": (
        told_otherwise("cp1", "etcd-status", '"leader":', '"was_leader":'),
        {"etcd-one-leader"},
    ),
    "a member far behind": (
        told_otherwise("cp1", "etcd-status", '"raftIndex":', '"raftIndex":99'),
        {"etcd-in-step"},
    ),
    "an alarm": (
        section("cp1", "etcd-alarms", '{"alarms":[{"memberID":1,"alarm":1}]}'),
        {"etcd-no-alarm"},
    ),
    "a machine does not reach two others": (
        section("w1", "reach", "lb1\ncp1 no answer within 3 s\ncp2 no answer within 3 s\ncp3\n"),
        {"machines-reach-one-another"},
    ),
    "a node too many": (
        api(nodes=(*known(facts().api.nodes), replace(known(facts().api.nodes)[0], name="x9"))),
        {"exact-nodes"},
    ),
    "a node too few": (
        api(nodes=tuple(node for node in known(facts().api.nodes) if node.name != "w3")),
        {"exact-nodes", "node-ready[w3]", "node-as-declared[w3]", "node-taints[w3]", "pod-network-agent[w3]"},
    ),
    "a node is not Ready": (nodes("w1", ready=False), {"node-ready[w1]"}),
    "a node has another address": (nodes("w1", internal_ips=("10.0.2.15",)), {"node-as-declared[w1]"}),
    "a node has another version": (nodes("cp1", version="v1.35.4"), {"node-as-declared[cp1]"}),
    "a worker is tainted": (nodes("w2", taints=("somebodys",)), {"node-taints[w2]"}),
    "a control plane lost its taint": (nodes("cp2", taints=()), {"node-taints[cp2]"}),
    "a kubelet is stopped": (
        service("w1", "kubelet", running="failed"),
        {"node-services[w1]"},
    ),
    "a kubelet dies and is started again and again": (
        restarted("w1", "kubelet", 17, ago=2),
        {"node-services[w1]"},
    ),
    "HAProxy dies and is started again and again": (
        restarted("lb1", "haproxy", 3, ago=40),
        {"haproxy-runs[lb1]"},
    ),
    "containerd would not come back": (
        service("w1", "containerd", enabled="disabled"),
        {"node-services[w1]"},
    ),
    "a worker's kubelet points at one API server": (
        section("w1", "kubelet-server", "https://192.168.57.11:6443"),
        {"kubelet-server[w1]"},
    ),
    "kube-proxy points at one API server": (
        api(kube_proxy_server="https://192.168.57.11:6443"),
        {"kube-proxy-server"},
    ),
    "a kube-proxy is not Ready": (
        pods(lambda p: replace(p, ready=False) if p.name.startswith("kube-proxy-") and p.node == "w2" else p),
        {"kube-proxy[w2]", "system-pods-ready"},
    ),
    "the pod network's agent is gone": (
        pods(lambda p: None if p.namespace == "kube-flannel" and p.node == "w3" else p),
        {"pod-network-agent[w3]"},
    ),
    "flannel's manifest without the lab's part": (
        nodes("w1", pod_network_address="172.17.0.4"),
        {"pod-network-agent[w1]"},
    ),
    "kube-router is gone from a node": (
        pods(lambda p: None if p.name.startswith("kube-router-") and p.node == "w3" else p),
        {"network-policy-agent[w3]"},
    ),
    "a pod may ask where the policy denies it": (
        seen("w1", "policy:w2:udp:8082", "w2"),
        {"network-policy[w1]"},
    ),
    "a pod may be asked where the policy denies it": (
        seen("w1", "policy:w2:tcp:8081", "w2"),
        {"network-policy[w2]"},
    ),
    "a policy is not in force between pods of one node": (
        seen("w3", "policy:second:tcp:8081", "w3"),
        {"network-policy[w3]"},
    ),
    "no system pods": (
        pods(lambda p: None),
        {"system-pods-ready", "coredns-spread"}
        | {f"static-pods-ready[cp{n}]" for n in (1, 2, 3)}
        | {
            f"{check}[{n.name}]"
            for check in ("kube-proxy", "pod-network-agent", "network-policy-agent")
            for n in lab().kubernetes_nodes
        },
    ),
    "CoreDNS on one node": (
        pods(lambda p: replace(p, node="w1") if p.name.startswith("coredns-") else p),
        {"coredns-spread"},
    ),
    "something restarts": (
        api(restarts=({"kube-system/etcd-cp1": 1}, {"kube-system/etcd-cp1": 2})),
        {"restarts-stand-still"},
    ),
    "no pod starts on a node": (
        probes(started={**known(facts().probes).started, "w1": "its kubelet has not taken it up"}),
        {"pod-starts[w1]"},
    ),
    "a pod does not reach another": (seen("w1", "pod:cp2", "wget: download timed out"), {"pod-to-pod[w1]"}),
    "a pod has a stranger's address": (
        probes(peers={**known(facts().probes).peers, "w1": "172.17.0.2"}),
        {"pod-addresses"},
    ),
    "a ClusterIP is not answered": (seen("w1", "service", "wget: can't connect"), {"cluster-ip[w1]"}),
    "a NodePort is not answered to this host": (
        probes(node_ports={**known(facts().probes).node_ports, "w1": "timed out"}),
        {"node-port[w1]"},
    ),
    "a NodePort is not answered to pods": (seen("cp1", "port:w1", "timed out"), {"node-port[w1]"}),
    "names are not resolved": (seen("w1", "dns", ""), {"dns[w1]"}),
    "logs are not shown": (
        probes(logs={**known(facts().probes).logs, "w1": "502 dial tcp: no route to host"}),
        {"pod-logs[w1]"},
    ),
    "exec does not work": (
        probes(seen={**known(facts().probes).seen, "w1": Unknown("kubectl exec failed")}),
        {"pod-exec[w1]"},
    ),
    "the way to pods on other nodes is down": (
        told_otherwise("w1", "pod-network-interface", ",UP,LOWER_UP", ""),
        {"pod-network-interface[w1]"},
    ),
    "a bootstrap token is left": (
        api(secrets=(("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token"),)),
        {"no-bootstrap-token"},
    ),
    "the uploaded certificates are left": (
        api(secrets=(("kubeadm-certs", "Opaque"),)),
        {"no-uploaded-certificates"},
    ),
    "a run's secret is left": (section("w1", "left-by-runs", "/run/ha-lab/secrets"), {"no-run-secret[w1]"}),
    "a key is readable": (section("cp1", "open-keys", "/etc/kubernetes/pki/ca.key"), {"open-keys[cp1]"}),
    "another key opens a machine": (
        section("lb1", "logins", "ssh-ed25519 A ha-lab\nssh-ed25519 B me"),
        {"logins[lb1]"},
    ),
    "everybody's key opens a machine": (
        section("lb1", "logins", "ssh-rsa A vagrant insecure public key"),
        {"logins[lb1]"},
    ),
    "the kubeconfig is readable": (files(kubeconfig_mode=0o644), {"kubeconfig-private"}),
    "the kubeconfig points at one API server": (
        files(kubeconfig_server="https://192.168.57.11:6443"),
        {"kubeconfig-private"},
    ),
    "the kubeconfig's certificate is over": (
        files(client_valid=Validity(Path("k"), facts().api.asked_at - 9 * A_DAY, facts().api.asked_at, "mine")),
        {"kubeconfig-expiry"},
    ),
    "the kubeconfig's certificate is not valid yet": (
        files(
            client_valid=Validity(Path("k"), facts().api.asked_at + A_DAY, facts().api.asked_at + 99 * A_DAY)
        ),
        {"kubeconfig-expiry"},
    ),
    "a secret is readable": (files(open_secrets=(".lab/secrets/ca.key",)), {"secrets-private"}),
    "the secrets' folder is open": (files(secrets_mode=0o755), {"secrets-private"}),
    "another service-account key": (
        section("cp2", "service-account-key", "beef  /etc/kubernetes/pki/sa.pub"),
        {"same-keys"},
    ),
    "a certificate without its names": (
        told_otherwise(
            "cp1", "certificates", "# /etc/kubernetes/pki/apiserver.crt", "# /etc/kubernetes/pki/old.crt"
        ),
        set(),
    ),
    "certificates are over": (
        api(asked_at=facts().api.asked_at + 400 * A_DAY),
        {f"certificate-expiry[{node.name}]" for node in lab().kubernetes_nodes}
        | {"identity-leases", "leader-leases"},
    ),
    "certificates are not valid yet": (
        api(asked_at=facts().api.asked_at - 30 * A_DAY),
        {f"certificate-expiry[{node.name}]" for node in lab().nodes},
    ),
    "a machine's own name is on the NAT network": (
        section("w1", "here", "w1\n10.0.2.15 "),
        {"own-name[w1]"},
    ),
    "two machines of one id": (
        told_otherwise("w1", "identity", "machine-id ", f"machine-id {'0' * 32}\nold "),
        set(),
    ),
    "two machines of one MAC": (
        lambda f: section("w1", "identity", known(f.machines["w2"]).sections["identity"].text)(f),
        {"unique-identities"},
    ),
    "the lab's routes are not set": (
        service("lb1", "ha-lab-network", running="failed"),
        {"network-services[lb1]"},
    ),
    "pods have no resolver": (
        service("w1", "ha-lab-dns", running="failed"),
        {"network-services[w1]"},
    ),
    "packets are not passed on": (
        told_otherwise("w1", "kernel", "ip_forward = 1", "ip_forward = 0"),
        {"kernel-settings[w1]"},
    ),
    "two cgroup drivers": (
        told_otherwise("w1", "cgroup-drivers", "kubelet systemd", "kubelet cgroupfs"),
        {"cgroup-driver[w1]"},
    ),
    "a kubelet has no serving certificate": (
        told_otherwise("w1", "certificates", f"# {KUBELET_SERVING}", "# /var/lib/kubelet/pki/old.pem"),
        {"kubelet-certificate[w1]"},
    ),
    "a kubelet has the certificate of another node": (
        told_otherwise("w1", "certificates", authority()[1]["w1"], authority()[1]["w2"]),
        {"kubelet-certificate[w1]"},
    ),
    "a kubelet has a certificate with one name more": (
        told_otherwise("w1", "certificates", authority()[1]["w1"], of_another_ca("cp1")),
        {"kubelet-certificate[w1]"},
    ),
    "a kubelet has a certificate of another CA": (
        told_otherwise("w1", "certificates", authority()[1]["w1"], of_another_ca()),
        {"kubelet-certificate[w1]"},
    ),
    "the scheduler's metrics can't be reached": (
        told_otherwise(
            "cp2", "metrics", "kube-scheduler certificate 200", f"kube-scheduler certificate {GONE}"
        ),
        {"control-plane-metrics[cp2]"},
    ),
    "the controller manager gives its metrics to anyone": (
        told_otherwise("cp2", "metrics", "manager anonymous 403", "manager anonymous 200"),
        {"control-plane-metrics[cp2]"},
    ),
    "etcd gives its metrics to anyone": (
        told_otherwise("cp1", "metrics", "etcd anonymous 000", "etcd anonymous 200"),
        {"control-plane-metrics[cp1]"},
    ),
    "kube-proxy's metrics can't be reached": (
        told_otherwise("cp1", "metrics", "kube-proxy certificate 200", f"kube-proxy certificate {GONE}"),
        {"control-plane-metrics[cp1]"},
    ),
    "a certificate may not read metrics": (
        told_otherwise("cp1", "metrics", "manager certificate 200", "manager certificate 403"),
        {"control-plane-metrics[cp1]"},
    ),
    "metrics-server has no figures of a node": (
        api(metrics=known_nodes() - {"w1"}),
        {"metrics-server"},
    ),
    "metrics-server is gone": (api(metrics="503 service unavailable"), {"metrics-server"}),
    "no volume is made": (probes(volume="its claim has no volume (Pending): it waits"), {"local-path"}),
    "local-path's pod is not Ready": (
        also_pods(PodFact("local-path-storage", "local-path-provisioner-1", "w1", "Pending", ready=False)),
        {"system-pods-ready"},
    ),
    "a pod that makes a folder for a volume starts": (
        also_pods(PodFact("local-path-storage", "helper-pod-create-pvc-1", "w1", "Pending", ready=False)),
        set(),
    ),
    "an add-on was deleted": (
        section("cp1", "unfinished", "addons metrics-server lacks its Service metrics-server\n"),
        {"cluster-objects"},
    ),
    "a clock is off": (off("w1", 3.0), {"clock[w1]"}),
}


def test_everything_holds_as_recorded() -> None:
    bad = [verdict for case in cases(lab()) if (verdict := case.judge(facts())).outcome != "holds"]
    assert [(verdict.title, verdict.found) for verdict in bad] == []


@pytest.mark.parametrize("what", FAILING)
def test_exactly_the_checks_fail_that_should(what: str) -> None:
    alter, expected = FAILING[what]
    assert judged(alter(facts()), "fails") == expected


@pytest.mark.parametrize(("name", "taints"), [("w2", ()), ("cp2", ("node-role.kubernetes.io/control-plane",))])
def test_a_node_that_a_user_cordoned_is_warned_of(name: str, taints: tuple[str, ...]) -> None:
    cordon = "node.kubernetes.io/unschedulable"
    cordoned = nodes(name, taints=(*taints, cordon))(facts())
    assert (judged(cordoned, "warns"), judged(cordoned, "fails")) == ({f"node-taints[{name}]"}, set())
    other = nodes(name, taints=(*taints, cordon, "node.kubernetes.io/not-ready"))(facts())
    assert judged(other, "fails") == {f"node-taints[{name}]"}
    bare = nodes("cp3", taints=(cordon,))(facts())
    assert judged(bare, "fails") == {"node-taints[cp3]"}, "it lost its role's taint, too"


@pytest.mark.parametrize(
    ("times", "ago", "outcome"), [(3, 59, "fails"), (2, 1, "holds"), (0, 1, "holds"), (90, 61, "holds")]
)
def test_a_service_dies_again_and_again_where_it_was_restarted_often_and_lately(
    times: int, ago: float, outcome: str
) -> None:
    found = restarted("w1", "containerd", times, ago)(facts())
    assert "node-services[w1]" in judged(found, outcome)


def test_a_restart_loop_says_how_often_and_when() -> None:
    [case] = [
        each for each in cases(lab()) if each.check.name == "node-services" and each.node == lab().node("w1")
    ]
    found = case.judge(restarted("w1", "kubelet", 17, ago=2)(facts())).found
    assert found.startswith("systemd has restarted kubelet 17 times, last ")


def test_a_service_that_never_had_a_process_is_in_no_restart_loop() -> None:
    began = known(facts().machines["w1"]).services["kubelet"].started
    never = told_otherwise("w1", "services", f"Timestamp=@{began:.0f}\nId=kubelet", "Timestamp=\nId=kubelet")
    assert known(never(facts()).machines["w1"]).services["kubelet"].started is None
    assert judged(never(facts()), "could-not-ask") == set()


def without_policies(**network: str) -> Lab:
    """The recorded lab, had lab.yaml said `policy: none`."""
    return lab().model_copy(update={"network": lab().network.model_copy(update={"policy": "none", **network})})


def verdicts(of: Lab, found: Facts, name: str) -> dict[str, Verdict]:
    """What the check of that name finds in this lab, by machine."""
    return {case.node.name: case.judge(found) for case in cases(of) if case.check.name == name and case.node}


def test_during_an_upgrade_a_machine_has_either_version_and_no_third() -> None:
    below, third = nodes("cp1", version="v1.37.2"), nodes("w1", version="v1.35.4")
    under_way = replace(below(facts()), upgrading="1.37.2")
    assert judged(under_way, "fails") == set()
    found = verdicts(lab(), under_way, "node-as-declared")["cp1"]
    assert "v1.37.2" in found.found
    assert "an upgrade is under way" in found.found
    assert judged(replace(third(below(facts())), upgrading="1.37.2"), "fails") == {"node-as-declared[w1]"}
    assert judged(below(facts()), "fails") == {"node-as-declared[cp1]"}


def everyone_answers(found: Facts) -> Facts:
    """No port is denied to any pod."""
    for node, said in known(found.probes).seen.items():
        for question in known(said):
            kind, _, target = question.partition(":")
            if kind == "policy":
                name = target.partition(":")[0].replace("second", node)
                found = seen(node, question, name)(found)
    return found


def test_without_an_enforcer_a_policy_that_denies_nothing_is_noted_and_nothing_fails() -> None:
    found = verdicts(without_policies(), everyone_answers(facts()), "network-policy")
    assert set(found) == {node.name for node in lab().kubernetes_nodes}
    assert {verdict.outcome for verdict in found.values()} == {"holds"}
    [note] = {verdict.note for verdict in found.values()}
    assert note.startswith("a NetworkPolicy denies nothing in this lab")
    assert {verdict.note for verdict in verdicts(lab(), facts(), "network-policy").values()} == {""}


def test_a_manifest_of_a_user_s_own_is_judged_by_what_it_does() -> None:
    own = without_policies(pod_network="/calico.yaml")
    found = verdicts(own, facts(), "network-policy")
    assert {verdict.outcome for verdict in found.values()} == {"holds"}
    assert all(verdict.note.startswith("NetworkPolicies are enforced") for verdict in found.values())
    half = seen("w1", "policy:w2:udp:8082", "w2")(facts())
    assert {name for name, v in verdicts(own, half, "network-policy").items() if v.outcome == "warns"} == {"w1"}


def test_with_kube_router_a_policy_that_denies_nothing_fails_on_every_node() -> None:
    found = judged(everyone_answers(facts()), "fails")
    assert found == {f"network-policy[{node.name}]" for node in lab().kubernetes_nodes}


def of_policy(alter: Alter) -> dict[str, str]:
    """The outcomes of network-policy that are no success, by machine."""
    found = verdicts(lab(), alter(facts()), "network-policy")
    return {name: verdict.outcome for name, verdict in found.items() if verdict.outcome != "holds"}


def test_silence_is_no_denial_where_the_allowed_port_is_silent_too() -> None:
    def unreached(found: Facts) -> Facts:
        for node in ("w1", "w2"):
            found = seen(node, "policy:w3:udp:8080", "no answer")(found)
        return found

    assert of_policy(unreached) == {"w3": "could-not-ask"}
    assert of_policy(seen("w1", "policy:w3:udp:8080", "no answer")) == {}  # w2 reaches it
    assert of_policy(seen("w3", "policy:second:tcp:8080", "no answer")) == {"w3": "could-not-ask"}
    assert of_policy(seen("w3", "policy:second:tcp:8082", "")) == {"w3": "could-not-ask"}
    assert of_policy(probes(second=("w3", "it waits"))) == {"w3": "could-not-ask"}
    assert of_policy(seen("w3", "policy:second:tcp:8080", "w1")) == {"w3": "could-not-ask"}, "another answered"


def test_a_pod_that_could_not_be_asked_keeps_only_its_own_node_from_being_judged() -> None:
    gone = probes(seen={**known(facts().probes).seen, "w1": Unknown("kubectl exec failed")})
    assert of_policy(gone) == {"w1": "could-not-ask"}


def test_an_image_of_an_earlier_version_asks_nothing_under_a_policy() -> None:
    assert of_policy(seen("w1", "policy", "no perl")) == {"w1": "warns"}


def test_rules_that_kube_router_has_left_are_found_where_it_is_not_wanted() -> None:
    none, left = without_policies(), section("w1", "policy-chains", "KUBE-ROUTER-INPUT\nKUBE-POD-FW-2X\n")
    quiet = facts()
    for node in lab().kubernetes_nodes:
        quiet = section(node.name, "policy-chains", "")(quiet)
    assert {v.outcome for v in verdicts(none, quiet, "no-policy-rules").values()} == {"holds"}
    found = verdicts(none, left(quiet), "no-policy-rules")
    assert {name for name, verdict in found.items() if verdict.outcome == "fails"} == {"w1"}
    assert found["w1"].found == "KUBE-ROUTER-INPUT; KUBE-POD-FW-2X"
    for other in (lab(), without_policies(pod_network="/own.yaml")):
        assert verdicts(other, quiet, "no-policy-rules") == {}


def judged_of_pair(found: Facts, outcome: str) -> set[str]:
    """The same of the load balancers' checks in a lab with two of them."""
    verdicts = [case.judge(found) for case in cases(pair_lab()) if case.group == "load balancer"]
    return {verdict.title for verdict in verdicts if verdict.outcome == outcome}


def address(machine: str, text: str) -> Alter:
    return section(machine, "virtual-address", text)


def every(*alter: Alter) -> Alter:
    return lambda found: functools.reduce(lambda so_far, each: each(so_far), alter, found)


OF_TWO: dict[str, tuple[Alter, set[str]]] = {
    "both hold the address, and half of the others send to each": (
        every(address("lb2", f"holds {MACS['lb2']}"), address("w1", f"sees {MACS['lb2']}")),
        {"one-holder"},
    ),
    "neither holds the address": (address("lb1", "sees "), {"one-holder"}),
    "a node sends to the machine that had the address": (
        address("w2", f"sees {MACS['lb2']}"),
        {"address-agreed"},
    ),
    "the other load balancer has no entry for the address": (address("lb2", "sees "), {"address-agreed"}),
    "this host sends to the machine that had the address": (
        lambda found: replace(found, neighbour=MACS["lb2"]),
        {"address-agreed"},
    ),
    "this host has no entry for the address": (
        lambda found: replace(found, neighbour=""),
        {"address-agreed"},
    ),
    "the two HAProxys do not agree on a server": (
        told_otherwise("lb2", "backends", "UP,1,1,0,1,1,89", "DOWN,1,1,0,1,1,89"),
        {"same-backends", "backend-up[cp2]", "backend-belief[cp2]"},
    ),
    "one HAProxy has no such server": (
        told_otherwise("lb2", "backends", "apiserverbackend,cp3,", "apiserverbackend,cp9,"),
        {"same-backends", "backend-up[cp3]"},
    ),
    "keepalived is stopped": (
        service("lb2", "keepalived", running="inactive"),
        {"keepalived-runs[lb2]"},
    ),
    "keepalived would not come back": (
        service("lb1", "keepalived", enabled="disabled"),
        {"keepalived-runs[lb1]"},
    ),
    "keepalived would not start again": (
        section("lb2", "keepalived-configuration", "(Line 3) Unknown keyword 'vrp_instance'\n", 4),
        {"keepalived-configuration[lb2]"},
    ),
    "keepalived has another configuration than the lab's": (
        section("lb1", "keepalived-files", "/etc/keepalived/keepalived.conf\n"),
        {"keepalived-configuration[lb1]"},
    ),
}


def test_all_checks_of_two_load_balancers_hold_where_they_do_their_part() -> None:
    holding = judged_of_pair(pair_facts(), "holds")
    assert {"one-holder", "address-agreed", "same-backends", "keepalived-runs[lb2]"} <= holding
    assert holding == {
        case.judge(pair_facts()).title for case in cases(pair_lab()) if case.group == GROUPS[0][0]
    }


@pytest.mark.parametrize("what", OF_TWO)
def test_exactly_the_checks_of_two_load_balancers_fail_that_should(what: str) -> None:
    alter, expected = OF_TWO[what]
    assert judged_of_pair(alter(pair_facts()), "fails") == expected


def test_what_is_wrong_with_the_address_is_named_with_the_machines() -> None:
    def found(name: str, of: Facts) -> str:
        return next(case.judge(of).found for case in cases(pair_lab()) if case.check.name == name)

    both = address("lb2", f"holds {MACS['lb2']}")(pair_facts())
    assert found("one-holder", both) == "lb1 and lb2 have it"
    assert found("one-holder", address("lb1", "sees ")(pair_facts())) == "none has it"
    lost = every(address("w2", f"sees {MACS['lb2']}"), address("w3", "sees "))(pair_facts())
    assert found("address-agreed", lost) == "w2 sends to lb2; w3 sends to no machine"
    stranger = address("w1", "sees 02:42:c0:a8:39:99")(pair_facts())
    assert found("address-agreed", stranger) == "w1 sends to 02:42:c0:a8:39:99"
    alter, _ = OF_TWO["one HAProxy has no such server"]
    assert (
        found("same-backends", alter(pair_facts()))
        == "lb1: cp3: UP, cp9: no such server; lb2: cp3: no such server, cp9: UP"
    )


def test_a_load_balancer_that_is_silent_may_have_the_address() -> None:
    holder_gone = silent("lb1")(pair_facts())
    assert {"one-holder", "address-agreed", "same-backends"} <= judged_of_pair(holder_gone, "could-not-ask")
    assert "one-holder" in judged_of_pair(silent("lb2")(pair_facts()), "holds")
    moved = address("lb2", f"holds {MACS['lb2']}")(holder_gone)
    assert "one-holder" in judged_of_pair(moved, "holds")
    assert "address-agreed" in judged_of_pair(moved, "fails"), "nobody has noticed that it moved"


def test_a_host_that_is_not_on_the_lab_s_network_has_no_say() -> None:
    assert judged_of_pair(replace(pair_facts(), neighbour=None), "fails") == set()
    unknown = replace(pair_facts(), neighbour=Unknown("ip: not found"))
    assert judged_of_pair(unknown, "could-not-ask") == {"address-agreed"}


def test_a_lab_with_one_load_balancer_has_no_checks_of_two() -> None:
    titles_of_one = {case.judge(facts()).title.partition("[")[0] for case in cases(lab())}
    assert not titles_of_one & {"one-holder", "address-agreed", "same-backends", "keepalived-runs"}


def judged_of_etcd(found: Facts, outcome: str) -> set[str]:
    """The same of etcd's checks in a lab whose etcd has machines of its own."""
    verdicts = [case.judge(found) for case in cases(external_lab()) if case.group == "etcd"]
    return {verdict.title for verdict in verdicts if verdict.outcome == outcome}


OF_ETCD: dict[str, tuple[Alter, set[str]]] = {
    "the kubelet of an etcd machine is stopped": (
        service("etcd3", "kubelet", running="inactive"),
        {"etcd-machine-services[etcd3]"},
    ),
    "containerd would not come back there": (
        service("etcd1", "containerd", enabled="disabled"),
        {"etcd-machine-services[etcd1]"},
    ),
    "a file of etcd's is gone": (
        section("etcd2", "membership", "damaged\n/etc/kubernetes/pki/etcd/peer.crt is missing\n"),
        {"etcd-machine-files[etcd2]"},
    ),
    "anyone may read etcd's metrics": (
        section("etcd2", "metrics", "etcd anonymous 200 \netcd certificate 200 \n"),
        {"etcd-machine-metrics[etcd2]"},
    ),
}


def test_all_checks_of_an_etcd_with_its_own_machines_hold() -> None:
    holding = judged_of_etcd(external_facts(), "holds")
    assert {"etcd-same-ca", "etcd-members[etcd1]", "etcd-machine-files[etcd3]"} <= holding
    assert holding == {
        case.judge(external_facts()).title for case in cases(external_lab()) if case.group == "etcd"
    }


@pytest.mark.parametrize("what", OF_ETCD)
def test_exactly_the_checks_of_etcd_s_machines_fail_that_should(what: str) -> None:
    alter, expected = OF_ETCD[what]
    assert judged_of_etcd(alter(external_facts()), "fails") == expected


def test_machines_that_trust_different_cas_of_etcd_are_named() -> None:
    found = external_facts()
    machine = known(found.machines["cp2"])
    text = machine.text("certificates")
    own, other = (f"# /etc/kubernetes/pki/{name}ca.crt\n" for name in ("etcd/", ""))
    cut = text.partition(other)[2].partition("# ")[0]
    swapped = text.partition(own)[0] + own + cut + text.partition(own)[2].partition("# ")[1]
    swapped += text.partition(own)[2].partition("# ")[2]
    altered = section("cp2", "certificates", swapped)(found)
    assert "etcd-same-ca" in judged_of_etcd(altered, "fails")
    silent_one = section("cp2", "certificates", text.partition(own)[0])(found)
    assert "etcd-same-ca" in judged_of_etcd(silent_one, "could-not-ask")


def test_every_check_is_seen_red_here_or_by_a_sabotage() -> None:
    tables = (*FAILING.values(), *OF_TWO.values(), *OF_ETCD.values())
    seen_red = {title.partition("[")[0] for _, expected in tables for title in expected}
    seen_red |= {"no-policy-rules", "etcd-same-ca"}  # tests of their own, just above
    seen_red |= {title.partition("[")[0] for sabotage in SABOTAGES for title in sabotage.expected}
    assert {check.name for _, checks in GROUPS for check in checks} - seen_red == set()


def test_a_sabotage_expects_checks_that_there_are() -> None:
    known_titles = {case.judge(facts()).title for case in cases(lab())} | titles(lab())
    known_titles |= {case.judge(pair_facts()).title for case in cases(pair_lab())}
    known_titles |= {case.judge(external_facts()).title for case in cases(external_lab())}
    names = {title.partition("[")[0] for title in known_titles}
    for sabotage in SABOTAGES:
        for title in (*sabotage.expected, *sabotage.follows):
            name, _, machine = title.partition("[")
            assert name in names if machine in ("*]", "{it}]") else title in known_titles, title


def test_every_test_of_the_acceptance_list_fails_in_a_sabotage() -> None:
    failing = {title.partition("[")[0] for sabotage in SABOTAGES for title in sabotage.expected}
    assert set(acceptance_list()) - failing == set()


def test_names_are_unique_and_every_check_says_what_it_means_and_what_to_try() -> None:
    checks = [check for _, checks in GROUPS for check in checks]
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.means and check.hint for check in checks)


def test_a_machine_that_is_silent_makes_its_checks_unasked_and_none_fail() -> None:
    altered = silent("w1")(facts())
    assert judged(altered, "fails") == set()
    assert judged(altered, "could-not-ask") == {
        "unique-identities",
        *(
            f"{check}[w1]"
            for check in ("node-services", "kubelet-server", "no-run-secret", "logins", "cluster-ca")
        ),
        *(
            f"{check}[w1]"
            for check in (
                "certificate-expiry",
                "own-name",
                "network-services",
                "kernel-settings",
                "pod-network-interface",
            )
        ),
        *(f"{check}[w1]" for check in ("cgroup-driver", "clock", "node-files", "kubelet-certificate")),
    }


def test_a_silent_load_balancer_leaves_what_haproxy_believes_unasked() -> None:
    found = judged(silent("lb1")(facts()), "could-not-ask")
    assert {f"backend-up[cp{n}]" for n in (1, 2, 3)} <= found
    assert {"haproxy-runs[lb1]", "haproxy-configuration[lb1]"} <= found


def test_an_api_that_is_silent_makes_what_it_would_tell_unasked() -> None:
    names = ("nodes", "pods", "leases", "endpoints", "secrets", "kube_proxy_server", "restarts")
    altered = replace(api(**dict.fromkeys(names, UNASKED))(facts()), probes=UNASKED)
    assert judged(altered, "fails") == set()
    unasked = {title.partition("[")[0] for title in judged(altered, "could-not-ask")}
    assert {"node-ready", "system-pods-ready", "leader-leases", "no-bootstrap-token", "pod-to-pod"} <= unasked


def test_a_certificate_of_the_future_is_named_with_its_date_and_the_clock() -> None:
    early = api(asked_at=facts().api.asked_at - 30 * A_DAY)(facts())
    case = next(case for case in cases(lab()) if case.judge(early).title == "certificate-expiry[lb1]")
    [ca] = known(facts().machines["lb1"]).certificates
    assert case.judge(early).found == (
        f"/etc/haproxy/kubernetes-ca.crt is valid from {ca.since:%Y-%m-%d %H:%M} UTC on; it is "
        f"{early.api.asked_at:%Y-%m-%d %H:%M} UTC"
    )
    assert ca.since < facts().api.asked_at < ca.until


def test_a_kubeconfig_whose_certificate_ends_soon_is_a_warning() -> None:
    now = facts().api.asked_at
    for days, outcome in ((29, "warns"), (31, "holds")):
        altered = files(client_valid=Validity(Path("k"), now - A_DAY, now + days * A_DAY))(facts())
        case = next(case for case in cases(lab()) if case.check.name == "kubeconfig-expiry")
        verdict = case.judge(altered)
        assert (verdict.outcome, verdict.found) == (outcome, f"ends on {now + days * A_DAY:%Y-%m-%d}")
    unreadable = files(client_valid=Unknown("k holds none"))(facts())
    assert judged(unreadable, "could-not-ask") == {"kubeconfig-expiry"}


def reach_verdict(alter: Alter) -> Verdict:
    case = next(case for case in cases(lab()) if case.check.name == "machines-reach-one-another")
    return case.judge(alter(facts()))


def test_who_does_not_reach_whom_is_said_with_the_reason() -> None:
    said = "lb1\ncp1 no answer within 3 s\ncp2 no answer within 3 s\ncp3\n"
    assert reach_verdict(section("w1", "reach", said)).found == (
        "w1 does not reach cp1, cp2 (no answer within 3 s)"
    )


def test_that_nobody_reaches_anybody_is_said_once() -> None:
    altered = facts()
    for node in lab().nodes:
        others = [other.name for other in (*lab().balancers, *lab().control_planes) if other != node]
        said = "".join(f"{name} No route to host\n" for name in others)
        altered = section(node.name, "reach", said)(altered)
    assert reach_verdict(lambda _: altered).found == "no machine reaches another one (No route to host)"


def test_a_machine_that_is_silent_is_no_one_s_fault() -> None:
    gone = silent("cp2")(section("w1", "reach", "lb1\ncp1\ncp2 no answer within 3 s\ncp3\n")(facts()))
    assert reach_verdict(lambda _: gone).outcome == "holds"
    nobody = facts()
    for node in lab().nodes:
        nobody = silent(node.name)(nobody)
    assert reach_verdict(lambda _: nobody).outcome == "could-not-ask"


def test_a_difference_is_told_even_where_somebody_has_not_answered() -> None:
    altered = told_otherwise("cp2", "etcd-members", '"ID":', '"ID":1')(silent("cp3")(facts()))
    assert "etcd-same-members" in judged(altered, "fails")
    assert "etcd-same-members" in judged(silent("cp3")(facts()), "could-not-ask")


def test_while_the_ca_is_rotated_either_ca_may_have_signed_a_kubelet_s_certificate() -> None:
    ours, other = known(facts().files).ca, new_ca().certificate
    for cas, outcome in ((other + ours, "holds"), (ours + other, "holds"), (other, "fails")):
        case = next(c for c in cases(lab()) if c.check.name == "kubelet-certificate")
        assert case.judge(files(ca=cas)(facts())).outcome == outcome


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    altered = api(asked_at=facts().api.asked_at + 350 * A_DAY)(facts())
    assert {f"certificate-expiry[{node.name}]" for node in lab().kubernetes_nodes} <= judged(altered, "warns")


@pytest.mark.parametrize(
    ("machine", "name", "titles"),
    [
        ("cp1", "etcd-alarms", {"etcd-no-alarm"}),
        ("cp1", "etcd-status", {"etcd-one-leader", "etcd-in-step"}),
        ("w1", "here", {"own-name[w1]", "unique-identities"}),
    ],
)
def test_an_answer_that_can_t_be_read_is_neither_a_yes_nor_a_no(
    machine: str, name: str, titles: set[str]
) -> None:
    altered = section(machine, name, "")(facts())
    assert judged(altered, "could-not-ask") == titles
    assert judged(altered, "fails") == set()


def test_a_missing_certificate_could_not_be_asked() -> None:
    alter, _ = FAILING["a certificate without its names"]
    assert judged(alter(facts()), "could-not-ask") == {"certificate-names[cp1]"}


def test_a_backend_that_is_just_being_checked_needs_no_code() -> None:
    altered = told_otherwise("lb1", "backends", ",L7OK,200,", ",* L7OK,,")(facts())
    assert judged(altered, "fails") == set()


def test_a_machine_without_product_uuid_shares_none() -> None:
    altered = facts()
    for node in lab().nodes:
        text = known(altered.machines[node.name]).sections["identity"].text
        lines = [line if not line.startswith("product") else "product-uuid none" for line in text.splitlines()]
        altered = section(node.name, "identity", "\n".join(lines))(altered)
    assert judged(altered, "fails") == set()


def test_the_reference_profile_s_haproxy_trusts_no_ca() -> None:
    load_balancer = lab().load_balancer.model_copy(update={"profile": "reference"})
    titles = {
        case.judge(facts()).title for case in cases(lab().model_copy(update={"load_balancer": load_balancer}))
    }
    assert "cluster-ca[cp1]" in titles
    assert "cluster-ca[lb1]" not in titles


def with_lb2(alter: Alter) -> Facts:
    """What the machines said when there is lb2 beside lb1, whose answers are `alter`'s of lb1's."""
    other = alter(facts()).machines["lb1"]
    return replace(facts(), machines={**facts().machines, "lb2": other})


def of_two_balancers(found: Facts, name: str) -> Verdict:
    case = next(
        each
        for each in cases(with_a_second_balancer(lab()))
        if each.check.name == name and (each.node is None or each.node.name == "cp1")
    )
    return case.judge(found)


def test_an_api_server_is_up_where_every_load_balancer_has_it_up() -> None:
    assert of_two_balancers(with_lb2(lambda same: same), "backend-up").outcome == "holds"
    down = told_otherwise("lb1", "backends", "apiserverbackend,cp1,", "apiserverbackend,other,")
    verdict = of_two_balancers(with_lb2(down), "backend-up")
    assert (verdict.title, verdict.outcome) == ("backend-up[cp1]", "fails")
    assert "lb2: HAProxy has no such server" in verdict.found
    assert "lb1: UP" in verdict.found


def test_a_load_balancer_that_does_not_answer_leaves_open_what_the_other_says_well_of() -> None:
    gone = replace(facts(), machines={**facts().machines, "lb2": Unknown("lb2 can't be asked")})
    assert of_two_balancers(gone, "backend-up").outcome == "could-not-ask"
    down = told_otherwise("lb1", "backends", "apiserverbackend,cp1,", "apiserverbackend,other,")(gone)
    assert of_two_balancers(down, "backend-up").outcome == "fails"


def test_haproxy_is_judged_on_every_load_balancer() -> None:
    titles = {(each.check.name, each.node.name) for each in cases(with_a_second_balancer(lab())) if each.node}
    assert {("haproxy-runs", "lb1"), ("haproxy-runs", "lb2"), ("haproxy-configuration", "lb2")} <= titles


def test_the_default_lab_has_as_many_verdicts_as_ever() -> None:
    assert len(cases(lab())) == 236


def test_every_check_of_the_lab_is_judged_once_and_of_machines_once_each() -> None:
    titles = [case.judge(facts()).title for case in cases(lab())]
    assert len(set(titles)) == len(titles)
    lab_wide = {
        check.name
        for _, checks in GROUPS
        for check in checks
        if isinstance(check, LabCheck) and not (check.pair or check.external)
    }
    assert lab_wide <= set(titles)
