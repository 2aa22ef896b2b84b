#!/bin/bash
# One fault on one machine: `fault.sh FAULT inject|heal [WORD…]`, from standard input, as root. `heal`
# reverts the fault. Without a fault it changes nothing, so it is always safe to run.
set -euo pipefail

readonly MANIFESTS=/etc/kubernetes/manifests PARKED=/etc/kubernetes/parked-by-drill
readonly INIT=/opt/ha-lab/kubeadm-init.yaml
readonly CHAIN=HA-LAB-DRILL WRITES=4
readonly ETCD_MANIFEST=$MANIFESTS/etcd.yaml ETCD_DATA=/var/lib/etcd/member
# Where recover.sh looks for manifests (ASIDE).
readonly FOR_RECOVERY=/etc/kubernetes/aside-by-recovery
readonly QUOTA_ROOM=$((16 * 1048576)) FILLING=/ha-lab-drill/filling # bytes; a key that no API server reads

# The kubelet stops a static pod whose manifest is gone, and starts it when it is back (kubernetes.io,
# "Create static Pods").
api_server_stopped() {
	case $1 in
	inject) mkdir -p "$PARKED" && mv "$MANIFESTS/kube-apiserver.yaml" "$PARKED/" ;;
	heal) [[ ! -e $PARKED/kube-apiserver.yaml ]] || mv "$PARKED/kube-apiserver.yaml" "$MANIFESTS/" ;;
	esac
}

# The kernel still accepts connections for a frozen process: only a check that needs a response over TLS
# detects it.
api_server_frozen() {
	case $1 in
	inject) pkill -STOP -x kube-apiserver ;;
	heal) pkill -CONT -x kube-apiserver || true ;;
	esac
}

# Two seconds, in which a busy host gives it no time.
api_server_stalled() {
	trap 'pkill -CONT -x kube-apiserver || true' EXIT
	[[ $1 == heal ]] || { pkill -STOP -x kube-apiserver && sleep 2; }
}

# The disk under etcd takes a few writes a second and no more, so that each fsync lasts half a second and
# longer. Kernel: admin-guide/cgroup-v1/blkio-controller, "Throttling/Upper limit policy"; cgroup-v2, "io.max".
etcd_disk_slowed() {
	local device group pid
	pid=$(pgrep -o -x etcd) || {
		[[ $1 == heal ]] && return
		echo "etcd does not run here" >&2
		exit 1
	}
	device=$(mountpoint -d /var/lib/etcd)
	# A partition is throttled as its whole disk.
	[[ ! -e /sys/dev/block/$device/partition ]] || device=$(<"/sys/dev/block/$device/../dev")
	[[ -e /sys/dev/block/$device ]] || {
		[[ $1 == heal ]] && return
		echo "the disk under etcd ($device) is none that a cgroup can slow" >&2
		exit 1
	}
	if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
		group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
		echo "$device wiops=$([[ $1 == inject ]] && echo "$WRITES" || echo max)" >"$group/io.max"
	else
		group=/sys/fs/cgroup/blkio$(sed -n 's/^[0-9]*:blkio://p' "/proc/$pid/cgroup")
		echo "$device $([[ $1 == inject ]] && echo "$WRITES" || echo 0)" >"$group/blkio.throttle.write_iops_device"
	fi
}

# All packets to and from the given addresses are dropped, both ways.
partitioned() {
	local action=$1 way
	shift
	for way in INPUT OUTPUT FORWARD; do
		iptables -w -D "$way" -j "$CHAIN" 2>/dev/null || true
	done
	iptables -w -F "$CHAIN" 2>/dev/null || true
	iptables -w -X "$CHAIN" 2>/dev/null || true
	[[ $action == inject ]] || return 0
	iptables -w -N "$CHAIN"
	for address; do
		iptables -w -A "$CHAIN" -s "$address" -j DROP
		iptables -w -A "$CHAIN" -d "$address" -j DROP
	done
	for way in INPUT OUTPUT FORWARD; do
		iptables -w -I "$way" -j "$CHAIN"
	done
}

haproxy_stopped() {
	case $1 in
	inject) systemctl stop haproxy ;;
	heal) systemctl start haproxy ;;
	esac
}

# The two load balancers no longer hear each other; all else passes (VRRP is IP protocol 112).
vrrp_blocked() {
	local way
	for way in INPUT OUTPUT; do
		iptables -w -D "$way" -p 112 -j DROP 2>/dev/null || true
		[[ $1 == heal ]] || iptables -w -I "$way" -p 112 -j DROP
	done
}

# The address moves as before a planned stop of this machine.
address_given_up() {
	case $1 in
	inject) /opt/ha-lab/give-up-address.sh ;;
	heal) /opt/ha-lab/load-balancer.sh ;;
	esac
}

# Replaces kubeadm's certificates here with ones that expire $2 seconds from now (kubeadm-config.v1beta4,
# certificateValidityPeriod). The cluster's own configuration does not change, so renewing them reverts this:
# renew-certificates.sh.
certificates_short_lived() {
	local config
	[[ $1 == inject ]] || return 0
	config=$(mktemp /run/kubeadm.XXXXXX)
	# shellcheck disable=SC2064 # this very file
	trap "rm -f '$config'" EXIT
	# Without a version, kubeadm would look up the newest on the network.
	printf '%s\n' "apiVersion: kubeadm.k8s.io/v1beta4" "kind: ClusterConfiguration" \
		"kubernetesVersion: $(kubeadm version --output short)" "certificateValidityPeriod: $2s" >"$config"
	# Where etcd has machines of its own, kubeadm finds no files of it here.
	! grep -q '^  external:$' "$INIT" || sed -n '/^etcd:$/,/^---$/ { /^---$/d; p }' "$INIT" >>"$config"
	kubeadm certs renew all --config "$config" >/dev/null
}

# etcd ends and its data is deleted, as if the disk had failed. Only a recovery reverts that.
etcd_data_lost() {
	[[ $1 == inject ]] || return 0
	mkdir -p "$FOR_RECOVERY"
	[[ ! -e $ETCD_MANIFEST ]] || mv "$ETCD_MANIFEST" "$FOR_RECOVERY/"
	pkill -KILL -x etcd || true
	within 90 "etcd ends" not_running etcd
	rm -rf "$ETCD_DATA"
}

# The database of this member may grow by this much (etcd, "Maintenance", space quota).
etcd_quota_small() {
	local quota=
	[[ $1 == heal ]] || quota=$(($(stat --format %s "$ETCD_DATA/snap/db") + QUOTA_ROOM))
	sed '/--quota-backend-bytes=/d' "$ETCD_MANIFEST" >/etc/kubernetes/etcd.yaml.drill
	[[ -z $quota ]] ||
		sed -i "s/^\( *\)- etcd\$/&\n\1- --quota-backend-bytes=$quota/" /etc/kubernetes/etcd.yaml.drill
	if ! cmp -s /etc/kubernetes/etcd.yaml.drill "$ETCD_MANIFEST"; then
		chmod 600 /etc/kubernetes/etcd.yaml.drill
		mv /etc/kubernetes/etcd.yaml.drill "$ETCD_MANIFEST"
		within 90 "etcd starts with that quota" has_quota "$quota"
		within 90 "etcd here is healthy again" own_etcd endpoint health
	fi
	rm -f /etc/kubernetes/etcd.yaml.drill
}

has_quota() {
	if [[ -n $1 ]]; then
		pgrep -f -- "^etcd .*--quota-backend-bytes=$1" >/dev/null
	else
		pgrep -x etcd >/dev/null && ! pgrep -f -- '^etcd .*--quota-backend-bytes=' >/dev/null
	fi
}

# Each write of a key keeps the former value until it is compacted. The way back is etcd's ("Maintenance"): compact, which
# frees pages; defragment, which returns them; disarm the alarm, which nothing else does.
etcd_space_filled() {
	local written revision url found
	case $1 in
	inject)
		for ((written = 0; written < 100; written++)); do
			head -c 1000000 /dev/urandom | own_etcd put "$FILLING" >/dev/null 2>&1 || break
		done
		[[ $(own_etcd alarm list) == *NOSPACE* ]] || {
			echo "etcd raised no alarm NOSPACE after $written MB" >&2
			exit 1
		}
		;;
	heal)
		found=$(own_etcd get "$FILLING" --keys-only && own_etcd alarm list)
		[[ -n $found ]] || return 0
		own_etcd del "$FILLING" >/dev/null
		revision=$(own_etcd endpoint status --write-out json | sed 's/.*"revision":\([0-9]*\).*/\1/')
		own_etcd compact "$revision" >/dev/null || true # an API server may have compacted it just now
		for url in $(members | cut -d' ' -f3); do etcd_at "$url" --command-timeout 60s defrag >/dev/null; done
		own_etcd alarm disarm >/dev/null
		;;
	esac
}

# etcd works as version $2 does, and so members of it may join (etcd, "Downgrade etcd from v3.7 to v3.6"). It ends by itself
# once all members are of that version; then there is nothing to cancel.
etcd_downgrade_enabled() {
	local said
	case $1 in
	inject)
		own_etcd downgrade validate "$2"
		own_etcd downgrade enable "$2"
		;;
	heal)
		said=$(own_etcd downgrade cancel 2>&1) || [[ $said == *"no inflight downgrade job"* ]] || {
			echo "$said" >&2
			exit 1
		}
		;;
	esac
}

# The member is removed with its data, and a new one is added for this machine: as a learner that is promoted once it has
# caught up (etcd, "Runtime reconfiguration" and "Learner"). The API server that uses it is stopped meanwhile; where etcd has
# machines of its own, none does so alone.
etcd_member_replaced() {
	local pod own
	if [[ $1 == inject ]]; then
		mkdir -p "$PARKED"
		for pod in kube-apiserver etcd; do
			[[ ! -e $MANIFESTS/$pod.yaml ]] || mv "$MANIFESTS/$pod.yaml" "$PARKED/"
			within 90 "$pod ends" not_running "$pod"
		done
		own=$(own_member)
		[[ -z $own ]] || other_members member remove "${own%% *}"
		rm -rf "$ETCD_DATA"
		return
	fi
	if [[ -e $PARKED/etcd.yaml ]]; then
		# The data of a removed member is useless. If etcd does not answer, the script ends here, and deletes nothing.
		own=$(own_member)
		[[ -n $own ]] || rm -rf "$ETCD_DATA"
		[[ -d $ETCD_DATA ]] || join_as_learner
		mv "$PARKED/etcd.yaml" "$ETCD_MANIFEST"
	fi
	within 120 "the new member votes" promoted
	[[ ! -e $PARKED/kube-apiserver.yaml ]] || mv "$PARKED/kube-apiserver.yaml" "$MANIFESTS/"
	[[ ! -e $MANIFESTS/kube-apiserver.yaml ]] || within 180 "the API server here is ready again" answers
}

join_as_learner() {
	local cluster
	[[ -n $own ]] ||
		other_members member add "$(own_name)" --learner --peer-urls "$(own_peer)" >/dev/null
	# One that was added and never started has no name yet.
	cluster=$(members | awk -v name="$(own_name)" '{ print ($2 == "-" ? name : $2) "=" $4 }' | paste -sd ,)
	sed -i "/--initial-cluster-state=/d
		s#--initial-cluster=.*#--initial-cluster=$cluster#
		s/^\( *\)- etcd\$/&\n\1- --initial-cluster-state=existing/" "$PARKED/etcd.yaml"
}

promoted() {
	local id learner
	read -r id learner < <(own_member) || return 1
	[[ $learner == false ]] || other_members member promote "$id" >/dev/null 2>&1
}

etcd_at() {
	etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt \
		--key /etc/kubernetes/pki/etcd/healthcheck-client.key --endpoints "$@"
}
own_etcd() { etcd_at https://127.0.0.1:2379 "$@"; }
# Of the other members: a learner refuses these requests.
other_members() { etcd_at "$(setting ETCD_ENDPOINTS | tr , '\n' | grep -vF "//$(setting NODE_ADDRESS):" | paste -sd ,)" "$@"; }
setting() { sed -n "s/^$1=//p" /opt/ha-lab/node.env | tr -d "'"; }
own_name() { setting NODE_NAME; }
own_peer() { echo "https://$(setting NODE_ADDRESS):2380"; }
# ID, name or -, client URL or -, peer URL, learner: a line for each member.
members() {
	other_members member list --write-out simple |
		awk -F', ' '{ print $1, ($3 == "" ? "-" : $3), ($5 == "" ? "-" : $5), $4, $6 }'
}
own_member() { members | awk -v name="$(own_name)" -v peer="$(own_peer)" '$2 == name || $4 == peer { print $1, $5 }'; }

not_running() { ! pgrep -x "${1:0:15}" >/dev/null; } # the kernel keeps 15 characters of a name

# What an API server says of itself when it is ready has etcd's answer in it. Its certificate names the node, not
# localhost.
answers() {
	curl --silent --fail --max-time 3 --cacert /etc/kubernetes/pki/ca.crt --output /dev/null \
		"https://$HOSTNAME:6443/readyz"
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
	local seconds=$1 what=$2 deadline
	shift 2
	deadline=$((SECONDS + seconds))
	until "$@"; do
		((SECONDS < deadline)) || {
			echo "$what: not within $seconds s" >&2
			exit 1
		}
		sleep 0.3
	done
}

"$@"
