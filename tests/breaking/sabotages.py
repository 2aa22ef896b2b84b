"""Every way in which the suite breaks a healthy lab: which checks must not hold, and what `up` must do.

docs/faults.md is the table of both (tests/breaking/page.py).

Tests of the acceptance list (tests/live/test_acceptance.py) are checks here, by the names that `verify` shows.

Commands run as root on the machine `on`, with provision/node's functions at hand (`as_admin`, `etcd`); on
"host" as this process does, with $NAME (the lab's) and $LAB (its `.lab/`). In all of them and in `expected`
{it} is the machine that was chosen: WORKER is one without a CoreDNS pod, CONTROL_PLANE one that holds no leader
lease, so that nothing else breaks with it; HOLDER and STANDBY are load balancers of two. `check[*]` is that
check on every machine that it is about.

`until` (machine, command) is when the break has had its effect; verify is run as soon as it succeeds. Once `up`
has repaired the break, the command fails.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKER, CONTROL_PLANE, HOST = "a worker", "a control plane", "host"
HOLDER, STANDBY = "the load balancer with the API's address", "the other load balancer"


@dataclass(frozen=True)
class Repairs:
    """`up` ends with exit code 0, and then every check holds that did not. `how` continues "`up` …".

    With `traces`, the break leaves some that no check is about; they are undone after that.
    """

    how: str
    traces: bool = False


@dataclass(frozen=True)
class Says:
    """Within a minute `up` shows the cause and what to do, and leaves the fault as it is.

    It ends with exit code 1, or with 0 where it is a warning. `cause` and `helps` are parts of its output.
    """

    cause: str
    helps: str
    warns: bool = False


@dataclass(frozen=True)
class NoMistake:
    """Not a mistake of a user, so it is undone before `up` is run. `why` says how it comes about."""

    why: str


@dataclass(frozen=True)
class Sabotage:
    """One break, what undoes it, the checks that do not hold meanwhile, and what `up` does about it.

    `follows` may not hold either, once the break has lasted for some time: leases run out. A break that is
    `contained` has no effect beyond what `expected` names, whatever else is broken. `up` gives up on one that
    is `in_the_way` before it has done everything else. The lab has these `addons` for it, and no others: a
    metrics-server notices much that is broken elsewhere. CI has no time for one that is `whole`. One of a
    `pair` is for a lab with two load balancers, an `external` one for a lab whose etcd has machines of its own.
    """

    name: str
    on: str
    breaks: str
    heals: str
    expected: tuple[str, ...]
    up: Repairs | Says | NoMistake
    until: tuple[str, str] | None = None
    follows: tuple[str, ...] = ()
    contained: bool = False
    in_the_way: bool = False
    addons: tuple[str, ...] = ()
    whole: bool = False
    pair: bool = False
    external: bool = False


PODS_UNASKED = ("pod-to-pod", "cluster-ip", "node-port", "dns", "network-policy", "pod-logs", "pod-exec")
"""What can't be asked where no pod runs."""

NO_POD_ON_IT = ("pod-starts[{it}]", *(f"{check}[{{it}}]" for check in PODS_UNASKED))

NO_API = (
    *(
        "api-through-it",
        "cluster-objects",
        "identity-leases",
        "api-endpoints",
        "leader-leases",
        "static-pods-ready[*]",
    ),
    *("exact-nodes", "node-ready[*]", "node-as-declared[*]", "node-taints[*]", "kube-proxy-server"),
    *("kube-proxy[*]", "pod-network-agent[*]", "network-policy-agent[*]", "system-pods-ready"),
    *("coredns-spread", "restarts-stand-still"),
    *("pod-starts[*]", "pod-addresses", *(f"{check}[*]" for check in PODS_UNASKED)),
    *("no-bootstrap-token", "no-uploaded-certificates"),
    *("healthz-answers-ok-through-the-load-balancer", "nodes-are-all-ready"),
)
"""What nobody can ask while the API is not reached through the load balancer."""

REFUSED = tuple(
    check for check in NO_API if check not in ("api-through-it", "healthz-answers-ok-through-the-load-balancer")
)
"""What nobody can ask while the API lets the administrator do nothing. It says to anyone that it is healthy."""

OUT_OF_SERVICE = (
    "api-server-healthy[{it}]",
    "backend-up[{it}]",
    "backend-takes-connections[{it}]",
    *NO_POD_ON_IT,
)
"""One API server that does not serve. Its own kubelet learns of nothing new, so no pod starts there either."""

ETCD_MEMBER_SILENT = (
    *("etcd-member-healthy[{it}]", "etcd-members[{it}]", "etcd-same-members", "etcd-no-learner"),
    *("etcd-one-leader", "etcd-in-step", "etcd-no-alarm"),
)

LEASES_RUN_OUT = (
    # Scheduler and controller manager ask their own API server who may read their metrics.
    "control-plane-metrics[{it}]",
    *("identity-leases", "api-endpoints", "node-ready[{it}]", "node-taints[{it}]", "static-pods-ready[{it}]"),
    *("kube-proxy[{it}]", "pod-network-agent[{it}]", "network-policy-agent[{it}]", "system-pods-ready"),
    "nodes-are-all-ready",
)
"""What the cluster says, 15 to 50 s later, of a node whose API server or kubelet is not there."""

OTHERS_HANG = (
    *("node-ready[*]", "node-taints[*]", "kube-proxy[*]", "pod-network-agent[*]", "network-policy-agent[*]"),
    "coredns-spread",
    *("pod-starts[*]", *(f"{check}[*]" for check in PODS_UNASKED)),
)
"""What nodes show whose kubelet or kube-proxy uses an API server that was well for a moment only."""

STAT = "echo show stat | socat -t 5 - /run/haproxy/admin.sock"
INPUT = "nft add table ip sabotage; nft 'add chain ip sabotage in { type filter hook input priority -300; }'"
PREROUTING = INPUT.replace("hook input", "hook prerouting")
SSH = "ssh -F $LAB/ssh_config"
# keepalived adds the address without the network's length: it is the only /32.
HOLDS = f"{SSH} {{0}} ip -brief -4 address show | grep -q '/32'"
BOTH_HOLD = (HOST, f"{HOLDS.format('lb1')} && {HOLDS.format('lb2')}")
NONE_HOLDS = (HOST, f"! {HOLDS.format('lb1')} && ! {HOLDS.format('lb2')}")
BY_EXEC = ("pod-logs", "pod-exec", "pod-to-pod", "cluster-ip", "dns", "network-policy")
"""The checks that hold a connection to the API while they ask pods."""
KEEP = "as_admin -n kube-system get {0} -o yaml >'/run/{0}'"
GIVE_BACK = (
    "as_admin -n kube-system get {0} >/dev/null || "
    "sed '/^  \\(resourceVersion\\|uid\\):/d' '/run/{0}' | as_admin create --filename -"
)
SEEN_DOWN = ("lb1", f"{STAT} | grep -q '^apiserverbackend,{{it}},.*,DOWN,'")
ALL_SEEN_DOWN = ("lb1", f"{STAT} | grep -q '^apiserverbackend,BACKEND,.*,DOWN,'")
NO_AGENT_ON_W3 = ("cp1", "none as_admin -n kube-flannel get pods --field-selector spec.nodeName=w3 -o name")

SABOTAGES = (
    # ---- load balancer
    Sabotage(
        "a backend with a wrong port",
        "lb1",
        "sed -i '/server cp2 /s/:6443/:6444/' /etc/haproxy/haproxy.cfg; systemctl reload haproxy",
        "sed -i '/server cp2 /s/:6444/:6443/' /etc/haproxy/haproxy.cfg; systemctl reload haproxy",
        (
            "haproxy-has-a-server-for-each-control-plane[lb1]",
            *("backend-up[cp2]", "backend-belief[cp2]", "backend-takes-connections[cp2]"),
        ),
        up=Repairs("writes HAProxy's configuration again and reloads it"),
        until=("lb1", f"{STAT} | grep -q '^apiserverbackend,cp2,.*,DOWN,'"),
    ),
    Sabotage(
        "HAProxy disabled for the next boot",
        "lb1",
        "systemctl disable --quiet haproxy",
        "systemctl enable --quiet haproxy",
        ("haproxy-service-runs-and-is-enabled[lb1]", "haproxy-runs[lb1]"),
        up=Repairs("enables HAProxy"),
        contained=True,
    ),
    Sabotage(
        "an unknown line in HAProxy's configuration",
        "lb1",
        "echo '  nonsense' >>/etc/haproxy/haproxy.cfg",
        "sed -i '/^  nonsense$/d' /etc/haproxy/haproxy.cfg",
        ("haproxy-configuration-is-valid[lb1]", "haproxy-configuration[lb1]"),
        up=Repairs("writes HAProxy's configuration again and reloads it"),
        contained=True,
    ),
    Sabotage(
        "a wrong CA certificate on the load balancer",
        "lb1",
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=somebody -keyout /dev/null -days 9999 "
        "-out /etc/haproxy/kubernetes-ca.crt 2>/dev/null; systemctl reload haproxy",
        "cp /opt/ha-lab/ca.crt /etc/haproxy/kubernetes-ca.crt; systemctl reload haproxy",
        ("cluster-ca[lb1]", "backend-up[*]", "backend-belief[*]", "backend-takes-connections[*]", *NO_API),
        up=Repairs("copies the lab's CA certificate again and reloads HAProxy"),
        until=ALL_SEEN_DOWN,
    ),
    # Last of these, as it ends the processes that a reload has replaced. They keep their sessions and check no
    # server any more, so when a server freezes, nothing ends those, and a kubelet may lose its lease.
    Sabotage(
        "HAProxy stopped",
        "lb1",
        "systemctl stop haproxy",
        "systemctl start haproxy",
        (
            *("haproxy-service-runs-and-is-enabled[lb1]", "haproxy-listens-on-the-port-of-the-api[lb1]"),
            *("haproxy-runs[lb1]", "backend-up[*]", "backend-belief[*]", "backend-takes-connections[*]"),
            *NO_API,
        ),
        up=Repairs("starts HAProxy"),
    ),
    # ---- etcd on machines of its own
    Sabotage(
        "a kubelet stopped on an etcd machine",
        "etcd3",
        "systemctl stop kubelet",
        "systemctl start kubelet",
        ("etcd-machine-services[etcd3]",),
        up=Repairs("starts the kubelet"),
        external=True,
        whole=True,
    ),
    Sabotage(
        "a client certificate of etcd emptied on a control plane",
        "cp1",
        "cd /etc/kubernetes/pki && cp -a apiserver-etcd-client.crt /root/kept && : >apiserver-etcd-client.crt",
        "mv /root/kept /etc/kubernetes/pki/apiserver-etcd-client.crt",
        ("node-files[cp1]",),
        up=Repairs("makes it again with etcd's CA"),
        external=True,
        whole=True,
    ),
    Sabotage(
        "an etcd member on a machine of its own removed by mistake",
        "etcd3",
        'etcd member remove "$(own_member | cut -d" " -f1)"',
        "/opt/ha-lab/etcd.sh --existing",
        (
            "etcd-has-one-voting-member-on-each-control-plane",
            *("etcd-members[*]", "etcd-member-healthy[etcd3]", "etcd-machine-files[etcd3]"),
            *("etcd-same-members", "etcd-no-learner", "etcd-one-leader", "etcd-in-step", "etcd-no-alarm"),
            "etcd-machine-metrics[etcd3]",
        ),
        up=Repairs("adds the machine to etcd again, as a learner that is promoted"),
        external=True,
        whole=True,
    ),
    # ---- two load balancers
    Sabotage(
        "VRRP blocked between two load balancers (split brain)",
        HOLDER,
        "for way in INPUT OUTPUT; do iptables -I $way -p 112 -j DROP; done",
        "for way in INPUT OUTPUT; do iptables -D $way -p 112 -j DROP; done",
        ("one-holder",),
        up=Says("both have the API's address", "something drops VRRP between them"),
        until=BOTH_HOLD,
        # Both announce the address every five seconds; connections end when a machine believes the other one.
        follows=("address-agreed", *(f"{name}[*]" for name in BY_EXEC)),
        in_the_way=True,
        pair=True,
        whole=True,
    ),
    Sabotage(
        "keepalived stopped on both load balancers, so that neither has the API's address",
        HOST,
        "; ".join(f"{SSH} {name} sudo systemctl stop keepalived" for name in ("lb1", "lb2")),
        "; ".join(f"{SSH} {name} sudo systemctl start keepalived" for name in ("lb1", "lb2")),
        ("one-holder", "address-agreed", "keepalived-runs[*]", *NO_API),
        up=Repairs("starts keepalived"),
        until=NONE_HOLDS,
        pair=True,
        whole=True,
    ),
    Sabotage(
        "HAProxy stopped on the load balancer with the API's address",
        HOLDER,
        "systemctl stop haproxy",
        "systemctl start haproxy",
        (
            *("haproxy-service-runs-and-is-enabled[{it}]", "haproxy-listens-on-the-port-of-the-api[{it}]"),
            *("haproxy-runs[{it}]", "backend-up[*]", "backend-belief[*]", "backend-takes-connections[*]"),
            "same-backends",
        ),
        up=Repairs("starts HAProxy"),  # the other one keeps the address
        pair=True,
        whole=True,
    ),
    Sabotage(
        "keepalived stopped on the load balancer with the API's address",
        HOLDER,
        "systemctl stop keepalived",
        "systemctl start keepalived",
        ("keepalived-runs[{it}]",),
        up=Repairs("starts keepalived"),  # the other one keeps the address
        pair=True,
        whole=True,
    ),
    Sabotage(
        "a load balancer whose peer is not in keepalived's list",
        STANDBY,
        "sed -i '/unicast_peer/,/}/s/[.][0-9]*$/.11/' /etc/keepalived/keepalived.conf; "
        "systemctl reload keepalived",
        "/opt/ha-lab/load-balancer.sh",
        ("one-holder", "keepalived-configuration[{it}]"),
        up=Repairs("writes keepalived's configuration again and reloads it"),
        until=BOTH_HOLD,
        pair=True,
        whole=True,
    ),
    # ---- control planes and etcd
    Sabotage(
        "an API server frozen",
        CONTROL_PLANE,
        "kill -STOP $(pidof kube-apiserver)",
        "kill -CONT $(pidof kube-apiserver)",
        OUT_OF_SERVICE,
        up=NoMistake("takes SIGSTOP, and the kubelet restarts it when its liveness probe fails"),
        until=SEEN_DOWN,
        follows=LEASES_RUN_OUT,
        whole=True,
    ),
    Sabotage(
        "an etcd member frozen",
        CONTROL_PLANE,
        "kill -STOP $(pidof etcd)",
        "kill -CONT $(pidof etcd)",
        (*OUT_OF_SERVICE, *ETCD_MEMBER_SILENT, "control-plane-metrics[{it}]"),
        up=NoMistake("takes SIGSTOP, and the kubelet restarts it when its liveness probe fails"),
        until=SEEN_DOWN,
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "an etcd member removed",
        # The last one to join: only its manifest names all members, which etcd compares when it joins again.
        "cp3",
        "etcd member remove \"$(own_member | cut -d' ' -f1)\"",
        "mv $MANIFESTS/etcd.yaml /root/; "
        "until [[ -z $(pidof etcd) ]]; do sleep 0.2; done; rm -rf /var/lib/etcd/member; "
        "[[ -n $(own_member) ]] || etcd member add cp3 --peer-urls https://$NODE_ADDRESS:2380; "
        "mv /root/etcd.yaml $MANIFESTS/",
        (
            *("etcd-has-one-voting-member-on-each-control-plane", "etcd-members[*]", "node-files[cp3]"),
            *(check.replace("{it}", "cp3") for check in (*OUT_OF_SERVICE, *ETCD_MEMBER_SILENT)),
        ),
        up=Repairs("resets the control plane and joins it again"),
        until=("lb1", SEEN_DOWN[1].replace("{it}", "cp3")),
        # Its etcd is started again and again, and answers until it hears that it is no member.
        follows=(*LEASES_RUN_OUT, *OTHERS_HANG),
        whole=True,
    ),
    Sabotage(
        "an etcd learner left behind",
        "cp1",
        "etcd member add left-behind --learner --peer-urls https://$NODE_ADDRESS:23800",
        "etcd member list --write-out simple | awk -F', ' '$4 ~ /:23800$/ { print $1 }' | "
        "while read -r id; do etcd member remove $id; done",
        ("etcd-has-one-voting-member-on-each-control-plane", "etcd-members[*]", "etcd-no-learner"),
        up=Says("etcd-no-learner", "member remove ID"),
        contained=True,
    ),
    Sabotage(
        "a scheduler whose metrics only its own machine can read",
        CONTROL_PLANE,
        "sed -i 's/--bind-address=0.0.0.0/--bind-address=127.0.0.1/' $MANIFESTS/kube-scheduler.yaml",
        "sed -i 's/--bind-address=127.0.0.1/--bind-address=0.0.0.0/' $MANIFESTS/kube-scheduler.yaml",
        # Its probes ask at the machine's address, so the kubelet takes it for dead.
        ("control-plane-metrics[{it}]", "static-pods-ready[{it}]", "system-pods-ready"),
        up=Repairs("writes its manifest again"),
        until=(
            CONTROL_PLANE,
            "! curl -sk https://$NODE_ADDRESS:10259/healthz && curl -sk https://127.0.0.1:10259/healthz",
        ),
        follows=("restarts-stand-still",),
        whole=True,
    ),
    Sabotage(
        "an admin kubeconfig pointed at one control plane",
        "cp2",
        'sed -i "s#server: https://$API_ENDPOINT#server: https://$NODE_ADDRESS:6443#" $ADMIN',
        'sed -i "s#server: https://$NODE_ADDRESS:6443#server: https://$API_ENDPOINT#" $ADMIN',
        ("admin-conf-points-at-the-load-balancer[cp2]", "admin-kubeconfig[cp2]"),
        up=Repairs("sets the server again"),
        contained=True,
    ),
    # ---- workers and network
    Sabotage(
        "a kubelet stopped",
        WORKER,
        "systemctl stop kubelet",
        "systemctl start kubelet",
        ("kubelet-and-containerd-run[{it}]", "node-services[{it}]", *NO_POD_ON_IT),
        up=Repairs("starts the kubelet"),
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "a kubelet's client certificate emptied",
        WORKER,
        "cd /var/lib/kubelet/pki; cp kubelet-client-current.pem /root/; "
        "truncate --size 0 kubelet-client-current.pem; systemctl restart kubelet",
        "cp /root/kubelet-client-current.pem $(readlink -f /var/lib/kubelet/pki/kubelet-client-current.pem); "
        "systemctl restart kubelet",
        ("node-files[{it}]", "kubelet-and-containerd-run[{it}]", "node-services[{it}]", *NO_POD_ON_IT),
        up=Repairs("resets the worker and joins it again"),
        follows=LEASES_RUN_OUT,
        whole=True,
    ),
    Sabotage(
        "a machine paused",
        HOST,
        # runc gives up where processes start faster than it freezes them.
        "for _ in 1 2 3; do docker pause $NAME-{it} && exit; sleep 2; done; exit 1",
        "[[ $(docker inspect --format '{{.State.Paused}}' $NAME-{it}) == false ]] || docker unpause $NAME-{it}",
        (
            "unique-identities",
            *("kubelet-and-containerd-run[{it}]", "worker-reaches-the-api-through-the-load-balancer[{it}]"),
            *("node-services[{it}]", "kubelet-server[{it}]", "no-run-secret[{it}]", "logins[{it}]"),
            *("cluster-ca[{it}]", "certificate-expiry[{it}]", "own-name[{it}]", "network-services[{it}]"),
            *("kernel-settings[{it}]", "cgroup-driver[{it}]", "clock[{it}]", "pod-network-interface[{it}]"),
            *("node-files[{it}]", "kubelet-certificate[{it}]"),
            *NO_POD_ON_IT,
        ),
        up=Repairs("resumes the machine"),
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "a worker with its NAT address as --node-ip",
        WORKER,
        'address=$(ip -4 -o address show dev eth0 | awk \'{ sub("/.*", "", $4); print $4 }\'); '
        'sed -i "s/--node-ip=$NODE_ADDRESS/--node-ip=$address/" /var/lib/kubelet/kubeadm-flags.env; '
        "systemctl restart kubelet",
        'sed -i "s/--node-ip=[0-9.]*/--node-ip=$NODE_ADDRESS/" /var/lib/kubelet/kubeadm-flags.env; '
        "systemctl restart kubelet",
        # kube-router takes only pods at the node's own address for this node's.
        ("node-as-declared[{it}]", "network-policy[{it}]"),
        up=Repairs("sets the address again and restarts the kubelet"),
        until=(
            "cp1",
            "found=$(as_admin get node {it} -o jsonpath='{.status.addresses}') && "
            '! grep -q 192.168 <<<"$found"',
        ),
        whole=True,
    ),
    Sabotage(
        "a kubelet's port blocked for API servers",
        WORKER,
        f"{INPUT}; nft add rule ip sabotage in iif != lo tcp dport 10250 drop",
        "nft delete table ip sabotage",
        (
            *("pod-logs[{it}]", "pod-exec[{it}]", "pod-to-pod[{it}]", "cluster-ip[{it}]", "dns[{it}]"),
            "network-policy[{it}]",
        ),
        up=NoMistake("takes a firewall rule for this port only"),
    ),
    Sabotage(
        "a kubelet pointed at one control plane",
        WORKER,
        'sed -i "s#server: https://$API_ENDPOINT#server: https://elsewhere:6443#" $KUBELET',
        'sed -i "s#server: https://elsewhere:6443#server: https://$API_ENDPOINT#" $KUBELET',
        ("worker-reaches-the-api-through-the-load-balancer[{it}]", "kubelet-server[{it}]"),
        up=Repairs("sets the server again and restarts the kubelet"),
        contained=True,
    ),
    Sabotage(
        "kube-proxy pointed at one control plane",
        "cp1",
        "as_admin -n kube-system get configmap kube-proxy -o yaml | "
        'sed "s#server: https://$API_ENDPOINT#server: https://$NODE_ADDRESS:6443#" | as_admin replace -f -',
        "as_admin -n kube-system get configmap kube-proxy -o yaml | "
        'sed "s#server: https://$NODE_ADDRESS:6443#server: https://$API_ENDPOINT#" | as_admin replace -f -',
        ("kube-proxy-server",),
        up=Repairs("sets the server again and restarts kube-proxy"),
        contained=True,
    ),
    Sabotage(
        "a user's taint on a worker",
        "cp1",
        "as_admin taint node w2 sabotage=yes:NoSchedule",
        "as_admin taint node w2 sabotage-",
        ("node-taints[w2]",),
        up=Says("node-taints[w2]", "kubectl taint node NAME KEY-"),
        contained=True,
    ),
    Sabotage(
        "a control plane without its taint",
        "cp1",
        "as_admin taint node cp2 node-role.kubernetes.io/control-plane-",
        "as_admin taint node cp2 node-role.kubernetes.io/control-plane:NoSchedule",
        ("node-taints[cp2]",),
        up=Repairs("sets the taint again"),
        contained=True,
    ),
    Sabotage(
        "CoreDNS scaled to 0",
        "cp1",
        "as_admin -n kube-system scale deployment coredns --replicas 0",
        "as_admin -n kube-system scale deployment coredns --replicas 2",
        ("coredns-spread", "dns[*]"),
        up=Repairs("scales it to two replicas"),
        until=("cp1", "none as_admin -n kube-system get pods -l k8s-app=kube-dns -o name"),
        contained=True,
    ),
    Sabotage(
        "CoreDNS deleted",
        "cp1",
        f"{KEEP.format('deployment coredns')}; as_admin -n kube-system delete deployment coredns",
        f"{GIVE_BACK.format('deployment coredns')}",
        ("cluster-objects", "coredns-spread", "dns[*]"),
        up=Repairs("creates it again"),
        until=("cp1", "none as_admin -n kube-system get pods -l k8s-app=kube-dns -o name"),
        contained=True,
    ),
    Sabotage(
        "kube-proxy deleted",
        "cp1",
        f"{KEEP.format('daemonset kube-proxy')}; as_admin -n kube-system delete daemonset kube-proxy",
        f"{GIVE_BACK.format('daemonset kube-proxy')}",
        ("cluster-objects", "kube-proxy[*]", "cluster-ip[*]", "node-port[*]", "control-plane-metrics[*]"),
        up=Repairs("creates it again"),
        until=("cp1", "none as_admin -n kube-system get pods -l k8s-app=kube-proxy -o name"),
        contained=True,
    ),
    Sabotage(
        "kubeadm's configuration deleted",
        "cp1",
        f"{KEEP.format('configmap kubeadm-config')}; {KEEP.format('configmap kubelet-config')}; "
        "as_admin -n kube-system delete configmap kubeadm-config kubelet-config",
        f"{GIVE_BACK.format('configmap kubeadm-config')}; {GIVE_BACK.format('configmap kubelet-config')}",
        ("cluster-objects",),
        up=Repairs("creates it again"),
        until=(
            "cp1",
            "names=$(as_admin -n kube-system get configmap kubeadm-config kubelet-config "
            "-o name --ignore-not-found) "
            '&& [[ $(wc -l <<<"$names") != 2 ]]',
        ),
        contained=True,
    ),
    Sabotage(
        "the administrator's binding deleted",
        "cp1",
        "as_admin delete clusterrolebinding kubeadm:cluster-admins",
        "as_admin get nodes || kubectl --kubeconfig /etc/kubernetes/super-admin.conf create clusterrolebinding "
        "kubeadm:cluster-admins --clusterrole cluster-admin --group kubeadm:cluster-admins",
        REFUSED,
        up=Repairs("creates it again"),
        until=("cp1", "! as_admin get nodes"),
    ),
    Sabotage(
        "the pod network deleted",
        "cp1",
        "as_admin -n kube-flannel delete daemonset kube-flannel-ds",
        "/opt/ha-lab/pod-network.sh",
        ("cluster-objects", "pod-network-agent[*]"),
        up=Repairs("applies its manifest again"),
        until=("cp1", "none as_admin -n kube-flannel get pods -o name"),
        contained=True,
    ),
    Sabotage(
        "a webhook without its Service",
        "cp1",
        """as_admin apply -f - <<<'
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
             "metadata": {"name": "sabotage"}, "webhooks": [
               {"name": "nobody.example.lab", "failurePolicy": "Fail", "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "nobody", "namespace": "default"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                           "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-flannel"}}}]}'
        until [[ $(as_admin -n kube-flannel run sabotage --image nobody --dry-run=server 2>&1) == *webhook* ]]
        do sleep 0.2; done
        as_admin -n kube-flannel delete --wait=false \
            $(as_admin -n kube-flannel get pods --field-selector spec.nodeName=w3 -o name)""",
        # Its controller would wait longer and longer before it tries again.
        "as_admin delete validatingwebhookconfiguration sabotage --ignore-not-found; "
        "as_admin -n kube-flannel annotate daemonset kube-flannel-ds --overwrite tried=$SECONDS$RANDOM",
        ("pod-network-agent[w3]",),
        up=Says(
            "the webhook nobody.example.lab in the ValidatingWebhookConfiguration sabotage has to approve",
            "delete validatingwebhookconfiguration sabotage",
        ),
        until=NO_AGENT_ON_W3,
        contained=True,
        in_the_way=True,
    ),
    Sabotage(
        "a quota on the cluster's own pods",
        "cp1",
        "as_admin -n kube-system create quota sabotage --hard pods=1; "
        "until [[ $(as_admin -n kube-system run some --image nobody --dry-run=server 2>&1) == *exceeded* ]]\n"
        "do sleep 0.2; done; as_admin -n kube-system delete --wait=false "
        "$(as_admin -n kube-system get pods -l k8s-app=kube-dns -o name | head -n 1)",
        "as_admin -n kube-system delete quota sabotage --ignore-not-found; "
        "as_admin -n kube-system annotate deployment coredns --overwrite tried=$SECONDS$RANDOM",
        ("coredns-spread",),
        up=Says("the ResourceQuota sabotage in kube-system", "delete resourcequota sabotage"),
        until=("cp1", "[[ 1 == $(as_admin -n kube-system get pods -l k8s-app=kube-dns -o name | wc -l) ]]"),
        contained=True,
        in_the_way=True,
    ),
    Sabotage(
        "the pod network's agent removed from a node",
        "cp1",
        # Only what no longer fits the template goes; the other nodes' agents are left alone.
        "as_admin -n kube-flannel patch daemonset kube-flannel-ds --type json -p '["
        '{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}},'
        '{"op": "add", "path": "/spec/template/spec/affinity/nodeAffinity/'
        'requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/-",'
        '"value": {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["w3"]}}]\'',
        "as_admin -n kube-flannel patch daemonset kube-flannel-ds --type merge -p '"
        '{"spec": {"updateStrategy": {"type": "RollingUpdate"}}}\'; /opt/ha-lab/pod-network.sh',
        ("cluster-objects", "pod-network-agent[w3]"),
        up=Repairs("applies the pod network's manifest again", traces=True),
        until=NO_AGENT_ON_W3,
        contained=True,
    ),
    Sabotage(
        "the pod network's interface down on a node",
        WORKER,
        "ip link set flannel.1 down",
        # The routes went with it; the agent sets them when it starts.
        "ip link set flannel.1 up; as_kubelet -n kube-flannel delete --wait=false "
        "$(as_kubelet -n kube-flannel get pods --field-selector spec.nodeName=$NODE_NAME -o name)",
        ("pod-network-interface[{it}]", "pod-to-pod[*]", "dns[{it}]", "network-policy[{it}]"),
        up=Repairs("sets the interface up and starts the agent again, which sets the routes"),
    ),
    Sabotage(
        "kube-router deleted",
        "cp1",
        "as_admin -n kube-system delete daemonset kube-router",
        "/opt/ha-lab/pod-network.sh",
        ("cluster-objects", "network-policy-agent[*]", "network-policy[*]"),
        up=Repairs("applies its manifest again"),
        until=("cp1", "none as_admin -n kube-system get pods -l k8s-app=kube-router -o name"),
        contained=True,
    ),
    Sabotage(
        "kube-router frozen on a node",
        WORKER,
        "kill -STOP $(pidof kube-router)",
        "kill -CONT $(pidof kube-router)",
        ("network-policy[{it}]",),
        up=NoMistake("takes SIGSTOP, and the kubelet restarts it when its liveness probe fails"),
        follows=("network-policy-agent[{it}]", "system-pods-ready", "restarts-stand-still"),
    ),
    Sabotage(
        "large packets between pods dropped",
        WORKER,
        f"{INPUT}; nft add rule ip sabotage in udp dport 8472 meta length gt 1300 drop",
        "nft delete table ip sabotage",
        ("pod-to-pod[*]",),
        up=NoMistake("takes a firewall rule for large packets only"),
    ),
    Sabotage(
        "NodePorts blocked on one node",
        WORKER,
        f"{PREROUTING}; nft add rule ip sabotage in tcp dport 30000-32767 iif eth1 drop",
        "nft delete table ip sabotage",
        ("node-port[{it}]",),
        up=NoMistake("takes a firewall rule for these ports on one interface"),
        contained=True,
    ),
    # ---- security
    Sabotage(
        "a bootstrap token left",
        "cp1",
        "kubeadm token create >/dev/null",
        "as_admin -n kube-system delete secrets --field-selector type=bootstrap.kubernetes.io/token",
        ("no-bootstrap-token",),
        up=Says("no-bootstrap-token", "kubeadm token delete ID"),
        contained=True,
    ),
    Sabotage(
        "the Secret kubeadm-certs left",
        "cp1",
        "as_admin -n kube-system create secret generic kubeadm-certs",
        "as_admin -n kube-system delete secret kubeadm-certs --ignore-not-found",
        ("no-uploaded-certificates",),
        up=Repairs("deletes the Secret"),
        contained=True,
    ),
    Sabotage(
        "secrets of an earlier run left on a machine",
        "w1",
        "touch /run/ha-lab/secrets",
        "rm -f /run/ha-lab/secrets",
        ("no-run-secret[w1]",),
        up=Repairs("removes the file"),
        contained=True,
    ),
    Sabotage(
        "a private key that all users can read",
        "cp2",
        "chmod 644 /etc/kubernetes/pki/sa.key",
        "chmod 600 /etc/kubernetes/pki/sa.key",
        ("open-keys[cp2]",),
        up=Repairs("sets the mode again"),
        contained=True,
    ),
    Sabotage(
        "a second ssh key that can log in to a machine",
        "lb1",
        "echo 'ssh-ed25519 AAAA somebody' >>/home/vagrant/.ssh/authorized_keys",
        "sed -i '/somebody$/d' /home/vagrant/.ssh/authorized_keys",
        ("logins[lb1]",),
        up=Says("logins[lb1]", "authorized_keys should have the same key as .lab/secrets/id_ed25519.pub"),
        contained=True,
    ),
    Sabotage(
        "the kubeconfig pointed at one control plane",
        HOST,
        "sed -i.saved 's#server: .*#server: https://{address}:6443#' $LAB/kubeconfig",
        "mv $LAB/kubeconfig.saved $LAB/kubeconfig",
        ("kubeconfig-private",),
        up=Repairs("fetches the kubeconfig again"),
        contained=True,
    ),
    Sabotage(
        "a kubeconfig whose certificate expires soon",
        HOST,
        f"cp -p $LAB/kubeconfig $LAB/kubeconfig.valid; cert=$({SSH} cp1 -- sudo bash -s <<'END'\n"
        "cd /etc/kubernetes/pki; sed -n 's/ *client-key-data: //p' ../admin.conf | base64 -d >/run/mine\n"
        "openssl req -new -key /run/mine -subj /O=kubeadm:cluster-admins/CN=kubernetes-admin |\n"
        "\topenssl x509 -req -days 10 -CA ca.crt -CAkey ca.key -set_serial 7 | base64 -w 0\n"
        "rm /run/mine\nEND\n"
        '); sed -i "s#client-certificate-data: .*#client-certificate-data: $cert#" $LAB/kubeconfig',
        "mv $LAB/kubeconfig.valid $LAB/kubeconfig",
        ("kubeconfig-expiry",),
        up=Repairs("fetches the kubeconfig again"),
        contained=True,
    ),
    Sabotage(
        "a file of the lab's secrets that all users can read",
        HOST,
        "chmod 644 $LAB/secrets/ca.crt",
        "chmod 600 $LAB/secrets/ca.crt",
        ("secrets-private",),
        up=Repairs("sets the mode again"),
        contained=True,
    ),
    Sabotage(
        "another key for service accounts on one control plane",
        "cp3",
        "cd $PKI; cp sa.pub /root/; openssl genrsa 2048 | openssl rsa -pubout -out sa.pub",
        "mv /root/sa.pub $PKI/",
        ("same-keys",),
        up=Says("same-keys", "copy them from a correct control plane"),
        contained=True,
    ),
    Sabotage(
        "a certificate that expires soon",
        "cp2",
        # With their dates, so that the API server is not taken for older than its files.
        "cd $PKI; cp -p front-proxy-client.{crt,key} /root/; "
        "openssl req -new -key front-proxy-client.key -subj /CN=front-proxy-client | "
        "openssl x509 -req -days 10 -CA front-proxy-ca.crt -CAkey front-proxy-ca.key -set_serial 7 "
        # kubeadm renews none without it.
        "-extfile <(echo extendedKeyUsage=clientAuth) -out front-proxy-client.crt",
        "mv /root/front-proxy-client.{crt,key} $PKI/",
        ("certificate-expiry[cp2]",),
        up=Repairs("renews all certificates of that control plane, and restarts its static pods"),
        contained=True,
    ),
    Sabotage(
        "a certificate without its names",
        "cp3",  # on cp2, `up` would have to renew it as it is, and refuses to
        # The file only: it does not match its key, so the server keeps what it has.
        "cd $PKI; cp -p apiserver.crt /root/; cp apiserver-kubelet-client.crt apiserver.crt",
        "mv /root/apiserver.crt $PKI/",
        ("certificate-names[cp3]",),
        up=Says("certificate-names[cp3]", "kubeadm init phase certs apiserver"),
        contained=True,
    ),
    # The kubelet has read its certificate, and is not restarted: it would read what others have changed.
    Sabotage(
        "a kubelet's serving certificate that the cluster has not signed",
        WORKER,
        "cd /var/lib/kubelet/pki; readlink -f kubelet-server-current.pem >/root/serving; "
        "cp kubelet-server-current.pem /root/; openssl req -x509 -newkey rsa:2048 -nodes -days 300 "
        "-keyout /run/key -out /run/crt -subj /O=system:nodes/CN=system:node:{it} "
        '-addext "subjectAltName=DNS:{it},IP:$NODE_ADDRESS" 2>/dev/null; '
        "cat /run/crt /run/key >$(cat /root/serving); rm /run/crt /run/key",
        "cat /root/kubelet-server-current.pem >$(cat /root/serving); "
        "ln -sfn $(cat /root/serving) /var/lib/kubelet/pki/kubelet-server-current.pem",
        ("kubelet-certificate[{it}]",),
        up=Repairs("removes it, and approves the kubelet's request for another one"),
        contained=True,
    ),
    # ---- add-ons
    Sabotage(
        "metrics-server scaled to 0",
        "cp1",
        "as_admin -n kube-system scale deployment metrics-server --replicas 0",
        "as_admin -n kube-system scale deployment metrics-server --replicas 1",
        ("metrics-server", "cluster-objects"),
        up=Repairs("applies its manifest again"),
        until=("cp1", "none as_admin -n kube-system get pods -l k8s-app=metrics-server -o name"),
        contained=True,
        addons=("metrics-server", "local-path"),
        whole=True,
    ),
    Sabotage(
        "local-path's provisioner deleted",
        "cp1",
        "as_admin -n local-path-storage delete deployment local-path-provisioner",
        "/opt/ha-lab/addons.sh",
        ("local-path", "cluster-objects"),
        up=Repairs("applies its manifest again"),
        until=("cp1", "none as_admin -n local-path-storage get pods -l app=local-path-provisioner -o name"),
        contained=True,
        addons=("metrics-server", "local-path"),
        whole=True,
    ),
    # ---- host facts
    Sabotage(
        "two machines with the same machine-id",
        HOST,
        f"{SSH} w2 sudo cp /etc/machine-id /root/; "
        f"{SSH} w1 cat /etc/machine-id | {SSH} w2 'sudo tee /etc/machine-id >/dev/null'",
        f"{SSH} w2 sudo cp /root/machine-id /etc/machine-id",
        ("unique-identities",),
        up=Says("unique-identities", "./inv replace NAME"),
        contained=True,
    ),
    Sabotage(
        "a machine whose own name resolves to its NAT address",
        "w1",
        'sed "s/^$NODE_ADDRESS w1$/10.0.2.15 w1/" /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts',
        "systemctl restart ha-lab-network",
        ("own-name[w1]",),
        up=Repairs("writes /etc/hosts again"),
        contained=True,
    ),
    Sabotage(
        "a machine that the other machines can't reach",
        CONTROL_PLANE,
        # This host's own address on the lab's network is its first one.
        f"{INPUT}; nft add rule ip sabotage in ip saddr != ${{NODE_ADDRESS%.*}}.1 tcp dport 22 drop",
        "nft delete table ip sabotage",
        ("machines-reach-one-another",),
        up=NoMistake("takes a firewall rule for ssh from other machines only"),
        contained=True,
    ),
    Sabotage(
        "the resolver for pods stopped",
        "w1",
        "systemctl stop ha-lab-dns",
        "systemctl start ha-lab-dns",
        ("network-services[w1]",),
        up=Repairs("starts the resolver"),
        contained=True,
    ),
    Sabotage(
        "bridge-nf-call-iptables off, so that bridged packets bypass kube-proxy",
        WORKER,
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=0",
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=1",
        ("kernel-settings[{it}]",),
        up=Repairs("sets it on again"),
        # Policies are not enforced between pods of this node then; verify looks at that on one node.
        follows=("network-policy[{it}]",),
        contained=True,
    ),
    Sabotage(
        "a kubelet with another cgroup driver than containerd",
        "w1",
        "sed -i 's/^cgroupDriver: systemd/cgroupDriver: cgroupfs/' /var/lib/kubelet/config.yaml",
        "sed -i 's/^cgroupDriver: cgroupfs/cgroupDriver: systemd/' /var/lib/kubelet/config.yaml",
        ("cgroup-driver[w1]",),
        up=Repairs("sets the driver again and restarts the kubelet"),
        contained=True,
    ),
)
