"""The eleven tasks: TASKS has all of them, each with the result of the chapter of its number."""

from __future__ import annotations

from lab.model import Lab, Node
from lab.model.selectors import (
    balancers,
    cluster_machines,
    control_planes,
    every_machine,
    first,
    kubernetes_nodes,
)
from lab.workshop.task import afterwards, cluster, machines
from lab.workshop.task.task import Asks, Checks, Task


def _balancers_and_first(lab: Lab) -> tuple[Node, ...]:
    return (*lab.balancers, lab.first)


TASKS = (
    Task(
        1,
        "machines",
        "the machines answer",
        asks=Asks(every_machine, ("here", "services", "kernel")),
        parts=(
            machines.answer(every_machine),
            Checks(("own-name", "network-services", "kernel-settings"), kubernetes_nodes),
            machines.container_runtime,
        ),
        hints=(
            "`./inv up --until load-balancer` creates the machines, from any state",
            "`./inv doctor` shows whether this host is fit for them; `./inv ssh {first}` logs in to one",
            "if a machine can't be repaired: `./inv destroy`, then `./inv up --until load-balancer`",
        ),
    ),
    Task(
        2,
        "quorum",
        "the parts of a control plane are there",
        asks=Asks(control_planes, ("programs", "images", "certificates", "ca-key")),
        parts=(
            machines.answer(control_planes),
            machines.programs_there,
            machines.images_there,
            machines.ca_there,
            Checks(("cluster-ca",), first),
        ),
        hints=(
            "look on {first}: `ls /etc/kubernetes/pki`, `ctr --namespace k8s.io images list`",
            "the CA comes from the host, so that HAProxy can verify the API servers from the beginning",
            "`./inv up --until control-plane` puts the CA there",
        ),
    ),
    Task(
        3,
        "load-balancer",
        "HAProxy is in front of the API servers",
        asks=Asks(balancers, ("services", "configuration", "lab-configuration", "unread", "listening")),
        parts=(
            machines.answer(balancers),
            machines.configured,
            Checks(("haproxy-configuration",)),
            machines.as_the_lab_s,
            Checks(("haproxy-runs",), failed="not yet", hint="on it: `systemctl enable --now haproxy`"),
            machines.was_read,
            machines.listens,
        ),
        hints=(
            "what you need is in /opt/ha-lab on {balancer}; the packaged file is in /usr/share/ha-lab",
            "the CA and cut-off.lua go to /etc/haproxy; haproxy.cfg is the packaged file followed by the lab's",
            "`haproxy -c -f /etc/haproxy/haproxy.cfg` shows what is wrong; then `systemctl enable haproxy` and "
            "`systemctl restart haproxy`",
            "`./inv up --until control-plane` does it for you",
        ),
    ),
    Task(
        4,
        "control-plane",
        "the first control plane serves the API",
        asks=Asks(
            _balancers_and_first,
            ("membership", "kubeadm", "admin-server", "endpoint", "certificates", "ca-key", "backends"),
            api=True,
        ),
        parts=(
            machines.answer(_balancers_and_first),
            cluster.ready_for_init,
            cluster.initialised,
            cluster.with_the_lab_s_ca,
            cluster.endpoint_is_the_lab_s,
            Checks(("admin-kubeconfig",), first),
            Checks(("api-server-healthy",), first),
            Checks(("backend-up",), first),
            Checks(("api-through-it",)),
            Checks(("node-as-declared",), first),
        ),
        hints=(
            "/opt/ha-lab/kubeadm-init.yaml on {first} has two placeholders, @BOOTSTRAP_TOKEN@ and "
            "@CERTIFICATE_KEY@",
            "`kubeadm token generate` and `kubeadm certs certificate-key` create their values",
            "on {first}: `kubeadm init --config /root/kubeadm-init.yaml --upload-certs`, with the flags of "
            "the chapter; after a failed init `kubeadm reset --force`, then `./inv up --until control-plane`",
            "`./inv up --until pod-network` does it for you",
        ),
    ),
    Task(
        5,
        "certificates",
        "certificates are valid, and machines can join",
        asks=Asks(first, ("membership", "kubeadm", "certificates"), api=True),
        parts=(
            machines.answer(first),
            cluster.after_init,
            Checks(("cluster-ca", "certificate-names", "certificate-expiry", "api-server-healthy"), first),
            cluster.lets_machines_in,
        ),
        hints=(
            "there is nothing to do here, only to look: it is done once task 4 is",
            "on {first}: `kubeadm certs check-expiration`, and `openssl x509 -noout -text -in "
            "/etc/kubernetes/pki/apiserver.crt`",
            "`./inv up --until pod-network` creates a new token and certificate key if they have expired",
        ),
    ),
    Task(
        6,
        "joins",
        "every machine has joined",
        asks=Asks(cluster_machines, ("membership", "kubeadm", "etcd-members"), api=True),
        parts=(
            machines.answer(cluster_machines),
            cluster.after_init,
            cluster.joined,
            Checks(("exact-nodes", "node-as-declared", "etcd-members", "etcd-no-learner")),
        ),
        hints=(
            "/root/secrets.sed on {first} has the values for /opt/ha-lab/kubeadm-join.yaml on each machine",
            "workers in any order; control planes one after the other if etcd runs on them, since etcd takes "
            "one learner at a time, otherwise in any order, too",
            "on each: `kubeadm join --config /root/kubeadm-join.yaml`, with the flags of the chapter; "
            "undo a failed join with `kubeadm reset --force`",
            "`./inv up` joins every machine that has not joined",
        ),
    ),
    Task(
        7,
        "pod-network",
        "pods have a network",
        asks=Asks(first, ("membership", "kubeadm"), api=True),
        parts=(
            machines.answer(first),
            cluster.after_init,
            cluster.all_joined,
            cluster.network_applied,
            cluster.agents_live,
            Checks(("pod-network-agent", "node-ready"), failed="not yet"),
            cluster.coredns_ready,
        ),
        hints=(
            "/opt/ha-lab/pod-network on {first} is a folder for `kubectl kustomize`",
            "`kubectl kustomize --load-restrictor LoadRestrictionsNone /opt/ha-lab/pod-network` builds the "
            "manifest, `kubectl apply -f` applies it",
            "nodes are Ready seconds after flannel starts there: `kubectl get nodes`, `kubectl get pods -A`",
            "`./inv up --until joins` applies it for you",
        ),
    ),
    Task(
        8,
        "look-around",
        "all checks hold",
        asks=Asks(every_machine, api=True),
        before=(afterwards.fault_is_out,),
        parts=(
            machines.answer(every_machine),
            cluster.after_init,
            cluster.all_joined,
            afterwards.all_hold,
            afterwards.verified,
        ),
        hints=(
            "`./inv up` completes what was done manually, and revokes what lets new machines join",
            "then `./inv verify`: each check that fails shows what it means and what to try",
        ),
    ),
    Task(
        9,
        "break",
        "something was broken on purpose",
        parts=(afterwards.drilled,),
        hints=(
            "`./inv drill --list` shows what can be broken",
            "`./inv drill kill-control-plane` measures it; with --keep the fault stays, to look around",
        ),
    ),
    Task(
        10,
        "mend",
        "the lab has recovered",
        asks=Asks(every_machine, api=True),
        before=(afterwards.drilled, afterwards.fault_is_out),
        parts=(afterwards.healthy,),
        hints=(
            "`./inv drill --heal` reverts what a drill left in the lab",
            "`./inv status` shows what is still wrong, and `./inv up` repairs what it can",
        ),
    ),
    Task(
        11,
        "clean-up",
        "nothing is left",
        parts=(afterwards.nothing_left,),
        hints=("`./inv destroy` removes the lab; the golden machine stays for the next one",),
    ),
)
