"""Every sign on recorded facts that were altered as a mistake alters them: the cause, and what it explains."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.health import causes
from lab.health.causes import SIGNS, Cause, machines
from lab.health.causes.cause import NAMED
from lab.health.checks import cases
from lab.health.checks.check import Verdict
from lab.health.checks.security import KUBELET_SERVING
from lab.health.cluster import PodFact, Waiting
from lab.health.connecting import NO_SERVER_UP
from lab.health.facts.admission import LimitFact, QuotaFact, RefusalFact, WebhookFact
from lab.health.facts.gather import Facts
from lab.host.doctor.forwarding import LOOK, Obstacle
from lab.unknown import Unknown, known
from lab.workspace.render.credentials import Validity
from tests.unit.recorded_facts import (
    LOAD_FAILED,
    MACS,
    Alter,
    admission,
    apart,
    api,
    facts,
    files,
    haproxy_stopped,
    kubelet_loops,
    lab,
    not_running,
    pair_facts,
    pair_lab,
    probes,
    section,
    seen,
    silent,
    told_otherwise,
    unreached,
)
from tests.unit.test_admission import EVERYTHING, PODS, read_one

NAME = "kubernetes.io/metadata.name"
KUBECTL = "`./inv ssh cp1 -- sudo kubectl --kubeconfig /etc/kubernetes/admin.conf"


@functools.cache
def altered(*alter: Alter) -> Facts:
    found = facts()
    for each in alter:
        found = each(found)
    return found


@functools.cache
def bad(*alter: Alter) -> tuple[Verdict, ...]:
    """The verdicts that are not good; to judge all takes a while, and the table's rows are used twice."""
    found = altered(*alter)
    return tuple(verdict for case in cases(lab()) if not (verdict := case.judge(found)).good)


def found_in(*alter: Alter) -> tuple[Cause, ...]:
    return causes.find(lab(), altered(*alter), bad(*alter))


def only(*alter: Alter) -> Cause:
    [cause] = found_in(*alter)
    return cause


def pods(change: Callable[[PodFact], PodFact | None]) -> Alter:
    said = [change(pod) for pod in known(facts().api.pods)]
    return api(pods=tuple(pod for pod in said if pod is not None))


def without(prefix: str, node: str = "") -> Alter:
    """Pods of that name are gone, on one node or everywhere."""
    return pods(lambda p: None if p.name.startswith(prefix) and node in ("", p.node) else p)


def node(name: str, **changes: Any) -> Alter:
    return api(nodes=tuple(replace(n, **changes) if n.name == name else n for n in known(facts().api.nodes)))


def kubelet_stopped(name: str) -> Alter:
    """As systemd shows a service that somebody has stopped."""
    runs = "Id=kubelet.service\nActiveState=active"
    return told_otherwise(name, "services", runs, runs.replace("=active", "=inactive"))


def hook(problem: str | None = "its Service default/gate does not exist", **words: Any) -> WebhookFact:
    found, _ = read_one(**words)
    return replace(found, problem=problem)


def refusals(message: str, namespace: str = "kube-system", owner: str = "DaemonSet/kube-proxy") -> Alter:
    return admission(refusals=(RefusalFact(namespace, owner, message),))


NO_PROXY = without("kube-proxy-", "w2")
NO_FLANNEL = without("kube-flannel-ds-", "w3")
NO_SERVICE = (
    'Internal error occurred: failed calling webhook "pods.gate.example.com": failed to call webhook: Post '
    '"https://gate.default.svc:443/check?timeout=10s": service "gate" not found'
)
DENIED = 'admission webhook "pods.gate.example.com" denied the request: no pods today'
UNASKED = api(**dict.fromkeys(("pods", "nodes"), Unknown("the API can't be asked")))
FORBIDDEN: Any = Unknown(
    'the API answered 403 to GET /api/v1/nodes: nodes is forbidden: User "kubernetes-admin" cannot list '
    'resource "nodes" in API group "" at the cluster scope'
)
UNBOUND = "control-plane-init the API refuses admin.conf, so the cluster lacks its ClusterRoleBinding"
FULL = QuotaFact("kube-system", "q", ("pods",), ("pods",))
OF_COMPUTE = QuotaFact("kube-system", "q", ("requests.cpu", "pods"), ())
EXCEEDED = (
    'pods "kube-proxy-" is forbidden: exceeded quota: q, requested: pods=1, used: pods=13, limited: pods=13'
)
MUST = 'pods "kube-proxy-" is forbidden: failed quota: q: must specify requests.cpu for: kube-proxy'
TOO_MUCH = 'pods "coredns-" is forbidden: maximum memory usage per Container is 1Mi, but limit is 170Mi'
VIOLATES = 'pods "kube-proxy-" is forbidden: violates PodSecurity "restricted:latest": host namespaces'
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

PROBED = {case.judge(facts()).title for case in cases(lab()) if case.check.probes}
ABSENT = 'Container image "ha-lab/probe:1" is not present with pull policy of Never'
COREDNS = {pod.node for pod in known(facts().api.pods) if pod.name.startswith("coredns-")}


def probes_refused(said: str) -> Alter:
    return lambda found: replace(
        found, probes=Unknown(f"pods could not be asked: the API answered 500: {said}")
    )


def waiting(prefix: str, on: str, reason: str, image: str = "registry.k8s.io/kube-proxy:v1.36.3") -> Alter:
    def change(pod: PodFact) -> PodFact:
        if not pod.name.startswith(prefix) or pod.node != on:
            return pod
        return replace(pod, ready=False, waiting=(Waiting(image, reason),))

    return pods(change)


WEBHOOK = "the webhook pods.gate.example.com in the ValidatingWebhookConfiguration gate"
REMOVE_WEBHOOK = f"{KUBECTL} delete validatingwebhookconfiguration gate` removes it"
NEEDED = f"{WEBHOOK} has to approve what the lab needs and can't be called"
OWN_PODS = "makes the API refuse the cluster's own pods"

URL = "https://192.168.57.10:6443"
RULE = Obstacle("this host drops packets on br-own, by its rule `-P FORWARD DROP`", "sudo iptables -I …")
NOW = facts().api.asked_at
REFUSED = "the API answered 401 to GET /api/v1/nodes: Unauthorized"
EXPIRED = Validity(Path(".lab/secrets/ca.crt"), NOW - timedelta(days=9), NOW - timedelta(days=2))
VALID = replace(EXPIRED, until=NOW + timedelta(days=9))


def kept_apart_by(obstacle: Obstacle) -> Alter:
    return lambda found: replace(found, obstacle=obstacle)


def haproxy_loops(found: Facts) -> Facts:
    """HAProxy has been restarted again and again, the last time 2 s before lb1 was asked."""
    began = f"NRestarts=0\nExecMainStartTimestamp=@{STARTED}\nId=haproxy.service"
    now = f"NRestarts=7\nExecMainStartTimestamp=@{float(CLOCK) - 2:.0f}\nId=haproxy.service"
    return told_otherwise("lb1", "services", began, now)(found)


CLOCK = known(facts().machines["lb1"]).clock
STARTED = f"{known(facts().machines['lb1']).services['haproxy'].started:.0f}"

TABLE: dict[str, tuple[tuple[Alter, ...], str, str, set[str]]] = {
    "a webhook without a Service keeps a pod from being made": (
        (admission(webhooks=(hook(),)), NO_PROXY),
        f"{NEEDED}: its Service default/gate does not exist",
        REMOVE_WEBHOOK,
        {"kube-proxy[w2]"},
    ),
    "a webhook that the API says it could not ask": (
        (admission(webhooks=(hook(None),)), probes_refused(NO_SERVICE)),
        f"{NEEDED}: failed to call webhook: Post "
        '"https://gate.default.svc:443/check?timeout=10s": service "gate" not found',
        REMOVE_WEBHOOK,
        PROBED,
    ),
    "a webhook that is found by both": (
        (admission(webhooks=(hook(),)), NO_PROXY, probes_refused(NO_SERVICE)),
        f"{NEEDED}: its Service default/gate does not exist",
        REMOVE_WEBHOOK,
        {*PROBED, "kube-proxy[w2]"},
    ),
    "a webhook that refuses": (
        (refusals(DENIED), lambda f: admission(webhooks=(hook(None),))(f), NO_PROXY),
        f"{WEBHOOK} refuses what the lab needs: no pods today",
        REMOVE_WEBHOOK,
        {"kube-proxy[w2]"},
    ),
    "a webhook that stops the kubelets' signs of life": (
        (admission(webhooks=(hook(rules=[EVERYTHING]),)), node("w1", ready=False)),
        f"{NEEDED}: its Service default/gate does not exist",
        REMOVE_WEBHOOK,
        {"node-ready[w1]"},
    ),
    "a quota that is used up": (
        (admission(quotas=(FULL,)), NO_PROXY),
        f"the ResourceQuota q in kube-system {OWN_PODS}: pods used up",
        f"{KUBECTL} --namespace kube-system delete resourcequota q` removes it",
        {"kube-proxy[w2]"},
    ),
    "a quota that the API names": (
        (refusals(EXCEEDED), lambda f: admission(quotas=(FULL,))(f), NO_PROXY),
        f"the ResourceQuota q in kube-system {OWN_PODS}: requested: pods=1, used: pods=13, limited: pods=13",
        f"{KUBECTL} --namespace kube-system delete resourcequota q` removes it",
        {"kube-proxy[w2]"},
    ),
    "a quota for which pods have to declare something": (
        (admission(quotas=(OF_COMPUTE,)), NO_PROXY),
        f"the ResourceQuota q in kube-system {OWN_PODS}: requests.cpu must be declared",
        f"{KUBECTL} --namespace kube-system delete resourcequota q` removes it",
        {"kube-proxy[w2]"},
    ),
    "the same in the API's words": (
        (refusals(MUST), lambda f: admission(quotas=(OF_COMPUTE,))(f), NO_PROXY),
        f"the ResourceQuota q in kube-system {OWN_PODS}: must specify requests.cpu for: kube-proxy",
        f"{KUBECTL} --namespace kube-system delete resourcequota q` removes it",
        {"kube-proxy[w2]"},
    ),
    "limits": (
        (
            refusals(TOO_MUCH),
            lambda f: admission(limits=(LimitFact("kube-system", "tiny"),))(f),
            without("coredns-", max(COREDNS)),
        ),
        f"the LimitRange tiny in kube-system {OWN_PODS}: maximum memory usage per Container is 1Mi, but limit "
        "is 170Mi",
        f"{KUBECTL} --namespace kube-system delete limitrange tiny` removes it",
        {"coredns-spread"},
    ),
    "a label on kube-system": (
        (refusals(VIOLATES), lambda f: admission(namespaces={"kube-system": RESTRICTED})(f), NO_PROXY),
        f"the label pod-security.kubernetes.io/enforce=restricted on the namespace kube-system {OWN_PODS}",
        f"{KUBECTL} label --overwrite namespace kube-system pod-security.kubernetes.io/enforce=privileged` "
        "allows them",
        {"kube-proxy[w2]"},
    ),
    "a label on flannel's namespace": (
        (admission(namespaces={"kube-flannel": RESTRICTED}), NO_FLANNEL),
        f"the label pod-security.kubernetes.io/enforce=restricted on the namespace kube-flannel {OWN_PODS}",
        f"{KUBECTL} label --overwrite namespace kube-flannel pod-security.kubernetes.io/enforce=privileged` "
        "allows them",
        {"pod-network-agent[w3]"},
    ),
    "a mirror pod that the API refuses": (
        (admission(quotas=(FULL,)), without("kube-scheduler-cp2")),
        f"the ResourceQuota q in kube-system {OWN_PODS}: pods used up",
        f"{KUBECTL} --namespace kube-system delete resourcequota q` removes it",
        {"static-pods-ready[cp2]"},
    ),
    "pods that are refused for another reason": (
        (refusals('error looking up service account kube-system/kube-proxy: "kube-proxy" not found'), NO_PROXY),
        "the API refuses pods of the DaemonSet kube-proxy in kube-system: error looking up service account "
        'kube-system/kube-proxy: "kube-proxy" not found',
        f"`./inv up` repairs what is the lab's own; {KUBECTL} --namespace kube-system describe daemonset "
        "kube-proxy` shows what was tried",
        {"kube-proxy[w2]"},
    ),
    "a node whose disk is full": (
        (
            node("w1", pressures=("DiskPressure",), taints=("node.kubernetes.io/disk-pressure",)),
            without("kube-proxy-", "w1"),
        ),
        "w1 has too little disk space (DiskPressure), so the kubelet evicts pods and refuses new ones",
        "free some disk space: ",
        {"node-taints[w1]", "kube-proxy[w1]"},
    ),
    "a node that has only the taint yet": (
        (node("w1", taints=("node.kubernetes.io/pid-pressure",)),),
        "w1 has too little process IDs (PIDPressure), so the kubelet evicts pods and refuses new ones",
        "`./inv ssh w1` and `ps -eLf`",
        {"node-taints[w1]"},
    ),
    "an image that was removed": (
        (waiting("kube-proxy-", "w1", "ErrImageNeverPull"),),
        "w1 no longer has the image registry.k8s.io/kube-proxy:v1.36.3",
        "`./inv replace w1` creates this machine again, with all images",
        {"kube-proxy[w1]", "system-pods-ready"},
    ),
    "the image of the probes": (
        (
            lambda f: probes(
                started={
                    **known(f.probes).started,
                    "w1": f"ErrImageNeverPull {ABSENT}",
                }
            )(f),
        ),
        "w1 no longer has the image ha-lab/probe:1",
        "`./inv replace w1` creates this machine again, with all images",
        {"pod-starts[w1]"},
    ),
    "a worker that is paused": (
        (not_running("paused", "w1"), node("w1", ready=False)),
        "w1 is paused",
        "`./inv up` resumes it",
        {"node-ready[w1]", "clock[w1]", "unique-identities"},
    ),
    "two workers that are stopped": (
        (not_running("stopped", "w1", "w3"),),
        "w1 and w3 are stopped",
        "`./inv up` starts them",
        {"clock[w1]", "clock[w3]"},
    ),
    "a machine that is gone": (
        (not_running("absent", "cp2"),),
        "cp2 does not exist",
        "`./inv up` creates it",
        {"etcd-member-healthy[cp2]", "etcd-one-leader"},
    ),
    "most of etcd's machines that are gone": (
        (not_running("absent", "cp2", "cp3"),),
        "cp2 and cp3 do not exist",
        "`./inv plan` shows what can be recovered",
        {"etcd-member-healthy[cp2]", "etcd-member-healthy[cp3]", "etcd-one-leader"},
    ),
    "a worker that has not joined": (
        (
            section("w2", "membership", "fresh\n"),
            api(nodes=tuple(n for n in known(facts().api.nodes) if n.name != "w2")),
        ),
        "w2 has not joined the cluster",
        "`./inv up` joins it",
        {"exact-nodes", "node-ready[w2]", "node-files[w2]"},
    ),
    "a worker that has lost its kubeconfig": (
        (section("w2", "membership", "partial\n/etc/kubernetes/kubelet.conf is missing\n"),),
        "w2 has lost files that kubeadm wrote",
        "`./inv up` joins it again",
        {"node-files[w2]"},
    ),
    "a control plane whose manifest is empty": (
        (
            section("cp2", "membership", "damaged\n/etc/kubernetes/manifests/etcd.yaml is empty\n"),
            section("cp2", "etcd-health", "", 1),
        ),
        "cp2 has lost files that kubeadm wrote",
        "`./inv up` writes them again",
        {"node-files[cp2]", "etcd-member-healthy[cp2]"},
    ),
    "CoreDNS that was deleted": (
        (
            section("cp1", "unfinished", "control-plane-init the cluster lacks its Deployment coredns\n"),
            without("coredns-"),
        ),
        "the cluster lacks its Deployment coredns",
        "`./inv up` creates it again",
        {"cluster-objects", "coredns-spread"},
    ),
    "two objects that were deleted": (
        (
            section(
                "cp1",
                "unfinished",
                "control-plane-init the cluster lacks its Deployment coredns\n"
                "control-plane-init the cluster lacks its DaemonSet kube-proxy\n",
            ),
            without("kube-proxy-"),
        ),
        "the cluster lacks its Deployment coredns and DaemonSet kube-proxy",
        "`./inv up` creates them again",
        {"cluster-objects", "kube-proxy[w1]"},
    ),
    "kube-router that was deleted": (
        (
            section("cp1", "unfinished", "pod-network\n"),
            without("kube-router-"),
            seen("w1", "policy:w2:tcp:8081", "w2"),
        ),
        "kube-router runs on no node, so NetworkPolicies deny nothing to new pods",
        "`./inv up` applies its manifest again",
        {"cluster-objects", "network-policy-agent[w1]", "network-policy-agent[cp1]", "network-policy[w2]"},
    ),
    "a kube-router that the API refuses": (
        (admission(namespaces={"kube-system": RESTRICTED}), without("kube-router-", "w2")),
        f"the label pod-security.kubernetes.io/enforce=restricted on the namespace kube-system {OWN_PODS}",
        f"{KUBECTL} label --overwrite namespace kube-system pod-security.kubernetes.io/enforce=privileged` "
        "allows them",
        {"network-policy-agent[w2]"},
    ),
    "a kubelet that was stopped": (
        (kubelet_stopped("w3"), node("w3", ready=False)),
        "the kubelet on w3 does not run",
        "`./inv up` starts it",
        {"node-services[w3]", "node-ready[w3]"},
    ),
    "the load balancer that is paused": (
        (not_running("paused", "lb1"), UNASKED),
        "lb1 is paused",
        "`./inv up` resumes it",
        {"haproxy-runs[lb1]", "node-ready[w1]", "exact-nodes", "backend-up[cp1]"},
    ),
    "a majority of etcd that is paused": (
        (not_running("paused", "cp1", "cp3"), UNASKED),
        "cp1 and cp3 are paused",
        "`./inv up` resumes them",
        {"node-ready[w1]", "kube-proxy[w2]", "exact-nodes"},
    ),
    "HAProxy that was stopped": (
        (haproxy_stopped,),
        "HAProxy does not run on lb1",
        "`./inv up` writes its configuration again and starts it; `./inv ssh lb1 -- sudo journalctl",
        {"haproxy-runs[lb1]", "api-through-it", "backend-up[cp1]", "node-ready[w1]", "pod-to-pod[w2]"},
    ),
    "HAProxy that ends again and again": (
        (haproxy_loops,),
        "HAProxy ends soon after each start on lb1",
        "`./inv up` writes its configuration again",
        {"haproxy-runs[lb1]"},
    ),
    "an administrator whose binding was deleted": (
        (
            api(**dict.fromkeys(("nodes", "pods", "leases", "endpoints", "secrets"), FORBIDDEN)),
            lambda f: replace(f, probes=Unknown(f"pods could not be asked: {FORBIDDEN.reason}")),
            *(section(name, "unfinished", UNBOUND) for name in ("cp1", "cp2", "cp3")),
        ),
        "the API refuses the lab's administrator: the ClusterRoleBinding kubeadm:cluster-admins was deleted or "
        "changed",
        "`./inv up` creates it again",
        {"cluster-objects", "exact-nodes", "node-ready[w1]", "no-bootstrap-token", "pod-to-pod[w2]"},
    ),
    "a kubelet that ends again and again": (
        (kubelet_loops("w1"),),
        "the kubelet on w1 ends soon after each start",
        "`./inv ssh w1 -- sudo journalctl -u kubelet -n 50` shows why; `./inv replace w1` creates",
        {"node-services[w1]", "node-ready[w1]"},
    ),
    "an API whose servers are all down": (
        (unreached(NO_SERVER_UP),),
        f"the API is not reached through the load balancer at {URL}: {NO_SERVER_UP}",
        "`./inv up` starts API servers and etcd members that are down; `./inv verify -k",
        {"api-through-it", "node-ready[w1]", "pod-to-pod[w2]"},
    ),
    "an add-on that was scaled to 0": (
        (
            section("cp1", "unfinished", "addons metrics-server is not what its manifest says\n"),
            api(metrics="503 the server is currently unable to handle the request"),
        ),
        "the add-on metrics-server was changed or deleted since `up` applied it",
        "`./inv up` applies its manifest again",
        {"cluster-objects", "metrics-server"},
    ),
    "an add-on of which something was deleted": (
        (
            section("cp1", "unfinished", "addons local-path lacks its StorageClass local-path\n"),
            probes(volume="its claim has no volume (Pending): its kubelet has not taken it up"),
        ),
        "the add-on local-path was changed or deleted since `up` applied it",
        "`./inv up` applies its manifest again",
        {"cluster-objects", "local-path"},
    ),
    "a kubelet without a serving certificate": (
        (
            told_otherwise("w1", "certificates", f"# {KUBELET_SERVING}", "# /var/lib/kubelet/pki/old.pem"),
            api(metrics=frozenset({"cp1", "cp2", "cp3", "w2", "w3"})),
        ),
        "w1 has no serving certificate for the kubelet that the cluster has signed",
        "`./inv up` approves its request",
        {"kubelet-certificate[w1]", "metrics-server"},
    ),
    "a scheduler that listens at 127.0.0.1": (
        (
            told_otherwise(
                "cp2", "metrics", "kube-scheduler certificate 200", "kube-scheduler certificate 000 x"
            ),
            api(
                pods=tuple(
                    replace(pod, ready=False) if pod.name == "kube-scheduler-cp2" else pod
                    for pod in known(facts().api.pods)
                )
            ),
        ),
        "kube-scheduler on cp2 does not answer at 192.168.57.12, port 10259, where its probes ask it: it has "
        "ended, or its manifest has another --bind-address than 0.0.0.0",
        "`./inv up` writes /etc/kubernetes/manifests/kube-scheduler.yaml again",
        {"control-plane-metrics[cp2]", "static-pods-ready[cp2]", "system-pods-ready"},
    ),
    "an API that is silent": (
        (unreached("no answer within 4 s"),),
        f"the API is not reached through the load balancer at {URL}: no answer within 4 s",
        "`./inv up` starts what does not run",
        {"api-through-it", "node-ready[w1]", "pod-to-pod[w2]"},
    ),
    "machines that this host keeps apart": (
        (apart, kept_apart_by(RULE)),
        f"no machine reaches another one (no answer within 3 s): {RULE.what}",
        RULE.repair,
        {"machines-reach-one-another", "api-through-it", "node-ready[w1]", "pod-to-pod[w2]"},
    ),
    "machines that something unknown keeps apart": (
        (apart,),
        "no machine reaches another one (no answer within 3 s)",
        LOOK,
        {"machines-reach-one-another", "api-through-it"},
    ),
    "one machine that this host keeps apart": (
        (section("w1", "reach", "lb1 No route to host\ncp1\ncp2\ncp3\n"), kept_apart_by(RULE)),
        f"w1 does not reach lb1 (No route to host): {RULE.what}",
        RULE.repair,
        {"machines-reach-one-another"},
    ),
    "a CA that has expired": (
        (files(ca_valid=EXPIRED), unreached("its certificate is not accepted (certificate has expired)")),
        EXPIRED.problem(NOW) or "",
        "date -u ",
        {"api-through-it", "node-ready[w1]"},
    ),
    "a kubeconfig whose certificate has expired": (
        (
            files(client_valid=replace(EXPIRED, whose="the client certificate")),
            api(nodes=Unknown(REFUSED), health=dict.fromkeys(facts().api.health, (401, "Unauthorized"))),
        ),
        (EXPIRED.problem(NOW) or "").replace("the lab's CA", "the client certificate"),
        "date -u   # is this correct? If not, set the clock: sudo timedatectl set-ntp true\n./inv up ",
        {"kubeconfig-expiry", "api-through-it", "node-ready[w1]"},
    ),
    "a CA that can't be read": (
        (files(ca_valid=Unknown("the lab's CA can't be read: x")), unreached("x")),
        "the lab's CA can't be read: x",
        "restore it: each control plane has it in /etc/kubernetes/pki/ca.crt",
        {"api-through-it", "node-ready[w1]"},
    ),
}


@pytest.mark.parametrize("what", TABLE)
def test_a_sign_shows_its_cause_once_with_what_helps_and_what_it_explains(what: str) -> None:
    alter, sentence, fix, explains = TABLE[what]
    cause = only(*alter)
    assert cause.what == sentence
    assert cause.fix.startswith(fix)
    assert explains <= set(cause.explains)
    assert "destroy" not in cause.fix or "CA is expired" in cause.what, "machines can't be given another CA"


def of_two(*alter: Alter) -> causes.cause.Found:
    """What is wrong with the load balancers' parts in a lab with two of them."""
    found = pair_facts()
    for each in alter:
        found = each(found)
    said = [case.judge(found) for case in cases(pair_lab()) if case.group == "load balancer"]
    return causes.cause.Found(pair_lab(), found, tuple(verdict for verdict in said if not verdict.good))


BOTH = section("lb2", "virtual-address", f"holds {MACS['lb2']}")
NEITHER = section("lb1", "virtual-address", "sees ")


@pytest.mark.parametrize(
    ("alter", "sentence", "fix", "explains"),
    [
        (
            (BOTH,),
            "lb1 and lb2 both have the API's address, 192.168.57.10: they do not hear one another",
            "`./inv up` writes keepalived's configuration again; if both still have the address, something",
            {"one-holder"},
        ),
        (
            (NEITHER, unreached("no answer within 4 s")),
            "no load balancer has the API's address, 192.168.57.10",
            "`./inv up` starts HAProxy and keepalived where they do not run; `./inv ssh lb1 -- sudo journalctl",
            {"one-holder", "address-agreed", "api-through-it"},
        ),
    ],
)
def test_an_address_that_both_load_balancers_have_or_neither_is_one_cause(
    alter: tuple[Alter, ...], sentence: str, fix: str, explains: set[str]
) -> None:
    found = of_two(*alter)
    [cause] = causes.find(found.lab, found.facts, found.bad)
    assert cause.what == sentence
    assert cause.fix.startswith(fix)
    assert set(cause.explains) == explains


def test_an_address_is_no_cause_where_the_load_balancer_that_may_have_it_is_silent() -> None:
    found = of_two(silent("lb1"))
    assert causes.find(found.lab, found.facts, found.bad) == ()


def test_one_haproxy_of_two_that_is_stopped_is_the_cause_of_what_it_can_t_say() -> None:
    runs = "Id=haproxy.service\nActiveState=active"
    stopped = told_otherwise("lb2", "services", runs, runs.replace("=active", "=inactive"))
    found = of_two(stopped, *(section("lb2", name, "refused", 1) for name in ("backends", "spread")))
    [cause] = causes.find(found.lab, found.facts, found.bad)
    assert cause.what == "HAProxy does not run on lb2"
    assert set(cause.explains) == {verdict.title for verdict in found.bad}
    assert {"haproxy-runs[lb2]", "same-backends", "backend-up[cp1]"} <= set(cause.explains)


def test_every_sign_is_seen() -> None:
    seen_in = [causes.cause.Found(lab(), altered(*alter), bad(*alter)) for alter, *_ in TABLE.values()]
    shown = {sign.of for found in (*seen_in, of_two(BOTH)) for sign in SIGNS if _shows(sign, found)}
    assert shown == {sign.of for sign in SIGNS}


def _shows(sign: causes.Sign, found: causes.cause.Found) -> bool:
    return any(cause.is_of(verdict) for cause in sign.shows(found) for verdict in found.bad)


def test_a_lab_that_is_well_has_no_cause() -> None:
    assert found_in() == ()


@pytest.mark.parametrize(
    "there",
    [
        admission(webhooks=(hook(),)),
        admission(quotas=(FULL,)),
        admission(limits=(LimitFact("kube-system", "tiny"),)),
        admission(namespaces={"kube-system": RESTRICTED}),
        refusals("for whatever reason"),
    ],
)
def test_what_is_only_there_is_no_cause_of_something_else(there: Alter) -> None:
    assert found_in(there, section("w1", "kubelet-server", "https://192.168.57.11:6443")) == ()
    assert found_in(there, node("w1", version="v1.35.4")) == ()


@pytest.mark.parametrize(
    "there",
    [
        admission(webhooks=(replace(hook(), refuses=False),)),
        admission(webhooks=(hook(None),)),
        admission(webhooks=(hook(rules=[PODS | {"apiGroups": ["apps"]}]),)),
        admission(
            webhooks=(
                hook(
                    namespaceSelector={
                        "matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["kube-system"]}]
                    }
                ),
            )
        ),
        admission(quotas=(QuotaFact("kube-system", "q", ("services",), ("services",)),)),
        admission(quotas=(QuotaFact("kube-flannel", "q", ("pods",), ("pods",)),)),
        admission(namespaces={"kube-system": {"pod-security.kubernetes.io/warn": "restricted"}}),
        refusals("whatever", namespace="kube-flannel"),
        lambda found: replace(found, admission=Unknown("not asked")),
        admission(webhooks=Unknown("x"), quotas=Unknown("x"), limits=Unknown("x"), namespaces=Unknown("x")),
    ],
)
def test_what_can_t_be_the_reason_is_no_cause(there: Alter) -> None:
    assert found_in(there, NO_PROXY) == ()


def test_all_that_fails_while_haproxy_is_stopped_has_one_cause() -> None:
    cause = only(haproxy_stopped)
    assert set(cause.explains) == {verdict.title for verdict in bad(haproxy_stopped)}
    assert len(cause.explains) > 80
    assert not cause.passes


def test_beside_an_api_that_is_not_reached_the_state_of_its_servers_is_shown() -> None:
    alter = told_otherwise("cp1", "etcd-health", "true", "false"), unreached(NO_SERVER_UP)
    cause = only(*alter)
    assert {v.title for v in bad(*alter)} - set(cause.explains) == {"etcd-member-healthy[cp1]"}
    assert cause.passes, "an election is over soon"


def test_an_answer_that_was_late_is_not_taken_for_an_api_that_is_not_reached() -> None:
    late: Any = Unknown(f"the API at {URL} can't be asked: no answer within 4 s")
    assert found_in(api(leases=late, secrets=late)) == ()
    assert found_in(api(nodes=late)) == ()


def test_a_load_balancer_that_was_not_asked_or_can_t_be_read_is_no_cause() -> None:
    unread = section("lb1", "services", "Id=haproxy.service")
    assert [cause.what.partition(" at ")[0] for cause in found_in(unread, unreached("x"))] == [
        "the API is not reached through the load balancer"
    ]


def test_a_kubelet_s_last_error_is_shown_and_is_no_part_of_what_its_cause_is() -> None:
    cause = only(kubelet_loops("w1"))
    error = f'its last error: "command failed" err="{LOAD_FAILED}"'
    assert re.fullmatch(
        rf"systemd has restarted kubelet 12 times, last [345] s ago; {re.escape(error)}", cause.detail
    )
    assert cause.sentence == f"{cause.what}: {cause.detail}"
    assert not cause.passes
    unknown = section("w1", "kubelet-error", "x", 1)
    assert "its last error" not in only(kubelet_loops("w1"), unknown).sentence


def test_the_only_control_plane_is_not_advised_to_be_replaced() -> None:
    alone = lab().model_copy(update={"nodes": tuple(n for n in lab().nodes if n.name not in ("cp2", "cp3"))})
    found = kubelet_loops("cp1")(facts())
    [cause] = machines.kubelets(causes.cause.Found(alone, found, ()))
    assert "replace" not in cause.fix


def test_one_machine_that_is_apart_by_itself_is_named_by_its_own_check() -> None:
    assert found_in(section("w1", "reach", "lb1 No route to host\ncp1\ncp2\ncp3\n")) == ()


def test_a_ca_that_is_valid_is_no_cause() -> None:
    [cause] = found_in(files(ca_valid=VALID), unreached("x"))
    assert "CA" not in cause.what


def test_a_pod_that_is_there_and_not_ready_was_not_refused() -> None:
    not_ready = pods(lambda p: replace(p, ready=False) if p.name.startswith("kube-proxy-") else p)
    assert found_in(admission(webhooks=(hook(),)), not_ready) == ()


def test_a_user_s_pod_that_waits_for_its_image_is_no_cause() -> None:
    def change(pod: PodFact) -> PodFact:
        lacks = replace(pod, namespace="default", waiting=(Waiting("mine:1", "ErrImagePull"),))
        return lacks if pod.name.startswith("coredns-") else pod

    assert found_in(pods(change)) == ()


@pytest.mark.parametrize(
    ("alter", "passes"),
    [
        ((admission(webhooks=(hook(),)), NO_PROXY), False),
        ((admission(webhooks=(replace(hook(), recovers=True),)), NO_PROXY), True),
        ((admission(quotas=(FULL,)), NO_PROXY), False),
        ((refusals("whatever"), NO_PROXY), True),
        ((waiting("kube-proxy-", "w1", "ErrImageNeverPull"),), False),
        ((waiting("kube-proxy-", "w1", "ImagePullBackOff"),), True),
        ((node("w1", pressures=("DiskPressure",), taints=("x",)),), False),
        ((not_running("paused", "w1"),), False),
    ],
)
def test_a_cause_passes_where_waiting_may_cure_it(alter: tuple[Alter, ...], passes: bool) -> None:
    assert only(*alter).passes is passes


def test_a_node_that_was_deleted_has_not_failed_to_join() -> None:
    assert found_in(api(nodes=tuple(n for n in known(facts().api.nodes) if n.name != "w2"))) == ()


def test_a_node_that_is_missing_for_another_reason_is_not_hidden() -> None:
    lacking = api(nodes=tuple(n for n in known(facts().api.nodes) if n.name not in ("w2", "w3")))
    cause = only(section("w2", "membership", "partial\n"), lacking)
    assert cause.what == "w2 has not joined the cluster"
    assert "exact-nodes" not in cause.explains


def test_what_is_private_to_a_machine_is_not_hidden_by_its_lost_files() -> None:
    alter = (
        section("cp2", "membership", "damaged\n/etc/kubernetes/scheduler.conf is empty\n"),
        section("cp2", "logins", "ssh-ed25519 A ha-lab\nssh-ed25519 B me"),
    )
    assert {verdict.title for verdict in bad(*alter)} == {"node-files[cp2]", "logins[cp2]"}
    assert only(*alter).explains == ("node-files[cp2]",)


def test_up_is_not_advised_where_most_members_are_empty() -> None:
    fixes = [
        each.fix
        for each in found_in(*(section(name, "membership", "partial\n") for name in ("cp1", "cp2")))
        if "has not completed its join" in each.what
    ]
    assert fixes == ["`./inv plan` shows what can be recovered"] * 2


def test_a_join_that_is_not_complete_is_not_called_a_loss() -> None:
    assert only(section("w2", "membership", "partial\n")).what == "w2 has not completed its join"


def test_several_images_of_a_node_are_one_cause() -> None:
    first = waiting("kube-proxy-", "w1", "ErrImageNeverPull", "proxy:1")

    def both(found: Facts) -> Facts:
        changed = tuple(
            replace(p, ready=False, waiting=(Waiting("flannel:1", "ErrImageNeverPull"),))
            if p.name.startswith("kube-flannel-ds-") and p.node == "w1"
            else p
            for p in known(first(found).api.pods)
        )
        return api(pods=changed)(found)

    assert only(both).what == "w1 no longer has the images flannel:1 and proxy:1"


def test_nodes_under_the_same_pressure_are_one_cause() -> None:
    full = tuple(replace(n, pressures=("DiskPressure",), taints=("x",)) for n in known(facts().api.nodes))
    assert only(api(nodes=full)).what.startswith("cp1, cp2, cp3, w1, w2 and w3 have too little disk space")


def test_commands_are_for_a_control_plane_that_serves() -> None:
    direct = facts().api.direct
    down = api(direct={**direct, "cp1": dict.fromkeys(direct["cp1"], Unknown("timed out"))})
    cause = only(
        admission(quotas=(FULL,)), NO_PROXY, lambda f: replace(f, api=replace(f.api, direct=down(f).api.direct))
    )
    assert "`./inv ssh cp2 -- sudo kubectl" in cause.fix


def test_a_few_of_the_checks_are_named() -> None:
    cause = only(admission(webhooks=(hook(None),)), probes_refused(NO_SERVICE))
    assert cause.affected.endswith(f" and {len(PROBED) - NAMED} more")
    assert cause.affected.count("[") == NAMED
    assert only(admission(webhooks=(hook(),)), NO_PROXY).affected == "kube-proxy[w2]"


def test_what_is_explained_are_the_titles_of_all_causes() -> None:
    found = found_in(admission(quotas=(FULL,)), NO_PROXY)
    assert causes.explained(found) == {"kube-proxy[w2]"}
