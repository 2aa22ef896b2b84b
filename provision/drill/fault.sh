#!/bin/bash
# One fault on one machine: `fault.sh FAULT inject|heal [WORD…]`, from standard input, as root. `heal`
# reverts the fault. Without a fault it changes nothing, so it is always safe to run.
set -euo pipefail

readonly MANIFESTS=/etc/kubernetes/manifests PARKED=/etc/kubernetes/parked-by-drill
readonly CHAIN=HA-LAB-DRILL WRITES=4

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

# Certificates that end $2 seconds from now, in place of those that kubeadm has made here
# (kubeadm-config.v1beta4, certificateValidityPeriod). The cluster's own configuration stays, and so renewing them reverts
# this: renew-certificates.sh.
certificates_short_lived() {
	local config
	[[ $1 == inject ]] || return 0
	config=$(mktemp /run/kubeadm.XXXXXX)
	# shellcheck disable=SC2064 # this very file
	trap "rm -f '$config'" EXIT
	# Without a version kubeadm would ask the network for the newest.
	printf '%s\n' "apiVersion: kubeadm.k8s.io/v1beta4" "kind: ClusterConfiguration" \
		"kubernetesVersion: $(kubeadm version --output short)" "certificateValidityPeriod: $2s" >"$config"
	kubeadm certs renew all --config "$config" >/dev/null
}

"$@"
