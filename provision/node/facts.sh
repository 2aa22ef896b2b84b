#!/bin/bash
# Prints facts about this machine and its part of the cluster, and nothing else: for lab/health/facts/, in one
# round trip. Each answer is `== NAME EXIT-CODE` and what the command printed. Changes nothing; prints
# certificates and names, never a key or a token.
#
#   facts.sh [NAME…]     only those answers; without a name, all of them
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/haproxy.sh
source "$HERE/haproxy.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"

weigh_no_more_than_pods "$@"

readonly PATIENCE=$((5 * LAB_PATIENCE)) # seconds for one command
ANSWERS=$(mktemp -d)
readonly ANSWERS
trap 'rm -rf "$ANSWERS"' EXIT
readonly WANTED=("$@")
asked=()

# tell NAME COMMAND [WORD…]: asks now, in the background, so that one that hangs does not delay others. On an emulated
# machine one after the other: all at once would each exceed their timeout.
tell() {
	local name=$1
	shift
	((${#WANTED[@]} == 0)) || [[ " script ${WANTED[*]} " == *" $name "* ]] || return 0
	asked+=("$name")
	{
		code=0
		"$@" >"$ANSWERS/$name" 2>&1 || code=$?
		echo "$code" >"$ANSWERS/$name.code"
	} 9>&- &
	((LAB_PATIENCE == 1)) || wait
}

bounded() { timeout --kill-after 1 "$PATIENCE" "$@"; }

# Which checkout's these are: pods.sh is the other one that lab/health/facts/ calls.
own_scripts() { cat "$HERE/facts.sh" "$HERE/pods.sh" | sha256sum; }

# All that `up` gives a machine for good, as one hash: the kit's folder, and the host's proxies (lab/plans/already.py).
given() {
	local proxies=/etc/ha-lab/proxy.env
	[[ -e $proxies ]] || proxies=/dev/null
	{
		(cd "$HERE" && find . -type f | LC_ALL=C sort | xargs sha256sum)
		echo "$(sha256sum <"$proxies" | cut -c 1-64)  proxy.env"
	} | sha256sum
}

here() {
	hostname
	bounded getent ahostsv4 "$NODE_NAME" | awk '{ print $1 }' | sort -u | tr '\n' ' '
}

identity() {
	local interface
	interface=$(ip -json -4 address show to "$NODE_ADDRESS/32" | sed -n 's/.*"ifname":"\([^"]*\)".*/\1/p')
	echo "machine-id $(cat /etc/machine-id)"
	# Not every kernel has one: a machine without it is distinguished by the rest.
	echo "product-uuid $(cat /sys/class/dmi/id/product_uuid 2>/dev/null || echo none)"
	echo "mac $(cat "/sys/class/net/$interface/address")"
	echo "host-key $(cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub)"
}

services() {
	bounded systemctl show --timestamp unix \
		--property Id,ActiveState,UnitFileState,NRestarts,ExecMainStartTimestamp "$@"
}

# The last error of a kubelet that systemd has restarted several times by itself, from the journal of its own process
# (systemd's lines about the unit have another _SYSTEMD_UNIT); nothing of any other. klog begins errors with E or F.
kubelet_error() {
	local restarts
	restarts=$(bounded systemctl show --property NRestarts --value kubelet.service) || return
	((${restarts:-0} >= 3)) || return 0
	bounded journalctl --quiet --output cat --lines 300 _SYSTEMD_UNIT=kubelet.service |
		grep -E '^([EF][0-9]{4} |panic: |Error: )' | tail -n 1
}

left_by_runs() {
	find /run/ha-lab /tmp -maxdepth 2 \( -name secrets -o -name kubeadm.yaml -o -name ca.key -o -name etcd-ca.key -o -name token.conf -o -name kubelet.pem \) 2>/dev/null || true
	find "${MANUAL_FILES[@]}" 2>/dev/null || true
}

# Certificates as PEM, each under its file's name. Of files that also contain a key only the certificate is
# printed, and of a kubeconfig only the client's.
certificates() {
	local file
	for file in "$@"; do
		[[ -e $file ]] || continue
		echo "# $file"
		case $file in
		*.conf) sed -n 's/^ *client-certificate-data: //p' "$file" | base64 -d ;;
		*) sed -n '/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/p' "$file" ;;
		esac
	done
}

# The controlPlaneEndpoint that init was given, asked of this machine's own API server, wherever admin.conf points:
# without one no control plane can join. Nothing where there is no cluster.
endpoint() {
	[[ -e $ADMIN ]] || return 0
	bounded kubectl --kubeconfig "$ADMIN" --server "https://$NODE_ADDRESS:6443" --request-timeout "$((PATIENCE - 1))s" \
		--namespace kube-system get configmap kubeadm-config --output 'jsonpath={.data.ClusterConfiguration}' |
		sed -n 's/^controlPlaneEndpoint: *//p'
}

# The word of probe.sh, then its reasons, a line each.
membership() {
	local why code=0
	why=$(mktemp "$ANSWERS/why.XXXXXX")
	"$HERE/probe.sh" 2>"$why" || code=$?
	cat "$why"
	return "$code"
}

unfinished() { timeout --kill-after 1 $((3 * PATIENCE)) "$HERE/unfinished.sh"; }

kernel() { sysctl net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables; }

cgroup_drivers() {
	sed -n 's/^ *SystemdCgroup *= */containerd /p' /etc/containerd/config.toml
	sed -n "s/^cgroupDriver: *[\"']\?\([^\"' ]*\).*/kubelet \1/p" /var/lib/kubelet/config.yaml
}

# While a check is under way HAProxy has no code of it ("* " before its status), and after one that ended
# otherwise than the one before it has not made up its mind ("UP 1/2"). A server that is down since it answered late
# (L6TOUT, L7TOUT) is checked again twice a second, and is up again at its first answer in time: on a busy host that was a
# slow moment. Asked until nothing of this is so.
haproxy_at_rest() {
	local said _
	for _ in $(seq $((100 * LAB_PATIENCE))); do
		said=$(haproxy_says "$PATIENCE") || {
			local code=$?
			echo "$said"
			return "$code"
		}
		grep -qE ',(\* L|(UP|DOWN) [0-9]+/)|,DOWN,.*,L[67]TOUT,' <<<"$said" || break
		sleep 0.1
	done
	echo "$said"
}

# HAProxy's counts before and after a dozen new connections through it, at this machine's own address, once it is at rest.
# A server may be out for a moment, for example where its machine has just booted: one that is up by then and took none is
# given another dozen, twice at most.
connections_spread() {
	local before after dozen
	before=$(haproxy_at_rest) || {
		echo "$before"
		return 1
	}
	for dozen in 1 2 3; do
		((dozen == 1)) || sleep "$LAB_PATIENCE"
		dozen_connections
		after=$(haproxy_says "$PATIENCE") || {
			echo "$after"
			return 1
		}
		up_without_connection "$before" "$after" || break
	done
	printf '%s\n' "$before" "-- after" "$after"
}

# One process, all at once, a new connection for each request. A curl for each takes five times the CPU.
dozen_connections() {
	curl --silent --parallel --parallel-immediate --parallel-max 12 --http1.1 --header 'Connection: close' \
		--max-time $((2 * LAB_PATIENCE)) --cacert "$HERE/ca.crt" "https://$NODE_ADDRESS:${API_ENDPOINT##*:}/readyz?[1-12]" >/dev/null 2>&1
}

# up_without_connection BEFORE AFTER: whether a server that is up has the same count of sessions in both (HAProxy's
# Management Guide, "9.1. CSV format": svname, stot, status).
up_without_connection() {
	awk -F, '
		$1 != "apiserverbackend" || $2 == "BACKEND" { next }
		NR == FNR { before[$2] = $8; next }
		$18 ~ /^UP/ && $8 == before[$2] { found = 1 }
		END { exit !found }' <(echo "$1") <(echo "$2")
}

# Whether HAProxy's file is the packaged one, or that with the lab's part behind it, or else how it differs;
# comments and spaces apart.
lab_configuration() {
	local own=/etc/haproxy/haproxy.cfg packaged=/usr/share/ha-lab/haproxy.packaged.cfg said
	if cmp -s "$packaged" "$own"; then
		echo packaged
	elif said=$(diff -bB <(cat "$packaged" "$HERE/haproxy.cfg" | without_comments) <(without_comments <"$own")); then
		echo the lab\'s
	else
		grep '^[<>]' <<<"$said" | head -n 4
	fi
}

without_comments() { sed 's/^[[:space:]]*#.*//'; }

# Where the address is that load balancers share, as this machine has it: `holds MAC` if that is here, else `sees MAC` by
# its neighbour table, after a connection that makes the kernel look. Without a MAC it does not know.
virtual_address() {
	local interface
	interface=$(interface_with "$VIRTUAL_ADDRESS")
	if [[ -n $interface ]]; then
		echo "holds $(cat "/sys/class/net/$interface/address")"
	else
		bounded "$HERE/reach.sh" --api >/dev/null 2>&1 || true # errors would be part of the answer
		echo "sees $(ip -4 neighbour show to "$VIRTUAL_ADDRESS" | sed -n 's/.* lladdr \([0-9a-f:]*\) .*/\1/p')"
	fi
}

listening() { ss -Hltn "sport = :${API_ENDPOINT##*:}"; }

# What this machine's parts answer when their metrics are asked for at its address on the lab's network, without a
# certificate and with one of those who may read them: `NAME anonymous|certificate STATUS WORDS`. HTTP's status is 000
# without an answer. One process for all.
metrics() {
	{
		[[ $NODE_ROLE != control-plane ]] || {
			ask_for_metrics kube-controller-manager https 10257
			ask_for_metrics kube-scheduler https 10259
		}
		! runs_etcd || ask_for_metrics etcd https 2379
		[[ $NODE_ROLE != control-plane ]] || ask_for_metrics kube-proxy http 10249
	} | sed '$d' | timeout --kill-after 1 $((2 * PATIENCE)) curl --parallel --parallel-immediate --config - 2>/dev/null || true
}

# Blocks of curl's configuration, each with what separates it from the next one. The certificates of controller manager
# and scheduler are new each time that they start. The front proxy's certificate may name who asks
# (kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer); the group is the one that may read metrics.
ask_for_metrics() {
	local who
	for who in anonymous certificate; do
		echo "url = \"$2://$NODE_ADDRESS:$3/metrics\""
		printf 'write-out = "%s %s %%{http_code} %%{errormsg}\\n"\n' "$1" "$who"
		printf '%s\n' 'output = "/dev/null"' "max-time = $((2 * PATIENCE - 2))" insecure silent
		if [[ $who == certificate && $1 == etcd ]]; then
			printf '%s\n' "cert = \"$PKI/etcd/healthcheck-client.crt\"" "key = \"$PKI/etcd/healthcheck-client.key\""
		elif [[ $who == certificate ]]; then
			printf '%s\n' "cert = \"$PKI/front-proxy-client.crt\"" "key = \"$PKI/front-proxy-client.key\"" \
				'header = "X-Remote-User: ha-lab"' 'header = "X-Remote-Group: system:monitoring"'
		fi
		echo next
	done
}

programs() {
	local name
	for name in kubeadm kubelet kubectl etcdctl; do command -v "$name"; done
}

images() { bounded ctr --namespace k8s.io images list --quiet; }

load_balancer() {
	local units=(haproxy.service ha-lab-network.service)
	! shares_address || units+=(keepalived.service)
	tell services services "${units[@]}"
	tell configuration bounded haproxy -c -f /etc/haproxy/haproxy.cfg
	tell lab-configuration lab_configuration
	tell unread unread_by_haproxy
	tell listening listening
	tell backends haproxy_at_rest
	tell spread connections_spread
	tell certificates certificates /etc/haproxy/kubernetes-ca.crt
	! shares_address || tell keepalived-configuration keepalived_accepts "$KEEPALIVED_CONF"
	! shares_address || tell keepalived-files differing_files
}

kubernetes_node() {
	tell services services kubelet.service containerd.service ha-lab-network.service ha-lab-dns.service
	tell membership membership
	tell kubeadm pgrep -x kubeadm # whether it is running; its arguments might contain a token
	tell kubelet-error kubelet_error
	tell kubelet-server servers_in "$KUBELET"
	tell kernel kernel
	tell cgroup-drivers cgroup_drivers
	tell pod-network-interface ip -brief link show dev flannel.1
	[[ $NETWORK_POLICY != none ]] || tell policy-chains policy_chains
	tell certificates certificates /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt /etc/kubernetes/*.conf \
		/var/lib/kubelet/pki/kubelet-{client,server}-current.pem
}

etcd_machine() {
	tell services services kubelet.service containerd.service ha-lab-network.service
	tell membership membership
	tell kubelet-error kubelet_error
	tell certificates certificates "$PKI"/etcd/*.crt
	tell open-keys open_keys
	tell metrics metrics
	etcd_member
}

etcd_member() {
	tell etcd-members own_member_says "$PATIENCE" member list
	tell etcd-status own_member_says "$PATIENCE" endpoint status
	tell etcd-health own_member_says "$PATIENCE" endpoint health
	tell etcd-alarms own_member_says "$PATIENCE" alarm list
	# Only on request: from what this member has stored itself, for when etcd has no majority that could agree on a list.
	((${#WANTED[@]} == 0)) || tell etcd-stored-members own_member_says "$PATIENCE" member list --consistency s
}

control_plane() {
	tell programs programs
	tell images images
	tell ca-key find "$PKI/ca.key"
	tell admin-server servers_in "$ADMIN"
	tell endpoint endpoint
	tell open-keys open_keys
	tell metrics metrics
	tell service-account-key sha256sum /etc/kubernetes/pki/sa.pub
	! runs_etcd || etcd_member
	# Only on request: it takes a second of CPU, and all control planes would say the same.
	((${#WANTED[@]} == 0)) || tell unfinished unfinished
}

main() {
	local name
	set +e
	trap - ERR
	tell script own_scripts
	tell here here
	tell given given
	tell identity identity
	tell left-by-runs left_by_runs
	tell logins cat /home/vagrant/.ssh/authorized_keys
	tell reach bounded "$HERE/reach.sh"
	! shares_address || tell virtual-address virtual_address
	case $NODE_ROLE in
	load-balancer) load_balancer ;;
	etcd) etcd_machine ;;
	*) kubernetes_node ;;
	esac
	[[ $NODE_ROLE != control-plane ]] || control_plane
	wait
	for name in "${asked[@]}"; do
		echo "== $name $(<"$ANSWERS/$name.code")"
		cat "$ANSWERS/$name"
		echo
	done
	echo "== clock 0"
	date +%s.%N
}

main
