"""Every way in which the suite breaks a lab that is well, and exactly which checks must then not hold.

Tests of the acceptance list (tests/live/test_acceptance.py) are checks here, by the names that `verify` shows.

Commands run as root on the machine `on`, with provision/node's functions at hand (`as_admin`, `etcd`); on
"host" as this process does, with $NAME (the lab's) and $LAB (its `.lab/`). In all of them and in `expected`
{it} is the machine that was chosen: WORKER is one that answers no names, CONTROL_PLANE one that leads nothing,
so that nothing else breaks with it. `check[*]` is that check on every machine that it is about.

`until` (machine, command) is when the break has had its effect; verify is run as soon as it succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKER, CONTROL_PLANE, HOST = "a worker", "a control plane", "host"


@dataclass(frozen=True)
class Sabotage:
    """One break, what undoes it, and the checks that do not hold meanwhile.

    `follows` may not hold either, once the break has lasted for some time: leases run out. A break that is
    `contained` has no effect beyond what `expected` names, whatever else is broken.
    """

    name: str
    on: str
    breaks: str
    heals: str
    expected: tuple[str, ...]
    until: tuple[str, str] | None = None
    follows: tuple[str, ...] = ()
    contained: bool = False


PODS_UNASKED = ("pod-to-pod", "cluster-ip", "node-port", "dns", "pod-logs", "pod-exec")
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
    *("kube-proxy[*]", "pod-network-agent[*]", "system-pods-ready", "coredns-spread", "restarts-stand-still"),
    *("pod-starts[*]", "pod-addresses", *(f"{check}[*]" for check in PODS_UNASKED)),
    *("no-bootstrap-token", "no-uploaded-certificates"),
    *("healthz-answers-ok-through-the-load-balancer", "nodes-are-all-ready"),
)
"""What nobody can ask while the API is not reached through the load balancer."""

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
    *("identity-leases", "api-endpoints", "node-ready[{it}]", "node-taints[{it}]", "static-pods-ready[{it}]"),
    *("kube-proxy[{it}]", "pod-network-agent[{it}]", "system-pods-ready", "nodes-are-all-ready"),
)
"""What the cluster says, 15 to 50 s later, of a node whose API server or kubelet is not there."""

STAT = "echo show stat | socat -t 5 - /run/haproxy/admin.sock"
INPUT = "nft add table ip sabotage; nft 'add chain ip sabotage in { type filter hook input priority -300; }'"
PREROUTING = INPUT.replace("hook input", "hook prerouting")
SSH = "ssh -F $LAB/ssh_config"
SEEN_DOWN = ("lb1", f"{STAT} | grep -q '^apiserverbackend,{{it}},.*,DOWN,'")
ALL_SEEN_DOWN = ("lb1", f"{STAT} | grep -q '^apiserverbackend,BACKEND,.*,DOWN,'")

SABOTAGES = (
    # ---- load balancer
    Sabotage(
        "a backend at a wrong port",
        "lb1",
        "sed -i '/server cp2 /s/:6443/:6444/' /etc/haproxy/haproxy.cfg; systemctl reload haproxy",
        "sed -i '/server cp2 /s/:6444/:6443/' /etc/haproxy/haproxy.cfg; systemctl reload haproxy",
        (
            "haproxy-has-a-server-for-each-control-plane[lb1]",
            *("backend-up[cp2]", "backend-belief[cp2]", "backend-takes-connections[cp2]"),
        ),
        until=("lb1", f"{STAT} | grep -q '^apiserverbackend,cp2,.*,DOWN,'"),
    ),
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
    ),
    Sabotage(
        "HAProxy not enabled",
        "lb1",
        "systemctl disable --quiet haproxy",
        "systemctl enable --quiet haproxy",
        ("haproxy-service-runs-and-is-enabled[lb1]", "haproxy-runs[lb1]"),
        contained=True,
    ),
    Sabotage(
        "a word too many for HAProxy",
        "lb1",
        "echo '  nonsense' >>/etc/haproxy/haproxy.cfg",
        "sed -i '/^  nonsense$/d' /etc/haproxy/haproxy.cfg",
        ("haproxy-configuration-is-valid[lb1]", "haproxy-configuration[lb1]"),
        contained=True,
    ),
    Sabotage(
        "a wrong CA at the load balancer",
        "lb1",
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=somebody -keyout /dev/null -days 9999 "
        "-out /etc/haproxy/kubernetes-ca.crt 2>/dev/null; systemctl reload haproxy",
        "cp /opt/ha-lab/ca.crt /etc/haproxy/kubernetes-ca.crt; systemctl reload haproxy",
        ("cluster-ca[lb1]", "backend-up[*]", "backend-belief[*]", "backend-takes-connections[*]", *NO_API),
        until=ALL_SEEN_DOWN,
    ),
    # ---- control planes and etcd
    Sabotage(
        "an API server frozen",
        CONTROL_PLANE,
        "kill -STOP $(pidof kube-apiserver)",
        "kill -CONT $(pidof kube-apiserver)",
        OUT_OF_SERVICE,
        until=SEEN_DOWN,
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "an etcd member frozen",
        CONTROL_PLANE,
        "kill -STOP $(pidof etcd)",
        "kill -CONT $(pidof etcd)",
        (*OUT_OF_SERVICE, *ETCD_MEMBER_SILENT),
        until=SEEN_DOWN,
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "an etcd member removed",
        # The last one to join: only its manifest names all members, which etcd compares when it joins anew.
        "cp3",
        "mv $MANIFESTS/etcd.yaml /root/; etcd member remove \"$(own_member | cut -d' ' -f1)\"",
        "until [[ -z $(pidof etcd) ]]; do sleep 0.2; done; rm -rf /var/lib/etcd/member; "
        "[[ -n $(own_member) ]] || etcd member add cp3 --peer-urls https://$NODE_ADDRESS:2380; "
        "mv /root/etcd.yaml $MANIFESTS/",
        (
            *("etcd-has-one-voting-member-on-each-control-plane", "etcd-members[*]"),
            *(check.replace("{it}", "cp3") for check in (*OUT_OF_SERVICE, *ETCD_MEMBER_SILENT)),
        ),
        until=("lb1", SEEN_DOWN[1].replace("{it}", "cp3")),
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "a learner left behind",
        "cp1",
        "etcd member add left-behind --learner --peer-urls https://$NODE_ADDRESS:23800",
        "etcd member list --write-out simple | awk -F', ' '$4 ~ /:23800$/ { print $1 }' | "
        "while read -r id; do etcd member remove $id; done",
        ("etcd-has-one-voting-member-on-each-control-plane", "etcd-members[*]", "etcd-no-learner"),
        contained=True,
    ),
    Sabotage(
        "an admin kubeconfig pointed at one control plane",
        "cp2",
        'sed -i "s#server: https://$API_ENDPOINT#server: https://$NODE_ADDRESS:6443#" $ADMIN',
        'sed -i "s#server: https://$NODE_ADDRESS:6443#server: https://$API_ENDPOINT#" $ADMIN',
        ("admin-conf-points-at-the-load-balancer[cp2]", "admin-kubeconfig[cp2]"),
        contained=True,
    ),
    # ---- workers and network
    Sabotage(
        "a kubelet stopped",
        WORKER,
        "systemctl stop kubelet",
        "systemctl start kubelet",
        ("kubelet-and-containerd-run[{it}]", "node-services[{it}]", *NO_POD_ON_IT),
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "a machine frozen",
        HOST,
        "docker pause $NAME-{it}",
        "docker unpause $NAME-{it}",
        (
            "unique-identities",
            *("kubelet-and-containerd-run[{it}]", "worker-reaches-the-api-through-the-load-balancer[{it}]"),
            *("node-services[{it}]", "kubelet-server[{it}]", "no-run-secret[{it}]", "logins[{it}]"),
            *("cluster-ca[{it}]", "certificate-expiry[{it}]", "own-name[{it}]", "network-services[{it}]"),
            *("kernel-settings[{it}]", "cgroup-driver[{it}]", "clock[{it}]", *NO_POD_ON_IT),
        ),
        follows=LEASES_RUN_OUT,
    ),
    Sabotage(
        "a worker at its NAT address",
        WORKER,
        'address=$(ip -4 -o address show dev eth0 | awk \'{ sub("/.*", "", $4); print $4 }\'); '
        'sed -i "s/--node-ip=$NODE_ADDRESS/--node-ip=$address/" /var/lib/kubelet/kubeadm-flags.env; '
        "systemctl restart kubelet",
        'sed -i "s/--node-ip=[0-9.]*/--node-ip=$NODE_ADDRESS/" /var/lib/kubelet/kubeadm-flags.env; '
        "systemctl restart kubelet",
        ("node-as-declared[{it}]",),
        until=("cp1", "! as_admin get node {it} -o jsonpath='{.status.addresses}' | grep -q 192.168"),
    ),
    Sabotage(
        "a kubelet that no API server reaches",
        WORKER,
        f"{INPUT}; nft add rule ip sabotage in iif != lo tcp dport 10250 drop",
        "nft delete table ip sabotage",
        ("pod-logs[{it}]", "pod-exec[{it}]", "pod-to-pod[{it}]", "cluster-ip[{it}]", "dns[{it}]"),
    ),
    Sabotage(
        "a kubelet pointed at one control plane",
        WORKER,
        'sed -i "s#server: https://$API_ENDPOINT#server: https://elsewhere:6443#" $KUBELET',
        'sed -i "s#server: https://elsewhere:6443#server: https://$API_ENDPOINT#" $KUBELET',
        ("worker-reaches-the-api-through-the-load-balancer[{it}]", "kubelet-server[{it}]"),
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
        contained=True,
    ),
    Sabotage(
        "a node tainted",
        "cp1",
        "as_admin taint node w2 sabotage=yes:NoSchedule",
        "as_admin taint node w2 sabotage-",
        ("node-taints[w2]",),
        contained=True,
    ),
    Sabotage(
        "a control plane open to all pods",
        "cp1",
        "as_admin taint node cp2 node-role.kubernetes.io/control-plane-",
        "as_admin taint node cp2 node-role.kubernetes.io/control-plane:NoSchedule",
        ("node-taints[cp2]",),
        contained=True,
    ),
    Sabotage(
        "CoreDNS scaled to none",
        "cp1",
        "as_admin -n kube-system scale deployment coredns --replicas 0",
        "as_admin -n kube-system scale deployment coredns --replicas 2",
        ("coredns-spread", "dns[*]"),
        until=("cp1", "[[ -z $(as_admin -n kube-system get pods -l k8s-app=kube-dns -o name) ]]"),
    ),
    Sabotage(
        "the pod network agent gone from a node",
        "cp1",
        # Only what no longer fits the template goes; the other nodes' agents are left alone.
        "as_admin -n kube-flannel patch daemonset kube-flannel-ds --type json -p '["
        '{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}},'
        '{"op": "add", "path": "/spec/template/spec/affinity/nodeAffinity/'
        'requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/-",'
        '"value": {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["w3"]}}]\'',
        "as_admin -n kube-flannel patch daemonset kube-flannel-ds --type json -p '["
        '{"op": "remove", "path": "/spec/template/spec/affinity/nodeAffinity/'
        'requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/1"},'
        '{"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "RollingUpdate"}}]\'',
        ("pod-network-agent[w3]",),
        until=("cp1", "! as_admin -n kube-flannel get pods -o wide | grep -q ' w3 '"),
    ),
    Sabotage(
        "the way to pods on other nodes down",
        WORKER,
        "ip link set flannel.1 down",
        # The routes went with it; the agent sets them when it starts.
        "ip link set flannel.1 up; as_kubelet -n kube-flannel delete --wait=false "
        "$(as_kubelet -n kube-flannel get pods --field-selector spec.nodeName=$NODE_NAME -o name)",
        ("pod-to-pod[*]", "dns[{it}]"),
    ),
    Sabotage(
        "packets of full size lost between pods",
        WORKER,
        f"{INPUT}; nft add rule ip sabotage in udp dport 8472 meta length gt 1300 drop",
        "nft delete table ip sabotage",
        ("pod-to-pod[*]",),
    ),
    Sabotage(
        "NodePorts blocked on one node",
        WORKER,
        f"{PREROUTING}; nft add rule ip sabotage in tcp dport 30000-32767 iif eth1 drop",
        "nft delete table ip sabotage",
        ("node-port[{it}]",),
        contained=True,
    ),
    # ---- security
    Sabotage(
        "a bootstrap token left",
        "cp1",
        "kubeadm token create >/dev/null",
        "as_admin -n kube-system delete secrets --field-selector type=bootstrap.kubernetes.io/token",
        ("no-bootstrap-token",),
        contained=True,
    ),
    Sabotage(
        "kubeadm-certs left",
        "cp1",
        "as_admin -n kube-system create secret generic kubeadm-certs",
        "as_admin -n kube-system delete secret kubeadm-certs",
        ("no-uploaded-certificates",),
        contained=True,
    ),
    Sabotage(
        "secrets of a run left",
        "w1",
        "touch /run/ha-lab/secrets",
        "rm /run/ha-lab/secrets",
        ("no-run-secret[w1]",),
        contained=True,
    ),
    Sabotage(
        "a key that everybody may read",
        "cp2",
        "chmod 644 /etc/kubernetes/pki/sa.key",
        "chmod 600 /etc/kubernetes/pki/sa.key",
        ("open-keys[cp2]",),
        contained=True,
    ),
    Sabotage(
        "a second key that opens a machine",
        "lb1",
        "echo 'ssh-ed25519 AAAA somebody' >>/home/vagrant/.ssh/authorized_keys",
        "sed -i '/somebody$/d' /home/vagrant/.ssh/authorized_keys",
        ("logins[lb1]",),
        contained=True,
    ),
    Sabotage(
        "the kubeconfig pointed at one control plane",
        HOST,
        "sed -i.saved 's#server: .*#server: https://{address}:6443#' $LAB/kubeconfig",
        "mv $LAB/kubeconfig.saved $LAB/kubeconfig",
        ("kubeconfig-private",),
        contained=True,
    ),
    Sabotage(
        "a secret that everybody may read",
        HOST,
        "chmod 644 $LAB/secrets/ca.crt",
        "chmod 600 $LAB/secrets/ca.crt",
        ("secrets-private",),
        contained=True,
    ),
    Sabotage(
        "a foreign service-account key",
        "cp3",
        "cd $PKI; cp sa.pub /root/; openssl genrsa 2048 | openssl rsa -pubout -out sa.pub",
        "mv /root/sa.pub $PKI/",
        ("same-keys",),
        contained=True,
    ),
    Sabotage(
        "a certificate about to end",
        "cp2",
        "cd $PKI; cp front-proxy-client.crt /root/; "
        "openssl req -new -key front-proxy-client.key -subj /CN=front-proxy-client | "
        "openssl x509 -req -days 10 -CA front-proxy-ca.crt -CAkey front-proxy-ca.key -set_serial 7 "
        "-out front-proxy-client.crt",
        "mv /root/front-proxy-client.crt $PKI/",
        ("certificate-expiry[cp2]",),
        contained=True,
    ),
    Sabotage(
        "a certificate without its names",
        "cp2",
        # The file only: it does not match its key, so the server keeps what it has.
        "cd $PKI; cp apiserver.crt /root/; cp apiserver-kubelet-client.crt apiserver.crt",
        "mv /root/apiserver.crt $PKI/",
        ("certificate-names[cp2]",),
        contained=True,
    ),
    # ---- host facts
    Sabotage(
        "two machines of one machine-id",
        HOST,
        f"{SSH} w2 sudo cp /etc/machine-id /root/; "
        f"{SSH} w1 cat /etc/machine-id | {SSH} w2 'sudo tee /etc/machine-id >/dev/null'",
        f"{SSH} w2 sudo cp /root/machine-id /etc/machine-id",
        ("unique-identities",),
        contained=True,
    ),
    Sabotage(
        "a machine that means its NAT address",
        "w1",
        'sed "s/^$NODE_ADDRESS w1$/10.0.2.15 w1/" /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts',
        "systemctl restart ha-lab-network",
        ("own-name[w1]",),
        contained=True,
    ),
    Sabotage(
        "a machine that the others do not reach",
        CONTROL_PLANE,
        # This host's own address on the lab's network is its first one.
        f"{INPUT}; nft add rule ip sabotage in ip saddr != ${{NODE_ADDRESS%.*}}.1 tcp dport 22 drop",
        "nft delete table ip sabotage",
        ("machines-reach-one-another",),
        contained=True,
    ),
    Sabotage(
        "the resolver for pods stopped",
        "w1",
        "systemctl stop ha-lab-dns",
        "systemctl start ha-lab-dns",
        ("network-services[w1]",),
        contained=True,
    ),
    Sabotage(
        "bridged packets past kube-proxy",
        WORKER,
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=0",
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=1",
        ("kernel-settings[{it}]",),
        contained=True,
    ),
    Sabotage(
        "two cgroup drivers",
        "w1",
        "sed -i 's/^cgroupDriver: systemd/cgroupDriver: cgroupfs/' /var/lib/kubelet/config.yaml",
        "sed -i 's/^cgroupDriver: cgroupfs/cgroupDriver: systemd/' /var/lib/kubelet/config.yaml",
        ("cgroup-driver[w1]",),
        contained=True,
    ),
)
